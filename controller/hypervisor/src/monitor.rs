//! What QEMU's monitor tells people, read by a program. Pure: text in, values out.

use std::collections::BTreeMap;

/// A part of guest-physical memory that is RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ram {
    /// Guest-physical address.
    pub start: u64,
    /// Bytes, at least 1.
    pub len: u64,
    /// Where it is in the memory's file.
    pub(crate) offset: u64,
}

/// The name that libvirt gives a guest's memory.
const MEMORY: &str = "pc.ram";

/// Reads `info mtree -f`: RAM by address, where the processors see it. None: it is not there.
pub(crate) fn ram(text: &str) -> Option<Vec<Ram>> {
    let view = text.split("FlatView #").find(|view| view.contains("\"memory\", root: system"))?;
    let mut ram: Vec<Ram> = view.lines().filter_map(ram_line).collect();
    ram.sort_by_key(|part| part.start);
    ram.dedup_by(|next, part| {
        let goes_on = part.start + part.len == next.start && part.offset + part.len == next.offset;
        if goes_on {
            part.len += next.len;
        }
        goes_on
    });
    Some(ram).filter(|ram| !ram.is_empty())
}

/// `  00000000000c0000-00000000000c9fff (prio 0, rom): pc.ram @00000000000c0000`
fn ram_line(line: &str) -> Option<Ram> {
    let (range, rest) = line.trim().split_once(" (prio ")?;
    let (kind, name) = rest.split_once("): ")?;
    let (_, kind) = kind.split_once(", ")?;
    // What the guest made read-only is memory all the same.
    if !["ram", "rom"].contains(&kind) {
        return None;
    }
    let mut words = name.split_whitespace();
    if words.next() != Some(MEMORY) {
        return None;
    }
    let offset = match words.next().and_then(|word| word.strip_prefix('@')) {
        Some(digits) => u64::from_str_radix(digits, 16).ok()?,
        None => 0,
    };
    let (start, last) = range.split_once('-')?;
    let start = u64::from_str_radix(start, 16).ok()?;
    let last = u64::from_str_radix(last, 16).ok()?;
    let len = last.checked_sub(start)?.checked_add(1)?;
    // Whatever is added to an address later does not overflow.
    start.checked_add(len).and(offset.checked_add(len)).map(|_| Ram { start, len, offset })
}

/// Reads `info registers -a`: one table a processor, names in lower case; `idt.base` and `gdt.limit` of tables, `cs.base`
/// and so on of segments.
pub(crate) fn registers(text: &str) -> Vec<BTreeMap<String, u64>> {
    text.split("CPU#").skip(1).map(|processor| processor.lines().flat_map(register_line).collect()).collect()
}

fn register_line(line: &str) -> Vec<(String, u64)> {
    let number = |word: &str| u64::from_str_radix(word, 16).ok();
    let Some((first, rest)) = line.split_once('=') else { return Vec::new() };
    let name = first.trim().to_ascii_lowercase();
    let words: Vec<&str> = rest.split_whitespace().collect();
    match (name.as_str(), words.as_slice()) {
        ("gdt" | "idt", [base, limit, ..]) => [("base", base), ("limit", limit)]
            .into_iter()
            .filter_map(|(part, word)| Some((format!("{name}.{part}"), number(word)?)))
            .collect(),
        ("es" | "cs" | "ss" | "ds" | "fs" | "gs" | "ldt" | "tr", [selector, base, limit, ..]) => {
            [("", selector), (".base", base), (".limit", limit)]
                .into_iter()
                .filter_map(|(part, word)| Some((format!("{name}{part}"), number(word)?)))
                .collect()
        }
        _ => simple_registers(line),
    }
}

/// `RAX=0 RBX=0`, `R8 =0 R9 =0`, `CR0=80050033 CR2=0`; what is not a 64-bit number is left out.
fn simple_registers(line: &str) -> Vec<(String, u64)> {
    let line = line.replace(" =", "=");
    let pairs = line.split_whitespace().filter_map(|word| word.split_once('='));
    pairs
        .filter(|(name, _)| !name.is_empty() && name.len() <= 8)
        .filter_map(|(name, digits)| {
            let name = name.to_ascii_lowercase();
            let name = if name == "rfl" { "rflags".to_owned() } else { name };
            Some((name, u64::from_str_radix(digits, 16).ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str =
        "FlatView #0\r\n AS \"I/O\", root: io\r\n\r\n  00-07 (prio 0, i/o): dma\r\n\r\nFlatView #1\r
 AS \"memory\", root: system\r\n AS \"cpu-memory-0\", root: system\r\n Root memory region: system\r
  0000000000000000-000000000009ffff (prio 0, ram): pc.ram\r
  00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem\r
  00000000000c0000-00000000000c9fff (prio 0, rom): pc.ram @00000000000c0000\r
  00000000000ca000-00000000000fffff (prio 0, ram): pc.ram @00000000000ca000\r
  0000000000100000-000000007fffffff (prio 0, ram): pc.ram @0000000000100000\r
  00000000fd000000-00000000fdffffff (prio 1, ram): vga.vram\r
  0000000100000000-000000013fffffff (prio 0, ram): pc.ram @0000000080000000\r
";

    #[test]
    fn ram_is_read_with_its_holes_and_its_place_in_the_file() {
        let part = |start, end, offset| Ram { start, len: end - start, offset };
        let found = ram(TREE).unwrap();
        assert_eq!(
            found,
            [
                part(0, 0xa_0000, 0),
                part(0xc_0000, 0x8000_0000, 0xc_0000),
                part(0x1_0000_0000, 0x1_4000_0000, 0x8000_0000),
            ]
        );
        assert_eq!(ram(""), None);
        assert_eq!(ram("FlatView #1\n AS \"memory\", root: system\n  0-f (prio 0, ram): vga.vram"), None);
    }

    #[test]
    fn registers_of_each_processor_are_read() {
        let text = "\r\nCPU#0\r\nRAX=ffffffff9d0178a0 RBX=0000000000000000 RCX=1 RDX=2\r
R8 =0000000000022e80 R9 =00000000314dde73 R10=00000000fffffffb R11=1\r
RIP=ffffffff9d017a0b RFL=00000202 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=1\r
GS =0000 ff39d05e4b600000 00000000 00000000\r\nIDT=     fffffe0000000000 00000fff\r
CR0=80050033 CR2=00000000004f0215 CR3=00000000028b2000 CR4=00751eb0\r
FPR0=0000000000000000 0000 FPR1=0000000000000000 0000\r\n\r\nCPU#1\r\nCR3=0000000000001000\r\n";
        let all = registers(text);
        assert_eq!(all.len(), 2);
        let wanted = [
            ("rax", 0xffff_ffff_9d01_78a0),
            ("r8", 0x22e80),
            ("r10", 0xffff_fffb),
            ("rip", 0xffff_ffff_9d01_7a0b),
            ("rflags", 0x202),
            ("gs.base", 0xff39_d05e_4b60_0000),
            ("idt.base", 0xffff_fe00_0000_0000),
            ("idt.limit", 0xfff),
            ("cr3", 0x28b_2000),
            ("cr4", 0x75_1eb0),
        ];
        for (name, value) in wanted {
            assert_eq!(all[0].get(name), Some(&value), "{name}");
        }
        assert_eq!(all[1], [("cr3".to_owned(), 0x1000)].into());
    }
}
