//! Captures, restored disks and power in the plan's world: whatever is asked in whatever order, and wherever the agent is
//! killed, each guest writes one file, no layer that is needed is lost, and nothing is left behind.

use super::*;
use crate::chain::{FileImage, Freeze, active_after};
use controller_api::life::{CaptureState, CaptureStep, CapturedDisk, DesiredCapture, SavedMemory};

fn checkpoint(number: u8) -> Uuid {
    Uuid::from_bytes([0xcc, number, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 2])
}

fn capture_of(instance: &DesiredInstance, number: u8, step: CaptureStep) -> DesiredCapture {
    DesiredCapture {
        checkpoint: checkpoint(number).to_string(),
        instance: instance.id.clone(),
        incarnation: instance.incarnation.clone(),
        with_memory: false,
        step,
        publish: true,
    }
}

fn id(member: u8, number: u8) -> CaptureId {
    CaptureId { checkpoint: checkpoint(number), instance: instance(member, 0).id }
}

fn named_layers(desired: &HostDesired) -> impl Iterator<Item = FileId> {
    let instances = desired.instances.iter().flat_map(|instance| &instance.layers);
    let volumes = desired.volumes.iter().flat_map(|volume| &volume.layers);
    instances.chain(volumes).map(|layer| FileId::Layer(LayerId::of(layer).unwrap()))
}

impl World {
    pub(super) fn make_volume(&mut self, volume: &DesiredVolume) {
        let key = (volume.instance.clone(), volume.name.clone());
        let disk = DiskId::Volume(volume.instance.clone(), volume.name.clone());
        let anew = self.chains.get(&disk).is_none_or(|chain| chain.incarnation != volume.incarnation);
        if anew {
            let used = self.domains.values().any(|d| d.instance == volume.instance && is_alive(d.state));
            assert!(!used || !self.volumes.contains_key(&key), "a volume was remade under its guest");
            let mut chain = bare(&format!("home.{}", volume.incarnation), volume.incarnation.clone());
            chain.layers = volume.layers.clone();
            self.chains.insert(disk, chain);
        }
        self.volumes.insert(key, (volume.size.0, volume.incarnation.clone()));
    }

    fn freezes(&self, id: &CaptureId, incarnation: Uuid) -> Vec<Freeze> {
        let names = [DiskName::System, DiskName::Volume("home".parse().unwrap())];
        let freeze = |disk: DiskName| {
            let chain = self.chains.get(&DiskId::of(&disk, &id.instance, incarnation))?.clone();
            Some(Freeze { to: active_after(&disk, id.checkpoint), disk, chain })
        };
        names.into_iter().filter_map(freeze).collect()
    }

    /// A capture that the agent did not survive: libvirt has done it, or not.
    pub(super) fn begin_and_die(&mut self, step: &Step) {
        let Step::TakeCapture { id, instance, running, .. } = step else { return };
        let incarnation: Uuid = instance.incarnation.parse().unwrap();
        let freezes = self.freezes(id, incarnation);
        if freezes.len() < 2 {
            return;
        }
        if self.now_ms.is_multiple_of(1_000) && *running {
            let open = self.open.get_mut(&incarnation).unwrap();
            freezes.iter().for_each(|one| drop(open.insert(one.disk.clone(), one.to.clone())));
        }
        let stage = Stage::Intended { freezes, running: *running };
        self.captures.insert(id.clone(), Capture::new(incarnation, false, stage));
    }

    pub(super) fn apply_capture(&mut self, step: Step) {
        match step {
            Step::NoteHeld(id, incarnation) => {
                self.captures.insert(id, Capture::new(incarnation, false, Stage::Held));
            }
            Step::TakeCapture { id, instance, running, .. } => {
                let incarnation: Uuid = instance.incarnation.parse().unwrap();
                let held = |tap: &str| {
                    self.networks.networks.iter().flat_map(|n| &n.ports).any(|p| p.tap == tap && p.held)
                };
                assert!(held(&instance.ports[0].tap), "captured while its ports pass");
                let freezes = self.freezes(&id, incarnation);
                if freezes.len() < 2 {
                    return self.fail(&id);
                }
                if running {
                    let open = self.open.get_mut(&incarnation).unwrap();
                    freezes.iter().for_each(|one| drop(open.insert(one.disk.clone(), one.to.clone())));
                }
                self.finish(&id, incarnation, &freezes);
            }
            Step::SettleCapture(id) => {
                let capture = self.captures[&id].clone();
                let Stage::Intended { freezes, running } = capture.stage else { panic!("nothing to settle") };
                let alive = self.open.get(&capture.incarnation);
                let moved = match alive {
                    Some(open) => open[&freezes[0].disk] == freezes[0].to,
                    None => !running,
                };
                if moved { self.finish(&id, capture.incarnation, &freezes) } else { self.fail(&id) }
            }
            Step::FailCapture(id, _) => self.fail(&id),
            Step::PublishCapture(id) => {
                for layer in self.captures[&id].disks.iter().flat_map(|disk| &disk.layers) {
                    let image = FileImage { draft: None, digest: Some(image(200)) };
                    self.images_made.insert(FileId::Layer(LayerId::of(layer).unwrap()), image);
                }
            }
            Step::DropCapture(id) => drop(self.captures.remove(&id)),
            Step::DropFile(file, _) => {
                let FileId::Layer(layer) = &file else { panic!("no memory was saved") };
                let mut layers = self.chains.values().flat_map(|chain| &chain.layers);
                assert!(!layers.any(|l| LayerId::of(l).as_ref() == Some(layer)), "a disk stands on {layer}");
                let mut kept = self.captures.iter().flat_map(|(id, capture)| capture.keeps(id));
                assert!(!kept.any(|kept| kept == *layer), "a capture keeps {layer}");
                assert!(self.files.remove(&file));
                self.images_made.remove(&file);
            }
            step => panic!("{step:?}"),
        }
    }

