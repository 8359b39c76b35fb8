//! Mirrors: copies of frames for watchers, and what else happens to frames at a link itself, before and after the
//! bridges.
//!
//! A chain is at one side of one link. It copies, then it may divert (see [`crate::ShapeStep`]) or drop: whatever a
//! watcher sends, and whatever comes out of a tunnel of copies once it was copied, would otherwise reach the host's own
//! stack, for these links are on no bridge.

use crate::observed::{Link, LinkKind, Observed};
use crate::planner::Planner;
use crate::shape::{is_shaper, shaper_of, shapers};
use crate::step::Step;
use crate::target::{Host, Invalid, Target, bridge_of};
use crate::{VXLAN_PORT, alias};
use netd_api::{
    Counter, Desired, Mirror, MirrorFrom, MirrorStatus, MirrorTo, MirrorTunnel, Uplink, Watcher,
    WatcherStatus,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

/// Of the names of counters of what goes out of links.
pub const OUTGOING_PREFIX: &str = "outgoing_";

/// In bytes, of a tunnel of copies from nowhere to nowhere.
const MTU_UNKNOWN: u32 = 1500;

/// Watchers and mirrors to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MirrorsTarget {
    /// By tap.
    pub watchers: BTreeMap<String, WatcherTarget>,
    /// By link.
    pub tunnels: BTreeMap<String, MirrorTunnelTarget>,
    /// By name of their counter.
    pub mirrors: BTreeMap<String, MirrorTarget>,
}

/// A watcher's tap to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatcherTarget {
    /// In bytes.
    pub mtu: u32,
    /// For people.
    pub alias: String,
}

/// A tunnel of copies to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorTunnelTarget {
    /// Network identifier.
    pub vni: u32,
    /// Source address.
    pub local: IpAddr,
    /// The other host.
    pub peer: IpAddr,
    /// In bytes.
    pub mtu: u32,
    /// For people.
    pub alias: String,
}

/// Who gets copies of what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MirrorTarget {
    /// Links whose incoming frames are copied.
    pub incoming: BTreeSet<String>,
    /// Links whose outgoing frames are copied.
    pub outgoing: BTreeSet<String>,
    /// The link that gets them.
    pub to: String,
}

/// A side of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// What comes in: what a tap's guest sends.
    Incoming,
    /// What goes out: what a tap's guest is sent.
    Outgoing,
}

/// Where a chain is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Name of the link.
    pub link: String,
    /// Which side of it.
    pub side: Side,
}

impl Place {
    fn incoming(link: &str) -> Self {
        Self { link: link.to_owned(), side: Side::Incoming }
    }

    fn outgoing(link: &str) -> Self {
        Self { link: link.to_owned(), side: Side::Outgoing }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.side {
            Side::Incoming => write!(f, "into {}", self.link),
            Side::Outgoing => write!(f, "out of {}", self.link),
        }
    }
}

/// What happens to a frame, in order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// It is counted and copied.
    Copy {
        /// Name of the counter.
        counter: String,
        /// To this link.
        to: String,
    },
    /// It goes to this link instead.
    Divert {
        /// Which.
        to: String,
    },
    /// It is counted and dropped.
    Drop {
        /// Name of the counter.
        counter: String,
    },
}

impl Action {
    /// The counter it needs.
    #[must_use]
    pub fn counter(&self) -> Option<&str> {
        match self {
            Self::Copy { counter, .. } | Self::Drop { counter } => Some(counter),
            Self::Divert { .. } => None,
        }
    }

    /// The link that must be there for it.
    #[must_use]
    pub fn needs(&self) -> Option<&str> {
        match self {
            Self::Copy { to, .. } | Self::Divert { to } => Some(to),
            Self::Drop { .. } => None,
        }
    }
}

/// What happens at links.
pub type Chains = BTreeMap<Place, Vec<Action>>;

/// Mirrors as found. They are looked for only if one of our links can have to do with them; their table goes before
/// the last of these links.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedMirrors {
    /// There is a table of our name.
    pub found: bool,
    /// It has something in it that netd never writes.
    pub altered: bool,
    /// Its chains.
    pub chains: Chains,
    /// Its counters.
    pub counters: BTreeMap<String, Counter>,
}

