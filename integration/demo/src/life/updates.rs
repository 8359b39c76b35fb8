//! A version rolls by waves; a sick one goes back by itself and is not tried again; the next one rolls.

use super::{LEDGER, Ledger, MEMBERS, versions};
use crate::stage::{BOOT_PATIENCE, Stage};
use anyhow::Context as _;
use controller_api::planned::{OrderStatus, RolloutView};
use std::path::Path;
use std::time::{Duration, Instant};

/// A rollout over two guests, each with a checkpoint, a boot and its proof.
const ROLLOUT_PATIENCE: Duration = Duration::from_secs(420);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

impl Stage {
    /// Waves without the pauses that people need to notice something.
    pub(super) async fn quick_waves(&self) -> anyhow::Result<()> {
        let file = self.work.join("waves.json");
        std::fs::write(
            &file,
            r#"{"canary": 1, "canary_soak_minutes": 0, "soak_minutes": 0, "waves": [100]}"#,
        )?;
        let path = file.to_str().context("the work folder has no UTF-8 name")?;
        self.cli.show(&["policy", "set", "waves", "--settings", path]).await
    }

    pub(super) async fn updates(&mut self, ledger: &mut Ledger, station: &Path) {
        self.claims.step("version 2.0.0 is published");
        let found = self.rolls(ledger, station, "2.0.0").await;
        self.conclude(
            "a new version rolls by waves, one guest at a time; volumes are kept and counters go on",
            found,
        );
        self.claims.step("version 3.0.0 is published: it never says that it is ready");
        let found = self.goes_back(ledger, station).await;
        self.conclude("a version that fails its health gate goes back by itself, with the reason", found);
        self.claims.step("version 3.1.0 is published");
        let found = self.rolls(ledger, station, "3.1.0").await;
        self.conclude("the next version rolls, and the one that failed was not tried again", found);
    }

    async fn rollout(&self, version: &str) -> anyhow::Result<Option<RolloutView>> {
        let rollouts: Vec<RolloutView> = self.api.get("/v1/rollouts").await?;
        Ok(rollouts.into_iter().find(|rollout| rollout.target.as_str() == version))
    }

    async fn rollout_until(
        &self,
        version: &str,
        wanted: impl Fn(&RolloutView) -> bool,
    ) -> anyhow::Result<RolloutView> {
        let until = Instant::now() + ROLLOUT_PATIENCE;
        loop {
            let rollout = self.rollout(version).await?;
            match rollout {
                Some(rollout) if wanted(&rollout) => return Ok(rollout),
                rollout if Instant::now() > until => {
                    anyhow::bail!("the rollout is not there yet: {rollout:#?}")
                }
                _ => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    async fn rolls(
        &self,
        ledger: &mut Ledger,
        station: &Path,
        version: &str,
    ) -> anyhow::Result<(bool, String)> {
        let mut counts = Vec::new();
        for member in MEMBERS {
            self.one_more(ledger, member).await?;
            counts.push(self.one_more(ledger, member).await?);
        }
        let config = |ledger: &Ledger, member: &str| {
            let instance = ledger.member(member);
            instance.ports.iter().map(|port| (port.mac, port.address)).collect::<Vec<_>>()
        };
        let before: Vec<_> = MEMBERS.iter().map(|member| config(ledger, member)).collect();
        self.publish(&versions::folder(station, &self.work, version, false)?).await?;
        let rollout = self.rollout_until(version, |rollout| rollout.step == "complete").await?;
        self.look_again(ledger).await?;
        let (mut right, mut evidence) = (true, Vec::new());
        for (index, member) in MEMBERS.iter().enumerate() {
            let release = self.answers(ledger, member, "/release", BOOT_PATIENCE).await?;
            let count = self.one_more(ledger, member).await?;
            right &=
                release == version && count == counts[index] + 1 && before[index] == config(ledger, member);
            evidence.push(format!("{member} runs {release} and counts {count} after {}", counts[index]));
        }
        let mut times: Vec<(u64, u64)> = rollout
            .orders
            .iter()
            .filter(|order| order.status == OrderStatus::Succeeded)
            .map(|order| (order.rolled_ms, order.finished_ms))
            .collect();
        times.sort_unstable();
        right &= times.len() == 2 && times[0].1 <= times[1].0;
        let spans = times.iter().map(|(from, to)| format!("{} s", (to - from) / 1_000)).collect::<Vec<_>>();
        evidence.push(format!("rolled one after the other in {}", spans.join(" and ")));
        Ok((right, evidence.join("; ")))
    }

    async fn goes_back(&self, ledger: &mut Ledger, station: &Path) -> anyhow::Result<(bool, String)> {
        let before = self.one_more(ledger, "desk").await?;
        self.publish(&versions::folder(station, &self.work, "3.0.0", true)?).await?;
        let rollout = self.rollout_until("3.0.0", |rollout| rollout.refused.is_some()).await?;
        let over = |rollout: &RolloutView| {
            let back = rollout.orders.iter().filter(|order| order.status == OrderStatus::RolledBack).count();
            let open = |status| {
                matches!(
                    status,
                    OrderStatus::Succeeded
                        | OrderStatus::Dropped
                        | OrderStatus::RolledBack
                        | OrderStatus::Failed
                )
            };
            back > 0 && rollout.orders.iter().all(|order| open(order.status))
        };
        let rollout = if over(&rollout) { rollout } else { self.rollout_until("3.0.0", over).await? };
        self.look_again(ledger).await?;
        let touched = rollout.orders.iter().filter(|order| order.rolled_ms > 0).count();
        let release = self.answers(ledger, "desk", "/release", BOOT_PATIENCE).await?;
        let after = self.one_more(ledger, "desk").await?;
        let told = self.cli.run(&["rollout", "show", &rollout.id]).await?;
        let reason = rollout.refused.unwrap_or_default();
        let events = self.cli.run(&["events"]).await?;
        Ok((
            touched == 1
                && release == "2.0.0"
                && after > before
                && told.contains("3.0.0")
                && !reason.is_empty(),
            format!(
                "{touched} of {} was touched; both run 2.0.0; refused: {reason}; {} events of {LEDGER}",
                MEMBERS.len(),
                events.lines().filter(|line| line.contains(LEDGER)).count()
            ),
        ))
    }
}
