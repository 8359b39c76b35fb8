//! A component that was checked, compiled and asked what it is.

use crate::bindings::{PlacementPolicyPre, plugin, types};
use crate::call::{self, CallState, LogLevel, PolicyError};
use crate::load::{self, LoadError};
use crate::placement::scene::Scene;
use crate::placement::{self, Decision, PlacementInput};
use crate::runtime::Shared;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;
use types::PolicyError as Declined;
use wasmtime::component::Component;

const NAME_BYTES_MAX: usize = 63;
const TEXT_BYTES_MAX: usize = 1024;
const LICENSE_BYTES_MAX: usize = 128;
const DOCUMENT_BYTES_MAX: usize = 64 << 10;
const ISSUES_MAX: usize = 64;

/// Which decision a policy makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// On which host an instance runs.
    Placement,
}

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
    fn whole(message: String) -> Vec<Self> {
        vec![Self { path: String::new(), message }]
    }
}

/// A policy that can be asked. All calls block the thread, at most for the deadline.
pub struct Policy {
    shared: Arc<Shared>,
    digest: ::types::Digest,
    manifest: Manifest,
    world: World,
}

/// The typed exports, by kind.
enum World {
    Placement(PlacementPolicyPre<CallState>),
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The compiled code has nothing to show.
        let (name, version) = (&self.manifest.name, &self.manifest.version);
        f.debug_struct("Policy")
            .field("name", name)
            .field("version", version)
            .field("digest", &self.digest)
            .finish()
    }
}

impl Policy {
    /// Checks the component against the contract and asks it what it is.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        component: &Component,
        digest: ::types::Digest,
    ) -> Result<Self, LoadError> {
        load::check_world(&shared.engine, component)?;
        let misfit = |error: wasmtime::Error| LoadError::Contract { detail: format!("{error:#}") };
        let linked = shared.linker.instantiate_pre(component).map_err(misfit)?;
        let exports = PlacementPolicyPre::new(linked).map_err(misfit)?;
        let described = call::run(shared, &exports, None, |store, policy| {
            policy.collective_policy_plugin().call_describe(store)
        });
        let manifest = check_manifest(described.0.map_err(LoadError::Describe)?)?;
        let policy = Self { shared: Arc::clone(shared), digest, manifest, world: World::Placement(exports) };
        match policy.validate_settings(&policy.manifest.default_settings) {
            Ok(()) => Ok(policy),
            Err(issues) => Err(LoadError::DefaultSettings { issues }),
        }
    }

    /// Which decision it makes.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.world {
            World::Placement(_) => Kind::Placement,
        }
    }

    /// What it says about itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// SHA-256 of its component.
    #[must_use]
    pub fn digest(&self) -> ::types::Digest {
        self.digest
    }

    /// Asks the policy whether it accepts a settings document. A policy that fails at this accepts nothing.
    ///
    /// # Errors
    /// What is wrong, at least one issue.
    pub fn validate_settings(&self, settings: &serde_json::Value) -> Result<(), Vec<SettingsIssue>> {
        if !settings.is_object() {
            return Err(SettingsIssue::whole("settings are a JSON object".to_owned()));
        }
        let text = settings.to_string();
        if text.len() > DOCUMENT_BYTES_MAX {
            let problem = format!("{} bytes are more than {DOCUMENT_BYTES_MAX}", text.len());
            return Err(SettingsIssue::whole(problem));
        }
        let World::Placement(exports) = &self.world;
        let (answer, _) = call::run(&self.shared, exports, None, |store, policy| {
            policy.collective_policy_plugin().call_validate_settings(store, &text)
        });
        match answer {
            Ok(Ok(())) => Ok(()),
            Ok(Err(issues)) => Err(check_issues(issues)),
            Err(error) => Err(SettingsIssue::whole(error.to_string())),
        }
    }

    /// Asks where an instance should go.
    ///
    /// # Errors
    /// There is no decision: the input breaks a rule, the policy failed or declined, or its answer is nonsense.
    pub fn place(&self, input: &PlacementInput) -> Result<Decision, PolicyError> {
        let World::Placement(exports) = &self.world;
        let started = Instant::now();
        let defaults = self.manifest.default_settings.to_string();
        let scene = Scene::new(input, &defaults, self.shared.limits.deadline_ms)?;
        let (request, choices_max) = (scene.request(), scene.choices_max());
        let (answer, state) = call::run(&self.shared, exports, Some(scene), |store, policy| {
            policy.collective_policy_placement().call_place(store, &request)
        });
        self.trace(input, &state);
        let verdict = placement::check_answer(answer?.map_err(declined)?, &input.hosts.names, choices_max)
            .map_err(|detail| PolicyError::BadAnswer { detail })?;
        Ok(Decision {
            decision_id: input.decision_id.clone(),
            input_digest: input.digest(),
            policy: self.manifest.name.clone(),
            policy_version: self.manifest.version.clone(),
            policy_digest: self.digest,
            verdict,
            took_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
            logs: state.logs,
            logs_dropped: state.logs_dropped,
        })
    }

    /// The policy's lines in our own log: also of a call that failed.
    fn trace(&self, input: &PlacementInput, state: &CallState) {
        let (policy, decision_id) = (&self.manifest.name, &input.decision_id);
        for line in &state.logs {
            let message = &line.message;
            match line.level {
                LogLevel::Error => tracing::error!(%policy, %decision_id, %message, "policy"),
                LogLevel::Warn => tracing::warn!(%policy, %decision_id, %message, "policy"),
                _ => tracing::debug!(%policy, %decision_id, %message, "policy"),
            }
        }
    }
}

fn declined(error: Declined) -> PolicyError {
    let (reason, mut text) = match error {
        Declined::Unsupported(text) => ("unsupported", text),
        Declined::InvalidInput(text) => ("invalid-input", text),
        Declined::BadSettings(text) => ("bad-settings", text),
        Declined::Internal(text) => ("internal", text),
    };
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    PolicyError::Declined { reason: reason.to_owned(), text }
}

fn check_issues(issues: Vec<plugin::SettingsIssue>) -> Vec<SettingsIssue> {
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

fn check_manifest(manifest: plugin::Manifest) -> Result<Manifest, LoadError> {
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
