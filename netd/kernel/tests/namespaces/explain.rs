use crate::frames::{Guest, SYN, ipv4, tcp};
use crate::world::{World, from_guest, mac, network, port, to_guest, vxlan};
use futures::future::join;
use netd_api::{
    Accept, Desired, Direction, End, Network, Port, Protocol, Question, Service, Uplink, Verdict,
};
use netd_plan::{Experiment, Host, Target, explain};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::time::{Duration, Instant};

/// Random questions put to the planner and to the kernel.
const QUESTIONS: u32 = 200;
/// A proof.
const PROOF_TIMEOUT: Duration = Duration::from_secs(1);

fn host() -> Host {
    Host { underlay: Some("192.0.2.1".parse().unwrap()), ..Host::default() }
}

fn answered(desired: &Desired, question: &Question) -> (Verdict, Option<Experiment>, String) {
    let target = Target::new(desired, &host()).unwrap();
    let explained = explain(desired, &target, &[], question).unwrap();
    let words: Vec<String> = explained
        .explanation
        .stages
        .iter()
        .map(|stage| format!("{:?} {}: {}", stage.verdict, stage.place, stage.why))
        .collect();
    (explained.explanation.verdict, explained.experiment, words.join("\n"))
}

fn proven(experiment: Experiment) -> Verdict {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime
        .block_on(netd_kernel::prove(experiment))
        .expect("this test makes network namespaces: run it as root")
}

/// Few values each, so that rules and questions often meet.
fn an_accept() -> impl Strategy<Value = Accept> {
    let direction = prop_oneof![Just(Direction::FromGuest), Just(Direction::ToGuest)];
    let remotes = [
        "10.0.0.0/24",
        "10.0.0.2/32",
        "10.0.0.1/32",
        "10.0.0.0/31",
        "10.0.0.0/27",
        "8.0.0.0/5",
        "192.0.2.0/24",
        "fd00::/64",
        "fc00::/7",
        "fd00::/46",
        "fd00::/125",
        "fd00::2/128",
    ];
    let remote = proptest::option::weighted(
        0.35,
        proptest::sample::select(remotes.map(|net| net.parse().unwrap()).to_vec()),
    );
    let protocol = prop_oneof![
        1 => Just(Protocol::Any),
        2 => Just(Protocol::Icmp),
        3 => a_port_number().prop_map(|listen_port| Protocol::Tcp { listen_port }),
        3 => a_port_number().prop_map(|listen_port| Protocol::Udp { listen_port }),
    ];
    (direction, remote, protocol).prop_map(|(direction, remote, protocol)| Accept {
        direction,
        remote,
        protocol,
    })
}

fn a_port_number() -> impl Strategy<Value = u16> {
    proptest::sample::select(vec![22, 53, 67, 80, 547, 49_152])
}

fn a_port(number: u8) -> impl Strategy<Value = Port> {
    let accept = proptest::collection::vec(an_accept(), 0..10);
    (accept, any::<bool>(), proptest::bool::weighted(0.1)).prop_map(move |(accept, routes, held)| Port {
        routes,
        held,
        ..port(number, accept)
    })
}

fn a_service() -> impl Strategy<Value = Service> {
    prop_oneof![
        1 => Just(Service::Resolve),
        2 => Just(Service::Echo),
        3 => a_port_number().prop_map(|listen_port| Service::Tcp { listen_port }),
        3 => a_port_number().prop_map(|listen_port| Service::Udp { listen_port }),
    ]
}

/// Of the port itself, of its version, or nobody's.
fn an_address(number: u8) -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        12 => Just(None),
        4 => Just(Some(format!("fd00::{number}"))),
        1 => Just(Some("10.0.0.77".to_owned())),
        1 => Just(Some("fd00::77".to_owned())),
        1 => Just(Some(format!("fe80::{number}"))),
    ]
}

fn an_end(number: u8) -> impl Strategy<Value = End> {
    let id = format!("office/m{number}/eth0");
    prop_oneof![
        5 => an_address(number).prop_map(move |address| End::Port {
            id: id.clone(),
            address: address.map(|text| text.parse().unwrap()),
        }),
        1 => Just(End::Outside { address: "192.0.2.9".parse().unwrap() }),
        1 => Just(End::Outside { address: "fd00::9".parse().unwrap() }),
    ]
}

fn networks() -> impl Strategy<Value = Vec<Network>> {
    (a_port(1), a_port(2), any::<bool>(), 0..10u8).prop_map(|(one, two, leaves, kind)| {
        let uplink = || if leaves { vxlan(7, &[]) } else { Uplink::None };
        match kind {
            0 => vec![network("cb1", uplink(), vec![one]), network("cb2", Uplink::None, vec![two])],
            1 => vec![Network { wire: true, ..network("cb1", Uplink::None, vec![one, two]) }],
            _ => vec![network("cb1", uplink(), vec![one, two])],
        }
    })
}

