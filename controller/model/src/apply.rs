//! Applying and deleting documents: all of a request or nothing of it.

use crate::cluster::Cluster;
use crate::document::Written;
use crate::draft::Draft;
use crate::validate::{self, Finding};
use crate::{diff, expand, record};
use controller_api::document::Document;
use controller_api::rest::{AppliedChange, ChangeAction, Issue};
use std::collections::{BTreeMap, BTreeSet};
use types::{BundleName, DeploymentName, InstanceId, SiteName, VolumeName};

/// A request that would change the cluster.
#[derive(Debug)]
pub struct Applied {
    /// The writes.
    pub draft: Draft,
    /// What they do, in the documents' order.
    pub changes: Vec<AppliedChange>,
}

/// Why nothing is changed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The documents say something that cannot be.
    #[error("{}", first_issue(.0))]
    Invalid(Vec<Issue>),
    /// It contradicts what is there.
    #[error("{0}")]
    Conflict(String),
    /// What it names is not there.
    #[error("{0}")]
    NotFound(String),
    /// It asks what cannot be, and is no document with lines.
    #[error("{0}")]
    Unfit(String),
}

fn first_issue(issues: &[Issue]) -> String {
    let Some(first) = issues.first() else { return "the document is wrong".into() };
    let more = match issues.len() - 1 {
        0 => String::new(),
        n => format!(" (and {n} more)"),
    };
    let field = if first.field.is_empty() { String::new() } else { format!("{}: ", first.field) };
    format!("line {}, column {}: {field}{}{more}", first.line, first.column, first.message)
}

/// Sites before bundles before deployments.
fn rank(document: &Document) -> u8 {
    match document {
        Document::Site(_) => 0,
        Document::Bundle(_) => 1,
        Document::Deployment(_) => 2,
    }
}

fn refuse_twice(documents: &[Written]) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for written in documents {
        if !seen.insert((written.kind(), written.name())) {
            let message = format!("{} {} is in here twice: remove one", written.kind(), written.name());
            return Err(Refusal::Invalid(vec![written.issue("metadata.name", message)]));
        }
    }
    Ok(())
}

/// Applies documents to a cluster. `fresh` gives a new UUID at every call.
///
/// # Errors
/// [`Refusal`]: every issue of the documents, in their order.
pub fn apply(
    cluster: &Cluster,
    documents: &[Written],
    fresh: &mut dyn FnMut() -> String,
) -> Result<Applied, Refusal> {
    refuse_twice(documents)?;
    let mut draft = Draft::new(cluster.clone());
    let mut order: Vec<usize> = (0..documents.len()).collect();
    order.sort_by_key(|index| rank(&documents[*index].document));
    let mut changes = BTreeMap::new();
    let mut issues: BTreeMap<usize, Vec<Issue>> = BTreeMap::new();
    for index in order {
        let written = &documents[index];
        let found = check(written, &draft.cluster);
        if !found.is_empty() {
            let located = found.into_iter().map(|f| written.issue(&f.path, f.message)).collect();
            issues.insert(index, located);
            // A later document that stands on this one shall not be blamed for its faults.
        }
        changes.insert(index, put(&mut draft, written));
    }
    if !issues.is_empty() {
        return Err(Refusal::Invalid(issues.into_values().flatten().collect()));
    }
    for deployment in affected(&draft, documents) {
        expand_or_blame(&mut draft, documents, &deployment, fresh)?;
    }
    Ok(Applied { draft, changes: changes.into_values().collect() })
}

fn check(written: &Written, cluster: &Cluster) -> Vec<Finding> {
    match &written.document {
        Document::Site(site) => validate::site(&site.spec),
        Document::Bundle(bundle) => validate::bundle(&bundle.spec, cluster),
        Document::Deployment(deployment) => {
            let mut findings = expand::check(&deployment.spec, cluster);
            findings.extend(moved(&deployment.metadata.name, &deployment.spec, cluster));
            findings
        }
    }
}

/// A running deployment keeps its bundle and site: instances do not travel by a change of a name.
fn moved(
    name: &DeploymentName,
    spec: &controller_api::document::DeploymentSpec,
    cluster: &Cluster,
) -> Option<Finding> {
    let held = cluster.deployments.get(name)?;
    let finding = |path: &str, what: &str| {
        let message = format!("deployment {name} runs with another {what}: delete it first");
        Some(Finding { path: path.into(), message })
    };
    if held.bundle != spec.bundle {
        return finding("spec.bundle", "bundle");
    }
    if cluster.site_of(held) != cluster.site_of(spec) {
        return finding("spec.site", "site");
    }
    None
}

