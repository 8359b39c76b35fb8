//! Policies that misbehave: each gets one typed error, and the runtime goes on as if nothing had been.

#![allow(clippy::unwrap_used, reason = "a test panics when it fails")]

mod support;

use plugins_runtime::placement::Verdict;
use plugins_runtime::{Limits, LoadError, Policy, PolicyError, Runtime};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use support::{ANSWER, Guest, declined, input, placed, placed_at, runtime};

/// One runtime for all: what one test's guest does must not show in another's.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let (runtime, folder) = runtime(Limits::default());
    // Compiled code is read at load; nothing of the folder is needed later.
    drop(folder);
    runtime
});

const LOG: &str = r#"(import "collective:policy/log@0.1.1" "write" (func $log (param i32 i32 i32)))"#;
const HOST_COUNT: &str =
    r#"(import "collective:policy/cluster@0.1.1" "host-count" (func $host_count (result i32)))"#;
const HOST_NAME: &str =
    r#"(import "collective:policy/cluster@0.1.1" "host-name" (func $host_name (param i32 i32)))"#;

fn load(guest: &Guest) -> Arc<Policy> {
    RUNTIME.load(&guest.build()).unwrap()
}

/// Asks a guest about two hosts, and a good one afterwards.
fn ask(guest: &Guest) -> Result<Verdict, PolicyError> {
    let answer = load(guest).place(&input(2)).map(|decision| decision.verdict);
    let good = load(&Guest::default()).place(&input(2)).unwrap();
    assert!(matches!(good.verdict, Verdict::Place { .. }));
    answer
}

fn with_body(place: &str) -> Guest {
    Guest { place: format!("{place} (i32.const {ANSWER})"), ..Guest::default() }
}

fn with_answer(answer: Vec<u8>) -> Guest {
    Guest { answer, ..Guest::default() }
}

