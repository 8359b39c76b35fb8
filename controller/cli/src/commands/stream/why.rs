//! What an instance's boot waited for, and why.

use crate::commands::{Session, instance_id};
use crate::failure::Failure;
use crate::output::{self, Format, printable};
use crate::time;
use controller_api::stream::{StreamReport, StreamView};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;
use streamer_api::{Stall, StallCause};

#[derive(Debug, clap::Args)]
#[command(after_help = "A read waits when its piece is not here yet. Each is told with its cause:\n  \
    not in profile  the profile that serves the guest does not name the piece\n  \
    late            it names it, but the guest was faster than the network\n  \
    no profile      no profile fitted what the guest read\n\n\
    An instance that is gone is still known while its last host remembers.\n\n\
    Examples:\n  collective stream why office/workspace\n  collective stream why office/workspace --longest 50 --since-ready\n  \
    collective stream why office/workspace -o json")]
pub(super) struct Args {
    /// DEPLOYMENT/MEMBER
    #[arg(value_name = "INSTANCE")]
    instance: String,
    /// So many of the longest waits are listed
    #[arg(long, value_name = "N", default_value_t = 15)]
    longest: usize,
    /// Also what it waited for after it was ready
    #[arg(long)]
    since_ready: bool,
}

pub(super) async fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    let view = session.client.stream_report(&instance_id(&args.instance)?).await?;
    let mut out = std::io::stdout();
    match session.format {
        Format::Json => output::json(&mut out, &view)?,
        Format::Yaml => output::yaml(&mut out, &view)?,
        _ => explain(&mut out, &view, args, chassis::clock::unix_ms())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What a boot's waits come to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    count: usize,
    /// Time in which at least one read waited.
    waited_ms: u64,
    /// All waits added up.
    added_ms: u64,
    by_cause: Vec<(&'static str, u64)>,
    by_source: Vec<(String, u64)>,
}

fn sum<'a>(stalls: impl Iterator<Item = &'a Stall>) -> Sum {
    let mut spans = Vec::new();
    let mut causes: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut sources: BTreeMap<String, u64> = BTreeMap::new();
    let mut sum = Sum::default();
    for stall in stalls {
        sum.count += 1;
        sum.added_ms += stall.waited_ms;
        spans.push((stall.began_unix_ms, stall.began_unix_ms.saturating_add(stall.waited_ms)));
        *causes.entry(for_what(stall.why)).or_default() += stall.waited_ms;
        *sources.entry(source(stall).to_owned()).or_default() += stall.waited_ms;
    }
    spans.sort_unstable();
    let mut until = 0;
    for (begin, end) in spans {
        sum.waited_ms += end.saturating_sub(begin.max(until));
        until = until.max(end);
    }
    let largest_first = |a: &u64, b: &u64| b.cmp(a);
    sum.by_cause = causes.into_iter().collect();
    sum.by_cause.sort_by(|(_, a), (_, b)| largest_first(a, b));
    sum.by_source = sources.into_iter().collect();
    sum.by_source.sort_by(|(_, a), (_, b)| largest_first(a, b));
    sum
}

fn for_what(cause: StallCause) -> &'static str {
    match cause {
        StallCause::NoProfile => "for pieces read while no profile fitted",
        StallCause::NotInProfile => "for pieces the profile does not name",
        StallCause::Late => "for pieces it names that came too late",
    }
}

fn word(cause: StallCause) -> &'static str {
    match cause {
        StallCause::NoProfile => "no profile",
        StallCause::NotInProfile => "not in profile",
        StallCause::Late => "late",
    }
}

fn source(stall: &Stall) -> &str {
    match stall.source.as_deref() {
        Some("origin") => "the origin",
        Some("peer") => "hosts",
        Some("web_seed") => "the web seed",
        Some(other) => other,
        None => "nobody yet",
    }
}

