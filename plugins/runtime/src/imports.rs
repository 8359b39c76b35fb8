//! The functions a policy may call, one file for each interface. All are linked once; which of them a component may
//! import is decided when it is loaded, by its kind.

mod checkpoints;
mod cluster;
mod context;
mod guest;
mod instances;
mod log;

use crate::bindings;
use crate::call::CallState;
use wasmtime::component::{HasSelf, Linker};

/// The version under which interfaces are linked: a component of another 0.1.x finds them by its track.
const VERSION: &str = "0.1.1";

/// Links every interface.
pub(crate) fn link(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    bindings::types::add_to_linker::<_, HasSelf<CallState>>(linker, |state| state)?;
    bindings::context::add_to_linker::<_, HasSelf<CallState>>(linker, |state| state)?;
    bindings::log::add_to_linker::<_, HasSelf<CallState>>(linker, |state| state)?;
    guest::link(linker)?;
    instances::link(&mut linker.instance(&format!("collective:policy/instances@{VERSION}"))?)?;
    checkpoints::link(&mut linker.instance(&format!("collective:policy/checkpoints@{VERSION}"))?)?;
    cluster::link(&mut linker.instance(&format!("collective:policy/cluster@{VERSION}"))?)
}
