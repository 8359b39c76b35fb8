//! One host, or the origin.

use crate::uploads::Uploads;
use std::collections::BTreeMap;
use std::time::Duration;
use streamer_plan::Scheduler;

/// What a guest is doing.
#[derive(Debug, Default)]
pub struct Guest {
    pub steps: Vec<(u32, Duration)>,
    pub(crate) at: usize,
    pub(crate) waits_since: Option<Duration>,
    /// How long each read waited that had to.
    pub stalls: Vec<Duration>,
    /// When it had read everything.
    pub done: Option<Duration>,
}

/// A host, or the origin.
pub struct Node {
    pub scheduler: Scheduler,
    pub site: usize,
    pub alive: bool,
    pub frozen: bool,
    /// Sends wrong bytes.
    pub poisonous: bool,
    pub guest: Guest,
    /// Changes when it comes and goes: what was said before is not heard after.
    pub(crate) epoch: u32,
    pub(crate) uploads: Uploads,
    pub(crate) sending: bool,
    pub(crate) down_free: Duration,
    pub(crate) wake: Option<Duration>,
    pub(crate) senders: BTreeMap<u32, usize>,
    pub(crate) banned: BTreeMap<usize, Duration>,
}

impl Node {
    pub(crate) fn new(scheduler: Scheduler, site: usize) -> Self {
        Self {
            scheduler,
            site,
            alive: true,
            frozen: false,
            poisonous: false,
            guest: Guest::default(),
            epoch: 0,
            uploads: Uploads::default(),
            sending: false,
            down_free: Duration::ZERO,
            wake: None,
            senders: BTreeMap::new(),
            banned: BTreeMap::new(),
        }
    }
}
