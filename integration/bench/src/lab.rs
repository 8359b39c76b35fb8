//! What every arm stands on: folders, a switch, a tracker, an origin and hosts with real daemons.

use crate::figures::median;
use crate::leash::{Leashed, output};
use crate::network::{Host, SWITCH, Switch};
use crate::tracker::Tracker;
use crate::{argv, say};
use anyhow::{Context as _, bail};
use std::future::Future;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use streamer_api::{ImageSource, ImageStatus, Prefetch, Profile, PublishRequest, Published};
use streamer_client::Client;
use tempfile::TempDir;

/// Where streamers listen for peers.
const PEER_PORT: u16 = 6881;
const TRACKER_PORT: u16 = 7000;
/// How often a condition is looked at. It is the resolution of what is measured by waiting.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// Longest start of a daemon.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Waits until `check` gives something.
pub(crate) async fn until<T, F>(
    what: &str,
    patience: Duration,
    mut check: impl FnMut() -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = check().await? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("after {} s still waiting for {what}", patience.as_secs());
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Everything that is removed at the end.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) switch: Switch,
    pub(crate) tracker: Tracker,
    /// On tmpfs: caches, sockets, overlays. What is measured is not this machine's disk.
    pub(crate) memory: TempDir,
    /// On disk: images that are large.
    pub(crate) disk: TempDir,
    streamer: PathBuf,
    pub(crate) appliances: PathBuf,
    pub(crate) rounds: usize,
}

impl Lab {
    /// `streamer` is the program; `appliances` the folder with `workspace/system.raw`.
    pub(crate) fn new(streamer: &Path, appliances: &Path, rounds: usize) -> anyhow::Result<Self> {
        let switch = Switch::new()?;
        let tracker = Tracker::start(&switch.network(), SocketAddrV4::new(SWITCH, TRACKER_PORT))?;
        Ok(Self {
            tracker,
            memory: folder("/dev/shm")?,
            disk: folder("/var/tmp")?,
            streamer: streamer
                .canonicalize()
                .with_context(|| format!("no program {}", streamer.display()))?,
            appliances: appliances.to_owned(),
            switch,
            rounds,
        })
    }

    /// The workspace appliance's disk.
    pub(crate) fn workspace(&self) -> anyhow::Result<PathBuf> {
        let path = self.appliances.join("workspace/system.raw");
        anyhow::ensure!(path.exists(), "no {}: run `make appliances`", path.display());
        Ok(path)
    }

    /// Starts a daemon with an empty cache in memory on a host.
    pub(crate) async fn streamer(&self, host: &Host, role: &str) -> anyhow::Result<Streamer> {
        Streamer::start(&self.streamer, host, role, TempDir::new_in(self.memory.path())?).await
    }

    /// A new host with an origin that has published a file into a cache below `folder`.
    pub(crate) async fn origin(&self, image: &Path, folder: &Path) -> anyhow::Result<Origin> {
        let host = self.switch.plug()?;
        let streamer = Streamer::start(&self.streamer, &host, "origin", TempDir::new_in(folder)?).await?;
        let began = Instant::now();
        let published = streamer.publish(image, &self.tracker.url).await?;
        say(&format!("published {} in {:.1} s", image.display(), began.elapsed().as_secs_f64()));
        Ok(Origin { host, streamer, published, tracker: self.tracker.url.clone() })
    }
}

fn folder(parent: &str) -> anyhow::Result<TempDir> {
    tempfile::Builder::new()
        .prefix("collective-bench.")
        .tempdir_in(parent)
        .with_context(|| format!("cannot make a folder in {parent}"))
}

/// A published image and who seeds it.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) host: Host,
    pub(crate) streamer: Streamer,
    pub(crate) published: Published,
    tracker: String,
}

impl Origin {
    /// What a host is given to name the image.
    pub(crate) fn source(&self, prefetch: Prefetch, profiles: &[Profile]) -> ImageSource {
        source(&self.published, &self.tracker, prefetch, profiles)
    }
}

/// What a host is given to name an image.
pub(crate) fn source(
    published: &Published,
    tracker: &str,
    prefetch: Prefetch,
    profiles: &[Profile],
) -> ImageSource {
    let (metainfo, manifest) = (published.metainfo.clone(), published.manifest.clone());
    let source = ImageSource::new(metainfo, manifest, tracker.to_owned());
    ImageSource { prefetch, profiles: profiles.to_vec(), ..source }
}

/// A running daemon; killed, and its cache removed, when dropped.
#[derive(Debug)]
pub(crate) struct Streamer {
    pub(crate) client: Client,
    leashed: Leashed,
    folder: TempDir,
}

