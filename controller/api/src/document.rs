//! What people write: YAML documents with `apiVersion`, `kind`, `metadata` and `spec`. Unknown fields are refused.

use crate::health::HealthSpec;
use crate::interpose::InterpositionSpec;
use crate::recovery::RecoverySpec;
use crate::watch::WatchSpec;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use types::{
    ApplianceRef, BitRate, BundleName, ByteSize, ChannelName, DeploymentName, MemberName, NetworkName,
    PolicyName, PortName, PublisherName, SiteName, VersionName, VolumeName,
};
use utoipa::ToSchema;

/// The only `apiVersion` so far.
pub const API_VERSION: &str = "collective/v1";

/// One YAML document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind")]
pub enum Document {
    /// Members and their wiring.
    Bundle(Bundle),
    /// A bundle, running.
    Deployment(Deployment),
    /// An office: its LAN.
    Site(Site),
}

/// A definition of members, networks, ports, access rules, gateways, volumes and policies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Bundle {
    /// [`API_VERSION`].
    pub api_version: String,
    /// Its name.
    #[schema(inline)]
    pub metadata: Metadata<BundleName>,
    /// Its content.
    pub spec: BundleSpec,
}

/// The name of a document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Metadata<Name> {
    /// Unique among documents of its kind.
    pub name: Name,
}

/// Content of a [`Bundle`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BundleSpec {
    /// Virtual Ethernet segments, each private to a deployment unless it has a site uplink.
    pub networks: BTreeMap<NetworkName, NetworkSpec>,
    /// Appliances in it.
    pub members: BTreeMap<MemberName, MemberSpec>,
    /// What may open connections to what. Everything else is denied.
    #[serde(default)]
    pub access: Vec<AccessRule>,
    /// Who decides.
    #[serde(default)]
    pub policies: PoliciesSpec,
}

/// One network of a bundle.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// IPv4 or IPv6 subnet its members get addresses from. Required unless it is a site's own LAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "10.20.0.0/24")]
    pub subnet: Option<IpNet>,
    /// IPv6 subnet beside an IPv4 `subnet`: members get an address of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "fd00:20::/64")]
    pub subnet6: Option<IpNet>,
    /// How it leaves the deployment. Absent: it does not, and crosses hosts by VXLAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<NetworkUplink>,
    /// Ports of the router's LAN address that lead to members; with `uplink: nat` or `uplink: routed`, at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<PublishSpec>,
    /// What the host serves on it.
    #[serde(default, skip_serializing_if = "ServicesSpec::is_none")]
    pub services: ServicesSpec,
    /// Conversations are counted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flows: bool,
}

/// How a network of a bundle leaves its deployment: `site`, `nat`, `routed`, or `{vlan: 100, trunk: core}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum NetworkUplink {
    /// By the site's LAN.
    Lan(LanUplink),
    /// It is a VLAN of the site's hosts' trunk.
    Vlan(VlanUplink),
}

/// What the site's LAN is to a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LanUplink {
    /// The network itself.
    Site,
    /// Behind a router that lends its own LAN address to what goes out.
    Nat,
    /// Behind a router; the LAN knows the way back.
    Routed,
}

/// A VLAN (IEEE 802.1Q).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VlanUplink {
    /// Its number, 2 to 4,094; of one network of one deployment per trunk and site.
    pub vlan: u16,
    /// Key in the configuration of the hosts' netd (`[trunks]`): 1 to 63 letters, digits, `-` and `_`.
    pub trunk: String,
}

/// A published port: exactly one of `tcp` and `udp`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishSpec {
    /// TCP port on the router's LAN address, 1 to 65,535.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<u16>,
    /// UDP port on the router's LAN address, 1 to 65,535.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<u16>,
    /// A member on this network.
    pub to: MemberName,
    /// The member's port, 1 to 65,535; the published one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// What the host serves on a network, from the first address of its subnets. Members have their addresses from their
/// configuration disks also without.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServicesSpec {
    /// Gives members their addresses (DHCPv4, DHCPv6).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dhcp: bool,
    /// Answers members' names; needs `dhcp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsSpec>,
    /// Advertises its IPv6 subnet (RFC 4861).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ra: bool,
}

