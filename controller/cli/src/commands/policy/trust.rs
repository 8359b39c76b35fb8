//! `policy trust`: whose signatures the controller accepts.

use super::component;
use crate::commands::{Session, note};
use crate::failure::Failure;
use crate::output::{self, Row};
use crate::time;
use controller_api::policy::{PolicyKind, PutTrustRoot, TrustName, TrustRootView};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Largest key file that is read, in bytes.
const KEY_BYTES_MAX: usize = 4 << 10;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Let a key vouch for policies of some kinds
    #[command(
        after_help = "Examples:\n  collective policy trust add acme acme.pub --kind placement --kind update\n  \
        collective policy trust add guest guest.pub --kind placement --valid 30d"
    )]
    Add {
        /// Your name for the key
        name: TrustName,
        /// The public key, as `collective policy key new` writes it, or PEM
        file: PathBuf,
        /// What it may vouch for: placement, update, checkpoint, introspection
        #[arg(long = "kind", required = true)]
        kinds: Vec<PolicyKind>,
        /// Nothing is taken in by it after this time, such as 90d; for ever if absent
        #[arg(long, value_name = "TIME", value_parser = time::duration)]
        valid: Option<Duration>,
    },
    /// Keys that are trusted
    #[command(visible_alias = "ls")]
    List,
    /// Take nothing in by a key any more; what runs goes on, and says so
    Remove {
        /// Your name for the key
        name: TrustName,
    },
}

pub(super) async fn run(session: &Session, command: &Command) -> Result<ExitCode, Failure> {
    let mut out = std::io::stdout();
    let now_ms = chassis::clock::unix_ms();
    match command {
        Command::List => {
            output::list(&mut out, &session.client.trust_roots().await?, session.format, now_ms)?
        }
        Command::Add { name, file, kinds, valid } => {
            let key = String::from_utf8(component::read(file, KEY_BYTES_MAX)?).map_err(|_| {
                Failure::refused(vec![format!("{} is no text with a public key", file.display())])
            })?;
            let valid_ms = valid.map(|valid| u64::try_from(valid.as_millis()).unwrap_or(u64::MAX));
            let root = PutTrustRoot {
                key,
                kinds: kinds.iter().copied().collect(),
                expires_ms: valid_ms.map(|valid| now_ms.saturating_add(valid)),
            };
            let view = session.client.put_trust_root(name, &root).await?;
            output::one(&mut out, &view, session.format, now_ms)?;
        }
        Command::Remove { name } => {
            let roots = session.client.trust_roots().await?;
            session.client.delete_trust_root(name).await?;
            note(format_args!("nothing is taken in by {name} any more"));
            for policy in roots.iter().filter(|root| root.name == *name).flat_map(|root| &root.policies) {
                note(format_args!(
                    "policy {policy} goes on with what it vouched for: install another, or go back"
                ));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Row for TrustRootView {
    const COLUMNS: &'static [&'static str] = &["NAME", "KINDS", "KEY", "EXPIRES", "POLICIES"];
    const WIDE: &'static [&'static str] = &["PUBLIC-KEY", "ADDED"];
    fn name(&self) -> String {
        self.name.to_string()
    }
    fn cells(&self, _now_ms: u64) -> Vec<String> {
        let kinds: Vec<_> = self.kinds.iter().map(ToString::to_string).collect();
        let policies: Vec<_> = self.policies.iter().map(ToString::to_string).collect();
        vec![
            Row::name(self),
            kinds.join(","),
            self.key_id.short(),
            self.expires_ms.map_or_else(|| "never".to_owned(), time::utc),
            policies.join(","),
        ]
    }
    fn wide_cells(&self, _now_ms: u64) -> Vec<String> {
        use base64::Engine as _;
        vec![base64::engine::general_purpose::STANDARD.encode(&self.key.0), time::utc(self.added_ms)]
    }
}
