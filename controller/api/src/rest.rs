//! What the REST API takes and answers. All paths below `/v1` want `Authorization: Bearer TOKEN`.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /v1/apply?dry_run=BOOL` | YAML text, `application/yaml`, at most 1 MiB | [`ApplyResult`] |
//! | `POST /v1/delete?dry_run=BOOL` | YAML text: what it names is deleted | [`ApplyResult`] |
//! | `GET /v1/bundles`, `/v1/bundles/{name}` | | [`BundleView`] |
//! | `GET /v1/deployments`, `/v1/deployments/{name}` | | [`DeploymentView`] |
//! | `GET /v1/instances`, `/v1/instances/{deployment}/{member}` | | [`InstanceView`] |
//! | `GET /v1/hosts`, `/v1/hosts/{name}` | | [`HostView`] |
//! | `GET /v1/sites` | | [`SiteView`] |
//! | `GET /v1/volumes` | | [`VolumeView`] |
//! | `GET /v1/appliances`, `/v1/appliances/{publisher}/{name}` | | [`ApplianceView`] |
//! | `POST /v1/appliances` | [`PublishVersion`] | [`ApplianceView`] |
//! | `PUT /v1/publishers/{name}` | [`PublisherKey`] | 204; 409 if another key is known |
//! | `GET /v1/subscriptions`, `/v1/subscriptions/{publisher}` | | [`SubscriptionView`](crate::subscription::SubscriptionView) |
//! | `PUT /v1/subscriptions/{publisher}`, `POST /v1/subscriptions/{publisher}/refresh` | [`Subscribe`](crate::subscription::Subscribe) | [`SubscriptionView`](crate::subscription::SubscriptionView) |
//! | `DELETE /v1/subscriptions/{publisher}` | | 204: what is in the catalogue stays |
//! | `GET /v1/policies`, `/v1/policies/{name}` | | [`PolicyView`] |
//! | `PUT /v1/policies/{name}`, `PUT /v1/policies/{name}/candidate` | [`PutPolicy`](crate::policy::PutPolicy) | [`PolicyView`] |
//! | `PUT /v1/policies/{name}/settings` | [`SetPolicySettings`](crate::policy::SetPolicySettings) | [`PolicyView`] |
//! | `PUT /v1/policies/{name}/on-failure` | [`SetOnFailure`](crate::policy::SetOnFailure) | [`PolicyView`] |
//! | `POST /v1/policies/{name}/promote`, `POST /v1/policies/{name}/rollback` | | [`PolicyView`] |
//! | `DELETE /v1/policies/{name}/candidate`; `DELETE /v1/policies/{name}` | | [`PolicyView`]; 204, 409 if it is used |
//! | `GET /v1/policies/{name}/component?digest=DIGEST` | | `application/wasm` |
//! | `GET /v1/policies/{name}/shadow` | | [`ShadowReport`](crate::policy::ShadowReport) |
//! | `GET /v1/policy-trust`; `PUT`, `DELETE /v1/policy-trust/{name}` | [`PutTrustRoot`](crate::policy::PutTrustRoot) | [`TrustRootView`](crate::policy::TrustRootView); 204 |
//! | `GET /v1/decisions?instance=ID&policy=NAME&kind=KIND&since_ms=N&limit=N` | | [`DecisionView`], newest first |
//! | `GET /v1/decisions/{id}`, `GET /v1/decisions/{id}/input` | | [`DecisionView`]; the recorded input |
//! | `DELETE /v1/{bundles,deployments,volumes}/...`, `DELETE /v1/hosts/{name}` | | 204 |
//! | `PUT /v1/hosts/{name}/service` | [`SetService`](crate::host::SetService) | [`HostView`] |
//! | `POST /v1/hosts/{name}/labels` | [`ChangeLabels`](crate::host::ChangeLabels) | [`HostView`] |
//! | `PUT`, `DELETE /v1/hosts/{name}/attestation` | [`Attest`](crate::host::Attest) | [`HostView`] |
//! | `POST /v1/hosts/{name}/evacuation`, `POST /v1/rebalance` | [`AskMoves`](crate::host::AskMoves) | [`MovesView`](crate::host::MovesView): nothing moves unless `execute` says so |
//! | `GET /v1/rollouts`, `/v1/rollouts/{publisher}/{appliance}/{channel}/{version}/{policy}` | | [`RolloutView`](crate::planned::RolloutView) |
//! | `POST /v1/rollouts/{...}/pause`, `.../resume`, `.../retry` | [`RolloutWord`](crate::planned::RolloutWord) | [`RolloutView`](crate::planned::RolloutView) |
//! | `POST /v1/rollouts/halt-all` | [`RolloutWord`](crate::planned::RolloutWord) | names of those it paused |
//! | `GET /v1/refusals`, `GET /v1/schedules` | | [`RefusalView`](crate::planned::RefusalView), [`ScheduleView`](crate::planned::ScheduleView) |
//! | `DELETE /v1/instances/{deployment}/{member}` | | 202: its overlay goes, the deployment makes it anew |
//! | `POST /v1/tokens/join` | [`JoinTokenRequest`] | [`JoinToken`] |
//! | `GET /v1/tokens`; `POST /v1/tokens`; `DELETE /v1/tokens/{id}` | [`TokenRequest`] | [`TokenView`], [`NewToken`] |
//! | `GET /v1/events?since=REVISION&follow=BOOL` | | newline-delimited JSON of [`Event`] |
//! | `GET /v1/audit?since=N` | | [`AuditEntry`] |
//! | `GET /v1/watch?since=REVISION` | | newline-delimited JSON of [`Change`] |
//! | `GET /v1/instances/{deployment}/{member}/log?bytes=N` | | text |
//! | `GET /v1/instances/{deployment}/{member}/console` | WebSocket, binary frames both ways (`?token=` for browsers) | |
//! | `GET /v1/instances/{deployment}/{member}/boot` | | [`BootView`] |
//! | `GET /v1/instances/{deployment}/{member}/stream` | | [`StreamView`](crate::stream::StreamView); also of one that is gone, while a host remembers |
//! | `PUT /v1/deployments/{name}/interpositions` | [`InterpositionSpec`](crate::interpose::InterpositionSpec) | [`DeploymentView`]; it is in the document then |
//! | `DELETE /v1/deployments/{name}/interpositions?port=MEMBER/PORT&with=APPLIANCE` | | [`DeploymentView`] |
//! | `GET /v1/deployments/{name}/topology` | | [`TopologyView`](crate::network::TopologyView) |
//! | `GET /v1/networks`, `/v1/networks/{deployment}/{name}` | | [`NetworkView`](crate::network::NetworkView) |
//! | `GET /v1/explain?from=PORT&to=PORT&tcp=N` | | [`ExplanationView`](crate::network::ExplanationView) |
//! | `GET /v1/flows?of=DEPLOYMENT/NETWORK` | | [`FlowsView`](crate::network::FlowsView) |
//! | `GET /v1/capture?of=DEPLOYMENT/MEMBER/PORT` | | pcapng, streamed; wants an admin token |
//! | `GET /v1/images/{digest}/profiles` | | `Vec<Profile>`: what hosts are given, published or learnt |
//! | `GET /v1/holds` | | [`HoldView`](crate::stream::HoldView) |
//! | `PUT`, `DELETE /v1/holds/{publisher}/{appliance}/{version}` | [`HoldRequest`](crate::stream::HoldRequest) | [`HoldView`](crate::stream::HoldView); 204 |
//! | `GET /v1/limits`; `PUT /v1/limits?scope=SCOPE` | [`streamer_api::Limits`] | [`LimitsView`](crate::stream::LimitsView); one without limits is removed |
//! | `GET /v1/version` | | [`VersionView`] |
//! | `GET /openapi.json`, `/metrics`, `/healthz`, `/` | no token | |

