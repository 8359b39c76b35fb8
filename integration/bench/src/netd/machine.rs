//! A namespace with a real netd in it.

use crate::argv;
use crate::lab::until;
use crate::leash::Leashed;
use crate::network::Namespace;
use anyhow::Context as _;
use netd_client::Client;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// A host whose switches a netd holds. Its state is on disk: what is acknowledged was made durable.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) namespace: Namespace,
    pub(super) client: Client,
    netd: Option<Leashed>,
    program: PathBuf,
    folder: TempDir,
}

impl Machine {
    pub(super) async fn start(program: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("collective-bench.").tempdir_in("/var/tmp")?;
        let at = |name: &str| folder.path().join(name);
        let namespace = Namespace::new()?;
        namespace.batch("ip", "link set dev lo up\n".to_owned())?;
        std::fs::write(
            at("netd.toml"),
            format!(
                "socket = {:?}\nstate_dir = {:?}\nunderlay_address = {:?}\nnamespace_dir = {:?}\n",
                at("netd.sock"),
                at("state"),
                super::document::UNDERLAY,
                at("namespaces"),
            ),
        )?;
        let client = Client::new(at("netd.sock"));
        let program = program.canonicalize().with_context(|| format!("no program {}", program.display()))?;
        let mut machine = Self { namespace, client, netd: None, program, folder };
        machine.resume().await?;
        Ok(machine)
    }

    /// Starts netd again.
    pub(super) async fn resume(&mut self) -> anyhow::Result<()> {
        let at = |name: &str| self.folder.path().join(name);
        let argv = argv![&self.program, "--config", at("netd.toml")];
        self.netd = Some(Leashed::start(Some(&self.namespace.path()), &argv, &at("netd.log"))?);
        let log = at("netd.log");
        until("netd", Duration::from_secs(10), || async { Ok(self.client.status().await.ok()) })
            .await
            .with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
        Ok(())
    }

    /// Ends netd. What it made stays as it is.
    pub(super) fn stop(&mut self) {
        self.netd = None;
    }
}
