use super::*;
use crate::chain::{CaptureId, Chain, DiskId, LayerId, Stage};
use controller_api::agent::{DesiredPort, DesiredStream};
use controller_api::life::Power;
use controller_api::life::{DiskName, Layer, LayerFormat};
use netd_api::{
    Mirror, MirrorFrom, MirrorTo, Network, NetworkStatus, Port, PortStatus, Router, Status, Uplink, Watcher,
    WatcherStatus,
};
use proptest::prelude::*;
use streamer_api::Prefetch;
use types::{ByteSize, Generation};

fn image(number: u8) -> Digest {
    Digest::from_bytes([number; 32])
}

fn incarnation(member: u8, number: u8) -> Uuid {
    Uuid::from_bytes([member, number, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 1])
}

fn tap(member: u8) -> String {
    format!("ct000000000{member}")
}

fn port(member: u8) -> Port {
    let mac = format!("02:00:00:00:00:0{member}").parse().unwrap();
    Port::closed(format!("office/m{member}/eth0"), tap(member), mac)
}

/// Odd members have a second port, that watches.
fn watcher(member: u8) -> Option<Watcher> {
    (member % 2 == 1).then(|| Watcher {
        id: format!("office/m{member}/sniff"),
        tap: format!("ctfff000000{member}"),
        mtu: 1450,
    })
}

fn ready_watcher(watcher: &Watcher) -> WatcherStatus {
    WatcherStatus { tap: watcher.tap.clone(), ready: true, ..WatcherStatus::default() }
}

fn mirror(watcher: &Watcher) -> Mirror {
    Mirror {
        id: watcher.id.clone(),
        from: MirrorFrom::Network { id: "office/inside".to_owned() },
        to: MirrorTo::Watcher { tap: watcher.tap.clone() },
    }
}

fn instance(member: u8, number: u8) -> DesiredInstance {
    let nic = |name: &str, tap: String| DesiredPort {
        name: name.parse().unwrap(),
        tap,
        mac: port(member).mac,
        mtu: 1450,
    };
    let watching = watcher(member).map(|watcher| nic("sniff", watcher.tap));
    DesiredInstance {
        id: format!("office/m{member}").parse().unwrap(),
        incarnation: incarnation(member, number).to_string(),
        vcpus: 1,
        memory: ByteSize(64 << 20),
        image: image(member),
        image_size_bytes: 1 << 20,
        ports: std::iter::once(nic("eth0", tap(member))).chain(watching).collect(),
        volumes: vec!["home".parse().unwrap()],
        config: BTreeMap::new(),
        power: Power::On,
        leased: false,
        layers: Vec::new(),
        memory_from: None,
    }
}

/// A document with these members, each by its incarnation's number.
fn document(generation: u64, members: &BTreeMap<u8, u8>) -> HostDesired {
    let network = Network {
        id: "office/inside".to_owned(),
        bridge: "cb0000000001".to_owned(),
        mtu: 1450,
        uplink: Uplink::None,
        ports: members.keys().map(|member| port(*member)).collect(),
        ..Network::default()
    };
    HostDesired {
        generation: Generation(generation),
        networks: if members.is_empty() { vec![] } else { vec![network] },
        watchers: members.keys().filter_map(|member| watcher(*member)).collect(),
        mirrors: members.keys().filter_map(|member| watcher(*member)).map(|w| mirror(&w)).collect(),
        images: members.keys().map(|member| image(*member)).collect(),
        instances: members.iter().map(|(member, number)| instance(*member, *number)).collect(),
        volumes: members
            .keys()
            .map(|member| DesiredVolume {
                instance: instance(*member, 0).id,
                name: "home".parse().unwrap(),
                size: ByteSize(1 << 20),
                incarnation: String::new(),
                layers: Vec::new(),
            })
            .collect(),
        ..HostDesired::default()
    }
}

