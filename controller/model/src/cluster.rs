//! Everything that was decided, as values: a picture of the store that planners read.

use crate::{moving, record};
use controller_api::agent::{HostDesired, HostFacts};
use controller_api::document::{BundleSpec, DeploymentSpec, SiteSpec};
use controller_api::policy::{DecisionView, ShadowView, TrustName};
use controller_api::rest::PublisherKey;
use controller_api::stream::LimitScope;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use streamer_api::Limits;
use types::{
    ApplianceRef, BundleName, ChannelName, DeploymentName, HostName, InstanceId, NameError, NetworkName,
    PolicyName, PortName, PublisherName, Revision, SiteName, VersionName, VolumeName,
};

/// A value and when it last changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored<T> {
    /// Of the transaction that wrote it.
    pub revision: Revision,
    /// What it is.
    pub value: T,
}

impl<T> std::ops::Deref for Stored<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// A collection by name.
pub type Table<K, T> = BTreeMap<K, Stored<T>>;

/// The store's content by type. See [`record`] for the keys.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cluster {
    /// By name.
    pub bundles: Table<BundleName, BundleSpec>,
    /// By name.
    pub deployments: Table<DeploymentName, DeploymentSpec>,
    /// By name.
    pub sites: Table<SiteName, SiteSpec>,
    /// By `deployment/member`.
    pub instances: Table<InstanceId, record::Instance>,
    /// By `deployment/member`.
    pub placements: Table<InstanceId, record::Placement>,
    /// Networks that cross hosts.
    pub networks: Table<(DeploymentName, NetworkName), record::Network>,
    /// By whose they are and name: ports that watch.
    pub mirrors: Table<(InstanceId, PortName), record::Mirror>,
    /// What is interposed, by its instance.
    pub vias: Table<InstanceId, record::Via>,
    /// By instance: on its way to another host, or its last move.
    pub moves: Table<InstanceId, moving::Move>,
    /// By owner and name.
    pub volumes: Table<(InstanceId, VolumeName), record::Volume>,
    /// By name.
    pub hosts: Table<HostName, record::Host>,
    /// By host.
    pub facts: Table<HostName, HostFacts>,
    /// By host.
    pub desired: Table<HostName, HostDesired>,
    /// The catalogue.
    pub versions: Table<(ApplianceRef, VersionName), record::Version>,
    /// The catalogue's pointers.
    pub channels: Table<(ApplianceRef, ChannelName), record::Channel>,
    /// By name.
    pub publishers: Table<PublisherName, PublisherKey>,
    /// By publisher.
    pub subscriptions: Table<PublisherName, record::Subscription>,
    /// By 64 hexadecimal digits.
    pub images: Table<String, record::Image>,
    /// By version.
    pub holds: Table<(ApplianceRef, VersionName), record::Hold>,
    /// By whose they are.
    pub limits: Table<LimitScope, Limits>,
    /// By id.
    pub rollouts: Table<String, record::Rollout>,
    /// Versions that failed here.
    pub refusals: Table<(ApplianceRef, VersionName), record::Refusal>,
    /// By deployment.
    pub schedules: Table<DeploymentName, record::Schedule>,
    /// By deployment and name.
    pub checkpoints: Table<(DeploymentName, String), record::Checkpoint>,
    /// By name.
    pub policies: Table<PolicyName, record::Policy>,
    /// Keys that vouch for policies, by the operator's name for them.
    pub trust: Table<TrustName, record::TrustRoot>,
    /// By number.
    pub decisions: Table<u64, DecisionView>,
    /// What candidates would have answered, by the decision's number.
    pub shadows: Table<u64, ShadowView>,
    /// Bytes of the inputs that are kept, by the decision's number. They themselves stay in the store.
    pub inputs: BTreeMap<u64, usize>,
    /// By host, of members and of those that were removed by force.
    pub leases: Table<HostName, record::HostLease>,
    /// By id.
    pub tokens: Table<String, record::Token>,
    /// By id.
    pub joins: Table<String, record::Join>,
}