    fn fail(&mut self, id: &CaptureId) {
        let stage = Stage::Failed { reason: "it was killed".to_owned() };
        self.captures.insert(id.clone(), Capture::new(Uuid::nil(), false, stage));
    }

    fn finish(&mut self, id: &CaptureId, incarnation: Uuid, freezes: &[Freeze]) {
        let mut capture = Capture::new(incarnation, false, Stage::Taken);
        for one in freezes {
            let layer = Layer {
                checkpoint: id.checkpoint.to_string(),
                instance: id.instance.clone(),
                disk: one.disk.clone(),
                format: one.chain.format,
                file_bytes: 1 << 16,
                disk_bytes: 1 << 20,
                image: None,
            };
            self.files.insert(FileId::Layer(LayerId::of(&layer).unwrap()));
            let chain = one.chain.frozen(layer, one.to.clone());
            capture.disks.push(CapturedDisk { disk: one.disk.clone(), layers: chain.layers.clone() });
            self.chains.insert(DiskId::of(&one.disk, &id.instance, incarnation), chain);
        }
        self.captures.insert(id.clone(), capture);
    }

    fn check(&self, desired: &HostDesired) {
        for (incarnation, open) in &self.open {
            let owner = &self.domains[incarnation].instance;
            for (name, file) in open {
                let chain = &self.chains[&DiskId::of(name, owner, *incarnation)];
                assert_eq!(&chain.active, file, "a guest writes another file than its chain says");
            }
        }
        let layers = self.chains.values().flat_map(|chain| &chain.layers);
        let mut needed: BTreeSet<FileId> =
            layers.map(|layer| FileId::Layer(LayerId::of(layer).unwrap())).collect();
        needed.extend(self.captures.iter().flat_map(|(id, c)| c.keeps(id)).map(FileId::Layer));
        needed.extend(named_layers(desired));
        assert_eq!(self.files, needed, "what is needed is here, and nothing else");
        let named: BTreeSet<CaptureId> =
            desired.captures.iter().filter_map(super::super::captures::id_of).collect();
        assert_eq!(self.captures.keys().cloned().collect::<BTreeSet<_>>(), named);
        let held = self.networks.networks.iter().flat_map(|n| &n.ports).any(|port| port.held);
        assert!(!held, "ports pass again");
    }
}

#[derive(Debug, Clone)]
enum Ask {
    Members(BTreeMap<u8, u8>),
    Capture(u8),
    Drop(u8),
    Die(u8),
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        proptest::collection::btree_map(0_u8..3, 0_u8..2, 0..3).prop_map(Ask::Members),
        (0_u8..4).prop_map(Ask::Capture),
        (0_u8..4).prop_map(Ask::Drop),
        (0_u8..3).prop_map(Ask::Die),
    ]
}

