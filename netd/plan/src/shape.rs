//! Limits of ports.

use crate::observed::Observed;
use crate::step::Step;
use crate::target::Target;
use std::fmt;

/// A port's limits as found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedShape {}

/// One change of a port's limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShapeStep {}

impl fmt::Display for ShapeStep {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

pub(crate) fn steps(_: &Target, _: &Observed) -> Vec<Step> {
    Vec::new()
}
