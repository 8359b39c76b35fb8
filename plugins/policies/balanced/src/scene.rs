//! What the policy weighs: whole columns of all hosts, or the rows of a short list.

use plugins_sdk::placement::Row;
use plugins_sdk::{Cluster, Context, Request};

/// The facts of one host that count.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Facts {
    pub(crate) memory_total: u64,
    pub(crate) memory_free: u64,
    pub(crate) cpu_total: u32,
    pub(crate) cpu_free: u32,
    pub(crate) load: f32,
    pub(crate) cached: u64,
    pub(crate) peers: u32,
    pub(crate) rivals: u32,
    pub(crate) near: bool,
    pub(crate) attested: bool,
    /// Wished labels that it has.
    pub(crate) labels: u32,
}

/// What has to be known of a call before its hosts are looked at.
pub(crate) struct Home {
    /// Symbol of the site with most of the deployment's instances; 0 if that has none yet, or the site is settled.
    pub(crate) site: u32,
    /// In words.
    pub(crate) text: String,
}

impl Home {
    /// Where an instance has to be at a site there is nothing left to weigh.
    pub(crate) fn find(request: &Request, cluster: &impl Cluster, context: &impl Context) -> Self {
        if let Some(site) = request.site() {
            return Self { site: 0, text: format!("it has to be in site {site}") };
        }
        let peers = cluster.peers();
        let site = if peers.iter().all(|count| *count == 0) { 0 } else { home(&cluster.sites(), &peers) };
        let text = match site {
            0 => "the deployment is in no site yet".to_owned(),
            site => format!("most of the deployment is in site {}", context.symbol_text(site)),
        };
        Self { site, text }
    }
}

/// The site with most of the peers, the first by host order if several have as many.
fn home(sites: &[u32], peers: &[u32]) -> u32 {
    let mut counts: Vec<(u32, u32)> = Vec::new();
    for (&site, &count) in sites.iter().zip(peers).filter(|(_, count)| **count > 0) {
        match counts.iter_mut().find(|(known, _)| *known == site) {
            Some((_, total)) => *total += count,
            None => counts.push((site, count)),
        }
    }
    // `max_by_key` would give the last of equals.
    counts.iter().rev().max_by_key(|(_, total)| *total).map_or(0, |(site, _)| *site)
}

/// The wished labels: the symbol that is wanted and what each host has.
pub(crate) struct Labels(Vec<(u32, Vec<u32>)>);

impl Labels {
    pub(crate) fn read(request: &Request, cluster: &impl Cluster, context: &impl Context) -> Self {
        let one = |(key, value)| (context.find_symbol(value), cluster.labels(key));
        Self(request.labels().map(one).collect())
    }

    /// How many of them a host has. A value that no host has is no symbol.
    fn on(&self, host: u32) -> u32 {
        let has = |(wanted, column): &&(u32, Vec<u32>)| *wanted != 0 && column[host as usize] == *wanted;
        self.0.iter().filter(has).count() as u32
    }

    pub(crate) fn count(&self) -> u32 {
        self.0.len() as u32
    }
}

/// Facts by host.
pub(crate) trait Scene {
    fn facts(&self, host: u32) -> Facts;
}

/// Every host.
pub(crate) struct Columns<'a> {
    memory_total: Vec<u64>,
    memory_free: Vec<u64>,
    cpu_total: Vec<u32>,
    cpu_free: Vec<u32>,
    loads: Vec<f32>,
    cached: Vec<u64>,
    peers: Vec<u32>,
    /// Empty where nobody asks for it, as the following.
    rivals: Vec<u32>,
    sites: Vec<u32>,
    attested: Vec<u8>,
    labels: &'a Labels,
    home: u32,
}

impl<'a> Columns<'a> {
    /// `attested`: whether it counts. A column that has no effect is not copied.
    pub(crate) fn read(
        request: &Request,
        cluster: &impl Cluster,
        home: &Home,
        labels: &'a Labels,
        attested: bool,
    ) -> Self {
        Self {
            memory_total: cluster.memory_total_bytes(),
            memory_free: cluster.memory_free_bytes(),
            cpu_total: cluster.cpu_total_milli(),
            cpu_free: cluster.cpu_free_milli(),
            loads: cluster.loads(),
            cached: cluster.image_cached_bytes(),
            peers: cluster.peers(),
            rivals: if request.wants_apart() { cluster.rivals() } else { Vec::new() },
            sites: if home.site == 0 { Vec::new() } else { cluster.sites() },
            attested: if attested { cluster.attested() } else { Vec::new() },
            labels,
            home: home.site,
        }
    }
}

impl Scene for Columns<'_> {
    #[inline]
    fn facts(&self, host: u32) -> Facts {
        let row = host as usize;
        Facts {
            memory_total: self.memory_total[row],
            memory_free: self.memory_free[row],
            cpu_total: self.cpu_total[row],
            cpu_free: self.cpu_free[row],
            load: self.loads[row],
            cached: self.cached[row],
            peers: self.peers[row],
            rivals: self.rivals.get(row).copied().unwrap_or_default(),
            near: self.sites.get(row).is_none_or(|site| *site == self.home),
            attested: self.attested.get(row).is_some_and(|attested| *attested == 1),
            labels: self.labels.on(host),
        }
    }
}

/// A short list.
pub(crate) struct Rows<'a> {
    /// In the order of the hosts.
    pub(crate) rows: Vec<Row>,
    pub(crate) labels: &'a Labels,
    pub(crate) home: u32,
}

impl<'a> Rows<'a> {
    pub(crate) fn read(cluster: &impl Cluster, hosts: &[u32], home: &Home, labels: &'a Labels) -> Self {
        let mut rows = cluster.rows(hosts);
        rows.sort_unstable_by_key(|row| row.host);
        Self { rows, labels, home: home.site }
    }
}

impl Scene for Rows<'_> {
    fn facts(&self, host: u32) -> Facts {
        let Ok(place) = self.rows.binary_search_by_key(&host, |row| row.host) else {
            return Facts::default();
        };
        let row = &self.rows[place];
        Facts {
            memory_total: row.memory_total_bytes,
            memory_free: row.memory_free_bytes,
            cpu_total: row.cpu_total_milli,
            cpu_free: row.cpu_free_milli,
            load: row.load,
            cached: row.image_cached_bytes,
            peers: row.peers,
            rivals: row.rivals,
            near: self.home == 0 || row.site == self.home,
            attested: row.attested,
            labels: self.labels.on(host),
        }
    }
}
