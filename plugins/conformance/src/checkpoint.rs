//! Questions to checkpoint policies.

use crate::cases::{Answer, Case};
use crate::update::{self, NOW_MS};
use plugins_runtime::State;
use plugins_runtime::checkpoint::{Cause, Checkpoint, CheckpointInput, Subject, Verified};
use plugins_runtime::instances::InstanceState;
use types::Revision;

const HOUR_MS: u64 = 3_600_000;
const GIB: u64 = 1 << 30;
const SIZES: [u32; 3] = [100, 1_000, 10_000];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("no checkpoint", &deployment(0)),
        case("one checkpoint", &deployment(1)),
        case(
            "no instance and no checkpoint",
            &with(0, |input| input.instances = update::rollout(0).instances),
        ),
        case("checkpoints that are all pinned", &with(9, |input| input.checkpoints.pinned.fill(true))),
        case(
            "checkpoints that are all damaged",
            &with(9, |input| {
                input.checkpoints.verified.fill(Verified::Damaged);
            }),
        ),
        case("checkpoints that persons took", &with(9, |input| input.checkpoints.causes.fill(Cause::Person))),
        case("no quota", &with(9, |input| input.subject.quota_bytes = 0)),
        case("a quota that is long used up", &with(9, |input| input.subject.quota_bytes = 1)),
        case(
            "instances that do not run",
            &with(9, |input| {
                input.instances.states.fill(InstanceState::Stopped);
                input.instances.started_ms.fill(0);
            }),
        ),
        case("much that was written", &with(9, |input| input.instances.dirty_bytes.fill(1 << 50))),
        case(
            "a checkpoint from the future",
            &with(9, |input| {
                input.checkpoints.taken_ms.iter_mut().for_each(|taken_ms| *taken_ms += 1000 * HOUR_MS);
            }),
        ),
        case(
            "a state that it did not write",
            &with(9, |input| input.state = State(b"\xff{not mine".to_vec())),
        ),
        case(
            "an attribute that no policy knows",
            &with(9, |input| {
                input.subject.attributes.insert("nobody/knows".into(), "x".into());
            }),
        ),
    ];
    cases.extend(SIZES.map(|size| case(&format!("{size} checkpoints"), &deployment(size)).sized(size)));
    cases
}

/// A deployment of two instances with one checkpoint an hour.
pub(crate) fn deployment(checkpoints: u32) -> CheckpointInput {
    let checkpoint = |row: u32| Checkpoint {
        name: format!("checkpoint-{row:05}"),
        taken_ms: NOW_MS - HOUR_MS * u64::from(checkpoints - row),
        size_bytes: GIB + u64::from(row),
        with_memory: row.is_multiple_of(2),
        cause: Cause::Policy,
        pinned: row % 10 == 3,
        verified: Verified::Never,
    };
    CheckpointInput {
        decision_id: "conformance".into(),
        seed: 7,
        now_ms: NOW_MS,
        revision: Revision(1),
        settings: serde_json::Value::Null,
        subject: Subject {
            deployment: "team-00000".into(),
            created_ms: NOW_MS - 20_000 * HOUR_MS,
            used_bytes: GIB * u64::from(checkpoints),
            quota_bytes: 100 * GIB,
            ..Subject::default()
        },
        instances: update::rollout(2).instances,
        checkpoints: (0..checkpoints).map(checkpoint).collect(),
        state: State::default(),
    }
}

fn with(checkpoints: u32, change: impl FnOnce(&mut CheckpointInput)) -> CheckpointInput {
    let mut input = deployment(checkpoints);
    change(&mut input);
    input
}

fn case(name: &str, input: &CheckpointInput) -> Case {
    let input = input.clone();
    Case::new(name, move |policy| {
        let decision = policy.schedule(&input)?;
        let plan = &decision.verdict;
        let takes = if plan.take.is_some() { "takes one" } else { "takes none" };
        Ok(Answer::of(&decision, format!("{takes}, drops {}", plan.discards.len())))
    })
}
