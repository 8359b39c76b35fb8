//! How a policy changes: verified before compiled, compiled before kept, kept before spoken of. A decision that is on
//! its way goes on with the release it began with; the next one sees the new one. What is refused changes nothing.

use crate::app::App;
use crate::ledger::{Act, Writes};
use crate::policies::kind;
use crate::problem::{Answer, Refused, blocking};
use crate::views;
use bytes::Bytes;
use chassis::clock::unix_ms;
use chassis::telemetry::chain;
use controller_api::policy::{PolicyKind, PolicyOrigin, PolicyRelease, PolicyView};
use controller_model::{Cluster, policy, record};
use plugins_artifact::{Kind, PublicKey, Root, Signer};
use std::collections::BTreeSet;
use std::sync::Arc;
use types::{Digest, PolicyName};

/// Why a component is to be trusted.
pub(crate) enum Voucher {
    /// It lies in the controller's own package.
    BuiltIn,
    /// A signature is beside it.
    Signature(Vec<u8>),
}

/// What a component is taken in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// It answers from the next decision on.
    Active,
    /// It is asked beside the active one.
    Candidate,
}

/// A component to take in.
pub(crate) struct Delivery {
    pub(crate) bytes: Bytes,
    pub(crate) voucher: Voucher,
    /// If absent those in use stay.
    pub(crate) settings: Option<serde_json::Value>,
    pub(crate) place: Place,
}

/// Takes a component in under a name.
///
/// # Errors
/// Nobody who is trusted vouches for it, it is no policy or one of another kind, or it does not accept the settings.
pub(crate) async fn take_in(
    app: &App,
    act: &Act<'_>,
    name: &PolicyName,
    delivery: Delivery,
) -> Answer<PolicyView> {
    let _filing = app.filing.lock().await;
    let cluster = app.ledger.cluster();
    let held = cluster.policies.get(name).map(|held| held.value.clone());
    let (kind, release) = prepare(app, &cluster, held.as_ref(), &delivery).await?;
    let digest = release.digest;
    let place = delivery.place;
    let taken = change(app, act, name, |_, held| {
        let text = format!("{} {}", release.component, release.version);
        match (place, held) {
            (Place::Active, held) => Ok(policy::install(name, held, kind, release)?
                .map(|policy| (policy, "policy-installed", format!("{text} answers from now on")))),
            (Place::Candidate, Some(held)) => {
                let policy = policy::shadow(name, held, kind, release)?;
                Ok(Some((policy, "policy-shadowed", format!("{text} is asked beside it, without effect"))))
            }
            (Place::Candidate, None) => Err(absent(name)),
        }
    })
    .await;
    if taken.is_err() {
        forget(app, [digest]);
    }
    taken
}

/// Everything that is done before the store hears of it.
async fn prepare(
    app: &App,
    cluster: &Arc<Cluster>,
    held: Option<&record::Policy>,
    delivery: &Delivery,
) -> Answer<(PolicyKind, PolicyRelease)> {
    let signer = match &delivery.voucher {
        Voucher::BuiltIn => None,
        Voucher::Signature(signature) => Some(verify(cluster, signature, &delivery.bytes)?),
    };
    let (policies, bytes) = (Arc::clone(&app.policies), delivery.bytes.clone());
    let inherited = held.and_then(|held| held.active.settings.clone());
    let (settings, given) = match &delivery.settings {
        Some(settings) => (Some(settings.clone()), true),
        None => (inherited, false),
    };
    blocking(move || {
        let loaded = policies.load(&bytes)?;
        let (manifest, digest, kind) = (loaded.manifest().clone(), loaded.digest(), kind(loaded.kind()));
        let origin = match signer {
            None => PolicyOrigin::BuiltIn,
            Some(signer) => {
                let said = signed_kind(kind);
                let described = signer.statement.describes(said, &manifest.name, &manifest.version);
                described.map_err(|mismatch| Refused::invalid(mismatch.to_string()))?;
                PolicyOrigin::Signed { root: signer.root, key: signer.key.0 }
            }
        };
        if let Some(settings) = &settings {
            crate::settings::check(&loaded, settings).map_err(|refused| stay(refused, given))?;
        }
        let release = PolicyRelease {
            component: manifest.name,
            version: manifest.version,
            digest,
            summary: manifest.summary,
            size_bytes: bytes.len() as u64,
            origin,
            since_ms: unix_ms(),
            settings,
        };
        policies.keep(loaded, &bytes)?;
        Ok((kind, release))
    })
    .await
}

