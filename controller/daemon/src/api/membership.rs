//! Hosts and origins come and go.

use super::{Body, Named};
use crate::app::App;
use crate::auth::{self, Caller};
use crate::identity::IdentityError;
use crate::ledger::{Act, Who, Writes};
use crate::problem::{Answer, Refused};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chassis::clock::unix_ms;
use chassis::telemetry::chain;
use controller_api::agent::{JoinAnswer, JoinRequest};
use controller_api::rest::Problem;
use controller_model::record;
use types::HostName;

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

/// Removes a host that holds nothing; its certificate is refused from then on.
#[utoipa::path(delete, path = "/v1/hosts/{name}", tag = "hosts", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn delete_host(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<HostName>,
) -> Answer<StatusCode> {
    let act = Act { who: &caller.who, action: "host-remove", object: format!("host/{name}") };
    app.ledger
        .change(&act, |cluster| {
            if !cluster.hosts.contains_key(&name) {
                return Err(Refused::not_found(format!("there is no host {name}")));
            }
            let placed =
                cluster.placements.iter().filter(|(_, p)| p.host == name).map(|(id, _)| id.to_string());
            let held = cluster
                .volumes
                .iter()
                .filter(|(_, volume)| volume.host.as_ref() == Some(&name))
                .map(|((id, volume), _)| format!("volume {id}/{volume}"));
            let holds: Vec<String> = placed.chain(held).take(8).collect();
            if !holds.is_empty() {
                return Err(Refused::conflict(format!(
                    "host {name} holds {}: delete them first",
                    holds.join(", ")
                )));
            }
            let mut writes = Writes::default();
            writes.delete(format!("hosts/{name}"));
            writes.delete(format!("facts/{name}"));
            writes.event(format!("host/{name}"), "host-removed", format!("host {name} was removed"));
            Ok((writes, ()))
        })
        .await?;
    app.live.forget(&name);
    app.wake();
    Ok(StatusCode::NO_CONTENT)
}
