//! A port with `mirror`: it gets every frame once, also from another host, and nothing it says arrives.

use super::{COMMAND, Lab, address, nic};
use crate::observe::host;
use crate::stage::Stage;
use crate::wire::Count;
use anyhow::Context as _;
use std::time::{Duration, Instant};

/// Connections from the server to the desk.
const REQUESTS: usize = 10;
/// Frames the watcher sends to one member; it sends some to everybody besides.
const SENT: usize = 3;
/// A frame and its copy are where they go within this.
const COPIED: Duration = Duration::from_secs(5);
/// Nothing is on its way any more if nothing came for so long.
const QUIET: Duration = Duration::from_millis(300);

impl Stage {
    /// What the watcher sees, and what it cannot do.
    pub(super) async fn watching(&mut self, lab: &mut Lab) {
        self.claims.step("a watcher of the network, on one of the two hosts");
        let found = self.copies(lab).await;
        self.conclude(
            "a watcher gets every frame of the network's members once, also from another host",
            found,
        );
        let found = self.silence(lab).await;
        self.conclude("whatever the watcher sends there is dropped and counted", found);
    }

    /// Lets the server ask the desk for pages, and compares what both send with what the watcher gets.
    pub(super) async fn copies(&self, lab: &mut Lab) -> anyhow::Result<(bool, String)> {
        let (desk, server) = (nic(&lab.desk, "eth0")?, nic(&lab.server, "eth0")?);
        let sniff = nic(&lab.watcher, "sniff")?;
        let (ours, theirs) = (address(&lab.desk)?, address(&lab.server)?);
        let by = |mac| format!("ether src {mac} and tcp port 80 and host {ours} and host {theirs}");
        let counts = [
            self.count(&lab.desk, &desk.tap, &by(desk.mac)).await?,
            self.count(&lab.watcher, &sniff.tap, &by(desk.mac)).await?,
            self.count(&lab.server, &server.tap, &by(server.mac)).await?,
            self.count(&lab.watcher, &sniff.tap, &by(server.mac)).await?,
        ];
        let before = received(lab).await?;
        let get = format!("wget -q -O /dev/null http://{ours}/instance || exit 1");
        let script = format!("(for i in $(seq {REQUESTS}); do {get}; done)");
        let (code, _) = lab.shells.server.run(&script, COMMAND).await?;
        anyhow::ensure!(code == 0, "the server does not reach the desk");
        quiet(&counts).await;
        let mut frames = Vec::new();
        for count in counts {
            frames.push(count.stop().await?.len());
        }
        let seen = received(lab).await? - before;
        let [by_desk, copies_of_desk, by_server, copies_of_server] = frames[..] else {
            anyhow::bail!("four counts were begun")
        };
        let apart = host(&lab.desk) != host(&lab.server);
        let once = by_desk == copies_of_desk && by_server == copies_of_server;
        let enough = by_desk.min(by_server) >= 2 * REQUESTS;
        Ok((
            apart && once && enough && seen >= (copies_of_desk + copies_of_server) as u64,
            format!(
                "watching from {}: {copies_of_desk} copies of {by_desk} frames of {} on {}, {copies_of_server} of {by_server} of {} on {}; the watching guest's NIC received {seen}",
                host(&lab.watcher),
                lab.desk.id,
                host(&lab.desk),
                lab.server.id,
                host(&lab.server)
            ),
        ))
    }

    /// Lets the watcher send frames to a member and to everybody, under a member's address.
    async fn silence(&self, lab: &mut Lab) -> anyhow::Result<(bool, String)> {
        let sniff = nic(&lab.watcher, "sniff")?;
        let (desk, server) = (nic(&lab.desk, "eth0")?, nic(&lab.server, "eth0")?);
        let before = self.dropped_of_watcher(lab, &sniff.tap).await?;
        let filter = format!("ether src {}", sniff.mac);
        let sent = self.count(&lab.watcher, &sniff.tap, &filter).await?;
        let at_desk = self.count(&lab.desk, &desk.tap, &filter).await?;
        let at_server = self.count(&lab.server, &server.tap, &filter).await?;
        let (to, pretended) = (address(&lab.desk)?, address(&lab.server)?);
        let script = format!(
            "ip addr add {pretended}/24 dev sniff; arp -i sniff -s {to} {}; ping -c {SENT} -W 1 -I sniff {to}; arping -c {SENT} -I sniff {to}; ip addr flush dev sniff",
            desk.mac
        );
        let (_, said) = lab.shells.watcher.run(&script, COMMAND).await?;
        anyhow::ensure!(
            said.contains("0 packets received"),
            "the watcher was answered, or cannot try: {said}"
        );
        let until = Instant::now() + super::STATUS_PATIENCE;
        let mut dropped = self.dropped_of_watcher(lab, &sniff.tap).await? - before;
        while dropped < sent.so_far() as u64 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(100)).await;
            dropped = self.dropped_of_watcher(lab, &sniff.tap).await? - before;
        }
        let sent = sent.stop().await?.len();
        let (at_desk, at_server) = (at_desk.stop().await?.len(), at_server.stop().await?.len());
        Ok((
            sent >= 2 * SENT && dropped >= sent as u64 && at_desk == 0 && at_server == 0,
            format!(
                "{sent} frames sent, {dropped} counted as dropped, {at_desk} at the desk, {at_server} at the server"
            ),
        ))
    }

    async fn dropped_of_watcher(&self, lab: &Lab, tap: &str) -> anyhow::Result<u64> {
        let watchers = self.netd(&lab.watcher).await?.watchers;
        let found = watchers.into_iter().find(|seen| seen.tap == tap);
        Ok(found.with_context(|| format!("netd does not know {tap}"))?.dropped_from_guest.frames)
    }
}

/// Waits until no count grows any more.
async fn quiet(counts: &[Count]) {
    let until = Instant::now() + COPIED;
    let mut last = Vec::new();
    let mut since = Instant::now();
    while since.elapsed() < QUIET && Instant::now() < until {
        let now: Vec<usize> = counts.iter().map(Count::so_far).collect();
        if now != last {
            last = now;
            since = Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Frames that the watching NIC received, says the guest.
async fn received(lab: &mut Lab) -> anyhow::Result<u64> {
    let file = "/sys/class/net/sniff/statistics/rx_packets";
    let (_, text) = lab.shells.watcher.run(&format!("cat {file}"), COMMAND).await?;
    let number = text.lines().rev().find_map(|line| line.trim().parse().ok());
    number.with_context(|| format!("the watcher does not know what it received: {text:?}"))
}
