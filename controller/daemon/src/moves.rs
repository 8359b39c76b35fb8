//! Where instances would go: of a host that is to be empty, of a cluster that might be better balanced, of documents that
//! might be applied, one that somebody wants elsewhere. The policies are really asked; what they answer is only shown, or
//! ordered (`moving.rs`).

use crate::app::App;
use crate::auth::Caller;
use crate::decide::{self, Decided, Subject};
use crate::ledger::Writes;
use crate::problem::{Answer, Refused};
use crate::reconcile::judge;
use crate::{moving, questions};
use chassis::clock::unix_ms;
use controller_api::host::{AskMoves, MoveView, MovesView, PlannedPlacement};
use controller_api::moving::{AskMove, MoveCause};
use controller_api::policy::DecisionView;
use controller_model::Cluster;
use controller_model::placement::moves::{self, GAIN_MIN, MOVES_MAX, REBALANCE_MOVES, Scene};
use controller_model::placement::{self, HostState, Question};
use plugins_runtime::placement::{CHOICES_MAX, PlacementInput};
use types::{DeploymentName, HostName, InstanceId};

/// Most instances of a dry run of documents that policies are asked about.
const PLANNED_MAX: usize = 256;
/// Largest share of a score that may be asked as the least gain.
const GAIN_MOST: f64 = 10.0;
/// Said with every stored decision of a plan.
const DRY_RUN: &str = "dry run: nothing moves";

/// Asks about one instance as the scene has it; none if there is nothing to ask.
async fn ask(
    app: &App,
    scene: &Scene,
    id: &InstanceId,
    about: &str,
) -> Answer<Option<Decided<PlacementInput>>> {
    let Some(question) = placement::question(&scene.cluster, &scene.census, id) else { return Ok(None) };
    let mut input = questions::placement(&question, unix_ms(), app.ledger.revision());
    input.request.choices_max = CHOICES_MAX;
    let name = format!("{about}/{id}");
    let subject = Subject { policy: question.policy.clone(), name, instance: Some(id.clone()) };
    let mut decided = decide::ask(app, subject, input).await?;
    judged(&question, &mut decided);
    Ok(Some(decided))
}

fn judged(question: &Question, decided: &mut Decided<PlacementInput>) {
    if let Some(verdict) = decided.verdict.take() {
        judge(question, verdict, &mut decided.view);
    }
}

/// Keeps the decision of a plan; what follows from it is ordered apart.
async fn store(app: &App, mut decided: Decided<PlacementInput>, executed: bool) -> Answer<u64> {
    let number = decided.view.id;
    if !executed {
        decided.view.notes.push(DRY_RUN.into());
    }
    decide::keep(app, decided, |_, _| Some(Writes::default())).await?;
    Ok(number)
}

fn scene(app: &App) -> Scene {
    Scene::new(Cluster::clone(&app.ledger.cluster()), &app.live.statuses(), &app.live.online())
}

/// How many moves an answer may have.
fn moves_max(request: &AskMoves, otherwise: u32) -> Answer<usize> {
    let most = request.moves_max.unwrap_or(otherwise);
    if !(1..=MOVES_MAX).contains(&most) {
        return Err(Refused::invalid(format!("moves_max: {most} is not 1 to {MOVES_MAX}")));
    }
    Ok(most as usize)
}

/// The reasons for the host that was taken; what stands against it, if none was.
fn reasons(view: &DecisionView) -> Vec<String> {
    let choice = view.choices.iter().find(|choice| Some(&choice.host) == view.host.as_ref());
    choice.map_or_else(|| view.notes.clone(), |choice| choice.reasons.clone())
}

fn ranked(view: &DecisionView) -> Vec<(HostName, f64)> {
    view.choices.iter().map(|choice| (choice.host.clone(), choice.score)).collect()
}

/// Where the instances of a host would go if it were draining; they are sent there if that is asked.
///
/// # Errors
/// There is no such host, or a policy's thread cannot be run.
pub(crate) async fn evacuation(
    app: &App,
    caller: &Caller,
    host: &HostName,
    request: &AskMoves,
) -> Answer<MovesView> {
    let most = moves_max(request, MOVES_MAX)?;
    let mut scene = scene(app);
    if scene.census.state(host).is_none() {
        return Err(Refused::not_found(format!("there is no host {host} that holds instances")));
    }
    scene.census.set_state(host, HostState::Draining);
    let mut answer = MovesView::default();
    for id in moves::evacuees(&scene.cluster, host).into_iter().take(most) {
        answer.considered += 1;
        answer.moves.push(elsewhere(app, &mut scene, &id, host, request.execute).await?);
    }
    if request.execute {
        moving::order(app, caller, format!("host/{host}"), MoveCause::Drain, &mut answer).await?;
    }
    Ok(answer)
}

