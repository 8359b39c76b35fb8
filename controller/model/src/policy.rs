//! The life of an installed policy: what becomes of its record when something is asked of it.
//!
//! A release is a component with its settings; each change of either is a new one, and the one before is kept to go
//! back to. Which bytes are to be trusted is not known here: whoever calls has verified them.

use crate::apply::Refusal;
use crate::cluster::Cluster;
use crate::record::{EARLIER_MAX, Policy};
use crate::{checkpoint, placement, update};
use controller_api::document::PoliciesSpec;
use controller_api::policy::{OnFailure, PolicyKind, PolicyOrigin, PolicyRelease};
use types::PolicyName;

/// Takes a release into use: of a new policy, or instead of the one that answers now. None if it is that one.
///
/// # Errors
/// The name is one of another kind of policy.
pub fn install(
    name: &PolicyName,
    held: Option<&Policy>,
    kind: PolicyKind,
    release: PolicyRelease,
) -> Result<Option<Policy>, Refusal> {
    let Some(held) = held else {
        return Ok(Some(Policy {
            kind,
            active: release,
            on_failure: OnFailure::Refuse,
            earlier: Vec::new(),
            candidate: None,
            left: None,
        }));
    };
    check_kind(name, held, kind)?;
    let mut policy = held.clone();
    if same(&policy.candidate, &release) {
        policy.candidate = None;
    }
    if same(&Some(policy.active.clone()), &release) {
        // Another key may vouch for the same bytes.
        let since_ms = policy.active.since_ms;
        policy.active = PolicyRelease { since_ms, ..release };
    } else {
        replace(&mut policy, release);
    }
    Ok((policy != *held).then_some(policy))
}

/// Asks a release beside the one that answers, without effect.
///
/// # Errors
/// It is of another kind, or the one that answers.
pub fn shadow(
    name: &PolicyName,
    held: &Policy,
    kind: PolicyKind,
    release: PolicyRelease,
) -> Result<Policy, Refusal> {
    check_kind(name, held, kind)?;
    if same(&Some(held.active.clone()), &release) {
        return Err(Refusal::Conflict(format!(
            "policy {name} is this component with these settings already: there is nothing to compare"
        )));
    }
    Ok(Policy { candidate: Some(release), ..held.clone() })
}

/// Takes the candidate into use.
///
/// # Errors
/// There is none.
pub fn promote(name: &PolicyName, held: &Policy, now_ms: u64) -> Result<Policy, Refusal> {
    let mut policy = held.clone();
    let candidate = policy.candidate.take().ok_or_else(|| {
        Refusal::Conflict(format!("policy {name} has no candidate: begin with `collective policy shadow`"))
    })?;
    replace(&mut policy, PolicyRelease { since_ms: now_ms, ..candidate });
    Ok(policy)
}

/// Goes back to what answered before. What is left is not kept: the next rollback goes further back.
///
/// # Errors
/// Nothing answered before.
pub fn roll_back(name: &PolicyName, held: &Policy, now_ms: u64) -> Result<Policy, Refusal> {
    let mut policy = held.clone();
    if policy.earlier.is_empty() {
        return Err(Refusal::Conflict(format!("policy {name} has no earlier version to go back to")));
    }
    policy.left = Some(policy.active.digest);
    policy.active = PolicyRelease { since_ms: now_ms, ..policy.earlier.remove(0) };
    Ok(policy)
}

/// Gives the component that answers other settings. None if it has these.
#[must_use]
pub fn set_settings(held: &Policy, settings: Option<serde_json::Value>, now_ms: u64) -> Option<Policy> {
    if held.active.settings == settings {
        return None;
    }
    let mut policy = held.clone();
    let release = PolicyRelease { settings, since_ms: now_ms, ..policy.active.clone() };
    replace(&mut policy, release);
    Some(policy)
}

/// Says what happens if it has no answer.
///
/// # Errors
/// The fallback is itself, is not installed, or decides something else.
pub fn set_on_failure(
    cluster: &Cluster,
    name: &PolicyName,
    held: &Policy,
    on_failure: OnFailure,
) -> Result<Policy, Refusal> {
    if let OnFailure::Fallback(other) = &on_failure {
        if other == name {
            return Err(Refusal::Unfit(format!("policy {name} cannot fall back to itself")));
        }
        let found = cluster.policies.get(other).ok_or_else(|| {
            Refusal::Unfit(format!("policy {other} is not installed: it cannot be fallen back to"))
        })?;
        if found.kind != held.kind {
            return Err(Refusal::Unfit(format!(
                "policy {other} is one of {}, {name} one of {}: a fallback is of the same kind",
                found.kind, held.kind
            )));
        }
    }
    Ok(Policy { on_failure, ..held.clone() })
}

