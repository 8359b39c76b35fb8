//! One look: verify, compare with the catalogue, fetch what is new, and write all of it down together.

use super::{carried_by, memory, source};
use crate::app::App;
use crate::ledger::{Act, Who, Writes};
use crate::problem::{Answer, Refused, blocking};
use crate::{hardware, metainfo, policies, reconcile};
use chassis::clock::unix_ms;
use controller_api::rest::SignedVersion;
use controller_api::subscription::SubscriptionState;
use controller_model::{Cluster, record};
use controller_publisher::{Channels, Images, LoadError, Loaded, Offer, load};
use std::collections::BTreeMap;
use types::{ApplianceRef, Digest, PublisherName, VersionName};

/// Versions taken in one look; the rest follows at once.
const NEWS_MAX: usize = 32;

/// A version that is not in the catalogue yet, checked.
struct News {
    appliance: ApplianceRef,
    version: VersionName,
    record: record::Version,
    image: record::Image,
    metainfo: Vec<u8>,
    manifest: Vec<u8>,
}

/// Takes in what a repository offers. `true` if there is more.
///
/// # Errors
/// [`LoadError`]: nothing was taken.
pub(crate) async fn take_in(
    app: &App,
    name: &PublisherName,
    held: &record::Subscription,
) -> Result<bool, LoadError> {
    let from = source(&held.source);
    let loaded = load(name, &from, &held.root.0, &memory(app, name)).await?;
    let images = Images::new(&from).map_err(LoadError::Unreachable)?;
    let cluster = app.ledger.cluster();
    let (mut news, mut pointers, mut more) = (Vec::new(), Vec::new(), false);
    for offer in loaded.offers()? {
        let appliance: ApplianceRef = format!("{name}/{}", offer.appliance)
            .parse()
            .map_err(|error: types::NameError| LoadError::Refused(error.to_string()))?;
        for version in unknown(&cluster, &appliance, &offer)? {
            if news.len() == NEWS_MAX {
                more = true;
                break;
            }
            news.push(fetch(&loaded, &images, name, &appliance, &version).await?);
        }
        pointers.push((appliance, loaded.channels(&offer).await?));
    }
    let fresh = Fresh { name, loaded: &loaded, news: &news, pointers: &pointers, more };
    write_down(app, &fresh, held).await.map_err(|refused| match refused.0.code {
        controller_api::rest::ProblemCode::Invalid => LoadError::Refused(refused.0.message),
        _ => LoadError::Memory(refused.0.message),
    })?;
    if !news.is_empty() {
        app.wake();
    }
    Ok(more)
}

/// Versions that the catalogue does not have.
fn unknown(
    cluster: &Cluster,
    appliance: &ApplianceRef,
    offer: &Offer,
) -> Result<Vec<VersionName>, LoadError> {
    let mut unknown = Vec::new();
    for (version, release) in &offer.versions {
        match cluster.versions.get(&(appliance.clone(), version.clone())) {
            None => unknown.push(version.clone()),
            Some(known) if known.signed == release.signed => {}
            Some(_) => {
                return Err(LoadError::Refused(format!(
                    "{appliance} {version} is in the catalogue with other content: a version is immutable"
                )));
            }
        }
    }
    Ok(unknown)
}

