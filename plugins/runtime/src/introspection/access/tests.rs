//! Claims about what a call may see.

use super::*;
use crate::introspection::fake::FakeGuest;
use proptest::prelude::*;
use std::sync::atomic::Ordering;

const MIB: u64 = 1 << 20;
const ALL: [Grant; 4] = [Grant::Memory, Grant::Cpu, Grant::Flows, Grant::Disk];

/// 64 KiB at 0, a hole, 256 KiB at 1 MiB; the byte at each address is made of its address.
fn guest() -> FakeGuest {
    let bytes = |start: u64, len: u64| (start..start + len).map(|at| (at * 31 / 7) as u8).collect();
    FakeGuest {
        ram: [(0, bytes(0, 64 << 10)), (MIB, bytes(MIB, 256 << 10))].into(),
        disk: vec![7; 2048],
        ..FakeGuest::default()
    }
}

fn access(grants: &[Grant], bytes_max: u64) -> Access {
    Access::new(Arc::new(guest()), grants.iter().copied().collect(), bytes_max, || false)
}

fn denied<T: std::fmt::Debug>(seen: Seen<T>) -> String {
    match seen {
        Err(ViewError::Denied(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_not_granted_is_denied_by_name() {
    let mut none = access(&[], MIB);
    for why in [
        denied(none.regions()),
        denied(none.read(0, 1)),
        denied(none.read_virtual(0, 0, 1)),
        denied(none.translate(0, 0)),
        denied(none.search(0, 1, b"four", b"", 1)),
        denied(none.hash_pages(0, 1)),
    ] {
        assert_eq!(why, "memory is not granted");
    }
    assert_eq!(denied(none.registers(0, &[])), "cpu is not granted");
    assert_eq!(denied(none.flows(1)), "flows is not granted");
    assert_eq!(denied(none.disks()), "disk is not granted");
    assert_eq!(denied(none.read_disk(0, 0, 512)), "disk is not granted");
    assert_eq!(access(&[Grant::Disk], MIB).read_disk(0, 0, 512), Ok(vec![7; 512]));
    assert_eq!(denied(access(&[Grant::Disk], MIB).read(0, 1)), "memory is not granted");
}

#[test]
fn every_byte_counts_against_the_quota_and_nothing_is_read_beyond_it() {
    let mut access = access(&ALL, 100 << 10);
    assert!(access.read(0, 50 << 10).is_ok());
    assert!(access.read_disk(0, 0, 2048).is_ok());
    assert!(access.search(0, 10 << 10, b"none", b"", 1).is_ok());
    assert!(access.hash_pages(0, 8).is_ok());
    assert_eq!(access.bytes_used(), 50 * 1024 + 2048 + 10 * 1024 + 8 * 4096);
    let why = "the call's quota of 102400 bytes is used up";
    assert_eq!(denied(access.hash_pages(0, 4)), why);
    assert_eq!(denied(access.read(0, 8 << 10)), why);
    assert_eq!(denied(access.search(0, 64 << 10, b"none", b"", 1)), why);
    assert!(access.read(0, 1).is_ok());
}

#[test]
fn more_than_the_documented_maximum_is_too_large() {
    let mut access = access(&ALL, u64::MAX);
    assert_eq!(access.read(0, (1 << 20) + 1), Err(ViewError::TooLarge));
    assert_eq!(access.read_virtual(0, 0, (1 << 20) + 1), Err(ViewError::TooLarge));
    assert_eq!(access.search(0, 1, &[0; 257], b"", 1), Err(ViewError::TooLarge));
    assert_eq!(access.search(0, 1, &[0; 4], b"", 10_001), Err(ViewError::TooLarge));
    assert_eq!(access.hash_pages(0, 65_537), Err(ViewError::TooLarge));
    assert_eq!(access.flows(10_001), Err(ViewError::TooLarge));
    assert_eq!(access.read_disk(0, 0, (1 << 20) + 512), Err(ViewError::TooLarge));
    for (pattern, mask, limit) in [(3, 0, 1), (4, 3, 1), (4, 0, 0)] {
        assert_eq!(access.search(0, 1, &vec![0; pattern], &vec![0; mask], limit), Err(ViewError::OutOfRange));
    }
}

#[test]
fn only_ram_is_read() {
    let mut access = access(&ALL, u64::MAX);
    assert_eq!(access.read((64 << 10) - 1, 2), Err(ViewError::OutOfRange));
    assert_eq!(access.read(MIB - 1, 1), Err(ViewError::OutOfRange));
    assert_eq!(access.read(u64::MAX, 1), Err(ViewError::OutOfRange));
    assert_eq!(access.search(u64::MAX, 1, b"four", b"", 1), Err(ViewError::OutOfRange));
    assert_eq!(access.hash_pages(1, 1), Err(ViewError::OutOfRange));
    let hashes = access.hash_pages(60 << 10, 3).unwrap();
    assert!(hashes[0] != 0 && hashes[1] == 0 && hashes[2] == 0);
    assert_eq!(access.read_disk(0, 2048, 512), Err(ViewError::OutOfRange));
    assert_eq!(access.read_disk(0, 0, 511), Err(ViewError::OutOfRange));
    assert_eq!(access.read_disk(1, 0, 512), Err(ViewError::OutOfRange));
    assert_eq!(access.registers(0, &["cr3".to_owned(), "lstar".to_owned()]), Err(ViewError::OutOfRange));
    assert_eq!(access.registers(0, &["cr3".to_owned()]), Ok(vec![0x1000]));
    assert_eq!(access.registers(1, &[]), Err(ViewError::OutOfRange));
}

#[test]
fn a_guest_that_goes_away_is_said_to_be_away() {
    let guest = Arc::new(guest());
    let mut access = Access::new(Arc::clone(&guest) as Arc<dyn GuestViews>, ALL.into(), MIB, || false);
    assert!(access.read(0, 1).is_ok());
    guest.gone.store(true, Ordering::SeqCst);
    assert!(matches!(access.read(0, 1), Err(ViewError::Unavailable(_))));
    assert!(matches!(access.hash_pages(0, 1), Err(ViewError::Unavailable(_))));
    assert!(matches!(access.disks(), Err(ViewError::Unavailable(_))));
}

#[test]
fn native_work_ends_with_the_calls_time() {
    let mut access = Access::new(Arc::new(guest()), ALL.into(), u64::MAX, || true);
    assert!(matches!(access.search(0, MIB, b"four", b"", 1), Err(ViewError::Unavailable(_))));
}

#[test]
fn a_page_that_maps_a_hole_is_out_of_range_and_one_across_pages_is_read() {
    let mut guest = guest();
    let ram = guest.ram.get_mut(&0).unwrap();
    for (at, entry) in
        [(0x1000, 0x2003_u64), (0x2000, 0x3003), (0x3000, 0x4003), (0x4000, 0x5003), (0x4008, 0x8_0003)]
    {
        ram[at..at + 8].copy_from_slice(&entry.to_le_bytes());
    }
    ram[0x4010..0x4018].copy_from_slice(&0x6003_u64.to_le_bytes());
    let mut access = Access::new(Arc::new(guest), ALL.into(), MIB, || false);
    assert_eq!(access.translate(0x1000, 0x10), Ok(0x5010));
    assert_eq!(access.read_virtual(0x1000, 0xffe, 2), access.read(0x5ffe, 2));
    assert_eq!(access.read_virtual(0x1000, 0xfff, 2), Err(ViewError::OutOfRange));
    assert_eq!(access.read_virtual(0x1000, 0x3000, 1), Err(ViewError::NotMapped));
    assert_eq!(access.read_virtual(0x1000, u64::MAX, 2), Err(ViewError::OutOfRange));
}

proptest! {
    #[test]
    fn a_search_in_chunks_finds_what_one_look_finds(
        at in MIB..MIB + (250 << 10),
        len in 4_usize..64,
        start in MIB..MIB + (200 << 10),
        count in 0_u64..(200 << 10),
    ) {
        let guest = guest();
        let ram = guest.ram[&MIB].clone();
        let from = usize::try_from(at - MIB).unwrap();
        let pattern = &ram[from..from + len];
        let slow: Vec<u64> = ram
            .windows(len)
            .enumerate()
            .filter(|(_, window)| window == &pattern)
            .map(|(offset, _)| MIB + offset as u64)
            .filter(|found| (start..start + count).contains(found))
            .take(50)
            .collect();
        let mut access = Access::new(Arc::new(guest), ALL.into(), u64::MAX, || false);
        prop_assert_eq!(access.search(start, count, pattern, b"", 50).unwrap(), slow);
    }

    /// Whatever page tables a guest has, and whatever is asked: an answer, never a panic.
    #[test]
    fn no_question_breaks_it(
        ram in proptest::collection::vec(any::<u8>(), 1..20_000),
        root: u64,
        address: u64,
        len in 0_u32..5_000,
        pages in 0_u32..100,
    ) {
        let guest = FakeGuest { ram: [(0x800, ram)].into(), ..FakeGuest::default() };
        let mut access = Access::new(Arc::new(guest), ALL.into(), MIB, || false);
        let _ = access.read_virtual(root % 0x6000, address, len);
        let _ = access.translate(root, address);
        let _ = access.read(address % 0x6000, len);
        let _ = access.hash_pages(address, pages);
        let _ = access.search(address % 0x6000, root, b"four", b"", 3);
    }
}