use crate::agent::{HostFacts, HostStatus, InstanceState};
use crate::document::{ApplianceSpec, BundleSpec, DeploymentSpec, SiteSpec};
use crate::host::{AttestationView, HostService, PlannedPlacement};
use crate::interpose::InterpositionView;
pub use crate::policy::{ChoiceView, DecisionView, PolicyView};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use streamer_api::Profile;
use types::{
    ApplianceRef, Base64, BundleName, ByteSize, ChannelName, DeploymentName, Digest, HostName, InstanceId,
    MacAddress, NetworkName, PortName, PublisherName, Revision, SiteName, VersionName, VolumeName,
};
use utoipa::ToSchema;

/// Why a request was refused. The same shape for every error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What kind.
    pub code: ProblemCode,
    /// What, where, and what to do; one sentence or two.
    pub message: String,
    /// Places in the request's document, if it was about one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issues: Vec<Issue>,
    /// Also in the answer's `x-request-id` and in the log.
    #[serde(default)]
    pub request_id: String,
}

/// Kinds of refusal, with their HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemCode {
    /// 400: the request is no valid HTTP, JSON, or parameter.
    BadRequest,
    /// 401: no token, or an unknown, expired or revoked one.
    Unauthenticated,
    /// 403: the token may not do this.
    Forbidden,
    /// 404.
    NotFound,
    /// 409: it contradicts what is there.
    Conflict,
    /// 413.
    TooLarge,
    /// 422: the document says something that cannot be.
    Invalid,
    /// 503: a part that is needed does not answer; try again.
    Unavailable,
    /// 507: the controller's disk is full; free space there and ask again.
    DiskFull,
    /// 500: our fault; the log has the request id.
    Internal,
}

