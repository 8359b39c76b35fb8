//! Deletion: what was applied goes from every host.

use crate::stage::Stage;
use anyhow::Context as _;
use std::path::Path;
use std::time::Duration;

/// How names of links that netd makes begin: bridges, taps, held taps, tunnels, VLANs, routers' two ends.
const LINKS: [&str; 7] = ["cb", "ct", "ci", "cx", "cv", "cr", "co"];

impl Stage {
    /// Deletes what files applied, each with its deployment, and waits until the hosts hold nothing.
    pub(crate) async fn deletion(&mut self, applied: &[(&Path, &str)]) {
        self.claims.step("collective delete -f");
        let claim = "`collective delete -f` leaves no instance, domain, tap or bridge on any host";
        let result = self.delete_all(applied).await;
        self.conclude(claim, result);
    }

    async fn delete_all(&self, applied: &[(&Path, &str)]) -> anyhow::Result<(bool, String)> {
        for (file, _) in applied {
            self.cli.run(&["delete", "-f", file.to_str().context("no UTF-8 name")?]).await?;
        }
        for (_, deployment) in applied {
            let object = format!("deployment/{deployment}");
            self.cli.run(&["wait", &object, "--for", "deleted", "--timeout", "60s"]).await?;
        }
        let until = std::time::Instant::now() + Duration::from_secs(20);
        loop {
            let left = self.on_hosts()?;
            if left.is_empty() {
                return Ok((true, "each host looked at from inside".to_owned()));
            }
            if std::time::Instant::now() > until {
                return Ok((false, left.join(", ")));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn on_hosts(&self) -> anyhow::Result<Vec<String>> {
        let mut left = Vec::new();
        for name in self.hosts() {
            let part = self.playground.part(&name)?;
            let links = part.exec(&["ip", "-o", "link"])?;
            for line in String::from_utf8_lossy(&links.stdout).lines() {
                let link = line.split(": ").nth(1).unwrap_or_default();
                if LINKS.iter().any(|ours| link.starts_with(ours)) {
                    left.push(format!("{name}: link {link}"));
                }
            }
            let domains = part.exec(&["virsh", "-q", "-c", "qemu:///system", "list", "--all", "--name"])?;
            anyhow::ensure!(domains.status.success(), "virsh: {}", String::from_utf8_lossy(&domains.stderr));
            left.extend(
                String::from_utf8_lossy(&domains.stdout)
                    .split_whitespace()
                    .map(|d| format!("{name}: domain {d}")),
            );
        }
        Ok(left)
    }
}
