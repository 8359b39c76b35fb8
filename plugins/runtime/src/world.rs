//! The worlds: one arm of [`World`] for each kind, and what a call needs of each.

use crate::bindings::{About, AboutPre, checkpoint, introspection, placement, update};
use crate::call::CallState;
use crate::kind::Kind;
use wasmtime::Store;
use wasmtime::component::InstancePre;

/// Typed exports, found and checked once, to be instantiated for each call.
pub(crate) trait Exports {
    /// The exports of one instance.
    type Instance;

    fn instantiate(&self, store: &mut Store<CallState>) -> wasmtime::Result<Self::Instance>;
}

macro_rules! exports {
    ($pre:ty => $instance:ty) => {
        impl Exports for $pre {
            type Instance = $instance;

            fn instantiate(&self, store: &mut Store<CallState>) -> wasmtime::Result<$instance> {
                <$pre>::instantiate(self, store)
            }
        }
    };
}

exports!(AboutPre<CallState> => About);
exports!(placement::PlacementPolicyPre<CallState> => placement::PlacementPolicy);
exports!(update::UpdatePolicyPre<CallState> => update::UpdatePolicy);
exports!(checkpoint::CheckpointPolicyPre<CallState> => checkpoint::CheckpointPolicy);
exports!(introspection::IntrospectionPolicyPre<CallState> => introspection::IntrospectionPolicy);

/// The typed exports, by kind.
pub(crate) enum World {
    Placement(placement::PlacementPolicyPre<CallState>),
    Update(update::UpdatePolicyPre<CallState>),
    Checkpoint(checkpoint::CheckpointPolicyPre<CallState>),
    Introspection(introspection::IntrospectionPolicyPre<CallState>),
}

impl World {
    /// Finds the exports of that kind. They may have the wrong types.
    pub(crate) fn new(kind: Kind, linked: InstancePre<CallState>) -> wasmtime::Result<Self> {
        match kind {
            Kind::Placement => placement::PlacementPolicyPre::new(linked).map(Self::Placement),
            Kind::Update => update::UpdatePolicyPre::new(linked).map(Self::Update),
            Kind::Checkpoint => checkpoint::CheckpointPolicyPre::new(linked).map(Self::Checkpoint),
            Kind::Introspection => {
                introspection::IntrospectionPolicyPre::new(linked).map(Self::Introspection)
            }
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Placement(_) => Kind::Placement,
            Self::Update(_) => Kind::Update,
            Self::Checkpoint(_) => Kind::Checkpoint,
            Self::Introspection(_) => Kind::Introspection,
        }
    }
}
