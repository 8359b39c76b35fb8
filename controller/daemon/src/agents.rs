//! The channel to one host's agent.

use crate::api::PUBLISH_LEN_MAX;
use crate::app::App;
use crate::auth::Member;
use crate::ledger::Writes;
use crate::live::{ConsoleEvent, Outgoing};
use crate::problem::{Answer, Refused, blocking};
use crate::{checkpoints, metainfo, reconcile, recovery};
use axum::extract::rejection::JsonRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use chassis::clock::unix_ms;
use controller_api::agent::{
    AgentEvent, Hello, PROTOCOL, RUN_LEN_MAX, SILENCE_MS_MAX, ToAgent, ToController,
};
use controller_api::policy::PolicyKind;
use controller_model::{profiles, record};
use futures::{SinkExt as _, StreamExt as _};
use std::time::Duration;
use streamer_api::{ImageSource, Run};
use tokio::sync::mpsc;
use tokio::time::Instant;
use types::{Base64, Digest, Generation, HostName};

/// Longest message of an agent: a status with every image's piece map.
const MESSAGE_LEN_MAX: usize = 16 << 20;
/// Largest generation a host may say it holds: the controller counts on from there, and must never reach the end.
const GENERATION_MAX: Generation = Generation(1 << 53);
const SILENCE: Duration = Duration::from_millis(SILENCE_MS_MAX);

/// Routes for members.
pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/agent/v1/channel", get(channel))
        .route("/agent/v1/images/{digest}", get(image))
        .route("/agent/v1/images/{digest}/bytes", get(crate::subscriptions::bytes))
        .route("/agent/v1/policies/{digest}", get(component))
        .route(
            "/agent/v1/layers/{digest}",
            put(checkpoints::put_layer).layer(DefaultBodyLimit::max(PUBLISH_LEN_MAX)),
        )
        .route("/agent/v1/images/{digest}/runs", post(run).layer(DefaultBodyLimit::max(RUN_LEN_MAX)))
}

async fn image(
    State(app): State<App>,
    member: Member,
    Path(digest): Path<Digest>,
) -> Answer<Json<ImageSource>> {
    member.must_be_host()?;
    let record = app.ledger.cluster().images.get(&digest.hex()).map(|image| image.value.clone());
    let Some(record) = record else {
        return Err(Refused::not_found(format!("there is no image {digest}")));
    };
    let (torrent, manifest) = app.image_files(&digest);
    let read = |path| async move { tokio::fs::read(path).await.map_err(|error| Refused::internal(&error)) };
    let (metainfo, manifest) = (Base64(read(torrent).await?), Base64(read(manifest).await?));
    let mut source = ImageSource::new(metainfo, manifest, app.tracker_url.clone());
    source.web_seed = crate::subscriptions::web_seed(&app, &digest, &record);
    source.profiles = blocking(move || Ok(app.library.served(&digest).profiles)).await?;
    Ok(Json(source))
}

/// The bytes of a policy that hosts ask by themselves.
async fn component(State(app): State<App>, member: Member, Path(digest): Path<Digest>) -> Answer<Vec<u8>> {
    member.must_be_host()?;
    let theirs =
        |policy: &record::Policy| policy.kind == PolicyKind::Introspection && policy.active.digest == digest;
    if !app.ledger.cluster().policies.values().any(|policy| theirs(&policy.value)) {
        return Err(Refused::not_found(format!("no introspection policy is {digest}")));
    }
    blocking(move || app.policies.bytes(&digest).map_err(Refused::invalid)).await
}

