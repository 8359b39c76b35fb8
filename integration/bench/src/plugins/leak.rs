//! What a million calls leave behind, most of them by policies that crash, grow, flood or lie.

use super::{Lab, scene};
use crate::figures::Figures;
use crate::say;
use plugins_conformance::specimen::{Specimen, declined, placed, placed_at};
use plugins_runtime::{Kind, Limits, Policy};
use std::sync::Arc;

/// Calls before the first look: pools and allocators are warm by then.
const WARM: u32 = 20_000;
/// One of so many calls is an endless loop or a memory bomb: they take milliseconds.
const SLOW_EVERY: u32 = 2_000;

pub(super) fn run(lab: &Lab, calls: u32, figures: &mut Figures) -> anyhow::Result<()> {
    // A short deadline, so that loops do not take all the time; a small memory, so that bombs do not.
    let limits = Limits { deadline_ms: 2, memory_bytes_max: 8 << 20, ..Limits::default() };
    let lab = Lab::new(&lab.policies, &lab.wit, limits)?;
    let quick = quick(&lab)?;
    let slow = slow(&lab)?;
    let (hosts, question) = (scene::snapshot(100)?, scene::question(100));
    let (mut before, mut faults) = (0.0, 0u32);
    for call in 0..calls + WARM {
        if call == WARM {
            before = resident_mb()?;
        }
        let policy = match call.checked_rem(SLOW_EVERY) {
            Some(0) => &slow[(call / SLOW_EVERY) as usize % slow.len()],
            _ => &quick[call as usize % quick.len()],
        };
        faults += u32::from(policy.place_among(&hosts, &question).is_err());
        if call.is_multiple_of(100_000) && call > 0 {
            say(&format!("{call} calls, {faults} of them failed, {:.1} MB", resident_mb()?));
        }
    }
    let growth = resident_mb()? - before;
    figures.add(
        "rss_growth_mb",
        growth.max(0.0),
        &[growth],
        &format!(
            "resident memory of the process after {calls} calls − after the {WARM} before them; {faults} failed: traps, \
             recursion, lies in pointers and texts, nonsense, floods of calls and of log lines, endless loops, memory \
             bombs and tables, among good ones"
        ),
    );
    Ok(())
}

fn quick(lab: &Lab) -> anyhow::Result<Vec<Arc<Policy>>> {
    const FLOOD: &str = "(local $left i32) (local.set $left (i32.const 300)) (loop $again
        (call $log (i32.const 4) (i32.const 8192) (i32.const 100))
        (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))";
    const LOG: &str = r#"(import "collective:policy/log@0.1.1" "write" (func $log (param i32 i32 i32)))"#;
    let that = |work: &str| Specimen::that(Kind::Placement, work);
    let answering = |answer| Specimen { answer, ..Specimen::new(Kind::Placement) };
    let specimens = [
        Specimen::new(Kind::Placement),
        that("(unreachable)"),
        that("(drop (call $decide (i32.const 0)))"),
        answering(placed(&[(100, 1.0)])),
        answering(placed(&[(0, f64::NAN)])),
        answering(placed_at(0, 1 << 28)),
        answering(declined(0, b"no")),
        answering(declined(3, b"\xff\xfe")),
        Specimen { parts: LOG.to_owned(), ..that(FLOOD) },
        Specimen::new(Kind::Placement),
    ];
    specimens.iter().map(|specimen| lab.specimen(specimen)).collect()
}

fn slow(lab: &Lab) -> anyhow::Result<Vec<Arc<Policy>>> {
    let grow = "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))";
    // What is not touched takes no memory.
    let touch = format!("{grow} (memory.fill (i32.const 0) (i32.const 1) (i32.const 8000000)) (unreachable)");
    let specimens = [
        Specimen::that(Kind::Placement, "(loop $again (br $again))"),
        Specimen::that(Kind::Placement, &touch),
        Specimen {
            parts: "(table $t 0 funcref)".to_owned(),
            ..Specimen::that(
                Kind::Placement,
                "(loop $again (br_if $again (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1))))",
            )
        },
    ];
    specimens.iter().map(|specimen| lab.specimen(specimen)).collect()
}

fn resident_mb() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    Ok(kib.ok_or_else(|| anyhow::anyhow!("the system does not say what is resident"))? / 1000.0 * 1.024)
}
