//! Figures: `figure NAME VALUE UNIT` lines and `bench/demo.json`.

use crate::say;
use anyhow::Context as _;
use serde::Serialize;
use std::path::Path;

/// One measured figure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    name: String,
    value: f64,
    unit: String,
    /// The bar, where one is set.
    must: Option<f64>,
    aim: Option<f64>,
    /// How many measurements the value stands for.
    rounds: usize,
    /// Smallest and largest of them.
    spread: [f64; 2],
    /// What was compared with what.
    note: String,
}

/// All figures of a run.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<Figure>);

impl Figures {
    /// Adds the median of `samples`; nothing if there are none.
    pub(crate) fn add(&mut self, name: &str, samples: &[f64], unit: &str, note: &str) {
        let Some(value) = median(samples) else { return };
        let spread = [
            samples.iter().copied().fold(f64::INFINITY, f64::min),
            samples.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        ];
        self.0.push(Figure {
            name: name.to_owned(),
            value,
            unit: unit.to_owned(),
            must: None,
            aim: None,
            rounds: samples.len(),
            spread,
            note: note.to_owned(),
        });
    }

    /// Prints every figure and writes them all to `path`.
    pub(crate) fn publish(&self, path: &Path) -> anyhow::Result<()> {
        for figure in &self.0 {
            say(&format!("figure {} {} {}", figure.name, round(figure.value), figure.unit));
        }
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        }
        let text = serde_json::to_string_pretty(&self.0)? + "\n";
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The middle of the samples, the mean of the two middle ones if they are even in number.
pub(crate) fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// The sample that `share` (0 to 1) of all samples do not exceed (nearest rank).
pub(crate) fn percentile(samples: &[f64], share: f64) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank among thousands of samples"
    )]
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_the_percentile_the_nearest_rank() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&hundred, 0.99), Some(99.0));
        assert_eq!(percentile(&[7.0], 0.99), Some(7.0));
    }
}