async fn fetch(
    loaded: &Loaded,
    images: &Images,
    name: &PublisherName,
    appliance: &ApplianceRef,
    version: &VersionName,
) -> Result<News, LoadError> {
    let refused = |why: String| LoadError::Refused(format!("{appliance} {version}: {why}"));
    let [bytes, metainfo, manifest] = loaded.version(&appliance.appliance, version).await?;
    let signed: SignedVersion = serde_json::from_slice(&bytes)
        .map_err(|error| refused(format!("its description cannot be read: {error}")))?;
    let says = (&signed.publisher, signed.appliance.as_str(), &signed.version);
    if says != (name, appliance.appliance.as_str(), version) {
        return Err(refused(format!("its description is of {}/{} {}", says.0, says.1, says.2)));
    }
    hardware::check(&signed).map_err(|problem| refused(problem.0.message))?;
    let described = metainfo::check(&signed, &manifest, &metainfo).map_err(refused)?;
    let carried = images.read(&signed.image, 0, 512).await.is_ok();
    let image = record::Image {
        info_hash: described.info_hash,
        size_bytes: signed.size_bytes,
        source: 0,
        web_seed: carried.then(|| carried_by(name)),
        layer_ms: None,
    };
    let record = record::Version {
        published_ms: unix_ms(),
        image: signed.image,
        size_bytes: signed.size_bytes,
        spec: signed.spec,
        signed: reconcile::digest(&bytes),
        yanked: None,
        untested: signed.untested,
    };
    Ok(News { appliance: appliance.clone(), version: version.clone(), record, image, metainfo, manifest })
}

/// What a look found.
struct Fresh<'a> {
    name: &'a PublisherName,
    loaded: &'a Loaded,
    news: &'a [News],
    pointers: &'a [(ApplianceRef, Channels)],
    more: bool,
}

async fn write_down(app: &App, fresh: &Fresh<'_>, held: &record::Subscription) -> Answer<()> {
    let _filing = app.filing.lock().await;
    let before = app.ledger.cluster();
    let new_images: Vec<&News> =
        fresh.news.iter().filter(|news| !before.images.contains_key(&news.record.image.hex())).collect();
    let mut sources = BTreeMap::new();
    let mut written = Ok(());
    for news in fresh.news {
        written = keep(app, news, &before, &mut sources).await;
        if written.is_err() {
            break;
        }
    }
    if written.is_ok() {
        let object = format!("subscription/{}", fresh.name);
        let act = Act { who: &Who::Controller, action: "subscription-refresh", object };
        // The audit log tells what changed the catalogue, not every look.
        let changes = writes(&before, fresh, held, &sources).is_ok_and(|writes| writes.records.len() > 1);
        written = match changes {
            true => {
                app.ledger.change(&act, |now| Ok((writes(now, fresh, held, &sources)?, ()))).await.map(drop)
            }
            false => app.ledger.record(|now| writes(now, fresh, held, &sources)).await.map(drop),
        };
    }
    if written.is_err() {
        for news in new_images {
            let (torrent, manifest) = app.image_files(&news.record.image);
            policies::discard(&torrent);
            policies::discard(&manifest);
            app.library.discard(&news.record.image);
        }
    }
    written
}

/// On disk before the store says so.
async fn keep(app: &App, news: &News, before: &Cluster, sources: &mut BTreeMap<Digest, u64>) -> Answer<()> {
    let image = news.record.image;
    let known = before.images.get(&image.hex());
    if known.is_none() {
        let (torrent, manifest) = app.image_files(&image);
        let files = [(torrent, news.metainfo.clone()), (manifest, news.manifest.clone())];
        blocking(move || {
            files.into_iter().try_for_each(|(path, bytes)| {
                chassis::durable::write(&path, &bytes, 0o600)
                    .map_err(|error| Refused::unwritten(&path, error))
            })
        })
        .await?;
    }
    // Hosts that have it fetch its source again if it can be had from here now.
    let other = known.is_some_and(|known| known.web_seed.is_none() && news.image.web_seed.is_some());
    let ours = app.clone();
    let source = match known {
        Some(known) if !other => known.source,
        _ => blocking(move || ours.library.publish(&image, &[], other).map(|served| served.source)).await?,
    };
    sources.insert(image, source);
    Ok(())
}

