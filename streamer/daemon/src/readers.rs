//! Who reads an image: what each touched first, how long it waited, and which profile serves it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use streamer_api::{ProfileScore, Reader, Stalls, Touch};
use streamer_plan::{GuestClock, Matcher, Profile, Recorder, interleave};

/// Runs kept of readers that have left; older ones are forgotten.
const RUNS_KEPT: usize = 32;

/// Names one reader's run.
pub(crate) type RunKey = u64;

/// Every reader of one image, past ones too.
#[derive(Debug)]
pub(crate) struct Readers {
    pieces: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    profiles: Vec<Profile>,
    runs: VecDeque<Run>,
    next: RunKey,
    /// Reads that waited, of all readers: also of those forgotten.
    stalls: Stalls,
}

#[derive(Debug)]
struct Run {
    key: RunKey,
    name: String,
    began: SystemTime,
    started: Instant,
    connections: u32,
    clock: GuestClock,
    recorder: Recorder,
    matcher: Matcher,
    stalls: Stalls,
}

/// A reader is served by another profile now, or by none.
#[derive(Debug)]
pub(crate) struct Switch {
    pub(crate) reader: String,
    pub(crate) profile: Option<String>,
    pub(crate) scores: Vec<ProfileScore>,
}

/// What a touch, or other profiles, made of the plans.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// What is wanted next is another list than before.
    pub(crate) wanted: Option<Vec<u32>>,
    pub(crate) switched: Vec<Switch>,
}

/// What a reader that begins to wait is told of.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// Since the run began.
    pub(crate) at: Duration,
    pub(crate) profile: Option<String>,
    pub(crate) cause: streamer_api::StallCause,
}

impl Readers {
    /// Nobody reads the image of so many pieces yet.
    pub(crate) fn new(pieces: u32) -> Self {
        Self { pieces, state: Mutex::default() }
    }

    /// Replaces the profiles, also for readers that run.
    pub(crate) fn set_profiles(&self, profiles: &[streamer_api::Profile]) -> Change {
        let mut state = self.state();
        let entries =
            |profile: &streamer_api::Profile| profile.entries.iter().map(|entry| entry.piece).collect();
        let made = |profile: &streamer_api::Profile| {
            let order: Vec<u32> = entries(profile);
            Profile::new(profile.name.clone(), order, self.pieces)
        };
        let before: Vec<Option<String>> = state.runs.iter().map(|run| state.chosen(run)).collect();
        state.profiles = profiles.iter().map(made).collect();
        let State { profiles, runs, .. } = &mut *state;
        runs.iter_mut().for_each(|run| run.matcher.replace(profiles));
        let now = state.runs.iter().zip(before);
        let switched = now
            .filter(|(run, before)| run.connections > 0 && state.chosen(run) != *before)
            .map(|(run, _)| state.switch(run))
            .collect();
        Change { wanted: Some(state.wanted(self.pieces)), switched }
    }

    /// A reader connects. One that comes back goes on with its run.
    pub(crate) fn connect(&self, name: &str) -> (RunKey, Change) {
        let mut state = self.state();
        let back = state.runs.iter_mut().find(|run| !name.is_empty() && run.name == name);
        let key = if let Some(run) = back {
            run.connections += 1;
            run.key
        } else {
            let key = state.next;
            state.next += 1;
            let run = Run {
                key,
                name: name.to_owned(),
                began: SystemTime::now(),
                started: Instant::now(),
                connections: 1,
                clock: GuestClock::default(),
                recorder: Recorder::new(self.pieces),
                matcher: Matcher::new(&state.profiles),
                stalls: Stalls::default(),
            };
            state.runs.push_back(run);
            state.forget();
            key
        };
        (key, Change { wanted: Some(state.wanted(self.pieces)), switched: Vec::new() })
    }

    /// A reader left.
    pub(crate) fn leave(&self, key: RunKey) -> Change {
        let mut state = self.state();
        if let Some(run) = state.run(key) {
            run.connections = run.connections.saturating_sub(1);
        }
        state.forget();
        Change { wanted: Some(state.wanted(self.pieces)), switched: Vec::new() }
    }

    /// A reader touches pieces that hold more than zeros.
    pub(crate) fn touch(&self, key: RunKey, touched: impl Iterator<Item = u32>) -> Change {
        let mut state = self.state();
        let State { profiles, runs, .. } = &mut *state;
        let Some(run) = runs.iter_mut().find(|run| run.key == key) else { return Change::default() };
        let at = run.clock.read(run.started.elapsed());
        let before = run.matcher.chosen();
        let mut moved = false;
        for piece in touched {
            if run.recorder.touch(piece, at) {
                moved |= run.matcher.touch(piece, profiles);
            }
        }
        let switched = run.matcher.chosen() != before;
        if !moved {
            return Change::default();
        }
        let switched = state
            .runs
            .iter()
            .find(|run| switched && run.key == key)
            .map(|run| state.switch(run))
            .into_iter()
            .collect();
        Change { wanted: Some(state.wanted(self.pieces)), switched }
    }

