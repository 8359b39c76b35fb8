//! What an operator may set: the points that each consideration is worth.

use plugins_sdk::{SettingsIssue, check_number};
use serde::Deserialize;

/// Most points that one consideration may be worth.
const POINTS_MAX: f64 = 1000.0;

/// The longest time after which to ask again: one hour.
const RETRY_AFTER_MS_MAX: u64 = 3_600_000;

/// Most hosts of a short list.
const CANDIDATES_MAX: u32 = 10_000;

/// Points per consideration; see `settings.schema.json`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    pub(crate) capacity: f64,
    pub(crate) idle: f64,
    pub(crate) image: f64,
    pub(crate) apart: f64,
    pub(crate) apart_from: f64,
    pub(crate) site: f64,
    pub(crate) stay: f64,
    pub(crate) attested: f64,
    pub(crate) labels: f64,
    pub(crate) labels_required: bool,
    pub(crate) candidates_max: u32,
    pub(crate) retry_after_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            capacity: 60.0,
            idle: 5.0,
            // A swarm brings an image cheaply, and a boot reads a tenth of it: room counts for more.
            image: 10.0,
            apart: 40.0,
            // Half of it, which one rival costs, is more than all the others together.
            apart_from: 400.0,
            site: 20.0,
            stay: 5.0,
            attested: 0.0,
            labels: 50.0,
            labels_required: true,
            candidates_max: 0,
            retry_after_ms: 10_000,
        }
    }
}

impl Settings {
    pub(crate) fn check(&self) -> Vec<SettingsIssue> {
        let points = [
            ("/capacity", self.capacity),
            ("/idle", self.idle),
            ("/image", self.image),
            ("/apart", self.apart),
            ("/apart_from", self.apart_from),
            ("/site", self.site),
            ("/stay", self.stay),
            ("/attested", self.attested),
            ("/labels", self.labels),
        ];
        let mut issues: Vec<_> =
            points.iter().filter_map(|(path, value)| check_number(path, *value, POINTS_MAX)).collect();
        if self.candidates_max > CANDIDATES_MAX {
            issues.push(SettingsIssue {
                path: "/candidates_max".to_owned(),
                message: format!("give 0 to look at all hosts, or 1 to {CANDIDATES_MAX}"),
            });
        }
        if !(1..=RETRY_AFTER_MS_MAX).contains(&self.retry_after_ms) {
            issues.push(SettingsIssue {
                path: "/retry_after_ms".to_owned(),
                message: format!("give 1 to {RETRY_AFTER_MS_MAX} milliseconds"),
            });
        }
        issues
    }
}
