//! Many hosts at once: recorded boots replayed through real daemons, each on its own shaped link.

use crate::figures::{Figures, median, percentile, ratios};
use crate::lab::{Idle, Lab, Origin, Streamer, float, present};
use crate::nbd::Nbd;
use crate::network::{Host, Rate, shape_note};
use crate::replay::{self, Trace};
use crate::{profile, say};
use anyhow::{Context as _, ensure};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use streamer_api::{Prefetch, Profile};

/// The crowd is replayed in slow motion, guests' times and links alike, so that two processors can carry all hosts: it
/// shows hosts with links of `LINK` times this.
const SLOW_MOTION: u32 = 10;
/// Chosen so that the links are the bound and not this machine's processors.
const LINK: Rate = Rate::mbit(20);
const PIECE_BYTES: u64 = 256 * 1024;
/// How often the waiting is told of.
const TELL_INTERVAL: Duration = Duration::from_secs(30);
/// Longest crowd.
const CROWD_TIMEOUT: Duration = Duration::from_secs(900);

/// One flash crowd.
struct Crowd {
    seconds: Vec<f64>,
    /// Payload the origin sent, and bytes on its link.
    origin_bytes: u64,
    origin_wire_bytes: u64,
    idle_percent: f64,
}

/// `crowd_p95_64_vs_1` and `crowd_origin_vs_unique`.
pub(crate) async fn run(lab: &Lab, figures: &mut Figures, size: usize) -> anyhow::Result<()> {
    let origin = lab.origin(&lab.workspace()?, lab.memory.path()).await?;
    lab.switch.shape(&origin.host, LINK)?;
    let hosts: Vec<Host> = (0..size).map(|_| lab.switch.plug()).collect::<Result<_, _>>()?;
    for host in &hosts {
        lab.switch.shape(host, LINK)?;
    }
    let present = present(&origin.streamer.status(&origin.published).await?);
    let traces: Vec<Trace> = replay::recorded()?.iter().map(|trace| trace.slowed(SLOW_MOTION)).collect();
    let runs: Vec<profile::Touches> = traces.iter().map(|trace| touches(trace, &present)).collect();
    let unique: BTreeSet<u32> = runs.iter().flatten().map(|(piece, _)| *piece).collect();
    let unique_bytes = PIECE_BYTES * u64::try_from(unique.len())?;
    let boot = profile::merge("boot", &runs);

    let (mut alone, mut crowds) = (vec![], vec![]);
    for round in 0..lab.rounds {
        let mut trace = traces.clone();
        trace.rotate_left(round % traces.len());
        let one = rush(lab, &origin, &hosts[..1], &trace, &boot).await?;
        let many = rush(lab, &origin, &hosts, &trace, &boot).await?;
        alone.push(percentile(&one.seconds, 95.0));
        say(&format!(
            "round {}: 1 host {:.2} s; {size} hosts p50 {:.2} s, p95 {:.2} s, origin sent {:.2} times the touched bytes, \
             processors {:.0} % idle",
            round + 1,
            alone[round],
            median(&many.seconds),
            percentile(&many.seconds, 95.0),
            float(many.origin_bytes) / float(unique_bytes),
            many.idle_percent,
        ));
        crowds.push(many);
    }
    let recorded: Vec<Duration> = traces.iter().map(Trace::duration).collect();
    let recorded_s = median(&crate::lab::seconds(&recorded));
    report(figures, size, &alone, &crowds, (unique_bytes, recorded_s));
    Ok(())
}

fn report(
    figures: &mut Figures,
    size: usize,
    alone: &[f64],
    crowds: &[Crowd],
    (unique_bytes, recorded_s): (u64, f64),
) {
    let p95: Vec<f64> = crowds.iter().map(|crowd| percentile(&crowd.seconds, 95.0)).collect();
    let p50: Vec<f64> = crowds.iter().map(|crowd| median(&crowd.seconds)).collect();
    let idle: Vec<f64> = crowds.iter().map(|crowd| crowd.idle_percent).collect();
    let origin: Vec<f64> =
        crowds.iter().map(|crowd| float(crowd.origin_bytes) / float(unique_bytes)).collect();
    let wire: Vec<f64> =
        crowds.iter().map(|crowd| float(crowd.origin_wire_bytes) / float(unique_bytes)).collect();
    let replayed = format!(
        "replayed, not real guests: {size} real daemons, one namespace each, every one's NBD export read as one of four \
         recorded boots with its think times, in slow motion 1:{SLOW_MOTION} ({recorded_s:.1} s from a local disk) as the links are, which stand \
         for {SLOW_MOTION} times their rate: two processors carry all hosts; all starting at once, the profile merged from the recordings; one origin \
         with the same link; {}; peers without TLS, caches on tmpfs; processors {:.0} % idle meanwhile",
        shape_note(LINK),
        median(&idle),
    );
    let note = format!(
        "p95 time to the end of the boot at {size} hosts {:.2} s (p50 {:.2} s) ÷ at 1 host {:.2} s; {replayed}",
        median(&p95),
        median(&p50),
        median(alone)
    );
    // A crowd of another size is another figure.
    let name = format!("crowd_p95_{size}_vs_1");
    figures.add(&name, median(&p95) / median(alone), &ratios(&p95, alone), &note);
    let note = format!(
        "payload the origin sent to {size} hosts ÷ {:.1} MB of pieces that any of them touched; on the wire with headers and \
         messages {:.3}; {replayed}",
        float(unique_bytes) / 1e6,
        median(&wire)
    );
    let name = if size == 64 {
        "crowd_origin_vs_unique".to_owned()
    } else {
        format!("crowd_origin_vs_unique_{size}")
    };
    figures.add(&name, median(&origin), &origin, &note);
}

