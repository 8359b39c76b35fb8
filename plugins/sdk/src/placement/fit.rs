//! Hard limits: which hosts can take an instance, and why the others cannot.

use super::{Cluster, EXAMPLES_MAX, Rejection, Request, STATE_READY};
use crate::Context;

/// The hosts that can take an instance, and why the others cannot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fit {
    /// Indexes, ascending.
    pub hosts: Vec<u32>,
    /// One entry per code that occurs.
    pub rejections: Vec<Rejection>,
}

/// Applies the hard limits. A host is rejected for the first limit it breaks, in this order: `not-ready`,
/// `volumes-elsewhere`, `other-site`, `not-attested`, `too-little-memory`, `too-little-cpu`, `too-little-disk`. The
/// columns are only looked at where the cluster's own mask says that some host is rejected; one that it rejects for a
/// limit which this SDK does not know is `not-feasible`.
#[must_use]
pub fn fit(request: &Request, cluster: &impl Cluster, context: &impl Context) -> Fit {
    let count = cluster.host_count();
    let mask = cluster.feasible_mask(request);
    if mask.len() == count && mask.iter().all(|fits| *fits == 1) {
        return Fit { hosts: (0..index(count)).collect(), rejections: Vec::new() };
    }
    let limits = Limits::read(request, cluster, context);
    let (mut hosts, mut rejections) = (Vec::with_capacity(count), Vec::new());
    for host in 0..index(count) {
        let row = host as usize;
        let code = match mask.get(row) {
            Some(1) => None,
            Some(_) => Some(limits.broken(host).unwrap_or("not-feasible")),
            None => limits.broken(host),
        };
        match code {
            None => hosts.push(host),
            Some(code) => reject(&mut rejections, code, host),
        }
    }
    Fit { hosts, rejections }
}

impl Fit {
    /// Rejects hosts without one of the labels that the request wishes, as `label-missing`.
    pub fn require_labels(&mut self, request: &Request, cluster: &impl Cluster, context: &impl Context) {
        for (key, value) in request.labels() {
            let (column, wanted) = (cluster.labels(key), context.find_symbol(value));
            let rejections = &mut self.rejections;
            self.hosts.retain(|&host| {
                let has = wanted != 0 && column[host as usize] == wanted;
                if !has {
                    reject(rejections, "label-missing", host);
                }
                has
            });
        }
    }
}

/// Indexes are `u32` in the contract, and there are 20,000 hosts at most.
fn index(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Counts one more host under `code`.
pub fn reject(rejections: &mut Vec<Rejection>, code: &str, host: u32) {
    let position = rejections.iter().position(|rejection| rejection.code == code).unwrap_or_else(|| {
        rejections.push(Rejection { code: code.to_owned(), hosts: 0, examples: Vec::new() });
        rejections.len() - 1
    });
    let rejection = &mut rejections[position];
    rejection.hosts += 1;
    if rejection.examples.len() < EXAMPLES_MAX {
        rejection.examples.push(host);
    }
}

/// The columns that the limits are about.
struct Limits<'a> {
    request: &'a Request,
    states: Vec<u8>,
    memory: Vec<u64>,
    cpu: Vec<u32>,
    disk: Vec<u64>,
    cached: Vec<u64>,
    /// The symbol that is wanted, and each host's.
    sites: Option<(u32, Vec<u32>)>,
    attested: Option<Vec<u8>>,
}

impl<'a> Limits<'a> {
    fn read(request: &'a Request, cluster: &impl Cluster, context: &impl Context) -> Self {
        Self {
            request,
            states: cluster.states(),
            memory: cluster.memory_free_bytes(),
            cpu: cluster.cpu_free_milli(),
            disk: cluster.disk_free_bytes(),
            cached: cluster.image_cached_bytes(),
            sites: request.site().map(|site| (context.find_symbol(site), cluster.sites())),
            attested: request.wants_attested().then(|| cluster.attested()),
        }
    }

    /// The code of the first limit that a host breaks.
    fn broken(&self, host: u32) -> Option<&'static str> {
        let (request, row) = (self.request, host as usize);
        let away = request.image_bytes.saturating_sub(self.cached[row]);
        if self.states[row] != STATE_READY {
            return Some("not-ready");
        }
        if request.pinned.is_some_and(|pinned| pinned != host) {
            return Some("volumes-elsewhere");
        }
        // A site that no host is at has no symbol.
        if self.sites.as_ref().is_some_and(|(wanted, sites)| *wanted == 0 || sites[row] != *wanted) {
            return Some("other-site");
        }
        if self.attested.as_ref().is_some_and(|attested| attested[row] != 1) {
            return Some("not-attested");
        }
        if self.memory[row] < request.memory_bytes {
            return Some("too-little-memory");
        }
        if self.cpu[row] < request.vcpus_milli {
            return Some("too-little-cpu");
        }
        (self.disk[row] < request.disk_bytes.saturating_add(away)).then_some("too-little-disk")
    }
}
