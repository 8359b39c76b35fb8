use super::*;
use crate::Host;
use netd_api::{Outside, Router, RuleStatus};
use types::Generation;

fn port(id: &str, tap: &str, last: u8, accept: Vec<Accept>) -> Port {
    Port {
        addresses: vec![format!("10.20.0.{last}").parse().unwrap(), format!("fd00::{last}").parse().unwrap()],
        accept,
        ..Port::closed(id.to_owned(), tap.to_owned(), MacAddress([2, 0, 0, 0, 0, last]))
    }
}

fn rule(direction: Direction, protocol: Protocol) -> Accept {
    Accept { direction, remote: None, protocol }
}

fn tcp(listen_port: u16) -> Protocol {
    Protocol::Tcp { listen_port }
}

fn network(id: &str, bridge: &str, ports: Vec<Port>) -> Network {
    let uplink = Uplink::Vxlan { vni: 7, link: format!("cx{bridge}"), peers: Vec::new() };
    Network { id: id.to_owned(), bridge: bridge.to_owned(), mtu: 1450, uplink, ports, ..Network::default() }
}

/// `a` may open tcp 80 to anybody, and anybody may open it to `b`.
fn office() -> Desired {
    let a = port("office/a/eth0", "ct1", 10, vec![rule(Direction::FromGuest, tcp(80))]);
    let b = port("office/b/eth0", "ct2", 11, vec![rule(Direction::ToGuest, tcp(80))]);
    let networks = vec![network("office/lan", "cb1", vec![a, b])];
    Desired { generation: Generation(1), networks, ..Desired::default() }
}

fn ask(desired: &Desired, from: End, to: End, service: Service) -> Result<Explained, Unanswerable> {
    let host = Host {
        underlay: Some("192.0.2.1".parse().unwrap()),
        uplinks: [("main".parse().unwrap(), "eth1".to_owned())].into(),
        ..Host::default()
    };
    let target = Target::new(desired, &host).unwrap();
    let status = vec![NetworkStatus {
        id: "office/lan".to_owned(),
        up: true,
        ports: vec![PortStatus {
            id: "office/a/eth0".to_owned(),
            dropped_from_guest: Counter { frames: 3, bytes: 180 },
            rules: vec![RuleStatus {
                accept: rule(Direction::FromGuest, tcp(80)),
                counter: Counter { frames: 5, bytes: 300 },
            }],
            ..PortStatus::default()
        }],
        router: None,
    }];
    explain(desired, &target, &status, &Question { from, to, service, prove: false })
}

fn end(id: &str) -> End {
    End::Port { id: id.to_owned(), address: None }
}

fn outside(address: &str) -> End {
    End::Outside { address: address.parse().unwrap() }
}

fn last_words(desired: &Desired, from: End, to: End, service: Service) -> (Verdict, String) {
    let Explained { explanation, .. } = ask(desired, from, to, service).unwrap();
    let last = explanation.stages.last().unwrap();
    assert_eq!(last.verdict, explanation.verdict);
    (explanation.verdict, last.why.clone())
}

const HTTP: Service = Service::Tcp { listen_port: 80 };
const SSH: Service = Service::Tcp { listen_port: 22 };

#[test]
fn every_place_on_the_way_is_named_with_its_rule_and_counter() {
    let answer = ask(&office(), end("office/a/eth0"), end("office/b/eth0"), HTTP).unwrap().explanation;
    assert_eq!(answer.verdict, Verdict::Pass);
    let words: Vec<String> =
        answer.stages.iter().map(|stage| format!("{}: {}", stage.place, stage.why)).collect();
    assert_eq!(
        words,
        [
            "first frame, office/a/eth0 sends: accepted: office/a/eth0 may open tcp 80 to anybody",
            "first frame, network office/lan: both are on bridge cb1",
            "first frame, office/b/eth0 is sent it: accepted: anybody may open tcp 80 to office/b/eth0",
            "reply, office/b/eth0 sends: a reply: anybody may open tcp 80 to office/b/eth0",
            "reply, network office/lan: both are on bridge cb1",
            "reply, office/a/eth0 is sent it: a reply: office/a/eth0 may open tcp 80 to anybody",
        ]
    );
    assert_eq!(answer.stages[0].counter, Some(Counter { frames: 5, bytes: 300 }));
    assert_eq!(answer.stages[1].counter, None);
}

#[test]
fn the_missing_rule_is_named() {
    let desired = office();
    let (a, b) = (|| end("office/a/eth0"), || end("office/b/eth0"));
    let no_rule = |text: &str| (Verdict::Drop, format!("no accept rule lets {text}"));
    assert_eq!(last_words(&desired, a(), b(), SSH), no_rule("office/a/eth0 open tcp 22 to 10.20.0.11"));
    assert_eq!(
        last_words(&desired, outside("10.20.0.9"), b(), SSH),
        no_rule("10.20.0.9 open tcp 22 to office/b/eth0")
    );
    assert_eq!(
        last_words(&desired, b(), a(), Service::Echo),
        no_rule("office/b/eth0 open echo to 10.20.0.10")
    );
    let six = End::Port { id: "office/a/eth0".to_owned(), address: Some("fd00::10".parse().unwrap()) };
    let udp = Service::Udp { listen_port: 53 };
    assert_eq!(last_words(&desired, six, b(), udp), no_rule("office/a/eth0 open udp 53 to fd00::11"));
    let stages = ask(&desired, a(), b(), SSH).unwrap().explanation.stages;
    assert_eq!(stages[0].counter, Some(Counter { frames: 3, bytes: 180 }));
}

