//! The story of the office, in order. Each chapter returns what the next needs and verifies its claims on the way.

mod boots;
mod faults;
mod isolation;
mod streaming;

use crate::machine::Machine;
use crate::observe::port;
use crate::probe::Office;
use crate::say;
use crate::stage::{BOOT_PATIENCE, Stage};
use anyhow::Context as _;
use controller_api::rest::InstanceView;
use std::time::Duration;

/// Between two lines about boots that are waited for.
const PROGRESS_EVERY: Duration = Duration::from_secs(3);
/// The deployment of the bundle's own file.
const FIRST: &str = "office";
/// The second deployment of the same bundle.
const SECOND: &str = "branch";

/// Tells it; whether every claim held.
pub(crate) async fn perform(mut stage: Stage, before: &Machine) -> anyhow::Result<bool> {
    stage.claims.step("publish two appliances: cut into pieces, hashed, signed, seeded by the origin");
    for name in ["gateway", "workspace"] {
        stage.publish(&stage.arguments.appliances.join(name)).await?;
    }
    let office = first_deployment(&mut stage).await?;
    if !stage.arguments.check {
        let hints = hints(&stage, &office);
        return stage.stay_up(&hints, before).await;
    }
    stage.dashboard().await;
    let office = stage.boots(office).await?;
    stage.second_deployment().await?;
    stage.isolation(&office).await;
    stage.load().await;
    stage.packing().await;
    stage.kills(&office).await?;
    stage.controller_away(&office).await?;
    let branch = stage.work.join("branch.yaml");
    let bundle = stage.arguments.bundle.clone();
    stage.deletion(&[(&branch, SECOND), (&bundle, FIRST)]).await;
    stage.close(before)
}

/// The first deployment, as it serves.
struct Serving {
    gateway: InstanceView,
    workspace: InstanceView,
    office: Office,
}

async fn first_deployment(stage: &mut Stage) -> anyhow::Result<Serving> {
    let bundle = stage.arguments.bundle.to_str().context("the bundle's file has no UTF-8 name")?.to_owned();
    stage.claims.step(&format!("collective apply -f {bundle}"));
    stage.cli.show(&["apply", "-f", &bundle]).await?;
    stage.claims.step(
        "the workspace boots while its disk is still arriving; a person in the office waits for its page",
    );
    let serving = stage.serve(FIRST).await?;
    stage.streamed(&serving).await?;
    stage.proof(&serving).await;
    Ok(serving)
}

impl Stage {
    /// Waits until a deployment's page answers through its gateway.
    async fn serve(&self, deployment: &str) -> anyhow::Result<Serving> {
        let gateway = format!("{deployment}/gateway");
        let placed = self
            .api
            .instance_until(&gateway, "placed", Duration::from_secs(20), |instance| instance.host.is_some())
            .await?;
        let address =
            port(&placed, "outside")?.address.context("the gateway has no address on the site's LAN")?;
        let office = Office::new(self.playground.switch()?, address);
        tokio::select! {
            page = office.first("/instance", BOOT_PATIENCE) => page?,
            never = self.tell_progress(deployment) => match never {},
        };
        let gateway = self.api.ready(&gateway, None, BOOT_PATIENCE).await?;
        let workspace = self.api.ready(&format!("{deployment}/workspace"), None, BOOT_PATIENCE).await?;
        Ok(Serving { gateway, workspace, office })
    }

    /// Tells how a deployment's boots come along, for as long as somebody waits.
    async fn tell_progress(&self, deployment: &str) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(PROGRESS_EVERY).await;
            let mut words = Vec::new();
            for member in ["gateway", "workspace"] {
                if let Ok(boot) = self.api.boot(&format!("{deployment}/{member}")).await {
                    let image = boot.image.unwrap_or_default();
                    words.push(format!(
                        "{member} {:?}, {} of {} pieces here, {} waits",
                        boot.state,
                        image.pieces_local,
                        image.pieces - image.pieces_zero,
                        image.stalls.count
                    ));
                }
            }
            say(&format!("    {}", words.join("; ")));
        }
    }

    /// What a newcomer is shown.
    async fn proof(&mut self, serving: &Serving) {
        let claim = "both instances boot, on two hosts, and the workspace's page answers through the gateway";
        let page = self.claims.attempt(claim, serving.office.get("/instance", Duration::from_secs(5)).await);
        let apart = serving.gateway.host != serving.workspace.host;
        if let Some(page) = page {
            let answers =
                page.trim() == format!("{} {}", serving.workspace.id, serving.workspace.incarnation);
            self.claims.verify(
                claim,
                answers && apart,
                &format!("http://{}/instance says {}", serving.office.address, page.trim()),
            );
        }
        let described = self.cli.run(&["describe", "instance", &serving.workspace.id.to_string()]).await;
        let claim =
            "the placement was decided by the WASM policy, and its reasons are in `collective describe`";
        if let Some(text) = self.claims.attempt(claim, described) {
            let reasons = serving
                .workspace
                .placement
                .as_ref()
                .and_then(|p| p.choices.first())
                .map(|c| c.reasons.clone());
            let reasons = reasons.unwrap_or_default();
            let shown = !reasons.is_empty() && reasons.iter().all(|reason| text.contains(code(reason)));
            self.claims.verify(claim, shown, &reasons.join("; "));
        }
    }

    /// The dashboard, in a real browser.
    async fn dashboard(&mut self) {
        self.claims.step("the dashboard, in headless Chromium");
        let claim = "the dashboard signs in and shows the deployment and the boot's piece map";
        let result = self.browse().await;
        if let Some(text) = self.claims.attempt(claim, result) {
            self.claims.verify(claim, true, text.lines().last().unwrap_or("passed"));
        }
    }

    async fn browse(&self) -> anyhow::Result<String> {
        let web = self.arguments.web.as_ref().context("no --web folder was given")?;
        let endpoint = self.api.endpoint();
        let output = tokio::process::Command::new("npm")
            .args(["run", "--silent", "smoke"])
            .current_dir(web)
            .env("COLLECTIVE_URL", &endpoint.url)
            .env("COLLECTIVE_TOKEN", &endpoint.token)
            .env("COLLECTIVE_INSTANCE", format!("{FIRST}/workspace"))
            .kill_on_drop(true)
            .output()
            .await
            .context("start npm")?;
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        anyhow::ensure!(
            output.status.success(),
            "npm run smoke ended with {}: {}",
            output.status,
            text.trim()
        );
        Ok(text.trim().to_owned())
    }
}

/// A reason is `code: text (weight)`; its code.
fn code(reason: &str) -> &str {
    reason.split(':').next().unwrap_or(reason)
}

/// What to try while it stays up.
fn hints(stage: &Stage, serving: &Serving) -> [String; 3] {
    let collective = stage.arguments.binaries.join("collective");
    [
        format!("{} describe instance {}", collective.display(), serving.workspace.id),
        format!("{} console {}", collective.display(), serving.workspace.id),
        format!(
            "{} playground exec switch --state {} -- curl http://{}/",
            collective.display(),
            stage.playground.state_dir().display(),
            serving.office.address
        ),
    ]
}
