//! Versions of the ledger, made of the station's disk: a release says its number, and may be sick.

use anyhow::{Context as _, ensure};
use std::path::{Path, PathBuf};

/// What the station's disk holds once each, and with what it is replaced: as many bytes.
const RELEASE: &[u8] = b"1.0.0\n\0\0\0\0\0\0\0\0\0\0";
const HEALTHY: &[u8] = b"\nsick=no\n";
const SICK: &[u8] = b"\nsick=on\n";

/// A folder with one version, ready to be published. A sick one serves its pages and never says that it is ready.
pub(super) fn folder(station: &Path, work: &Path, version: &str, sick: bool) -> anyhow::Result<PathBuf> {
    let folder = work.join(format!("ledger-{version}"));
    std::fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
    let disk = std::fs::read(station.join("system.raw")).context("read the station's disk")?;
    ensure!(version.len() == 5, "a version of the story has five characters");
    let mut release = RELEASE.to_vec();
    release[..5].copy_from_slice(version.as_bytes());
    let mut disk = replaced(disk, RELEASE, &release)?;
    if sick {
        disk = replaced(disk, HEALTHY, SICK)?;
    }
    std::fs::write(folder.join("system.raw"), disk)?;
    let text = std::fs::read_to_string(station.join("appliance.yaml"))
        .context("read the station's appliance.yaml")?;
    let changed = text
        .replace("name: station", "name: ledger")
        .replace("version: 1.0.0", &format!("version: {version}"))
        .replace("volumes: []", "volumes: [home]");
    ensure!(
        ["name: ledger", &format!("version: {version}"), "volumes: [home]"]
            .iter()
            .all(|word| changed.contains(word)),
        "it is another station"
    );
    std::fs::write(folder.join("appliance.yaml"), changed)?;
    Ok(folder)
}

/// The bytes with the one place where `from` is holding `to`.
fn replaced(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> anyhow::Result<Vec<u8>> {
    let places: Vec<usize> = bytes
        .windows(from.len())
        .enumerate()
        .filter(|(_, window)| *window == from)
        .map(|(at, _)| at)
        .collect();
    let [place] = places[..] else {
        anyhow::bail!("{:?} is {} times on the station's disk", String::from_utf8_lossy(from), places.len())
    };
    bytes[place..place + to.len()].copy_from_slice(to);
    Ok(bytes)
}
