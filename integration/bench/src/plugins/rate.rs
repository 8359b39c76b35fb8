//! Decisions in a row on one core, each of which changes the host that it chose, as a placement does.

use super::{Lab, scene, timed};
use crate::figures::Figures;
use crate::say;
use plugins_runtime::placement::{HostFree, Snapshot, Verdict};
use std::sync::Arc;

const HOSTS: u32 = 5_000;
const PART: u32 = 10_000;

pub(super) fn run(lab: &Lab, calls: u32, figures: &mut Figures) -> anyhow::Result<()> {
    let policy = lab.policy("balanced")?;
    let first = scene::snapshot(HOSTS)?;
    let mut hosts = Arc::clone(&first);
    let mut question = scene::question(HOSTS);
    let mut rates = Vec::new();
    for part in 0..calls / PART {
        let (took_us, decided) = timed(|| -> anyhow::Result<()> {
            for call in 0..PART {
                question.seed = part * PART + call;
                let decision = policy.place_among(&hosts, &question)?;
                hosts = placed(&hosts, &first, &decision.verdict);
            }
            Ok(())
        });
        decided?;
        rates.push(f64::from(PART) / took_us * 1e6);
        if part.is_multiple_of(10) {
            say(&format!("{} decisions, {:.0} a second", (part + 1) * PART, rates.last().unwrap_or(&0.0)));
        }
    }
    let (Some(begin), Some(end)) = (rates.first(), rates.last()) else { anyhow::bail!("no decision") };
    let mean = f64::from(u32::try_from(rates.len())?) / rates.iter().map(|rate| 1.0 / rate).sum::<f64>();
    figures.add(
        "decisions_per_s",
        mean,
        &rates,
        &format!(
            "{} decisions by balanced over {HOSTS} hosts, all looked at, on one core by processor time; each takes its \
             room from the host that it chose, which makes a new snapshot; rounds are of {PART} decisions",
            calls / PART * PART
        ),
    );
    figures.add(
        "decisions_flatness",
        end / begin,
        &[end / begin],
        &format!("rate of the last {PART} of those decisions {end:.0}/s ÷ of the first {PART} {begin:.0}/s"),
    );
    Ok(())
}

/// The hosts after a placement. When nothing fits any more, all leave.
fn placed(hosts: &Arc<Snapshot>, first: &Arc<Snapshot>, verdict: &Verdict) -> Arc<Snapshot> {
    let Verdict::Place { choices, .. } = verdict else { return Arc::clone(first) };
    let row = choices.first().and_then(|choice| hosts.host(&choice.host));
    let Some((row, free)) = row.and_then(|row| Some((row, hosts.free(row)?))) else {
        return Arc::clone(hosts);
    };
    let left = HostFree {
        memory_bytes: free.memory_bytes.saturating_sub(4 * scene::GIB),
        disk_bytes: free.disk_bytes.saturating_sub(10 * scene::GIB),
        cpu_milli: free.cpu_milli.saturating_sub(2000),
        instances: free.instances + 1,
    };
    hosts.with_free(row, left)
}
