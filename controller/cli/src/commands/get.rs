//! `get`: list things, or show one; with `--watch`, every change.

use super::{Session, instance_id, path_of};
use crate::failure::{Code, Failure};
use crate::kinds::Kind;
use crate::output::{self, Format, Row};
use controller_api::planned::RolloutView;
use controller_api::rest::{
    ApplianceView, BundleView, DecisionView, DeploymentView, HostView, InstanceView, PolicyView, SiteView,
    VolumeView,
};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Kinds: bundles, deployments, instances, hosts, sites, volumes, appliances, policies, decisions, rollouts\n\
    (singular works too).\n\nExamples:\n  collective get instances -o wide --watch\n  \
    collective get deployment office -o yaml\n  collective get decisions office/workspace"
)]
pub(crate) struct Args {
    /// Kind of thing
    #[arg(value_name = "KIND")]
    kind: Kind,
    /// Only this one
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Stay, and write what changes
    #[arg(short, long)]
    watch: bool,
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    match args.kind {
        Kind::Bundle => typed::<BundleView>(session, args).await,
        Kind::Deployment => typed::<DeploymentView>(session, args).await,
        Kind::Instance => typed::<InstanceView>(session, args).await,
        Kind::Host => typed::<HostView>(session, args).await,
        Kind::Site => typed::<SiteView>(session, args).await,
        Kind::Volume => typed::<VolumeView>(session, args).await,
        Kind::Appliance => typed::<ApplianceView>(session, args).await,
        Kind::Policy => typed::<PolicyView>(session, args).await,
        Kind::Decision => typed::<DecisionView>(session, args).await,
        Kind::Rollout => typed::<RolloutView>(session, args).await,
    }
}

async fn typed<V: Row + DeserializeOwned>(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    let mut out = std::io::stdout();
    let now = chassis::clock::unix_ms();
    if args.watch {
        watch::<V>(session, args).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut found = fetch::<V>(session, args.kind, args.name.as_deref()).await?;
    match (&args.name, found.pop()) {
        (Some(_), Some(one)) if args.kind != Kind::Decision => {
            output::one(&mut out, &one, session.format, now)?
        }
        (_, last) => {
            found.extend(last);
            output::list(&mut out, &found, session.format, now)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// All of a kind, or the one of that name. An absent one is an error.
pub(crate) async fn fetch<V: Row + DeserializeOwned>(
    session: &Session,
    kind: Kind,
    name: Option<&str>,
) -> Result<Vec<V>, Failure> {
    let all = format!("/v1/{}", kind.plural());
    let Some(name) = name else { return Ok(session.client.get(&all).await?) };
    if kind == Kind::Decision {
        // A label and a slash: nothing in it needs quoting.
        return Ok(session.client.get(&format!("{all}?instance={}", instance_id(name)?)).await?);
    }
    let path = path_of(kind, name)?;
    if kind.has_path_per_name() {
        return Ok(vec![session.client.get(&path).await?]);
    }
    let found: Vec<V> = session.client.get(&all).await?;
    let found: Vec<V> = found.into_iter().filter(|view| view.name() == name).collect();
    if found.is_empty() {
        return Err(Failure::new(Code::NotFound, format!("there is no {} {name:?}", kind.singular())));
    }
    Ok(found)
}

/// Writes all, then every one that changes, until it is stopped or the controller goes.
async fn watch<V: Row + DeserializeOwned>(session: &Session, args: &Args) -> Result<(), Failure> {
    let version = session.client.version().await?;
    let mut changes = session.client.watch(Some(version.revision)).await?;
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    let mut headed = false;
    loop {
        let found = match fetch::<V>(session, args.kind, args.name.as_deref()).await {
            // It is waited for, or has gone: a watch goes on.
            Err(failure) if failure.code == Code::NotFound => Vec::new(),
            other => other?,
        };
        let mut changed = Vec::new();
        for view in found {
            let text = serde_json::to_string(&view).map_err(|error| Failure::failed(error.to_string()))?;
            if seen.insert(view.name(), text.clone()).as_ref() != Some(&text) {
                changed.push(view);
            }
        }
        write_changed(&changed, session.format, &mut headed)?;
        loop {
            let Some(change) = changes.next().await? else { return Ok(()) };
            if concerns(args.kind, &change.collection) {
                break;
            }
        }
    }
}

/// A deployment shows its instances, and both show what hosts say of them.
fn concerns(kind: Kind, collection: &str) -> bool {
    match kind {
        Kind::Deployment => matches!(collection, "deployments" | "instances" | "decisions"),
        Kind::Instance => matches!(collection, "instances" | "decisions"),
        Kind::Bundle => matches!(collection, "bundles" | "deployments"),
        Kind::Rollout => matches!(collection, "rollouts" | "instances"),
        kind => kind.plural() == collection,
    }
}

fn write_changed<V: Row>(changed: &[V], format: Format, headed: &mut bool) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    let now = chassis::clock::unix_ms();
    match format {
        Format::Json => changed.iter().try_for_each(|view| output::json_line(&mut out, view)),
        Format::Yaml | Format::Name => output::list(&mut out, changed, format, now),
        Format::Table | Format::Wide => {
            let mut text = Vec::new();
            output::list(&mut text, changed, format, now)?;
            let text = String::from_utf8_lossy(&text).into_owned();
            let skip = usize::from(std::mem::replace(headed, true));
            let lines: Vec<_> = text.lines().skip(skip).collect();
            use std::io::Write as _;
            lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
            Ok(())
        }
    }
}
