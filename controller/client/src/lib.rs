//! A typed client of the controller's REST API, for the CLI and the tests.
//!
//! It trusts one authority, shows one token, and turns every refusal into the [`Problem`] the controller gave. It does
//! not retry: whether another attempt makes sense is the caller's question. Start at [`Client`].

mod console;
mod frames;
mod lines;

pub use console::Console;
pub use frames::Frames;
pub use lines::Lines;

use controller_api::agent::{JoinAnswer, JoinRequest};
use controller_api::checkpoint::{
    CheckpointDiff, CheckpointView, CreateCheckpoint, PinCheckpoint, RestoreCheckpoint, RestoreView, Resume,
};
use controller_api::host::{AskMoves, Attest, ChangeLabels, HostService, MovesView, SetService};
use controller_api::interpose::{InterpositionSpec, MemberPort};
use controller_api::moving::{AskMove, MoveProgress};
use controller_api::network::{
    CaptureQuery, ExplainQuery, ExplanationView, FlowsView, NetworkView, TopologyView,
};
use controller_api::planned::{RefusalView, RolloutView, RolloutWord, ScheduleView};
use controller_api::policy::{
    OnFailure, PutPolicy, PutTrustRoot, SetOnFailure, SetPolicySettings, ShadowReport, TrustName,
    TrustRootView,
};
use controller_api::recovery::{RemovedHost, SiteReadiness};
use controller_api::rest::{
    ApplianceView, ApplyResult, AuditEntry, BootView, BundleView, Change, DecisionView, DeploymentView,
    Event, HostView, InstanceView, JoinToken, JoinTokenRequest, NewToken, PolicyView, Problem, ProblemCode,
    PublishVersion, PublisherKey, SiteView, TokenRequest, TokenView, VersionView, VolumeView,
};
use controller_api::stream::{HoldRequest, HoldView, LimitScope, LimitsView, StreamView};
use controller_api::subscription::{Subscribe, SubscriptionView};
use reqwest::{Method, RequestBuilder, Response};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde::de::DeserializeOwned;
use std::time::Duration;
use streamer_api::{Limits, Profile};
use types::{
    ApplianceRef, BundleName, DeploymentName, Digest, HostName, InstanceId, NetworkName, PolicyName,
    PublisherName, Revision, SiteName, VersionName, VolumeName,
};

/// Longest time to make a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time for an answer that is no stream.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time for an answer about a component: an interpreter takes a quarter of a minute to compile, longer on a
/// busy controller.
const COMPILE_TIMEOUT: Duration = Duration::from_secs(300);

/// Longest time for an answer about a publisher's repository: it may be far away.
const LOOK_TIMEOUT: Duration = Duration::from_secs(600);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address, authority or token cannot be used.
    #[error("cannot use {what}: {detail}")]
    Setup {
        /// Which of them.
        what: &'static str,
        /// Why.
        detail: String,
    },
    /// No answer.
    #[error("cannot reach the controller at {url}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The controller refused.
    #[error("{}", .0.message)]
    Refused(Box<Problem>),
    /// The answer is not what the contract says: another program, or another version.
    #[error("the answer of {url} cannot be understood: {detail}")]
    Answer {
        /// What was asked.
        url: String,
        /// What is wrong with it.
        detail: String,
    },
}

impl ClientError {
    /// The controller's refusal, if it is one.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            _ => None,
        }
    }

    /// The kind of the controller's refusal, if it is one.
    #[must_use]
    pub fn code(&self) -> Option<ProblemCode> {
        self.problem().map(|problem| problem.code)
    }

    fn unreachable(url: &str, error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Unreachable { url: url.to_owned(), source: Box::new(error) }
    }
}