impl Streamer {
    async fn start(program: &Path, host: &Host, role: &str, folder: TempDir) -> anyhow::Result<Self> {
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (api, log, config) = (path("api.sock"), path("log"), path("config.toml"));
        let text = format!(
            "socket = {api:?}\nnbd_socket = {:?}\ncache_dir = {:?}\nlisten = \"{}:{PEER_PORT}\"\nrole = {role:?}\npeer_tls = \"off\"\n",
            path("nbd.sock"),
            path("cache"),
            host.address,
        );
        std::fs::write(&config, text)?;
        let leashed =
            Leashed::start(Some(&host.network()), &argv![program, "--config", config], Path::new(&log))?;
        let streamer = Self { client: Client::new(&api), leashed, folder };
        let answers = until("a streamer to answer", START_TIMEOUT, || async {
            Ok(streamer.client.status().await.ok())
        });
        let tail = || format!("its log: {}", std::fs::read_to_string(&log).unwrap_or_default());
        answers.await.with_context(tail)?;
        Ok(streamer)
    }

    pub(crate) fn nbd(&self) -> PathBuf {
        self.folder.path().join("nbd.sock")
    }

    pub(crate) async fn publish(&self, image: &Path, tracker: &str) -> anyhow::Result<Published> {
        let request = PublishRequest {
            path: image.to_owned(),
            tracker: tracker.to_owned(),
            piece_bytes: None,
            public: false,
        };
        let published = self.client.publish(&request, |_| {}).await;
        published.with_context(|| format!("cannot publish {}", image.display()))
    }

    pub(crate) async fn put(
        &self,
        published: &Published,
        source: &ImageSource,
    ) -> anyhow::Result<ImageStatus> {
        self.client.put_image(published.digest, source).await.context("the streamer refuses an image")
    }

    pub(crate) async fn status(&self, published: &Published) -> anyhow::Result<ImageStatus> {
        self.client.image(published.digest).await.context("the streamer does not know an image")
    }

    /// Waits until every piece is here.
    pub(crate) async fn complete(
        &self,
        published: &Published,
        patience: Duration,
    ) -> anyhow::Result<ImageStatus> {
        let done = |status: &ImageStatus| status.pieces_local + status.pieces_zero >= status.pieces;
        until("an image to be complete", patience, || async {
            Ok(Some(self.status(published).await?).filter(done))
        })
        .await
    }

    /// Megabytes in memory: now, and at most so far.
    pub(crate) fn resident_mb(&self) -> anyhow::Result<(f64, f64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.leashed.pid))?;
        let field = |name: &str| -> Option<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: f64 = line.split_ascii_whitespace().next()?.parse().ok()?;
            Some(kib * 1024.0 / 1e6)
        };
        field("VmRSS:").zip(field("VmHWM:")).context("the kernel does not say how large a process is")
    }
}

/// Pieces of an image that are not zero.
pub(crate) fn present(status: &ImageStatus) -> Vec<u32> {
    let map = status.piece_map.as_deref().unwrap_or_default();
    (0..).zip(map.bytes()).filter(|(_, mark)| *mark != b'z').map(|(piece, _)| piece).collect()
}

/// Bytes of a piece as a float, for ratios.
#[expect(clippy::cast_precision_loss, reason = "bytes of a disk fit a float exactly")]
pub(crate) fn float(bytes: u64) -> f64 {
    bytes as f64
}

/// Share of the processors' time that is idle.
#[derive(Debug)]
pub(crate) struct Idle(Option<(u64, u64)>);

impl Idle {
    pub(crate) fn begin() -> Self {
        Self(Self::look())
    }

    /// Since [`Idle::begin`], in percent.
    pub(crate) fn percent(&self) -> f64 {
        let Some(((idle, all), (idle_now, all_now))) = self.0.zip(Self::look()) else { return f64::NAN };
        100.0 * float(idle_now - idle) / float((all_now - all).max(1))
    }

    fn look() -> Option<(u64, u64)> {
        let text = std::fs::read_to_string("/proc/stat").ok()?;
        let fields: Vec<u64> = text
            .lines()
            .next()?
            .split_ascii_whitespace()
            .skip(1)
            .map_while(|field| field.parse().ok())
            .collect();
        // user nice system idle iowait irq softirq steal; guest time is inside user.
        Some((fields.get(3)? + fields.get(4)?, fields.iter().take(8).sum()))
    }
}

/// Copies a file without turning its holes into zeroes.
pub(crate) fn copy_sparse(from: &Path, to: &Path) -> anyhow::Result<()> {
    output(&argv!["cp", "--sparse=always", "--reflink=auto", from, to]).map(drop)
}

/// Durations in seconds, for figures.
pub(crate) fn seconds(durations: &[Duration]) -> Vec<f64> {
    durations.iter().map(Duration::as_secs_f64).collect()
}

/// `12.34 s` of several.
pub(crate) fn median_s(samples: &[f64]) -> String {
    format!("{:.2} s", median(samples))
}
