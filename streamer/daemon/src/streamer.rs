//! Every image on this host, and what may be done with them.

use crate::config::Config;
use crate::diary::Diary;
use crate::events::Feed;
use crate::image::{self, Image};
use crate::limits::Throttle;
use crate::problem::Refusal;
use crate::shelf::Shelf;
use crate::sources;
use anyhow::Context as _;
use futures::{StreamExt as _, future, stream};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use streamer_api::{
    ImageSource, ImageStatus, Limits, Prefetch, Profile, PublishProgress, Published, Sources, StreamerStatus,
};
use streamer_export::Server;
use streamer_plan::Background;
use streamer_swarm::{Engine, Torrent};
use streamer_volume::{Cache, Draft, PieceState, Privacy, Settings, Volume};
use tokio::sync::{Mutex, Notify};
use types::Digest;

/// Images opened at a time when the daemon starts: each waits for the disk.
const OPENED_AT_ONCE: usize = 16;

pub(crate) struct Open {
    pub(crate) image: Arc<Image>,
    settings: Settings,
}

/// The daemon's state.
pub(crate) struct Streamer {
    pub(crate) cache: Arc<Cache>,
    pub(crate) engine: Engine,
    exports: Server,
    /// Held while an image is named, removed, evicted or installed: these are one after the other.
    pub(crate) images: Mutex<BTreeMap<Digest, Open>>,
    pub(crate) flush: Arc<Notify>,
    nbd_socket: String,
    site: Option<String>,
    privacy: Privacy,
    feed: Feed,
    throttle: Arc<Throttle>,
}

impl Streamer {
    /// Opens the cache, joins the swarm, and takes up every image that was named or published before.
    pub(crate) async fn start(config: &Config, engine: streamer_swarm::Config) -> anyhow::Result<Arc<Self>> {
        let cache_bytes_max = config.cache_bytes_max.map(|size| size.0);
        let cache = Cache::open(&config.cache_dir, cache_bytes_max)?;
        let listen = engine.listen;
        let engine = Engine::start(engine).await.with_context(|| format!("cannot listen on {listen}"))?;
        let throttle = Throttle::open(&config.cache_dir, &engine)
            .with_context(|| format!("cannot read the limits kept in {}", config.cache_dir.display()))?;
        let streamer = Arc::new(Self {
            cache: Arc::new(cache),
            engine,
            exports: Server::new(),
            images: Mutex::default(),
            flush: Arc::new(Notify::new()),
            nbd_socket: config.nbd_socket.display().to_string(),
            site: config.site.clone(),
            privacy: config.privacy(),
            feed: Feed::new(),
            throttle: Arc::new(throttle),
        });
        let mut images = streamer.images.lock().await;
        let taken_up = stream::iter(streamer.cache.images()?)
            .map(|digest| streamer.take_up(digest))
            .buffer_unordered(OPENED_AT_ONCE);
        images.extend(taken_up.filter_map(future::ready).collect::<Vec<_>>().await);
        drop(images);
        Ok(streamer)
    }

    /// One image that was named or published before. A bad one must not keep the others from their guests.
    async fn take_up(&self, digest: Digest) -> Option<(Digest, Open)> {
        let opened = match self.cache.settings(digest) {
            Ok(settings) if settings.named || settings.pinned => self.open(digest, settings).await,
            Ok(_) => return None,
            Err(error) => Err(error.into()),
        };
        match opened {
            Ok(open) => Some((digest, open)),
            Err(refusal) => {
                tracing::error!(image = %digest, %refusal, "cannot take up an image");
                None
            }
        }
    }

    /// The block export.
    pub(crate) fn exports(&self) -> Server {
        self.exports.clone()
    }

    /// Where peers reach us.
    pub(crate) fn announce_addr(&self) -> SocketAddr {
        self.engine.announce_addr()
    }