/// Where the placement policy would have an instance that is not to stay.
async fn elsewhere(
    app: &App,
    scene: &mut Scene,
    id: &InstanceId,
    from: &HostName,
    executed: bool,
) -> Answer<MoveView> {
    let mut planned = MoveView {
        instance: id.clone(),
        from: from.clone(),
        to: None,
        gain: None,
        reasons: Vec::new(),
        decision: None,
    };
    if let Some(why) = moves::bound(&scene.cluster, id) {
        planned.to = moves::follows_to(&scene.cluster, id).filter(|to| to != from);
        planned.reasons.push(why);
    } else {
        scene.release(id);
        if let Some(decided) = ask(app, scene, id, "move").await? {
            planned.to = decided.view.host.clone().filter(|to| to != from);
            planned.reasons = reasons(&decided.view);
            planned.decision = Some(store(app, decided, executed).await?);
        }
    }
    if let Some(to) = &planned.to {
        scene.take(id, to);
    }
    Ok(planned)
}

/// Moves an instance to the host that somebody names, or that its policy does.
///
/// # Errors
/// It cannot go there, or nowhere.
pub(crate) async fn instance(
    app: &App,
    caller: &Caller,
    id: &InstanceId,
    request: &AskMove,
) -> Answer<MovesView> {
    let mut scene = scene(app);
    if !scene.cluster.instances.contains_key(id) {
        return Err(Refused::not_found(format!("there is no instance {id}")));
    }
    let planned = send(app, &mut scene, id, request).await?;
    if planned.to.is_none() {
        let why = planned.reasons.first().map_or("no host fits", String::as_str);
        return Err(Refused::conflict(format!("{id} cannot move: {why}")));
    }
    let mut answer = MovesView { executed: false, considered: 1, moves: vec![planned] };
    if !request.dry_run {
        moving::order(app, caller, format!("instance/{id}"), MoveCause::Person, &mut answer).await?;
        if let Some(refused) = answer.moves.iter().find(|planned| planned.to.is_none()) {
            return Err(Refused::conflict(refused.reasons.first().cloned().unwrap_or_default()));
        }
    }
    Ok(answer)
}

/// Moves every instance of a deployment that is not where it shall be.
///
/// # Errors
/// There is no such deployment.
pub(crate) async fn deployment(
    app: &App,
    caller: &Caller,
    name: &DeploymentName,
    request: &AskMove,
) -> Answer<MovesView> {
    let mut scene = scene(app);
    if !scene.cluster.deployments.contains_key(name) {
        return Err(Refused::not_found(format!("there is no deployment {name}")));
    }
    if request.to.is_none() && request.site.is_none() {
        return Err(Refused::invalid(format!("say where {name} is to go: a host, or a site")));
    }
    let members: Vec<InstanceId> = scene.cluster.instances_of(name).map(|(id, _)| id.clone()).collect();
    let mut answer = MovesView::default();
    for id in members {
        answer.considered += 1;
        let host = scene.cluster.placements.get(&id).map(|placement| placement.host.clone());
        let site = host.as_ref().and_then(|host| scene.cluster.hosts.get(host)).map(|host| host.site.clone());
        let there = (request.to.is_some() && request.to == host)
            || (request.to.is_none() && request.site.is_some() && request.site == site);
        if !there {
            answer.moves.push(send(app, &mut scene, &id, request).await?);
        }
    }
    if !request.dry_run {
        moving::order(app, caller, format!("deployment/{name}"), MoveCause::Person, &mut answer).await?;
    }
    Ok(answer)
}

