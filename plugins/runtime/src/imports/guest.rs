//! `guest` and its views.

use crate::bindings::introspection::collective::policy::{
    guest, guest_cpu, guest_disk, guest_flows, guest_memory, views,
};
use crate::bindings::types::Attribute;
use crate::call::CallState;
use crate::introspection::{Disk, Flow, Region, ViewError, attributes};
use wasmtime::component::{HasSelf, Linker};

type Answer<T> = wasmtime::Result<Result<T, views::ViewError>>;

pub(crate) fn link(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    guest::add_to_linker::<_, HasSelf<CallState>>(linker, |state| state)?;
    views::add_to_linker::<_, HasSelf<CallState>>(linker, |state| state)?;
    guest_memory::add_to_linker::<_, HasSelf<CallState>>(linker, |state| state)?;
    guest_cpu::add_to_linker::<_, HasSelf<CallState>>(linker, |state| state)?;
    guest_flows::add_to_linker::<_, HasSelf<CallState>>(linker, |state| state)?;
    guest_disk::add_to_linker::<_, HasSelf<CallState>>(linker, |state| state)
}

impl views::Host for CallState {}

impl guest::Host for CallState {
    fn about(&mut self) -> wasmtime::Result<guest::Facts> {
        let facts = &self.introspection()?.facts;
        Ok(guest::Facts {
            instance: facts.instance.clone(),
            appliance: facts.appliance.clone(),
            version: facts.version.clone(),
            arch: facts.arch.clone(),
            vcpus: facts.vcpus,
            memory_bytes: facts.memory_bytes,
            started: facts.started_ms,
            paused: facts.paused,
            attributes: attributes(&facts.attributes).collect::<Vec<Attribute>>(),
        })
    }
}

impl guest_memory::Host for CallState {
    fn regions(&mut self) -> Answer<Vec<guest_memory::Region>> {
        let region = |Region { start, len }| guest_memory::Region { start, len };
        let regions = self.introspection()?.access.regions();
        Ok(regions.map(|regions| regions.into_iter().map(region).collect()).map_err(wire))
    }

    fn read(&mut self, address: u64, len: u32) -> Answer<Vec<u8>> {
        Ok(self.introspection()?.access.read(address, len).map_err(wire))
    }

    fn read_virtual(&mut self, root: u64, address: u64, len: u32) -> Answer<Vec<u8>> {
        Ok(self.introspection()?.access.read_virtual(root, address, len).map_err(wire))
    }

    fn translate(&mut self, root: u64, address: u64) -> Answer<u64> {
        Ok(self.introspection()?.access.translate(root, address).map_err(wire))
    }

    fn search(
        &mut self,
        start: u64,
        len: u64,
        pattern: Vec<u8>,
        mask: Vec<u8>,
        limit: u32,
    ) -> Answer<Vec<u64>> {
        Ok(self.introspection()?.access.search(start, len, &pattern, &mask, limit).map_err(wire))
    }

    fn hash_pages(&mut self, start: u64, pages: u32) -> Answer<Vec<u64>> {
        Ok(self.introspection()?.access.hash_pages(start, pages).map_err(wire))
    }
}

impl guest_cpu::Host for CallState {
    fn registers(&mut self, vcpu: u32, names: Vec<String>) -> Answer<Vec<u64>> {
        Ok(self.introspection()?.access.registers(vcpu, &names).map_err(wire))
    }
}

impl guest_flows::Host for CallState {
    fn flows(&mut self, limit: u32) -> Answer<Vec<guest_flows::Flow>> {
        let flow = |flow: Flow| guest_flows::Flow {
            first_seen: flow.first_seen_ms,
            last_seen: flow.last_seen_ms,
            port: flow.port,
            protocol: flow.protocol,
            source: flow.source,
            destination: flow.destination,
            source_port: flow.source_port,
            destination_port: flow.destination_port,
            frames: flow.frames,
            bytes: flow.bytes,
        };
        let flows = self.introspection()?.access.flows(limit);
        Ok(flows.map(|flows| flows.into_iter().map(flow).collect()).map_err(wire))
    }
}

impl guest_disk::Host for CallState {
    fn disks(&mut self) -> Answer<Vec<guest_disk::Disk>> {
        let disk = |Disk { name, size }| guest_disk::Disk { name, size };
        let disks = self.introspection()?.access.disks();
        Ok(disks.map(|disks| disks.into_iter().map(disk).collect()).map_err(wire))
    }

    fn read_disk(&mut self, disk: u32, offset: u64, len: u32) -> Answer<Vec<u8>> {
        Ok(self.introspection()?.access.read_disk(disk, offset, len).map_err(wire))
    }
}

fn wire(error: ViewError) -> views::ViewError {
    match error {
        ViewError::Denied(why) => views::ViewError::Denied(why),
        ViewError::OutOfRange => views::ViewError::OutOfRange,
        ViewError::NotMapped => views::ViewError::NotMapped,
        ViewError::TooLarge => views::ViewError::TooLarge,
        ViewError::Unavailable(why) => views::ViewError::Unavailable(why),
    }
}
