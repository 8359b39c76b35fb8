//! Limits of ports.
//!
//! What a guest is sent is held back on its tap. What it sends is held back on a link of its own (`ifb`), to which the
//! tap's frames are diverted before anything else looks at them, and from which they come back as the tap's: the rules
//! see what they always see.

use crate::planner::Planner;
use crate::step::Step;
use crate::target::Target;
use crate::{SHAPER_PREFIX, TAP_PREFIX, alias};
use std::collections::BTreeMap;
use std::fmt;

/// Burst and longest wait, as parts of a second.
const BURST_PER_SECOND: u64 = 50;
const WAIT_PER_SECOND: u64 = 20;
/// Ethernet header with two tags, in bytes: a burst holds at least one whole frame.
const HEADER_BYTES: u32 = 22;

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// In bytes/s.
    pub rate: u64,
    /// In bytes: 20 ms of the rate, but at least one frame.
    pub burst: u32,
    /// In bytes: what may wait, the burst included.
    pub queue: u32,
}

impl Limit {
    /// A limit in bits/s on a link whose frames carry at most `mtu` bytes.
    #[must_use]
    pub fn new(bits: u64, mtu: u32) -> Self {
        let rate = bits / 8;
        let bytes = |part: u64| u32::try_from(rate / part).unwrap_or(u32::MAX);
        let burst = bytes(BURST_PER_SECOND).max(mtu.saturating_add(HEADER_BYTES));
        Self { rate, burst, queue: burst.saturating_add(bytes(WAIT_PER_SECOND)) }
    }
}

/// The limit of one link as found. The kernel does not tell its burst, but what may wait grows with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ObservedShape {
    /// In bytes/s.
    pub rate: u64,
    /// In bytes.
    pub queue: u32,
}

impl ObservedShape {
    fn is(self, limit: Limit) -> bool {
        (self.rate, self.queue) == (limit.rate, limit.queue)
    }
}

/// One change of a port's limits. Fields are link names unless they say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShapeStep {
    /// Creates the link on which what a guest sends is held back, down.
    Create {
        /// Name.
        link: String,
        /// In bytes.
        mtu: u32,
    },
    /// Limits what a link sends, also if it is limited already.
    Limit {
        /// Which.
        link: String,
        /// How.
        limit: Limit,
    },
    /// Ends the limit of a link.
    Unlimit {
        /// Which.
        link: String,
    },
}

impl fmt::Display for ShapeStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { link, mtu } => write!(f, "create shaper {link}, mtu {mtu}"),
            Self::Limit { link, limit } => {
                write!(f, "limit {link} to {} bit/s", limit.rate.saturating_mul(8))
            }
            Self::Unlimit { link } => write!(f, "end the limit of {link}"),
        }
    }
}

/// The link on which what a tap's guest sends is held back.
#[must_use]
pub fn shaper_of(tap: &str) -> String {
    format!("{SHAPER_PREFIX}{}", tap.strip_prefix(TAP_PREFIX).unwrap_or(tap))
}

/// Shapers to be, by name, each with its tap.
pub(crate) fn shapers(target: &Target) -> BTreeMap<String, &str> {
    let limited = target.rates.iter().filter(|(_, rate)| rate.from_guest_bits.is_some());
    limited.map(|(tap, _)| (shaper_of(tap), tap.as_str())).collect()
}

/// Whether a name is one of theirs.
pub(crate) fn is_shaper(target: &Target, name: &str) -> bool {
    name.strip_prefix(SHAPER_PREFIX).is_some_and(|rest| {
        let rate = target.rates.get(&format!("{TAP_PREFIX}{rest}"));
        rate.is_some_and(|rate| rate.from_guest_bits.is_some())
    })
}

/// Limits to be, by link.
fn limits(target: &Target) -> BTreeMap<String, Limit> {
    let mut limits = BTreeMap::new();
    for (tap, rate) in &target.rates {
        let Some(mtu) = target.taps.get(tap).map(|t| t.mtu) else { continue };
        if let Some(bits) = rate.to_guest_bits {
            limits.insert(tap.clone(), Limit::new(bits, mtu));
        }
        if let Some(bits) = rate.from_guest_bits {
            limits.insert(shaper_of(tap), Limit::new(bits, mtu));
        }
    }
    limits
}

/// After links were created and before anything is diverted.
pub(crate) fn prepare(planner: &mut Planner<'_>) {
    let (target, observed) = (planner.target, planner.observed);
    for (link, name) in shapers(target) {
        let Some(tap) = target.taps.get(name) else { continue };
        let create = Step::Shape(ShapeStep::Create { link: link.clone(), mtu: tap.mtu });
        planner.create_link(&link, create, tap.mtu, &alias("shaper of", name));
    }
    let limits = limits(target);
    for (link, limit) in &limits {
        let found = planner.kept(link).and_then(|_| observed.shapes.get(link));
        if !planner.blocked.contains(link) && !found.is_some_and(|f| f.is(*limit)) {
            planner.push(Step::Shape(ShapeStep::Limit { link: link.clone(), limit: *limit }));
        }
    }
    for link in observed.shapes.keys().filter(|link| !limits.contains_key(*link)) {
        if planner.kept(link).is_some() {
            planner.push(Step::Shape(ShapeStep::Unlimit { link: link.clone() }));
        }
    }
    for link in shapers(target).into_keys() {
        if !planner.blocked.contains(&link) && !planner.kept(&link).is_some_and(|l| l.up) {
            planner.push(Step::Up { link });
        }
    }
}