/// Settings that were not given are those in use.
fn stay(mut refused: Refused, given: bool) -> Refused {
    if !given {
        refused.0.message =
            format!("{}; these are the settings in use: give others with it", refused.0.message);
    }
    refused
}

/// Who vouches for a component, by the trust roots that hold now.
///
/// # Errors
/// Nobody.
fn verify(cluster: &Cluster, signature: &[u8], component: &[u8]) -> Answer<Signer> {
    let now_ms = unix_ms();
    let (mut roots, mut expired) = (Vec::new(), Vec::new());
    for (name, root) in &cluster.trust {
        let Ok(key) = <[u8; 32]>::try_from(root.key.0.as_slice()) else { continue };
        let kinds = root.kinds.iter().map(|kind| signed_kind(*kind)).collect();
        let held = Root { name: name.to_string(), key: PublicKey::from_bytes(key), kinds };
        let over = root.expires_ms.is_some_and(|expires| expires <= now_ms);
        if over { expired.push(held) } else { roots.push(held) }
    }
    plugins_artifact::verify(signature, component, &roots).map_err(|error| {
        let by_expired = plugins_artifact::verify(signature, component, &expired);
        let message = match by_expired {
            Ok(signer) => format!("it is signed by {}, which has expired", signer.root),
            Err(_) => chain(&error).to_string(),
        };
        Refused::invalid(message)
    })
}

fn signed_kind(kind: PolicyKind) -> Kind {
    match kind {
        PolicyKind::Placement => Kind::Placement,
        PolicyKind::Update => Kind::Update,
        PolicyKind::Checkpoint => Kind::Checkpoint,
        PolicyKind::Introspection => Kind::Introspection,
    }
}

pub(crate) fn absent(name: &PolicyName) -> Refused {
    Refused::not_found(format!("there is no policy {name}"))
}

/// A changed policy, why (for events), and in words.
pub(crate) type Changed = Option<(record::Policy, &'static str, String)>;

/// Changes the record of a policy, if `make` says so, and removes the components that nothing needs any more. The
/// caller holds `filing`.
///
/// # Errors
/// As `make`, or the store fails.
pub(crate) async fn change(
    app: &App,
    act: &Act<'_>,
    name: &PolicyName,
    make: impl FnOnce(&Cluster, Option<&record::Policy>) -> Answer<Changed> + Send,
) -> Answer<PolicyView> {
    let before = app.ledger.cluster();
    app.ledger
        .change(act, |cluster| {
            let mut writes = Writes::default();
            let held = cluster.policies.get(name).map(|held| &held.value);
            if let Some((policy, reason, message)) = make(cluster, held)? {
                writes.put(format!("policies/{name}"), &policy);
                writes.event(format!("policy/{name}"), reason, message);
            }
            Ok((writes, ()))
        })
        .await?;
    forget(app, digests(&before, name));
    app.wake();
    views::policy(app, &app.ledger.cluster(), name).ok_or_else(|| absent(name))
}

/// Components that a policy needs.
pub(crate) fn digests(cluster: &Cluster, name: &PolicyName) -> BTreeSet<Digest> {
    let held = cluster.policies.get(name);
    held.into_iter().flat_map(|held| held.releases()).map(|release| release.digest).collect()
}

/// Removes those components that no policy needs.
pub(crate) fn forget(app: &App, candidates: impl IntoIterator<Item = Digest>) {
    let cluster = app.ledger.cluster();
    let needed = |digest: &Digest| {
        cluster.policies.values().any(|policy| policy.releases().any(|release| release.digest == *digest))
    };
    candidates.into_iter().filter(|digest| !needed(digest)).for_each(|digest| app.policies.discard(&digest));
}
