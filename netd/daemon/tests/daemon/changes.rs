//! Changes of the held document.

use crate::machine::{Machine, pause};
use chassis::unix_http::CallError;
use netd_api::{Accept, Change, Desired, Direction, Network, Port, Protocol, Status};
use std::time::Duration;
use types::{Generation, MacAddress};

pub(crate) fn network(number: u32, ports: u32) -> Network {
    let port = |p: u32| {
        let [_, a, b, c] = (number * 16 + p).to_be_bytes();
        Port {
            addresses: vec![format!("10.{a}.{b}.{c}").parse().unwrap()],
            accept: vec![
                Accept { direction: Direction::FromGuest, remote: None, protocol: Protocol::Any },
                Accept {
                    direction: Direction::ToGuest,
                    remote: Some("10.0.0.0/8".parse().unwrap()),
                    protocol: Protocol::Tcp { listen_port: 22 },
                },
            ],
            ..Port::closed(
                format!("d{number}/m{p}/eth0"),
                format!("ct{number}-{p}"),
                MacAddress([2, 0, 0, a, b, c]),
            )
        }
    };
    Network {
        id: format!("d{number}/inside"),
        bridge: format!("cb{number}"),
        mtu: 1450,
        ports: (0..ports).map(port).collect(),
        ..Network::default()
    }
}

pub(crate) fn document(networks: u32, ports: u32) -> Desired {
    Desired {
        generation: Generation(1),
        networks: (0..networks).map(|number| network(number, ports)).collect(),
        ..Desired::default()
    }
}

fn change(from: u64, put: Vec<Network>, remove: Vec<String>) -> Change {
    Change { from: Generation(from), generation: Generation(from + 1), put, remove }
}

impl Machine {
    pub(crate) fn change(&self, change: &Change) -> Result<Status, CallError> {
        self.runtime.block_on(self.client.change(change))
    }

    /// Passes over everything since the start.
    fn whole_passes(&self) -> u64 {
        let path = self.folder.path().join("netd.sock");
        let text = self.shell(&format!("curl -s --unix-socket {} http://x/metrics", path.display()));
        let line = text.lines().find(|l| l.starts_with("netd_passes_total") && l.contains("whole"));
        line.and_then(|l| l.split_whitespace().last()?.parse().ok()).unwrap_or_default()
    }
}

#[test]
fn a_change_is_in_force_when_it_is_answered_and_tells_of_what_it_put() {
    let machine = Machine::new();
    let _netd = machine.start();
    machine.put(&document(3, 2)).unwrap();
    let status = machine.change(&change(1, vec![network(1, 3)], vec!["d0/inside".into()])).unwrap();
    assert_eq!(status.generation, Generation(2));
    assert_eq!(status.networks.len(), 1);
    assert!(status.converged && status.networks[0].up, "{status:?}");
    assert!(
        status.networks[0].ports.len() == 3 && status.networks[0].ports.iter().all(|p| p.ready),
        "{status:?}"
    );
    let links = machine.ours();
    assert!(links.contains("ct1-2") && !links.contains("cb0"), "{links}");
    let whole = machine.until("it did not converge", |s| s.converged);
    let ids: Vec<&str> = whole.networks.iter().map(|n| n.id.as_str()).collect();
    assert_eq!(ids, ["d1/inside", "d2/inside"]);
    assert!(whole.networks.iter().flat_map(|n| &n.ports).all(|p| p.ready), "{whole:?}");
    // The whole document of the same generation says nothing new, whatever its order.
    let mut same = document(3, 2);
    same.generation = Generation(2);
    same.networks = vec![network(2, 2), network(1, 3)];
    assert!(machine.put(&same).unwrap().converged);
    assert_eq!(machine.ours(), links);
    // The last network goes.
    let gone = machine.change(&change(2, Vec::new(), vec!["d1/inside".into(), "d2/inside".into()])).unwrap();
    assert!(gone.converged && gone.networks.is_empty(), "{gone:?}");
    assert_eq!(machine.ours(), "");
}