/// A guest's run becomes part of its image's profiles; hosts are told when they gain by it.
async fn run(
    State(app): State<App>,
    member: Member,
    Path(digest): Path<Digest>,
    run: Result<Json<Run>, JsonRejection>,
) -> Answer<StatusCode> {
    member.must_be_host()?;
    let Json(run) = run?;
    if !app.ledger.cluster().images.contains_key(&digest.hex()) {
        return Err(Refused::not_found(format!("there is no image {digest}")));
    }
    let (ours, manifest) = (app.clone(), app.image_files(&digest).1);
    let served = blocking(move || {
        let pieces = metainfo::pieces(&manifest)?;
        profiles::check_run(&run, pieces).map_err(Refused::invalid)?;
        ours.library.add(&digest, &run)
    })
    .await?;
    let renewed = app
        .ledger
        .record(|cluster| {
            let mut writes = Writes::default();
            let key = digest.hex();
            if let Some(held) = cluster.images.get(&key).filter(|held| held.source != served.source) {
                writes.put(
                    format!("images/{key}"),
                    &record::Image { source: served.source, ..held.value.clone() },
                );
                for (name, version) in
                    cluster.versions.iter().filter(|(_, v)| v.image == digest).map(|(k, _)| k)
                {
                    let message = format!("{} of {version} from what guests read", named(&served.profiles));
                    writes.event(format!("appliance/{name}"), "profiles-refined", message);
                }
            }
            Ok(writes)
        })
        .await;
    renewed?;
    app.wake();
    Ok(StatusCode::NO_CONTENT)
}

/// `profile boot (8 runs, 400 pieces)`.
fn named(profiles: &[streamer_api::Profile]) -> String {
    let one = |p: &streamer_api::Profile| format!("{} ({} runs, {} pieces)", p.name, p.runs, p.entries.len());
    let all: Vec<String> = profiles.iter().map(one).collect();
    format!("profile {}", all.join(", "))
}

async fn channel(State(app): State<App>, member: Member, upgrade: WebSocketUpgrade) -> Answer<Response> {
    member.must_be_host()?;
    let upgrade = upgrade.max_message_size(MESSAGE_LEN_MAX).max_frame_size(MESSAGE_LEN_MAX);
    let sessions = app.sessions.clone();
    Ok(upgrade.on_upgrade(move |socket| sessions.track_future(session(app, member.name, socket))))
}

async fn session(app: App, host: HostName, mut socket: WebSocket) {
    let hello = match tokio::time::timeout(SILENCE, hello(&mut socket)).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(reason)) => return close(socket, reason).await,
        Err(_) => return close(socket, "the first message did not come in time".into()).await,
    };
    if let Err(refused) = greet(&app, &host, &hello).await {
        return close(socket, refused.0.message).await;
    }
    let (id, inbox) = app.live.connect(&host, unix_ms());
    app.ledger.hint("hosts", host.to_string());
    tracing::info!(%host, "agent connected");
    app.wake();
    let reason = talk(&app, &host, socket, inbox).await;
    tracing::info!(%host, reason, "agent disconnected");
    if app.live.disconnect(&host, id) && !app.shutdown.is_cancelled() {
        let message = format!("host {host} is offline: {reason}");
        note(&app, &host, "host-offline", message).await;
        app.ledger.hint("hosts", host.to_string());
        // The others have its share of their site's limits.
        app.wake();
    }
}

async fn close(mut socket: WebSocket, reason: String) {
    let frame =
        CloseFrame { code: close_code::POLICY, reason: reason.chars().take(100).collect::<String>().into() };
    // The other end may be gone already.
    let _ = socket.send(Message::Close(Some(frame))).await;
}

async fn hello(socket: &mut WebSocket) -> Result<Hello, String> {
    while let Some(message) = socket.recv().await {
        let message = message.map_err(|error| error.to_string())?;
        let Message::Text(text) = message else { continue };
        return match serde_json::from_str(&text) {
            Ok(ToController::Hello(hello)) => admit(*hello),
            Ok(_) => Err("the first message is no hello".into()),
            Err(error) => Err(format!("the first message cannot be read: {error}")),
        };
    }
    Err("it ended before its first message".into())
}