/// One path segment: a name that holds a slash or a space is another name, never another path.
fn checkpoint_path(deployment: &DeploymentName, name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let mut path = format!("/v1/deployments/{deployment}/checkpoints/");
    for byte in name.bytes() {
        if plain(byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

/// A client of one controller.
#[derive(Debug, Clone)]
pub struct Client {
    server: String,
    token: Option<String>,
    http: reqwest::Client,
    tls: rustls::ClientConfig,
}

impl Client {
    /// A client of the controller at `server` (`https://host:port`), trusting the authorities in `ca_pem` only. Makes no
    /// connection yet.
    ///
    /// # Errors
    /// [`ClientError::Setup`].
    pub fn new(server: &str, ca_pem: &str, token: Option<&str>) -> Result<Self, ClientError> {
        let setup = |what| move |detail: String| ClientError::Setup { what, detail };
        let server = server.trim_end_matches('/').to_owned();
        if !server.starts_with("https://") {
            return Err(setup("the server's address")(format!("{server:?} does not begin with https://")));
        }
        let authorities: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(ca_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| setup("the authority's certificate")(error.to_string()))?;
        if authorities.is_empty() {
            return Err(setup("the authority's certificate")("there is none in the PEM text".into()));
        }
        let tls = chassis::tls::anonymous_client_config(&authorities)
            .map_err(|error| setup("the authority's certificate")(error.to_string()))?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .https_only(true)
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(|error| setup("TLS")(error.to_string()))?;
        Ok(Self { server, token: token.map(str::to_owned), http, tls })
    }

    /// The controller's address.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.server));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|error| ClientError::unreachable(&self.server, error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (url, status) = (response.url().path().to_owned(), response.status());
        let body = response.bytes().await.unwrap_or_default();
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(ClientError::Refused(Box::new(problem))),
            Err(_) => Err(ClientError::Answer { url, detail: format!("status {status} without a problem") }),
        }
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        self.answer_within(request, ANSWER_TIMEOUT).await
    }

    async fn answer_within<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        timeout: Duration,
    ) -> Result<T, ClientError> {
        let response = self.send(request.timeout(timeout)).await?;
        let url = response.url().path().to_owned();
        let body = response.bytes().await.map_err(|error| ClientError::unreachable(&self.server, error))?;
        serde_json::from_slice(&body).map_err(|error| ClientError::Answer { url, detail: error.to_string() })
    }

    /// `GET` of any path, as JSON.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.answer(self.request(Method::GET, path)).await
    }

    async fn remove(&self, path: &str) -> Result<(), ClientError> {
        self.send(self.request(Method::DELETE, path).timeout(ANSWER_TIMEOUT)).await.map(drop)
    }

    async fn stream<T: DeserializeOwned>(&self, path: &str) -> Result<Lines<T>, ClientError> {
        let response = self.send(self.request(Method::GET, path)).await?;
        Ok(Lines::new(response))
    }

    async fn post_yaml(&self, path: &str, text: String, dry_run: bool) -> Result<ApplyResult, ClientError> {
        let request = self.request(Method::POST, path).query(&[("dry_run", dry_run)]);
        self.answer(request.header("content-type", "application/yaml").body(text)).await
    }
}

/// One method per route; the errors are always [`ClientError`].
#[expect(clippy::missing_errors_doc, reason = "said once, above")]
impl Client {
    /// Applies documents.
    pub async fn apply(&self, text: impl Into<String>, dry_run: bool) -> Result<ApplyResult, ClientError> {
        self.post_yaml("/v1/apply", text.into(), dry_run).await
    }

    /// Deletes what documents name.
    pub async fn delete(&self, text: impl Into<String>, dry_run: bool) -> Result<ApplyResult, ClientError> {
        self.post_yaml("/v1/delete", text.into(), dry_run).await
    }

    /// All bundles.
    pub async fn bundles(&self) -> Result<Vec<BundleView>, ClientError> {
        self.get("/v1/bundles").await
    }

    /// One bundle.
    pub async fn bundle(&self, name: &BundleName) -> Result<BundleView, ClientError> {
        self.get(&format!("/v1/bundles/{name}")).await
    }

    /// Removes a bundle.
    pub async fn delete_bundle(&self, name: &BundleName) -> Result<(), ClientError> {
        self.remove(&format!("/v1/bundles/{name}")).await
    }

    /// All deployments.
    pub async fn deployments(&self) -> Result<Vec<DeploymentView>, ClientError> {
        self.get("/v1/deployments").await
    }

