//! Typed client of the streamer's unix socket. The contract is `streamer-api`; there is no choice in here.

use chassis::unix_http::{self, CallError};
use hyper::Method;
use std::path::PathBuf;
use streamer_api::{ImageSource, ImageStatus, PublishProgress, PublishRequest, Published, StreamerStatus};
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
