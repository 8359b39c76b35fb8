//! `checkpoints`, linked by hand as `cluster` is.

use crate::call::CallState;
use crate::checkpoint::CheckpointsView;
use crate::error::Refusal;
use std::sync::Arc;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, LinkerInstance, Lower};

type Linked<'a> = LinkerInstance<'a, CallState>;

pub(crate) fn link(checkpoints: &mut Linked<'_>) -> wasmtime::Result<()> {
    checkpoints.func_wrap("checkpoint-count", |mut call: StoreContextMut<'_, CallState>, ()| {
        let count = call.data_mut().checkpoints()?.names.len();
        Ok((u32::try_from(count).unwrap_or(u32::MAX),))
    })?;
    checkpoints.func_wrap(
        "checkpoint-name",
        |mut call: StoreContextMut<'_, CallState>, (index,): (u32,)| {
            let names = &call.data_mut().checkpoints()?.names;
            let refusal = || Refusal::OutOfRange { what: "checkpoint", index, count: names.len() };
            Ok((names.get(index as usize).cloned().ok_or_else(|| wasmtime::Error::new(refusal()))?,))
        },
    )?;
    column(checkpoints, "taken", |view| Arc::clone(&view.taken))?;
    column(checkpoints, "sizes-bytes", |view| Arc::clone(&view.sizes_bytes))?;
    column(checkpoints, "with-memory", |view| Arc::clone(&view.with_memory))?;
    column(checkpoints, "causes", |view| Arc::clone(&view.causes))?;
    column(checkpoints, "pinned", |view| Arc::clone(&view.pinned))?;
    column(checkpoints, "verified", |view| Arc::clone(&view.verified))
}

fn column<T>(
    checkpoints: &mut Linked<'_>,
    name: &str,
    of: impl Fn(&CheckpointsView) -> Arc<[T]> + Send + Sync + 'static,
) -> wasmtime::Result<()>
where
    [T]: ComponentType + Lower,
    T: Send + Sync + 'static,
{
    checkpoints.func_wrap(name, move |mut call: StoreContextMut<'_, CallState>, ()| {
        Ok((of(call.data_mut().checkpoints()?),))
    })
}
