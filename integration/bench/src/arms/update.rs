//! A second version of the workspace: what crosses the link, beside what changed, rsync and a full fetch.

use super::download::{ROOT_OFFSET_BYTES, noise, write_file};
use crate::figures::Figures;
use crate::lab::{Lab, copy_sparse, float};
use crate::leash::output;
use crate::network::Rate;
use crate::{argv, say};
use anyhow::{Context as _, ensure};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};
use streamer_api::Prefetch;

/// Content that the new version replaces: about 3 % of the workspace's.
const REPLACED_BYTES: u64 = 24 << 20;
/// Libraries are what an upgrade of packages replaces.
const FOLDER: &str = "/usr/lib/x86_64-linux-gnu";
const PIECE_BYTES: usize = 256 * 1024;
const BLOCK_BYTES: usize = 4096;
const PATIENCE: Duration = Duration::from_secs(300);

/// Bytes that differ between two versions, by the unit they are counted in. Units that became zero are left out.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changed {
    pieces: u64,
    blocks: u64,
}

/// `update_bytes_vs_changed`, and beside it `update_bytes_vs_blocks`, `_vs_rsync` and `_vs_full`.
pub(crate) async fn run(lab: &Lab, figures: &mut Figures) -> anyhow::Result<()> {
    let (old, new) = (lab.workspace()?, lab.disk.path().join("workspace-2.raw"));
    let files = upgrade(lab, &old, &new)?;
    let changed = compare(&mut File::open(&old)?, &mut File::open(&new)?)?;
    ensure!(changed.pieces > 0, "the second version is the first");

    let origin = lab.origin(&old, lab.disk.path()).await?;
    let second = origin.streamer.publish(&new, &lab.tracker.url).await?;
    let host = lab.switch.plug()?;
    lab.switch.shape(&host, Rate::mbit(1000))?;
    let (mut moved, mut wire, mut full, mut took) = (vec![], vec![], vec![], vec![]);
    for round in 0..lab.rounds {
        let streamer = lab.streamer(&host, "host").await?;
        let before = host.carried_bytes()?.0;
        streamer.put(&origin.published, &origin.source(Prefetch::Full, &[])).await?;
        streamer.complete(&origin.published, PATIENCE).await?;
        let between = host.carried_bytes()?.0;
        let since = Instant::now();
        let source = crate::lab::source(&second, &lab.tracker.url, Prefetch::Full, &[]);
        streamer.put(&second, &source).await?;
        let status = streamer.complete(&second, PATIENCE).await?;
        took.push(since.elapsed().as_secs_f64());
        let bytes = status.bytes;
        moved.push(float(bytes.origin + bytes.peer + bytes.web_seed));
        wire.push(float(host.carried_bytes()?.0 - between));
        full.push(float(between - before));
        let url = format!("nbd+unix:///{}?socket={}", second.digest.hex(), streamer.nbd().display());
        output(&argv!["qemu-img", "compare", "-f", "raw", "-F", "raw", &new, url])
            .context("the update is not the new version")?;
        say(&format!(
            "round {}: {:.1} MB of pieces, {:.1} MB on the wire, {:.1} s; identical to the new version",
            round + 1,
            moved[round] / 1e6,
            wire[round] / 1e6,
            took[round]
        ));
    }
    let rsync = rsync(lab, &old, &new)?;
    report(figures, &changed, &files, (&moved, &wire, &full, &took), rsync);
    Ok(())
}

fn report(
    figures: &mut Figures,
    changed: &Changed,
    files: &[String],
    (moved, wire, full, took): (&[f64], &[f64], &[f64], &[f64]),
    rsync: u64,
) {
    use crate::figures::median;
    let over = |below: f64| wire.iter().map(|wire| wire / below).collect::<Vec<_>>();
    let what = format!(
        "every byte on the updating host's link ({:.1} MB, with one header per segment of up to 64 KiB; {:.1} MB of pieces; {:.1} s)",
        median(wire) / 1e6,
        median(moved) / 1e6,
        median(took)
    );
    let made = format!("version 2 replaces {} libraries in the workspace's file system", files.len());
    let mut add = |name: &str, below: f64, than: String| {
        figures.add(name, median(wire) / below, &over(below), &format!("{what} ÷ {than}; {made}"));
    };
    let pieces = float(changed.pieces);
    add(
        "update_bytes_vs_changed",
        pieces,
        format!("{:.1} MB of pieces of 256 KiB that differ", pieces / 1e6),
    );
    let blocks = float(changed.blocks);
    add("update_bytes_vs_blocks", blocks, format!("{:.1} MB of 4 KiB blocks that differ", blocks / 1e6));
    let rsync = float(rsync);
    add(
        "update_bytes_vs_rsync",
        rsync,
        format!("{:.1} MB that rsync --inplace --no-whole-file sends and receives", rsync / 1e6),
    );
    let whole = median(full);
    add(
        "update_bytes_vs_full",
        whole,
        format!("{:.1} MB that fetching the first version whole took", whole / 1e6),
    );
}