    /// One deployment.
    pub async fn deployment(&self, name: &DeploymentName) -> Result<DeploymentView, ClientError> {
        self.get(&format!("/v1/deployments/{name}")).await
    }

    /// Removes a deployment; its volumes stay.
    pub async fn delete_deployment(&self, name: &DeploymentName) -> Result<(), ClientError> {
        self.remove(&format!("/v1/deployments/{name}")).await
    }

    /// All instances.
    pub async fn instances(&self) -> Result<Vec<InstanceView>, ClientError> {
        self.get("/v1/instances").await
    }

    /// One instance.
    pub async fn instance(&self, id: &InstanceId) -> Result<InstanceView, ClientError> {
        self.get(&format!("/v1/instances/{id}")).await
    }

    /// Throws an instance's overlay away; it is made anew.
    pub async fn delete_instance(&self, id: &InstanceId) -> Result<(), ClientError> {
        self.remove(&format!("/v1/instances/{id}")).await
    }

    /// One instance's boot, live.
    pub async fn boot(&self, id: &InstanceId) -> Result<BootView, ClientError> {
        self.get(&format!("/v1/instances/{id}/boot")).await
    }

    /// What an instance's reads waited for; also of one that is gone, while a host remembers.
    pub async fn stream_report(&self, id: &InstanceId) -> Result<StreamView, ClientError> {
        self.get(&format!("/v1/instances/{id}/stream")).await
    }

    /// What hosts are given of what an image's guests read.
    pub async fn profiles(&self, image: &Digest) -> Result<Vec<Profile>, ClientError> {
        self.get(&format!("/v1/images/{image}/profiles")).await
    }

    /// Versions that hosts hold ahead of need.
    pub async fn holds(&self) -> Result<Vec<HoldView>, ClientError> {
        self.get("/v1/holds").await
    }

    /// Lets hosts hold a version ahead of need.
    pub async fn put_hold(
        &self,
        appliance: &ApplianceRef,
        version: &VersionName,
        request: &HoldRequest,
    ) -> Result<HoldView, ClientError> {
        self.answer(self.request(Method::PUT, &format!("/v1/holds/{appliance}/{version}")).json(request))
            .await
    }

    /// Hosts need not hold a version ahead of need any more.
    pub async fn delete_hold(
        &self,
        appliance: &ApplianceRef,
        version: &VersionName,
    ) -> Result<(), ClientError> {
        self.remove(&format!("/v1/holds/{appliance}/{version}")).await
    }

    /// Limits that were set.
    pub async fn limits(&self) -> Result<Vec<LimitsView>, ClientError> {
        self.get("/v1/limits").await
    }

    /// Sets limits; none removes them.
    pub async fn set_limits(&self, scope: &LimitScope, limits: &Limits) -> Result<LimitsView, ClientError> {
        let query = [("scope", scope.to_string())];
        self.answer(self.request(Method::PUT, "/v1/limits").query(&query).json(limits)).await
    }

    /// Puts an appliance into the path of a running port.
    pub async fn interpose(
        &self,
        deployment: &DeploymentName,
        entry: &InterpositionSpec,
    ) -> Result<DeploymentView, ClientError> {
        let path = format!("/v1/deployments/{deployment}/interpositions");
        self.answer(self.request(Method::PUT, &path).json(entry)).await
    }

    /// Takes one appliance, or all, out of the path of a running port.
    pub async fn end_interposition(
        &self,
        deployment: &DeploymentName,
        port: &MemberPort,
        with: Option<&ApplianceRef>,
    ) -> Result<DeploymentView, ClientError> {
        let path = format!("/v1/deployments/{deployment}/interpositions");
        let with = with.map(|with| ("with", with.to_string()));
        let query: Vec<_> = [("port", port.to_string())].into_iter().chain(with).collect();
        self.answer(self.request(Method::DELETE, &path).query(&query)).await
    }

    /// A deployment as one picture.
    pub async fn topology(&self, deployment: &DeploymentName) -> Result<TopologyView, ClientError> {
        self.get(&format!("/v1/deployments/{deployment}/topology")).await
    }

