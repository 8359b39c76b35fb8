//! Claims about which guest is watched by whom.

use super::*;
use crate::store::Wires;
use controller_api::agent::DesiredInstance;
use controller_api::life::Power;
use types::{ByteSize, Digest};

const INCARNATION: &str = "11111111-2222-4333-8444-555555555555";

fn watch(policy: &str) -> DesiredWatch {
    DesiredWatch {
        instance: "office/workspace".parse().unwrap(),
        policy: policy.parse().unwrap(),
        component: Digest::from_bytes([7; 32]),
        settings: None,
        grants: vec![Grant::Memory, Grant::Cpu],
        every_ms: Some(1_000),
        bytes_max: None,
        appliance: "acme/workspace".to_owned(),
        version: "1.0.0".to_owned(),
    }
}

fn desired(watches: Vec<DesiredWatch>) -> HostDesired {
    let instance = DesiredInstance {
        id: "office/workspace".parse().unwrap(),
        incarnation: INCARNATION.to_owned(),
        vcpus: 1,
        memory: ByteSize(64 << 20),
        image: Digest::from_bytes([1; 32]),
        image_size_bytes: 1 << 20,
        ports: Vec::new(),
        volumes: Vec::new(),
        config: BTreeMap::new(),
        power: Power::On,
        leased: false,
        layers: Vec::new(),
        memory_from: None,
    };
    HostDesired { instances: vec![instance], watches, ..HostDesired::default() }
}

fn records(started_ms: Option<u64>, ended: bool) -> BTreeMap<Uuid, Record> {
    let id: InstanceId = "office/workspace".parse().unwrap();
    let mut record = Record::new(id, Digest::from_bytes([1; 32]), Wires::default());
    (record.started_ms, record.ended) = (started_ms, ended);
    [(INCARNATION.parse().unwrap(), record)].into()
}

#[test]
fn only_a_guest_that_runs_is_watched() {
    let mut watches = BTreeMap::new();
    let wanted = desired(vec![watch("a"), watch("b")]);
    keep_desired(&mut watches, &wanted, &BTreeMap::new());
    assert!(watches.is_empty());
    keep_desired(&mut watches, &wanted, &records(None, false));
    assert!(watches.is_empty());
    keep_desired(&mut watches, &wanted, &records(Some(5), false));
    assert_eq!(watches.len(), 2);
    keep_desired(&mut watches, &wanted, &records(Some(5), true));
    assert!(watches.is_empty());
}

#[test]
fn what_was_kept_goes_on_in_the_same_run_and_is_gone_in_the_next_or_with_other_terms() {
    let mut watches = BTreeMap::new();
    let mark = |watches: &mut BTreeMap<Key, Watch>| {
        watches.values_mut().for_each(|watch| watch.state = State(vec![1]));
    };
    let kept = |watches: &BTreeMap<Key, Watch>| watches.values().all(|watch| !watch.state.is_empty());
    let run = records(Some(5), false);
    keep_desired(&mut watches, &desired(vec![watch("a")]), &run);
    mark(&mut watches);
    keep_desired(&mut watches, &desired(vec![watch("a")]), &run);
    assert!(kept(&watches));
    keep_desired(&mut watches, &desired(vec![watch("a")]), &records(Some(6), false));
    assert!(!kept(&watches));
    mark(&mut watches);
    let fewer = DesiredWatch { grants: vec![Grant::Memory], ..watch("a") };
    keep_desired(&mut watches, &desired(vec![fewer]), &records(Some(6), false));
    assert!(!kept(&watches));
    mark(&mut watches);
    let other = DesiredWatch { component: Digest::from_bytes([8; 32]), ..watch("a") };
    keep_desired(&mut watches, &desired(vec![other]), &records(Some(6), false));
    assert_eq!((watches.len(), kept(&watches)), (1, false));
    keep_desired(&mut watches, &desired(Vec::new()), &records(Some(6), false));
    assert!(watches.is_empty());
}