impl ServicesSpec {
    /// Nothing is served.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A name server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DnsSpec {
    /// Members are `MEMBER.DOMAIN`; without dots at its ends.
    pub domain: String,
    /// Servers asked for all other names, at most 8; none: other names do not exist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub forward: Vec<IpAddr>,
}

/// One member of a bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberSpec {
    /// `publisher/appliance`.
    pub appliance: ApplianceRef,
    /// Follow a channel (default `stable`) ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelName>,
    /// ... or stay at one version. Not both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionName>,
    /// Which network each NIC joins, by the appliance's port names.
    pub ports: BTreeMap<PortName, PortSpec>,
    /// It stands in the path between two of its ports' networks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewaySpec>,
    /// The user's own disks, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<VolumeName, VolumeSpec>,
    /// More memory than the appliance asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// More processors than the appliance asks for, 1 to 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// Wishes about its host.
    #[serde(default, skip_serializing_if = "PlacementSpec::is_none")]
    pub placement: PlacementSpec,
    /// What is asked of it before an update of it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthSpec>,
    /// What its cloud-init is told.
    #[serde(default, rename = "cloudInit", skip_serializing_if = "Option::is_none")]
    pub cloud_init: Option<CloudInitSpec>,
}

/// What a guest's cloud-init (or what else reads NoCloud) is told. It is no place for secrets: whoever may read documents
/// reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloudInitSpec {
    /// The whole of `user-data`, beginning with `#cloud-config`, `#!` or `## template: jinja`; at most 32 KiB.
    #[serde(rename = "userData")]
    pub user_data: String,
}

/// What a member wishes of its host. `site` and `attested` are hard limits; the others are the placement policy's to weigh.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlacementSpec {
    /// Only at this site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteName>,
    /// Not on the host of these members of the same deployment; it holds both ways.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub apart_from: BTreeSet<MemberName>,
    /// Only on a host that somebody vouches for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub attested: bool,
    /// Labels of the host: key and value; at most 16.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// For policies of other makers, `vendor/key` and value; at most 32.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

impl PlacementSpec {
    /// It wishes nothing.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Where one NIC joins: `inside`, `{network: inside, address: 10.20.0.1}`, or what it watches: `{mirror: inside}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum PortSpec {
    /// Any free address of the network.
    Network(NetworkName),
    /// More about it.
    Fixed(FixedPort),
    /// It gets copies and sends nothing.
    Mirror(MirrorPort),
}

/// A port with chosen addresses or limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FixedPort {
    /// The network.
    pub network: NetworkName,
    /// Inside that network's `subnet`; any free one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "10.20.0.1")]
    pub address: Option<IpAddr>,
    /// Inside that network's `subnet6`; any free one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "fd00:20::1")]
    pub address6: Option<IpAddr>,
    /// At most so much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsSpec>,
}

/// Most that a NIC carries: at least one of both, each 64kbit/s to 100Gbit/s.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsSpec {
    /// Sent by the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<BitRate>,
    /// Sent to the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<BitRate>,
}

/// A port that watches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MirrorPort {
    /// A network, or `member/port` for what one guest sends and is sent there.
    #[schema(example = "workspace/eth0")]
    pub mirror: String,
}

/// In the path between two ports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GatewaySpec {
    /// The protected side; its network's members use this member as their router.
    pub from: PortName,
    /// The side it leads to.
    pub to: PortName,
}

/// A user's own disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeSpec {
    /// 1MiB to 16TiB.
    pub size: ByteSize,
}

/// Permission to open connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessRule {
    /// A member or a network.
    pub from: String,
    /// A member or a network.
    pub to: String,
    /// TCP ports, 1 to 65,535.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tcp: Vec<u16>,
    /// UDP ports, 1 to 65,535.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub udp: Vec<u16>,
    /// Through this gateway member. Required when `from` and `to` share no network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<MemberName>,
}