    /// All networks, and the wires of what is interposed.
    pub async fn networks(&self) -> Result<Vec<NetworkView>, ClientError> {
        self.get("/v1/networks").await
    }

    /// One network.
    pub async fn network(
        &self,
        deployment: &DeploymentName,
        name: &NetworkName,
    ) -> Result<NetworkView, ClientError> {
        self.get(&format!("/v1/networks/{deployment}/{name}")).await
    }

    /// Whether a connection would be let through, and why.
    pub async fn explain(&self, query: &ExplainQuery) -> Result<ExplanationView, ClientError> {
        self.answer(self.request(Method::GET, "/v1/explain").query(query)).await
    }

    /// Who speaks with whom in a deployment, or on one network of it (`deployment/network`).
    pub async fn flows(&self, of: &str) -> Result<FlowsView, ClientError> {
        self.answer(self.request(Method::GET, "/v1/flows").query(&[("of", of)])).await
    }

    /// Frames of a member's ports as they come: a pcapng file.
    pub async fn capture(&self, query: &CaptureQuery) -> Result<Frames, ClientError> {
        let response = self.send(self.request(Method::GET, "/v1/capture").query(query)).await?;
        Ok(Frames::new(response))
    }

    /// The end of an instance's serial log.
    pub async fn log(&self, id: &InstanceId, bytes: u32) -> Result<String, ClientError> {
        let request =
            self.request(Method::GET, &format!("/v1/instances/{id}/log")).query(&[("bytes", bytes)]);
        let response = self.send(request.timeout(ANSWER_TIMEOUT)).await?;
        response.text().await.map_err(|error| ClientError::unreachable(&self.server, error))
    }

    /// An instance's serial console.
    pub async fn console(&self, id: &InstanceId) -> Result<Console, ClientError> {
        Console::open(&self.server, self.token.as_deref(), self.tls.clone(), id).await
    }

    /// All hosts.
    pub async fn hosts(&self) -> Result<Vec<HostView>, ClientError> {
        self.get("/v1/hosts").await
    }

    /// One host.
    pub async fn host(&self, name: &HostName) -> Result<HostView, ClientError> {
        self.get(&format!("/v1/hosts/{name}")).await
    }

    /// Says whether a host takes new instances.
    pub async fn set_service(&self, name: &HostName, service: HostService) -> Result<HostView, ClientError> {
        let request = self.request(Method::PUT, &format!("/v1/hosts/{name}/service"));
        self.answer(request.json(&SetService { service })).await
    }

    /// Changes a host's labels.
    pub async fn change_labels(
        &self,
        name: &HostName,
        change: &ChangeLabels,
    ) -> Result<HostView, ClientError> {
        self.answer(self.request(Method::POST, &format!("/v1/hosts/{name}/labels")).json(change)).await
    }

    /// Vouches for a host.
    pub async fn attest(&self, name: &HostName, note: &str) -> Result<HostView, ClientError> {
        let request = self.request(Method::PUT, &format!("/v1/hosts/{name}/attestation"));
        self.answer(request.json(&Attest { note: note.to_owned() })).await
    }

    /// Vouches for a host no more.
    pub async fn revoke_attestation(&self, name: &HostName) -> Result<HostView, ClientError> {
        self.answer(self.request(Method::DELETE, &format!("/v1/hosts/{name}/attestation"))).await
    }

    /// Asks where a host's instances would go, and sends them there if told to.
    pub async fn evacuation(&self, name: &HostName, ask: &AskMoves) -> Result<MovesView, ClientError> {
        let request = self.request(Method::POST, &format!("/v1/hosts/{name}/evacuation"));
        self.answer(request.json(ask)).await
    }

    /// Asks which instances would be better off elsewhere, and sends them there if told to.
    pub async fn rebalance(&self, ask: &AskMoves) -> Result<MovesView, ClientError> {
        self.answer(self.request(Method::POST, "/v1/rebalance").json(ask)).await
    }

    /// Guests on their way to other hosts, and the last move of each other one.
    pub async fn moves(&self) -> Result<Vec<MoveProgress>, ClientError> {
        self.get("/v1/moves").await
    }

