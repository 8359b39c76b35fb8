//! What is on the machine itself: compared before and after, so that nothing is left behind.

use anyhow::Context as _;
use std::collections::BTreeSet;
use std::path::Path;

/// Links, namespaces, mounts and processes of the machine, and whether the state folder exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    items: BTreeSet<String>,
}

impl Machine {
    /// Looks now.
    pub(crate) fn observe(state: &Path) -> anyhow::Result<Self> {
        let mut items = BTreeSet::new();
        for entry in std::fs::read_dir("/sys/class/net").context("list links")? {
            items.insert(format!("link {}", entry?.file_name().to_string_lossy()));
        }
        for line in std::fs::read_to_string("/proc/self/mountinfo").context("list mounts")?.lines() {
            let target = line.split(' ').nth(4).unwrap_or_default();
            items.insert(format!("mount {target}"));
        }
        if let Ok(entries) = std::fs::read_dir("/run/netns") {
            items.extend(
                entries.flatten().map(|e| format!("named namespace {}", e.file_name().to_string_lossy())),
            );
        }
        items.extend(processes(state));
        if state.exists() {
            items.insert(format!("folder {}", state.display()));
        }
        Ok(Self { items })
    }

    /// What is here and was not there.
    pub(crate) fn added_since(&self, before: &Self) -> Vec<String> {
        self.items.difference(&before.items).cloned().collect()
    }

    /// What was there and is not here.
    pub(crate) fn lost_since(&self, before: &Self) -> Vec<String> {
        before.items.difference(&self.items).filter(|item| !item.starts_with("process")).cloned().collect()
    }
}

/// Processes that were told of the state folder, and every network namespace that some process lives in.
fn processes(state: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let own = std::process::id().to_string();
    let Ok(entries) = std::fs::read_dir("/proc") else { return found };
    for entry in entries.flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if pid == own || !pid.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&arguments).contains(&*state.to_string_lossy()) {
            found.push(format!("process {pid} {}", name.trim()));
        }
        if let Ok(namespace) = std::fs::read_link(entry.path().join("ns/net")) {
            found.push(format!("network namespace {}", namespace.display()));
        }
    }
    found
}
