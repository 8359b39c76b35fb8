//! Progress of a checkpoint, and of what is restored from one.

use super::too_long;
use crate::commands::{Session, note};
use crate::failure::Failure;
use crate::kinds::state_word;
use crate::time;
use controller_api::checkpoint::{CheckpointPhase as Phase, CheckpointView};
use std::time::Duration;
use tokio::time::Instant;
use types::DeploymentName;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Until one can go back to it.
pub(super) async fn until_taken(
    session: &Session,
    deployment: &DeploymentName,
    name: &str,
    timeout: Duration,
) -> Result<CheckpointView, Failure> {
    let begin = Instant::now();
    let mut told = String::new();
    loop {
        let view = session.client.checkpoint(deployment, name).await?;
        let text = progress(&view);
        if told != text {
            note(format_args!("{:6.1} s  checkpoint {name}: {text}", begin.elapsed().as_secs_f32()));
            told.clone_from(&text);
        }
        match view.phase {
            Phase::Keeping | Phase::Complete => return Ok(view),
            Phase::Failed => {
                let why = view.reason.as_deref().unwrap_or("nobody knows why");
                return Err(Failure::failed(format!("checkpoint {name} was not taken: {why}")));
            }
            _ if begin.elapsed() >= timeout => {
                return Err(too_long(&format!("checkpoint {name} is not taken"), timeout, &text));
            }
            _ => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

fn progress(view: &CheckpointView) -> String {
    let count =
        |states: &[&str]| view.parts.iter().filter(|part| states.contains(&part.state.as_str())).count();
    let all = view.parts.len();
    match view.phase {
        Phase::Requested => match &view.reason {
            Some(reason) => format!("waits: {reason}"),
            None => "ordered".into(),
        },
        Phase::Holding => format!("ports held, {} of {all} members", count(&["held", "taken", "published"])),
        Phase::Taking => format!("taken, {} of {all} members", count(&["taken", "published"])),
        Phase::Keeping | Phase::Complete => {
            format!("taken, {} written, ports held for {} ms", time::bytes(view.size_bytes), view.hold_ms)
        }
        Phase::Failed | Phase::Dropped => "not taken".into(),
    }
}

/// Until all of a deployment serves.
pub(super) async fn until_ready(
    session: &Session,
    deployment: &DeploymentName,
    timeout: Duration,
) -> Result<(), Failure> {
    let begin = Instant::now();
    let mut told = String::new();
    loop {
        let view = session.client.deployment(deployment).await?;
        if view.ready {
            note(format_args!("{:6.1} s  deployment {deployment} serves", begin.elapsed().as_secs_f32()));
            return Ok(());
        }
        let states: Vec<String> = view
            .instances
            .iter()
            .map(|instance| {
                let reason = instance.reason.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
                format!("{} {}{reason}", instance.id.member, state_word(instance.state))
            })
            .collect();
        let text = states.join(", ");
        // A countdown is no news.
        let news: String = text.chars().filter(|letter| !letter.is_ascii_digit()).collect();
        if told != news {
            note(format_args!("{:6.1} s  {text}", begin.elapsed().as_secs_f32()));
            told = news;
        }
        if begin.elapsed() >= timeout {
            return Err(too_long(&format!("deployment {deployment} does not serve"), timeout, &text));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
