//! `balanced` over ten thousand hosts: all of them, and a hundred drawn by the controller.

use super::{Lab, native, scene, timed};
use crate::figures::{Figures, median, percentile};
use plugins_runtime::Policy;
use plugins_runtime::placement::{PlacementQuestion, Snapshot};
use std::sync::Arc;

const HOSTS: u32 = 10_000;
const CALLS: u32 = 500;

pub(super) fn run(lab: &Lab, rounds: usize, figures: &mut Figures) -> anyhow::Result<()> {
    let policy = lab.policy("balanced")?;
    let hosts = scene::snapshot(HOSTS)?;
    let all = scene::question(HOSTS);
    let some = PlacementQuestion { settings: serde_json::json!({ "candidates_max": 100 }), ..all.clone() };
    let input = all.recorded(&hosts);
    let (rows, request) = (native::hosts(&input), native::request(&input));
    let (mut all_us, mut some_us, mut native_us) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        all_us.push(times(&policy, &hosts, &all)?);
        some_us.push(times(&policy, &hosts, &some)?);
        let calls = (0..CALLS / 10).map(|_| timed(|| native::place(&request, &rows).map(drop)).0);
        native_us.push(median(&calls.collect::<Vec<_>>()));
    }
    let p99 =
        |rounds: &[Vec<f64>]| -> Vec<f64> { rounds.iter().map(|times| percentile(times, 99.0)).collect() };
    let p50 = |rounds: &[Vec<f64>]| median(&rounds.concat());
    let note = |what: &str, p50: f64| {
        format!(
            "processor time of one decision by balanced over {HOSTS} hosts, {what}, in a fresh instance, 99th percentile \
             of {CALLS} calls a round, median of the rounds; median of all {p50:.0} us; the same crate natively over \
             rows {:.0} us",
            median(&native_us)
        )
    };
    let (all_99, some_99) = (p99(&all_us), p99(&some_us));
    figures.add("place_10k_p99_us", median(&all_99), &all_99, &note("all looked at", p50(&all_us)));
    figures.add(
        "place_10k_prefiltered_p99_us",
        median(&some_99),
        &some_99,
        &note("100 candidates drawn natively", p50(&some_us)),
    );
    Ok(())
}

fn times(policy: &Policy, hosts: &Arc<Snapshot>, question: &PlacementQuestion) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..CALLS {
        let (took_us, decided) = timed(|| policy.place_among(hosts, question));
        decided?;
        times.push(took_us);
    }
    Ok(times)
}
