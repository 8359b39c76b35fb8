//! Questions to ask of the model.

use crate::trace::Trace;
use crate::world::{Links, World};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::time::Duration;
use streamer_plan::{Background, Tuning};

/// Longest a simulated boot may take.
const BOOT_MAX: Duration = Duration::from_secs(3600);

/// What hosts believe their guests will read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Prefetch {
    /// What earlier boots read.
    Right,
    /// What no boot reads.
    Wrong,
    /// Nothing.
    None,
}

/// Hosts that boot the same image at once.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub hosts: usize,
    pub sites: usize,
    /// Of every host's link, and of the origin's.
    pub mbit_per_s: f64,
    pub trace: Trace,
    pub profile: Prefetch,
    pub background: Background,
    pub seed: u64,
    pub tuning: Tuning,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Of every host's boot, ascending.
    pub times: Vec<Duration>,
    /// Of every read that waited, ascending.
    pub stalls: Vec<Duration>,
    pub origin_bytes: u64,
    pub host_bytes: u64,
    pub wasted_bytes: u64,
    /// Bytes of the pieces the guests touched, once.
    pub unique_bytes: u64,
}

impl Scenario {
    /// Hosts of one site with the right profile, and figures as chosen.
    #[must_use]
    pub fn new(hosts: usize, mbit_per_s: f64, trace: Trace) -> Self {
        Self {
            hosts,
            sites: 1,
            mbit_per_s,
            trace,
            profile: Prefetch::Right,
            background: Background::Off,
            seed: 1,
            tuning: Tuning::default(),
        }
    }

    /// Links of a rate: 0.2 ms inside a site, 5 ms outside.
    #[must_use]
    pub fn links(&self) -> Links {
        Links {
            bytes_per_s: self.mbit_per_s * 1e6 / 8.0,
            near: Duration::from_micros(200),
            far: Duration::from_millis(5),
        }
    }

    /// Boots every host, all within 20 ms.
    ///
    /// # Panics
    /// If a guest does not get through.
    #[must_use]
    pub fn boot(&self) -> Outcome {
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut world = World::new(self.trace.pieces, self.links());
        let hosts: Vec<usize> =
            (0..self.hosts).map(|host| world.add(host % self.sites, random.random(), &self.tuning)).collect();
        hosts.iter().for_each(|host| world.join(*host));
        let profile = match self.profile {
            Prefetch::Right => self.trace.profile(self.seed),
            Prefetch::Wrong => self.trace.wrong_profile(self.seed),
            Prefetch::None => Vec::new(),
        };
        let mut began = Vec::new();
        for host in &hosts {
            let pause = Duration::from_micros(random.random_range(0..20_000 / self.hosts as u64 + 1));
            let soon = world.now + pause;
            world.run(soon);
            world.with(*host, |scheduler| {
                scheduler.set_background(self.background);
                scheduler.set_profile(profile.clone());
            });
            began.push(world.now);
            let steps = self
                .trace
                .steps
                .iter()
                .map(|(piece, think)| (*piece, think.mul_f64(random.random_range(0.95..1.05))));
            world.boot(*host, steps.collect());
        }
        assert!(world.run_guests(BOOT_MAX), "a guest is still waiting; seed {}", self.seed);
        let mut times: Vec<Duration> = hosts
            .iter()
            .zip(&began)
            .filter_map(|(host, began)| Some(world.nodes[*host].guest.done? - *began))
            .collect();
        times.sort();
        let mut stalls: Vec<Duration> =
            hosts.iter().flat_map(|host| world.nodes[*host].guest.stalls.clone()).collect();
        stalls.sort();
        Outcome {
            times,
            stalls,
            origin_bytes: world.totals.origin_up,
            host_bytes: world.totals.host_up,
            wasted_bytes: world.totals.wasted,
            unique_bytes: self.trace.bytes(),
        }
    }
}

impl Outcome {
    /// The time within which a share of the hosts had booted.
    #[must_use]
    pub fn time(&self, share: f64) -> Duration {
        quantile(&self.times, share)
    }

    /// Bytes the origin sent, by what one host needs.
    #[must_use]
    pub fn origin_vs_unique(&self) -> f64 {
        self.origin_bytes as f64 / self.unique_bytes as f64
    }
}

/// Smallest value that a share of ascending values does not exceed; zero of none.
fn quantile(values: &[Duration], share: f64) -> Duration {
    let at = (values.len() as f64 * share).ceil() as usize;
    values.get(at.clamp(1, values.len().max(1)) - 1).copied().unwrap_or_default()
}

/// 99th percentile of a random read's wait while everything is fetched in the background, and while nothing is.
///
/// `near` hosts of the site have the whole image; 0: only the origin has.
#[must_use]
pub fn busy_and_idle(mbit_per_s: f64, near: usize, tuning: &Tuning) -> (Duration, Duration) {
    let p99 = |background: Background| {
        // Large enough not to be complete before the last read.
        let scenario = Scenario::new(1, mbit_per_s, Trace { pieces: 40_000, steps: Vec::new() });
        let mut random = StdRng::seed_from_u64(7);
        let mut world = World::new(40_000, scenario.links());
        let reader = world.add(0, 1, tuning);
        for _ in 0..near {
            let host = world.add(0, random.random(), tuning);
            (0..40_000).for_each(|piece| world.nodes[host].scheduler.found(piece));
            world.join(host);
        }
        world.join(reader);
        world.with(reader, |scheduler| scheduler.set_background(background));
        let steps = (0..300).map(|_| {
            (random.random_range(0..40_000), Duration::from_micros(random.random_range(10_000..60_000)))
        });
        world.boot(reader, steps.collect());
        for host in 0..near {
            world.nodes[2 + host].guest.done = Some(Duration::ZERO);
        }
        assert!(world.run_guests(BOOT_MAX));
        let mut stalls = world.nodes[reader].guest.stalls.clone();
        stalls.sort();
        quantile(&stalls, 0.99)
    };
    (p99(Background::Full), p99(Background::Off))
}
