//! What people say of hosts, and where their instances would go.

use super::{Body, Named};
use crate::app::App;
use crate::auth::Caller;
use crate::ledger::{Act, Writes};
use crate::problem::{Answer, Refused};
use crate::{moves, views};
use axum::Json;
use axum::extract::State;
use chassis::clock::unix_ms;
use controller_api::host::{AskMoves, Attest, ChangeLabels, HostService, MovesView, SetService};
use controller_api::rest::{HostView, Problem};
use controller_model::apply::Refusal;
use controller_model::{host, record};
use types::HostName;

/// Changes a host's record; what is the same already is no change.
async fn change(
    app: &App,
    caller: &Caller,
    (action, name): (&'static str, &HostName),
    make: impl FnOnce(&record::Host) -> Result<(record::Host, String), Refusal> + Send,
) -> Answer<Json<HostView>> {
    let object = format!("host/{name}");
    let act = Act { who: &caller.who, action, object: object.clone() };
    app.ledger
        .change(&act, |cluster| {
            let missing = || Refused::not_found(format!("there is no host {name}"));
            let held = &cluster.hosts.get(name).ok_or_else(missing)?.value;
            if held.role != "host" {
                return Err(Refused::conflict(format!("{name} is an origin: it never holds instances")));
            }
            let (changed, message) = make(held)?;
            let mut writes = Writes::default();
            if changed != *held {
                writes.put(format!("hosts/{name}"), &changed);
                writes.event(object, action, message);
            }
            Ok((writes, ()))
        })
        .await?;
    app.wake();
    let view = views::host(app, &app.ledger.cluster(), name);
    view.map(Json).ok_or_else(|| Refused::not_found(format!("there is no host {name}")))
}

/// Says whether a host takes new instances. What is on it runs on.
#[utoipa::path(put, path = "/v1/hosts/{name}/service", tag = "hosts", params(("name" = String, Path)),
    request_body = SetService,
    responses((status = 200, body = HostView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn put_service(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<HostName>,
    Body(request): Body<SetService>,
) -> Answer<Json<HostView>> {
    let action = match request.service {
        HostService::InService => "host-uncordon",
        HostService::Cordoned => "host-cordon",
        HostService::Draining => "host-drain",
        HostService::Maintenance => "host-maintenance",
    };
    change(&app, &caller, (action, &name), |held| {
        let message = format!("host {name} is {}", request.service.word());
        Ok((record::Host { service: request.service, ..held.clone() }, message))
    })
    .await
}

/// Changes a host's labels; those that are not named stay.
#[utoipa::path(post, path = "/v1/hosts/{name}/labels", tag = "hosts", params(("name" = String, Path)),
    request_body = ChangeLabels,
    responses((status = 200, body = HostView), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn change_labels(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<HostName>,
    Body(request): Body<ChangeLabels>,
) -> Answer<Json<HostView>> {
    change(&app, &caller, ("host-label", &name), |held| {
        let changed = host::relabel(held, &request)?;
        let labels: Vec<String> =
            changed.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Ok((changed, format!("labels of host {name}: {}", labels.join(" "))))
    })
    .await
}

/// Vouches for a host, as the machine it is now: one that joins anew has lost it.
#[utoipa::path(put, path = "/v1/hosts/{name}/attestation", tag = "hosts", params(("name" = String, Path)),
    request_body = Attest,
    responses((status = 200, body = HostView), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn attest(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<HostName>,
    Body(request): Body<Attest>,
) -> Answer<Json<HostView>> {
    let (who, now_ms) = (caller.who.to_string(), unix_ms());
    change(&app, &caller, ("host-attest", &name), |held| {
        let message = format!("{who} vouches for host {name}: {}", request.note.trim());
        Ok((host::attest(held, &request.note, who, now_ms)?, message))
    })
    .await
}

/// Vouches for a host no more. What is on it runs on.
#[utoipa::path(delete, path = "/v1/hosts/{name}/attestation", tag = "hosts", params(("name" = String, Path)),
    responses((status = 200, body = HostView), (status = 404, body = Problem)))]
pub(crate) async fn revoke_attestation(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<HostName>,
) -> Answer<Json<HostView>> {
    change(&app, &caller, ("host-attest-revoke", &name), |held| {
        Ok((record::Host { attestation: None, ..held.clone() }, format!("nobody vouches for host {name}")))
    })
    .await
}

/// Asks where a host's instances would go if it were to be empty, and sends them there if told to. The answers are stored
/// as decisions.
#[utoipa::path(post, path = "/v1/hosts/{name}/evacuation", tag = "hosts", params(("name" = String, Path)),
    request_body = AskMoves,
    responses((status = 200, body = MovesView), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn evacuation(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<HostName>,
    Body(request): Body<AskMoves>,
) -> Answer<Json<MovesView>> {
    moves::evacuation(&app, &caller, &name, &request).await.map(Json)
}

/// Asks which instances would be better off elsewhere, and sends them there if told to. The answers are stored as
/// decisions.
#[utoipa::path(post, path = "/v1/rebalance", tag = "hosts", request_body = AskMoves,
    responses((status = 200, body = MovesView), (status = 422, body = Problem)))]
pub(crate) async fn rebalance(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<AskMoves>,
) -> Answer<Json<MovesView>> {
    moves::rebalance(&app, &caller, &request).await.map(Json)
}
