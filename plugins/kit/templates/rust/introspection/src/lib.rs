//! Remembers where system calls enter the kernel, and says when that moves. Needs the grant `cpu`.

use plugins_sdk::introspection::{
    Evidence, Finding, Guest, IntrospectionPolicy, Report, Trigger, ViewError,
};
use plugins_sdk::{Context, Manifest, Plugin, PolicyError, Reason, SettingsIssue};
use serde::Deserialize;

plugins_sdk::export_introspection!({{Name}});

const PERIOD_MS_MIN: u64 = 100;
const PERIOD_MS_MAX: u64 = 86_400_000;
/// The guest was started: what was remembered is of another run.
const TRIGGER_STARTED: u8 = 2;
const SEVERITY_HIGH: u8 = 3;

/// The policy.
pub struct {{Name}};

/// See `settings.schema.json`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    period_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { period_ms: 10_000 }
    }
}

impl Plugin for {{Name}} {
    type Settings = Settings;

    fn manifest() -> Manifest {
        Manifest {
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            summary: env!("CARGO_PKG_DESCRIPTION"),
            license: env!("CARGO_PKG_LICENSE"),
            settings_schema: include_str!("settings.schema.json"),
            default_settings: "{}",
        }
    }

    fn check_settings(settings: &Settings) -> Vec<SettingsIssue> {
        if (PERIOD_MS_MIN..=PERIOD_MS_MAX).contains(&settings.period_ms) {
            return Vec::new();
        }
        let message = format!("give {PERIOD_MS_MIN} to {PERIOD_MS_MAX} milliseconds");
        vec![SettingsIssue { path: "/period_ms".to_owned(), message }]
    }
}

impl IntrospectionPolicy for {{Name}} {
    fn inspect(
        settings: &Settings,
        trigger: &Trigger,
        state: &[u8],
        guest: &impl Guest,
        _context: &impl Context,
    ) -> Result<Report, PolicyError> {
        let entry = match guest.registers(0, &["lstar"]) {
            Ok(values) => values.first().copied().unwrap_or(0),
            Err(error @ (ViewError::Denied(_) | ViewError::Unavailable(_))) => {
                return Err(PolicyError::Unsupported(format!("the registers cannot be read: {error}")));
            }
            Err(error) => return Err(PolicyError::InvalidInput(format!("register lstar: {error}"))),
        };
        // A state that another version wrote is no state.
        let known = state.try_into().ok().map(u64::from_le_bytes).filter(|_| trigger.kind != TRIGGER_STARTED);
        let findings = known.filter(|known| *known != entry).map(|known| moved(known, entry));
        let text = format!("system calls enter at {entry:#x}");
        Ok(Report {
            findings: findings.into_iter().collect(),
            reasons: vec![Reason::plain("looked-at-registers", text)],
            next_call_ms: settings.period_ms,
            // What was first seen stays what is right.
            state: known.unwrap_or(entry).to_le_bytes().to_vec(),
        })
    }
}

fn moved(known: u64, entry: u64) -> Finding {
    Finding {
        rule: "linux/system-call-entry-moved".to_owned(),
        severity: SEVERITY_HIGH,
        confidence: 0.9,
        title: "The guest's system calls enter the kernel at another address than before.".to_owned(),
        fingerprint: format!("lstar:{entry:#x}"),
        evidence: vec![Evidence {
            kind: "register".to_owned(),
            address: Some(entry),
            text: format!("lstar was {known:#x} and is {entry:#x}"),
            bytes: Vec::new(),
        }],
        proposals: vec!["alert".to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugins_sdk::Still;

    fn look(entry: u64, state: &[u8], kind: u8) -> Report {
        let registers = vec![[("lstar".to_owned(), entry)].into()];
        let mut guest = Still::default();
        guest.registers = registers;
        let trigger = Trigger { kind, ..Trigger::default() };
        {{Name}}::inspect(&Settings::default(), &trigger, state, &guest, &guest).unwrap()
    }

    #[test]
    fn an_entry_that_moves_is_found_until_the_guest_starts_anew() {
        let first = look(0x1000, &[], TRIGGER_STARTED);
        assert!(first.findings.is_empty());
        assert!(look(0x1000, &first.state, 0).findings.is_empty());
        for _ in 0..2 {
            let moved = look(0x2000, &first.state, 0);
            assert_eq!(moved.findings[0].rule, "linux/system-call-entry-moved");
            assert_eq!(moved.state, first.state);
        }
        assert!(look(0x2000, &first.state, TRIGGER_STARTED).findings.is_empty());
    }

    #[test]
    fn without_the_grant_there_is_no_decision() {
        let mut guest = Still::default();
        guest.denied = true;
        let answer =
            {{Name}}::inspect(&Settings::default(), &Trigger::default(), &[], &guest, &guest);
        assert!(matches!(answer, Err(PolicyError::Unsupported(_))));
    }
}
