//! The kernel's own table of symbols (`kallsyms`), found in its image by its shape and decoded.
//!
//! Names are strings of one-byte tokens; the tokens of the digits are the digits, which are ten zero-terminated
//! strings in a row: that is what is looked for. The index behind the tokens, the base of the image, the number of names,
//! their lengths and the markers must fit each other, so nothing else is taken for the table.

use crate::kernel_memory::{i32_at, u16_at, u32_at, u64_at};
use std::collections::BTreeMap;

const TOKENS: usize = 256;
/// Symbols for each marker.
const MARKED: usize = 256;
/// Longest distance from the start of the tokens to that of the digit 0.
const TOKENS_BEFORE_LEN_MAX: usize = 4096;
/// No kernel has more symbols.
const COUNT_MAX: usize = 1 << 21;

/// Pattern that begins at the token of the digit 0.
pub(crate) fn digits() -> Vec<u8> {
    (b'0'..=b'9').flat_map(|digit| [digit, 0]).collect()
}

/// Where the table's parts are in the image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kallsyms<'a> {
    image: &'a [u8],
    tokens: Vec<&'a [u8]>,
    names: usize,
    count: usize,
    offsets: usize,
    relative_base: u64,
}

/// One symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Symbol {
    pub(crate) name: String,
    pub(crate) address: u64,
}

impl<'a> Kallsyms<'a> {
    /// Finds the table given the places of [`digits`]. `image` begins at virtual address `base`.
    pub(crate) fn find(image: &'a [u8], base: u64, places: &[usize]) -> Option<Self> {
        places.iter().find_map(|place| Self::at(image, base, *place))
    }

    fn at(image: &'a [u8], base: u64, zero: usize) -> Option<Self> {
        let (start, tokens, index) = find_tokens(image, zero)?;
        let (names, count, offsets) =
            early_layout(image, base, start).or_else(|| late_layout(image, base, start, index))?;
        Some(Self { image, tokens, names, count, offsets, relative_base: base })
    }

    /// Every symbol, in the order of the table, which is that of addresses but for those of each processor.
    pub(crate) fn symbols(&self) -> impl Iterator<Item = Symbol> + '_ {
        let mut at = self.names;
        (0..self.count).map_while(move |position| {
            let (start, len) = name_at(self.image, at)?;
            at = start + len;
            let tokens = self.image.get(start..at)?.iter();
            let expanded: Vec<u8> =
                tokens.flat_map(|token| self.tokens[usize::from(*token)]).copied().collect();
            // The first character is the kind.
            let name = String::from_utf8_lossy(expanded.get(1..)?).into_owned();
            Some(Symbol { name, address: self.address(position)? })
        })
    }

    fn address(&self, position: usize) -> Option<u64> {
        let offset = i32_at(self.image, self.offsets + position * 4)?;
        // What is not negative is the place of a variable in each processor's area.
        if offset >= 0 {
            return u64::try_from(offset).ok();
        }
        Some(self.relative_base.wrapping_sub(1).wrapping_add_signed(-i64::from(offset)))
    }
}

/// Whether tokens and their index are around a place of [`digits`]: a cheap look before a whole one.
pub(crate) fn looks_like_tokens(bytes: &[u8], zero: usize) -> bool {
    find_tokens(bytes, zero).is_some()
}

/// Addresses of these names.
pub(crate) fn by_name(symbols: &[Symbol], wanted: &[&str]) -> BTreeMap<String, u64> {
    let known = symbols.iter().filter(|symbol| wanted.contains(&symbol.name.as_str()));
    known.map(|symbol| (symbol.name.clone(), symbol.address)).collect()
}

/// Where the tokens begin, by counting those before the digit 0 back, and their index. Tables begin at multiples of 8;
/// what is before the first token need not end with a zero.
fn find_tokens(image: &[u8], zero: usize) -> Option<(usize, Vec<&[u8]>, usize)> {
    let from = zero.checked_sub(TOKENS_BEFORE_LEN_MAX)?;
    let before = image.get(from..zero)?;
    let mut ends = before.iter().enumerate().rev().filter(|(_, byte)| **byte == 0).map(|(at, _)| from + at);
    let end_of_first = ends.nth(usize::from(b'0') - 1)?;
    let start = ends.next().map_or(from, |end| end + 1);
    (start.next_multiple_of(8)..end_of_first).step_by(8).find_map(|start| {
        let (tokens, index) = tokens(image, start)?;
        Some((start, tokens, index))
    })
}

