//! What the model promises about images that are held ahead of need, and about limits.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, dead_code, reason = "support is a module of several tests")]

mod support;

use controller_api::agent::{DesiredStream, HostDesired};
use controller_model::{Cluster, Draft, desired, record, streams};
use proptest::prelude::*;
use std::collections::BTreeSet;
use streamer_api::{Limits, Prefetch};
use support::{add_host, office};
use types::{Digest, HostName};

fn host(name: &str) -> HostName {
    name.parse().unwrap()
}

fn document(cluster: &Cluster, name: &str) -> HostDesired {
    desired::desired(cluster, &BTreeSet::new())[&host(name)].clone()
}

/// The office's workspace runs on h2; a new version of it is held.
fn held(prefetch: Prefetch, pin: bool, hosts: &[&str]) -> (Draft, Digest) {
    let mut draft = Draft::new(office());
    let image = Digest::from_bytes([7; 32]);
    let hosts = hosts.iter().map(|name| host(name)).collect();
    let hold = record::Hold { image, hosts, prefetch, pin, ran: BTreeSet::new() };
    draft.put("holds/acme/workspace/2.0.0", &hold);
    (draft, image)
}

#[test]
fn a_prefetch_puts_the_image_on_the_hosts_it_names_and_no_others() {
    let (draft, image) = held(Prefetch::Idle, false, &["h1"]);
    let (first, second) = (document(&draft.cluster, "h1"), document(&draft.cluster, "h2"));
    assert_eq!(first.streams, [DesiredStream { image, source: 0, prefetch: Prefetch::Idle, pin: false }]);
    assert!(first.images.contains(&image) && first.images.len() == 2);
    assert_eq!((second.images.len(), second.streams), (1, vec![]));
    let (draft, image) = held(Prefetch::Idle, false, &[]);
    assert!(["h1", "h2"].iter().all(|name| document(&draft.cluster, name).images.contains(&image)));
}

#[test]
fn a_prefetch_ends_where_its_version_runs_and_is_gone_when_that_is_everywhere() {
    let (mut draft, image) = held(Prefetch::Idle, false, &["h1", "h2"]);
    let run_on = |draft: &mut Draft, id: &str, name: &str| {
        let mut instance = draft.cluster.instances[&"office/workspace".parse().unwrap()].value.clone();
        instance.image = image;
        draft.put(format!("instances/{id}"), &instance);
        draft.put(format!("placements/{id}"), &record::Placement { host: host(name), decision: 1 });
    };
    streams::settle(&mut draft);
    assert!(!draft.cluster.holds.is_empty());
    run_on(&mut draft, "office/workspace", "h2");
    streams::settle(&mut draft);
    assert_eq!(document(&draft.cluster, "h2").streams, []);
    assert_eq!(document(&draft.cluster, "h1").streams.len(), 1);
    run_on(&mut draft, "office/gateway", "h1");
    streams::settle(&mut draft);
    assert!(draft.cluster.holds.is_empty(), "there is nothing left to fetch ahead");
}

#[test]
fn a_pin_outlives_the_prefetch() {
    let (mut draft, image) = held(Prefetch::Idle, true, &[]);
    let mut instance = draft.cluster.instances[&"office/workspace".parse().unwrap()].value.clone();
    instance.image = image;
    draft.put("instances/office/workspace", &instance);
    draft.put("placements/office/gateway", &record::Placement { host: host("h1"), decision: 1 });
    streams::settle(&mut draft);
    let streams = document(&draft.cluster, "h2").streams;
    assert_eq!(streams, [DesiredStream { image, source: 0, prefetch: Prefetch::Off, pin: true }]);
}

#[test]
fn hosts_are_told_when_an_images_source_has_changed() {
    let mut draft = Draft::new(office());
    let image = draft.cluster.instances[&"office/workspace".parse().unwrap()].image;
    let record = record::Image {
        info_hash: String::new(),
        size_bytes: 1 << 20,
        source: 3,
        web_seed: None,
        layer_ms: None,
    };
    draft.put(format!("images/{}", image.hex()), &record);
    assert_eq!(document(&draft.cluster, "h2").streams[0].source, 3);
    assert_eq!(document(&draft.cluster, "h1").streams, [], "it does not use that image");
}

fn down(bytes: u64) -> Limits {
    Limits { download_bytes_per_s: Some(bytes), ..Limits::default() }
}

#[test]
fn a_sites_limit_is_shared_among_its_online_hosts_and_the_lowest_counts() {
    let mut draft = Draft::new(office());
    add_host(&mut draft, "h3", "10.99.0.3");
    let online = |names: &[&str]| names.iter().map(|name| host(name)).collect::<BTreeSet<_>>();
    let of = |draft: &Draft, name: &str, names: &[&str]| {
        streams::limits(&draft.cluster, &host(name), &online(names)).and_then(|l| l.download_bytes_per_s)
    };
    assert_eq!(of(&draft, "h1", &["h1"]), None);
    draft.put("limits/site/main", &down(90_000_000));
    assert_eq!(of(&draft, "h1", &["h1", "h2", "h3"]), Some(30_000_000));
    assert_eq!(of(&draft, "h1", &["h1"]), Some(90_000_000));
    assert_eq!(of(&draft, "h1", &["h2"]), Some(45_000_000), "one that is not online yet may be in a moment");
    draft.put("limits/host/h1", &down(10_000_000));
    draft.put("limits/all", &down(20_000_000));
    assert_eq!(of(&draft, "h1", &["h1"]), Some(10_000_000));
    assert_eq!(of(&draft, "h2", &["h2"]), Some(20_000_000));
    assert_eq!(document(&draft.cluster, "h1").limits, Some(down(10_000_000)));
}

proptest! {
    #[test]
    fn what_a_sites_hosts_may_fetch_together_is_never_above_its_limit_but_for_the_smallest_share(
        limit in streams::LIMIT_MIN..10_000_000_000, hosts in 1..40_usize,
    ) {
        let mut draft = Draft::new(Cluster::default());
        for number in 0..hosts {
            add_host(&mut draft, &format!("n{number}"), "10.99.0.1");
        }
        draft.put("limits/site/main", &down(limit));
        let online: BTreeSet<HostName> = draft.cluster.hosts.keys().cloned().collect();
        let shares = online.iter().filter_map(|name| streams::limits(&draft.cluster, name, &online)?.download_bytes_per_s);
        let shares: Vec<u64> = shares.collect();
        prop_assert!(shares.iter().all(|share| *share >= streams::LIMIT_MIN));
        prop_assert!(shares.iter().sum::<u64>() <= limit || shares.iter().all(|share| *share == streams::LIMIT_MIN));
    }
}
