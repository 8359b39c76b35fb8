//! How long an endless loop lasts.

use super::{Lab, scene};
use crate::figures::{Figures, median};
use plugins_conformance::specimen::Specimen;
use plugins_runtime::{Kind, PolicyError, thread_time};

const LOOPS: usize = 10;

pub(super) fn run(lab: &Lab, rounds: usize, figures: &mut Figures) -> anyhow::Result<()> {
    let policy = lab.specimen(&Specimen::that(Kind::Placement, "(loop $again (br $again))"))?;
    let (hosts, question) = (scene::snapshot(10)?, scene::question(10));
    let deadline_ms = lab.runtime.limits().deadline_ms;
    let mut all = Vec::new();
    for _ in 0..rounds {
        let mut times = Vec::new();
        for _ in 0..LOOPS {
            let began = thread_time();
            let ended = policy.place_among(&hosts, &question);
            let error = ended.err().map(|error| matches!(error, PolicyError::Deadline { .. }));
            anyhow::ensure!(error == Some(true), "an endless loop was not ended at its deadline");
            times.push((thread_time() - began).as_secs_f64() * 1e3);
        }
        all.push(median(&times));
    }
    #[expect(clippy::cast_precision_loss, reason = "a deadline in milliseconds")]
    let deadline = deadline_ms as f64;
    let shares: Vec<f64> = all.iter().map(|took_ms| took_ms / deadline).collect();
    figures.add(
        "loop_containment_vs_deadline",
        median(&all) / deadline,
        &shares,
        &format!(
            "processor time until an endless loop is ended and its instance gone {:.2} ms ÷ deadline {deadline_ms} ms; \
             median of {LOOPS} a round",
            median(&all)
        ),
    );
    Ok(())
}
