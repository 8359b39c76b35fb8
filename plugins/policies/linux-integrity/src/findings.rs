//! What was seen, in the contract's words.

use crate::kallsyms::Symbol;
use crate::kernel::{Kernel, nearest};
use crate::tables::Changed;
use crate::tasks::Hidden;
use crate::text::Change;
use plugins_sdk::introspection::{Evidence, Finding};
use std::collections::BTreeMap;

pub(crate) const CODE: &str = "linux/kernel-code-changed";
pub(crate) const CONSTANTS: &str = "linux/kernel-constants-changed";
pub(crate) const CALLS: &str = "linux/system-call-table-changed";
pub(crate) const INTERRUPTS: &str = "linux/interrupt-table-changed";
pub(crate) const PROCESS: &str = "linux/process-hidden";
pub(crate) const RESTARTED: &str = "linux/kernel-replaced";

const HIGH: u8 = 3;
const CRITICAL: u8 = 4;
const MEDIUM: u8 = 2;
/// Findings of one rule; more are told as a number.
const EACH_MAX: usize = 32;
const EVIDENCE_MAX: usize = 32;

fn finding(rule: &str, severity: u8, confidence: f32, what: &str, title: String) -> Finding {
    let mut fingerprint = format!("{rule} {what}");
    fingerprint.truncate(fingerprint.floor_char_boundary(128));
    Finding {
        rule: rule.to_owned(),
        severity,
        confidence,
        title,
        fingerprint,
        evidence: Vec::new(),
        proposals: ["alert", "checkpoint", "isolate"].map(str::to_owned).to_vec(),
    }
}

fn memory(address: u64, text: String, bytes: Vec<u8>) -> Evidence {
    Evidence { kind: "memory".to_owned(), address: Some(address), text, bytes }
}

/// One finding for each function that changed.
pub(crate) fn code(
    changes: &[Change],
    symbols: &[Symbol],
    mut bytes: impl FnMut(&Change) -> Vec<u8>,
) -> Vec<Finding> {
    let mut by_function: BTreeMap<String, Vec<&Change>> = BTreeMap::new();
    for change in changes {
        let name = nearest(symbols, change.address);
        let function = name.split('+').next().unwrap_or_default().to_owned();
        by_function.entry(function).or_default().push(change);
    }
    let told = by_function.into_iter().take(EACH_MAX).map(|(function, changes)| {
        let title = format!("the kernel's code changed in or behind {function}");
        let mut found = finding(CODE, CRITICAL, 0.95, &function, title);
        found.evidence = changes
            .iter()
            .take(EVIDENCE_MAX)
            .map(|change| {
                let text = format!(
                    "{} bytes at {} are not what they were when the kernel had started",
                    change.len,
                    nearest(symbols, change.address)
                );
                memory(change.address, text, bytes(change))
            })
            .collect();
        found
    });
    told.collect()
}

pub(crate) fn constants(changes: &[Change], symbols: &[Symbol]) -> Vec<Finding> {
    let told = changes.iter().take(EACH_MAX).map(|change| {
        let place = nearest(symbols, change.address);
        let title = "the kernel's constants changed".to_owned();
        let mut found = finding(CONSTANTS, CRITICAL, 0.95, &place, format!("{title} near {place}"));
        let text = format!("the page at {place} is not what it was when the kernel had started");
        found.evidence = vec![memory(change.address, text, Vec::new())];
        found
    });
    told.collect()
}

pub(crate) fn calls(changes: &[Changed], symbols: &[Symbol], kernel: &Kernel) -> Vec<Finding> {
    let told = changes.iter().take(EACH_MAX).map(|change| {
        let Changed { table, number, address, now, then } = change;
        let call = then.map_or_else(|| format!("call {number}"), |then| nearest(symbols, then));
        let target = if kernel.is_text(*now) {
            nearest(symbols, *now)
        } else {
            format!("{now:#x}, which is not in the kernel's code")
        };
        let title = match then {
            Some(_) => format!("system call {number} ({call}) leads elsewhere"),
            None => format!("system call {number} of {table} leads to no system call"),
        };
        let mut found = finding(CALLS, CRITICAL, 1.0, &format!("{table}[{number}]"), title);
        let text = format!("{table}[{number}] was {call} and is {target}");
        found.evidence = vec![memory(*address, text, now.to_le_bytes().to_vec())];
        found
    });
    told.collect()
}

pub(crate) fn interrupts(strange: &[(usize, u64)], kernel: &Kernel) -> Vec<Finding> {
    let told = strange.iter().take(EACH_MAX).map(|(number, handler)| {
        let title = format!("interrupt {number} is not handled where it was");
        let mut found = finding(INTERRUPTS, CRITICAL, 0.95, &number.to_string(), title);
        let text = format!("gate {number} leads to {handler:#x}");
        found.evidence = vec![memory(kernel.idt + *number as u64 * 16, text, handler.to_le_bytes().to_vec())];
        found
    });
    told.collect()
}

pub(crate) fn processes(hidden: &[Hidden]) -> Vec<Finding> {
    let told = hidden.iter().take(EACH_MAX).map(|hidden| {
        let process = &hidden.process;
        let (missing, shown) = (hidden.missing.join(" and "), hidden.shown.join(" and "));
        let title = format!("process {} ({}) is hidden", process.pid, process.name);
        let mut found = finding(PROCESS, CRITICAL, 0.95, &process.pid.to_string(), title);
        let text = format!("process {} ({}) is in {shown}, and not in {missing}", process.pid, process.name);
        found.evidence = vec![memory(process.address, text, Vec::new())];
        found
    });
    told.collect()
}

/// The kernel that was known is not there any more.
pub(crate) fn replaced(before: &Kernel, now: &Kernel) -> Finding {
    let title = "another kernel runs than before, without a new start of the guest".to_owned();
    let severity = if before.banner == now.banner { MEDIUM } else { HIGH };
    let mut found = finding(RESTARTED, severity, 0.5, &format!("{:#x}", now.base), title);
    let mut text = format!(
        "before: {} at {:#x}; now: {} at {:#x}; the guest restarted itself, or its kernel was replaced",
        before.banner, before.base, now.banner, now.base
    );
    text.truncate(text.floor_char_boundary(1024));
    found.evidence = vec![Evidence { kind: "note".to_owned(), address: None, text, bytes: Vec::new() }];
    found.proposals = vec!["alert".to_owned()];
    found
}
