//! Captures of a real guest, and going back to them. Its guest counts on both of its disks and in its memory, and says
//! `!` on its console when they differ.

use super::*;
use controller_api::life::{
    CaptureState, CaptureStatus, CaptureStep, DesiredCapture, DiskName, LayerFormat, SavedMemory,
};

/// Its first disk's first bytes.
const COUNTING_GUEST: &[u8] = include_bytes!("../../../hypervisor/tests/counting_guest/counting_guest.bin");

fn image() -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    disk[..COUNTING_GUEST.len()].copy_from_slice(COUNTING_GUEST);
    disk
}

fn console(host: &Host, incarnation: Uuid) -> String {
    std::fs::read_to_string(host.at(&format!("state/instances/{incarnation}/console.log")))
        .unwrap_or_default()
}

/// All that it has counted, as its console says.
fn counts(host: &Host, incarnation: Uuid) -> Vec<u32> {
    let text = console(host, incarnation);
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole).to_owned();
    let lines = whole.lines().filter(|line| line.len() == 8);
    lines.filter_map(|line| u32::from_str_radix(line, 16).ok()).collect()
}

fn last(host: &Host, incarnation: Uuid) -> u32 {
    counts(host, incarnation).last().copied().unwrap_or(0)
}

async fn go_on(host: &Host, incarnation: Uuid, more: usize) {
    let wanted = counts(host, incarnation).len() + more;
    let end = Instant::now() + DEADLINE;
    while counts(host, incarnation).len() < wanted {
        assert!(Instant::now() < end, "it counts no more: {:?}", console(host, incarnation));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The files that its guest writes, as libvirt says.
fn open_files(host: &Host, incarnation: Uuid) -> Vec<String> {
    let list = host.virsh(&["domblklist", &incarnation.to_string()]);
    list.lines().filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned).collect()
}

/// The files that it should write, as the agent has kept.
fn kept_files(host: &Host, incarnation: Uuid) -> Vec<String> {
    let at =
        [format!("state/instances/{incarnation}/system.json"), "state/volumes/office/probe/home.json".into()];
    let files = at.iter().map(|record| {
        let path = host.at(record);
        let chain: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        path.with_file_name(chain["active"].as_str().unwrap()).display().to_string()
    });
    files.collect()
}

fn capture(incarnation: Uuid, checkpoint: Uuid, step: CaptureStep, with_memory: bool) -> DesiredCapture {
    DesiredCapture {
        checkpoint: checkpoint.to_string(),
        instance: "office/probe".parse().unwrap(),
        incarnation: incarnation.to_string(),
        with_memory,
        step,
        publish: step == CaptureStep::Keep,
    }
}

/// A document that grows with every word.
struct Desk {
    document: HostDesired,
}

impl Desk {
    async fn say(&mut self, session: &mut Session) {
        self.document.generation = self.document.generation.next();
        session.desire(self.document.clone()).await;
    }

    fn name(&mut self, capture: DesiredCapture) {
        self.document.captures.retain(|held| held.checkpoint != capture.checkpoint);
        self.document.captures.push(capture);
    }

    async fn until(
        &self,
        session: &mut Session,
        checkpoint: Uuid,
        what: &str,
        holds: impl Fn(&CaptureStatus) -> bool,
    ) -> CaptureStatus {
        let wanted = checkpoint.to_string();
        let find = |status: &HostStatus| {
            status.captures.iter().find(|capture| capture.checkpoint == wanted).cloned()
        };
        let status = session.until_status(what, |status| find(status).is_some_and(|c| holds(&c))).await;
        find(&status).unwrap()
    }
}

fn port_is_held(told: &Told) -> bool {
    told.networks.lock().unwrap().networks.iter().flat_map(|network| &network.ports).any(|port| port.held)
}

/// Everything that a test has.
struct Stage {
    host: Host,
    told: Arc<Told>,
    controller: Controller,
}

async fn stage() -> Stage {
    let host = Host::start_with(&image());
    let authority = Authority::new();
    let told = Arc::new(Told::default());
    let (controller, port) = authority.controller(0, &told).await;
    write_files(&host, &authority, port);
    let daemons = chassis::unix_http::bind(&host.at("daemons.sock"), 0o600).unwrap();
    tokio::spawn(chassis::unix_http::serve(daemons, local_daemons(&told), CancellationToken::new()));
    Stage { host, told, controller }
}

/// Holds, takes and keeps; tells the status of the last step.
async fn taken(
    desk: &mut Desk,
    session: &mut Session,
    told: &Told,
    incarnation: Uuid,
    with_memory: bool,
) -> (Uuid, CaptureStatus) {
    let checkpoint = Uuid::new_v4();
    desk.name(capture(incarnation, checkpoint, CaptureStep::Hold, with_memory));
    desk.say(session).await;
    desk.until(session, checkpoint, "held", |c| c.state == CaptureState::Held).await;
    assert!(port_is_held(told));
    desk.name(capture(incarnation, checkpoint, CaptureStep::Take, with_memory));
    desk.say(session).await;
    desk.until(session, checkpoint, "taken", |c| c.state == CaptureState::Taken).await;
    assert!(port_is_held(told), "others are not taken yet");
    desk.name(capture(incarnation, checkpoint, CaptureStep::Keep, with_memory));
    desk.say(session).await;
    let kept = desk.until(session, checkpoint, "published", |c| c.state == CaptureState::Published).await;
    session.until_status("its ports pass", |_| !port_is_held(told)).await;
    (checkpoint, kept)
}

/// The document's instance made anew from what was captured.
fn go_back(desk: &mut Desk, incarnation: Uuid, kept: &CaptureStatus, memory: bool) {
    let layers =
        |disk: &DiskName| kept.disks.iter().find(|captured| captured.disk == *disk).unwrap().layers.clone();
    let instance = &mut desk.document.instances[0];
    instance.incarnation = incarnation.to_string();
    instance.layers = layers(&DiskName::System);
    instance.memory_from = if memory { kept.memory.clone() } else { None };
    let volume = &mut desk.document.volumes[0];
    volume.incarnation = Uuid::new_v4().to_string();
    volume.layers = layers(&DiskName::Volume("home".parse().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_goes_back_to_where_it_was_captured_with_its_memory() {
    let Stage { host, told, mut controller } = stage().await;
    let _agent = Agent::start(&host);
    let mut session = controller.session().await;
    let first = Uuid::new_v4();
    let mut desk = Desk { document: desired(1, Some(first)) };
    desk.say(&mut session).await;
    session.until_instance("running", runs).await;
    go_on(&host, first, 50).await;
    session.until_instance("written to", |instance| instance.dirty_bytes > 0).await;

    let before = last(&host, first);
    let (checkpoint, kept) = taken(&mut desk, &mut session, &told, first, true).await;
    let after = last(&host, first) + 1;
    assert!(kept.pause_us > 0 && kept.taken_ms > 0 && kept.new_bytes > 0, "{kept:?}");
    let [system, home] = &kept.disks[..] else { panic!("{kept:?}") };
    assert_eq!((system.layers.len(), system.layers[0].format), (1, LayerFormat::Qcow2));
    assert_eq!((home.layers.len(), home.layers[0].format), (1, LayerFormat::Raw));
    let Some(SavedMemory { image: Some(memory), .. }) = kept.memory else { panic!("{kept:?}") };
    let mut images: Vec<Digest> = [system, home].iter().filter_map(|disk| disk.layers[0].image).collect();
    images.push(memory);
    let told_layers = told.layers.lock().unwrap().clone();
    assert!(images.iter().all(|image| told_layers.contains(&image.to_string())), "{told_layers:?}");
    println!("pause {} us, {} new bytes", kept.pause_us, kept.new_bytes);

    // The guest has gone on, and another capture stands on the first.
    go_on(&host, first, 50).await;
    assert_eq!(open_files(&host, first)[..2], kept_files(&host, first)[..]);
    let (second, more) = taken(&mut desk, &mut session, &told, first, false).await;
    assert_eq!(more.disks.iter().map(|disk| disk.layers.len()).collect::<Vec<_>>(), [2, 2]);
    assert!(more.memory.is_none() && more.new_bytes < kept.new_bytes, "{more:?}");
    assert_eq!(more.disks[0].layers[0], kept.disks[0].layers[0]);
    go_on(&host, first, 20).await;
    assert!(!console(&host, first).contains(['!', '?']), "{:?}", console(&host, first));

    // Back to the first, memory and all; twice, for what is kept stays.
    let mut here = first;
    for _ in 0..2 {
        let back = Uuid::new_v4();
        go_back(&mut desk, back, &kept, true);
        desk.say(&mut session).await;
        session.until_instance("running again", |i| runs(i) && i.incarnation == back.to_string()).await;
        go_on(&host, back, 30).await;
        let counted = counts(&host, back);
        assert!(before < counted[0] && counted[0] <= after + 1, "{before} {after} {:?}", &counted[..3]);
        assert!(!console(&host, back).contains(['!', '?']), "{:?}", console(&host, back));
        assert!(!host.at(&format!("state/instances/{here}")).exists());
        here = back;
    }
    // From the second run on it boots.
    host.virsh(&["destroy", &here.to_string()]);
    session.until_instance("started again", |instance| runs(instance) && instance.starts == 2).await;
    go_on(&host, here, 10).await;

    // What nobody names any more goes; what a disk stands on stays.
    desk.document.captures.retain(|held| held.checkpoint != second.to_string());
    desk.say(&mut session).await;
    let layers = host.at("state/layers");
    let folder = |checkpoint: Uuid| layers.join(checkpoint.to_string()).join("office/probe");
    session.until_status("the second gone", |_| !folder(second).exists()).await;
    desk.document.captures.clear();
    desk.say(&mut session).await;
    session.until_status("the memory gone", |_| !folder(checkpoint).join("memory.save").exists()).await;
    assert!(folder(checkpoint).join("volume.home.raw").exists());
    go_on(&host, here, 10).await;
    desk.document = HostDesired { generation: desk.document.generation, ..HostDesired::default() };
    desk.say(&mut session).await;
    let generation = desk.document.generation;
    session.until_status("all gone", |s| s.converged && s.generation == generation).await;
    assert_eq!(std::fs::read_dir(&layers).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(host.at("state/volumes")).unwrap().count(), 0);
    drop(session);
    controller.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_is_off_is_captured_without_memory_and_starts_from_it() {
    let Stage { host, told, mut controller } = stage().await;
    let _agent = Agent::start(&host);
    let mut session = controller.session().await;
    let first = Uuid::new_v4();
    let mut desk = Desk { document: desired(1, Some(first)) };
    desk.say(&mut session).await;
    session.until_instance("running", runs).await;
    go_on(&host, first, 50).await;

    desk.document.instances[0].power = Power::Off;
    desk.say(&mut session).await;
    let off = |instance: &InstanceStatus| {
        instance.state == InstanceState::Stopped && instance.reason.as_deref() == Some("off as asked")
    };
    session.until_instance("off", off).await;
    session.until_status("converged", |status| status.converged).await;
    assert_eq!(host.virsh(&["domstate", &first.to_string()]).trim(), "shut off");
    let counted = last(&host, first);

    let wrong = Uuid::new_v4();
    desk.name(capture(first, wrong, CaptureStep::Hold, true));
    desk.say(&mut session).await;
    desk.until(&mut session, wrong, "held", |c| c.state == CaptureState::Held).await;
    desk.name(capture(first, wrong, CaptureStep::Take, true));
    desk.say(&mut session).await;
    let failed = desk.until(&mut session, wrong, "failed", |c| c.state == CaptureState::Failed).await;
    assert!(failed.reason.unwrap().contains("no memory to save"));
    desk.document.captures.clear();
    let (_, kept) = taken(&mut desk, &mut session, &told, first, false).await;
    assert_eq!((kept.pause_us, kept.memory.is_none()), (0, true));

    // It goes on from where it was, and can be gone back to.
    desk.document.instances[0].power = Power::On;
    desk.say(&mut session).await;
    session.until_instance("on", runs).await;
    go_on(&host, first, 50).await;
    assert!(last(&host, first) > counted);
    let back = Uuid::new_v4();
    go_back(&mut desk, back, &kept, false);
    desk.say(&mut session).await;
    session.until_instance("back", |i| runs(i) && i.incarnation == back.to_string()).await;
    go_on(&host, back, 10).await;
    let from = counts(&host, back)[0];
    assert!(counted <= from && from <= counted + 2, "{counted} {from}");
    drop(session);
    controller.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_while_it_captures_knows_afterwards_what_its_guest_writes() {
    let Stage { host, mut controller, .. } = stage().await;
    let mut agent = Agent::start(&host);
    let mut session = controller.session().await;
    let first = Uuid::new_v4();
    let mut desk = Desk { document: desired(1, Some(first)) };
    desk.say(&mut session).await;
    session.until_instance("running", runs).await;
    go_on(&host, first, 50).await;
    let mut outcomes = Vec::new();
    for round in 0..4 {
        let checkpoint = Uuid::new_v4();
        desk.name(capture(first, checkpoint, CaptureStep::Hold, true));
        desk.say(&mut session).await;
        desk.until(&mut session, checkpoint, "held", |c| c.state == CaptureState::Held).await;
        desk.name(capture(first, checkpoint, CaptureStep::Take, true));
        desk.say(&mut session).await;
        // Killed at four moments: when the intent, the memory's file, and each disk's link are there.
        let folder = host.at(&format!("state/layers/{checkpoint}/office/probe"));
        let moment = folder.join(["capture.json", "memory.save", "system.qcow2", "volume.home.raw"][round]);
        let end = Instant::now() + DEADLINE;
        let there = || moment.exists() || (round > 1 && later_layer(&folder));
        while !there() {
            assert!(Instant::now() < end, "{} never was", moment.display());
            std::hint::spin_loop();
        }
        agent.kill();
        drop(session);
        agent = Agent::start(&host);
        session = controller.session().await;
        // As a controller does: the agent may have been killed before it kept this.
        session.desire(desk.document.clone()).await;
        session.until_instance("running still", |i| runs(i) && i.starts == 1).await;
        let over = |c: &CaptureStatus| matches!(c.state, CaptureState::Taken | CaptureState::Failed);
        let settled = desk.until(&mut session, checkpoint, "settled", over).await;
        assert_eq!(open_files(&host, first)[..2], kept_files(&host, first)[..], "{settled:?}");
        go_on(&host, first, 20).await;
        outcomes.push(settled.state);
        if settled.state == CaptureState::Taken {
            assert!(settled.memory.is_some());
            desk.name(capture(first, checkpoint, CaptureStep::Keep, true));
        } else {
            desk.document.captures.retain(|held| held.checkpoint != checkpoint.to_string());
        }
        desk.say(&mut session).await;
        session.until_status("settled down", |status| status.converged).await;
    }
    println!("{outcomes:?}");
    assert!(!console(&host, first).contains(['!', '?']), "{:?}", console(&host, first));

    // Its chains are sound: it boots from them.
    host.virsh(&["destroy", &first.to_string()]);
    let counted = last(&host, first);
    session.until_instance("started again", |instance| runs(instance) && instance.starts == 2).await;
    go_on(&host, first, 10).await;
    assert!(last(&host, first) > counted);
    drop(session);
    controller.end().await;
}

/// A layer of either format is there.
fn later_layer(folder: &std::path::Path) -> bool {
    ["system.qcow2", "volume.home.raw", "volume.home.qcow2"].iter().any(|name| folder.join(name).exists())
}
