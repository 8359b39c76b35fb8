//! Finds a guest's kernel from outside, once a boot: where it is, its symbols and the shapes of its structures.
//!
//! Nothing is told by anybody. The interrupt table points into the kernel's code; the page tables say where the image
//! begins; the image holds its own symbols and types. What is found is kept in the policy's state, outside of the guest:
//! what changes inside later does not lead the policy elsewhere.

use crate::kallsyms::{self, Kallsyms, Symbol};
use crate::kernel_memory::{KernelMemory, u16_at, u32_at};
use crate::{btf, tasks};
use plugins_sdk::introspection::{Guest, ViewError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Lowest address of kernel images and modules on x86-64.
const IMAGES_START: u64 = 0xffff_ffff_8000_0000;
/// Images are mapped by, and begin at, large pages.
const LARGE_PAGE: u64 = 2 << 20;
/// No image is larger.
const IMAGE_LEN_MAX: u64 = 128 << 20;
/// Symbols, with everything about them, lie this near to their tokens.
const SYMBOLS_BEFORE: u64 = 8 << 20;
const SYMBOLS_BEHIND: u64 = 2 << 20;
/// Tokens and their index are nearer than this to the digits.
const NEAR: u64 = 8 << 10;
const BTF_LEN_MAX: u64 = 24 << 20;
/// Places that look like digits in a row.
const PLACES_MAX: u32 = 256;
/// Bits of CR3 that are an address, without the one that tells a user's tables from the kernel's beside them.
const ROOTS: u64 = 0x000f_ffff_ffff_f000;
const USER_ROOT: u64 = 0x1000;
pub(crate) const GATE_LEN: usize = 16;
/// Interrupts, of which the first 32 are the processor's own.
pub(crate) const GATES: usize = 256;
/// `enum system_states`: before it, the kernel still changes its own code.
pub(crate) const SYSTEM_RUNNING: u32 = 3;

const WANTED: [&str; 20] = [
    "_sinittext",
    "_einittext",
    "_stext",
    "_etext",
    "__start_rodata",
    "__end_rodata",
    "__start___jump_table",
    "__stop___jump_table",
    "__start_static_call_sites",
    "__stop_static_call_sites",
    "__start_BTF",
    "__stop_BTF",
    "init_top_pgt",
    "system_state",
    "linux_banner",
    "sys_call_table",
    "ia32_sys_call_table",
    "x32_sys_call_table",
    "init_task",
    "init_pid_ns",
];

/// Why a kernel is not found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotFound {
    /// Not yet, or not a kernel of this kind; the sentence says what is missing.
    Missing(String),
    /// A structure changed while it was read: another look may succeed.
    Torn,
    /// The views do not show it.
    View(ViewError),
}

impl From<ViewError> for NotFound {
    fn from(error: ViewError) -> Self {
        Self::View(error)
    }
}

/// A kernel, as it was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kernel {
    /// Physical address of its own page tables.
    pub(crate) root: u64,
    /// Virtual address of its image.
    pub(crate) base: u64,
    /// Physical address of its image.
    pub(crate) physical: u64,
    pub(crate) banner: String,
    pub(crate) symbols: BTreeMap<String, u64>,
    /// By `structure.member`.
    pub(crate) offsets: BTreeMap<String, u64>,
    /// Interrupt table.
    pub(crate) idt: u64,
    /// Physical address of the tokens of its symbols, by which they are found again.
    pub(crate) tokens: u64,
}

impl Kernel {
    pub(crate) fn symbol(&self, name: &str) -> Result<u64, NotFound> {
        let missing = || NotFound::Missing(format!("the kernel has no symbol {name}"));
        self.symbols.get(name).copied().ok_or_else(missing)
    }

    pub(crate) fn offset(&self, name: &str) -> Result<u64, NotFound> {
        let missing = || NotFound::Missing(format!("the kernel's types have no {name}"));
        self.offsets.get(name).copied().ok_or_else(missing)
    }

    pub(crate) fn physical_of(&self, address: u64) -> u64 {
        address.wrapping_sub(self.base).wrapping_add(self.physical)
    }

