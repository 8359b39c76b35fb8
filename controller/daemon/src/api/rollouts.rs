//! The wave board: rollouts, and what people say to them.

use super::{Body, Named};
use crate::app::App;
use crate::auth::Caller;
use crate::problem::{Answer, Refused};
use crate::updates::{self, Word};
use axum::Json;
use axum::extract::State;
use controller_api::planned::{RefusalView, RolloutView, RolloutWord};
use controller_api::rest::Problem;
use serde::Deserialize;
use types::{ChannelName, PolicyName, PublisherName, VersionName};

/// A rollout's name as it stands in a path.
#[derive(Debug, Deserialize)]
pub(crate) struct Id {
    publisher: PublisherName,
    appliance: String,
    channel: ChannelName,
    version: VersionName,
    policy: PolicyName,
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { publisher, appliance, channel, version, policy } = self;
        write!(f, "{publisher}/{appliance}/{channel}/{version}/{policy}")
    }
}

/// All rollouts, newest first.
#[utoipa::path(get, path = "/v1/rollouts", tag = "policies", responses((status = 200, body = Vec<RolloutView>)))]
pub(crate) async fn list(State(app): State<App>) -> Json<Vec<RolloutView>> {
    Json(updates::rollouts(&app.ledger.cluster()))
}

/// One rollout with its waves.
#[utoipa::path(get, path = "/v1/rollouts/{publisher}/{appliance}/{channel}/{version}/{policy}", tag = "policies",
    params(("publisher" = String, Path), ("appliance" = String, Path), ("channel" = String, Path),
        ("version" = String, Path), ("policy" = String, Path)),
    responses((status = 200, body = RolloutView), (status = 404, body = Problem)))]
pub(crate) async fn one(State(app): State<App>, Named(id): Named<Id>) -> Answer<Json<RolloutView>> {
    let (cluster, id) = (app.ledger.cluster(), id.to_string());
    let held = cluster.rollouts.get(&id);
    held.map(|held| Json(updates::view(&cluster, &id, &held.value)))
        .ok_or_else(|| Refused::not_found(format!("there is no rollout {id}")))
}

async fn say(app: &App, caller: &Caller, said: (Id, Word), word: RolloutWord) -> Answer<Json<RolloutView>> {
    updates::say(app, caller, (&said.0.to_string(), said.1), word.why).await.map(Json)
}

/// Asks its policy no more and begins no order. Those that have begun end.
#[utoipa::path(post, path = "/v1/rollouts/{publisher}/{appliance}/{channel}/{version}/{policy}/pause", tag = "policies",
    params(("publisher" = String, Path), ("appliance" = String, Path), ("channel" = String, Path),
        ("version" = String, Path), ("policy" = String, Path)),
    request_body = RolloutWord,
    responses((status = 200, body = RolloutView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn pause(
    State(app): State<App>,
    caller: Caller,
    Named(id): Named<Id>,
    Body(word): Body<RolloutWord>,
) -> Answer<Json<RolloutView>> {
    say(&app, &caller, (id, Word::Pause), word).await
}

/// Lets a paused or halted rollout go on; what failed before a halt is forgiven.
#[utoipa::path(post, path = "/v1/rollouts/{publisher}/{appliance}/{channel}/{version}/{policy}/resume", tag = "policies",
    params(("publisher" = String, Path), ("appliance" = String, Path), ("channel" = String, Path),
        ("version" = String, Path), ("policy" = String, Path)),
    request_body = RolloutWord,
    responses((status = 200, body = RolloutView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn resume(
    State(app): State<App>,
    caller: Caller,
    Named(id): Named<Id>,
    Body(word): Body<RolloutWord>,
) -> Answer<Json<RolloutView>> {
    say(&app, &caller, (id, Word::Resume), word).await
}

/// Tries a version again that failed here: it is refused no more, and the rollout begins anew.
#[utoipa::path(post, path = "/v1/rollouts/{publisher}/{appliance}/{channel}/{version}/{policy}/retry", tag = "policies",
    params(("publisher" = String, Path), ("appliance" = String, Path), ("channel" = String, Path),
        ("version" = String, Path), ("policy" = String, Path)),
    request_body = RolloutWord,
    responses((status = 200, body = RolloutView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn retry(
    State(app): State<App>,
    caller: Caller,
    Named(id): Named<Id>,
    Body(word): Body<RolloutWord>,
) -> Answer<Json<RolloutView>> {
    say(&app, &caller, (id, Word::Retry), word).await
}

/// Pauses every rollout that is not over, at once. Answers the names of those that were not paused yet.
#[utoipa::path(post, path = "/v1/rollouts/halt-all", tag = "policies", request_body = RolloutWord,
    responses((status = 200, body = Vec<String>)))]
pub(crate) async fn halt_all(
    State(app): State<App>,
    caller: Caller,
    Body(word): Body<RolloutWord>,
) -> Answer<Json<Vec<String>>> {
    updates::halt_all(&app, &caller, word.why).await.map(Json)
}

/// Versions that failed here and are not tried again.
#[utoipa::path(get, path = "/v1/refusals", tag = "policies", responses((status = 200, body = Vec<RefusalView>)))]
pub(crate) async fn refusals(State(app): State<App>) -> Json<Vec<RefusalView>> {
    Json(updates::refusals(&app.ledger.cluster()))
}
