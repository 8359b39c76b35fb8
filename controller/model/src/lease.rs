//! Leases: which hosts run instances only as long as the controller hears them, and which instances those are.

use crate::cluster::Cluster;
use types::{HostName, InstanceId};

/// How long a host may run leased instances after it was last heard, in milliseconds; none if it holds none.
#[must_use]
pub fn of_host(_cluster: &Cluster, _host: &HostName) -> Option<u64> {
    None
}

/// It runs under its host's lease only: it may be started elsewhere once that has run out.
#[must_use]
pub fn is_leased(_cluster: &Cluster, _id: &InstanceId) -> bool {
    false
}
