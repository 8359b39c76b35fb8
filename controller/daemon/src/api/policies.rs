//! Installed policies, and the keys that vouch for them.

use super::{Asked, Body, Named};
use crate::app::App;
use crate::auth::Caller;
use crate::install::{self, Delivery, Place, Voucher, absent};
use crate::ledger::{Act, Writes};
use crate::problem::{Answer, Refused, blocking};
use crate::views;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use chassis::clock::unix_ms;
use controller_api::policy::{
    PolicyRelease, PolicyView, PutPolicy, PutTrustRoot, SetOnFailure, SetPolicySettings, ShadowReport,
    TrustName, TrustRootView,
};
use controller_api::rest::Problem;
use controller_model::{Cluster, policy, record};
use plugins_artifact::PublicKey;
use serde::Deserialize;
use std::sync::Arc;
use types::{Base64, Digest, PolicyName};
use utoipa::IntoParams;

/// Differences shown in one report.
const DIFFERENCES_SHOWN_MAX: usize = 200;

/// Installed policies.
#[utoipa::path(get, path = "/v1/policies", tag = "policies", responses((status = 200, body = Vec<PolicyView>)))]
pub(crate) async fn list(State(app): State<App>) -> Json<Vec<PolicyView>> {
    let cluster = app.ledger.cluster();
    Json(cluster.policies.keys().filter_map(|name| views::policy(&app, &cluster, name)).collect())
}

/// One installed policy.
#[utoipa::path(get, path = "/v1/policies/{name}", tag = "policies", params(("name" = String, Path)),
    responses((status = 200, body = PolicyView), (status = 404, body = Problem)))]
pub(crate) async fn one(State(app): State<App>, Named(name): Named<PolicyName>) -> Answer<Json<PolicyView>> {
    let view = views::policy(&app, &app.ledger.cluster(), &name);
    view.map(Json).ok_or_else(|| absent(&name))
}

/// Installs a policy, or replaces the one of that name from the next decision on.
#[utoipa::path(put, path = "/v1/policies/{name}", tag = "policies", params(("name" = String, Path)),
    request_body = PutPolicy,
    responses((status = 200, body = PolicyView), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn put(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<PolicyName>,
    Body(request): Body<PutPolicy>,
) -> Answer<Json<PolicyView>> {
    take_in(&app, &caller, &name, request, Place::Active, "policy-install").await
}

/// Asks a component beside the one that answers, without effect.
#[utoipa::path(put, path = "/v1/policies/{name}/candidate", tag = "policies", params(("name" = String, Path)),
    request_body = PutPolicy,
    responses((status = 200, body = PolicyView), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub(crate) async fn put_candidate(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<PolicyName>,
    Body(request): Body<PutPolicy>,
) -> Answer<Json<PolicyView>> {
    if !app.ledger.cluster().policies.contains_key(&name) {
        return Err(absent(&name));
    }
    take_in(&app, &caller, &name, request, Place::Candidate, "policy-shadow").await
}

async fn take_in(
    app: &App,
    caller: &Caller,
    name: &PolicyName,
    request: PutPolicy,
    place: Place,
    action: &'static str,
) -> Answer<Json<PolicyView>> {
    let delivery = Delivery {
        bytes: request.component.0.into(),
        voucher: Voucher::Signature(request.signature.0),
        settings: request.settings,
        place,
    };
    let act = Act { who: &caller.who, action, object: format!("policy/{name}") };
    install::take_in(app, &act, name, delivery).await.map(Json)
}

/// Changes a policy that is there.
async fn change(
    app: &App,
    caller: &Caller,
    name: &PolicyName,
    action: &'static str,
    make: impl FnOnce(&Cluster, &record::Policy) -> Answer<Option<(record::Policy, String)>> + Send,
) -> Answer<Json<PolicyView>> {
    let _filing = app.filing.lock().await;
    changed(app, caller, name, action, make).await
}

/// As [`change`], for those who hold `filing`.
async fn changed(
    app: &App,
    caller: &Caller,
    name: &PolicyName,
    action: &'static str,
    make: impl FnOnce(&Cluster, &record::Policy) -> Answer<Option<(record::Policy, String)>> + Send,
) -> Answer<Json<PolicyView>> {
    let act = Act { who: &caller.who, action, object: format!("policy/{name}") };
    let view = install::change(app, &act, name, |cluster, held| {
        let made = make(cluster, held.ok_or_else(|| absent(name))?)?;
        Ok(made.map(|(policy, message)| (policy, action, message)))
    });
    view.await.map(Json)
}

/// Stops asking the candidate.
#[utoipa::path(delete, path = "/v1/policies/{name}/candidate", tag = "policies", params(("name" = String, Path)),
    responses((status = 200, body = PolicyView), (status = 404, body = Problem)))]
