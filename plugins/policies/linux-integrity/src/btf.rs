//! Offsets of structures' members, from the type information that the kernel carries (BTF).

use crate::kernel_memory::{u16_at, u32_at};
use std::collections::BTreeMap;

const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const TYPE_LEN: usize = 12;
const MEMBER_LEN: usize = 12;
/// Structures within structures that are looked into.
const DEPTH_MAX: usize = 4;

/// Byte offsets by `structure.member`, of those that are there. Members of nameless parts count as the whole's.
pub(crate) fn offsets(btf: &[u8], wanted: &[(&'static str, &'static str)]) -> Option<BTreeMap<String, u64>> {
    let types = Types::read(btf)?;
    let mut found = BTreeMap::new();
    for (structure, member) in wanted {
        let at = types.structures.get(structure.as_bytes());
        if let Some(offset) = at.and_then(|at| types.member(*at, member.as_bytes(), 0)) {
            found.insert(format!("{structure}.{member}"), offset);
        }
    }
    Some(found)
}

struct Types<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type is; type 0 is `void`.
    places: Vec<usize>,
    structures: BTreeMap<&'a [u8], usize>,
}

impl<'a> Types<'a> {
    fn read(btf: &'a [u8]) -> Option<Self> {
        if u16_at(btf, 0)? != MAGIC {
            return None;
        }
        let header = u32_at(btf, 4)? as usize;
        let part = |offset: usize| {
            let start = header.checked_add(u32_at(btf, offset)? as usize)?;
            btf.get(start..start.checked_add(u32_at(btf, offset + 4)? as usize)?)
        };
        let mut all =
            Self { types: part(8)?, strings: part(16)?, places: vec![0], structures: BTreeMap::new() };
        let mut at = 0;
        while at < all.types.len() {
            let (kind, count) = all.kind(at)?;
            if kind == KIND_STRUCT {
                all.structures.entry(all.text(at)?).or_insert(at);
            }
            all.places.push(at);
            at += TYPE_LEN + extra_len(kind, count)?;
        }
        Some(all)
    }

    fn kind(&self, at: usize) -> Option<(u32, usize)> {
        let info = u32_at(self.types, at + 4)?;
        Some((info >> 24 & 0x1f, (info & 0xffff) as usize))
    }

    /// The name at the start of a type or member.
    fn text(&self, at: usize) -> Option<&'a [u8]> {
        let rest = self.strings.get(u32_at(self.types, at)? as usize..)?;
        rest.split(|byte| *byte == 0).next()
    }

    fn member(&self, at: usize, name: &[u8], depth: usize) -> Option<u64> {
        let (_, count) = self.kind(at)?;
        let bits_too = u32_at(self.types, at + 4)? >> 31 == 1;
        for number in 0..count {
            let member = at + TYPE_LEN + number * MEMBER_LEN;
            let packed = u32_at(self.types, member + 8)?;
            let bits = u64::from(if bits_too { packed & 0x00ff_ffff } else { packed });
            let text = self.text(member)?;
            if text == name {
                return Some(bits / 8);
            }
            if text.is_empty() && depth < DEPTH_MAX {
                let inner = *self.places.get(u32_at(self.types, member + 4)? as usize)?;
                let (kind, _) = self.kind(inner)?;
                if [KIND_STRUCT, KIND_UNION].contains(&kind)
                    && let Some(offset) = self.member(inner, name, depth + 1)
                {
                    return Some(bits / 8 + offset);
                }
            }
        }
        None
    }
}

/// Bytes behind a type's first twelve.
fn extra_len(kind: u32, count: usize) -> Option<usize> {
    match kind {
        // Integers, variables and declaration tags carry one number.
        1 | 14 | 17 => Some(4),
        // Arrays.
        3 => Some(12),
        KIND_STRUCT | KIND_UNION | 15 | 19 => Some(count * 12),
        // Enumerations and parameters.
        6 | 13 => Some(count * 8),
        // Pointers, forwards, names, qualifiers, functions, floats, type tags.
        2 | 7..=12 | 16 | 18 => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct task { int pid; struct { int a; long b; }; }` and an integer, with a bit field's packing.
    fn btf() -> Vec<u8> {
        let strings = b"\0task\0pid\0b\0a\0int\0";
        let text = |name: &str| {
            let wanted = [name.as_bytes(), &[0]].concat();
            let found = strings.windows(wanted.len()).position(|window| window == wanted);
            u32::try_from(found.unwrap()).unwrap()
        };
        let words: Vec<u32> = vec![
            text("int"),
            1 << 24,
            4,
            32,
            0,
            4 << 24 | 2,
            16,
            text("a"),
            1,
            0,
            text("b"),
            1,
            64,
            text("task"),
            1 << 31 | 4 << 24 | 2,
            24,
            text("pid"),
            1,
            4 << 24,
            0,
            2,
            64,
        ];
        let mut btf = vec![0x9f, 0xeb, 1, 0];
        let types = u32::try_from(words.len() * 4).unwrap();
        for word in [24, 0, types, types, u32::try_from(strings.len()).unwrap()].iter().chain(&words) {
            btf.extend(word.to_le_bytes());
        }
        btf.extend(strings);
        btf
    }

    #[test]
    fn members_are_found_in_nameless_parts_too() {
        let found = offsets(&btf(), &[("task", "pid"), ("task", "b"), ("task", "c"), ("none", "x")]).unwrap();
        assert_eq!(found, [("task.b".to_owned(), 16), ("task.pid".to_owned(), 0)].into());
    }

    #[test]
    fn no_damage_is_more_than_an_absence() {
        let whole = btf();
        for end in 0..whole.len() {
            let _ = offsets(&whole[..end], &[("task", "b")]);
        }
        for at in 0..whole.len() {
            for byte in [0, 0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = byte;
                let _ = offsets(&damaged, &[("task", "b"), ("task", "pid")]);
            }
        }
    }
}
