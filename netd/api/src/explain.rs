//! Why a frame would pass or be dropped.

use crate::Counter;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

/// Would a connection be let through?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Who opens it.
    pub from: End,
    /// To whom.
    pub to: End,
    /// What is opened.
    pub service: Service,
    /// Send such frames through a copy of these ports and their rules, in a namespace made for it, and see.
    #[serde(default)]
    pub prove: bool,
}

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum End {
    /// A port on this host.
    Port {
        /// Its id.
        id: String,
        /// Which of its addresses; its first of the other end's version if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<String>)]
        address: Option<IpAddr>,
    },
    /// Somebody behind the other end's network's uplink.
    Outside {
        /// Its address.
        #[schema(value_type = String)]
        address: IpAddr,
    },
}

/// What is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Service {
    /// Address resolution only.
    Resolve,
    /// ICMP or ICMPv6 echo.
    Echo,
    /// TCP to this port.
    Tcp {
        /// 1 to 65,535.
        listen_port: u16,
    },
    /// UDP to this port.
    Udp {
        /// 1 to 65,535.
        listen_port: u16,
    },
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// Of the first frame and of its reply together.
    pub verdict: Verdict,
    /// What each place on the way does, in order, up to the first that drops; then those of the reply.
    pub stages: Vec<Stage>,
    /// What was seen, if a proof was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven: Option<Verdict>,
}

/// Whether frames pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// They do.
    Pass,
    /// They do not.
    Drop,
}

/// One place on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stage {
    /// For people: `first frame, office/workspace/eth0 sends`.
    pub place: String,
    /// What it does.
    pub verdict: Verdict,
    /// The rule, in the document's words, or which one is missing.
    pub why: String,
    /// How often that happened so far, where it is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter: Option<Counter>,
}
