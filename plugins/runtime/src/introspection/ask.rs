//! Asking a policy what is wrong in a guest.

use super::access::Access;
use super::{GuestFacts, GuestViews, IntrospectionInput, Report, Trigger, answer, attributes};
use crate::bindings::introspection::exports::collective::policy::introspection as wire;
use crate::call;
use crate::canonical;
use crate::deadline;
use crate::decision::Decision;
use crate::error::PolicyError;
use crate::kind::Kind;
use crate::policy::{Asked, Policy};
use crate::symbols::Symbols;
use crate::world::World;
use std::sync::Arc;
use std::time::Duration;

/// What the imports of one call read.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) access: Access,
    pub(crate) facts: GuestFacts,
}

impl Policy {
    /// Asks what is wrong in a guest. What the policy may use is this runtime's [`crate::Limits`]; reading, searching
    /// and hashing for it count as its processor time.
    ///
    /// # Errors
    /// There is no report: the input breaks a rule, the policy failed or declined, or its answer is nonsense.
    pub fn inspect(
        &self,
        input: &IntrospectionInput,
        guest: Arc<dyn GuestViews>,
    ) -> Result<Decision<Report>, PolicyError> {
        let World::Introspection(exports) = self.world() else {
            return Err(self.other_kind(Kind::Introspection));
        };
        super::check_input(input).map_err(|detail| PolicyError::BadInput { detail })?;
        let limits = self.limits();
        let (begun, most) = (deadline::thread_time(), Duration::from_millis(limits.deadline_ms));
        let overdue = move || deadline::thread_time().saturating_sub(begun) >= most;
        let scene = call::Scene {
            header: call::Header {
                decision_id: input.decision_id.clone(),
                seed: input.seed,
                now_ms: input.now_ms,
                revision: input.revision.0,
                settings: self.settings(&input.settings),
                symbols: Arc::new(Symbols::default()),
            },
            view: call::View::Introspection(Box::new(View {
                access: Access::new(guest, input.grants.clone(), input.bytes_max, overdue),
                facts: input.guest.clone(),
            })),
        };
        let trigger = wire::Trigger {
            kind: input.trigger.code(),
            attributes: attributes(&input.trigger_attributes).collect(),
        };
        self.decide(
            exports,
            Asked { scene, limits, input_digest: || canonical::digest(input) },
            |store, policy| {
                policy.collective_policy_introspection().call_inspect(store, &trigger, &input.state.0)
            },
            answer::check,
        )
    }
}

impl Trigger {
    fn code(self) -> u8 {
        match self {
            Self::Time => 0,
            Self::Person => 1,
            Self::Started => 2,
            Self::BeforeCheckpoint => 3,
        }
    }
}
