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
    let mut hosts = Vec::with_capacity(count);
    // By code: comparing texts for each of ten thousand hosts would cost more than the limits.
    let mut rejected: [Vec<u32>; Broken::COUNT] = Default::default();
    let mut counts = [0_u32; Broken::COUNT];
    for host in 0..index(count) {
        let broken = match mask.get(host as usize) {
            Some(1) => None,
            Some(_) => Some(limits.broken(host).unwrap_or(Broken::Unknown)),
            None => limits.broken(host),
        };
        let Some(broken) = broken else {
            hosts.push(host);
            continue;
        };
        counts[broken as usize] += 1;
        if rejected[broken as usize].len() < EXAMPLES_MAX {
            rejected[broken as usize].push(host);
        }
    }
    let named = Broken::CODES.iter().zip(counts).zip(rejected).filter(|((_, count), _)| *count > 0);
    let rejections = named
        .map(|((code, hosts), examples)| Rejection { code: (*code).to_owned(), hosts, examples })
        .collect();
    Fit { hosts, rejections }
}

/// The limit that a host breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Unknown,
    Ready,
    Pinned,
    Site,
    Attested,
    Memory,
    Cpu,
    Disk,
}

impl Broken {
    const COUNT: usize = 8;
    /// In the order of the variants.
    const CODES: [&'static str; Self::COUNT] = [
        "not-feasible",
        "not-ready",
        "volumes-elsewhere",
        "other-site",
        "not-attested",
        "too-little-memory",
        "too-little-cpu",
        "too-little-disk",
    ];
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

    /// The first limit that a host breaks.
    fn broken(&self, host: u32) -> Option<Broken> {
        let (request, row) = (self.request, host as usize);
        let away = request.image_bytes.saturating_sub(self.cached[row]);
        if self.states[row] != STATE_READY {
            return Some(Broken::Ready);
        }
        if request.pinned.is_some_and(|pinned| pinned != host) {
            return Some(Broken::Pinned);
        }
        // A site that no host is at has no symbol.
        if self.sites.as_ref().is_some_and(|(wanted, sites)| *wanted == 0 || sites[row] != *wanted) {
            return Some(Broken::Site);
        }
        if self.attested.as_ref().is_some_and(|attested| attested[row] != 1) {
            return Some(Broken::Attested);
        }
        if self.memory[row] < request.memory_bytes {
            return Some(Broken::Memory);
        }
        if self.cpu[row] < request.vcpus_milli {
            return Some(Broken::Cpu);
        }
        (self.disk[row] < request.disk_bytes.saturating_add(away)).then_some(Broken::Disk)
    }
}
