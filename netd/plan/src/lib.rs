//! What one host's virtual switches should be, what they are, and the ordered steps between the two.
//!
//! Pure: values in, values out. No socket, file, clock or runtime; [`netd-kernel`] observes and applies.
//!
//! ```text
//! Desired + Host ── Target::new ──▶ Target ─┐
//!                                           ├── plan ──▶ Plan (steps, conflicts, refusals)
//! kernel ── observe ──────────────▶ Observed┘
//! ```
//!
//! Start reading at [`Target`], then [`plan`]. Invariants, each with a test:
//!
//! - `plan(target, observed)` after all its steps is empty; stopping after any step and planning again converges.
//! - A link is ours when it carries our group *and* one of our prefixes. Whatever else is there is never named in a
//!   step, except the physical link that the host's configuration grants to a site, and that of a trunk, which is
//!   brought up and otherwise left alone.
//! - Doors close first: links that go or move are down before the rules change, rules change before anything is
//!   attached, and nothing but an empty bridge is up before it is attached and ruled. A link on no bridge speaks to the
//!   host's own stack: it is down, or a chain of its own drops what comes from it.
//! - Whatever takes time is done before the first door closes or after the last one opens.
//!
//! The rules are sets of typed [`Element`]s in a fixed skeleton of chains (in `netd-kernel`): a change of one port is
//! a change of a few elements, so the counters of all others are untouched.
//!
//! [`netd-kernel`]: ../netd_kernel/index.html

mod document;
mod drift;
mod explain;
mod flows;
mod ladder;
mod mirror;
mod observed;
mod planner;
mod router;
mod rules;
mod shape;
mod status;
mod step;
mod target;
mod uplink;

pub use document::{Document, Scope};
pub use explain::{
    CapturePoint, Experiment, Explained, Frame, Payload, Unanswerable, capture_points, explain,
};
pub use flows::{CONVERSATION_KEPT_S, Conversation, FlowsStep, ObservedFlows, flows};
pub use ladder::Ladder;
pub use mirror::{
    Action, Chains, MirrorStep, MirrorTarget, MirrorTunnelTarget, MirrorsTarget, OUTGOING_PREFIX,
    ObservedMirrors, Place, Side, WatcherTarget, mirrors_status, watchers_status,
};
pub use observed::{Link, LinkKind, Observed, ObservedRules};
pub use planner::{Plan, plan};
pub use router::{
    End, ObservedEnd, ObservedNamespace, ObservedRouter, RouterStep, RouterTarget, namespace_name,
    router_of_namespace,
};
pub use rules::{Counters, Element, L4, Rules, Set};
pub use shape::{Limit, ObservedShape, ShapeStep, shaper_of};
pub use status::networks_status;
pub use step::Step;
pub use target::{
    Announcement, BridgeTarget, Host, Invalid, SiteTarget, TapTarget, Target, VlanTarget, VxlanTarget,
    site_bridge,
};

/// Our mark: the `IFLA_GROUP` of every link netd makes. Set in the same message that creates the link, which an alias
/// cannot be. The rules drop whatever comes from or goes to a link of this group that they do not know.
pub const GROUP: u32 = 0x0c01_1ec7;

/// Our mark, too: the group of links that are being deleted, many in one request. Found after a crash they are deleted.
pub const DOOMED: u32 = GROUP + 1;

/// UDP port of every tunnel (RFC 7348).
pub const VXLAN_PORT: u16 = 4789;

/// Prefix of bridges.
pub const BRIDGE_PREFIX: &str = "cb";
/// Prefix of the bridges netd names itself, one a site.
pub const SITE_BRIDGE_PREFIX: &str = "cbs-";
/// Prefix of VXLAN links.
pub const VXLAN_PREFIX: &str = "cx";
/// Prefix of VLAN links.
pub const VLAN_PREFIX: &str = "cv";
/// Prefix of taps.
pub const TAP_PREFIX: &str = "ct";
/// Prefix of routers' links on their networks' bridges.
pub const ROUTER_PREFIX: &str = "cr";
/// Prefix of routers' links on sites' bridges.
pub const OUTSIDE_PREFIX: &str = "co";
/// Prefix of the links on which what guests send is held back (`ifb`).
pub const SHAPER_PREFIX: &str = "ci";

/// Longest alias we set, in bytes; the kernel takes 255.
const ALIAS_LEN_MAX: usize = 200;

pub(crate) fn is_our_name(name: &str) -> bool {
    const PREFIXES: [&str; 7] =
        [BRIDGE_PREFIX, VXLAN_PREFIX, VLAN_PREFIX, TAP_PREFIX, ROUTER_PREFIX, OUTSIDE_PREFIX, SHAPER_PREFIX];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

pub(crate) fn alias(kind: &str, id: &str) -> String {
    let mut text = format!("collective {kind} {id}");
    while text.len() > ALIAS_LEN_MAX {
        text.pop();
    }
    text
}