    /// Moves a running instance to another host.
    pub async fn move_instance(&self, id: &InstanceId, ask: &AskMove) -> Result<MovesView, ClientError> {
        self.answer(self.request(Method::POST, &format!("/v1/instances/{id}/move")).json(ask)).await
    }

    /// Calls an instance's move off.
    pub async fn cancel_move(&self, id: &InstanceId) -> Result<MoveProgress, ClientError> {
        self.answer(self.request(Method::DELETE, &format!("/v1/instances/{id}/move"))).await
    }

    /// Moves all instances of a deployment.
    pub async fn move_deployment(
        &self,
        name: &DeploymentName,
        ask: &AskMove,
    ) -> Result<MovesView, ClientError> {
        self.answer(self.request(Method::POST, &format!("/v1/deployments/{name}/move")).json(ask)).await
    }

    /// Checkpoints of a deployment, newest first.
    pub async fn checkpoints(&self, deployment: &DeploymentName) -> Result<Vec<CheckpointView>, ClientError> {
        self.get(&format!("/v1/deployments/{deployment}/checkpoints")).await
    }

    /// One checkpoint.
    pub async fn checkpoint(
        &self,
        deployment: &DeploymentName,
        name: &str,
    ) -> Result<CheckpointView, ClientError> {
        self.get(&checkpoint_path(deployment, name)).await
    }

    /// Orders a checkpoint.
    pub async fn create_checkpoint(
        &self,
        deployment: &DeploymentName,
        wish: &CreateCheckpoint,
    ) -> Result<CheckpointView, ClientError> {
        let path = format!("/v1/deployments/{deployment}/checkpoints");
        self.answer(self.request(Method::POST, &path).json(wish)).await
    }

    /// Drops a checkpoint, or cancels one that is being taken.
    pub async fn delete_checkpoint(
        &self,
        deployment: &DeploymentName,
        name: &str,
    ) -> Result<(), ClientError> {
        self.remove(&checkpoint_path(deployment, name)).await
    }

    /// Forbids that a checkpoint is dropped, or allows it again.
    pub async fn pin_checkpoint(
        &self,
        deployment: &DeploymentName,
        name: &str,
        pinned: bool,
    ) -> Result<CheckpointView, ClientError> {
        let path = format!("{}/pin", checkpoint_path(deployment, name));
        self.answer(self.request(Method::PUT, &path).json(&PinCheckpoint { pinned })).await
    }

    /// What differs from one checkpoint to a later one.
    pub async fn diff_checkpoints(
        &self,
        deployment: &DeploymentName,
        from: &str,
        to: &str,
    ) -> Result<CheckpointDiff, ClientError> {
        let path = format!("{}/diff", checkpoint_path(deployment, from));
        self.answer(self.request(Method::GET, &path).query(&[("to", to)])).await
    }

    /// Goes back to a checkpoint, or makes a new deployment from it.
    pub async fn restore_checkpoint(
        &self,
        deployment: &DeploymentName,
        name: &str,
        wish: &RestoreCheckpoint,
    ) -> Result<RestoreView, ClientError> {
        let path = format!("{}/restore", checkpoint_path(deployment, name));
        self.answer(self.request(Method::POST, &path).json(wish)).await
    }

    /// A checkpoint with memory, then the deployment is off.
    pub async fn suspend(&self, deployment: &DeploymentName) -> Result<RestoreView, ClientError> {
        self.answer(self.request(Method::POST, &format!("/v1/deployments/{deployment}/suspend"))).await
    }

    /// Lets a suspended deployment go on.
    pub async fn resume(
        &self,
        deployment: &DeploymentName,
        wish: &Resume,
    ) -> Result<RestoreView, ClientError> {
        let path = format!("/v1/deployments/{deployment}/resume");
        self.answer(self.request(Method::POST, &path).json(wish)).await
    }

    /// All rollouts.
    pub async fn rollouts(&self) -> Result<Vec<RolloutView>, ClientError> {
        self.get("/v1/rollouts").await
    }

