//! `policy explain`: one decision in full.

use crate::commands::{Session, instance_id};
use crate::failure::{Code, Failure};
use crate::output::{self, Format, printable};
use crate::time;
use controller_api::policy::DecisionView;
use std::io::{self, Write};

pub(super) const HELP: &str = "\
WHAT is a decision's number, an instance (DEPLOYMENT/MEMBER, its newest decision), or a subject such as
deployment/office; the newest decision of all if absent. `collective get decisions` lists them.

Examples:
  collective policy explain 4711
  collective policy explain office/workspace
  collective policy explain office/workspace --input > input.json && collective policy test spread.wasm --inputs .";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A decision, an instance or a subject
    #[arg(value_name = "WHAT")]
    what: Option<String>,
    /// Write the recorded input instead: what the policy was asked
    #[arg(long)]
    input: bool,
}

pub(super) async fn run(session: &Session, args: &Args) -> Result<(), Failure> {
    let decision = find(session, args.what.as_deref()).await?;
    let mut out = io::stdout();
    if args.input {
        return output::json(&mut out, &session.client.decision_input(decision.id).await?);
    }
    match session.format {
        Format::Table | Format::Wide => Ok(text(&mut out, &decision)?),
        format => output::one(&mut out, &decision, format, 0),
    }
}

async fn find(session: &Session, what: Option<&str>) -> Result<DecisionView, Failure> {
    if let Some(number) = what.and_then(|what| what.parse().ok()) {
        return Ok(session.client.decision(number).await?);
    }
    let mut query = vec![("limit", "1".to_owned())];
    match what {
        None => {}
        Some(what) if ["instance/", "deployment/", "rollout/"].iter().any(|kind| what.starts_with(kind)) => {
            query.push(("subject", what.to_owned()));
        }
        Some(instance) => query.push(("instance", instance_id(instance)?.to_string())),
    }
    let newest = session.client.decisions_where(&query).await?.into_iter().next();
    newest.ok_or_else(|| {
        let about = what.map_or_else(String::new, |what| format!(" about {what}"));
        Failure::new(Code::NotFound, format!("nothing was decided{about} so far"))
    })
}

fn text(out: &mut impl Write, decision: &DecisionView) -> io::Result<()> {
    let mut field = |name: &str, value: &dyn std::fmt::Display| {
        writeln!(out, "{:<14}{}", format!("{name}:"), printable(&value.to_string()))
    };
    field("Decision", &format_args!("{}, {}", decision.id, time::utc(decision.at_ms)))?;
    field("About", &decision.subject)?;
    field("Outcome", &decision.outcome)?;
    if let Some(host) = &decision.host {
        field("Taken", &format_args!("host {host}, the first choice that breaks no hard limit"))?;
    }
    field("Policy", &format_args!("{} ({})", decision.policy, decision.kind))?;
    if let Some(fallback) = &decision.fallback {
        field("Fallback", &format_args!("{} was asked instead: {}", fallback.policy, fallback.because))?;
    }
    field("Answered by", &format_args!("{} {}", decision.component, decision.digest))?;
    match &decision.settings {
        Some(settings) => field("Settings", settings)?,
        None => field("Settings", &"the component's defaults")?,
    }
    field("Input", &format_args!("{}, {}", decision.input, time::bytes(decision.input_bytes)))?;
    field("Cost", &format_args!("{} us", decision.took_us))?;
    if let Some(shadow) = &decision.shadow {
        let same = if shadow.differs { "otherwise" } else { "the same" };
        field(
            "Candidate",
            &format_args!("{}: {same}: {} ({} us)", shadow.component, shadow.outcome, shadow.took_us),
        )?;
    }
    for choice in &decision.choices {
        let taken = if decision.host.as_ref() == Some(&choice.host) { "  taken" } else { "" };
        writeln!(out, "  {:<10}{:>8.3}{taken}", choice.host, choice.score)?;
        choice.reasons.iter().try_for_each(|reason| writeln!(out, "    {}", printable(reason)))?;
    }
    decision.notes.iter().try_for_each(|note| writeln!(out, "  note: {}", printable(note)))?;
    decision.logs.iter().try_for_each(|line| writeln!(out, "  log: {}", printable(line)))?;
    if decision.notes.is_empty()
        && let Some(answer) = &decision.answer
    {
        writeln!(out, "{}", serde_json::to_string_pretty(answer).unwrap_or_default())?;
    }
    Ok(())
}
