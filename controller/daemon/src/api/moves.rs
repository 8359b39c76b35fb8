//! Guests to other hosts, alive: one, all of a deployment; how far they are.

use super::{Body, Named};
use crate::app::App;
use crate::auth::Caller;
use crate::problem::Answer;
use crate::{moves, moving};
use axum::Json;
use axum::extract::State;
use controller_api::host::MovesView;
use controller_api::moving::{AskMove, MoveProgress};
use controller_api::rest::Problem;
use types::{DeploymentName, InstanceId, MemberName};

/// Guests on their way to other hosts, and the last move of each other one.
#[utoipa::path(get, path = "/v1/moves", tag = "instances", responses((status = 200, body = Vec<MoveProgress>)))]
pub(crate) async fn list(State(app): State<App>) -> Json<Vec<MoveProgress>> {
    Json(moving::all(&app, &app.ledger.cluster()))
}

/// Moves a running instance to another host, with its memory, its volumes and what it wrote. It runs on meanwhile.
#[utoipa::path(post, path = "/v1/instances/{deployment}/{member}/move", tag = "instances",
    params(("deployment" = String, Path), ("member" = String, Path)), request_body = AskMove,
    responses((status = 200, body = MovesView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn instance(
    State(app): State<App>,
    caller: Caller,
    Named((deployment, member)): Named<(DeploymentName, MemberName)>,
    Body(request): Body<AskMove>,
) -> Answer<Json<MovesView>> {
    moves::instance(&app, &caller, &InstanceId { deployment, member }, &request).await.map(Json)
}

/// Calls an instance's move off: it stays where it is.
#[utoipa::path(delete, path = "/v1/instances/{deployment}/{member}/move", tag = "instances",
    params(("deployment" = String, Path), ("member" = String, Path)),
    responses((status = 200, body = MoveProgress), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Named((deployment, member)): Named<(DeploymentName, MemberName)>,
) -> Answer<Json<MoveProgress>> {
    moving::cancel(&app, &caller, &InstanceId { deployment, member }).await.map(Json)
}

/// Moves all running instances of a deployment: to one host, or to the hosts of a site.
#[utoipa::path(post, path = "/v1/deployments/{name}/move", tag = "deployments", params(("name" = String, Path)),
    request_body = AskMove,
    responses((status = 200, body = MovesView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn deployment(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<DeploymentName>,
    Body(request): Body<AskMove>,
) -> Answer<Json<MovesView>> {
    moves::deployment(&app, &caller, &name, &request).await.map(Json)
}