    /// One rollout, by `publisher/appliance/channel/version/policy`.
    pub async fn rollout(&self, id: &str) -> Result<RolloutView, ClientError> {
        self.get(&format!("/v1/rollouts/{id}")).await
    }

    /// Says `pause`, `resume` or `retry` to a rollout.
    pub async fn say_to_rollout(
        &self,
        id: &str,
        word: &str,
        why: Option<&str>,
    ) -> Result<RolloutView, ClientError> {
        let body = RolloutWord { why: why.map(str::to_owned) };
        self.answer(self.request(Method::POST, &format!("/v1/rollouts/{id}/{word}")).json(&body)).await
    }

    /// Pauses all rollouts; answers the names of those that were not paused yet.
    pub async fn halt_rollouts(&self, why: Option<&str>) -> Result<Vec<String>, ClientError> {
        let body = RolloutWord { why: why.map(str::to_owned) };
        self.answer(self.request(Method::POST, "/v1/rollouts/halt-all").json(&body)).await
    }

    /// Versions that failed here and are not tried again.
    pub async fn refusals(&self) -> Result<Vec<RefusalView>, ClientError> {
        self.get("/v1/refusals").await
    }

    /// What the checkpoint policies of all deployments have planned.
    pub async fn schedules(&self) -> Result<Vec<ScheduleView>, ClientError> {
        self.get("/v1/schedules").await
    }

    /// Removes a host that holds nothing.
    pub async fn delete_host(&self, name: &HostName) -> Result<(), ClientError> {
        self.remove(&format!("/v1/hosts/{name}")).await
    }

    /// Removes a host that will never come back, with what is on it.
    pub async fn remove_host_by_force(
        &self,
        name: &HostName,
        restore: bool,
    ) -> Result<RemovedHost, ClientError> {
        let request = self.request(Method::DELETE, &format!("/v1/hosts/{name}"));
        self.answer(request.query(&[("force", true), ("restore", restore)])).await
    }

    /// Whether a site could start its deployments if it were cut off now.
    pub async fn site_readiness(&self, site: &SiteName) -> Result<SiteReadiness, ClientError> {
        self.get(&format!("/v1/sites/{site}/readiness")).await
    }

    /// All sites.
    pub async fn sites(&self) -> Result<Vec<SiteView>, ClientError> {
        self.get("/v1/sites").await
    }

    /// All user volumes.
    pub async fn volumes(&self) -> Result<Vec<VolumeView>, ClientError> {
        self.get("/v1/volumes").await
    }

    /// Removes a volume for good.
    pub async fn delete_volume(&self, id: &InstanceId, name: &VolumeName) -> Result<(), ClientError> {
        self.remove(&format!("/v1/volumes/{id}/{name}")).await
    }

    /// The catalogue.
    pub async fn appliances(&self) -> Result<Vec<ApplianceView>, ClientError> {
        self.get("/v1/appliances").await
    }

    /// One appliance.
    pub async fn appliance(&self, name: &ApplianceRef) -> Result<ApplianceView, ClientError> {
        self.get(&format!("/v1/appliances/{name}")).await
    }

    /// Publishes a version.
    pub async fn publish(&self, version: &PublishVersion) -> Result<ApplianceView, ClientError> {
        self.answer(self.request(Method::POST, "/v1/appliances").json(version)).await
    }

    /// Registers a publisher's key.
    pub async fn put_publisher(&self, name: &PublisherName, key: &PublisherKey) -> Result<(), ClientError> {
        let request = self.request(Method::PUT, &format!("/v1/publishers/{name}")).json(key);
        self.send(request.timeout(ANSWER_TIMEOUT)).await.map(drop)
    }

    /// Publishers' repositories that are followed.
    pub async fn subscriptions(&self) -> Result<Vec<SubscriptionView>, ClientError> {
        self.get("/v1/subscriptions").await
    }

    /// Follows a publisher's repository. It is looked at first, which may take minutes.
    pub async fn subscribe(
        &self,
        publisher: &PublisherName,
        request: &Subscribe,
    ) -> Result<SubscriptionView, ClientError> {
        let put = self.request(Method::PUT, &format!("/v1/subscriptions/{publisher}")).json(request);
        self.answer_within(put, LOOK_TIMEOUT).await
    }

