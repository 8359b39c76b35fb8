//! Whether a report keeps the contract's rules. Pure: the guest is gone by now.

use super::{Evidence, Finding, Report, STATE_LEN_MAX, Severity};
use crate::bindings::introspection::exports::collective::policy::introspection as wire;
use crate::reasons::reasons;
use crate::state::State;

const FINDINGS_MAX: usize = 256;
const EVIDENCE_MAX: usize = 32;
const PROPOSALS_MAX: usize = 8;
const RULE_BYTES_MAX: usize = 128;
const KIND_BYTES_MAX: usize = 64;
const TEXT_BYTES_MAX: usize = 1024;
const BYTES_MAX: usize = 4096;
const NEXT_CALL_MS: std::ops::RangeInclusive<u64> = 100..=86_400_000;
const KINDS: [&str; 5] = ["memory", "disk", "flow", "register", "note"];
const PROPOSALS: [&str; 5] = ["alert", "checkpoint", "isolate", "pause", "stop"];

/// Turns an answer into a report, or says which rule it breaks.
pub(crate) fn check(report: wire::Report) -> Result<Report, String> {
    let wire::Report { findings, reasons: list, next_call, state } = report;
    at_most("findings", findings.len(), FINDINGS_MAX)?;
    if !NEXT_CALL_MS.contains(&next_call) {
        let (least, most) = (NEXT_CALL_MS.start(), NEXT_CALL_MS.end());
        return Err(format!("next-call: {next_call} ms is not in {least} ..= {most}"));
    }
    at_most("state: bytes", state.len(), STATE_LEN_MAX)?;
    let findings = findings.into_iter().enumerate().map(|(position, checked)| {
        finding(checked).map_err(|problem| format!("findings[{position}]: {problem}"))
    });
    Ok(Report {
        findings: findings.collect::<Result<_, _>>()?,
        reasons: reasons(list)?,
        next_call_ms: next_call,
        state: State(state),
    })
}

fn finding(finding: wire::Finding) -> Result<Finding, String> {
    let wire::Finding { rule, severity, confidence, title, fingerprint, evidence: list, proposals } = finding;
    if rule.is_empty() {
        return Err("rule: it is empty".to_owned());
    }
    at_most("rule: bytes", rule.len(), RULE_BYTES_MAX)?;
    at_most("title: bytes", title.len(), TEXT_BYTES_MAX)?;
    at_most("fingerprint: bytes", fingerprint.len(), RULE_BYTES_MAX)?;
    at_most("evidence", list.len(), EVIDENCE_MAX)?;
    at_most("proposals", proposals.len(), PROPOSALS_MAX)?;
    if !(0.0..=1.0).contains(&confidence) {
        return Err(format!("confidence: {confidence} is not in 0.0 ..= 1.0"));
    }
    if let Some(strange) = proposals.iter().find(|proposal| !PROPOSALS.contains(&proposal.as_str())) {
        let strange: String = strange.chars().take(80).collect();
        return Err(format!("proposals: {strange:?} is not one of {}", PROPOSALS.join(", ")));
    }
    let evidence = list.into_iter().enumerate().map(|(position, checked)| {
        evidence(checked).map_err(|problem| format!("evidence[{position}]: {problem}"))
    });
    Ok(Finding {
        severity: severity_of(severity)?,
        confidence,
        fingerprint: if fingerprint.is_empty() { format!("{rule} {title}") } else { fingerprint },
        rule,
        title,
        evidence: evidence.collect::<Result<_, _>>()?,
        proposals,
    })
}

fn severity_of(code: u8) -> Result<Severity, String> {
    match code {
        0 => Ok(Severity::Info),
        1 => Ok(Severity::Low),
        2 => Ok(Severity::Medium),
        3 => Ok(Severity::High),
        4 => Ok(Severity::Critical),
        _ => Err(format!("severity: {code} is not in 0 ..= 4")),
    }
}

