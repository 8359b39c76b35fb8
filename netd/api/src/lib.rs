//! netd's contract: the whole desired state of one host's virtual switches in, a status out.
//!
//! The document is whole, never a delta: what is not named in it and carries netd's mark is removed. The sender
//! numbers it ([`Generation`]); netd refuses one older than it has. Everything is closed by default: a port passes
//! only what its [`Port::accept`] rules and the address resolution of its own addresses need.
//!
//! Served as HTTP/JSON on a unix socket:
//!
//! | request | body | answer |
//! |---|---|---|
//! | `PUT /v1/desired` | [`Desired`] | [`Status`] once applied; 409 [`Problem`] if older than held; 422 if invalid (nothing is changed) |
//! | `PATCH /v1/desired` | [`Change`] | as `PUT`, but the [`Status`] has the networks put only; 409 if netd holds another document than the change is from |
//! | `POST /v1/plan` | [`Desired`] | [`PlanReport`]: what `PUT` would do, nothing is changed |
//! | `GET /v1/status` | | [`Status`], freshly observed |
//! | `POST /v1/purge` | | [`Status`] after everything of netd's was removed |
//! | `POST /v1/explain` | [`Question`] | [`Explanation`]; 404 if a port is not on this host |
//! | `GET /v1/flows` | | list of [`Flow`] |
//! | `POST /v1/capture` | [`Capture`] | pcapng, streamed; 404 if a port is not on this host |
//! | `GET /metrics` | | Prometheus text |

use serde::{Deserialize, Serialize};
use types::Generation;
use utoipa::ToSchema;

/// Longest name the kernel takes for a link, without the terminating zero.
pub const LINK_NAME_LEN_MAX: usize = 15;

mod capture;
mod change;
mod explain;
mod flow;
mod mirror;
mod network;
mod port;
mod router;
mod status;

pub use capture::Capture;
pub use change::Change;
pub use explain::{End, Explanation, Question, Service, Stage, Verdict};
pub use flow::Flow;
pub use mirror::{Mirror, MirrorFrom, MirrorTo, MirrorTunnel, Watcher};
pub use network::{Network, Uplink};
pub use port::{Accept, Direction, Port, Protocol, Rate};
pub use router::{Dhcp, Dns, Lease, Outside, Published, Router, Transport};
pub use status::{
    Counter, MirrorStatus, NetworkStatus, PortStatus, RouterStatus, RuleStatus, Status, WatcherStatus,
};

/// Everything netd shall hold on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Desired {
    /// Grows with every change.
    pub generation: Generation,
    /// At most one per `(deployment, network)`.
    pub networks: Vec<Network>,
    /// NICs that only listen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watchers: Vec<Watcher>,
    /// What is copied to whom.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<Mirror>,
}

/// What a desired document would change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanReport {
    /// One line a step, in order.
    pub steps: Vec<String>,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Stable, kebab-case: `stale-generation`, `invalid-document`, `internal`.
    pub code: String,
    /// What, where, and what to do.
    pub message: String,
}
