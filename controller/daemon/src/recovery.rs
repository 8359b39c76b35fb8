//! Leases and what follows when they run out: which statuses are answered, and whose instances start elsewhere.

use crate::app::App;
use crate::ledger::Writes;
use crate::problem::Answer;
use crate::reconcile;
use controller_api::agent::{HostStatus, ToAgent};
use controller_model::lease::Book;
use controller_model::{Cluster, readiness, record, recovery};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use types::{HostName, InstanceId};

/// Leases of this controller's hosts.
#[derive(Debug)]
pub(crate) struct Leases {
    /// Its time is this process's own. It stands while the machine sleeps: hosts are waited for longer then.
    began: Instant,
    book: Mutex<Book>,
    /// Leased instances of lost hosts that stay there, and why, as it was last said.
    held: Mutex<BTreeMap<InstanceId, String>>,
}

impl Default for Leases {
    fn default() -> Self {
        Self { began: Instant::now(), book: Mutex::default(), held: Mutex::default() }
    }
}

impl Leases {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn promised_ms(cluster: &Cluster, host: &HostName) -> u64 {
    cluster.leases.get(host).map_or(0, |held| held.longest_ms)
}

/// The answer to a status, if it may have one. The caller sends what documents there are before it.
pub(crate) fn answer(app: &App, host: &HostName, beat: u64) -> Option<ToAgent> {
    let cluster = app.ledger.cluster();
    let lease_ms = cluster.desired.get(host)?.lease_ms?;
    let now_ms = app.leases.now_ms();
    // One that was removed gets no more.
    let member = cluster.hosts.contains_key(host) && beat > 0;
    let granted = member && app.leases.book().grant(host, lease_ms, promised_ms(&cluster, host), now_ms);
    granted.then_some(ToAgent::Heard { beat, lease_ms })
}

/// Starts elsewhere what lost hosts ran under a lease. Says when the next one may be lost.
pub(crate) async fn pass(app: &App) -> Answer<Option<Duration>> {
    let cluster = app.ledger.cluster();
    settle_records(app, &cluster).await?;
    let hosts = recovery::promised(&cluster);
    let now_ms = app.leases.now_ms();
    let lost: BTreeSet<HostName> = {
        let mut book = app.leases.book();
        hosts
            .iter()
            .filter(|(host, ms)| book.withhold(host, **ms, now_ms))
            .map(|(host, _)| host.clone())
            .collect()
    };
    if !lost.is_empty() {
        // Their connections may seem to be there still: nothing is placed on them before they have dialled again.
        lost.iter().for_each(|host| app.live.cut(host));
        give_away(app, &lost).await?;
    }
    // Hosts that are withheld are told what was given away before they are granted anything.
    if app.leases.book().withholds() {
        reconcile::publish_desired(app).await?;
    }
    let mut book = app.leases.book();
    book.release();
    let next = hosts.iter().filter(|(host, _)| !lost.contains(*host));
    let next = next.map(|(host, ms)| book.over_ms(host, *ms, now_ms).saturating_sub(now_ms)).min();
    Ok(next.map(|ms| Duration::from_millis(ms.max(1))))
}

async fn give_away(app: &App, lost: &BTreeSet<HostName>) -> Answer<()> {
    let (statuses, online) = (app.live.statuses(), app.live.online());
    let others = elsewhere(&statuses, &online, lost);
    let mut held = BTreeMap::new();
    app.ledger
        .record(|cluster| {
            let reach = |image: &types::Digest| readiness::is_whole(others.iter().copied(), image);
            let settled = recovery::settle(cluster, lost, &reach, &mut || uuid::Uuid::new_v4().to_string());
            let mut writes = Writes::of(settled.draft);
            for (object, reason, message) in settled.events {
                writes.event(object, reason, message);
            }
            let said = app.leases.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for (id, why) in settled.held.iter().filter(|(id, why)| said.get(*id) != Some(*why)) {
                let message = format!("its host is lost, and it stays there: {why}");
                writes.event(format!("instance/{id}"), "instance-not-recovered", message);
            }
            held = settled.held;
            Ok(writes)
        })
        .await?;
    *app.leases.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
    Ok(())
}

/// Connected hosts that are not lost.
pub(crate) fn elsewhere<'a>(
    statuses: &'a BTreeMap<HostName, HostStatus>,
    online: &BTreeSet<HostName>,
    lost: &BTreeSet<HostName>,
) -> Vec<&'a HostStatus> {
    let others = statuses.iter().filter(|(host, _)| online.contains(*host) && !lost.contains(*host));
    others.map(|(_, status)| status).collect()
}

/// Forgets promises that are over, and takes for leased what hosts say to have taken so.
async fn settle_records(app: &App, cluster: &Cluster) -> Answer<()> {
    let now_ms = app.leases.now_ms();
    let online = app.live.online();
    let mut changes: BTreeMap<HostName, Option<record::HostLease>> = BTreeMap::new();
    for (host, held) in &cluster.leases {
        let acknowledged = app.live.seen(host).status.map(|status| status.generation);
        let desired = cluster.desired.get(host).filter(|_| cluster.hosts.contains_key(host));
        let wanted_ms = desired.and_then(|desired| desired.lease_ms).unwrap_or_default();
        let running_ms = {
            let mut book = app.leases.book();
            book.over_ms(host, held.longest_ms, now_ms);
            book.longest_ms(host, now_ms).unwrap_or_default()
        };
        let taken = desired.is_some_and(|desired| acknowledged >= Some(desired.generation));
        let loose = if taken { BTreeSet::new() } else { held.loose.clone() };
        let lost = held.lost && cluster.hosts.contains_key(host) && !online.contains(host);
        let settled =
            record::HostLease { lost, longest_ms: held.longest_ms.min(wanted_ms.max(running_ms)), loose };
        let over = settled == record::HostLease::default();
        // What a removed host may still run has its placement there.
        let placed = cluster.placements.values().any(|placement| placement.host == *host);
        if over && !(placed && desired.is_none()) {
            changes.insert(host.clone(), None);
        } else if settled != held.value {
            changes.insert(host.clone(), Some(settled));
        }
    }
    if changes.is_empty() {
        return Ok(());
    }
    let before = cluster.clone();
    app.ledger
        .record(|cluster| {
            let mut writes = Writes::default();
            // Another document may have been written meanwhile.
            let same = |host: &HostName| {
                let revision = |cluster: &Cluster| {
                    (
                        cluster.leases.get(host).map(|held| held.revision),
                        cluster.desired.get(host).map(|held| held.revision),
                    )
                };
                revision(cluster) == revision(&before)
            };
            for (host, change) in changes.iter().filter(|(host, _)| same(host)) {
                match change {
                    Some(held) => writes.put(format!("leases/{host}"), held),
                    None => writes.delete(format!("leases/{host}")),
                }
            }
            Ok(writes)
        })
        .await
        .map(drop)
}
