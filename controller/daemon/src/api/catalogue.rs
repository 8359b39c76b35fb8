//! Publishers and appliances.

use super::{Body, Named};
use crate::app::App;
use crate::auth::Caller;
use crate::ledger::{Act, Writes};
use crate::problem::{Answer, Refused, blocking};
use crate::{hardware, metainfo, policies, reconcile, views};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chassis::clock::unix_ms;
use controller_api::rest::{ApplianceView, Problem, PublishVersion, PublisherKey, SignedVersion};
use controller_model::{Cluster, profiles, record};
use types::{ApplianceRef, Digest, PublisherName};

/// Longest URL in bytes.
const WEB_SEED_LEN_MAX: usize = 2_048;

/// The catalogue.
#[utoipa::path(get, path = "/v1/appliances", tag = "appliances",
    responses((status = 200, body = Vec<ApplianceView>)))]
pub(crate) async fn appliances(State(app): State<App>) -> Json<Vec<ApplianceView>> {
    Json(views::appliances(&app.ledger.cluster()))
}

/// One appliance.
#[utoipa::path(get, path = "/v1/appliances/{publisher}/{name}", tag = "appliances",
    params(("publisher" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = ApplianceView), (status = 404, body = Problem)))]
pub(crate) async fn appliance(
    State(app): State<App>,
    Named((publisher, appliance)): Named<(PublisherName, String)>,
) -> Answer<Json<ApplianceView>> {
    let name = ApplianceRef { publisher, appliance };
    let view = views::appliance(&app.ledger.cluster(), &name);
    view.map(Json).ok_or_else(|| Refused::not_found(format!("there is no appliance {name}")))
}

