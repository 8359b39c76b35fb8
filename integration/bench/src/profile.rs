//! Profiles for the arms: merged from runs, and a wrong one.

use rand::seq::SliceRandom as _;
use rand::{SeedableRng as _, rngs::StdRng};
use std::collections::BTreeMap;
use streamer_api::{Profile, ProfileEntry, Run};

/// Pieces that fewer runs than this share touched are dropped (VMTorrent's own constant).
const SHARE_MIN: f64 = 0.25;

/// One run's first accesses: piece and milliseconds.
pub(crate) type Touches = Vec<(u32, u32)>;

/// A run as the streamer recorded it.
pub(crate) fn touches_of(run: &Run) -> Touches {
    run.touched.iter().map(|touch| (touch.piece, touch.at_ms)).collect()
}

/// The profile of several runs: pieces by their mean first access, rare ones dropped.
pub(crate) fn merge(name: &str, runs: &[Touches]) -> Profile {
    let mut seen: BTreeMap<u32, (u64, u32)> = BTreeMap::new();
    for (piece, at_ms) in runs.iter().flatten() {
        let entry = seen.entry(*piece).or_default();
        entry.0 += u64::from(*at_ms);
        entry.1 += 1;
    }
    let count = u32::try_from(runs.len()).unwrap_or(u32::MAX);
    let mut entries: Vec<ProfileEntry> = seen
        .into_iter()
        .filter(|(_, (_, runs))| f64::from(*runs) >= SHARE_MIN * f64::from(count))
        .map(|(piece, (sum_ms, runs))| ProfileEntry {
            piece,
            at_ms: u32::try_from(sum_ms / u64::from(runs)).unwrap_or(u32::MAX),
            runs,
        })
        .collect();
    entries.sort_by_key(|entry| (entry.at_ms, entry.piece));
    Profile { name: name.to_owned(), runs: count, entries }
}

/// As long as `right`, at the same times, but of pieces it does not name: what harms most if it is believed.
pub(crate) fn wrong(right: &Profile, present: &[u32]) -> Profile {
    let mut others: Vec<u32> = present
        .iter()
        .copied()
        .filter(|piece| right.entries.iter().all(|entry| entry.piece != *piece))
        .collect();
    others.shuffle(&mut StdRng::seed_from_u64(u64::from(right.runs)));
    let entries =
        right.entries.iter().zip(others).map(|(entry, piece)| ProfileEntry { piece, ..*entry }).collect();
    Profile { name: "wrong".to_owned(), runs: right.runs, entries }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_ordered_by_their_mean_and_rare_ones_are_dropped() {
        let mut runs: Vec<Touches> = vec![vec![(7, 10), (8, 20)]; 5];
        runs[0] = vec![(8, 0), (7, 100), (9, 1)];
        let profile = merge("boot", &runs);
        let order: Vec<_> =
            profile.entries.iter().map(|entry| (entry.piece, entry.at_ms, entry.runs)).collect();
        assert_eq!(order, [(8, 16, 5), (7, 28, 5)]);
        assert_eq!(profile.runs, 5);
    }

    #[test]
    fn a_wrong_profile_names_nothing_of_the_right_one() {
        let right = merge("boot", &[vec![(1, 0), (2, 5), (3, 9)]]);
        let wrong = wrong(&right, &[1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(wrong.entries.len(), 3);
        assert!(wrong.entries.iter().all(|entry| entry.piece >= 4));
        assert!(wrong.entries.iter().map(|entry| entry.at_ms).eq([0, 5, 9]));
    }
}
