//! The contract over HTTP: handlers translate, nothing more.

use crate::switch::{Refusal, Request, Requests};
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use netd_api::Problem;
use netd_plan::Unanswerable;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

/// Largest document in bytes: twenty thousand networks, or as many ports with a dozen rules each.
const DOCUMENT_BYTES_MAX: usize = 64 << 20;

pub(crate) fn router(requests: Requests) -> Router {
    Router::new()
        .route("/v1/desired", put(put_desired).patch(patch_desired))
        .route("/v1/plan", post(post_plan))
        .route("/v1/status", get(get_status))
        .route("/v1/purge", post(post_purge))
        .route("/v1/flows", get(get_flows))
        .layer(DefaultBodyLimit::max(DOCUMENT_BYTES_MAX))
        .with_state(requests.clone())
        .merge(crate::inspect::router(requests))
}

/// Parses a document; the error names the field.
pub(crate) fn read_document<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let document = serde_path_to_error::deserialize(&mut json).map_err(|error| error.to_string())?;
    json.end().map_err(|error| error.to_string())?;
    Ok(document)
}

async fn put_desired(State(requests): State<Requests>, body: Bytes) -> Response {
    match read_document(&body) {
        Ok(desired) => ask(&requests, |answer| Request::Put(desired, answer)).await,
        Err(message) => invalid(message),
    }
}

async fn patch_desired(State(requests): State<Requests>, body: Bytes) -> Response {
    match read_document(&body) {
        Ok(change) => ask(&requests, |answer| Request::Change(change, answer)).await,
        Err(message) => invalid(message),
    }
}

async fn post_plan(State(requests): State<Requests>, body: Bytes) -> Response {
    match read_document(&body) {
        Ok(desired) => ask(&requests, |answer| Request::Plan(desired, answer)).await,
        Err(message) => invalid(message),
    }
}

async fn get_status(State(requests): State<Requests>) -> Response {
    ask(&requests, Request::Status).await
}

async fn get_flows(State(requests): State<Requests>) -> Response {
    ask(&requests, Request::Flows).await
}

async fn post_purge(State(requests): State<Requests>) -> Response {
    ask(&requests, Request::Purge).await
}

async fn ask<T: serde::Serialize>(
    requests: &Requests,
    request: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> Request,
) -> Response {
    match answered(requests, request).await {
        Ok(value) => Json(value).into_response(),
        Err(refused) => *refused,
    }
}

/// The switch's answer, or what to say instead.
pub(crate) async fn answered<T>(
    requests: &Requests,
    request: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> Request,
) -> Result<T, Box<Response>> {
    let (sender, answer) = oneshot::channel();
    let sent = requests.send(request(sender)).await;
    match (sent, answer.await) {
        (Ok(()), Ok(Ok(value))) => Ok(value),
        (Ok(()), Ok(Err(refusal))) => Err(Box::new(refused(&refusal))),
        _ => Err(Box::new(problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "shutting-down",
            "netd is shutting down; ask again".to_owned(),
        ))),
    }
}

fn refused(refusal: &Refusal) -> Response {
    let message = chassis::telemetry::chain(refusal).to_string();
    match refusal {
        Refusal::Stale { .. } | Refusal::Other { .. } | Refusal::Reused { .. } => {
            problem(StatusCode::CONFLICT, "stale-generation", message)
        }
        Refusal::Invalid(_) => invalid(message),
        Refusal::Unanswerable(Unanswerable::UnknownPort(_)) => {
            problem(StatusCode::NOT_FOUND, "unknown-port", message)
        }
        Refusal::Unanswerable(_) => problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid-request", message),
        Refusal::Store(_) | Refusal::Observe(_) => {
            tracing::error!(%message, "a request failed");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
        }
    }
}

fn invalid(message: String) -> Response {
    problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid-document", message)
}

pub(crate) fn problem(status: StatusCode, code: &str, message: String) -> Response {
    (status, Json(Problem { code: code.to_owned(), message })).into_response()
}