/// Registers a publisher's key. A known key is never replaced.
#[utoipa::path(put, path = "/v1/publishers/{name}", tag = "appliances", params(("name" = String, Path)),
    request_body = PublisherKey,
    responses((status = 204), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn put_publisher(
    State(app): State<App>,
    caller: Caller,
    Named(name): Named<PublisherName>,
    Body(key): Body<PublisherKey>,
) -> Answer<StatusCode> {
    if key.public_key.0.len() != 32 {
        let length = key.public_key.0.len();
        return Err(Refused::invalid(format!("public_key has {length} bytes: an Ed25519 public key has 32")));
    }
    let act = Act { who: &caller.who, action: "publisher-register", object: format!("publisher/{name}") };
    app.ledger
        .change(&act, |cluster| {
            let mut writes = Writes::default();
            not_followed(cluster, &name)?;
            match cluster.publishers.get(&name) {
                Some(held) if held.value == key => {}
                Some(_) => {
                    return Err(Refused::conflict(format!(
                        "another key of publisher {name} is known: sign with that one"
                    )));
                }
                None => writes.put(format!("publishers/{name}"), &key),
            }
            Ok((writes, ()))
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Publishes a version: signed by its publisher, its metainfo and manifest belonging together.
#[utoipa::path(post, path = "/v1/appliances", tag = "appliances", request_body = PublishVersion,
    responses((status = 200, body = ApplianceView), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn publish(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<PublishVersion>,
) -> Answer<Json<ApplianceView>> {
    let signed = verified(&app, &request)?;
    let described =
        metainfo::check(&signed, &request.manifest.0, &request.metainfo.0).map_err(Refused::invalid)?;
    profiles::check(&request.profiles, described.pieces).map_err(Refused::invalid)?;
    check_web_seed(request.web_seed.as_deref(), described.private)?;
    let name: ApplianceRef = format!("{}/{}", signed.publisher, signed.appliance)
        .parse()
        .map_err(|error: types::NameError| Refused::invalid(error.to_string()))?;
    let filing = app.filing.lock().await;
    let mut taken = keep(&app, &signed.image, &request).await;
    if taken.is_ok() {
        taken = match file_profiles(&app, &signed.image, &request).await {
            Ok(source) => {
                let image = record::Image {
                    info_hash: described.info_hash,
                    size_bytes: signed.size_bytes,
                    source,
                    web_seed: web_seed(&app, &signed.image, &request),
                    layer_ms: None,
                };
                write_down(&app, &caller, &name, &signed, &request, image).await
            }
            Err(refused) => Err(refused),
        };
    }
    if taken.is_err() && !app.ledger.cluster().images.contains_key(&signed.image.hex()) {
        let (torrent, manifest) = app.image_files(&signed.image);
        policies::discard(&torrent);
        policies::discard(&manifest);
        app.library.discard(&signed.image);
    }
    drop(filing);
    taken?;
    app.wake();
    let view = views::appliance(&app.ledger.cluster(), &name);
    view.map(Json).ok_or_else(|| Refused::not_found(format!("there is no appliance {name}")))
}

/// A publisher whose repository is followed publishes there and by no key that it does not name.
fn not_followed(cluster: &Cluster, name: &PublisherName) -> Answer<()> {
    match cluster.subscriptions.get(name) {
        Some(_) => Err(Refused::conflict(format!(
            "publisher {name} is subscribed to: its versions come from its repository (`collective appliance publish \
             --repo`)"
        ))),
        None => Ok(()),
    }
}

/// The store's part of a publish.
async fn write_down(
    app: &App,
    caller: &Caller,
    name: &ApplianceRef,
    signed: &SignedVersion,
    request: &PublishVersion,
    mut image: record::Image,
) -> Answer<()> {
    let act =
        Act { who: &caller.who, action: "publish", object: format!("appliance/{name}/{}", signed.version) };
    app.ledger
        .change(&act, |cluster| {
            let mut writes = Writes::default();
            not_followed(cluster, &signed.publisher)?;
            let digest = reconcile::digest(&request.signed.0);
            match cluster.versions.get(&(name.clone(), signed.version.clone())) {
                Some(held) if held.signed != digest => {
                    let message = format!(
                        "{name} {} is published with other content: give it a new version",
                        signed.version
                    );
                    return Err(Refused::conflict(message));
                }
                Some(_) => {}
                None => {
                    let version = record::Version {
                        published_ms: unix_ms(),
                        image: signed.image,
                        size_bytes: signed.size_bytes,
                        spec: signed.spec.clone(),
                        signed: digest,
                        yanked: None,
                        untested: signed.untested.clone(),
                    };
                    writes.put(format!("versions/{name}/{}", signed.version), &version);
                    writes.event(
                        format!("appliance/{name}"),
                        "version-published",
                        format!("{name} {}", signed.version),
                    );
                }
            }
            let held = cluster.images.get(&signed.image.hex()).map(|held| &held.value);
            // A guest's run may have been taken up meanwhile.
            image.source = image.source.max(held.map_or(0, |held| held.source));
            if held != Some(&image) {
                writes.put(format!("images/{}", signed.image.hex()), &image);
            }
            if let Some(channel) = &request.channel {
                let pointer = record::Channel { version: signed.version.clone() };
                let held = cluster.channels.get(&(name.clone(), channel.clone()));
                if held.map(|held| &held.value) != Some(&pointer) {
                    writes.put(format!("channels/{name}/{channel}"), &pointer);
                }
            }
            Ok((writes, ()))
        })
        .await
        .map(drop)
}

/// The one given, else the one known.
fn web_seed(app: &App, image: &Digest, request: &PublishVersion) -> Option<String> {
    let known = || app.ledger.cluster().images.get(&image.hex())?.web_seed.clone();
    request.web_seed.clone().or_else(known)
}

/// The number of the source hosts shall have.
async fn file_profiles(app: &App, image: &Digest, request: &PublishVersion) -> Answer<u64> {
    let held = app.ledger.cluster().images.get(&image.hex()).map(|held| held.value.clone());
    let other = held.as_ref().is_some_and(|held| held.web_seed != web_seed(app, image, request));
    if request.profiles.is_empty() && !other {
        return Ok(held.map_or(0, |held| held.source));
    }
    let (app, image, profiles) = (app.clone(), *image, request.profiles.clone());
    blocking(move || app.library.publish(&image, &profiles, other).map(|served| served.source)).await
}

/// Streamers whose peers speak TLS take no other web seed than by TLS.
fn check_web_seed(url: Option<&str>, private: bool) -> Answer<()> {
    let fits = |url: &str| {
        url.len() <= WEB_SEED_LEN_MAX
            && (url.starts_with("https://") || (!private && url.starts_with("http://")))
            && !url.chars().any(|c| c.is_control() || c.is_whitespace())
    };
    match url {
        Some(url) if !fits(url) => Err(Refused::invalid(
            "web_seed: an https URL of at most 2,048 bytes; http only for an image that anybody may fetch",
        )),
        _ => Ok(()),
    }
}

fn verified(app: &App, request: &PublishVersion) -> Answer<SignedVersion> {
    let signed: SignedVersion = serde_json::from_slice(&request.signed.0)
        .map_err(|error| Refused::invalid(format!("the signed bytes are no version: {error}")))?;
    let cluster = app.ledger.cluster();
    not_followed(&cluster, &signed.publisher)?;
    let key = cluster.publishers.get(&signed.publisher).ok_or_else(|| {
        Refused::invalid(format!("publisher {} is not known: register its key first", signed.publisher))
    })?;
    UnparsedPublicKey::new(&ED25519, &key.public_key.0)
        .verify(&request.signed.0, &request.signature.0)
        .map_err(|_| {
            Refused::invalid(format!(
                "the signature is not by the known key of publisher {}",
                signed.publisher
            ))
        })?;
    hardware::check(&signed)?;
    Ok(signed)
}

/// On disk before the store says so.
async fn keep(app: &App, image: &Digest, request: &PublishVersion) -> Answer<()> {
    let (torrent, manifest) = app.image_files(image);
    let (metainfo, bytes) = (request.metainfo.0.clone(), request.manifest.0.clone());
    if app.ledger.cluster().images.contains_key(&image.hex()) {
        return Ok(());
    }
    blocking(move || {
        [(torrent, metainfo), (manifest, bytes)].into_iter().try_for_each(|(path, bytes)| {
            chassis::durable::write(&path, &bytes, 0o600).map_err(|error| Refused::unwritten(&path, error))
        })
    })
    .await
}
