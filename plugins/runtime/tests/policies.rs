//! The first-party policies, as the components that are shipped.

#![allow(clippy::unwrap_used, reason = "a test panics when it fails")]

mod support;

use plugins_runtime::placement::{HostState, PlacementInput, Verdict};
use plugins_runtime::{Limits, Policy, Runtime};
use proptest::prelude::*;
use serde_json::json;
use std::sync::{Arc, LazyLock};
use support::{GIB, input, runtime};

struct Policies {
    balanced: Arc<Policy>,
    packed: Arc<Policy>,
}

static POLICIES: LazyLock<Policies> = LazyLock::new(|| {
    let (runtime, _folder) = runtime(Limits::default());
    let built = xtask::policies::build(None).unwrap().policies;
    let load = |name: &str| {
        let policy = built.iter().find(|policy| policy.name == name).unwrap();
        load(&runtime, &std::fs::read(&policy.path).unwrap())
    };
    Policies { balanced: load("balanced"), packed: load("packed") }
});

fn load(runtime: &Runtime, bytes: &[u8]) -> Arc<Policy> {
    runtime.load(bytes).unwrap()
}

fn first(policy: &Policy, input: &PlacementInput) -> String {
    match policy.place(input).unwrap().verdict {
        Verdict::Place { choices, .. } => choices[0].host.clone(),
        other => panic!("{other:?}"),
    }
}

/// The demo's second placement: the deployment's gateway runs on `host-0` already.
fn after_the_gateway() -> PlacementInput {
    let mut input = input(2);
    input.hosts.memory_free_bytes[0] -= GIB;
    input.hosts.cpu_free_milli[0] -= 1000;
    input.hosts.instance_counts[0] = 1;
    input.hosts.peers[0] = 1;
    input
}

#[test]
fn one_spreads_and_one_packs() {
    let input = after_the_gateway();
    assert_eq!(first(&POLICIES.balanced, &input), "host-1");
    assert_eq!(first(&POLICIES.packed, &input), "host-0");
}

#[test]
fn a_choice_explains_itself() {
    let decision = POLICIES.balanced.place(&after_the_gateway()).unwrap();
    let Verdict::Place { choices, .. } = &decision.verdict else { panic!("{decision:?}") };
    for choice in choices {
        let sum: f64 = choice.reasons.iter().map(|reason| reason.weight).sum();
        assert!((sum - choice.score).abs() < 1e-9, "{choice:?}");
    }
    let codes: Vec<_> = choices[0].reasons.iter().map(|reason| reason.code.as_str()).collect();
    assert!(codes.contains(&"apart-from-peers") && codes.contains(&"image-present"), "{codes:?}");
    assert!(choices[0].reasons.iter().any(|reason| reason.text.contains("lyon")));
}

#[test]
fn a_decision_survives_its_storage() {
    let decision = POLICIES.balanced.place(&after_the_gateway()).unwrap();
    let text = serde_json::to_string(&decision).unwrap();
    assert_eq!(serde_json::from_str::<plugins_runtime::placement::Decision>(&text).unwrap(), decision);
    let input = after_the_gateway();
    let stored: PlacementInput = serde_json::from_str(&serde_json::to_string(&input).unwrap()).unwrap();
    assert_eq!(stored.digest(), decision.input_digest);
}

#[test]
fn a_full_cluster_is_deferred_with_its_obstacles() {
    let mut input = input(3);
    input.hosts.states[0] = HostState::Draining;
    input.hosts.memory_free_bytes[1] = 0;
    input.hosts.cpu_free_milli[2] = 0;
    for policy in [&POLICIES.balanced, &POLICIES.packed] {
        let Verdict::Defer { rejections, .. } = policy.place(&input).unwrap().verdict else {
            panic!("it was not deferred");
        };
        let found: Vec<_> = rejections.iter().map(|r| (r.code.as_str(), r.examples[0].as_str())).collect();
        let expected =
            [("not-ready", "host-0"), ("too-little-memory", "host-1"), ("too-little-cpu", "host-2")];
        assert_eq!(found, expected);
    }
}

