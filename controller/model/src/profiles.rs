//! From what guests read to profiles: runs are told apart by what they share, and each kind becomes one profile.
//!
//! After VMTorrent (Reich et al., CoNEXT 2012): pieces in the order of their mean first access, those that few runs
//! touched left out. A run joins the profile it shares most with, or begins one of its own; so guests that do different
//! things with one image do not blur each other's order.

use std::collections::{BTreeMap, BTreeSet};
use streamer_api::{PROFILES_MAX, Profile, ProfileEntry, Run};

/// Runs of one image that are worth keeping: older ones say little about what guests do now.
pub const RUNS_KEPT: usize = 32;
/// A piece stays in a profile if at least one of so many runs touched it.
const RARE_ONE_IN: u32 = 4;
/// Two sets of pieces are of one kind if at least this share of both together is common to both.
const SAME_KIND: f64 = 0.5;
/// Profiles that share less than this are worth telling every host about.
const SAME_CONTENT: f64 = 0.95;
/// A published profile counts as so many runs at most, so that the fleet can correct it.
const PUBLISHED_RUNS_MAX: u32 = 8;
/// Longest name of a profile in bytes.
const NAME_LEN_MAX: usize = 63;
/// The first profile that nobody has named.
const NAME: &str = "boot";

/// Runs of one kind.
#[derive(Debug, Default)]
struct Kind {
    name: Option<String>,
    runs: u32,
    pieces: BTreeMap<u32, Accesses>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Accesses {
    runs: u32,
    sum_ms: u64,
}

impl Kind {
    fn published(profile: &Profile) -> Self {
        let runs = profile.runs.clamp(1, PUBLISHED_RUNS_MAX);
        let scaled = |entry: &ProfileEntry| {
            let share = u64::from(entry.runs) * u64::from(runs);
            let counted = share.div_ceil(u64::from(profile.runs.max(1))).clamp(1, u64::from(runs));
            u32::try_from(counted).unwrap_or(runs)
        };
        let accesses = |entry: &ProfileEntry| {
            let runs = scaled(entry);
            (entry.piece, Accesses { runs, sum_ms: u64::from(entry.at_ms) * u64::from(runs) })
        };
        Self {
            name: Some(profile.name.clone()),
            runs,
            pieces: profile.entries.iter().map(accesses).collect(),
        }
    }

    fn add(&mut self, run: &Run) {
        self.runs += 1;
        for touch in &run.touched {
            let accesses = self.pieces.entry(touch.piece).or_default();
            accesses.runs += 1;
            accesses.sum_ms += u64::from(touch.at_ms);
        }
    }

    /// Pieces that are not rare among its runs.
    fn usual(&self) -> impl Iterator<Item = (u32, Accesses)> {
        let enough = move |accesses: &Accesses| {
            u64::from(accesses.runs) * u64::from(RARE_ONE_IN) >= u64::from(self.runs)
        };
        self.pieces.iter().map(|(piece, accesses)| (*piece, *accesses)).filter(move |(_, a)| enough(a))
    }

    fn set(&self) -> BTreeSet<u32> {
        self.usual().map(|(piece, _)| piece).collect()
    }

