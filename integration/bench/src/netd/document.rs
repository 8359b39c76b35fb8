//! Desired documents of offices.

use netd_api::{Accept, Desired, Direction, Network, Port, Protocol, Uplink};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use types::{Generation, MacAddress};

/// In bytes: what a VXLAN over an underlay of 1,500 leaves.
pub(super) const MTU: u16 = 1450;
/// Underlay address of the machine under test, and of the one its networks are shared with.
pub(super) const UNDERLAY: &str = "192.0.2.1";
const FAR: &str = "192.0.2.2";

pub(super) fn tap(network: u32, port: u32) -> String {
    format!("ct{network}p{port}")
}

pub(super) fn address(port: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 20, 0, 10)) + port)
}

pub(super) fn address6(port: u32) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, 0x10)) + u128::from(port))
}

pub(super) fn mac(port: u32) -> MacAddress {
    let [_, b, c, d] = port.to_be_bytes();
    MacAddress([2, 0x1f, 0, b, c, d])
}

/// A port as a workspace has it: three services for its neighbours, everything for itself. Port numbers begin anew in
/// each network: offices have equal addresses.
pub(super) fn port(network: u32, number: u32) -> Port {
    let remote = "10.20.0.0/16".parse().ok();
    let to_guest = |protocol| Accept { direction: Direction::ToGuest, remote, protocol };
    Port {
        addresses: vec![IpAddr::V4(address(number)), IpAddr::V6(address6(number))],
        accept: vec![
            to_guest(Protocol::Tcp { listen_port: 80 }),
            to_guest(Protocol::Tcp { listen_port: 5201 }),
            to_guest(Protocol::Udp { listen_port: 7 }),
            to_guest(Protocol::Icmp),
            Accept { direction: Direction::FromGuest, remote: None, protocol: Protocol::Any },
        ],
        ..Port::closed(format!("office{network}/m{number}/eth0"), tap(network, number), mac(number))
    }
}

/// One office's network, shared with one other host.
pub(super) fn network(number: u32, ports: u32) -> Network {
    Network {
        id: format!("office{number}/inside"),
        bridge: format!("cb{number}"),
        mtu: MTU,
        uplink: Uplink::Vxlan {
            vni: 1000 + number,
            link: format!("cx{number}"),
            peers: FAR.parse().into_iter().collect(),
        },
        ports: (0..ports).map(|p| port(number, p)).collect(),
        ..Network::default()
    }
}

/// Offices of so many ports each.
pub(super) fn offices(generation: u64, networks: u32, ports: u32) -> Desired {
    Desired {
        generation: Generation(generation),
        networks: (0..networks).map(|number| network(number, ports)).collect(),
        ..Desired::default()
    }
}

/// The links of a document as lines for `ip -batch`, in the order of least work, and the flood lists as lines for
/// `bridge -batch`: the state that netd makes, but for the rules and the host's IPv6.
pub(super) fn ip_lines(desired: &Desired) -> (String, String) {
    use std::fmt::Write as _;
    const GROUP: u32 = netd_plan::GROUP;
    let (mut links, mut floods) = (String::new(), String::new());
    for network in &desired.networks {
        let (bridge, id) = (&network.bridge, &network.id);
        let _ = writeln!(
            links,
            "link add dev {bridge} group {GROUP} mtu {MTU} type bridge stp_state 0 mcast_snooping 0\n\
             link set dev {bridge} alias \"collective network {id}\" up"
        );
        if let Uplink::Vxlan { vni, link, peers } = &network.uplink {
            let _ = writeln!(
                links,
                "link add dev {link} group {GROUP} mtu {MTU} type vxlan id {vni} local {UNDERLAY} dstport 4789\n\
                 link set dev {link} alias \"collective tunnel {id}\" master {bridge} up"
            );
            for peer in peers {
                let _ = writeln!(floods, "fdb append 00:00:00:00:00:00 dev {link} dst {peer} self permanent");
            }
        }
        for port in &network.ports {
            let (tap, id) = (&port.tap, &port.id);
            let _ = writeln!(
                links,
                "tuntap add dev {tap} mode tap vnet_hdr\n\
                 link set dev {tap} group {GROUP} mtu {MTU} alias \"collective port {id}\" master {bridge} up"
            );
        }
    }
    (links, floods)
}