/// Where one instance goes, as asked.
async fn send(app: &App, scene: &mut Scene, id: &InstanceId, request: &AskMove) -> Answer<MoveView> {
    let Some(from) = scene.cluster.placements.get(id).map(|placement| placement.host.clone()) else {
        return Err(Refused::conflict(format!("{id} has no host yet: wait until it is placed")));
    };
    let census = scene.census.clone();
    // It is not to stay, and not to go where nobody asked.
    let others: Vec<HostName> = scene.cluster.hosts.keys().cloned().collect();
    for host in others {
        let site = scene.cluster.hosts.get(&host).map(|held| held.site.clone());
        let outside =
            request.to.is_none() && request.site.as_ref().is_some_and(|wanted| Some(wanted) != site.as_ref());
        let ready = scene.census.state(&host) == Some(HostState::Ready);
        if host == from || (outside && ready) {
            scene.census.set_state(&host, HostState::Cordoned);
        }
    }
    let planned = match &request.to {
        Some(to) => Ok(named(scene, id, &from, to)),
        None => elsewhere(app, scene, id, &from, !request.dry_run).await,
    };
    if planned.as_ref().map_or(true, |planned| planned.to.is_none()) {
        scene.census = census;
        return planned;
    }
    let (planned, instance) = (planned?, scene.cluster.instances.get(id).map(|held| held.value.clone()));
    scene.census = census;
    if let (Some(to), Some(instance)) = (&planned.to, instance) {
        scene.census.moved(&instance, Some(&from), to);
    }
    Ok(planned)
}

/// To the host that somebody names, if no hard limit stands against it.
fn named(scene: &mut Scene, id: &InstanceId, from: &HostName, to: &HostName) -> MoveView {
    let mut reasons: Vec<String> = moves::bound(&scene.cluster, id).into_iter().collect();
    if from == to {
        reasons.push(format!("it is on {to} already"));
    }
    if reasons.is_empty() {
        scene.release(id);
        let question = placement::question(&scene.cluster, &scene.census, id);
        reasons.extend(question.and_then(|question| placement::forbidden(&question, to)));
    }
    let to = reasons.is_empty().then(|| to.clone());
    if to.is_some() {
        reasons.push("somebody named the host".to_owned());
    }
    if let Some(to) = &to {
        scene.take(id, to);
    }
    MoveView { instance: id.clone(), from: from.clone(), to, gain: None, reasons, decision: None }
}

/// Which instances would be better off elsewhere, by more than the next decision would take back; they are sent there if
/// that is asked.
///
/// # Errors
/// The request is out of range, or a policy's thread cannot be run.
pub(crate) async fn rebalance(app: &App, caller: &Caller, request: &AskMoves) -> Answer<MovesView> {
    let most = moves_max(request, REBALANCE_MOVES)?;
    let least = request.gain_min.unwrap_or(GAIN_MIN);
    if !(0.0..=GAIN_MOST).contains(&least) {
        return Err(Refused::invalid(format!("gain_min: {least} is not 0 to {GAIN_MOST}")));
    }
    let mut scene = scene(app);
    let mut answer = MovesView::default();
    for id in moves::movable(&scene) {
        if answer.moves.len() == most {
            break;
        }
        answer.considered += 1;
        let Some(from) = scene.cluster.placements.get(&id).map(|held| held.host.clone()) else { continue };
        // Its volumes would go with it.
        let volumes = scene.cluster.volumes.clone();
        scene.release(&id);
        let decided = ask(app, &scene, &id, "move").await?;
        scene.cluster.volumes = volumes;
        let Some(decided) = decided else { continue };
        let Some(to) = decided.view.host.clone() else { continue };
        let Some(gain) = moves::gain(&ranked(&decided.view), &from, &to) else { continue };
        if gain.points <= 0.0 || gain.share <= least {
            continue;
        }
        scene.take(&id, &to);
        let reasons = reasons(&decided.view);
        let decision = Some(store(app, decided, request.execute).await?);
        let gain = Some(gain.points);
        answer.moves.push(MoveView { instance: id, from, to: Some(to), gain, reasons, decision });
    }
    if request.execute {
        moving::order(app, caller, "cluster".to_owned(), MoveCause::Rebalance, &mut answer).await?;
    }
    Ok(answer)
}

/// Where the instances that a change would make would go. Nothing is stored.
///
/// # Errors
/// A policy's thread cannot be run.
pub(crate) async fn placements(app: &App, before: &Cluster, after: Cluster) -> Answer<Vec<PlannedPlacement>> {
    let mut scene = Scene::new(after, &app.live.statuses(), &app.live.online());
    let incarnation =
        |cluster: &Cluster, id: &InstanceId| cluster.instances.get(id).map(|held| held.incarnation.clone());
    let mut made = placement::unplaced(&scene.cluster);
    made.retain(|id| incarnation(before, id) != incarnation(&scene.cluster, id));
    let mut planned = Vec::new();
    for id in made.into_iter().take(PLANNED_MAX) {
        let Some(decided) = ask(app, &scene, &id, "instance").await? else { continue };
        if let Some(host) = &decided.view.host {
            scene.take(&id, host);
        }
        planned.push(PlannedPlacement { instance: id, decision: DecisionView { id: 0, ..decided.view } });
    }
    Ok(planned)
}