/// A host as the steps change it. Checks what may never happen.
#[derive(Debug, Clone, Default)]
struct World {
    domains: BTreeMap<Uuid, ObservedDomain>,
    records: BTreeMap<Uuid, Record>,
    volumes: BTreeMap<(InstanceId, VolumeName), (u64, String)>,
    chains: Chains,
    captures: BTreeMap<CaptureId, Capture>,
    files: BTreeSet<FileId>,
    images_made: BTreeMap<FileId, FileImage>,
    /// The files that each guest writes, as libvirt knows them.
    open: BTreeMap<Uuid, BTreeMap<DiskName, String>>,
    exported: BTreeSet<Digest>,
    named: BTreeMap<Digest, Naming>,
    limits: Limits,
    limits_set: bool,
    networks: netd_api::Desired,
    /// None after a restart of the agent.
    taken: Option<netd_api::Desired>,
    now_ms: u64,
}

impl World {
    fn observe(&self) -> Observed {
        let port = |port: &Port| PortStatus { tap: port.tap.clone(), ready: true, ..PortStatus::default() };
        let network = |network: &Network| NetworkStatus {
            id: network.id.clone(),
            up: true,
            ports: network.ports.iter().map(port).collect(),
            router: None,
        };
        Observed {
            domains: Some(self.domains.clone()),
            records: self.records.clone(),
            volumes: self.volumes.clone(),
            chains: self.chains.clone(),
            captures: self.captures.clone(),
            held_ms: BTreeMap::new(),
            files: self.files.clone(),
            images: self.images_made.clone(),
            fetched: BTreeMap::new(),
            dirty_bytes: BTreeMap::new(),
            exported: Some(self.exported.clone()),
            named: self.named.clone(),
            limits: Some(self.limits),
            limits_set: self.limits_set,
            networks: Some(Status {
                generation: self.networks.generation,
                converged: true,
                networks: self.networks.networks.iter().map(network).collect(),
                watchers: self.networks.watchers.iter().map(ready_watcher).collect(),
                ..Status::default()
            }),
            networks_taken: self.taken.clone(),
            busy: BTreeSet::new(),
            now_ms: self.now_ms,
            ..Observed::default()
        }
    }

