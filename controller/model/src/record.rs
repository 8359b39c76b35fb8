//! What the store holds under which key. All values are JSON.
//!
//! | key | value |
//! |---|---|
//! | `bundles/NAME`, `deployments/NAME`, `sites/NAME` | the document's `spec` |
//! | `instances/DEPLOYMENT/MEMBER` | [`Instance`] |
//! | `placements/DEPLOYMENT/MEMBER` | [`Placement`] |
//! | `networks/DEPLOYMENT/NETWORK` | [`Network`] |
//! | `mirrors/DEPLOYMENT/MEMBER/PORT` | [`Mirror`] |
//! | `volumes/DEPLOYMENT/MEMBER/NAME` | [`Volume`] |
//! | `hosts/NAME`, `facts/HOST`, `desired/HOST` | [`Host`], `HostFacts`, `HostDesired` |
//! | `versions/PUBLISHER/APPLIANCE/VERSION` | [`Version`] |
//! | `channels/PUBLISHER/APPLIANCE/CHANNEL` | [`Channel`] |
//! | `publishers/NAME` | `PublisherKey` |
//! | `subscriptions/PUBLISHER` | [`Subscription`] |
//! | `images/HEX` | [`Image`] |
//! | `policies/NAME` | [`Policy`] |
//! | `trust/NAME` | [`TrustRoot`] |
//! | `decisions/NUMBER`, `inputs/NUMBER`, `shadows/NUMBER` | `DecisionView`, what was asked, `ShadowView` |
//! | `holds/PUBLISHER/APPLIANCE/VERSION` | [`Hold`] |
//! | `limits/all`, `limits/site/NAME`, `limits/host/NAME` | `Limits` |
//! | `vias/DEPLOYMENT/MEMBER` | [`Via`] |
//! | `moves/DEPLOYMENT/MEMBER` | [`crate::moving::Move`] |
//! | `rollouts/PUBLISHER/APPLIANCE/CHANNEL/VERSION/POLICY` | [`Rollout`] |
//! | `refusals/PUBLISHER/APPLIANCE/VERSION` | [`Refusal`] |
//! | `schedules/DEPLOYMENT` | [`Schedule`] |
//! | `checkpoints/DEPLOYMENT/NAME` | [`Checkpoint`] |
//! | `leases/HOST` | [`HostLease`] |
//! | `tokens/ID`, `joins/ID` | [`Token`], [`Join`] |

use controller_api::checkpoint::CheckpointPhase;
use controller_api::document::ApplianceSpec;
use controller_api::host::HostService;
use controller_api::interpose::{InterpositionPhase, MemberPort};
use controller_api::life::{CaptureState, CapturedDisk, Layer, Power, SavedMemory};
use controller_api::planned::{RollOrder, RolloutPause, TakeOrder};
use controller_api::policy::{OnFailure, PolicyKind, PolicyRelease};
use controller_api::subscription::{RepositorySource, SubscriptionState};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use streamer_api::Prefetch;
use types::{
    ApplianceRef, Base64, ByteSize, ChannelName, DeploymentName, Digest, HostName, InstanceId, MacAddress,
    MemberName, NetworkName, PolicyName, PortName, SiteName, VersionName, VolumeName,
};

/// One member of a deployment, decided but for where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// A UUID: another one is another guest with a fresh overlay.
    pub incarnation: String,
    /// What it runs.
    pub appliance: ApplianceRef,
    /// Which version of it.
    pub version: VersionName,
    /// The image of its system disk.
    pub image: Digest,
    /// Bytes of that image.
    pub image_size_bytes: u64,
    /// Processors.
    pub vcpus: u32,
    /// Memory.
    pub memory: ByteSize,
    /// NICs in the appliance's order.
    pub ports: Vec<Port>,
    /// The user's own disks.
    pub volumes: Vec<VolumeName>,
    /// SHA-256 of all that the guest can see of this, without the incarnation: if it changes, the guest is made anew.
    pub shape: Digest,
    /// Whether it runs.
    #[serde(default, skip_serializing_if = "Power::is_on")]
    pub power: Power,
    /// What this incarnation's overlay stands on above the image, oldest first: it was made from a checkpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Layer>,
    /// The memory this incarnation's first run goes on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_from: Option<SavedMemory>,
    /// What its document tells its cloud-init.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
}