    /// Names an image. Done when it is exported.
    pub(crate) async fn put(&self, digest: Digest, source: ImageSource) -> Result<ImageStatus, Refusal> {
        let (metainfo, manifest, privacy) = (source.metainfo.clone(), source.manifest.clone(), self.privacy);
        let parse = move || streamer_volume::Image::parse(&metainfo.0, &manifest.0, Some(digest), privacy);
        let parsed = blocking(parse).await??;
        sources::check(&source, parsed.geometry.pieces(), privacy)?;
        let mut images = self.images.lock().await;
        let settings = Settings { source, named: true, pinned: false };
        let image = match images.get_mut(&digest) {
            Some(open) => {
                let settings = Settings { pinned: open.settings.pinned, ..settings };
                if settings != open.settings {
                    self.cache.set_settings(digest, &settings)?;
                }
                let anew = !open.settings.named;
                open.settings = settings;
                if anew {
                    open.image.volume.begin_counting();
                }
                self.apply(open, anew);
                Arc::clone(&open.image)
            }
            None => {
                self.cache.set_settings(digest, &settings)?;
                let open = self.open(digest, settings).await?;
                open.image.volume.begin_counting();
                let image = Arc::clone(&open.image);
                images.insert(digest, open);
                image
            }
        };
        drop(images);
        Ok(image.status(false).await)
    }

    /// Exports and fetches an image no longer. One that was published here is seeded all the same.
    pub(crate) async fn delete(&self, digest: Digest) -> Result<(), Refusal> {
        let mut images = self.images.lock().await;
        let Some(open) = images.get_mut(&digest).filter(|open| open.settings.named) else { return Ok(()) };
        let settings = Settings { named: false, ..open.settings.clone() };
        self.cache.set_settings(digest, &settings)?;
        open.settings = settings;
        self.exports.remove(&open.image.export_name());
        open.image.torrent.set_background(Background::Off);
        open.image.torrent.set_profile(Vec::new());
        if !open.settings.pinned {
            let image = Arc::clone(&open.image);
            images.remove(&digest);
            self.close(image).await?;
        }
        Ok(())
    }

    /// Removes an image's bytes.
    pub(crate) async fn evict(&self, digest: Digest) -> Result<(), Refusal> {
        let mut images = self.images.lock().await;
        if images.get(&digest).is_some_and(|open| open.settings.named) {
            return Err(Refusal::Exported(digest));
        }
        if let Some(open) = images.remove(&digest) {
            self.close(open.image).await?;
        }
        Ok(self.cache.remove(digest)?)
    }

    /// Every image that is named or seeded.
    pub(crate) async fn list(&self) -> Vec<ImageStatus> {
        let images: Vec<Arc<Image>> =
            self.images.lock().await.values().map(|open| Arc::clone(&open.image)).collect();
        futures::future::join_all(images.iter().map(|image| image.status(false))).await
    }

    /// One image.
    pub(crate) async fn get(&self, digest: Digest) -> Result<ImageStatus, Refusal> {
        let image = self.images.lock().await.get(&digest).map(|open| Arc::clone(&open.image));
        match image {
            Some(image) => Ok(image.status(true).await),
            None => Err(Refusal::Unknown(digest)),
        }
    }

    /// One image, for its routes.
    pub(crate) async fn image(&self, digest: Digest) -> Result<Arc<Image>, Refusal> {
        let images = self.images.lock().await;
        images.get(&digest).map(|open| Arc::clone(&open.image)).ok_or(Refusal::Unknown(digest))
    }

    /// Replaces an image's profiles, for its readers too.
    pub(crate) async fn set_profiles(&self, digest: Digest, profiles: Vec<Profile>) -> Result<(), Refusal> {
        let mut images = self.images.lock().await;
        let open = images.get_mut(&digest).ok_or(Refusal::Unknown(digest))?;
        sources::check_profiles(&profiles, open.image.volume.image().geometry.pieces())?;
        let source = ImageSource { profiles, ..open.settings.source.clone() };
        let settings = Settings { source, ..open.settings.clone() };
        self.cache.set_settings(digest, &settings)?;
        open.settings = settings;
        open.image.follow(open.image.readers.set_profiles(&open.settings.source.profiles));
        Ok(())
    }

