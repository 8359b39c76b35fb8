//! What is asked about a snapshot: the request, and the columns that depend on it.

use super::snapshot::NUMBER_MAX;
use super::{CHOICES_MAX, Columns, PlacementInput, Request, Snapshot};
use crate::error::PolicyError;
use std::sync::Arc;
use types::Revision;

/// A request and its circumstances: with a [`Snapshot`] it is what a [`PlacementInput`] is. An empty column stands for
/// zeros. Questions about the same version may share columns.
#[derive(Debug, Clone, Default)]
pub struct PlacementQuestion {
    /// Identifier of the decision.
    pub decision_id: String,
    /// The policy's only source of chance.
    pub seed: u32,
    /// Milliseconds since 1970, below 2^53.
    pub now_ms: u64,
    /// Revision of the store behind the hosts, below 2^53.
    pub revision: Revision,
    /// An object, or null for the policy's defaults.
    pub settings: serde_json::Value,
    /// The instance that needs a host.
    pub request: Request,
    /// Bytes of the request's images that each host holds; more than there are counts as all.
    pub image_cached_bytes: Arc<[u64]>,
    /// Other instances of the request's deployment on each host.
    pub peers: Arc<[u32]>,
    /// Instances on each host that the request wants to be apart from.
    pub rivals: Arc<[u32]>,
}

impl PlacementQuestion {
    /// The input apart from the hosts.
    #[must_use]
    pub fn of(input: &PlacementInput) -> Self {
        Self {
            decision_id: input.decision_id.clone(),
            seed: input.seed,
            now_ms: input.now_ms,
            revision: input.revision,
            settings: input.settings.clone(),
            request: input.request.clone(),
            image_cached_bytes: input.hosts.image_cached_bytes.as_slice().into(),
            peers: input.hosts.peers.as_slice().into(),
            rivals: input.hosts.rivals.as_slice().into(),
        }
    }

    /// The recorded form: the question with its hosts.
    #[must_use]
    pub fn recorded(&self, hosts: &Snapshot) -> PlacementInput {
        let count = hosts.names.len();
        PlacementInput {
            decision_id: self.decision_id.clone(),
            seed: self.seed,
            now_ms: self.now_ms,
            revision: self.revision,
            settings: self.settings.clone(),
            request: self.request.clone(),
            hosts: Columns {
                image_cached_bytes: filled(&self.image_cached_bytes, count),
                peers: filled(&self.peers, count),
                rivals: self.rivals.to_vec(),
                ..hosts.columns()
            },
        }
    }

    /// Whether it keeps the contract's rules about these hosts.
    pub(crate) fn check(&self, hosts: &Snapshot) -> Result<(), PolicyError> {
        self.problem(hosts).map_or(Ok(()), |detail| Err(PolicyError::BadInput { detail }))
    }

    fn problem(&self, hosts: &Snapshot) -> Option<String> {
        let (request, count) = (&self.request, hosts.names.len());
        let lens = [
            ("image_cached_bytes", self.image_cached_bytes.len()),
            ("peers", self.peers.len()),
            ("rivals", self.rivals.len()),
        ];
        if let Some((name, len)) = lens.into_iter().find(|(_, len)| *len != 0 && *len != count) {
            return Some(format!("hosts.{name} has {len} elements for {count} hosts"));
        }
        let scalars =
            [self.now_ms, self.revision.0, request.memory_bytes, request.disk_bytes, request.image_bytes];
        if scalars.iter().any(|number| *number > NUMBER_MAX) {
            return Some(format!("a number is above {NUMBER_MAX}"));
        }
        if request.choices_max > CHOICES_MAX {
            return Some(format!("request.choices_max is above {CHOICES_MAX}"));
        }
        if let Some(pinned) = request.pinned_host.as_ref().filter(|pinned| hosts.host(pinned).is_none()) {
            return Some(format!(
                "request.pinned_host: {pinned} holds the volumes and is not among the hosts"
            ));
        }
        let settings_fit = self.settings.is_null() || self.settings.is_object();
        (!settings_fit).then(|| "settings: give an object".to_owned())
    }
}

fn filled<T: Clone + Default>(column: &[T], count: usize) -> Vec<T> {
    if column.is_empty() { vec![T::default(); count] } else { column.to_vec() }
}
