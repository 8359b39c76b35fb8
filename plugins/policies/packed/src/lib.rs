//! The placement policy `packed`: fills the fullest host that fits, so that the others stay empty.
//!
//! The score of a host is the percentage of it that is in use once the instance is there: the mean of memory and
//! CPU. Ties go to the host with more instances, then to the first by name. A share of every host can be kept spare. A
//! host without the labels that the member wishes is not chosen, and one with an instance that it wishes to avoid only
//! if there is no other.

use plugins_sdk::placement::{Best, fit, ratio, reject};
use plugins_sdk::{
    Cluster, Context, Manifest, PlacementPolicy, Plugin, PolicyError, Reason, Request, SettingsIssue,
    Verdict, check_number,
};
use serde::Deserialize;

plugins_sdk::export_placement!(Packed);

/// Most of a host that may be kept spare.
const SPARE_MAX: f64 = 0.9;

/// The longest time after which to ask again: one hour.
const RETRY_AFTER_MS_MAX: u64 = 3_600_000;

/// Score of an instance that is already on the host: enough to decide between equals, not more.
const POINTS_PER_INSTANCE: f64 = 1e-6;

/// Score of an instance that it wishes to avoid: more than all that a host can earn.
const POINTS_PER_RIVAL: f64 = -200.0;

/// The policy.
#[derive(Debug)]
pub struct Packed;

/// See `settings.schema.json`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    spare: f64,
    retry_after_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { spare: 0.0, retry_after_ms: 10_000 }
    }
}

impl Plugin for Packed {
    type Settings = Settings;

    fn manifest() -> Manifest {
        Manifest {
            name: "packed",
            version: env!("CARGO_PKG_VERSION"),
            summary: env!("CARGO_PKG_DESCRIPTION"),
            license: env!("CARGO_PKG_LICENSE"),
            settings_schema: include_str!("settings.schema.json"),
            default_settings: "{}",
        }
    }

    fn check_settings(settings: &Settings) -> Vec<SettingsIssue> {
        let mut issues: Vec<_> = check_number("/spare", settings.spare, SPARE_MAX).into_iter().collect();
        if !(1..=RETRY_AFTER_MS_MAX).contains(&settings.retry_after_ms) {
            issues.push(SettingsIssue {
                path: "/retry_after_ms".to_owned(),
                message: format!("give 1 to {RETRY_AFTER_MS_MAX} milliseconds"),
            });
        }
        issues
    }
}

impl PlacementPolicy for Packed {
    fn place(
        settings: &Settings,
        request: &Request,
        cluster: &impl Cluster,
        context: &impl Context,
    ) -> Result<Verdict, PolicyError> {
        let mut fit = fit(request, cluster, context);
        fit.require_labels(request, cluster, context);
        let (memory_total, memory_free) = (cluster.memory_total_bytes(), cluster.memory_free_bytes());
        let (cpu_total, cpu_free) = (cluster.cpu_total_milli(), cluster.cpu_free_milli());
        let instances = cluster.instance_counts();
        let rivals = if request.wants_apart() { cluster.rivals() } else { Vec::new() };
        let used = |host: u32| {
            let row = host as usize;
            let memory = 1.0 - ratio(memory_free[row] - request.memory_bytes, memory_total[row]);
            let cpu = 1.0 - ratio((cpu_free[row] - request.vcpus_milli).into(), cpu_total[row].into());
            Use {
                memory,
                cpu,
                instances: instances[row],
                rivals: rivals.get(row).copied().unwrap_or_default(),
            }
        };
        let mut best = Best::of(request);
        for &host in &fit.hosts {
            let used = used(host);
            if used.memory.max(used.cpu) > 1.0 - settings.spare {
                reject(&mut fit.rejections, "kept-spare", host);
            } else {
                best.offer(host, used.points().iter().sum());
            }
        }
        let reasons_of = |host| used(host).reasons();
        Ok(best.verdict(reasons_of, fit.rejections, settings.retry_after_ms))
    }
}

/// What of a host is in use once the instance is there.
struct Use {
    /// Ratio.
    memory: f64,
    /// Ratio.
    cpu: f64,
    /// Before the instance came.
    instances: u32,
    /// Of those, that it wishes to avoid.
    rivals: u32,
}

impl Use {
    fn points(&self) -> [f64; 4] {
        [
            self.memory * 50.0,
            self.cpu * 50.0,
            f64::from(self.instances) * POINTS_PER_INSTANCE,
            f64::from(self.rivals) * POINTS_PER_RIVAL,
        ]
    }

    fn reasons(&self) -> Vec<Reason> {
        let words = [
            ("memory-in-use", format!("{:.0} % of the memory will be in use", self.memory * 100.0)),
            ("cpu-in-use", format!("{:.0} % of the CPU will be in use", self.cpu * 100.0)),
            ("instances-there", format!("{} instances are there", self.instances)),
        ];
        let [memory, cpu, instances, rivals] = self.points();
        let reasons = words.into_iter().zip([memory, cpu, instances]);
        let mut reasons: Vec<_> =
            reasons.map(|((code, text), weight)| Reason::new(code, text, weight)).collect();
        if self.rivals > 0 {
            let text = format!("{} that it wishes to avoid are there", self.rivals);
            reasons.push(Reason::new("apart-from-rivals", text, rivals));
        }
        reasons
    }
}

#[cfg(test)]
mod tests;
