//! Boots compared: both appliances from the swarm, and both from complete local images, round by round.
//!
//! The arms are interleaved so that a machine that grows slower slows both. Everything else is the same in both: one
//! deployment, both appliances at once, the same hosts, fresh overlays, pages of the images in the machine's memory.

use super::streaming::boot_seconds;
use super::{BOOT_PATIENCE, FIRST, Serving, Stage};
use crate::observe::host;
use anyhow::Context as _;
use std::time::{Duration, Instant};

/// Boots of each arm.
const ROUNDS: usize = 3;
/// An image is let go of within this after its last instance went.
const EVICT_PATIENCE: Duration = Duration::from_secs(20);

/// Seconds to service, one sample a round.
#[derive(Debug, Default)]
struct Samples {
    gateway: Vec<f64>,
    workspace: Vec<f64>,
}

impl Samples {
    fn add(&mut self, serving: &Serving) -> anyhow::Result<()> {
        self.gateway.push(boot_seconds(&serving.gateway)?);
        self.workspace.push(boot_seconds(&serving.workspace)?);
        Ok(())
    }
}

impl Stage {
    /// Boots both ways, round by round, and verifies on the way what outlives an instance.
    pub(super) async fn boots(&mut self, first: Serving) -> anyhow::Result<Serving> {
        let (mut streamed, mut local) = (Samples::default(), Samples::default());
        let mut serving = first;
        for round in 1..=ROUNDS {
            if round > 1 {
                self.claims.step(&format!("round {round} of {ROUNDS}: from the swarm, nothing local"));
                serving = self.anew(&serving).await?;
            }
            streamed.add(&serving)?;
            self.claims.step(&format!(
                "round {round} of {ROUNDS}: instances deleted and made anew, images complete"
            ));
            serving = self.recreated(serving, round == 1).await?;
            local.add(&serving)?;
        }
        let note = "from the guest's start until it says it serves, both appliances at once";
        for (name, cold, warm) in [
            ("gateway", &streamed.gateway, &local.gateway),
            ("workspace", &streamed.workspace, &local.workspace),
        ] {
            self.figures.add(
                &format!("boot_to_http_s_{name}_streamed"),
                cold,
                "s",
                &format!("{note}; image cold on its host"),
            );
            self.figures.add(
                &format!("boot_to_http_s_{name}_local"),
                warm,
                "s",
                &format!("{note}; image complete on its host"),
            );
            let ratios: Vec<f64> = cold.iter().zip(warm).map(|(cold, warm)| cold / warm).collect();
            self.figures.add(
                &format!("boot_ratio_{name}"),
                &ratios,
                "ratio",
                "streamed / local, round by round",
            );
        }
        Ok(serving)
    }

    /// Deletes what was applied, forgets the images on the hosts, and applies again.
    async fn anew(&self, before: &Serving) -> anyhow::Result<Serving> {
        let bundle = self.arguments.bundle.to_str().context("the bundle's file has no UTF-8 name")?;
        self.cli.run(&["delete", "-f", bundle]).await?;
        self.cli
            .run(&["wait", &format!("deployment/{FIRST}"), "--for", "deleted", "--timeout", "60s"])
            .await?;
        for instance in [&before.gateway, &before.workspace] {
            let part = self.playground.part(host(instance))?;
            let streamer = streamer_client::Client::new(part.folders().run().join("streamer.sock"));
            let until = Instant::now() + EVICT_PATIENCE;
            while let Err(error) = streamer.evict(instance.image).await {
                anyhow::ensure!(
                    Instant::now() < until,
                    "the image of {} is not let go of: {error}",
                    instance.id
                );
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        self.cli.run(&["apply", "-f", bundle]).await?;
        self.serve(FIRST).await
    }

    /// Deletes both instances, with every piece of their images local, and waits until they serve again.
    async fn recreated(&mut self, serving: Serving, verify: bool) -> anyhow::Result<Serving> {
        let patience = Duration::from_secs(5);
        let before =
            (serving.office.get("/volume", patience).await?, serving.office.get("/overlay", patience).await?);
        self.complete_image(&serving.workspace).await?;
        self.complete_image(&serving.gateway).await?;
        for instance in [&serving.workspace, &serving.gateway] {
            self.cli.run(&["delete", "instance", &instance.id.to_string()]).await?;
        }
        let again = |instance: &controller_api::rest::InstanceView| {
            (instance.id.to_string(), instance.incarnation.clone())
        };
        let ((gateway, old_gateway), (workspace, old_workspace)) =
            (again(&serving.gateway), again(&serving.workspace));
        let gateway = self.api.ready(&gateway, Some(&old_gateway), BOOT_PATIENCE).await?;
        let workspace = self.api.ready(&workspace, Some(&old_workspace), BOOT_PATIENCE).await?;
        serving.office.first("/instance", BOOT_PATIENCE).await?;
        let after =
            (serving.office.get("/volume", patience).await?, serving.office.get("/overlay", patience).await?);
        if verify {
            self.verify_storage(&before, &after);
        }
        Ok(Serving { gateway, workspace, office: serving.office })
    }

    fn verify_storage(&mut self, before: &(String, String), after: &(String, String)) {
        let [volume, volume_now, overlay, overlay_now] =
            [&before.0, &after.0, &before.1, &after.1].map(|text| text.trim());
        self.claims.verify(
            "the user volume's content survives deletion and re-creation of its instance, the overlay does not",
            !volume.is_empty() && volume == volume_now && !overlay.is_empty() && overlay != overlay_now,
            &format!("volume {volume} then {volume_now}, overlay {overlay} then {overlay_now}"),
        );
    }
}
