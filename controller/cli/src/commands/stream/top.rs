//! Every image on every host, live.

use crate::commands::Session;
use crate::failure::Failure;
use crate::output::{self, Format, Row};
use crate::time;
use controller_api::rest::{ApplianceView, HostView};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use streamer_api::ImageStatus;
use types::HostName;

/// Readers named in one row.
const READERS_SHOWN_MAX: usize = 3;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "WAITS are reads that had to wait, with how many wait now; PROFILE is what serves each reader and \
    how well it fits, 0 to 1. NEAR are peers of the same site.\n\nExamples:\n  collective stream top\n  \
    collective stream top --host h1 --once -o wide"
)]
pub(super) struct Args {
    /// Only this host
    #[arg(long, value_name = "HOST")]
    host: Option<HostName>,
    /// Only one picture, also on a terminal
    #[arg(long)]
    once: bool,
}

/// One image on one host.
#[derive(Debug, Serialize)]
struct Line {
    host: HostName,
    online: bool,
    /// `publisher/appliance@version`, if it is published.
    version: Option<String>,
    image: ImageStatus,
}

pub(super) async fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    super::live(session, args.once, async |out: &mut Vec<u8>| {
        let (hosts, appliances) = tokio::join!(session.client.hosts(), session.client.appliances());
        let mut hosts = hosts?;
        if let Some(wanted) = &args.host {
            hosts.retain(|host| host.name == *wanted);
            if hosts.is_empty() {
                return Err(Failure::new(
                    crate::failure::Code::NotFound,
                    format!("there is no host {wanted}"),
                ));
            }
        }
        let lines = lines(hosts, &appliances?);
        if lines.is_empty() && matches!(session.format, Format::Table | Format::Wide) {
            return Ok(writeln!(out, "no host has an image yet")?);
        }
        output::list(out, &lines, session.format, 0)
    })
    .await
}

fn lines(hosts: Vec<HostView>, appliances: &[ApplianceView]) -> Vec<Line> {
    let mut versions = BTreeMap::new();
    for appliance in appliances {
        for version in &appliance.versions {
            versions
                .entry(version.image.hex())
                .or_insert_with(|| format!("{}@{}", appliance.name, version.version));
        }
    }
    let mut lines = Vec::new();
    for host in hosts {
        for (_, image) in host.status.map(|status| status.images).unwrap_or_default() {
            let version = versions.get(&image.export).cloned();
            lines.push(Line { host: host.name.clone(), online: host.online, version, image });
        }
    }
    // Those that are read come first, on each host.
    lines.sort_by(|a, b| {
        let key = |line: &Line| (line.host.clone(), line.image.readers.is_empty(), line.version.clone());
        key(a).cmp(&key(b))
    });
    lines
}

fn local(image: &ImageStatus) -> String {
    let wanted = u64::from(image.pieces.saturating_sub(image.pieces_zero));
    match (u64::from(image.pieces_local) * 100).checked_div(wanted) {
        Some(percent) => format!("{percent}%"),
        None => "100%".to_owned(),
    }
}

fn rate(bytes_per_s: u64) -> String {
    if bytes_per_s == 0 { String::new() } else { format!("{}/s", time::bytes(bytes_per_s)) }
}

impl Row for Line {
    const COLUMNS: &'static [&'static str] =
        &["HOST", "IMAGE", "READERS", "LOCAL", "DOWN", "UP", "PEERS", "NEAR", "WAITS", "PROFILE"];
    const WIDE: &'static [&'static str] = &["ORIGIN", "HOSTS", "WEB SEED", "LONGEST", "TROUBLE"];

    fn name(&self) -> String {
        format!("{}/{}", self.host, self.image.export)
    }

    fn cells(&self, _now_ms: u64) -> Vec<String> {
        let image = &self.image;
        let host = if self.online { self.host.to_string() } else { format!("{} (offline)", self.host) };
        let waits = match image.stalls.waiting {
            0 => image.stalls.count.to_string(),
            waiting => format!("{} ({waiting} now)", image.stalls.count),
        };
        let short = || image.export.get(..12).unwrap_or(&image.export).to_owned();
        vec![
            host,
            self.version.clone().unwrap_or_else(short),
            image.readers.len().to_string(),
            local(image),
            rate(image.rates.down_bytes_per_s),
            rate(image.rates.up_bytes_per_s),
            image.peers.len().to_string(),
            image.peers.iter().filter(|peer| peer.same_site).count().to_string(),
            waits,
            profiles(image),
        ]
    }

    fn wide_cells(&self, _now_ms: u64) -> Vec<String> {
        let (bytes, image) = (&self.image.bytes, &self.image);
        vec![
            time::bytes(bytes.origin),
            time::bytes(bytes.peer),
            time::bytes(bytes.web_seed),
            format!("{} ms", image.stalls.longest_ms),
            image.trouble.clone().unwrap_or_default(),
        ]
    }
}

