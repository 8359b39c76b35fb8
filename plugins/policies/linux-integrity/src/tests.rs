//! Claims about whole looks, at guests made of parts.

use super::*;
use crate::tasks::{LIST, TABLE, TREE};
use plugins_sdk::Still;
use plugins_sdk::introspection::GuestFacts;
use std::collections::BTreeMap;

const START: u64 = 0xffff_8880_0000_0000;
const INIT: u64 = START;
const NAMESPACE: u64 = START + 0x100;
const NODE: u64 = START + 0x1000;
/// Offsets of members, by [`tasks::MEMBERS`].
const OFFSETS: [u64; 16] = [0, 16, 20, 24, 40, 56, 72, 80, 88, 104, 0, 8, 0, 0, 0, 8];

/// Tasks of 0x400 bytes from `START + 0x4000` on, numbers of 0x100 bytes from `START + 0x2000` on.
fn task(pid: u64) -> u64 {
    if pid == 0 { INIT } else { START + 0x4000 + pid * 0x400 }
}

struct Machine(Vec<u8>);

impl Machine {
    fn put(&mut self, address: u64, number: u64) {
        let at = usize::try_from(address - START).unwrap();
        self.0[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }

    fn link(&mut self, offset: u64, around: &[u64]) {
        for (position, place) in around.iter().enumerate() {
            self.put(place + offset, around[(position + 1) % around.len()] + offset);
        }
    }

    /// Process 0 is the first, 1 its child, the others children of 1.
    fn of(pids: &[u64]) -> Self {
        let mut machine = Self(vec![0; 0x8000]);
        let all: Vec<u64> = [0].into_iter().chain(pids.iter().copied()).map(task).collect();
        machine.link(0, &all);
        machine.put(NAMESPACE, NODE | 2);
        for pid in [0].into_iter().chain(pids.iter().copied()) {
            let at = task(pid);
            let signal = START + 0x3000 + pid * 0x40;
            machine.put(at + 16, pid | pid << 32);
            machine.put(at + 80, signal);
            machine.put(at + 88, signal);
            machine.put(signal, at + 88);
            machine.put(at + 40, at + 40);
            if pid > 0 {
                let number = START + 0x2000 + pid * 0x100;
                machine.put(NODE + 8 + pid * 8, number);
                machine.put(number + 8 + 8, at + 104 + 16);
            }
        }
        let tree = |machine: &mut Self, parent: u64, children: &[u64]| {
            let mut links = vec![task(parent) + 40];
            links.extend(children.iter().map(|pid| task(*pid) + 56));
            for (position, link) in links.iter().enumerate() {
                machine.put(*link, links[(position + 1) % links.len()]);
            }
        };
        tree(&mut machine, 0, &pids[..1]);
        tree(&mut machine, 1, &pids[1..]);
        machine
    }

    fn guest(&self) -> (Still, Kernel) {
        let memory = BTreeMap::from([(0, self.0.clone())]);
        let pages = (0..8).map(|page| (START + page * 4096, page * 4096)).collect();
        let facts = GuestFacts { arch: "x86_64".to_owned(), paused: true, ..GuestFacts::default() };
        let names = tasks::MEMBERS.iter().map(|(structure, member)| format!("{structure}.{member}"));
        let symbols = [("init_task".to_owned(), INIT), ("init_pid_ns".to_owned(), NAMESPACE)].into();
        let kernel = Kernel { offsets: names.zip(OFFSETS).collect(), symbols, ..Kernel::default() };
        let mut guest = Still::default();
        (guest.facts, guest.memory, guest.pages) = (facts, memory, pages);
        (guest, kernel)
    }

    fn hidden(&self) -> Vec<(u32, Vec<&'static str>)> {
        let (guest, kernel) = self.guest();
        let hidden = tasks::look(&guest, &kernel).unwrap().hidden();
        hidden.into_iter().map(|hidden| (hidden.process.pid, hidden.missing)).collect()
    }
}

#[test]
fn views_that_agree_hide_nobody() {
    let (guest, kernel) = Machine::of(&[1, 2, 3]).guest();
    let views = tasks::look(&guest, &kernel).unwrap();
    assert_eq!((views.count(), views.hidden()), (3, Vec::new()));
}

#[test]
fn a_process_that_one_view_lacks_is_hidden_there() {
    let mut machine = Machine::of(&[1, 2, 3]);
    machine.link(0, &[INIT, task(1), task(3)]);
    assert_eq!(machine.hidden(), [(2, vec![LIST])]);
    let mut machine = Machine::of(&[1, 2, 3]);
    machine.put(NODE + 8 + 3 * 8, 0);
    assert_eq!(machine.hidden(), [(3, vec![TABLE])]);
    machine.link(0, &[INIT, task(1), task(2)]);
    assert_eq!(machine.hidden(), [(3, vec![LIST, TABLE])]);
    let mut machine = Machine::of(&[1, 2, 3]);
    machine.put(task(1) + 40, task(3) + 56);
    assert_eq!(machine.hidden(), [(2, vec![TREE])]);
}

#[test]
fn one_that_is_going_is_not_hidden() {
    let mut machine = Machine::of(&[1, 2, 3]);
    machine.link(0, &[INIT, task(1), task(3)]);
    machine.put(task(2) + 72, 32);
    assert_eq!(machine.hidden(), []);
}

#[test]
fn lists_that_lead_nowhere_or_around_end() {
    let mut machine = Machine::of(&[1, 2, 3]);
    machine.put(task(2), task(1));
    assert!(machine.hidden().contains(&(3, vec![LIST])));
    machine.put(task(2), 0xdead_beef);
    let (guest, kernel) = machine.guest();
    assert_eq!(tasks::look(&guest, &kernel).err(), Some(NotFound::Torn));
    let mut table = Machine::of(&[1, 2, 3]);
    table.put(NODE + 8, NODE | 2);
    assert_eq!(table.hidden(), []);
}

#[test]
fn a_guest_without_a_kernel_is_said_to_be_not_checked() {
    let mut guest = Still::default();
    guest.facts.arch = "x86_64".to_owned();
    guest.registers = vec![[("cr3".to_owned(), 0), ("idt.base".to_owned(), 0)].into()];
    guest.memory = [(0, vec![0; 8192])].into();
    let look =
        |guest: &Still| LinuxIntegrity::inspect(&Settings::default(), &Trigger::default(), &[], guest, guest);
    let report = look(&guest).unwrap();
    assert_eq!((report.findings.len(), report.reasons[0].code.as_str()), (0, "not-checked"));
    guest.denied = true;
    assert!(matches!(look(&guest), Err(PolicyError::BadSettings(_))));
    assert!(matches!(look(&Still::default()), Err(PolicyError::Unsupported(_))));
}

#[test]
fn the_schema_and_the_defaults_agree() {
    assert!(plugins_sdk::validate_settings::<LinuxIntegrity>("{}").is_ok());
    let issues = plugins_sdk::validate_settings::<LinuxIntegrity>("{\"every_ms\": 1}").unwrap_err();
    assert_eq!(issues[0].path, "/every_ms");
    let schema: serde_json::Value = serde_json::from_str(LinuxIntegrity::manifest().settings_schema).unwrap();
    let defaults = Settings::default();
    for (name, value) in
        [("code", defaults.code), ("tables", defaults.tables), ("processes", defaults.processes)]
    {
        assert_eq!(schema["properties"][name]["default"], value);
    }
    assert_eq!(schema["properties"]["every_ms"]["default"], defaults.every_ms);
}
