//! Mirrors: copies of frames for watchers.

use crate::observed::Observed;
use crate::step::Step;
use crate::target::Target;
use std::fmt;

/// Watchers and mirrors to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MirrorsTarget {}

/// Mirrors as found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedMirrors {}

/// One change of the mirrors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MirrorStep {}

impl fmt::Display for MirrorStep {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

pub(crate) fn steps(_: &Target, _: &Observed) -> Vec<Step> {
    Vec::new()
}
