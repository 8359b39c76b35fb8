//! A network behind a router of netd's: its services, the way out, the published way in, and no other.

use super::{COMMAND, Lab, PUBLISHED, address, nic, outside};
use crate::observe::host;
use crate::probe;
use crate::stage::Stage;
use crate::wire::Count;
use anyhow::Context as _;
use playground::layout::PERSON_ADDRESS;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::time::Duration;

/// What the desk may reach outside, and what it may not.
pub(super) const ALLOWED: u16 = 8000;
pub(super) const FORBIDDEN: u16 = 8001;
/// An attempt that shall fail is given up after this.
const ATTEMPT: Duration = Duration::from_secs(4);
/// Published for the server, which is on another host than the desk.
const PUBLISHED_TOO: u16 = 8082;
/// Neither published nor served by the router.
const UNPUBLISHED: u16 = 8081;

impl Stage {
    /// Every way through the router.
    pub(super) async fn nat(&mut self, lab: &mut Lab) {
        self.claims.step("a network with `uplink: nat`, DHCP and DNS, and one published port");
        let found = self.services(lab).await;
        self.conclude("the router leases the guest its own address and answers names of its network", found);
        let found = self.way_out(lab).await;
        self.conclude(
            "the guest reaches a server outside by name, from the router's LAN address, and no other port of it",
            found,
        );
        let found = self.way_in(lab).await;
        self.conclude(
            "published ports are answered from outside by the guests, on whichever host they are",
            found,
        );
        let found = self.no_way_in(lab).await;
        self.conclude("nothing else is reached from outside", found);
    }

    async fn services(&self, lab: &mut Lab) -> anyhow::Result<(bool, String)> {
        let own = address(&lab.desk)?;
        let (_, lease) = lab.shells.desk.run("cat /run/collective/lease.eth0", COMMAND).await?;
        let lease = last(&lease, "router=").context("the desk has no lease")?;
        let (_, names) = lab.shells.desk.run("nslookup -type=a server.lab.internal", COMMAND).await?;
        let server = address(&lab.server)?;
        let named = names.lines().any(|line| line.trim() == format!("Address: {server}"));
        Ok((
            lease.starts_with(&format!("{own}/")) && named,
            format!("lease {lease}; server.lab.internal is {server}: {named}"),
        ))
    }

    async fn way_out(&self, lab: &mut Lab) -> anyhow::Result<(bool, String)> {
        let switch = self.playground.switch()?;
        let person = IpAddr::V4(PERSON_ADDRESS);
        let names = outside::names(&switch, SocketAddrV4::new(PERSON_ADDRESS, 53))?;
        let allowed = outside::web(&switch, SocketAddr::new(person, ALLOWED))?;
        let forbidden = outside::web(&switch, SocketAddr::new(person, FORBIDDEN))?;
        let port = nic(&lab.desk, "eth0")?;
        let before = self.counters(&lab.desk, port).await?.dropped_from_guest.frames;
        let shell = &mut lab.shells.desk;
        let get = |port: u16| format!("timeout 4 wget -q -O - http://www.example.test:{port}/");
        let (reached, greeting) = shell.run(&get(ALLOWED), COMMAND).await?;
        let (refused, _) = shell.run(&get(FORBIDDEN), COMMAND).await?;
        let seen =
            self.counters_until(&lab.desk, port, |seen| seen.dropped_from_guest.frames > before).await?;
        let dropped = seen.dropped_from_guest.frames - before;
        let as_router = allowed.asked() == [lab.outside]
            && !names.asked().is_empty()
            && names.asked().iter().all(|who| *who == lab.outside)
            && greeting.contains(&format!("hello {}", lab.outside));
        Ok((
            reached == 0 && as_router && refused != 0 && forbidden.asked().is_empty() && dropped > 0,
            format!(
                "port {ALLOWED} was asked by {:?}, names by {} questions from there; port {FORBIDDEN} by {:?}, {dropped} frames dropped",
                allowed.asked(),
                names.asked().len(),
                forbidden.asked(),
            ),
        ))
    }

    async fn way_in(&self, lab: &Lab) -> anyhow::Result<(bool, String)> {
        let switch = self.playground.switch()?;
        let (mut right, mut evidence) = (true, Vec::new());
        for (port, guest) in [(PUBLISHED, &lab.desk), (PUBLISHED_TOO, &lab.server)] {
            let to = SocketAddr::new(lab.outside, port);
            let page = probe::get(&switch, to, "/instance", Duration::from_secs(5)).await?;
            right &= page.trim() == format!("{} {}", guest.id, guest.incarnation);
            evidence.push(format!("http://{to}/instance says {} on {}", page.trim(), host(guest)));
        }
        Ok((right, evidence.join(", ")))
    }

    /// The router's other ports, and the guest's own address by way of the router; counted at the guest.
    async fn no_way_in(&self, lab: &Lab) -> anyhow::Result<(bool, String)> {
        let switch = self.playground.switch()?;
        let inner = address(&lab.desk)?;
        let route = |verb: &str| -> anyhow::Result<()> {
            let way =
                ["ip", "route", verb, &inner.to_string(), "via", &lab.outside.to_string(), "dev", "site"];
            let output = switch.exec(&way)?;
            anyhow::ensure!(output.status.success(), "ip route: {}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        };
        route("replace")?;
        let filter = format!("src host {PERSON_ADDRESS} and (dst host {} or dst host {inner})", lab.outside);
        let sent = Count::start(&switch, "site", &filter).await?;
        let tap = &nic(&lab.desk, "eth0")?.tap;
        let arrived = self.count(&lab.desk, tap, &format!("src host {PERSON_ADDRESS}")).await?;
        let ways = [
            SocketAddr::new(lab.outside, probe::HTTP),
            SocketAddr::new(lab.outside, UNPUBLISHED),
            SocketAddr::new(inner, probe::HTTP),
            SocketAddr::new(inner, PUBLISHED),
        ];
        let attempts = ways.map(|to| probe::get(&switch, to, "/instance", ATTEMPT));
        let answers = futures::future::join_all(attempts).await;
        let reached: Vec<_> =
            ways.iter().zip(answers).filter(|(_, answer)| answer.is_ok()).map(|(to, _)| to).collect();
        route("del")?;
        let (sent, arrived) = (sent.stop().await?.len(), arrived.stop().await?);
        Ok((
            reached.is_empty() && sent >= 4 && arrived.is_empty(),
            format!("{sent} frames sent to 4 ports, answered by {reached:?}, at the guest {arrived:?}"),
        ))
    }
}

/// The last line with `word` in it: a console echoes what is typed first.
fn last<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    text.lines().rev().map(str::trim).find(|line| line.contains(word))
}
