use super::*;
use controller_model::lease::Book;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::collections::BTreeMap;
use types::HostName;

/// Connected, with a document.
fn connected() -> Lease {
    let mut lease = Lease::default();
    lease.connected();
    lease.told();
    lease
}

const ALL: Leave = Leave { run: true, start: true };
const NOTHING: Leave = Leave { run: false, start: false };

#[test]
fn a_lease_runs_from_when_the_status_was_sent() {
    let mut lease = connected();
    let beat = lease.beat(1_000);
    assert_eq!(lease.leave(1_000), NOTHING);
    lease.heard(beat, 5_000, true, 4_000);
    assert_eq!(lease.leave(5_999), ALL);
    assert_eq!(lease.leave(6_000), NOTHING);
}

#[test]
fn an_answer_to_a_status_of_another_connection_is_none() {
    let mut lease = connected();
    let beat = lease.beat(0);
    lease.connected();
    lease.told();
    lease.heard(beat, 5_000, true, 1);
    assert_eq!(lease.leave(1), NOTHING);
    assert!(lease.beat(2) > beat, "and numbers are not used again");
}

#[test]
fn there_is_no_lease_before_the_connection_has_brought_a_document_that_is_kept() {
    let mut lease = Lease::default();
    lease.connected();
    let beat = lease.beat(0);
    lease.heard(beat, 5_000, true, 1);
    assert_eq!(lease.leave(1), NOTHING);
    lease.told();
    let beat = lease.beat(1);
    lease.heard(beat, 5_000, false, 2);
    assert_eq!(lease.leave(2), NOTHING, "the disk did not take the newest one: it may have given away");
    let beat = lease.beat(2);
    lease.heard(beat, 5_000, true, 3);
    assert_eq!(lease.leave(3), ALL);
}

#[test]
fn an_agent_that_has_just_started_lets_run_and_starts_nothing() {
    let mut lease = Lease::inherited(Some(5_000));
    assert_eq!(lease.leave(4_999), Leave { run: true, start: false });
    assert_eq!(lease.leave(5_000), NOTHING);
    lease.connected();
    lease.told();
    let beat = lease.beat(4_000);
    lease.heard(beat, 5_000, true, 4_100);
    assert_eq!(lease.leave(5_000), ALL);
}

#[test]
fn a_lease_never_gets_shorter() {
    let mut lease = connected();
    let beat = lease.beat(0);
    lease.heard(beat, 60_000, true, 1);
    let beat = lease.beat(1_000);
    lease.heard(beat, 5_000, true, 1_001);
    assert_eq!(lease.until_ms(), Some(60_000));
}

#[test]
fn a_lease_that_ran_out_is_not_renewed_while_a_start_from_before_is_under_way() {
    let mut lease = connected();
    let beat = lease.beat(0);
    lease.heard(beat, 5_000, true, 1);
    assert!(!lease.begin_start(false, 1), "the document names it no more");
    assert!(lease.begin_start(true, 1));
    let beat = lease.beat(5_500);
    lease.heard(beat, 5_000, true, 5_600);
    assert_eq!(lease.leave(5_600), NOTHING);
    assert!(!lease.may_run_on(5_600));
    lease.end_start();
    let beat = lease.beat(5_700);
    lease.heard(beat, 5_000, true, 5_800);
    assert_eq!(lease.leave(5_800), ALL);
}

/// How long a fence needs to kill, in true milliseconds; the controller's margin is a second.
const KILL_MS: u64 = 300;
const TICK_MS: u64 = 50;
const LEASE_MS: u64 = 5_000;

enum Down {
    Document(bool),
    Heard(u64),
}

/// A clock that began somewhere and does not run as fast as others.
struct Clock {
    began_ms: u64,
    permille: u64,
}

impl Clock {
    fn at(&self, true_ms: u64) -> u64 {
        self.began_ms + true_ms * self.permille / 1_000
    }
}

/// A host with an instance that it may run, its agent and its fence.
struct Host {
    name: HostName,
    clock: Clock,
    lease: Lease,
    /// On disk.
    named: bool,
    /// In the fence's file.
    until_ms: Option<u64>,
    runs: bool,
    fenced_at: Option<u64>,
    /// When a start shows its guest, and when it returns.
    starting: Option<(u64, u64)>,
    agent_back: u64,
    link_back: u64,
    up: Vec<(u64, u64)>,
    down: Vec<(u64, Down)>,
    connected: bool,
    sent_document: Option<bool>,
}

impl Host {
    fn disconnect(&mut self) {
        self.connected = false;
        self.up.clear();
        self.down.clear();
    }

    /// Guests are killed when the file's time is over, whether the agent lives or not.
    fn fence(&mut self, now: u64) {
        if self.until_ms.is_none_or(|until| self.clock.at(now) >= until) {
            let at = *self.fenced_at.get_or_insert(now + KILL_MS);
            if now >= at {
                self.runs = false;
            }
        } else {
            self.fenced_at = None;
        }
    }

    fn agent(&mut self, now: u64, random: &mut StdRng) {
        let local = self.clock.at(now);
        if let Some((shows, returns)) = self.starting {
            if now >= shows && now < returns {
                self.runs = self.lease.may_run_on(local) || self.runs;
            }
            if now >= returns {
                self.runs = self.lease.may_run_on(local);
                self.lease.end_start();
                self.starting = None;
            }
        } else if !self.named {
            self.runs = false;
        } else if !self.runs && self.lease.begin_start(self.named, local) {
            let shows = now + random.random_range(0..4_000);
            self.starting = Some((shows, shows + random.random_range(TICK_MS..4_000)));
        }
    }
}