/// A NIC with everything decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// The appliance's name for it.
    pub name: PortName,
    /// Which network it joins, or watches.
    pub network: NetworkName,
    /// Its Ethernet address.
    pub mac: MacAddress,
    /// Its tap on the host.
    pub tap: String,
    /// Its addresses with the bits of their subnets, at most one a version of IP; none if it watches.
    pub addresses: Vec<IpNet>,
    /// Its network's MTU in bytes.
    pub mtu: u16,
    /// It joins no network, it gets copies and sends nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watches: Option<Watched>,
}

/// What of a port's network it watches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Watched {
    /// All of it.
    Network,
    /// What one guest sends and is sent there.
    Port {
        /// Whose port.
        member: MemberName,
        /// Which.
        port: PortName,
    },
}

impl Port {
    /// It is on this network.
    #[must_use]
    pub fn joins(&self, network: &NetworkName) -> bool {
        self.watches.is_none() && self.network == *network
    }

    /// Its addresses without their subnets' bits.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().map(IpNet::addr)
    }

    /// `inside` or `workspace/eth0`, as people write it.
    #[must_use]
    pub fn watched(&self) -> Option<String> {
        self.watches.as_ref().map(|watched| match watched {
            Watched::Network => self.network.to_string(),
            Watched::Port { member, port } => format!("{member}/{port}"),
        })
    }
}

/// Where an instance was placed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// On which host.
    pub host: HostName,
    /// By which decision.
    pub decision: u64,
}

/// A network of a deployment that crosses hosts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Unique among networks and mirrors of the cluster, 4,096 to 16,777,215.
    pub vni: u32,
    /// Its router's address on the site's LAN, with the LAN's bits, if it leads there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<IpNet>,
}

/// How copies come to a port that watches.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Mirror {
    /// By member that is watched: the number under which its host sends, unique as a network's. A host uses that of the
    /// first of its members.
    pub tunnels: BTreeMap<MemberName, u32>,
}

/// An instance that is interposed at a port: no member of a bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Via {
    /// Where.
    pub port: MemberPort,
    /// What it runs.
    pub with: ApplianceRef,
    /// How far it is.
    pub phase: InterpositionPhase,
    /// The other end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<Pair>,
}

/// The other end of an interposed pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// Its instance's member name.
    pub member: MemberName,
    /// Known to both ends and to nobody else: 64 hexadecimal digits.
    pub secret: String,
}

/// A user's own disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// Its size.
    pub size: ByteSize,
    /// Where its bytes are; none before its instance was first placed.
    pub host: Option<HostName>,
    /// Another one is another disk, made anew from its layers. Empty, or a UUID.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub incarnation: String,
    /// What this incarnation held when it was made, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Layer>,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Where it is.
    pub site: SiteName,
    /// `host` or `origin`.
    pub role: String,
    /// SHA-256 of its certificate (DER): another one is refused.
    pub certificate: Digest,
    /// Milliseconds since 1970 UTC.
    pub joined_ms: u64,
    /// Whether it takes instances, as people say it.
    #[serde(default, skip_serializing_if = "HostService::is_in_service")]
    pub service: HostService,
    /// What people say it is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Somebody vouched for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<Attestation>,
}

impl Host {
    /// One that has just joined: nobody has said anything of it.
    #[must_use]
    pub fn joined(site: SiteName, role: String, certificate: Digest, joined_ms: u64) -> Self {
        let (service, labels, attestation) = (HostService::default(), BTreeMap::new(), None);
        Self { site, role, certificate, joined_ms, service, labels, attestation }
    }

    /// Somebody vouched for it, and it is still the machine with the certificate of then.
    #[must_use]
    pub fn attested(&self) -> Option<&Attestation> {
        self.attestation.as_ref().filter(|attestation| attestation.certificate == self.certificate)
    }
}

/// An operator's word for a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// The host's certificate at that time.
    pub certificate: Digest,
    /// What was looked at, and how.
    pub note: String,
    /// `token:<id>`.
    pub who: String,
    /// Milliseconds since 1970 UTC.
    pub at_ms: u64,
}

