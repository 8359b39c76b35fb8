//! Backups beside restic: the same files, each into a repository of its own on the same disk.
//!
//! The files are those of a checkpoint: a layer of 1 GiB that a backup has already, and a new one with the 1 % of it that
//! changed. Everything is real; both repositories are checked by restic at the end.

use crate::figures::{Figures, median, ratios};
use anyhow::{Context as _, ensure};
use controller_backup::{Content, Credentials, Location, Part, Place, Repository, SourceFile};
use rand::{RngCore as _, SeedableRng as _, rngs::StdRng};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

const PASSWORD: &str = "measured";
/// Bytes of the disk.
const DISK_LEN: usize = 1 << 30;
/// Bytes of it that change from one checkpoint to the next: 1 %, in whole clusters of 64 KiB.
const CHANGED_LEN: usize = DISK_LEN / 100 / (64 << 10) * (64 << 10);
/// Of each cluster this much is random, the rest repeats: disks compress to about half.
const RANDOM_LEN: usize = 32 << 10;

struct Lab {
    folder: tempfile::TempDir,
    names: Vec<String>,
    rng: StdRng,
}

pub(crate) fn run(rounds: usize, figures: &mut Figures) -> anyhow::Result<()> {
    let mut lab = Lab {
        folder: tempfile::Builder::new().prefix("collective-bench.").tempdir_in("/var/tmp")?,
        names: Vec::new(),
        rng: StdRng::seed_from_u64(1),
    };
    fs::create_dir(lab.folder.path().join("layers"))?;
    lab.freeze("base", DISK_LEN)?;
    let place = lab.place();
    Repository::create(&place, &Arc::default())?;
    lab.restic(&["init"])?;
    let (first, first_restic) = (timed(|| lab.ours(&place, "base"))?, timed(|| lab.theirs())?);
    figures.add(
        "backup_first_vs_restic",
        first / first_restic,
        &[first / first_restic],
        &format!("first backup of 1 GiB: {first:.2} s, restic {first_restic:.2} s"),
    );

    let (mut warm, mut cold, mut restic) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        lab.freeze(&format!("layer-{round}"), CHANGED_LEN)?;
        // Who goes second finds the new file in memory; it was just written, so the first one does as well.
        if round % 2 == 0 {
            warm.push(timed(|| lab.ours(&place, &format!("round-{round}")))?);
            restic.push(timed(|| lab.theirs())?);
        } else {
            restic.push(timed(|| lab.theirs())?);
            warm.push(timed(|| lab.ours(&place, &format!("round-{round}")))?);
        }
        // Nothing new, and the key is derived anew: what a start of the agent adds.
        cold.push(timed(|| lab.ours(&lab.place(), &format!("round-{round}-again")))?);
    }
    for repository in ["ours", "theirs"] {
        lab.check(repository)?;
    }
    let (ours, theirs) = (median(&warm), median(&restic));
    let note = format!(
        "backup of 1 GiB in layers with 1 % changed: {:.0} ms, `restic backup` of the same files {:.0} ms; disk, key known",
        ours * 1e3,
        theirs * 1e3
    );
    figures.add("backup_vs_restic", ours / theirs, &ratios(&warm, &restic), &note);
    let note = format!(
        "the same with nothing changed by a process that has just begun: {:.0} ms",
        median(&cold) * 1e3
    );
    figures.add("backup_cold_vs_restic", median(&cold) / theirs, &ratios(&cold, &restic), &note);
    Ok(())
}

impl Lab {
    fn place(&self) -> Place {
        Place::new(Location::Folder(self.folder.path().join("ours")), Credentials::password(PASSWORD), None)
    }

    fn layers(&self) -> PathBuf {
        self.folder.path().join("layers")
    }

    /// A new layer with so many bytes, on the disk.
    fn freeze(&mut self, name: &str, len: usize) -> anyhow::Result<()> {
        let mut file = File::create_new(self.layers().join(name))?;
        let mut cluster = vec![0; 64 << 10];
        for _ in 0..len / cluster.len() {
            self.rng.fill_bytes(cluster.get_mut(..RANDOM_LEN).context("a cluster")?);
            file.write_all(&cluster)?;
        }
        file.sync_all()?;
        self.names.push(name.to_owned());
        Ok(())
    }

    fn ours(&self, place: &Place, checkpoint: &str) -> anyhow::Result<()> {
        let files = self
            .names
            .iter()
            .map(|name| SourceFile {
                name: format!("layers/{name}"),
                content: Content::File(self.layers().join(name)),
            })
            .collect();
        let part = Part {
            deployment: "bench".into(),
            member: "desktop".into(),
            checkpoint: checkpoint.into(),
            host: "bench".into(),
        };
        Repository::open(place, &Arc::default())?.back_up(&part, files)?;
        Ok(())
    }

    fn theirs(&self) -> anyhow::Result<()> {
        let layers = self.layers();
        self.restic(&["backup", layers.to_str().context("a path")?])
    }

    fn restic(&self, arguments: &[&str]) -> anyhow::Result<()> {
        self.restic_in("theirs", arguments)
    }

    fn check(&self, repository: &str) -> anyhow::Result<()> {
        self.restic_in(repository, &["check", "--read-data"])
    }

    fn restic_in(&self, repository: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let folder = self.folder.path();
        let output =
            restic(folder, &folder.join(repository)).args(arguments).output().context("run restic")?;
        ensure!(output.status.success(), "restic {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

fn restic(home: &Path, repository: &Path) -> Command {
    let mut command = Command::new("restic");
    // With its cache, as people run it.
    command
        .arg("--quiet")
        .env("HOME", home)
        .env_remove("XDG_CACHE_HOME")
        .env("RESTIC_PASSWORD", PASSWORD)
        .env("RESTIC_REPOSITORY", repository);
    command
}

/// Seconds that it took.
fn timed(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed().as_secs_f64())
}
