//! Policies that watch guests from their hosts: nothing in a clean guest, and what is done in it within a look or two.

use super::{COMMAND, LAB, Lab, address};
use crate::stage::Stage;
use anyhow::Context as _;
use controller_api::watch::WatchStatus;
use std::time::{Duration, Instant};

/// It looks at the desk's disk and conversations.
const DESK_POLICY: &str = "tripwire";
/// It looks at the server's kernel.
const SERVER_POLICY: &str = "linux-integrity";
/// Until a kernel is met: the guest's own start is looked at too, and emulation is slow.
const MEET_PATIENCE: Duration = Duration::from_secs(120);
/// Until what was done is a finding.
const SEE_PATIENCE: Duration = Duration::from_secs(30);
/// A sector before the first partition that nothing uses.
const SECTOR: u32 = 40;

impl Stage {
    /// Says which ports are right, before anything watches.
    pub(super) async fn set_tripwire(&self, ports: &str) -> anyhow::Result<()> {
        let file = self.work.join("tripwire.json");
        std::fs::write(&file, format!(r#"{{"ports": [{ports}], "every_ms": 500}}"#))?;
        let path = file.to_str().context("the work folder has no UTF-8 name")?;
        self.cli.show(&["policy", "set", DESK_POLICY, "--settings", path]).await
    }

    /// What is seen of clean guests, and of what is done in one.
    pub(super) async fn introspection(&mut self, lab: &mut Lab) {
        self.claims.step("policies that watch two guests from their hosts");
        let found = self.clean().await;
        self.conclude(
            "introspection policies look into running guests and find nothing in clean ones",
            found,
        );
        let found = self.changed_disk(lab).await;
        self.conclude("a changed sector of a running guest's disk is a finding with its place", found);
        let found = self.unnamed_port(lab).await;
        self.conclude("a conversation on a port that nobody named is a finding with both ends", found);
    }

    async fn clean(&self) -> anyhow::Result<(bool, String)> {
        let checked = |status: &WatchStatus, code: &str| {
            status.looks > 1 && status.reasons.iter().any(|reason| reason.starts_with(code))
        };
        let desk = self
            .watch_until("desk", DESK_POLICY, MEET_PATIENCE, |status| {
                checked(status, "disks-checked") && checked(status, "flows-checked")
            })
            .await?;
        let server = self
            .watch_until("server", SERVER_POLICY, MEET_PATIENCE, |status| checked(status, "code-checked"))
            .await?;
        let good = |status: &WatchStatus| status.problem.is_none() && status.findings.is_empty();
        let told = |status: &WatchStatus| {
            let (ms, found) = (status.took_us / 1_000, status.findings.len());
            format!(
                "{}: {} looks, the last {ms} ms, {found} findings, {}",
                status.policy,
                status.looks,
                status.reasons.join(", ")
            )
        };
        Ok((good(&desk) && good(&server), format!("{}; {}", told(&desk), told(&server))))
    }

    async fn changed_disk(&self, lab: &mut Lab) -> anyhow::Result<(bool, String)> {
        let write = |from: &str| {
            format!("dd if={from} of=/dev/vda bs=512 seek={SECTOR} count=1 conv=notrunc,fsync 2>/dev/null")
        };
        let begun = Instant::now();
        let (code, said) = lab.shells.desk.run(&write("/dev/urandom"), COMMAND).await?;
        anyhow::ensure!(code == 0, "the desk cannot write its disk: {said}");
        let rule = "tripwire/disk-changed";
        let seen = self.watch_until("desk", DESK_POLICY, SEE_PATIENCE, |status| open(status, rule)).await?;
        let after = begun.elapsed();
        let finding = seen.findings.iter().find(|finding| finding.rule == rule).context("it went again")?;
        let title = finding.title.clone();
        let event = self.cli.answer(&["events"]).await?.1.contains(&title);
        let (code, said) = lab.shells.desk.run(&write("/dev/zero"), COMMAND).await?;
        anyhow::ensure!(code == 0, "the desk cannot write its disk: {said}");
        let closed = self.watch_until("desk", DESK_POLICY, SEE_PATIENCE, |status| !open(status, rule)).await;
        Ok((
            event && closed.is_ok(),
            format!(
                "{title}; seen after {} ms, told as an event: {event}, over once it was undone: {}",
                after.as_millis(),
                closed.is_ok()
            ),
        ))
    }

    /// The page's own port is taken from those that are right: hosts hear of new settings at once.
    async fn unnamed_port(&self, lab: &mut Lab) -> anyhow::Result<(bool, String)> {
        self.set_tripwire("53, 67, 68, 8000").await?;
        let get = format!("wget -q -O /dev/null http://{}/instance", address(&lab.desk)?);
        let (code, said) = lab.shells.server.run(&get, COMMAND).await?;
        anyhow::ensure!(code == 0, "the server does not reach the desk: {said}");
        let rule = "tripwire/unnamed-port";
        let ends = [format!("{}:80", address(&lab.desk)?), address(&lab.server)?.to_string()];
        let named = |status: &WatchStatus| {
            let titles =
                status.findings.iter().filter(|finding| finding.rule == rule).map(|finding| &finding.title);
            titles.into_iter().find(|title| ends.iter().all(|end| title.contains(end))).cloned()
        };
        let seen =
            self.watch_until("desk", DESK_POLICY, SEE_PATIENCE, |status| named(status).is_some()).await?;
        let title = named(&seen).unwrap_or_default();
        self.set_tripwire("53, 67, 68, 80, 81, 8000, 8001").await?;
        Ok((!title.is_empty(), title))
    }

    /// How a policy's watch of a member is, once `wanted` holds of it.
    async fn watch_until(
        &self,
        member: &str,
        policy: &str,
        patience: Duration,
        wanted: impl Fn(&WatchStatus) -> bool,
    ) -> anyhow::Result<WatchStatus> {
        let until = Instant::now() + patience;
        loop {
            let view = self.api.instance(&format!("{LAB}/{member}")).await?;
            let status = view.watches.into_iter().find(|status| status.policy.as_str() == policy);
            match status {
                Some(status) if wanted(&status) => return Ok(status),
                status if Instant::now() > until => {
                    anyhow::bail!("{policy} did not see it in {member} within {patience:?}: {status:?}")
                }
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

/// It was seen at the last look.
fn open(status: &WatchStatus, rule: &str) -> bool {
    status.findings.iter().any(|finding| finding.rule == rule && finding.open)
}
