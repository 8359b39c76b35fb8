//! `policy new`.

use crate::commands::note;
use crate::failure::Failure;
use plugins_artifact::Kind;
use plugins_kit::{Language, scaffold};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder to make; its last part is the policy's name unless --name says another
    folder: PathBuf,
    /// Which decision it makes: placement, update, checkpoint or introspection
    #[arg(long, value_name = "KIND")]
    kind: Kind,
    /// Language: rust, python, js or c
    #[arg(long, value_name = "LANGUAGE", default_value = "rust")]
    lang: Language,
    /// The policy's name
    #[arg(long)]
    name: Option<String>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let folder = &args.folder;
    let last = || folder.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let name = args.name.clone().unwrap_or_else(last);
    let files = scaffold(args.kind, args.lang, &name).map_err(|error| Failure::usage(error.to_string()))?;
    let taken = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if taken || folder.is_file() {
        let problem = format!("{} is there already and not empty: name another folder", folder.display());
        return Err(Failure::new(crate::failure::Code::Conflict, problem));
    }
    for file in &files {
        let path = folder.join(&file.path);
        let cannot =
            |error: std::io::Error| Failure::failed(format!("cannot write {}: {error}", path.display()));
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(cannot)?;
        std::fs::write(&path, &file.bytes).map_err(cannot)?;
        if file.executable {
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&path, mode).map_err(cannot)?;
        }
    }
    note(format_args!(
        "{}: a {} policy in {}; go there and run `make test`",
        folder.display(),
        args.kind,
        args.lang
    ));
    Ok(ExitCode::SUCCESS)
}