/// One change of the mirrors. Fields are link names unless they say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MirrorStep {
    /// Creates a tunnel of copies, down.
    CreateTunnel {
        /// Name.
        link: String,
        /// Network identifier.
        vni: u32,
        /// Source address.
        local: IpAddr,
        /// In bytes.
        mtu: u32,
    },
    /// Puts the whole table in place, atomically, with the counters given.
    Replace {
        /// All chains.
        chains: Chains,
        /// Counters to start with.
        counters: BTreeMap<String, Counter>,
    },
    /// Changes chains, atomically.
    Amend {
        /// These go.
        remove: BTreeSet<Place>,
        /// These are made, or get these actions.
        put: Chains,
        /// Counters that nothing needs any more.
        forget: BTreeSet<String>,
    },
    /// Deletes the table.
    Remove,
    /// Brings a link up that is on no bridge, if the chain that keeps its frames from the host is there.
    Open {
        /// Which.
        link: String,
    },
}

impl fmt::Display for MirrorStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateTunnel { link, vni, local, mtu } => {
                write!(f, "create tunnel of copies {link}, vni {vni}, from {local}, mtu {mtu}")
            }
            Self::Replace { chains, .. } => write!(f, "replace mirrors ({} chains)", chains.len()),
            Self::Amend { remove, put, .. } => {
                let name = |places: Vec<&Place>| {
                    let names: Vec<String> = places.into_iter().map(Place::to_string).collect();
                    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
                };
                write!(f, "amend mirrors (remove {}", name(remove.iter().collect()))?;
                write!(f, "; put {})", name(put.keys().collect()))
            }
            Self::Remove => write!(f, "remove mirrors"),
            Self::Open { link } => write!(f, "open {link}"),
        }
    }
}

fn counter_of(mirror: &Mirror, desired: &Desired) -> String {
    let from = match &mirror.from {
        MirrorFrom::Port { tap } => format!("port_{tap}"),
        MirrorFrom::Network { id } => {
            let network = desired.networks.iter().find(|network| network.id == *id);
            format!("network_{}", network.map(|n| n.bridge.as_str()).unwrap_or_default())
        }
        MirrorFrom::Tunnel(tunnel) => format!("tunnel_{}", tunnel.link),
    };
    format!("copied_{from}_{}", link_of(&mirror.to))
}

/// Outgoing frames are counted apart: the kernel counts their headers, too.
fn outgoing(counter: &str) -> String {
    format!("{OUTGOING_PREFIX}{counter}")
}

fn dropped_by(link: &str) -> String {
    format!("dropped_{link}")
}

fn link_of(to: &MirrorTo) -> &str {
    match to {
        MirrorTo::Watcher { tap } => tap,
        MirrorTo::Tunnel(tunnel) => &tunnel.link,
    }
}

impl MirrorsTarget {
    /// Of a document whose networks are in `target` already.
    pub(crate) fn new(desired: &Desired, host: &Host, target: &Target) -> Result<Self, Invalid> {
        let mut made = Self::default();
        for watcher in &desired.watchers {
            let (mtu, alias) = (u32::from(watcher.mtu), alias("watcher", &watcher.id));
            made.watchers.insert(watcher.tap.clone(), WatcherTarget { mtu, alias });
        }
        for mirror in &desired.mirrors {
            let (incoming, outgoing, mtu) = sources(&mirror.from, desired, host, target);
            let to = link_of(&mirror.to).to_owned();
            // What comes out of a tunnel is as long as whoever watches it expects.
            let mtu =
                mtu.or_else(|| made.watchers.get(&to).map(|w| w.mtu)).unwrap_or_else(|| longest(target));
            let from = if let MirrorFrom::Tunnel(tunnel) = &mirror.from { Some(tunnel) } else { None };
            let towards = if let MirrorTo::Tunnel(tunnel) = &mirror.to { Some(tunnel) } else { None };
            for tunnel in from.into_iter().chain(towards) {
                made.add_tunnel(&mirror.id, tunnel, mtu, host)?;
            }
            let entry = made.mirrors.entry(counter_of(mirror, desired)).or_default();
            entry.incoming.extend(incoming);
            entry.outgoing.extend(outgoing);
            entry.to = to;
        }
        Ok(made)
    }

    fn add_tunnel(&mut self, id: &str, tunnel: &MirrorTunnel, mtu: u32, host: &Host) -> Result<(), Invalid> {
        let local = host.underlay.ok_or_else(|| Invalid::NoUnderlay { network: id.to_owned() })?;
        let MirrorTunnel { vni, link, peer } = tunnel;
        let made = self.tunnels.entry(link.clone()).or_insert_with(|| MirrorTunnelTarget {
            vni: *vni,
            local,
            peer: *peer,
            mtu,
            alias: alias("copies for", id),
        });
        made.mtu = made.mtu.max(mtu);
        Ok(())
    }