fn arrival(queued: Option<u64>, now: u64, trouble: f64, random: &mut StdRng) -> u64 {
    // Now and then everything waits; nothing overtakes.
    let delay = if random.random_bool(trouble * 5.0) {
        random.random_range(0..6_000)
    } else {
        random.random_range(0..200)
    };
    queued.unwrap_or_default().max(now + delay)
}

/// Runs both sides for a while in a world that the seed makes; says how often the instance was started elsewhere and for
/// how many ticks it ran.
#[expect(clippy::too_many_lines, reason = "one world, told in order")]
fn simulate(seed: u64, trouble: f64) -> (u32, u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut clock =
        || Clock { began_ms: random.random_range(0..1 << 40), permille: random.random_range(996..=1_004) };
    let mut controller = clock();
    let mut hosts: Vec<Host> = ["a", "b"]
        .iter()
        .map(|name| Host {
            name: name.parse().unwrap(),
            clock: clock(),
            lease: Lease::default(),
            named: false,
            until_ms: None,
            runs: false,
            fenced_at: None,
            starting: None,
            agent_back: 0,
            link_back: 0,
            up: Vec::new(),
            down: Vec::new(),
            connected: false,
            sent_document: None,
        })
        .collect();
    let (mut book, mut placed, mut controller_back) = (Book::default(), 0, 0);
    let (mut moves, mut ran) = (0, 0);
    for now in (0..120_000).step_by(TICK_MS as usize) {
        // What goes wrong.
        if random.random_bool(trouble / 4.0) && now >= controller_back {
            controller_back = now + random.random_range(TICK_MS..10_000);
            (book, controller) =
                (Book::default(), Clock { began_ms: random.random_range(0..1 << 40), ..controller });
            hosts.iter_mut().for_each(Host::disconnect);
        }
        for host in &mut hosts {
            if random.random_bool(trouble) {
                host.link_back = now + random.random_range(TICK_MS..15_000);
                host.disconnect();
            }
            if random.random_bool(trouble / 4.0) {
                // Killed; what libvirt was told to start it starts.
                host.agent_back = now + random.random_range(TICK_MS..15_000);
                host.runs |= host.starting.take().is_some_and(|(shows, _)| shows <= now + TICK_MS)
                    && host.lease.may_run_on(host.clock.at(now));
                host.lease = Lease::inherited(host.until_ms);
                host.disconnect();
            }
        }
        let alive = now >= controller_back;
        for (index, host) in hosts.iter_mut().enumerate() {
            host.fence(now);
            if now < host.agent_back {
                continue;
            }
            if !host.connected && alive && now >= host.link_back {
                (host.connected, host.sent_document) = (true, None);
                host.lease.connected();
            }
            host.agent(now, &mut random);
            if host.connected && now % 1_000 == 0 {
                let beat = host.lease.beat(host.clock.at(now));
                host.up.push((arrival(host.up.last().map(|(at, _)| *at), now, trouble, &mut random), beat));
            }
            // The controller takes statuses up, and sends the document before the answer.
            let mut queue = |host: &mut Host, message| {
                host.down
                    .push((arrival(host.down.last().map(|(at, _)| *at), now, trouble, &mut random), message));
            };
            if host.connected && alive {
                if host.sent_document != Some(placed == index) {
                    host.sent_document = Some(placed == index);
                    queue(host, Down::Document(placed == index));
                }
                while host.up.first().is_some_and(|(at, _)| *at <= now) {
                    let (_, beat) = host.up.remove(0);
                    if book.grant(&host.name, LEASE_MS, LEASE_MS, controller.at(now)) {
                        queue(host, Down::Heard(beat));
                    }
                }
            }
            while host.down.first().is_some_and(|(at, _)| *at <= now) {
                match host.down.remove(0).1 {
                    Down::Document(named) => {
                        host.named = named;
                        host.lease.told();
                    }
                    Down::Heard(beat) => {
                        host.lease.heard(beat, LEASE_MS, true, host.clock.at(now));
                        host.until_ms = host.lease.until_ms();
                    }
                }
            }
        }
        if alive && now % 500 == 0 && book.withhold(&hosts[placed].name, LEASE_MS, controller.at(now)) {
            placed = 1 - placed;
            moves += 1;
            book.release();
        }
        let running: BTreeMap<&str, bool> =
            hosts.iter().map(|host| (host.name.as_str(), host.runs)).collect();
        assert!(
            running.values().filter(|runs| **runs).count() <= 1,
            "twice at {now} ms with seed {seed}: {running:?}"
        );
        ran += u64::from(running.values().any(|runs| *runs));
    }
    (moves, ran)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn an_instance_never_runs_twice_whatever_is_cut_killed_late_or_skewed(seed in any::<u64>(), trouble in 0.0..0.02) {
        simulate(seed, trouble);
    }
}

#[test]
fn where_all_is_well_an_instance_runs_and_stays_where_it_is() {
    for seed in 0..20 {
        let (moves, ran) = simulate(seed, 0.0);
        assert_eq!(moves, 0);
        assert!(ran * TICK_MS > 100_000, "{ran}");
    }
}

#[test]
fn in_a_troubled_world_it_does_move_and_does_run() {
    let worlds: Vec<(u32, u64)> = (0..40).map(|seed| simulate(seed, 0.004)).collect();
    assert!(worlds.iter().map(|(moves, _)| moves).sum::<u32>() > 20, "{worlds:?}");
    assert!(worlds.iter().map(|(_, ran)| ran * TICK_MS).sum::<u64>() > 40 * 20_000, "{worlds:?}");
}
