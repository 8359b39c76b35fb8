//! Checkpoints of deployments, and ways back to them.

use super::{Asked, Body, Named};
use crate::app::App;
use crate::auth::Caller;
use crate::ledger::{Act, Writes};
use crate::problem::{Answer, Refused};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chassis::clock::unix_ms;
use controller_api::checkpoint::{
    CheckpointDiff, CheckpointOrigin, CheckpointPhase, CheckpointView, CreateCheckpoint, DiskView, PartView,
    PinCheckpoint, RestoreCheckpoint, RestoreView, Resume,
};
use controller_api::life::{CaptureState, CapturedDisk};
use controller_api::rest::Problem;
use controller_model::checkpoint::{self, Order, Restore, Where};
use controller_model::placement::Observed;
use controller_model::record::{CheckpointCause, Then, Verified};
use controller_model::standing::Sight;
use controller_model::{Cluster, Draft, record};
use serde::Deserialize;
use std::collections::BTreeSet;
use types::{DeploymentName, HostName, MemberName};
use utoipa::IntoParams;

fn fresh() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// What hosts say at the moment of a request.
struct Seen {
    observed: Observed,
    online: BTreeSet<HostName>,
    now_ms: u64,
}

impl Seen {
    fn now(app: &App) -> Self {
        Self { observed: app.live.statuses(), online: app.live.online(), now_ms: unix_ms() }
    }

    fn sight(&self) -> Sight<'_> {
        Sight { observed: &self.observed, online: &self.online, now_ms: self.now_ms }
    }
}

/// Changes the cluster by a draft; what `make` answers is answered once it is on disk.
async fn edit<T: Send>(
    app: &App,
    caller: &Caller,
    action: &'static str,
    object: String,
    make: impl FnOnce(&mut Draft) -> Answer<T> + Send,
) -> Answer<T> {
    let act = Act { who: &caller.who, action, object };
    let (_, answer) = app
        .ledger
        .change(&act, |cluster| {
            let mut draft = Draft::new(cluster.clone());
            let answer = make(&mut draft)?;
            Ok((Writes::of(draft), answer))
        })
        .await?;
    app.wake();
    Ok(answer)
}

/// Checkpoints of a deployment, newest first: also those that are being taken, and the last that failed.
#[utoipa::path(get, path = "/v1/deployments/{name}/checkpoints", tag = "checkpoints", params(("name" = String, Path)),
    responses((status = 200, body = Vec<CheckpointView>), (status = 404, body = Problem)))]
pub(crate) async fn list(
    State(app): State<App>,
    Named(name): Named<DeploymentName>,
) -> Answer<Json<Vec<CheckpointView>>> {
    let cluster = app.ledger.cluster();
    let observed = app.live.statuses();
    let mut views: Vec<CheckpointView> = checkpoint::all(&cluster, &name)
        .filter(|(_, held)| held.phase != CheckpointPhase::Dropped)
        .map(|(checkpoint, held)| view(&cluster, &observed, &name, checkpoint, held))
        .collect();
    if views.is_empty() && !cluster.deployments.contains_key(&name) {
        return Err(Refused::not_found(format!("there is no deployment {name}")));
    }
    views.sort_by_key(|view| std::cmp::Reverse(view.requested_ms.max(view.taken_ms)));
    Ok(Json(views))
}

/// One checkpoint.
#[utoipa::path(get, path = "/v1/deployments/{name}/checkpoints/{checkpoint}", tag = "checkpoints",
    params(("name" = String, Path), ("checkpoint" = String, Path)),
    responses((status = 200, body = CheckpointView), (status = 404, body = Problem)))]
pub(crate) async fn one(
    State(app): State<App>,
    Named((name, checkpoint)): Named<(DeploymentName, String)>,
) -> Answer<Json<CheckpointView>> {
    shown(&app, &name, &checkpoint)
}

fn shown(app: &App, name: &DeploymentName, checkpoint: &str) -> Answer<Json<CheckpointView>> {
    let cluster = app.ledger.cluster();
    let held = checkpoint::find(&cluster, name, checkpoint)?;
    Ok(Json(view(&cluster, &app.live.statuses(), name, checkpoint, held)))
}

/// Orders a checkpoint of all members at one consistent instant; it is taken while this is answered.
#[utoipa::path(post, path = "/v1/deployments/{name}/checkpoints", tag = "checkpoints", params(("name" = String, Path)),
    request_body = CreateCheckpoint,
    responses((status = 200, body = CheckpointView), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<DeploymentName>,
    Body(wish): Body<CreateCheckpoint>,
) -> Answer<Json<CheckpointView>> {
    let seen = Seen::now(&app);
    let order = Order {
        name: wish.name,
        pause_max_ms: wish.pause_max_ms,
        pinned: wish.pinned,
        ..Order::new(CheckpointCause::Person, wish.with_memory)
    };
    let object = format!("deployment/{name}");
    let made = edit(&app, &caller, "checkpoint-create", object, |draft| {
        refuse_unreachable(&draft.cluster, &seen, &name)?;
        Ok(checkpoint::request(draft, &name, order, seen.now_ms, &mut fresh)?)
    })
    .await?;
    shown(&app, &name, &made)
}

