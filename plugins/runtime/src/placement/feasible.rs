//! Which hosts meet the hard limits of a request: what the controller checks by itself as well, done natively so that
//! a policy need not copy the columns for it.

use super::{ATTESTED_ATTRIBUTE, Request, SITE_ATTRIBUTE, Snapshot};
use std::sync::Arc;

const STATE_READY: u8 = 0;

/// The hard limits of one request.
#[derive(Debug)]
pub(super) struct Limits {
    memory_bytes: u64,
    disk_bytes: u64,
    image_bytes: u64,
    cpu_milli: u32,
    pinned: Option<u32>,
    /// Symbol of the site it has to be at; `u32::MAX`, which no host has, for one that does not occur.
    site: Option<u32>,
    attested: bool,
}

impl Limits {
    pub(super) fn of(request: &Request, hosts: &Snapshot) -> Self {
        let site = request.attributes.get(SITE_ATTRIBUTE).filter(|site| !site.is_empty());
        let symbol = |site: &String| match hosts.symbols.find(site) {
            0 => u32::MAX,
            symbol => symbol,
        };
        Self {
            memory_bytes: request.memory_bytes,
            disk_bytes: request.disk_bytes,
            image_bytes: request.image_bytes,
            cpu_milli: request.vcpus_milli,
            pinned: request.pinned_host.as_ref().and_then(|name| hosts.host(name)),
            site: site.map(symbol),
            attested: request.attributes.get(ATTESTED_ATTRIBUTE).is_some_and(|value| value == "true"),
        }
    }

    fn met(&self, hosts: &Snapshot, cached: &[u64], row: usize) -> bool {
        let image = self.image_bytes.saturating_sub(cached[row]);
        hosts.states[row] == STATE_READY
            && hosts.memory_free_bytes[row] >= self.memory_bytes
            && hosts.cpu_free_milli[row] >= self.cpu_milli
            && hosts.disk_free_bytes[row] >= self.disk_bytes.saturating_add(image)
            && self.pinned.is_none_or(|pinned| pinned as usize == row)
            && self.site.is_none_or(|site| hosts.sites[row] == site)
            && (!self.attested || hosts.attested[row] != 0)
    }

    /// 1 for each host that meets them.
    pub(super) fn mask(&self, hosts: &Snapshot, cached: &[u64]) -> Arc<[u8]> {
        (0..hosts.names.len()).map(|row| u8::from(self.met(hosts, cached, row))).collect()
    }

    /// At most `limit` hosts that meet them, in an order drawn from the seed.
    pub(super) fn some(&self, hosts: &Snapshot, cached: &[u64], seed: u32, limit: u32) -> Vec<u32> {
        let walk = Walk::new(hosts.host_count(), seed);
        walk.filter(|row| self.met(hosts, cached, *row as usize)).take(limit as usize).collect()
    }
}

/// Every row once, from a start and in steps that the seed draws: over all seeds every row is first as often. A walk
/// that ends early has touched little.
#[derive(Debug)]
struct Walk {
    at: u32,
    step: u32,
    count: u32,
    left: u32,
}

impl Walk {
    fn new(count: u32, seed: u32) -> Self {
        let drawn = mix(seed);
        let count_or_one = u64::from(count.max(1));
        let below = |bits: u64| u32::try_from(bits % count_or_one).unwrap_or(0);
        let (at, mut step) = (below(drawn >> 32), below(drawn & 0xffff_ffff).max(1));
        // One with a common factor would come back too early.
        while greatest_common_divisor(step, count) > 1 {
            step += 1;
        }
        Self { at, step, count, left: count }
    }
}

impl Iterator for Walk {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        let at = self.at;
        self.at = (at + self.step) % self.count;
        Some(at)
    }
}

/// The finaliser of `SplitMix64`: near seeds give unrelated numbers.
fn mix(seed: u32) -> u64 {
    let mut bits = u64::from(seed).wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_walk_meets_every_row_once(count in 0u32..3000, seed in any::<u32>()) {
            let mut rows: Vec<u32> = Walk::new(count, seed).collect();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn over_many_seeds_no_row_is_favoured() {
        const SEEDS: u32 = 20_000;
        let mut met = [0u32; 100];
        for seed in 0..SEEDS {
            for row in Walk::new(100, seed).take(10) {
                met[row as usize] += 1;
            }
        }
        let fair = SEEDS / 10;
        assert!(met.iter().all(|times| times.abs_diff(fair) < fair / 10), "{met:?}");
    }
}
