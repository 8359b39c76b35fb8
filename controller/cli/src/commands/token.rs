//! `token`: for people and programs.

use super::{Session, note};
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::time;
use controller_api::rest::{NewToken, TokenRequest, TokenView};
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

/// Tokens for people and programs
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make one; it is shown once
    Create {
        /// Whose or what for
        name: String,
        /// What it may do: read, or admin for everything
        #[arg(long, default_value = "read", value_parser = ["admin", "read"])]
        role: String,
        /// How long it is valid; for ever if absent
        #[arg(long, value_name = "DURATION", value_parser = time::duration)]
        valid: Option<Duration>,
    },
    /// All of them, without their secrets
    #[command(visible_alias = "ls")]
    List,
    /// Make one worthless at once
    Revoke {
        /// Its id, as `token list` shows it
        id: String,
    },
}

pub(crate) async fn run(session: &Session, command: &Command) -> Result<ExitCode, Failure> {
    let mut out = std::io::stdout();
    match command {
        Command::Create { name, role, valid } => {
            let valid_s = valid.map(|valid| valid.as_secs());
            let body = TokenRequest { name: name.clone(), role: role.clone(), valid_s };
            let token: NewToken = session.client.create_token(&body).await?;
            match session.format {
                Format::Json => output::json(&mut out, &token)?,
                Format::Yaml => output::yaml(&mut out, &token)?,
                _ => {
                    writeln!(out, "{}", token.token)?;
                    note(format_args!("token {} may {role}; it is not shown again", token.id));
                }
            }
        }
        Command::List => {
            let tokens: Vec<TokenView> = session.client.tokens().await?;
            output::list(&mut out, &tokens, session.format, chassis::clock::unix_ms())?;
        }
        Command::Revoke { id } => {
            let plain =
                !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            if !plain {
                return Err(Failure::usage(format!(
                    "{id:?} is not the id of a token: see `collective token list`"
                )));
            }
            session.client.delete_token(id).await?;
            note(format_args!("token {id} is revoked"));
        }
    }
    Ok(ExitCode::SUCCESS)
}
