//! Streaming: what a boot waited for, profiles, images held ahead of need, limits.

use super::{Asked, Body, Named};
use crate::app::App;
use crate::auth::Caller;
use crate::ledger::{Act, Writes};
use crate::problem::{Answer, Refused, blocking};
use crate::views;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use controller_api::rest::Problem;
use controller_api::stream::{HoldRequest, HoldView, LimitScope, LimitsView, StreamReport, StreamView};
use controller_model::{record, streams};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::time::Duration;
use streamer_api::{Limits, Prefetch, Profile};
use types::{
    ApplianceRef, DeploymentName, Digest, HostName, InstanceId, MemberName, PublisherName, VersionName,
};
use utoipa::IntoParams;

/// Longest time a host may take to answer.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// What an instance's reads waited for, as its host knows it. Of one that is gone every host is asked.
#[utoipa::path(get, path = "/v1/instances/{deployment}/{member}/stream", tag = "streaming",
    params(("deployment" = String, Path), ("member" = String, Path)),
    responses((status = 200, body = StreamView), (status = 404, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn stream(
    State(app): State<App>,
    Named((deployment, member)): Named<(DeploymentName, MemberName)>,
) -> Answer<Json<StreamView>> {
    let id = InstanceId { deployment, member };
    let cluster = app.ledger.cluster();
    let placed = cluster.placements.get(&id).map(|placement| placement.host.clone());
    if let Some(host) = placed {
        let report = report(&app, &host, &id).await.map_err(Refused::unavailable)?;
        return Ok(Json(StreamView { instance: id, host, report }));
    }
    let asked = app.live.online();
    let mut answers: FuturesUnordered<_> = asked
        .iter()
        .map(|host| async { Some((host.clone(), report(&app, host, &id).await.ok()?)) })
        .collect();
    let mut latest: Option<(HostName, StreamReport)> = None;
    while let Some(answer) = answers.next().await {
        latest = latest.into_iter().chain(answer).max_by_key(|(_, report)| report.started_ms);
    }
    drop(answers);
    let (host, report) = latest.ok_or_else(|| match cluster.instances.contains_key(&id) {
        true => Refused::unavailable(format!("instance {id} has no host yet")),
        false => {
            Refused::not_found(format!("there is no instance {id}, and no host that is online remembers one"))
        }
    })?;
    Ok(Json(StreamView { instance: id, host, report }))
}

async fn report(app: &App, host: &HostName, id: &InstanceId) -> Result<StreamReport, String> {
    let waiting = app.live.stream_report(host, id)?;
    match tokio::time::timeout(REPORT_TIMEOUT, waiting).await {
        Ok(Ok(answer)) => answer,
        _ => Err(format!("host {host} did not answer")),
    }
}

/// What hosts are given of an image: published by its maker, refined by what its guests did.
#[utoipa::path(get, path = "/v1/images/{digest}/profiles", tag = "streaming", params(("digest" = String, Path)),
    responses((status = 200, body = Vec<Profile>), (status = 404, body = Problem)))]
pub(crate) async fn profiles(
    State(app): State<App>,
    Named(digest): Named<Digest>,
) -> Answer<Json<Vec<Profile>>> {
    if !app.ledger.cluster().images.contains_key(&digest.hex()) {
        return Err(Refused::not_found(format!("there is no image {digest}")));
    }
    blocking(move || Ok(Json(app.library.served(&digest).profiles))).await
}

/// Versions that hosts hold ahead of need, with how far each host is.
#[utoipa::path(get, path = "/v1/holds", tag = "streaming", responses((status = 200, body = Vec<HoldView>)))]
pub(crate) async fn holds(State(app): State<App>) -> Json<Vec<HoldView>> {
    let cluster = app.ledger.cluster();
    let view = |((appliance, version), hold): (&(ApplianceRef, VersionName), &record::Hold)| {
        views::hold(&app, &cluster, appliance, version, hold)
    };
    Json(cluster.holds.iter().map(|(key, hold)| view((key, &hold.value))).collect())
}

type Version = Named<(PublisherName, String, VersionName)>;