    /// Looks at a repository now.
    pub async fn refresh_subscription(
        &self,
        publisher: &PublisherName,
    ) -> Result<SubscriptionView, ClientError> {
        let post = self.request(Method::POST, &format!("/v1/subscriptions/{publisher}/refresh"));
        self.answer_within(post, LOOK_TIMEOUT).await
    }

    /// Follows a repository no more.
    pub async fn unsubscribe(&self, publisher: &PublisherName) -> Result<(), ClientError> {
        self.remove(&format!("/v1/subscriptions/{publisher}")).await
    }

    /// Installed policies.
    pub async fn policies(&self) -> Result<Vec<PolicyView>, ClientError> {
        self.get("/v1/policies").await
    }

    /// One installed policy.
    pub async fn policy(&self, name: &PolicyName) -> Result<PolicyView, ClientError> {
        self.get(&format!("/v1/policies/{name}")).await
    }

    /// Installs a policy, or replaces the one of that name.
    pub async fn put_policy(&self, name: &PolicyName, policy: &PutPolicy) -> Result<PolicyView, ClientError> {
        self.put_component(&format!("/v1/policies/{name}"), policy).await
    }

    /// Asks a component beside the one that answers.
    pub async fn put_candidate(
        &self,
        name: &PolicyName,
        policy: &PutPolicy,
    ) -> Result<PolicyView, ClientError> {
        self.put_component(&format!("/v1/policies/{name}/candidate"), policy).await
    }

    /// Compiling takes longer than an answer may.
    async fn put_component(&self, path: &str, policy: &PutPolicy) -> Result<PolicyView, ClientError> {
        self.answer_within(self.request(Method::PUT, path).json(policy), COMPILE_TIMEOUT).await
    }

    /// Stops asking the candidate.
    pub async fn delete_candidate(&self, name: &PolicyName) -> Result<PolicyView, ClientError> {
        self.answer(self.request(Method::DELETE, &format!("/v1/policies/{name}/candidate"))).await
    }

    /// Takes the candidate into use.
    pub async fn promote_policy(&self, name: &PolicyName) -> Result<PolicyView, ClientError> {
        self.answer(self.request(Method::POST, &format!("/v1/policies/{name}/promote"))).await
    }

    /// Goes back to what answered before.
    pub async fn roll_back_policy(&self, name: &PolicyName) -> Result<PolicyView, ClientError> {
        self.answer(self.request(Method::POST, &format!("/v1/policies/{name}/rollback"))).await
    }

    /// Gives a policy other settings; none are the component's defaults.
    pub async fn set_policy_settings(
        &self,
        name: &PolicyName,
        settings: Option<serde_json::Value>,
    ) -> Result<PolicyView, ClientError> {
        let body = SetPolicySettings { settings };
        self.answer(self.request(Method::PUT, &format!("/v1/policies/{name}/settings")).json(&body)).await
    }

    /// Says what happens if a policy has no answer.
    pub async fn set_policy_on_failure(
        &self,
        name: &PolicyName,
        on_failure: OnFailure,
    ) -> Result<PolicyView, ClientError> {
        let body = SetOnFailure { on_failure };
        self.answer(self.request(Method::PUT, &format!("/v1/policies/{name}/on-failure")).json(&body)).await
    }

    /// Removes a policy that nothing names.
    pub async fn delete_policy(&self, name: &PolicyName) -> Result<(), ClientError> {
        self.remove(&format!("/v1/policies/{name}")).await
    }

    /// The bytes of a policy's component: the one that answers, or another release's.
    pub async fn policy_component(
        &self,
        name: &PolicyName,
        digest: Option<&Digest>,
    ) -> Result<Vec<u8>, ClientError> {
        let query: Vec<_> = digest.map(|digest| ("digest", digest.to_string())).into_iter().collect();
        let request = self.request(Method::GET, &format!("/v1/policies/{name}/component")).query(&query);
        let response = self.send(request.timeout(COMPILE_TIMEOUT)).await?;
        let body = response.bytes().await.map_err(|error| ClientError::unreachable(&self.server, error))?;
        Ok(body.to_vec())
    }