/// One version in the catalogue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// Milliseconds since 1970 UTC.
    pub published_ms: u64,
    /// Its system disk.
    pub image: Digest,
    /// Bytes of that disk.
    pub size_bytes: u64,
    /// The virtual hardware.
    pub spec: ApplianceSpec,
    /// SHA-256 of the signed bytes.
    pub signed: Digest,
    /// Its publisher withdrew it, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yanked: Option<String>,
    /// Why its publisher did not boot it before publishing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untested: Option<String>,
}

/// A publisher's repository that is followed. The publisher publishes here by no other way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Where it is.
    pub source: RepositorySource,
    /// The root that was trusted by hand.
    pub root: Base64,
    /// Milliseconds between two looks.
    pub interval_ms: u64,
    /// How it stands.
    #[serde(default)]
    pub state: SubscriptionState,
    /// Since when, milliseconds since 1970 UTC.
    pub since_ms: u64,
    /// Why it is not current.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// When it was last believed, milliseconds since 1970 UTC.
    pub refreshed_ms: u64,
    /// When its metadata expires, milliseconds since 1970 UTC.
    pub expires_ms: u64,
    /// Version of the root that is trusted by now.
    pub root_version: u64,
}

/// Where a channel points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Channel {
    /// To which version.
    pub version: VersionName,
}

/// An image whose metainfo and manifest are held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// SHA-1 of the info dictionary, 40 hexadecimal digits.
    pub info_hash: String,
    /// Bytes of the image.
    pub size_bytes: u64,
    /// Grows when hosts gain by fetching the image's source again: its profiles are others, or its web seed.
    #[serde(default)]
    pub source: u64,
    /// URL of its raw bytes on a web server; `publisher://NAME`: the controller passes them on from that publisher's
    /// repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web_seed: Option<String>,
    /// A file of a checkpoint, uploaded then, milliseconds since 1970 UTC: it goes when nothing needs it. None: a version's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_ms: Option<u64>,
}

/// Hosts hold a version's image ahead of need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hold {
    /// Of that version.
    pub image: Digest,
    /// Which hosts; all if empty.
    pub hosts: BTreeSet<HostName>,
    /// How much is fetched ahead.
    pub prefetch: Prefetch,
    /// Never evicted.
    pub pin: bool,
    /// Where the version was placed since: nothing more is fetched ahead there.
    #[serde(default)]
    pub ran: BTreeSet<HostName>,
}

/// An installed policy. Records of before there were settings hold the name, kind and component only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// What it decides.
    pub kind: PolicyKind,
    /// What answers.
    #[serde(flatten)]
    pub active: PolicyRelease,
    /// What happens if it has no answer.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// What answered before, newest first, at most [`EARLIER_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<PolicyRelease>,
    /// What is asked beside it, without effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<PolicyRelease>,
    /// The component that the last rollback left: the package does not bring it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Digest>,
}

/// Releases of a policy that can be gone back to.
pub const EARLIER_MAX: usize = 10;

impl Policy {
    /// All releases whose components are needed.
    pub fn releases(&self) -> impl Iterator<Item = &PolicyRelease> {
        std::iter::once(&self.active).chain(&self.earlier).chain(&self.candidate)
    }
}

/// A key that is trusted to vouch for policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustRoot {
    /// Ed25519 public key, 32 bytes.
    pub key: Base64,
    /// What it may vouch for.
    pub kinds: BTreeSet<PolicyKind>,
    /// Nothing new is taken in by it from then on, milliseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// Milliseconds since 1970 UTC.
    pub added_ms: u64,
}

/// A version that replaces others, as its policy left it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Of which appliance.
    pub appliance: ApplianceRef,
    /// The channel that moved.
    pub channel: ChannelName,
    /// To this version.
    pub target: VersionName,
    /// Who decides.
    pub policy: PolicyName,
    /// Milliseconds since 1970 UTC.
    pub started_ms: u64,
    /// What the policy wants to be given back.
    #[serde(default)]
    pub state: Base64,
    /// What it last said: a `RolloutView`'s step.
    pub step: String,
    /// Why.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// When it is asked again, milliseconds since 1970 UTC; 0: when something changes.
    pub next_call_ms: u64,
    /// Every roll it ordered, oldest first.
    #[serde(default)]
    pub orders: Vec<RollOrder>,
    /// How many of them had ended when its policy last answered.
    #[serde(default)]
    pub heeded: usize,
    /// Somebody paused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<RolloutPause>,
    /// When somebody last let it go on, milliseconds since 1970 UTC; 0 if nobody did.
    #[serde(default)]
    pub resumed_ms: u64,
    /// The last stored decision.
    #[serde(default)]
    pub decision: Option<u64>,
}

