//! What the imports of one placement read.

use super::feasible::Limits;
use super::{PlacementQuestion, Snapshot};
use crate::bindings::placement::exports::collective::policy::placement as wire;
use crate::bindings::types;
use std::cell::OnceCell;
use std::sync::Arc;

/// Choices wanted where the request leaves it open.
const CHOICES_DEFAULT: u32 = 8;

/// The snapshot and the columns that depend on the request.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) hosts: Arc<Snapshot>,
    pub(crate) image_cached_bytes: Arc<[u64]>,
    pub(crate) peers: Arc<[u32]>,
    pub(crate) rivals: Arc<[u32]>,
    seed: u32,
    limits: Limits,
    mask: OnceCell<Arc<[u8]>>,
}

impl View {
    /// Of a question that was checked.
    pub(crate) fn new(hosts: &Arc<Snapshot>, question: &PlacementQuestion) -> Self {
        let image_bytes = question.request.image_bytes;
        let cached = or_zeros(&question.image_cached_bytes, &hosts.zeros_u64);
        let cached = if cached.iter().any(|bytes| *bytes > image_bytes) {
            cached.iter().map(|bytes| (*bytes).min(image_bytes)).collect()
        } else {
            cached
        };
        Self {
            hosts: Arc::clone(hosts),
            image_cached_bytes: cached,
            peers: or_zeros(&question.peers, &hosts.zeros_u32),
            rivals: or_zeros(&question.rivals, &hosts.zeros_u32),
            seed: question.seed,
            limits: Limits::of(&question.request, hosts),
            mask: OnceCell::new(),
        }
    }

    /// 1 where the host meets every hard limit.
    pub(crate) fn feasible_mask(&self) -> Arc<[u8]> {
        let mask = || self.limits.mask(&self.hosts, &self.image_cached_bytes);
        Arc::clone(self.mask.get_or_init(mask))
    }

    /// At most `limit` of those hosts.
    pub(crate) fn feasible(&self, limit: u32) -> Vec<u32> {
        self.limits.some(&self.hosts, &self.image_cached_bytes, self.seed, limit)
    }
}

fn or_zeros<T>(column: &Arc<[T]>, zeros: &Arc<[T]>) -> Arc<[T]> {
    Arc::clone(if column.is_empty() { zeros } else { column })
}

/// Choices wanted.
pub(crate) fn choices_max(question: &PlacementQuestion) -> u32 {
    match question.request.choices_max {
        0 => CHOICES_DEFAULT,
        wanted => wanted,
    }
}

/// The request in the contract's words.
pub(crate) fn request(hosts: &Snapshot, question: &PlacementQuestion) -> wire::Request {
    let request = &question.request;
    let attributes = request.attributes.iter();
    wire::Request {
        instance: request.instance.clone(),
        deployment: request.deployment.clone(),
        member: request.member.clone(),
        appliance: request.appliance.clone(),
        version: request.version.clone(),
        vcpus_milli: request.vcpus_milli,
        memory_bytes: request.memory_bytes,
        disk_bytes: request.disk_bytes,
        image_bytes: request.image_bytes,
        current: request.current_host.as_ref().and_then(|name| hosts.host(name)),
        pinned: request.pinned_host.as_ref().and_then(|name| hosts.host(name)),
        choices_max: choices_max(question),
        attributes: attributes
            .map(|(key, value)| types::Attribute { key: key.clone(), value: value.clone() })
            .collect(),
    }
}
