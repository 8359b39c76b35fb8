//! Frozen files become images: the streamer cuts and seeds them, and the controller is told how to find them.
//!
//! The streamer copies a file into its cache (reflinked where the file system can): a published layer takes its bytes
//! twice on this host otherwise. What it made is kept until the controller has it: nothing is cut twice after a crash.

use crate::chain::{CaptureId, DiskError, FileId, FileImage, LayerId};
use crate::work::{WorkError, Works};
use chassis::unix_http::CallError;
use controller_api::checkpoint::LayerSource;
use std::time::Duration;
use streamer_api::{PublishRequest, Published};
use types::Digest;

/// Longest wait for the controller to take an image's description.
const TELL_TIMEOUT: Duration = Duration::from_secs(60);

impl Works {
    /// Makes images of all of a capture's files that are none yet.
    pub(crate) async fn publish_capture(&self, id: &CaptureId) -> Result<(), WorkError> {
        let Some(capture) = self.disks.capture(id) else { return Ok(()) };
        let layers = capture.disks.iter().flat_map(|disk| &disk.layers);
        let unpublished = layers.filter(|layer| layer.image.is_none()).filter_map(LayerId::of);
        let mut files: Vec<FileId> = unpublished.map(FileId::Layer).collect();
        files.extend(capture.memory_bytes.map(|_| FileId::Memory(id.clone())));
        for file in files {
            self.publish_file(&file).await?;
        }
        Ok(())
    }

    async fn publish_file(&self, file: &FileId) -> Result<(), WorkError> {
        let held = self.disks.images().remove(file).unwrap_or_default();
        if held.digest.is_some() {
            return Ok(());
        }
        let draft = match held.draft {
            Some(draft) => draft,
            None => {
                let draft = self.cut(file).await?;
                self.disks.keep_image(file, FileImage { draft: Some(draft.clone()), digest: None })?;
                draft
            }
        };
        self.tell_layer(&draft).await?;
        Ok(self.disks.keep_image(file, FileImage { draft: None, digest: Some(draft.digest) })?)
    }

    async fn cut(&self, file: &FileId) -> Result<Published, WorkError> {
        let path = self.disks.layout().frozen(file);
        if !path.exists() {
            return Err(DiskError::Absent(format!("{file:?}")).into());
        }
        let tracker = self.tracker()?.ok_or(WorkError::NoTracker)?;
        let request = PublishRequest { path: path.clone(), tracker, piece_bytes: None, public: false };
        let published = self.streamer.publish(&request, |_| {}).await;
        published.map_err(|error| WorkError::Publish(path, error))
    }

    /// Where this cluster's peers find each other: every image that the controller has named says so.
    fn tracker(&self) -> Result<Option<String>, WorkError> {
        for digest in self.store.named().into_keys() {
            if let Some(named) = self.store.image(digest)? {
                return Ok(Some(named.source.tracker));
            }
        }
        Ok(None)
    }

    async fn tell_layer(&self, draft: &Published) -> Result<(), WorkError> {
        let digest = draft.digest;
        let url = format!("{}/agent/v1/layers/{digest}", self.config.controller.trim_end_matches('/'));
        let body = LayerSource { metainfo: draft.metainfo.clone(), manifest: draft.manifest.clone() };
        let fail = |error| WorkError::TellLayer(digest.short(), error);
        let answer = self.controller.put(url).timeout(TELL_TIMEOUT).json(&body).send().await.map_err(fail)?;
        answer.error_for_status().map(drop).map_err(fail)
    }

    /// What the streamer has of an image that was made here goes.
    pub(crate) async fn unpublish(&self, image: Digest) -> Result<(), WorkError> {
        let fail = |error| WorkError::Streamer(image.short(), error);
        or_gone(self.streamer.delete_image(image).await).map_err(fail)?;
        or_gone(self.streamer.evict(image).await).map_err(fail)
    }
}

fn or_gone(answer: Result<(), CallError>) -> Result<(), CallError> {
    match answer {
        Err(CallError::Refused { status: 404, .. }) => Ok(()),
        answer => answer,
    }
}
