//! Profiles: which of them fits a guest that runs, and what it will need next.
//!
//! A profile is the order in which guests read an image's pieces (VMTorrent, CoNEXT 2012, section 4: mean first access
//! over many runs). A [`Recorder`] writes down what one guest touches first, in the guest's own time; a [`Matcher`]
//! holds that against every profile as it happens, and names the one to fetch by. Both take the time as a number.

use crate::Pieces;
use std::collections::VecDeque;
use std::time::Duration;

/// First accesses a profile is judged by. Fewer tell boots of one family apart too late, more forget too slowly.
pub const RECENT_TOUCHES: usize = 32;

/// First accesses before a profile is judged at all; until then the first one is believed.
pub const TOUCHES_MIN: usize = 8;

/// Share of the latest first accesses below which a profile fits nobody: what it says would only take bandwidth.
pub const FIT_MIN: f64 = 0.3;

/// How much better another profile must fit before a guest is switched to it: more than one touch of the fewest.
pub const FIT_MARGIN: f64 = 0.15;

/// Entries a guest may be ahead of where it was thought to be before the order is made anew.
const STRIDE: usize = 16;

/// Latest hits whose median says where in its profile a guest is.
const HITS: usize = 9;

/// A guest's own time: what passed while none of its reads waited.
#[derive(Debug, Clone, Default)]
pub struct GuestClock {
    waiting: u32,
    since: Duration,
    waited: Duration,
}

impl GuestClock {
    /// A read begins to wait.
    pub fn wait(&mut self, now: Duration) {
        if self.waiting == 0 {
            self.since = now;
        }
        self.waiting += 1;
    }

    /// A read that waited has its bytes, or was given up.
    pub fn resume(&mut self, now: Duration) {
        self.waiting = self.waiting.saturating_sub(1);
        if self.waiting == 0 {
            self.waited += now.saturating_sub(self.since);
        }
    }

    /// The guest's time: `now` without the waits. Reads that wait at once are counted once.
    #[must_use]
    pub fn read(&self, now: Duration) -> Duration {
        let running = if self.waiting > 0 { self.since } else { now };
        running.saturating_sub(self.waited)
    }
}

/// What one guest touched first, in order.
#[derive(Debug, Clone)]
pub struct Recorder {
    seen: Pieces,
    touched: Vec<(u32, Duration)>,
}

impl Recorder {
    /// Nothing was touched yet, of an image of so many pieces.
    #[must_use]
    pub fn new(pieces: u32) -> Self {
        Self { seen: Pieces::none(pieces), touched: Vec::new() }
    }

    /// A piece is touched at a guest's time; `true` if it is the first time.
    pub fn touch(&mut self, piece: u32, at: Duration) -> bool {
        let first = self.seen.insert(piece);
        if first {
            self.touched.push((piece, at));
        }
        first
    }

    /// Was it touched?
    #[must_use]
    pub fn has(&self, piece: u32) -> bool {
        self.seen.contains(piece)
    }

    /// Every first access, in order, with the guest's time.
    #[must_use]
    pub fn touched(&self) -> &[(u32, Duration)] {
        &self.touched
    }
}

/// Pieces in the order in which guests need them.
#[derive(Debug, Clone)]
pub struct Profile {
    name: String,
    order: Vec<u32>,
    /// Place in `order` of each piece; `u32::MAX`: not in it.
    place: Vec<u32>,
}

impl Profile {
    /// A profile of an image of `pieces` pieces. Pieces that do not exist or come twice are left out.
    #[must_use]
    pub fn new(name: String, wanted: impl IntoIterator<Item = u32>, pieces: u32) -> Self {
        let mut profile = Self { name, order: Vec::new(), place: vec![u32::MAX; pieces as usize] };
        for piece in wanted {
            if let Some(place) = profile.place.get_mut(piece as usize).filter(|place| **place == u32::MAX) {
                *place = u32::try_from(profile.order.len()).unwrap_or(u32::MAX);
                profile.order.push(piece);
            }
        }
        profile
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its pieces, in order.
    #[must_use]
    pub fn order(&self) -> &[u32] {
        &self.order
    }

    /// Does it name the piece?
    #[must_use]
    pub fn names(&self, piece: u32) -> bool {
        self.place(piece).is_some()
    }

    fn place(&self, piece: u32) -> Option<usize> {
        self.place.get(piece as usize).filter(|place| **place != u32::MAX).map(|place| *place as usize)
    }
}

/// Which profile a guest follows.
#[derive(Debug, Clone, Default)]
pub struct Matcher {
    recent: VecDeque<u32>,
    /// Index of the profile that serves the guest.
    chosen: Option<usize>,
    /// Where in it the guest is.
    at: usize,
}

impl Matcher {
    /// A guest that has touched nothing yet: the first profile is believed, if there is one.
    #[must_use]
    pub fn new(profiles: &[Profile]) -> Self {
        Self { chosen: (!profiles.is_empty()).then_some(0), ..Self::default() }
    }

