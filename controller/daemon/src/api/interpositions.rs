//! Appliances into and out of the paths of running ports: edits of a deployment's document.

use super::{Asked, Body, Named};
use crate::app::App;
use crate::auth::Caller;
use crate::ledger::{Act, Writes};
use crate::problem::{Answer, Refused};
use crate::views;
use axum::Json;
use axum::extract::State;
use controller_api::interpose::{InterpositionSpec, MemberPort};
use controller_api::rest::{DeploymentView, Problem};
use controller_model::apply::Refusal;
use controller_model::{Draft, interpose};
use serde::Deserialize;
use types::{ApplianceRef, DeploymentName};
use utoipa::IntoParams;

async fn edit(
    app: &App,
    caller: &Caller,
    action: &'static str,
    (deployment, port): (&DeploymentName, &MemberPort),
    make: impl FnOnce(&mut Draft) -> Result<(), Refusal> + Send,
) -> Answer<Json<DeploymentView>> {
    let act = Act { who: &caller.who, action, object: format!("port/{deployment}/{port}") };
    app.ledger
        .change(&act, |cluster| {
            let mut draft = Draft::new(cluster.clone());
            make(&mut draft)?;
            Ok((Writes::of(draft), ()))
        })
        .await?;
    app.wake();
    let view = views::deployment(app, &app.ledger.cluster(), deployment);
    view.map(Json).ok_or_else(|| Refused::not_found(format!("there is no deployment {deployment}")))
}

/// Puts an appliance into the path of a running port: prepared beside it, spliced once it is ready.
#[utoipa::path(put, path = "/v1/deployments/{name}/interpositions", tag = "networks",
    params(("name" = String, Path)), request_body = InterpositionSpec,
    responses((status = 200, body = DeploymentView), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn put(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<DeploymentName>,
    Body(entry): Body<InterpositionSpec>,
) -> Answer<Json<DeploymentView>> {
    let mut fresh = || uuid::Uuid::new_v4().to_string();
    let port = entry.port.clone();
    edit(&app, &caller, "interpose", (&name, &port), |draft| interpose::add(draft, &name, entry, &mut fresh))
        .await
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    /// `member/port`, of either end.
    #[param(value_type = String)]
    port: MemberPort,
    /// Only this appliance; all if absent.
    #[param(value_type = Option<String>)]
    with: Option<ApplianceRef>,
}

/// Takes appliances out of the path of a running port: out of the path first, then the instance goes.
#[utoipa::path(delete, path = "/v1/deployments/{name}/interpositions", tag = "networks",
    params(("name" = String, Path), Which),
    responses((status = 200, body = DeploymentView), (status = 404, body = Problem)))]
pub(crate) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<DeploymentName>,
    Asked(Which { port, with }): Asked<Which>,
) -> Answer<Json<DeploymentView>> {
    let mut fresh = || uuid::Uuid::new_v4().to_string();
    edit(&app, &caller, "interpose-end", (&name, &port), |draft| {
        interpose::remove(draft, &name, &port, with.as_ref(), &mut fresh)
    })
    .await
}
