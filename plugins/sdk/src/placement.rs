//! Choosing a host: the request, the cluster as columns, the verdict, and what every placement policy needs.

use crate::{Context, Plugin, PolicyError, Reason};

/// Hosts that are ready have this state; no other takes new instances.
pub const STATE_READY: u8 = 0;

/// Examples that a rejection carries at most.
pub const EXAMPLES_MAX: usize = 8;

/// A placement policy. The function is pure.
pub trait PlacementPolicy: Plugin {
    /// Chooses hosts for one instance, best first.
    ///
    /// # Errors
    /// The policy has no decision.
    fn place(
        settings: &Self::Settings,
        request: &Request,
        cluster: &impl Cluster,
        context: &impl Context,
    ) -> Result<Verdict, PolicyError>;
}

/// The instance that needs a host. Fields as in `placement.request` of the WIT package.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// `deployment/member`.
    pub instance: String,
    /// The deployment's name.
    pub deployment: String,
    /// The member's name.
    pub member: String,
    /// `publisher/appliance`.
    pub appliance: String,
    /// Version of the appliance.
    pub version: String,
    /// Milli-vCPU.
    pub vcpus_milli: u32,
    /// Bytes.
    pub memory_bytes: u64,
    /// Bytes the instance may write on the host.
    pub disk_bytes: u64,
    /// Bytes of the version's images.
    pub image_bytes: u64,
    /// Where the instance is now.
    pub current: Option<u32>,
    /// Where its volumes are: it can be nowhere else.
    pub pinned: Option<u32>,
    /// Most choices of use, at least 1.
    pub choices_max: u32,
    /// Extension point: key and value.
    pub attributes: Vec<(String, String)>,
}

/// The hosts as columns. Every list has [`host_count`](Self::host_count) elements; units as in `cluster` of the WIT
/// package.
pub trait Cluster {
    /// Number of hosts.
    fn host_count(&self) -> usize;
    /// Name of a host; an index out of range traps.
    fn host_name(&self, host: u32) -> String;
    /// Site symbols, 0 = none.
    fn sites(&self) -> Vec<u32>;
    /// States, see [`STATE_READY`].
    fn states(&self) -> Vec<u8>;
    /// Bytes for guests.
    fn memory_total_bytes(&self) -> Vec<u64>;
    /// Bytes not promised.
    fn memory_free_bytes(&self) -> Vec<u64>;
    /// Bytes not promised.
    fn disk_free_bytes(&self) -> Vec<u64>;
    /// Milli-vCPU for guests.
    fn cpu_total_milli(&self) -> Vec<u32>;
    /// Milli-vCPU not promised.
    fn cpu_free_milli(&self) -> Vec<u32>;
    /// Instances of all deployments.
    fn instance_counts(&self) -> Vec<u32>;
    /// CPU use, 0.0 ..= 1.0.
    fn loads(&self) -> Vec<f32>;
    /// Bytes of the requested images already there.
    fn image_cached_bytes(&self) -> Vec<u64>;
    /// Other instances of the same deployment.
    fn peers(&self) -> Vec<u32>;
}

/// One host that would do.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Index of the host.
    pub host: u32,
    /// Higher is better.
    pub score: f64,
    /// Why.
    pub reasons: Vec<Reason>,
}

/// How many hosts dropped out for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// As [`Reason::code`].
    pub code: String,
    /// How many hosts.
    pub hosts: u32,
    /// Some of them, at most [`EXAMPLES_MAX`].
    pub examples: Vec<u32>,
}

/// Hosts, best first.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// At least one.
    pub choices: Vec<Choice>,
    /// Why the others are not among them.
    pub rejections: Vec<Rejection>,
}

/// A policy's answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// These hosts would do.
    Place(Placed),
    /// Nothing fits now.
    Defer {
        /// Ask again after this time.
        retry_after_ms: u64,
        /// Why.
        reasons: Vec<Reason>,
        /// Which hosts dropped out.
        rejections: Vec<Rejection>,
    },
    /// Must never be placed as requested.
    Refuse(Vec<Reason>),
}

/// The hosts that can take an instance, and why the others cannot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fit {
    /// Indexes, ascending.
    pub hosts: Vec<u32>,
    /// One entry per code that occurs.
    pub rejections: Vec<Rejection>,
}

