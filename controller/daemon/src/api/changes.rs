//! What happened, as it happens.

use super::Asked;
use crate::app::App;
use crate::auth::Caller;
use crate::ledger::change_of;
use crate::problem::Answer;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use controller_api::rest::{AuditEntry, Change, Event};
use controller_store::Watch;
use futures::stream;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use tokio::sync::broadcast;
use types::Revision;
use utoipa::IntoParams;

/// Entries of one answer.
const AUDIT_SHOWN_MAX: usize = 10_000;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventsAfter {
    /// Only what came after this revision.
    #[serde(default)]
    #[param(value_type = u64)]
    since: Revision,
    /// Go on for ever.
    #[serde(default)]
    follow: bool,
}

fn lines<T: Serialize>(items: &[T]) -> Bytes {
    let mut text = Vec::new();
    for item in items {
        if serde_json::to_writer(&mut text, item).is_ok() {
            text.push(b'\n');
        }
    }
    text.into()
}

fn ndjson(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")], body)
        .into_response()
}

/// Events, one JSON a line, oldest first.
#[utoipa::path(get, path = "/v1/events", tag = "changes", params(EventsAfter),
    responses((status = 200, body = Event, content_type = "application/x-ndjson")))]
pub(crate) async fn events(State(app): State<App>, Asked(query): Asked<EventsAfter>) -> Response {
    if !query.follow {
        return ndjson(Body::from(lines(&app.ledger.events_since(query.since))));
    }
    let revisions = app.ledger.follow();
    let followed = stream::unfold((app, revisions, query.since), |(app, mut revisions, since)| async move {
        loop {
            revisions.mark_unchanged();
            let events = app.ledger.events_since(since);
            if let Some(last) = events.last() {
                let since = last.revision;
                return Some((Ok::<_, Infallible>(lines(&events)), (app, revisions, since)));
            }
            tokio::select! {
                () = app.shutdown.cancelled() => return None,
                changed = revisions.changed() => changed.ok()?,
            }
        }
    });
    ndjson(Body::from_stream(followed))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditAfter {
    /// Only entries after this number.
    #[serde(default)]
    since: u64,
}

/// The audit log, oldest first, 10,000 entries at most.
#[utoipa::path(get, path = "/v1/audit", tag = "changes", params(AuditAfter),
    responses((status = 200, body = Vec<AuditEntry>)))]
pub(crate) async fn audit(
    State(app): State<App>,
    caller: Caller,
    Asked(query): Asked<AuditAfter>,
) -> Answer<Json<Vec<AuditEntry>>> {
    caller.must_be_admin()?;
    let (_, entries) = app.ledger.store().list("audit/")?;
    let wanted = entries
        .iter()
        .filter_map(|entry| serde_json::from_slice::<AuditEntry>(&entry.value).ok())
        .filter(|entry| entry.number > query.since)
        .take(AUDIT_SHOWN_MAX);
    Ok(Json(wanted.collect()))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangesAfter {
    /// Only changes after this revision; from now if absent.
    #[param(value_type = Option<u64>)]
    since: Option<Revision>,
}

struct Following {
    app: App,
    past: Option<Watch>,
    /// The last revision of the past; what is live comes after it.
    until: Revision,
    live: broadcast::Receiver<Change>,
}

impl Following {
    /// The next hint. What was before the request comes from the store; the rest as it happens, hosts' reports too.
    async fn next(&mut self) -> Option<Change> {
        while let Some(past) = &mut self.past {
            // The first change after the past is live already; without one, the past has been read when nothing is due.
            let next = futures::FutureExt::now_or_never(past.next());
            match next {
                Some(Ok(Some(change))) if change.revision <= self.until => {
                    if let Some(hint) = change_of(&change.key, change.revision) {
                        return Some(hint);
                    }
                }
                Some(Ok(Some(_))) | None => self.past = None,
                // Forgotten: the asker fetches everything again.
                Some(Ok(None) | Err(_)) => return None,
            }
        }
        tokio::select! {
            () = self.app.shutdown.cancelled() => None,
            // Closed, or changes were lost.
            change = self.live.recv() => change.ok(),
        }
    }
}

/// Hints of what changed, one JSON a line, for ever. It ends if changes were lost: fetch everything, then watch again.
#[utoipa::path(get, path = "/v1/watch", tag = "changes", params(ChangesAfter),
    responses((status = 200, body = Change, content_type = "application/x-ndjson")))]
pub(crate) async fn watch(State(app): State<App>, Asked(query): Asked<ChangesAfter>) -> Response {
    let live = app.ledger.changes();
    let until = app.ledger.revision();
    let past = query.since.filter(|since| *since < until).map(|since| app.ledger.store().watch("", since));
    let following = Following { app, past, until, live };
    let followed = stream::unfold(following, |mut following| async move {
        let change = following.next().await?;
        Some((Ok::<_, Infallible>(lines(&[change])), following))
    });
    ndjson(Body::from_stream(followed))
}
