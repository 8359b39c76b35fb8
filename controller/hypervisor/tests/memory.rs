#![expect(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]
//! Claims about real saved memory that is kept as its difference to the memory before.

mod counting_guest;
#[allow(dead_code, reason = "some of it is for the tests beside it")]
mod private_libvirtd;

use controller_hypervisor::{Chain, DiskFile, Format, Machine, NewFile, Snapshot, Stop, Under, VolumeDisk};
use controller_pages::{difference, whole};
use counting_guest::{counts, go_on, image, last, machine};
use std::fs::File;

/// Pages that the counting guest writes while it counts, and those that its firmware and its devices may write beside.
const DIRTY_PAGES_MAX: u64 = 64 + 64;

#[tokio::test(flavor = "multi_thread")]
async fn memory_kept_as_a_difference_is_as_small_as_what_changed_and_a_guest_goes_on_from_it() {
    let (host, hypervisor) = counting_guest::host().await;
    let guest = machine(&host, "guest", vec![image(&host)], Vec::new());
    let uuid = guest.mark.incarnation;
    hypervisor.start(&guest).await.unwrap();
    go_on(&guest, 100).await;
    let disk = |name: &str, target: &str| NewFile {
        target: target.to_owned(),
        active: host.at(&format!("{name}.{target}")),
    };
    let mut before = 0;
    for name in ["first", "second"] {
        go_on(&guest, 100).await;
        before = last(&guest);
        let snapshot = Snapshot {
            name: name.to_owned(),
            disks: vec![disk(name, "vda"), disk(name, "vdb")],
            memory: Some(host.at(&format!("{name}.memory"))),
        };
        hypervisor.snapshot(uuid, &snapshot).await.unwrap();
    }
    let after = last(&guest);
    hypervisor.stop(uuid, Stop::PowerOff).await.unwrap();
    hypervisor.undefine(uuid).await.unwrap();

    let open = |name: &str| File::open(host.at(name)).unwrap();
    let kept = host.at("second.difference");
    let figures =
        difference(&mut open("first.memory"), &mut open("second.memory"), &mut File::create(&kept).unwrap())
            .unwrap();
    assert!(figures.new_pages >= 64, "{figures:?}");
    assert!(figures.new_pages <= DIRTY_PAGES_MAX, "{figures:?}");
    // Besides them, what devices say that they did not say before: in all no more than 1.3 times what is dirty.
    assert!(figures.written_bytes * 10 <= figures.new_pages * 4096 * 13, "{figures:?}");

    let made = host.at("made.memory");
    let (first, kept) = (&mut open("first.memory"), &mut File::open(&kept).unwrap());
    whole(first, kept, &mut File::create(&made).unwrap(), figures.whole_bytes).unwrap();
    assert!(std::fs::read(&made).unwrap() == std::fs::read(host.at("second.memory")).unwrap());
    let under = |target: &str, chain: &Chain| {
        let path = host.at(&format!("first.{target}"));
        let mut under = vec![Under::File(DiskFile { path, format: Format::Qcow2 })];
        under.push(Under::File(chain.active.clone()));
        under.extend(chain.under.clone());
        under
    };
    let volume: &VolumeDisk = &guest.volumes[0];
    let other: Machine = machine(&host, "other", under("vda", &guest.system), under("vdb", &volume.chain));
    hypervisor.start_from(&other, &made).await.unwrap();
    go_on(&other, 100).await;
    let first = counts(&other)[0];
    assert!(before < first && first <= after + 2, "{before} {first} {after}");
    hypervisor.stop(other.mark.incarnation, Stop::PowerOff).await.unwrap();
    hypervisor.undefine(other.mark.incarnation).await.unwrap();
}