#[test]
fn what_is_not_netds_to_know_is_said() {
    let mut desired = office();
    desired.networks[0].subnets = vec!["10.20.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()];
    let c = port("office/c/eth0", "ct3", 12, vec![rule(Direction::ToGuest, Protocol::Any)]);
    let mut dmz = network("office/dmz", "cb2", vec![c]);
    dmz.uplink = Uplink::None;
    desired.networks.push(dmz);
    let a = || end("office/a/eth0");
    let (verdict, why) = last_words(&desired, a(), end("office/c/eth0"), HTTP);
    assert!(
        verdict == Verdict::Drop && why.contains("a gateway between them is not netd's to know"),
        "{why}"
    );
    let answer = ask(&desired, a(), outside("192.0.2.7"), HTTP).unwrap().explanation;
    assert_eq!(answer.verdict, Verdict::Pass);
    assert_eq!(
        answer.stages[1].why,
        "leaves by cxcb1; what is beyond it is not netd's to know; 192.0.2.7 is in no subnet of office/lan: a gateway \
         must carry it on"
    );
    let (verdict, why) = last_words(&desired, outside("192.0.2.7"), end("office/c/eth0"), HTTP);
    assert_eq!(
        (verdict, why.as_str()),
        (Verdict::Drop, "office/dmz does not leave this host: it has no uplink")
    );
}

/// A guest's frame to the world was said to leave by the tunnel, though the router stood beside it.
#[test]
fn the_networks_own_router_is_named_where_it_carries_frames_on() {
    let mut desired = office();
    desired.networks[0].subnets = vec!["10.20.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()];
    let a = || end("office/a/eth0");
    let mut crossed = |router: Router, to: &str| {
        desired.networks[0].router = Some(router);
        let stages = ask(&desired, a(), outside(to), HTTP).unwrap().explanation.stages;
        (stages[1].why.clone(), stages[3].why.clone())
    };
    let router = |nat| Router {
        link: "crlan".to_owned(),
        addresses: vec!["10.20.0.1/24".parse().unwrap()],
        outside: Some(Outside {
            site: "main".parse().unwrap(),
            link: "colan".to_owned(),
            mac: MacAddress([2, 0, 0, 0, 1, 1]),
            addresses: vec!["10.88.0.100/24".parse().unwrap()],
            gateways: Vec::new(),
            nat,
            published: Vec::new(),
        }),
        elsewhere: false,
        mac: MacAddress([2, 0, 0, 0, 1, 2]),
        dhcp: None,
        dns: None,
        advertises: false,
    };
    let beyond = "what is beyond it is not netd's to know";
    assert_eq!(
        crossed(router(true), "192.0.2.7"),
        (
            format!(
                "goes to the network's router crlan, which joins the LAN of site main and lends its own address there; {beyond}"
            ),
            format!(
                "comes in by the network's router crlan, which joins the LAN of site main and lends its own address there; {beyond}"
            ),
        )
    );
    assert!(!crossed(router(false), "192.0.2.7").0.contains("lends"));
    let elsewhere = Router { elsewhere: true, ..router(true) };
    assert_eq!(
        crossed(elsewhere, "192.0.2.7").0,
        format!("goes to the network's router on another host, by cxcb1; {beyond}")
    );
    assert!(
        crossed(router(true), "10.20.0.99").0.starts_with("leaves by cxcb1"),
        "a neighbour needs no router"
    );
    let serves = Router { outside: None, ..router(true) };
    assert!(crossed(serves, "192.0.2.7").0.contains("a gateway must carry it on"), "it leads nowhere");
}

#[test]
fn a_foreign_source_is_called_by_its_name() {
    let from = End::Port { id: "office/a/eth0".to_owned(), address: Some("10.20.0.99".parse().unwrap()) };
    let (verdict, why) = last_words(&office(), from, end("office/b/eth0"), Service::Resolve);
    assert_eq!(verdict, Verdict::Drop);
    assert_eq!(why, "10.20.0.99 is no address of office/a/eth0, and it may use no other");
}

#[test]
fn a_held_port_and_one_without_addresses_say_so() {
    let mut desired = office();
    desired.networks[0].ports[1].held = true;
    let (a, b) = (|| end("office/a/eth0"), || end("office/b/eth0"));
    let (verdict, why) = last_words(&desired, a(), b(), HTTP);
    assert!(verdict == Verdict::Drop && why.starts_with("office/b/eth0 is held"), "{why}");
    desired.networks[0].ports[1].addresses.clear();
    let explained = ask(&desired, a(), b(), HTTP).unwrap();
    assert_eq!(explained.experiment, None);
    assert!(explained.explanation.stages[0].why.contains("no addresses of the same version"));
}

#[test]
fn both_ends_of_a_wire_hear_each_other_whatever_their_rules() {
    let mut desired = office();
    desired.networks[0].uplink = Uplink::None;
    desired.networks[0].wire = true;
    let (verdict, _) = last_words(&desired, end("office/a/eth0"), end("office/b/eth0"), SSH);
    assert_eq!(verdict, Verdict::Pass);
}

#[test]
fn a_question_without_an_answer_says_what_to_ask() {
    let desired = office();
    let a = || end("office/a/eth0");
    assert_eq!(
        ask(&desired, a(), end("office/z/eth0"), HTTP),
        Err(Unanswerable::UnknownPort("office/z/eth0".to_owned()))
    );
    assert_eq!(ask(&desired, outside("10.0.0.1"), outside("10.0.0.2"), HTTP), Err(Unanswerable::NoPort));
    let six = End::Port { id: "office/a/eth0".to_owned(), address: Some("fd00::10".parse().unwrap()) };
    assert!(matches!(ask(&desired, six, outside("10.0.0.2"), HTTP), Err(Unanswerable::Versions { .. })));
    assert_eq!(ask(&desired, a(), a(), Service::Tcp { listen_port: 0 }), Err(Unanswerable::ListenPort));
}

#[test]
fn the_opening_port_number_is_named_by_no_rule() {
    let mut desired = office();
    let taken: Vec<Accept> =
        (DYNAMIC_PORT_MIN..DYNAMIC_PORT_MIN + 3).map(|n| rule(Direction::ToGuest, tcp(n))).collect();
    desired.networks[0].ports[0].accept.extend(taken);
    let experiment =
        ask(&desired, end("office/a/eth0"), end("office/b/eth0"), HTTP).unwrap().experiment.unwrap();
    assert!(matches!(experiment.first.payload, Payload::Tcp { from, .. } if from == DYNAMIC_PORT_MIN + 3));
}

#[test]
fn an_experiment_holds_the_two_ends_and_nothing_else() {
    let mut desired = office();
    desired.networks[0].ports.push(port(
        "office/c/eth0",
        "ct3",
        12,
        vec![rule(Direction::ToGuest, Protocol::Any)],
    ));
    let asked = ask(&desired, outside("10.20.0.9"), end("office/b/eth0"), HTTP).unwrap();
    let experiment = asked.experiment.unwrap();
    assert_eq!(experiment.target.taps.keys().collect::<Vec<_>>(), ["ct2"]);
    assert_eq!(experiment.uplinks, ["cxcb1".to_owned()].into());
    let rules = experiment.target.rules.unwrap().elements;
    assert!(
        !rules.is_empty() && rules.iter().all(|(_, e)| ["ct2", "cxcb1"].contains(&e.link())),
        "{rules:?}"
    );
}

#[test]
fn checksums_add_up() {
    for (source, destination) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
        let frame = Frame {
            from: MacAddress([2, 0, 0, 0, 0, 1]),
            to: MacAddress([2, 0, 0, 0, 0, 2]),
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            payload: Payload::Tcp { from: 50_000, to: 80, answers: false },
        };
        let bytes = frame.to_bytes();
        let (addresses, segment) = if frame.source.is_ipv4() { (26..34, 34..54) } else { (22..54, 54..74) };
        let pseudo = [&bytes[addresses], &[0, 6, 0, 20], &bytes[segment]].concat();
        let total: u32 = pseudo.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        assert_eq!((total >> 16) + (total & 0xffff), 0xffff, "{source}");
    }
}

#[test]
fn networks_and_ports_are_capture_points_once() {
    let desired = office();
    let of =
        |ids: &[&str]| capture_points(&desired, &ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>());
    let taps: Vec<String> =
        of(&["office/b/eth0", "office/lan"]).unwrap().into_iter().map(|point| point.tap).collect();
    assert_eq!(taps, ["ct1", "ct2"]);
    assert_eq!(of(&["office"]), Err(Unanswerable::UnknownPort("office".to_owned())));
}

proptest::proptest! {
    #[test]
    fn any_frame_can_be_written(
        addresses: [u128; 2], versions: [bool; 2], macs: [[u8; 6]; 2], kind in 0..6u8, numbers: [u16; 2], answers: bool,
    ) {
        let address = |i: usize| -> IpAddr {
            if versions[i] { (addresses[i] as u32).to_be_bytes().into() } else { addresses[i].to_be_bytes().into() }
        };
        let [from, to] = numbers;
        let payload = match kind {
            0 => Payload::Ask,
            1 => Payload::Tell,
            2 => Payload::Ping,
            3 => Payload::Pong,
            4 => Payload::Tcp { from, to, answers },
            _ => Payload::Udp { from, to },
        };
        let (source, destination) = (address(0), address(1));
        let frame = Frame { from: MacAddress(macs[0]), to: MacAddress(macs[1]), source, destination, payload };
        proptest::prop_assert!((60..=1500).contains(&frame.to_bytes().len()));
    }
}
