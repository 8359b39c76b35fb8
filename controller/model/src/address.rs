//! Addresses as numbers: what a subnet has to give.

use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Most addresses looked at for a free one: beyond it a subnet counts as full.
const SEARCH_MAX: u128 = 1 << 17;

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn address(number: u128, like: IpAddr) -> Option<IpAddr> {
    match like {
        IpAddr::V4(_) => u32::try_from(number).ok().map(|n| IpAddr::V4(Ipv4Addr::from(n))),
        IpAddr::V6(_) => Some(IpAddr::V6(Ipv6Addr::from(number))),
    }
}

/// The first address a member could have: `.1`.
pub(crate) fn first(subnet: IpNet) -> Option<IpAddr> {
    address(number(subnet.network()).checked_add(1)?, subnet.network())
}

/// The lowest address from `from` to `to` (both included) that is not taken.
pub(crate) fn free(from: IpAddr, to: IpAddr, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let (low, high) = (number(from), number(to));
    (low..=high.min(low.saturating_add(SEARCH_MAX)))
        .filter_map(|n| address(n, from))
        .find(|address| !taken.contains(address))
}

/// The lowest address of a subnet after `.1` that is not taken.
pub(crate) fn free_in(subnet: IpNet, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let from = address(number(subnet.network()).checked_add(2)?, subnet.network())?;
    let last = number(subnet.broadcast()).checked_sub(u128::from(subnet.addr().is_ipv4()))?;
    free(from, address(last, from)?, taken)
}

/// Why a member cannot have this address in this subnet.
pub(crate) fn unusable(address: IpAddr, subnet: IpNet) -> Option<String> {
    if !subnet.contains(&address) {
        return Some(format!("{address} is not inside {subnet}"));
    }
    if address == subnet.network() {
        return Some(format!("{address} is the network address of {subnet}: take another"));
    }
    if address.is_ipv4() && address == subnet.broadcast() {
        return Some(format!("{address} is the broadcast address of {subnet}: take another"));
    }
    None
}

/// Two subnets share an address.
pub(crate) fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// Everything but a subnet, as few subnets as can say it.
pub(crate) fn elsewhere(subnet: IpNet) -> Vec<IpNet> {
    let bits = u32::from(subnet.max_prefix_len());
    let base = number(subnet.network());
    (1..=subnet.prefix_len())
        .filter_map(|length| {
            let bit = 1_u128 << (bits - u32::from(length));
            let start = (base ^ bit) & !(bit - 1);
            IpNet::new(address(start, subnet.network())?, length).ok()
        })
        .collect()
}

/// One address as a subnet.
pub(crate) fn only(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn elsewhere_is_exactly_the_complement(base in any::<u32>(), length in 0u8..=32, probe in any::<u32>()) {
            let subnet = IpNet::new(IpAddr::V4(base.into()), length).unwrap().trunc();
            let probe = IpAddr::V4(probe.into());
            let outside = elsewhere(subnet);
            prop_assert_eq!(outside.iter().filter(|net| net.contains(&probe)).count(), usize::from(!subnet.contains(&probe)));
        }

        #[test]
        fn a_free_address_is_usable_and_not_taken(length in 20u8..=30, taken in prop::collection::btree_set(0u32..64, 0..40)) {
            let subnet = IpNet::new(IpAddr::from([10, 20, 0, 0]), length).unwrap();
            let taken: BTreeSet<IpAddr> = taken.into_iter().map(|n| IpAddr::V4((0x0a14_0000 + n).into())).collect();
            if let Some(free) = free_in(subnet, &taken) {
                prop_assert!(!taken.contains(&free));
                prop_assert_eq!(unusable(free, subnet), None);
            }
        }
    }
}
