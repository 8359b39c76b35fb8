//! Reads of what is here, beside qemu-nbd and nbdkit: the same clients against each.

use super::download::noise;
use crate::figures::{Figures, median, ratios};
use crate::lab::{Lab, until};
use crate::leash::{Leashed, output};
use crate::{argv, say};
use anyhow::Context as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use streamer_api::Prefetch;

const IMAGE_BYTES: u64 = 512 << 20;
/// Reads of 4 KiB a run of `qemu-img bench`, at queue depths 1 and 16.
const COUNT: [(u32, u32); 2] = [(1, 10_000), (16, 40_000)];
/// `qemu-img bench` reads at a fixed stride: a prime number of pages, so that it visits all of them scattered.
const STRIDE_BYTES: u64 = 4096 * 7919;
/// Length of a run of fio.
const FIO_SECONDS: u32 = 1;
/// These runs are short: each round has so many of them, the servers taking turns.
const TURNS: usize = 3;
const CLIENTS: [&str; 2] = ["qemu-img bench", "fio"];

/// Who serves.
struct Server {
    name: &'static str,
    url: String,
    /// Reads a second by client and depth, a round each.
    rates: [[Vec<f64>; 2]; 2],
    /// Not ours is ended with this.
    _leashed: Option<Leashed>,
}

/// `warm_iops_vs_*`.
pub(crate) async fn run(lab: &Lab, figures: &mut Figures) -> anyhow::Result<()> {
    let image = lab.memory.path().join("warm.raw");
    noise(&mut std::fs::File::create(&image)?, IMAGE_BYTES, 4)?;
    let origin = lab.origin(&image, lab.memory.path()).await?;
    origin.streamer.put(&origin.published, &origin.source(Prefetch::Off, &[])).await?;
    let ours = nbd_url(&origin.streamer.nbd(), &origin.published.digest.hex());
    let mut servers = [
        Server { name: "ours", url: ours, rates: Default::default(), _leashed: None },
        qemu_nbd(lab.memory.path(), &image).await?,
        nbdkit(lab.memory.path(), &image).await?,
    ];
    for server in &servers {
        // Once through, so that every arm reads what is in memory.
        qemu_img(&server.url, 16, u32::try_from(IMAGE_BYTES / 4096)?).await?;
    }
    for round in 0..lab.rounds * TURNS {
        for (depth_index, (depth, count)) in COUNT.into_iter().enumerate() {
            for (client, named) in CLIENTS.iter().enumerate() {
                for server in &mut servers {
                    let rate = match client {
                        0 => qemu_img(&server.url, depth, count).await,
                        _ => fio(&server.url, depth).await,
                    };
                    let rate = rate.with_context(|| format!("{named} against {}", server.name))?;
                    server.rates[client][depth_index].push(rate);
                }
                let rates: Vec<_> = servers
                    .iter()
                    .map(|server| format!("{} {:.0}", server.name, server.rates[client][depth_index][round]))
                    .collect();
                say(&format!("turn {}: {named} QD {depth}: reads/s {}", round + 1, rates.join(", ")));
            }
        }
    }
    let [ours, others @ ..] = &servers;
    for other in others {
        for (index, (depth, _)) in COUNT.iter().enumerate() {
            compare(figures, ours, other, index, *depth);
        }
    }
    Ok(())
}

/// The figure is the worse of the two clients' ratios.
fn compare(figures: &mut Figures, ours: &Server, other: &Server, index: usize, depth: u32) {
    let ratio = |client: usize| {
        let (above, below) = (&ours.rates[client][index], &other.rates[client][index]);
        (median(above) / median(below), ratios(above, below))
    };
    let told: Vec<_> = (0..CLIENTS.len())
        .map(|client| {
            let (above, below) = (median(&ours.rates[client][index]), median(&other.rates[client][index]));
            format!("{} {above:.0} ÷ {below:.0} = {:.2}", CLIENTS[client], above / below)
        })
        .collect();
    let worse = (0..CLIENTS.len()).map(ratio).min_by(|a, b| a.0.total_cmp(&b.0));
    let Some((value, rounds)) = worse else { return };
    let note = format!(
        "reads/s of 4 KiB at queue depth {depth}, ours ÷ {}, all in memory, unix sockets, 512 MiB of noise: {}; the worse of \
         the two clients counts; fio reads at random, qemu-img bench at a stride of 7919 pages",
        other.name,
        told.join(", "),
    );
    let name = format!("warm_iops_vs_{}_qd{depth}", other.name.replace('-', "_"));
    figures.add(&name, value, &rounds, &note);
}

fn nbd_url(socket: &Path, export: &str) -> String {
    format!("nbd+unix:///{export}?socket={}", socket.display())
}

async fn qemu_nbd(folder: &Path, image: &Path) -> anyhow::Result<Server> {
    let socket = folder.join("qemu-nbd.sock");
    let mut argv = argv!["qemu-nbd", "--read-only", "--persistent", "--shared=0", "--format=raw"].to_vec();
    argv.extend(argv!["--socket", &socket, image]);
    serve("qemu-nbd", socket, &argv, folder).await
}

async fn nbdkit(folder: &Path, image: &Path) -> anyhow::Result<Server> {
    let socket = folder.join("nbdkit.sock");
    serve("nbdkit", socket.clone(), &argv!["nbdkit", "-f", "-r", "-U", &socket, "file", image], folder).await
}

async fn serve(
    name: &'static str,
    socket: PathBuf,
    argv: &[std::ffi::OsString],
    folder: &Path,
) -> anyhow::Result<Server> {
    let leashed = Leashed::start(None, argv, &folder.join(format!("{name}.log")))?;
    until(name, Duration::from_secs(10), || async { Ok(socket.exists().then_some(())) }).await?;
    Ok(Server { name, url: nbd_url(&socket, ""), rates: Default::default(), _leashed: Some(leashed) })
}

async fn qemu_img(url: &str, depth: u32, count: u32) -> anyhow::Result<f64> {
    let argv = argv![
        "qemu-img",
        "bench",
        "-f",
        "raw",
        "-s",
        "4096",
        "-S",
        STRIDE_BYTES.to_string(),
        "-d",
        depth.to_string(),
        "-c",
        count.to_string(),
        url,
    ];
    let text = tokio::task::spawn_blocking(move || output(&argv)).await??;
    Ok(f64::from(count) / run_seconds(&text).with_context(|| format!("qemu-img bench says {text:?}"))?)
}

fn run_seconds(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("Run completed in ")?.split(' ').next()?.parse().ok())
}

async fn fio(url: &str, depth: u32) -> anyhow::Result<f64> {
    let argv = argv![
        "fio",
        "--name=warm",
        "--ioengine=nbd",
        format!("--uri={url}"),
        "--rw=randread",
        "--bs=4k",
        format!("--size={IMAGE_BYTES}"),
        format!("--iodepth={depth}"),
        "--time_based",
        format!("--runtime={FIO_SECONDS}"),
        "--output-format=json",
    ];
    let text = tokio::task::spawn_blocking(move || output(&argv)).await??;
    let report: serde_json::Value =
        serde_json::from_str(text.get(text.find('{').unwrap_or(0)..).unwrap_or_default())?;
    report["jobs"][0]["read"]["iops"].as_f64().context("fio says no reads a second")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_and_not_the_request_count_is_timed() {
        let text =
            "Sending 10 read requests, 4096 bytes each, 1 in parallel\nRun completed in 0.25 seconds.\n";
        assert_eq!(run_seconds(text), Some(0.25));
    }
}
