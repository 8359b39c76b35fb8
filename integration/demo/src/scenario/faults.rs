//! Faults: daemons killed while guests run, and a host that must start its guests without the controller.

use super::{BOOT_PATIENCE, Serving, Stage};
use crate::observe::host;
use crate::probe;
use anyhow::Context as _;
use chassis::clock::unix_ms;
use std::time::Duration;
use tokio::sync::oneshot;

/// After a daemon was killed, what the API says must be true again within this.
const RECOVERY: Duration = Duration::from_secs(10);
/// Longest silence of the guest's counter that is still "goes on".
const GAP_MS_MAX: u64 = 3_000;

impl Stage {
    /// `kill -9` of controller, agent, netd and streamer, one after the other, while the guests run.
    pub(super) async fn kills(&mut self, serving: &Serving) -> anyhow::Result<()> {
        self.claims.step("kill -9 of controller, agent, netd and streamer, one after the other");
        let (stop, stopped) = oneshot::channel();
        let watcher = probe::watch(serving.office.clone(), stopped);
        let on = host(&serving.workspace).to_owned();
        for (place, daemon) in [("switch", "controller"), (&*on, "agent"), (&*on, "netd"), (&*on, "streamer")]
        {
            let claim = format!("the {daemon} is back and status is true again within 10 s of kill -9");
            let result = self.kill(place, daemon).await;
            if let Some(took) = self.claims.attempt(&claim, result) {
                self.claims.verify(&claim, took <= RECOVERY, &format!("{:.1} s", took.as_secs_f64()));
                self.figures.add(
                    &format!("recovery_s_{daemon}"),
                    &[took.as_secs_f64()],
                    "s",
                    "from kill -9 until every host's status is true again",
                );
            }
        }
        let _ = stop.send(());
        let watched = watcher.await?;
        self.claims.verify(
            "no guest notices: its counter goes on",
            watched.steady && watched.answers > 10 && watched.longest_gap_ms < GAP_MS_MAX,
            &format!("{} answers, same boot, longest silence {} ms", watched.answers, watched.longest_gap_ms),
        );
        Ok(())
    }

    /// The controller stopped, a host's guests dead, its agent restarted: they start from what the host has.
    pub(super) async fn controller_away(&mut self, serving: &Serving) -> anyhow::Result<()> {
        self.claims.step("the controller is stopped; the host's guests die and its agent is restarted");
        let claim = "a host without its controller starts the instances it holds";
        let result = self.start_alone(serving).await;
        if let Some((holds, evidence)) = self.claims.attempt(claim, result) {
            self.claims.verify(claim, holds, &evidence);
        }
        let claim = "status is true again once the controller is back";
        let settled = self.api.settled(&self.hosts(), unix_ms(), Duration::from_secs(60)).await;
        if let Some(took) = self.claims.attempt(claim, settled) {
            self.claims.verify(claim, true, &format!("{:.1} s", took.as_secs_f64()));
        }
        Ok(())
    }

    async fn start_alone(&self, serving: &Serving) -> anyhow::Result<(bool, String)> {
        let boot = serving.office.get("/boot-id", Duration::from_secs(5)).await?;
        let on = host(&serving.workspace);
        let part = self.playground.part(on)?;
        let controller = self.playground.switch()?.daemon_pid("controller")?;
        let stopped = Stopped::now(controller)?;
        let name = format!("c-{}-{}", serving.workspace.id.deployment, serving.workspace.id.member);
        // The agent must not see the guest end: it is dead first.
        let agent = part.clone();
        tokio::task::spawn_blocking(move || agent.kill9("agent")).await??;
        let output = part.exec(&["virsh", "-q", "-c", "qemu:///system", "destroy", &name])?;
        anyhow::ensure!(
            output.status.success(),
            "virsh destroy: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let unreachable = self.api.instance(&serving.workspace.id.to_string()).await.is_err();
        let (now, _) = serving.office.first("/boot-id", BOOT_PATIENCE).await?;
        drop(stopped);
        let again = now != boot;
        Ok((
            unreachable && again,
            format!(
                "{name} on {on} booted anew (boot {} then {}) while the controller did not answer",
                boot.trim(),
                now.trim()
            ),
        ))
    }
}

/// A process that is stopped (SIGSTOP) until this is dropped.
struct Stopped(i32);

impl Stopped {
    fn now(pid: i32) -> anyhow::Result<Self> {
        signal(pid, "-STOP").context("stop the controller")?;
        Ok(Self(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // If it is gone there is nothing to continue.
        let _ = signal(self.0, "-CONT");
    }
}

fn signal(pid: i32, which: &str) -> anyhow::Result<()> {
    let status = std::process::Command::new("kill").args([which, &pid.to_string()]).status()?;
    anyhow::ensure!(status.success(), "kill {which} {pid} ended with {status}");
    Ok(())
}
