//! The kernel's code and constants: compared with what they were when it had started.
//!
//! Pages are hashed natively. A page of code that differs is read, the places that a healthy kernel rewrites by itself
//! (static keys, static calls) are blanked if they hold what they may, and the rest is compared in small blocks.

use crate::kallsyms::Symbol;
use crate::kernel::{Kernel, NotFound};
use crate::kernel_memory::i32_at;
use plugins_sdk::introspection::Guest;

pub(crate) const PAGE: u64 = 4096;
/// How finely a change of code is told.
pub(crate) const BLOCK: usize = 256;
/// Bytes of the longest place that a kernel rewrites.
const SITE_LEN_MAX: u64 = 8;
const NOP2: [u8; 2] = [0x66, 0x90];
const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];
/// What a static call that returns 0, or returns at once, is made of.
const ZERO5: [[u8; 5]; 3] =
    [[0x2e, 0x2e, 0x2e, 0x31, 0xc0], [0x66, 0x66, 0x48, 0x31, 0xc0], [0xc3, 0xcc, 0xcc, 0xcc, 0xcc]];
const CALL: u8 = 0xe8;
const JUMP: u8 = 0xe9;
const SHORT_JUMP: u8 = 0xeb;
/// A page that keeps changing while it is read is read this often: the kernel rewrites itself in steps.
const READS: usize = 3;

/// Places that a kernel rewrites by itself, by address.
#[derive(Debug, Default)]
pub(crate) struct Sites(Vec<Site>);

#[derive(Debug, Clone, Copy)]
struct Site {
    address: u64,
    /// Where a static key jumps to; nothing for a static call, which may call any function.
    target: Option<u64>,
}

/// What was, of one range of pages.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Baseline {
    pub(crate) text: Vec<u64>,
    /// Of the code with its sites blanked, one per [`BLOCK`].
    pub(crate) blocks: Vec<u32>,
    pub(crate) constants: Vec<u64>,
}

/// A place that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) address: u64,
    pub(crate) len: usize,
}

impl Sites {
    /// Reads the kernel's own tables of them, which are among its constants.
    pub(crate) fn read(
        guest: &impl Guest,
        kernel: &Kernel,
        trampolines: impl Iterator<Item = u64>,
    ) -> Result<Self, NotFound> {
        let mut sites: Vec<Site> = trampolines.map(|address| Site { address, target: None }).collect();
        let relative = |table: &[u8], start: u64, at: usize| {
            i32_at(table, at)
                .map(|offset| start.wrapping_add(at as u64).wrapping_add_signed(i64::from(offset)))
        };
        let (start, jumps) = table(guest, kernel, "__start___jump_table", "__stop___jump_table")?;
        for at in (0..jumps.len()).step_by(16) {
            if let Some(address) = relative(&jumps, start, at) {
                sites.push(Site { address, target: relative(&jumps, start, at + 4) });
            }
        }
        let (start, calls) = table(guest, kernel, "__start_static_call_sites", "__stop_static_call_sites")?;
        for at in (0..calls.len()).step_by(8) {
            if let Some(address) = relative(&calls, start, at) {
                sites.push(Site { address, target: None });
            }
        }
        sites.sort_by_key(|site| site.address);
        Ok(Self(sites))
    }

    /// Blanks what is at its place and may be there. `code` begins at `start`.
    pub(crate) fn blank(&self, code: &mut [u8], start: u64) {
        let first = self.0.partition_point(|site| site.address < start);
        for site in &self.0[first..] {
            let Some(place) = code.get_mut((site.address - start) as usize..) else { return };
            let len = site.len_if_allowed(place);
            place[..len].fill(0);
        }
    }
}