pub(crate) async fn delete_candidate(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<PolicyName>,
) -> Answer<Json<PolicyView>> {
    change(&app, &caller, &name, "policy-shadow-stop", |_, held| {
        let mut policy = held.clone();
        let Some(candidate) = policy.candidate.take() else { return Ok(None) };
        Ok(Some((policy, format!("{} is not asked any more", named(&candidate)))))
    })
    .await
}

/// Takes the candidate into use.
#[utoipa::path(post, path = "/v1/policies/{name}/promote", tag = "policies", params(("name" = String, Path)),
    responses((status = 200, body = PolicyView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn promote(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<PolicyName>,
) -> Answer<Json<PolicyView>> {
    change(&app, &caller, &name, "policy-promote", |cluster, held| {
        let policy = policy::promote(&name, held, unix_ms())?;
        trusted(cluster, &policy)?;
        let message = format!("{} answers from now on", named(&policy.active));
        Ok(Some((policy, message)))
    })
    .await
}

/// Goes back to the component and settings that answered before.
#[utoipa::path(post, path = "/v1/policies/{name}/rollback", tag = "policies", params(("name" = String, Path)),
    responses((status = 200, body = PolicyView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn roll_back(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<PolicyName>,
) -> Answer<Json<PolicyView>> {
    change(&app, &caller, &name, "policy-rollback", |cluster, held| {
        let policy = policy::roll_back(&name, held, unix_ms())?;
        trusted(cluster, &policy)?;
        let message = format!("back to {}, away from {}", named(&policy.active), named(&held.active));
        Ok(Some((policy, message)))
    })
    .await
}

/// Nothing is taken into use that could not be installed now.
fn trusted(cluster: &Cluster, changed: &record::Policy) -> Answer<()> {
    match policy::doubt(cluster, changed.kind, &changed.active, unix_ms()) {
        Some(doubt) => Err(Refused::conflict(format!("{} cannot be taken: {doubt}", named(&changed.active)))),
        None => Ok(()),
    }
}

fn named(release: &PolicyRelease) -> String {
    format!("{} {}", release.component, release.version)
}

/// Gives the component that answers other settings, from the next decision on.
#[utoipa::path(put, path = "/v1/policies/{name}/settings", tag = "policies", params(("name" = String, Path)),
    request_body = SetPolicySettings,
    responses((status = 200, body = PolicyView), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn put_settings(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<PolicyName>,
    Body(request): Body<SetPolicySettings>,
) -> Answer<Json<PolicyView>> {
    let _filing = app.filing.lock().await;
    let held = app.ledger.cluster().policies.get(&name).map(|held| held.active.digest);
    let digest = held.ok_or_else(|| absent(&name))?;
    if let Some(settings) = request.settings.clone() {
        let policies = Arc::clone(&app.policies);
        blocking(move || policies.check_settings(&digest, &settings)).await?;
    }
    changed(&app, &caller, &name, "policy-settings", |_, held| {
        let policy = policy::set_settings(held, request.settings, unix_ms());
        Ok(policy.map(|policy| (policy, "other settings from now on".to_owned())))
    })
    .await
}

/// Says what happens if a policy has no answer.
#[utoipa::path(put, path = "/v1/policies/{name}/on-failure", tag = "policies", params(("name" = String, Path)),
    request_body = SetOnFailure,
    responses((status = 200, body = PolicyView), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn put_on_failure(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<PolicyName>,
    Body(request): Body<SetOnFailure>,
) -> Answer<Json<PolicyView>> {
    change(&app, &caller, &name, "policy-on-failure", |cluster, held| {
        let message = format!("if it has no answer: {}", request.on_failure);
        let policy = policy::set_on_failure(cluster, &name, held, request.on_failure)?;
        Ok((policy != *held).then_some((policy, message)))
    })
    .await
}

/// Removes a policy that nothing names.
#[utoipa::path(delete, path = "/v1/policies/{name}", tag = "policies", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<PolicyName>,
) -> Answer<StatusCode> {
    let _filing = app.filing.lock().await;
    let needed = install::digests(&app.ledger.cluster(), &name);
    let act = Act { who: &caller.who, action: "delete", object: format!("policy/{name}") };
    app.ledger
        .change(&act, |cluster| {
            if !cluster.policies.contains_key(&name) {
                return Err(absent(&name));
            }
            let users = policy::users(cluster, &name);
            if !users.is_empty() {
                let users = users.join(", ");
                return Err(Refused::conflict(format!(
                    "policy {name} is used by {users}: let them use another one first"
                )));
            }
            let mut writes = Writes::default();
            writes.delete(format!("policies/{name}"));
            writes.event(format!("policy/{name}"), "policy-deleted", "it is not asked any more");
            Ok((writes, ()))
        })
        .await?;
    install::forget(&app, needed);
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct WhichComponent {
    /// Of an earlier version or the candidate; the one that answers if absent.
    #[param(value_type = Option<String>)]
    digest: Option<Digest>,
}

/// The bytes of a policy's component.
#[utoipa::path(get, path = "/v1/policies/{name}/component", tag = "policies",
    params(("name" = String, Path), WhichComponent),
    responses((status = 200, body = Vec<u8>, content_type = "application/wasm"), (status = 404, body = Problem)))]
pub(crate) async fn component(
    State(app): State<App>,
    Named(name): Named<PolicyName>,
    Asked(query): Asked<WhichComponent>,
) -> Answer<Response> {
    let cluster = app.ledger.cluster();
    let held = cluster.policies.get(&name).ok_or_else(|| absent(&name))?;
    let digest = query.digest.unwrap_or(held.active.digest);
    if !held.releases().any(|release| release.digest == digest) {
        return Err(Refused::not_found(format!("policy {name} has no component {digest}")));
    }
    let policies = Arc::clone(&app.policies);
    let bytes = blocking(move || policies.bytes(&digest).map_err(Refused::conflict)).await?;
    Ok(([(header::CONTENT_TYPE, "application/wasm")], bytes).into_response())
}

/// What the candidate would have done.
#[utoipa::path(get, path = "/v1/policies/{name}/shadow", tag = "policies", params(("name" = String, Path)),
    responses((status = 200, body = ShadowReport), (status = 404, body = Problem)))]
pub(crate) async fn shadow(
    State(app): State<App>,
    Named(name): Named<PolicyName>,
) -> Answer<Json<ShadowReport>> {
    let cluster = app.ledger.cluster();
    let held = cluster.policies.get(&name).ok_or_else(|| absent(&name))?;
    let candidate = held.candidate.clone().ok_or_else(|| {
        Refused::not_found(format!("policy {name} has no candidate: begin with `collective policy shadow`"))
    })?;
    let settings = candidate.settings.as_ref().map(crate::decide::settings_digest);
    let mut report = ShadowReport {
        policy: name.clone(),
        asked: 0,
        differed: 0,
        failed: 0,
        differences: Vec::new(),
        candidate,
    };
    for (number, shadow) in cluster.shadows.iter().rev() {
        if (&shadow.policy, shadow.digest, shadow.settings) != (&name, report.candidate.digest, settings) {
            continue;
        }
        report.asked += 1;
        report.differed += u64::from(shadow.differs);
        report.failed += u64::from(shadow.outcome.starts_with("error: "));
        if shadow.differs && report.differences.len() < DIFFERENCES_SHOWN_MAX {
            report.differences.extend(views::decision(&cluster, *number));
        }
    }
    Ok(Json(report))
}

/// Keys that are trusted.
#[utoipa::path(get, path = "/v1/policy-trust", tag = "policies",
    responses((status = 200, body = Vec<TrustRootView>)))]
