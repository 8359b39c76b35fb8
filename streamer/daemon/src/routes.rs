//! The API's routes: handlers translate, nothing more.

use crate::problem::Refusal;
use crate::publish;
use crate::streamer::Streamer;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use streamer_api::{ImageStatus, Limits, Run, Stall, StreamerStatus};
use types::Digest;

/// Largest body, in bytes: metainfo and manifest of an image of a million pieces.
const BODY_BYTES_MAX: usize = 160 << 20;

/// Every route of `streamer-api`.
pub(crate) fn router(streamer: Arc<Streamer>) -> Router {
    Router::new()
        .route("/v1/images", get(list))
        .route("/v1/images/{digest}", put(put_image).delete(delete_image).get(get_image))
        .route("/v1/images/{digest}/evict", post(evict))
        .route("/v1/images/{digest}/stalls", get(stalls))
        .route("/v1/images/{digest}/runs", get(runs))
        .route("/v1/images/{digest}/profiles", post(set_profiles))
        .route("/v1/events", get(events))
        .route("/v1/limits", get(limits).put(set_limits))
        .route("/v1/publish", post(publish_image))
        .route("/v1/status", get(status))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .merge(chassis::metrics::router())
        .with_state(streamer)
}

async fn list(State(streamer): State<Arc<Streamer>>) -> Json<Vec<ImageStatus>> {
    Json(streamer.list().await)
}

async fn get_image(
    State(streamer): State<Arc<Streamer>>,
    Path(text): Path<String>,
) -> Result<Json<ImageStatus>, Refusal> {
    Ok(Json(streamer.get(digest(&text)?).await?))
}

async fn put_image(
    State(streamer): State<Arc<Streamer>>,
    Path(text): Path<String>,
    body: Bytes,
) -> Result<Json<ImageStatus>, Refusal> {
    Ok(Json(streamer.put(digest(&text)?, json(&body)?).await?))
}

async fn delete_image(
    State(streamer): State<Arc<Streamer>>,
    Path(text): Path<String>,
) -> Result<StatusCode, Refusal> {
    streamer.delete(digest(&text)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn evict(
    State(streamer): State<Arc<Streamer>>,
    Path(text): Path<String>,
) -> Result<StatusCode, Refusal> {
    streamer.evict(digest(&text)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn stalls(
    State(streamer): State<Arc<Streamer>>,
    Path(text): Path<String>,
) -> Result<Json<Vec<Stall>>, Refusal> {
    Ok(Json(streamer.image(digest(&text)?).await?.diary.stalls()))
}

async fn runs(
    State(streamer): State<Arc<Streamer>>,
    Path(text): Path<String>,
) -> Result<Json<Vec<Run>>, Refusal> {
    Ok(Json(streamer.image(digest(&text)?).await?.readers.runs()))
}

async fn set_profiles(
    State(streamer): State<Arc<Streamer>>,
    Path(text): Path<String>,
    body: Bytes,
) -> Result<StatusCode, Refusal> {
    streamer.set_profiles(digest(&text)?, json(&body)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Only {
    image: Option<Digest>,
}

async fn events(State(streamer): State<Arc<Streamer>>, Query(only): Query<Only>) -> Response {
    streamer.feed().answer(only.image)
}

async fn limits(State(streamer): State<Arc<Streamer>>) -> Json<Limits> {
    Json(streamer.limits())
}

async fn set_limits(State(streamer): State<Arc<Streamer>>, body: Bytes) -> Result<Json<Limits>, Refusal> {
    Ok(Json(streamer.set_limits(json(&body)?).await?))
}

async fn publish_image(State(streamer): State<Arc<Streamer>>, body: Bytes) -> Result<Response, Refusal> {
    Ok(publish::answer(streamer, json(&body)?))
}

async fn status(State(streamer): State<Arc<Streamer>>) -> Json<StreamerStatus> {
    Json(streamer.status().await)
}

fn digest(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|error: types::ParseDigestError| Refusal::Path(error.to_string()))
}

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(Refusal::Body)
}