impl Site {
    /// Bytes of the instruction at the site; 0 if it is not one that belongs there.
    fn len_if_allowed(&self, place: &[u8]) -> usize {
        let five = place.first_chunk::<5>();
        let goes_to = |len: u64, offset: i64| self.address.wrapping_add(len).wrapping_add_signed(offset);
        match (self.target, five) {
            (Some(_), _) if place.starts_with(&NOP2) => 2,
            (Some(target), _) if place.first() == Some(&SHORT_JUMP) => {
                let offset = place.get(1).map_or(0, |byte| i64::from(byte.cast_signed()));
                if goes_to(2, offset) == target { 2 } else { 0 }
            }
            (_, Some(code)) if *code == NOP5 => 5,
            (Some(target), Some(code)) if code[0] == JUMP => {
                let offset = i32_at(code, 1).map_or(0, i64::from);
                if goes_to(5, offset) == target { 5 } else { 0 }
            }
            (None, Some(code)) if [CALL, JUMP].contains(&code[0]) || ZERO5.contains(code) => 5,
            _ => 0,
        }
    }
}

fn table(guest: &impl Guest, kernel: &Kernel, from: &str, to: &str) -> Result<(u64, Vec<u8>), NotFound> {
    // A kernel without them does not rewrite itself there.
    let (Ok(start), Ok(stop)) = (kernel.symbol(from), kernel.symbol(to)) else { return Ok((0, Vec::new())) };
    let len = usize::try_from(stop.saturating_sub(start)).unwrap_or(0).min(4 << 20);
    Ok((start, kernel.memory(guest).bytes(start, len)?))
}

/// The trampolines of static calls.
pub(crate) fn trampolines(symbols: &[Symbol]) -> impl Iterator<Item = u64> + '_ {
    symbols.iter().filter(|symbol| symbol.name.starts_with("__SCT__")).map(|symbol| symbol.address)
}

/// First page, and how many.
pub(crate) fn pages(kernel: &Kernel, from: &str, to: &str) -> Result<(u64, u32), NotFound> {
    let start = kernel.symbol(from)? / PAGE * PAGE;
    let len = kernel.symbol(to)?.saturating_sub(start).div_ceil(PAGE);
    Ok((start, u32::try_from(len).unwrap_or(0).min(65_536)))
}

/// What is now, to be compared with later.
pub(crate) fn baseline(guest: &impl Guest, kernel: &Kernel, sites: &Sites) -> Result<Baseline, NotFound> {
    let (start, count) = pages(kernel, "_stext", "_etext")?;
    let text = guest.hash_pages(kernel.physical_of(start), count)?;
    let mut code = kernel.memory(guest).bytes(start, count as usize * PAGE as usize)?;
    sites.blank(&mut code, start);
    let (rodata, rodata_count) = pages(kernel, "__start_rodata", "__end_rodata")?;
    let constants = guest.hash_pages(kernel.physical_of(rodata), rodata_count)?;
    Ok(Baseline { text, blocks: code.chunks(BLOCK).map(hash).collect(), constants })
}

/// Blocks of code that are not what they were. `sites` is asked for when a page differs.
pub(crate) fn changed_text(
    guest: &impl Guest,
    kernel: &Kernel,
    baseline: &Baseline,
    sites: impl FnOnce() -> Result<Sites, NotFound>,
) -> Result<Vec<Change>, NotFound> {
    let (start, count) = pages(kernel, "_stext", "_etext")?;
    let now = guest.hash_pages(kernel.physical_of(start), count)?;
    let differing: Vec<usize> = differences(&now, &baseline.text).collect();
    if differing.is_empty() {
        return Ok(Vec::new());
    }
    let sites = sites()?;
    let mut changes = Vec::new();
    for page in differing {
        let mut left = changed_blocks(guest, kernel, baseline, &sites, start, page)?;
        for _ in 1..READS {
            if left.is_empty() {
                break;
            }
            let again = changed_blocks(guest, kernel, baseline, &sites, start, page)?;
            left.retain(|change| again.contains(change));
        }
        changes.extend(left);
    }
    Ok(changes)
}