/// One place in a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Issue {
    /// From 1; 0 if unknown.
    pub line: u32,
    /// From 1; 0 if unknown.
    pub column: u32,
    /// `spec.members.gateway.appliance`; empty for the document itself.
    pub field: String,
    /// What is wrong with it and what to write instead.
    pub message: String,
}

/// What an apply or delete did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApplyResult {
    /// Of the store afterwards.
    pub revision: Revision,
    /// In the documents' order.
    pub changes: Vec<AppliedChange>,
    /// Of a dry run: where the policies would place what has no host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub placements: Vec<PlannedPlacement>,
}

/// What happened to one document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AppliedChange {
    /// `Bundle`, `Deployment`, `Site`.
    pub document: String,
    /// Its name.
    pub name: String,
    /// What was done.
    pub action: ChangeAction,
    /// Lines of a unified diff of the stored YAML; empty if unchanged.
    #[serde(default)]
    pub diff: Vec<String>,
}

/// What was done to one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeAction {
    /// It is new.
    Created,
    /// It was another.
    Updated,
    /// It was there.
    Unchanged,
    /// It is gone.
    Deleted,
}

/// A bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BundleView {
    /// Its name.
    pub name: BundleName,
    /// When it last changed.
    pub revision: Revision,
    /// As written.
    pub spec: BundleSpec,
    /// Who runs it.
    pub deployments: Vec<DeploymentName>,
}

/// A deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeploymentView {
    /// Its name.
    pub name: DeploymentName,
    /// When it last changed.
    pub revision: Revision,
    /// As written.
    pub spec: DeploymentSpec,
    /// All its instances are ready.
    pub ready: bool,
    /// Its members, and what is interposed.
    pub instances: Vec<InstanceView>,
    /// What is in the paths of its ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interpositions: Vec<InterpositionView>,
    /// What keeps it from being ready, for people.
    pub problems: Vec<String>,
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InstanceView {
    /// `deployment/member`.
    pub id: InstanceId,
    /// Its incarnation (a UUID).
    pub incarnation: String,
    /// The appliance.
    pub appliance: ApplianceRef,
    /// The version it runs.
    pub version: VersionName,
    /// The image of its system disk.
    pub image: Digest,
    /// Where; none before placement.
    pub host: Option<HostName>,
    /// Where it is in its life.
    pub state: InstanceState,
    /// Why, if not ready.
    pub reason: Option<String>,
    /// When its present run began, milliseconds since 1970 UTC.
    pub started_ms: Option<u64>,
    /// When it said it serves, milliseconds since 1970 UTC.
    pub ready_ms: Option<u64>,
    /// Starts of this incarnation.
    pub starts: u32,
    /// Its NICs.
    pub ports: Vec<PortView>,
    /// Its user volumes.
    pub volumes: Vec<VolumeName>,
    /// Why it is where it is.
    pub placement: Option<DecisionView>,
    /// Who watches it from outside, and what was found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watches: Vec<crate::watch::WatchStatus>,
    /// Processors.
    pub vcpus: u32,
    /// Memory.
    pub memory: ByteSize,
}

/// A NIC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PortView {
    /// The appliance's name for it.
    pub name: PortName,
    /// The network it joins, or watches.
    pub network: NetworkName,
    /// Its first address.
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// All of its addresses, at most one a version of IP.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// What it watches, as the bundle says it: it joins no network then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watches: Option<String>,
    /// Its Ethernet address.
    pub mac: MacAddress,
    /// Its tap on the host.
    pub tap: String,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HostView {
    /// Its name.
    pub name: HostName,
    /// Its site.
    pub site: SiteName,
    /// `host` or `origin`.
    pub role: String,
    /// Its agent is connected and was heard within 5 seconds.
    pub online: bool,
    /// When it was last heard, milliseconds since 1970 UTC.
    pub seen_ms: Option<u64>,
    /// Whether it takes instances, as people say it.
    #[serde(default)]
    pub service: HostService,
    /// What people say it is, for policies and for members' wishes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Somebody vouches for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<AttestationView>,
    /// What it is.
    pub facts: Option<HostFacts>,
    /// What is on it.
    pub status: Option<HostStatus>,
}

/// A site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SiteView {
    /// Its name.
    pub name: SiteName,
    /// As written.
    pub spec: SiteSpec,
    /// Hosts in it.
    pub hosts: Vec<HostName>,
}

/// A user's volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VolumeView {
    /// Whose.
    pub instance: InstanceId,
    /// Its name.
    pub name: VolumeName,
    /// Its size.
    pub size: ByteSize,
    /// Where its bytes are.
    pub host: HostName,
    /// Its deployment still exists.
    pub in_use: bool,
}

/// An appliance in the catalogue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApplianceView {
    /// `publisher/appliance`.
    pub name: ApplianceRef,
    /// Which version each channel points to.
    pub channels: BTreeMap<ChannelName, VersionName>,
    /// Newest last.
    pub versions: Vec<CatalogueVersion>,
}