/// A version that failed here and is not tried again until somebody says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What went wrong.
    pub reason: String,
    /// On which instance first.
    pub instance: InstanceId,
    /// Milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// What that instance ran before: new ones run that, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<VersionName>,
    /// The rollout that found it out.
    pub rollout: String,
}

/// What the checkpoint policy of a deployment has planned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Who decides.
    pub policy: PolicyName,
    /// When the deployment was first seen running, milliseconds since 1970 UTC.
    pub created_ms: u64,
    /// What the policy wants to be given back.
    #[serde(default)]
    pub state: Base64,
    /// When it is asked again, milliseconds since 1970 UTC; 0: when something changes.
    pub next_call_ms: u64,
    /// One is to be taken.
    #[serde(default)]
    pub take: Option<TakeOrder>,
    /// These are to be dropped.
    #[serde(default)]
    pub discards: BTreeSet<String>,
    /// Why the policy had no answer.
    #[serde(default)]
    pub problem: Option<String>,
    /// The last stored decision.
    #[serde(default)]
    pub decision: Option<u64>,
}

/// A state of a deployment one can go back to, or one that is being taken.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// When its last member was known to be taken, milliseconds since 1970 UTC; 0 before.
    pub taken_ms: u64,
    /// Bytes that were written for it: dropping it alone frees no more.
    pub size_bytes: u64,
    /// It holds the guests' memory.
    pub with_memory: bool,
    /// Who wanted it.
    pub cause: CheckpointCause,
    /// Somebody forbade to drop it.
    #[serde(default)]
    pub pinned: bool,
    /// Whether it is known to be good.
    #[serde(default)]
    pub verified: Verified,
    /// A UUID; empty in records of before hosts took any.
    #[serde(default)]
    pub id: String,
    /// How far it is.
    #[serde(default)]
    pub phase: CheckpointPhase,
    /// Why it failed or is damaged, or what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was ordered, milliseconds since 1970 UTC.
    #[serde(default)]
    pub requested_ms: u64,
    /// Longest time in milliseconds that ports are held for it; longer while memory is saved.
    #[serde(default)]
    pub pause_max_ms: u64,
    /// When hosts were told to hold ports, milliseconds since 1970 UTC; 0 before.
    #[serde(default)]
    pub hold_from_ms: u64,
    /// How long until they were told to let them pass again, in milliseconds.
    #[serde(default)]
    pub hold_ms: u64,
    /// What is done once it is taken.
    #[serde(default, skip_serializing_if = "Then::is_nothing")]
    pub then: Then,
    /// Its members as they were.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<MemberName, Part>,
}

impl Checkpoint {
    /// One can go back to it, if its files are in reach.
    #[must_use]
    pub fn is_restorable(&self) -> bool {
        matches!(self.phase, CheckpointPhase::Keeping | CheckpointPhase::Complete)
    }

    /// It is neither taken nor failed.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        matches!(self.phase, CheckpointPhase::Requested | CheckpointPhase::Holding | CheckpointPhase::Taking)
    }

    /// It was not taken and will not be.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.phase == CheckpointPhase::Failed
    }
}

/// What is done in the moment that a checkpoint is taken.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum Then {
    /// Nothing.
    #[default]
    Nothing,
    /// Its guests are switched off: the deployment is suspended into it.
    Off,
    /// The deployment goes back to an earlier one.
    Restore {
        /// Its name.
        checkpoint: String,
        /// Only these members; all if empty.
        members: BTreeSet<MemberName>,
        /// Its memory, too.
        with_memory: bool,
    },
}

impl Then {
    /// It is the one that needs no word.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::Nothing
    }
}

