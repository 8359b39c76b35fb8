//! Typed client of the streamer's unix socket. The contract is `streamer-api`; there is no choice in here.

use chassis::unix_http::{self, CallError};
use hyper::Method;
use std::path::PathBuf;
use streamer_api::{
    ImageSource, ImageStatus, Limits, Profile, PublishProgress, PublishRequest, Published, Run, Stall,
    StreamEvent, StreamerStatus,
};
use thiserror::Error;
use types::Digest;

/// Why a publish failed.
#[derive(Debug, Error)]
pub enum PublishError {
    /// The streamer was not reached or refused at once.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It failed on the way.
    #[error("{message}")]
    Failed {
        /// Stable, kebab-case.
        code: String,
        /// What, where, and what to do.
        message: String,
    },
    /// It ended without a result.
    #[error("the streamer stopped publishing without saying why: is it still running?")]
    Incomplete,
}

/// Calls one streamer.
#[derive(Debug, Clone)]
pub struct Client {
    http: unix_http::Client,
}

impl Client {
    /// Calls the streamer that serves this unix socket.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { http: unix_http::Client::new(socket) }
    }

    /// Names an image: it is exported from here on, whether or not a byte is here. Idempotent.
    ///
    /// # Errors
    /// [`CallError`]; 422 if metainfo, manifest and digest do not belong together.
    pub async fn put_image(&self, digest: Digest, source: &ImageSource) -> Result<ImageStatus, CallError> {
        self.http.call(Method::PUT, &path(digest), source).await
    }

    /// Exports and fetches an image no longer; its cached pieces stay.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn delete_image(&self, digest: Digest) -> Result<(), CallError> {
        self.http.call(Method::DELETE, &path(digest), &()).await
    }

    /// Removes an image's cached pieces.
    ///
    /// # Errors
    /// [`CallError`]; 409 while it is exported.
    pub async fn evict(&self, digest: Digest) -> Result<(), CallError> {
        self.http.call(Method::POST, &format!("{}/evict", path(digest)), &()).await
    }

    /// Every image, without piece maps.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn images(&self) -> Result<Vec<ImageStatus>, CallError> {
        self.http.call(Method::GET, "/v1/images", &()).await
    }

    /// One image with its piece map.
    ///
    /// # Errors
    /// [`CallError`]; 404 if it is not named.
    pub async fn image(&self, digest: Digest) -> Result<ImageStatus, CallError> {
        self.http.call(Method::GET, &path(digest), &()).await
    }

    /// Reads of an image that had to wait, oldest first.
    ///
    /// # Errors
    /// [`CallError`]; 404 if it is not named.
    pub async fn stalls(&self, digest: Digest) -> Result<Vec<Stall>, CallError> {
        self.http.call(Method::GET, &format!("{}/stalls", path(digest)), &()).await
    }

    /// What each reader of an image touched first, and when.
    ///
    /// # Errors
    /// [`CallError`]; 404 if it is not named.
    pub async fn runs(&self, digest: Digest) -> Result<Vec<Run>, CallError> {
        self.http.call(Method::GET, &format!("{}/runs", path(digest)), &()).await
    }

    /// Replaces an image's profiles, also for readers that run.
    ///
    /// # Errors
    /// [`CallError`]; 404 if it is not named, 422 if a profile makes no sense.
    pub async fn set_profiles(&self, digest: Digest, profiles: &[Profile]) -> Result<(), CallError> {
        self.http.call(Method::POST, &format!("{}/profiles", path(digest)), &profiles).await
    }

    /// Calls `each` with everything that happens, to one image or to all, until the streamer ends.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn events(
        &self,
        image: Option<Digest>,
        each: impl FnMut(StreamEvent) + Send,
    ) -> Result<(), CallError> {
        let query = image.map(|digest| format!("?image={digest}")).unwrap_or_default();
        self.http.call_lines(Method::GET, &format!("/v1/events{query}"), &(), each).await
    }

    /// The rate limits in force.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn limits(&self) -> Result<Limits, CallError> {
        self.http.call(Method::GET, "/v1/limits", &()).await
    }

    /// Changes the rate limits, at once and for good.
    ///
    /// # Errors
    /// [`CallError`]; 422 for a limit that is too small.
    pub async fn set_limits(&self, limits: &Limits) -> Result<Limits, CallError> {
        self.http.call(Method::PUT, "/v1/limits", limits).await
    }

    /// Makes an image of a file, and seeds it. `progress` gets every line.
    ///
    /// # Errors
    /// [`PublishError`]; then nothing was published.
    pub async fn publish(
        &self,
        request: &PublishRequest,
        mut progress: impl FnMut(&PublishProgress) + Send,
    ) -> Result<Published, PublishError> {
        let mut last = None;
        let line = |line: PublishProgress| {
            progress(&line);
            last = Some(line);
        };
        self.http.call_lines(Method::POST, "/v1/publish", request, line).await?;
        match last {
            Some(PublishProgress { published: Some(published), .. }) => Ok(published),
            Some(PublishProgress { problem: Some(problem), .. }) => {
                Err(PublishError::Failed { code: problem.code, message: problem.message })
            }
            _ => Err(PublishError::Incomplete),
        }
    }

    /// The daemon as a whole.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn status(&self) -> Result<StreamerStatus, CallError> {
        self.http.call(Method::GET, "/v1/status", &()).await
    }
}

fn path(digest: Digest) -> String {
    format!("/v1/images/{digest}")
}
