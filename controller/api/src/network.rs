//! Networks as people ask about them: what is there, why something passes, who speaks with whom.

use crate::agent::InstanceState;
use crate::interpose::InterpositionView;
use netd_api::{Counter, Flow, MirrorStatus, PortStatus, RouterStatus, Stage, Uplink, Verdict};
use serde::{Deserialize, Serialize};
use types::{ApplianceRef, DeploymentName, HostName, MacAddress, MemberName, NetworkName, PortName};
use utoipa::{IntoParams, ToSchema};

/// One network of a deployment, as desired and as its hosts see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NetworkView {
    /// Whose.
    pub deployment: DeploymentName,
    /// Its name in the bundle.
    pub name: NetworkName,
    /// Its subnets; none for a site's own LAN.
    pub subnets: Vec<String>,
    /// Its router's addresses on the site's LAN: what it publishes is reached there, and by NAT its members speak from
    /// there. None if no router leads out.
    #[serde(default)]
    pub outside: Vec<String>,
    /// Largest frame payload in bytes.
    pub mtu: u16,
    /// It is up on every host that has a port of it, and all of those ports are ready.
    pub ready: bool,
    /// It is no network of the bundle but the wire between a port and what is interposed there.
    pub wire: bool,
    /// Each host that has a port of it, in name order.
    pub hosts: Vec<NetworkHost>,
}

/// One network on one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NetworkHost {
    /// Which host.
    pub host: HostName,
    /// Its agent is connected; otherwise the rest is what it said last.
    pub online: bool,
    /// The bridge's name.
    pub bridge: String,
    /// How it leaves the host, as desired.
    #[schema(value_type = Object)]
    pub uplink: Uplink,
    /// The bridge is there and up, and its uplink is attached.
    pub up: bool,
    /// Ports that this host shall have.
    pub ports: Vec<NetworkPort>,
    /// netd's own end of it, if it has one here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub router: Option<RouterStatus>,
    /// Objects of others under our names on this host: in the way, and never touched.
    pub conflicts: Vec<String>,
    /// What netd could not do on this host.
    pub failures: Vec<String>,
}

/// One port of a network on one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NetworkPort {
    /// `deployment/member/port`.
    pub id: String,
    /// The only source address its frames carry.
    pub mac: MacAddress,
    /// Its IP addresses.
    pub addresses: Vec<String>,
    /// Permissions to open connections that it has.
    pub rules: u32,
    /// It is not attached yet, see [`netd_api::Port::held`].
    pub held: bool,
    /// As netd sees it; absent while it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub status: Option<PortStatus>,
}

/// Why a connection would be let through or not, from end to end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExplanationView {
    /// All parts pass.
    #[schema(value_type = String, example = "pass")]
    pub verdict: Verdict,
    /// The way, from the sender on.
    pub parts: Vec<ExplainedPart>,
    /// What was seen where a proof was asked for: all parts passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub proven: Option<Verdict>,
}

/// What one host, or an interposed instance, does on the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExplainedPart {
    /// The host that was asked.
    pub host: HostName,
    /// For people: `office/workspace/eth0 sends`.
    pub about: String,
    /// What it does.
    #[schema(value_type = String)]
    pub verdict: Verdict,
    /// In order, up to the first that drops.
    #[schema(value_type = Vec<Object>)]
    pub stages: Vec<Stage>,
    /// What was seen, if a proof was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub proven: Option<Verdict>,
}

/// One direction of a conversation, as one host counts it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FlowView {
    /// Where.
    pub host: HostName,
    /// What.
    #[schema(value_type = Object)]
    pub flow: Flow,
}

/// Flows of what was asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FlowsView {
    /// Most bytes first.
    pub flows: Vec<FlowView>,
    /// Hosts that did not answer, each with the reason.
    pub silent: Vec<String>,
    /// Networks among them that count no conversations: their bundle does not say `flows: true`.
    pub uncounted: Vec<NetworkName>,
}

