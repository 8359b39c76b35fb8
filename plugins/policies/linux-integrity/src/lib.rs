//! Compares a Linux guest's kernel with what it was when it had started, and its three views of processes with each
//! other, from outside: x86-64, any kernel that carries its symbols and types (`CONFIG_KALLSYMS_ALL`,
//! `CONFIG_DEBUG_INFO_BTF`), nothing told by anybody.
//!
//! What it does not see: what was there when the guest was first looked at (but a table of system calls that is wrong
//! from the start), modules, data that programs are reached through (function pointers), a static call turned to another
//! of the kernel's own functions, what is undone between two calls, and a guest that restarts itself as somebody else
//! more than as a finding that it did. Grants: `memory` and `cpu`.
//!
//! Start at [`LinuxIntegrity::inspect`]; `kernel.rs` finds the kernel, `text.rs`, `tables.rs` and `tasks.rs` look at it.

mod btf;
mod findings;
mod kallsyms;
mod kernel;
mod kernel_memory;
mod known;
mod tables;
mod tasks;
mod text;

use crate::kallsyms::Symbol;
use crate::kernel::{Kernel, NotFound};
use crate::known::{Facts, Known};
use crate::tables::Changed;
use plugins_sdk::introspection::{Finding, Guest, IntrospectionPolicy, Report, Trigger, ViewError};
use plugins_sdk::{Context, Manifest, Plugin, PolicyError, Reason, SettingsIssue};
use serde::Deserialize;

/// Until the kernel has started, and until a suspicion is looked at again.
const SOON_MS: u64 = 500;
const EVERY_MS: std::ops::RangeInclusive<u64> = 100..=86_400_000;
/// Looks at the processes in one call, of which each must show a process as hidden.
const LOOKS: usize = 3;
const EVIDENCE_BYTES: usize = 64;

/// The policy.
#[derive(Debug)]
pub struct LinuxIntegrity;

/// What the operator may set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Look at the kernel's code and constants.
    pub code: bool,
    /// Look at the tables of system calls and interrupts.
    pub tables: bool,
    /// Look for hidden processes.
    pub processes: bool,
    /// Time to the next look if nothing is suspicious, milliseconds.
    pub every_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { code: true, tables: true, processes: true, every_ms: 10_000 }
    }
}

impl Plugin for LinuxIntegrity {
    type Settings = Settings;

    fn manifest() -> Manifest {
        Manifest {
            name: "linux-integrity",
            version: env!("CARGO_PKG_VERSION"),
            summary: "Compares a Linux guest's kernel with what it was, and its lists of processes with each other.",
            license: "Apache-2.0",
            settings_schema: include_str!("settings.schema.json"),
            default_settings: "{}",
        }
    }

    fn check_settings(settings: &Settings) -> Vec<SettingsIssue> {
        if EVERY_MS.contains(&settings.every_ms) {
            return Vec::new();
        }
        let message = format!("{} is out of range: give 100 to 86400000", settings.every_ms);
        vec![SettingsIssue { path: "/every_ms".to_owned(), message }]
    }
}

impl IntrospectionPolicy for LinuxIntegrity {
    fn inspect(
        settings: &Settings,
        _: &Trigger,
        state: &[u8],
        guest: &impl Guest,
        _: &impl Context,
    ) -> Result<Report, PolicyError> {
        let arch = guest.about().arch;
        if arch != "x86_64" {
            return Err(PolicyError::Unsupported(format!("this policy knows x86_64, not {arch}")));
        }
        let mut round = Round { guest, settings, findings: Vec::new(), reasons: Vec::new(), symbols: None };
        match round.look(Known::from_bytes(state)) {
            Ok((known, suspicious)) => Ok(Report {
                findings: round.findings,
                reasons: round.reasons,
                next_call_ms: if suspicious { SOON_MS } else { settings.every_ms },
                state: known.to_bytes(),
            }),
            Err(NotFound::View(ViewError::Denied(why))) => Err(PolicyError::BadSettings(why)),
            Err(NotFound::View(error)) => Err(PolicyError::Internal(error.to_string())),
            // Nothing was wrong that could be seen, and nothing new is known.
            Err(NotFound::Torn) => {
                round.say("not-checked", "the guest's memory changed while it was read".to_owned());
                Ok(round.nothing(state))
            }
            Err(NotFound::Missing(what)) => {
                round.say("not-checked", what);
                Ok(round.nothing(state))
            }
        }
    }
}