fn a_case() -> impl Strategy<Value = (Desired, Question)> {
    (networks(), an_end(1), an_end(2), a_service(), any::<bool>()).prop_map(
        |(networks, a, b, service, turned)| {
            let (from, to) = if turned { (b, a) } else { (a, b) };
            (Desired { networks, ..Desired::default() }, Question { from, to, service, prove: true })
        },
    )
}

/// Whatever the rules and the question, the planner says what the kernel does. The seed is printed, and COLLECTIVE_SEED
/// repeats it.
#[test]
fn the_planners_verdict_is_the_kernels() {
    let given = std::env::var("COLLECTIVE_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = given.unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos().into()
    });
    println!("COLLECTIVE_SEED={seed}");
    let bytes = [seed.to_le_bytes(); 4].concat();
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    let (mut asked, mut passed) = (0, 0);
    while asked < QUESTIONS {
        let (desired, question) = a_case().new_tree(&mut runner).unwrap().current();
        let target = Target::new(&desired, &host()).unwrap();
        // Two ends that cannot talk, or none of them a port.
        if explain(&desired, &target, &[], &question).is_err() {
            continue;
        }
        let (verdict, experiment, words) = answered(&desired, &question);
        let Some(experiment) = experiment else { continue };
        asked += 1;
        passed += u32::from(verdict == Verdict::Pass);
        assert_eq!(
            proven(experiment),
            verdict,
            "COLLECTIVE_SEED={seed}: the kernel differs from\n{words}\nin {question:#?} of {desired:#?}"
        );
    }
    println!("{passed} of {asked} pass");
    assert!(
        (QUESTIONS / 20..QUESTIONS * 19 / 20).contains(&passed),
        "{passed} of {asked} pass: the cases say little"
    );
}

fn web() -> (Desired, Question) {
    let accept = |rule: fn(Protocol) -> Accept| vec![rule(Protocol::Tcp { listen_port: 80 })];
    let ports = vec![port(1, accept(from_guest)), port(2, accept(to_guest))];
    let desired = Desired { networks: vec![network("cb1", Uplink::None, ports)], ..Desired::default() };
    let end = |number: u8| End::Port { id: format!("office/m{number}/eth0"), address: None };
    let question =
        Question { from: end(1), to: end(2), service: Service::Tcp { listen_port: 80 }, prove: true };
    (desired, question)
}

#[test]
fn a_proof_is_quick_and_leaves_nothing() {
    let (desired, question) = web();
    let namespaces = || std::fs::read_to_string("/proc/self/mountinfo").unwrap().matches("nsfs").count();
    let before = namespaces();
    let experiment = answered(&desired, &question).1.unwrap();
    // The kernel makes no namespace while it takes down those of other tests; the quickest waited for nobody.
    let timed = || {
        let begin = Instant::now();
        assert_eq!(proven(experiment.clone()), Verdict::Pass);
        begin.elapsed()
    };
    let took = (0..5).map(|_| timed()).min().unwrap();
    println!("figure netd_proof_ms {}", took.as_millis());
    assert!(took < PROOF_TIMEOUT, "a proof took {took:?}");
    assert_eq!(namespaces(), before);
    assert!(!std::path::Path::new("/sys/class/net/ct1").exists(), "the copy was built on the host");
}

#[test]
fn two_proofs_at_once_do_not_meet() {
    let (desired, question) = web();
    let (_, open, _) = answered(&desired, &question);
    let mut closed = desired;
    closed.networks[0].ports[1].accept.clear();
    let (_, closed, _) = answered(&closed, &question);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let both = join(netd_kernel::prove(open.unwrap()), netd_kernel::prove(closed.unwrap()));
    let (open, closed) = runtime.block_on(both);
    assert_eq!((open.unwrap(), closed.unwrap()), (Verdict::Pass, Verdict::Drop));
}

/// A proof uses the names of the host's own links, and must not touch them.
#[test]
fn a_proof_touches_nothing_of_the_host() {
    let (desired, question) = web();
    let world = World::with(desired.networks.clone());
    let (one, two): (Guest, Guest) = (world.guest("ct1"), world.guest("ct2"));
    let before = world.observe();
    let (_, experiment, _) = answered(&desired, &question);
    let experiment = experiment.unwrap();
    let verdict =
        world.namespace.run(move |runtime, _| runtime.block_on(netd_kernel::prove(experiment)).unwrap());
    assert_eq!(verdict, Verdict::Pass);
    assert_eq!(world.observe(), before);
    assert_eq!((one.take(), two.take()), (None, None));
    let syn = ipv4(mac(2), mac(1), "10.0.0.1", "10.0.0.2", 6, &tcp(9, 80, SYN));
    one.send(&syn);
    assert_eq!(two.wait_for(&syn), Vec::<Vec<u8>>::new());
}