/// What names a policy: bundles, and policies that fall back to it.
#[must_use]
pub fn users(cluster: &Cluster, name: &PolicyName) -> Vec<String> {
    let bundles = cluster
        .bundles
        .iter()
        .filter(|(_, spec)| asks(&spec.policies, name))
        .map(|(bundle, _)| format!("bundle/{bundle}"));
    let fallbacks = cluster
        .policies
        .iter()
        .filter(|(_, other)| other.on_failure == OnFailure::Fallback(name.clone()))
        .map(|(other, _)| format!("policy/{other}"));
    bundles.chain(fallbacks).collect()
}

/// A bundle names it, or names none of a kind whose default it is.
fn asks(policies: &PoliciesSpec, name: &PolicyName) -> bool {
    [
        (&policies.placement, placement::DEFAULT_POLICY),
        (&policies.update, update::DEFAULT_POLICY),
        (&policies.checkpoint, checkpoint::DEFAULT_POLICY),
    ]
    .into_iter()
    .any(|(named, default)| named.as_ref().map_or(default, PolicyName::as_str) == name.as_str())
        || policies.introspection.iter().any(|watch| watch.policy == *name)
}

/// Why what runs by a signature should not go on for long, though it goes on; none if all is well.
#[must_use]
pub fn doubt(cluster: &Cluster, kind: PolicyKind, release: &PolicyRelease, now_ms: u64) -> Option<String> {
    let PolicyOrigin::Signed { root, key } = &release.origin else { return None };
    let held = root.parse().ok().and_then(|name: PolicyName| cluster.trust.get(&name));
    let advice = "install it again with a signature that is trusted, or go back";
    match held {
        None => Some(format!("its trust root {root} was removed: {advice}")),
        Some(held) if crate::name::digest(&held.key.0) != *key => {
            Some(format!("its trust root {root} has another key now: {advice}"))
        }
        Some(held) if !held.kinds.contains(&kind) => {
            Some(format!("its trust root {root} is not trusted with {kind} policies any more: {advice}"))
        }
        Some(held) if held.expires_ms.is_some_and(|expires| expires <= now_ms) => {
            Some(format!("its trust root {root} has expired: {advice}"))
        }
        Some(_) => None,
    }
}

fn check_kind(name: &PolicyName, held: &Policy, kind: PolicyKind) -> Result<(), Refusal> {
    if held.kind == kind {
        return Ok(());
    }
    let message =
        format!("policy {name} is one of {}, the component one of {kind}: give it another name", held.kind);
    Err(Refusal::Conflict(message))
}

fn same(held: &Option<PolicyRelease>, release: &PolicyRelease) -> bool {
    held.as_ref().is_some_and(|held| (held.digest, &held.settings) == (release.digest, &release.settings))
}

