//! The macros that make a component's exports; they expand to nothing unless the target is wasm32.

/// Makes the exports of the world `placement-policy` out of a [`PlacementPolicy`](crate::PlacementPolicy).
#[macro_export]
macro_rules! export_placement {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::guest::placement::bindings::exports::collective::policy::placement as wire;
            struct Exports;
            $crate::export_plugin!(Exports, $policy);
            impl wire::Guest for Exports {
                fn place(request: wire::Request) -> Result<wire::Verdict, $crate::guest::Declined> {
                    $crate::guest::placement::place::<$policy>(request)
                }
            }
            $crate::guest::placement::bindings::export!(Exports with_types_in $crate::guest::placement::bindings);
        };
    };
}

/// Makes the exports of the world `update-policy` out of an [`UpdatePolicy`](crate::UpdatePolicy).
#[macro_export]
macro_rules! export_update {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::guest::update::bindings::exports::collective::policy::update as wire;
            struct Exports;
            $crate::export_plugin!(Exports, $policy);
            impl wire::Guest for Exports {
                fn next_step(
                    rollout: wire::Rollout,
                    state: Vec<u8>,
                ) -> Result<wire::Plan, $crate::guest::Declined> {
                    $crate::guest::update::next_step::<$policy>(rollout, &state)
                }
            }
    $crate::guest::update::bindings::export!(Exports with_types_in $crate::guest::update::bindings);
        };
    };
}

/// Makes the exports of the world `checkpoint-policy` out of a [`CheckpointPolicy`](crate::CheckpointPolicy).
#[macro_export]
macro_rules! export_checkpoint {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::guest::checkpoint::bindings::exports::collective::policy::checkpoint as wire;
            struct Exports;
            $crate::export_plugin!(Exports, $policy);
            impl wire::Guest for Exports {
                fn schedule(
                    subject: wire::Subject,
                    state: Vec<u8>,
                ) -> Result<wire::Plan, $crate::guest::Declined> {
                    $crate::guest::checkpoint::schedule::<$policy>(subject, &state)
                }
            }
            $crate::guest::checkpoint::bindings::export!(Exports with_types_in $crate::guest::checkpoint::bindings);
        };
    };
}

/// Makes the exports of the world `introspection-policy` out of an [`IntrospectionPolicy`](crate::IntrospectionPolicy).
#[macro_export]
macro_rules! export_introspection {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::guest::introspection::bindings::exports::collective::policy::introspection as wire;
            struct Exports;
            $crate::export_plugin!(Exports, $policy);
            impl wire::Guest for Exports {
                fn inspect(
                    trigger: wire::Trigger,
                    state: Vec<u8>,
                ) -> Result<wire::Report, $crate::guest::Declined> {
                    $crate::guest::introspection::inspect::<$policy>(trigger, &state)
                }
            }
            $crate::guest::introspection::bindings::export!(Exports with_types_in $crate::guest::introspection::bindings);
        };
    };
}

/// Makes the interface `plugin` out of a [`Plugin`](crate::Plugin): a part of the macros for the worlds.
#[doc(hidden)]
#[macro_export]
macro_rules! export_plugin {
    ($exports:ident, $policy:ty) => {
        const _: () = {
            use $crate::guest::plugin::bindings::exports::collective::policy::plugin as wire;
            impl wire::Guest for $exports {
                fn describe() -> wire::Manifest {
                    $crate::guest::plugin::describe::<$policy>()
                }
                fn validate_settings(settings: String) -> Result<(), Vec<wire::SettingsIssue>> {
                    $crate::guest::plugin::validate_settings::<$policy>(&settings)
                }
            }
    $crate::guest::plugin::bindings::export!($exports with_types_in $crate::guest::plugin::bindings);
        };
    };
}
