//! Questions to placement policies.

use crate::cases::{Answer, Case};
use plugins_runtime::placement::{
    ATTESTED_ATTRIBUTE, Columns, HOSTS_MAX, HostState, PlacementInput, PlacementQuestion, Request,
    SITE_ATTRIBUTE, Snapshot, Verdict,
};
use plugins_runtime::{Policy, PolicyError};
use types::Revision;

const GIB: u64 = 1 << 30;
const SIZES: [u32; 4] = [100, 1_000, 10_000, 20_000];
/// A state that no contract so far has.
const STATE_OF_LATER: u8 = 200;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("no host", &cluster(0)),
        case("one host", &cluster(1)),
        case("hosts that are all full", &with(5, |input| input.hosts.memory_free_bytes.fill(0))),
        case("hosts without memory, disk and processors", &with(5, empty)),
        case("hosts of which none is ready", &with(5, |input| input.hosts.states.fill(HostState::Draining))),
        case(
            "an instance whose volumes are on one host",
            &with(5, |input| {
                input.request.pinned_host = Some(input.hosts.names[3].clone());
            }),
        ),
        case(
            "an instance that is to be moved",
            &with(5, |input| {
                input.request.current_host = Some(input.hosts.names[3].clone());
            }),
        ),
        case("a request for nothing", &with(5, |input| input.request = Request::default())),
        case(
            "a request for more than there is",
            &with(5, |input| input.request.memory_bytes = (1 << 53) - 1),
        ),
        case("a request for one choice", &with(100, |input| input.request.choices_max = 1)),
        case("a request for 64 choices", &with(100, |input| input.request.choices_max = 64)),
        case("a site that does not exist", &with(5, |input| attribute(input, SITE_ATTRIBUTE, "atlantis"))),
        case(
            "attested hosts, of which there is none",
            &with(5, |input| {
                attribute(input, ATTESTED_ATTRIBUTE, "true");
            }),
        ),
        case("an attribute that no policy knows", &with(5, |input| attribute(input, "nobody/knows", "x"))),
        case("hosts in no site", &with(5, |input| input.hosts.sites.fill(String::new()))),
        case(
            "labels that some hosts have",
            &with(5, |input| {
                let values = ["gold", "", "", "silver", ""].map(str::to_owned);
                input.hosts.labels.insert("tier".into(), values.into());
            }),
        ),
        case("the largest numbers there are", &with(5, largest)),
        unknown_code(),
    ];
    cases.extend(SIZES.map(|size| case(&format!("{size} hosts"), &cluster(size as usize)).sized(size)));
    cases
}

/// A cluster in which hosts differ.
pub(crate) fn cluster(hosts: usize) -> PlacementInput {
    let each = 0..hosts.min(HOSTS_MAX);
    let number = |row: usize| u32::try_from(row).unwrap_or(0);
    let columns = Columns {
        names: each.clone().map(|row| format!("host-{row:05}")).collect(),
        sites: each.clone().map(|row| format!("site-{}", row % 7)).collect(),
        states: each.clone().map(|_| HostState::Ready).collect(),
        memory_total_bytes: each.clone().map(|_| 64 * GIB).collect(),
        memory_free_bytes: each.clone().map(|row| (row as u64 * 7919 % 64) * GIB).collect(),
        disk_free_bytes: each.clone().map(|row| (row as u64 * 104_729 % 900) * GIB).collect(),
        cpu_total_milli: each.clone().map(|_| 64_000).collect(),
        cpu_free_milli: each.clone().map(|row| number(row) * 7907 % 64_000).collect(),
        instance_counts: each.clone().map(|row| number(row) % 40).collect(),
        loads: each.clone().map(|row| f32::from(u8::try_from(row % 101).unwrap_or(0)) / 100.0).collect(),
        image_cached_bytes: each.clone().map(|row| if row.is_multiple_of(5) { GIB } else { 0 }).collect(),
        peers: each.map(|row| u32::from(row % 50 == 3)).collect(),
        ..Columns::default()
    };
    PlacementInput {
        decision_id: "conformance".into(),
        seed: 7,
        now_ms: 1_700_000_000_000,
        revision: Revision(1),
        settings: serde_json::Value::Null,
        request: Request {
            instance: "office/desktop".into(),
            deployment: "office".into(),
            member: "desktop".into(),
            appliance: "acme/desktop".into(),
            version: "1.0.0".into(),
            vcpus_milli: 2000,
            memory_bytes: 4 * GIB,
            disk_bytes: 10 * GIB,
            image_bytes: 8 * GIB,
            ..Request::default()
        },
        hosts: columns,
    }
}

