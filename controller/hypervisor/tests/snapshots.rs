#![expect(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]
//! Claims about what is frozen of a guest that runs, and about guests that go on from it, on a real, private libvirtd.

mod counting_guest;
#[allow(dead_code, reason = "some of it is for the tests beside it")]
mod private_libvirtd;

use controller_hypervisor::{
    Chain, Commit, CommitProgress, DiskFile, DomainState, Export, Format, Hypervisor, HypervisorError,
    Machine, NewFile, Snapshot, Stop, Under,
};
use counting_guest::{DEADLINE, count_in, counts, file, go_on, image, last, machine};
use private_libvirtd::Host;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant, SystemTime};
use uuid::Uuid;

const NONE: Vec<Under> = Vec::new();

/// Both disks of a machine get new active files of that name.
fn both(host: &Host, name: &str, memory: bool) -> Snapshot {
    let disk =
        |target: &str| NewFile { target: target.to_owned(), active: host.at(&format!("{name}.{target}")) };
    Snapshot {
        name: name.to_owned(),
        disks: vec![disk(Machine::SYSTEM_TARGET), disk(&Machine::volume_target(0))],
        memory: memory.then(|| host.at(&format!("{name}.memory"))),
    }
}

async fn started(host: &Host, hypervisor: &Hypervisor) -> Machine {
    let guest = machine(host, "guest", vec![image(host)], NONE);
    hypervisor.start(&guest).await.unwrap();
    go_on(&guest, 50).await;
    guest
}

async fn gone(hypervisor: &Hypervisor, uuid: Uuid) {
    hypervisor.stop(uuid, Stop::PowerOff).await.unwrap();
    hypervisor.undefine(uuid).await.unwrap();
}

fn bytes_of(disks: &[&DiskFile]) -> Vec<Vec<u8>> {
    disks.iter().map(|disk| std::fs::read(&disk.path).unwrap()).collect()
}

