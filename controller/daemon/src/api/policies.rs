//! Installed policies.

use super::Named;
use crate::app::App;
use crate::auth::Caller;
use crate::ledger::{Act, Writes};
use crate::problem::{Answer, Refused, blocking};
use crate::views;
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use bytes::Bytes;
use chassis::clock::unix_ms;
use controller_api::policy::PolicyOrigin;
use controller_api::rest::{PolicyView, Problem};
use controller_model::record;
use types::PolicyName;

/// Installed policies.
#[utoipa::path(get, path = "/v1/policies", tag = "policies", responses((status = 200, body = Vec<PolicyView>)))]
pub(crate) async fn policies(State(app): State<App>) -> Json<Vec<PolicyView>> {
    let cluster = app.ledger.cluster();
    Json(cluster.policies.keys().filter_map(|name| views::policy(&app, &cluster, name)).collect())
}

/// Installs a policy, or replaces the one of that name from the next decision on.
#[utoipa::path(put, path = "/v1/policies/{name}", tag = "policies", params(("name" = String, Path)),
    request_body(content = Vec<u8>, content_type = "application/wasm", description = "a component, at most 32 MiB"),
    responses((status = 200, body = PolicyView), (status = 422, body = Problem)))]
pub(crate) async fn put_policy(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<PolicyName>,
    body: Result<Bytes, BytesRejection>,
) -> Answer<Json<PolicyView>> {
    let act = Act { who: &caller.who, action: "policy-install", object: format!("policy/{name}") };
    install(&app, &act, name, body?, PolicyOrigin::Unsigned).await.map(Json)
}

pub(crate) async fn install(
    app: &App,
    act: &Act<'_>,
    name: PolicyName,
    bytes: Bytes,
    origin: PolicyOrigin,
) -> Answer<PolicyView> {
    let _filing = app.filing.lock().await;
    let policies = std::sync::Arc::clone(&app.policies);
    let (kind, release) = blocking(move || policies.take_in(&bytes, origin, unix_ms())).await?;
    let digest = release.digest;
    let taken = app
        .ledger
        .change(act, |cluster| {
            let mut writes = Writes::default();
            let held = cluster.policies.get(&name).map(|held| held.value.clone());
            if let Some(held) = held.as_ref().filter(|held| held.kind != kind) {
                return Err(Refused::conflict(format!(
                    "policy {name} is one of {}, the component one of {kind}: take another name",
                    held.kind
                )));
            }
            if held.as_ref().is_some_and(|held| held.active.digest == digest) {
                return Ok((writes, ()));
            }
            let message = format!("{} {} installed as {name}", release.component, release.version);
            let mut policy = held.unwrap_or_else(|| record::Policy {
                kind,
                active: release.clone(),
                on_failure: Default::default(),
                earlier: Vec::new(),
                candidate: None,
            });
            policy.active = release;
            writes.put(format!("policies/{name}"), &policy);
            writes.event(format!("policy/{name}"), "policy-installed", message);
            Ok((writes, ()))
        })
        .await;
    if taken.is_err() && !app.ledger.cluster().policies.values().any(|held| held.active.digest == digest) {
        app.policies.discard(&digest);
    }
    taken?;
    app.wake();
    views::policy(app, &app.ledger.cluster(), &name)
        .ok_or_else(|| Refused::not_found(format!("there is no policy {name}")))
}
