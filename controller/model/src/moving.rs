//! Live moves: what both ends are told, and what follows from what they say.

use crate::cluster::Cluster;
use controller_api::life::DesiredMove;
use types::HostName;

/// Moves that a host is an end of.
#[must_use]
pub fn ends(_cluster: &Cluster, _host: &HostName) -> Vec<DesiredMove> {
    Vec::new()
}
