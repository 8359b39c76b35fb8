//! Takes the host with the largest share of free memory.

use plugins_sdk::placement::{Placed, PlacementPolicy, ratio};
use plugins_sdk::{
    Choice, Cluster, Context, Manifest, Plugin, PolicyError, Reason, Request, Row, SettingsIssue, Verdict,
    check_number,
};
use serde::Deserialize;

plugins_sdk::export_placement!({{Name}});

/// Most points; the schema says so too.
const POINTS_MAX: f64 = 1000.0;
/// Most hosts of a cluster.
const HOSTS_MAX: u32 = 20_000;
const RETRY_AFTER_MS: u64 = 10_000;
const GIB: u64 = 1 << 30;

/// The policy.
pub struct {{Name}};

/// See `settings.schema.json`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    points: f64,
    candidates: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { points: 100.0, candidates: 64 }
    }
}

impl Plugin for {{Name}} {
    type Settings = Settings;

    fn manifest() -> Manifest {
        Manifest {
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            summary: env!("CARGO_PKG_DESCRIPTION"),
            license: env!("CARGO_PKG_LICENSE"),
            settings_schema: include_str!("settings.schema.json"),
            default_settings: "{}",
        }
    }

    fn check_settings(settings: &Settings) -> Vec<SettingsIssue> {
        let mut issues: Vec<_> = check_number("/points", settings.points, POINTS_MAX).into_iter().collect();
        if !(1..=HOSTS_MAX).contains(&settings.candidates) {
            let message = format!("give 1 to {HOSTS_MAX} hosts");
            issues.push(SettingsIssue { path: "/candidates".to_owned(), message });
        }
        issues
    }
}

impl PlacementPolicy for {{Name}} {
    fn place(
        settings: &Settings,
        request: &Request,
        cluster: &impl Cluster,
        _context: &impl Context,
    ) -> Result<Verdict, PolicyError> {
        // Hosts that meet every hard limit, found natively: at most so many, whichever the call's seed picks.
        let hosts = cluster.feasible(request, settings.candidates);
        if hosts.is_empty() {
            let reasons = vec![Reason::plain("no-host-fits", "no host has room for it".to_owned())];
            return Ok(Verdict::Defer { retry_after_ms: RETRY_AFTER_MS, reasons, rejections: vec![] });
        }
        let mut choices: Vec<Choice> =
            cluster.rows(&hosts).iter().map(|row| choice(settings, request, row)).collect();
        // Ties go to the host that is first by name, so that the same question has one answer.
        choices.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.host.cmp(&b.host)));
        choices.truncate(request.choices_max as usize);
        Ok(Verdict::Place(Placed { choices, rejections: vec![] }))
    }
}

fn choice(settings: &Settings, request: &Request, row: &Row) -> Choice {
    let left = row.memory_free_bytes.saturating_sub(request.memory_bytes);
    let score = settings.points * ratio(left, row.memory_total_bytes);
    let text = format!("{} of {} GiB of memory stay free", left / GIB, row.memory_total_bytes / GIB);
    Choice { host: row.host, score, reasons: vec![Reason::new("memory-left", text, score)] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugins_sdk::{Host, Hosts};

    fn host(name: &str, free_gib: u64) -> Host {
        Host {
            name: name.to_owned(),
            memory_total_bytes: 8 * GIB,
            memory_free_bytes: free_gib * GIB,
            disk_total_bytes: 100 * GIB,
            disk_free_bytes: 100 * GIB,
            cpu_total_milli: 8000,
            cpu_free_milli: 8000,
            ..Host::default()
        }
    }

    fn place(hosts: Vec<Host>) -> Verdict {
        let request = Request { memory_bytes: GIB, vcpus_milli: 1000, choices_max: 8, ..Request::default() };
        let hosts = Hosts(hosts);
        {{Name}}::place(&Settings::default(), &request, &hosts, &hosts).unwrap()
    }

    #[test]
    fn the_host_with_most_memory_left_comes_first() {
        let Verdict::Place(placed) = place(vec![host("a", 2), host("b", 8), host("c", 4)]) else {
            panic!("it is placed");
        };
        let order: Vec<_> = placed.choices.iter().map(|choice| choice.host).collect();
        assert_eq!(order, [1, 2, 0]);
    }

    #[test]
    fn without_a_host_that_fits_it_waits() {
        assert!(matches!(place(vec![host("a", 0)]), Verdict::Defer { .. }));
    }
}
