//! One host as the tests see it: a namespace, what its operator granted, and the document it works towards.

use crate::frames::{Guest, Mac};
use crate::namespace::Namespace;
use netd_api::{Accept, Desired, Direction, Network, Port, PortStatus, Protocol, Uplink};
use netd_plan::{Host, Observed, Plan, Target, networks_status, plan};
use std::time::{Duration, Instant};
use types::MacAddress;

pub(crate) struct World {
    pub(crate) namespace: Namespace,
    pub(crate) host: Host,
    pub(crate) desired: Desired,
}

impl World {
    pub(crate) fn new() -> Self {
        let host = Host { underlay: Some("192.0.2.1".parse().unwrap()), ..Host::default() };
        Self { namespace: Namespace::new(), host, desired: Desired::default() }
    }

    pub(crate) fn with(networks: Vec<Network>) -> Self {
        let mut world = Self::new();
        world.desired.networks = networks;
        world.converge();
        world
    }

    pub(crate) fn target(&self) -> Target {
        Target::new(&self.desired, &self.host).unwrap()
    }

    pub(crate) fn observe(&self) -> Observed {
        self.namespace.run(|runtime, kernel| runtime.block_on(kernel.observe())).unwrap()
    }

    pub(crate) fn plan(&self) -> Plan {
        plan(&self.target(), &self.observe())
    }

    pub(crate) fn apply(&self, plan: Plan) {
        let applied = self.namespace.run(move |runtime, kernel| runtime.block_on(kernel.apply(&plan)));
        assert!(applied.failures.is_empty(), "{:?}", applied.failures);
    }

    /// One pass; a second has nothing to do.
    pub(crate) fn converge(&self) {
        self.apply(self.plan());
        assert_eq!(self.plan(), Plan::default());
    }

    pub(crate) fn guest(&self, tap: &str) -> Guest {
        let name = tap.to_owned();
        let guest = Guest::new(self.namespace.run(move |_, _| netd_kernel::open_tap(&name)).unwrap());
        self.wait_until_forwarding(tap);
        guest
    }

    /// The other end of a tap that is on no bridge.
    pub(crate) fn watching(&self, tap: &str) -> Guest {
        let name = tap.to_owned();
        let guest = Guest::new(self.namespace.run(move |_, _| netd_kernel::open_tap(&name)).unwrap());
        self.settle_carrier(tap);
        guest
    }

    /// The kernel takes frames for a tap some time after somebody opened its other end, or at once if asked about it.
    fn settle_carrier(&self, tap: &str) {
        self.namespace.shell(&format!("ip link show dev {tap}"));
    }

    /// A bridge forwards to a port some time after somebody opened its other end.
    #[expect(clippy::disallowed_methods, reason = "between two looks at a condition")]
    pub(crate) fn wait_until_forwarding(&self, tap: &str) {
        self.settle_carrier(tap);
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let ports = self.namespace.shell("bridge link show");
            let waits = |line: &str| {
                line.contains("state disabled") && [tap, "eth1"].iter().any(|n| line.contains(n))
            };
            if !ports.lines().any(waits) {
                return;
            }
            assert!(Instant::now() < deadline, "{tap} does not forward: {ports}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn port(&self, tap: &str) -> PortStatus {
        let networks = networks_status(&self.desired, &self.host, &self.observe());
        networks.into_iter().flat_map(|n| n.ports).find(|p| p.tap == tap).unwrap()
    }
}

pub(crate) fn mac(last: u8) -> Mac {
    [2, 0, 0, 0, 0, last]
}

pub(crate) fn network(bridge: &str, uplink: Uplink, ports: Vec<Port>) -> Network {
    Network {
        id: format!("office/{bridge}"),
        bridge: bridge.to_owned(),
        mtu: 1450,
        uplink,
        ports,
        ..Network::default()
    }
}

/// A port `ct<n>` with MAC `02:00:00:00:00:<n>`, `10.0.0.<n>` and `fd00::<n>`.
pub(crate) fn port(number: u8, accept: Vec<Accept>) -> Port {
    Port {
        addresses: vec![
            format!("10.0.0.{number}").parse().unwrap(),
            format!("fd00::{number:x}").parse().unwrap(),
        ],
        accept,
        ..Port::closed(format!("office/m{number}/eth0"), format!("ct{number}"), MacAddress(mac(number)))
    }
}

pub(crate) fn from_guest(protocol: Protocol) -> Accept {
    Accept { direction: Direction::FromGuest, remote: None, protocol }
}

pub(crate) fn to_guest(protocol: Protocol) -> Accept {
    Accept { direction: Direction::ToGuest, remote: None, protocol }
}

/// Talks to everybody, but hears only replies.
pub(crate) fn talker() -> Vec<Accept> {
    vec![from_guest(Protocol::Any)]
}

pub(crate) fn open() -> Vec<Accept> {
    vec![from_guest(Protocol::Any), to_guest(Protocol::Any)]
}

pub(crate) fn vxlan(vni: u32, peers: &[&str]) -> Uplink {
    Uplink::Vxlan { vni, link: format!("cx{vni}"), peers: peers.iter().map(|p| p.parse().unwrap()).collect() }
}