/// One member of a checkpoint as it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// The guest that is captured.
    pub incarnation: String,
    /// Where it was: the host that keeps its files.
    pub host: HostName,
    /// What it ran.
    pub appliance: ApplianceRef,
    /// Which version of it.
    pub version: VersionName,
    /// The image of its system disk.
    pub image: Digest,
    /// Bytes of that image.
    pub image_size_bytes: u64,
    /// Processors.
    pub vcpus: u32,
    /// Memory.
    pub memory: ByteSize,
    /// Its NICs: memory goes on only with the same.
    pub ports: Vec<Port>,
    /// The user's own disks.
    pub volumes: Vec<VolumeName>,
    /// It ran.
    pub ran: bool,
    /// Its memory is saved, too.
    pub with_memory: bool,
    /// How far it is, as last known.
    pub state: CaptureState,
    /// What its host says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long its processors stood, in microseconds.
    #[serde(default)]
    pub pause_us: u64,
    /// Bytes that were written for it.
    #[serde(default)]
    pub new_bytes: u64,
    /// Each disk's whole chain, oldest layer first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<CapturedDisk>,
    /// Its memory, if it was saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved: Option<SavedMemory>,
}

impl Part {
    /// Its files are on its host's disk.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        matches!(self.state, CaptureState::Taken | CaptureState::Published)
    }

    /// Every file, as an image; none for one that is not.
    pub fn files(&self) -> impl Iterator<Item = Option<Digest>> + '_ {
        let layers = self.disks.iter().flat_map(|disk| disk.layers.iter().map(|layer| layer.image));
        layers.chain(self.saved.iter().map(|memory| memory.image))
    }
}

/// Who wanted a checkpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointCause {
    /// The deployment's checkpoint policy.
    Policy,
    /// A person.
    #[default]
    Person,
    /// An update, to come back to.
    Update,
    /// A restore or a suspend, of what was there before.
    Restore,
}

/// Whether a checkpoint is known to be good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verified {
    /// Nobody tried.
    #[default]
    Untried,
    /// It was restored with success.
    Good,
    /// It cannot be restored.
    Damaged,
}

/// What a host may do without being heard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostLease {
    /// No lease that it may still have is longer, in milliseconds.
    pub longest_ms: u64,
    /// Leased instances that it was told to run without a lease and has not said to have taken for leased.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub loose: BTreeSet<InstanceId>,
    /// It is lost, and was not connected since: what of others can be elsewhere is elsewhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
}

/// An API token, as a hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// SHA-256 of the secret.
    pub secret: Digest,
    /// For people.
    pub name: String,
    /// `admin` or `read`.
    pub role: String,
    /// Milliseconds since 1970 UTC; none is never.
    pub expires_ms: Option<u64>,
}

/// A one-time join token, as a hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Join {
    /// SHA-256 of the secret.
    pub secret: Digest,
    /// `host` or `origin`.
    pub role: String,
    /// Milliseconds since 1970 UTC.
    pub expires_ms: u64,
}

/// `instances/office/gateway`.
#[must_use]
pub fn instance_key(id: &InstanceId) -> String {
    format!("instances/{id}")
}

/// `placements/office/gateway`.
#[must_use]
pub fn placement_key(id: &InstanceId) -> String {
    format!("placements/{id}")
}

/// `networks/office/inside`.
#[must_use]
pub fn network_key(deployment: &DeploymentName, network: &NetworkName) -> String {
    format!("networks/{deployment}/{network}")
}

/// `vias/office/via-workspace-eth0-1`.
#[must_use]
pub fn via_key(id: &InstanceId) -> String {
    format!("vias/{id}")
}

/// `mirrors/office/watcher/sniff`.
#[must_use]
pub fn mirror_key(id: &InstanceId, port: &PortName) -> String {
    format!("mirrors/{id}/{port}")
}

/// `volumes/office/workspace/home`.
#[must_use]
pub fn volume_key(id: &InstanceId, volume: &VolumeName) -> String {
    format!("volumes/{id}/{volume}")
}

/// `checkpoints/office/20260131-120000`.
#[must_use]
pub fn checkpoint_key(deployment: &DeploymentName, name: &str) -> String {
    format!("checkpoints/{deployment}/{name}")
}

/// `holds/acme/workspace/2.0.0`.
#[must_use]
pub fn hold_key(appliance: &ApplianceRef, version: &VersionName) -> String {
    format!("holds/{appliance}/{version}")
}

/// `refusals/acme/workspace/2.0.0`.
#[must_use]
pub fn refusal_key(appliance: &ApplianceRef, version: &VersionName) -> String {
    format!("refusals/{appliance}/{version}")
}

/// Numbers in keys have as many digits as the largest, so that their order is the keys' order.
#[must_use]
pub fn number_key(collection: &str, number: u64) -> String {
    format!("{collection}/{number:020}")
}
