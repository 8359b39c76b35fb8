//! What people say of a host: whether it takes instances, its labels, and that they vouch for it.

use crate::apply::Refusal;
use crate::record::{Attestation, Host};
use controller_api::host::ChangeLabels;

/// Most labels of a host.
pub const LABELS_MAX: usize = 64;
/// Longest key and longest value of a label in bytes.
pub const LABEL_LEN_MAX: usize = 63;
/// Longest note of an attestation in bytes.
pub const NOTE_LEN_MAX: usize = 1_024;

/// What is wrong with a label's key; nothing if it may be one.
#[must_use]
pub fn wrong_key(key: &str) -> Option<String> {
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-' | b'/')
    };
    let begins = key.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let good = begins && key.len() <= LABEL_LEN_MAX && key.bytes().all(allowed);
    (!good).then(|| {
        format!(
            "{key:?} cannot be a label: write 1 to {LABEL_LEN_MAX} of a-z, 0-9, '.', '_', '-' and '/', \
             beginning with a letter or digit"
        )
    })
}

/// What is wrong with a label's value; nothing if it may be one.
#[must_use]
pub fn wrong_value(value: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let good = !value.is_empty() && value.len() <= LABEL_LEN_MAX && value.bytes().all(allowed);
    (!good).then(|| {
        format!(
            "{value:?} cannot be a label's value: write 1 to {LABEL_LEN_MAX} letters, digits, '.', '_' and '-'"
        )
    })
}

/// A host with its labels changed.
///
/// # Errors
/// A key or value is malformed, one is set and removed at once, or there would be too many.
pub fn relabel(host: &Host, change: &ChangeLabels) -> Result<Host, Refusal> {
    let wrong = change.set.iter().find_map(|(key, value)| wrong_key(key).or_else(|| wrong_value(value)));
    if let Some(message) = wrong.or_else(|| change.remove.iter().find_map(|key| wrong_key(key))) {
        return Err(Refusal::Unfit(message));
    }
    if let Some(key) = change.remove.iter().find(|key| change.set.contains_key(*key)) {
        return Err(Refusal::Unfit(format!("label {key} is to be set and removed: write one of both")));
    }
    let mut host = host.clone();
    host.labels.retain(|key, _| !change.remove.contains(key));
    host.labels.extend(change.set.clone());
    if host.labels.len() > LABELS_MAX {
        let message = format!("{} labels are more than {LABELS_MAX}: remove some", host.labels.len());
        return Err(Refusal::Unfit(message));
    }
    Ok(host)
}

/// A host that somebody vouches for, as the machine it is now.
///
/// # Errors
/// The note is empty or too long.
pub fn attest(host: &Host, note: &str, who: String, at_ms: u64) -> Result<Host, Refusal> {
    let note = note.trim();
    if note.is_empty() || note.len() > NOTE_LEN_MAX {
        let message = format!("write in 1 to {NOTE_LEN_MAX} bytes what was looked at, and how");
        return Err(Refusal::Unfit(message));
    }
    let attestation = Attestation { certificate: host.certificate, note: note.to_owned(), who, at_ms };
    Ok(Host { attestation: Some(attestation), ..host.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name;

    fn host() -> Host {
        Host::joined("main".parse().unwrap(), "host".into(), name::digest(b"certificate"), 1)
    }

    fn change(set: &[(&str, &str)], remove: &[&str]) -> ChangeLabels {
        ChangeLabels {
            set: set.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            remove: remove.iter().map(|key| (*key).into()).collect(),
        }
    }

    #[test]
    fn labels_that_are_not_named_stay() {
        let one = relabel(&host(), &change(&[("rack", "7"), ("gpu", "a100")], &[])).unwrap();
        let two = relabel(&one, &change(&[("rack", "8")], &["gpu", "never-there"])).unwrap();
        assert_eq!(two.labels, [("rack".to_owned(), "8".to_owned())].into());
    }

    #[test]
    fn a_malformed_label_is_refused_with_what_to_write() {
        for (key, value) in
            [("", "x"), ("Rack", "x"), ("-a", "x"), ("a b", "x"), ("a", ""), ("a", "x y"), ("a", "\u{e9}")]
        {
            let refused = relabel(&host(), &change(&[(key, value)], &[])).unwrap_err().to_string();
            assert!(refused.contains("write 1 to 63"), "{key:?}={value:?}: {refused}");
        }
        assert!(relabel(&host(), &change(&[(&"k".repeat(64), "x")], &[])).is_err());
        assert!(relabel(&host(), &change(&[("a", "x")], &["a"])).is_err());
    }

    #[test]
    fn a_host_has_sixty_four_labels_at_most() {
        let many = |count: usize| ChangeLabels {
            set: (0..count).map(|n| (format!("k{n}"), "v".to_owned())).collect(),
            ..ChangeLabels::default()
        };
        assert_eq!(relabel(&host(), &many(64)).unwrap().labels.len(), 64);
        assert!(relabel(&host(), &many(65)).is_err());
    }

    #[test]
    fn a_machine_with_another_certificate_has_lost_its_attestation() {
        let attested = attest(&host(), " measured boot, by hand ", "token:t1".into(), 7).unwrap();
        assert_eq!(attested.attested().unwrap().note, "measured boot, by hand");
        let anew = Host { certificate: name::digest(b"another"), ..attested };
        assert_eq!(anew.attested(), None);
        assert!(attest(&host(), "  ", "token:t1".into(), 7).is_err());
    }
}