proptest! {
    #[test]
    fn captures_in_any_order_lose_and_leave_nothing_though_the_agent_is_killed_on_the_way(
        asks in proptest::collection::vec((ask(), 0_usize..6), 1..8),
    ) {
        let mut world = World::default();
        let mut desired = document(1, &[(0, 0), (1, 0)].into());
        world.converge(&desired, usize::MAX);
        for (ask, killed_after) in asks {
            match ask {
                Ask::Members(members) => {
                    let captures = std::mem::take(&mut desired.captures);
                    desired = HostDesired { captures, ..document(1, &members) };
                }
                Ask::Capture(number) => {
                    let known = |c: &DesiredCapture| c.checkpoint == checkpoint(number).to_string();
                    if desired.captures.iter().any(known) {
                        continue;
                    }
                    for step in [CaptureStep::Hold, CaptureStep::Take, CaptureStep::Keep] {
                        desired.captures.retain(|c| !known(c));
                        let new = desired.instances.iter().map(|i| capture_of(i, number, step));
                        let new: Vec<_> = new.collect();
                        desired.captures.extend(new);
                        world.converge(&desired, killed_after);
                    }
                }
                Ask::Drop(number) => {
                    desired.captures.retain(|c| c.checkpoint != checkpoint(number).to_string());
                }
                Ask::Die(member) => {
                    let domains = world.domains.iter_mut();
                    for (uuid, domain) in domains.filter(|(_, d)| d.instance == instance(member, 0).id) {
                        domain.state = DomainState::Stopped { reason: "crashed" };
                        world.open.remove(uuid);
                    }
                }
            }
            world.converge(&desired, killed_after);
            world.check(&desired);
        }
        desired = some(&[]);
        world.converge(&desired, usize::MAX);
        world.check(&desired);
        prop_assert!(world.files.is_empty() && world.captures.is_empty() && world.chains.is_empty());
    }
}

fn with(desired: &HostDesired, captures: Vec<DesiredCapture>) -> HostDesired {
    HostDesired { captures, ..desired.clone() }
}

fn state(desired: &HostDesired, observed: &Observed) -> CaptureState {
    crate::status::captures(desired, observed, &BTreeMap::new())[0].state
}

#[test]
fn ports_are_held_from_before_a_capture_until_it_is_only_kept() {
    let desired = some(&[(2, 0)]);
    let mut world = running(&desired);
    let at = |step| with(&desired, vec![capture_of(&desired.instances[0], 1, step)]);
    let hold = at(CaptureStep::Hold);
    assert_eq!(state(&hold, &world.observe()), CaptureState::Waiting);
    assert!(!plan(&hold, &world.observe()).steps.iter().any(|s| matches!(s, Step::TakeCapture { .. })));
    world.converge(&hold, usize::MAX);
    assert_eq!(state(&hold, &world.observe()), CaptureState::Held);
    let take = at(CaptureStep::Take);
    assert!(matches!(
        plan(&take, &world.observe()).steps[..],
        [Step::TakeCapture { running: true, with_memory: false, .. }]
    ));
    world.converge(&take, usize::MAX);
    assert_eq!(state(&take, &world.observe()), CaptureState::Taken);
    assert!(world.networks.networks[0].ports[0].held);
    let keep = at(CaptureStep::Keep);
    world.converge(&keep, usize::MAX);
    assert_eq!(state(&keep, &world.observe()), CaptureState::Published);
    assert!(!world.networks.networks[0].ports[0].held);
}

#[test]
fn a_controller_that_goes_silent_leaves_no_guest_without_a_network() {
    let desired = some(&[(2, 0)]);
    let mut world = running(&desired);
    for (step, limit_ms) in [
        (CaptureStep::Hold, super::super::captures::HOLD_MS_MAX),
        (CaptureStep::Take, super::super::captures::TAKE_MS_MAX),
    ] {
        let hold = with(&desired, vec![capture_of(&desired.instances[0], 1, CaptureStep::Hold)]);
        world.converge(&hold, usize::MAX);
        let held = with(&desired, vec![capture_of(&desired.instances[0], 1, step)]);
        world.converge(&held, usize::MAX);
        let mut observed = world.observe();
        observed.held_ms.insert((id(2, 1), step), limit_ms);
        assert!(wanted_networks(&held, &observed).networks[0].ports[0].held);
        observed.held_ms.insert((id(2, 1), step), limit_ms + 1);
        assert!(!wanted_networks(&held, &observed).networks[0].ports[0].held);
        let steps = plan(&held, &observed).steps;
        assert!(steps.iter().any(|step| matches!(step, Step::FailCapture(..))), "{steps:?}");
        world.captures.clear();
    }
}

#[test]
fn a_capture_that_cannot_be_is_failed_for_good() {
    let desired = some(&[(2, 0)]);
    let world = running(&desired);
    let fails = |capture: DesiredCapture| {
        let steps = plan(&with(&desired, vec![capture]), &world.observe()).steps;
        matches!(steps[..], [Step::FailCapture(..)])
    };
    let present = &desired.instances[0];
    assert!(fails(capture_of(present, 1, CaptureStep::Keep)), "it was never taken");
    assert!(fails(capture_of(present, 1, CaptureStep::Take)), "its ports passed until now");
    let older = DesiredInstance { incarnation: incarnation(2, 1).to_string(), ..present.clone() };
    assert!(fails(capture_of(&older, 1, CaptureStep::Take)), "its incarnation is gone");
    let mut odd = capture_of(present, 1, CaptureStep::Take);
    odd.checkpoint = "../x".to_owned();
    let odd = with(&desired, vec![odd]);
    assert_eq!(plan(&odd, &world.observe()).steps, []);
    assert_eq!(state(&odd, &world.observe()), CaptureState::Failed);
}