fn changed_blocks(
    guest: &impl Guest,
    kernel: &Kernel,
    baseline: &Baseline,
    sites: &Sites,
    start: u64,
    page: usize,
) -> Result<Vec<Change>, NotFound> {
    let address = start + page as u64 * PAGE;
    // A site may begin in the page before or end in the one behind.
    let from = (address - SITE_LEN_MAX).max(start);
    let mut code = kernel.memory(guest).bytes(from, (address - from + PAGE + SITE_LEN_MAX) as usize)?;
    sites.blank(&mut code, from);
    let first = (address - from) as usize;
    let blocks = code[first..first + PAGE as usize].chunks(BLOCK).enumerate();
    let known = page * (PAGE as usize / BLOCK);
    Ok(blocks
        .filter(|(number, block)| baseline.blocks.get(known + number) != Some(&hash(block)))
        .map(|(number, _)| Change { address: address + (number * BLOCK) as u64, len: BLOCK })
        .collect())
}

/// Pages of constants that are not what they were.
pub(crate) fn changed_constants(
    guest: &impl Guest,
    kernel: &Kernel,
    baseline: &Baseline,
) -> Result<Vec<Change>, NotFound> {
    let (start, count) = pages(kernel, "__start_rodata", "__end_rodata")?;
    let now = guest.hash_pages(kernel.physical_of(start), count)?;
    let changes = differences(&now, &baseline.constants);
    Ok(changes.map(|page| Change { address: start + page as u64 * PAGE, len: PAGE as usize }).collect())
}

fn differences<'a>(now: &'a [u64], then: &'a [u64]) -> impl Iterator<Item = usize> + 'a {
    now.iter().enumerate().filter(|(page, hash)| then.get(*page) != Some(hash)).map(|(page, _)| page)
}

/// FNV-1a over eight bytes at a time: it only has to be cheap here, the pages' hashes are the strong ones.
fn hash(bytes: &[u8]) -> u32 {
    let mut state: u64 = 0xcbf2_9ce4_8422_2325;
    for word in bytes.chunks(8) {
        let mut whole = [0; 8];
        whole[..word.len()].copy_from_slice(word);
        state = (state ^ u64::from_le_bytes(whole)).wrapping_mul(0x0000_0100_0000_01b3);
        state ^= state >> 29;
    }
    (state ^ (state >> 32)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(target: Option<u64>) -> Sites {
        Sites(vec![Site { address: 0x1004, target }])
    }

    fn blanked(sites: &Sites, bytes: &[u8]) -> bool {
        let mut code = [0xaa; 16];
        code[4..4 + bytes.len()].copy_from_slice(bytes);
        let before = code;
        sites.blank(&mut code, 0x1000);
        code != before
    }

    #[test]
    fn a_static_key_may_be_a_gap_or_the_jump_to_its_own_target_only() {
        let key = site(Some(0x1049));
        assert!(blanked(&key, &NOP5) && blanked(&key, &NOP2));
        assert!(blanked(&key, &[JUMP, 0x40, 0, 0, 0]));
        assert!(!blanked(&key, &[JUMP, 0x41, 0, 0, 0]));
        assert!(blanked(&key, &[SHORT_JUMP, 0x43]));
        assert!(!blanked(&key, &[SHORT_JUMP, 0x40]));
        assert!(!blanked(&key, &[CALL, 0x40, 0, 0, 0]) && !blanked(&key, &[0xcc, 0, 0, 0, 0]));
    }

    #[test]
    fn a_static_call_may_be_a_call_and_nothing_else() {
        let call = site(None);
        assert!(blanked(&call, &[CALL, 1, 2, 3, 4]) && blanked(&call, &ZERO5[0]) && blanked(&call, &NOP5));
        assert!(!blanked(&call, &[0xcc, 1, 2, 3, 4]) && !blanked(&call, &[0xff, 0x15, 0, 0, 0]));
    }

    #[test]
    fn a_site_across_the_end_of_what_was_read_is_left() {
        let mut code = [0xaa; 6];
        site(None).blank(&mut code, 0x1000);
        assert_eq!(code, [0xaa; 6]);
    }
}
