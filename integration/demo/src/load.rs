//! Steady load on the REST API: requests at a fixed rate, latencies from when each was due.

use crate::observe::Api;
use controller_api::rest::InstanceView;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Sends `rate` requests a second for `seconds`; milliseconds each took, counted from when it was due, so that a
/// server that stalls cannot hide it.
pub(crate) async fn run(api: &Api, rate: u32, seconds: u32) -> anyhow::Result<Vec<f64>> {
    let mut requests = JoinSet::new();
    let began = Instant::now();
    for number in 0..rate * seconds {
        let due = began + Duration::from_secs(1) * number / rate;
        tokio::time::sleep_until(due.into()).await;
        let api = api.clone();
        requests.spawn(async move {
            api.get::<Vec<InstanceView>>("/v1/instances").await.map(|_| due.elapsed().as_secs_f64() * 1000.0)
        });
    }
    requests.join_all().await.into_iter().collect()
}