fn put(draft: &mut Draft, written: &Written) -> AppliedChange {
    let name = written.name().to_owned();
    let cluster = &draft.cluster;
    let (key, old, new, bytes) = match &written.document {
        Document::Site(site) => {
            let held = cluster.sites.get(&site.metadata.name).map(|held| &held.value);
            let (old, new) = (held.map(diff::lines), diff::lines(&site.spec));
            (format!("sites/{name}"), old, new, serde_json::to_value(&site.spec))
        }
        Document::Bundle(bundle) => {
            let held = cluster.bundles.get(&bundle.metadata.name).map(|held| &held.value);
            let (old, new) = (held.map(diff::lines), diff::lines(&bundle.spec));
            (format!("bundles/{name}"), old, new, serde_json::to_value(&bundle.spec))
        }
        Document::Deployment(deployment) => {
            let held = cluster.deployments.get(&deployment.metadata.name).map(|held| &held.value);
            let (old, new) = (held.map(diff::lines), diff::lines(&deployment.spec));
            (format!("deployments/{name}"), old, new, serde_json::to_value(&deployment.spec))
        }
    };
    let action = match &old {
        None => ChangeAction::Created,
        Some(old) if *old == new => ChangeAction::Unchanged,
        Some(_) => ChangeAction::Updated,
    };
    if action != ChangeAction::Unchanged {
        draft.put(key, &bytes.unwrap_or_default());
    }
    let diff = diff::unified(old.as_deref().unwrap_or_default(), &new);
    AppliedChange { document: written.kind().into(), name, action, diff }
}

/// Deployments whose instances may have to change.
fn affected(draft: &Draft, documents: &[Written]) -> BTreeSet<DeploymentName> {
    let cluster = &draft.cluster;
    documents
        .iter()
        .flat_map(|written| match &written.document {
            Document::Deployment(deployment) => vec![deployment.metadata.name.clone()],
            Document::Bundle(bundle) => cluster.deployments_of(&bundle.metadata.name).cloned().collect(),
            Document::Site(site) => cluster
                .deployments
                .iter()
                .filter(|(_, spec)| cluster.site_of(spec).as_ref() == Some(&site.metadata.name))
                .map(|(name, _)| name.clone())
                .collect(),
        })
        .collect()
}

fn expand_or_blame(
    draft: &mut Draft,
    documents: &[Written],
    deployment: &DeploymentName,
    fresh: &mut dyn FnMut() -> String,
) -> Result<(), Refusal> {
    let recheck = draft.cluster.deployments.get(deployment).map(|spec| expand::check(spec, &draft.cluster));
    let finding = match recheck.unwrap_or_default().into_iter().next() {
        Some(finding) => finding,
        None => match expand::expand(draft, deployment, fresh) {
            Ok(()) => return Ok(()),
            Err(finding) => finding,
        },
    };
    let bundle = draft.cluster.deployments.get(deployment).map(|spec| spec.bundle.clone());
    let wants_bundle = finding.path.starts_with("spec.members");
    let blamed = documents.iter().find(|written| match &written.document {
        Document::Bundle(document) => wants_bundle && Some(&document.metadata.name) == bundle.as_ref(),
        Document::Deployment(document) => !wants_bundle && document.metadata.name == *deployment,
        Document::Site(_) => false,
    });
    match blamed {
        Some(written) => Err(Refusal::Invalid(vec![written.issue(&finding.path, finding.message)])),
        None => {
            Err(Refusal::Conflict(format!("deployment {deployment}: {}: {}", finding.path, finding.message)))
        }
    }
}

/// Deletes what documents name; their content does not matter.
///
/// # Errors
/// [`Refusal::Conflict`] if something stands on it that the same request does not delete, [`Refusal::NotFound`] if a
/// document names nothing that is there.
pub fn delete(cluster: &Cluster, documents: &[Written]) -> Result<Applied, Refusal> {
    refuse_twice(documents)?;
    let mut draft = Draft::new(cluster.clone());
    let mut order: Vec<usize> = (0..documents.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(rank(&documents[*index].document)));
    let mut changes = BTreeMap::new();
    for index in order {
        let written = &documents[index];
        let old = match &written.document {
            Document::Deployment(document) => {
                let old = draft
                    .cluster
                    .deployments
                    .get(&document.metadata.name)
                    .map(|held| diff::lines(&held.value));
                delete_deployment(&mut draft, &document.metadata.name)?;
                old
            }
            Document::Bundle(document) => {
                let old =
                    draft.cluster.bundles.get(&document.metadata.name).map(|held| diff::lines(&held.value));
                delete_bundle(&mut draft, &document.metadata.name)?;
                old
            }
            Document::Site(document) => {
                let old =
                    draft.cluster.sites.get(&document.metadata.name).map(|held| diff::lines(&held.value));
                delete_site(&mut draft, &document.metadata.name)?;
                old
            }
        };
        let change = AppliedChange {
            document: written.kind().into(),
            name: written.name().into(),
            action: ChangeAction::Deleted,
            diff: diff::unified(&old.unwrap_or_default(), &[]),
        };
        changes.insert(index, change);
    }
    Ok(Applied { draft, changes: changes.into_values().collect() })
}