    pub(crate) fn links(&self) -> impl Iterator<Item = &String> {
        self.watchers.keys().chain(self.tunnels.keys())
    }

    /// Whether a link that is there is one of these.
    pub(crate) fn keeps(&self, name: &str, kind: &LinkKind) -> bool {
        match kind {
            LinkKind::Tap => self.watchers.contains_key(name),
            LinkKind::Vxlan { vni, local, port, .. } => self
                .tunnels
                .get(name)
                .is_some_and(|t| t.vni == *vni && Some(t.local) == *local && *port == VXLAN_PORT),
            _ => false,
        }
    }
}

/// Incoming and outgoing links to copy from, and the longest payload to expect where it is known.
fn sources(
    from: &MirrorFrom,
    desired: &Desired,
    host: &Host,
    target: &Target,
) -> (BTreeSet<String>, BTreeSet<String>, Option<u32>) {
    match from {
        MirrorFrom::Port { tap } => {
            let both = BTreeSet::from([tap.clone()]);
            (both.clone(), both, target.taps.get(tap).map(|t| t.mtu))
        }
        MirrorFrom::Network { id } => {
            let Some(network) = desired.networks.iter().find(|network| network.id == *id) else {
                return (BTreeSet::new(), BTreeSet::new(), None);
            };
            let mut incoming: BTreeSet<String> = network.ports.iter().map(|p| p.tap.clone()).collect();
            if let Uplink::Site { site } = &network.uplink {
                incoming.extend(host.uplinks.get(site).cloned());
            }
            incoming.extend(
                network.router.iter().filter(|router| !router.elsewhere).map(|router| router.link.clone()),
            );
            let mtu = target.bridges.get(&bridge_of(network)).map(|b| b.mtu);
            (incoming, BTreeSet::new(), mtu)
        }
        MirrorFrom::Tunnel(tunnel) => (BTreeSet::from([tunnel.link.clone()]), BTreeSet::new(), None),
    }
}

fn longest(target: &Target) -> u32 {
    target.bridges.values().map(|bridge| bridge.mtu).max().unwrap_or(MTU_UNKNOWN)
}

/// What shall happen at links.
fn chains(target: &Target) -> Chains {
    let mut chains = Chains::new();
    for (counter, mirror) in &target.mirrors.mirrors {
        for link in &mirror.incoming {
            let copy = Action::Copy { counter: counter.clone(), to: mirror.to.clone() };
            chains.entry(Place::incoming(link)).or_default().push(copy);
        }
        for link in &mirror.outgoing {
            let copy = Action::Copy { counter: outgoing(counter), to: mirror.to.clone() };
            chains.entry(Place::outgoing(link)).or_default().push(copy);
        }
    }
    for tap in shapers(target).into_values() {
        chains.entry(Place::incoming(tap)).or_default().push(Action::Divert { to: shaper_of(tap) });
    }
    for link in target.mirrors.links() {
        chains.entry(Place::incoming(link)).or_default().push(Action::Drop { counter: dropped_by(link) });
    }
    chains
}

/// After links were created, before anything is attached or brought up.
pub(crate) fn prepare(planner: &mut Planner<'_>) {
    create(planner);
    change_chains(planner);
}

/// After those that somebody attached to a bridge were taken off it.
pub(crate) fn open(planner: &mut Planner<'_>) {
    for link in planner.target.mirrors.links() {
        let is_up = planner.kept(link).is_some_and(|l| l.up) && !planner.closed.contains(link);
        if !is_up && !planner.blocked.contains(link) {
            planner.push(Step::Mirror(MirrorStep::Open { link: link.clone() }));
        }
    }
}

fn create(planner: &mut Planner<'_>) {
    let target = planner.target;
    for (link, watcher) in &target.mirrors.watchers {
        let create = Step::CreateTap { link: link.clone(), mtu: watcher.mtu };
        planner.create_link(link, create, watcher.mtu, &watcher.alias);
    }
    for (link, tunnel) in &target.mirrors.tunnels {
        let MirrorTunnelTarget { vni, local, peer, mtu, alias } = tunnel;
        let create = MirrorStep::CreateTunnel { link: link.clone(), vni: *vni, local: *local, mtu: *mtu };
        if planner.create_link(link, Step::Mirror(create), *mtu, alias) {
            planner.set_peers(link, &BTreeSet::from([*peer]));
        }
    }
}

