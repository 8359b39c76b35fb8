use super::*;
use crate::plan::{Observed, Plan, note_end};
use crate::status;
use controller_api::agent::InstanceState;
use types::Generation;
use xtask::small_disk::SmallDisk;

fn store(disk: &SmallDisk) -> Store {
    Store::open(Layout::make(&disk.path().join("state"), &disk.path().join("run")).unwrap()).unwrap()
}

fn document(generation: u64) -> HostDesired {
    let instance = serde_json::json!({
        "id": "office/probe", "incarnation": Uuid::from_bytes([7; 16]), "vcpus": 1, "memory": "64MiB",
        "image": Digest::from_bytes([1; 32]), "image_size_bytes": 1 << 20, "ports": [], "volumes": [], "config": {},
    });
    HostDesired {
        generation: Generation(generation),
        instances: vec![serde_json::from_value(instance).unwrap()],
        ..HostDesired::default()
    }
}

#[test]
fn a_document_that_a_full_disk_does_not_take_is_told_waits_and_is_kept_when_there_is_room() {
    let disk = SmallDisk::new(1 << 20).unwrap();
    let held = store(&disk);
    assert!(held.keep_desired(document(1)).unwrap());
    disk.fill().unwrap();
    let error = chain(&held.keep_desired(document(2)).unwrap_err()).to_string();
    assert!(error.contains("desired.json: No space left on device"), "{error}");
    let told = held.keep_waiting().unwrap();
    assert!(
        told.starts_with("generation 2 of the desired document is not kept, so not acted on: "),
        "{told}"
    );
    assert_eq!(held.desired().unwrap().generation, Generation(1), "what was kept is what counts");
    assert_eq!(store(&disk).desired(), Some(document(1)), "also after a crash");
    disk.free().unwrap();
    assert_eq!(held.keep_waiting(), None);
    assert_eq!(held.desired(), Some(document(2)));
    assert_eq!(store(&disk).desired(), Some(document(2)));
}

#[test]
fn an_instance_that_a_full_disk_keeps_from_starting_has_failed_with_the_reason_and_is_tried_again() {
    let disk = SmallDisk::new(1 << 20).unwrap();
    let held = store(&disk);
    disk.fill().unwrap();
    let desired = document(1);
    let incarnation = Uuid::from_bytes([7; 16]);
    let new = || Record::new(desired.instances[0].id.clone(), desired.instances[0].image, Wires::default());
    let error = held.change(incarnation, Some(new()), |_| {}).unwrap_err();
    let why = chain(&error).to_string();
    held.note(incarnation, new(), |record| note_end(record, Some(why.clone()), 1_000));

    let observed =
        Observed { records: held.records(), domains: Some(BTreeMap::new()), ..Observed::default() };
    let [instance] = status::instances(&desired, &observed, &Plan::default()).try_into().unwrap();
    assert_eq!(instance.state, InstanceState::Failed);
    let reason = instance.reason.unwrap();
    assert!(reason.contains("record.json: No space left on device"), "{reason}");
    assert!(held.records()[&incarnation].not_before_ms > 1_000, "it is not tried without a pause");
    assert_eq!(store(&disk).records(), BTreeMap::new(), "nothing half-written is taken up");

    disk.free().unwrap();
    // The same record as in memory: it reaches the disk all the same.
    let record = held.change(incarnation, Some(new()), |_| {}).unwrap().unwrap();
    assert_eq!(store(&disk).records(), BTreeMap::from([(incarnation, record)]));
    held.forget(incarnation).unwrap();
    assert_eq!(store(&disk).records(), BTreeMap::new());
}