    fn taps(&self) -> BTreeSet<&str> {
        let ports = self.networks.networks.iter().flat_map(|n| &n.ports).map(|p| p.tap.as_str());
        ports.chain(self.networks.watchers.iter().map(|watcher| watcher.tap.as_str())).collect()
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::PutNetworks(networks) => {
                // netd refuses one generation with two contents: bridges once stayed for ever, as one document of
                // the controller meant two for netd under one number.
                assert!(networks.generation > self.networks.generation, "netd was sent a used number");
                self.networks = networks.clone();
                self.taken = Some(networks);
                for domain in self.domains.values() {
                    let member = domain.instance.member.as_str()[1..].parse().unwrap();
                    let watching = watcher(member).map(|watcher| watcher.tap);
                    for tap in std::iter::once(tap(member)).chain(watching) {
                        assert!(self.taps().contains(tap.as_str()), "a port went before its domain");
                    }
                }
            }
            Step::NameImage(digest, naming) => {
                self.exported.insert(digest);
                self.named.insert(digest, naming);
            }
            Step::DropImage(digest) => {
                assert!(self.records.values().all(|r| r.image != digest), "an image went before its overlay");
                self.exported.remove(&digest);
                self.named.remove(&digest);
            }
            Step::SetLimits(limits) => {
                (self.limits, self.limits_set) = (limits.unwrap_or_default(), limits.is_some());
            }
            Step::TellRun(_, uuid) => {
                let record = self.records.get_mut(&uuid).unwrap();
                record.run_told = record.starts;
            }
            Step::MakeVolume(volume) => self.make_volume(&volume),
            Step::DeleteVolume(id, name) => {
                assert!(self.domains.values().all(|d| d.instance != id), "a volume went before its domain");
                self.chains.remove(&DiskId::Volume(id.clone(), name.clone()));
                self.volumes.remove(&(id, name));
            }
            Step::Start(desired, wires) => self.start(&desired, wires),
            Step::Adopt(desired, wires) => {
                let uuid = desired.incarnation.parse().unwrap();
                let mut record = Record::new(desired.id.clone(), desired.image, wires);
                record.started_ms = Some(self.now_ms);
                self.records.insert(uuid, record);
            }
            Step::NoteEnd(_, uuid) => note_end(self.records.get_mut(&uuid).unwrap(), None, self.now_ms),
            Step::Resume(_, uuid) => self.domains.get_mut(&uuid).unwrap().state = DomainState::Running,
            Step::SwitchOff(_, uuid) => {
                self.domains.get_mut(&uuid).unwrap().state = DomainState::Stopped { reason: "poweroff" };
                self.records.get_mut(&uuid).unwrap().ended = true;
                self.open.remove(&uuid);
            }
            Step::Remove(_, uuid) => {
                self.domains.remove(&uuid);
                self.records.remove(&uuid);
                self.open.remove(&uuid);
                self.chains.remove(&DiskId::System(uuid));
            }
            step => self.apply_capture(step),
        }
    }

    fn start(&mut self, desired: &DesiredInstance, wires: Wires) {
        let uuid = desired.incarnation.parse().unwrap();
        assert!(self.domains.iter().all(|(o, d)| *o == uuid || d.instance != desired.id), "two at once");
        assert!(self.exported.contains(&desired.image), "no image");
        assert!(desired.ports.iter().all(|p| self.taps().contains(p.tap.as_str())), "no port");
        assert!(desired.volumes.iter().all(|v| self.volumes.contains_key(&(desired.id.clone(), v.clone()))));
        let mut record = self
            .records
            .remove(&uuid)
            .unwrap_or_else(|| Record::new(desired.id.clone(), desired.image, wires));
        record.started_ms = Some(self.now_ms);
        record.ended = false;
        record.starts += 1;
        self.records.insert(uuid, record);
        let names = std::iter::once(DiskName::System)
            .chain(desired.volumes.iter().cloned().map(DiskName::Volume))
            .collect::<Vec<_>>();
        self.chains.entry(DiskId::System(uuid)).or_insert_with(|| bare("system.qcow2", String::new()));
        let open = names.into_iter().map(|name| {
            let chain = &self.chains[&DiskId::of(&name, &desired.id, uuid)];
            let here = |layer: &Layer| self.files.contains(&FileId::Layer(LayerId::of(layer).unwrap()));
            assert!(chain.layers.iter().all(here), "a layer is lost");
            (name, chain.active.clone())
        });
        let open = open.collect();
        self.open.insert(uuid, open);
        self.domains
            .insert(uuid, ObservedDomain { instance: desired.id.clone(), state: DomainState::Running });
    }

    /// Passes until nothing is to be done; `stop_after` steps the agent is killed.
    fn converge(&mut self, desired: &HostDesired, mut stop_after: usize) {
        for _ in 0..64 {
            let plan = plan(desired, &self.observe());
            if plan.steps.is_empty() && plan.waits.is_empty() {
                return;
            }
            for step in plan.steps {
                if stop_after == 0 {
                    self.taken = None;
                    self.begin_and_die(&step);
                    stop_after = usize::MAX;
                    break;
                }
                stop_after = stop_after.saturating_sub(1);
                self.apply(step);
            }
            self.now_ms += 500;
        }
        panic!("no end: {:?}", plan(desired, &self.observe()));
    }

    fn is(&self, desired: &HostDesired) -> bool {
        let wanted: BTreeSet<Uuid> =
            desired.instances.iter().map(|i| i.incarnation.parse().unwrap()).collect();
        self.domains.keys().copied().collect::<BTreeSet<_>>() == wanted
            && self.domains.values().all(|domain| domain.state == DomainState::Running)
            && self.records.keys().copied().collect::<BTreeSet<_>>() == wanted
            && self.exported == desired.images.iter().copied().collect()
            && self.volumes.len() == desired.volumes.len()
            && self.networks.networks == desired.networks
            && self.networks.watchers == desired.watchers
            && self.networks.mirrors == desired.mirrors
    }
}

fn bare(active: &str, incarnation: String) -> Chain {
    Chain {
        incarnation,
        layers: Vec::new(),
        active: active.to_owned(),
        format: LayerFormat::Qcow2,
        disk_bytes: 1 << 20,
    }
}

fn some(members: &[(u8, u8)]) -> HostDesired {
    document(1, &members.iter().copied().collect())
}

fn running(desired: &HostDesired) -> World {
    let mut world = World::default();
    world.converge(desired, usize::MAX);
    world
}

