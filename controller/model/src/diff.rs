//! Differences between documents, for people.

use serde::Serialize;
use similar::{ChangeTag, TextDiff};

/// A value as lines of YAML.
#[must_use]
pub fn lines<T: Serialize>(value: &T) -> Vec<String> {
    let text = serde_saphyr::to_string(value).unwrap_or_else(|error| format!("# cannot be shown: {error}"));
    text.lines().map(str::to_owned).collect()
}

/// Lines with their sign: ` `, `-`, `+`; empty if nothing differs.
#[must_use]
pub fn unified(old: &[String], new: &[String]) -> Vec<String> {
    if old == new {
        return Vec::new();
    }
    let old: Vec<&str> = old.iter().map(String::as_str).collect();
    let new: Vec<&str> = new.iter().map(String::as_str).collect();
    TextDiff::from_slices(&old, &new)
        .iter_all_changes()
        .map(|change| {
            let sign = match change.tag() {
                ChangeTag::Equal => ' ',
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
            };
            format!("{sign}{}", change.value())
        })
        .collect()
}