/// The tokens, and where their index is, if that agrees with them.
fn tokens(image: &[u8], start: usize) -> Option<(Vec<&[u8]>, usize)> {
    let mut tokens = Vec::with_capacity(TOKENS);
    let mut starts = Vec::with_capacity(TOKENS);
    let mut at = start;
    for _ in 0..TOKENS {
        let rest = image.get(at..)?;
        let len = rest.iter().take(64).position(|byte| *byte == 0)?;
        tokens.push(&rest[..len]);
        starts.push(at - start);
        at += len + 1;
    }
    let index = at.next_multiple_of(8);
    let fits = |(number, start): (usize, &usize)| {
        u16_at(image, index + number * 2).is_some_and(|found| usize::from(found) == *start)
    };
    starts.iter().enumerate().all(fits).then_some((tokens, index))
}

/// Kernels up to 6.3: offsets, base, number, names, markers, and the tokens somewhere behind.
fn early_layout(image: &[u8], base: u64, tokens: usize) -> Option<(usize, usize, usize)> {
    words(image, 0..tokens).filter(|(_, word)| *word == base).find_map(|(at, _)| {
        let count = usize::try_from(u64_at(image, at + 8)?).ok()?;
        let offsets = at.checked_sub(count.checked_mul(4)?.next_multiple_of(8))?;
        are_names(image, at + 16, count, tokens).then_some((at + 16, count, offsets))
    })
}

/// Later ones: number, names, markers, tokens, their index, offsets, base.
fn late_layout(image: &[u8], base: u64, tokens: usize, index: usize) -> Option<(usize, usize, usize)> {
    let offsets = index + TOKENS * 2;
    let (at, _) = words(image, offsets..image.len()).find(|(_, word)| *word == base)?;
    // The last of the offsets may be padding.
    let most = (at - offsets) / 4;
    words(image, 0..tokens).filter(|(_, word)| *word == most as u64 || *word + 1 == most as u64).find_map(
        |(at, word)| {
            let count = usize::try_from(word).ok()?;
            are_names(image, at + 8, count, tokens).then_some((at + 8, count, offsets))
        },
    )
}

/// Aligned numbers of a part of the image: place and value.
fn words(image: &[u8], part: std::ops::Range<usize>) -> impl Iterator<Item = (usize, u64)> + '_ {
    let start = part.start.next_multiple_of(8);
    let words = image.get(start..part.end).unwrap_or_default().as_chunks().0;
    words.iter().enumerate().map(move |(number, word)| (start + number * 8, u64::from_le_bytes(*word)))
}

/// Whether that many names begin there: behind them are the markers, which say where each block of them is.
fn are_names(image: &[u8], names: usize, count: usize, end: usize) -> bool {
    if count <= MARKED || count > COUNT_MAX {
        return false;
    }
    let (mut at, mut blocks) = (names, Vec::with_capacity(count / MARKED + 1));
    for number in 0..count {
        if number % MARKED == 0 {
            blocks.push(at - names);
        }
        match name_at(image, at) {
            Some((start, len)) if len > 0 && start + len < end => at = start + len,
            _ => return false,
        }
    }
    let markers = at.next_multiple_of(8);
    let fits = |(number, place): (usize, &usize)| {
        u32_at(image, markers + number * 4).is_some_and(|marker| marker as usize == *place)
    };
    blocks.iter().enumerate().all(fits)
}

