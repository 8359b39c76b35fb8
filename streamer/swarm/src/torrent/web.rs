//! The torrent's web seed: when it joins, and how long it is left alone after it failed.

use super::Task;
use super::members::Peer;
use crate::connection::Ended;
use crate::web_seed::{self, WebSeed, WebSeedError};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use streamer_plan::PeerKey;
use tokio::sync::mpsc;

/// Waits after a failure, each twice the one before.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// The wait after wrong bytes, at first.
const BAN_MIN: Duration = Duration::from_secs(10);
/// The wait after what will not be better soon.
const BAN_MAX: Duration = Duration::from_secs(300);

pub(super) struct Web {
    url: String,
    /// While it is a peer.
    key: Option<PeerKey>,
    /// When it may be one again.
    at: Duration,
    wait: Duration,
    pub(super) trouble: Option<String>,
}

impl Task {
    /// Another web seed from now on, or none.
    pub(super) fn set_web_seed(&mut self, url: Option<String>) {
        if self.web.as_ref().map(|web| &web.url) == url.as_ref() {
            return;
        }
        if let Some(key) = self.web.take().and_then(|web| web.key) {
            self.forget(key, &Ended::Dropped);
        }
        let at = self.now();
        self.web = url.map(|url| Web { url, key: None, at, wait: Duration::ZERO, trouble: None });
    }

    /// When it joins.
    pub(super) fn web_due(&self) -> Option<Duration> {
        let web = self.web.as_ref()?;
        (web.key.is_none() && !self.scheduler.held().is_full()).then_some(web.at)
    }

    /// Lets the web seed in if it is time.
    pub(super) fn join_web_seed(&mut self, now: Duration) {
        if self.web_due().is_none_or(|at| now < at) {
            return;
        }
        let address = Arc::new(OnceLock::new());
        let (say, queue) = mpsc::unbounded_channel();
        let key = self.insert(Peer::web_seed(say, Arc::clone(&address), self.shared.lane()));
        let Some(web) = &mut self.web else { return };
        web.key = Some(key);
        let seed = WebSeed {
            key,
            url: web.url.clone(),
            http: self.shared.http.clone(),
            geometry: self.geometry,
            say: queue,
            events: self.events.clone(),
            address,
        };
        self.shared.tasks.spawn(web_seed::run(seed));
    }

    /// A piece of the web seed was right.
    pub(super) fn web_seed_helped(&mut self) {
        if let Some(web) = &mut self.web {
            web.wait = Duration::ZERO;
            web.trouble = None;
        }
    }

    /// A request failed: it is left alone for a while.
    pub(super) fn web_seed_failed(&mut self, error: &WebSeedError) {
        let wait = if error.is_lasting() { BAN_MAX } else { RETRY_MIN };
        self.leave_web_seed_alone(error.to_string(), wait, RETRY_MAX.max(wait));
    }

    /// It sent wrong bytes.
    pub(super) fn web_seed_lied(&mut self) {
        self.leave_web_seed_alone("the web seed sends wrong bytes".to_owned(), BAN_MIN, BAN_MAX);
    }

    fn leave_web_seed_alone(&mut self, trouble: String, min: Duration, max: Duration) {
        let now = self.now();
        let Some(web) = &mut self.web else { return };
        web.key = None;
        web.wait = (web.wait * 2).clamp(min, max);
        web.at = now + web.wait;
        tracing::warn!(
            url = web.url,
            trouble,
            wait_s = web.wait.as_secs(),
            "the web seed is left alone for a while"
        );
        web.trouble = Some(trouble);
    }
}
