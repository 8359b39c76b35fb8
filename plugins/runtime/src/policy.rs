//! A component that was checked, compiled and asked what it is.

use crate::bindings::{AboutPre, types};
use crate::call::{self, CallState, Scene};
use crate::decision::{Decision, LogLevel};
use crate::error::PolicyError;
use crate::kind::Kind;
use crate::limits::Limits;
use crate::load::{self, LoadError};
use crate::manifest::{self, DOCUMENT_BYTES_MAX, Manifest, SettingsIssue};
use crate::runtime::Shared;
use crate::world::{Exports, World};
use ::types::Digest;
use std::sync::Arc;
use std::time::Instant;
use wasmtime::Store;
use wasmtime::component::Component;

/// A policy that can be asked. All calls block the thread, at most for the deadline.
pub struct Policy {
    shared: Arc<Shared>,
    digest: Digest,
    manifest: Manifest,
    imports: Vec<String>,
    default_settings: Arc<str>,
    about: AboutPre<CallState>,
    world: World,
}

/// A question, ready for the guest.
pub(crate) struct Asked<'a, D> {
    /// What its imports read.
    pub(crate) scene: Scene,
    /// What it may use.
    pub(crate) limits: &'a Limits,
    /// What identifies the input. Asked for only when there is an answer.
    pub(crate) input_digest: D,
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The compiled code has nothing to show.
        let (name, version) = (&self.manifest.name, &self.manifest.version);
        f.debug_struct("Policy")
            .field("kind", &self.kind())
            .field("name", name)
            .field("version", version)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

impl Policy {
    /// Checks the component against the contract and asks it what it is.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        component: &Component,
        digest: Digest,
    ) -> Result<Self, LoadError> {
        let known = load::check_world(&shared.engine, component)?;
        let misfit = |error: wasmtime::Error| LoadError::Contract { detail: format!("{error:#}") };
        let linked = shared.linker.instantiate_pre(component).map_err(misfit)?;
        let about = AboutPre::new(linked.clone()).map_err(misfit)?;
        let world = World::new(known.kind, linked).map_err(misfit)?;
        let (described, _) = call::run(shared, &shared.limits, &about, None, |store, policy| {
            policy.collective_policy_plugin().call_describe(store)
        });
        let manifest = manifest::check(described.map_err(LoadError::Describe)?)?;
        let default_settings = manifest.default_settings.to_string().into();
        let policy = Self {
            shared: Arc::clone(shared),
            digest,
            manifest,
            imports: known.imports,
            default_settings,
            about,
            world,
        };
        match policy.validate_settings(&policy.manifest.default_settings) {
            Ok(()) => Ok(policy),
            Err(issues) => Err(LoadError::DefaultSettings { issues }),
        }
    }

    /// Which decision it makes.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.world.kind()
    }

    /// What it says about itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Names of the interfaces it imports, with their versions, as `collective:policy/cluster@0.1.1`.
    #[must_use]
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// SHA-256 of its component.
    #[must_use]
    pub fn digest(&self) -> Digest {
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
        let (answer, _) = call::run(&self.shared, &self.shared.limits, &self.about, None, |store, policy| {
            policy.collective_policy_plugin().call_validate_settings(store, &text)
        });
        match answer {
            Ok(Ok(())) => Ok(()),
            Ok(Err(issues)) => Err(manifest::check_issues(issues)),
            Err(error) => Err(SettingsIssue::whole(error.to_string())),
        }
    }

    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    pub(crate) fn other_kind(&self, asked: Kind) -> PolicyError {
        PolicyError::OtherKind { is: self.kind(), asked }
    }

    /// The settings as text; null stands for the policy's defaults.
    pub(crate) fn settings(&self, settings: &serde_json::Value) -> Arc<str> {
        match settings {
            serde_json::Value::Null => Arc::clone(&self.default_settings),
            settings => settings.to_string().into(),
        }
    }

    /// Asks, and checks the answer: the way of every kind.
    pub(crate) fn decide<E: Exports, A, V>(
        &self,
        exports: &E,
        asked: Asked<'_, impl FnOnce() -> Digest>,
        export: impl FnOnce(
            &mut Store<CallState>,
            &E::Instance,
        ) -> wasmtime::Result<Result<A, types::PolicyError>>,
        check: impl FnOnce(A) -> Result<V, String>,
    ) -> Result<Decision<V>, PolicyError> {
        let started = Instant::now();
        let Asked { scene, limits, input_digest } = asked;
        let (answer, state) = call::run(&self.shared, limits, exports, Some(scene), export);
        self.trace(&state);
        let verdict = check(answer??).map_err(|detail| PolicyError::BadAnswer { detail })?;
        Ok(Decision {
            decision_id: state.decision_id().to_owned(),
            input_digest: input_digest(),
            policy: self.manifest.name.clone(),
            policy_version: self.manifest.version.clone(),
            policy_digest: self.digest,
            verdict,
            took_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
            memory_bytes: state.memory_bytes(limits) as u64,
            logs: state.logs,
            logs_dropped: state.logs_dropped,
        })
    }

    /// The policy's lines in our own log: also of a call that failed.
    fn trace(&self, state: &CallState) {
        let (policy, decision_id) = (&self.manifest.name, state.decision_id());
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