/// Who decides.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PoliciesSpec {
    /// Name of an installed placement policy; `balanced` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<PolicyName>,
    /// Name of an installed update policy; `waves` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<PolicyName>,
    /// Name of an installed checkpoint policy; `gfs` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<PolicyName>,
    /// Who watches which members from outside; at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub introspection: Vec<WatchSpec>,
}

/// A bundle, running or meant to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Deployment {
    /// [`API_VERSION`].
    pub api_version: String,
    /// Its name.
    #[schema(inline)]
    pub metadata: Metadata<DeploymentName>,
    /// Its content.
    pub spec: DeploymentSpec,
}

/// Content of a [`Deployment`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeploymentSpec {
    /// Which bundle.
    pub bundle: BundleName,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where; the only site if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteName>,
    /// Appliances in the path of its members' ports; of those at one port the first is nearest to the guest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interpositions: Vec<InterpositionSpec>,
    /// What happens when a host of its instances is lost; absent: they stay there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<RecoverySpec>,
    /// What a member's cloud-init is told here, instead of what its bundle says.
    #[serde(default, rename = "cloudInit", skip_serializing_if = "BTreeMap::is_empty")]
    pub cloud_init: BTreeMap<MemberName, CloudInitSpec>,
}

/// Hosts that share a fast network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Site {
    /// [`API_VERSION`].
    pub api_version: String,
    /// Its name.
    #[schema(inline)]
    pub metadata: Metadata<SiteName>,
    /// Its content.
    pub spec: SiteSpec,
}

/// Content of a [`Site`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SiteSpec {
    /// The LAN that `uplink: site` joins.
    pub lan: LanSpec,
    /// Largest packet in bytes that hosts can send each other, 646 to 65,535. Absent: 1,500, or less where a host says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub underlay_mtu: Option<u16>,
}

/// A site's LAN and the addresses on it that Collective may give out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LanSpec {
    /// The LAN's subnet.
    #[schema(value_type = String, example = "10.88.0.0/24")]
    pub subnet: IpNet,
    /// First address that may be given out.
    #[schema(value_type = String, example = "10.88.0.100")]
    pub first: IpAddr,
    /// Last address that may be given out.
    #[schema(value_type = String, example = "10.88.0.199")]
    pub last: IpAddr,
    /// The LAN's router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "10.88.0.1")]
    pub router: Option<IpAddr>,
    /// Largest packet in bytes, 576 to 9,216; 1,500 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
}

/// `appliance.yaml`: what a maker writes beside the disks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Appliance {
    /// [`API_VERSION`].
    pub api_version: String,
    /// `Appliance`.
    pub kind: String,
    /// Who, what, which.
    pub metadata: ApplianceMetadata,
    /// The virtual hardware.
    pub spec: ApplianceSpec,
}

/// Who made it, what it is, which release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplianceMetadata {
    /// The maker.
    pub publisher: PublisherName,
    /// The appliance's name with that maker.
    pub name: String,
    /// This release.
    pub version: VersionName,
}

/// The virtual hardware an appliance expects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplianceSpec {
    /// One line for people.
    #[serde(default)]
    pub summary: String,
    /// Processors and memory.
    pub hardware: Hardware,
    /// Disk files, relative to `appliance.yaml`. Exactly one named `system` for now.
    pub disks: BTreeMap<String, DiskSpec>,
    /// NICs in order.
    #[serde(default)]
    pub ports: Vec<PortName>,
    /// User volumes it expects.
    #[serde(default)]
    pub volumes: Vec<VolumeName>,
    /// How it is known to have started, when it is booted before publishing; absent: it says `ready` on its health port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smoke: Option<SmokeSpec>,
}

/// What a guest that knows no health port shows once it has started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SmokeSpec {
    /// This text on its serial console, 1 to 256 bytes.
    pub console: String,
}

/// Processors and memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// 1 to 64.
    pub vcpus: u32,
    /// 16MiB to 1TiB.
    pub memory: ByteSize,
}

/// A disk file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskSpec {
    /// File name beside `appliance.yaml`; raw bytes.
    pub file: String,
}
