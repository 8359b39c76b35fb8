//! Prometheus metrics of the process, as text.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::sync::OnceLock;

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the process's recorder at the first call and returns a handle that renders it.
pub fn recorder() -> PrometheusHandle {
    RECORDER
        .get_or_init(|| {
            let recorder = PrometheusBuilder::new().build_recorder();
            let handle = recorder.handle();
            // Another recorder can only have been installed by a test; its numbers then go there.
            let _ = metrics::set_global_recorder(recorder);
            handle
        })
        .clone()
}

/// A router with `GET /metrics` (text format 0.0.4).
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let handle = recorder();
    Router::new().route(
        "/metrics",
        get(move || {
            let handle = handle.clone();
            async move {
                handle.run_upkeep();
                ([(CONTENT_TYPE, "text/plain; version=0.0.4")], handle.render())
            }
        }),
    )
}
