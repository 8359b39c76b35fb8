//! Routers: netd's own ends of networks, each in a namespace of its own.

use crate::observed::Observed;
use crate::step::Step;
use crate::target::Target;
use std::fmt;

/// A router to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterTarget {
    /// As desired.
    pub router: netd_api::Router,
    /// Its bridge.
    pub bridge: String,
    /// In bytes.
    pub mtu: u32,
}

/// A router as found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedRouter {}

/// One change of a router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouterStep {}

impl fmt::Display for RouterStep {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

pub(crate) fn steps(_: &Target, _: &Observed) -> Vec<Step> {
    Vec::new()
}