proptest! {
    #[test]
    fn any_document_is_reached_from_any_other_though_the_agent_is_killed_on_the_way(
        first in proptest::collection::btree_map(0_u8..4, 0_u8..3, 0..4),
        second in proptest::collection::btree_map(0_u8..4, 0_u8..3, 0..4),
        killed_after in 0_usize..24,
        died in any::<[bool; 4]>(),
    ) {
        let (first, second) = (document(1, &first), document(2, &second));
        let mut world = World::default();
        world.converge(&first, killed_after);
        prop_assert!(world.is(&first));
        for (domain, died) in world.domains.values_mut().zip(died) {
            if died {
                domain.state = DomainState::Stopped { reason: "crashed" };
            }
        }
        world.converge(&second, killed_after);
        prop_assert!(world.is(&second), "{world:?}");
    }
}

#[test]
fn nothing_is_done_twice() {
    let desired = some(&[(1, 0), (2, 0)]);
    assert_eq!(plan(&desired, &running(&desired).observe()), Plan::default());
}

#[test]
fn a_start_waits_for_each_of_its_needs_and_says_for_which() {
    let desired = some(&[(1, 0)]);
    let mut world = running(&desired);
    world.domains.clear();
    world.records.clear();
    let why = |observed: &Observed| {
        let plan = plan(&desired, observed);
        assert!(!plan.steps.iter().any(|step| matches!(step, Step::Start(..))));
        plan.waits.values().next().unwrap().clone()
    };
    let whole = world.observe();
    assert!(matches!(plan(&desired, &whole).steps[..], [Step::Start(..)]));
    assert_eq!(why(&Observed { domains: None, ..whole.clone() }), "libvirt does not answer");
    assert_eq!(why(&Observed { exported: None, ..whole.clone() }), "the streamer does not answer");
    let none = Observed { exported: Some(BTreeSet::new()), ..whole.clone() };
    assert_eq!(why(&none), "image 010101010101 is not exported yet");
    assert_eq!(why(&Observed { networks: None, ..whole.clone() }), "netd does not answer");
    let restarted = Observed { networks_taken: None, ..whole.clone() };
    assert_eq!(why(&restarted), "netd has not taken up its networks yet");
    let mut closed = whole.clone();
    closed.networks.as_mut().unwrap().networks[0].ports[0].ready = false;
    assert_eq!(why(&closed), "its port eth0 is not ready yet");
    let mut blind = whole.clone();
    blind.networks.as_mut().unwrap().watchers[0].ready = false;
    assert_eq!(why(&blind), "its port sniff is not ready yet");
    let bare = Observed { volumes: BTreeMap::new(), ..whole };
    assert_eq!(why(&bare), "its volume home is not made yet");
}

#[test]
fn a_silent_libvirt_removes_nothing() {
    let world = running(&some(&[(1, 0)]));
    let observed = Observed { domains: None, ..world.observe() };
    let steps = plan(&some(&[]), &observed).steps;
    assert!(
        !steps.iter().any(|s| matches!(s, Step::Remove(..) | Step::DeleteVolume(..) | Step::DropImage(_)))
    );
    // And its ports stay.
    assert_eq!(wanted_networks(&some(&[]), &observed).networks.len(), 1);
}

#[test]
fn a_new_incarnation_keeps_the_volume() {
    let mut world = running(&some(&[(1, 0)]));
    let volumes = world.volumes.clone();
    world.converge(&document(2, &[(1, 1)].into()), usize::MAX);
    assert_eq!(world.volumes, volumes);
    assert_eq!(world.domains.keys().copied().collect::<Vec<_>>(), [incarnation(1, 1)]);
}

#[test]
fn an_image_named_by_somebody_else_stays() {
    let mut world = running(&some(&[]));
    world.exported.insert(image(9));
    assert_eq!(plan(&some(&[]), &world.observe()).steps, []);
}

#[test]
fn a_guest_whose_disk_failed_goes_on_once_the_image_is_exported() {
    let desired = some(&[(1, 0)]);
    let mut world = running(&desired);
    world.domains.values_mut().for_each(|domain| domain.state = DomainState::PausedByIoError);
    world.exported.clear();
    assert_eq!(plan(&desired, &world.observe()).steps, [Step::NameImage(image(1), Naming::default())]);
    world.exported.insert(image(1));
    assert!(matches!(plan(&desired, &world.observe()).steps[..], [Step::Resume(..)]));
}

