//! What a call costs if the policy does nothing: it takes the first host.

use super::{Lab, scene, timed};
use crate::figures::{Figures, median};
use plugins_conformance::specimen::Specimen;
use plugins_runtime::Kind;
use plugins_runtime::placement::{Choice, PlacementQuestion, Snapshot, Verdict};
use std::hint::black_box;

const CALLS: u32 = 5_000;

pub(super) fn run(lab: &Lab, rounds: usize, figures: &mut Figures) -> anyhow::Result<()> {
    let policy = lab.specimen(&Specimen::new(Kind::Placement))?;
    let hosts = scene::snapshot(100)?;
    let question = PlacementQuestion { image_cached_bytes: Default::default(), ..scene::question(100) };
    let (mut guest, mut native) = (Vec::new(), Vec::new());
    // The first calls find cold caches.
    for round in 0..=rounds {
        let (guest_us, answered) =
            timed(|| (0..CALLS).try_for_each(|_| policy.place_among(&hosts, black_box(&question)).map(drop)));
        answered?;
        let (native_us, ()) =
            timed(|| (0..CALLS).for_each(|_| drop(black_box(first(&hosts, black_box(&question))))));
        if round > 0 {
            guest.push(guest_us / f64::from(CALLS));
            native.push(native_us / f64::from(CALLS));
        }
    }
    let added: Vec<f64> = guest.iter().zip(&native).map(|(guest, native)| guest - native).collect();
    figures.add(
        "call_added_us",
        median(&guest) - median(&native),
        &added,
        &format!(
            "processor time of one decision by a policy that takes the first of 100 hosts, in a fresh instance, checked, \
             digested and dropped {:.2} us − the same as a native function {:.2} us; {CALLS} calls a round",
            median(&guest),
            median(&native)
        ),
    );
    Ok(())
}

/// What the guest does, natively.
fn first(hosts: &Snapshot, question: &PlacementQuestion) -> Option<Verdict> {
    let host = hosts.name(u32::from(question.request.choices_max > 64))?.to_owned();
    Some(Verdict::Place {
        choices: vec![Choice { host, score: 1.0, reasons: Vec::new() }],
        rejections: Vec::new(),
    })
}
