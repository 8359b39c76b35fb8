//! The story of an appliance's life, in order: published, updated, taken back, checkpointed, restored, moved, and running
//! on after its host has lost power.

mod checkpoints;
mod moving;
mod power;
mod updates;
mod versions;

use crate::machine::Machine;
use crate::observe::{host, nic_address};
use crate::probe;
use crate::stage::{BOOT_PATIENCE, Stage};
use anyhow::Context as _;
use controller_api::rest::InstanceView;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The deployment of the bundle's file.
const LEDGER: &str = "ledger";
/// Its members.
const MEMBERS: [&str; 2] = ["desk", "server"];
/// A page is answered within this.
const ANSWER: Duration = Duration::from_secs(5);
/// A shell command that does nothing slow ends within this.
const COMMAND: Duration = Duration::from_secs(30);

/// Tells it; whether every claim held.
pub(crate) async fn perform(mut stage: Stage, before: &Machine) -> anyhow::Result<bool> {
    stage.claims.step("publish the ledger: the station's disk, with a volume");
    let station = stage.arguments.appliances.join("station");
    let first = versions::folder(&station, &stage.work, "1.0.0", false)?;
    stage.publish(&first).await?;
    stage.quick_waves().await?;
    let mut ledger = stage.ledger().await?;
    if !stage.arguments.check {
        let hints = hints(&stage, &ledger);
        return stage.stay_up(&hints, before).await;
    }
    stage.updates(&mut ledger, &station).await;
    stage.checkpoints(&mut ledger).await;
    stage.moving(&mut ledger).await;
    stage.power(&mut ledger).await;
    drop(ledger);
    stage.close(before)
}

/// The deployment, as it runs.
struct Ledger {
    desk: InstanceView,
    server: InstanceView,
}

impl Ledger {
    fn member(&self, name: &str) -> &InstanceView {
        if name == "desk" { &self.desk } else { &self.server }
    }

    /// Where a member's pages are for people in the office.
    fn pages(&self, member: &str) -> anyhow::Result<SocketAddr> {
        Ok(SocketAddr::new(nic_address(self.member(member), "eth0")?, probe::HTTP))
    }
}

impl Stage {
    async fn ledger(&mut self) -> anyhow::Result<Ledger> {
        let bundle =
            self.arguments.bundle.to_str().context("the bundle's file has no UTF-8 name")?.to_owned();
        self.claims.step(&format!("collective apply -f {bundle}"));
        self.cli.show(&["apply", "-f", &bundle]).await?;
        let (desk, server) = self.both_ready(BOOT_PATIENCE).await?;
        let ledger = Ledger { desk, server };
        self.answers(&ledger, "desk", "/release", BOOT_PATIENCE).await?;
        Ok(ledger)
    }

    async fn both_ready(&self, patience: Duration) -> anyhow::Result<(InstanceView, InstanceView)> {
        let ready = async |member: &str| self.api.ready(&format!("{LEDGER}/{member}"), None, patience).await;
        tokio::try_join!(ready("desk"), ready("server"))
    }

    /// Looks at both members anew.
    async fn look_again(&self, ledger: &mut Ledger) -> anyhow::Result<()> {
        (ledger.desk, ledger.server) = self.both_ready(BOOT_PATIENCE).await?;
        Ok(())
    }

    /// A page of a member, as a person in the office gets it.
    async fn page(&self, ledger: &Ledger, member: &str, path: &str) -> anyhow::Result<String> {
        let page = probe::get(&self.playground.switch()?, ledger.pages(member)?, path, ANSWER).await?;
        Ok(page.trim().to_owned())
    }

    /// One more on a member's volume.
    async fn one_more(&self, ledger: &Ledger, member: &str) -> anyhow::Result<u64> {
        let page = self.page(ledger, member, "/cgi-bin/count").await?;
        page.parse().with_context(|| format!("{member} counts {page:?}"))
    }

    /// Asks for a page until it comes.
    async fn answers(
        &self,
        ledger: &Ledger,
        member: &str,
        path: &str,
        patience: Duration,
    ) -> anyhow::Result<String> {
        let until = Instant::now() + patience;
        loop {
            match self.page(ledger, member, path).await {
                Ok(page) => return Ok(page),
                Err(error) if Instant::now() > until => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// The host where an instance is not.
    fn other_host(&self, instance: &InstanceView) -> anyhow::Result<String> {
        let here = host(instance).to_owned();
        self.hosts().into_iter().find(|name| *name != here).context("there is one host only")
    }
}

/// What to try while it stays up.
fn hints(stage: &Stage, ledger: &Ledger) -> [String; 4] {
    let collective = stage.arguments.binaries.join("collective");
    let collective = collective.display();
    let state = stage.playground.state_dir().display();
    [
        format!(
            "{collective} playground exec switch --state {state} -- curl http://{}/cgi-bin/count",
            nic_address(&ledger.desk, "eth0").map(|address| address.to_string()).unwrap_or_default()
        ),
        format!("{collective} checkpoint create {LEDGER} --memory"),
        format!("{collective} move {LEDGER}/desk"),
        format!("{collective} rollout list"),
    ]
}
