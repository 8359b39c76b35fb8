//! `delete`: what documents name, or one thing.

use super::apply::{self, Verb};
use super::{Session, instance_id, note};
use crate::documents;
use crate::failure::Failure;
use crate::kinds::Kind;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Deleting an instance throws its system disk away; its deployment makes it anew, and its volumes \
    are kept.\n\nExamples:\n  collective delete -f office.yaml\n  collective delete instance office/workspace\n  \
    collective delete volume office/workspace/home"
)]
pub(crate) struct Args {
    /// YAML file whose documents are deleted, or - for standard input; may be repeated
    #[arg(short, long = "file", num_args = 1.., value_name = "FILE", conflicts_with_all = ["kind", "name"])]
    files: Vec<PathBuf>,
    /// Kind of thing
    #[arg(value_name = "KIND", required_unless_present = "files", requires = "name")]
    kind: Option<Kind>,
    /// Its name
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// With --file: say what would be deleted, but delete nothing
    #[arg(long, requires = "files")]
    dry_run: bool,
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    let (Some(kind), Some(name)) = (args.kind, &args.name) else {
        let documents = documents::read(&args.files)?;
        let result = apply::send(session, Verb::Delete, &documents, args.dry_run).await?;
        apply::show(&mut std::io::stdout(), &result, session.format, args.dry_run)?;
        return Ok(ExitCode::SUCCESS);
    };
    one(session, kind, name).await?;
    match kind {
        Kind::Instance => note(format_args!("instance/{name} is thrown away; its deployment makes it anew")),
        kind => note(format_args!("{}/{name} deleted", kind.singular())),
    }
    Ok(ExitCode::SUCCESS)
}

async fn one(session: &Session, kind: Kind, name: &str) -> Result<(), Failure> {
    kind.check_name(name).map_err(Failure::usage)?;
    let wrong = |error: types::NameError| Failure::usage(error.to_string());
    match kind {
        Kind::Bundle => session.client.delete_bundle(&name.parse().map_err(wrong)?).await?,
        Kind::Deployment => session.client.delete_deployment(&name.parse().map_err(wrong)?).await?,
        Kind::Host => session.client.delete_host(&name.parse().map_err(wrong)?).await?,
        Kind::Instance => session.client.delete_instance(&instance_id(name)?).await?,
        Kind::Volume => {
            let (instance, volume) = name.rsplit_once('/').unwrap_or_default();
            let volume = volume.parse().map_err(wrong)?;
            session.client.delete_volume(&instance_id(instance)?, &volume).await?;
        }
        Kind::Site | Kind::Appliance | Kind::Policy | Kind::Decision | Kind::Rollout => {
            return Err(Failure::usage(format!(
                "a {} cannot be deleted by name; bundles, deployments, instances, volumes and hosts can",
                kind.singular()
            )));
        }
    }
    Ok(())
}
