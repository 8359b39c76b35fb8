//! Findings of one run of one guest, folded: equal ones are one. Pure.

use controller_api::watch::{FINDINGS_MAX, WatchEvidence, WatchFinding};
use plugins_runtime::introspection::{Evidence, Finding};

/// Bytes of an evidence that travel.
const EVIDENCE_BYTES_MAX: usize = 64;
/// Evidence of a finding that travels.
const EVIDENCE_MAX: usize = 8;

/// What was found, at most [`FINDINGS_MAX`].
#[derive(Debug, Default)]
pub(super) struct Findings {
    held: Vec<WatchFinding>,
    dropped: u64,
}

impl Findings {
    /// Takes up what a look found; gives back what is new, or was gone and is back.
    pub(super) fn take(&mut self, found: Vec<Finding>, now_ms: u64) -> Vec<WatchFinding> {
        let mut fresh = Vec::new();
        let mut seen = Vec::new();
        for finding in found {
            if seen.contains(&finding.fingerprint) {
                continue;
            }
            seen.push(finding.fingerprint.clone());
            let old = self.held.iter().position(|held| held.fingerprint == finding.fingerprint);
            let mut now = told(finding, now_ms);
            if let Some(old) = old {
                let before = self.held.remove(old);
                now.first_ms = before.first_ms;
                now.times = before.times + 1;
                if !before.open {
                    fresh.push(now.clone());
                }
            } else {
                fresh.push(now.clone());
            }
            self.held.push(now);
        }
        for held in &mut self.held {
            held.open = seen.contains(&held.fingerprint);
        }
        self.drop_beyond();
        fresh
    }

    /// Those that are not seen any more go first, then the least severe of the others.
    fn drop_beyond(&mut self) {
        while self.held.len() > FINDINGS_MAX {
            let least = self
                .held
                .iter()
                .enumerate()
                .min_by_key(|(_, held)| (held.open, rank(&held.severity), held.last_ms));
            let Some((index, _)) = least else { return };
            self.held.remove(index);
            self.dropped += 1;
        }
    }

    pub(super) fn newest_first(&self) -> Vec<WatchFinding> {
        self.held.iter().rev().cloned().collect()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

fn rank(severity: &str) -> usize {
    ["info", "low", "medium", "high", "critical"].iter().position(|name| *name == severity).unwrap_or(0)
}

fn told(finding: Finding, now_ms: u64) -> WatchFinding {
    let percent = (finding.confidence.clamp(0.0, 1.0) * 100.0).round();
    WatchFinding {
        rule: finding.rule,
        severity: finding.severity.as_str().to_owned(),
        confidence_percent: percent as u8,
        title: finding.title,
        fingerprint: finding.fingerprint,
        open: true,
        first_ms: now_ms,
        last_ms: now_ms,
        times: 1,
        evidence: finding.evidence.into_iter().take(EVIDENCE_MAX).map(evidence).collect(),
        proposals: finding.proposals,
    }
}

fn evidence(evidence: Evidence) -> WatchEvidence {
    let bytes = &evidence.bytes[..evidence.bytes.len().min(EVIDENCE_BYTES_MAX)];
    WatchEvidence {
        kind: evidence.kind,
        address: evidence.address.map(|address| format!("{address:#x}")),
        text: evidence.text,
        bytes: hex::encode(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugins_runtime::introspection::Severity;

    fn found(fingerprint: &str, severity: Severity) -> Finding {
        Finding {
            rule: "linux/x".to_owned(),
            severity,
            confidence: 0.95,
            title: "t".to_owned(),
            fingerprint: fingerprint.to_owned(),
            evidence: Vec::new(),
            proposals: Vec::new(),
        }
    }

    fn names(findings: &[WatchFinding]) -> Vec<&str> {
        findings.iter().map(|finding| finding.fingerprint.as_str()).collect()
    }

    #[test]
    fn the_same_finding_is_new_once_and_again_when_it_had_gone() {
        let mut all = Findings::default();
        let one = || vec![found("a", Severity::High), found("a", Severity::High)];
        assert_eq!(names(&all.take(one(), 10)), ["a"]);
        assert_eq!(names(&all.take(one(), 20)), [""; 0]);
        let held = &all.newest_first()[0];
        assert_eq!((held.first_ms, held.last_ms, held.times, held.open), (10, 20, 2, true));
        assert_eq!(held.confidence_percent, 95);
        assert!(all.take(Vec::new(), 30).is_empty() && !all.newest_first()[0].open);
        assert_eq!(names(&all.take(one(), 40)), ["a"]);
        assert_eq!(all.newest_first()[0].first_ms, 10);
    }

    #[test]
    fn what_is_open_and_severe_is_kept_when_there_is_too_much() {
        let mut all = Findings::default();
        all.take(vec![found("gone", Severity::Critical)], 1);
        let mut many: Vec<Finding> =
            (0..FINDINGS_MAX).map(|n| found(&n.to_string(), Severity::High)).collect();
        many.push(found("mild", Severity::Low));
        all.take(many, 2);
        let kept = all.newest_first();
        assert_eq!((kept.len(), all.dropped()), (FINDINGS_MAX, 2));
        assert!(kept.iter().all(|finding| finding.open && finding.severity == "high"));
    }
}