fn names<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// Removes a deployment with its instances and networks. Volumes stay.
///
/// # Errors
/// There is none.
pub fn delete_deployment(draft: &mut Draft, name: &DeploymentName) -> Result<(), Refusal> {
    if !draft.cluster.deployments.contains_key(name) {
        return Err(Refusal::NotFound(format!("there is no deployment {name}")));
    }
    let instances: Vec<_> = draft.cluster.instances_of(name).map(|(id, _)| id.clone()).collect();
    for id in instances {
        draft.delete(record::instance_key(&id));
        draft.delete(record::placement_key(&id));
        if draft.cluster.vias.contains_key(&id) {
            draft.delete(record::via_key(&id));
        }
    }
    let networks: Vec<_> = draft.cluster.networks.keys().filter(|(d, _)| d == name).cloned().collect();
    for (deployment, network) in networks {
        draft.delete(record::network_key(&deployment, &network));
    }
    let mirrors: Vec<_> =
        draft.cluster.mirrors.keys().filter(|(id, _)| id.deployment == *name).cloned().collect();
    for (id, port) in mirrors {
        draft.delete(record::mirror_key(&id, &port));
    }
    draft.delete(format!("deployments/{name}"));
    Ok(())
}

/// Removes a bundle nobody runs.
///
/// # Errors
/// There is none, or a deployment runs it.
pub fn delete_bundle(draft: &mut Draft, name: &BundleName) -> Result<(), Refusal> {
    if !draft.cluster.bundles.contains_key(name) {
        return Err(Refusal::NotFound(format!("there is no bundle {name}")));
    }
    let users = names(draft.cluster.deployments_of(name));
    if !users.is_empty() {
        return Err(Refusal::Conflict(format!(
            "bundle {name} is run by {users}: delete the deployment first"
        )));
    }
    draft.delete(format!("bundles/{name}"));
    Ok(())
}

/// Removes a site nobody is at.
///
/// # Errors
/// There is none, or a deployment or host is at it.
pub fn delete_site(draft: &mut Draft, name: &SiteName) -> Result<(), Refusal> {
    let cluster = &draft.cluster;
    if !cluster.sites.contains_key(name) {
        return Err(Refusal::NotFound(format!("there is no site {name}")));
    }
    let users = names(
        cluster
            .deployments
            .iter()
            .filter(|(_, spec)| cluster.site_of(spec).as_ref() == Some(name))
            .map(|(n, _)| n),
    );
    if !users.is_empty() {
        return Err(Refusal::Conflict(format!(
            "site {name} is used by {users}: delete the deployment first"
        )));
    }
    draft.delete(format!("sites/{name}"));
    Ok(())
}

/// Makes an instance anew: a fresh overlay, its volumes kept, placed again, by the version its channel has now.
///
/// # Errors
/// There is none.
pub fn renew_instance(
    draft: &mut Draft,
    id: &InstanceId,
    fresh: &mut dyn FnMut() -> String,
) -> Result<(), Refusal> {
    if !draft.cluster.instances.contains_key(id) {
        return Err(Refusal::NotFound(format!("there is no instance {id}")));
    }
    draft.delete(record::instance_key(id));
    draft.delete(record::placement_key(id));
    expand::expand(draft, &id.deployment, fresh)
        .map_err(|finding| Refusal::Conflict(format!("{}: {}", finding.path, finding.message)))
}

/// Removes a volume for good.
///
/// # Errors
/// There is none, or an instance uses it.
pub fn delete_volume(draft: &mut Draft, id: &InstanceId, name: &VolumeName) -> Result<(), Refusal> {
    if !draft.cluster.volumes.contains_key(&(id.clone(), name.clone())) {
        return Err(Refusal::NotFound(format!("there is no volume {id}/{name}")));
    }
    let used = draft.cluster.instances.get(id).is_some_and(|instance| instance.volumes.contains(name));
    if used {
        return Err(Refusal::Conflict(format!(
            "volume {id}/{name} is in use: delete deployment {} first",
            id.deployment
        )));
    }
    draft.delete(record::volume_key(id, name));
    Ok(())
}
