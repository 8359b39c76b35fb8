//! What a policy says about itself and about settings, checked.

use crate::bindings::plugin;
use crate::load::LoadError;
use serde::{Deserialize, Serialize};

const NAME_BYTES_MAX: usize = 63;
const TEXT_BYTES_MAX: usize = 1024;
const LICENSE_BYTES_MAX: usize = 128;
pub(crate) const DOCUMENT_BYTES_MAX: usize = 64 << 10;
const ISSUES_MAX: usize = 64;

/// What a policy says about itself, checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// `[a-z0-9-]`, starting with a letter, at most 63 bytes.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// One sentence.
    pub summary: String,
    /// SPDX expression.
    pub license: String,
    /// JSON Schema of the settings.
    pub settings_schema: serde_json::Value,
    /// Settings used where none are given; the policy accepts them.
    pub default_settings: serde_json::Value,
}

/// One thing wrong with a settings document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsIssue {
    /// JSON Pointer, empty for the whole document.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl SettingsIssue {
    pub(crate) fn whole(message: String) -> Vec<Self> {
        vec![Self { path: String::new(), message }]
    }
}

pub(crate) fn check_issues(issues: Vec<plugin::SettingsIssue>) -> Vec<SettingsIssue> {
    if issues.is_empty() {
        return SettingsIssue::whole("the policy refuses the settings and does not say why".to_owned());
    }
    let cut = |mut text: String| {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text
    };
    let issues = issues.into_iter().take(ISSUES_MAX);
    issues.map(|issue| SettingsIssue { path: cut(issue.path), message: cut(issue.message) }).collect()
}

pub(crate) fn check(manifest: plugin::Manifest) -> Result<Manifest, LoadError> {
    let wrong = |field, problem: &str| LoadError::Manifest { field, problem: problem.to_owned() };
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let name = &manifest.name;
    let letter_first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if !letter_first || name.len() > NAME_BYTES_MAX || !name.bytes().all(plain) {
        return Err(wrong("name", "is not 1 to 63 of a-z, 0-9 and -, starting with a letter"));
    }
    if !is_version(&manifest.version) {
        return Err(wrong("version", "is not MAJOR.MINOR.PATCH"));
    }
    if manifest.summary.len() > TEXT_BYTES_MAX {
        return Err(wrong("summary", "is longer than 1 KiB"));
    }
    if manifest.license.len() > LICENSE_BYTES_MAX {
        return Err(wrong("license", "is longer than 128 bytes"));
    }
    Ok(Manifest {
        settings_schema: object("settings-schema", &manifest.settings_schema)?,
        default_settings: object("default-settings", &manifest.default_settings)?,
        name: manifest.name,
        version: manifest.version,
        summary: manifest.summary,
        license: manifest.license,
    })
}

fn object(field: &'static str, text: &str) -> Result<serde_json::Value, LoadError> {
    let wrong = |problem: String| LoadError::Manifest { field, problem };
    if text.len() > DOCUMENT_BYTES_MAX {
        return Err(wrong("is longer than 64 KiB".to_owned()));
    }
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| wrong(format!("is no JSON: {error}")))?;
    if value.is_object() { Ok(value) } else { Err(wrong("is no JSON object".to_owned())) }
}

/// Three numbers, then perhaps a pre-release or build part.
fn is_version(text: &str) -> bool {
    let core = text.split(['-', '+']).next().unwrap_or_default();
    let number = |part: &str| (1..=9).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    let tail = |byte: u8| byte.is_ascii_alphanumeric() || b".-+".contains(&byte);
    text.len() <= NAME_BYTES_MAX
        && core.split('.').count() == 3
        && core.split('.').all(number)
        && text.bytes().all(tail)
}