fn writes(
    cluster: &Cluster,
    fresh: &Fresh<'_>,
    held: &record::Subscription,
    sources: &BTreeMap<Digest, u64>,
) -> Answer<Writes> {
    let mut writes = Writes::default();
    let name = fresh.name;
    let Some(now) = cluster.subscriptions.get(name).filter(|now| now.source == held.source) else {
        // It ended, or goes elsewhere now.
        return Ok(writes);
    };
    for news in fresh.news {
        let (appliance, version) = (&news.appliance, &news.version);
        if cluster.versions.contains_key(&(appliance.clone(), version.clone())) {
            continue;
        }
        let key = news.record.image.hex();
        let known = cluster.images.get(&key).map(|known| known.value.clone());
        let mut image = known.clone().unwrap_or_else(|| news.image.clone());
        image.web_seed = image.web_seed.or_else(|| news.image.web_seed.clone());
        image.source = image.source.max(sources.get(&news.record.image).copied().unwrap_or_default());
        image.layer_ms = None;
        if known.as_ref() != Some(&image) {
            writes.put(format!("images/{key}"), &image);
        }
        let mut record = news.record.clone();
        record.yanked = yanked(fresh, appliance, version);
        writes.put(format!("versions/{appliance}/{version}"), &record);
        writes.event(format!("appliance/{appliance}"), "version-published", format!("{appliance} {version}"));
    }
    for (appliance, channels) in fresh.pointers {
        point(cluster, &mut writes, fresh, appliance, channels)?;
    }
    let mut standing = now.value.clone();
    if standing.state != SubscriptionState::Current {
        standing.since_ms = unix_ms();
        writes.event(format!("subscription/{name}"), "subscription-current", "it is believed again");
    }
    standing.state = SubscriptionState::Current;
    standing.problem = None;
    standing.refreshed_ms = unix_ms();
    (standing.expires_ms, standing.root_version) = (fresh.loaded.expires_ms, fresh.loaded.root.version);
    writes.put(format!("subscriptions/{name}"), &standing);
    Ok(writes)
}

fn yanked(fresh: &Fresh<'_>, appliance: &ApplianceRef, version: &VersionName) -> Option<String> {
    let (_, channels) = fresh.pointers.iter().find(|(name, _)| name == appliance)?;
    channels.yanked.get(version).cloned()
}

/// Channels and withdrawals as the publisher has them now.
fn point(
    cluster: &Cluster,
    writes: &mut Writes,
    fresh: &Fresh<'_>,
    appliance: &ApplianceRef,
    wanted: &Channels,
) -> Answer<()> {
    for (version, known) in cluster.versions_of(appliance) {
        let reason = wanted.yanked.get(version);
        if known.yanked.as_ref() != reason {
            let now = record::Version { yanked: reason.cloned(), ..known.value.clone() };
            writes.put(format!("versions/{appliance}/{version}"), &now);
            let (what, why) = match reason {
                Some(reason) => ("version-yanked", format!("{appliance} {version}: {reason}")),
                None => ("version-restored", format!("{appliance} {version}")),
            };
            writes.event(format!("appliance/{appliance}"), what, why);
        }
    }
    for (channel, version) in &wanted.channels {
        if wanted.yanked.contains_key(version) {
            let message = format!("channel {channel} of {appliance} points to {version}, which is yanked");
            return Err(Refused::invalid(message));
        }
        let offered = cluster.versions.contains_key(&(appliance.clone(), version.clone()))
            || fresh.news.iter().any(|news| news.appliance == *appliance && news.version == *version);
        match offered {
            true => {}
            // It comes with the next look, and the channel with it.
            false if fresh.more => continue,
            false => {
                let message =
                    format!("channel {channel} of {appliance} points to {version}, which is not offered");
                return Err(Refused::invalid(message));
            }
        }
        let pointer = record::Channel { version: version.clone() };
        let held = cluster.channels.get(&(appliance.clone(), channel.clone()));
        if held.map(|held| &held.value) != Some(&pointer) {
            writes.put(format!("channels/{appliance}/{channel}"), &pointer);
        }
    }
    for (of, channel) in cluster.channels.keys().filter(|(of, _)| of == appliance) {
        if !wanted.channels.contains_key(channel) {
            writes.delete(format!("channels/{of}/{channel}"));
        }
    }
    Ok(())
}
