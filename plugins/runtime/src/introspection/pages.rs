//! x86-64 page tables, 4 and 5 levels. Pure: tables are read through a function.

use super::views::{Paging, ViewError};

const PRESENT: u64 = 1;
/// In an entry of the second and third level: it maps a page of 2 MiB or 1 GiB.
const LARGE: u64 = 1 << 7;
/// Bits of an entry, and of a root, that are an address.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Shift of the smallest page, and by how much each level's is larger.
const PAGE_SHIFT: u32 = 12;
const LEVEL_SHIFT: u32 = 9;

/// Where a virtual address is, and how far the page goes on from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) physical: u64,
    /// Bytes to the end of the page, at least 1.
    pub(crate) len: u64,
}

/// Walks at most 5 tables. `entry` reads the 8 bytes at a physical address, which is always a multiple of 8.
pub(crate) fn translate(
    paging: Paging,
    root: u64,
    address: u64,
    mut entry: impl FnMut(u64) -> Result<u64, ViewError>,
) -> Result<Place, ViewError> {
    let levels = match paging {
        Paging::FourLevels => 4,
        Paging::FiveLevels => 5,
    };
    if !is_canonical(levels, address) {
        return Err(ViewError::OutOfRange);
    }
    let mut table = root & ADDRESS;
    for level in (1..=levels).rev() {
        let shift = PAGE_SHIFT + LEVEL_SHIFT * (level - 1);
        let index = (address >> shift) & 511;
        let found = entry(table + index * 8)?;
        if found & PRESENT == 0 {
            return Err(ViewError::NotMapped);
        }
        let large = found & LARGE != 0;
        if level == 1 || (large && level <= 3) {
            let size = 1_u64 << shift;
            let offset = address & (size - 1);
            let base = found & ADDRESS & !(size - 1);
            return Ok(Place { physical: base + offset, len: size - offset });
        }
        if large {
            // The processor faults on this bit there.
            return Err(ViewError::NotMapped);
        }
        table = found & ADDRESS;
    }
    Err(ViewError::NotMapped)
}

/// Whether the bits above the address's are copies of its highest.
fn is_canonical(levels: u32, address: u64) -> bool {
    let above = 64 - (PAGE_SHIFT + LEVEL_SHIFT * levels);
    ((address << above).cast_signed() >> above).cast_unsigned() == address
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Tables as a sparse memory of entries; what is not there is 0.
    fn walk(entries: &BTreeMap<u64, u64>, paging: Paging, address: u64) -> Result<Place, ViewError> {
        translate(paging, 0x1000, address, |at| Ok(entries.get(&at).copied().unwrap_or(0)))
    }

    #[test]
    fn pages_of_every_size_are_found_with_four_and_five_levels() {
        let four = BTreeMap::from([
            (0x1000 + 511 * 8, 0x2003),
            (0x2000 + 510 * 8, 0x3003),
            (0x3000, 0x0060_0000 | 0x83),
            (0x3008, 0x4003),
            (0x4000 + 3 * 8, 0x7003),
            (0x2000, 0x4000_0083),
        ]);
        let at = |address| walk(&four, Paging::FourLevels, address);
        assert_eq!(at(0xffff_ffff_8000_0010), Ok(Place { physical: 0x0060_0010, len: (2 << 20) - 0x10 }));
        assert_eq!(at(0xffff_ffff_8020_3ffe), Ok(Place { physical: 0x7ffe, len: 2 }));
        assert_eq!(at(0xffff_ff80_0000_0000), Ok(Place { physical: 0x4000_0000, len: 1 << 30 }));
        assert_eq!(at(0xffff_ffff_8020_0000), Err(ViewError::NotMapped));
        assert_eq!(at(0x0000_8000_0000_0000), Err(ViewError::OutOfRange));
        let mut five = four;
        five.insert(0x9000 + 511 * 8, 0x1003);
        let found = translate(Paging::FiveLevels, 0x9fff, 0xffff_ffff_8020_3ffe, |at| {
            Ok(five.get(&at).copied().unwrap_or(0))
        });
        assert_eq!(found, Ok(Place { physical: 0x7ffe, len: 2 }));
    }

    #[test]
    fn the_bits_that_are_no_address_do_not_become_one() {
        // No-execute, protection keys and the page's own attributes.
        let entries = BTreeMap::from([
            (0x1000, 0xfff0_0000_0000_2fe7 & !LARGE),
            (0x2000, 0x8000_0000_0000_3007),
            (0x3000, 0xfff0_0000_0020_1fff),
        ]);
        let found = walk(&entries, Paging::FourLevels, 0x1234);
        assert_eq!(found, Ok(Place { physical: 0x0020_1234, len: (2 << 20) - 0x1234 }));
    }

    proptest! {
        /// Whatever the tables hold, also themselves: the walk ends, reads aligned entries below 2^52 only, and what it
        /// finds lies in a page.
        #[test]
        fn a_walk_ends_after_its_levels_and_reads_only_entries(
            five: bool,
            root: u64,
            address: u64,
            low: bool,
            entries in proptest::collection::vec(any::<u64>(), 1..6),
        ) {
            let (paging, levels) =
                if five { (Paging::FiveLevels, 5) } else { (Paging::FourLevels, 4) };
            let address = if low { address & 0x7fff_ffff_ffff } else { address };
            let mut reads = Vec::new();
            let found = translate(paging, root, address, |at| {
                reads.push(at);
                Ok(entries[reads.len() % entries.len()])
            });
            prop_assert!(reads.len() <= levels);
            prop_assert!(reads.iter().all(|at| at % 8 == 0 && *at < 1 << 52));
            if let Ok(place) = found {
                prop_assert!(place.len >= 1 && place.len <= 1 << 30);
                prop_assert!(place.physical < 1 << 52);
                prop_assert_eq!(place.physical & 0xfff, address & 0xfff);
            }
        }

        #[test]
        fn a_table_that_cannot_be_read_is_the_walks_error(address in 0_u64..1 << 47) {
            let found = translate(Paging::FourLevels, 0, address, |_| Err(ViewError::OutOfRange));
            prop_assert_eq!(found, Err(ViewError::OutOfRange));
        }
    }
}
