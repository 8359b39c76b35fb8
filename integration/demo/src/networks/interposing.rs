//! A wire comes into the path of a running port, holds it, and leaves it again, while a person outside downloads through
//! that port.

use super::{COMMAND, LAB, Lab, nic};
use crate::observe::host;
use crate::stage::{BOOT_PATIENCE, Stage};
use crate::stream::Stream;
use anyhow::Context as _;
use controller_api::interpose::{InterpositionPhase, InterpositionView};
use controller_api::rest::{DeploymentView, InstanceView};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Times the wire comes and goes.
const ROUNDS: usize = 3;
/// The port, as people name it.
const PORT: &str = "lab/desk/eth0";
/// Between two looks at how far an interposition is.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// An effect on the stream shows within this of what the API says.
const AFTER: Duration = Duration::from_millis(500);
/// What the bundle lets the port send, in bytes a second: 8 Mbit/s.
const LIMIT: f64 = 1_000_000.0;
/// A second of the stream, near enough.
const SOME: u64 = 500_000;
/// A busy machine's worst second.
const PATIENCE: Duration = Duration::from_secs(30);
/// The wire is paused for this long.
const PAUSE: Duration = Duration::from_secs(2);
/// What was on its way when the wire was paused has arrived after this.
const DRAINED: Duration = Duration::from_millis(300);
/// Longest outage that a person does not notice.
const OUTAGE_MS_MAX: f64 = 1000.0;

/// Outages of the stream, in milliseconds.
#[derive(Debug, Default)]
struct Outages {
    undisturbed: Vec<f64>,
    coming: Vec<f64>,
    leaving: Vec<f64>,
}

impl Stage {
    /// The wire comes and goes, and is paused, counted and survived in between.
    pub(super) async fn interposing(&mut self, lab: &mut Lab) -> anyhow::Result<()> {
        self.claims.step("a download through a port, and a wire into its path and out of it again");
        let stream = Stream::open(&self.playground.switch()?, lab.published()).await?;
        stream.flows(SOME, PATIENCE).await?;
        let link = carrier_changes(lab).await?;
        let mut outages = Outages::default();
        for round in 1..=ROUNDS {
            self.claims
                .step(&format!("round {round} of {ROUNDS}: collective interpose {PORT} --with acme/wire"));
            let began = Instant::now();
            stream.flows(2 * SOME, PATIENCE).await?;
            outages.undisturbed.push(milliseconds(stream.longest_pause(began, Instant::now())));
            let came = self.comes(&stream).await;
            let Some(came) = self.claims.attempt("the wire comes into the path", came) else { break };
            outages.coming.push(came);
            match round {
                1 => self.in_the_path(lab, &stream).await?,
                2 => {
                    let found = self.crashed(&stream).await;
                    self.conclude(
                        "when the wire dies nothing passes until it is back, and the stream goes on",
                        found,
                    );
                }
                _ => {}
            }
            let left = self.leaves(&stream).await;
            let Some(left) = self.claims.attempt("the wire leaves the path", left) else { break };
            outages.leaving.push(left);
        }
        let now = carrier_changes(lab).await?;
        self.claims.verify(
            "the guest's link stayed up",
            now == link,
            &format!("carrier changes of its NIC since boot: {link} before, {now} after"),
        );
        let end = stream.finish(PATIENCE).await;
        self.conclude(
            "the download came whole through all of it, on one connection",
            end.map(|(bytes, last)| (true, format!("{bytes} bytes, numbers 1 to {last} without a hole"))),
        );
        self.outages(&outages);
        Ok(())
    }

    fn outages(&mut self, outages: &Outages) {
        let worst = outages.coming.iter().chain(&outages.leaving).copied().fold(0.0, f64::max);
        let all = outages.coming.len() == ROUNDS && outages.leaving.len() == ROUNDS;
        self.claims.verify(
            "coming into the path and leaving it holds the stream up for less than a second",
            all && worst < OUTAGE_MS_MAX,
            &format!(
                "longest waits in ms, {ROUNDS} rounds: {:.0?} coming, {:.0?} leaving, {:.0?} undisturbed",
                outages.coming, outages.leaving, outages.undisturbed
            ),
        );
        let note = "longest wait between two arrivals of an 8 Mbit/s stream, from the last look before to half a second after";
        self.figures.add("interpose_outage_ms", &outages.coming, "ms", note);
        self.figures.add("interpose_leave_outage_ms", &outages.leaving, "ms", note);
        self.figures.add(
            "interpose_undisturbed_ms",
            &outages.undisturbed,
            "ms",
            "longest wait of the same stream over about a second in which nothing is done",
        );
    }

