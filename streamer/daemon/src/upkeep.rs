//! What goes on while nobody asks: pieces are made durable, numbers are published; and the end.

use crate::image::Image;
use crate::streamer::{Streamer, blocking};
use crate::telemetry;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Longest time a stored piece stays undurable.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

impl Streamer {
    /// Makes stored pieces durable, and numbers public, until `stop`.
    pub(crate) async fn upkeep(self: Arc<Self>, stop: CancellationToken) {
        let mut clock = tokio::time::interval(FLUSH_INTERVAL);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = clock.tick() => {}
                () = self.flush.notified() => {}
                () = stop.cancelled() => return,
            }
            let images: Vec<Arc<Image>> =
                self.images.lock().await.values().map(|open| Arc::clone(&open.image)).collect();
            telemetry::publish(&images, self.cache.bytes(), self.cache.free_bytes());
            let flush = move || {
                for image in images {
                    keep_up(&image);
                }
            };
            if let Err(refusal) = blocking(flush).await {
                tracing::error!(%refusal, "flushing failed");
            }
        }
    }

    /// Leaves the swarm and closes every image in order.
    pub(crate) async fn shutdown(&self) {
        let leaving = tokio::time::timeout(Duration::from_secs(2), self.engine.shutdown()).await;
        if leaving.is_err() {
            tracing::warn!("some peers were not told that we leave");
        }
        let images = std::mem::take(&mut *self.images.lock().await);
        for open in images.into_values() {
            let volume = Arc::clone(&open.image.volume);
            match blocking(move || volume.close()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!(%error, "cannot close an image; it is verified at the next start")
                }
                Err(refusal) => tracing::error!(%refusal, "closing failed"),
            }
        }
    }
}

/// Stores what can be stored now and makes it durable. A trouble is logged when it begins.
fn keep_up(image: &Image) {
    let volume = &image.volume;
    let known = volume.trouble();
    let settled = volume.settle();
    settled.stored.iter().for_each(|piece| image.torrent.found(*piece));
    if !settled.absent.is_empty() {
        image.torrent.lost(settled.absent);
    }
    // What went wrong is the volume's trouble.
    let _ = volume.flush();
    let image = volume.image().digest.short();
    match (known, volume.trouble()) {
        (None, Some(trouble)) => tracing::error!(%image, trouble, "the cache is in trouble"),
        (Some(_), None) => tracing::info!(%image, "the cache takes pieces again"),
        _ => {}
    }
}
