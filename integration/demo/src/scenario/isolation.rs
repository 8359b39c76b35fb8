//! Nothing else can enter: attempts from the site's LAN and from a second deployment, counted on the wire.

use super::{FIRST, SECOND, Serving, Stage};
use crate::console::Console;
use crate::observe::{host, port};
use crate::probe::{self, HTTP};
use crate::wire::Count;
use anyhow::Context as _;
use controller_api::rest::InstanceView;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The controller's name for the key that vouches for the policy of the swap.
const AUTHOR: &str = "demo-author";

impl Stage {
    /// Every attempt to enter the first deployment but the published one.
    pub(super) async fn isolation(&mut self, first: &Serving) {
        self.claims.step("attempts to reach the workspace by any other way");
        let claim = "a direct attempt from the uplink reaches nothing";
        let result = self.direct_attempt(first).await;
        if let Some((holds, evidence)) = self.claims.attempt(claim, result) {
            self.claims.verify(claim, holds, &evidence);
        }
        let claim = "the second deployment, with the same inner addresses, reaches nothing of the first";
        let result = self.neighbour_attempt(first).await;
        if let Some((holds, evidence)) = self.claims.attempt(claim, result) {
            self.claims.verify(claim, holds, &evidence);
        }
    }

    /// Connects from the site's LAN to the workspace's inner address by way of the gateway's outer port.
    async fn direct_attempt(&self, first: &Serving) -> anyhow::Result<(bool, String)> {
        let inner = port(&first.workspace, "inside")?;
        let address = inner.address.context("the workspace has no address")?;
        let switch = self.playground.switch()?;
        let route = [
            "ip",
            "route",
            "replace",
            &address.to_string(),
            "via",
            &first.office.address.to_string(),
            "dev",
            "site",
        ];
        let output = switch.exec(&route)?;
        anyhow::ensure!(output.status.success(), "ip route: {}", String::from_utf8_lossy(&output.stderr));
        let at_guest = self.count(&first.workspace, &inner.tap, "src host 10.88.0.1").await?;
        let sent = Count::start(&switch, "site", &format!("dst host {address} and tcp")).await?;
        let before = self.dropped_to_guest(&first.gateway, "outside").await?;
        let reached =
            probe::get(&switch, SocketAddr::new(address, HTTP), "/", Duration::from_secs(4)).await.is_ok();
        let (sent, at_guest) = (sent.stop().await?.len(), at_guest.stop().await?);
        let dropped = self.dropped_until(&first.gateway, "outside", before + sent as u64).await?;
        let undo = switch.exec(&["ip", "route", "del", &address.to_string()])?;
        anyhow::ensure!(undo.status.success(), "ip route del: {}", String::from_utf8_lossy(&undo.stderr));
        let arrived = at_guest.len();
        let holds = !reached && sent > 0 && arrived == 0 && dropped > before;
        Ok((
            holds,
            format!(
                "{sent} packets sent to {address}, {} dropped at the gateway's port, {arrived} at the workspace {at_guest:?}",
                dropped - before
            ),
        ))
    }

    /// Lets the second deployment's workspace send to the first one's addresses, and counts what comes out.
    async fn neighbour_attempt(&self, first: &Serving) -> anyhow::Result<(bool, String)> {
        let attacker = self.api.instance(&format!("{SECOND}/workspace")).await?;
        let own = port(&attacker, "inside")?;
        let victim = port(&first.workspace, "inside")?;
        let from_second = format!("ether src {} or ether src {}", own.mac, self.inner_mac(SECOND).await?);
        let at_workspace = self.count(&first.workspace, &victim.tap, &from_second).await?;
        let first_lan = port(&first.gateway, "inside")?.tap.clone();
        let at_gateway = self.count(&first.gateway, &first_lan, &from_second).await?;
        let sent = self.count(&attacker, &own.tap, &format!("ether src {}", own.mac)).await?;
        let reached = self.attack(&attacker, &victim.mac.to_string(), first.office.address).await?;
        let (sent, a, b) =
            (sent.stop().await?.len(), at_workspace.stop().await?.len(), at_gateway.stop().await?.len());
        let same = own.address == victim.address;
        Ok((
            !reached && sent > 0 && a + b == 0 && same,
            format!(
                "{sent} frames sent by {}, {a} at {}, {b} at {}",
                attacker.id, first.workspace.id, first.gateway.id
            ),
        ))
    }

