//! What is there.

use super::Named;
use crate::app::App;
use crate::auth::Caller;
use crate::ledger::{Act, Writes};
use crate::problem::{Answer, Refused};
use crate::views;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use controller_api::rest::{
    BundleView, DeploymentView, HostView, InstanceView, Problem, SiteView, VersionView, VolumeView,
};
use controller_model::apply::{self, Refusal};
use controller_model::{Cluster, Draft};
use types::{BundleName, DeploymentName, HostName, InstanceId, MemberName, VolumeName};

fn id(deployment: DeploymentName, member: MemberName) -> InstanceId {
    InstanceId { deployment, member }
}

/// Carries out a removal.
async fn remove(
    app: &App,
    caller: &Caller,
    object: String,
    make: impl FnOnce(&mut Draft) -> Result<(), Refusal> + Send,
) -> Answer<()> {
    let act = Act { who: &caller.who, action: "delete", object };
    app.ledger
        .change(&act, |cluster: &Cluster| {
            let mut draft = Draft::new(cluster.clone());
            make(&mut draft)?;
            Ok((Writes::of(draft), ()))
        })
        .await?;
    app.wake();
    Ok(())
}

/// All bundles.
#[utoipa::path(get, path = "/v1/bundles", tag = "bundles", responses((status = 200, body = Vec<BundleView>)))]
pub(crate) async fn bundles(State(app): State<App>) -> Json<Vec<BundleView>> {
    let cluster = app.ledger.cluster();
    Json(cluster.bundles.keys().filter_map(|name| views::bundle(&cluster, name)).collect())
}

/// One bundle.
#[utoipa::path(get, path = "/v1/bundles/{name}", tag = "bundles", params(("name" = String, Path)),
    responses((status = 200, body = BundleView), (status = 404, body = Problem)))]
pub(crate) async fn bundle(
    State(app): State<App>,
    Named(name): Named<BundleName>,
) -> Answer<Json<BundleView>> {
    let view = views::bundle(&app.ledger.cluster(), &name);
    view.map(Json).ok_or_else(|| Refused::not_found(format!("there is no bundle {name}")))
}

/// Removes a bundle nobody runs.
#[utoipa::path(delete, path = "/v1/bundles/{name}", tag = "bundles", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn delete_bundle(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<BundleName>,
) -> Answer<StatusCode> {
    remove(&app, &caller, format!("bundle/{name}"), |draft| apply::delete_bundle(draft, &name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// All deployments.
#[utoipa::path(get, path = "/v1/deployments", tag = "deployments",
    responses((status = 200, body = Vec<DeploymentView>)))]
pub(crate) async fn deployments(State(app): State<App>) -> Json<Vec<DeploymentView>> {
    let cluster = app.ledger.cluster();
    Json(cluster.deployments.keys().filter_map(|name| views::deployment(&app, &cluster, name)).collect())
}

/// One deployment.
#[utoipa::path(get, path = "/v1/deployments/{name}", tag = "deployments", params(("name" = String, Path)),
    responses((status = 200, body = DeploymentView), (status = 404, body = Problem)))]
pub(crate) async fn deployment(
    State(app): State<App>,
    Named(name): Named<DeploymentName>,
) -> Answer<Json<DeploymentView>> {
    let view = views::deployment(&app, &app.ledger.cluster(), &name);
    view.map(Json).ok_or_else(|| Refused::not_found(format!("there is no deployment {name}")))
}

/// Removes a deployment; its volumes stay.
#[utoipa::path(delete, path = "/v1/deployments/{name}", tag = "deployments", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub(crate) async fn delete_deployment(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<DeploymentName>,
) -> Answer<StatusCode> {
    remove(&app, &caller, format!("deployment/{name}"), |draft| apply::delete_deployment(draft, &name))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// All instances.
#[utoipa::path(get, path = "/v1/instances", tag = "instances", responses((status = 200, body = Vec<InstanceView>)))]
pub(crate) async fn instances(State(app): State<App>) -> Json<Vec<InstanceView>> {
    let cluster = app.ledger.cluster();
    Json(cluster.instances.iter().map(|(id, record)| views::instance(&app, &cluster, id, record)).collect())
}

/// One instance.
#[utoipa::path(get, path = "/v1/instances/{deployment}/{member}", tag = "instances",
    params(("deployment" = String, Path), ("member" = String, Path)),
    responses((status = 200, body = InstanceView), (status = 404, body = Problem)))]
