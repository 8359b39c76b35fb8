//! What a controller is asked to do with policies.

use super::{component, explain, replay, trust};
use crate::commands::{Session, note};
use crate::failure::Failure;
use crate::output::{self, Format, printable};
use crate::time;
use controller_api::policy::{OnFailure, PolicyRelease, PolicyView, PutPolicy, ShadowReport};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use types::{Base64, PolicyName};

/// Largest settings document that is read, in bytes: policies take 64 KiB.
const SETTINGS_BYTES_MAX: usize = 64 << 10;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Let a signed component answer under a name, from the next decision on
    #[command(after_help = INSTALL_HELP)]
    Install(InstallArgs),
    /// All that are installed
    #[command(visible_alias = "ls")]
    List,
    /// Tell everything about one: versions, settings, signer, how it does, who uses it
    Describe {
        /// Its name
        name: PolicyName,
    },
    /// Give a policy other settings, or say what happens if it has no answer
    #[command(after_help = "Examples:\n  collective policy set balanced --settings spread.json\n  \
        collective policy set balanced --on-failure packed\n\nA policy's failure is never a yes: with `refuse` nothing \
        happens and it is asked\nagain; else the named policy of the same kind is asked, and if that fails too, nothing \
        happens.")]
    Set(SetArgs),
    /// Ask a component beside the one that answers, without effect, and list what it would have answered otherwise
    #[command(
        after_help = "Examples:\n  collective policy shadow balanced new.wasm\n  collective policy shadow balanced \
        --report\n  collective policy promote balanced\n  collective policy shadow balanced --stop"
    )]
    Shadow(ShadowArgs),
    /// Take the candidate into use
    Promote {
        /// The policy
        name: PolicyName,
    },
    /// Go back to the component and settings that answered before; again: further back
    Rollback {
        /// The policy
        name: PolicyName,
    },
    /// Remove a policy that nothing names
    Delete {
        /// The policy
        name: PolicyName,
    },
    /// Keys that may vouch for components
    #[command(subcommand)]
    Trust(trust::Command),
    /// Why something was decided: who answered what, from which input, at what cost
    #[command(after_help = explain::HELP)]
    Explain(explain::Args),
    /// Ask a component about recorded decisions again, here, and show what it would have changed
    #[command(after_help = replay::HELP)]
    Replay(replay::Args),
}

const INSTALL_HELP: &str = "\
The signature is looked for beside the component, as `collective policy sign` leaves it. The controller
verifies it by its trust roots before it looks into the component.

Examples:
  collective policy key new mine && collective policy sign spread.wasm --key mine.key
  collective policy trust add me mine.pub --kind placement
  collective policy install spread spread.wasm --settings spread.json";

#[derive(Debug, clap::Args)]
pub(crate) struct InstallArgs {
    /// Name that bundles use
    name: PolicyName,
    #[command(flatten)]
    file: Component,
}

