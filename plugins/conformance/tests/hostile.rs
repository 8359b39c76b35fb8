//! Policies that misbehave, of every kind: each gets the outcome that is written here, and a good one is answered
//! afterwards as if nothing had been.

#![allow(clippy::unwrap_used, reason = "a test panics when it fails")]

mod support;

use plugins_conformance::specimen::{Specimen, declined, declined_at};
use plugins_runtime::{Kind, Limits, LoadError, PolicyError};
use support::{ask, build, runtime};

/// What became of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Became {
    Answer,
    Declined,
    Deadline,
    Memory,
    HostCalls,
    Copied,
    Trap,
    Forbidden,
    Malformed,
    BadAnswer,
    Refused,
}

impl Became {
    fn of(error: &PolicyError) -> Self {
        match error {
            PolicyError::Declined { .. } => Self::Declined,
            PolicyError::Deadline { .. } => Self::Deadline,
            PolicyError::Memory { .. } => Self::Memory,
            PolicyError::HostCalls { .. } => Self::HostCalls,
            PolicyError::Copied { .. } => Self::Copied,
            PolicyError::Trap { .. } => Self::Trap,
            PolicyError::Forbidden { .. } => Self::Forbidden,
            PolicyError::Malformed { .. } => Self::Malformed,
            PolicyError::BadAnswer { .. } => Self::BadAnswer,
            PolicyError::BadInput { .. } | PolicyError::OtherKind { .. } | PolicyError::Busy { .. } => {
                Self::Refused
            }
        }
    }
}

const LOG: &str = r#"(import "collective:policy/log@0.1.1" "write" (func $log (param i32 i32 i32)))"#;
const NOW: &str = r#"(import "collective:policy/context@0.1.1" "now" (func $now (result i64)))"#;
const SYMBOL: &str =
    r#"(import "collective:policy/context@0.1.1" "find-symbol" (func $find (param i32 i32) (result i32)))"#;

/// Name, what the module has besides, what it does, what it answers (nothing: the least), what becomes of it.
type Line = (&'static str, &'static str, &'static str, Option<Vec<u8>>, Became);

fn table() -> Vec<Line> {
    [crashes(), floods(), answers()].concat()
}

/// What loops, recurses or crashes.
fn crashes() -> Vec<Line> {
    let forever = "(loop $again (br $again))";
    vec![
        ("good", "", "", None, Became::Answer),
        ("endless loop", "", forever, None, Became::Deadline),
        (
            "endless loop of calls",
            "(func $nothing)",
            "(loop $again (call $nothing) (br $again))",
            None,
            Became::Deadline,
        ),
        ("endless recursion", "(func $down (call $down))", "(call $down)", None, Became::Trap),
        (
            "recursion that eats the stack with locals",
            "(func $deep (param i64 i64 i64 i64) (call $deep (local.get 1) (local.get 2) (local.get 3) (local.get 0)))",
            "(call $deep (i64.const 1) (i64.const 2) (i64.const 3) (i64.const 4))",
            None,
            Became::Trap,
        ),
        ("crash", "", "(unreachable)", None, Became::Trap),
        ("division by zero", "", "(drop (i32.div_u (i32.const 1) (i32.const 0)))", None, Became::Trap),
        ("a read beyond memory", "", "(drop (i32.load (i32.const -8)))", None, Became::Trap),
        (
            "a call through an empty table",
            "(table 1 funcref) (type $f (func))",
            "(call_indirect (type $f) (i32.const 0))",
            None,
            Became::Trap,
        ),
    ]
}

/// What takes too much.
fn floods() -> Vec<Line> {
    vec![
        (
            "memory until it is refused, and a crash",
            "",
            "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)",
            None,
            Became::Memory,
        ),
        ("four gigabytes at once, refused and lived with", "", "(drop (memory.grow (i32.const 65000)))", None, Became::Answer),
        (
            "a table that grows until it is refused",
            "(table $t 0 funcref)",
            "(loop $again (br_if $again (i32.ne (table.grow $t (ref.null func) (i32.const 999)) (i32.const -1))))",
            None,
            Became::Answer,
        ),
        (
            "two tables that share the room of one",
            "(table $a 0 funcref) (table $b 0 funcref)",
            "(if (i32.eq (table.grow $a (ref.null func) (i32.const 50000)) (i32.const -1)) (then (unreachable)))
             (if (i32.ne (table.grow $b (ref.null func) (i32.const 50000)) (i32.const -1)) (then (unreachable)))",
            None,
            Became::Answer,
        ),
        ("a flood of host calls", NOW, "(loop $again (drop (call $now)) (br $again))", None, Became::HostCalls),
        (
            "a flood of log lines",
            LOG,
            "(local $left i32) (local.set $left (i32.const 5000)) (loop $again
               (call $log (i32.const 4) (i32.const 8192) (i32.const 100))
               (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))",
            None,
            Became::Answer,
        ),
        (
            "a log line of nine megabytes",
            LOG,
            "(drop (memory.grow (i32.const 160))) (call $log (i32.const 1) (i32.const 0) (i32.const 9000000))",
            None,
            Became::Copied,
        ),
        (
            "a log line beyond memory",
            LOG,
            "(call $log (i32.const 1) (i32.const 0) (i32.const 9000000))",
            None,
            Became::Malformed,
        ),
        (
            "a text that is no UTF-8",
            SYMBOL,
            "(i32.store8 (i32.const 8192) (i32.const 255)) (drop (call $find (i32.const 8192) (i32.const 1)))",
            None,
            Became::Malformed,
        ),
    ]
}