#[test]
fn a_silent_libvirt_settles_takes_and_drops_no_layer() {
    let desired = some(&[(2, 0)]);
    let mut world = running(&desired);
    let take = with(&desired, vec![capture_of(&desired.instances[0], 1, CaptureStep::Take)]);
    let hold = with(&desired, vec![capture_of(&desired.instances[0], 1, CaptureStep::Hold)]);
    world.converge(&hold, usize::MAX);
    let silent = Observed { domains: None, ..world.observe() };
    assert_eq!(plan(&take, &silent).steps, []);
    let step = plan(&take, &world.observe()).steps.remove(0);
    world.begin_and_die(&step);
    let silent = Observed { domains: None, ..world.observe() };
    assert_eq!(
        plan(&desired, &silent).steps.iter().filter(|s| !matches!(s, Step::PutNetworks(_))).count(),
        0
    );
}

#[test]
fn an_instance_that_is_off_is_stopped_not_started_and_counts_as_it_should_be() {
    let mut desired = some(&[(2, 0)]);
    let mut world = running(&desired);
    desired.instances[0].power = Power::Off;
    assert!(matches!(plan(&desired, &world.observe()).steps[..], [Step::SwitchOff(..)]));
    world.converge(&desired, usize::MAX);
    let observed = world.observe();
    let empty = plan(&desired, &observed);
    assert_eq!(empty, Plan::default());
    let statuses = crate::status::instances(&desired, &observed, &empty);
    assert_eq!(statuses[0].reason.as_deref(), Some("off as asked"));
    assert!(crate::status::converged(&desired, &observed, &empty, &statuses));
    desired.instances[0].power = Power::On;
    assert!(matches!(plan(&desired, &observed).steps[..], [Step::Start(..)]));
}

fn layer(member: u8, number: u8, disk: DiskName, image: Option<Digest>) -> Layer {
    Layer {
        checkpoint: checkpoint(number).to_string(),
        instance: instance(member, 0).id,
        disk,
        format: LayerFormat::Qcow2,
        file_bytes: 1 << 16,
        disk_bytes: 1 << 20,
        image,
    }
}

#[test]
fn a_restored_instance_waits_for_its_layers_and_its_memory_and_says_so() {
    let mut desired = some(&[(2, 0)]);
    desired.instances[0].layers = vec![layer(2, 1, DiskName::System, None)];
    let mut world = World::default();
    world.exported.insert(image(2));
    world.named.insert(image(2), Naming::default());
    world.apply(Step::MakeVolume(Box::new(desired.volumes[0].clone())));
    let why =
        |desired: &HostDesired, world: &World| plan(desired, &world.observe()).waits.into_values().next();
    assert!(why(&desired, &world).unwrap().contains("neither on this host nor an image"));
    desired.instances[0].layers[0].image = Some(image(50));
    assert_eq!(why(&desired, &world).unwrap(), "image 323232323232 of a layer is not exported yet");
    // Here it needs no image.
    world.files.insert(FileId::Layer(LayerId::of(&desired.instances[0].layers[0]).unwrap()));
    desired.instances[0].memory_from = Some(SavedMemory {
        checkpoint: checkpoint(1).to_string(),
        instance: instance(2, 0).id,
        file_bytes: 8 << 20,
        image: Some(image(60)),
    });
    assert_eq!(why(&desired, &world).unwrap(), "its memory is being fetched: 0 of 8 MiB");
    let names = |world: &World| plan(&desired, &world.observe()).steps;
    assert!(names(&world).contains(&Step::NameImage(image(60), Naming::default())));
    world.exported.insert(image(60));
    assert!(
        names(&world)
            .iter()
            .any(|step| matches!(step, Step::FetchMemory(_, _, digest, _) if *digest == image(60)))
    );
    // Nor does memory.
    world.files.insert(FileId::Memory(id(2, 1)));
    assert!(!names(&world).iter().any(|step| matches!(step, Step::FetchMemory(..) | Step::DropFile(..))));
}

#[test]
fn a_volume_is_another_disk_only_once_nobody_uses_it() {
    let mut desired = some(&[(2, 0)]);
    let world = running(&desired);
    desired.volumes[0].incarnation = checkpoint(9).to_string();
    assert_eq!(plan(&desired, &world.observe()).steps, [], "its guest runs");
    let mut stopped = world.clone();
    for domain in stopped.domains.values_mut() {
        domain.state = DomainState::Stopped { reason: "destroyed" };
    }
    let steps = plan(&desired, &stopped.observe()).steps;
    assert!(steps.iter().any(|step| matches!(step, Step::MakeVolume(_))), "{steps:?}");
    assert!(!steps.iter().any(|step| matches!(step, Step::Start(..))), "{steps:?}");
}
