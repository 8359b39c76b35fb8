//! Prefixes as the kernel looks them up: in hashes, by a few lengths that are called rungs.
//!
//! Interval sets take any prefix, but a look-up in them costs more with every prefix that any port has. A hash costs the
//! same among ten and among a hundred thousand, and needs the lengths to be known. So every prefix is written as prefixes
//! of the next rung, at most eight of them; and a gate says of which ports and services there are prefixes at all, so that
//! everybody else's frames climb no ladder.

use ipnet::IpNet;
use std::collections::BTreeSet;

/// Bits between two rungs. A prefix is at most `2^(RUNG_BITS - 1)` prefixes of a rung.
const RUNG_BITS: u8 = 4;

/// Rungs that are tried one after the other, behind one gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ladder {
    /// Of IPv4.
    Four,
    /// Of IPv6: what subnets are, and most of what is outside of one. Its end leads to the gates of the other two.
    Six,
    /// Of IPv6, up to a subnet's length.
    SixWide,
    /// Of IPv6, within a subnet.
    SixFine,
}

impl Ladder {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Four, Self::Six, Self::SixWide, Self::SixFine];

    /// Lengths of prefixes in the order in which they are tried: first what subnets are, then what holds most of the
    /// addresses outside of a subnet.
    #[must_use]
    pub const fn rungs(self) -> &'static [u8] {
        match self {
            Self::Four => &[24, 16, 4, 8, 20, 12, 28],
            Self::Six => &[64, 4, 48, 56, 32],
            Self::SixWide => &[8, 12, 16, 20, 24, 28, 36, 40, 44, 52, 60],
            Self::SixFine => &[68, 72, 76, 80, 84, 88, 92, 96, 100, 104, 108, 112, 116, 120, 124],
        }
    }

    /// Whether it is of IPv4.
    #[must_use]
    pub const fn is_ipv4(self) -> bool {
        matches!(self, Self::Four)
    }

    /// The ladder on which a prefix is a rung; none if it is everything, one address, or no rung.
    #[must_use]
    pub fn of(net: &IpNet) -> Option<Self> {
        let of_version = Self::ALL.into_iter().filter(|ladder| ladder.is_ipv4() == net.addr().is_ipv4());
        let mut with_rung = of_version.filter(|ladder| ladder.rungs().contains(&net.prefix_len()));
        with_rung.next()
    }
}

/// The same addresses as prefixes that are rungs, as single addresses, or as everything.
pub(crate) fn on_rungs(net: IpNet) -> impl Iterator<Item = IpNet> {
    let rung = net.prefix_len().next_multiple_of(RUNG_BITS);
    net.subnets(rung).into_iter().flatten()
}

/// The gates on the way to such rungs.
pub(crate) fn gates<'a>(nets: impl IntoIterator<Item = &'a IpNet>) -> BTreeSet<Ladder> {
    let ladders = nets.into_iter().filter_map(Ladder::of);
    ladders.flat_map(|ladder| [ladder, if ladder.is_ipv4() { Ladder::Four } else { Ladder::Six }]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn a_net() -> impl Strategy<Value = IpNet> {
        let four = (any::<u32>(), 0..=32u8).prop_map(|(a, l)| IpNet::new(IpAddr::V4(a.into()), l));
        let six = (any::<u128>(), 0..=128u8).prop_map(|(a, l)| IpNet::new(IpAddr::V6(a.into()), l));
        prop_oneof![four, six].prop_map(|net| net.unwrap().trunc())
    }

    #[test]
    fn every_length_is_on_one_rung() {
        for (net, last) in [("10.0.0.0/0", 32), ("fd00::/0", 128)] {
            let net: IpNet = net.parse().unwrap();
            for length in 1..last {
                let rungs: Vec<IpNet> = on_rungs(IpNet::new(net.addr(), length).unwrap()).collect();
                let rung = rungs[0].prefix_len();
                let ladders = Ladder::ALL.iter().filter(|ladder| {
                    ladder.is_ipv4() == net.addr().is_ipv4() && ladder.rungs().contains(&rung)
                });
                assert_eq!(ladders.count(), usize::from(rung != last), "/{length} is on /{rung}");
                assert!(rungs.len() <= 8);
            }
        }
    }

    proptest! {
        #[test]
        fn rungs_are_the_same_addresses(net in a_net()) {
            let rungs: Vec<IpNet> = on_rungs(net).collect();
            prop_assert_eq!(IpNet::aggregate(&rungs), vec![net]);
        }

        #[test]
        fn whoever_is_on_a_rung_is_behind_its_gate_and_the_first(net in a_net()) {
            let rungs: Vec<IpNet> = on_rungs(net).collect();
            let gates = gates(&rungs);
            prop_assert_eq!(gates.is_empty(), rungs.iter().all(|rung| Ladder::of(rung).is_none()));
            for ladder in rungs.iter().filter_map(Ladder::of) {
                prop_assert!(gates.contains(&ladder));
                prop_assert!(gates.contains(&Ladder::Four) || gates.contains(&Ladder::Six));
            }
        }
    }
}
