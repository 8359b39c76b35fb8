//! Hosts and origins come and go.

use super::{Asked, Body, Named};
use crate::app::App;
use crate::auth::{self, Caller};
use crate::identity::IdentityError;
use crate::ledger::{Act, Who, Writes};
use crate::problem::{Answer, Refused};
use crate::recovery::elsewhere;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use chassis::clock::unix_ms;
use chassis::telemetry::chain;
use controller_api::agent::{JoinAnswer, JoinRequest};
use controller_api::recovery::{RemoveHost, RemovedHost};
use controller_api::rest::Problem;
use controller_model::{Cluster, readiness, record, recovery};
use types::{Digest, HostName};

/// Longest certificate request in bytes.
const CSR_LEN_MAX: usize = 16 << 10;

/// A host or an origin asks for its certificate. The token is good for one.
#[utoipa::path(post, path = "/join/v1", tag = "hosts", request_body = JoinRequest,
    responses((status = 200, body = JoinAnswer), (status = 401, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn join(
    State(app): State<App>,
    Body(request): Body<JoinRequest>,
) -> Answer<Json<JoinAnswer>> {
    let (join_id, join) = auth::check_join(&app, &request.token)?;
    if request.csr.len() > CSR_LEN_MAX {
        return Err(Refused::invalid("csr: the certificate request is too long"));
    }
    let host = &request.host;
    let certified = app.authority.certify(&request.csr, host.as_str(), &join.role);
    let (certificate, digest) = certified.map_err(|error| match error {
        IdentityError::Make(cause) => Refused::invalid(format!("csr: {}", chain(&cause))),
        other => Refused::internal(&other),
    })?;
    let who = Who::Host(host.to_string());
    let act = Act { who: &who, action: "join", object: format!("host/{host}") };
    app.ledger
        .change(&act, |cluster| {
            if !cluster.joins.contains_key(&join_id) {
                return Err(Refused::unauthenticated(
                    "this join token is unknown or was used: ask for a new one",
                ));
            }
            if cluster.hosts.contains_key(host) {
                return Err(Refused::conflict(format!(
                    "host {host} has joined already: remove it first, or take another name"
                )));
            }
            // The machine that had this name may still run what is placed there.
            if cluster.placements.values().any(|placement| placement.host == *host) {
                return Err(Refused::conflict(format!(
                    "host {host} was removed by force, and its lease may still run: try again in a minute, or take \
                     another name"
                )));
            }
            let mut writes = Writes::default();
            let member = record::Host::joined(request.site.clone(), join.role.clone(), digest, unix_ms());
            writes.put(format!("hosts/{host}"), &member);
            writes.delete(format!("joins/{join_id}"));
            writes.event(
                format!("host/{host}"),
                "host-joined",
                format!("{} {host} joined at site {}", join.role, request.site),
            );
            Ok((writes, ()))
        })
        .await?;
    app.wake();
    Ok(Json(JoinAnswer { certificate, ca: app.authority.pem.clone(), role: join.role }))
}

/// Removes a host that holds nothing, or by force one that will never come back; its certificate is refused from then
/// on. With `force`, what it ran under a lease starts elsewhere when that has surely run out, all else at once.
#[utoipa::path(delete, path = "/v1/hosts/{name}", tag = "hosts", params(("name" = String, Path), RemoveHost),
    responses((status = 200, body = RemovedHost, description = "It was removed by force, with this"), (status = 204),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn delete_host(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<HostName>,
    Asked(request): Asked<RemoveHost>,
) -> Answer<Response> {
    if request.restore && !request.force {
        return Err(Refused::invalid("restore: only what a host that is removed by force held is restored"));
    }
    let (statuses, online) = (app.live.statuses(), app.live.online());
    let others = elsewhere(&statuses, &online, &[name.clone()].into());
    let act = Act { who: &caller.who, action: "host-remove", object: format!("host/{name}") };
    let (_, removed) = app
        .ledger
        .change(&act, |cluster| {
            if !request.force {
                refuse_holder(cluster, &name)?;
            }
            let reach = |image: &Digest| readiness::is_whole(others.iter().copied(), image);
            let mut fresh = || uuid::Uuid::new_v4().to_string();
            let (draft, removed) =
                recovery::remove_host(cluster, &name, request.restore, &reach, &mut fresh)?;
            let mut writes = Writes::of(draft);
            writes.event(format!("host/{name}"), "host-removed", message(&name, request, &removed));
            Ok((writes, removed))
        })
        .await?;
    app.live.forget(&name);
    app.wake();
    Ok(if request.force { Json(removed).into_response() } else { StatusCode::NO_CONTENT.into_response() })
}

fn refuse_holder(cluster: &Cluster, name: &HostName) -> Answer<()> {
    let placed = cluster.placements.iter().filter(|(_, p)| p.host == *name).map(|(id, _)| id.to_string());
    let held = cluster
        .volumes
        .iter()
        .filter(|(_, volume)| volume.host.as_ref() == Some(name))
        .map(|((id, volume), _)| format!("volume {id}/{volume}"));
    let holds: Vec<String> = placed.chain(held).take(8).collect();
    if holds.is_empty() {
        return Ok(());
    }
    Err(Refused::conflict(format!(
        "host {name} holds {}: delete or move them first, or remove it by force if it will never come back",
        holds.join(", ")
    )))
}

fn message(name: &HostName, request: RemoveHost, removed: &RemovedHost) -> String {
    if !request.force {
        return format!("host {name} was removed");
    }
    format!(
        "host {name} was removed by force: {} recovering, {} restored, {} afresh, lost volumes: {}",
        removed.recovering.len(),
        removed.restored.len(),
        removed.afresh.len(),
        if removed.lost_volumes.is_empty() { "none".to_owned() } else { removed.lost_volumes.join(", ") }
    )
}