#[test]
fn volumes_keep_an_instance_on_their_host() {
    let mut input = input(3);
    input.request.pinned_host = Some("host-2".to_owned());
    assert_eq!(first(&POLICIES.balanced, &input), "host-2");
    assert_eq!(first(&POLICIES.packed, &input), "host-2");
}

#[test]
fn settings_change_the_choice() {
    let mut input = after_the_gateway();
    input.hosts.image_cached_bytes[0] = GIB;
    assert_eq!(first(&POLICIES.balanced, &input), "host-1");
    input.settings = json!({"apart": 0, "image": 1000});
    assert_eq!(first(&POLICIES.balanced, &input), "host-0");
}

#[test]
fn settings_are_judged_by_the_policy() {
    let policy = &POLICIES.balanced;
    assert_eq!(policy.validate_settings(&json!({"apart": 10})), Ok(()));
    let issues = policy.validate_settings(&json!({"apart": -1, "site": 5000})).unwrap_err();
    let paths: Vec<_> = issues.iter().map(|issue| issue.path.as_str()).collect();
    assert_eq!(paths, ["/apart", "/site"]);
    let issues = policy.validate_settings(&json!({"appart": 10})).unwrap_err();
    assert!(issues[0].message.contains("unknown field `appart`"), "{issues:?}");
    assert!(policy.validate_settings(&json!([])).is_err());
}

#[test]
fn a_manifest_says_what_the_policy_is() {
    let manifest = POLICIES.packed.manifest();
    assert_eq!((manifest.name.as_str(), manifest.version.as_str()), ("packed", "0.1.0"));
    assert_eq!(manifest.settings_schema["properties"]["spare"]["maximum"], json!(0.9));
}

#[test]
fn the_largest_cluster_fits_the_limits() {
    let input = input(plugins_runtime::placement::HOSTS_MAX);
    for policy in [&POLICIES.balanced, &POLICIES.packed] {
        policy.place(&input).unwrap();
    }
}

#[test]
fn a_second_runtime_takes_compiled_code_from_the_cache_and_answers_the_same() {
    let built = xtask::policies::build(None).unwrap().policies;
    let bytes = std::fs::read(&built[0].path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let answer = || {
        let runtime = Runtime::new(Limits::default(), folder.path()).unwrap();
        load(&runtime, &bytes).place(&after_the_gateway()).unwrap().verdict
    };
    assert_eq!(answer(), answer());
}

fn any_input() -> impl Strategy<Value = PlacementInput> {
    let host = (0..16u64, 0..=4000u32, 0..3u32, 0..=100u8, any::<bool>());
    (proptest::collection::vec(host, 0..12), any::<u32>()).prop_map(|(hosts, seed)| {
        let mut input = input(hosts.len());
        input.seed = seed;
        for (row, (memory, cpu, peers, load, cached)) in hosts.into_iter().enumerate() {
            input.hosts.memory_free_bytes[row] = memory * GIB / 2;
            input.hosts.cpu_free_milli[row] = cpu;
            input.hosts.peers[row] = peers;
            input.hosts.loads[row] = f32::from(load) / 100.0;
            input.hosts.image_cached_bytes[row] = if cached { GIB } else { 0 };
        }
        input
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_same_input_gives_the_same_verdict_and_only_hosts_with_room(input in any_input()) {
        for policy in [&POLICIES.balanced, &POLICIES.packed] {
            let verdict = policy.place(&input).unwrap().verdict;
            prop_assert_eq!(&verdict, &policy.place(&input).unwrap().verdict);
            if let Verdict::Place { choices, .. } = verdict {
                for choice in choices {
                    let row = input.hosts.names.iter().position(|name| *name == choice.host).unwrap();
                    prop_assert!(input.hosts.memory_free_bytes[row] >= input.request.memory_bytes);
                    prop_assert!(input.hosts.cpu_free_milli[row] >= input.request.vcpus_milli);
                }
            }
        }
    }
}
