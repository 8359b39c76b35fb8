//! Refusals, and how they look over HTTP.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use std::io;
use std::path::PathBuf;
use streamer_api::Problem;
use streamer_volume::{CacheError, InvalidImage, PublishError};
use thiserror::Error;
use types::Digest;

/// Why a request was not carried out.
#[derive(Debug, Error)]
pub(crate) enum Refusal {
    #[error("the image is not valid")]
    Invalid(#[from] InvalidImage),
    #[error("the request is not understood")]
    Body(#[source] serde_json::Error),
    #[error("{0}")]
    Path(String),
    #[error("image {0} is not named here: PUT it first")]
    Unknown(Digest),
    #[error("image {0} is exported: delete it before it is evicted")]
    Exported(Digest),
    #[error("the cache failed")]
    Cache(#[source] CacheError),
    #[error("it cannot be published")]
    Publish(#[source] PublishError),
    #[error("the profiles are not valid: {0}")]
    Profiles(String),
    #[error("{name} is {limit} bytes a second: {least} at least, or leave it out for no limit")]
    Limit { name: &'static str, limit: u64, least: u64 },
    #[error("cannot keep {}", path.display())]
    Keep {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{0}")]
    Source(String),
    #[error("something went wrong inside; the log says what")]
    Panicked,
}

impl From<CacheError> for Refusal {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::Absent(digest) => Self::Unknown(digest),
            CacheError::Invalid(invalid) => Self::Invalid(invalid),
            other => Self::Cache(other),
        }
    }
}

impl From<PublishError> for Refusal {
    fn from(error: PublishError) -> Self {
        Self::Publish(error)
    }
}

impl Refusal {
    /// Its status and stable code.
    fn code(&self) -> (StatusCode, &'static str) {
        let storage = |source: &io::Error| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                (StatusCode::INSUFFICIENT_STORAGE, "disk-full")
            }
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "io"),
        };
        match self {
            Self::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid-image"),
            Self::Profiles(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid-profiles"),
            Self::Limit { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "invalid-limit"),
            Self::Source(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid-source"),
            Self::Keep { source, .. } => storage(source),
            Self::Body(_) | Self::Path(_) => (StatusCode::BAD_REQUEST, "invalid-request"),
            Self::Unknown(_) => (StatusCode::NOT_FOUND, "not-found"),
            Self::Exported(_) => (StatusCode::CONFLICT, "busy"),
            Self::Cache(CacheError::Io { source, .. })
            | Self::Publish(PublishError::Cache(CacheError::Io { source, .. })) => storage(source),
            Self::Publish(PublishError::Source { source, .. })
                if source.kind() == io::ErrorKind::StorageFull =>
            {
                storage(source)
            }
            Self::Publish(PublishError::Source { .. } | PublishError::Unsuitable { .. }) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid-image")
            }
            Self::Cache(_) | Self::Publish(_) | Self::Panicked => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal")
            }
        }
    }

    /// As it travels.
    pub(crate) fn problem(&self) -> Problem {
        let message = chassis::telemetry::chain(self).to_string();
        Problem { code: self.code().1.to_owned(), message }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.code().0, Json(self.problem())).into_response()
    }
}
