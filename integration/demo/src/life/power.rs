//! A host loses power; what ran there runs elsewhere, from the newest checkpoint, and nothing runs twice.

use super::{LEDGER, Ledger};
use crate::observe::host;
use crate::stage::{BOOT_PATIENCE, Stage};
use controller_api::checkpoint::CheckpointView;
use std::time::{Duration, Instant};

/// The host's processes are gone within this.
const DEATH: Duration = Duration::from_secs(10);

/// A checkpoint is on a second host within this.
const COPY: Duration = Duration::from_secs(60);

impl Stage {
    /// Waits until a second host could go on from a checkpoint; how long that took.
    async fn copied_elsewhere(&self, name: &str) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        loop {
            let path = format!("/v1/deployments/{LEDGER}/checkpoints/{name}");
            let view: CheckpointView = self.api.get(&path).await?;
            if view.parts.iter().all(|part| !part.replicas.is_empty()) {
                return Ok(begun.elapsed());
            }
            anyhow::ensure!(begun.elapsed() < COPY, "no second host has checkpoint {name}: {view:#?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub(super) async fn power(&mut self, ledger: &mut Ledger) {
        self.claims.step("a host loses power");
        let found = self.power_off(ledger).await;
        self.conclude("what ran on a host that lost power serves again elsewhere, and runs once", found);
    }

    async fn power_off(&mut self, ledger: &mut Ledger) -> anyhow::Result<(bool, String)> {
        self.look_again(ledger).await?;
        // Both may be on one host after the move.
        let (lost, kept) = (host(&ledger.desk).to_owned(), self.other_host(&ledger.desk)?);
        self.one_more(ledger, "desk").await?;
        self.cli.show(&["checkpoint", "create", LEDGER, "--name", "before-the-night"]).await?;
        let copied = self.copied_elsewhere("before-the-night").await?;
        let counted = self.one_more(ledger, "desk").await?;
        let box_ = self.playground.part(&lost)?;
        let begun = Instant::now();
        tokio::task::spawn_blocking(move || box_.process().kill(DEATH)).await??;
        let count = self.answers(ledger, "desk", "/cgi-bin/count", BOOT_PATIENCE).await?;
        let back = begun.elapsed();
        self.look_again(ledger).await?;
        let domains = self.playground.part(&kept)?.exec(&["virsh", "-q", "list", "--name"])?;
        let domains = String::from_utf8_lossy(&domains.stdout);
        let desks = domains.lines().filter(|name| name.trim() == format!("c-{LEDGER}-desk")).count();
        self.figures.add(
            "host_loss_to_service_s",
            &[back.as_secs_f64()],
            "s",
            "power of a host lost, to the first answer from elsewhere; lease 5 s; 96 MiB guest under TCG",
        );
        let goes_on = count.parse::<u64>().is_ok_and(|count| count == counted);
        Ok((
            desks == 1 && goes_on && host(&ledger.desk) == kept,
            format!(
                "{lost} lost power; after {:.1} s the desk answers from {kept}, {desks} desk runs there; its volume counts {count} as it did after the checkpoint, which the other hosts had whole after {:.1} s",
                back.as_secs_f64(),
                copied.as_secs_f64()
            ),
        ))
    }
}
