//! Refusals as HTTP: the one place that maps errors to statuses.

use axum::Json;
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use controller_api::rest::{Issue, Problem, ProblemCode};
use controller_model::apply::Refusal;
use controller_store::CommitError;

tokio::task_local! {
    /// Of the request that this task answers.
    pub(crate) static REQUEST_ID: String;
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

    pub(crate) fn with_issues(mut self, issues: Vec<Issue>) -> Self {
        self.0.issues = issues;
        self
    }
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
        }
    }
}

impl From<CommitError> for Refused {
    fn from(error: CommitError) -> Self {
        Self::internal(&error)
    }
}

impl From<controller_store::BackendError> for Refused {
    fn from(error: controller_store::BackendError) -> Self {
        Self::internal(&error)
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
