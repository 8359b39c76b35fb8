//! `audit`: who changed what; the hash chain is checked on the way.

use super::{Session, note};
use crate::failure::Failure;
use crate::output;
use aws_lc_rs::digest::{SHA256, digest};
use controller_api::rest::AuditEntry;
use std::process::ExitCode;
use types::Digest;

#[derive(Debug, clap::Args)]
#[command(after_help = "Each entry carries the SHA-256 of the one before. Exit code 1: the chain is broken.")]
pub(crate) struct Args {
    /// Only entries after this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    since: u64,
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    let entries = session.client.audit(args.since).await?;
    output::list(&mut std::io::stdout(), &entries, session.format, chassis::clock::unix_ms())?;
    check(&entries)?;
    note(format_args!("{} entries, their chain is whole", entries.len()));
    Ok(ExitCode::SUCCESS)
}

/// Every entry names the one before it.
fn check(entries: &[AuditEntry]) -> Result<(), Failure> {
    let broken = |number: u64| {
        Failure::failed(format!("the audit log is broken at entry {number}: an entry was changed or removed"))
    };
    let first_is_right = entries
        .first()
        .is_none_or(|first| first.number != 1 || first.previous == Digest::from_bytes([0; 32]));
    if !first_is_right {
        return Err(broken(1));
    }
    for pair in entries.windows(2) {
        let [before, entry] = pair else { continue };
        if entry.number != before.number + 1 || Some(entry.previous) != hash(before) {
            return Err(broken(entry.number));
        }
    }
    Ok(())
}

fn hash(entry: &AuditEntry) -> Option<Digest> {
    let text = serde_json::to_vec(entry).ok()?;
    digest(&SHA256, &text).as_ref().try_into().ok().map(Digest::from_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Revision;

    fn chain(length: u64) -> Vec<AuditEntry> {
        let mut entries: Vec<AuditEntry> = Vec::new();
        for number in 1..=length {
            let previous = entries.last().and_then(hash).unwrap_or(Digest::from_bytes([0; 32]));
            entries.push(AuditEntry {
                number,
                at_ms: number,
                who: "token:t1".into(),
                action: "apply".into(),
                object: "bundle/office".into(),
                why: None,
                revision: Revision(number),
                previous,
            });
        }
        entries
    }

    #[test]
    fn takes_a_whole_chain_and_any_tail_of_it() {
        let entries = chain(5);
        check(&entries).unwrap();
        check(&entries[2..]).unwrap();
        check(&[]).unwrap();
    }

    #[test]
    fn finds_a_changed_and_a_removed_entry() {
        let mut changed = chain(5);
        changed[2].who = "token:other".into();
        assert!(check(&changed).unwrap_err().messages[0].contains("at entry 4"));
        let mut removed = chain(5);
        removed.remove(2);
        assert!(check(&removed).unwrap_err().messages[0].contains("at entry 4"));
    }
}
