//! Versions that hosts hold ahead of need: fetched ahead, pinned.

use super::{Target, parse_target, version_of};
use crate::commands::{Session, note};
use crate::failure::{Code, Failure};
use crate::output::{self, Row, or_dash};
use crate::progress::Bar;
use crate::time;
use controller_api::stream::{HoldProgress, HoldRequest, HoldView};
use std::process::ExitCode;
use std::time::Duration;
use streamer_api::Prefetch;
use tokio::time::Instant;
use types::{ChannelName, HostName, VersionName};

/// Between two looks at how far hosts are.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The image is fetched while nothing else is to be done, so guests do not feel it. It ends by itself on \
    each host where the version is placed.\n\nExamples:\n  collective stream prefetch acme/workspace@2.0.0 --wait\n  \
    collective stream prefetch acme/workspace --channel beta --hosts h1,h2\n  \
    collective stream prefetch acme/workspace@2.0.0 --stop"
)]
pub(super) struct PrefetchArgs {
    /// PUBLISHER/APPLIANCE@VERSION, or PUBLISHER/APPLIANCE for what the channel points to
    #[arg(value_name = "VERSION", value_parser = parse_target)]
    target: Target,
    /// The channel that says which version
    #[arg(long, value_name = "NAME", default_value = "stable")]
    channel: ChannelName,
    /// Only these hosts; all if absent
    #[arg(long, value_name = "HOST,...", value_delimiter = ',')]
    hosts: Vec<HostName>,
    /// As fast as the limits let, beside what guests are about to read
    #[arg(long)]
    full: bool,
    /// Fetch ahead no more
    #[arg(long, conflicts_with_all = ["hosts", "full", "wait"])]
    stop: bool,
    /// Until every host has all of it
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = time::duration)]
    timeout: Duration,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "What is pinned counts against the cache's quota and is never evicted. Fetching it all is another \
    matter: see `collective stream prefetch`.\n\nExample:\n  collective stream pin acme/workspace@2.0.0 --hosts h1"
)]
pub(super) struct PinArgs {
    /// PUBLISHER/APPLIANCE@VERSION, or PUBLISHER/APPLIANCE for what the channel points to
    #[arg(value_name = "VERSION", value_parser = parse_target)]
    target: Target,
    /// The channel that says which version
    #[arg(long, value_name = "NAME", default_value = "stable")]
    channel: ChannelName,
    /// Only these hosts; all if absent
    #[arg(long, value_name = "HOST,...", value_delimiter = ',')]
    hosts: Vec<HostName>,
}

#[derive(Debug, clap::Args)]
pub(super) struct UnpinArgs {
    /// PUBLISHER/APPLIANCE@VERSION, or PUBLISHER/APPLIANCE for what the channel points to
    #[arg(value_name = "VERSION", value_parser = parse_target)]
    target: Target,
    /// The channel that says which version
    #[arg(long, value_name = "NAME", default_value = "stable")]
    channel: ChannelName,
}

async fn held(
    session: &Session,
    target: &Target,
    version: &VersionName,
) -> Result<Option<HoldView>, Failure> {
    let holds = session.client.holds().await?;
    Ok(holds.into_iter().find(|hold| hold.appliance == target.appliance && hold.version == *version))
}

fn names(hold: &HoldView) -> Vec<HostName> {
    hold.hosts.iter().map(|progress| progress.host.clone()).collect()
}

/// Puts a hold, or ends one that holds nothing any more.
async fn put(
    session: &Session,
    target: &Target,
    version: &VersionName,
    request: &HoldRequest,
) -> Result<Option<HoldView>, Failure> {
    if request.prefetch == Prefetch::Off && !request.pin {
        session.client.delete_hold(&target.appliance, version).await?;
        return Ok(None);
    }
    Ok(Some(session.client.put_hold(&target.appliance, version, request).await?))
}

pub(super) async fn prefetch(session: &Session, args: &PrefetchArgs) -> Result<ExitCode, Failure> {
    let version = version_of(session, &args.target, args.channel.as_str()).await?;
    let name = format!("{}@{version}", args.target.appliance);
    let held = held(session, &args.target, &version).await?;
    if args.stop {
        let Some(held) = held.filter(|hold| hold.prefetch != Prefetch::Off) else {
            return Err(Failure::new(Code::NotFound, format!("{name} is not fetched ahead")));
        };
        let request = HoldRequest { hosts: names(&held), prefetch: Prefetch::Off, pin: held.pin };
        put(session, &args.target, &version, &request).await?;
        note(format_args!("{name} is fetched ahead no more; what is there stays"));
        return Ok(ExitCode::SUCCESS);
    }
    let prefetch = if args.full { Prefetch::Full } else { Prefetch::Idle };
    let pin = held.is_some_and(|held| held.pin);
    let request = HoldRequest { hosts: args.hosts.clone(), prefetch, pin };
    let hold = session.client.put_hold(&args.target.appliance, &version, &request).await?;
    if hold.hosts.is_empty() {
        return Err(Failure::failed("no host has joined yet: there is nobody to fetch it"));
    }
    if !args.wait {
        note(format_args!("{} hosts fetch {name}; see `collective stream holds`", hold.hosts.len()));
        return Ok(ExitCode::SUCCESS);
    }
    wait(session, args, &version, &name).await
}