#[test]
fn a_running_guests_image_is_named_anew_when_it_shall_be_held_otherwise() {
    let mut desired = some(&[(1, 0)]);
    let mut world = running(&desired);
    desired.streams = vec![DesiredStream { image: image(1), source: 2, prefetch: Prefetch::Idle, pin: true }];
    let naming = Naming { source: 2, prefetch: Prefetch::Idle, pin: true };
    assert_eq!(plan(&desired, &world.observe()).steps, [Step::NameImage(image(1), naming)]);
    // The streamer has forgotten it meanwhile: it is named as it was, for which no controller is needed.
    world.exported.clear();
    assert_eq!(plan(&desired, &world.observe()).steps, [Step::NameImage(image(1), Naming::default())]);
    world.converge(&desired, usize::MAX);
    assert_eq!(world.named[&image(1)], naming);
    // On its way out it stays as it is, pinned or not.
    let gone = plan(&some(&[]), &world.observe()).steps;
    assert!(!gone.iter().any(|step| matches!(step, Step::NameImage(..))), "{gone:?}");
}

#[test]
fn an_image_is_held_ahead_of_need_and_dropped_when_it_is_not_named_any_more() {
    let ahead = HostDesired {
        images: vec![image(5)],
        streams: vec![DesiredStream { image: image(5), source: 0, prefetch: Prefetch::Idle, pin: false }],
        ..some(&[])
    };
    let mut world = running(&ahead);
    assert_eq!(world.named[&image(5)].prefetch, Prefetch::Idle);
    world.converge(&some(&[]), usize::MAX);
    assert_eq!((world.exported.len(), world.named.len()), (0, 0));
}

#[test]
fn the_streamer_is_as_fast_as_the_controller_says_and_what_others_set_is_left() {
    let limits = |bytes| Limits { download_bytes_per_s: Some(bytes), ..Limits::default() };
    let mut world = running(&some(&[]));
    world.limits = limits(1 << 20);
    assert_eq!(plan(&some(&[]), &world.observe()).steps, [], "somebody set it at the streamer");
    let slow = HostDesired { limits: Some(limits(1 << 16)), ..some(&[]) };
    world.converge(&slow, usize::MAX);
    assert_eq!(world.limits, limits(1 << 16));
    let silent = Observed { limits: None, ..world.observe() };
    assert_eq!(plan(&some(&[]), &silent).steps, []);
    world.converge(&some(&[]), usize::MAX);
    assert_eq!((world.limits, world.limits_set), (Limits::default(), false));
}

#[test]
fn a_run_is_told_once_for_each_start_when_its_boot_is_over() {
    let desired = some(&[(1, 0)]);
    let mut world = running(&desired);
    let tells = |world: &World| matches!(plan(&desired, &world.observe()).steps[..], [Step::TellRun(..)]);
    let uuid = incarnation(1, 0);
    assert!(!tells(&world), "it is not ready");
    world.records.get_mut(&uuid).unwrap().ready_ms = Some(world.now_ms);
    assert!(!tells(&world), "it may still boot");
    world.now_ms += RUN_AFTER_READY_MS;
    assert!(tells(&world));
    assert!(!matches!(
        plan(&desired, &Observed { exported: None, ..world.observe() }).steps[..],
        [Step::TellRun(..)]
    ));
    world.records.get_mut(&uuid).unwrap().run_not_before_ms = world.now_ms + 1;
    assert!(!tells(&world), "the controller is away");
    world.now_ms += 1;
    let told = plan(&desired, &world.observe());
    assert!(
        crate::status::converged(&desired, &world.observe(), &told, &[]),
        "it is no part of what shall be"
    );
    world.converge(&desired, usize::MAX);
    assert!(!tells(&world));
    world.records.get_mut(&uuid).unwrap().starts += 1;
    assert!(tells(&world), "another start is another run");
}

