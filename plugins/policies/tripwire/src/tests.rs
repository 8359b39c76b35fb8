//! Claims about looks, at a guest made of parts.

use super::*;
use plugins_sdk::Still;

fn guest() -> Still {
    let mut guest = Still::default();
    guest.disks = vec![("system".to_owned(), vec![1; 64 << 10]), ("home".to_owned(), vec![0; 4096])];
    guest
}

fn flow(protocol: u8, source_port: u16, destination_port: u16) -> Flow {
    Flow {
        first_seen_ms: 0,
        last_seen_ms: 5,
        port: "eth0".to_owned(),
        protocol,
        source: vec![10, 20, 0, 3],
        destination: vec![10, 20, 0, 4],
        source_port,
        destination_port,
        frames: 3,
        bytes: 180,
    }
}

fn look(settings: &Settings, kind: u8, state: &[u8], guest: &Still) -> Report {
    let trigger = Trigger { kind, attributes: Vec::new() };
    Tripwire::inspect(settings, &trigger, state, guest, guest).unwrap()
}

fn rules(report: &Report) -> Vec<&str> {
    report.findings.iter().map(|finding| finding.rule.as_str()).collect()
}

#[test]
fn a_changed_part_is_told_until_it_is_as_it_was() {
    let (settings, mut guest) = (Settings::default(), guest());
    let first = look(&settings, STARTED, b"", &guest);
    assert!(first.findings.is_empty(), "{first:?}");
    guest.disks[0].1[446] = 9;
    let second = look(&settings, 0, &first.state, &guest);
    assert_eq!(rules(&second), ["tripwire/disk-changed"]);
    assert_eq!(second.findings[0].evidence[0].address, Some(0));
    let third = look(&settings, 0, &second.state, &guest);
    assert_eq!(third.findings[0].fingerprint, second.findings[0].fingerprint);
    guest.disks[0].1[446] = 1;
    assert!(look(&settings, 0, &third.state, &guest).findings.is_empty());
}

#[test]
fn what_is_outside_of_the_parts_may_change() {
    let (settings, mut guest) = (Settings::default(), guest());
    let first = look(&settings, STARTED, b"", &guest);
    guest.disks[0].1[32 << 10] = 9;
    assert!(look(&settings, 0, &first.state, &guest).findings.is_empty());
}

#[test]
fn a_run_begins_anew() {
    let (settings, mut guest) = (Settings::default(), guest());
    let first = look(&settings, STARTED, b"", &guest);
    guest.disks[0].1[0] = 9;
    assert!(look(&settings, STARTED, &first.state, &guest).findings.is_empty());
}

#[test]
fn a_part_that_is_not_there_is_said_and_the_others_are_looked_at() {
    let part = |disk: &str, offset| Region { disk: disk.to_owned(), offset, length: 512 };
    let regions = vec![part("data", 0), part("home", 4096), part("home", 0)];
    let settings = Settings { regions, ..Settings::default() };
    let report = look(&settings, STARTED, b"", &guest());
    let codes: Vec<&str> = report.reasons.iter().map(|reason| reason.code.as_str()).collect();
    assert_eq!(codes, ["no-such-region", "no-such-region", "disks-checked"]);
}

#[test]
fn a_conversation_with_no_named_port_is_one_finding_for_both_directions() {
    let settings = Settings { ports: Some([80, 53].into()), ..Settings::default() };
    let mut guest = guest();
    guest.flows = vec![flow(TCP, 40_000, 80), flow(UDP, 53, 41_000), flow(1, 0, 0)];
    assert!(look(&settings, STARTED, b"", &guest).findings.is_empty());
    let mut back = flow(TCP, 7777, 40_001);
    std::mem::swap(&mut back.source, &mut back.destination);
    guest.flows.extend([flow(TCP, 40_001, 7777), back]);
    let report = look(&settings, STARTED, b"", &guest);
    assert_eq!(rules(&report), ["tripwire/unnamed-port"]);
    assert_eq!(
        report.findings[0].title,
        "TCP between 10.20.0.3:40001 and 10.20.0.4:7777: neither port is one that was named"
    );
}

#[test]
fn a_flood_of_conversations_stays_within_the_contract() {
    let settings = Settings { ports: Some([80].into()), ..Settings::default() };
    let mut guest = guest();
    guest.flows = (1_000..5_000).map(|port| flow(TCP, port, port)).collect();
    assert_eq!(look(&settings, STARTED, b"", &guest).findings.len(), FINDINGS_MAX);
}

#[test]
fn what_was_not_granted_is_the_operators_to_mend() {
    let mut guest = guest();
    guest.denied = true;
    let answer = Tripwire::inspect(&Settings::default(), &Trigger::default(), b"", &guest, &guest);
    assert!(matches!(answer, Err(PolicyError::BadSettings(_))), "{answer:?}");
}

#[test]
fn settings_that_cannot_be_are_named_by_place() {
    let region = Region { disk: system(), offset: 1, length: 2 << 20 };
    let settings = Settings { regions: vec![region], ports: Some([0].into()), every_ms: 1 };
    let paths: Vec<String> =
        Tripwire::check_settings(&settings).into_iter().map(|issue| issue.path).collect();
    assert_eq!(paths, ["/regions/0/offset", "/regions/0/length", "/ports", "/every_ms"]);
}
