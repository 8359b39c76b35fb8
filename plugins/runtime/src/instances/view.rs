//! The instances as a guest sees them: checked, texts as symbols.

use super::{INSTANCES_MAX, InstanceColumns};
use crate::symbols::Symbols;
use std::sync::Arc;

/// Numbers stay below this, so that a guest whose only number is a double loses nothing.
pub(crate) const NUMBER_MAX: u64 = (1 << 53) - 1;

/// What the interface `instances` reads.
#[derive(Debug)]
pub(crate) struct InstancesView {
    pub(crate) names: Vec<String>,
    pub(crate) deployments: Arc<[u32]>,
    pub(crate) members: Arc<[u32]>,
    pub(crate) hosts: Arc<[u32]>,
    pub(crate) sites: Arc<[u32]>,
    pub(crate) appliances: Arc<[u32]>,
    pub(crate) versions: Arc<[u32]>,
    pub(crate) states: Arc<[u8]>,
    pub(crate) healths: Arc<[u8]>,
    pub(crate) started: Arc<[u64]>,
    pub(crate) memory_bytes: Arc<[u64]>,
    pub(crate) dirty_bytes: Arc<[u64]>,
    pub(crate) checkpointed: Arc<[u64]>,
}

impl InstancesView {
    /// Of columns that were checked.
    pub(crate) fn new(columns: &InstanceColumns, symbols: &mut Symbols) -> Self {
        Self {
            names: columns.names.clone(),
            deployments: symbols.column(&columns.deployments),
            members: symbols.column(&columns.members),
            hosts: symbols.column(&columns.hosts),
            sites: symbols.column(&columns.sites),
            appliances: symbols.column(&columns.appliances),
            versions: symbols.column(&columns.versions),
            states: columns.states.iter().map(|state| state.code()).collect(),
            healths: columns.healths.iter().map(|health| health.code()).collect(),
            started: columns.started_ms.as_slice().into(),
            memory_bytes: columns.memory_bytes.as_slice().into(),
            dirty_bytes: columns.dirty_bytes.as_slice().into(),
            checkpointed: columns.checkpointed_ms.as_slice().into(),
        }
    }
}

/// Whether the columns keep the contract's rules.
pub(crate) fn check(columns: &InstanceColumns) -> Result<(), String> {
    let count = columns.len();
    if count > INSTANCES_MAX {
        return Err(format!("instances: {count} are more than {INSTANCES_MAX}"));
    }
    let lens = [
        ("deployments", columns.deployments.len()),
        ("members", columns.members.len()),
        ("hosts", columns.hosts.len()),
        ("sites", columns.sites.len()),
        ("appliances", columns.appliances.len()),
        ("versions", columns.versions.len()),
        ("states", columns.states.len()),
        ("healths", columns.healths.len()),
        ("started_ms", columns.started_ms.len()),
        ("memory_bytes", columns.memory_bytes.len()),
        ("dirty_bytes", columns.dirty_bytes.len()),
        ("checkpointed_ms", columns.checkpointed_ms.len()),
    ];
    if let Some((name, len)) = lens.into_iter().find(|(_, len)| *len != count) {
        return Err(format!("instances.{name} has {len} elements for {count} instances"));
    }
    if !columns.names.is_sorted_by(|a, b| a < b) {
        return Err("instances.names: they do not rise, or one occurs twice".to_owned());
    }
    let wide = [&columns.started_ms, &columns.memory_bytes, &columns.dirty_bytes, &columns.checkpointed_ms];
    check_numbers("instances", wide.into_iter().flatten())
}

/// Whether numbers are below 2^53.
pub(crate) fn check_numbers<'a>(
    place: &str,
    numbers: impl IntoIterator<Item = &'a u64>,
) -> Result<(), String> {
    match numbers.into_iter().find(|number| **number > NUMBER_MAX) {
        Some(number) => Err(format!("{place}: {number} is above {NUMBER_MAX}")),
        None => Ok(()),
    }
}

/// Whether settings are what a policy can be given.
pub(crate) fn check_settings(settings: &serde_json::Value) -> Result<(), String> {
    if settings.is_null() || settings.is_object() {
        Ok(())
    } else {
        Err("settings: give an object".to_owned())
    }
}
