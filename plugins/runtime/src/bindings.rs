//! Generated from the WIT package; see `plugins/wit`.

#[allow(unsafe_code, unreachable_pub, clippy::all, reason = "generated")]
mod generated {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "placement-policy",
        imports: { default: trappable },
    });
}

pub(crate) use generated::collective::policy::{cluster, context, log, types};
pub(crate) use generated::exports::collective::policy::{placement, plugin};
pub(crate) use generated::{PlacementPolicy, PlacementPolicyPre};
