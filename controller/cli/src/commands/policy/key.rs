//! `policy key`.

use super::component;
use crate::commands::note;
use crate::failure::{Code, Failure};
use crate::output::{self, Format, Row};
use plugins_artifact::{KeyId, PublicKey, SecretKey};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Larger than any key's file.
const KEY_BYTES_MAX: usize = 16 << 10;

/// Keys that vouch for components
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a key: NAME.key signs and stays with you, NAME.pub is for those who trust you
    New {
        /// File names without their endings
        name: PathBuf,
    },
    /// Tell which key a file holds
    Show {
        /// NAME.key or NAME.pub
        file: PathBuf,
    },
}

#[derive(Serialize)]
struct KeyView {
    /// SHA-256 of the public key.
    id: KeyId,
    public_key: PublicKey,
}

impl Row for KeyView {
    const COLUMNS: &'static [&'static str] = &["ID", "PUBLIC KEY"];
    const WIDE: &'static [&'static str] = &[];
    fn name(&self) -> String {
        self.id.to_string()
    }
    fn cells(&self, _: u64) -> Vec<String> {
        vec![self.id.to_string(), self.public_key.to_string()]
    }
    fn wide_cells(&self, _: u64) -> Vec<String> {
        Vec::new()
    }
}

pub(super) fn run(command: &Command, format: Format) -> Result<ExitCode, Failure> {
    let public = match command {
        Command::New { name } => make(name)?,
        Command::Show { file } => {
            let text = text(file)?;
            let key = match SecretKey::parse(&text) {
                Ok(secret) => Ok(secret.public()),
                Err(_) => PublicKey::parse(&text),
            };
            key.map_err(|error| unusable(file, &error))?
        }
    };
    let view = KeyView { id: public.id(), public_key: public };
    output::one(&mut std::io::stdout(), &view, format, 0)?;
    Ok(ExitCode::SUCCESS)
}

fn make(name: &Path) -> Result<PublicKey, Failure> {
    let file = |ending: &str| PathBuf::from(format!("{}.{ending}", name.display()));
    let (secret_file, public_file) = (file("key"), file("pub"));
    if let Some(there) = [&secret_file, &public_file].into_iter().find(|file| file.exists()) {
        let problem =
            format!("{} is there already: a key that signed something is not replaced", there.display());
        return Err(Failure::new(Code::Conflict, problem));
    }
    let key = SecretKey::generate().map_err(|error| Failure::failed(error.to_string()))?;
    let pem = key.to_pem().map_err(|error| Failure::failed(error.to_string()))?;
    let write = |file: &Path, text: &str, mode| {
        chassis::durable::write(file, text.as_bytes(), mode)
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", file.display())))
    };
    write(&secret_file, &pem, 0o600)?;
    write(&public_file, &key.public().to_pem(), 0o644)?;
    note(format_args!(
        "{} signs: keep it to yourself, with a copy; {} is for those who trust you",
        secret_file.display(),
        public_file.display()
    ));
    Ok(key.public())
}

/// The secret key in a file.
pub(super) fn secret(file: &Path) -> Result<SecretKey, Failure> {
    SecretKey::parse(&text(file)?).map_err(|error| unusable(file, &error))
}

/// The public key in a file.
pub(super) fn public(file: &Path) -> Result<PublicKey, Failure> {
    PublicKey::parse(&text(file)?).map_err(|error| unusable(file, &error))
}

fn text(file: &Path) -> Result<String, Failure> {
    let bytes = component::read(file, KEY_BYTES_MAX)?;
    String::from_utf8(bytes).map_err(|_| Failure::usage(format!("{} is no key's file", file.display())))
}

fn unusable(file: &Path, error: &plugins_artifact::KeyError) -> Failure {
    Failure::usage(format!("cannot use the key {}: {error}", file.display()))
}
