//! `wait`: until a thing is ready, running or deleted.

use super::{Session, note, path_of};
use crate::failure::{Code, Failure};
use crate::kinds::{Kind, state_word};
use crate::time;
use controller_api::agent::InstanceState;
use controller_api::rest::{DeploymentView, HostView, InstanceView};
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks. The API has a watch, but what an instance says changes without the store.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  collective wait deployment/office --for ready --timeout 2m\n  \
    collective wait instance/office/workspace --for running\n  collective wait host/h1 --for ready\n  \
    collective wait deployment/office --for deleted")]
pub(crate) struct Args {
    /// KIND/NAME: deployment/office, instance/office/gateway, host/h1
    #[arg(value_name = "KIND/NAME", value_parser = parse_target)]
    target: (Kind, String),
    /// What is waited for
    #[arg(long = "for", value_enum, default_value = "ready")]
    condition: Condition,
    /// How long
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = time::duration)]
    timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Condition {
    /// It serves; a host: it is online
    Ready,
    /// Its guests run
    Running,
    /// It is gone
    Deleted,
}

fn parse_target(text: &str) -> Result<(Kind, String), String> {
    let wrong = || format!("{text:?}: write KIND/NAME, such as deployment/office or instance/office/gateway");
    let (kind, name) = text.split_once('/').ok_or_else(wrong)?;
    let kind: Kind = kind.parse().map_err(|error| format!("{kind:?}: {error}"))?;
    if !matches!(kind, Kind::Deployment | Kind::Instance | Kind::Host) {
        return Err(format!(
            "a {} cannot be waited for; deployments, instances and hosts can",
            kind.singular()
        ));
    }
    kind.check_name(name)?;
    Ok((kind, name.to_owned()))
}

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    ready: bool,
    running: bool,
    /// For people, in one line.
    text: String,
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    let begin = Instant::now();
    let (kind, name) = &args.target;
    let mut last = None;
    loop {
        let seen = match look(session, *kind, name).await {
            Ok(seen) => Some(seen),
            // What was there may come back; what never was is a name mistyped, and not worth a long wait.
            Err(failure) if failure.code == Code::NotFound => {
                if last.is_none() && args.condition != Condition::Deleted {
                    return Err(failure);
                }
                None
            }
            Err(failure) if failure.code == Code::Unreachable && last.is_some() => last.clone(),
            Err(failure) => return Err(failure),
        };
        if met(args.condition, seen.as_ref()) {
            note(format_args!(
                "{}/{name} is {} ({:.1} s)",
                kind.singular(),
                word(args.condition),
                begin.elapsed().as_secs_f32()
            ));
            return Ok(ExitCode::SUCCESS);
        }
        let text = seen.as_ref().map_or("not there", |seen| seen.text.as_str());
        if last.as_ref().map(|seen: &Seen| seen.text.as_str()) != Some(text) {
            note(format_args!("{:6.1} s  {}/{name}: {text}", begin.elapsed().as_secs_f32(), kind.singular()));
        }
        if begin.elapsed() >= args.timeout {
            return Err(Failure::new(
                Code::Timeout,
                format!(
                    "{}/{name} is not {} after {:?}: {text}",
                    kind.singular(),
                    word(args.condition),
                    args.timeout
                ),
            ));
        }
        last =
            Some(seen.unwrap_or_else(|| Seen { ready: false, running: false, text: "not there".to_owned() }));
        tokio::time::sleep(LOOK_EVERY.min(args.timeout)).await;
    }
}

fn word(condition: Condition) -> &'static str {
    match condition {
        Condition::Ready => "ready",
        Condition::Running => "running",
        Condition::Deleted => "deleted",
    }
}

fn met(condition: Condition, seen: Option<&Seen>) -> bool {
    match condition {
        Condition::Ready => seen.is_some_and(|seen| seen.ready),
        Condition::Running => seen.is_some_and(|seen| seen.running),
        Condition::Deleted => seen.is_none(),
    }
}

async fn look(session: &Session, kind: Kind, name: &str) -> Result<Seen, Failure> {
    let path = path_of(kind, name)?;
    Ok(match kind {
        Kind::Deployment => deployment(&session.client.get(&path).await?),
        Kind::Instance => instance(&session.client.get(&path).await?),
        _ => host(&session.client.get(&path).await?),
    })
}

fn runs(state: InstanceState) -> bool {
    matches!(state, InstanceState::Booting | InstanceState::Ready)
}

fn instance(view: &InstanceView) -> Seen {
    let reason = view.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
    Seen {
        ready: view.state == InstanceState::Ready,
        running: runs(view.state),
        text: format!("{}{reason}", state_word(view.state)),
    }
}

fn deployment(view: &DeploymentView) -> Seen {
    let states: Vec<_> =
        view.instances.iter().map(|it| format!("{} {}", it.id.member, instance(it).text)).collect();
    let running = !view.instances.is_empty() && view.instances.iter().all(|it| runs(it.state));
    let mut text = states.join(", ");
    if let Some(problem) = view.problems.first() {
        text = format!("{text}; {problem}");
    }
    Seen { ready: view.ready, running, text }
}

fn host(view: &HostView) -> Seen {
    let text = if view.online { "online" } else { "offline" }.to_owned();
    Seen { ready: view.online, running: view.online, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_checked_before_anything_is_asked() {
        assert_eq!(
            parse_target("instance/office/gateway").unwrap(),
            (Kind::Instance, "office/gateway".into())
        );
        assert!(parse_target("office").unwrap_err().contains("write KIND/NAME"));
        assert!(parse_target("policy/x").unwrap_err().contains("cannot be waited for"));
        assert!(parse_target("deployment/a/b").unwrap_err().contains("cannot name a deployment"));
    }

    #[test]
    fn each_condition_is_met_by_what_it_says() {
        let seen = |ready, running| Seen { ready, running, text: String::new() };
        assert!(met(Condition::Deleted, None));
        assert!(!met(Condition::Ready, None));
        assert!(!met(Condition::Deleted, Some(&seen(true, true))));
        assert!(met(Condition::Running, Some(&seen(false, true))));
        assert!(!met(Condition::Ready, Some(&seen(false, true))));
    }
}