    pub(crate) fn memory<'a, G: Guest>(&self, guest: &'a G) -> KernelMemory<'a, G> {
        KernelMemory { guest, root: self.root }
    }

    /// Whether an address is in the kernel's own code.
    pub(crate) fn is_text(&self, address: u64) -> bool {
        self.is_between("_stext", "_etext", address)
    }

    /// Whether an address is in the code that the kernel drops when it has started; some unused gates lead there.
    pub(crate) fn is_early_text(&self, address: u64) -> bool {
        self.is_between("_sinittext", "_einittext", address)
    }

    fn is_between(&self, from: &str, to: &str, address: u64) -> bool {
        let at = |name: &str| self.symbols.get(name).copied().unwrap_or(0);
        (at(from)..at(to)).contains(&address)
    }

    /// Every symbol by address; read anew, for what is read is large.
    pub(crate) fn all_symbols(&self, guest: &impl Guest) -> Result<Vec<Symbol>, NotFound> {
        let mut all = symbols_at(guest, self.base, self.physical, self.tokens)?
            .ok_or_else(|| NotFound::Missing("the kernel's symbols are not where they were".to_owned()))?;
        all.sort_by_key(|symbol| symbol.address);
        Ok(all)
    }
}

/// `name+0x10` of the last symbol before an address, if all symbols are sorted by address.
pub(crate) fn nearest(symbols: &[Symbol], address: u64) -> String {
    let behind = symbols.partition_point(|symbol| symbol.address <= address);
    match behind.checked_sub(1).and_then(|index| symbols.get(index)) {
        Some(symbol) if symbol.address == address => symbol.name.clone(),
        Some(symbol) if symbol.address >= IMAGES_START => {
            format!("{}+{:#x}", symbol.name, address - symbol.address)
        }
        _ => format!("{address:#x}"),
    }
}

/// Finds the kernel that runs now.
pub(crate) fn find(guest: &impl Guest) -> Result<(Kernel, Vec<Symbol>), NotFound> {
    let registers = guest.registers(0, &["cr3", "idt.base"])?;
    let [cr3, idt] = registers[..] else {
        return Err(NotFound::Missing("registers were asked for and not given".to_owned()));
    };
    // A processor that runs a program may be on tables that show little of the kernel; the kernel's are beside them.
    let mut missing = "the interrupt table does not lead to a kernel's image";
    for root in [cr3 & ROOTS & !USER_ROOT, cr3 & ROOTS] {
        let handler = handlers(guest, root, idt, 1).ok().and_then(|handlers| handlers.first().copied());
        let Some((base, physical)) = handler.and_then(|handler| image(guest, root, handler)) else {
            continue;
        };
        missing = "the kernel's image holds no symbols (CONFIG_KALLSYMS)";
        let places =
            guest.search(physical, image_len(guest, physical)?, &kallsyms::digits(), &[], PLACES_MAX)?;
        for place in places {
            if let Some(symbols) = symbols_at(guest, base, physical, place)? {
                let found = Kernel { base, physical, idt, tokens: place, ..Kernel::default() };
                return complete(guest, found, symbols);
            }
        }
    }
    Err(NotFound::Missing(missing.to_owned()))
}

/// What its symbols and types say of a kernel.
fn complete(
    guest: &impl Guest,
    mut kernel: Kernel,
    all: Vec<Symbol>,
) -> Result<(Kernel, Vec<Symbol>), NotFound> {
    kernel.symbols = kallsyms::by_name(&all, &WANTED);
    kernel.root = kernel.physical_of(kernel.symbol("init_top_pgt")?);
    kernel.banner = banner(guest, &kernel)?;
    kernel.offsets = offsets(guest, &kernel)?;
    Ok((kernel, all))
}

