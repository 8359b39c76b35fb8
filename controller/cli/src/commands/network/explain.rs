//! Whether a connection would be let through, and why.

use super::counted;
use crate::commands::Session;
use crate::failure::Failure;
use crate::output::{self, Format, printable};
use controller_api::network::{ExplainQuery, ExplanationView};
use netd_api::Verdict;
use std::io::Write;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The hosts of both ends are asked; each rule on the way is named with what it does. Without --tcp, --udp \
    and --echo it is about address resolution only. With --prove each host sends such frames through a copy of its rules \
    in a namespace made for it.\n\nExamples:\n  \
    collective network explain office/gateway/lan office/workspace --tcp 80\n  \
    collective network explain office/workspace 1.1.1.1 --udp 53 --prove"
)]
pub(crate) struct Args {
    /// Who opens it: DEPLOYMENT/MEMBER/PORT, DEPLOYMENT/MEMBER, or an address
    from: String,
    /// To whom
    to: String,
    /// TCP to this port
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    tcp: Option<u16>,
    /// UDP to this port
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..), conflicts_with = "tcp")]
    udp: Option<u16>,
    /// Ping
    #[arg(long, conflicts_with_all = ["tcp", "udp"])]
    echo: bool,
    /// Also try it on a copy of the rules
    #[arg(long)]
    prove: bool,
}

pub(super) async fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    let query = ExplainQuery {
        from: args.from.clone(),
        to: args.to.clone(),
        tcp: args.tcp,
        udp: args.udp,
        echo: args.echo,
        prove: args.prove,
    };
    let view = session.client.explain(&query).await?;
    let mut out = std::io::stdout();
    match session.format {
        Format::Json => output::json(&mut out, &view)?,
        Format::Yaml => output::yaml(&mut out, &view)?,
        Format::Name => writeln!(out, "{}", word(view.verdict))?,
        Format::Table | Format::Wide => write(&mut out, &view)?,
    }
    Ok(match view.verdict {
        Verdict::Pass => ExitCode::SUCCESS,
        Verdict::Drop => ExitCode::FAILURE,
    })
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "passes",
        Verdict::Drop => "is dropped",
    }
}

fn write(out: &mut impl Write, view: &ExplanationView) -> Result<(), Failure> {
    for part in &view.parts {
        writeln!(out, "{} (host {}): {}", printable(&part.about), part.host, word(part.verdict))?;
        for stage in &part.stages {
            let sign = if stage.verdict == Verdict::Pass { '+' } else { '-' };
            let count = stage.counter.map(|counter| format!("  [{}]", counted(counter))).unwrap_or_default();
            writeln!(out, "  {sign} {}: {}{count}", printable(&stage.place), printable(&stage.why))?;
        }
        if let Some(proven) = part.proven {
            writeln!(out, "  tried: it {}", word(proven))?;
        }
    }
    writeln!(out, "It {}.", word(view.verdict))?;
    if let Some(proven) = view.proven.filter(|proven| *proven != view.verdict) {
        // Either is a fault of ours, and worth a report.
        writeln!(out, "But when tried it {}.", word(proven))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use controller_api::network::ExplainedPart;
    use netd_api::{Counter, Stage};

    #[test]
    fn every_stage_is_a_line_with_its_sign_and_strangers_words_are_harmless() {
        let stage = |verdict, why: &str| Stage {
            place: "office/a/eth0 sends".into(),
            verdict,
            why: why.into(),
            counter: Some(Counter { frames: 3, bytes: 180 }),
        };
        let view = ExplanationView {
            verdict: Verdict::Drop,
            parts: vec![ExplainedPart {
                host: "h1".parse().unwrap(),
                about: "office/a/eth0 sends to 10.0.0.2".into(),
                verdict: Verdict::Drop,
                stages: vec![
                    stage(Verdict::Pass, "its own address"),
                    stage(Verdict::Drop, "no rule\u{1b}[2J"),
                ],
                proven: Some(Verdict::Drop),
            }],
            proven: Some(Verdict::Drop),
        };
        let mut out = Vec::new();
        write(&mut out, &view).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("  + office/a/eth0 sends: its own address  [3 (180 B)]\n"), "{text}");
        assert!(text.contains("\n  - office/a/eth0 sends: no rule\u{fffd}[2J"), "{text}");
        assert!(text.ends_with("  tried: it is dropped\nIt is dropped.\n"), "{text}");
    }
}