/// A component with what belongs to it.
#[derive(Debug, clap::Args)]
struct Component {
    /// The component, a .wasm file
    file: PathBuf,
    /// Its signature, instead of FILE.sig
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    /// Settings to use with it (JSON or YAML); if absent those in use stay
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SetArgs {
    /// The policy
    name: PolicyName,
    /// Settings (JSON or YAML)
    #[arg(long, value_name = "FILE", conflicts_with = "defaults")]
    settings: Option<PathBuf>,
    /// The component's own default settings
    #[arg(long)]
    defaults: bool,
    /// `refuse`, or the name of the policy that is asked instead
    #[arg(long, value_name = "refuse|POLICY")]
    on_failure: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ShadowArgs {
    /// The policy
    name: PolicyName,
    /// The component, a .wasm file
    #[arg(required_unless_present_any = ["stop", "report"], conflicts_with_all = ["stop", "report"])]
    file: Option<PathBuf>,
    /// Its signature, instead of FILE.sig
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    /// Settings to use with it (JSON or YAML); if absent those in use
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Do not ask the candidate any more
    #[arg(long)]
    stop: bool,
    /// What it would have answered otherwise
    #[arg(long, conflicts_with = "stop")]
    report: bool,
}

pub(crate) async fn run(session: &Session, command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::List => {
            let policies: Vec<PolicyView> = session.client.policies().await?;
            output::list(&mut std::io::stdout(), &policies, session.format, chassis::clock::unix_ms())?;
        }
        Command::Describe { name } => describe(session, &session.client.policy(name).await?)?,
        Command::Install(args) => {
            let request = read(&args.file)?;
            note(format_args!("the controller verifies and compiles {}", args.file.file.display()));
            let view = session.client.put_policy(&args.name, &request).await?;
            said(session, &view, format_args!("answers {}", args.name))?;
        }
        Command::Set(args) => set(session, args).await?,
        Command::Shadow(args) => return shadow(session, args).await,
        Command::Promote { name } => {
            let view = session.client.promote_policy(name).await?;
            said(session, &view, format_args!("answers {name}"))?;
        }
        Command::Rollback { name } => {
            let view = session.client.roll_back_policy(name).await?;
            said(session, &view, format_args!("answers {name} again"))?;
        }
        Command::Delete { name } => {
            session.client.delete_policy(name).await?;
            note(format_args!("policy {name} is gone"));
        }
        Command::Trust(command) => return trust::run(session, command).await,
        Command::Explain(args) => explain::run(session, args).await?,
        Command::Replay(args) => return replay::run(session, args).await,
    }
    Ok(ExitCode::SUCCESS)
}

fn read(args: &Component) -> Result<PutPolicy, Failure> {
    let component = component::component(&args.file)?;
    let beside = args.signature.clone().unwrap_or_else(|| component::signature_path(&args.file));
    if !beside.exists() {
        return Err(Failure::refused(vec![format!(
            "{} is not there: sign the component with `collective policy sign {} --key FILE`, or say where its \
             signature is with --signature",
            beside.display(),
            args.file.display()
        )]));
    }
    let signature = component::read(&beside, plugins_artifact::ENVELOPE_BYTES_MAX)?;
    let settings = args.settings.as_deref().map(settings).transpose()?;
    Ok(PutPolicy { component: Base64(component), signature: Base64(signature), settings })
}

/// A settings document: YAML, of which JSON is a part.
pub(super) fn settings(path: &Path) -> Result<serde_json::Value, Failure> {
    let bytes = component::read(path, SETTINGS_BYTES_MAX)?;
    let wrong = |error: String| Failure::refused(vec![format!("{}: {error}", path.display())]);
    let text = String::from_utf8(bytes).map_err(|error| wrong(error.to_string()))?;
    let value: serde_json::Value = serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if !value.is_object() {
        return Err(wrong("settings are an object".into()));
    }
    Ok(value)
}

/// Tells what was done, and shows the policy to programs.
fn said(session: &Session, view: &PolicyView, what: impl std::fmt::Display) -> Result<(), Failure> {
    let release = &view.active;
    note(format_args!("{} {} ({}) {what}", release.component, release.version, release.digest.short()));
    if let Some(problem) = &view.health.problem {
        note(format_args!("warning: {problem}"));
    }
    output::one(&mut std::io::stdout(), view, session.format, chassis::clock::unix_ms())
}

async fn set(session: &Session, args: &SetArgs) -> Result<(), Failure> {
    let mut view = None;
    if args.settings.is_some() || args.defaults {
        let settings = args.settings.as_deref().map(settings).transpose()?;
        let changed = session.client.set_policy_settings(&args.name, settings).await;
        view = Some(changed.map_err(|error| match (error.problem(), &args.settings) {
            (Some(problem), Some(path)) => {
                let shown = path.display().to_string();
                Failure::from_problem(problem, |issue| match issue.field.as_str() {
                    "" => format!("{shown}: {}", issue.message),
                    pointer => format!("{shown}: {pointer}: {}", issue.message),
                })
            }
            _ => error.into(),
        })?);
    }
    if let Some(word) = &args.on_failure {
        let on_failure = match word.as_str() {
            "refuse" => OnFailure::Refuse,
            other => OnFailure::Fallback(
                other.parse().map_err(|error: types::NameError| Failure::usage(error.to_string()))?,
            ),
        };
        view = Some(session.client.set_policy_on_failure(&args.name, on_failure).await?);
    }
    match view {
        Some(view) => {
            said(session, &view, format_args!("answers {}, if it fails: {}", args.name, view.on_failure))
        }
        None => Err(Failure::usage("say what to set: --settings FILE, --defaults or --on-failure")),
    }
}

async fn shadow(session: &Session, args: &ShadowArgs) -> Result<ExitCode, Failure> {
    let mut out = std::io::stdout();
    let now_ms = chassis::clock::unix_ms();
    if args.stop {
        let view = session.client.delete_candidate(&args.name).await?;
        note(format_args!("nothing is asked beside policy {} any more", args.name));
        output::one(&mut out, &view, session.format, now_ms)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(file) = args.file.clone().filter(|_| !args.report) else {
        let report = session.client.shadow_report(&args.name).await?;
        shadow_report(&mut out, &report, session.format, now_ms)?;
        return Ok(ExitCode::SUCCESS);
    };
    let file = Component { file, signature: args.signature.clone(), settings: args.settings.clone() };
    let view = session.client.put_candidate(&args.name, &read(&file)?).await?;
    if let Some(candidate) = &view.candidate {
        let (component, version) = (&candidate.component, &candidate.version);
        note(format_args!("{component} {version} is asked beside policy {}, without effect", args.name));
        note(format_args!(
            "see what it would have done with `collective policy shadow {} --report`",
            args.name
        ));
    }
    output::one(&mut out, &view, session.format, now_ms)?;
    Ok(ExitCode::SUCCESS)
}

fn shadow_report(
    out: &mut impl Write,
    report: &ShadowReport,
    format: Format,
    now_ms: u64,
) -> Result<(), Failure> {
    match format {
        Format::Json => return output::json(out, report),
        Format::Yaml => return output::yaml(out, report),
        Format::Name | Format::Table | Format::Wide => {}
    }
    let ShadowReport { candidate, asked, differed, failed, .. } = report;
    if format != Format::Name {
        let since = time::utc(candidate.since_ms);
        let (component, version) = (&candidate.component, &candidate.version);
        writeln!(out, "{component} {version} was asked about {asked} decisions since {since}:")?;
        writeln!(out, "{differed} it would have answered otherwise, {failed} of these not at all")?;
    }
    if report.differences.is_empty() {
        return Ok(());
    }
    output::list(out, &report.differences, format, now_ms)
}

fn describe(session: &Session, view: &PolicyView) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    if !matches!(session.format, Format::Table | Format::Wide) {
        return output::one(&mut out, view, session.format, 0);
    }
    let mut field = |name: &str, value: &dyn std::fmt::Display| {
        let name = if name.is_empty() { String::new() } else { format!("{name}:") };
        writeln!(out, "{name:<14}{}", printable(&value.to_string()))
    };
    field("Name", &view.name)?;
    field("Kind", &view.kind)?;
    release(&mut field, "Answers", &view.active)?;
    field("Summary", &view.active.summary)?;
    field("On failure", &view.on_failure)?;
    let health = &view.health;
    field(
        "Calls",
        &format_args!(
            "{}, {} without an answer, since the controller started",
            health.calls, health.failures
        ),
    )?;
    if let Some(until) = health.open_until_ms {
        field("Left alone", &format_args!("until {}", time::utc(until)))?;
    }
    if let Some(problem) = &health.problem {
        field("Problem", problem)?;
    }
    let users = if view.used_by.is_empty() { "nobody".to_owned() } else { view.used_by.join(", ") };
    field("Used by", &users)?;
    if let Some(candidate) = &view.candidate {
        release(&mut field, "Candidate", candidate)?;
    }
    for earlier in &view.earlier {
        release(&mut field, "Earlier", earlier)?;
    }
    Ok(())
}

fn release(
    field: &mut impl FnMut(&str, &dyn std::fmt::Display) -> std::io::Result<()>,
    name: &str,
    release: &PolicyRelease,
) -> std::io::Result<()> {
    let since = time::utc(release.since_ms);
    field(
        name,
        &format_args!(
            "{} {}, signed by {}, since {since}",
            release.component, release.version, release.origin
        ),
    )?;
    field("", &format_args!("{}, {}", release.digest, time::bytes(release.size_bytes)))?;
    match &release.settings {
        Some(settings) => field("", &format_args!("settings {settings}")),
        None => field("", &"default settings"),
    }
}
