//! What netd shall hold: the controller's networks, and the taps of guests that go but are still there.
//!
//! A guest on its way out may have another place in the newest document's networks, or none: its address may be somebody
//! else's by now, its network's subnet another. netd refuses a document that contradicts itself as a whole, so what is
//! only kept gives way wherever the two meet.

use super::captures::held_taps;
use super::{Observed, wanted};
use crate::store::Wires;
use controller_api::agent::{DesiredInstance, HostDesired};
use netd_api::{Desired, MirrorFrom, MirrorTo, Network, Port, Router, Uplink, Watcher};
use std::collections::BTreeSet;
use types::Generation;

/// What netd shall hold, not numbered.
pub(super) fn wanted_networks(desired: &HostDesired, observed: &Observed) -> Desired {
    let mut all = Desired {
        generation: Generation::default(),
        networks: desired.networks.clone(),
        watchers: desired.watchers.clone(),
        mirrors: desired.mirrors.clone(),
    };
    // The controller hears of it later than this: until then it is the source's that passes nothing, for it is gone.
    let arrived = |instance: &&DesiredInstance| {
        instance.incarnation.parse().is_ok_and(|guest| observed.arrived.contains(&guest))
    };
    let come = desired.instances.iter().filter(arrived).flat_map(|instance| &instance.ports);
    let come: BTreeSet<&str> = come.map(|port| port.tap.as_str()).collect();
    for port in all.networks.iter_mut().flat_map(|network| &mut network.ports) {
        port.held &= !come.contains(port.tap.as_str());
    }
    let held = held_taps(desired, observed);
    for port in all.networks.iter_mut().flat_map(|network| &mut network.ports) {
        port.held |= held.contains(port.tap.as_str());
    }
    let domains = observed.domains.as_ref();
    let going = observed.records.iter().filter(|(incarnation, _)| {
        domains.is_none_or(|domains| domains.contains_key(*incarnation))
            && wanted(desired, **incarnation).is_none()
    });
    for (_, record) in going {
        for network in &record.wires.networks {
            keep_ports(&mut all, network);
        }
        for watcher in &record.wires.watchers {
            keep_watcher(&mut all, watcher);
        }
    }
    all
}

/// An instance's networks with its own ports only, and its watchers. A router stays with the document: another host may
/// have it by the time that only this instance's ports are left.
pub(crate) fn own_wires(desired: &HostDesired, instance: &DesiredInstance) -> Wires {
    let own = |tap: &str| instance.ports.iter().any(|own| own.tap == tap);
    let reduced = |network: &Network| Network {
        ports: network.ports.iter().filter(|port| own(&port.tap)).cloned().collect(),
        router: network.router.clone().map(|router| Router { elsewhere: true, ..router }),
        ..network.clone()
    };
    Wires {
        networks: desired.networks.iter().map(reduced).filter(|network| !network.ports.is_empty()).collect(),
        watchers: desired.watchers.iter().filter(|watcher| own(&watcher.tap)).cloned().collect(),
    }
}

fn keep_ports(all: &mut Desired, held: &Network) {
    let free = |port: &&Port| !is_taken(all, &port.tap, &port.id);
    let ports: Vec<Port> = held.ports.iter().filter(free).cloned().collect();
    if ports.is_empty() {
        return;
    }
    let bridge_taken = all.networks.iter().any(|network| network.bridge == held.bridge);
    let at = match all.networks.iter().position(|network| network.id == held.id) {
        Some(at) => at,
        None if bridge_taken => return,
        None => {
            let uplink = if is_in_use(all, &held.uplink) { Uplink::None } else { held.uplink.clone() };
            all.networks.push(Network { uplink, ports: Vec::new(), ..held.clone() });
            all.networks.len() - 1
        }
    };
    if let Some(network) = all.networks.get_mut(at) {
        // A wire has two ends, and those of the document come first.
        let room = if network.wire { 2_usize.saturating_sub(network.ports.len()) } else { usize::MAX };
        network.ports.extend(ports.iter().take(room).map(shut));
    }
}

fn keep_watcher(all: &mut Desired, held: &Watcher) {
    if !is_taken(all, &held.tap, &held.id) {
        all.watchers.push(held.clone());
    }
}

/// A port or watcher has this tap or id.
fn is_taken(all: &Desired, tap: &str, id: &str) -> bool {
    let ports = all.networks.iter().flat_map(|network| &network.ports).map(|port| (&port.tap, &port.id));
    let watchers = all.watchers.iter().map(|watcher| (&watcher.tap, &watcher.id));
    ports.chain(watchers).any(|(other_tap, other_id)| other_tap == tap || other_id == id)
}

/// Another network or a tunnel of copies has the number.
fn is_in_use(all: &Desired, uplink: &Uplink) -> bool {
    let tunnels = all.mirrors.iter().flat_map(|mirror| {
        let from = if let MirrorFrom::Tunnel(tunnel) = &mirror.from { Some(tunnel) } else { None };
        let to = if let MirrorTo::Tunnel(tunnel) = &mirror.to { Some(tunnel) } else { None };
        from.into_iter().chain(to)
    });
    match uplink {
        Uplink::None | Uplink::Site { .. } => false,
        Uplink::Vxlan { vni: own, .. } => {
            let mut tunnels = tunnels.map(|tunnel| tunnel.vni);
            let mut networks = all.networks.iter();
            tunnels.any(|vni| vni == *own)
                || networks.any(|other| matches!(other.uplink, Uplink::Vxlan { vni, .. } if vni == *own))
        }
        Uplink::Vlan { trunk: on, vid: own, .. } => all.networks.iter().any(
            |other| matches!(&other.uplink, Uplink::Vlan { trunk, vid, .. } if trunk == on && vid == own),
        ),
    }
}

/// The tap only: its guest has it open. It has nothing more to say, and what its record knows of its permissions may be
/// older than what was spliced into its path since.
fn shut(port: &Port) -> Port {
    Port { held: true, ..Port::closed(port.id.clone(), port.tap.clone(), port.mac) }
}
