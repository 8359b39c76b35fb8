//! Disks that are still arriving: how much was here when the page answered, and from whom it came.

use super::{SECOND, Serving, Stage};
use crate::observe::host;
use anyhow::Context as _;
use controller_api::rest::InstanceView;
use std::time::Duration;
use streamer_api::ImageStatus;

/// The page must answer with less than this share of the image's content on the host.
const LOCAL_SHARE_MAX: f64 = 0.25;
/// A host's status is at most this old.
const STATUS_PATIENCE: Duration = Duration::from_secs(10);

impl Stage {
    /// Claims and figures of the first, streamed boot.
    pub(super) async fn streamed(&mut self, serving: &Serving) -> anyhow::Result<()> {
        let image = self.image(&serving.workspace).await?;
        let content = f64::from(image.pieces - image.pieces_zero);
        let share = f64::from(image.pieces_local) / content;
        self.claims.verify(
            "the workspace answered while less than 25 % of its image was local",
            share < LOCAL_SHARE_MAX && content > 0.0,
            &format!("{} of {content} pieces with content, {:.1} %", image.pieces_local, share * 100.0),
        );
        self.sums_up("workspace", &image);
        self.sums_up("gateway", &self.image(&serving.gateway).await?);
        self.figures.add("fraction_fetched_at_http", &[share], "ratio",
            "pieces of the workspace's image on its host at the first HTTP answer, of those that are not zero");
        #[expect(clippy::cast_precision_loss, reason = "bytes of one image")]
        let stall = image.stalls.total_ms as f64;
        self.figures.add(
            "stall_ms_workspace",
            &[stall],
            "ms",
            "waits of the workspace's reads for absent pieces, added up",
        );
        self.network_figures().await
    }

    fn sums_up(&mut self, name: &str, image: &ImageStatus) {
        let bytes = image.bytes;
        let fetched = bytes.origin + bytes.peer + bytes.cache;
        // The last piece may be short.
        let local = u64::from(image.pieces_local) * u64::from(image.piece_bytes);
        let whole = fetched <= local && fetched + u64::from(image.piece_bytes) > local;
        self.claims.verify(
            &format!("bytes by source add up for the {name}'s image"),
            whole && fetched > 0,
            &format!(
                "origin {} + peer {} + cache {} = {} pieces here; zero, never fetched: {}",
                bytes.origin, bytes.peer, bytes.cache, image.pieces_local, bytes.zero
            ),
        );
    }

    async fn network_figures(&mut self) -> anyhow::Result<()> {
        let mut took = Vec::new();
        for name in self.hosts() {
            let status = self.api.host(&name).await?.status.context("a host without a status")?;
            let networks = status.networks.context("a host without networks")?;
            #[expect(clippy::cast_precision_loss, reason = "milliseconds of one pass")]
            took.push(networks.took_ms as f64);
        }
        self.figures.add(
            "converge_network_ms",
            &took,
            "ms",
            "netd's last pass that changed something, per host",
        );
        Ok(())
    }

    /// The same bundle once more: its workspace starts on the host that has not seen the image.
    pub(super) async fn second_deployment(&mut self) -> anyhow::Result<()> {
        self.claims.step("a second deployment of the same bundle, with the same inner addresses");
        let first = self.api.instance("office/workspace").await?;
        let file = self.work.join("branch.yaml");
        std::fs::write(
            &file,
            format!(
                "apiVersion: collective/v1\nkind: Deployment\nmetadata: {{name: {SECOND}}}\nspec: {{bundle: office}}\n"
            ),
        )?;
        self.cli.show(&["apply", "-f", file.to_str().context("a work folder without UTF-8 name")?]).await?;
        let second = self.serve(SECOND).await?;
        let image = self.image(&second.workspace).await?;
        let apart = first.host != second.workspace.host;
        let (origin, peer) = (image.bytes.origin, image.bytes.peer);
        self.claims.verify(
            "the second host's start of the same appliance took at least half of its bytes from the first host",
            apart && peer >= origin && peer > 0,
            &format!("peer {peer} bytes, origin {origin} bytes, on {} after {}", host(&second.workspace), host(&first)),
        );
        #[expect(clippy::cast_precision_loss, reason = "bytes of one image")]
        let (origin, peer) = (origin as f64, peer as f64);
        let note = "fetched for the workspace's boot on the second host, after it booted on the first";
        self.figures.add("bytes_origin", &[origin], "bytes", note);
        self.figures.add("bytes_peer", &[peer], "bytes", note);
        self.placement_figures(&[&second.gateway, &second.workspace, &first]);
        Ok(())
    }

    fn placement_figures(&mut self, instances: &[&InstanceView]) {
        #[expect(clippy::cast_precision_loss, reason = "microseconds of one call")]
        let took: Vec<f64> =
            instances.iter().filter_map(|i| i.placement.as_ref()).map(|p| p.took_us as f64).collect();
        self.figures.add(
            "placement_us",
            &took,
            "us",
            "one decision inside the WASM policy, fresh instance included",
        );
    }

    /// An instance's image on its host.
    pub(super) async fn image(&self, instance: &InstanceView) -> anyhow::Result<ImageStatus> {
        self.api
            .boot(&instance.id.to_string())
            .await?
            .image
            .with_context(|| format!("the host of {} does not report its image", instance.id))
    }

    /// Reads an instance's whole image through its host's export, so that all of it is local.
    pub(super) async fn complete_image(&self, instance: &InstanceView) -> anyhow::Result<()> {
        let part = self.playground.part(host(instance))?;
        let image = self.image(instance).await?;
        let source = format!(
            "driver=nbd,export={},server.type=unix,server.path=/run/collective/streamer-nbd.sock",
            instance.image.hex()
        );
        let target = format!("driver=null-co,size={}", image.size_bytes);
        let output = tokio::task::spawn_blocking(move || {
            part.exec(&["qemu-img", "convert", "-n", "--image-opts", &source, "--target-image-opts", &target])
        });
        let output = tokio::time::timeout(Duration::from_secs(120), output)
            .await
            .context("reading the image took too long")???;
        anyhow::ensure!(
            output.status.success(),
            "qemu-img convert: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        // The controller hears of it with the host's next status.
        let until = std::time::Instant::now() + STATUS_PATIENCE;
        loop {
            let image = self.image(instance).await?;
            let content = image.pieces - image.pieces_zero;
            if image.pieces_local == content {
                return Ok(());
            }
            let late = std::time::Instant::now() > until;
            anyhow::ensure!(!late, "{} of {content} pieces are here after reading all", image.pieces_local);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// From the start of a guest until it said it serves.
pub(super) fn boot_seconds(instance: &InstanceView) -> anyhow::Result<f64> {
    let (started, ready) = instance
        .started_ms
        .zip(instance.ready_ms)
        .with_context(|| format!("{} was never ready", instance.id))?;
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of one boot")]
    Ok(ready.saturating_sub(started) as f64 / 1000.0)
}
