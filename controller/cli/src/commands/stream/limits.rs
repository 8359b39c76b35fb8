//! How fast hosts may fetch and send.

use crate::commands::{Session, note};
use crate::failure::Failure;
use crate::output::{self, Row};
use crate::time;
use controller_api::stream::{LimitScope, LimitsView};
use std::process::ExitCode;
use streamer_api::Limits;
use types::{HostName, SiteName};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without a rate the limits that were set are shown. Rates are 50MB/s, 50MiB/s, 400Mbit/s, or none. A \
    site's limits are shared equally among its hosts that are online; a host heeds the lowest of its own, its share of its \
    site's, and those of every host. Reads that guests wait for go first inside them.\n\nExamples:\n  \
    collective stream limits\n  collective stream limits --site main --site-download 20MB/s\n  \
    collective stream limits --host h1 --upload 100Mbit/s\n  collective stream limits --host h1 --upload none\n  \
    collective stream limits --site main --clear"
)]
pub(super) struct Args {
    /// Of one host
    #[arg(long, value_name = "HOST", conflicts_with = "site")]
    host: Option<HostName>,
    /// Of a site's hosts together
    #[arg(long, value_name = "SITE")]
    site: Option<SiteName>,
    /// From peers, in all
    #[arg(long, value_name = "RATE", value_parser = rate)]
    download: Option<Rate>,
    /// To peers, in all
    #[arg(long, value_name = "RATE", value_parser = rate)]
    upload: Option<Rate>,
    /// From other sites, origins and web seeds
    #[arg(long, value_name = "RATE", value_parser = rate)]
    site_download: Option<Rate>,
    /// To other sites
    #[arg(long, value_name = "RATE", value_parser = rate)]
    site_upload: Option<Rate>,
    /// Remove them all
    #[arg(long, conflicts_with_all = ["download", "upload", "site_download", "site_upload"])]
    clear: bool,
}

/// Bytes a second, or no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate(Option<u64>);

/// Units by the bytes a second they stand for; bits are eighths.
const UNITS: [(&str, u64, u64); 12] = [
    ("GiB", 1 << 30, 1),
    ("MiB", 1 << 20, 1),
    ("KiB", 1 << 10, 1),
    ("Gbit", 1_000_000_000, 8),
    ("Mbit", 1_000_000, 8),
    ("kbit", 1_000, 8),
    ("Kbit", 1_000, 8),
    ("GB", 1_000_000_000, 1),
    ("MB", 1_000_000, 1),
    ("kB", 1_000, 1),
    ("KB", 1_000, 1),
    ("B", 1, 1),
];

fn rate(text: &str) -> Result<Rate, String> {
    if text == "none" {
        return Ok(Rate(None));
    }
    let wrong = || format!("{text:?} is not a rate: write 50MB/s, 50MiB/s, 400Mbit/s, or none");
    let amount = text.strip_suffix("/s").unwrap_or(text);
    let (digits, times, parts) = UNITS
        .iter()
        .find_map(|(unit, times, parts)| Some((amount.strip_suffix(unit)?, *times, *parts)))
        .ok_or_else(wrong)?;
    let number: u64 = digits.trim_end().parse().map_err(|_| wrong())?;
    number.checked_mul(times).map(|product| Rate(Some(product / parts))).ok_or_else(wrong)
}

impl Args {
    fn scope(&self) -> LimitScope {
        match (&self.host, &self.site) {
            (Some(host), _) => LimitScope::Host(host.clone()),
            (None, Some(site)) => LimitScope::Site(site.clone()),
            (None, None) => LimitScope::All,
        }
    }