fn admit(hello: Hello) -> Result<Hello, String> {
    if hello.protocol != PROTOCOL {
        return Err(format!("protocol {} is not {PROTOCOL}: update the agent", hello.protocol));
    }
    if hello.generation > GENERATION_MAX {
        return Err(format!(
            "generation {} is none that a controller gave: remove the host and let it join again",
            hello.generation
        ));
    }
    Ok(hello)
}

async fn greet(app: &App, host: &HostName, hello: &Hello) -> Answer<()> {
    let facts = hello.facts.clone();
    app.ledger
        .record(|cluster| {
            let mut writes = Writes::default();
            if !cluster.hosts.contains_key(host) {
                return Err(Refused::forbidden(format!("host {host} was removed")));
            }
            if cluster.facts.get(host).map(|held| &held.value) != Some(&facts) {
                writes.put(format!("facts/{host}"), &facts);
            }
            writes.event(format!("host/{host}"), "host-online", format!("host {host} is online"));
            Ok(writes)
        })
        .await?;
    let ours = app.ledger.cluster().desired.get(host).map_or(Generation(0), |held| held.generation);
    if hello.generation > ours {
        reconcile::overtake(app, host, hello.generation).await?;
    }
    reconcile::publish_desired(app).await
}

/// Writes an event; if the store fails that is logged, and the channel goes on.
async fn note(app: &App, host: &HostName, reason: &'static str, message: String) {
    let object = format!("host/{host}");
    let _ = app
        .ledger
        .record(|_| {
            let mut writes = Writes::default();
            writes.event(object, reason, message);
            Ok(writes)
        })
        .await;
}

/// Speaks with an agent until either end goes; says why it ended.
async fn talk(app: &App, host: &HostName, socket: WebSocket, mut inbox: mpsc::Receiver<Outgoing>) -> String {
    let (mut sender, mut receiver) = socket.split();
    let mut revisions = app.ledger.follow();
    let mut sent = None;
    let mut heard = None;
    let mut silent_at = Instant::now() + SILENCE;
    loop {
        if let Some(document) = newer(app, host, &mut sent) {
            let sending = tokio::time::timeout(SILENCE, sender.send(document)).await;
            if !matches!(sending, Ok(Ok(()))) {
                return "it does not take messages".into();
            }
        }
        // What it was granted it was granted after that document was written.
        if let Some(answer) = heard.take() {
            let sending = tokio::time::timeout(SILENCE, sender.send(text(&answer))).await;
            if !matches!(sending, Ok(Ok(()))) {
                return "it does not take messages".into();
            }
        }
        tokio::select! {
            () = app.shutdown.cancelled() => return "the controller stops".into(),
            changed = revisions.changed() => if changed.is_err() { return "the controller stops".into() },
            outgoing = inbox.recv() => {
                let Some(outgoing) = outgoing else { return "another connection took its place".into() };
                let sending = tokio::time::timeout(SILENCE, sender.send(frame(outgoing))).await;
                if !matches!(sending, Ok(Ok(()))) {
                    return "it does not take messages".into();
                }
            }
            message = receiver.next() => match message {
                None | Some(Ok(Message::Close(_))) => return "it closed the connection".into(),
                Some(Err(error)) => return error.to_string(),
                Some(Ok(message)) => {
                    silent_at = Instant::now() + SILENCE;
                    match take(app, host, message).await {
                        Ok(answer) => heard = answer,
                        Err(reason) => return reason,
                    }
                }
            },
            () = tokio::time::sleep_until(silent_at) => {
                return format!("nothing was heard for {} s", SILENCE.as_secs());
            }
        }
    }
}

/// The host's desired document, if it was not sent yet.
fn newer(app: &App, host: &HostName, sent: &mut Option<Generation>) -> Option<Message> {
    let cluster = app.ledger.cluster();
    let held = cluster.desired.get(host)?;
    if *sent == Some(held.generation) {
        return None;
    }
    *sent = Some(held.generation);
    Some(text(&ToAgent::Desired(Box::new(held.value.clone()))))
}

fn text(message: &ToAgent) -> Message {
    Message::Text(serde_json::to_string(message).unwrap_or_default().into())
}

