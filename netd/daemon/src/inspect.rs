//! Looking into the switches: explanations, their proofs, and captures.

use crate::http::{answered, problem, read_document};
use crate::switch::{Request, Requests};
use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::StreamExt as _;
use netd_api::{Capture, Question};
use netd_kernel::{CaptureError, CaptureLimits};
use std::convert::Infallible;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Captures at a time; more are refused.
const CAPTURES_MAX: usize = 4;
/// Proofs at a time; more wait.
const PROOFS_MAX: usize = 2;
/// Of the contract.
const SNAP_BYTES: RangeInclusive<u32> = 14..=65_535;
const SECONDS: RangeInclusive<u32> = 1..=3_600;
const BYTES: RangeInclusive<u64> = 1 << 10..=1 << 30;

#[derive(Debug, Clone)]
struct Inspector {
    requests: Requests,
    proofs: Arc<Semaphore>,
    captures: Arc<Semaphore>,
}

pub(crate) fn router(requests: Requests) -> Router {
    let permits = |number| Arc::new(Semaphore::new(number));
    let inspector = Inspector { requests, proofs: permits(PROOFS_MAX), captures: permits(CAPTURES_MAX) };
    Router::new()
        .route("/v1/explain", post(post_explain))
        .route("/v1/capture", post(post_capture))
        .with_state(inspector)
}

async fn post_explain(State(inspector): State<Inspector>, body: Bytes) -> Response {
    let question: Question = match read_document(&body) {
        Ok(question) => question,
        Err(message) => return invalid(message),
    };
    let prove = question.prove;
    let answer = answered(&inspector.requests, |answer| Request::Explain(question, answer)).await;
    let mut explained = match answer {
        Ok(explained) => explained,
        Err(refused) => return *refused,
    };
    if let (true, Some(experiment)) = (prove, explained.experiment.take()) {
        // Closed only with the whole program.
        let Ok(_permit) = inspector.proofs.acquire().await else { return busy() };
        match netd_kernel::prove(experiment).await {
            Ok(verdict) => explained.explanation.proven = Some(verdict),
            Err(error) => return failed("nothing could be proven", &error),
        }
    }
    Json(explained.explanation).into_response()
}

async fn post_capture(State(inspector): State<Inspector>, body: Bytes) -> Response {
    let capture: Capture = match read_document(&body).and_then(check) {
        Ok(capture) => capture,
        Err(message) => return invalid(message),
    };
    let Ok(permit) = inspector.captures.try_acquire_owned() else { return busy() };
    let limits = CaptureLimits {
        snap_bytes: capture.snap_bytes,
        duration: Duration::from_secs(capture.seconds.into()),
        bytes: capture.bytes,
    };
    let points = answered(&inspector.requests, |answer| Request::CapturePoints(capture.of, answer)).await;
    let points = match points {
        Ok(points) => points,
        Err(refused) => return *refused,
    };
    match netd_kernel::capture(&points, limits) {
        Ok(chunks) => {
            let chunks = chunks.map(move |chunk| {
                // Given back when the stream ends or the caller hangs up.
                let _held = &permit;
                Ok::<_, Infallible>(chunk)
            });
            ([(CONTENT_TYPE, "application/x-pcapng")], Body::from_stream(chunks)).into_response()
        }
        Err(error @ (CaptureError::Ports(_) | CaptureError::Bytes { .. })) => invalid(error.to_string()),
        Err(error) => failed("nothing can be captured", &error),
    }
}

fn check(capture: Capture) -> Result<Capture, String> {
    if capture.of.is_empty() {
        return Err("of: names nobody; name at least one port or network".to_owned());
    }
    within("snap_bytes", &capture.snap_bytes, &SNAP_BYTES)?;
    within("seconds", &capture.seconds, &SECONDS)?;
    within("bytes", &capture.bytes, &BYTES)?;
    Ok(capture)
}

fn within<T: PartialOrd + std::fmt::Display>(
    field: &str,
    value: &T,
    range: &RangeInclusive<T>,
) -> Result<(), String> {
    if range.contains(value) {
        return Ok(());
    }
    Err(format!("{field}: {value} is out of range; use {} to {}", range.start(), range.end()))
}

fn invalid(message: String) -> Response {
    problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid-request", message)
}

fn busy() -> Response {
    let message = format!("{CAPTURES_MAX} captures are under way; end one, or wait");
    problem(StatusCode::TOO_MANY_REQUESTS, "too-many-captures", message)
}

fn failed(what: &str, error: &(dyn std::error::Error + 'static)) -> Response {
    let message = format!("{what}: {}", chassis::telemetry::chain(error));
    tracing::error!(%message, "a request failed");
    problem(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
}
