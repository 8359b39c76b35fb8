//! What people write: YAML documents with `apiVersion`, `kind`, `metadata` and `spec`. Unknown fields are refused.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use types::{
    ApplianceRef, BundleName, ByteSize, ChannelName, DeploymentName, MemberName, NetworkName, PolicyName,
    PortName, PublisherName, SiteName, VersionName, VolumeName,
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
    /// `site`: it is the site's own LAN. Absent: private to the deployment, across hosts by VXLAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<NetworkUplink>,
}

/// How a network of a bundle leaves its deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetworkUplink {
    /// The site's own LAN.
    Site,
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
}

/// Where one NIC joins: `inside`, or `{network: inside, address: 10.20.0.1}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum PortSpec {
    /// Any free address of the network.
    Network(NetworkName),
    /// A chosen address.
    Fixed(FixedPort),
}

/// A port with a chosen address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FixedPort {
    /// The network.
    pub network: NetworkName,
    /// Inside that network's subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "10.20.0.1")]
    pub address: Option<IpAddr>,
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
