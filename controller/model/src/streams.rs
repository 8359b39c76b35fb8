//! What hosts hold beyond what their instances need, and how fast they may fetch.

use crate::checkpoint;
use crate::cluster::Cluster;
use crate::draft::Draft;
use crate::{record, update};
use controller_api::agent::DesiredStream;
use controller_api::stream::LimitScope;
use std::collections::{BTreeMap, BTreeSet};
use streamer_api::{Limits, Prefetch};
use types::{Digest, HostName};

/// No limit is lower, in bytes a second: below, nothing would move.
pub const LIMIT_MIN: u64 = 16 << 10;

/// How a host shall hold each image, if otherwise than as nothing but its instances' base: by digest.
pub(crate) fn held(
    cluster: &Cluster,
    host: &HostName,
    used: &BTreeSet<Digest>,
) -> BTreeMap<Digest, DesiredStream> {
    let mut held: BTreeMap<Digest, DesiredStream> = BTreeMap::new();
    let plain = |image: Digest| DesiredStream {
        image,
        source: cluster.images.get(&image.hex()).map_or(0, |image| image.source),
        prefetch: Prefetch::Off,
        pin: false,
    };
    for hold in cluster.holds.values().map(|stored| &stored.value).filter(|hold| concerns(hold, host)) {
        let prefetch = if hold.ran.contains(host) { Prefetch::Off } else { hold.prefetch };
        if prefetch == Prefetch::Off && !hold.pin {
            continue;
        }
        let stream = held.entry(hold.image).or_insert_with(|| plain(hold.image));
        stream.pin |= hold.pin;
        stream.prefetch = eager(stream.prefetch, prefetch);
    }
    for image in update::prefetches(cluster, host) {
        held.entry(image).or_insert_with(|| plain(image)).prefetch = Prefetch::Full;
    }
    // A host's loss loses nothing of the newest checkpoints.
    for image in checkpoint::replicas(cluster, host) {
        let stream = held.entry(image).or_insert_with(|| plain(image));
        (stream.pin, stream.prefetch) = (true, Prefetch::Full);
    }
    for image in used {
        let stream = plain(*image);
        if stream.source != 0 {
            held.entry(*image).or_insert(stream);
        }
    }
    held
}

fn concerns(hold: &record::Hold, host: &HostName) -> bool {
    hold.hosts.is_empty() || hold.hosts.contains(host)
}

/// The one that fetches more.
fn eager(a: Prefetch, b: Prefetch) -> Prefetch {
    match (a, b) {
        (Prefetch::Full, _) | (_, Prefetch::Full) => Prefetch::Full,
        (Prefetch::Idle, _) | (_, Prefetch::Idle) => Prefetch::Idle,
        _ => Prefetch::Off,
    }
}

/// Hosts a hold is about.
pub fn hosts_of<'a>(cluster: &'a Cluster, hold: &'a record::Hold) -> impl Iterator<Item = &'a HostName> {
    let here = |(name, host): &(&HostName, &crate::cluster::Stored<record::Host>)| {
        host.role == "host" && concerns(hold, name)
    };
    cluster.hosts.iter().filter(here).map(|(name, _)| name)
}

/// A prefetch has done its work where its version runs: notes that, and ends holds that are done everywhere.
pub fn settle(draft: &mut Draft) {
    let holds: Vec<_> =
        draft.cluster.holds.iter().map(|(key, hold)| (key.clone(), hold.value.clone())).collect();
    for ((appliance, version), mut hold) in holds {
        if hold.prefetch == Prefetch::Off {
            continue;
        }
        let runs: BTreeSet<HostName> = draft
            .cluster
            .placements
            .iter()
            .filter(|(id, _)| {
                draft.cluster.instances.get(id).is_some_and(|instance| instance.image == hold.image)
            })
            .map(|(_, placement)| placement.host.clone())
            .filter(|host| concerns(&hold, host) && !hold.ran.contains(host))
            .collect();
        if runs.is_empty() {
            continue;
        }
        hold.ran.extend(runs);
        let key = record::hold_key(&appliance, &version);
        if !hold.pin && hosts_of(&draft.cluster, &hold).all(|host| hold.ran.contains(host)) {
            draft.delete(key);
        } else {
            draft.put(key, &hold);
        }
    }
}

/// How fast a host may fetch and send: the lowest of what is said of all hosts, of its site, shared among the site's
/// hosts that are `online`, and of itself. None if nothing is said.
#[must_use]
pub fn limits(cluster: &Cluster, host: &HostName, online: &BTreeSet<HostName>) -> Option<Limits> {
    let site = cluster.hosts.get(host)?.site.clone();
    let of_site = |name: &&HostName| {
        *name == host
            || cluster.hosts.get(*name).is_some_and(|other| other.role == "host" && other.site == site)
    };
    let sharers =
        online.iter().chain((!online.contains(host)).then_some(host)).filter(of_site).count() as u64;
    let said = |scope: &LimitScope| cluster.limits.get(scope).map(|limits| limits.value);
    let shared = said(&LimitScope::Site(site.clone()))
        .map(|limits| each(limits, |bytes| (bytes / sharers.max(1)).max(LIMIT_MIN)));
    let all = [said(&LimitScope::All), shared, said(&LimitScope::Host(host.clone()))];
    all.into_iter().flatten().reduce(lowest)
}

fn each(limits: Limits, change: impl Fn(u64) -> u64) -> Limits {
    Limits {
        download_bytes_per_s: limits.download_bytes_per_s.map(&change),
        upload_bytes_per_s: limits.upload_bytes_per_s.map(&change),
        site_download_bytes_per_s: limits.site_download_bytes_per_s.map(&change),
        site_upload_bytes_per_s: limits.site_upload_bytes_per_s.map(&change),
    }
}

fn lowest(a: Limits, b: Limits) -> Limits {
    let low = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
    Limits {
        download_bytes_per_s: low(a.download_bytes_per_s, b.download_bytes_per_s),
        upload_bytes_per_s: low(a.upload_bytes_per_s, b.upload_bytes_per_s),
        site_download_bytes_per_s: low(a.site_download_bytes_per_s, b.site_download_bytes_per_s),
        site_upload_bytes_per_s: low(a.site_upload_bytes_per_s, b.site_upload_bytes_per_s),
    }
}

/// Checks limits that somebody asks for.
///
/// # Errors
/// Which of them is too low.
pub fn check(limits: &Limits) -> Result<(), String> {
    let all = [
        ("download", limits.download_bytes_per_s),
        ("upload", limits.upload_bytes_per_s),
        ("site_download", limits.site_download_bytes_per_s),
        ("site_upload", limits.site_upload_bytes_per_s),
    ];
    match all.into_iter().find(|(_, bytes)| bytes.is_some_and(|bytes| bytes < LIMIT_MIN)) {
        Some((name, _)) => {
            Err(format!("{name}_bytes_per_s is at least {LIMIT_MIN} (16 KiB a second), or absent"))
        }
        None => Ok(()),
    }
}
