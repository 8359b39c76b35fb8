//! Conversations: which ports are observed, and what was heard at them.

use crate::observed::Observed;
use crate::step::Step;
use crate::target::Target;
use netd_api::{Counter, Desired, Flow};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

/// How long a conversation is kept after its last frame, in seconds.
pub const CONVERSATION_KEPT_S: u32 = 60;

/// The table that counts conversations, as found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ObservedFlows {
    /// There is none.
    #[default]
    Absent,
    /// A table of our name whose chains are not the ones this netd makes.
    Altered,
    /// Our chains, observing these taps.
    Intact(BTreeSet<String>),
}

/// One change of what is counted. It decides nothing about frames, and is of no weight in a plan's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlowsStep {
    /// Puts the table in place, atomically, with nothing counted yet.
    Replace {
        /// Observed.
        taps: BTreeSet<String>,
    },
    /// Changes which taps are observed, atomically.
    Amend {
        /// No more.
        remove: BTreeSet<String>,
        /// From now on.
        add: BTreeSet<String>,
    },
    /// Deletes the table with all that was counted.
    Remove,
}

/// One direction of a conversation as the kernel counts it. As [`Flow`], with the link's name for the port's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// The tap at which it was heard.
    pub link: String,
    /// Source address.
    pub from: IpAddr,
    /// Destination address.
    pub to: IpAddr,
    /// IP protocol number (IANA).
    pub protocol: u8,
    /// Source port, or 0.
    pub from_port: u16,
    /// Destination port, or 0.
    pub to_port: u16,
    /// How much.
    pub counter: Counter,
    /// Seconds since the last frame.
    pub idle_seconds: u32,
}

impl fmt::Display for FlowsStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replace { taps } => write!(f, "count conversations at {} ports", taps.len()),
            Self::Amend { remove, add } => {
                write!(f, "count conversations at {} more ports, and no more at {}", add.len(), remove.len())
            }
            Self::Remove => write!(f, "count no conversations"),
        }
    }
}

/// What was heard at the ports of a document, in the document's order.
#[must_use]
pub fn flows(desired: &Desired, conversations: Vec<Conversation>) -> Vec<Flow> {
    let mut heard: BTreeMap<String, Vec<Conversation>> = BTreeMap::new();
    for conversation in conversations {
        heard.entry(conversation.link.clone()).or_default().push(conversation);
    }
    let mut flows = Vec::new();
    for port in desired.networks.iter().filter(|network| network.flows).flat_map(|network| &network.ports) {
        let mut of_port = heard.remove(&port.tap).unwrap_or_default();
        of_port.sort_by_key(|heard| (heard.protocol, heard.from, heard.to, heard.from_port, heard.to_port));
        flows.extend(of_port.into_iter().map(|heard| Flow {
            port: port.id.clone(),
            from: heard.from,
            to: heard.to,
            protocol: heard.protocol,
            from_port: heard.from_port,
            to_port: heard.to_port,
            counter: heard.counter,
            idle_seconds: heard.idle_seconds,
        }));
    }
    flows
}

pub(crate) fn steps(target: &Target, observed: &Observed) -> Option<Step> {
    let wanted = &target.flows;
    let step = match &observed.flows {
        ObservedFlows::Intact(found) if found == wanted => None,
        ObservedFlows::Absent if wanted.is_empty() => None,
        _ if wanted.is_empty() => Some(FlowsStep::Remove),
        ObservedFlows::Absent | ObservedFlows::Altered => Some(FlowsStep::Replace { taps: wanted.clone() }),
        ObservedFlows::Intact(found) => Some(FlowsStep::Amend {
            remove: found.difference(wanted).cloned().collect(),
            add: wanted.difference(found).cloned().collect(),
        }),
    };
    step.map(Step::Flows)
}