/// What lies or declines.
fn answers() -> Vec<Line> {
    vec![
        ("to decline", "", "", Some(declined(0, b"not today")), Became::Declined),
        (
            "to decline with a text that is no UTF-8",
            "",
            "",
            Some(declined(3, b"\xff\xfe")),
            Became::Malformed,
        ),
        (
            "to decline with a text beyond memory",
            "",
            "",
            Some(declined_at(3, 1 << 28, 10)),
            Became::Malformed,
        ),
        (
            "to decline with a text of nine megabytes",
            "",
            "(drop (memory.grow (i32.const 160)))",
            Some(declined_at(3, 0, 9_000_000)),
            Became::Copied,
        ),
        ("to decline in a way that does not exist", "", "", Some(declined(9, b"")), Became::Malformed),
        ("an answer that is neither yes nor no", "", "", Some(vec![7; 64]), Became::Malformed),
        ("an answer that breaks a rule", "", "", Some(vec![0; 64]), Became::BadAnswer),
    ]
}

#[test]
fn what_becomes_of_policies_that_misbehave_is_the_same_for_every_kind() {
    let (runtime, _folder) = runtime(Limits::default());
    for kind in Kind::ALL {
        let good = runtime.load(&build(&Specimen::new(kind))).unwrap();
        for (name, parts, work, answer, expected) in table() {
            let mut specimen = Specimen { parts: parts.to_owned(), ..Specimen::that(kind, work) };
            specimen.answer = answer.unwrap_or(specimen.answer);
            let policy = runtime.load(&build(&specimen)).unwrap();
            let became = ask(&policy).map_or_else(|error| Became::of(&error), |()| Became::Answer);
            assert_eq!(became, expected, "{kind}: {name}");
            assert_eq!(ask(&good), Ok(()), "{kind}, after {name}");
        }
    }
}

#[test]
fn a_policy_of_one_kind_is_not_asked_about_another() {
    let (runtime, _folder) = runtime(Limits::default());
    for kind in Kind::ALL {
        let policy = runtime.load(&build(&Specimen::new(kind))).unwrap();
        for asked in Kind::ALL.into_iter().filter(|asked| *asked != kind) {
            assert_eq!(support::ask_about(&policy, asked), Err(PolicyError::OtherKind { is: kind, asked }));
        }
    }
}

#[test]
fn a_component_of_a_kind_gets_no_import_of_another() {
    let (runtime, _folder) = runtime(Limits::default());
    let foreign = [
        (Kind::Placement, "instances", "placement"),
        (Kind::Update, "cluster", "update"),
        (Kind::Checkpoint, "guest-memory", "checkpoint"),
        (Kind::Introspection, "checkpoints", "introspection"),
    ];
    for (kind, import, export) in foreign {
        let text = format!(
            r#"(component
                (import "collective:policy/{import}@0.1.1" (instance))
                (instance $i)
                (export "collective:policy/plugin@0.1.1" (instance $i))
                (export "collective:policy/{export}@0.1.1" (instance $i)))"#
        );
        let error = runtime.load(&wat::parse_str(text).unwrap()).unwrap_err();
        let expected = LoadError::UnknownImport {
            name: format!("collective:policy/{import}@0.1.1"),
            allowed: kind.imports(),
        };
        assert_eq!(error, expected);
    }
}

#[test]
fn a_component_of_two_kinds_is_refused() {
    let (runtime, _folder) = runtime(Limits::default());
    let text = r#"(component (instance $i)
        (export "collective:policy/plugin@0.1.1" (instance $i))
        (export "collective:policy/placement@0.1.1" (instance $i))
        (export "collective:policy/update@0.1.1" (instance $i)))"#;
    let error = runtime.load(&wat::parse_str(text).unwrap()).unwrap_err();
    assert_eq!(error, LoadError::SeveralWorlds { first: Kind::Placement, second: Kind::Update });
}

#[test]
fn nobody_is_asked_what_it_is_for_longer_than_the_deadline() {
    let (runtime, _folder) = runtime(Limits::default());
    for kind in Kind::ALL {
        let endless = Specimen { describe: "(loop $again (br $again))".to_owned(), ..Specimen::new(kind) };
        let error = runtime.load(&build(&endless)).unwrap_err();
        assert_eq!(error, LoadError::Describe(PolicyError::Deadline { deadline_ms: 50 }), "{kind}");
        let curious = Specimen {
            parts: NOW.to_owned(),
            describe: "(drop (call $now))".to_owned(),
            ..Specimen::new(kind)
        };
        let error = runtime.load(&build(&curious)).unwrap_err();
        assert!(matches!(error, LoadError::Describe(PolicyError::Forbidden { .. })), "{kind}: {error:?}");
    }
}

#[test]
fn a_component_that_was_cut_or_changed_never_takes_the_runtime_down() {
    let (runtime, _folder) = runtime(Limits::default());
    let whole = build(&Specimen::new(Kind::Update));
    for at in (0..whole.len()).step_by(173) {
        assert!(runtime.load(&whole[..at]).is_err(), "cut at {at}");
        let mut changed = whole.clone();
        changed[at] ^= 0x55;
        // It may still be a component: then it may be asked.
        if let Ok(policy) = runtime.load(&changed) {
            let _ = support::ask_about(&policy, policy.kind());
        }
    }
}