fn explain(out: &mut impl Write, view: &StreamView, args: &Args, now_ms: u64) -> Result<(), Failure> {
    let report = &view.report;
    let in_boot = |stall: &&Stall| report.ready_ms.is_none_or(|ready| stall.began_unix_ms <= ready);
    let boot = sum(report.stalls.iter().filter(in_boot));
    let all = sum(report.stalls.iter());
    sentence(out, view, &boot, now_ms)?;
    shares(out, &boot)?;
    if all.count > boot.count {
        let (waited, count) =
            (seconds(all.waited_ms - boot.waited_ms.min(all.waited_ms)), all.count - boot.count);
        writeln!(out, "Since it was ready {count} more reads waited, {waited} in all.")?;
    }
    profile(out, report)?;
    let mut longest: Vec<&Stall> = report.stalls.iter().filter(|s| args.since_ready || in_boot(s)).collect();
    longest.sort_by_key(|stall| (std::cmp::Reverse(stall.waited_ms), stall.began_unix_ms));
    longest.truncate(args.longest);
    if longest.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nThe longest waits:")?;
    let rows: Vec<_> = longest.into_iter().map(|stall| row(stall, report.started_ms)).collect();
    Ok(output::table(out, &["AT", "WAITED", "PIECE", "FROM", "CAUSE", "PROFILE"], &rows)?)
}

fn row(stall: &Stall, started_ms: Option<u64>) -> Vec<String> {
    let at = started_ms.map_or(stall.at_ms, |started| stall.began_unix_ms.saturating_sub(started));
    let from = match &stall.from {
        Some(address) => format!("{} {address}", source(stall)),
        None => source(stall).to_owned(),
    };
    vec![
        seconds(at),
        format!("{} ms", stall.waited_ms),
        stall.piece.to_string(),
        from,
        word(stall.why).to_owned(),
        stall.profile.clone().unwrap_or_default(),
    ]
}

fn sentence(out: &mut impl Write, view: &StreamView, boot: &Sum, now_ms: u64) -> Result<(), Failure> {
    let report = &view.report;
    let place = if report.gone { "which was on" } else { "on" };
    write!(out, "{}, {place} {}: ", view.instance, view.host)?;
    let waited = seconds(boot.waited_ms);
    let reads = match boot.count {
        0 => "no read had to wait".to_owned(),
        1 => format!("{waited} were spent waiting, for one read"),
        count => format!("{waited} were spent waiting, for {count} reads"),
    };
    match (report.started_ms, report.ready_ms) {
        (Some(started), Some(ready)) => {
            let total = ready.saturating_sub(started);
            let of = if boot.count == 0 {
                reads
            } else {
                format!("{reads} ({} %)", percent(boot.waited_ms, total))
            };
            writeln!(out, "ready after {}; {of}.", seconds(total))?;
        }
        (Some(started), None) if !report.gone => {
            writeln!(out, "started {} ago and not ready yet; {reads}.", time::age(started, now_ms))?;
        }
        _ => writeln!(out, "it was never ready; {reads}.")?,
    }
    Ok(())
}

fn shares(out: &mut impl Write, boot: &Sum) -> Result<(), Failure> {
    let list = |shares: Vec<String>| shares.join(", ");
    if boot.added_ms > 0 {
        let cause = |(what, ms): &(&str, u64)| format!("{} % {what}", percent(*ms, boot.added_ms));
        let from = |(who, ms): &(String, u64)| format!("{} from {}", seconds(*ms), printable(who));
        writeln!(out, "Of the waits {}.", list(boot.by_cause.iter().map(cause).collect()))?;
        writeln!(out, "What was waited for came {}.", list(boot.by_source.iter().map(from).collect()))?;
    }
    Ok(())
}

fn profile(out: &mut impl Write, report: &StreamReport) -> Result<(), Failure> {
    let Some(run) = &report.run else {
        return Ok(writeln!(out, "Its streamer has no record of what it read.")?);
    };
    let scores: Vec<String> =
        run.scores.iter().map(|score| format!("{} {:.2}", printable(&score.profile), score.score)).collect();
    let fits = if scores.is_empty() {
        String::new()
    } else {
        format!(" (how well they fit: {})", scores.join(", "))
    };
    match &run.profile {
        Some(name) => {
            writeln!(out, "It read {} pieces, served by profile {}{fits}.", run.touched, printable(name))?
        }
        None => writeln!(out, "It read {} pieces, served by no profile{fits}.", run.touched)?,
    }
    Ok(())
}

fn seconds(ms: u64) -> String {
    time::span(0, ms)
}

