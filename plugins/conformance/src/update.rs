//! Questions to update policies.

use crate::cases::{Answer, Case};
use plugins_runtime::State;
use plugins_runtime::instances::{Health, Instance, InstanceState};
use plugins_runtime::update::{Outcome, RollStatus, Rollout, Step, UpdateInput};
use types::Revision;

pub(crate) const NOW_MS: u64 = 1_700_000_000_000;
const HOUR_MS: u64 = 3_600_000;
const SIZES: [u32; 4] = [100, 1_000, 10_000, 20_000];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("no instance", &rollout(0)),
        case("one instance", &rollout(1)),
        case(
            "instances that are all at the target",
            &with(5, |input| {
                input.instances.versions.fill(input.rollout.target.clone());
            }),
        ),
        case(
            "instances that have all failed with the target",
            &with(5, |input| roll_all(input, RollStatus::Failed)),
        ),
        case("instances that are all under way", &with(5, |input| roll_all(input, RollStatus::UnderWay))),
        case(
            "instances that are all unhealthy",
            &with(5, |input| input.instances.healths.fill(Health::Unhealthy)),
        ),
        case(
            "instances that all wait for a host",
            &with(5, |input| {
                input.instances.states.fill(InstanceState::Waiting);
                input.instances.hosts.fill(String::new());
                input.instances.sites.fill(String::new());
                input.instances.started_ms.fill(0);
            }),
        ),
        case(
            "outcomes of instances that are gone",
            &with(5, |input| {
                roll_all(input, RollStatus::Succeeded);
                input.rollout.outcomes.iter_mut().for_each(|outcome| outcome.instance.push_str("-gone"));
            }),
        ),
        case(
            "a state that it did not write",
            &with(5, |input| input.state = State(b"\xff{not mine".to_vec())),
        ),
        case("one that may be down", &with(5, |input| input.rollout.unavailable_max = 1)),
        case("a start in the future", &with(5, |input| input.rollout.started_ms = NOW_MS + HOUR_MS)),
        case(
            "an attribute that no policy knows",
            &with(5, |input| {
                input.rollout.attributes.insert("nobody/knows".into(), "x".into());
            }),
        ),
        case("the largest number of outcomes", &with(20_000, |input| roll_all(input, RollStatus::Succeeded))),
    ];
    cases.extend(SIZES.map(|size| case(&format!("{size} instances"), &rollout(size)).sized(size)));
    cases
}

/// A rollout over instances of deployments of two members on seven hosts at three sites.
pub(crate) fn rollout(instances: u32) -> UpdateInput {
    let instance = |row: u32| Instance {
        name: format!("team-{:05}/member-{}", row / 2, row % 2),
        deployment: format!("team-{:05}", row / 2),
        member: format!("member-{}", row % 2),
        host: format!("host-{}", row % 7),
        site: format!("site-{}", row % 3),
        appliance: "acme/desktop".into(),
        version: "1.0.0".into(),
        state: InstanceState::Running,
        health: Health::Healthy,
        started_ms: NOW_MS - 100 * HOUR_MS,
        memory_bytes: 4 << 30,
        dirty_bytes: u64::from(row) << 20,
        checkpointed_ms: NOW_MS - HOUR_MS,
    };
    UpdateInput {
        decision_id: "conformance".into(),
        seed: 7,
        now_ms: NOW_MS,
        revision: Revision(1),
        settings: serde_json::Value::Null,
        rollout: Rollout {
            id: "desktop-2".into(),
            appliance: "acme/desktop".into(),
            channel: "stable".into(),
            target: "2.0.0".into(),
            started_ms: NOW_MS - HOUR_MS,
            unavailable_max: 3,
            ..Rollout::default()
        },
        instances: (0..instances).map(instance).collect(),
        state: State::default(),
    }
}

fn with(instances: u32, change: impl FnOnce(&mut UpdateInput)) -> UpdateInput {
    let mut input = rollout(instances);
    change(&mut input);
    input
}

fn roll_all(input: &mut UpdateInput, status: RollStatus) {
    let outcome = |instance: &String| Outcome {
        instance: instance.clone(),
        ordered_ms: NOW_MS - HOUR_MS / 2,
        finished_ms: if status == RollStatus::UnderWay { 0 } else { NOW_MS - HOUR_MS / 4 },
        status,
        detail: String::new(),
    };
    input.rollout.outcomes = input.instances.names.iter().map(outcome).collect();
}

fn case(name: &str, input: &UpdateInput) -> Case {
    let input = input.clone();
    Case::new(name, move |policy| {
        let decision = policy.next_step(&input)?;
        let said = match &decision.verdict.step {
            Step::Proceed { rolls, cut } => {
                let mut answer = Answer::of(&decision, format!("rolls {}", rolls.len()));
                if *cut > 0 {
                    answer.unwise = Some(format!("it rolls {cut} more than may be down: they are cut"));
                }
                return Ok(answer);
            }
            Step::Hold { .. } => "holds",
            Step::Halt { .. } => "halts",
            Step::RollBack { .. } => "rolls back",
            Step::Complete { .. } => "is complete",
        };
        Ok(Answer::of(&decision, said.to_owned()))
    })
}
