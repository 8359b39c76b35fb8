//! The placement policy `balanced`: spreads instances over the hosts.
//!
//! A host earns points for the capacity that stays free, for idle CPU, for the image it already holds, for being
//! apart from the deployment's other instances, for being in their site, and for having the instance already. Each
//! choice carries one reason per consideration; their weights add up to the score. What a consideration is worth is
//! a setting. Ties go to the host that is first by name.

use plugins_sdk::placement::{fit, ratio, verdict};
use plugins_sdk::{
    Cluster, Context, Manifest, PlacementPolicy, Plugin, PolicyError, Reason, Request, SettingsIssue,
    Verdict, check_number,
};
use serde::Deserialize;

plugins_sdk::export_placement!(Balanced);

/// Most points that one consideration may be worth.
const POINTS_MAX: f64 = 1000.0;

/// The longest time after which to ask again: one hour.
const RETRY_AFTER_MS_MAX: u64 = 3_600_000;

/// The policy.
#[derive(Debug)]
pub struct Balanced;

/// Points per consideration; see `settings.schema.json`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    capacity: f64,
    idle: f64,
    image: f64,
    apart: f64,
    site: f64,
    stay: f64,
    retry_after_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            capacity: 60.0,
            idle: 5.0,
            // A swarm brings an image cheaply, and a boot reads a tenth of it: room counts for more.
            image: 10.0,
            apart: 40.0,
            site: 20.0,
            stay: 5.0,
            retry_after_ms: 10_000,
        }
    }
}

impl Plugin for Balanced {
    type Settings = Settings;

    fn manifest() -> Manifest {
        Manifest {
            name: "balanced",
            version: env!("CARGO_PKG_VERSION"),
            summary: env!("CARGO_PKG_DESCRIPTION"),
            license: env!("CARGO_PKG_LICENSE"),
            settings_schema: include_str!("settings.schema.json"),
            default_settings: "{}",
        }
    }

    fn check_settings(settings: &Settings) -> Vec<SettingsIssue> {
        let points = [
            ("/capacity", settings.capacity),
            ("/idle", settings.idle),
            ("/image", settings.image),
            ("/apart", settings.apart),
            ("/site", settings.site),
            ("/stay", settings.stay),
        ];
        let mut issues: Vec<_> =
            points.iter().filter_map(|(path, value)| check_number(path, *value, POINTS_MAX)).collect();
        if !(1..=RETRY_AFTER_MS_MAX).contains(&settings.retry_after_ms) {
            issues.push(SettingsIssue {
                path: "/retry_after_ms".to_owned(),
                message: format!("give 1 to {RETRY_AFTER_MS_MAX} milliseconds"),
            });
        }
        issues
    }
}

impl PlacementPolicy for Balanced {
    fn place(
        settings: &Settings,
        request: &Request,
        cluster: &impl Cluster,
        context: &impl Context,
    ) -> Result<Verdict, PolicyError> {
        let fit = fit(request, cluster);
        let scene = Scene::read(cluster);
        let points = |host| scene.points(settings, request, host);
        let scores = fit.hosts.iter().map(|&host| (host, points(host).iter().sum())).collect();
        let home = match scene.home {
            0 => "the deployment is in no site yet".to_owned(),
            site => format!("most of the deployment is in site {}", context.symbol_text(site)),
        };
        let reasons_of = |host| scene.reasons(request, host, &home, points(host));
        Ok(verdict(request, scores, reasons_of, fit.rejections, settings.retry_after_ms))
    }
}

/// The columns this policy weighs.
struct Scene {
    sites: Vec<u32>,
    memory_total: Vec<u64>,
    memory_free: Vec<u64>,
    cpu_total: Vec<u32>,
    cpu_free: Vec<u32>,
    loads: Vec<f32>,
    cached: Vec<u64>,
    peers: Vec<u32>,
    /// Site with most of the deployment's instances; 0 if it has none yet or they are in no site.
    home: u32,
}

impl Scene {
    fn read(cluster: &impl Cluster) -> Self {
        let (sites, peers) = (cluster.sites(), cluster.peers());
        let home = home_site(&sites, &peers);
        Self {
            sites,
            memory_total: cluster.memory_total_bytes(),
            memory_free: cluster.memory_free_bytes(),
            cpu_total: cluster.cpu_total_milli(),
            cpu_free: cluster.cpu_free_milli(),
            loads: cluster.loads(),
            cached: cluster.image_cached_bytes(),
            peers,
            home,
        }
    }

    /// Share of memory and CPU, whichever is scarcer, that stays free.
    fn free(&self, request: &Request, row: usize) -> f64 {
        let memory =
            ratio(self.memory_free[row].saturating_sub(request.memory_bytes), self.memory_total[row]);
        let cpu_left = self.cpu_free[row].saturating_sub(request.vcpus_milli);
        memory.min(ratio(cpu_left.into(), self.cpu_total[row].into()))
    }

    /// Share of the image that is there.
    fn cached(&self, request: &Request, row: usize) -> f64 {
        if request.image_bytes == 0 { 1.0 } else { ratio(self.cached[row], request.image_bytes) }
    }

    /// What each consideration gives; their sum is the score.
    fn points(&self, settings: &Settings, request: &Request, host: u32) -> [f64; 6] {
        let row = host as usize;
        let near = self.home == 0 || self.sites[row] == self.home;
        [
            settings.capacity * self.free(request, row),
            settings.idle * (1.0 - f64::from(self.loads[row])),
            settings.image * self.cached(request, row),
            settings.apart / (1.0 + f64::from(self.peers[row])),
            if near { settings.site } else { 0.0 },
            if request.current == Some(host) { settings.stay } else { 0.0 },
        ]
    }

    /// The same in words.
    fn reasons(&self, request: &Request, host: u32, home: &str, points: [f64; 6]) -> Vec<Reason> {
        let row = host as usize;
        let load = f64::from(self.loads[row]);
        let here = request.current == Some(host);
        let words = [
            ("capacity-left", format!("{} of the host stays free", percent(self.free(request, row)))),
            ("cpu-idle", format!("{} of the CPU is in use", percent(load))),
            ("image-present", format!("{} of the image is there", percent(self.cached(request, row)))),
            ("apart-from-peers", format!("{} other instances of the deployment are there", self.peers[row])),
            ("site-of-deployment", home.to_owned()),
            ("already-there", (if here { "no move is needed" } else { "" }).to_owned()),
        ];
        let reasons = words.into_iter().zip(points);
        reasons.map(|((code, text), weight)| Reason::new(code, text, weight)).collect()
    }
}

/// The site with most of the peers, the first by host order if several have as many.
fn home_site(sites: &[u32], peers: &[u32]) -> u32 {
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

/// A ratio for people, in whole per cent.
#[expect(clippy::cast_possible_truncation, reason = "a ratio is in 0.0 ..= 1.0")]
fn percent(ratio: f64) -> String {
    format!("{} %", (ratio * 100.0).round() as i64)
}

#[cfg(test)]
mod tests;
