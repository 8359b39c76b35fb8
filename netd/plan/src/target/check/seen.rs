//! What must be unique in a document, and whose it is.

use super::super::Invalid;
use std::collections::HashMap;
use std::sync::Arc;

type Key = (&'static str, String);

/// An index of what must be unique, which can forget one network: so that a change of one costs the check of one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    owners: HashMap<Key, Arc<str>>,
    /// By network, in the order of their checks.
    keys: HashMap<String, Vec<Key>>,
    /// The network that is being checked.
    current: String,
    owner: Arc<str>,
}

/// What one network had for itself, to be given back if its successor is refused.
#[derive(Debug)]
pub(crate) struct Forgotten {
    network: String,
    owners: Vec<(Key, Arc<str>)>,
}

impl Seen {
    /// What is seen from now on belongs to this network, or to the document itself if it has no name.
    pub(super) fn begin(&mut self, network: &str) {
        self.current = network.to_owned();
    }

    /// Unique in the document.
    pub(super) fn once(&mut self, what: &'static str, value: &str, owner: &str) -> Result<(), Invalid> {
        self.once_in(what, "", value, owner)
    }

    /// Unique within `scope` only.
    pub(super) fn once_in(
        &mut self,
        what: &'static str,
        scope: &str,
        value: &str,
        owner: &str,
    ) -> Result<(), Invalid> {
        let key = (what, format!("{scope}\0{value}"));
        if let Some(first) = self.owners.get(&key) {
            let (first, second) = (first.to_string(), owner.to_owned());
            return Err(Invalid::Duplicate { what, value: value.to_owned(), first, second });
        }
        if &*self.owner != owner {
            self.owner = owner.into();
        }
        self.owners.insert(key.clone(), self.owner.clone());
        self.keys.entry(self.current.clone()).or_default().push(key);
        Ok(())
    }

    /// Whether a network of this id was checked.
    pub(crate) fn has_network(&self, id: &str) -> bool {
        self.owners.contains_key(&("network id", format!("\0{id}")))
    }

    /// The network goes, or is about to be replaced.
    pub(crate) fn forget(&mut self, network: &str) -> Forgotten {
        let keys = self.keys.remove(network).unwrap_or_default();
        let owners = keys.into_iter().filter_map(|key| self.owners.remove_entry(&key)).collect();
        Forgotten { network: network.to_owned(), owners }
    }

    /// It stays after all.
    pub(crate) fn restore(&mut self, forgotten: Forgotten) {
        let Forgotten { network, owners } = forgotten;
        self.keys.insert(network, owners.iter().map(|(key, _)| key.clone()).collect());
        self.owners.extend(owners);
    }
}
