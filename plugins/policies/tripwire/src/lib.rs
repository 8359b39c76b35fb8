//! Tells when fixed parts of a guest's disks change, and when it speaks with ports that nobody named.
//!
//! What the parts hold when a run is first looked at is what is right for that run: an appliance's own start may write
//! them. A part is compared whole, by its bytes' hash; a change that is undone between two looks goes unseen, as does a
//! conversation that the host has forgotten by the next look (a minute after its last frame). Frames that were denied
//! are no conversation. Grants: `disk` if there are regions, `flows` if there are ports.

use plugins_sdk::introspection::{
    Evidence, Finding, Flow, Guest, IntrospectionPolicy, Report, Trigger, ViewError,
};
use plugins_sdk::{Context, Manifest, Plugin, PolicyError, Reason, SettingsIssue};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

const SECTOR: u64 = 512;
const REGION_LEN_MAX: u64 = 1 << 20;
const REGIONS_MAX: usize = 32;
const PORTS_MAX: usize = 256;
const EVERY_MS: std::ops::RangeInclusive<u64> = 100..=86_400_000;
/// Conversations that are looked at, the newest.
const FLOWS_MAX: u32 = 4_096;
/// Findings of one look; the contract's limit is 256.
const FINDINGS_MAX: usize = 128;
/// The guest started: what was known is of another run.
const STARTED: u8 = 2;
const TCP: u8 = 6;
const UDP: u8 = 17;
const MEDIUM: u8 = 2;
const HIGH: u8 = 3;

/// The policy.
#[derive(Debug)]
pub struct Tripwire;

/// What the operator may set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What does not change.
    pub regions: Vec<Region>,
    /// Ports that the guest may speak with; none: that is not looked at.
    pub ports: Option<BTreeSet<u16>>,
    /// Time to the next look, milliseconds.
    pub every_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let start = Region { disk: system(), offset: 0, length: 32 << 10 };
        Self { regions: vec![start], ports: None, every_ms: 10_000 }
    }
}

/// A part of a disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// `system`, or a volume's name.
    #[serde(default = "system")]
    pub disk: String,
    /// First byte, a multiple of 512.
    pub offset: u64,
    /// Bytes, a multiple of 512.
    pub length: u64,
}

fn system() -> String {
    "system".to_owned()
}

/// What a look leaves for the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// The parts as they were first seen.
    parts: Vec<(Region, u64)>,
}

impl Plugin for Tripwire {
    type Settings = Settings;

    fn manifest() -> Manifest {
        Manifest {
            name: "tripwire",
            version: env!("CARGO_PKG_VERSION"),
            summary: "Tells when fixed parts of a guest's disks change, and when it speaks with ports that nobody named.",
            license: "Apache-2.0",
            settings_schema: include_str!("settings.schema.json"),
            default_settings: "{}",
        }
    }

    fn check_settings(settings: &Settings) -> Vec<SettingsIssue> {
        let issue = |path: String, message: String| SettingsIssue { path, message };
        let mut issues = Vec::new();
        if settings.regions.len() > REGIONS_MAX {
            issues.push(issue("/regions".to_owned(), format!("more than {REGIONS_MAX} regions")));
        }
        for (index, region) in settings.regions.iter().enumerate() {
            let whole = |bytes: u64| bytes.is_multiple_of(SECTOR);
            if !whole(region.offset) {
                let message = format!("{} is no multiple of {SECTOR}", region.offset);
                issues.push(issue(format!("/regions/{index}/offset"), message));
            }
            if !whole(region.length) || !(SECTOR..=REGION_LEN_MAX).contains(&region.length) {
                let message =
                    format!("{} is no multiple of {SECTOR} from {SECTOR} to {REGION_LEN_MAX}", region.length);
                issues.push(issue(format!("/regions/{index}/length"), message));
            }
        }
        if let Some(ports) = &settings.ports
            && (ports.len() > PORTS_MAX || ports.contains(&0))
        {
            issues.push(issue("/ports".to_owned(), format!("give at most {PORTS_MAX} ports, 1 to 65535")));
        }
        if !EVERY_MS.contains(&settings.every_ms) {
            let message = format!("{} is out of range: give 100 to 86400000", settings.every_ms);
            issues.push(issue("/every_ms".to_owned(), message));
        }
        issues
    }
}

impl IntrospectionPolicy for Tripwire {
    fn inspect(
        settings: &Settings,
        trigger: &Trigger,
        state: &[u8],
        guest: &impl Guest,
        _: &impl Context,
    ) -> Result<Report, PolicyError> {
        // Of another version, or of a run before: nothing is known.
        let before: Known = match trigger.kind {
            STARTED => Known::default(),
            _ => serde_json::from_slice(state).unwrap_or_default(),
        };
        let mut report = Report { next_call_ms: settings.every_ms, ..Report::default() };
        let known = disks(settings, &before, guest, &mut report).map_err(refused)?;
        if let Some(ports) = &settings.ports {
            conversations(ports, guest, &mut report).map_err(refused)?;
        }
        report.state =
            serde_json::to_vec(&known).map_err(|error| PolicyError::Internal(error.to_string()))?;
        Ok(report)
    }
}