    /// A reader begins to wait for a piece; `None` key: somebody who is no guest.
    pub(crate) fn wait(&self, key: Option<RunKey>, piece: u32) -> Waiting {
        let mut state = self.state();
        state.stalls.count += 1;
        state.stalls.waiting += 1;
        let mut waiting = Waiting { at: Duration::ZERO, profile: None, cause: Default::default() };
        let State { profiles, runs, .. } = &mut *state;
        let Some(run) = key.and_then(|key| runs.iter_mut().find(|run| run.key == key)) else {
            return waiting;
        };
        run.stalls.count += 1;
        run.stalls.waiting += 1;
        waiting.at = run.started.elapsed();
        run.clock.wait(waiting.at);
        if let Some(profile) = run.matcher.chosen().and_then(|chosen| profiles.get(chosen)) {
            waiting.profile = Some(profile.name().to_owned());
            waiting.cause = match profile.names(piece) {
                true => streamer_api::StallCause::Late,
                false => streamer_api::StallCause::NotInProfile,
            };
        }
        waiting
    }

    /// It has its bytes, or gave up.
    pub(crate) fn resume(&self, key: Option<RunKey>, waited: Duration) {
        let waited = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        let end = |stalls: &mut Stalls| {
            stalls.waiting = stalls.waiting.saturating_sub(1);
            stalls.total_ms += waited;
            stalls.longest_ms = stalls.longest_ms.max(waited);
        };
        let mut state = self.state();
        end(&mut state.stalls);
        if let Some(run) = key.and_then(|key| state.run(key)) {
            end(&mut run.stalls);
            run.clock.resume(run.started.elapsed());
        }
    }

    /// Reads of all readers that had to wait.
    pub(crate) fn stalls(&self) -> Stalls {
        self.state().stalls
    }

    /// Readers connected now; `missing` counts what is not here of a list of pieces.
    pub(crate) fn connected(&self, missing: impl Fn(&[u32]) -> u32) -> Vec<Reader> {
        let state = self.state();
        let connected = state.runs.iter().filter(|run| run.connections > 0);
        let reader = |run: &Run| {
            let profile = run.matcher.chosen().and_then(|chosen| state.profiles.get(chosen));
            Reader {
                name: run.name.clone(),
                profile: profile.map(|profile| profile.name().to_owned()),
                score: profile.map(|profile| run.matcher.score(profile)),
                profile_missing: profile.map_or(0, |profile| missing(profile.order())),
                stalls: run.stalls,
            }
        };
        connected.map(reader).collect()
    }

    /// Every run, oldest first.
    pub(crate) fn runs(&self) -> Vec<streamer_api::Run> {
        let state = self.state();
        let ms = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        let touch = |(piece, at): &(u32, Duration)| Touch { piece: *piece, at_ms: ms(*at) };
        let run = |run: &Run| streamer_api::Run {
            reader: run.name.clone(),
            began_unix_ms: unix_ms(run.began),
            connected: run.connections > 0,
            whole: true,
            profile: state.chosen(run),
            scores: state.scores(run),
            touched: run.recorder.touched().iter().map(touch).collect(),
        };
        state.runs.iter().map(run).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn run(&mut self, key: RunKey) -> Option<&mut Run> {
        self.runs.iter_mut().find(|run| run.key == key)
    }

    fn chosen(&self, run: &Run) -> Option<String> {
        let profile = run.matcher.chosen().and_then(|chosen| self.profiles.get(chosen));
        profile.map(|profile| profile.name().to_owned())
    }

    /// Best first.
    fn scores(&self, run: &Run) -> Vec<ProfileScore> {
        let score = |profile: &Profile| ProfileScore {
            profile: profile.name().to_owned(),
            score: run.matcher.score(profile),
        };
        let mut scores: Vec<ProfileScore> = self.profiles.iter().map(score).collect();
        scores.sort_by(|a, b| b.score.total_cmp(&a.score));
        scores
    }

    fn switch(&self, run: &Run) -> Switch {
        Switch { reader: run.name.clone(), profile: self.chosen(run), scores: self.scores(run) }
    }

    /// What all readers need next. Before anybody reads, the first profile: a guest is about to start.
    fn wanted(&self, pieces: u32) -> Vec<u32> {
        let connected = self.runs.iter().filter(|run| run.connections > 0);
        let mut lists: Vec<Vec<u32>> = connected.map(|run| run.matcher.next(&self.profiles)).collect();
        if lists.is_empty() && self.runs.is_empty() {
            lists.push(Matcher::new(&self.profiles).next(&self.profiles));
        }
        interleave(&lists, pieces)
    }

    fn forget(&mut self) {
        while self.runs.iter().filter(|run| run.connections == 0).count() > RUNS_KEPT {
            let Some(oldest) = self.runs.iter().position(|run| run.connections == 0) else { return };
            self.runs.remove(oldest);
        }
    }
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