/// The kernel's words about itself, by which it is known again.
pub(crate) fn banner(guest: &impl Guest, kernel: &Kernel) -> Result<String, NotFound> {
    let bytes = guest.read(kernel.physical_of(kernel.symbol("linux_banner")?), 512)?;
    let text = bytes.split(|byte| *byte == 0 || *byte == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// Whether the kernel has finished its start.
pub(crate) fn is_running(guest: &impl Guest, kernel: &Kernel) -> Result<bool, NotFound> {
    let state = guest.read(kernel.physical_of(kernel.symbol("system_state")?), 4)?;
    Ok(u32_at(&state, 0) == Some(SYSTEM_RUNNING))
}

/// Where the first interrupts are handled.
pub(crate) fn handlers(guest: &impl Guest, root: u64, idt: u64, count: usize) -> Result<Vec<u64>, ViewError> {
    let gates = KernelMemory { guest, root }.bytes(idt, count * GATE_LEN)?;
    let handler = |gate: &[u8]| {
        let (low, middle, high) = (u16_at(gate, 0)?, u16_at(gate, 6)?, u32_at(gate, 8)?);
        Some(u64::from(high) << 32 | u64::from(middle) << 16 | u64::from(low))
    };
    Ok(gates.chunks_exact(GATE_LEN).filter_map(handler).collect())
}

/// Virtual and physical address of the image that holds an address: what lies below is not mapped.
fn image(guest: &impl Guest, root: u64, within: u64) -> Option<(u64, u64)> {
    let mut base = within & !(LARGE_PAGE - 1);
    if base < IMAGES_START {
        return None;
    }
    let mut physical = guest.translate(root, base).ok()?;
    while within - base < IMAGE_LEN_MAX {
        match guest.translate(root, base - LARGE_PAGE) {
            Ok(below) if below + LARGE_PAGE == physical => (base, physical) = (base - LARGE_PAGE, below),
            _ => return Some((base, physical)),
        }
    }
    None
}

/// RAM from the image's start on, of which the image is a part.
fn image_len(guest: &impl Guest, physical: u64) -> Result<u64, NotFound> {
    let regions = guest.regions()?;
    let region = regions.iter().find(|(start, len)| (*start..start + len).contains(&physical));
    let (start, len) =
        region.ok_or_else(|| NotFound::Missing("the kernel's image is not in RAM".to_owned()))?;
    Ok((start + len - physical).min(IMAGE_LEN_MAX))
}

/// The symbols whose tokens' digits are at a physical place.
fn symbols_at(
    guest: &impl Guest,
    base: u64,
    physical: u64,
    place: u64,
) -> Result<Option<Vec<Symbol>>, NotFound> {
    // The parts are aligned, so what is read begins at whole pages.
    let before = |len: u64| (place.saturating_sub(len) / 4096 * 4096).max(physical);
    let near = physical_bytes(guest, before(NEAR), NEAR * 2)?;
    if !kallsyms::looks_like_tokens(&near, (place - before(NEAR)) as usize) {
        return Ok(None);
    }
    let start = before(SYMBOLS_BEFORE);
    let len = (place - start + SYMBOLS_BEHIND).min(image_len(guest, start)?);
    let window = physical_bytes(guest, start, len)?;
    let table = Kallsyms::find(&window, base, &[(place - start) as usize]);
    Ok(table.map(|table| table.symbols().collect()))
}

fn physical_bytes(guest: &impl Guest, start: u64, len: u64) -> Result<Vec<u8>, ViewError> {
    const PART: u64 = 1 << 20;
    let mut bytes = Vec::with_capacity(len as usize);
    while (bytes.len() as u64) < len {
        let done = bytes.len() as u64;
        bytes.extend(guest.read(start + done, PART.min(len - done) as u32)?);
    }
    Ok(bytes)
}

fn offsets(guest: &impl Guest, kernel: &Kernel) -> Result<BTreeMap<String, u64>, NotFound> {
    let (Ok(start), Ok(stop)) = (kernel.symbol("__start_BTF"), kernel.symbol("__stop_BTF")) else {
        return Ok(BTreeMap::new());
    };
    let len = stop.saturating_sub(start).min(BTF_LEN_MAX);
    let btf = physical_bytes(guest, kernel.physical_of(start), len)?;
    Ok(btf::offsets(&btf, &tasks::MEMBERS).unwrap_or_default())
}