pub(crate) async fn trust(State(app): State<App>) -> Json<Vec<TrustRootView>> {
    let cluster = app.ledger.cluster();
    Json(cluster.trust.keys().filter_map(|name| views::trust_root(&cluster, name)).collect())
}

/// Trusts a key with some kinds of policies, or says anew what a known one may vouch for.
#[utoipa::path(put, path = "/v1/policy-trust/{name}", tag = "policies", params(("name" = String, Path)),
    request_body = PutTrustRoot,
    responses((status = 200, body = TrustRootView), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn put_trust(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<TrustName>,
    Body(request): Body<PutTrustRoot>,
) -> Answer<Json<TrustRootView>> {
    let key = PublicKey::parse(&request.key).map_err(|error| Refused::invalid(format!("key: {error}")))?;
    let (key, now_ms) = (Base64(key.as_bytes().to_vec()), unix_ms());
    if request.kinds.is_empty() {
        return Err(Refused::invalid("kinds: say what the key may vouch for, at least one kind"));
    }
    if request.expires_ms.is_some_and(|expires| expires <= now_ms) {
        return Err(Refused::invalid("expires_ms is in the past: nothing could be taken in by this key"));
    }
    let _filing = app.filing.lock().await;
    let act = Act { who: &caller.who, action: "policy-trust", object: format!("policy-trust/{name}") };
    app.ledger
        .change(&act, |cluster| {
            let other = cluster.trust.iter().find(|(other, root)| **other != name && root.key == key);
            if let Some((other, _)) = other {
                return Err(Refused::conflict(format!("this key is trusted as {other} already")));
            }
            let held = cluster.trust.get(&name).map(|held| &held.value);
            if held.is_some_and(|held| held.key != key) {
                return Err(Refused::conflict(format!(
                    "{name} is another key: remove that one first, or take another name"
                )));
            }
            let added_ms = held.map_or(now_ms, |held| held.added_ms);
            let (kinds, expires_ms) = (request.kinds, request.expires_ms);
            let root = record::TrustRoot { key, kinds, expires_ms, added_ms };
            let mut writes = Writes::default();
            if held != Some(&root) {
                let kinds: Vec<_> = root.kinds.iter().map(ToString::to_string).collect();
                writes.put(format!("trust/{name}"), &root);
                let message = format!("trusted with policies of {}", kinds.join(", "));
                writes.event(format!("policy-trust/{name}"), "policy-trusted", message);
            }
            Ok((writes, ()))
        })
        .await?;
    let view = views::trust_root(&app.ledger.cluster(), &name);
    view.map(Json).ok_or_else(|| unknown(&name))
}

fn unknown(name: &TrustName) -> Refused {
    Refused::not_found(format!("there is no trust root {name}"))
}

/// Trusts a key no more: nothing is taken in by it. What runs goes on, and says so.
#[utoipa::path(delete, path = "/v1/policy-trust/{name}", tag = "policies", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub(crate) async fn delete_trust(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<TrustName>,
) -> Answer<StatusCode> {
    let _filing = app.filing.lock().await;
    let act = Act { who: &caller.who, action: "delete", object: format!("policy-trust/{name}") };
    app.ledger
        .change(&act, |cluster| {
            let view = views::trust_root(cluster, &name).ok_or_else(|| unknown(&name))?;
            let mut writes = Writes::default();
            writes.delete(format!("trust/{name}"));
            writes.event(
                format!("policy-trust/{name}"),
                "policy-distrusted",
                "nothing is taken in by it any more",
            );
            for policy in view.policies {
                let message = format!("its trust root {name} was removed; it goes on");
                writes.event(format!("policy/{policy}"), "policy-in-doubt", message);
            }
            Ok((writes, ()))
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
