//! `policy push` and `policy pull`.

use super::{component, key};
use crate::commands::note;
use crate::failure::{Code, Failure, chain};
use crate::output::{self, Format, Row};
use plugins_artifact::registry::{self, About, Credentials, Patience, Pulled, Reference, RegistryError};
use plugins_artifact::{Kind, Root, digest};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;
use types::Digest;

/// After the options of both.
pub(super) const HELP: &str = "\
A component is an OCI artifact in the layout that CNCF gave WebAssembly; its signature is a second artifact, tagged \
sha256-DIGEST.sig. Passwords are those of `docker login` and `podman login`. A registry on this machine is spoken to \
without TLS, any other with it; an authority of your own goes into SSL_CERT_FILE.

Examples:
  collective policy push spread.wasm ghcr.io/acme/spread:1.0.0
  collective policy pull ghcr.io/acme/spread:1.0.0 --out spread.wasm --key acme.pub
  collective policy pull ghcr.io/acme/spread@sha256:... --out spread.wasm --key acme.pub";

#[derive(Debug, clap::Args)]
pub(crate) struct PushArgs {
    /// The component, a .wasm file; FILE.sig goes along if it is there
    file: PathBuf,
    /// REGISTRY/NAME:TAG
    reference: Reference,
    /// Push it although nobody vouches for it
    #[arg(long)]
    unsigned: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PullArgs {
    /// REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:DIGEST
    reference: Reference,
    /// Where the component goes; its signature goes beside it as FILE.sig
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Public key that must have signed it; may be given several times
    #[arg(long, value_name = "FILE", required_unless_present = "unverified")]
    key: Vec<PathBuf>,
    /// Do not ask who signed it: a controller will
    #[arg(long, conflicts_with = "key")]
    unverified: bool,
}

#[derive(Serialize)]
struct Moved {
    /// With the manifest's digest, to pin.
    reference: String,
    component: Digest,
    bytes: usize,
    signed: bool,
}

impl Row for Moved {
    const COLUMNS: &'static [&'static str] = &["REFERENCE", "SIGNED"];
    const WIDE: &'static [&'static str] = &["COMPONENT", "BYTES"];
    fn name(&self) -> String {
        self.reference.clone()
    }
    fn cells(&self, _: u64) -> Vec<String> {
        vec![self.reference.clone(), if self.signed { "yes" } else { "no" }.to_owned()]
    }
    fn wide_cells(&self, _: u64) -> Vec<String> {
        vec![self.component.to_string(), self.bytes.to_string()]
    }
}

pub(super) async fn push(args: &PushArgs, format: Format) -> Result<ExitCode, Failure> {
    let bytes = component::component(&args.file)?;
    let signature = component::signature(&args.file)?;
    if signature.is_none() && !args.unsigned {
        return Err(Failure::usage(format!(
            "{} is not there: sign it first (`collective policy sign`), or say --unsigned",
            component::signature_path(&args.file).display()
        )));
    }
    let policy = component::load(&component::runtime(|_| ())?, &bytes, &args.file.display().to_string())?;
    let refused = |problem: String| Failure::refused(vec![format!("{}: {problem}", args.file.display())]);
    let interface = plugins_kit::interface(&bytes).map_err(|error| refused(error.to_string()))?;
    let names = |parts: Vec<plugins_kit::Part>| parts.into_iter().map(|part| part.name).collect();
    let about = About {
        summary: policy.manifest().summary.clone(),
        license: policy.manifest().license.clone(),
        imports: names(interface.imports),
        exports: names(interface.exports),
    };
    let statement = component::statement(&policy);
    let credentials = Credentials::of_user(args.reference.registry()).map_err(|error| failure(&error))?;
    let pushed = registry::push(
        &args.reference,
        &bytes,
        &statement,
        &about,
        signature.as_deref(),
        credentials,
        Patience::default(),
    )
    .await
    .map_err(|error| failure(&error))?;
    let moved = Moved {
        reference: args.reference.pinned(pushed.manifest).to_string(),
        component: statement.component,
        bytes: bytes.len(),
        signed: pushed.signature_tag.is_some(),
    };
    output::one(&mut std::io::stdout(), &moved, format, 0)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn pull(args: &PullArgs, format: Format) -> Result<ExitCode, Failure> {
    // Read first: a wrong path should not cost a download.
    let keys = args.key.iter().map(|file| key::public(file).map(|key| (file, key)));
    let roots: Vec<Root> = keys
        .map(|pair| {
            pair.map(|(file, key)| Root { name: file.display().to_string(), key, kinds: Kind::ALL.into() })
        })
        .collect::<Result<_, _>>()?;
    let pulled = fetch(&args.reference).await?;
    if !args.unverified {
        let no = |problem: String| Failure::refused(vec![format!("{}: {problem}", args.reference)]);
        let envelope = pulled.signature.as_ref().ok_or_else(|| no("nobody signed it".to_owned()))?;
        let signer = plugins_artifact::verify(envelope, &pulled.component, &roots)
            .map_err(|error| no(chain(&error)))?;
        let statement = &signer.statement;
        note(format_args!(
            "{} {} {}, signed by {}",
            statement.kind, statement.name, statement.version, signer.root
        ));
    }
    let write = |path: &std::path::Path, bytes: &[u8]| {
        chassis::durable::write(path, bytes, 0o644)
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))
    };
    let beside = component::signature_path(&args.out);
    match &pulled.signature {
        Some(envelope) => write(&beside, envelope)?,
        // An older file's signature would be taken for this one's.
        None if beside.exists() => std::fs::remove_file(&beside)?,
        None => {}
    }
    write(&args.out, &pulled.component)?;
    let moved = Moved {
        reference: args.reference.pinned(pulled.manifest).to_string(),
        component: digest(&pulled.component),
        bytes: pulled.component.len(),
        signed: pulled.signature.is_some(),
    };
    output::one(&mut std::io::stdout(), &moved, format, 0)?;
    Ok(ExitCode::SUCCESS)
}

/// A component and its signature from a registry.
pub(super) async fn fetch(reference: &Reference) -> Result<Pulled, Failure> {
    let credentials = Credentials::of_user(reference.registry()).map_err(|error| failure(&error))?;
    registry::pull(reference, credentials, Patience::default()).await.map_err(|error| failure(&error))
}

fn failure(error: &RegistryError) -> Failure {
    let code = match error {
        RegistryError::Unreachable { .. } | RegistryError::Interrupted { .. } => Code::Unreachable,
        RegistryError::Denied { .. } => Code::Forbidden,
        RegistryError::NotFound { .. } => Code::NotFound,
        RegistryError::Setup { .. } | RegistryError::Credentials { .. } => Code::Usage,
        RegistryError::Refused { .. }
        | RegistryError::TooLarge { .. }
        | RegistryError::OtherBytes { .. }
        | RegistryError::Answer { .. } => Code::Refused,
    };
    Failure::new(code, chain(error))
}
