//! Figures: medians with their spread, the bars they are held against, `figure` lines and a JSON file.

use crate::say;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What must be reached, and what is aimed at: name, unit, must, aim.
const BARS: [(&str, &str, f64, f64); 31] = [
    ("boot_vs_local_100m", "ratio", 1.25, 1.05),
    ("boot_vs_local_1g", "ratio", 1.25, 1.05),
    ("download_vs_streamed", "ratio", 10.0, 30.0),
    ("crowd_p95_64_vs_1", "ratio", 1.5, 1.10),
    ("crowd_origin_vs_unique", "ratio", 2.0, 1.05),
    ("warm_iops_vs_qemu_nbd_qd1", "ratio", 1.0, 2.0),
    ("warm_iops_vs_qemu_nbd_qd16", "ratio", 1.0, 2.0),
    ("warm_iops_vs_nbdkit_qd1", "ratio", 1.0, 2.0),
    ("warm_iops_vs_nbdkit_qd16", "ratio", 1.0, 2.0),
    ("urgent_p99_busy_vs_idle", "ratio", 3.0, 1.3),
    ("update_bytes_vs_changed", "ratio", 2.0, 1.10),
    ("wrong_profile_vs_none", "ratio", 1.05, 1.00),
    ("huge_first_read_ms", "ms", 1000.0, 100.0),
    ("huge_rss_mb", "MB", 200.0, 64.0),
    ("converge_vs_ip_batch", "ratio", 2.0, 1.0),
    ("one_port_ms", "ms", 20.0, 2.0),
    ("idle_reconcile_ms", "ms", 1000.0, 100.0),
    ("throughput_vs_bridge", "ratio", 0.85, 0.97),
    ("latency_5000_vs_10_ports", "ratio", 1.2, 1.02),
    ("frames_leaked", "frames", 0.0, 0.0),
    ("splice_outage_ms", "ms", 1000.0, 50.0),
    ("call_added_us", "us", 40.0, 20.0),
    ("place_10k_p99_us", "us", 2000.0, 500.0),
    ("place_10k_prefiltered_p99_us", "us", 200.0, 60.0),
    ("decisions_per_s", "1/s", 2000.0, 10_000.0),
    ("decisions_flatness", "ratio", 0.8, 0.97),
    ("pipe_vs_wasm", "ratio", 3.0, 10.0),
    ("loop_containment_vs_deadline", "ratio", 2.0, 1.1),
    ("rss_growth_mb", "MB", 10.0, 0.0),
    ("scan_vs_memcpy", "ratio", 0.2, 0.6),
    ("backup_vs_restic", "ratio", 1.0, 0.3),
];

/// One measured figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    name: String,
    value: f64,
    unit: String,
    /// The bar, where one is set.
    must: Option<f64>,
    aim: Option<f64>,
    /// How many measurements of each arm the value stands for.
    rounds: usize,
    /// Smallest and largest of the rounds' own values.
    spread: [f64; 2],
    /// What was compared with what; what was real and what replayed.
    note: String,
}

impl Figure {
    /// One of the bars' names. More is better where the aim is above the must.
    fn verdict(&self) -> &'static str {
        let (Some(must), Some(aim)) = (self.must, self.aim) else { return "" };
        let reached = |bar: f64| if aim > must { self.value >= bar } else { self.value <= bar };
        match (reached(must), reached(aim)) {
            (_, true) => ", aim reached",
            (true, false) => ", must reached",
            (false, false) => ", BELOW THE BAR",
        }
    }
}

/// All figures of a run.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<Figure>);

impl Figures {
    /// Adds a figure and prints it. `value` comes from medians of the arms; `rounds` are the same figure, round by round.
    pub(crate) fn add(&mut self, name: &str, value: f64, rounds: &[f64], note: &str) {
        let bar = BARS.iter().find(|(known, ..)| *known == name);
        self.push(Figure {
            name: name.to_owned(),
            value,
            unit: bar.map_or_else(|| unit_of(name), |bar| bar.1).to_owned(),
            must: bar.map(|bar| bar.2),
            aim: bar.map(|bar| bar.3),
            rounds: rounds.len(),
            spread: [
                rounds.iter().copied().fold(value, f64::min),
                rounds.iter().copied().fold(value, f64::max),
            ],
            note: note.to_owned(),
        });
    }

