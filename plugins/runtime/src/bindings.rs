//! Generated from the WIT package; see `plugins/wit`. One module for each world; what two worlds import is generated
//! once, in the first of them, and given to the others through `with`.

/// The world `placement-policy`.
#[allow(unsafe_code, unreachable_pub, dead_code, clippy::all, reason = "generated")]
pub(crate) mod placement {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "placement-policy",
        imports: { default: trappable },
    });
}

/// The world `update-policy`.
#[allow(unsafe_code, unreachable_pub, dead_code, clippy::all, reason = "generated")]
pub(crate) mod update {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "update-policy",
        imports: { default: trappable },
        with: {
            "collective:policy/types": super::placement::collective::policy::types,
            "collective:policy/context": super::placement::collective::policy::context,
            "collective:policy/log": super::placement::collective::policy::log,
        },
    });
}

/// The world `checkpoint-policy`.
#[allow(unsafe_code, unreachable_pub, dead_code, clippy::all, reason = "generated")]
pub(crate) mod checkpoint {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "checkpoint-policy",
        imports: { default: trappable },
        with: {
            "collective:policy/types": super::placement::collective::policy::types,
            "collective:policy/context": super::placement::collective::policy::context,
            "collective:policy/log": super::placement::collective::policy::log,
            "collective:policy/instances": super::update::collective::policy::instances,
        },
    });
}

/// The world `introspection-policy`.
#[allow(unsafe_code, unreachable_pub, dead_code, clippy::all, reason = "generated")]
pub(crate) mod introspection {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "introspection-policy",
        imports: { default: trappable },
        with: {
            "collective:policy/types": super::placement::collective::policy::types,
            "collective:policy/context": super::placement::collective::policy::context,
            "collective:policy/log": super::placement::collective::policy::log,
        },
    });
}

/// What every world exports, seen alone: the questions to a component about itself are the same for all kinds.
#[allow(unsafe_code, unreachable_pub, clippy::all, reason = "generated")]
mod about {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "
            package collective:runtime;
            world about { export collective:policy/plugin@0.1.1; }
        ",
        world: "collective:runtime/about",
    });
}

pub(crate) use about::exports::collective::policy::plugin;
pub(crate) use about::{About, AboutPre};
pub(crate) use placement::collective::policy::{cluster, context, log, types};