fn replace(policy: &mut Policy, release: PolicyRelease) {
    let before = std::mem::replace(&mut policy.active, release);
    policy.earlier.insert(0, before);
    policy.left = None;
    policy.earlier.truncate(EARLIER_MAX);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name;

    fn release(version: &str, settings: Option<u32>) -> PolicyRelease {
        PolicyRelease {
            component: "balanced".into(),
            version: version.into(),
            digest: name::digest(version.as_bytes()),
            summary: String::new(),
            size_bytes: 1,
            origin: PolicyOrigin::BuiltIn,
            since_ms: 1,
            settings: settings.map(|value| serde_json::json!({ "spread": value })),
        }
    }

    fn balanced() -> PolicyName {
        "balanced".parse().unwrap()
    }

    fn installed(version: &str) -> Policy {
        install(&balanced(), None, PolicyKind::Placement, release(version, None)).unwrap().unwrap()
    }

    fn versions(policy: &Policy) -> Vec<&str> {
        policy.earlier.iter().map(|earlier| earlier.version.as_str()).collect()
    }

    #[test]
    fn an_upgrade_keeps_what_was_there_and_a_rollback_walks_back() {
        let (name, kind) = (balanced(), PolicyKind::Placement);
        let one = installed("1.0.0");
        let two = install(&name, Some(&one), kind, release("2.0.0", None)).unwrap().unwrap();
        let tuned = set_settings(&two, Some(serde_json::json!({"spread": 3})), 9).unwrap();
        assert_eq!((tuned.active.version.as_str(), versions(&tuned)), ("2.0.0", vec!["2.0.0", "1.0.0"]));
        let back = roll_back(&name, &tuned, 10).unwrap();
        assert_eq!((back.active.settings.clone(), back.active.since_ms), (None, 10));
        let back = roll_back(&name, &back, 11).unwrap();
        assert_eq!((back.active.version.as_str(), versions(&back)), ("1.0.0", vec![]));
        assert!(matches!(roll_back(&name, &back, 12), Err(Refusal::Conflict(_))));
    }

    #[test]
    fn the_same_component_with_the_same_settings_changes_nothing() {
        let one = installed("1.0.0");
        assert_eq!(install(&balanced(), Some(&one), PolicyKind::Placement, release("1.0.0", None)), Ok(None));
        assert_eq!(set_settings(&one, None, 5), None);
    }

    #[test]
    fn a_name_keeps_its_kind() {
        let one = installed("1.0.0");
        let other = install(&balanced(), Some(&one), PolicyKind::Update, release("2.0.0", None));
        assert!(matches!(other, Err(Refusal::Conflict(_))), "{other:?}");
        let other = shadow(&balanced(), &one, PolicyKind::Update, release("2.0.0", None));
        assert!(matches!(other, Err(Refusal::Conflict(_))), "{other:?}");
    }

    #[test]
    fn a_candidate_changes_nothing_until_it_is_promoted() {
        let (name, one) = (balanced(), installed("1.0.0"));
        let shadowed = shadow(&name, &one, PolicyKind::Placement, release("2.0.0", Some(1))).unwrap();
        assert_eq!(shadowed.active, one.active);
        let promoted = promote(&name, &shadowed, 7).unwrap();
        assert_eq!((promoted.active.version.as_str(), &promoted.candidate), ("2.0.0", &None));
        assert_eq!(versions(&promoted), ["1.0.0"]);
        assert!(matches!(promote(&name, &promoted, 8), Err(Refusal::Conflict(_))));
    }

    #[test]
    fn only_so_many_releases_are_kept() {
        let mut policy = installed("1.0.0");
        for number in 0..50 {
            policy = set_settings(&policy, Some(serde_json::json!({ "n": number })), number).unwrap();
        }
        assert_eq!(policy.earlier.len(), EARLIER_MAX);
        assert_eq!(policy.earlier[0].settings, Some(serde_json::json!({"n": 48})));
    }

    #[test]
    fn a_fallback_is_another_installed_policy_of_the_same_kind() {
        let mut draft = crate::Draft::new(Cluster::default());
        let one = installed("1.0.0");
        draft.put("policies/balanced", &one);
        draft.put("policies/packed", &one);
        draft.put("policies/waves", &Policy { kind: PolicyKind::Update, ..one.clone() });
        let set = |other: &str| {
            let other = OnFailure::Fallback(other.parse().unwrap());
            set_on_failure(&draft.cluster, &balanced(), &one, other)
        };
        assert!(set("packed").is_ok());
        for other in ["balanced", "absent", "waves"] {
            assert!(matches!(set(other), Err(Refusal::Unfit(_))), "{other}");
        }
    }

    #[test]
    fn records_of_before_there_were_settings_and_kinds_still_load() {
        let mut cluster = Cluster::default();
        let digest = name::digest(b"component");
        let policy = serde_json::json!({
            "name": "balanced", "kind": "placement", "component": "balanced", "version": "0.1.0",
            "digest": digest, "summary": "Spreads.",
        });
        let decision = serde_json::json!({
            "id": 1, "at_ms": 2, "instance": "office/gateway", "policy": "balanced",
            "component": "balanced 0.1.0", "digest": digest, "input": digest, "verdict": "place", "host": "h1",
            "choices": [], "notes": [], "took_us": 5,
        });
        let mut take = |key: &str, value: &serde_json::Value| {
            cluster.take(key, Some(value.to_string().as_bytes()), types::Revision(1)).unwrap();
        };
        take("policies/balanced", &policy);
        take("decisions/00000000000000000001", &decision);
        let held = &cluster.policies[&balanced()].value;
        assert_eq!((held.kind, &held.active.origin), (PolicyKind::Placement, &PolicyOrigin::Unsigned));
        assert_eq!(
            (&held.active.settings, &held.on_failure, held.earlier.len()),
            (&None, &OnFailure::Refuse, 0)
        );
        let held = &cluster.decisions[&1].value;
        assert_eq!(
            (held.subject.as_str(), held.outcome.as_str()),
            ("instance/office/gateway", "place on h1")
        );
    }

    #[test]
    fn what_a_bundle_asks_by_default_is_used_as_well() {
        let mut draft = crate::Draft::new(Cluster::default());
        let spec = serde_json::json!({"networks": {}, "members": {}, "policies": {"placement": "packed"}});
        draft.put("bundles/office", &spec);
        let used = |name: &str| !users(&draft.cluster, &name.parse().unwrap()).is_empty();
        assert_eq!(["packed", "balanced", "waves", "gfs"].map(used), [true, false, true, true]);
    }
}
