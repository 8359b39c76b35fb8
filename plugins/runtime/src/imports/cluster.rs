//! `cluster`. Linked by hand, because a generated function answers a `Vec`, which would be a copy of the column for
//! each call; these lower straight from the shared snapshot.

use crate::bindings::cluster::HostRow;
use crate::call::CallState;
use crate::error::Refusal;
use crate::placement::{HOSTS_MAX, View};
use std::sync::Arc;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, LinkerInstance, Lower};

type Linked<'a> = LinkerInstance<'a, CallState>;

pub(crate) fn link(cluster: &mut Linked<'_>) -> wasmtime::Result<()> {
    cluster.func_wrap("host-count", |mut call: StoreContextMut<'_, CallState>, ()| {
        Ok((call.data_mut().placement()?.hosts.host_count(),))
    })?;
    cluster.func_wrap("host-name", |mut call: StoreContextMut<'_, CallState>, (host,): (u32,)| {
        let names = &call.data_mut().placement()?.hosts.names;
        Ok((names.get(host as usize).cloned().ok_or_else(|| missing(host, names.len()))?,))
    })?;
    column(cluster, "sites", |view| Arc::clone(&view.hosts.sites))?;
    column(cluster, "states", |view| Arc::clone(&view.hosts.states))?;
    column(cluster, "memory-total-bytes", |view| Arc::clone(&view.hosts.memory_total_bytes))?;
    column(cluster, "memory-free-bytes", |view| Arc::clone(&view.hosts.memory_free_bytes))?;
    column(cluster, "disk-total-bytes", |view| Arc::clone(&view.hosts.disk_total_bytes))?;
    column(cluster, "disk-free-bytes", |view| Arc::clone(&view.hosts.disk_free_bytes))?;
    column(cluster, "cpu-total-milli", |view| Arc::clone(&view.hosts.cpu_total_milli))?;
    column(cluster, "cpu-free-milli", |view| Arc::clone(&view.hosts.cpu_free_milli))?;
    column(cluster, "instance-counts", |view| Arc::clone(&view.hosts.instance_counts))?;
    column(cluster, "loads", |view| Arc::clone(&view.hosts.loads))?;
    column(cluster, "attested", |view| Arc::clone(&view.hosts.attested))?;
    column(cluster, "image-cached-bytes", |view| Arc::clone(&view.image_cached_bytes))?;
    column(cluster, "peers", |view| Arc::clone(&view.peers))?;
    column(cluster, "rivals", |view| Arc::clone(&view.rivals))?;
    column(cluster, "feasible-mask", View::feasible_mask)?;
    cluster.func_wrap("labels", |mut call: StoreContextMut<'_, CallState>, (key,): (String,)| {
        Ok((call.data_mut().placement()?.hosts.label(&key),))
    })?;
    cluster.func_wrap("feasible", |mut call: StoreContextMut<'_, CallState>, (limit,): (u32,)| {
        Ok((call.data_mut().placement()?.feasible(limit),))
    })?;
    cluster.func_wrap("rows", |mut call: StoreContextMut<'_, CallState>, (hosts,): (Vec<u32>,)| {
        let view = call.data_mut().placement()?;
        if hosts.len() > HOSTS_MAX {
            let refusal = Refusal::TooMany { what: "rows", count: hosts.len(), count_max: HOSTS_MAX };
            return Err(wasmtime::Error::new(refusal));
        }
        let rows = hosts.into_iter().map(|host| row(view, host)).collect::<wasmtime::Result<Vec<_>>>()?;
        Ok((rows,))
    })
}

fn column<T>(
    cluster: &mut Linked<'_>,
    name: &str,
    of: impl Fn(&View) -> Arc<[T]> + Send + Sync + 'static,
) -> wasmtime::Result<()>
where
    [T]: ComponentType + Lower,
    T: Send + Sync + 'static,
{
    cluster.func_wrap(name, move |mut call: StoreContextMut<'_, CallState>, ()| {
        Ok((of(call.data_mut().placement()?),))
    })
}

fn row(view: &View, host: u32) -> wasmtime::Result<HostRow> {
    let (hosts, at) = (&view.hosts, host as usize);
    if at >= hosts.names.len() {
        return Err(missing(host, hosts.names.len()));
    }
    Ok(HostRow {
        host,
        site: hosts.sites[at],
        state: hosts.states[at],
        attested: hosts.attested[at] != 0,
        memory_total_bytes: hosts.memory_total_bytes[at],
        memory_free_bytes: hosts.memory_free_bytes[at],
        disk_total_bytes: hosts.disk_total_bytes[at],
        disk_free_bytes: hosts.disk_free_bytes[at],
        cpu_total_milli: hosts.cpu_total_milli[at],
        cpu_free_milli: hosts.cpu_free_milli[at],
        instance_count: hosts.instance_counts[at],
        load: hosts.loads[at],
        image_cached_bytes: view.image_cached_bytes[at],
        peers: view.peers[at],
        rivals: view.rivals[at],
    })
}

fn missing(index: u32, count: usize) -> wasmtime::Error {
    wasmtime::Error::new(Refusal::OutOfRange { what: "host", index, count })
}