/// Lets hosts hold a version's image: pinned, or fetched ahead until the version is placed there.
#[utoipa::path(put, path = "/v1/holds/{publisher}/{appliance}/{version}", tag = "streaming",
    params(("publisher" = String, Path), ("appliance" = String, Path), ("version" = String, Path)),
    request_body = HoldRequest,
    responses((status = 200, body = HoldView), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn put_hold(
    State(app): State<App>,
    caller: Caller,
    Named((publisher, appliance, version)): Version,
    Body(request): Body<HoldRequest>,
) -> Answer<Json<HoldView>> {
    let name = ApplianceRef { publisher, appliance };
    if request.prefetch == Prefetch::Off && !request.pin {
        return Err(Refused::invalid("neither prefetch nor pin: delete the hold instead"));
    }
    let act = Act { who: &caller.who, action: "hold", object: format!("hold/{name}/{version}") };
    let (_, hold) = app
        .ledger
        .change(&act, |cluster| {
            let published = cluster
                .versions
                .get(&(name.clone(), version.clone()))
                .ok_or_else(|| Refused::not_found(format!("there is no version {version} of {name}")))?;
            for host in &request.hosts {
                if cluster.hosts.get(host).is_none_or(|held| held.role != "host") {
                    return Err(Refused::invalid(format!("hosts: there is no host {host}")));
                }
            }
            let hold = record::Hold {
                image: published.image,
                hosts: request.hosts.iter().cloned().collect(),
                prefetch: request.prefetch,
                pin: request.pin,
                ran: BTreeSet::new(),
            };
            let mut writes = Writes::default();
            let same =
                cluster.holds.get(&(name.clone(), version.clone())).is_some_and(|held| held.value == hold);
            if !same {
                writes.put(record::hold_key(&name, &version), &hold);
            }
            Ok((writes, hold))
        })
        .await?;
    app.wake();
    Ok(Json(views::hold(&app, &app.ledger.cluster(), &name, &version, &hold)))
}

/// Hosts need not hold a version's image ahead of need any more. What they have of it stays until evicted.
#[utoipa::path(delete, path = "/v1/holds/{publisher}/{appliance}/{version}", tag = "streaming",
    params(("publisher" = String, Path), ("appliance" = String, Path), ("version" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub(crate) async fn delete_hold(
    State(app): State<App>,
    caller: Caller,
    Named((publisher, appliance, version)): Version,
) -> Answer<StatusCode> {
    let name = ApplianceRef { publisher, appliance };
    let act = Act { who: &caller.who, action: "hold-end", object: format!("hold/{name}/{version}") };
    app.ledger
        .change(&act, |cluster| {
            if !cluster.holds.contains_key(&(name.clone(), version.clone())) {
                return Err(Refused::not_found(format!("{name} {version} is not held ahead of need")));
            }
            let mut writes = Writes::default();
            writes.delete(record::hold_key(&name, &version));
            Ok((writes, ()))
        })
        .await?;
    app.wake();
    Ok(StatusCode::NO_CONTENT)
}

/// Limits that were set, of whatever scope.
#[utoipa::path(get, path = "/v1/limits", tag = "streaming", responses((status = 200, body = Vec<LimitsView>)))]
pub(crate) async fn limits(State(app): State<App>) -> Json<Vec<LimitsView>> {
    let cluster = app.ledger.cluster();
    let view = |(scope, limits): (&LimitScope, &controller_model::cluster::Stored<Limits>)| LimitsView {
        scope: scope.clone(),
        limits: limits.value,
    };
    Json(cluster.limits.iter().map(view).collect())
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Whose {
    /// `all`, `site/NAME` or `host/NAME`.
    #[param(value_type = String)]
    scope: LimitScope,
}

/// Sets limits; in force on the hosts within a second. A body without any removes them.
#[utoipa::path(put, path = "/v1/limits", tag = "streaming", params(Whose), request_body = Limits,
    responses((status = 200, body = LimitsView), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn put_limits(
    State(app): State<App>,
    caller: Caller,
    Asked(Whose { scope }): Asked<Whose>,
    Body(limits): Body<Limits>,
) -> Answer<Json<LimitsView>> {
    streams::check(&limits).map_err(Refused::invalid)?;
    let act = Act { who: &caller.who, action: "limits", object: format!("limits/{scope}") };
    app.ledger
        .change(&act, |cluster| {
            let known = match &scope {
                LimitScope::All => true,
                // Hosts join with a site's name whether or not its document is there.
                LimitScope::Site(site) => {
                    cluster.sites.contains_key(site) || cluster.hosts.values().any(|host| host.site == *site)
                }
                LimitScope::Host(host) => cluster.hosts.contains_key(host),
            };
            if !known {
                return Err(Refused::not_found(format!(
                    "there is no {}",
                    scope.to_string().replace('/', " ")
                )));
            }
            let mut writes = Writes::default();
            let held = cluster.limits.get(&scope).map(|held| held.value);
            match limits == Limits::default() {
                true if held.is_some() => writes.delete(format!("limits/{scope}")),
                false if held != Some(limits) => writes.put(format!("limits/{scope}"), &limits),
                _ => {}
            }
            Ok((writes, ()))
        })
        .await?;
    app.wake();
    Ok(Json(LimitsView { scope, limits }))
}
