//! A checkpoint of both members with their memory, and back to it after everything was wiped.

use super::{COMMAND, LEDGER, Ledger};
use crate::console::Console;
use crate::observe::nic_address;
use crate::stage::{BOOT_PATIENCE, Stage};
use anyhow::Context as _;
use controller_api::checkpoint::CheckpointView;
use std::time::{Duration, Instant};

/// The desk counts in memory and tells the server each number; both only know it in memory.
const PULSE: &str = "((n=0; while :; do n=$((n+1)); echo $n >/tmp/.n; mv /tmp/.n /tmp/n; wget -q -O /dev/null http://SERVER/cgi-bin/heard?$n; done) >/dev/null 2>&1 &)";
/// Files a person would miss.
const FILES: &str = "mkdir -p /tmp/work && for i in 1 2 3 4 5; do echo file $i >/tmp/work/$i; done";
const NAME: &str = "before-the-accident";
/// Until the desk has counted on.
const PATIENCE: Duration = Duration::from_secs(60);

impl Stage {
    pub(super) async fn checkpoints(&mut self, ledger: &mut Ledger) {
        self.claims.step("collective checkpoint create, rm -rf, collective checkpoint restore");
        let found = self.accident(ledger).await;
        self.conclude(
            "after `rm -rf`, a restore brings back files, volumes and a running process with its memory, on both members and consistent",
            found,
        );
    }

    async fn shell(&self, member: &str) -> anyhow::Result<Console> {
        Console::open(&self.api, &format!("{LEDGER}/{member}")).await
    }

    async fn accident(&mut self, ledger: &mut Ledger) -> anyhow::Result<(bool, String)> {
        let mut desk = self.shell("desk").await?;
        let server = nic_address(&ledger.server, "eth0")?.to_string();
        desk.run(FILES, COMMAND).await?;
        desk.run(&PULSE.replace("SERVER", &server), COMMAND).await?;
        let boot = said(&mut desk, "cat /proc/sys/kernel/random/boot_id").await?;
        self.pulse_past(&mut desk, 3).await?;
        let counted = self.one_more(ledger, "desk").await?;
        let at = Instant::now();
        self.cli.show(&["checkpoint", "create", LEDGER, "--name", NAME, "--memory", "--pin"]).await?;
        let took = at.elapsed();
        let view: CheckpointView =
            self.api.get(&format!("/v1/deployments/{LEDGER}/checkpoints/{NAME}")).await?;
        let then = self.pulse_past(&mut desk, 0).await?;
        self.pulse_past(&mut desk, then + 5).await?;
        let later = self.one_more(ledger, "desk").await?;
        desk.run("rm -rf /tmp/work /tmp/n; dd if=/dev/zero of=/dev/vdb bs=512 count=1 2>/dev/null; killall wget sh", COMMAND)
            .await
            .ok();
        drop(desk);
        self.cli
            .show(&[
                "checkpoint",
                "restore",
                LEDGER,
                NAME,
                "--memory",
                "--discard-current",
                "--timeout",
                "2m",
            ])
            .await?;
        (ledger.desk, ledger.server) = self.both_ready(BOOT_PATIENCE).await?;
        let mut desk = self.shell("desk").await?;
        let files = said(&mut desk, "cat /tmp/work/* | wc -l").await?;
        let same_boot = said(&mut desk, "cat /proc/sys/kernel/random/boot_id").await? == boot;
        let back = self.pulse_past(&mut desk, 0).await?;
        // The process goes on from where it was, and the server still hears it.
        let on = self.pulse_past(&mut desk, back + 2).await?;
        let heard: u64 = self
            .page(ledger, "server", "/cgi-bin/heard")
            .await?
            .parse()
            .context("the server heard no number")?;
        let now = self.pulse_past(&mut desk, 0).await?;
        let counts_on = self.one_more(ledger, "desk").await? == counted + 1;
        let consistent = heard <= now && heard + 1 >= on;
        for part in &view.parts {
            self.figures.add(
                "checkpoint_pause_ms",
                &[part.pause_us as f64 / 1_000.0],
                "ms",
                "pause of one guest for a checkpoint of two with memory",
            );
        }
        Ok((
            files == "5" && same_boot && counts_on && consistent,
            format!(
                "taken in {:.1} s, ports held {} ms; {files} files, the same boot: {same_boot}, the volume's number goes on after {counted} (was {later}): {counts_on}; the process went on at {back}, is at {now}, and the server heard {heard}",
                took.as_secs_f64(),
                view.hold_ms
            ),
        ))
    }

    /// Waits until the desk has counted past a number; where it is.
    async fn pulse_past(&self, desk: &mut Console, number: u64) -> anyhow::Result<u64> {
        let until = Instant::now() + PATIENCE;
        loop {
            let now = said(desk, "cat /tmp/n").await.ok().and_then(|text| text.parse().ok());
            match now {
                Some(now) if now > number => return Ok(now),
                now => {
                    anyhow::ensure!(Instant::now() < until, "the desk does not count past {number}: {now:?}")
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The last line that a command says.
async fn said(shell: &mut Console, command: &str) -> anyhow::Result<String> {
    let (code, text) = shell.run(command, COMMAND).await?;
    anyhow::ensure!(code == 0, "`{command}` ended with {code}: {text}");
    Ok(text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned())
}
