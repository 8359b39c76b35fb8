//! The rival: the same policy as a native process that is asked in JSON over a pipe. It is as isolated as a policy is
//! (more in memory, less in what it may call), and any language can do it.

use super::{Lab, native, scene};
use crate::figures::{Figures, median, ratios};
use anyhow::Context as _;
use plugins_runtime::placement::PlacementInput;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Instant;

const HOSTS: u32 = 1_000;
const CALLS: usize = 100;

pub(super) fn run(lab: &Lab, rounds: usize, figures: &mut Figures) -> anyhow::Result<()> {
    let policy = lab.policy("balanced")?;
    let (hosts, question) = (scene::snapshot(HOSTS)?, scene::question(HOSTS));
    let mut child = Command::new(std::env::current_exe()?)
        .arg("pipe-policy")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start the native policy")?;
    let mut to = child.stdin.take().context("a pipe to it")?;
    let mut from = BufReader::new(child.stdout.take().context("a pipe from it")?);
    let (mut pipe_us, mut guest_us) = (Vec::new(), Vec::new());
    let mut line = String::new();
    for _ in 0..rounds {
        let (mut pipe, mut guest) = (Vec::new(), Vec::new());
        for _ in 0..CALLS {
            let began = Instant::now();
            let mut text = serde_json::to_vec(&question.recorded(&hosts))?;
            text.push(b'\n');
            to.write_all(&text)?;
            line.clear();
            from.read_line(&mut line)?;
            let answer: serde_json::Value = serde_json::from_str(&line)?;
            anyhow::ensure!(answer["choices"].is_array(), "the native policy answered {line}");
            pipe.push(began.elapsed().as_secs_f64() * 1e6);
            let began = Instant::now();
            policy.place_among(&hosts, &question)?;
            guest.push(began.elapsed().as_secs_f64() * 1e6);
        }
        pipe_us.push(median(&pipe));
        guest_us.push(median(&guest));
    }
    drop(to);
    anyhow::ensure!(child.wait()?.success(), "the native policy failed");
    figures.add(
        "pipe_vs_wasm",
        median(&pipe_us) / median(&guest_us),
        &ratios(&pipe_us, &guest_us),
        &format!(
            "wall clock, {HOSTS} hosts: the input as JSON to balanced as a native process and its answer back {:.0} us ÷ \
             balanced in the runtime over the shared snapshot {:.0} us; medians of {CALLS} questions a round, in turns",
            median(&pipe_us),
            median(&guest_us)
        ),
    );
    Ok(())
}

/// The native process: a question a line, an answer a line.
pub(crate) fn serve() -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let input: PlacementInput = serde_json::from_str(&line?)?;
        let hosts = native::hosts(&input);
        let verdict = native::place(&native::request(&input), &hosts).map_err(anyhow::Error::msg)?;
        let plugins_sdk::Verdict::Place(placed) = verdict else { anyhow::bail!("nothing fits") };
        let choices = placed.choices.iter().map(|choice| {
            let reasons = choice.reasons.iter().map(|reason| (&reason.code, &reason.text, reason.weight));
            serde_json::json!({
                "host": input.hosts.names[choice.host as usize],
                "score": choice.score,
                "reasons": reasons.collect::<Vec<_>>(),
            })
        });
        writeln!(out, "{}", serde_json::json!({ "choices": choices.collect::<Vec<_>>() }))?;
        out.flush()?;
    }
    Ok(())
}
