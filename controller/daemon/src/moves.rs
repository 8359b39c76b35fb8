//! Where instances would go: of a host that is to be empty, of a cluster that might be better balanced, of documents that
//! might be applied. The policies are really asked; nothing moves.

use crate::app::App;
use crate::decide::{self, Decided, Subject};
use crate::ledger::Writes;
use crate::problem::{Answer, Refused};
use crate::questions;
use crate::reconcile::judge;
use chassis::clock::unix_ms;
use controller_api::host::{AskMoves, MoveView, MovesView, PlannedPlacement};
use controller_api::policy::DecisionView;
use controller_model::Cluster;
use controller_model::placement::moves::{self, GAIN_MIN, MOVES_MAX, REBALANCE_MOVES, Scene};
use controller_model::placement::{self, HostState, Question};
use plugins_runtime::placement::{CHOICES_MAX, PlacementInput};
use types::{HostName, InstanceId};

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

/// Keeps the decision of a plan; nothing follows from it.
async fn store(app: &App, mut decided: Decided<PlacementInput>) -> Answer<u64> {
    let number = decided.view.id;
    decided.view.notes.push(DRY_RUN.into());
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

/// Where the instances of a host would go if it were draining.
///
/// # Errors
/// There is no such host, or a policy's thread cannot be run.
pub(crate) async fn evacuation(app: &App, host: &HostName, request: &AskMoves) -> Answer<MovesView> {
    let most = moves_max(request, MOVES_MAX)?;
    let mut scene = scene(app);
    if scene.census.state(host).is_none() {
        return Err(Refused::not_found(format!("there is no host {host} that holds instances")));
    }
    scene.census.set_state(host, HostState::Draining);
    let mut answer = MovesView::default();
    for id in moves::evacuees(&scene.cluster, host).into_iter().take(most) {
        answer.considered += 1;
        let mut planned = MoveView {
            instance: id.clone(),
            from: host.clone(),
            to: None,
            gain: None,
            reasons: Vec::new(),
            decision: None,
        };
        if let Some(why) = moves::bound(&scene.cluster, &id) {
            planned.to = moves::follows_to(&scene.cluster, &id).filter(|to| to != host);
            planned.reasons.push(why);
        } else if let Some(decided) = ask(app, &scene, &id, "move").await? {
            planned.to.clone_from(&decided.view.host);
            planned.reasons = reasons(&decided.view);
            planned.decision = Some(store(app, decided).await?);
        }
        if let Some(to) = &planned.to {
            scene.take(&id, to);
        }
        answer.moves.push(planned);
    }
    Ok(answer)
}

/// Which instances would be better off elsewhere, by more than the next decision would take back.
///
/// # Errors
/// The request is out of range, or a policy's thread cannot be run.
pub(crate) async fn rebalance(app: &App, request: &AskMoves) -> Answer<MovesView> {
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
        let Some(decided) = ask(app, &scene, &id, "move").await? else { continue };
        let Some(to) = decided.view.host.clone() else { continue };
        let Some(gain) = moves::gain(&ranked(&decided.view), &from, &to) else { continue };
        if gain.points <= 0.0 || gain.share <= least {
            continue;
        }
        scene.take(&id, &to);
        let reasons = reasons(&decided.view);
        let decision = Some(store(app, decided).await?);
        let gain = Some(gain.points);
        answer.moves.push(MoveView { instance: id, from, to: Some(to), gain, reasons, decision });
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