/// Rounded; nothing but all is 100, nothing but nothing is 0.
fn percent(part: u64, whole: u64) -> u64 {
    match (part.saturating_mul(200) + whole).checked_div(whole.saturating_mul(2)) {
        Some(100..) if part < whole => 99,
        Some(0) if part > 0 => 1,
        Some(percent) => percent,
        None => 100,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use controller_api::stream::RunSummary;
    use streamer_api::ProfileScore;

    fn stall(began: u64, waited_ms: u64, piece: u32, why: StallCause, source: &str) -> Stall {
        Stall {
            began_unix_ms: 1_000_000 + began,
            at_ms: began,
            piece,
            waited_ms,
            why,
            source: Some(source.into()),
            from: Some("10.88.0.2:6881".into()),
            profile: (why != StallCause::NoProfile).then(|| "boot".into()),
            ..Stall::default()
        }
    }

    fn view(stalls: Vec<Stall>) -> StreamView {
        let scores = vec![
            ProfileScore { profile: "boot".into(), score: 0.934 },
            ProfileScore { profile: "login".into(), score: 0.2 },
        ];
        let run = RunSummary {
            began_unix_ms: 1_000_100,
            connected: true,
            whole: true,
            profile: Some("boot".into()),
            scores,
            touched: 412,
        };
        StreamView {
            instance: "office/workspace".parse().unwrap(),
            host: "h2".parse().unwrap(),
            report: StreamReport {
                image: types::Digest::from_bytes([1; 32]),
                started_ms: Some(1_000_000),
                ready_ms: Some(1_012_600),
                gone: false,
                run: Some(run),
                stalls,
            },
        }
    }

    fn told(view: &StreamView, args: &Args) -> String {
        let mut out = Vec::new();
        explain(&mut out, view, args, 1_020_000).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn args(longest: usize, since_ready: bool) -> Args {
        Args { instance: "office/workspace".into(), longest, since_ready }
    }

    #[test]
    fn a_boot_is_explained_in_sentences_and_a_table() {
        let stalls = vec![
            stall(400, 480, 17, StallCause::NotInProfile, "origin"),
            stall(2_000, 240, 18, StallCause::Late, "peer"),
            stall(2_100, 80, 19, StallCause::NoProfile, "peer"),
            stall(15_000, 900, 99, StallCause::NotInProfile, "origin"),
        ];
        let text = told(&view(stalls.clone()), &args(2, false));
        assert_eq!(
            text,
            "office/workspace, on h2: ready after 12.6 s; 0.7 s were spent waiting, for 3 reads (6 %).\n\
             Of the waits 60 % for pieces the profile does not name, 30 % for pieces it names that came too late, 10 % for \
             pieces read while no profile fitted.\n\
             What was waited for came 0.4 s from the origin, 0.3 s from hosts.\n\
             Since it was ready 1 more reads waited, 0.9 s in all.\n\
             It read 412 pieces, served by profile boot (how well they fit: boot 0.93, login 0.20).\n\n\
             The longest waits:\n\
             AT     WAITED  PIECE  FROM                       CAUSE           PROFILE\n\
             0.4 s  480 ms  17     the origin 10.88.0.2:6881  not in profile  boot\n\
             2.0 s  240 ms  18     hosts 10.88.0.2:6881       late            boot\n"
        );
        assert!(told(&view(stalls), &args(1, true)).contains("15.0 s  900 ms  99"));
    }

    #[test]
    fn reads_that_waited_at_the_same_time_are_not_counted_twice() {
        let stalls = [
            stall(0, 100, 1, StallCause::Late, "peer"),
            stall(50, 100, 2, StallCause::Late, "peer"),
            stall(60, 10, 3, StallCause::Late, "peer"),
            stall(500, 10, 4, StallCause::Late, "peer"),
        ];
        let found = sum(stalls.iter());
        assert_eq!((found.count, found.waited_ms, found.added_ms), (4, 160, 220));
    }

    #[test]
    fn a_boot_that_never_waited_and_one_that_is_not_over_are_told_so() {
        assert!(told(&view(vec![]), &args(9, false)).contains("ready after 12.6 s; no read had to wait.\n"));
        let mut booting = view(vec![stall(0, 100, 1, StallCause::Late, "peer")]);
        booting.report.ready_ms = None;
        let text = told(&booting, &args(9, false));
        assert!(
            text.contains("started 20s ago and not ready yet; 0.1 s were spent waiting, for one read."),
            "{text}"
        );
        (booting.report.gone, booting.report.run) = (true, None);
        let text = told(&booting, &args(9, false));
        assert!(text.contains("which was on h2: it was never ready"), "{text}");
        assert!(text.contains("no record of what it read"), "{text}");
    }

    #[test]
    fn only_all_is_a_hundred_percent() {
        assert_eq!([percent(0, 9), percent(1, 9_999), percent(9_998, 9_999), percent(9, 9)], [0, 1, 99, 100]);
        assert_eq!(percent(0, 0), 100);
    }
}