#[test]
fn a_running_volume_is_not_grown_and_none_ever_shrinks() {
    let mut desired = some(&[(1, 0)]);
    let world = running(&desired);
    desired.volumes[0].size = ByteSize(2 << 20);
    assert_eq!(plan(&desired, &world.observe()).steps, []);
    desired.volumes[0].size = ByteSize(1 << 10);
    assert_eq!(plan(&desired, &world.observe()).steps, []);
}

#[test]
fn pauses_grow_to_their_limit_and_shrink_after_a_good_run() {
    assert_eq!([0, 1, 2, 3, 5, 6, 99].map(pause_ms), [0, 1_000, 2_000, 4_000, 16_000, 30_000, 30_000]);
    let mut record = Record::new("office/m1".parse().unwrap(), image(1), Wires::default());
    record.started_ms = Some(0);
    note_end(&mut record, None, 500);
    note_end(&mut record, Some("no".to_owned()), 500);
    assert_eq!((record.tries, record.not_before_ms), (2, 2_500));
    note_end(&mut record, None, GOOD_RUN_MS);
    assert_eq!((record.tries, record.failure), (1, None));
}

#[test]
fn a_volume_name_the_guest_would_see_cut_off_is_refused() {
    let mut desired = some(&[(1, 0)]);
    desired.instances[0].volumes = vec!["a-name-of-17-byte".parse().unwrap()];
    let plan = plan(&desired, &World::default().observe());
    assert!(plan.refusals.values().next().unwrap().contains("longer than 16 bytes"));
}

mod captures;

#[test]
fn a_router_does_not_stay_for_an_instance_that_goes() {
    let mut desired = some(&[(2, 0)]);
    desired.networks[0].router = Some(Router {
        link: "cr0000000001".to_owned(),
        elsewhere: false,
        mac: port(9).mac,
        addresses: vec!["10.20.0.1/24".parse().unwrap()],
        dhcp: None,
        dns: None,
        advertises: false,
        outside: None,
    });
    let world = running(&desired);
    let kept = wanted_networks(&some(&[]), &world.observe());
    let [network] = kept.networks.as_slice() else { panic!("{kept:?}") };
    assert!(network.router.as_ref().unwrap().elsewhere, "another host may have it by then");
    assert_eq!(network.ports.len(), 1);
}

#[test]
fn a_watcher_stays_until_its_instance_is_gone_and_its_mirrors_do_not() {
    let mut world = running(&some(&[(1, 0)]));
    let kept = wanted_networks(&some(&[]), &world.observe());
    assert_eq!((kept.watchers, kept.mirrors), (vec![watcher(1).unwrap()], vec![]));
    world.converge(&some(&[]), usize::MAX);
    assert_eq!(world.networks.watchers, []);
}

// A record says what its guest might do when it was started; a proxy may have been spliced in since. A port that was
// kept as recorded spoke past it while its guest went.
#[test]
fn a_port_that_is_only_kept_is_shut() {
    let mut first = some(&[(2, 0)]);
    first.networks[0].ports[0].addresses = vec!["10.20.0.2".parse().unwrap()];
    let world = running(&first);
    for second in [some(&[]), some(&[(4, 0)])] {
        let networks = wanted_networks(&second, &world.observe()).networks;
        let mut ports = networks.into_iter().flat_map(|network| network.ports);
        let kept = ports.find(|port| port.tap == tap(2)).unwrap();
        assert_eq!((kept.held, kept.addresses, kept.accept), (true, vec![], vec![]));
    }
}

#[test]
fn a_network_that_is_only_kept_leaves_its_number_to_the_document() {
    let uplink = Uplink::Vlan { trunk: "core".to_owned(), vid: 7, link: "cv0000000001".to_owned() };
    let mut first = some(&[(2, 0)]);
    first.networks[0].uplink = uplink.clone();
    let world = running(&first);
    let mut second = some(&[(4, 0)]);
    let network = Network {
        id: "other/inside".to_owned(),
        bridge: "cb0000000002".to_owned(),
        uplink,
        ..second.networks[0].clone()
    };
    second.networks = vec![network];
    let kept = wanted_networks(&second, &world.observe()).networks;
    assert_eq!(kept.len(), 2);
    assert_eq!((kept[1].id.as_str(), &kept[1].uplink), ("office/inside", &Uplink::None));
}
