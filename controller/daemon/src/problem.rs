//! Refusals as HTTP: the one place that maps errors to statuses.

use axum::Json;
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use controller_api::rest::{Issue, Problem, ProblemCode};
use controller_model::apply::Refusal;
use controller_store::CommitError;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

tokio::task_local! {
    /// Of the request that this task answers.
    pub(crate) static REQUEST_ID: String;
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
struct Unwritten {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// A refusal on its way out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refused(pub Problem);

/// What a handler returns.
pub(crate) type Answer<T> = Result<T, Refused>;

impl Refused {
    pub(crate) fn new(code: ProblemCode, message: impl Into<String>) -> Self {
        let request_id = REQUEST_ID.try_with(Clone::clone).unwrap_or_default();
        Self(Problem { code, message: message.into(), issues: Vec::new(), request_id })
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ProblemCode::BadRequest, message)
    }

    pub(crate) fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(ProblemCode::Unauthenticated, message)
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ProblemCode::Forbidden, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(ProblemCode::NotFound, message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(ProblemCode::Conflict, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ProblemCode::Invalid, message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ProblemCode::Unavailable, message)
    }

    /// Our fault: the log gets the whole chain, the asker an id to find it by.
    pub(crate) fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        let refused = Self::new(ProblemCode::Internal, "the controller failed; its log has the request id");
        tracing::error!(request_id = refused.0.request_id, error = %chassis::telemetry::chain(error), "request failed");
        refused
    }

    /// A file of the state cannot be written.
    pub(crate) fn unwritten(path: &Path, source: std::io::Error) -> Self {
        let full = matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        let error = Unwritten { path: path.to_owned(), source };
        if full { Self::disk_full(&error) } else { Self::internal(&error) }
    }

    /// There is no room for what is to be kept: whoever reads this can do something about it.
    fn disk_full(error: &(dyn std::error::Error + 'static)) -> Self {
        let chain = chassis::telemetry::chain(error).to_string();
        let refused = Self::new(
            ProblemCode::DiskFull,
            format!(
                "the controller's disk is full: {chain}; nothing was changed: free space there and ask again"
            ),
        );
        tracing::error!(request_id = refused.0.request_id, error = chain, "the disk is full");
        refused
    }

    pub(crate) fn with_issues(mut self, issues: Vec<Issue>) -> Self {
        self.0.issues = issues;
        self
    }
}

/// Does what blocks where that is allowed, still in the request's name.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Answer<T> + Send + 'static,
) -> Answer<T> {
    let id = REQUEST_ID.try_with(Clone::clone).unwrap_or_default();
    let done = tokio::task::spawn_blocking(move || REQUEST_ID.sync_scope(id, work)).await;
    done.map_err(|error| Refused::internal(&error))?
}

fn status(code: ProblemCode) -> StatusCode {
    match code {
        ProblemCode::BadRequest => StatusCode::BAD_REQUEST,
        ProblemCode::Unauthenticated => StatusCode::UNAUTHORIZED,
        ProblemCode::Forbidden => StatusCode::FORBIDDEN,
        ProblemCode::NotFound => StatusCode::NOT_FOUND,
        ProblemCode::Conflict => StatusCode::CONFLICT,
        ProblemCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ProblemCode::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        ProblemCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ProblemCode::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        ProblemCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = status(self.0.code);
        let mut response = (status, Json(self.0)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::Invalid(issues) => Self::invalid(message).with_issues(issues),
            Refusal::Conflict(_) => Self::conflict(message),
            Refusal::NotFound(_) => Self::not_found(message),
            Refusal::Unfit(_) => Self::invalid(message),
        }
    }
}

impl From<CommitError> for Refused {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Backend(error) => error.into(),
            other => Self::internal(&other),
        }
    }
}

impl From<controller_store::BackendError> for Refused {
    fn from(error: controller_store::BackendError) -> Self {
        if error.is_full() { Self::disk_full(&error) } else { Self::internal(&error) }
    }
}

/// What axum says of a part of a request it cannot read.
fn unreadable(status: StatusCode, message: String) -> Refused {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => Refused::new(ProblemCode::TooLarge, message),
        _ => Refused::bad_request(message),
    }
}

impl From<BytesRejection> for Refused {
    fn from(rejection: BytesRejection) -> Self {
        unreadable(rejection.status(), rejection.body_text())
    }
}

impl From<JsonRejection> for Refused {
    fn from(rejection: JsonRejection) -> Self {
        unreadable(rejection.status(), rejection.body_text())
    }
}

impl From<PathRejection> for Refused {
    fn from(rejection: PathRejection) -> Self {
        unreadable(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Refused {
    fn from(rejection: QueryRejection) -> Self {
        unreadable(rejection.status(), rejection.body_text())
    }
}
