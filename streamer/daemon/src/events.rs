//! What happens, told to whoever listens.

use crate::readers::unix_ms;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use std::time::SystemTime;
use streamer_api::{Happening, StreamEvent};
use tokio::sync::broadcast::{self, error::RecvError};
use types::Digest;

/// Events a listener may be behind before it misses some.
const BACKLOG: usize = 4096;

/// The daemon's one stream of events. Clones are the same stream.
#[derive(Debug, Clone)]
pub(crate) struct Feed(broadcast::Sender<StreamEvent>);

impl Feed {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }

    /// Tells what happened to an image; free while nobody listens.
    pub(crate) fn tell(&self, image: Digest, what: impl FnOnce() -> Happening) {
        if self.0.receiver_count() > 0 {
            // The last listener may have left meanwhile.
            let _ = self.0.send(StreamEvent { unix_ms: unix_ms(SystemTime::now()), image, what: what() });
        }
    }

    /// Everything from now on, of one image or of all, a line each, until the client leaves.
    pub(crate) fn answer(&self, only: Option<Digest>) -> Response {
        let stream = futures::stream::unfold((self.0.subscribe(), only), async |(mut queue, only)| {
            loop {
                let event = match queue.recv().await {
                    Ok(event) if only.is_some_and(|only| only != event.image) => continue,
                    Ok(event) => event,
                    Err(RecvError::Lagged(events)) => StreamEvent {
                        unix_ms: unix_ms(SystemTime::now()),
                        image: only.unwrap_or(Digest::from_bytes([0; 32])),
                        what: Happening::Missed { events },
                    },
                    Err(RecvError::Closed) => return None,
                };
                let line = serde_json::to_vec(&event).map(|mut line| {
                    line.push(b'\n');
                    line
                });
                return Some((line, (queue, only)));
            }
        });
        ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(stream)).into_response()
    }
}
