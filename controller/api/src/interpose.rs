//! Appliances in the path of a running port.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use types::{ApplianceRef, ChannelName, InstanceId, MemberName, NameError, PortName, VersionName};
use utoipa::ToSchema;

/// One port of a bundle's member, written `member/port`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MemberPort {
    /// Whose.
    pub member: MemberName,
    /// The appliance's name for it.
    pub port: PortName,
}

impl FromStr for MemberPort {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        // Without a slash the port's name is missing, and its parser says so.
        let (member, port) = text.split_once('/').unwrap_or((text, ""));
        Ok(Self { member: member.parse()?, port: port.parse()? })
    }
}

impl fmt::Display for MemberPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.member, self.port)
    }
}

impl TryFrom<String> for MemberPort {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<MemberPort> for String {
    fn from(port: MemberPort) -> String {
        port.to_string()
    }
}

/// An appliance in the path of one port: the first two of its ports are the outer and the inner end, and whatever the
/// port's guest says goes in at the inner one. Several on one port form a chain, the first nearest to the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InterpositionSpec {
    /// `member/port` of the bundle.
    #[schema(value_type = String, example = "workspace/eth0")]
    pub port: MemberPort,
    /// The appliance, with two ports or more; once a port.
    pub with: ApplianceRef,
    /// Follow a channel (default `stable`) ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelName>,
    /// ... or stay at one version. Not both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionName>,
    /// `member/port` of the other end: the same appliance goes there too, each is told of the other, and both come into
    /// the path at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "server/eth0")]
    pub pair: Option<MemberPort>,
}

/// How far an interposition is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InterpositionPhase {
    /// Its instance is on its way, beside the path; the port speaks as before.
    #[default]
    Prepared,
    /// It is in the path: what does not go through it does not pass.
    Spliced,
    /// It is out of the path and goes once its host has said so.
    Leaving,
}

/// One end of an interposition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InterpositionView {
    /// `member/port`.
    #[schema(value_type = String, example = "workspace/eth0")]
    pub port: MemberPort,
    /// The appliance.
    pub with: ApplianceRef,
    /// Its instance.
    pub instance: InstanceId,
    /// The other end's instance, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<InstanceId>,
    /// How far it is.
    pub phase: InterpositionPhase,
    /// Frames of the port pass: directly, or through instances that are all ready.
    pub passes: bool,
    /// What it waits for, or why nothing passes; for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