/// A stored record that this program cannot read.
#[derive(Debug, thiserror::Error)]
#[error("the stored record {key} cannot be read")]
pub struct RecordError {
    /// Its key.
    pub key: String,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl Cluster {
    /// Takes up one change of the store. Keys of collections that are not in here are passed over.
    ///
    /// # Errors
    /// The key or the value is malformed; nothing is changed then.
    pub fn take(&mut self, key: &str, value: Option<&[u8]>, revision: Revision) -> Result<(), RecordError> {
        self.take_inner(key, value, revision).map_err(|source| RecordError { key: key.to_owned(), source })
    }

    fn take_inner(
        &mut self,
        key: &str,
        value: Option<&[u8]>,
        revision: Revision,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let (collection, name) = key.split_once('/').unwrap_or((key, ""));
        match collection {
            "bundles" => set(&mut self.bundles, name.parse()?, value, revision),
            "deployments" => set(&mut self.deployments, name.parse()?, value, revision),
            "sites" => set(&mut self.sites, name.parse()?, value, revision),
            "instances" => set(&mut self.instances, name.parse()?, value, revision),
            "placements" => set(&mut self.placements, name.parse()?, value, revision),
            "networks" => set(&mut self.networks, pair(name)?, value, revision),
            "mirrors" => set(&mut self.mirrors, owned(name)?, value, revision),
            "vias" => set(&mut self.vias, name.parse()?, value, revision),
            "moves" => set(&mut self.moves, name.parse()?, value, revision),
            "volumes" => set(&mut self.volumes, owned(name)?, value, revision),
            "hosts" => set(&mut self.hosts, name.parse()?, value, revision),
            "facts" => set(&mut self.facts, name.parse()?, value, revision),
            "desired" => set(&mut self.desired, name.parse()?, value, revision),
            "versions" => set(&mut self.versions, owned(name)?, value, revision),
            "channels" => set(&mut self.channels, owned(name)?, value, revision),
            "publishers" => set(&mut self.publishers, name.parse()?, value, revision),
            "subscriptions" => set(&mut self.subscriptions, name.parse()?, value, revision),
            "images" => set(&mut self.images, name.to_owned(), value, revision),
            "holds" => set(&mut self.holds, owned(name)?, value, revision),
            "limits" => set(&mut self.limits, name.parse()?, value, revision),
            "rollouts" => set(&mut self.rollouts, name.to_owned(), value, revision),
            "refusals" => set(&mut self.refusals, owned(name)?, value, revision),
            "schedules" => set(&mut self.schedules, name.parse()?, value, revision),
            "checkpoints" => {
                let (deployment, checkpoint) = name.split_once('/').unwrap_or((name, ""));
                set(&mut self.checkpoints, (deployment.parse()?, checkpoint.to_owned()), value, revision)
            }
            "trust" => set(&mut self.trust, name.parse()?, value, revision),
            "policies" => set(&mut self.policies, name.parse()?, value, revision),
            "decisions" => {
                let number = name.parse()?;
                set(&mut self.decisions, number, value, revision)?;
                if let Some(decision) = self.decisions.get_mut(&number) {
                    complete(&mut decision.value);
                }
                Ok(())
            }
            "shadows" => set(&mut self.shadows, name.parse()?, value, revision),
            "inputs" => {
                let number = name.parse()?;
                match value {
                    Some(bytes) => drop(self.inputs.insert(number, bytes.len())),
                    None => drop(self.inputs.remove(&number)),
                }
                Ok(())
            }
            "leases" => set(&mut self.leases, name.parse()?, value, revision),
            "tokens" => set(&mut self.tokens, name.to_owned(), value, revision),
            "joins" => set(&mut self.joins, name.to_owned(), value, revision),
            _ => Ok(()),
        }
    }

    /// Members of one deployment, in name order.
    pub fn instances_of<'a>(
        &'a self,
        deployment: &'a DeploymentName,
    ) -> impl Iterator<Item = (&'a InstanceId, &'a Stored<record::Instance>)> {
        self.instances.iter().filter(move |(id, _)| id.deployment == *deployment)
    }

    /// Deployments of one bundle, in name order.
    pub fn deployments_of<'a>(&'a self, bundle: &'a BundleName) -> impl Iterator<Item = &'a DeploymentName> {
        self.deployments.iter().filter(move |(_, spec)| spec.bundle == *bundle).map(|(name, _)| name)
    }

    /// Versions of one appliance.
    pub fn versions_of<'a>(
        &'a self,
        appliance: &'a ApplianceRef,
    ) -> impl Iterator<Item = (&'a VersionName, &'a Stored<record::Version>)> {
        self.versions
            .iter()
            .filter(move |((name, _), _)| name == appliance)
            .map(|((_, version), record)| (version, record))
    }

    /// The site a deployment is at: the one it names, else the only one; none if there is none.
    #[must_use]
    pub fn site_of(&self, spec: &DeploymentSpec) -> Option<SiteName> {
        spec.site.clone().or_else(|| match self.sites.len() {
            1 => self.sites.keys().next().cloned(),
            _ => None,
        })
    }

    /// The latest decision about an instance.
    #[must_use]
    pub fn last_decision(&self, id: &InstanceId) -> Option<&DecisionView> {
        self.decisions
            .values()
            .rev()
            .find(|decision| decision.instance.as_ref() == Some(id))
            .map(|stored| &stored.value)
    }

    /// The latest decision about a subject, such as `instance/office/gateway`.
    #[must_use]
    pub fn last_decision_about(&self, subject: &str) -> Option<&DecisionView> {
        self.decisions.values().rev().find(|decision| decision.subject == subject).map(|stored| &stored.value)
    }
}

/// Records of before there were other kinds say only which instance they are about.
fn complete(decision: &mut DecisionView) {
    if let Some(instance) = decision.instance.as_ref().filter(|_| decision.subject.is_empty()) {
        decision.subject = format!("instance/{instance}");
    }
    if decision.outcome.is_empty() {
        decision.outcome = match &decision.host {
            Some(host) => format!("{} on {host}", decision.verdict),
            None => decision.verdict.clone(),
        };
    }
}

fn set<K: Ord, T: DeserializeOwned>(
    table: &mut Table<K, T>,
    key: K,
    value: Option<&[u8]>,
    revision: Revision,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    match value {
        Some(bytes) => {
            let value = serde_json::from_slice(bytes)?;
            table.insert(key, Stored { revision, value });
        }
        None => drop(table.remove(&key)),
    }
    Ok(())
}

fn pair<A, B>(name: &str) -> Result<(A, B), NameError>
where
    A: std::str::FromStr<Err = NameError>,
    B: std::str::FromStr<Err = NameError>,
{
    let (first, second) = name.split_once('/').unwrap_or((name, ""));
    Ok((first.parse()?, second.parse()?))
}

/// `OWNER/OWNER/NAME`.
fn owned<A, B>(name: &str) -> Result<(A, B), NameError>
where
    A: std::str::FromStr<Err = NameError>,
    B: std::str::FromStr<Err = NameError>,
{
    let (owner, last) = name.rsplit_once('/').unwrap_or((name, ""));
    Ok((owner.parse()?, last.parse()?))
}
