//! A change to the cluster in the making: a picture with the change in it, and the writes that make it so.

use crate::cluster::Cluster;
use serde::Serialize;
use std::collections::BTreeMap;
use types::Revision;

/// A changed picture and the writes that lead to it.
#[derive(Debug, Clone)]
pub struct Draft {
    /// With all writes taken up.
    pub cluster: Cluster,
    /// By key; none deletes.
    pub writes: BTreeMap<String, Option<Vec<u8>>>,
}

impl Draft {
    /// Nothing is changed yet.
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, writes: BTreeMap::new() }
    }

    /// Sets a key to the JSON of a value.
    pub fn put<T: Serialize>(&mut self, key: impl Into<String>, value: &T) {
        let key = key.into();
        // Records are structs with text keys only: they always have a JSON.
        let bytes = serde_json::to_vec(value).unwrap_or_default();
        let taken = self.cluster.take(&key, Some(&bytes), Revision::default());
        debug_assert!(taken.is_ok(), "{key}: {taken:?}");
        self.writes.insert(key, Some(bytes));
    }

    /// Removes a key.
    pub fn delete(&mut self, key: impl Into<String>) {
        let key = key.into();
        let taken = self.cluster.take(&key, None, Revision::default());
        debug_assert!(taken.is_ok(), "{key}: {taken:?}");
        self.writes.insert(key, None);
    }
}