    fn profile(&self, name: String) -> Profile {
        let entry = |(piece, accesses): (u32, Accesses)| ProfileEntry {
            piece,
            at_ms: u32::try_from(accesses.sum_ms / u64::from(accesses.runs.max(1))).unwrap_or(u32::MAX),
            runs: accesses.runs,
        };
        let mut entries: Vec<ProfileEntry> = self.usual().map(entry).collect();
        entries.sort_by_key(|entry| (entry.at_ms, entry.piece));
        Profile { name, runs: self.runs, entries }
    }
}

/// Makes the profiles of one image: those its maker published, refined by what its guests did, oldest run first.
/// `previous` is the last result: what is still of the same kind keeps its name. The one with most runs is first; at
/// most [`PROFILES_MAX`].
#[must_use]
pub fn merge(published: &[Profile], previous: &[Profile], runs: &[Run]) -> Vec<Profile> {
    let mut kinds: Vec<Kind> = published.iter().take(PROFILES_MAX).map(Kind::published).collect();
    for run in runs.iter().filter(|run| !run.touched.is_empty()) {
        let touched: BTreeSet<u32> = run.touched.iter().map(|touch| touch.piece).collect();
        let nearest = kinds
            .iter()
            .enumerate()
            .map(|(index, kind)| (index, in_common(&kind.set(), &touched)))
            .max_by(|(_, a), (_, b)| a.total_cmp(b));
        match nearest {
            Some((index, share)) if share >= SAME_KIND => kinds[index].add(run),
            _ if kinds.len() < PROFILES_MAX => {
                let mut kind = Kind::default();
                kind.add(run);
                kinds.push(kind);
            }
            // One that is like none of so many tells nothing about the next.
            _ => {}
        }
    }
    let names = names(&kinds, previous);
    let mut profiles: Vec<Profile> = kinds.iter().zip(names).map(|(kind, name)| kind.profile(name)).collect();
    profiles.sort_by(|a, b| b.runs.cmp(&a.runs).then_with(|| a.name.cmp(&b.name)));
    profiles
}

/// A name for each kind: its maker's, else that of the previous profile it is most like, else the next free one.
fn names(kinds: &[Kind], previous: &[Profile]) -> Vec<String> {
    let mut taken: BTreeSet<String> = kinds.iter().filter_map(|kind| kind.name.clone()).collect();
    let mut names: Vec<Option<String>> = kinds.iter().map(|kind| kind.name.clone()).collect();
    for (kind, name) in kinds.iter().zip(&mut names).filter(|(_, name)| name.is_none()) {
        let set = kind.set();
        let likest = previous
            .iter()
            .filter(|profile| !taken.contains(&profile.name))
            .map(|profile| (profile, in_common(&pieces(profile), &set)))
            .max_by(|(_, a), (_, b)| a.total_cmp(b))
            .filter(|(_, share)| *share >= SAME_KIND);
        if let Some((profile, _)) = likest {
            taken.insert(profile.name.clone());
            *name = Some(profile.name.clone());
        }
    }
    names.into_iter().map(|name| name.unwrap_or_else(|| free(&mut taken))).collect()
}

fn free(taken: &mut BTreeSet<String>) -> String {
    let mut name = NAME.to_owned();
    let mut number = 1_u32;
    while !taken.insert(name.clone()) {
        number += 1;
        name = format!("{NAME}-{number}");
    }
    name
}

fn pieces(profile: &Profile) -> BTreeSet<u32> {
    profile.entries.iter().map(|entry| entry.piece).collect()
}

/// Jaccard's index: 1 if both are the same, also if both are empty.
fn in_common(a: &BTreeSet<u32>, b: &BTreeSet<u32>) -> f64 {
    let both = a.intersection(b).count();
    let either = a.len() + b.len() - both;
    #[expect(clippy::cast_precision_loss, reason = "an image has far fewer pieces than a double can count")]
    if either == 0 { 1.0 } else { both as f64 / either as f64 }
}

/// Whether hosts that have `old` gain by being told `new`: it has another profile, one names other pieces by more than
/// one in twenty, or stands on twice as many runs.
#[must_use]
pub fn changed_much(old: &[Profile], new: &[Profile]) -> bool {
    old.len() != new.len()
        || new.iter().any(|profile| {
            old.iter().find(|before| before.name == profile.name).is_none_or(|before| {
                profile.runs >= before.runs.saturating_mul(2)
                    || in_common(&pieces(before), &pieces(profile)) < SAME_CONTENT
            })
        })
}

/// Checks profiles that somebody wrote for an image of so many pieces.
///
/// # Errors
/// What is wrong with them, and where.
pub fn check(profiles: &[Profile], pieces: u32) -> Result<(), String> {
    if profiles.len() > PROFILES_MAX {
        return Err(format!("there are {} profiles, more than {PROFILES_MAX}", profiles.len()));
    }
    let mut names = BTreeSet::new();
    for profile in profiles {
        let name = &profile.name;
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > NAME_LEN_MAX || !name.chars().all(letters) {
            return Err(format!("profile {name:?}: a name is 1 to {NAME_LEN_MAX} of a-z, 0-9 and -"));
        }
        if !names.insert(name) {
            return Err(format!("profile {name}: there are two of this name"));
        }
        if profile.entries.is_empty() {
            return Err(format!("profile {name}: it names no piece"));
        }
        let mut seen = BTreeSet::new();
        for ProfileEntry { piece, runs, .. } in &profile.entries {
            if *piece >= pieces {
                return Err(format!("profile {name}: piece {piece} is beyond the image's {pieces}"));
            }
            if !seen.insert(*piece) {
                return Err(format!("profile {name}: piece {piece} is named twice"));
            }
            if *runs > profile.runs {
                return Err(format!("profile {name}: piece {piece} has more runs than the profile"));
            }
        }
    }
    Ok(())
}

/// Checks a run that a host reports of an image of so many pieces.
///
/// # Errors
/// What is wrong with it.
pub fn check_run(run: &Run, pieces: u32) -> Result<(), String> {
    if run.touched.is_empty() {
        return Err("the run touched nothing".into());
    }
    let mut seen = BTreeSet::new();
    for touch in &run.touched {
        if touch.piece >= pieces {
            return Err(format!("piece {} is beyond the image's {pieces}", touch.piece));
        }
        if !seen.insert(touch.piece) {
            return Err(format!("piece {} is touched first twice", touch.piece));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
