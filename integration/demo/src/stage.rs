//! What every story shares: a playground that comes up and goes without a trace, and what is done on it.

use crate::claims::Claims;
use crate::cli::Cli;
use crate::figures::Figures;
use crate::machine::Machine;
use crate::observe::{Api, host};
use crate::wire::Count;
use crate::{Arguments, Story, life, networks, say, scenario};
use anyhow::Context as _;
use chassis::clock::unix_ms;
use controller_api::rest::InstanceView;
use playground::{Config, Playground};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A guest is given this long to serve: TCG on two busy cores is slow.
pub(crate) const BOOT_PATIENCE: Duration = Duration::from_secs(150);

/// Everything the chapters share.
pub(crate) struct Stage {
    pub(crate) arguments: Arguments,
    pub(crate) playground: Playground,
    pub(crate) cli: Cli,
    pub(crate) api: Api,
    pub(crate) claims: Claims,
    pub(crate) figures: Figures,
    /// A folder for what the story makes; removed at its end.
    pub(crate) work: PathBuf,
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
    let stage = open(arguments.clone(), work).await?;
    match arguments.story {
        Story::Office => scenario::perform(stage, before).await,
        Story::Networks => networks::perform(stage, before).await,
        Story::Life => life::perform(stage, before).await,
    }
}

/// Playground up.
async fn open(arguments: Arguments, work: &Path) -> anyhow::Result<Stage> {
    let claims = Claims::new();
    claims.step("a playground: two hosts, each with its own libvirt, agent, netd and streamer");
    let mut config = Config::new("demo", &arguments.binaries, &arguments.policies);
    config.state_dir.clone_from(&arguments.state);
    config.port = arguments.port;
    // What shall be looked at afterwards must outlive this process.
    config.leashed = !arguments.keep_on_failure;
    let playground = Playground::up(config, |progress| say(&format!("    {}", progress.text))).await?;
    let endpoint = playground.endpoint()?;
    let cli = Cli::new(&arguments.binaries, endpoint.clone(), work);
    let api = Api::new(endpoint)?;
    Ok(Stage { arguments, playground, cli, api, claims, figures: Figures::default(), work: work.to_owned() })
}

impl Stage {
    /// Publishes the appliance in a folder, seeded by the origin.
    pub(crate) async fn publish(&self, folder: &Path) -> anyhow::Result<()> {
        let origin = self.playground.switch()?.folders().run().join("streamer.sock");
        let folder = folder.to_str().context("the appliances' folder has no UTF-8 name")?;
        let socket = origin.to_str().context("the state folder has no UTF-8 name")?;
        self.cli
            .show(&[
                "appliance",
                "publish",
                folder,
                "--streamer",
                socket,
                "--channel",
                "stable",
                "--no-smoke-test",
                "the story boots it",
            ])
            .await
    }

    /// Records what was found of a claim; one whose check could not be carried out does not hold.
    pub(crate) fn conclude(&mut self, claim: &str, found: anyhow::Result<(bool, String)>) {
        if let Some((holds, evidence)) = self.claims.attempt(claim, found) {
            self.claims.verify(claim, holds, &evidence);
        }
    }

    /// Names of the hosts.
    pub(crate) fn hosts(&self) -> Vec<String> {
        (1..=self.playground.host_count()).map(|number| format!("h{number}")).collect()
    }

    /// Counts frames on an instance's tap, from when this returns.
    pub(crate) async fn count(
        &self,
        instance: &InstanceView,
        tap: &str,
        filter: &str,
    ) -> anyhow::Result<Count> {
        Count::start(&self.playground.part(host(instance))?, tap, filter).await
    }

    /// `kill -9` of a daemon; how long until every host's status was true again.
    pub(crate) async fn kill(&self, place: &str, daemon: &str) -> anyhow::Result<Duration> {
        let part = self.playground.part(place)?;
        let began = std::time::Instant::now();
        let name = daemon.to_owned();
        let killed = tokio::task::spawn_blocking(move || part.kill9(&name)).await??;
        self.api.settled(&self.hosts(), unix_ms(), BOOT_PATIENCE).await?;
        let now = self.playground.part(place)?.daemon(daemon)?;
        anyhow::ensure!(now != killed, "{daemon} was not started again");
        Ok(began.elapsed())
    }

    /// Tells what there is to try, and stays until Ctrl-C.
    pub(crate) async fn stay_up(&mut self, hints: &[String], before: &Machine) -> anyhow::Result<bool> {
        let endpoint = self.api.endpoint().clone();
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
        for hint in hints {
            say(&format!("            {hint}"));
        }
        say("It stays up until Ctrl-C, which leaves nothing behind.");
        tokio::signal::ctrl_c().await?;
        say("");
        self.claims.step("taking everything down");
        playground::down(self.playground.state_dir())?;
        self.nothing_left(before)?;
        Ok(self.claims.finish())
    }

    /// Takes the playground down, verifies that nothing is left, and publishes the figures.
    pub(crate) fn close(mut self, before: &Machine) -> anyhow::Result<bool> {
        if self.arguments.keep_on_failure && !self.claims.all_hold() {
            return Ok(self.claims.finish());
        }
        self.claims.step("collective playground down");
        playground::down(self.playground.state_dir())?;
        self.nothing_left(before)?;
        let held = self.claims.finish();
        self.figures.publish(&self.arguments.figures)?;
        Ok(held)
    }

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