    fn push(&mut self, figure: Figure) {
        let Figure { name, value, unit, note, .. } = &figure;
        let [low, high] = figure.spread;
        let bars = match (figure.must, figure.aim) {
            (Some(must), Some(aim)) => format!("; must {must}, aim {aim}{}", figure.verdict()),
            _ => String::new(),
        };
        let (value, low, high) = (round(*value), round(low), round(high));
        // A line for machines: exactly `figure NAME VALUE UNIT` at its beginning.
        let line = format!(
            "figure {name} {value} {unit}  ({note}; {} rounds, {low} to {high}{bars})\n",
            figure.rounds
        );
        let _ = std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes());
        self.0.retain(|known| known.name != figure.name);
        self.0.push(figure);
    }

    /// Writes the figures to `path`, keeping those of an earlier run that were not measured now.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut all: Vec<Figure> = match std::fs::read(path) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))?,
            Err(_) => Vec::new(),
        };
        all.retain(|old| self.0.iter().all(|new| new.name != old.name));
        all.extend(self.0.iter().cloned());
        all.sort_by_key(|figure| {
            (BARS.iter().position(|bar| bar.0 == figure.name).unwrap_or(BARS.len()), figure.name.clone())
        });
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        }
        let text = serde_json::to_string_pretty(&all)? + "\n";
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
        say(&format!("{} figures are in {}", all.len(), path.display()));
        Ok(())
    }
}

fn unit_of(name: &str) -> &'static str {
    match name.rsplit('_').next() {
        Some("ms") => "ms",
        Some("s") => "s",
        Some("mb") => "MB",
        _ => "ratio",
    }
}

/// Three significant places of what is small, one decimal of what is large.
fn round(value: f64) -> f64 {
    let scale = if value.abs() < 100.0 { 1000.0 } else { 10.0 };
    (value * scale).round() / scale
}

/// The middle one; the mean of the two in the middle. NaN of nothing.
pub(crate) fn median(samples: &[f64]) -> f64 {
    percentile(samples, 50.0)
}

/// Linear between the two nearest ranks. NaN of nothing.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "ranks are small"
)]
pub(crate) fn percentile(samples: &[f64], percent: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let rank = percent / 100.0 * last as f64;
    let (low, high) = (rank.floor() as usize, rank.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * (rank - rank.floor())
}

/// The quotients of two arms, round by round.
pub(crate) fn ratios(above: &[f64], below: &[f64]) -> Vec<f64> {
    above.iter().zip(below).map(|(above, below)| above / below).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_never_the_best() {
        assert!((median(&[9.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[1.0, 2.0]) - 1.5).abs() < 1e-9);
        assert!((percentile(&[0.0, 10.0, 20.0], 75.0) - 15.0).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }

    fn figure(name: &str, value: f64) -> Figure {
        let mut figures = Figures::default();
        figures.add(name, value, &[value], "");
        figures.0.remove(0)
    }

    #[test]
    fn a_bar_is_reached_from_the_side_it_is_on() {
        assert_eq!(figure("boot_vs_local_1g", 1.2).verdict(), ", must reached");
        assert_eq!(figure("boot_vs_local_1g", 1.3).verdict(), ", BELOW THE BAR");
        assert_eq!(figure("download_vs_streamed", 31.0).verdict(), ", aim reached");
        assert_eq!(figure("download_vs_streamed", 9.0).verdict(), ", BELOW THE BAR");
        assert_eq!(figure("crowd_note", 9.0).verdict(), "");
    }

    #[test]
    fn a_partial_run_keeps_the_other_figures() {
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let path = folder.path().join("streamer.json");
        for value in [1.0, 2.0] {
            let mut figures = Figures::default();
            figures.add("huge_rss_mb", value, &[value], "");
            figures.write(&path).unwrap_or_else(|error| panic!("{error}"));
            let mut figures = Figures::default();
            figures.add("boot_vs_local_1g", value, &[value], "");
            figures.write(&path).unwrap_or_else(|error| panic!("{error}"));
        }
        let all: Vec<Figure> =
            serde_json::from_slice(&std::fs::read(&path).unwrap_or_default()).unwrap_or_default();
        let names: Vec<_> = all.iter().map(|figure| (figure.name.as_str(), figure.value)).collect();
        assert_eq!(names, [("boot_vs_local_1g", 2.0), ("huge_rss_mb", 2.0)]);
    }
}
