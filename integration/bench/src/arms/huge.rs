//! An image of 100 GiB: how soon it serves, and how much memory that takes.

use super::download::noise;
use crate::figures::{Figures, median};
use crate::lab::Lab;
use crate::nbd::Nbd;
use crate::network::{Rate, shape_note};
use crate::say;
use anyhow::ensure;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::Instant;
use streamer_api::Prefetch;

const IMAGE_BYTES: u64 = 100 << 30;
const PIECE_BYTES: u64 = 1 << 20;
/// Content: this many pieces at random places.
const CONTENT_PIECES: u64 = 256;
const LINK: Rate = Rate::mbit(1000);
const READ_BYTES: usize = 4096;

/// `huge_first_read_ms` and `huge_rss_mb`.
pub(crate) async fn run(lab: &Lab, figures: &mut Figures) -> anyhow::Result<()> {
    let image = lab.disk.path().join("huge.raw");
    let places = make_image(&image)?;
    let began = Instant::now();
    let origin = lab.origin(&image, lab.disk.path()).await?;
    let publishing = began.elapsed().as_secs_f64();
    let host = lab.switch.plug()?;
    lab.switch.shape(&host, LINK)?;
    lab.switch.shape(&origin.host, LINK)?;
    let (mut firsts, mut resident, mut peak) = (vec![], vec![], vec![]);
    for round in 0..lab.rounds {
        let place = places[round % places.len()];
        let mut expected = vec![0; READ_BYTES];
        let mut file = File::open(&image)?;
        file.seek(SeekFrom::Start(place))?;
        file.read_exact(&mut expected)?;
        let streamer = lab.streamer(&host, "host").await?;
        let source = origin.source(Prefetch::Off, &[]);
        let since = Instant::now();
        streamer.put(&origin.published, &source).await?;
        let nbd = Nbd::connect(&streamer.nbd(), &origin.published.digest.hex()).await?;
        let bytes = nbd.read(place, u32::try_from(READ_BYTES)?).await?;
        firsts.push(since.elapsed().as_secs_f64() * 1e3);
        ensure!(bytes == expected, "the first read is wrong");
        let (now, most) = streamer.resident_mb()?;
        say(&format!(
            "round {}: first read after {:.0} ms, {now:.1} MB resident, {most:.1} MB at most",
            round + 1,
            firsts[round]
        ));
        resident.push(now);
        peak.push(most);
    }
    let image = format!(
        "100 GiB, {CONTENT_PIECES} MiB of it content at random places, pieces of 1 MiB, published in {publishing:.1} s; {}",
        shape_note(LINK)
    );
    let note = format!(
        "from naming the image on a daemon that runs, without a byte of it, to 4 KiB of content through NBD, bytes compared; \
         our own NBD client on a real daemon; {image}"
    );
    figures.add("huge_first_read_ms", median(&firsts), &firsts, &note);
    let note = format!("the host's daemon after that read; at most so far {:.1} MB; {image}", median(&peak));
    figures.add("huge_rss_mb", median(&resident), &resident, &note);
    Ok(())
}

/// A sparse file; where its content begins.
fn make_image(path: &Path) -> anyhow::Result<Vec<u64>> {
    let mut file = File::create(path)?;
    file.set_len(IMAGE_BYTES)?;
    let mut random = StdRng::seed_from_u64(5);
    let mut places = Vec::new();
    for seed in 0..CONTENT_PIECES {
        let place = random.random_range(0..IMAGE_BYTES / PIECE_BYTES) * PIECE_BYTES;
        file.seek(SeekFrom::Start(place))?;
        noise(&mut file, PIECE_BYTES, 1000 + seed)?;
        places.push(place);
    }
    Ok(places)
}
