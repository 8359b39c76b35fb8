//! Checkpoints: the pass that takes them further, and their files as images.

use crate::app::App;
use crate::auth::Member;
use crate::ledger::Writes;
use crate::problem::{Answer, Refused, blocking};
use crate::{metainfo, policies};
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use chassis::clock::unix_ms;
use controller_api::checkpoint::LayerSource;
use controller_model::record::Verified;
use controller_model::standing::Sight;
use controller_model::{Cluster, checkpoint, record};
use std::time::Duration;
use types::{Digest, InstanceId};

/// Shortest pause before the pass is made again, in milliseconds: what is due is due a moment later.
const PAUSE_MS_MIN: u64 = 20;

/// Takes checkpoints further, and removes files that nothing needs. Says when something is due.
///
/// # Errors
/// The store fails.
pub(crate) async fn pass(app: &App) -> Answer<Option<Duration>> {
    let cluster = app.ledger.cluster();
    let ordered = cluster.schedules.values().any(|held| held.take.is_some() || !held.discards.is_empty());
    let mut next_ms = None;
    if !cluster.checkpoints.is_empty() || ordered {
        let (observed, online) = (app.live.statuses(), app.live.online());
        app.ledger
            .record(|cluster| {
                let sight = Sight { observed: &observed, online: &online, now_ms: unix_ms() };
                let mut fresh = || uuid::Uuid::new_v4().to_string();
                let settled = checkpoint::settle(cluster, sight, &mut fresh);
                next_ms = settled.next_ms;
                let mut writes = settled.draft.map(Writes::of).unwrap_or_default();
                for (object, reason, message) in settled.events {
                    writes.event(object, reason, message);
                }
                Ok(writes)
            })
            .await?;
    }
    sweep(app).await?;
    let pause = |at_ms: u64| Duration::from_millis(at_ms.saturating_sub(unix_ms()).max(PAUSE_MS_MIN));
    Ok(next_ms.map(pause))
}

/// A checkpoint's next step may hang on how this instance is.
pub(crate) fn awaits(cluster: &Cluster, id: &InstanceId) -> bool {
    let untried = |held: &record::Instance| {
        held.memory_from.is_some()
            || held.layers.last().is_some_and(|layer| {
                cluster
                    .checkpoints
                    .values()
                    .any(|other| other.id == layer.checkpoint && other.verified == Verified::Untried)
            })
    };
    checkpoint::under_way(cluster, &id.deployment).is_some()
        || cluster.instances.get(id).is_some_and(|held| untried(&held.value))
}

/// Images of checkpoints that nothing needs go, first from the store, then from the disk.
async fn sweep(app: &App) -> Answer<()> {
    if checkpoint::unneeded(&app.ledger.cluster(), unix_ms()).is_empty() {
        return Ok(());
    }
    let filing = app.filing.lock().await;
    let mut gone = Vec::new();
    app.ledger
        .record(|cluster| {
            gone = checkpoint::unneeded(cluster, unix_ms());
            let mut writes = Writes::default();
            for digest in &gone {
                writes.delete(format!("images/{}", digest.hex()));
            }
            Ok(writes)
        })
        .await?;
    for digest in gone {
        discard(app, &digest);
    }
    drop(filing);
    Ok(())
}

fn discard(app: &App, digest: &Digest) {
    let (torrent, manifest) = app.image_files(digest);
    policies::discard(&torrent);
    policies::discard(&manifest);
    app.library.discard(digest);
}

/// A host says how others fetch a file of a checkpoint that it holds.
pub(crate) async fn put_layer(
    State(app): State<App>,
    member: Member,
    Path(digest): Path<Digest>,
    body: Result<Json<LayerSource>, JsonRejection>,
) -> Answer<StatusCode> {
    member.must_be_host()?;
    let Json(source) = body?;
    let (described, source) = blocking(move || {
        let described = metainfo::check_layer(&digest, &source.manifest.0, &source.metainfo.0);
        Ok((described.map_err(Refused::invalid)?, source))
    })
    .await?;
    if !described.private {
        return Err(Refused::invalid(
            "the metainfo is not private: a checkpoint holds people's data, and only members may fetch it",
        ));
    }
    let filing = app.filing.lock().await;
    let taken = file(&app, &digest, described, source).await;
    if taken.is_err() && !app.ledger.cluster().images.contains_key(&digest.hex()) {
        discard(&app, &digest);
    }
    drop(filing);
    taken.map(|()| StatusCode::NO_CONTENT)
}

/// On disk before the store says so. What is known already is kept for a while longer.
async fn file(app: &App, digest: &Digest, described: metainfo::Described, source: LayerSource) -> Answer<()> {
    let key = digest.hex();
    if !app.ledger.cluster().images.contains_key(&key) {
        let (torrent, manifest) = app.image_files(digest);
        blocking(move || {
            [(torrent, source.metainfo.0), (manifest, source.manifest.0)].into_iter().try_for_each(
                |(path, bytes)| {
                    chassis::durable::write(&path, &bytes, 0o600)
                        .map_err(|error| Refused::unwritten(&path, error))
                },
            )
        })
        .await?;
    }
    app.ledger
        .record(|cluster| {
            let mut writes = Writes::default();
            let layer_ms = Some(unix_ms());
            let image = match cluster.images.get(&key) {
                // A version's own image stays one.
                Some(held) if held.layer_ms.is_none() => return Ok(writes),
                Some(held) => record::Image { layer_ms, ..held.value.clone() },
                None => record::Image {
                    info_hash: described.info_hash,
                    size_bytes: described.size_bytes,
                    source: 0,
                    web_seed: None,
                    layer_ms,
                },
            };
            writes.put(format!("images/{key}"), &image);
            Ok(writes)
        })
        .await
        .map(drop)
}