    /// What happens.
    pub(crate) fn feed(&self) -> &Feed {
        &self.feed
    }

    /// The rate limits in force.
    pub(crate) fn limits(&self) -> Limits {
        self.throttle.get()
    }

    /// Puts other rate limits in force.
    pub(crate) async fn set_limits(&self, limits: Limits) -> Result<Limits, Refusal> {
        let (throttle, engine) = (Arc::clone(&self.throttle), self.engine.clone());
        blocking(move || throttle.set(limits, &engine)).await?
    }

    /// The daemon as a whole.
    pub(crate) async fn status(&self) -> StreamerStatus {
        let images = self.images.lock().await;
        StreamerStatus {
            nbd_socket: self.nbd_socket.clone(),
            listen: self.engine.announce_addr().to_string(),
            cache_bytes: self.cache.bytes(),
            free_bytes: self.cache.free_bytes(),
            images: u32::try_from(images.values().filter(|open| open.settings.named).count())
                .unwrap_or(u32::MAX),
            limits: self.throttle.get(),
            site: self.site.clone(),
        }
    }

    /// Cuts, hashes and seeds a file.
    pub(crate) async fn publish(
        &self,
        request: streamer_api::PublishRequest,
        progress: impl Fn(PublishProgress) + Send + Sync + 'static,
    ) -> Result<Published, Refusal> {
        let cache = Arc::clone(&self.cache);
        if request.public && self.privacy == Privacy::Private {
            let why = "peers speak TLS here, so nobody else could fetch a public image: publish it through a streamer with peer_tls = \"off\"";
            return Err(Refusal::Source(why.to_owned()));
        }
        let make = move || {
            let report = |bytes_done, bytes_total| {
                progress(PublishProgress { bytes_done, bytes_total, ..PublishProgress::default() });
            };
            let piece_bytes = request.piece_bytes.map(|size| size.0);
            streamer_volume::publish(
                &cache,
                &request.path,
                &request.tracker,
                piece_bytes,
                request.public,
                &report,
            )
        };
        let draft = Arc::new(blocking(make).await??);
        self.install(&draft).await?;
        Ok(Published {
            digest: draft.image.digest,
            size_bytes: draft.image.geometry.size_bytes(),
            metainfo: draft.source.metainfo.clone(),
            manifest: draft.source.manifest.clone(),
        })
    }

    async fn install(&self, draft: &Arc<Draft>) -> Result<(), Refusal> {
        let digest = draft.image.digest;
        let mut images = self.images.lock().await;
        if !images.contains_key(&digest) {
            if self.cache.settings(digest).is_err() {
                draft.install(&self.cache)?;
                let open = self.open(digest, draft.settings()).await?;
                images.insert(digest, open);
                return Ok(());
            }
            let open = self.open(digest, self.cache.settings(digest)?).await?;
            images.insert(digest, open);
        }
        let Some(open) = images.get_mut(&digest) else { return Err(Refusal::Unknown(digest)) };
        if let Err(refusal) = self.fill(open, draft).await {
            // One that only lay in the cache goes on to do so.
            if let Some(idle) = images.remove(&digest) {
                if idle.settings.named || idle.settings.pinned {
                    images.insert(digest, idle);
                } else {
                    self.close(idle.image).await?;
                }
            }
            return Err(refusal);
        }
        let settings = draft.settings();
        let anew = !open.settings.named;
        open.settings = settings;
        self.apply(open, anew);
        Ok(())
    }

