//! Tables of addresses that the kernel jumps through: system calls and interrupts.

use crate::kallsyms::Symbol;
use crate::kernel::{self, GATES, Kernel, NotFound};
use crate::kernel_memory::u64_at;
use plugins_sdk::introspection::Guest;
use serde::{Deserialize, Serialize};

/// The tables of system calls, and what the names of what they point at begin with.
const TABLES: [(&str, &str); 3] =
    [("sys_call_table", "__x64_"), ("ia32_sys_call_table", "__ia32_"), ("x32_sys_call_table", "__x64_")];
/// No table is longer.
const ENTRIES_MAX: usize = 1024;

/// One table of system calls, as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) address: u64,
    pub(crate) entries: Vec<u64>,
}

/// An entry that is not what it was, or never was what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) table: String,
    pub(crate) number: usize,
    /// Where the entry is.
    pub(crate) address: u64,
    pub(crate) now: u64,
    /// Absent: it was wrong when it was first seen.
    pub(crate) then: Option<u64>,
}

/// The tables as they are, each up to the symbol behind it, and the entries that point at no system call.
pub(crate) fn read(
    guest: &impl Guest,
    kernel: &Kernel,
    symbols: &[Symbol],
) -> Result<(Vec<Table>, Vec<Changed>), NotFound> {
    let (mut tables, mut wrong) = (Vec::new(), Vec::new());
    for (name, prefix) in TABLES {
        let Ok(address) = kernel.symbol(name) else { continue };
        let behind = symbols.iter().map(|symbol| symbol.address).filter(|other| *other > address).min();
        let len = behind.map_or(0, |behind| (behind - address) as usize / 8).min(ENTRIES_MAX);
        let entries = entries(guest, kernel, address, len)?;
        // Padding up to the next symbol is zero.
        let used = entries.iter().rposition(|entry| *entry != 0).map_or(0, |last| last + 1);
        let entries = entries[..used].to_vec();
        for (number, entry) in entries.iter().enumerate() {
            let right = |symbol: &Symbol| {
                symbol.address == *entry && (symbol.name.starts_with(prefix) || symbol.name.contains("sys_"))
            };
            if !symbols.iter().any(right) {
                let address = address + number as u64 * 8;
                wrong.push(Changed { table: name.to_owned(), number, address, now: *entry, then: None });
            }
        }
        tables.push(Table { name: name.to_owned(), address, entries });
    }
    Ok((tables, wrong))
}

fn entries(guest: &impl Guest, kernel: &Kernel, address: u64, count: usize) -> Result<Vec<u64>, NotFound> {
    let bytes = kernel.memory(guest).bytes(address, count * 8)?;
    Ok((0..count).filter_map(|number| u64_at(&bytes, number * 8)).collect())
}

/// Entries that are not what they were.
pub(crate) fn changed(
    guest: &impl Guest,
    kernel: &Kernel,
    tables: &[Table],
) -> Result<Vec<Changed>, NotFound> {
    let mut changes = Vec::new();
    for table in tables {
        let now = entries(guest, kernel, table.address, table.entries.len())?;
        let pairs = now.iter().zip(&table.entries).enumerate().filter(|(_, (now, then))| now != then);
        changes.extend(pairs.map(|(number, (now, then))| Changed {
            table: table.name.clone(),
            number,
            address: table.address + number as u64 * 8,
            now: *now,
            then: Some(*then),
        }));
    }
    Ok(changes)
}

/// Where each interrupt is handled.
pub(crate) fn interrupts(guest: &impl Guest, kernel: &Kernel) -> Result<Vec<u64>, NotFound> {
    Ok(kernel::handlers(guest, kernel.root, kernel.idt, GATES)?)
}

/// Interrupts that are not handled where they were, or never were by the kernel: number and handler.
pub(crate) fn strange(kernel: &Kernel, now: &[u64], then: &[u64]) -> Vec<(usize, u64)> {
    let ours = |handler: u64| handler == 0 || kernel.is_text(handler) || kernel.is_early_text(handler);
    let all = now.iter().copied().enumerate();
    all.filter(|(number, handler)| !ours(*handler) || then.get(*number) != Some(handler)).collect()
}
