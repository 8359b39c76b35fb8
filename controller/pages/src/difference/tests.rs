use super::*;
use crate::split::tests::stream;
use proptest::prelude::*;
use std::io::Cursor;

/// More than any file here has.
const BYTES_MAX: u64 = 64 << 20;

fn there_and_back(previous: &[u8], next: &[u8]) -> (Figures, Vec<u8>) {
    let mut kept = Vec::new();
    let figures = difference(&mut Cursor::new(previous), &mut &next[..], &mut kept).unwrap();
    assert_eq!(figures.written_bytes, kept.len() as u64);
    let mut made = Vec::new();
    whole(&mut Cursor::new(previous), &mut kept.as_slice(), &mut made, BYTES_MAX).unwrap();
    assert!(made == next, "another file was made");
    (figures, kept)
}

fn pages(count: u64, changed: impl Fn(u64) -> bool) -> Vec<(u64, u8)> {
    (0..count).map(|page| (page, if changed(page) { 200 } else { 1 + (page % 100) as u8 })).collect()
}

#[test]
fn only_pages_that_changed_are_written() {
    let before = stream(&[pages(500, |_| false)]);
    // Another list of passes: what stayed is found wherever it stands.
    let after = stream(&[pages(500, |_| false)[..400].to_vec(), pages(500, |page| page % 50 == 1)]);
    let (figures, _) = there_and_back(&before, &after);
    assert_eq!((figures.pages, figures.new_pages), (900, 10));
    assert!(figures.written_bytes < 10 * 4200 + 2000, "{figures:?}");
    let (figures, _) = there_and_back(&after, &after);
    assert_eq!(figures.new_pages, 0);
}

#[test]
fn the_first_memory_of_a_guest_is_written_whole() {
    let next = stream(&[pages(20, |_| false)]);
    let (figures, _) = there_and_back(b"", &next);
    assert_eq!(figures.new_pages, figures.pages);
    assert!(figures.written_bytes < figures.whole_bytes + 200);
}

#[test]
fn another_previous_file_and_a_damaged_one_are_noticed() {
    let before = stream(&[pages(50, |_| false)]);
    let after = stream(&[pages(50, |page| page == 7)]);
    let (_, kept) = there_and_back(&before, &after);
    let make = |previous: &[u8], kept: &[u8]| {
        whole(&mut Cursor::new(previous), &mut &kept[..], &mut Vec::new(), BYTES_MAX).unwrap_err()
    };
    let mut other = before.clone();
    other[before.len() / 2] ^= 1;
    assert!(matches!(make(&other, &kept), DifferenceError::Digest));
    assert!(matches!(make(&before[..900], &kept), DifferenceError::Previous { .. }));
    assert!(matches!(make(&before, &kept[..kept.len() - 1]), DifferenceError::Short));
    assert!(matches!(make(&before, &kept[1..]), DifferenceError::Magic));
    let mut part = kept.clone();
    part[16] = b'X';
    assert!(matches!(make(&before, &part), DifferenceError::Part(b'X')));
}

#[test]
fn it_makes_no_more_than_it_may() {
    let before = stream(&[pages(50, |_| false)]);
    let (figures, kept) = there_and_back(&before, &before);
    let make = |bytes_max| {
        whole(&mut Cursor::new(&before), &mut kept.as_slice(), &mut Vec::new(), bytes_max)
            .map_err(|e| e.to_string())
    };
    assert_eq!(make(figures.whole_bytes), Ok(()));
    assert!(make(figures.whole_bytes - 1).unwrap_err().contains("makes more than"));
}

#[test]
fn zeros_after_its_end_are_not_read() {
    let before = stream(&[pages(5, |_| false)]);
    let (_, mut kept) = there_and_back(&before, &before);
    kept.resize(kept.len().next_multiple_of(512), 0);
    let mut made = Vec::new();
    whole(&mut Cursor::new(&before), &mut kept.as_slice(), &mut made, BYTES_MAX).unwrap();
    assert!(made == before);
}

proptest! {
    #[test]
    fn any_two_files_there_and_back(
        previous in proptest::collection::vec(any::<u8>(), 0..2000),
        next in proptest::collection::vec(any::<u8>(), 0..2000),
    ) {
        there_and_back(&previous, &next);
    }

    #[test]
    fn any_two_streams_there_and_back(
        previous in proptest::collection::vec((0_u64..40, 0_u8..4), 1..40),
        next in proptest::collection::vec((0_u64..40, 0_u8..4), 1..40),
        cut in 0_usize..4000,
    ) {
        let next = stream(&[next]);
        there_and_back(&stream(&[previous]), &next[..next.len() - cut.min(next.len())]);
    }

    #[test]
    fn no_difference_makes_it_panic(kept in proptest::collection::vec(any::<u8>(), 0..300)) {
        let kept = [MAGIC.as_slice(), &kept].concat();
        let _ = whole(&mut Cursor::new(vec![7; 100]), &mut kept.as_slice(), &mut Vec::new(), BYTES_MAX);
    }
}