fn evidence(evidence: wire::Evidence) -> Result<Evidence, String> {
    let wire::Evidence { kind, address, text, bytes } = evidence;
    at_most("kind: bytes", kind.len(), KIND_BYTES_MAX)?;
    let theirs = kind.split_once('/').is_some_and(|(vendor, rest)| !vendor.is_empty() && !rest.is_empty());
    if !theirs && !KINDS.contains(&kind.as_str()) {
        return Err(format!("kind: {kind:?} is not vendor/kind or one of {}", KINDS.join(", ")));
    }
    at_most("text: bytes", text.len(), TEXT_BYTES_MAX)?;
    at_most("bytes", bytes.len(), BYTES_MAX)?;
    Ok(Evidence { kind, address, text, bytes })
}

fn at_most(what: &str, count: usize, most: usize) -> Result<(), String> {
    if count > most { Err(format!("{what}: {count} are more than {most}")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> wire::Report {
        let evidence = wire::Evidence {
            kind: "memory".to_owned(),
            address: Some(1),
            text: "t".repeat(1024),
            bytes: vec![0; 4096],
        };
        let finding = wire::Finding {
            rule: "linux/x".to_owned(),
            severity: 4,
            confidence: 1.0,
            title: "title".to_owned(),
            fingerprint: String::new(),
            evidence: vec![evidence; 32],
            proposals: vec!["alert".to_owned(); 8],
        };
        wire::Report {
            findings: vec![finding; 256],
            reasons: Vec::new(),
            next_call: 100,
            state: vec![0; 1 << 20],
        }
    }

    fn problem(change: impl FnOnce(&mut wire::Report)) -> String {
        let mut report = report();
        change(&mut report);
        check(report).unwrap_err()
    }

    #[test]
    fn a_report_at_every_limit_passes_and_a_fingerprint_is_made() {
        let report = check(report()).unwrap();
        assert_eq!(report.findings.len(), 256);
        assert_eq!(report.findings[0].fingerprint, "linux/x title");
        assert_eq!(report.findings[0].severity, Severity::Critical);
    }

    #[test]
    fn a_report_beyond_a_limit_is_told_which() {
        type Change<'a> = &'a dyn Fn(&mut wire::Report);
        let cases: [(Change<'_>, &str); 12] = [
            (&|r| r.findings.extend(report().findings.pop()), "findings: 257 are more than 256"),
            (&|r| r.next_call = 99, "next-call: 99 ms is not in 100 ..= 86400000"),
            (&|r| r.state.push(0), "state: bytes: 1048577 are more than 1048576"),
            (&|r| r.findings[1].rule.clear(), "findings[1]: rule: it is empty"),
            (&|r| r.findings[0].rule = "r".repeat(129), "findings[0]: rule: bytes: 129 are more than 128"),
            (&|r| r.findings[0].severity = 5, "findings[0]: severity: 5 is not in 0 ..= 4"),
            (&|r| r.findings[0].confidence = f32::NAN, "findings[0]: confidence: NaN is not in 0.0 ..= 1.0"),
            (
                &|r| r.findings[0].title = "t".repeat(1025),
                "findings[0]: title: bytes: 1025 are more than 1024",
            ),
            (
                &|r| r.findings[0].proposals[0] = "reboot".to_owned(),
                "findings[0]: proposals: \"reboot\" is not one of alert, checkpoint, isolate, pause, stop",
            ),
            (
                &|r| r.findings[0].evidence[2].kind = "wild".to_owned(),
                "findings[0]: evidence[2]: kind: \"wild\" is not vendor/kind or one of memory, disk, flow, register, note",
            ),
            (
                &|r| r.findings[0].evidence[0].text.push('x'),
                "findings[0]: evidence[0]: text: bytes: 1025 are more than 1024",
            ),
            (
                &|r| r.findings[0].evidence[0].bytes.push(0),
                "findings[0]: evidence[0]: bytes: 4097 are more than 4096",
            ),
        ];
        for (change, wanted) in cases {
            assert_eq!(problem(change), wanted);
        }
        let mut vendor = report();
        vendor.findings[0].evidence[0].kind = "acme/heap".to_owned();
        assert!(check(vendor).is_ok());
    }
}
