//! Versions that failed here: when one is refused, and what runs instead.

use super::{HALT, Question, ROLL_BACK};
use crate::cluster::Cluster;
use crate::{record, validate};
use controller_api::document::MemberSpec;
use std::collections::BTreeSet;
use types::{ApplianceRef, DeploymentName, VersionName};

/// Why a version is refused here, if it is.
#[must_use]
pub fn refused<'a>(
    cluster: &'a Cluster,
    appliance: &ApplianceRef,
    version: &VersionName,
) -> Option<&'a record::Refusal> {
    cluster.refusals.get(&(appliance.clone(), version.clone())).map(|held| &held.value)
}

/// The refusal that follows from a rollout's answer: its policy stopped it after instances with the version failed, or had
/// them go back. A policy that goes on in spite of a failure refuses nothing, nor is a version refused that no instance
/// was made anew with.
#[must_use]
pub fn refusal(question: &Question, rollout: &record::Rollout, now_ms: u64) -> Option<record::Refusal> {
    let forgiven = |ms: u64| ms != 0 && ms <= rollout.resumed_ms;
    let failed = rollout
        .orders
        .iter()
        .find(|order| order.rolled_ms > 0 && order.status.is_failure() && !forgiven(order.finished_ms));
    let failed = failed.filter(|_| matches!(rollout.step.as_str(), HALT | ROLL_BACK))?;
    let reason = failed.reason.clone().or_else(|| rollout.reasons.first().cloned());
    Some(record::Refusal {
        reason: reason.unwrap_or_else(|| "its update policy stopped its rollout".into()),
        instance: failed.instance.clone(),
        at_ms: now_ms,
        before: failed.from.clone(),
        rollout: question.id.clone(),
    })
}

/// What a new instance of a member runs if the version its channel points to is refused: what ran where it failed, else
/// the newest one that was published before it and fits. If there is none, the refused one, for there is nothing else.
pub(crate) fn acceptable<'a>(
    cluster: &'a Cluster,
    spec: &MemberSpec,
    version: VersionName,
    release: &'a record::Version,
) -> (VersionName, &'a record::Version) {
    // A version that somebody named is not a channel's.
    if spec.version.is_some() || refused(cluster, &spec.appliance, &version).is_none() {
        return (version, release);
    }
    let fitting = |version: &VersionName| {
        let found = &cluster.versions.get(&(spec.appliance.clone(), version.clone()))?.value;
        validate::misfit(spec, version, found).is_none().then_some(found)
    };
    let (mut at, mut seen) = (version.clone(), BTreeSet::new());
    while let Some(refusal) = refused(cluster, &spec.appliance, &at) {
        match &refusal.before {
            Some(before) if seen.insert(before.clone()) => at = before.clone(),
            _ => break,
        }
    }
    if refused(cluster, &spec.appliance, &at).is_none()
        && let Some(found) = fitting(&at)
    {
        return (at, found);
    }
    cluster
        .versions_of(&spec.appliance)
        .filter(|(name, held)| {
            held.published_ms <= release.published_ms && refused(cluster, &spec.appliance, name).is_none()
        })
        .filter_map(|(name, held)| Some((held.published_ms, name, fitting(name)?)))
        .max_by_key(|(published_ms, name, _)| (*published_ms, (*name).clone()))
        .map_or((version, release), |(_, name, found)| (name.clone(), found))
}

/// Instances of a deployment that run a refused version, with why: there was nothing else to run.
#[must_use]
pub fn runs_refused(cluster: &Cluster, deployment: &DeploymentName) -> Vec<String> {
    if cluster.refusals.is_empty() {
        return Vec::new();
    }
    cluster
        .instances_of(deployment)
        .filter_map(|(id, instance)| {
            let refusal = refused(cluster, &instance.appliance, &instance.version)?;
            Some(format!(
                "{id}: it runs {} {}, which is refused here: {}",
                instance.appliance, instance.version, refusal.reason
            ))
        })
        .collect()
}