/// Start and length of the name at `at`.
fn name_at(image: &[u8], at: usize) -> Option<(usize, usize)> {
    let len = usize::from(*image.get(at)?);
    if len < 0x80 {
        return Some((at + 1, len));
    }
    Some((at + 2, (len & 0x7f) | usize::from(*image.get(at + 1)?) << 7))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0xffff_ffff_8100_0000;

    #[derive(Clone, Copy, PartialEq)]
    enum Layout {
        /// Up to 6.3, with the sequences of names that some of them have.
        Early,
        /// From 6.4 on.
        Late,
    }

    /// A table as `scripts/kallsyms` writes it, each character a token, behind some other bytes.
    fn table(symbols: &[(String, u64)], layout: Layout) -> Vec<u8> {
        let pad = |bytes: &mut Vec<u8>| bytes.resize(bytes.len().next_multiple_of(8), 0);
        let mut offsets = Vec::new();
        for (_, address) in symbols {
            let offset = if *address < 1 << 31 {
                i32::try_from(*address).unwrap()
            } else {
                -i32::try_from(address - BASE + 1).unwrap()
            };
            offsets.extend(offset.to_le_bytes());
        }
        pad(&mut offsets);
        offsets.extend(BASE.to_le_bytes());
        let mut image = vec![0xaa; 8192];
        if layout == Layout::Early {
            image.extend(&offsets);
        }
        image.extend((symbols.len() as u64).to_le_bytes());
        let (mut names, mut marks) = (Vec::new(), Vec::new());
        for (position, (name, _)) in symbols.iter().enumerate() {
            if position % MARKED == 0 {
                marks.extend(u32::try_from(names.len()).unwrap().to_le_bytes());
            }
            let len = name.len() + 1;
            if len < 0x80 {
                names.push(u8::try_from(len).unwrap());
            } else {
                names.push(u8::try_from(len & 0x7f).unwrap() | 0x80);
                names.push(u8::try_from(len >> 7).unwrap());
            }
            names.push(b'T');
            names.extend(name.bytes());
        }
        image.extend(names);
        pad(&mut image);
        image.extend(marks);
        pad(&mut image);
        if layout == Layout::Early {
            image.extend((0..symbols.len() * 3).map(|byte| u8::try_from(byte % 251).unwrap()));
            pad(&mut image);
        }
        let (mut tokens, mut index) = (Vec::new(), Vec::new());
        for token in 0..=255_u8 {
            index.extend(u16::try_from(tokens.len()).unwrap().to_le_bytes());
            tokens.extend([if token == 0 { b'?' } else { token }, 0]);
        }
        image.extend(tokens);
        pad(&mut image);
        image.extend(index);
        if layout == Layout::Late {
            image.extend(&offsets);
        }
        image.extend([0xaa; 64]);
        image
    }

    fn some() -> Vec<(String, u64)> {
        let mut all: Vec<(String, u64)> =
            (0..1000).map(|n| (format!("function_{n}"), BASE + n * 16)).collect();
        all[3] = ("cpu_area".to_owned(), 0x1000);
        all[700].0 = "x".repeat(300);
        all
    }

    fn places(image: &[u8]) -> Vec<usize> {
        let digits = digits();
        image.windows(digits.len()).enumerate().filter(|(_, w)| *w == digits).map(|(at, _)| at).collect()
    }

    #[test]
    fn every_symbol_of_either_layout_is_read() {
        for layout in [Layout::Early, Layout::Late] {
            let image = table(&some(), layout);
            let table = Kallsyms::find(&image, BASE, &places(&image)).unwrap();
            let read: Vec<(String, u64)> = table.symbols().map(|s| (s.name, s.address)).collect();
            assert_eq!(read, some());
        }
    }

    #[test]
    fn a_table_that_does_not_fit_itself_is_none() {
        for layout in [Layout::Early, Layout::Late] {
            let image = table(&some(), layout);
            let places = places(&image);
            assert!(Kallsyms::find(&image, BASE + 0x1000, &places).is_none());
            for end in (0..image.len() - 64).step_by(97) {
                let kept: Vec<usize> = places.iter().copied().filter(|place| *place < end).collect();
                assert!(Kallsyms::find(&image[..end], BASE, &kept).is_none());
            }
        }
        let image = table(&some(), Layout::Early);
        let mut damaged = image.clone();
        damaged[image.len() - 64 - 100] ^= 1;
        assert!(Kallsyms::find(&damaged, BASE, &places(&image)).is_none());
    }
}