#[test]
fn a_change_that_does_not_fit_is_refused_and_changes_nothing() {
    let machine = Machine::new();
    let _netd = machine.start();
    let refused = |change: &Change, wanted_status: u16, wanted_code: &str, part: &str| {
        let error = machine.change(change).unwrap_err();
        let CallError::Refused { status, code, message } = &error else { panic!("{error:?}") };
        assert_eq!((*status, code.as_str()), (wanted_status, wanted_code), "{message}");
        assert!(message.contains(part), "{message}");
    };
    refused(&change(1, vec![network(1, 1)], Vec::new()), 409, "stale-generation", "send the whole document");
    machine.put(&document(2, 2)).unwrap();
    let before = machine.ours();
    refused(&change(7, vec![network(1, 1)], Vec::new()), 409, "stale-generation", "netd holds 1");
    let older = Change { generation: Generation(1), ..change(1, vec![network(1, 1)], Vec::new()) };
    refused(&older, 409, "stale-generation", "older than 1");
    let unheld = change(1, Vec::new(), vec!["d7/inside".into()]);
    refused(&unheld, 422, "invalid-document", "d7/inside is not held");
    // What clashes is in a network that does not change.
    let mut clash = network(5, 1);
    clash.ports[0].tap = "ct0-1".into();
    refused(
        &change(1, vec![clash], Vec::new()),
        422,
        "invalid-document",
        "tap ct0-1 is already used by port d0/m1",
    );
    let mut bad = network(1, 2);
    bad.mtu = 5;
    refused(&change(1, vec![bad], Vec::new()), 422, "invalid-document", "mtu 5 is out of range");
    assert_eq!(machine.ours(), before);
    // A name is free as soon as its network goes in the same change.
    let mut heir = network(5, 1);
    heir.ports[0].tap = "ct0-1".into();
    let status = machine.change(&change(1, vec![heir], vec!["d0/inside".into()])).unwrap();
    assert!(status.converged && status.networks[0].ports[0].ready, "{status:?}");
}

#[test]
fn a_burst_of_changes_needs_no_look_at_everything_but_damage_by_others_does() {
    let machine = Machine::new();
    let _netd = machine.start();
    machine.put(&document(4, 2)).unwrap();
    let before = machine.whole_passes();
    for step in 0..20 {
        let number = u32::try_from(step % 4).unwrap();
        let ports = 2 + u32::try_from(step % 3).unwrap();
        let status = machine.change(&change(step + 1, vec![network(number, ports)], Vec::new())).unwrap();
        assert!(status.converged && status.networks[0].ports.iter().all(|p| p.ready), "{status:?}");
    }
    // Others' links and rules are no reason to look.
    machine.shell("ip link add v0 type veth peer name v1 && ip link set v0 up && ip link del v0");
    machine.shell("nft add table inet other && nft add chain inet other x && nft delete table inet other");
    let status = machine.change(&change(21, vec![network(0, 2)], Vec::new())).unwrap();
    assert!(status.converged, "{status:?}");
    assert_eq!(machine.whole_passes(), before);
    // In another network than the one that changes, at the same time.
    machine.shell("ip link set ct2-1 nomaster");
    machine.change(&change(22, vec![network(0, 3)], Vec::new())).unwrap();
    machine.until("the detached port is not seen", |s| s.converged && s.networks[2].ports[1].ready);
    machine.shell("nft delete element bridge collective ports '{ \"ct3-1\" }'");
    machine.change(&change(23, vec![network(1, 3)], Vec::new())).unwrap();
    machine.until("the missing rule is not seen", |s| s.converged && s.networks[3].ports[1].ready);
    assert!(machine.whole_passes() > before);
}

#[test]
fn killed_among_changes_nothing_acknowledged_is_lost() {
    let machine = Machine::new();
    let mut netd = machine.start();
    machine.put(&document(3, 1)).unwrap();
    let mut held = 1;
    for round in 0..6 {
        let process = netd.0.id();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // Not a wait for a condition: the moment of the kill is what varies.
                pause(Duration::from_millis(3 + 7 * round));
                let pid = nix::unistd::Pid::from_raw(i32::try_from(process).unwrap());
                nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
            });
            while let Ok(status) = {
                let ports = 1 + u32::try_from(held % 3).unwrap();
                machine.change(&change(held, vec![network(1, ports)], Vec::new()))
            } {
                held = status.generation.0;
            }
        });
        drop(netd);
        netd = machine.start();
        let status = machine.until("it does not converge", |s| s.converged);
        let found = status.generation.0;
        assert!(found == held || found == held + 1, "acknowledged {held}, found {found}");
        let ports = 1 + usize::try_from((found - 1) % 3).unwrap();
        if found > 1 {
            assert_eq!(status.networks[1].ports.len(), ports, "the document is a mixture");
        }
        held = found;
    }
}

#[test]
fn a_client_sends_the_smaller_of_change_and_document() {
    let machine = Machine::new();
    let _netd = machine.start();
    let first = document(6, 1);
    let converge = |held: Option<&Desired>, wanted: &Desired| {
        machine.runtime.block_on(machine.client.converge(held, wanted)).unwrap()
    };
    assert_eq!(converge(None, &first).networks.len(), 6);
    let mut second = first.clone();
    second.generation = Generation(2);
    second.networks[3] = network(3, 2);
    let status = converge(Some(&first), &second);
    assert_eq!((status.networks.len(), status.generation), (1, Generation(2)));
    // Believed to hold another document than it does.
    let mut third = second.clone();
    third.generation = Generation(3);
    third.networks.pop();
    let status = converge(Some(&first), &third);
    assert_eq!((status.networks.len(), status.generation), (5, Generation(3)));
}
