//! `move`: a running instance, or all of a deployment, to another host; what `host drain` and `rebalance` order is followed
//! here, too.

use super::host::moves;
use super::{Session, instance_id, note};
use crate::failure::{Code, Failure};
use crate::output::{self, Format, or_dash};
use crate::time;
use controller_api::host::MovesView;
use controller_api::moving::{AskMove, MovePhase, MoveProgress};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;
use types::{DeploymentName, HostName, InstanceId, SiteName};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The guest runs on while its memory, its volumes and what it wrote travel; at the end it stands still for a\n\
    moment. Its image does not travel: the target fetches what is read. Addresses and connections stay. If\n\
    anything goes wrong on the way, it runs on where it was.\n\n\
    What stands in the path of a port (collective interpose), or has something in its path, does not move.\n\n\
    Examples:\n  collective move office/workspace --to h2\n  collective move office/workspace\n  \
    collective move office --site branch --dry-run\n  collective move office/workspace --cancel\n  \
    collective move --list"
)]
pub(crate) struct Args {
    /// An instance (deployment/member), or a deployment: all of its instances
    #[arg(value_name = "INSTANCE|DEPLOYMENT", required_unless_present = "list")]
    what: Option<String>,
    /// To this host; without it the placement policy chooses
    #[arg(long, value_name = "HOST")]
    to: Option<HostName>,
    /// To hosts of this site
    #[arg(long, value_name = "SITE")]
    site: Option<SiteName>,
    /// Say what would be done, and do nothing
    #[arg(long, conflicts_with = "no_wait")]
    dry_run: bool,
    /// Do not wait until it is there
    #[arg(long)]
    no_wait: bool,
    /// How long to wait; what is on its way goes on
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = time::duration)]
    timeout: Duration,
    /// Call an instance's move off: it stays where it is
    #[arg(long, conflicts_with_all = ["to", "site", "dry_run", "no_wait"])]
    cancel: bool,
    /// Guests on their way, and the last move of each other one
    #[arg(long, conflicts_with_all = ["what", "to", "site", "dry_run", "no_wait", "cancel"])]
    list: bool,
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    let Some(what) = args.what.as_deref().filter(|_| !args.list) else {
        let all = session.client.moves().await?;
        show(&all, session.format)?;
        return Ok(ExitCode::SUCCESS);
    };
    let ask = AskMove { to: args.to.clone(), site: args.site.clone(), dry_run: args.dry_run };
    let view = match what.contains('/') {
        true => {
            let id = instance_id(what)?;
            if args.cancel {
                let held = session.client.cancel_move(&id).await?;
                show(&[held], session.format)?;
                return Ok(ExitCode::SUCCESS);
            }
            session.client.move_instance(&id, &ask).await?
        }
        false => {
            let name: DeploymentName =
                what.parse().map_err(|error: types::NameError| Failure::usage(error.to_string()))?;
            if args.cancel {
                return Err(Failure::usage("one move is called off at a time: write deployment/member"));
            }
            session.client.move_deployment(&name, &ask).await?
        }
    };
    moves::show(&mut std::io::stdout(), &view, session.format)?;
    let wait = (!args.dry_run && !args.no_wait).then_some(args.timeout);
    follow(session, &view, wait).await
}

/// Waits until all that was ordered is over, saying how far it is. What could not be ordered is a failure.
pub(crate) async fn follow(
    session: &Session,
    view: &MovesView,
    timeout: Option<Duration>,
) -> Result<ExitCode, Failure> {
    let stays = view.moves.iter().filter(|planned| planned.to.is_none()).count();
    let failed = |count: usize, what: &str| Failure::new(Code::Failed, format!("{count} instances {what}"));
    if let Some(timeout) = timeout.filter(|_| view.executed) {
        let ordered = view.moves.iter().filter(|planned| planned.to.is_some()).map(|p| &p.instance);
        let stayed = wait(session, &ordered.collect::<Vec<_>>(), timeout).await?;
        if stayed > 0 {
            return Err(failed(stayed, "did not move: they run on where they were"));
        }
    }
    if stays > 0 {
        return Err(failed(stays, "cannot move"));
    }
    Ok(ExitCode::SUCCESS)
}