fn refused(error: ViewError) -> PolicyError {
    match error {
        ViewError::Denied(why) => PolicyError::BadSettings(why),
        error => PolicyError::Internal(error.to_string()),
    }
}

fn disks(
    settings: &Settings,
    before: &Known,
    guest: &impl Guest,
    report: &mut Report,
) -> Result<Known, ViewError> {
    let mut known = Known::default();
    if settings.regions.is_empty() {
        return Ok(known);
    }
    let disks = guest.disks()?;
    for region in &settings.regions {
        let Some(index) = disks.iter().position(|(name, size)| {
            *name == region.disk && region.offset.saturating_add(region.length) <= *size
        }) else {
            let text =
                format!("{} bytes at {} of disk {} are not there", region.length, region.offset, region.disk);
            report.reasons.push(Reason::plain("no-such-region", text));
            continue;
        };
        let (index, length) = (u32::try_from(index).unwrap_or(u32::MAX), region.length.min(REGION_LEN_MAX));
        let bytes = guest.read_disk(index, region.offset, u32::try_from(length).unwrap_or(u32::MAX))?;
        let now = hash(&bytes);
        let first = before.parts.iter().find(|(held, _)| held == region).map(|(_, hash)| *hash);
        if let Some(first) = first.filter(|first| *first != now) {
            report.findings.push(changed(region, first, now, &bytes));
        }
        known.parts.push((region.clone(), first.unwrap_or(now)));
    }
    let bytes: u64 = known.parts.iter().map(|(region, _)| region.length).sum();
    let text = format!("{bytes} bytes in {} regions", known.parts.len());
    report.reasons.push(Reason::plain("disks-checked", text));
    Ok(known)
}

fn changed(region: &Region, first: u64, now: u64, bytes: &[u8]) -> Finding {
    let place = format!("{} bytes at {} of disk {}", region.length, region.offset, region.disk);
    Finding {
        rule: "tripwire/disk-changed".to_owned(),
        severity: HIGH,
        confidence: 1.0,
        title: format!("{place} are not what they were when the guest was first looked at"),
        fingerprint: format!("disk/{}/{}/{}", region.disk, region.offset, region.length),
        evidence: vec![Evidence {
            kind: "disk".to_owned(),
            address: Some(region.offset),
            text: format!("the bytes hash to {now:016x} and did to {first:016x} (FNV-1a); the first of them"),
            bytes: bytes.iter().take(SECTOR as usize).copied().collect(),
        }],
        proposals: vec!["alert".to_owned(), "checkpoint".to_owned()],
    }
}

fn conversations(ports: &BTreeSet<u16>, guest: &impl Guest, report: &mut Report) -> Result<(), ViewError> {
    let flows = guest.flows(FLOWS_MAX)?;
    let text = format!("{} of at most {FLOWS_MAX} conversations' directions", flows.len());
    report.reasons.push(Reason::plain("flows-checked", text));
    let mut told = BTreeSet::new();
    for flow in flows.iter().filter(|flow| matches!(flow.protocol, TCP | UDP)) {
        if ports.contains(&flow.source_port) || ports.contains(&flow.destination_port) {
            continue;
        }
        // Both directions of one conversation are one finding.
        let (one, other) =
            (end(&flow.source, flow.source_port), end(&flow.destination, flow.destination_port));
        let ends = if one <= other { (one, other) } else { (other, one) };
        if told.len() < FINDINGS_MAX && told.insert((flow.protocol, ends.clone())) {
            report.findings.push(unnamed(flow, &ends));
        }
    }
    Ok(())
}

fn unnamed(flow: &Flow, (one, other): &(String, String)) -> Finding {
    let protocol = if flow.protocol == TCP { "TCP" } else { "UDP" };
    Finding {
        rule: "tripwire/unnamed-port".to_owned(),
        severity: MEDIUM,
        confidence: 1.0,
        title: format!("{protocol} between {one} and {other}: neither port is one that was named"),
        fingerprint: format!("flow/{protocol}/{one}/{other}"),
        evidence: vec![Evidence {
            kind: "flow".to_owned(),
            address: None,
            text: format!("{} frames, {} bytes at port {}", flow.frames, flow.bytes, flow.port),
            bytes: Vec::new(),
        }],
        proposals: vec!["alert".to_owned()],
    }
}

/// `10.20.0.3:80`, `[fd00::1]:80`; bytes of no known length in hexadecimal digits.
fn end(address: &[u8], port: u16) -> String {
    let known = match *address {
        [a, b, c, d] => Some(IpAddr::from([a, b, c, d])),
        _ => <[u8; 16]>::try_from(address).ok().map(IpAddr::from),
    };
    match known {
        Some(address) => std::net::SocketAddr::new(address, port).to_string(),
        None => {
            let mut text = String::new();
            for byte in address.iter().take(16) {
                // Writing to a String cannot fail.
                let _ = write!(text, "{byte:02x}");
            }
            format!("{text}:{port}")
        }
    }
}

/// FNV-1a, 64 bits (draft-eastlake-fnv): who can choose the bytes can choose two that collide; who changes a boot
/// sector without knowing what was there cannot.
fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

plugins_sdk::export_introspection!(Tripwire);

#[cfg(test)]
mod tests;