fn bad_answer(guest: &Guest) -> String {
    match ask(guest) {
        Err(PolicyError::BadAnswer { detail }) => detail,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_good_answer_arrives() {
    let decision = load(&with_answer(placed(&[(1, 2.5), (0, 1.0)]))).place(&input(2)).unwrap();
    let Verdict::Place { choices, .. } = &decision.verdict else { panic!("{decision:?}") };
    let ranking: Vec<_> = choices.iter().map(|choice| (choice.host.as_str(), choice.score)).collect();
    assert_eq!(ranking, [("host-1", 2.5), ("host-0", 1.0)]);
    assert_eq!((decision.policy.as_str(), decision.policy_version.as_str()), ("hand-made", "1.2.3"));
    assert_eq!(decision.input_digest, input(2).digest());
}

#[test]
fn an_endless_loop_ends_at_the_deadline() {
    let error = ask(&with_body("(loop $again (br $again))")).unwrap_err();
    assert_eq!(error, PolicyError::Deadline { deadline_ms: 50 });
    assert_eq!(error.to_string(), "the policy was ended: it ran for more than 50 ms");
}

#[test]
fn a_memory_bomb_is_held_at_the_limit() {
    let bomb =
        "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)";
    assert_eq!(ask(&with_body(bomb)).unwrap_err(), PolicyError::Memory { bytes_max: 64 << 20 });
}

#[test]
fn a_guest_that_lives_with_a_refused_growth_may_answer() {
    let greedy = "(drop (memory.grow (i32.const 60000)))";
    assert!(ask(&with_body(greedy)).is_ok());
}

#[test]
fn a_trap_is_an_error_with_the_last_logged_words() {
    let detail = "wasm trap: wasm `unreachable` instruction executed".to_owned();
    assert_eq!(ask(&with_body("(unreachable)")).unwrap_err(), PolicyError::Trap { detail: detail.clone() });
    let mut guest = with_body("(call $log (i32.const 4) (i32.const 4160) (i32.const 4)) (unreachable)");
    guest.imports = LOG;
    guest.answer = declined(0, b"oops");
    assert_eq!(ask(&guest).unwrap_err(), PolicyError::Trap { detail: format!("{detail}: oops") });
}

#[test]
fn endless_recursion_is_a_trap() {
    let error = ask(&with_body("(drop (call $place (i32.const 0)))")).unwrap_err();
    assert_eq!(error, PolicyError::Trap { detail: "wasm trap: call stack exhausted".to_owned() });
}

#[test]
fn a_host_that_does_not_exist_is_no_choice() {
    assert_eq!(bad_answer(&with_answer(placed(&[(2, 1.0)]))), "choices[0]: there is no host 2, only 2");
}

#[test]
fn a_score_that_is_no_number_is_no_score() {
    assert_eq!(bad_answer(&with_answer(placed(&[(0, f64::NAN)]))), "choices[0]: the score is not finite");
}

#[test]
fn a_list_that_is_too_long_is_refused() {
    let many: Vec<_> = (0..9).map(|_| (0, 1.0)).collect();
    assert_eq!(bad_answer(&with_answer(placed(&many))), "choices: 9 are more than 8");
}

#[test]
fn a_huge_list_is_not_copied() {
    let mut guest = with_body("(drop (memory.grow (i32.const 600)))");
    guest.answer = placed_at(0, 1_500_000);
    assert_eq!(ask(&guest).unwrap_err(), PolicyError::Copied { bytes_max: 8 << 20 });
}

#[test]
fn pointers_and_texts_that_lie_are_malformed() {
    for answer in [placed_at(0, 1 << 28), placed_at(3, 1), declined(3, b"\xff\xfe")] {
        let error = ask(&with_answer(answer)).unwrap_err();
        assert!(matches!(error, PolicyError::Malformed { .. } | PolicyError::Trap { .. }), "{error:?}");
    }
}

#[test]
fn a_flood_of_host_calls_ends_at_the_quota() {
    let guest =
        Guest { imports: HOST_COUNT, ..with_body("(loop $again (drop (call $host_count)) (br $again))") };
    assert_eq!(ask(&guest).unwrap_err(), PolicyError::HostCalls { calls_max: 10_000 });
}

#[test]
fn the_name_of_a_host_that_does_not_exist_is_forbidden() {
    let guest = Guest { imports: HOST_NAME, ..with_body("(call $host_name (i32.const 2) (i32.const 256))") };
    let detail = "it asked for host 2 of 2".to_owned();
    assert_eq!(ask(&guest).unwrap_err(), PolicyError::Forbidden { detail });
}

#[test]
fn a_flood_of_log_lines_is_cut_and_counted() {
    let flood = "(local $left i32) (local.set $left (i32.const 1000))
        (loop $again
          (call $log (i32.const 2) (i32.const 8192) (i32.const 100))
          (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))";
    let guest = Guest { imports: LOG, ..with_body(flood) };
    let decision = load(&guest).place(&input(2)).unwrap();
    let bytes: usize = decision.logs.iter().map(|line| line.message.len()).sum();
    assert!(bytes <= Limits::default().log_bytes_max);
    assert_eq!(decision.logs.len() + decision.logs_dropped as usize, 1000);
}

#[test]
fn what_a_policy_declines_is_told_in_its_words() {
    let error = ask(&with_answer(declined(0, b"no GPUs here"))).unwrap_err();
    let expected =
        PolicyError::Declined { reason: "unsupported".to_owned(), text: "no GPUs here".to_owned() };
    assert_eq!(error, expected);
}

#[test]
fn an_input_that_breaks_a_rule_is_refused_before_the_policy_is_asked() {
    let policy = load(&with_body("(unreachable)"));
    let detail = |change: &dyn Fn(&mut plugins_runtime::placement::PlacementInput)| {
        let mut input = input(2);
        change(&mut input);
        match policy.place(&input) {
            Err(PolicyError::BadInput { detail }) => detail,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(detail(&|i| i.hosts.peers.truncate(1)), "hosts.peers has 1 elements for 2 hosts");
    assert_eq!(detail(&|i| i.hosts.loads[0] = f32::NAN), "hosts.loads: a load is not in 0.0 ..= 1.0");
    assert_eq!(detail(&|i| i.hosts.names[1] = "host-0".into()), "hosts.names: a name occurs twice");
    assert_eq!(detail(&|i| i.settings = 3.into()), "settings: give an object");
    assert_eq!(
        detail(&|i| i.request.pinned_host = Some("gone".into())),
        "request.pinned_host: gone holds the volumes and is not among the hosts"
    );
    assert!(detail(&|i| i.request.memory_bytes = 1 << 53).starts_with("a number is above"));
}

fn refused(bytes: &[u8]) -> LoadError {
    let error = RUNTIME.load(bytes).unwrap_err();
    load(&Guest::default());
    error
}

fn refused_text(text: &str) -> LoadError {
    refused(&wat::parse_str(text).unwrap())
}

#[test]
fn what_is_no_component_is_refused_by_name() {
    assert_eq!(refused(b""), LoadError::NotWebAssembly);
    assert_eq!(refused(b"\x7fELF and so on"), LoadError::NotWebAssembly);
    assert_eq!(refused_text("(module)"), LoadError::NotComponent);
    let large = vec![0; Limits::default().component_bytes_max + 1];
    assert!(matches!(refused(&large), LoadError::TooLarge { .. }));
}

#[test]
fn a_truncated_component_is_refused_wherever_it_ends() {
    let whole = Guest::default().build();
    for len in (0..whole.len()).step_by(97) {
        let error = refused(&whole[..len]);
        assert!(
            matches!(
                error,
                LoadError::NotWebAssembly | LoadError::Damaged { .. } | LoadError::WrongWorld { .. }
            ),
            "{len}: {error:?}"
        );
    }
}

#[test]
fn another_world_is_refused() {
    let nothing = refused_text("(component)");
    assert_eq!(nothing, LoadError::WrongWorld { missing: "plugin", exports: Vec::new() });
    let other = refused_text(
        r#"(component (instance $i)
            (export "collective:policy/plugin@0.1.0" (instance $i))
            (export "collective:policy/horoscope@0.1.0" (instance $i)))"#,
    );
    assert!(
        matches!(other, LoadError::WrongWorld { missing, .. } if missing.contains("placement")),
        "{other:?}"
    );
}

#[test]
fn another_version_is_refused() {
    let error = refused_text(r#"(component (import "collective:policy/cluster@0.2.0" (instance)))"#);
    assert_eq!(error, LoadError::OtherVersion { name: "collective:policy/cluster@0.2.0".to_owned() });
}

#[test]
fn an_import_that_policies_do_not_get_is_refused() {
    for name in ["wasi:clocks/wall-clock@0.2.0", "collective:policy/guest-memory@0.1.0"] {
        let error = refused_text(&format!(r#"(component (import "{name}" (instance)))"#));
        assert_eq!(
            error,
            LoadError::UnknownImport { name: name.to_owned(), allowed: &["types", "context", "log"] }
        );
    }
}

#[test]
fn the_right_names_with_the_wrong_types_are_refused() {
    let error = refused_text(
        r#"(component (instance $i)
            (export "collective:policy/plugin@0.1.0" (instance $i))
            (export "collective:policy/placement@0.1.0" (instance $i)))"#,
    );
    assert!(matches!(error, LoadError::Contract { .. }), "{error:?}");
}

#[test]
fn a_function_that_this_runtime_lacks_is_named() {
    let error = refused_text(
        r#"(component
            (import "collective:policy/cluster@0.1.9" (instance (export "moon-phases" (func))))
            (instance $i)
            (export "collective:policy/plugin@0.1.0" (instance $i))
            (export "collective:policy/placement@0.1.0" (instance $i)))"#,
    );
    assert!(error.to_string().contains("moon-phases"), "{error}");
}

#[test]
fn a_policy_that_cannot_describe_itself_is_refused() {
    let endless = Guest { describe: "(loop $again (br $again))", ..Guest::default() };
    assert_eq!(refused(&endless.build()), LoadError::Describe(PolicyError::Deadline { deadline_ms: 50 }));
    let curious = Guest { imports: HOST_COUNT, describe: "(drop (call $host_count))", ..Guest::default() };
    let error = refused(&curious.build());
    assert!(matches!(error, LoadError::Describe(PolicyError::Forbidden { .. })), "{error:?}");
    let nameless = Guest { name: "No Name", ..Guest::default() };
    assert!(matches!(refused(&nameless.build()), LoadError::Manifest { field: "name", .. }));
}

#[test]
fn compiled_code_that_somebody_changed_is_not_loaded_but_replaced() {
    let (runtime, folder) = runtime(Limits::default());
    let component = Guest::default().build();
    runtime.load(&component).unwrap();
    let entries = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let compiled =
        entries.into_iter().find(|path| path.extension().is_some_and(|end| end == "cwasm")).unwrap();
    let good = std::fs::read(&compiled).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 0xff;
    std::fs::write(&compiled, &bad).unwrap();
    let again = Runtime::new(Limits::default(), folder.path()).unwrap();
    assert!(again.load(&component).unwrap().place(&input(2)).is_ok());
    assert_ne!(std::fs::read(&compiled).unwrap(), bad);
}

#[test]
fn more_calls_than_allowed_at_once_are_told_so_and_nobody_else_suffers() {
    let (runtime, _folder) = runtime(Limits { calls_max: 1, ..Limits::default() });
    let slow = runtime.load(&with_body("(loop $again (br $again))").build()).unwrap();
    let quick = runtime.load(&Guest::default().build()).unwrap();
    // The endless one takes the only place again and again until the quick one has met it there.
    let met = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !met.load(Ordering::Relaxed) {
                let error = slow.place(&input(2)).unwrap_err();
                assert!(
                    matches!(error, PolicyError::Deadline { .. } | PolicyError::Busy { .. }),
                    "{error:?}"
                );
            }
        });
        let until = Instant::now() + Duration::from_secs(30);
        let refused = std::iter::repeat_with(|| quick.place(&input(2)))
            .take_while(|_| Instant::now() < until)
            .find(Result::is_err);
        met.store(true, Ordering::Relaxed);
        assert_eq!(refused.unwrap().unwrap_err(), PolicyError::Busy { calls_max: 1 });
    });
    assert!(quick.place(&input(2)).is_ok());
}