fn change_chains(planner: &mut Planner<'_>) {
    let (target, observed) = (planner.target, planner.observed);
    let found = &observed.mirrors;
    let mut wanted = chains(target);
    // A link that a name's owner or a site's state keeps from us keeps the others from nothing.
    let usable = |link: &str| !planner.blocked.contains(link);
    wanted.retain(|place, actions| {
        actions.retain(|action| action.needs().is_none_or(usable));
        usable(&place.link) && !actions.is_empty()
    });
    let needed: BTreeSet<&str> = wanted.values().flatten().filter_map(Action::counter).collect();
    if wanted.is_empty() {
        if found.found {
            planner.push(Step::Mirror(MirrorStep::Remove));
        }
        return;
    }
    if !found.found || found.altered {
        let mut counters = found.counters.clone();
        counters.retain(|counter, _| needed.contains(counter.as_str()));
        planner.push(Step::Mirror(MirrorStep::Replace { chains: wanted, counters }));
        return;
    }
    let remove: BTreeSet<Place> =
        found.chains.keys().filter(|place| !wanted.contains_key(*place)).cloned().collect();
    let forget: BTreeSet<String> =
        found.counters.keys().filter(|counter| !needed.contains(counter.as_str())).cloned().collect();
    let fresh = |place: &Place| planner.kept(&place.link).is_none() && is_made(planner.target, &place.link);
    let mut put = wanted.clone();
    put.retain(|place, actions| {
        let stale = actions
            .iter()
            .filter_map(Action::needs)
            .any(|link| planner.kept(link).is_none() && is_made(planner.target, link));
        stale || fresh(place) || found.chains.get(place) != Some(actions)
    });
    if !(remove.is_empty() && forget.is_empty() && put.is_empty()) {
        planner.push(Step::Mirror(MirrorStep::Amend { remove, put, forget }));
    }
}

/// Whether netd makes the link itself: one that is not there yet is new, whatever a chain of its name says.
fn is_made(target: &Target, link: &str) -> bool {
    target.taps.contains_key(link) || target.mirrors.links().any(|own| own == link) || is_shaper(target, link)
}

/// In the document's order.
#[must_use]
pub fn watchers_status(desired: &Desired, observed: &Observed) -> Vec<WatcherStatus> {
    let status = |watcher: &Watcher| {
        let link = observed.links.get(&watcher.tap).filter(|l| l.is_ours(&watcher.tap));
        WatcherStatus {
            id: watcher.id.clone(),
            tap: watcher.tap.clone(),
            ready: link.is_some_and(|l| l.up && l.master.is_none()),
            carrier: link.is_some_and(|l| l.carrier),
            dropped_from_guest: counter(observed, &dropped_by(&watcher.tap)),
        }
    };
    desired.watchers.iter().map(status).collect()
}

/// In the document's order.
#[must_use]
pub fn mirrors_status(desired: &Desired, target: &Target, observed: &Observed) -> Vec<MirrorStatus> {
    let chains = chains(target);
    let status = |mirror: &Mirror| {
        let name = counter_of(mirror, desired);
        let wanted: Vec<&Place> = chains
            .iter()
            .filter(|(_, actions)| {
                actions.iter().filter_map(Action::counter).any(|own| own == name || own == outgoing(&name))
            })
            .map(|(place, _)| place)
            .collect();
        let is_up = |link: &str| observed.links.get(link).is_some_and(|l: &Link| l.up);
        let in_force =
            |place: &&Place| is_up(&place.link) && observed.mirrors.chains.get(*place) == chains.get(*place);
        MirrorStatus {
            id: mirror.id.clone(),
            from: mirror.from.clone(),
            ready: !wanted.is_empty() && is_up(link_of(&mirror.to)) && wanted.iter().all(in_force),
            copied: {
                let (come, gone) = (counter(observed, &name), counter(observed, &outgoing(&name)));
                Counter { frames: come.frames + gone.frames, bytes: come.bytes + gone.bytes }
            },
        }
    };
    desired.mirrors.iter().map(status).collect()
}

fn counter(observed: &Observed, name: &str) -> Counter {
    observed.mirrors.counters.get(name).copied().unwrap_or_default()
}