    /// There are other profiles now: judged anew by what was touched last.
    pub fn replace(&mut self, profiles: &[Profile]) {
        self.chosen = (!profiles.is_empty()).then_some(0);
        self.at = 0;
        self.judge(profiles);
        self.advance(profiles);
    }

    /// The guest touched a piece for the first time; `true` if [`Matcher::next`] would answer otherwise now.
    pub fn touch(&mut self, piece: u32, profiles: &[Profile]) -> bool {
        self.recent.push_back(piece);
        if self.recent.len() > RECENT_TOUCHES {
            self.recent.pop_front();
        }
        let before = self.chosen;
        self.judge(profiles);
        if self.chosen != before {
            self.at = 0;
        }
        let moved = self.advance(profiles);
        moved || self.chosen != before
    }

    /// Index of the profile that serves the guest, if one fits.
    #[must_use]
    pub fn chosen(&self) -> Option<usize> {
        self.chosen
    }

    /// Share of the latest first accesses that a profile names, 0 to 1; 0 before there were any.
    #[must_use]
    pub fn score(&self, profile: &Profile) -> f64 {
        if self.recent.is_empty() {
            return 0.0;
        }
        let hits = self.recent.iter().filter(|piece| profile.names(**piece)).count();
        #[expect(clippy::cast_precision_loss, reason = "a handful of touches")]
        let score = hits as f64 / self.recent.len() as f64;
        score
    }

    /// What the guest needs next: the profile from where it is, then what it passed over.
    #[must_use]
    pub fn next(&self, profiles: &[Profile]) -> Vec<u32> {
        let Some(profile) = self.chosen.and_then(|chosen| profiles.get(chosen)) else { return Vec::new() };
        let (passed, ahead) = profile.order.split_at(self.at.min(profile.order.len()));
        ahead.iter().chain(passed).copied().collect()
    }

    fn judge(&mut self, profiles: &[Profile]) {
        if self.recent.len() < TOUCHES_MIN {
            return;
        }
        let scores: Vec<f64> = profiles.iter().map(|profile| self.score(profile)).collect();
        // The earlier of equals: more runs stand behind it.
        let mut best: Option<usize> = None;
        for (index, score) in scores.iter().enumerate() {
            if best.is_none_or(|best| *score > scores[best]) {
                best = Some(index);
            }
        }
        let best = best.filter(|best| scores[*best] >= FIT_MIN);
        self.chosen = match (self.chosen.filter(|chosen| scores[*chosen] >= FIT_MIN), best) {
            (Some(chosen), Some(best)) if scores[best] <= scores[chosen] + FIT_MARGIN => Some(chosen),
            (_, best) => best,
        };
    }

    /// Follows the guest through its profile.
    fn advance(&mut self, profiles: &[Profile]) -> bool {
        let Some(profile) = self.chosen.and_then(|chosen| profiles.get(chosen)) else { return false };
        let places = self.recent.iter().rev().filter_map(|piece| profile.place(*piece));
        let mut latest: Vec<usize> = places.take(HITS).collect();
        if latest.len() < HITS {
            return false;
        }
        latest.sort_unstable();
        let median = latest[HITS / 2];
        let moved = median >= self.at + STRIDE;
        if moved {
            self.at = median;
        }
        moved
    }
}

/// One list of several guests' needs: the first of each, the second of each, and so on, no piece twice.
#[must_use]
pub fn interleave(lists: &[Vec<u32>], pieces: u32) -> Vec<u32> {
    let mut seen = Pieces::none(pieces);
    let longest = lists.iter().map(Vec::len).max().unwrap_or(0);
    let turns = (0..longest).flat_map(|turn| lists.iter().filter_map(move |list| list.get(turn).copied()));
    turns.filter(|piece| *piece < pieces && seen.insert(*piece)).collect()
}

#[cfg(test)]
mod tests;
