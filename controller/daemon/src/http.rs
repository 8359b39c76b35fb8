//! Around every request: an id, a line in the log, numbers.

use crate::problem::{REQUEST_ID, Refused};
use axum::extract::{MatchedPath, Request};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use std::time::Instant;

/// Answers on a task of its own: whoever hangs up in the middle must not stop a change between the store and the picture
/// of it.
async fn finish(id: String, request: Request, next: Next) -> Response {
    let answering = tokio::spawn(REQUEST_ID.scope(id.clone(), next.run(request)));
    match answering.await {
        Ok(response) => response,
        Err(error) => REQUEST_ID.sync_scope(id, || Refused::internal(&error)).into_response(),
    }
}

/// Gives the request its id, and measures the answer.
pub(crate) async fn observe(request: Request, next: Next) -> Response {
    let id = format!("{:016x}", rand::random::<u64>());
    let method = request.method().to_string();
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let started = Instant::now();
    let mut response = finish(id.clone(), request, next).await;
    let (status, took) = (response.status().as_u16(), started.elapsed());
    let labels = [("method", method.clone()), ("route", route.clone()), ("status", status.to_string())];
    metrics::counter!("collective_http_requests_total", &labels).increment(1);
    metrics::histogram!("collective_http_request_seconds", "route" => route.clone())
        .record(took.as_secs_f64());
    // The path and not the URI: a console's token may stand in the query.
    tracing::debug!(request_id = id, method, route, status, took_us = took.as_micros(), "answered");
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", id);
    }
    response
}
