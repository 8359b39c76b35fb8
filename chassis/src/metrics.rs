//! Prometheus metrics of the process, as text.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::sync::OnceLock;

/// Upper bounds in seconds of how long policies take: 25 us is a small one, 50 ms the deadline of most kinds.
const POLICY_SECONDS: [f64; 11] =
    [0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 2.0];

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the process's recorder at the first call and returns a handle that renders it.
pub fn recorder() -> PrometheusHandle {
    RECORDER
        .get_or_init(|| {
            let policies = Matcher::Full("collective_policy_seconds".to_owned());
            // Only an empty list of bounds is refused.
            let recorder = PrometheusBuilder::new()
                .set_buckets_for_metric(policies, &POLICY_SECONDS)
                .unwrap_or_else(|_| PrometheusBuilder::new())
                .build_recorder();
            let handle = recorder.handle();
            // Another recorder can only have been installed by a test; its numbers then go there.
            let _ = metrics::set_global_recorder(recorder);
            handle
        })
        .clone()
}

/// A router with `GET /metrics` (text format 0.0.4).
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let handle = recorder();
    Router::new().route(
        "/metrics",
        get(move || {
            let handle = handle.clone();
            async move {
                handle.run_upkeep();
                ([(CONTENT_TYPE, "text/plain; version=0.0.4")], handle.render())
            }
        }),
    )
}