/// How many of them have failed.
async fn wait(session: &Session, ordered: &[&InstanceId], timeout: Duration) -> Result<usize, Failure> {
    let begin = Instant::now();
    let mut said: BTreeMap<InstanceId, String> = BTreeMap::new();
    loop {
        let all = session.client.moves().await?;
        let ours: Vec<&MoveProgress> = all.iter().filter(|held| ordered.contains(&&held.instance)).collect();
        for held in &ours {
            let text = line(held);
            if said.insert(held.instance.clone(), text.clone()).as_ref() != Some(&text) {
                note(format_args!("{:6.1} s  {}: {text}", begin.elapsed().as_secs_f32(), held.instance));
            }
        }
        if ours.iter().all(|held| held.phase.is_over()) {
            return Ok(ours.iter().filter(|held| held.phase == MovePhase::Failed).count());
        }
        if begin.elapsed() >= timeout {
            let open = ours.iter().filter(|held| !held.phase.is_over()).count();
            return Err(Failure::new(
                Code::Timeout,
                format!(
                    "{open} instances are still on their way after {timeout:?}; they go on: `collective move --list`"
                ),
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn line(held: &MoveProgress) -> String {
    let why = held.reason.as_deref().map_or_else(String::new, |why| format!(": {why}"));
    match held.phase {
        MovePhase::Moving => format!(
            "moving from {} to {}, {} of {}{why}",
            held.from,
            held.to,
            time::bytes(held.sent_bytes),
            time::bytes(held.total_bytes)
        ),
        MovePhase::Done => format!(
            "is on {}, after {} in {:.1} s; it stood still for {} ms",
            held.to,
            time::bytes(held.sent_bytes),
            seconds(held),
            held.downtime_ms
        ),
        MovePhase::Failed => format!("stays on {}{why}", held.from),
        phase => format!("{phase}{why}"),
    }
}

fn stood(held: &MoveProgress) -> String {
    if held.phase == MovePhase::Done { format!("{} ms", held.downtime_ms) } else { String::new() }
}

#[expect(clippy::cast_precision_loss, reason = "a duration for people")]
fn seconds(held: &MoveProgress) -> f64 {
    held.ended_ms.saturating_sub(held.began_ms) as f64 / 1e3
}

fn show(all: &[MoveProgress], format: Format) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    match format {
        Format::Json => output::json(&mut out, &all),
        Format::Yaml => output::yaml(&mut out, &all),
        Format::Name => {
            all.iter().try_for_each(|held| writeln!(out, "{}", held.instance))?;
            Ok(())
        }
        Format::Table | Format::Wide => {
            let row = |held: &MoveProgress| {
                vec![
                    held.instance.to_string(),
                    held.from.to_string(),
                    held.to.to_string(),
                    held.phase.to_string(),
                    time::bytes(held.sent_bytes),
                    stood(held),
                    or_dash(held.reason.as_ref()),
                ]
            };
            let rows: Vec<_> = all.iter().map(row).collect();
            output::table(&mut out, &["INSTANCE", "FROM", "TO", "PHASE", "SENT", "STOOD", "REASON"], &rows)?;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(phase: &str) -> MoveProgress {
        serde_json::from_value(serde_json::json!({
            "id": "1", "instance": "office/workspace", "from": "h1", "to": "h2", "phase": phase, "cause": "person",
            "asked_ms": 1, "began_ms": 1_000, "ended_ms": 3_500, "sent_bytes": 1 << 20, "total_bytes": 2 << 20,
            "downtime_ms": 90, "reason": (phase == "failed").then_some("h2 was not ready in time"),
        }))
        .unwrap()
    }

    #[test]
    fn says_where_the_guest_is_in_every_phase() {
        assert!(line(&held("moving")).starts_with("moving from h1 to h2, 1"), "{}", line(&held("moving")));
        assert!(line(&held("done")).contains("is on h2") && line(&held("done")).contains("in 2.5 s"));
        assert!(line(&held("done")).ends_with("it stood still for 90 ms"));
        assert_eq!(line(&held("failed")), "stays on h1: h2 was not ready in time");
        assert_eq!(line(&held("queued")), "queued");
    }
}