pub(crate) async fn instance(
    State(app): State<App>,
    Named((deployment, member)): Named<(DeploymentName, MemberName)>,
) -> Answer<Json<InstanceView>> {
    let (cluster, id) = (app.ledger.cluster(), id(deployment, member));
    let record =
        cluster.instances.get(&id).ok_or_else(|| Refused::not_found(format!("there is no instance {id}")))?;
    Ok(Json(views::instance(&app, &cluster, &id, record)))
}

/// Throws an instance's overlay away; the deployment makes it anew.
#[utoipa::path(delete, path = "/v1/instances/{deployment}/{member}", tag = "instances",
    params(("deployment" = String, Path), ("member" = String, Path)),
    responses((status = 202), (status = 404, body = Problem)))]
pub(crate) async fn delete_instance(
    State(app): State<App>,
    caller: Caller,
    Named((deployment, member)): Named<(DeploymentName, MemberName)>,
) -> Answer<StatusCode> {
    let id = id(deployment, member);
    let mut fresh = || uuid::Uuid::new_v4().to_string();
    remove(&app, &caller, format!("instance/{id}"), |draft| apply::renew_instance(draft, &id, &mut fresh))
        .await?;
    Ok(StatusCode::ACCEPTED)
}

/// All hosts and origins.
#[utoipa::path(get, path = "/v1/hosts", tag = "hosts", responses((status = 200, body = Vec<HostView>)))]
pub(crate) async fn hosts(State(app): State<App>) -> Json<Vec<HostView>> {
    let cluster = app.ledger.cluster();
    Json(cluster.hosts.keys().filter_map(|name| views::host(&app, &cluster, name)).collect())
}

/// One host.
#[utoipa::path(get, path = "/v1/hosts/{name}", tag = "hosts", params(("name" = String, Path)),
    responses((status = 200, body = HostView), (status = 404, body = Problem)))]
pub(crate) async fn host(State(app): State<App>, Named(name): Named<HostName>) -> Answer<Json<HostView>> {
    let view = views::host(&app, &app.ledger.cluster(), &name);
    view.map(Json).ok_or_else(|| Refused::not_found(format!("there is no host {name}")))
}

/// All sites.
#[utoipa::path(get, path = "/v1/sites", tag = "sites", responses((status = 200, body = Vec<SiteView>)))]
pub(crate) async fn sites(State(app): State<App>) -> Json<Vec<SiteView>> {
    Json(views::sites(&app.ledger.cluster()))
}

/// All user volumes.
#[utoipa::path(get, path = "/v1/volumes", tag = "volumes", responses((status = 200, body = Vec<VolumeView>)))]
pub(crate) async fn volumes(State(app): State<App>) -> Json<Vec<VolumeView>> {
    Json(views::volumes(&app.ledger.cluster()))
}

/// Removes a volume for good.
#[utoipa::path(delete, path = "/v1/volumes/{deployment}/{member}/{name}", tag = "volumes",
    params(("deployment" = String, Path), ("member" = String, Path), ("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn delete_volume(
    State(app): State<App>,
    caller: Caller,
    Named((deployment, member, name)): Named<(DeploymentName, MemberName, VolumeName)>,
) -> Answer<StatusCode> {
    let id = id(deployment, member);
    remove(&app, &caller, format!("volume/{id}/{name}"), |draft| apply::delete_volume(draft, &id, &name))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What answers.
#[utoipa::path(get, path = "/v1/version", tag = "controller", responses((status = 200, body = VersionView)))]
pub(crate) async fn version(State(app): State<App>) -> Json<VersionView> {
    Json(VersionView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: app.ledger.revision(),
        tracker: app.tracker_url.clone(),
    })
}
