//! `policy inspect`.

use super::{component, registry};
use crate::failure::{Failure, chain};
use crate::output::{self, Format, Row};
use crate::time;
use plugins_artifact::registry::Reference;
use plugins_artifact::{Envelope, Statement};
use plugins_kit::Part;
use plugins_runtime::Manifest;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use types::Digest;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A .wasm file, or REGISTRY/NAME:TAG
    #[arg(value_name = "FILE|REFERENCE")]
    subject: String,
}

/// What there is to tell.
#[derive(Serialize)]
struct About {
    digest: Digest,
    bytes: usize,
    kind: Option<plugins_artifact::Kind>,
    /// Version of the contract it was built against.
    contract: Option<String>,
    /// Imported functions by interface.
    imports: BTreeMap<String, Vec<String>>,
    exports: BTreeMap<String, Vec<String>>,
    /// Absent if no controller would load it.
    manifest: Option<Manifest>,
    /// Why not.
    refused: Option<String>,
    signature: Option<Signature>,
}

/// Who claims to vouch for it. Only a controller's or a puller's keys tell whether it is true.
#[derive(Serialize)]
struct Signature {
    statement: Statement,
    /// The statement is about these bytes.
    fits: bool,
}

impl Row for About {
    const COLUMNS: &'static [&'static str] = &[];
    const WIDE: &'static [&'static str] = &[];
    fn name(&self) -> String {
        self.digest.to_string()
    }
    fn cells(&self, _: u64) -> Vec<String> {
        Vec::new()
    }
    fn wide_cells(&self, _: u64) -> Vec<String> {
        Vec::new()
    }
}

pub(super) async fn run(args: &Args, format: Format) -> Result<ExitCode, Failure> {
    let file = PathBuf::from(&args.subject);
    let (bytes, envelope) = if file.exists() {
        (component::component(&file)?, component::signature(&file)?)
    } else {
        let reference: Reference = args.subject.parse().map_err(|error| {
            Failure::usage(format!("{} is no file, and no artifact either: {error}", args.subject))
        })?;
        let pulled = registry::fetch(&reference).await?;
        (pulled.component, pulled.signature)
    };
    let about = look(&bytes, envelope.as_deref(), &args.subject)?;
    let mut out = std::io::stdout();
    match format {
        Format::Table | Format::Wide => write(&mut out, &about, format == Format::Wide)?,
        Format::Json | Format::Yaml | Format::Name => output::one(&mut out, &about, format, 0)?,
    }
    Ok(ExitCode::from(u8::from(about.refused.is_some())))
}

fn look(bytes: &[u8], envelope: Option<&[u8]>, shown: &str) -> Result<About, Failure> {
    let interface = plugins_kit::interface(bytes)
        .map_err(|error| Failure::refused(vec![format!("{shown}: {}", chain(&error))]))?;
    let loaded = component::runtime(|_| ())?.load(bytes);
    let digest = plugins_artifact::digest(bytes);
    let signature = envelope.and_then(|envelope| Envelope::parse(envelope).ok()).map(|envelope| {
        let statement = envelope.statement().clone();
        Signature { fits: statement.component == digest, statement }
    });
    let named =
        |parts: &[Part]| parts.iter().map(|part| (part.name.clone(), part.functions.clone())).collect();
    Ok(About {
        digest,
        bytes: bytes.len(),
        kind: interface.kind(),
        contract: interface.contract().map(str::to_owned),
        imports: named(&interface.imports),
        exports: named(&interface.exports),
        refused: loaded.as_ref().err().map(|error| chain(error)),
        manifest: loaded.ok().map(|policy| policy.manifest().clone()),
        signature,
    })
}

fn write(out: &mut impl std::io::Write, about: &About, wide: bool) -> Result<(), Failure> {
    let mut line = |name: &str, text: &str| writeln!(out, "{name:<12} {}", output::printable(text));
    if let Some(manifest) = &about.manifest {
        line("Name", &format!("{} {}", manifest.name, manifest.version))?;
        line("Summary", &manifest.summary)?;
        line("Licence", &manifest.license)?;
    }
    line("Kind", &output::or_dash(about.kind.as_ref()))?;
    line("Contract", &output::or_dash(about.contract.as_ref()))?;
    line("Size", &time::bytes(about.bytes as u64))?;
    line("Digest", &about.digest.to_string())?;
    line("Signature", &signature_text(about.signature.as_ref()))?;
    if let Some(refused) = &about.refused {
        line("Refused", refused)?;
    }
    for (title, parts) in [("Imports", &about.imports), ("Exports", &about.exports)] {
        writeln!(out, "{title}")?;
        for (name, functions) in parts {
            let functions = functions.join(", ");
            writeln!(out, "  {}", output::printable(&format!("{name}: {functions}")))?;
        }
    }
    let Some(manifest) = &about.manifest else { return Ok(()) };
    writeln!(out, "Settings")?;
    if wide {
        return output::json(out, &manifest.settings_schema);
    }
    settings(out, &manifest.settings_schema)
}

fn signature_text(signature: Option<&Signature>) -> String {
    match signature {
        None => "none".to_owned(),
        Some(Signature { fits: false, statement }) => {
            format!("of another component, {}", statement.component)
        }
        Some(Signature { fits: true, statement }) => {
            format!(
                "{} {} {}; who made it is for keys to tell",
                statement.kind, statement.name, statement.version
            )
        }
    }
}

/// The properties of a schema, one a line.
fn settings(out: &mut impl std::io::Write, schema: &serde_json::Value) -> Result<(), Failure> {
    let properties = schema.get("properties").and_then(|value| value.as_object());
    for (name, property) in properties.into_iter().flatten() {
        let default = property.get("default").map(|value| format!(" [{value}]")).unwrap_or_default();
        let description = property.get("description").and_then(|value| value.as_str()).unwrap_or_default();
        writeln!(out, "  {}", output::printable(&format!("{name}{default}: {description}")))?;
    }
    Ok(())
}