fn with(hosts: usize, change: impl FnOnce(&mut PlacementInput)) -> PlacementInput {
    let mut input = cluster(hosts);
    change(&mut input);
    input
}

fn attribute(input: &mut PlacementInput, key: &str, value: &str) {
    input.request.attributes.insert(key.into(), value.into());
}

fn empty(input: &mut PlacementInput) {
    input.hosts.memory_total_bytes.fill(0);
    input.hosts.memory_free_bytes.fill(0);
    input.hosts.disk_free_bytes.fill(0);
    input.hosts.cpu_total_milli.fill(0);
    input.hosts.cpu_free_milli.fill(0);
}

fn largest(input: &mut PlacementInput) {
    const MOST: u64 = (1 << 53) - 1;
    input.hosts.memory_total_bytes.fill(MOST);
    input.hosts.memory_free_bytes.fill(MOST);
    input.hosts.disk_free_bytes.fill(MOST);
    input.hosts.cpu_total_milli.fill(u32::MAX);
    input.hosts.cpu_free_milli.fill(u32::MAX);
    input.hosts.instance_counts.fill(u32::MAX);
    input.hosts.peers.fill(u32::MAX);
    input.request.disk_bytes = MOST;
    input.request.image_bytes = MOST;
}

fn case(name: &str, input: &PlacementInput) -> Case {
    let (input, hosts) = (input.clone(), Snapshot::new(&input.hosts));
    Case::new(name, move |policy| {
        let question = PlacementQuestion::of(&input);
        let decision = policy.place_among(&hosts.clone()?, &question)?;
        let mut answer = Answer::of(&decision, summary(&decision.verdict));
        answer.unwise = unwise(&input, &decision.verdict);
        Ok(answer)
    })
}

/// A host whose state is of a later contract takes nothing.
fn unknown_code() -> Case {
    let input = cluster(5);
    let hosts = Snapshot::new(&input.hosts).map(|hosts| hosts.with_state_code(4, STATE_OF_LATER));
    Case::new("a host in a state of a later contract", move |policy: &Policy| -> Result<_, PolicyError> {
        let decision = policy.place_among(&hosts.clone()?, &PlacementQuestion::of(&input))?;
        let mut answer = Answer::of(&decision, summary(&decision.verdict));
        if chosen(&decision.verdict).any(|host| host == input.hosts.names[4]) {
            answer.unwise = Some("it chooses it: an unknown state means `not eligible`".into());
        }
        Ok(answer)
    })
}

fn chosen(verdict: &Verdict) -> impl Iterator<Item = &str> {
    let choices = match verdict {
        Verdict::Place { choices, .. } => choices.as_slice(),
        _ => &[],
    };
    choices.iter().map(|choice| choice.host.as_str())
}

fn summary(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Place { choices, .. } => {
            format!("{} choices, first {}", choices.len(), choices.first().map_or("", |choice| &choice.host))
        }
        Verdict::Defer { reasons, .. } => {
            format!("defers: {}", reasons.first().map_or("", |reason| &reason.code))
        }
        Verdict::Refuse { reasons } => {
            format!("refuses: {}", reasons.first().map_or("", |reason| &reason.code))
        }
    }
}

/// The first choice that the controller would pass over.
fn unwise(input: &PlacementInput, verdict: &Verdict) -> Option<String> {
    let (hosts, request) = (&input.hosts, &input.request);
    let broken = |host: &str| {
        let row = hosts.names.iter().position(|name| name == host)?;
        let image = request.image_bytes.saturating_sub(hosts.image_cached_bytes[row]);
        let limits = [
            ("is not ready", hosts.states[row] != HostState::Ready),
            ("has too little memory", hosts.memory_free_bytes[row] < request.memory_bytes),
            ("has too little CPU", hosts.cpu_free_milli[row] < request.vcpus_milli),
            ("has too little disk", hosts.disk_free_bytes[row] < request.disk_bytes.saturating_add(image)),
            ("does not hold the volumes", request.pinned_host.as_ref().is_some_and(|pinned| pinned != host)),
        ];
        let (why, _) = limits.into_iter().find(|(_, broken)| *broken)?;
        Some(format!("it chooses {host}, which {why}: the controller passes it over"))
    };
    chosen(verdict).find_map(broken)
}