fn profiles(image: &ImageStatus) -> String {
    let one = |reader: &streamer_api::Reader| match (&reader.profile, reader.score) {
        (Some(profile), Some(score)) => format!("{profile} {score:.2}"),
        (Some(profile), None) => profile.clone(),
        (None, _) => "none".to_owned(),
    };
    let mut shown: Vec<String> = image.readers.iter().take(READERS_SHOWN_MAX).map(one).collect();
    if image.readers.len() > READERS_SHOWN_MAX {
        shown.push(format!("+{}", image.readers.len() - READERS_SHOWN_MAX));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_image_on_each_host_is_a_line_and_what_is_read_comes_first() {
        let hex = |digit: &str| digit.repeat(64);
        let image = |digit: &str, readers: serde_json::Value| {
            json!({
                "export": hex(digit), "size_bytes": 1 << 20, "piece_bytes": 262_144, "pieces": 8, "pieces_zero": 4,
                "pieces_local": 1, "bytes": {"origin": 262_144, "peer": 0, "zero": 0, "cache": 0},
                "bytes_uploaded": 0, "bytes_poisoned": 0,
                "stalls": {"count": 9, "total_ms": 700, "longest_ms": 250, "waiting": 2},
                "rates": {"down_bytes_per_s": 1_048_576, "up_bytes_per_s": 0}, "readers": readers,
                "peers": [{"address": "a", "origin": true, "pieces": 8, "bytes_down": 1, "bytes_up": 0},
                          {"address": "b", "origin": false, "same_site": true, "pieces": 8, "bytes_down": 1, "bytes_up": 0}],
            })
        };
        let stalls = json!({"count": 0, "total_ms": 0, "longest_ms": 0, "waiting": 0});
        let reader =
            json!({"name": "r", "profile": "boot", "score": 0.876, "profile_missing": 3, "stalls": stalls});
        let host: HostView = serde_json::from_value(json!({
            "name": "h1", "site": "main", "role": "host", "online": true, "seen_ms": 1, "facts": null,
            "status": {
                "generation": 1, "converged": true, "problems": [], "memory_free_bytes": 0, "disk_free_bytes": 0,
                "load": 0.0, "instances": [], "streamer_up": true,
                "images": {(format!("sha256:{}", hex("a"))): image("a", json!([])),
                           (format!("sha256:{}", hex("b"))): image("b", json!([reader]))},
            },
        }))
        .unwrap();
        let spec = json!({"hardware": {"vcpus": 1, "memory": "64MiB"}, "disks": {"system": {"file": "x"}}});
        let appliance: ApplianceView = serde_json::from_value(json!({
            "name": "acme/workspace", "channels": {},
            "versions": [{"version": "1.0.0", "published_ms": 1, "image": format!("sha256:{}", hex("b")),
                          "size_bytes": 1 << 20, "spec": spec}],
        }))
        .unwrap();
        let mut out = Vec::new();
        output::list(&mut out, &lines(vec![host], &[appliance]), Format::Table, 0).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HOST  IMAGE                 READERS  LOCAL  DOWN       UP  PEERS  NEAR  WAITS      PROFILE\n\
             h1    acme/workspace@1.0.0  1        25%    1.0 MiB/s  -   2      1     9 (2 now)  boot 0.88\n\
             h1    aaaaaaaaaaaa          0        25%    1.0 MiB/s  -   2      1     9 (2 now)  -\n"
        );
    }
}