async fn wait(
    session: &Session,
    args: &PrefetchArgs,
    version: &VersionName,
    name: &str,
) -> Result<ExitCode, Failure> {
    let begin = Instant::now();
    let mut bar = Bar::new("fetching");
    let mut told = String::new();
    let outcome = loop {
        let Some(hold) = held(session, &args.target, version).await? else {
            break Ok(format!("{name} runs on every host that was to fetch it"));
        };
        let (done, total) = sum(&hold.hosts);
        bar.show(done, total);
        if hold.hosts.iter().all(whole) {
            break Ok(format!("{} hosts have all of {name}", hold.hosts.len()));
        }
        let troubles = troubles(&hold.hosts);
        if told != troubles && !troubles.is_empty() {
            bar.end();
            note(&troubles);
            told.clone_from(&troubles);
        }
        if begin.elapsed() >= args.timeout {
            let text =
                format!("{} of {} of {name} after {:?}", time::bytes(done), time::bytes(total), args.timeout);
            break Err(Failure::new(
                Code::Timeout,
                if troubles.is_empty() { text } else { format!("{text}; {troubles}") },
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    bar.end();
    note(outcome?);
    Ok(ExitCode::SUCCESS)
}

fn whole(progress: &HoldProgress) -> bool {
    progress.ran || (progress.bytes_total > 0 && progress.bytes_local >= progress.bytes_total)
}

/// Bytes there and in all, of hosts that still fetch.
fn sum(hosts: &[HoldProgress]) -> (u64, u64) {
    hosts
        .iter()
        .filter(|host| !host.ran)
        .fold((0, 0), |(done, total), host| (done + host.bytes_local, total + host.bytes_total))
}

fn troubles(hosts: &[HoldProgress]) -> String {
    let of = |host: &HoldProgress| match &host.trouble {
        _ if whole(host) => None,
        _ if !host.online => Some(format!("host {} is offline", host.host)),
        Some(trouble) => Some(format!("host {}: {}", host.host, output::printable(trouble))),
        None => None,
    };
    hosts.iter().filter_map(of).collect::<Vec<_>>().join("; ")
}

pub(super) async fn pin(session: &Session, args: &PinArgs) -> Result<ExitCode, Failure> {
    let version = version_of(session, &args.target, args.channel.as_str()).await?;
    let prefetch = held(session, &args.target, &version).await?.map_or(Prefetch::Off, |held| held.prefetch);
    let request = HoldRequest { hosts: args.hosts.clone(), prefetch, pin: true };
    let hold = session.client.put_hold(&args.target.appliance, &version, &request).await?;
    note(format_args!("{}@{version} is pinned on {} hosts", args.target.appliance, hold.hosts.len()));
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn unpin(session: &Session, args: &UnpinArgs) -> Result<ExitCode, Failure> {
    let version = version_of(session, &args.target, args.channel.as_str()).await?;
    let name = format!("{}@{version}", args.target.appliance);
    let Some(held) = held(session, &args.target, &version).await?.filter(|held| held.pin) else {
        return Err(Failure::new(Code::NotFound, format!("{name} is not pinned")));
    };
    let request = HoldRequest { hosts: names(&held), prefetch: held.prefetch, pin: false };
    put(session, &args.target, &version, &request).await?;
    note(format_args!("{name} is pinned no more"));
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn list(session: &Session) -> Result<ExitCode, Failure> {
    let holds = session.client.holds().await?;
    output::list(&mut std::io::stdout(), &holds, session.format, 0)?;
    Ok(ExitCode::SUCCESS)
}

fn prefetch_word(prefetch: Prefetch) -> &'static str {
    match prefetch {
        Prefetch::Off => "off",
        Prefetch::Idle => "idle",
        Prefetch::Full => "full",
    }
}

impl Row for HoldView {
    const COLUMNS: &'static [&'static str] =
        &["VERSION", "PREFETCH", "PIN", "HOSTS", "WHOLE", "FETCHED", "OF", "RATE"];
    const WIDE: &'static [&'static str] = &["RUNS ON", "TROUBLE", "IMAGE"];

    fn name(&self) -> String {
        format!("{}@{}", self.appliance, self.version)
    }

    fn cells(&self, _now_ms: u64) -> Vec<String> {
        let (done, total) = sum(&self.hosts);
        let rate: u64 = self.hosts.iter().map(|host| host.down_bytes_per_s).sum();
        vec![
            self.name(),
            prefetch_word(self.prefetch).to_owned(),
            if self.pin { "yes" } else { "no" }.to_owned(),
            self.hosts.len().to_string(),
            self.hosts.iter().filter(|host| whole(host)).count().to_string(),
            time::bytes(done),
            time::bytes(total),
            or_dash((rate > 0).then(|| format!("{}/s", time::bytes(rate))).as_ref()),
        ]
    }

    fn wide_cells(&self, _now_ms: u64) -> Vec<String> {
        let ran: Vec<_> =
            self.hosts.iter().filter(|host| host.ran).map(|host| host.host.to_string()).collect();
        vec![ran.join(","), troubles(&self.hosts), self.image.to_string()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, bytes_local: u64) -> HoldProgress {
        HoldProgress {
            host: name.parse().unwrap(),
            online: true,
            ran: false,
            bytes_local,
            bytes_total: 100,
            down_bytes_per_s: 0,
            trouble: None,
        }
    }

    #[test]
    fn hosts_where_it_runs_are_done_and_those_that_cannot_go_on_are_named() {
        let ran = HoldProgress { ran: true, ..host("h1", 7) };
        let offline = HoldProgress { online: false, ..host("h2", 50) };
        let stuck = HoldProgress { trouble: Some("no peers".into()), ..host("h3", 60) };
        let done = HoldProgress { online: false, ..host("h4", 100) };
        let hosts = [ran, offline, stuck, done];
        assert_eq!(sum(&hosts), (210, 300));
        assert_eq!(hosts.each_ref().map(whole), [true, false, false, true]);
        assert_eq!(troubles(&hosts), "host h2 is offline; host h3: no peers");
        let unknown = HoldProgress { bytes_total: 0, ..host("h5", 0) };
        assert!(!whole(&unknown), "an image that is not known is not whole");
    }
}
