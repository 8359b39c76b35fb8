//! The story the demo tells, in order. Each chapter returns what the next needs and verifies its claims on the way.

mod boots;
mod deletion;
mod faults;
mod isolation;
mod streaming;

use crate::Arguments;
use crate::claims::Claims;
use crate::cli::Cli;
use crate::figures::Figures;
use crate::machine::Machine;
use crate::observe::{Api, port};
use crate::probe::Office;
use crate::say;
use anyhow::Context as _;
use controller_api::rest::InstanceView;
use playground::{Config, Playground};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A guest is given this long to serve: TCG on two busy cores is slow.
const BOOT_PATIENCE: Duration = Duration::from_secs(150);
/// Between two lines about boots that are waited for.
const PROGRESS_EVERY: Duration = Duration::from_secs(3);
/// The deployment of the bundle's own file.
const FIRST: &str = "office";
/// The second deployment of the same bundle.
const SECOND: &str = "branch";

/// Everything the chapters share.
struct Stage {
    arguments: Arguments,
    playground: Playground,
    cli: Cli,
    api: Api,
    claims: Claims,
    figures: Figures,
    work: PathBuf,
}

/// Runs the demo; whether every claim held.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<bool> {
    let before = Machine::observe(&arguments.state)?;
    let work = std::env::temp_dir().join(format!("collective-demo-{}", std::process::id()));
    std::fs::create_dir_all(&work).with_context(|| format!("make {}", work.display()))?;
    let result = tokio::select! {
        result = perform(&arguments, &work, &before) => result,
        signal = tokio::signal::ctrl_c() => { signal?; say("demo: interrupted"); Ok(false) }
    };
    if !matches!(result, Ok(true)) && arguments.keep_on_failure {
        say(&format!(
            "demo: left up in {}; remove it with `collective playground down --state {0}`",
            arguments.state.display()
        ));
    } else if arguments.state.exists() {
        playground::down(&arguments.state).context("take the playground down")?;
    }
    std::fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))?;
    result
}

async fn perform(arguments: &Arguments, work: &Path, before: &Machine) -> anyhow::Result<bool> {
    let claims = Claims::new();
    let mut stage = open(arguments.clone(), work, claims).await?;
    let office = first_deployment(&mut stage).await?;
    if !arguments.check {
        return stay_up(&mut stage, &office, before).await;
    }
    stage.dashboard().await;
    let office = stage.boots(office).await?;
    stage.second_deployment().await?;
    stage.isolation(&office).await;
    stage.load().await;
    stage.packing().await;
    stage.kills(&office).await?;
    stage.controller_away(&office).await?;
    close(stage, before).await
}

/// Playground up, appliances published.
async fn open(arguments: Arguments, work: &Path, claims: Claims) -> anyhow::Result<Stage> {
    claims.step("a playground: two hosts, each with its own libvirt, agent, netd and streamer");
    let mut config = Config::new("demo", &arguments.binaries, &arguments.policies);
    config.state_dir.clone_from(&arguments.state);
    config.port = arguments.port;
    config.leashed = true;
    let playground = Playground::up(config, |progress| say(&format!("    {}", progress.text))).await?;
    let endpoint = playground.endpoint()?;
    let cli = Cli::new(&arguments.binaries, endpoint.clone(), work);
    let api = Api::new(endpoint)?;
    claims.step("publish two appliances: cut into pieces, hashed, signed, seeded by the origin");
    let origin = playground.switch()?.folders().run().join("streamer.sock");
    for name in ["gateway", "workspace"] {
        let folder = arguments.appliances.join(name);
        let folder = folder.to_str().context("the appliances' folder has no UTF-8 name")?;
        let socket = origin.to_str().context("the state folder has no UTF-8 name")?;
        cli.show(&["appliance", "publish", folder, "--streamer", socket, "--channel", "stable"]).await?;
    }
    Ok(Stage { arguments, playground, cli, api, claims, figures: Figures::default(), work: work.to_owned() })
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

    fn hosts(&self) -> Vec<String> {
        (1..=self.playground.host_count()).map(|number| format!("h{number}")).collect()
    }
}

/// A reason is `code: text (weight)`; its code.
fn code(reason: &str) -> &str {
    reason.split(':').next().unwrap_or(reason)
}

async fn stay_up(stage: &mut Stage, serving: &Serving, before: &Machine) -> anyhow::Result<bool> {
    let endpoint = stage.api.endpoint().clone();
    let collective = stage.arguments.binaries.join("collective");
    say("");
    say(&format!("dashboard   {}", endpoint.url));
    say(&format!("token       {}", endpoint.token));
    say(&format!("trust       {}", endpoint.ca_file.display()));
    say(&format!(
        "try         export COLLECTIVE_SERVER={} COLLECTIVE_TOKEN={} COLLECTIVE_CA={}",
        endpoint.url,
        endpoint.token,
        endpoint.ca_file.display()
    ));
    say(&format!("            {} describe instance {}", collective.display(), serving.workspace.id));
    say(&format!("            {} console {}", collective.display(), serving.workspace.id));
    say(&format!(
        "            {} playground exec switch --state {} -- curl http://{}/",
        collective.display(),
        stage.playground.state_dir().display(),
        serving.office.address
    ));
    say("It stays up until Ctrl-C, which leaves nothing behind.");
    tokio::signal::ctrl_c().await?;
    say("");
    stage.claims.step("taking everything down");
    let state = stage.playground.state_dir().to_owned();
    playground::down(&state)?;
    stage.nothing_left(before)?;
    Ok(stage.claims.finish())
}

async fn close(mut stage: Stage, before: &Machine) -> anyhow::Result<bool> {
    stage.deletion().await;
    if stage.arguments.keep_on_failure && !stage.claims.all_hold() {
        return Ok(stage.claims.finish());
    }
    stage.claims.step("collective playground down");
    let state = stage.playground.state_dir().to_owned();
    playground::down(&state)?;
    stage.nothing_left(before)?;
    let held = stage.claims.finish();
    stage.figures.publish(&stage.arguments.figures)?;
    Ok(held)
}

impl Stage {
    fn nothing_left(&mut self, before: &Machine) -> anyhow::Result<()> {
        let after = Machine::observe(self.playground.state_dir())?;
        let (added, lost) = (after.added_since(before), after.lost_since(before));
        let clean = added.is_empty() && lost.is_empty();
        let evidence = if clean {
            "links, namespaces, mounts, processes and folders are as before".to_owned()
        } else {
            format!("left: {added:?}; lost: {lost:?}")
        };
        self.claims.verify("nothing is left behind", clean, &evidence);
        Ok(())
    }
}
