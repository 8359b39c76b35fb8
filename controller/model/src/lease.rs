//! Leases: which hosts run instances only as long as the controller hears them, which instances those are, and when a
//! host has surely stopped them.
//!
//! A host sends a numbered status at its time *t*; the controller receives it later, at its own time *c*, and answers
//! that the host may run leased instances until *t* + lease. No clock is compared with another: the host counts from
//! when it sent, the controller from when it received, which is never earlier, and waits the lease and a margin
//! ([`margin_ms`]) before it starts anything elsewhere. Gray and Cheriton, SOSP 1989.
//!
//! ```text
//!   host        t ─────────── lease ───────────┤ stopped
//!   controller    └─> c ──────────── lease ────────────┼── margin ──┤ started elsewhere
//! ```
//!
//! What a controller promised outlives it: the longest lease that may still run at a host is in the store before it is
//! granted, and a controller that has just started counts it from its own start ([`Book`]).

use crate::cluster::Cluster;
use crate::{interpose, moving, record};
use controller_api::agent::HostDesired;
use controller_api::recovery::RecoverySpec;
use std::collections::BTreeMap;
use types::{HostName, InstanceId};

/// How much longer than a lease the controller waits: for the host to kill the guests, and for clocks that do not run
/// equally fast. In milliseconds.
const MARGIN_MS: u64 = 1_000;
/// Clocks may differ in speed by so many thousandths; those of real machines do by less than one.
const DRIFT_PERMILLE: u64 = 10;

/// What is waited beyond a lease of this length, in milliseconds.
#[must_use]
pub fn margin_ms(lease_ms: u64) -> u64 {
    MARGIN_MS + lease_ms.saturating_mul(DRIFT_PERMILLE) / 1_000
}

/// What is to happen to an instance if its host is lost; none if nothing.
#[must_use]
pub fn recovery(cluster: &Cluster, id: &InstanceId) -> Option<RecoverySpec> {
    cluster.deployments.get(&id.deployment)?.recovery.filter(RecoverySpec::is_leased)
}

/// How long a host may run leased instances after it was last heard, in milliseconds; none if it holds none. It is the
/// shortest lease of those that are there or on their way there.
#[must_use]
pub fn of_host(cluster: &Cluster, host: &HostName) -> Option<u64> {
    let here = cluster.placements.iter().filter(|(_, placement)| placement.host == *host);
    let here = here.map(|(id, _)| id).filter(|id| interpose::stands(cluster, id, host));
    let all = here.chain(moving::arrivals(cluster, host));
    all.filter_map(|id| Some(recovery(cluster, id)?.lease.ms)).min()
}

/// It runs under its host's lease only: it may be started elsewhere once that has run out.
#[must_use]
pub fn is_leased(cluster: &Cluster, id: &InstanceId) -> bool {
    recovery(cluster, id).is_some()
}

/// The record of a host's leases once it is sent `new` instead of `old`: no grant is shorter than what it says, and an
/// instance that the host may still run without a lease is not taken for leased before the host has said otherwise.
#[must_use]
pub fn published(
    held: Option<&record::HostLease>,
    old: Option<&HostDesired>,
    new: &HostDesired,
) -> record::HostLease {
    let held = held.cloned().unwrap_or_default();
    let was_free = |id: &InstanceId| {
        old.is_some_and(|old| old.instances.iter().any(|instance| instance.id == *id && !instance.leased))
    };
    let leased = new.instances.iter().filter(|instance| instance.leased).map(|instance| &instance.id);
    record::HostLease {
        lost: held.lost,
        longest_ms: held.longest_ms.max(new.lease_ms.unwrap_or_default()),
        loose: leased.filter(|id| held.loose.contains(id) || was_free(id)).cloned().collect(),
    }
}

/// What one host was granted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Granted {
    /// When leases of each length have surely run out, in milliseconds of the controller's own clock.
    over_ms: BTreeMap<u64, u64>,
    /// Its instances are being given away: it gets no lease before it has been told so.
    withheld: bool,
}

/// What one controller has granted since it started. Its time is milliseconds of a clock that is never set, and that
/// may stand while the machine sleeps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book {
    hosts: BTreeMap<HostName, Granted>,
}

impl Book {
    fn entry(&mut self, host: &HostName, promised_ms: u64, now_ms: u64) -> &mut Granted {
        self.hosts.entry(host.clone()).or_insert_with(|| {
            // It may have been heard by the controller before this one, just before that ended.
            let over_ms = now_ms.saturating_add(promised_ms).saturating_add(margin_ms(promised_ms));
            Granted { over_ms: [(promised_ms, over_ms)].into(), withheld: false }
        })
    }

    /// A host's status was received: whether it may be answered with a lease of this length. `promised_ms` is what the
    /// store says; a longer lease is not granted before it says so.
    pub fn grant(&mut self, host: &HostName, lease_ms: u64, promised_ms: u64, now_ms: u64) -> bool {
        let granted = self.entry(host, promised_ms, now_ms);
        if granted.withheld || lease_ms > promised_ms {
            return false;
        }
        let over_ms = now_ms.saturating_add(lease_ms).saturating_add(margin_ms(lease_ms));
        let held = granted.over_ms.entry(lease_ms).or_default();
        *held = over_ms.max(*held);
        granted.over_ms.retain(|length, over_ms| *over_ms > now_ms || *length == lease_ms);
        true
    }

    /// When a host has surely stopped its leased instances, in milliseconds of the controller's own clock, if it is not
    /// heard until then. One that this controller never looked at before counts as heard now.
    pub fn over_ms(&mut self, host: &HostName, promised_ms: u64, now_ms: u64) -> u64 {
        self.entry(host, promised_ms, now_ms).over_ms.values().copied().max().unwrap_or_default()
    }

    /// Grants a host nothing until [`Self::release`], if it is lost now; says whether it is.
    pub fn withhold(&mut self, host: &HostName, promised_ms: u64, now_ms: u64) -> bool {
        let lost = self.over_ms(host, promised_ms, now_ms) <= now_ms;
        if lost && let Some(granted) = self.hosts.get_mut(host) {
            granted.withheld = true;
        }
        lost
    }

    /// Grants a host nothing until [`Self::release`], lost or not.
    pub fn suspend(&mut self, host: &HostName, promised_ms: u64, now_ms: u64) {
        self.entry(host, promised_ms, now_ms).withheld = true;
    }

    /// Some host is granted nothing.
    #[must_use]
    pub fn withholds(&self) -> bool {
        self.hosts.values().any(|granted| granted.withheld)
    }

    /// What was given away is in the documents: hosts that are heard again get leases.
    pub fn release(&mut self) {
        self.hosts.values_mut().for_each(|granted| granted.withheld = false);
    }

    /// The longest lease that a host may still have, in milliseconds; none if all have run out.
    #[must_use]
    pub fn longest_ms(&self, host: &HostName, now_ms: u64) -> Option<u64> {
        let over_ms = &self.hosts.get(host)?.over_ms;
        over_ms.iter().filter(|(_, over_ms)| **over_ms > now_ms).map(|(length, _)| *length).max()
    }

    /// This controller has looked at the host before.
    #[must_use]
    pub fn knows(&self, host: &HostName) -> bool {
        self.hosts.contains_key(host)
    }
}

#[cfg(test)]
mod tests;
