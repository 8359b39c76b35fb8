//! A document's networks as the kernel shows them.

use crate::router::{self, RouterTarget};
use crate::rules::{Element, Set, use_of};
use crate::target::bridge_of;
use crate::{Host, Observed, ObservedRules};
use netd_api::{Desired, Network, NetworkStatus, Port, PortStatus, RuleStatus, Uplink};

/// In the document's order.
#[must_use]
pub fn networks_status(desired: &Desired, host: &Host, observed: &Observed) -> Vec<NetworkStatus> {
    desired.networks.iter().map(|network| network_status(network, host, observed)).collect()
}

fn network_status(network: &Network, host: &Host, observed: &Observed) -> NetworkStatus {
    let bridge = bridge_of(network);
    let attached_and_up = |name: &str| {
        observed.links.get(name).is_some_and(|l| l.up && l.master.as_deref() == Some(bridge.as_str()))
    };
    let uplink_up = match &network.uplink {
        Uplink::None => true,
        Uplink::Vxlan { link, .. } | Uplink::Vlan { link, .. } => attached_and_up(link),
        Uplink::Site { site } => host.uplinks.get(site).is_some_and(|link| attached_and_up(link)),
    };
    let bridge_up = observed.links.get(&bridge).is_some_and(|l| l.is_ours(&bridge) && l.up);
    NetworkStatus {
        id: network.id.clone(),
        up: bridge_up && uplink_up,
        ports: network.ports.iter().map(|port| port_status(port, &bridge, observed)).collect(),
        router: RouterTarget::of(network, host).map(|wanted| router::status(&wanted, observed)),
    }
}

fn port_status(port: &Port, bridge: &str, observed: &Observed) -> PortStatus {
    let link = observed.links.get(&port.tap).filter(|l| l.is_ours(&port.tap));
    let ruled = match &observed.rules {
        ObservedRules::Intact(rules) => {
            let tap = Element::Link(port.tap.clone());
            [Set::Ports, Set::WireEnds].iter().any(|set| rules.elements.contains(&(*set, tap.clone())))
        }
        ObservedRules::Absent | ObservedRules::Altered => false,
    };
    let counters = observed.counters.get(&port.tap).copied().unwrap_or_default();
    PortStatus {
        id: port.id.clone(),
        tap: port.tap.clone(),
        ready: if port.held {
            link.is_some_and(|l| !l.up && l.master.is_none())
        } else {
            ruled && link.is_some_and(|l| l.up && l.master.as_deref() == Some(bridge))
        },
        carrier: link.is_some_and(|l| l.carrier),
        from_guest: counters.passed_from,
        to_guest: counters.passed_to,
        dropped_spoofed: counters.spoofed,
        dropped_from_guest: counters.dropped_from,
        dropped_to_guest: counters.dropped_to,
        rules: rules_status(port, observed),
    }
}

fn rules_status(port: &Port, observed: &Observed) -> Vec<RuleStatus> {
    let all = port.accept.iter().map(|accept| RuleStatus {
        accept: accept.clone(),
        counter: use_of(accept, &port.tap, &observed.used),
    });
    all.filter(|status| status.counter.frames > 0).collect()
}
