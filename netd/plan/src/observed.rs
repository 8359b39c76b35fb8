//! What the kernel holds.

use crate::flows::ObservedFlows;
use crate::mirror::ObservedMirrors;
use crate::router::ObservedRouter;
use crate::shape::ObservedShape;
use crate::{Counters, DOOMED, Element, GROUP, Rules, Set, is_our_name};
use netd_api::Counter;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Everything the planner looks at, by link name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Every link of the network namespace, also those of others.
    pub links: BTreeMap<String, Link>,
    /// Addresses of this host, except link-local ones, and the links that hold them.
    pub addresses: BTreeMap<IpAddr, String>,
    /// Our nftables table.
    pub rules: ObservedRules,
    /// Counters in our table, by tap; kept when the table has to be replaced.
    pub counters: BTreeMap<String, Counters>,
    /// Counters of permissions that were used; kept when the table has to be replaced.
    pub used: BTreeMap<(Set, Element), Counter>,
    /// Which conversations are counted.
    pub flows: ObservedFlows,
    /// By name of their link on the bridge.
    pub routers: BTreeMap<String, ObservedRouter>,
    /// Copies made.
    pub mirrors: ObservedMirrors,
    /// By the limited link.
    pub shapes: BTreeMap<String, ObservedShape>,
    /// `br_netfilter` sends bridged frames through the host's IP firewall.
    pub bridge_netfilter: bool,
}

/// One link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// `IFLA_GROUP`; see [`GROUP`].
    pub group: u32,
    /// What it is.
    pub kind: LinkKind,
    /// In bytes.
    pub mtu: u32,
    /// Name of the bridge it is attached to.
    pub master: Option<String>,
    /// Administratively up.
    pub up: bool,
    /// Somebody has the other end.
    pub carrier: bool,
    /// For people, and the found state of a site's link.
    pub alias: Option<String>,
    /// It carries an IP address other than link-local ones.
    pub addressed: bool,
    /// The host speaks IPv6 on it.
    pub ipv6: bool,
}

/// What a link is, as far as we care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// A bridge.
    Bridge {
        /// Spanning tree is on.
        stp: bool,
        /// Multicast snooping is on.
        snooping: bool,
        /// Every frame that comes in goes out everywhere else, see [`crate::Step::Wire`].
        wire: bool,
    },
    /// A VXLAN.
    Vxlan {
        /// Network identifier.
        vni: u32,
        /// Source address of the tunnel.
        local: Option<IpAddr>,
        /// UDP destination port.
        port: u16,
        /// Hosts that get broadcast and unknown frames.
        flood: BTreeSet<IpAddr>,
    },
    /// A VLAN's link.
    Vlan {
        /// VLAN identifier.
        vid: u16,
        /// The link it is on; empty if that is in another namespace.
        parent: String,
    },
    /// A tap.
    Tap,
    /// One end of a pair.
    Veth,
    /// What guests send is held back on it.
    Ifb,
    /// Anything else, by the kernel's word.
    Other(String),
}

/// Our nftables table as found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ObservedRules {
    /// There is none.
    #[default]
    Absent,
    /// A table of our name whose chains are not the ones this netd makes.
    Altered,
    /// Our chains, with these elements.
    Intact(Rules),
}

impl Link {
    /// It carries our mark: group and prefix.
    #[must_use]
    pub fn is_ours(&self, name: &str) -> bool {
        matches!(self.group, GROUP | DOOMED) && is_our_name(name)
    }
}

impl Observed {
    /// Names of all links that carry our mark.
    pub fn ours(&self) -> impl Iterator<Item = (&String, &Link)> {
        self.links.iter().filter(|(name, link)| link.is_ours(name))
    }
}