    /// What the limits shall be that are `held`; none if nothing is asked of them.
    fn wanted(&self, held: Limits) -> Option<Limits> {
        if self.clear {
            return Some(Limits::default());
        }
        let rates = [self.download, self.upload, self.site_download, self.site_upload];
        let pick = |asked: Option<Rate>, held: Option<u64>| asked.map_or(held, |Rate(bytes)| bytes);
        rates.iter().any(Option::is_some).then(|| Limits {
            download_bytes_per_s: pick(self.download, held.download_bytes_per_s),
            upload_bytes_per_s: pick(self.upload, held.upload_bytes_per_s),
            site_download_bytes_per_s: pick(self.site_download, held.site_download_bytes_per_s),
            site_upload_bytes_per_s: pick(self.site_upload, held.site_upload_bytes_per_s),
        })
    }
}

pub(super) async fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    let mut out = std::io::stdout();
    let mut all: Vec<LimitsView> = session.client.limits().await?;
    let scope = args.scope();
    let held = all.iter().find(|view| view.scope == scope).map(|view| view.limits).unwrap_or_default();
    match args.wanted(held) {
        Some(wanted) => {
            let view = session.client.set_limits(&scope, &wanted).await?;
            output::one(&mut out, &view, session.format, 0)?;
        }
        None => {
            if args.host.is_some() || args.site.is_some() {
                all.retain(|view| view.scope == scope);
            }
            if all.is_empty() {
                note("no limits are set");
            }
            output::list(&mut out, &all, session.format, 0)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Row for LimitsView {
    const COLUMNS: &'static [&'static str] = &["OF", "DOWNLOAD", "UPLOAD", "SITE DOWNLOAD", "SITE UPLOAD"];
    const WIDE: &'static [&'static str] = &[];

    fn name(&self) -> String {
        self.scope.to_string()
    }

    fn cells(&self, _now_ms: u64) -> Vec<String> {
        let cell =
            |bytes: Option<u64>| bytes.map_or("none".to_owned(), |bytes| format!("{}/s", time::bytes(bytes)));
        let limits = &self.limits;
        vec![
            self.name(),
            cell(limits.download_bytes_per_s),
            cell(limits.upload_bytes_per_s),
            cell(limits.site_download_bytes_per_s),
            cell(limits.site_upload_bytes_per_s),
        ]
    }

    fn wide_cells(&self, _now_ms: u64) -> Vec<String> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &[&str]) -> Args {
        Line::try_parse_from(std::iter::once("limits").chain(line.iter().copied())).unwrap().args
    }

    #[test]
    fn rates_are_read_in_bytes_and_bits_and_nonsense_is_refused() {
        for (text, bytes) in [
            ("50MB/s", 50_000_000),
            ("50MiB/s", 50 << 20),
            ("100Mbit/s", 12_500_000),
            ("1Gbit", 125_000_000),
            ("64KiB/s", 65_536),
            ("20000B/s", 20_000),
        ] {
            assert_eq!(rate(text), Ok(Rate(Some(bytes))), "{text}");
        }
        assert_eq!(rate("none"), Ok(Rate(None)));
        for nonsense in ["", "50", "MB/s", "-1MB/s", "1.5MB/s", "99999999999999999999GB/s", "50MB/m"] {
            assert!(rate(nonsense).unwrap_err().contains("write 50MB/s"), "{nonsense}");
        }
    }

    #[test]
    fn only_what_is_named_is_changed() {
        let held = Limits { upload_bytes_per_s: Some(1), download_bytes_per_s: Some(2), ..Limits::default() };
        assert_eq!(args(&["--host", "h1"]).wanted(held), None);
        let changed = args(&["--host", "h1", "--upload", "none", "--site-upload", "1MB/s"]);
        let wanted = Limits {
            download_bytes_per_s: Some(2),
            site_upload_bytes_per_s: Some(1_000_000),
            ..Limits::default()
        };
        assert_eq!((changed.wanted(held), changed.scope().to_string()), (Some(wanted), "host/h1".into()));
        let cleared = args(&["--site", "main", "--clear"]);
        assert_eq!(
            (cleared.wanted(held), cleared.scope().to_string()),
            (Some(Limits::default()), "site/main".into())
        );
        assert_eq!(args(&["--download", "1MB/s"]).scope(), LimitScope::All);
    }
}