fn touches(trace: &Trace, present: &[u32]) -> profile::Touches {
    let touched = trace.touched(PIECE_BYTES).into_iter();
    touched
        .filter(|(piece, _)| present.binary_search(piece).is_ok())
        .map(|(piece, at)| (piece, u32::try_from(at.as_millis()).unwrap_or(u32::MAX)))
        .collect()
}

/// Starts a daemon on each host, then names the image and replays a boot on all of them at once.
async fn rush(
    lab: &Lab,
    origin: &Origin,
    hosts: &[Host],
    traces: &[Trace],
    boot: &Profile,
) -> anyhow::Result<Crowd> {
    let starting = hosts.iter().map(|host| lab.streamer(host, "host"));
    let streamers: Vec<Streamer> = futures::future::try_join_all(starting).await?;
    let before =
        (origin.streamer.status(&origin.published).await?.bytes_uploaded, origin.host.carried_bytes()?.1);
    let idle = Idle::begin();
    let since = Instant::now();
    let boots = streamers.iter().zip(traces.iter().cycle());
    let boots = boots.map(|(streamer, trace)| replay_boot(origin, streamer, trace, boot, since));
    let took = in_time(boots, since, || slowest(origin, &streamers)).await?;
    let idle_percent = idle.percent();
    let after =
        (origin.streamer.status(&origin.published).await?.bytes_uploaded, origin.host.carried_bytes()?.1);
    drop(streamers);
    lab.tracker.forget(&hosts.iter().map(|host| host.address).collect::<Vec<_>>());
    Ok(Crowd {
        seconds: crate::lab::seconds(&took),
        origin_bytes: after.0 - before.0,
        origin_wire_bytes: after.1 - before.1,
        idle_percent,
    })
}

/// Waits for all, telling how many are done, and not for ever.
async fn in_time<F: Future<Output = String>>(
    boots: impl Iterator<Item = impl Future<Output = anyhow::Result<Duration>>>,
    since: Instant,
    slowest: impl Fn() -> F,
) -> anyhow::Result<Vec<Duration>> {
    let mut under_way: FuturesUnordered<_> = boots.collect();
    let mut told = tokio::time::interval(TELL_INTERVAL);
    told.reset();
    let mut took = Vec::new();
    loop {
        tokio::select! {
            boot = under_way.next() => match boot {
                Some(boot) => took.push(boot?),
                None => return Ok(took),
            },
            _ = told.tick() => {
                let (s, done) = (since.elapsed().as_secs_f64(), took.len());
                say(&format!("after {s:.0} s {done} boots are done, {} are not; {}", under_way.len(), slowest().await));
                ensure!(since.elapsed() < CROWD_TIMEOUT, "the crowd does not get through");
            }
        }
    }
}

/// The host that has least, for whoever wonders why it takes so long.
async fn slowest(origin: &Origin, streamers: &[Streamer]) -> String {
    let asked = streamers
        .iter()
        .enumerate()
        .map(|(number, streamer)| async move { (number, streamer.status(&origin.published).await.ok()) });
    let answers = futures::future::join_all(asked).await;
    let least = answers
        .iter()
        .filter_map(|(number, status)| Some((number, status.as_ref()?)))
        .min_by_key(|(_, status)| status.pieces_local);
    least.map_or_else(String::new, |(number, status)| {
        format!(
            "host {} has least: {} pieces, {} reads wait, {} peers with {} pieces in all, {} kB/s, {}",
            number + 1,
            status.pieces_local,
            status.stalls.waiting,
            status.peers.len(),
            status.peers.iter().map(|peer| u64::from(peer.pieces)).sum::<u64>(),
            status.rates.down_bytes_per_s / 1000,
            status.trouble.as_deref().unwrap_or("no trouble"),
        )
    })
}

async fn replay_boot(
    origin: &Origin,
    streamer: &Streamer,
    trace: &Trace,
    boot: &Profile,
    since: Instant,
) -> anyhow::Result<Duration> {
    let source = origin.source(Prefetch::Off, std::slice::from_ref(boot));
    streamer.put(&origin.published, &source).await?;
    let nbd = Nbd::connect(&streamer.nbd(), &origin.published.digest.hex()).await?;
    trace.replay(&nbd).await.context("a replayed boot")?;
    Ok(since.elapsed())
}