/// Writes the new version: libraries replaced by as many new bytes, as an upgrade of packages does.
fn upgrade(lab: &Lab, old: &Path, new: &Path) -> anyhow::Result<Vec<String>> {
    copy_sparse(old, new)?;
    let partition = format!("{}?offset={ROOT_OFFSET_BYTES}", new.display());
    let listing = output(&argv!["debugfs", "-R", format!("ls -l {FOLDER}"), &partition])?;
    let mut files = libraries(&listing);
    files.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let (mut replaced, mut names) = (0, Vec::new());
    let content = lab.disk.path().join("library");
    for (seed, (name, bytes)) in (100..).zip(files) {
        if replaced >= REPLACED_BYTES {
            break;
        }
        noise(&mut File::create(&content)?, bytes, seed)?;
        let path = format!("{FOLDER}/{name}");
        // Written beside the old one, which then goes, as dpkg does: the new blocks are elsewhere.
        write_file(&partition, &content, &format!("{path}.new"))?;
        output(&argv!["debugfs", "-w", "-R", format!("rm {path}"), &partition])?;
        output(&argv!["debugfs", "-w", "-R", format!("ln {path}.new {path}"), &partition])?;
        output(&argv!["debugfs", "-w", "-R", format!("unlink {path}.new"), &partition])?;
        replaced += bytes;
        names.push(name);
    }
    ensure!(replaced >= REPLACED_BYTES, "the workspace has too few libraries in {FOLDER}");
    Ok(names)
}

/// Names and sizes of the regular files in what debugfs lists: `inode mode (type) uid gid size date time name`.
fn libraries(listing: &str) -> Vec<(String, u64)> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, mode, _, _, _, size, _, _, name] = words[..] else { return None };
        let regular = mode.starts_with("100") && name.contains(".so");
        Some((name.to_owned(), size.parse().ok()?)).filter(|_| regular)
    };
    listing.lines().filter_map(line).collect()
}

fn compare(old: &mut File, new: &mut File) -> anyhow::Result<Changed> {
    let mut changed = Changed::default();
    let (mut before, mut after) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    loop {
        let read = fill(new, &mut after)?;
        if read == 0 {
            return Ok(changed);
        }
        let known = fill(old, &mut before)?;
        before[known..].fill(0);
        let differs = |unit: usize| -> u64 {
            let pairs = after[..read].chunks(unit).zip(before[..read].chunks(unit));
            let units = pairs.filter(|(new, old)| new != old && new.iter().any(|byte| *byte != 0));
            units.map(|(new, _)| u64::try_from(new.len()).unwrap_or(0)).sum()
        };
        changed.pieces += differs(PIECE_BYTES);
        changed.blocks += differs(BLOCK_BYTES);
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Bytes that rsync sends and receives to turn the old version into the new one.
fn rsync(lab: &Lab, old: &Path, new: &Path) -> anyhow::Result<u64> {
    let copy = lab.disk.path().join("rsync.raw");
    copy_sparse(old, &copy)?;
    let text =
        output(&argv!["rsync", "--inplace", "--no-whole-file", "--ignore-times", "--stats", new, &copy])?;
    std::fs::remove_file(&copy)?;
    rsync_bytes(&text).with_context(|| format!("rsync says {text:?}"))
}

fn rsync_bytes(text: &str) -> Option<u64> {
    let number = |key: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().replace([',', '.'], "").parse().ok()
    };
    Some(number("Total bytes sent:")? + number("Total bytes received:")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek as _, Write as _};

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn what_became_zero_is_not_counted_and_the_rest_once() {
        let old = vec![1; PIECE_BYTES * 3];
        let mut new = old.clone();
        new[..PIECE_BYTES].fill(0);
        new[PIECE_BYTES * 2 + 5] = 9;
        let changed = compare(&mut file(&old), &mut file(&new)).unwrap();
        assert_eq!(changed, Changed { pieces: PIECE_BYTES as u64, blocks: BLOCK_BYTES as u64 });
    }

    #[test]
    fn rsync_is_charged_for_both_directions() {
        assert_eq!(rsync_bytes("Total bytes sent: 1,234\nTotal bytes received: 66\n"), Some(1300));
        assert_eq!(rsync_bytes("nothing"), None);
    }

    #[test]
    fn only_regular_libraries_are_replaced() {
        let listing = " 12 100644 (1) 0 0 5000 1-Jan-2024 00:00 libc.so.6\n 13 120777 (7) 0 0 9 1-Jan-2024 00:00 libm.so\n";
        assert_eq!(libraries(listing), [("libc.so.6".to_owned(), 5000)]);
    }
}
