//! Hours of virtual time in which hosts come, go, freeze and lie, and the origin is away now and then.

use crate::world::{Links, ORIGIN, World};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use std::collections::BTreeSet;
use std::time::Duration;
use streamer_plan::{Background, Tuning};

/// Time to recover after the last fault.
const CALM: Duration = Duration::from_secs(600);

/// How bad it gets.
#[derive(Debug, Clone)]
pub struct Weather {
    pub hosts: usize,
    pub pieces: u32,
    pub hours: u64,
    pub mbit_per_s: f64,
    /// Longest pause between two faults.
    pub pause_s: u64,
}

/// What a day came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Day {
    pub faults: u64,
    pub origin_bytes: u64,
    pub host_bytes: u64,
    pub wasted_bytes: u64,
}

/// Runs a day.
///
/// # Errors
/// If a live host lacks a piece it wants after a calm; the message names the seed.
///
/// # Panics
/// If an invariant of the model breaks.
pub fn endure(weather: &Weather, seed: u64) -> anyhow::Result<Day> {
    let mut random = StdRng::seed_from_u64(seed);
    let links = Links {
        bytes_per_s: weather.mbit_per_s * 1e6 / 8.0,
        near: Duration::from_micros(200),
        far: Duration::from_millis(5),
    };
    let tuning = Tuning::default();
    let mut world = World::new(weather.pieces, links);
    for host in 0..weather.hosts {
        let host = world.add(host % 2, random.random(), &tuning);
        world.join(host);
        want_everything(&mut world, host, &mut random);
    }
    let mut day = Day::default();
    let end = Duration::from_secs(weather.hours * 3600);
    while world.now < end {
        let pause = Duration::from_millis(random.random_range(0..weather.pause_s.max(1) * 1000));
        let next = world.now + pause;
        world.run(next);
        happen(&mut world, &mut random, &tuning);
        world.make_peace();
        day.faults += 1;
    }
    // The weather clears: everybody is back, and honest.
    for node in 0..world.nodes.len() {
        world.nodes[node].poisonous = false;
        if !world.nodes[node].alive {
            revive(&mut world, node, true, &mut random, &tuning);
        }
        world.thaw(node);
    }
    let calm = world.now + CALM;
    while world.now < calm {
        let next = world.now + Duration::from_secs(61);
        world.run(next);
        world.make_peace();
    }
    let wanted: BTreeSet<u32> = (0..weather.pieces).collect();
    let missing = world.missing(&wanted);
    anyhow::ensure!(missing.is_empty(), "seed {seed}: hosts still lack pieces: {missing:?}");
    day.origin_bytes = world.totals.origin_up;
    day.host_bytes = world.totals.host_up;
    day.wasted_bytes = world.totals.wasted;
    Ok(day)
}

/// By background, or by background after a profile, with guests that read meanwhile.
fn want_everything(world: &mut World, host: usize, random: &mut StdRng) {
    let pieces = world.nodes[host].scheduler.held().length();
    let background = if random.random() { Background::Full } else { Background::Idle };
    let named = random.random_range(0..pieces);
    let profile: Vec<u32> = (0..named).map(|_| random.random_range(0..pieces)).collect();
    world.with(host, |scheduler| {
        scheduler.set_background(background);
        scheduler.set_profile(profile);
    });
    let steps = (0..random.random_range(0..20))
        .map(|_| (random.random_range(0..pieces), Duration::from_millis(random.random_range(0..300))));
    let steps = steps.collect();
    world.boot(host, steps);
}

fn revive(world: &mut World, node: usize, keeps: bool, random: &mut StdRng, tuning: &Tuning) {
    if node == ORIGIN {
        world.join(ORIGIN);
    } else {
        world.restart(node, keeps, random.random(), tuning);
        want_everything(world, node, random);
    }
}

fn happen(world: &mut World, random: &mut StdRng, tuning: &Tuning) {
    let all: Vec<usize> = (0..world.nodes.len()).collect();
    let Some(node) = all.choose(random).copied() else { return };
    if !world.nodes[node].alive {
        let keeps = random.random_bool(0.3);
        revive(world, node, keeps, random, tuning);
        return;
    }
    match random.random_range(0..10) {
        0..4 => world.leave(node),
        // Away and back with an empty cache, before anybody is thirsty.
        4..6 if node != ORIGIN => {
            world.leave(node);
            revive(world, node, false, random, tuning);
        }
        6..8 => world.nodes[node].frozen = true,
        8 if node != ORIGIN => world.nodes[node].poisonous = !world.nodes[node].poisonous,
        _ => world.thaw(node),
    }
}
