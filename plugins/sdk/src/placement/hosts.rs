//! A cluster made of rows, for a policy's native tests.

use super::{Cluster, Request, fit};
use crate::Context;
use std::collections::HashMap;

/// One host of a [`Hosts`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Host {
    /// Name.
    pub name: String,
    /// Site; empty = none.
    pub site: String,
    /// State code.
    pub state: u8,
    /// The operator vouches for it.
    pub attested: bool,
    /// Labels: key and value.
    pub labels: Vec<(String, String)>,
    /// Bytes.
    pub memory_total_bytes: u64,
    /// Bytes.
    pub memory_free_bytes: u64,
    /// Bytes.
    pub disk_total_bytes: u64,
    /// Bytes.
    pub disk_free_bytes: u64,
    /// Milli-vCPU.
    pub cpu_total_milli: u32,
    /// Milli-vCPU.
    pub cpu_free_milli: u32,
    /// Instances.
    pub instance_count: u32,
    /// 0.0 ..= 1.0.
    pub load: f32,
    /// Bytes.
    pub image_cached_bytes: u64,
    /// Instances of the same deployment.
    pub peers: u32,
    /// Of those, that the request wishes to be apart from.
    pub rivals: u32,
}

/// A cluster and its context made of rows, for a policy's native tests. Symbols number the texts of sites and labels
/// from 1, in the order of the rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hosts(pub Vec<Host>);

impl Hosts {
    fn column<T>(&self, of: impl Fn(&Host) -> T) -> Vec<T> {
        self.0.iter().map(of).collect()
    }

    /// Every text, each once.
    fn texts(&self) -> Vec<&str> {
        let (mut known, mut texts) = (HashMap::new(), Vec::new());
        for host in &self.0 {
            let labels = host.labels.iter().map(|(_, value)| value.as_str());
            for text in std::iter::once(host.site.as_str()).chain(labels).filter(|text| !text.is_empty()) {
                if known.insert(text, ()).is_none() {
                    texts.push(text);
                }
            }
        }
        texts
    }

    fn symbols(&self) -> HashMap<&str, u32> {
        self.texts().into_iter().zip(1u32..).collect()
    }
}

impl Cluster for Hosts {
    fn host_count(&self) -> usize {
        self.0.len()
    }
    fn host_name(&self, host: u32) -> String {
        self.0[host as usize].name.clone()
    }
    fn sites(&self) -> Vec<u32> {
        let symbols = self.symbols();
        self.column(|host| symbols.get(host.site.as_str()).copied().unwrap_or_default())
    }
    fn states(&self) -> Vec<u8> {
        self.column(|host| host.state)
    }
    fn memory_total_bytes(&self) -> Vec<u64> {
        self.column(|host| host.memory_total_bytes)
    }
    fn memory_free_bytes(&self) -> Vec<u64> {
        self.column(|host| host.memory_free_bytes)
    }
    fn disk_total_bytes(&self) -> Vec<u64> {
        self.column(|host| host.disk_total_bytes)
    }
    fn disk_free_bytes(&self) -> Vec<u64> {
        self.column(|host| host.disk_free_bytes)
    }
    fn cpu_total_milli(&self) -> Vec<u32> {
        self.column(|host| host.cpu_total_milli)
    }
    fn cpu_free_milli(&self) -> Vec<u32> {
        self.column(|host| host.cpu_free_milli)
    }
    fn instance_counts(&self) -> Vec<u32> {
        self.column(|host| host.instance_count)
    }
    fn loads(&self) -> Vec<f32> {
        self.column(|host| host.load)
    }
    fn image_cached_bytes(&self) -> Vec<u64> {
        self.column(|host| host.image_cached_bytes)
    }
    fn peers(&self) -> Vec<u32> {
        self.column(|host| host.peers)
    }
    fn rivals(&self) -> Vec<u32> {
        self.column(|host| host.rivals)
    }
    fn attested(&self) -> Vec<u8> {
        self.column(|host| host.attested.into())
    }
    fn labels(&self, key: &str) -> Vec<u32> {
        let symbols = self.symbols();
        let value = |host: &Host| {
            let label = host.labels.iter().find(|(name, _)| name == key);
            label.and_then(|(_, value)| symbols.get(value.as_str()).copied()).unwrap_or_default()
        };
        self.column(value)
    }
    /// In the order of the rows: there is no chance in a test.
    fn feasible(&self, request: &Request, limit: u32) -> Vec<u32> {
        fit(request, self, self).hosts.into_iter().take(limit as usize).collect()
    }
}

impl Context for Hosts {
    fn now_ms(&self) -> u64 {
        0
    }
    fn seed(&self) -> u32 {
        0
    }
    fn symbol_text(&self, symbol: u32) -> String {
        let place = (symbol as usize).checked_sub(1);
        place.and_then(|place| self.texts().get(place).map(|text| (*text).to_owned())).unwrap_or_default()
    }
    fn find_symbol(&self, text: &str) -> u32 {
        self.symbols().get(text).copied().unwrap_or_default()
    }
}