/// A deployment as one picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TopologyView {
    /// Whose.
    pub deployment: DeploymentName,
    /// Milliseconds since 1970 UTC, of the counters: rates are differences between two pictures.
    pub at_ms: u64,
    /// Members, and what is interposed, in name order.
    pub members: Vec<TopologyMember>,
    /// Networks, then wires, in name order.
    pub networks: Vec<TopologyNetwork>,
    /// How members join networks.
    pub links: Vec<TopologyLink>,
    /// What is in the path of ports.
    pub interpositions: Vec<InterpositionView>,
    /// Copies that are made.
    #[schema(value_type = Vec<Object>)]
    pub mirrors: Vec<TopologyMirror>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TopologyMember {
    /// Its name.
    pub name: MemberName,
    /// What it runs.
    pub appliance: ApplianceRef,
    /// Where, if it has a host.
    pub host: Option<HostName>,
    /// That host's agent is connected.
    pub online: bool,
    /// Where it is in its life.
    pub state: InstanceState,
    /// It stands between two networks.
    pub gateway: bool,
    /// It is interposed at a port, and no member of the bundle.
    pub interposed: bool,
}

/// One network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TopologyNetwork {
    /// Its name.
    pub name: NetworkName,
    /// `private`, `site`, `vlan`, `nat`, `routed` or `wire`.
    pub kind: String,
    /// Its subnets.
    pub subnets: Vec<String>,
    /// As [`NetworkView::ready`].
    pub ready: bool,
    /// Hosts that have a port of it.
    pub hosts: Vec<HostName>,
    /// netd's own end of it, with the host that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<TopologyRouter>,
}

/// netd's own end of a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TopologyRouter {
    /// Where it is.
    pub host: HostName,
    /// It works.
    pub ready: bool,
}

/// One port: a member on a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TopologyLink {
    /// Whose.
    pub member: MemberName,
    /// The appliance's name for it.
    pub port: PortName,
    /// Where it is now: its network, or a wire.
    pub network: NetworkName,
    /// Its IP addresses there.
    pub addresses: Vec<String>,
    /// Attached to nothing yet.
    pub held: bool,
    /// Its rules are in force.
    pub ready: bool,
    /// Its guest has it open.
    pub carrier: bool,
    /// Sent by the guest and passed.
    #[schema(value_type = Object)]
    pub from_guest: Counter,
    /// Passed to the guest.
    #[schema(value_type = Object)]
    pub to_guest: Counter,
    /// Dropped, for whatever reason, in frames.
    pub dropped_frames: u64,
}

/// Copies made for a watcher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TopologyMirror {
    /// `deployment/member/port` of the watcher.
    pub id: String,
    /// Who makes them.
    pub host: HostName,
    /// What is copied, and how much so far.
    #[schema(value_type = Object)]
    pub status: MirrorStatus,
}

/// What is captured, in the query of `GET /v1/capture`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct CaptureQuery {
    /// `deployment/member` or `deployment/member/port`.
    pub of: String,
    /// 1 to 3,600; 60 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
    /// Bytes kept of each frame, 14 to 65,535; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snap_bytes: Option<u32>,
    /// Bytes of the whole file, 1 KiB to 1 GiB; 64 MiB if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// A question about a connection, in the query of `GET /v1/explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ExplainQuery {
    /// Who opens it: `deployment/member/port`, `deployment/member` if it has one port, or an address.
    pub from: String,
    /// To whom, as `from`; not both are addresses.
    pub to: String,
    /// TCP port. At most one of `tcp`, `udp` and `echo`; none asks about address resolution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<u16>,
    /// UDP port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<u16>,
    /// ICMP or ICMPv6 echo.
    #[serde(default)]
    pub echo: bool,
    /// Also send such frames through a copy of the rules, and see. Wants an admin token.
    #[serde(default)]
    pub prove: bool,
}