fn frame(outgoing: Outgoing) -> Message {
    match outgoing {
        Outgoing::Message(message) => text(&message),
        Outgoing::Console(stream, bytes) => {
            let mut frame = stream.to_be_bytes().to_vec();
            frame.extend(bytes.unwrap_or_default());
            Message::Binary(frame.into())
        }
    }
}

/// Takes a message up; says how it is answered, if it is.
async fn take(app: &App, host: &HostName, message: Message) -> Result<Option<ToAgent>, String> {
    match message {
        Message::Binary(bytes) => {
            let Some((stream, rest)) = bytes.split_first_chunk::<4>() else {
                return Err("it sent a binary message without a stream number".into());
            };
            let event = match rest {
                [] => ConsoleEvent::Closed("the console has ended".into()),
                rest => ConsoleEvent::Bytes(rest.to_vec()),
            };
            app.live.console_event(host, u32::from_be_bytes(*stream), event);
        }
        Message::Text(text) => {
            let message = serde_json::from_str(&text)
                .map_err(|error| format!("it sent what cannot be read: {error}"))?;
            return Ok(take_message(app, host, message).await);
        }
        _ => app.live.heard(host, unix_ms()),
    }
    Ok(None)
}

async fn take_message(app: &App, host: &HostName, message: ToController) -> Option<ToAgent> {
    app.live.heard(host, unix_ms());
    match message {
        ToController::Hello(_) => {}
        ToController::Status(status) => {
            let beat = status.beat;
            app.report(host, *status, unix_ms());
            return recovery::answer(app, host, beat);
        }
        ToController::Event(event) => agent_event(app, host, event).await,
        ToController::Log { request, text, problem } => {
            app.live.log_answer(host, request, problem.map_or(Ok(text), Err));
        }
        ToController::Stream { request, report, problem } => {
            let answer = report.map(|report| *report);
            app.live.stream_answer(host, request, answer.ok_or_else(|| silence(problem)));
        }
        ToController::Explanation { request, explanation, problem } => {
            let answer = explanation.map(|explanation| *explanation);
            app.live.explanation(host, request, answer.ok_or_else(|| silence(problem)));
        }
        ToController::Flows { request, flows, problem } => {
            app.live.flows_answer(host, request, flows.ok_or_else(|| silence(problem)));
        }
        ToController::ConsoleClosed { stream, reason } => {
            app.live.console_event(host, stream, ConsoleEvent::Closed(reason));
        }
    }
    None
}

fn silence(problem: Option<String>) -> String {
    problem.unwrap_or_else(|| "it says nothing".into())
}

async fn agent_event(app: &App, host: &HostName, event: AgentEvent) {
    let object = match &event.instance {
        Some(id) => format!("instance/{id}"),
        None => format!("host/{host}"),
    };
    let made = app
        .ledger
        .record(|_| {
            let mut writes = Writes::default();
            writes.foreign_event(object, &event.reason, &event.message, event.at_ms);
            Ok(writes)
        })
        .await;
    if let Err(refused) = made {
        tracing::warn!(%host, problem = refused.0.message, "an event is lost");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use controller_api::agent::HostFacts;

    // Counting on from the last generation there is overflowed, in the reconciler that serves all hosts.
    #[test]
    fn a_hello_with_a_generation_that_cannot_be_counted_on_is_refused() {
        let hello = |generation| Hello {
            protocol: PROTOCOL,
            generation: Generation(generation),
            facts: HostFacts::default(),
        };
        assert!(admit(hello(7)).is_ok());
        assert!(admit(hello(GENERATION_MAX.0)).is_ok());
        for generation in [GENERATION_MAX.0 + 1, u64::MAX - 1, u64::MAX] {
            assert!(admit(hello(generation)).unwrap_err().contains("let it join again"));
        }
        assert!(
            admit(Hello { protocol: PROTOCOL + 1, ..hello(7) }).unwrap_err().contains("update the agent")
        );
    }
}
