//! What every handler has at hand.

use crate::identity::Authority;
use crate::ledger::Ledger;
use crate::library::Library;
use crate::live::Live;
use crate::policies::Policies;
use crate::recovery::Leases;
use crate::subscriptions::Turns;
use crate::tracker::Tracker;
use crate::{checkpoints, planned};
use chassis::reconcile::Hint;
use controller_api::agent::{HostStatus, InstanceState};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use types::{Digest, HostName};

/// One controller. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct App(Arc<Parts>);

/// Its parts.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) ledger: Ledger,
    pub(crate) live: Live,
    pub(crate) leases: Leases,
    pub(crate) authority: Authority,
    pub(crate) policies: Arc<Policies>,
    pub(crate) tracker: Mutex<Tracker>,
    /// Announce URL.
    pub(crate) tracker_url: String,
    /// Guests on their way at once.
    pub(crate) moves_max: usize,
    /// `https://NAME:PORT`, as hosts reach us.
    pub(crate) public_url: String,
    /// When which publisher's repository is looked at.
    pub(crate) turns: Turns,
    pub(crate) state_dir: PathBuf,
    /// What guests read of each image.
    pub(crate) library: Library,
    /// Held from when files are written until the store refers to them, or they are removed again.
    pub(crate) filing: tokio::sync::Mutex<()>,
    pub(crate) shutdown: CancellationToken,
    /// Connections that outlive their request: agents and consoles.
    pub(crate) sessions: TaskTracker,
    /// Set once the loop runs.
    pub(crate) hint: OnceLock<Hint>,
}

impl std::ops::Deref for App {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl App {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Asks the loop for a pass.
    pub(crate) fn wake(&self) {
        if let Some(hint) = self.hint.get() {
            hint.now();
        }
    }

    /// Where an image's metainfo and manifest are.
    pub(crate) fn image_files(&self, digest: &Digest) -> (PathBuf, PathBuf) {
        let folder = self.state_dir.join("images");
        (folder.join(format!("{}.torrent", digest.hex())), folder.join(format!("{}.manifest", digest.hex())))
    }

    /// Takes a host's status up, and tells watchers what is otherwise than before.
    pub(crate) fn report(&self, host: &HostName, status: HostStatus, now_ms: u64) {
        let (changed, otherwise) = self.live.report(host, status, now_ms);
        let cluster = self.ledger.cluster();
        // What is interposed comes into its path when it is ready.
        let via = changed.iter().any(|id| cluster.vias.contains_key(id));
        // A policy may have waited for it.
        let awaited =
            changed.iter().any(|id| planned::awaits(&cluster, id) || checkpoints::awaits(&cluster, id));
        let deployments: std::collections::BTreeSet<_> =
            changed.iter().map(|id| id.deployment.to_string()).collect();
        for id in changed {
            self.ledger.hint("instances", id.to_string());
        }
        for deployment in deployments {
            self.ledger.hint("deployments", deployment);
        }
        if otherwise {
            self.ledger.hint("hosts", host.to_string());
        }
        if otherwise || via || awaited {
            self.wake();
        }
    }
}

/// States in which an instance counts as served.
pub(crate) fn is_ready(state: InstanceState) -> bool {
    state == InstanceState::Ready
}