/// Now and not after a wait: whoever asks can do something about it.
fn refuse_unreachable(cluster: &Cluster, seen: &Seen, name: &DeploymentName) -> Answer<()> {
    for (id, _) in cluster.instances_of(name) {
        let host = cluster.placements.get(id).map(|placement| &placement.host);
        if let Some(host) = host.filter(|host| !seen.online.contains(*host)) {
            return Err(Refused::conflict(format!(
                "host {host} of {id} is out of reach: a checkpoint is of all members or none; bring the host back first"
            )));
        }
    }
    Ok(())
}

/// Drops a checkpoint, or cancels one that is being taken.
#[utoipa::path(delete, path = "/v1/deployments/{name}/checkpoints/{checkpoint}", tag = "checkpoints",
    params(("name" = String, Path), ("checkpoint" = String, Path)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Named((name, checkpoint)): Named<(DeploymentName, String)>,
) -> Answer<StatusCode> {
    let object = format!("checkpoint/{name}/{checkpoint}");
    edit(&app, &caller, "checkpoint-delete", object, |draft| {
        Ok(checkpoint::cancel_or_drop(draft, &name, &checkpoint)?)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Forbids that a checkpoint is dropped, or allows it again.
#[utoipa::path(put, path = "/v1/deployments/{name}/checkpoints/{checkpoint}/pin", tag = "checkpoints",
    params(("name" = String, Path), ("checkpoint" = String, Path)), request_body = PinCheckpoint,
    responses((status = 200, body = CheckpointView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn pin(
    State(app): State<App>,
    caller: Caller,
    Named((name, checkpoint)): Named<(DeploymentName, String)>,
    Body(wish): Body<PinCheckpoint>,
) -> Answer<Json<CheckpointView>> {
    let action = if wish.pinned { "checkpoint-pin" } else { "checkpoint-unpin" };
    edit(&app, &caller, action, format!("checkpoint/{name}/{checkpoint}"), |draft| {
        Ok(checkpoint::pin(draft, &name, &checkpoint, wish.pinned)?)
    })
    .await?;
    shown(&app, &name, &checkpoint)
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Against {
    /// The later checkpoint.
    to: String,
}

/// What a later checkpoint holds that this one does not, by member and disk.
#[utoipa::path(get, path = "/v1/deployments/{name}/checkpoints/{checkpoint}/diff", tag = "checkpoints",
    params(("name" = String, Path), ("checkpoint" = String, Path), Against),
    responses((status = 200, body = CheckpointDiff), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn diff(
    State(app): State<App>,
    Named((name, checkpoint)): Named<(DeploymentName, String)>,
    Asked(Against { to }): Asked<Against>,
) -> Answer<Json<CheckpointDiff>> {
    Ok(Json(checkpoint::compare(&app.ledger.cluster(), &name, &checkpoint, &to)?))
}

/// Goes back to a checkpoint, after one of what is there now; or makes a new deployment from it.
#[utoipa::path(post, path = "/v1/deployments/{name}/checkpoints/{checkpoint}/restore", tag = "checkpoints",
    params(("name" = String, Path), ("checkpoint" = String, Path)), request_body = RestoreCheckpoint,
    responses((status = 200, body = RestoreView), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub(crate) async fn restore(
    State(app): State<App>,
    caller: Caller,
    Named((name, checkpoint)): Named<(DeploymentName, String)>,
    Body(wish): Body<RestoreCheckpoint>,
) -> Answer<Json<RestoreView>> {
    let seen = Seen::now(&app);
    let object = format!("checkpoint/{name}/{checkpoint}");
    if let Some(new) = wish.as_new.clone() {
        if wish.with_memory || !wish.members.is_empty() {
            return Err(Refused::invalid(
                "a new deployment is made of all members' disks: its addresses are others than the saved memory knows; \
                 leave out with_memory and members",
            ));
        }
        edit(&app, &caller, "restore-as-new", object, |draft| {
            Ok(checkpoint::restore_as_new(draft, &name, &checkpoint, &new, &mut fresh)?)
        })
        .await?;
        return Ok(Json(RestoreView { deployment: new, checkpoint, before: None, decided: true }));
    }
    let how = Restore { members: wish.members.clone(), with_memory: wish.with_memory };
    let before = edit(&app, &caller, "restore", object, |draft| {
        if let Some(refusal) = checkpoint::out_of_reach(&draft.cluster, seen.sight(), &name, &how.members) {
            return Err(refusal.into());
        }
        if wish.discard_current {
            checkpoint::restore(draft, &name, &checkpoint, &how, &mut fresh)?;
            return Ok(None);
        }
        // What would be refused is refused now, and not after a checkpoint was taken for it.
        checkpoint::restore(&mut draft.clone(), &name, &checkpoint, &how, &mut fresh)?;
        refuse_unreachable(&draft.cluster, &seen, &name)?;
        let then = Then::Restore {
            checkpoint: checkpoint.clone(),
            members: how.members.clone(),
            with_memory: how.with_memory,
        };
        let order = Order { then, ..Order::new(CheckpointCause::Restore, false) };
        Ok(Some(checkpoint::request(draft, &name, order, seen.now_ms, &mut fresh)?))
    })
    .await?;
    let decided = before.is_none();
    Ok(Json(RestoreView { deployment: name, checkpoint, before, decided }))
}

/// Suspends a deployment: a checkpoint with memory, then its guests are off.
#[utoipa::path(post, path = "/v1/deployments/{name}/suspend", tag = "checkpoints", params(("name" = String, Path)),
    responses((status = 200, body = RestoreView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn suspend(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<DeploymentName>,
) -> Answer<Json<RestoreView>> {
    let seen = Seen::now(&app);
    let made = edit(&app, &caller, "suspend", format!("deployment/{name}"), |draft| {
        refuse_unreachable(&draft.cluster, &seen, &name)?;
        Ok(checkpoint::suspend(draft, &name, None, seen.now_ms, &mut fresh)?)
    })
    .await?;
    Ok(Json(RestoreView { deployment: name, checkpoint: made, before: None, decided: false }))
}

/// Lets a suspended deployment go on: where it was, on another host, or at another site.
#[utoipa::path(post, path = "/v1/deployments/{name}/resume", tag = "checkpoints", params(("name" = String, Path)),
    request_body = Resume,
    responses((status = 200, body = RestoreView), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub(crate) async fn resume(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<DeploymentName>,
    Body(wish): Body<Resume>,
) -> Answer<Json<RestoreView>> {
    let to = match (wish.host, wish.site) {
        (Some(_), Some(_)) => return Err(Refused::invalid("name a host or a site, not both")),
        (Some(host), None) => Where::Host(host),
        (None, Some(site)) => Where::Site(site),
        (None, None) => Where::Here,
    };
    let seen = Seen::now(&app);
    let from = edit(&app, &caller, "resume", format!("deployment/{name}"), |draft| {
        let how = (wish.checkpoint, wish.without_memory);
        Ok(checkpoint::resume(draft, &name, how, &to, seen.sight(), &mut fresh)?)
    })
    .await?;
    Ok(Json(RestoreView { deployment: name, checkpoint: from, before: None, decided: true }))
}

fn view(
    cluster: &Cluster,
    observed: &Observed,
    deployment: &DeploymentName,
    name: &str,
    held: &record::Checkpoint,
) -> CheckpointView {
    let damaged = held.verified == Verified::Damaged;
    CheckpointView {
        deployment: deployment.clone(),
        name: name.to_owned(),
        id: held.id.clone(),
        phase: held.phase,
        reason: held.reason.clone().filter(|_| !damaged),
        cause: match held.cause {
            CheckpointCause::Policy => CheckpointOrigin::Policy,
            CheckpointCause::Person => CheckpointOrigin::Person,
            CheckpointCause::Update => CheckpointOrigin::Update,
            CheckpointCause::Restore => CheckpointOrigin::Restore,
        },
        requested_ms: held.requested_ms,
        taken_ms: held.taken_ms,
        with_memory: held.with_memory,
        pinned: held.pinned,
        verified: held.verified == Verified::Good,
        damage: held.reason.clone().filter(|_| damaged),
        size_bytes: held.size_bytes,
        hold_ms: held.hold_ms,
        parts: held
            .parts
            .iter()
            .map(|(member, part)| part_view(cluster, observed, held, member, part))
            .collect(),
    }
}

fn part_view(
    cluster: &Cluster,
    observed: &Observed,
    held: &record::Checkpoint,
    member: &MemberName,
    part: &record::Part,
) -> PartView {
    let state = match part.state {
        CaptureState::Waiting => "waiting",
        CaptureState::Held => "held",
        CaptureState::Taken => "taken",
        CaptureState::Published => "published",
        CaptureState::Failed => "failed",
    };
    PartView {
        member: member.clone(),
        host: part.host.clone(),
        appliance: part.appliance.clone(),
        version: part.version.clone(),
        ran: part.ran,
        state: state.into(),
        pause_us: part.pause_us,
        new_bytes: part.new_bytes,
        memory_bytes: part.saved.as_ref().map_or(0, |memory| memory.file_bytes),
        disks: part.disks.iter().map(|disk| disk_view(&held.id, disk)).collect(),
        replicas: checkpoint::replica_hosts(cluster, observed, part),
    }
}

fn disk_view(id: &str, disk: &CapturedDisk) -> DiskView {
    let sum = |bytes: u64, layer: &controller_api::life::Layer| bytes.saturating_add(layer.file_bytes);
    DiskView {
        disk: disk.disk.clone(),
        layers: u32::try_from(disk.layers.len()).unwrap_or(u32::MAX),
        bytes: disk.layers.iter().fold(0, sum),
        new_bytes: disk.layers.iter().filter(|layer| layer.checkpoint == id).fold(0, sum),
    }
}
