//! Reads of absent pieces, with and without a prefetch that fills the link.

use super::download::noise;
use crate::figures::{Figures, median, percentile, ratios};
use crate::lab::{Lab, Origin, Streamer, float, until};
use crate::nbd::Nbd;
use crate::network::{Host, Rate, shape_note};
use crate::say;
use anyhow::ensure;
use rand::seq::IndexedRandom as _;
use rand::{SeedableRng as _, rngs::StdRng};
use std::time::{Duration, Instant};
use streamer_api::Prefetch;

const LINK: Rate = Rate::mbit(1000);
const IMAGE_BYTES: u64 = 2 << 30;
/// Reads of each arm in each round.
const READS: usize = 300;
const READ_BYTES: u32 = 4096;
/// What the guest does between two reads.
const THINK: Duration = Duration::from_millis(10);
/// The busy arm ends when so much of the image is here: what is left must still be a fair draw.
const SHARE_MAX: f64 = 0.8;
/// A p99 of fewer reads would be their maximum.
const READS_MIN: usize = 100;

/// One arm of one round.
struct Reads {
    ms: Vec<f64>,
    /// Share of the link that was filled meanwhile.
    filled: f64,
}

/// `urgent_p99_busy_vs_idle`.
pub(crate) async fn run(lab: &Lab, figures: &mut Figures) -> anyhow::Result<()> {
    let image = lab.disk.path().join("noise.raw");
    noise(&mut std::fs::File::create(&image)?, IMAGE_BYTES, 3)?;
    let origin = lab.origin(&image, lab.disk.path()).await?;
    std::fs::remove_file(&image)?;
    let host = lab.switch.plug()?;
    lab.switch.shape(&host, LINK)?;
    lab.switch.shape(&origin.host, LINK)?;
    let (mut idle, mut busy) = (vec![], vec![]);
    for round in 0..lab.rounds {
        let mut arms = [("idle", Prefetch::Off, &mut idle), ("busy", Prefetch::Full, &mut busy)];
        if round % 2 == 1 {
            arms.reverse();
        }
        for (arm, prefetch, results) in arms {
            let reads = reads(lab, &origin, &host, prefetch, u64::try_from(round)?).await?;
            say(&format!(
                "round {}: {arm}: {} reads, p50 {:.2} ms, p99 {:.2} ms, link {:.0} % full",
                round + 1,
                reads.ms.len(),
                median(&reads.ms),
                percentile(&reads.ms, 99.0),
                reads.filled * 100.0
            ));
            results.push(reads);
        }
    }
    report(figures, &idle, &busy);
    Ok(())
}

fn report(figures: &mut Figures, idle: &[Reads], busy: &[Reads]) {
    let p99 = |arm: &[Reads]| arm.iter().map(|reads| percentile(&reads.ms, 99.0)).collect::<Vec<_>>();
    let p50 = |arm: &[Reads]| median(&arm.iter().map(|reads| median(&reads.ms)).collect::<Vec<_>>());
    let (idle_p99, busy_p99) = (p99(idle), p99(busy));
    let filled: Vec<f64> = busy.iter().map(|reads| reads.filled * 100.0).collect();
    let note = format!(
        "p99 of reads of 4 KiB in random absent pieces, {READS} a round with 10 ms between them, prefetch full {:.2} ms (p50 \
         {:.2}, link {:.0} % full) ÷ prefetch off {:.2} ms (p50 {:.2}); medians of the rounds' p99; our own NBD client on a \
         real daemon, an image of 2 GiB of noise, one origin; {}",
        median(&busy_p99),
        p50(busy),
        median(&filled),
        median(&idle_p99),
        p50(idle),
        shape_note(LINK),
    );
    let value = median(&busy_p99) / median(&idle_p99);
    figures.add("urgent_p99_busy_vs_idle", value, &ratios(&busy_p99, &idle_p99), &note);
}

async fn reads(
    lab: &Lab,
    origin: &Origin,
    host: &Host,
    prefetch: Prefetch,
    seed: u64,
) -> anyhow::Result<Reads> {
    let streamer = lab.streamer(host, "host").await?;
    let published = &origin.published;
    streamer.put(published, &origin.source(prefetch, &[])).await?;
    until("the origin to be a peer", Duration::from_secs(30), || async {
        let status = streamer.status(published).await?;
        let warm = prefetch == Prefetch::Off || status.pieces_local > 100;
        Ok((warm && !status.peers.is_empty()).then_some(()))
    })
    .await?;
    let nbd = Nbd::connect(&streamer.nbd(), &published.digest.hex()).await?;
    let mut random = StdRng::seed_from_u64(seed);
    let began = (Instant::now(), host.carried_bytes()?.0);
    let mut ms = Vec::new();
    while ms.len() < READS {
        tokio::time::sleep(THINK).await;
        let Some(piece) = absent(&streamer, origin, &mut random).await? else { break };
        let asked = Instant::now();
        nbd.read(piece * 256 * 1024, READ_BYTES).await?;
        ms.push(asked.elapsed().as_secs_f64() * 1e3);
    }
    let filled = LINK.seconds(host.carried_bytes()?.0 - began.1) / began.0.elapsed().as_secs_f64();
    ensure!(
        ms.len() >= READS_MIN,
        "the prefetch was done after {} reads: a larger image is needed",
        ms.len()
    );
    Ok(Reads { ms, filled })
}

/// A piece that is neither here nor on its way.
async fn absent(streamer: &Streamer, origin: &Origin, random: &mut StdRng) -> anyhow::Result<Option<u64>> {
    let status = streamer.status(&origin.published).await?;
    if float(status.pieces_local.into()) > SHARE_MAX * float(status.pieces.into()) {
        return Ok(None);
    }
    let map = status.piece_map.unwrap_or_default();
    let pieces: Vec<u64> =
        (0..).zip(map.bytes()).filter(|(_, mark)| *mark == b'.').map(|(piece, _)| piece).collect();
    Ok(pieces.choose(random).copied())
}