/// A machine over what was frozen of another: its files, and the image.
fn upon(host: &Host, member: &str, frozen: &Machine) -> Machine {
    let under = |chain: &Chain| {
        let mut under = chain.under.clone();
        under.insert(0, Under::File(chain.active.clone()));
        under
    };
    machine(host, member, under(&frozen.system), under(&frozen.volumes[0].chain))
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_go_on_from_the_instant_that_memory_and_disks_were_frozen_at() {
    let (host, hypervisor) = counting_guest::host().await;
    let guest = started(&host, &hypervisor).await;
    let uuid = guest.mark.incarnation;

    let (before, began) = (last(&guest), SystemTime::now());
    let snapshot = both(&host, "first", true);
    let taken = hypervisor.snapshot(uuid, &snapshot).await.unwrap();
    let (after, ended) = (last(&guest) + 1, SystemTime::now());
    assert!(Duration::ZERO < taken.pause && taken.pause < ended.duration_since(began).unwrap(), "{taken:?}");
    assert!(began <= taken.at && taken.at + taken.pause <= ended, "{taken:?}");
    let files = hypervisor.active_files(uuid).await.unwrap().unwrap();
    assert_eq!(files["vda"], snapshot.disks[0].active);
    assert_eq!(files["vdb"], snapshot.disks[1].active);
    assert_eq!(files["vdc"], guest.config_disk);
    assert_eq!(host.virsh(&["snapshot-list", &uuid.to_string(), "--name"]).trim(), "");

    go_on(&guest, 100).await;
    let (system, home) = (&guest.system.active, &guest.volumes[0].chain.active);
    let frozen = bytes_of(&[system, home]);
    let [a, b] = [system, home].map(count_in);
    assert!(b <= a && a <= b + 1, "the disks were frozen at two instants: {a} {b}");
    go_on(&guest, 100).await;
    gone(&hypervisor, uuid).await;

    // Other members, with UUIDs of their own, go on from the same memory; what comes after its end is not read.
    let memory = snapshot.memory.as_ref().unwrap();
    let mut firsts = Vec::new();
    for member in ["one", "two"] {
        let other = upon(&host, member, &guest);
        hypervisor.start_from(&other, memory).await.unwrap();
        hypervisor.start_from(&other, memory).await.unwrap();
        go_on(&other, 100).await;
        firsts.push(counts(&other)[0]);
        assert_eq!(hypervisor.list().await.unwrap()[0].mark, other.mark);
        hypervisor.stop(other.mark.incarnation, Stop::PowerOff).await.unwrap();
        let state = hypervisor.list().await.unwrap()[0].state;
        assert_eq!(state, DomainState::Stopped { reason: "destroyed" }, "it is defined for good");
        // Its disks boot as any: what it counted since is there.
        let counted = last(&other);
        let lines = counts(&other).len();
        hypervisor.start(&other).await.unwrap();
        go_on(&other, 10).await;
        assert!(counts(&other)[lines] >= counted, "{counted} {:?}", &counts(&other)[lines..]);
        gone(&hypervisor, other.mark.incarnation).await;
        assert!(!other.system.active.path.with_extension("system.memory").exists());
        let len = std::fs::metadata(memory).unwrap().len();
        let padded = std::fs::File::options().write(true).open(memory).unwrap();
        padded.set_len(len.next_multiple_of(512) + 512).unwrap();
    }
    assert_eq!(firsts[0], firsts[1]);
    assert!(before < firsts[0] && firsts[0] <= after + 1, "{before} {} {after}", firsts[0]);
    assert!(frozen == bytes_of(&[system, home]), "what was frozen has changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_are_frozen_at_one_instant_while_the_guest_runs_on() {
    let (host, hypervisor) = counting_guest::host().await;
    let guest = started(&host, &hypervisor).await;
    let uuid = guest.mark.incarnation;
    let written = hypervisor.block_stats(uuid).await.unwrap();

    let before = last(&guest);
    let snapshot = both(&host, "first", false);
    let taken = hypervisor.snapshot(uuid, &snapshot).await.unwrap();
    let after = last(&guest) + 1;
    assert_eq!(taken.pause, Duration::ZERO);
    let (system, home) = (&guest.system.active, &guest.volumes[0].chain.active);
    let [a, b] = [system, home].map(count_in);
    assert!(b <= a && a <= b + 1, "{a} {b}");
    assert!(before <= a && b <= after, "{before} {a} {b} {after}");

    let frozen = bytes_of(&[system, home]);
    go_on(&guest, 200).await;
    assert!(frozen == bytes_of(&[system, home]), "what was frozen has changed");
    let more = hypervisor.block_stats(uuid).await.unwrap();
    for target in ["vda", "vdb"] {
        let grown = more[target] - written[target];
        // A sector each time that it counts.
        assert!(grown >= 200 * 512, "{target} {grown}");
    }
    assert_eq!(more["vdc"], 0);

    // A file that is there already is nobody's to overwrite: nothing happens.
    let refused = hypervisor.snapshot(uuid, &snapshot).await.unwrap_err();
    assert!(matches!(refused, HypervisorError::File { .. }), "{refused:?}");
    let half = Snapshot {
        disks: vec![
            NewFile { target: "vda".to_owned(), active: host.at("second.vda") },
            NewFile { target: "vdb".to_owned(), active: host.at("absent/second.vdb") },
        ],
        ..both(&host, "second", false)
    };
    hypervisor.snapshot(uuid, &half).await.unwrap_err();
    assert!(!host.at("second.vda").exists(), "half of it happened");
    // What libvirt refuses leaves no file either: it has each disk once.
    let again = NewFile { target: "vda".to_owned(), active: host.at("third.vda") };
    let twice = Snapshot { disks: vec![half.disks[0].clone(), again], ..half };
    let refused = hypervisor.snapshot(uuid, &twice).await.unwrap_err();
    assert!(matches!(refused, HypervisorError::Refused { .. }), "{refused:?}");
    assert!(!host.at("second.vda").exists() && !host.at("third.vda").exists());
    let files = hypervisor.active_files(uuid).await.unwrap().unwrap();
    assert_eq!([&files["vda"], &files["vdb"]], [&snapshot.disks[0].active, &snapshot.disks[1].active]);
    go_on(&guest, 20).await;
    gone(&hypervisor, uuid).await;
    assert_eq!(hypervisor.active_files(uuid).await.unwrap(), None);
}

/// A server of a file's bytes as they are.
struct Server(Child);

impl Server {
    async fn of(file: &Path, socket: &Path) -> Self {
        let child = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "qemu-nbd",
                "--read-only",
                "--persistent",
                "--shared=8",
                "-f",
                "raw",
            ])
            .args(["-x", "layer", "-k"])
            .args([socket, file])
            .spawn()
            .unwrap();
        let server = Self(child);
        let deadline = Instant::now() + DEADLINE;
        while !socket.exists() {
            assert!(Instant::now() < deadline, "no server");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_boots_from_layers_in_files_and_behind_exports() {
    let (host, hypervisor) = counting_guest::host().await;
    let guest = started(&host, &hypervisor).await;
    let uuid = guest.mark.incarnation;
    let mut layers: Vec<DiskFile> = vec![guest.system.active.clone()];
    for name in ["first", "second"] {
        let snapshot = both(&host, name, false);
        hypervisor.snapshot(uuid, &snapshot).await.unwrap();
        layers.push(DiskFile { path: snapshot.disks[0].active.clone(), format: Format::Qcow2 });
        go_on(&guest, 50).await;
    }
    gone(&hypervisor, uuid).await;
    let [oldest, middle] = [&layers[0], &layers[1]].map(count_in);
    assert!(oldest < middle && middle < last(&guest), "{oldest} {middle}");

    // The middle layer comes from a server as the bytes of its qcow2 file; the oldest is a file; both over the image.
    let _server = Server::of(&layers[1].path, &host.at("layer.sock")).await;
    let export = Export { name: "layer".to_owned(), socket: host.at("layer.sock") };
    let served = Under::Export { export, format: Format::Qcow2 };
    let of_oldest = file(layers[0].path.clone(), Format::Qcow2);
    let chains = [
        ("all", vec![served, of_oldest.clone(), image(&host)], middle),
        ("some", vec![of_oldest, image(&host)], oldest),
    ];
    for (member, under, held) in chains {
        let other = machine(&host, member, under, NONE);
        hypervisor.start(&other).await.unwrap();
        go_on(&other, 20).await;
        assert_eq!(counts(&other)[0], held + 1, "{member}");
        // Chains grow from there as they do elsewhere.
        hypervisor.snapshot(other.mark.incarnation, &both(&host, member, false)).await.unwrap();
        go_on(&other, 20).await;
        gone(&hypervisor, other.mark.incarnation).await;
    }
}

async fn committed(hypervisor: &Hypervisor, uuid: Uuid, commit: &Commit) -> CommitProgress {
    hypervisor.commit(uuid, commit).await.unwrap();
    let deadline = Instant::now() + DEADLINE;
    loop {
        match hypervisor.commit_progress(uuid, &commit.target).await.unwrap() {
            CommitProgress::Working { .. } => {
                assert!(Instant::now() < deadline, "{commit:?} is not done");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            ended => return ended,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_gets_shorter_while_its_guest_counts() {
    let (host, hypervisor) = counting_guest::host().await;
    let guest = started(&host, &hypervisor).await;
    let uuid = guest.mark.incarnation;
    let mut layers: Vec<PathBuf> = vec![guest.system.active.path.clone()];
    for name in ["first", "second", "third"] {
        let snapshot = both(&host, name, false);
        hypervisor.snapshot(uuid, &snapshot).await.unwrap();
        layers.push(snapshot.disks[0].active.clone());
        go_on(&guest, 20).await;
    }
    let active = || async { hypervisor.active_files(uuid).await.unwrap().unwrap()["vda"].clone() };

    // Two frozen layers become one; the active file stays.
    let commit = Commit { target: "vda".to_owned(), top: layers[2].clone(), base: layers[1].clone() };
    assert_eq!(committed(&hypervisor, uuid, &commit).await, CommitProgress::None);
    assert_eq!(active().await, layers[3]);
    go_on(&guest, 20).await;

    // The active file goes into the layer beneath it, which is given up at first.
    let commit = Commit { target: "vda".to_owned(), top: layers[3].clone(), base: layers[1].clone() };
    assert_eq!(committed(&hypervisor, uuid, &commit).await, CommitProgress::Ready);
    hypervisor.abort_commit(uuid, "vda").await.unwrap();
    assert_eq!(active().await, layers[3]);
    assert_eq!(committed(&hypervisor, uuid, &commit).await, CommitProgress::Ready);
    go_on(&guest, 20).await;
    hypervisor.pivot(uuid, "vda").await.unwrap();
    assert_eq!(active().await, layers[1]);
    go_on(&guest, 50).await;
    hypervisor.stop(uuid, Stop::PowerOff).await.unwrap();

    // What is left is a whole disk.
    let counted = last(&guest);
    let under = vec![file(layers[0].clone(), Format::Qcow2), image(&host)];
    let chain = Chain { active: DiskFile { path: layers[1].clone(), format: Format::Qcow2 }, under };
    let other = Machine { system: chain, ..machine(&host, "other", vec![image(&host)], NONE) };
    hypervisor.start(&other).await.unwrap();
    go_on(&other, 5).await;
    assert!(counts(&other)[0] > counted, "{counted} {:?}", counts(&other)[0]);
    gone(&hypervisor, uuid).await;
    gone(&hypervisor, other.mark.incarnation).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn saved_memory_starts_nothing_that_it_is_not_of() {
    let (host, hypervisor) = counting_guest::host().await;
    let guest = started(&host, &hypervisor).await;
    let uuid = guest.mark.incarnation;
    let snapshot = both(&host, "first", true);
    hypervisor.snapshot(uuid, &snapshot).await.unwrap();
    gone(&hypervisor, uuid).await;
    let memory = snapshot.memory.as_ref().unwrap();

    // Other hardware: libvirt says what differs.
    let larger = Machine { memory_bytes: 128 << 20, ..upon(&host, "larger", &guest) };
    let refused = hypervisor.start_from(&larger, memory).await.unwrap_err();
    let HypervisorError::Refused { source, .. } = &refused else { panic!("{refused:?}") };
    assert!(source.to_string().contains("memory"), "{source}");
    // A file that was cut off in its header, and one in its stream.
    let whole = std::fs::read(memory).unwrap();
    for (name, len) in [("header", 50), ("stream", whole.len() / 2)] {
        let cut = host.at(&format!("{name}.memory"));
        std::fs::write(&cut, &whole[..len]).unwrap();
        let refused = hypervisor.start_from(&upon(&host, name, &guest), &cut).await.unwrap_err();
        assert_eq!(matches!(refused, HypervisorError::Saved { .. }), name == "header", "{refused:?}");
    }
    let all = hypervisor.list().await.unwrap();
    assert!(all.iter().all(|domain| matches!(domain.state, DomainState::Stopped { .. })), "{all:?}");
    for domain in all {
        hypervisor.undefine(domain.mark.incarnation).await.unwrap();
    }
    // What is whole starts still.
    let same = upon(&host, "same", &guest);
    hypervisor.start_from(&same, memory).await.unwrap();
    go_on(&same, 10).await;
    gone(&hypervisor, same.mark.incarnation).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_guest_counts_no_more_until_it_is_resumed() {
    let (host, hypervisor) = counting_guest::host().await;
    let guest = started(&host, &hypervisor).await;
    let uuid = guest.mark.incarnation;
    hypervisor.pause(uuid).await.unwrap();
    hypervisor.pause(uuid).await.unwrap();
    assert_eq!(hypervisor.list().await.unwrap()[0].state, DomainState::Paused);
    // It is frozen as it stands, and no pause is added.
    let taken = hypervisor.snapshot(uuid, &both(&host, "first", true)).await.unwrap();
    assert_eq!(taken.pause, Duration::ZERO);
    let counted = last(&guest);
    assert_eq!(hypervisor.list().await.unwrap()[0].state, DomainState::Paused);
    assert_eq!(last(&guest), counted);
    assert!(hypervisor.resume(uuid).await.unwrap());
    go_on(&guest, 10).await;
    gone(&hypervisor, uuid).await;
}