    /// Gives every piece of a draft to an image that is here already, and pins it.
    async fn fill(&self, open: &Open, draft: &Arc<Draft>) -> Result<(), Refusal> {
        let (volume, feeder) = (Arc::clone(&open.image.volume), Arc::clone(draft));
        let fed = blocking(move || feeder.feed(&volume)).await?;
        for piece in open.image.volume.pieces_in(&[PieceState::Held]) {
            open.image.torrent.found(piece);
        }
        fed?;
        Ok(self.cache.set_settings(draft.image.digest, &draft.settings())?)
    }

    /// Takes up an image whose settings are in the cache.
    async fn open(&self, digest: Digest, settings: Settings) -> Result<Open, Refusal> {
        let (metainfo, manifest, privacy) =
            (settings.source.metainfo.clone(), settings.source.manifest.clone(), self.privacy);
        let cache = Arc::clone(&self.cache);
        let open = move || -> Result<Arc<Volume>, Refusal> {
            let image = streamer_volume::Image::parse(&metainfo.0, &manifest.0, Some(digest), privacy)?;
            Ok(Arc::new(cache.volume(Arc::new(image))?))
        };
        let volume = blocking(open).await??;
        let diary = Arc::new(Diary::default());
        let shelf = Arc::new(Shelf {
            volume: Arc::clone(&volume),
            flush: Arc::clone(&self.flush),
            diary: Arc::clone(&diary),
            feed: self.feed.clone(),
            torrent: OnceLock::new(),
        });
        let info_hash = volume.image().info_hash;
        let torrent = self.engine.add(info_hash, Arc::clone(&shelf) as _, settings.source.tracker.clone());
        // It is empty: the shelf was made here.
        let _ = shelf.torrent.set(torrent.clone());
        let open = Open { image: Arc::new(Image::new(volume, torrent, diary, self.feed.clone())), settings };
        self.apply(&open, open.settings.named);
        Ok(open)
    }

    /// Carries out an image's settings.
    fn apply(&self, open: &Open, export: bool) {
        if export {
            self.exports.add(open.image.export_name(), Arc::clone(&open.image) as _);
        }
        open.image.torrent.set_tracker(open.settings.source.tracker.clone());
        open.image.torrent.set_web_seed(open.settings.source.web_seed.clone());
        open.image.torrent.set_swarm(open.settings.source.sources == Sources::Swarm);
        let background = match open.settings.source.prefetch {
            _ if !open.settings.named => Background::Off,
            Prefetch::Off => Background::Off,
            Prefetch::Idle => Background::Idle,
            Prefetch::Full => Background::Full,
        };
        let profiles = if open.settings.named { open.settings.source.profiles.clone() } else { Vec::new() };
        let image = Arc::clone(&open.image);
        let begin = move || {
            image.torrent.set_background(background);
            image.follow(image.readers.set_profiles(&profiles));
        };
        let volume = Arc::clone(&open.image.volume);
        if volume.count_in(&[PieceState::Claimed]) == 0 {
            return begin();
        }
        // What is claimed need not be fetched again if it is right.
        let torrent = open.image.torrent.clone();
        tokio::task::spawn_blocking(move || {
            verify_all(&volume, &torrent);
            begin();
        });
    }

    async fn close(&self, image: Arc<Image>) -> Result<(), Refusal> {
        self.exports.remove(&image.export_name());
        self.engine.remove(image.volume.image().info_hash).await;
        let volume = Arc::clone(&image.volume);
        drop(image);
        if let Err(error) = blocking(move || volume.close()).await? {
            tracing::error!(%error, "cannot close an image; it is verified when it is named again");
        }
        Ok(())
    }
}

fn verify_all(volume: &Volume, torrent: &Torrent) {
    let claimed: Vec<u32> = volume.pieces_in(&[PieceState::Claimed]).collect();
    tracing::info!(image = %volume.image().digest.short(), pieces = claimed.len(), "verifying the cache");
    image::verify(volume, torrent, claimed);
}

/// Runs what blocks on the disk where that is allowed.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Refusal::Panicked)
}
