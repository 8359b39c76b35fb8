//! The steps a plan is made of.

use crate::flows::FlowsStep;
use crate::mirror::MirrorStep;
use crate::router::RouterStep;
use crate::rules::{Counters, Element, Rules, Set};
use crate::shape::ShapeStep;
use crate::target::Announcement;
use netd_api::Counter;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

/// One change of the kernel. Fields are link names unless they say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Takes a link of ours off its bridge.
    Detach {
        /// Which.
        link: String,
    },
    /// Puts our whole table in place, atomically, with the counters given.
    ReplaceRules {
        /// All elements.
        rules: Rules,
        /// Ports' counters to start with.
        counters: BTreeMap<String, Counters>,
        /// Permissions' counters to start with.
        used: BTreeMap<(Set, Element), Counter>,
    },
    /// Changes elements, atomically.
    AmendRules {
        /// Out first.
        remove: BTreeSet<(Set, Element)>,
        /// Then in.
        add: BTreeSet<(Set, Element)>,
    },
    /// Deletes our table.
    RemoveRules,
    /// Deletes a link of ours.
    Delete {
        /// Which.
        link: String,
    },
    /// Gives a site's physical link back.
    Release {
        /// Which.
        link: String,
        /// As it was found.
        up: bool,
    },
    /// Takes bridged frames out of the host's IP firewall.
    BypassHostFirewall,
    /// Creates a bridge, down.
    CreateBridge {
        /// Name.
        link: String,
        /// In bytes.
        mtu: u32,
    },
    /// No spanning tree, no multicast snooping.
    TameBridge {
        /// Which.
        link: String,
    },
    /// A bridge learns nothing and passes link-local groups, too: every frame goes to the other end. Or no more.
    Wire {
        /// The bridge.
        link: String,
        /// Whether it is a wire.
        on: bool,
    },
    /// Creates a VXLAN, down, attached to nothing.
    CreateVxlan {
        /// Name.
        link: String,
        /// Network identifier.
        vni: u32,
        /// Source address.
        local: IpAddr,
        /// In bytes.
        mtu: u32,
    },
    /// Creates a VLAN's link, down, attached to nothing.
    CreateVlan {
        /// Name.
        link: String,
        /// VLAN identifier.
        vid: u16,
        /// The trunk's link.
        parent: String,
        /// In bytes.
        mtu: u32,
    },
    /// Creates a persistent tap, down, attached to nothing.
    CreateTap {
        /// Name.
        link: String,
        /// In bytes.
        mtu: u32,
    },
    /// Sets the alias.
    Name {
        /// Which.
        link: String,
        /// For people.
        alias: String,
    },
    /// Sets the MTU.
    Resize {
        /// Which.
        link: String,
        /// In bytes.
        mtu: u32,
    },
    /// The host stops speaking IPv6 on the link.
    Mute {
        /// Which.
        link: String,
    },
    /// Adds a host to a flood list.
    AddPeer {
        /// The tunnel.
        link: String,
        /// Underlay address.
        peer: IpAddr,
    },
    /// Takes a host off a flood list, with whatever was learned from it.
    RemovePeer {
        /// The tunnel.
        link: String,
        /// Underlay address.
        peer: IpAddr,
    },
    /// Attaches a link to a bridge.
    Attach {
        /// Which.
        link: String,
        /// To.
        bridge: String,
    },
    /// Brings a link up.
    Up {
        /// Which.
        link: String,
    },
    /// Takes a link of ours down.
    Down {
        /// Which.
        link: String,
    },
    /// Tells the bridge and whatever is behind the uplinks where a guest is now, then sets the alias that says so.
    /// Harmless if repeated.
    Announce {
        /// The guest's tap.
        link: String,
        /// For people.
        alias: String,
        /// Who it is and where it is told.
        announcement: Announcement,
    },
    /// A change of a router.
    Router(RouterStep),
    /// A change of the mirrors.
    Mirror(MirrorStep),
    /// A change of a port's limits.
    Shape(ShapeStep),
    /// A change of which conversations are counted.
    Flows(FlowsStep),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Detach { link } => write!(f, "detach {link}"),
            Self::ReplaceRules { rules, .. } => {
                write!(f, "replace rules ({} elements)", rules.elements.len())
            }
            Self::AmendRules { remove, add } => {
                write!(f, "amend rules (remove {}, add {} elements)", remove.len(), add.len())
            }
            Self::RemoveRules => write!(f, "remove rules"),
            Self::Delete { link } => write!(f, "delete {link}"),
            Self::Release { link, up } => write!(f, "release {link}, {}", if *up { "up" } else { "down" }),
            Self::BypassHostFirewall => write!(f, "take bridged frames out of the host's firewall"),
            Self::CreateBridge { link, mtu } => write!(f, "create bridge {link}, mtu {mtu}"),
            Self::TameBridge { link } => write!(f, "switch spanning tree and snooping off on {link}"),
            Self::Wire { link, on } => {
                write!(f, "make {link} {}", if *on { "a wire" } else { "a switch again" })
            }
            Self::CreateVxlan { link, vni, local, mtu } => {
                write!(f, "create tunnel {link}, vni {vni}, from {local}, mtu {mtu}")
            }
            Self::CreateVlan { link, vid, parent, mtu } => {
                write!(f, "create vlan {link}, vid {vid}, on {parent}, mtu {mtu}")
            }
            Self::CreateTap { link, mtu } => write!(f, "create tap {link}, mtu {mtu}"),
            Self::Name { link, alias } => write!(f, "name {link} {alias:?}"),
            Self::Resize { link, mtu } => write!(f, "resize {link}, mtu {mtu}"),
            Self::Mute { link } => write!(f, "switch the host's IPv6 off on {link}"),
            Self::AddPeer { link, peer } => write!(f, "flood {link} to {peer}"),
            Self::RemovePeer { link, peer } => write!(f, "stop flooding {link} to {peer}"),
            Self::Attach { link, bridge } => write!(f, "attach {link} to {bridge}"),
            Self::Up { link } => write!(f, "bring {link} up"),
            Self::Down { link } => write!(f, "bring {link} down"),
            Self::Announce { link, announcement, .. } => {
                write!(f, "announce {} at {link}", announcement.mac)?;
                announcement.uplinks.iter().try_for_each(|uplink| write!(f, " on {uplink}"))
            }
            Self::Router(step) => step.fmt(f),
            Self::Mirror(step) => step.fmt(f),
            Self::Shape(step) => step.fmt(f),
            Self::Flows(step) => step.fmt(f),
        }
    }
}
