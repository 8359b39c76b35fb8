//! Subscriptions to publishers' repositories.

use super::{Body, Named};
use crate::app::App;
use crate::auth::Caller;
use crate::ledger::{Act, Writes};
use crate::problem::{Answer, Refused, blocking};
use crate::{policies, subscriptions};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chassis::clock::unix_ms;
use controller_api::rest::Problem;
use controller_api::subscription::{
    INTERVAL_S, INTERVAL_S_DEFAULT, Subscribe, SubscriptionState, SubscriptionView,
};
use controller_model::record;
use controller_publisher::{check_root, load};
use types::PublisherName;

/// Subscriptions.
#[utoipa::path(get, path = "/v1/subscriptions", tag = "appliances",
    responses((status = 200, body = Vec<SubscriptionView>)))]
pub(crate) async fn list(State(app): State<App>) -> Json<Vec<SubscriptionView>> {
    let (cluster, now_ms) = (app.ledger.cluster(), unix_ms());
    let views = cluster.subscriptions.keys().filter_map(|name| subscriptions::view(&cluster, name, now_ms));
    Json(views.collect())
}

fn shown(app: &App, name: &PublisherName) -> Answer<Json<SubscriptionView>> {
    let view = subscriptions::view(&app.ledger.cluster(), name, unix_ms());
    view.map(Json).ok_or_else(|| Refused::not_found(format!("there is no subscription to {name}")))
}

/// One subscription.
#[utoipa::path(get, path = "/v1/subscriptions/{publisher}", tag = "appliances",
    params(("publisher" = String, Path)),
    responses((status = 200, body = SubscriptionView), (status = 404, body = Problem)))]
pub(crate) async fn one(
    State(app): State<App>,
    Named(name): Named<PublisherName>,
) -> Answer<Json<SubscriptionView>> {
    shown(&app, &name)
}

/// Follows a publisher's repository. It is looked at first: one that is not believed is not subscribed to.
#[utoipa::path(put, path = "/v1/subscriptions/{publisher}", tag = "appliances",
    params(("publisher" = String, Path)), request_body = Subscribe,
    responses((status = 200, body = SubscriptionView), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn put(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<PublisherName>,
    Body(request): Body<Subscribe>,
) -> Answer<Json<SubscriptionView>> {
    let interval_s = request.interval_s.unwrap_or(INTERVAL_S_DEFAULT);
    if !INTERVAL_S.contains(&interval_s) {
        return Err(Refused::invalid(format!("interval_s is {interval_s}: write 60 to 86400")));
    }
    let source = subscriptions::source(&request.source);
    source.check().map_err(|why| Refused::invalid(format!("source: {why}")))?;
    let root = check_root(&request.root.0).map_err(|error| Refused::invalid(format!("root: {error}")))?;
    if root.publisher != name {
        return Err(Refused::invalid(format!("root: it is {}'s, not {name}'s", root.publisher)));
    }
    let look = app.turns.look(&name);
    let turn = look.lock().await;
    may_follow(&app, &name, &request)?;
    let known = app.ledger.cluster().subscriptions.contains_key(&name);
    let memory = subscriptions::memory(&app, &name);
    if !known {
        // Of a subscription that ended while its file could not be removed.
        remove(memory.clone()).await?;
    }
    let loaded = load(&name, &source, &request.root.0, &memory).await;
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            if !known {
                remove(memory).await?;
            }
            return Err(Refused::invalid(format!("the repository at {source} is not taken: {error}")));
        }
    };
    let now_ms = unix_ms();
    let held = record::Subscription {
        source: request.source.clone(),
        root: request.root.clone(),
        interval_ms: interval_s * 1_000,
        state: SubscriptionState::Current,
        since_ms: now_ms,
        problem: None,
        refreshed_ms: now_ms,
        expires_ms: loaded.expires_ms,
        root_version: loaded.root.version,
    };
    let act = Act { who: &caller.who, action: "subscribe", object: format!("subscription/{name}") };
    app.ledger
        .change(&act, |_| {
            may_follow(&app, &name, &request)?;
            let mut writes = Writes::default();
            writes.put(format!("subscriptions/{name}"), &held);
            Ok((writes, ()))
        })
        .await?;
    drop(turn);
    subscriptions::refresh(&app, &name).await?;
    shown(&app, &name)
}

/// One name, one way: keys of both would contradict each other.
fn may_follow(app: &App, name: &PublisherName, request: &Subscribe) -> Answer<()> {
    let cluster = app.ledger.cluster();
    if cluster.publishers.contains_key(name) {
        return Err(Refused::conflict(format!(
            "publisher {name} publishes here directly, with a key of its own: a repository cannot speak for it as well"
        )));
    }
    match cluster.subscriptions.get(name) {
        Some(held) if held.root != request.root => Err(Refused::conflict(format!(
            "{name} is subscribed to by another root: roots are followed by themselves; unsubscribe first if you mean it"
        ))),
        _ => Ok(()),
    }
}

async fn remove(path: std::path::PathBuf) -> Answer<()> {
    blocking(move || chassis::durable::remove(&path).map_err(|error| Refused::unwritten(&path, error))).await
}

/// Looks at a repository now.
#[utoipa::path(post, path = "/v1/subscriptions/{publisher}/refresh", tag = "appliances",
    params(("publisher" = String, Path)),
    responses((status = 200, body = SubscriptionView), (status = 404, body = Problem)))]
pub(crate) async fn refresh(
    State(app): State<App>,
    Named(name): Named<PublisherName>,
) -> Answer<Json<SubscriptionView>> {
    subscriptions::refresh(&app, &name).await?;
    shown(&app, &name)
}

/// Follows it no more. What is in the catalogue stays.
#[utoipa::path(delete, path = "/v1/subscriptions/{publisher}", tag = "appliances",
    params(("publisher" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub(crate) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<PublisherName>,
) -> Answer<StatusCode> {
    let look = app.turns.look(&name);
    let _turn = look.lock().await;
    let act = Act { who: &caller.who, action: "unsubscribe", object: format!("subscription/{name}") };
    app.ledger
        .change(&act, |cluster| {
            if !cluster.subscriptions.contains_key(&name) {
                return Err(Refused::not_found(format!("there is no subscription to {name}")));
            }
            let mut writes = Writes::default();
            writes.delete(format!("subscriptions/{name}"));
            Ok((writes, ()))
        })
        .await?;
    policies::discard(&subscriptions::memory(&app, &name));
    Ok(StatusCode::NO_CONTENT)
}
