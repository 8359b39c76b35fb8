//! Questions to introspection policies: about guests that are not what a policy hopes for. None of them is a running
//! kernel; what a policy sees in one is for its own tests.

use crate::cases::{Answer, Case};
use plugins_runtime::State;
use plugins_runtime::introspection::{
    Disk, Flow, Grant, GuestFacts, GuestViews, IntrospectionInput, Paging, Region, Trigger, ViewError,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use types::Revision;

const MIB: u64 = 1 << 20;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("a guest that it may not look into", &with(|input| input.grants.clear()), Content::Zeros),
        case("a guest whose memory is empty", &input(), Content::Zeros),
        case("a guest whose memory is noise", &input(), Content::Noise),
        case("a guest that is gone", &input(), Content::Gone),
        case(
            "a guest of another architecture",
            &with(|input| input.guest.arch = "aarch64".into()),
            Content::Noise,
        ),
        case(
            "a guest of which nothing is known",
            &with(|input| {
                input.guest = GuestFacts { instance: "office/desktop".into(), ..GuestFacts::default() };
            }),
            Content::Zeros,
        ),
        case(
            "a guest that runs while it is looked at",
            &with(|input| input.guest.paused = false),
            Content::Noise,
        ),
        case("a quota of one byte", &with(|input| input.bytes_max = 1), Content::Noise),
        case(
            "a guest that has just started",
            &with(|input| input.trigger = Trigger::Started),
            Content::Zeros,
        ),
        case(
            "a guest before a checkpoint",
            &with(|input| input.trigger = Trigger::BeforeCheckpoint),
            Content::Zeros,
        ),
        case(
            "a state that it did not write",
            &with(|input| {
                input.state = State(b"\xff{not mine".to_vec());
            }),
            Content::Zeros,
        ),
        case(
            "an attribute that no policy knows",
            &with(|input| {
                input.trigger_attributes.insert("nobody/knows".into(), "x".into());
            }),
            Content::Zeros,
        ),
    ]
}

pub(crate) fn input() -> IntrospectionInput {
    IntrospectionInput {
        decision_id: "conformance".into(),
        seed: 7,
        now_ms: 1_700_000_000_000,
        revision: Revision(1),
        settings: serde_json::Value::Null,
        guest: GuestFacts {
            instance: "office/desktop".into(),
            appliance: "acme/desktop".into(),
            version: "1.0.0".into(),
            arch: "x86_64".into(),
            vcpus: 2,
            memory_bytes: 16 * MIB,
            started_ms: 1_699_999_000_000,
            paused: true,
            attributes: BTreeMap::new(),
        },
        grants: BTreeSet::from([Grant::Memory, Grant::Cpu, Grant::Flows, Grant::Disk]),
        bytes_max: 1 << 30,
        trigger: Trigger::Time,
        trigger_attributes: BTreeMap::new(),
        state: State::default(),
    }
}

fn with(change: impl FnOnce(&mut IntrospectionInput)) -> IntrospectionInput {
    let mut input = input();
    change(&mut input);
    input
}

fn case(name: &str, input: &IntrospectionInput, content: Content) -> Case {
    let input = input.clone();
    Case::new(name, move |policy| {
        let decision = policy.inspect(&input, Arc::new(content))?;
        Ok(Answer::of(&decision, format!("{} findings", decision.verdict.findings.len())))
    })
}

/// What a guest that is none holds: 16 MiB in two regions, and a disk of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Zeros,
    /// The same at every look.
    Noise,
    Gone,
}

impl Content {
    fn here(self) -> Result<(), ViewError> {
        if self == Self::Gone { Err(ViewError::Unavailable("the guest is gone".into())) } else { Ok(()) }
    }

    fn fill(self, address: u64, into: &mut [u8]) -> Result<(), ViewError> {
        self.here()?;
        match self {
            Self::Noise => (address..).zip(into).for_each(|(at, byte)| {
                *byte = at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[7];
            }),
            _ => into.fill(0),
        }
        Ok(())
    }
}

impl GuestViews for Content {
    fn regions(&self) -> Result<Vec<Region>, ViewError> {
        self.here()?;
        Ok(vec![Region { start: 0, len: MIB }, Region { start: 2 * MIB, len: 15 * MIB }])
    }

    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), ViewError> {
        self.fill(address, into)
    }

    fn paging(&self) -> Result<Paging, ViewError> {
        self.here()?;
        Ok(Paging::FourLevels)
    }

    fn registers(&self, vcpu: u32) -> Result<BTreeMap<String, u64>, ViewError> {
        self.here()?;
        let names = [
            "cr0",
            "cr3",
            "cr4",
            "rip",
            "idt.base",
            "gdt.base",
            "lstar",
            "efer",
            "gs.base",
            "kernel_gs_base",
        ];
        match vcpu {
            0 | 1 => Ok(names.iter().map(|name| ((*name).to_owned(), 0x1000)).collect()),
            _ => Err(ViewError::OutOfRange),
        }
    }

    fn flows(&self, _: usize) -> Result<Vec<Flow>, ViewError> {
        self.here()?;
        Ok(Vec::new())
    }

    fn disks(&self) -> Result<Vec<Disk>, ViewError> {
        self.here()?;
        Ok(vec![Disk { name: "system".into(), size: MIB }])
    }

    fn read_disk(&self, disk: u32, offset: u64, into: &mut [u8]) -> Result<(), ViewError> {
        if disk > 0 { Err(ViewError::OutOfRange) } else { self.fill(offset, into) }
    }
}
