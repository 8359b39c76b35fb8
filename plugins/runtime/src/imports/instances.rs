//! `instances`, linked by hand as `cluster` is, so that columns lower from where they are.

use crate::call::CallState;
use crate::error::Refusal;
use crate::instances::InstancesView;
use std::sync::Arc;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, LinkerInstance, Lower};

type Linked<'a> = LinkerInstance<'a, CallState>;

pub(crate) fn link(instances: &mut Linked<'_>) -> wasmtime::Result<()> {
    instances.func_wrap("instance-count", |mut call: StoreContextMut<'_, CallState>, ()| {
        let count = call.data_mut().instances()?.names.len();
        Ok((u32::try_from(count).unwrap_or(u32::MAX),))
    })?;
    instances.func_wrap("instance-name", |mut call: StoreContextMut<'_, CallState>, (index,): (u32,)| {
        let names = &call.data_mut().instances()?.names;
        let refusal = || Refusal::OutOfRange { what: "instance", index, count: names.len() };
        Ok((names.get(index as usize).cloned().ok_or_else(|| wasmtime::Error::new(refusal()))?,))
    })?;
    column(instances, "deployments", |view| Arc::clone(&view.deployments))?;
    column(instances, "members", |view| Arc::clone(&view.members))?;
    column(instances, "hosts", |view| Arc::clone(&view.hosts))?;
    column(instances, "sites", |view| Arc::clone(&view.sites))?;
    column(instances, "appliances", |view| Arc::clone(&view.appliances))?;
    column(instances, "versions", |view| Arc::clone(&view.versions))?;
    column(instances, "states", |view| Arc::clone(&view.states))?;
    column(instances, "healths", |view| Arc::clone(&view.healths))?;
    column(instances, "started", |view| Arc::clone(&view.started))?;
    column(instances, "memory-bytes", |view| Arc::clone(&view.memory_bytes))?;
    column(instances, "dirty-bytes", |view| Arc::clone(&view.dirty_bytes))?;
    column(instances, "checkpointed", |view| Arc::clone(&view.checkpointed))
}

fn column<T>(
    instances: &mut Linked<'_>,
    name: &str,
    of: impl Fn(&InstancesView) -> Arc<[T]> + Send + Sync + 'static,
) -> wasmtime::Result<()>
where
    [T]: ComponentType + Lower,
    T: Send + Sync + 'static,
{
    instances.func_wrap(name, move |mut call: StoreContextMut<'_, CallState>, ()| {
        Ok((of(call.data_mut().instances()?),))
    })
}
