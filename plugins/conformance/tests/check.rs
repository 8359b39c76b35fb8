//! The check finds what it is for, and first-party and released policies pass it.

#![allow(clippy::unwrap_used, reason = "a test panics when it fails")]

mod support;

use plugins_conformance::specimen::Specimen;
use plugins_conformance::{Outcome, Report, check, questions};
use plugins_runtime::{Kind, Limits};
use std::path::{Path, PathBuf};
use support::{build, runtime, wit};

fn failed(report: &Report) -> Vec<&str> {
    let failed = report.claims.iter().filter(|claim| claim.outcome == Outcome::Failed);
    failed.map(|claim| claim.name.as_str()).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn the_least_policy_of_each_kind_answers_everything() {
    let (runtime, _folder) = runtime(Limits::default());
    for kind in [Kind::Update, Kind::Checkpoint, Kind::Introspection] {
        let report = check(&runtime, &build(&Specimen::new(kind)));
        assert_eq!(failed(&report), [""; 0], "{kind}");
        assert_eq!((report.kind, report.name.as_deref()), (Some(kind), Some("hand-made")));
    }
}

#[test]
fn first_party_policies_pass() {
    let (runtime, _folder) = runtime(Limits::default());
    for built in xtask::policies::build(None).unwrap().policies {
        let report = check(&runtime, &std::fs::read(&built.path).unwrap());
        assert!(report.passed(), "{}: {:#?}", built.name, report.claims);
    }
}

#[test]
fn released_policies_pass_and_answer() {
    let (runtime, _folder) = runtime(Limits::default());
    let mut checked = 0;
    for release in files(&wit().join("releases")) {
        for component in files(&release.join("components")) {
            let bytes = std::fs::read(&component).unwrap();
            let policy = runtime.load(&bytes).unwrap();
            questions::ask(&policy, policy.kind()).unwrap();
            let report = check(&runtime, &bytes);
            assert!(report.passed(), "{}: {:#?}", component.display(), report.claims);
            checked += 1;
        }
    }
    assert!(checked >= 2, "the releases are not there");
}

#[test]
fn a_policy_that_always_takes_the_first_host_is_found_to_fail_where_there_is_none() {
    let (runtime, _folder) = runtime(Limits::default());
    let report = check(&runtime, &build(&Specimen::new(Kind::Placement)));
    assert_eq!(failed(&report), ["it answers about no host"]);
    let warned = |name: &str| {
        report.claims.iter().any(|claim| claim.name.contains(name) && claim.outcome == Outcome::Warned)
    };
    assert!(warned("all full") && warned("volumes are on one host"), "{:#?}", report.claims);
}

#[test]
fn a_policy_that_remembers_is_impossible_and_one_that_fails_is_told_where() {
    let (runtime, _folder) = runtime(Limits::default());
    // It counts its calls in memory: every call has a fresh one.
    let counts = "(i32.store (i32.const 8192) (i32.add (i32.load (i32.const 8192)) (i32.const 1)))
        (if (i32.gt_u (i32.load (i32.const 8192)) (i32.const 1)) (then (unreachable)))";
    let report = check(&runtime, &build(&Specimen::that(Kind::Checkpoint, counts)));
    assert!(report.passed(), "{:#?}", report.claims);
    let crash = "(if (i32.eqz (i32.const 0)) (then (unreachable)))";
    let report = check(&runtime, &build(&Specimen::that(Kind::Update, crash)));
    assert!(failed(&report).iter().all(|name| name.starts_with("it answers about")));
    assert!(!failed(&report).is_empty());
}

#[test]
fn what_is_no_component_has_a_report_too() {
    let (runtime, _folder) = runtime(Limits::default());
    let report = check(&runtime, b"no component");
    assert!(!report.passed());
    assert!(report.claims[0].detail.contains("not WebAssembly"), "{:?}", report.claims);
}
