//! An instance's serial console, its log, its boot.

use super::{Asked, Named};
use crate::app::App;
use crate::auth::Caller;
use crate::live::ConsoleEvent;
use crate::problem::{Answer, Refused};
use crate::views;
use axum::Json;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use controller_api::rest::{BootView, Problem};
use futures::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use std::time::Duration;
use tokio::sync::mpsc;
use types::{DeploymentName, HostName, InstanceId, MemberName};
use utoipa::IntoParams;

/// Longest time a host may take to answer.
const LOG_TIMEOUT: Duration = Duration::from_secs(5);
/// The same where the log is only a part of the answer.
const BOOT_LOG_TIMEOUT: Duration = Duration::from_millis(500);
const LOG_BYTES_DEFAULT: u32 = 64 << 10;
const LOG_BYTES_MAX: u32 = 1 << 20;
const BOOT_LOG_BYTES: u32 = 8 << 10;
/// Longest message of a console's reader.
const CONSOLE_MESSAGE_MAX: usize = 64 << 10;

type Ids = Named<(DeploymentName, MemberName)>;

/// The host an instance is on.
fn host_of(app: &App, id: &InstanceId) -> Answer<HostName> {
    let cluster = app.ledger.cluster();
    if !cluster.instances.contains_key(id) {
        return Err(Refused::not_found(format!("there is no instance {id}")));
    }
    let placement = cluster.placements.get(id);
    placement
        .map(|placement| placement.host.clone())
        .ok_or_else(|| Refused::unavailable(format!("instance {id} has no host yet")))
}

async fn tail(app: &App, id: &InstanceId, bytes_max: u32, timeout: Duration) -> Answer<String> {
    let host = host_of(app, id)?;
    let waiting = app.live.log_tail(&host, id, bytes_max).map_err(Refused::unavailable)?;
    match tokio::time::timeout(timeout, waiting).await {
        Ok(Ok(Ok(text))) => Ok(text),
        Ok(Ok(Err(problem))) => Err(Refused::unavailable(problem)),
        _ => Err(Refused::unavailable(format!("host {host} did not answer"))),
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tail {
    /// At most this many bytes from its end, up to 1 MiB; 64 KiB if absent.
    bytes: Option<u32>,
}

/// The end of an instance's serial log.
#[utoipa::path(get, path = "/v1/instances/{deployment}/{member}/log", tag = "instances",
    params(("deployment" = String, Path), ("member" = String, Path), Tail),
    responses((status = 200, body = String, content_type = "text/plain"), (status = 503, body = Problem)))]
pub(crate) async fn log(
    State(app): State<App>,
    Named((deployment, member)): Ids,
    Asked(query): Asked<Tail>,
) -> Answer<String> {
    let bytes = query.bytes.unwrap_or(LOG_BYTES_DEFAULT).min(LOG_BYTES_MAX);
    tail(&app, &InstanceId { deployment, member }, bytes, LOG_TIMEOUT).await
}

/// One instance's boot, live: its image with the piece map, and the end of its serial log.
#[utoipa::path(get, path = "/v1/instances/{deployment}/{member}/boot", tag = "instances",
    params(("deployment" = String, Path), ("member" = String, Path)),
    responses((status = 200, body = BootView), (status = 404, body = Problem)))]
pub(crate) async fn boot(State(app): State<App>, Named((deployment, member)): Ids) -> Answer<Json<BootView>> {
    let id = InstanceId { deployment, member };
    let cluster = app.ledger.cluster();
    let record =
        cluster.instances.get(&id).ok_or_else(|| Refused::not_found(format!("there is no instance {id}")))?;
    let view = views::instance(&app, &cluster, &id, record);
    let status = view.host.as_ref().and_then(|host| app.live.seen(host).status);
    let image = status.and_then(|status| {
        let images = &status.images;
        images.get(&view.image.to_string()).or_else(|| images.get(&view.image.hex())).cloned()
    });
    // A boot without its log is still a boot.
    let log_tail = tail(&app, &id, BOOT_LOG_BYTES, BOOT_LOG_TIMEOUT).await.unwrap_or_default();
    Ok(Json(BootView {
        state: view.state,
        started_ms: view.started_ms,
        ready_ms: view.ready_ms,
        image,
        log_tail,
    }))
}

/// An instance's serial console: a WebSocket, binary frames both ways. Browsers give the token in the query.
#[utoipa::path(get, path = "/v1/instances/{deployment}/{member}/console", tag = "instances",
    params(("deployment" = String, Path), ("member" = String, Path), ("token" = Option<String>, Query)),
    responses((status = 101), (status = 403, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn console(
    State(app): State<App>,
    caller: Caller,
    Named((deployment, member)): Ids,
    upgrade: WebSocketUpgrade,
) -> Answer<Response> {
    // Whoever has the console has the guest.
    caller.must_be_admin()?;
    let id = InstanceId { deployment, member };
    let host = host_of(&app, &id)?;
    let (stream, events) = app.live.console_open(&host, &id).map_err(Refused::unavailable)?;
    tracing::info!(who = %caller.who, instance = %id, "console opened");
    let upgrade = upgrade.max_message_size(CONSOLE_MESSAGE_MAX);
    let failed = (app.clone(), host.clone());
    let upgrade = upgrade.on_failed_upgrade(move |_| {
        let (app, host) = failed;
        let _ = app.live.console_send(&host, stream, None);
    });
    let sessions = app.sessions.clone();
    let relayed =
        move |socket| sessions.track_future(async move { relay(&app, &host, stream, events, socket).await });
    Ok(upgrade.on_upgrade(relayed))
}

async fn relay(
    app: &App,
    host: &HostName,
    stream: u32,
    mut events: mpsc::Receiver<ConsoleEvent>,
    socket: WebSocket,
) {
    let (mut sender, mut receiver) = socket.split();
    let reason = loop {
        tokio::select! {
            () = app.shutdown.cancelled() => break "the controller stops".to_owned(),
            event = events.recv() => match event {
                Some(ConsoleEvent::Bytes(bytes)) => {
                    if sender.send(Message::Binary(bytes.into())).await.is_err() {
                        break String::new();
                    }
                }
                Some(ConsoleEvent::Closed(reason)) => break reason,
                None => break "the host's connection was lost, or this end was too slow".to_owned(),
            },
            message = receiver.next() => {
                let bytes = match message {
                    Some(Ok(Message::Binary(bytes))) => bytes.to_vec(),
                    Some(Ok(Message::Text(text))) => text.as_bytes().to_vec(),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => break String::new(),
                };
                // An empty frame would close the stream.
                if !bytes.is_empty() && app.live.console_send(host, stream, Some(bytes)).is_err() {
                    break "the host is offline".to_owned();
                }
            }
        }
    };
    // Either end may be gone already.
    let _ = app.live.console_send(host, stream, None);
    let reason = reason.chars().take(100).collect::<String>();
    let _ = sender
        .send(Message::Close(Some(CloseFrame { code: close_code::NORMAL, reason: reason.into() })))
        .await;
}