/// One version in the catalogue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CatalogueVersion {
    /// Which.
    pub version: VersionName,
    /// When it was published, milliseconds since 1970 UTC.
    pub published_ms: u64,
    /// Its system disk.
    pub image: Digest,
    /// Bytes of that disk.
    pub size_bytes: u64,
    /// The virtual hardware.
    pub spec: ApplianceSpec,
    /// Its publisher withdrew it, and why: no channel leads to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yanked: Option<String>,
    /// Why its publisher did not boot it before publishing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untested: Option<String>,
}

/// A publisher's key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublisherKey {
    /// Ed25519 public key, 32 bytes.
    pub public_key: Base64,
}

/// A new version for the catalogue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishVersion {
    /// The signed bytes: UTF-8 JSON of [`SignedVersion`].
    pub signed: Base64,
    /// Ed25519 signature over `signed` by the publisher's key, 64 bytes.
    pub signature: Base64,
    /// BitTorrent v1 metainfo of the system disk.
    pub metainfo: Base64,
    /// Manifest of the system disk; its SHA-256 is the image's digest in `signed`.
    pub manifest: Base64,
    /// Let this channel point to the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelName>,
    /// What its guests are known to read, in order. A hint, so not signed; given again, the new ones count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<Profile>,
    /// URL of the system disk's raw bytes on a web server that answers range requests: asked when no peer has a piece.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web_seed: Option<String>,
}

/// What a publisher signs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignedVersion {
    /// Who.
    pub publisher: PublisherName,
    /// What.
    pub appliance: String,
    /// Which.
    pub version: VersionName,
    /// Its system disk.
    pub image: Digest,
    /// Bytes of that disk.
    pub size_bytes: u64,
    /// The virtual hardware.
    pub spec: ApplianceSpec,
    /// Why it was not booted before publishing; absent if it was, or by a program that did not know of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untested: Option<String>,
}

/// Ask for a one-time join token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinTokenRequest {
    /// `host` (default) or `origin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Seconds it is valid, 10 to 86,400; 3,600 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_s: Option<u64>,
}

/// A one-time join token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JoinToken {
    /// The token. It carries the SHA-256 of the controller's CA, so that the joining host knows whom to trust:
    /// `cj1.<ca digest hex>.<secret>`.
    pub token: String,
    /// Milliseconds since 1970 UTC.
    pub expires_ms: u64,
}

/// Ask for an API token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// For people.
    pub name: String,
    /// `admin` or `read`.
    pub role: String,
    /// Seconds it is valid; for ever if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_s: Option<u64>,
}

/// A new API token: shown once, stored as a hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NewToken {
    /// Its id.
    pub id: String,
    /// `Authorization: Bearer` this.
    pub token: String,
}

/// An API token, without its secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Its id.
    pub id: String,
    /// For people.
    pub name: String,
    /// `admin` or `read`.
    pub role: String,
    /// Milliseconds since 1970 UTC; none is never.
    pub expires_ms: Option<u64>,
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its place; grows.
    pub revision: Revision,
    /// Milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// `host/h1`, `instance/office/gateway`, `deployment/office`, ...
    pub object: String,
    /// Stable, kebab-case.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// One line of the audit log: a change somebody asked for. Each carries the SHA-256 of the one before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// From 1, without gaps.
    pub number: u64,
    /// Milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// `token:<id>`, `host:<name>` or `controller`.
    pub who: String,
    /// `apply`, `delete`, `publish`, `join`, `token-create`, `policy-install`, ...
    pub action: String,
    /// What was changed.
    pub object: String,
    /// Why, if somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Of the store afterwards.
    pub revision: Revision,
    /// SHA-256 of the JSON of the entry before; all zero for the first.
    pub previous: Digest,
}

/// A key of the store changed. For dashboards: a hint of what to fetch again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// Of the store afterwards.
    pub revision: Revision,
    /// `bundles`, `deployments`, `instances`, `hosts`, `appliances`, `policies`, `volumes`, `decisions`.
    pub collection: String,
    /// Name in that collection.
    pub name: String,
}

/// One instance's boot, live.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BootView {
    /// Where it is in its life.
    pub state: InstanceState,
    /// Milliseconds since 1970 UTC.
    pub started_ms: Option<u64>,
    /// Milliseconds since 1970 UTC.
    pub ready_ms: Option<u64>,
    /// Its image on its host, with its piece map.
    pub image: Option<streamer_api::ImageStatus>,
    /// End of its serial log.
    pub log_tail: String,
}

/// What answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionView {
    /// Semantic version.
    pub version: String,
    /// Of the store.
    pub revision: Revision,
    /// Announce URL to publish with.
    pub tracker: String,
}
