//! What a site could start if it were cut off.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, dead_code, reason = "support is a module of several tests")]

mod support;

use controller_api::agent::HostStatus;
use controller_model::placement::Observed;
use controller_model::{Cluster, Draft, desired, readiness};
use std::collections::BTreeSet;
use streamer_api::ImageStatus;
use types::{Digest, HostName};

const PIECE: u32 = 256 << 10;

fn host(name: &str) -> HostName {
    name.parse().unwrap()
}

/// The office with its documents, and what its hosts say once they have taken them up and hold all of their images.
fn office() -> (Cluster, Observed, BTreeSet<HostName>) {
    let online: BTreeSet<HostName> = [host("h1"), host("h2")].into();
    let mut draft = Draft::new(support::office());
    let documents = desired::desired(&draft.cluster, &online);
    let mut observed = Observed::new();
    for (name, document) in documents {
        draft.put(format!("desired/{name}"), &document);
        let held = document.images.iter().map(|image| (image.to_string(), held(image, 4)));
        let status =
            HostStatus { generation: document.generation, images: held.collect(), ..HostStatus::default() };
        observed.insert(name, status);
    }
    (draft.cluster, observed, online)
}

fn held(image: &Digest, pieces_local: u32) -> ImageStatus {
    ImageStatus {
        export: image.hex(),
        size_bytes: 1 << 20,
        piece_bytes: PIECE,
        pieces: 4,
        pieces_local,
        ..ImageStatus::default()
    }
}

fn main_site(
    cluster: &Cluster,
    observed: &Observed,
    online: &BTreeSet<HostName>,
) -> controller_api::recovery::SiteReadiness {
    readiness::site(cluster, observed, online, &"main".parse().unwrap()).unwrap()
}

#[test]
fn a_site_that_holds_everything_is_ready() {
    let (cluster, observed, online) = office();
    let view = main_site(&cluster, &observed, &online);
    assert!(view.ready, "{view:?}");
    assert_eq!((view.hosts, view.hosts_online), (2, 2));
    assert_eq!((view.deployments.len(), view.deployments[0].leased), (1, false));
}

#[test]
fn what_is_missing_is_said_in_bytes_and_where_the_rest_is() {
    let (cluster, mut observed, online) = office();
    let status = observed.get_mut(&host("h1")).unwrap();
    let (name, image) = status.images.iter().next().map(|(n, i)| (n.clone(), i.clone())).unwrap();
    status.images.insert(name.clone(), ImageStatus { pieces_local: 1, pieces_zero: 1, ..image });
    let view = main_site(&cluster, &observed, &online);
    assert!(!view.ready);
    let missing = &view.deployments[0].missing;
    assert_eq!((missing.len(), missing[0].image.to_string()), (1, name.clone()));
    assert_eq!(
        (missing[0].missing_bytes, missing[0].most_at.clone()),
        (2 * u64::from(PIECE), Some(host("h1")))
    );

    // Another host of the site that holds it is as good: pieces travel on the site's own network.
    let digest: Digest = name.parse().unwrap();
    observed.get_mut(&host("h2")).unwrap().images.insert(name, held(&digest, 4));
    assert!(main_site(&cluster, &observed, &online).ready);
}

#[test]
fn documents_that_were_not_taken_up_and_hosts_that_are_away_stand_in_the_way() {
    let (cluster, mut observed, mut online) = office();
    observed.get_mut(&host("h1")).unwrap().generation = types::Generation(0);
    let view = main_site(&cluster, &observed, &online);
    assert!(view.deployments[0].obstacles[0].contains("has not taken up its document"), "{view:?}");
    online.remove(&host("h1"));
    let view = main_site(&cluster, &observed, &online);
    assert!(view.deployments[0].obstacles[0].contains("not connected"), "{view:?}");
    assert_eq!(view.hosts_online, 1);
}

#[test]
fn a_member_elsewhere_or_without_a_host_stands_in_the_way() {
    let (cluster, observed, online) = office();
    let mut draft = Draft::new(cluster);
    draft.delete("placements/office/gateway");
    let view = main_site(&draft.cluster, &observed, &online);
    assert!(view.deployments[0].obstacles[0].contains("no host yet"), "{view:?}");

    let mut elsewhere = draft.cluster.hosts[&host("h1")].value.clone();
    elsewhere.site = "paris".parse().unwrap();
    draft.put("hosts/p1", &elsewhere);
    let placement = controller_model::record::Placement { host: host("p1"), decision: 2 };
    draft.put("placements/office/gateway", &placement);
    let view = main_site(&draft.cluster, &observed, &online);
    assert!(view.deployments[0].obstacles[0].contains("on host p1, elsewhere"), "{view:?}");
    let paris = readiness::site(&draft.cluster, &observed, &online, &"paris".parse().unwrap()).unwrap();
    assert_eq!((paris.ready, paris.deployments.len()), (false, 1), "its other member is not in Paris");
    assert!(readiness::site(&draft.cluster, &observed, &online, &"rome".parse().unwrap()).is_none());
}

#[test]
fn a_host_that_has_promised_more_than_it_has_stands_in_the_way() {
    let (cluster, observed, online) = office();
    let mut draft = Draft::new(cluster);
    let mut facts = draft.cluster.facts[&host("h1")].value.clone();
    facts.memory_total_bytes = 1 << 20;
    draft.put("facts/h1", &facts);
    let view = main_site(&draft.cluster, &observed, &online);
    assert!(view.deployments[0].obstacles[0].contains("promised more than it has"), "{view:?}");
}