    /// What the candidate would have done.
    pub async fn shadow_report(&self, name: &PolicyName) -> Result<ShadowReport, ClientError> {
        self.get(&format!("/v1/policies/{name}/shadow")).await
    }

    /// Keys that are trusted.
    pub async fn trust_roots(&self) -> Result<Vec<TrustRootView>, ClientError> {
        self.get("/v1/policy-trust").await
    }

    /// Trusts a key.
    pub async fn put_trust_root(
        &self,
        name: &TrustName,
        root: &PutTrustRoot,
    ) -> Result<TrustRootView, ClientError> {
        self.answer(self.request(Method::PUT, &format!("/v1/policy-trust/{name}")).json(root)).await
    }

    /// Trusts a key no more.
    pub async fn delete_trust_root(&self, name: &TrustName) -> Result<(), ClientError> {
        self.remove(&format!("/v1/policy-trust/{name}")).await
    }

    /// Decisions, newest first.
    pub async fn decisions(&self, instance: Option<&InstanceId>) -> Result<Vec<DecisionView>, ClientError> {
        let query: Vec<_> = instance.map(|id| ("instance", id.to_string())).into_iter().collect();
        self.decisions_where(&query).await
    }

    /// Decisions that fit all of `instance`, `subject`, `policy`, `kind`, `since_ms` and `limit`, newest first.
    pub async fn decisions_where(&self, query: &[(&str, String)]) -> Result<Vec<DecisionView>, ClientError> {
        self.answer(self.request(Method::GET, "/v1/decisions").query(query)).await
    }

    /// One decision.
    pub async fn decision(&self, id: u64) -> Result<DecisionView, ClientError> {
        self.get(&format!("/v1/decisions/{id}")).await
    }

    /// What was asked.
    pub async fn decision_input(&self, id: u64) -> Result<serde_json::Value, ClientError> {
        self.get(&format!("/v1/decisions/{id}/input")).await
    }

    /// A one-time join token.
    pub async fn join_token(&self, request: &JoinTokenRequest) -> Result<JoinToken, ClientError> {
        self.answer(self.request(Method::POST, "/v1/tokens/join").json(request)).await
    }

    /// API tokens, without their secrets.
    pub async fn tokens(&self) -> Result<Vec<TokenView>, ClientError> {
        self.get("/v1/tokens").await
    }

    /// A new API token.
    pub async fn create_token(&self, request: &TokenRequest) -> Result<NewToken, ClientError> {
        self.answer(self.request(Method::POST, "/v1/tokens").json(request)).await
    }

    /// Revokes an API token.
    pub async fn delete_token(&self, id: &str) -> Result<(), ClientError> {
        self.remove(&format!("/v1/tokens/{id}")).await
    }

    /// Events after `since`; with `follow` for ever.
    pub async fn events(&self, since: Revision, follow: bool) -> Result<Lines<Event>, ClientError> {
        self.stream(&format!("/v1/events?since={since}&follow={follow}")).await
    }

    /// The audit log after entry `since`.
    pub async fn audit(&self, since: u64) -> Result<Vec<AuditEntry>, ClientError> {
        self.get(&format!("/v1/audit?since={since}")).await
    }

    /// Changes after `since`, for ever; from now if absent.
    pub async fn watch(&self, since: Option<Revision>) -> Result<Lines<Change>, ClientError> {
        let query = since.map(|since| format!("?since={since}")).unwrap_or_default();
        self.stream(&format!("/v1/watch{query}")).await
    }

    /// What answers.
    pub async fn version(&self) -> Result<VersionView, ClientError> {
        self.get("/v1/version").await
    }

    /// Joins the cluster; needs no API token.
    pub async fn join(&self, request: &JoinRequest) -> Result<JoinAnswer, ClientError> {
        self.answer(self.request(Method::POST, "/join/v1").json(request)).await
    }
}