    /// Interposes the wire; the stream's longest wait around the moment when it came into the path.
    async fn comes(&self, stream: &Stream) -> anyhow::Result<f64> {
        self.cli.run(&["interpose", PORT, "--with", "acme/wire"]).await?;
        let into = |views: &[InterpositionView]| {
            views.first().is_some_and(|view| view.phase == InterpositionPhase::Spliced && view.passes)
        };
        let before = |views: &[InterpositionView]| {
            views.first().is_none_or(|view| view.phase == InterpositionPhase::Prepared)
        };
        self.around(stream, before, into).await
    }

    /// Takes the wire out of the path; the stream's longest wait around that.
    async fn leaves(&self, stream: &Stream) -> anyhow::Result<f64> {
        let began = Instant::now();
        self.cli.run(&["interpose", PORT, "--remove", "--wait", "--timeout", "60s"]).await?;
        tokio::time::sleep(AFTER).await;
        stream.flows(SOME, PATIENCE).await?;
        Ok(milliseconds(stream.longest_pause(began, Instant::now())))
    }

    /// The stream's longest wait from when `before` was last seen until half a second after `done` was first.
    async fn around(
        &self,
        stream: &Stream,
        before: impl Fn(&[InterpositionView]) -> bool,
        done: impl Fn(&[InterpositionView]) -> bool,
    ) -> anyhow::Result<f64> {
        let until = Instant::now() + BOOT_PATIENCE;
        let mut from = Instant::now();
        loop {
            let look = Instant::now();
            let view: DeploymentView = self.api.get(&format!("/v1/deployments/{LAB}")).await?;
            if done(&view.interpositions) {
                break;
            }
            if before(&view.interpositions) {
                from = look;
            }
            anyhow::ensure!(look < until, "it is not done: {:?}", view.interpositions);
            tokio::time::sleep(LOOK_EVERY).await;
        }
        tokio::time::sleep(AFTER).await;
        let to = Instant::now();
        stream.flows(SOME, PATIENCE).await?;
        Ok(milliseconds(stream.longest_pause(from, to)))
    }

    /// What holds while the wire is in the path.
    async fn in_the_path(&mut self, lab: &mut Lab, stream: &Stream) -> anyhow::Result<()> {
        let wire = self.wire().await?;
        let found = self.through(&wire, stream).await;
        self.conclude(
            "every byte of the stream goes through the wire, and the port's limit holds there",
            found,
        );
        let found = self.copies(lab).await;
        self.conclude("a watcher gets every frame once while a wire is in the path, too", found);
        let found = self.explained().await;
        self.conclude("`collective network explain` names the wire in the path", found);
        let found = self.paused(&wire, stream).await;
        self.conclude("with the wire paused nothing passes, and the stream goes on when it does", found);
        let found = self.without_netd(lab, &wire, stream).await;
        self.conclude("kill -9 of netd leaves the chain as it is, and the stream goes on", found);
        Ok(())
    }

    async fn wire(&self) -> anyhow::Result<InstanceView> {
        let view: DeploymentView = self.api.get(&format!("/v1/deployments/{LAB}")).await?;
        let id = &view.interpositions.first().context("nothing is interposed")?.instance;
        let found = view.instances.into_iter().find(|instance| instance.id == *id);
        found.with_context(|| format!("there is no instance {id}"))
    }

