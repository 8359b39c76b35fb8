//! The answer to a publish: a line now and then, and one at the end.

use crate::streamer::Streamer;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use streamer_api::{PublishProgress, PublishRequest};
use tokio::sync::mpsc;

/// Lines waiting for a slow reader; more are left out.
const LINES_MAX: usize = 16;
/// Parts of the whole between two lines.
const STEPS: u64 = 100;

/// Starts a publish; it goes on if the client leaves.
pub(crate) fn answer(streamer: Arc<Streamer>, request: PublishRequest) -> Response {
    let (lines, queue) = mpsc::channel::<PublishProgress>(LINES_MAX);
    let progress = lines.clone();
    let total = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&total);
    let step = AtomicU64::new(0);
    let report = move |line: PublishProgress| {
        counted.store(line.bytes_total, Ordering::Relaxed);
        let reached = line.bytes_done * STEPS / line.bytes_total.max(1);
        if step.fetch_max(reached, Ordering::Relaxed) < reached {
            // A reader that is slow or gone misses a line.
            let _ = progress.try_send(line);
        }
    };
    tokio::spawn(async move {
        let result = streamer.publish(request, report).await;
        let bytes_total = total.load(Ordering::Relaxed);
        let last = match result {
            Ok(published) => {
                tracing::info!(image = %published.digest, "published");
                PublishProgress {
                    bytes_done: bytes_total,
                    bytes_total,
                    published: Some(published),
                    problem: None,
                }
            }
            Err(refusal) => {
                let problem = refusal.problem();
                tracing::warn!(problem = problem.message, "a publish failed");
                PublishProgress { problem: Some(problem), bytes_total, ..PublishProgress::default() }
            }
        };
        // The client may be gone.
        let _ = lines.send(last).await;
    });
    let stream = futures::stream::unfold(queue, async |mut queue| {
        let line = queue.recv().await?;
        let mut text = serde_json::to_vec(&line);
        if let Ok(text) = &mut text {
            text.push(b'\n');
        }
        Some((text, queue))
    });
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(stream)).into_response()
}