/// Applies the hard limits. A host is rejected for the first limit it breaks, in this order: `not-ready`,
/// `volumes-elsewhere`, `too-little-memory`, `too-little-cpu`, `too-little-disk`.
#[must_use]
pub fn fit(request: &Request, cluster: &impl Cluster) -> Fit {
    let (states, memory) = (cluster.states(), cluster.memory_free_bytes());
    let (cpu, disk) = (cluster.cpu_free_milli(), cluster.disk_free_bytes());
    let cached = cluster.image_cached_bytes();
    let mut fit = Fit::default();
    for (row, host) in (0u32..).enumerate().take(cluster.host_count()) {
        let disk_needed = request.disk_bytes + request.image_bytes.saturating_sub(cached[row]);
        let code = if states[row] != STATE_READY {
            "not-ready"
        } else if request.pinned.is_some_and(|pinned| pinned != host) {
            "volumes-elsewhere"
        } else if memory[row] < request.memory_bytes {
            "too-little-memory"
        } else if cpu[row] < request.vcpus_milli {
            "too-little-cpu"
        } else if disk[row] < disk_needed {
            "too-little-disk"
        } else {
            fit.hosts.push(host);
            continue;
        };
        reject(&mut fit.rejections, code, host);
    }
    fit
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

/// Orders hosts by score, then by index, keeps what is of use and explains those with `reasons_of`; without any host
/// the verdict is to ask again after `retry_after_ms`. Explaining comes last because it is what takes time.
#[must_use]
pub fn verdict(
    request: &Request,
    mut scores: Vec<(u32, f64)>,
    reasons_of: impl Fn(u32) -> Vec<Reason>,
    rejections: Vec<Rejection>,
    retry_after_ms: u64,
) -> Verdict {
    if scores.is_empty() {
        let text = match rejections.iter().max_by_key(|rejection| rejection.hosts) {
            None => "there is no host".to_owned(),
            Some(most) => format!("no host fits; the most frequent obstacle is {}", most.code),
        };
        let reasons = vec![Reason::new("no-host-fits", text, 0.0)];
        return Verdict::Defer { retry_after_ms, reasons, rejections };
    }
    scores.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    scores.truncate(request.choices_max.max(1) as usize);
    let explain = |(host, score)| Choice { host, score, reasons: reasons_of(host) };
    Verdict::Place(Placed { choices: scores.into_iter().map(explain).collect(), rejections })
}

/// `part` of `whole` as a ratio in 0.0 ..= 1.0; nothing of nothing is 0.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "values are below 2^53")]
pub fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64).min(1.0) }
}

/// One host of a [`Hosts`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Host {
    /// Name.
    pub name: String,
    /// Site; empty = none.
    pub site: String,
    /// State code.
    pub state: u8,
    /// Bytes.
    pub memory_total_bytes: u64,
    /// Bytes.
    pub memory_free_bytes: u64,
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
}

/// A cluster and its context made of rows, for a policy's native tests. The symbol of a site is one more than the
/// index of the first host that has it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hosts(pub Vec<Host>);

impl Hosts {
    fn column<T>(&self, of: impl Fn(&Host) -> T) -> Vec<T> {
        self.0.iter().map(of).collect()
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
        self.column(|host| self.find_symbol(&host.site))
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
}

impl Context for Hosts {
    fn now_ms(&self) -> u64 {
        0
    }
    fn seed(&self) -> u32 {
        0
    }
    fn symbol_text(&self, symbol: u32) -> String {
        let row = (symbol as usize).checked_sub(1);
        row.and_then(|row| self.0.get(row)).map(|host| host.site.clone()).unwrap_or_default()
    }
    fn find_symbol(&self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        (1u32..).zip(&self.0).find(|(_, host)| host.site == text).map_or(0, |(symbol, _)| symbol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roomy() -> Host {
        Host {
            memory_total_bytes: 100,
            memory_free_bytes: 100,
            disk_free_bytes: 100,
            cpu_total_milli: 100,
            cpu_free_milli: 100,
            ..Host::default()
        }
    }

    fn request() -> Request {
        Request { vcpus_milli: 10, memory_bytes: 10, disk_bytes: 10, choices_max: 8, ..Request::default() }
    }

    #[test]
    fn each_hard_limit_rejects_by_its_own_code() {
        let hosts = Hosts(vec![
            Host { state: 3, ..roomy() },
            Host { memory_free_bytes: 9, ..roomy() },
            Host { cpu_free_milli: 9, ..roomy() },
            Host { disk_free_bytes: 9, ..roomy() },
            roomy(),
        ]);
        let fit = fit(&request(), &hosts);
        assert_eq!(fit.hosts, [4]);
        let codes: Vec<_> = fit.rejections.iter().map(|r| (r.code.as_str(), r.examples[0])).collect();
        let expected =
            [("not-ready", 0), ("too-little-memory", 1), ("too-little-cpu", 2), ("too-little-disk", 3)];
        assert_eq!(codes, expected);
    }

    #[test]
    fn an_image_that_is_cached_needs_no_second_room() {
        let request = Request { image_bytes: 95, ..request() };
        let hosts = Hosts(vec![roomy(), Host { image_cached_bytes: 95, ..roomy() }]);
        assert_eq!(fit(&request, &hosts).hosts, [1]);
    }

    #[test]
    fn volumes_pin_an_instance_to_their_host() {
        let request = Request { pinned: Some(1), ..request() };
        assert_eq!(fit(&request, &Hosts(vec![roomy(); 3])).hosts, [1]);
    }

    #[test]
    fn a_rejection_names_at_most_eight_hosts() {
        let hosts = Hosts(vec![Host { state: 1, ..roomy() }; 20]);
        let rejection = fit(&request(), &hosts).rejections.remove(0);
        assert_eq!((rejection.hosts, rejection.examples.len()), (20, EXAMPLES_MAX));
    }
}
