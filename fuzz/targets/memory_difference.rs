//! A difference of saved memory as another host made it, and the two files that one is made of.
#![no_main]

use controller_pages::{difference, whole};
use libfuzzer_sys::fuzz_target;
use std::io::Cursor;

const MADE_BYTES_MAX: u64 = 1 << 16;

fuzz_target!(|bytes: &[u8]| {
    // The first two bytes say where the previous file ends.
    let Some((at, rest)) = bytes.split_first_chunk::<2>() else { return };
    let (previous, next) = rest.split_at(usize::from(u16::from_le_bytes(*at)).min(rest.len()));
    let mut kept = Vec::new();
    difference(&mut Cursor::new(previous), &mut &next[..], &mut kept).expect("memory is read and written");
    let mut made = Vec::new();
    whole(&mut Cursor::new(previous), &mut kept.as_slice(), &mut made, next.len() as u64)
        .expect("it is made again");
    assert_eq!(made, next);
    // And what is none, or damaged.
    let mut made = Vec::new();
    let _ = whole(&mut Cursor::new(previous), &mut &next[..], &mut made, MADE_BYTES_MAX);
    assert!(made.len() as u64 <= MADE_BYTES_MAX);
});
