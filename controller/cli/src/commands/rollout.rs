//! `rollout`: the wave board of updates, and what people say to them.

use super::{Session, note};
use crate::failure::{Code, Failure};
use crate::kinds::Kind;
use crate::output::{self, Format, Row, or_dash, printable};
use crate::time;
use chassis::clock::unix_ms;
use controller_api::planned::{OrderStatus, RefusalView, RollOrder, RolloutView};
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Updates on their way: waves of instances that go to a new version
#[derive(Debug, clap::Subcommand)]
#[command(
    after_help = "A rollout is named PUBLISHER/APPLIANCE/CHANNEL/VERSION/POLICY; where only one of an appliance is \
    not over, PUBLISHER/APPLIANCE is enough. A roll takes a checkpoint first if its policy says so, fetches the image while \
    the old guest runs, makes the guest anew on its host with its volumes, and takes it back if it does not become ready \
    and stay healthy. A version that failed is refused here until `resume` or `retry`.\n\nExamples:\n  \
    collective rollout list\n  collective rollout show acme/gateway\n  \
    collective rollout pause acme/gateway --why 'trade fair until Friday'\n  \
    collective rollout halt-all --why 'network works strangely'\n  collective rollout retry acme/gateway --why 'disk replaced'"
)]
pub(crate) enum Command {
    /// All rollouts, newest first
    #[command(visible_alias = "ls")]
    List,
    /// One rollout with its waves: which instance is how far, since when, and why
    Show {
        /// The rollout, or its appliance
        rollout: String,
    },
    /// Follow a rollout until it is over, halted or rolled back; exit 1 unless it is complete
    Watch {
        /// The rollout, or its appliance
        rollout: String,
        /// How long to watch
        #[arg(long, value_name = "DURATION", default_value = "1d", value_parser = time::duration)]
        timeout: Duration,
    },
    /// Ask its policy no more and begin no roll; those that have begun end
    Pause(Said),
    /// Let a paused or halted rollout go on; what failed before a halt is forgiven
    Resume(Said),
    /// Try a version again that failed here, on all instances
    Retry(Said),
    /// Pause every rollout at once
    HaltAll {
        /// For people; it stands in the audit log
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
    },
    /// Versions that failed here and are not tried again
    Refusals,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Said {
    /// The rollout, or its appliance
    rollout: String,
    /// For people; it stands in the audit log
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

pub(crate) async fn run(session: &Session, command: &Command) -> Result<ExitCode, Failure> {
    let mut out = std::io::stdout();
    match command {
        Command::List => {
            output::list(&mut out, &session.client.rollouts().await?, session.format, unix_ms())?;
        }
        Command::Show { rollout } => {
            let view = session.client.rollout(&find(session, rollout).await?).await?;
            show(&mut out, &view, session.format, unix_ms())?;
        }
        Command::Watch { rollout, timeout } => return watch(session, rollout, *timeout).await,
        Command::Pause(said) => say(session, said, "pause").await?,
        Command::Resume(said) => say(session, said, "resume").await?,
        Command::Retry(said) => say(session, said, "retry").await?,
        Command::HaltAll { why } => {
            let halted = session.client.halt_rollouts(why.as_deref()).await?;
            match session.format {
                Format::Json => output::json(&mut out, &halted)?,
                Format::Yaml => output::yaml(&mut out, &halted)?,
                _ => halted.iter().try_for_each(|id| writeln!(out, "{id}"))?,
            }
            note(format_args!("{} rollouts paused; those that were paused already stay so", halted.len()));
        }
        Command::Refusals => {
            let refusals: Vec<Refusal> = session.client.refusals().await?.into_iter().map(Refusal).collect();
            output::list(&mut out, &refusals, session.format, unix_ms())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn say(session: &Session, said: &Said, word: &str) -> Result<(), Failure> {
    let id = find(session, &said.rollout).await?;
    let view = session.client.say_to_rollout(&id, word, said.why.as_deref()).await?;
    output::one(&mut std::io::stdout(), &view, session.format, unix_ms())
}

/// The whole name of the rollout that is meant.
async fn find(session: &Session, name: &str) -> Result<String, Failure> {
    if Kind::Rollout.check_name(name).is_ok() {
        return Ok(name.to_owned());
    }
    Kind::Appliance.check_name(name).map_err(|_| {
        let form = Kind::Rollout.name_form();
        Failure::usage(format!("{name:?} names no rollout: write {form}, or PUBLISHER/APPLIANCE"))
    })?;
    choose(name, &session.client.rollouts().await?)
}

fn choose(appliance: &str, all: &[RolloutView]) -> Result<String, Failure> {
    let over = |view: &&RolloutView| matches!(view.step.as_str(), "complete" | "superseded");
    let own: Vec<_> = all.iter().filter(|view| view.appliance.to_string() == appliance).collect();
    let (done, mut open): (Vec<_>, Vec<_>) = own.into_iter().partition(over);
    if open.is_empty() {
        // They come newest first.
        open.extend(done.into_iter().take(1));
    }
    match open.as_slice() {
        [] => Err(Failure::new(Code::NotFound, format!("there is no rollout of {appliance}"))),
        [one] => Ok(one.id.clone()),
        many => {
            let names: Vec<&str> = many.iter().map(|view| view.id.as_str()).collect();
            Err(Failure::usage(format!(
                "{appliance} has several rollouts: write one of {}",
                names.join(", ")
            )))
        }
    }
}

async fn watch(session: &Session, name: &str, timeout: Duration) -> Result<ExitCode, Failure> {
    let id = find(session, name).await?;
    let version = session.client.version().await?;
    let mut changes = session.client.watch(Some(version.revision)).await?;
    let (begin, mut told) = (Instant::now(), Vec::new());
    loop {
        let view = session.client.rollout(&id).await?;
        let now = lines(&view);
        for line in now.iter().filter(|line| !told.contains(*line)) {
            writeln!(std::io::stdout(), "{} {line}", time::utc(unix_ms()))?;
        }
        told = now;
        if is_over(&view) {
            return Ok(ExitCode::from(u8::from(view.step != "complete")));
        }
        let left = timeout.saturating_sub(begin.elapsed());
        let next = tokio::time::timeout(left, async {
            while let Some(change) = changes.next().await? {
                if change.collection == "rollouts" {
                    return Ok::<_, Failure>(true);
                }
            }
            Ok(false)
        });
        match next.await {
            Err(_) => {
                let message = format!("{id} is at step {} after {timeout:?}", view.step);
                return Err(Failure::new(Code::Timeout, message));
            }
            Ok(going) => {
                if !going? {
                    return Err(Failure::unreachable("the controller ended the watch"));
                }
            }
        }
    }
}

/// Nothing happens any more unless a person says so.
fn is_over(view: &RolloutView) -> bool {
    let under_way =
        view.orders.iter().any(|order| order.status.is_active() || order.status == OrderStatus::Returning);
    !under_way && matches!(view.step.as_str(), "complete" | "superseded" | "halt" | "roll_back")
}

/// What is worth a line when it changes.
fn lines(view: &RolloutView) -> Vec<String> {
    let why = view.reasons.first().map_or(String::new(), |why| format!(": {why}"));
    let mut lines = vec![format!("{} {}/{}{why}", state(view), view.at_target, view.instances)];
    lines.extend(view.orders.iter().map(|order| {
        let why = order.reason.as_ref().map_or(String::new(), |why| format!(": {why}"));
        format!("{} {}{why}", order.instance, order.status.word())
    }));
    lines.iter().map(|line| printable(line)).collect()
}

fn state(view: &RolloutView) -> String {
    if view.paused.is_some() { format!("{}, paused", view.step) } else { view.step.clone() }
}

fn show(out: &mut impl Write, view: &RolloutView, format: Format, now_ms: u64) -> Result<(), Failure> {
    match format {
        Format::Json => return output::json(out, view),
        Format::Yaml => return output::yaml(out, view),
        Format::Name => return Ok(writeln!(out, "{}", view.id)?),
        Format::Table | Format::Wide => {}
    }
    let mut line = |key: &str, value: String| writeln!(out, "{key:<11}{}", printable(&value));
    line("Rollout:", view.id.clone())?;
    line("Step:", state(view))?;
    line("At target:", format!("{} of {}", view.at_target, view.instances))?;
    line("Started:", format!("{} ago", time::age(view.started_ms, now_ms)))?;
    if let Some(paused) = &view.paused {
        let why = paused.why.as_ref().map_or(String::new(), |why| format!(": {why}"));
        line("Paused:", format!("{} ago by {}{why}", time::age(paused.at_ms, now_ms), paused.who))?;
    }
    if let Some(refused) = &view.refused {
        line("Refused:", format!("{} is not tried again here: {refused}", view.target))?;
    }
    if view.next_call_ms > 0 && view.paused.is_none() {
        line("Next:", time::utc(view.next_call_ms))?;
    }
    for reason in &view.reasons {
        line("Reason:", reason.clone())?;
    }
    for (number, wave) in waves(&view.orders).into_iter().enumerate() {
        let ordered_ms = wave.first().map_or(0, |order| order.ordered_ms);
        writeln!(out, "\nWave {}, ordered {}", number + 1, time::utc(ordered_ms))?;
        let rows: Vec<_> = wave.into_iter().map(|order| row(order, now_ms)).collect();
        output::table(out, &["INSTANCE", "PHASE", "SINCE", "FROM", "CHECKPOINT", "REASON"], &rows)?;
    }
    Ok(())
}

/// Orders of one answer have one time.
fn waves(orders: &[RollOrder]) -> Vec<Vec<&RollOrder>> {
    let mut waves: Vec<Vec<&RollOrder>> = Vec::new();
    for order in orders {
        match waves.last_mut() {
            Some(wave) if wave.iter().any(|other| other.ordered_ms == order.ordered_ms) => wave.push(order),
            _ => waves.push(vec![order]),
        }
    }
    waves
}

fn row(order: &RollOrder, now_ms: u64) -> Vec<String> {
    let since = if order.since_ms == 0 { order.ordered_ms } else { order.since_ms };
    vec![
        order.instance.to_string(),
        order.status.word().to_owned(),
        time::age(since, now_ms),
        or_dash(order.from.as_ref()),
        or_dash(order.taken.as_ref()),
        order.reason.clone().unwrap_or_default(),
    ]
}

#[derive(serde::Serialize)]
#[serde(transparent)]
struct Refusal(RefusalView);

impl Row for Refusal {
    const COLUMNS: &'static [&'static str] = &["APPLIANCE", "VERSION", "INSTANCE", "AGE", "REASON"];
    const WIDE: &'static [&'static str] = &["INSTEAD", "ROLLOUT"];

    fn name(&self) -> String {
        format!("{}/{}", self.0.appliance, self.0.version)
    }

    fn cells(&self, now_ms: u64) -> Vec<String> {
        let view = &self.0;
        vec![
            view.appliance.to_string(),
            view.version.to_string(),
            view.instance.to_string(),
            time::age(view.at_ms, now_ms),
            view.reason.clone(),
        ]
    }

    fn wide_cells(&self, _: u64) -> Vec<String> {
        vec![or_dash(self.0.before.as_ref()), self.0.rollout.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(step: &str, statuses: &[(&str, u64)]) -> RolloutView {
        let orders: Vec<_> = statuses
            .iter()
            .map(|(status, ordered_ms)| {
                serde_json::json!({"instance": "office/gateway", "ordered_ms": ordered_ms, "soak_ms": 0,
                    "checkpoint": false, "status": status})
            })
            .collect();
        serde_json::from_value(serde_json::json!({
            "id": "acme/gateway/stable/1.1.0/waves", "appliance": "acme/gateway", "channel": "stable",
            "target": "1.1.0", "policy": "waves", "started_ms": 0, "instances": 2, "at_target": 1, "step": step,
            "reasons": [], "next_call_ms": 0, "orders": orders, "decision": null,
        }))
        .unwrap()
    }

    #[test]
    fn orders_of_one_answer_are_a_wave() {
        let view = view("proceed", &[("succeeded", 1), ("rolled_back", 1), ("pending", 5)]);
        let sizes: Vec<_> = waves(&view.orders).iter().map(Vec::len).collect();
        assert_eq!(sizes, [2, 1]);
        let mut out = Vec::new();
        show(&mut out, &view, Format::Table, 10).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("Wave 2, ordered") && text.contains("rolled_back"), "{text}");
    }

    #[test]
    fn a_rollout_is_over_once_nothing_of_it_is_on_its_way() {
        assert!(is_over(&view("roll_back", &[("rolled_back", 1)])));
        assert!(!is_over(&view("roll_back", &[("rolling_back", 1)])));
        assert!(!is_over(&view("proceed", &[("succeeded", 1)])));
        assert!(is_over(&view("halt", &[("pending", 1)])));
    }

    #[test]
    fn an_appliance_names_its_only_open_rollout() {
        let (open, over) = (view("hold", &[]), RolloutView { id: "old".into(), ..view("complete", &[]) });
        assert_eq!(choose("acme/gateway", &[open.clone(), over.clone()]).unwrap(), open.id);
        assert_eq!(choose("acme/gateway", &[over]).unwrap(), "old");
        assert!(choose("acme/gateway", &[open.clone(), open.clone()]).is_err());
        assert!(choose("acme/other", &[open]).is_err());
    }
}