    /// From the guest's own shell: frames to the victim's Ethernet address, and a request to the victim's gateway.
    async fn attack(
        &self,
        attacker: &InstanceView,
        victim_mac: &str,
        victim_gateway: IpAddr,
    ) -> anyhow::Result<bool> {
        let mut console = Console::open(&self.api, &attacker.id.to_string()).await?;
        let script = format!(
            "ip neigh replace 10.20.0.77 lladdr {victim_mac} dev $(ip -o route show default | sed 's/.* dev \\([^ ]*\\).*/\\1/') nud permanent; \
             timeout 3 bash -c 'exec 3<>/dev/tcp/10.20.0.77/80'"
        );
        let (by_mac, _) = console.run(&script, Duration::from_secs(20)).await?;
        let script = format!("timeout 3 bash -c 'exec 3<>/dev/tcp/{victim_gateway}/80'");
        let (by_gateway, _) = console.run(&script, Duration::from_secs(20)).await?;
        Ok(by_mac == 0 || by_gateway == 0)
    }

    async fn inner_mac(&self, deployment: &str) -> anyhow::Result<String> {
        let gateway = self.api.instance(&format!("{deployment}/gateway")).await?;
        Ok(port(&gateway, "inside")?.mac.to_string())
    }

    async fn dropped_to_guest(&self, instance: &InstanceView, network: &str) -> anyhow::Result<u64> {
        let tap = &port(instance, network)?.tap;
        let status = self.api.host(host(instance)).await?.status.context("the host has no status")?;
        let networks = status.networks.context("the host's netd does not answer")?;
        let port = networks.networks.iter().flat_map(|n| &n.ports).find(|p| p.tap == *tap);
        Ok(port.with_context(|| format!("netd does not know {tap}"))?.dropped_to_guest.frames)
    }

    /// The counter once the host's status shows `at_least`, or as it is after five seconds.
    async fn dropped_until(
        &self,
        instance: &InstanceView,
        network: &str,
        at_least: u64,
    ) -> anyhow::Result<u64> {
        let until = std::time::Instant::now() + Duration::from_secs(5);
        loop {
            let now = self.dropped_to_guest(instance, network).await?;
            if now >= at_least || std::time::Instant::now() > until {
                return Ok(now);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Latency of the API under a steady load.
    pub(super) async fn load(&mut self) {
        self.claims.step("50 requests a second for 6 seconds");
        let claim = "the API answers every request of a steady load";
        let result = crate::load::run(&self.api, 50, 6).await;
        if let Some(latencies) = self.claims.attempt(claim, result) {
            let p99 = crate::figures::percentile(&latencies, 0.99).unwrap_or(f64::NAN);
            self.claims.verify(
                claim,
                latencies.len() == 300,
                &format!("{} answers, p99 {p99:.1} ms", latencies.len()),
            );
            self.figures.add(
                "api_p99_ms",
                &[p99],
                "ms",
                "GET /v1/instances at 50 req/s for 6 s beside four guests under TCG, from when each was due",
            );
        }
    }

    /// Swaps the policy for one that packs, and lets the next instance be placed.
    pub(super) async fn packing(&mut self) {
        self.claims.step("the policy file is swapped for one that packs");
        let claim = "swapping the policy changes the placement of the next instance";
        let result = self.swap().await;
        if let Some((holds, evidence)) = self.claims.attempt(claim, result) {
            self.claims.verify(claim, holds, &evidence);
        }
    }

    /// The packing policy is signed by somebody whom the controller is told to trust; afterwards all is as before.
    async fn swap(&self) -> anyhow::Result<(bool, String)> {
        let id = format!("{SECOND}/gateway");
        let before = self.api.instance(&id).await?;
        let packed = self.arguments.policies.join("packed.wasm");
        let packed = packed.to_str().context("the policies' folder has no UTF-8 name")?;
        let folder = tempfile::tempdir().context("make a folder for a key")?;
        let name = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let (key, signature) = (name("author.key"), name("packed.wasm.sig"));
        self.cli.run(&["policy", "key", "new", &name("author")]).await?;
        self.cli.run(&["policy", "sign", packed, "--key", &key, "--out", &signature]).await?;
        self.cli.run(&["policy", "trust", "add", AUTHOR, &name("author.pub"), "--kind", "placement"]).await?;
        self.cli.run(&["policy", "install", "balanced", packed, "--signature", &signature]).await?;
        self.cli.run(&["delete", "instance", &id]).await?;
        let after = self.api.ready(&id, Some(&before.incarnation), crate::stage::BOOT_PATIENCE).await?;
        self.cli.run(&["policy", "rollback", "balanced"]).await?;
        self.cli.run(&["policy", "trust", "remove", AUTHOR]).await?;
        let component = after.placement.as_ref().map(|p| p.component.clone()).unwrap_or_default();
        let holds = before.host != after.host && component.contains("packed");
        Ok((
            holds,
            format!(
                "{id} was on {}, is on {} by {component}; {FIRST} is untouched",
                host(&before),
                host(&after)
            ),
        ))
    }
}
