//! The story of networks, in order: real guests behind a router of netd's, watched, explained and interposed.

mod interposing;
mod introspection;
mod nat;
mod outside;
mod questions;
mod watching;

use crate::console::Console;
use crate::machine::Machine;
use crate::observe::{host, nic, nic_address};
use crate::stage::{BOOT_PATIENCE, Stage};
use anyhow::Context as _;
use controller_api::network::NetworkView;
use controller_api::rest::{InstanceView, PortView};
use netd_api::{PortStatus, Status};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The deployment of the bundle's file.
const LAB: &str = "lab";
/// Its network behind a router, which the watcher watches.
const YARD: &str = "yard";
/// The port that the bundle publishes on the router's LAN address.
const PUBLISHED: u16 = 8080;
/// A shell command that does nothing slow ends within this.
const COMMAND: Duration = Duration::from_secs(30);
/// What the kernel counted is in a host's status within this.
const STATUS_PATIENCE: Duration = Duration::from_secs(10);

/// Tells it; whether every claim held.
pub(crate) async fn perform(mut stage: Stage, before: &Machine) -> anyhow::Result<bool> {
    stage.claims.step("publish a station, a watcher (the same disk with a second port) and a wire");
    let station = stage.arguments.appliances.join("station");
    stage.publish(&station).await?;
    stage.publish(&watcher(&station, &stage.work)?).await?;
    stage.publish(&stage.arguments.appliances.join("wire")).await?;
    stage.set_tripwire("53, 67, 68, 80, 81, 8000, 8001").await?;
    let mut lab = stage.lab().await?;
    if !stage.arguments.check {
        return stage.stay_up(&hints(&stage, &lab), before).await;
    }
    stage.nat(&mut lab).await;
    stage.questions(&mut lab).await;
    stage.watching(&mut lab).await;
    stage.introspection(&mut lab).await;
    stage.interposing(&mut lab).await?;
    drop(lab);
    let bundle = stage.arguments.bundle.clone();
    stage.deletion(&[(&bundle, LAB)]).await;
    stage.close(before)
}

/// An appliance folder with the station's own disk and a second port.
fn watcher(station: &Path, work: &Path) -> anyhow::Result<PathBuf> {
    let folder = work.join("watcher");
    let of = |file: &str| station.join(file);
    std::fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
    std::os::unix::fs::symlink(of("system.raw").canonicalize()?, folder.join("system.raw"))?;
    let text = std::fs::read_to_string(of("appliance.yaml")).context("read the station's appliance.yaml")?;
    let changed = text.replace("name: station", "name: watcher").replace("[eth0]", "[eth0, sniff]");
    anyhow::ensure!(changed.contains("name: watcher") && changed.contains("sniff"), "it is another station");
    std::fs::write(folder.join("appliance.yaml"), changed)?;
    Ok(folder)
}

/// The deployment, as it runs.
struct Lab {
    desk: InstanceView,
    server: InstanceView,
    watcher: InstanceView,
    /// The router's address on the site's LAN.
    outside: IpAddr,
    /// Shells of desk and server.
    shells: Shells,
}

struct Shells {
    desk: Console,
    server: Console,
    watcher: Console,
}

impl Lab {
    /// Where the desk's pages are for people outside.
    fn published(&self) -> SocketAddr {
        SocketAddr::new(self.outside, PUBLISHED)
    }
}

impl Stage {
    async fn lab(&mut self) -> anyhow::Result<Lab> {
        let bundle =
            self.arguments.bundle.to_str().context("the bundle's file has no UTF-8 name")?.to_owned();
        self.claims.step(&format!("collective apply -f {bundle}"));
        self.cli.show(&["apply", "-f", &bundle]).await?;
        let api = &self.api;
        let ready = async |member: &str| api.ready(&format!("{LAB}/{member}"), None, BOOT_PATIENCE).await;
        let (desk, server, watcher) = tokio::try_join!(ready("desk"), ready("server"), ready("watcher"))?;
        let shell = async |instance: &InstanceView| Console::open(api, &instance.id.to_string()).await;
        let (a, b, c) = tokio::try_join!(shell(&desk), shell(&server), shell(&watcher))?;
        let shells = Shells { desk: a, server: b, watcher: c };
        let yard: NetworkView = self.api.get(&format!("/v1/networks/{LAB}/{YARD}")).await?;
        let outside = yard.outside.first().context("the yard has no address on the site's LAN")?.parse()?;
        Ok(Lab { desk, server, watcher, outside, shells })
    }

    /// What netd of an instance's host says.
    async fn netd(&self, instance: &InstanceView) -> anyhow::Result<Status> {
        let status = self.api.host(host(instance)).await?.status.context("the host has no status")?;
        status.networks.context("the host's netd does not answer")
    }

    /// What netd counted at a port of an instance.
    async fn counters(&self, instance: &InstanceView, port: &PortView) -> anyhow::Result<PortStatus> {
        let networks = self.netd(instance).await?.networks;
        let found = networks.into_iter().flat_map(|network| network.ports).find(|seen| seen.tap == port.tap);
        found.with_context(|| format!("netd does not know {}", port.tap))
    }

    /// The counters once `wanted` holds of them, or as they are when patience ends.
    async fn counters_until(
        &self,
        instance: &InstanceView,
        port: &PortView,
        wanted: impl Fn(&PortStatus) -> bool,
    ) -> anyhow::Result<PortStatus> {
        let until = Instant::now() + STATUS_PATIENCE;
        loop {
            let seen = self.counters(instance, port).await?;
            if wanted(&seen) || Instant::now() > until {
                return Ok(seen);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The address of an instance's `eth0`.
fn address(instance: &InstanceView) -> anyhow::Result<IpAddr> {
    nic_address(instance, "eth0")
}

/// What to try while it stays up.
fn hints(stage: &Stage, lab: &Lab) -> [String; 5] {
    let collective = stage.arguments.binaries.join("collective");
    let collective = collective.display();
    let state = stage.playground.state_dir().display();
    [
        format!(
            "{collective} playground exec switch --state {state} -- curl http://{}/instance",
            lab.published()
        ),
        format!("{collective} interpose {LAB}/desk/eth0 --with acme/wire --wait"),
        format!("{collective} network explain {LAB}/server {LAB}/desk --tcp 80 --prove"),
        format!("{collective} network capture {LAB}/desk -w desk.pcapng --seconds 10"),
        format!("{collective} console {LAB}/watcher"),
    ]
}
