//! What an answer comes to: for lists, and to tell whether two answers have the same effect.

use crate::checkpoint::CheckpointPlan;
use crate::introspection::Report;
use crate::placement::Verdict;
use crate::update::{Step, UpdatePlan};

/// Names that stand in a line; of more their number is said as well.
const NAMES_MAX: usize = 4;

/// An answer in short. Reasons, scores, notes and state are not part of it.
pub trait Outcome {
    /// In one word, such as `place`, `defer`, `proceed`.
    fn word(&self) -> &'static str;

    /// In one line, with what it is about. Two answers with the same line have the same effect.
    fn outcome(&self) -> String;
}

impl Outcome for Verdict {
    fn word(&self) -> &'static str {
        match self {
            Self::Place { .. } => "place",
            Self::Defer { .. } => "defer",
            Self::Refuse { .. } => "refuse",
        }
    }

    /// Of hosts the first counts: that is where the instance goes.
    fn outcome(&self) -> String {
        match self {
            Self::Place { choices, .. } => {
                format!("place on {}", choices.first().map_or("no host", |choice| choice.host.as_str()))
            }
            _ => self.word().to_owned(),
        }
    }
}

impl Outcome for UpdatePlan {
    fn word(&self) -> &'static str {
        match self.step {
            Step::Proceed { .. } => "proceed",
            Step::Hold { .. } => "hold",
            Step::Halt { .. } => "halt",
            Step::RollBack { .. } => "roll_back",
            Step::Complete { .. } => "complete",
        }
    }

    fn outcome(&self) -> String {
        match &self.step {
            Step::Proceed { rolls, .. } => {
                format!("proceed with {}", list(rolls.iter().map(|roll| roll.instance.as_str())))
            }
            _ => self.word().to_owned(),
        }
    }
}

impl Outcome for CheckpointPlan {
    fn word(&self) -> &'static str {
        match (&self.take, self.discards.is_empty()) {
            (Some(_), _) => "take",
            (None, false) => "discard",
            (None, true) => "wait",
        }
    }

    fn outcome(&self) -> String {
        let take = self.take.as_ref().map(|take| {
            if take.with_memory { "take one with memory".to_owned() } else { "take one".to_owned() }
        });
        let discard = (!self.discards.is_empty()).then(|| {
            let names = self.discards.iter().map(|discard| discard.checkpoint.as_str());
            format!("discard {}", list(names))
        });
        match (take, discard) {
            (Some(take), Some(discard)) => format!("{take}, {discard}"),
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => self.word().to_owned(),
        }
    }
}

impl Outcome for Report {
    fn word(&self) -> &'static str {
        if self.findings.is_empty() { "clean" } else { "findings" }
    }

    fn outcome(&self) -> String {
        if self.findings.is_empty() {
            return self.word().to_owned();
        }
        format!("found {}", list(self.findings.iter().map(|finding| finding.rule.as_str())))
    }
}

/// In the order of their letters: the order of an answer has no effect. If some are not named, a number made of all
/// names keeps lists apart that begin alike.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    if names.len() <= NAMES_MAX {
        return if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    }
    let digest = crate::canonical::digest(&names).hex();
    format!(
        "{} and {} more ({})",
        names[..NAMES_MAX].join(", "),
        names.len() - NAMES_MAX,
        digest.get(..8).unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_that_begin_alike_are_told_apart() {
        let one = list(["a", "b", "c", "d", "e"].into_iter());
        let other = list(["a", "b", "c", "d", "f"].into_iter());
        assert!(one.starts_with("a, b, c, d and 1 more (") && one != other, "{one} {other}");
        assert_eq!(list(["b", "a"].into_iter()), "a, b");
        assert_eq!(list(std::iter::empty()), "nothing");
    }
}
