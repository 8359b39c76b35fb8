//! Typed client of netd's unix socket.
//!
//! Each call makes its own connection. Start at [`Client`]; the contract is in [`netd_api`].

use chassis::unix_http::{self, CallError, Streamed};
use hyper::Method;
use netd_api::{Capture, Desired, Explanation, Flow, PlanReport, Question, Status};
use std::path::PathBuf;

/// Calls one host's netd.
#[derive(Debug, Clone)]
pub struct Client(unix_http::Client);

impl Client {
    /// Nothing is connected yet.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self(unix_http::Client::new(socket))
    }

    /// Hands over the whole desired state; answers once it was applied.
    ///
    /// # Errors
    /// [`CallError::Refused`] with 409 `stale-generation` or 422 `invalid-document` changes nothing.
    pub async fn put_desired(&self, desired: &Desired) -> Result<Status, CallError> {
        self.0.call(Method::PUT, "/v1/desired", desired).await
    }

    /// What [`Self::put_desired`] would do.
    ///
    /// # Errors
    /// As [`Self::put_desired`].
    pub async fn plan(&self, desired: &Desired) -> Result<PlanReport, CallError> {
        self.0.call(Method::POST, "/v1/plan", desired).await
    }

    /// Freshly observed.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn status(&self) -> Result<Status, CallError> {
        self.0.call(Method::GET, "/v1/status", &()).await
    }

    /// Removes everything of netd's from the host, and forgets the desired document.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn purge(&self) -> Result<Status, CallError> {
        self.0.call(Method::POST, "/v1/purge", &()).await
    }

    /// Why a connection would pass or not.
    ///
    /// # Errors
    /// [`CallError::Refused`] with 404 `unknown-port` or 422 `invalid-request`.
    pub async fn explain(&self, question: &Question) -> Result<Explanation, CallError> {
        self.0.call(Method::POST, "/v1/explain", question).await
    }

    /// Frames of ports as pcapng, as they come; dropping it ends the capture.
    ///
    /// # Errors
    /// [`CallError::Refused`] with 404 `unknown-port`, 422 `invalid-request` or 429 `too-many-captures`.
    pub async fn capture(&self, capture: &Capture) -> Result<Streamed, CallError> {
        self.0.call_streamed(Method::POST, "/v1/capture", capture).await
    }

    /// Who speaks with whom.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn flows(&self) -> Result<Vec<Flow>, CallError> {
        self.0.call(Method::GET, "/v1/flows", &()).await
    }
}
