//! Curves over the planner's figures.

use crate::{heading, row};
use simulation::{Prefetch, Scenario, busy_and_idle};
use std::time::{Duration, Instant};
use streamer_plan::{
    Action, Background, Geometry, Outcome, PeerFacts, PeerKind, Pieces, Received, Scheduler, Tuning,
};

/// Prints one table a figure, all others as chosen.
pub(crate) fn curves(base: &Scenario) {
    println!("\nhosts\n{}", heading());
    for hosts in [1, 2, 4, 8, 16, 32, 64] {
        print(&format!("{hosts}"), &Scenario { hosts, ..base.clone() });
    }
    println!("\nprofile, one host\n{}", heading());
    for profile in [Prefetch::Right, Prefetch::Wrong, Prefetch::None] {
        for mbit_per_s in [20.0, 100.0, 1000.0] {
            let scenario = Scenario { hosts: 1, profile, mbit_per_s, ..base.clone() };
            print(&format!("{profile:?} {mbit_per_s} Mbit/s"), &scenario);
        }
    }
    figure("diversity, pieces", base, &[1, 8, 16, 32, 64, 128], |tuning, pieces| {
        tuning.diversity_pieces = *pieces;
        tuning.window_pieces = (*pieces).max(tuning.window_pieces);
    });
    figure("window, pieces", base, &[16, 32, 64, 128], |tuning, pieces| tuning.window_pieces = *pieces);
    figure("share while a guest waits", base, &[0.0, 0.25, 0.5, 1.0], |t, share| t.waiting_share = *share);
    figure("site patience, ms", base, &[100, 200, 400, 800], |tuning, ms| {
        tuning.site_patience = Duration::from_millis(*ms);
    });
    figure("slack, share of a piece", base, &[0.125, 0.25, 0.5, 1.0], |t, slack| t.slack = *slack);
    println!("\nurgent p99 ms: busy, idle, busy / idle");
    for slack in [0.125, 0.25, 0.5, 1.0] {
        for (mbit_per_s, near) in [(100.0, 0), (100.0, 4), (1000.0, 0), (1000.0, 4)] {
            let (busy, idle) = busy_and_idle(mbit_per_s, near, &Tuning { slack, ..base.tuning.clone() });
            let (busy, idle) = (busy.as_secs_f64() * 1e3, idle.as_secs_f64() * 1e3);
            let ratio = busy / idle;
            println!(
                "slack {slack:<6} {mbit_per_s:>6} Mbit/s, {near} near {busy:>8.2} {idle:>8.2} {ratio:>6.2}"
            );
        }
    }
}

fn figure<T: std::fmt::Debug>(name: &str, base: &Scenario, values: &[T], set: impl Fn(&mut Tuning, &T)) {
    println!("\n{name}\n{}", heading());
    for hosts in [1, base.hosts] {
        for value in values {
            let mut scenario = Scenario { hosts, ..base.clone() };
            set(&mut scenario.tuning, value);
            print(&format!("{value:?}, {hosts} hosts"), &scenario);
        }
    }
}

fn print(name: &str, scenario: &Scenario) {
    println!("{}", row(name, &scenario.boot()));
}

/// What planning costs with 100,000 pieces and 64 peers that announce all the time.
pub(crate) fn planning() {
    const PIECES: u32 = 100_000;
    let Some(geometry) = Geometry::new(u64::from(PIECES) << 20, 1 << 20) else { return };
    let mut scheduler = Scheduler::new(geometry, Pieces::none(PIECES), 1, 1);
    let mut all = Pieces::none(PIECES);
    (0..PIECES).for_each(|piece| {
        all.insert(piece);
    });
    for peer in 0..64 {
        let kind = if peer == 0 { PeerKind::Origin } else { PeerKind::Near };
        scheduler.peer_joined(peer, PeerFacts { kind, identity: Some(peer * 7919) }, Duration::ZERO);
        scheduler.peer_choking(peer, false);
    }
    scheduler.peer_pieces(0, all);
    scheduler.set_background(Background::Full);
    scheduler.set_profile((0..5000).map(|place| place * 17).collect());
    let (mut now, mut calls, mut spent, mut worst) = (Duration::ZERO, 0u32, Duration::ZERO, Duration::ZERO);
    for round in 0..20_000u32 {
        now += Duration::from_micros(130);
        scheduler.peer_has(u64::from(round % 63 + 1), round.wrapping_mul(2_654_435_761) % PIECES);
        if round % 50 == 0 {
            let piece = round.wrapping_mul(40_503) % PIECES;
            scheduler.demand(piece..piece + 1, now);
        }
        let began = Instant::now();
        let actions = scheduler.plan(now);
        let _ = scheduler.deadline(now);
        let took = began.elapsed();
        (calls, spent, worst) = (calls + 1, spent + took, worst.max(took));
        for action in actions {
            let Action::Request { peer, block, .. } = action else { continue };
            if scheduler.received(peer, block, now) == Received::Complete {
                scheduler.verified(block.piece, Outcome::Held);
            }
        }
    }
    println!(
        "{calls} plannings, {} pieces fetched: {:.1} us each, the longest {:.1} us",
        scheduler.held().count(),
        spent.as_secs_f64() * 1e6 / f64::from(calls),
        worst.as_secs_f64() * 1e6
    );
}
