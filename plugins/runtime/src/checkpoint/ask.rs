//! Asking a policy what happens to a deployment's checkpoints.

use super::{CHECKPOINTS_MAX, CheckpointColumns, CheckpointInput, Decision, answer};
use crate::bindings::checkpoint::exports::collective::policy::checkpoint as wire;
use crate::bindings::types;
use crate::call;
use crate::error::PolicyError;
use crate::instances::{self, InstancesView};
use crate::kind::Kind;
use crate::policy::{Asked, Policy};
use crate::symbols::Symbols;
use crate::world::World;
use std::collections::HashSet;
use std::sync::Arc;

const STATE_BYTES_MAX: usize = 64 << 10;

/// What the imports of one call read.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) instances: InstancesView,
    pub(crate) checkpoints: CheckpointsView,
}

/// What the interface `checkpoints` reads.
#[derive(Debug)]
pub(crate) struct CheckpointsView {
    pub(crate) names: Vec<String>,
    pub(crate) taken: Arc<[u64]>,
    pub(crate) sizes_bytes: Arc<[u64]>,
    pub(crate) with_memory: Arc<[u8]>,
    pub(crate) causes: Arc<[u8]>,
    pub(crate) pinned: Arc<[u8]>,
    pub(crate) verified: Arc<[u8]>,
}

impl CheckpointsView {
    fn new(columns: &CheckpointColumns) -> Self {
        Self {
            names: columns.names.clone(),
            taken: columns.taken_ms.as_slice().into(),
            sizes_bytes: columns.sizes_bytes.as_slice().into(),
            with_memory: columns.with_memory.iter().map(|held| u8::from(*held)).collect(),
            causes: columns.causes.iter().map(|cause| cause.code()).collect(),
            pinned: columns.pinned.iter().map(|pinned| u8::from(*pinned)).collect(),
            verified: columns.verified.iter().map(|verified| verified.code()).collect(),
        }
    }
}

impl Policy {
    /// Asks what happens to a deployment's checkpoints now.
    ///
    /// # Errors
    /// There is no decision: the input breaks a rule, the policy failed or declined, or its answer is nonsense.
    pub fn schedule(&self, input: &CheckpointInput) -> Result<Decision, PolicyError> {
        let World::Checkpoint(exports) = self.world() else { return Err(self.other_kind(Kind::Checkpoint)) };
        check(input).map_err(|detail| PolicyError::BadInput { detail })?;
        let mut symbols = Symbols::default();
        let instances = InstancesView::new(&input.instances, &mut symbols);
        let checkpoints = CheckpointsView::new(&input.checkpoints);
        let scene = call::Scene {
            header: call::Header {
                decision_id: input.decision_id.clone(),
                seed: input.seed,
                now_ms: input.now_ms,
                revision: input.revision.0,
                settings: self.settings(&input.settings),
                symbols: Arc::new(symbols),
            },
            view: call::View::Checkpoint(Box::new(View { instances, checkpoints })),
        };
        let subject = subject(input);
        self.decide(
            exports,
            Asked { scene, limits: self.limits(), input_digest: || input.digest() },
            |store, policy| {
                policy.collective_policy_checkpoint().call_schedule(store, &subject, &input.state.0)
            },
            |plan| answer::check(plan, &input.checkpoints),
        )
    }
}

fn check(input: &CheckpointInput) -> Result<(), String> {
    let (subject, columns) = (&input.subject, &input.checkpoints);
    instances::check(&input.instances)?;
    instances::check_settings(&input.settings)?;
    let scalars =
        [&input.now_ms, &input.revision.0, &subject.created_ms, &subject.used_bytes, &subject.quota_bytes];
    instances::check_numbers("the input", scalars)?;
    instances::check_numbers("checkpoints", columns.taken_ms.iter().chain(&columns.sizes_bytes))?;
    let count = columns.names.len();
    if count > CHECKPOINTS_MAX {
        return Err(format!("checkpoints: {count} are more than {CHECKPOINTS_MAX}"));
    }
    let lens = [
        ("taken_ms", columns.taken_ms.len()),
        ("sizes_bytes", columns.sizes_bytes.len()),
        ("with_memory", columns.with_memory.len()),
        ("causes", columns.causes.len()),
        ("pinned", columns.pinned.len()),
        ("verified", columns.verified.len()),
    ];
    if let Some((name, len)) = lens.into_iter().find(|(_, len)| *len != count) {
        return Err(format!("checkpoints.{name} has {len} elements for {count} checkpoints"));
    }
    if columns.names.iter().collect::<HashSet<_>>().len() != count {
        return Err("checkpoints.names: one occurs twice".to_owned());
    }
    if !columns.taken_ms.is_sorted() {
        return Err("checkpoints.taken_ms: they are not oldest first".to_owned());
    }
    if input.state.0.len() > STATE_BYTES_MAX {
        return Err(format!("state: {} bytes are more than {STATE_BYTES_MAX}", input.state.0.len()));
    }
    Ok(())
}

/// The deployment in the contract's words.
fn subject(input: &CheckpointInput) -> wire::Subject {
    let subject = &input.subject;
    let attributes = subject.attributes.iter();
    wire::Subject {
        deployment: subject.deployment.clone(),
        created: subject.created_ms,
        used_bytes: subject.used_bytes,
        quota_bytes: subject.quota_bytes,
        attributes: attributes
            .map(|(key, value)| types::Attribute { key: key.clone(), value: value.clone() })
            .collect(),
    }
}