/// One call.
struct Round<'a, G> {
    guest: &'a G,
    settings: &'a Settings,
    findings: Vec<Finding>,
    reasons: Vec<Reason>,
    /// Read when something is to be named.
    symbols: Option<Vec<Symbol>>,
}

impl<G: Guest> Round<'_, G> {
    /// What is known after it, and whether to look again soon.
    fn look(&mut self, before: Option<Known>) -> Result<(Known, bool), NotFound> {
        let mut known = match before {
            Some(known) if self.is_there(&known.facts.kernel) => known,
            other => {
                let (kernel, symbols) = kernel::find(self.guest)?;
                if let Some(before) = other {
                    self.findings.push(findings::replaced(&before.facts.kernel, &kernel));
                }
                if !kernel::is_running(self.guest, &kernel)? {
                    return Err(NotFound::Missing("the kernel has not finished its start".to_owned()));
                }
                self.meet(kernel, symbols)?
            }
        };
        if self.settings.tables {
            self.tables(&known)?;
        }
        if self.settings.code {
            self.code(&known)?;
        }
        let mut suspicious = false;
        if self.settings.processes {
            let suspects = self.processes(&known.facts)?;
            suspicious = suspects.iter().any(|suspect| !known.facts.suspects.contains(suspect));
            known.facts.suspects = suspects;
        }
        Ok((known, suspicious))
    }

    /// Whether the kernel that is known still is the one that runs.
    fn is_there(&self, kernel: &Kernel) -> bool {
        kernel::banner(self.guest, kernel).is_ok_and(|banner| banner == kernel.banner)
            && kernel::handlers(self.guest, kernel.root, kernel.idt, 1).is_ok()
    }

    /// Takes down what is, to compare with later.
    fn meet(&mut self, kernel: Kernel, mut symbols: Vec<Symbol>) -> Result<Known, NotFound> {
        symbols.sort_by_key(|symbol| symbol.address);
        let (tables, wrong) = tables::read(self.guest, &kernel, &symbols)?;
        let sites = text::Sites::read(self.guest, &kernel, text::trampolines(&symbols))?;
        let interrupts = tables::interrupts(self.guest, &kernel)?;
        let baseline = text::baseline(self.guest, &kernel, &sites)?;
        self.say("kernel-met", format!("{} at {:#x}", kernel.banner, kernel.base));
        self.symbols = Some(symbols);
        let wrong = wrong.into_iter().map(|entry| (entry.table, entry.number, entry.now)).collect();
        Ok(Known { facts: Facts { kernel, tables, wrong, interrupts, ..Facts::default() }, baseline })
    }

    fn tables(&mut self, known: &Known) -> Result<(), NotFound> {
        let kernel = &known.facts.kernel;
        let mut changed = tables::changed(self.guest, kernel, &known.facts.tables)?;
        for (table, number, now) in &known.facts.wrong {
            let Some(place) = known.facts.tables.iter().find(|place| place.name == *table) else { continue };
            let address = place.address + *number as u64 * 8;
            changed.push(Changed { table: table.clone(), number: *number, address, now: *now, then: None });
        }
        let now = tables::interrupts(self.guest, kernel)?;
        let strange = tables::strange(kernel, &now, &known.facts.interrupts);
        if !changed.is_empty() {
            let symbols = self.named(kernel)?;
            let found = findings::calls(&changed, symbols, kernel);
            self.findings.extend(found);
        }
        self.findings.extend(findings::interrupts(&strange, kernel));
        let entries: usize = known.facts.tables.iter().map(|table| table.entries.len()).sum();
        self.say("tables-checked", format!("{entries} system calls and {} interrupts", kernel::GATES));
        Ok(())
    }

    fn code(&mut self, known: &Known) -> Result<(), NotFound> {
        let (guest, kernel) = (self.guest, &known.facts.kernel);
        let mut symbols = self.symbols.take();
        let changes = text::changed_text(guest, kernel, &known.baseline, || {
            if symbols.is_none() {
                symbols = Some(kernel.all_symbols(guest)?);
            }
            text::Sites::read(guest, kernel, text::trampolines(symbols.as_deref().unwrap_or_default()))
        })?;
        self.symbols = symbols;
        let tables = &known.facts.tables;
        let of_tables = |start: u64, len: usize| {
            let behind = |table: &tables::Table| table.address + table.entries.len() as u64 * 8;
            tables.iter().any(|table| table.address < start + len as u64 && behind(table) > start)
        };
        let mut constants = text::changed_constants(guest, kernel, &known.baseline)?;
        // A changed table is told entry by entry.
        let told = self.findings.iter().any(|finding| finding.rule == findings::CALLS);
        constants.retain(|change| !(told && of_tables(change.address, change.len)));
        let (pages, fixed) = (known.baseline.text.len(), known.baseline.constants.len());
        if !changes.is_empty() || !constants.is_empty() {
            let symbols = self.named(kernel)?;
            let bytes = |change: &text::Change| {
                kernel.memory(guest).bytes(change.address, EVIDENCE_BYTES).unwrap_or_default()
            };
            let mut found = findings::code(&changes, symbols, bytes);
            found.extend(findings::constants(&constants, symbols));
            self.findings.extend(found);
        }
        self.say("code-checked", format!("{pages} pages of code and {fixed} of constants"));
        Ok(())
    }

    /// Who was hidden in every look of this call; told as a finding who was so in the call before as well.
    fn processes(&mut self, facts: &Facts) -> Result<Vec<(u64, u32)>, NotFound> {
        let mut looks = 0;
        let mut hidden: Option<Vec<tasks::Hidden>> = None;
        let mut count = 0;
        for _ in 0..LOOKS {
            let views = match tasks::look(self.guest, &facts.kernel) {
                Err(NotFound::Torn) => continue,
                views => views?,
            };
            looks += 1;
            count = views.count();
            let now = views.hidden();
            let left = match hidden.take() {
                None => now,
                Some(mut before) => {
                    before.retain(|old| {
                        now.iter().any(|new| new.process == old.process && new.missing == old.missing)
                    });
                    before
                }
            };
            let none = left.is_empty();
            hidden = Some(left);
            if none {
                break;
            }
        }
        let Some(hidden) = hidden else { return Err(NotFound::Torn) };
        // A guest that stands still cannot be on its way to anything.
        let sure = self.guest.about().paused;
        let suspect = |hidden: &tasks::Hidden| (hidden.process.address, hidden.process.pid);
        let known: Vec<tasks::Hidden> = hidden
            .iter()
            .filter(|hidden| sure || facts.suspects.contains(&suspect(hidden)))
            .cloned()
            .collect();
        self.findings.extend(findings::processes(&known));
        self.say("processes-checked", format!("{count} processes in three views, {looks} looks"));
        Ok(hidden.iter().map(suspect).collect())
    }

    fn named(&mut self, kernel: &Kernel) -> Result<&[Symbol], NotFound> {
        let symbols = match self.symbols.take() {
            Some(symbols) => symbols,
            None => kernel.all_symbols(self.guest)?,
        };
        Ok(self.symbols.insert(symbols))
    }

    fn say(&mut self, code: &str, text: String) {
        self.reasons.push(Reason::plain(code, text));
    }

    fn nothing(self, state: &[u8]) -> Report {
        Report {
            findings: self.findings,
            reasons: self.reasons,
            next_call_ms: SOON_MS,
            state: state.to_vec(),
        }
    }
}

plugins_sdk::export_introspection!(LinuxIntegrity);

#[cfg(test)]
mod tests;
