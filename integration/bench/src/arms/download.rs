//! Downloading 4 GiB and then booting, against booting at once.

use super::boot::{SLOW, Scene, boot_local};
use crate::argv;
use crate::figures::{Figures, median, ratios};
use crate::lab::{Lab, copy_sparse, median_s, seconds};
use crate::leash::output;
use crate::network::shape_note;
use crate::say;
use rand::{RngCore as _, SeedableRng as _, rngs::StdRng};
use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use streamer_api::Prefetch;

const IMAGE_BYTES: u64 = 4 << 30;
/// Where the root file system begins in the workspace's disk (integration/appliances/disk.sh).
pub(crate) const ROOT_OFFSET_BYTES: u64 = 21 << 20;
/// Put into the root file system's free space, so that the image's bytes are content.
const FILLER_BYTES: u64 = 1080 << 20;
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(1800);

/// `download_vs_streamed`.
pub(crate) async fn run(lab: &Lab, figures: &mut Figures) -> anyhow::Result<()> {
    let image = make_image(lab)?;
    let scene = Scene::new(lab, lab.origin(&image, lab.disk.path()).await?).await?;
    let (content_bytes, download) = download(lab, &scene).await?;
    let link = SLOW.seconds(content_bytes);
    // The faster of two ways to download: the swarm's, measured, and a perfect one at the link's rate.
    let faster = download.as_secs_f64().min(link);
    let profiles = [scene.profile.clone()];
    let (mut local, mut streamed) = (vec![], vec![]);
    for round in 0..lab.rounds {
        local.push(boot_local(lab, &image).await?);
        let boot = scene.boot(lab, SLOW, &profiles).await?;
        say(&format!(
            "round {}: local {:.2} s, streamed {:.2} s",
            round + 1,
            local[round].as_secs_f64(),
            boot.took.as_secs_f64()
        ));
        streamed.push(boot.took);
    }
    let (local, streamed) = (seconds(&local), seconds(&streamed));
    let waits: Vec<f64> = local.iter().map(|boot| faster + boot).collect();
    let note = format!(
        "download of the whole image ({:.2} GiB of content in 4 GiB) and then a local boot {} ÷ streamed boot with a profile \
         {}; real guests (QEMU TCG); one real download by the swarm took {:.1} s, the link's own time is {link:.1} s, the \
         shorter counts; {}",
        crate::lab::float(content_bytes) / crate::lab::float(1 << 30),
        median_s(&waits),
        median_s(&streamed),
        download.as_secs_f64(),
        shape_note(SLOW),
    );
    figures.add(
        "download_vs_streamed",
        median(&waits) / median(&streamed),
        &ratios(&waits, &streamed),
        &note,
    );
    Ok(())
}

/// Fetches all of it onto a host without a byte: bytes, and how long.
async fn download(lab: &Lab, scene: &Scene) -> anyhow::Result<(u64, Duration)> {
    let host = lab.switch.plug()?;
    lab.switch.shape(&host, SLOW)?;
    lab.switch.shape(&scene.origin.host, SLOW)?;
    let streamer = lab.streamer(&host, "host").await?;
    let published = &scene.origin.published;
    say("downloading 4 GiB at 100 Mbit/s: about six minutes");
    let since = Instant::now();
    streamer.put(published, &scene.origin.source(Prefetch::Full, &[])).await?;
    let status = streamer.complete(published, DOWNLOAD_TIMEOUT).await?;
    let took = since.elapsed();
    say(&format!("downloaded in {:.1} s", took.as_secs_f64()));
    Ok((u64::from(status.pieces_local) * u64::from(status.piece_bytes), took))
}

/// The workspace's disk, its free space filled with a file and its end with noise: 4 GiB of content.
fn make_image(lab: &Lab) -> anyhow::Result<PathBuf> {
    let folder = lab.disk.path();
    let (image, filler) = (folder.join("workspace-4g.raw"), folder.join("filler"));
    copy_sparse(&lab.workspace()?, &image)?;
    noise(&mut File::create(&filler)?, FILLER_BYTES, 1)?;
    let partition = format!("{}?offset={ROOT_OFFSET_BYTES}", image.display());
    write_file(&partition, &filler, "/var/filler")?;
    std::fs::remove_file(&filler)?;
    let mut file = OpenOptions::new().write(true).open(&image)?;
    let end = file.seek(SeekFrom::End(0))?;
    noise(&mut file, IMAGE_BYTES - end, 2)?;
    Ok(image)
}

/// Writes a file into an ext4 file system that is not mounted.
pub(crate) fn write_file(partition: &str, from: &Path, to: &str) -> anyhow::Result<()> {
    output(&argv!["debugfs", "-w", "-R", format!("write {} {to}", from.display()), partition]).map(drop)
}

/// Writes bytes that nothing can compress.
pub(crate) fn noise(file: &mut File, bytes: u64, seed: u64) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut chunk = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        random.fill_bytes(&mut chunk);
        let length = chunk.len().min(usize::try_from(left)?);
        file.write_all(&chunk[..length])?;
        left -= u64::try_from(length)?;
    }
    Ok(())
}