    async fn through(&self, wire: &InstanceView, stream: &Stream) -> anyhow::Result<(bool, String)> {
        let (outer, inner) = (nic(wire, "outer")?, nic(wire, "inner")?);
        let bytes = async || -> anyhow::Result<(u64, u64)> {
            let sent = self.counters(wire, outer).await?.from_guest.bytes;
            Ok((sent, self.counters(wire, inner).await?.to_guest.bytes))
        };
        let (before, at, began) = (bytes().await?, stream.bytes(), Instant::now());
        stream.flows(4 * SOME, PATIENCE).await?;
        let (arrived, took) = (stream.bytes() - at, began.elapsed());
        // A host's status is of the second before.
        let until = Instant::now() + super::STATUS_PATIENCE;
        let mut now = bytes().await?;
        while (now.0 - before.0 < arrived || now.1 - before.1 < arrived) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(100)).await;
            now = bytes().await?;
        }
        let (sent, taken) = (now.0 - before.0, now.1 - before.1);
        #[expect(clippy::cast_precision_loss, reason = "bytes of some seconds")]
        let rate = arrived as f64 / took.as_secs_f64();
        Ok((
            sent >= arrived && taken >= arrived && rate < LIMIT * 1.1,
            format!(
                "{arrived} bytes arrived at {:.1} Mbit/s; the wire took {taken} bytes from the guest and sent {sent} on",
                rate * 8.0 / 1e6
            ),
        ))
    }

    async fn explained(&self) -> anyhow::Result<(bool, String)> {
        let (from, to) = (format!("{LAB}/server"), format!("{LAB}/desk"));
        let (code, text) = self.cli.answer(&["network", "explain", &from, &to, "--tcp", "80"]).await?;
        let line = text.lines().find(|line| line.contains("via-desk-eth0"));
        Ok((code == 0 && line.is_some(), line.unwrap_or(&text).trim().to_owned()))
    }

    async fn paused(&self, wire: &InstanceView, stream: &Stream) -> anyhow::Result<(bool, String)> {
        self.virsh(wire, "suspend")?;
        tokio::time::sleep(DRAINED).await;
        let before = stream.bytes();
        tokio::time::sleep(PAUSE).await;
        let passed = stream.bytes() - before;
        self.virsh(wire, "resume")?;
        let again = stream.flows(SOME, PATIENCE).await?;
        Ok((
            passed == 0,
            format!("{passed} bytes in {} s, then {SOME} in {:.1} s", PAUSE.as_secs(), again.as_secs_f64()),
        ))
    }

    /// Ends the wire's guest the hard way; its host starts it again by itself.
    async fn crashed(&self, stream: &Stream) -> anyhow::Result<(bool, String)> {
        let wire = self.wire().await?;
        self.virsh(&wire, "destroy")?;
        let died = Instant::now();
        tokio::time::sleep(DRAINED).await;
        let before = stream.bytes();
        let id = wire.id.to_string();
        let back = self
            .api
            .instance_until(&id, "started again", BOOT_PATIENCE, |now| now.starts > wire.starts)
            .await?;
        let passed = stream.bytes() - before;
        stream.flows(SOME, BOOT_PATIENCE).await?;
        let same = back.incarnation == wire.incarnation;
        Ok((
            passed == 0 && same,
            format!(
                "{passed} bytes until its host had started it again, then {SOME}, {:.1} s after it died",
                died.elapsed().as_secs_f64()
            ),
        ))
    }

    fn virsh(&self, instance: &InstanceView, verb: &str) -> anyhow::Result<()> {
        let part = self.playground.part(host(instance))?;
        let domain = format!("c-{}-{}", instance.id.deployment, instance.id.member);
        let output = part.exec(&["virsh", "-q", "-c", "qemu:///system", verb, &domain])?;
        let problem = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "virsh {verb} {domain}: {}", problem.trim());
        Ok(())
    }

    async fn without_netd(
        &mut self,
        lab: &Lab,
        wire: &InstanceView,
        stream: &Stream,
    ) -> anyhow::Result<(bool, String)> {
        let on = host(wire).to_owned();
        let before = self.chain(&on)?;
        let began = Instant::now();
        let recovery = self.kill(&on, "netd").await?;
        stream.flows(SOME, PATIENCE).await?;
        let pause = milliseconds(stream.longest_pause(began, Instant::now()));
        let after = self.chain(&on)?;
        self.figures.add(
            "interpose_netd_kill_outage_ms",
            &[pause],
            "ms",
            "longest wait of the same stream from kill -9 of netd until all is as desired again",
        );
        let (through, counted) = self.through(wire, stream).await?;
        let guest = nic(&lab.desk, "eth0")?;
        let held = before.contains_key(&guest.tap);
        Ok((
            before == after && held && through && pause < OUTAGE_MS_MAX,
            format!(
                "{} links of {on} with the same bridges, longest wait {pause:.0} ms, as desired after {:.1} s; {counted}",
                after.len(),
                recovery.as_secs_f64()
            ),
        ))
    }

    /// The links of a host with their index and the bridge each is on.
    fn chain(&self, on: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let output = self.playground.part(on)?.exec(&["ip", "-o", "link"])?;
        anyhow::ensure!(output.status.success(), "ip link: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let link = |line: &str| {
            let mut words = line.split_whitespace();
            let (index, name) = (words.next()?, words.next()?);
            let bridge = line.split_once(" master ").and_then(|(_, rest)| rest.split(' ').next());
            let name = name.trim_end_matches(':').split('@').next()?;
            Some((name.to_owned(), format!("{index} {}", bridge.unwrap_or("none"))))
        };
        Ok(text.lines().filter_map(link).collect())
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// How often the desk's NIC lost or got its carrier since it booted, says the guest.
async fn carrier_changes(lab: &mut Lab) -> anyhow::Result<u32> {
    let (_, text) = lab.shells.desk.run("cat /sys/class/net/eth0/carrier_changes", COMMAND).await?;
    let number = text.lines().rev().find_map(|line| line.trim().parse().ok());
    number.with_context(|| format!("the desk does not know its link: {text:?}"))
}
