#![expect(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]
#![expect(clippy::print_stdout, reason = "figures are printed")]
//! `linux-integrity` sees nothing in a clean guest, and what is done to it from outside within a look or two.

mod guest;
#[path = "../../../controller/hypervisor/tests/private_libvirtd/mod.rs"]
#[allow(dead_code, reason = "some of it is for the tests beside it")]
mod private_libvirtd;

use guest::{Guest, Kernel};
use plugins_runtime::introspection::{Finding, Report, Severity};
use std::time::{Duration, Instant};

/// A system call that the guest does not use while it is watched: `reboot`.
const CALL: u64 = 169;
/// Looks until a suspicion is a finding.
const LOOKS_MAX: usize = 6;
const BOOT_TIMEOUT: Duration = Duration::from_secs(240);

/// Looks until `wanted` says so.
fn look_until(guest: &mut Guest, wanted: impl Fn(&Report) -> bool) -> Report {
    let mut last = None;
    for _ in 0..LOOKS_MAX {
        let report = guest.look();
        if wanted(&report) {
            return report;
        }
        // What the policy asks for: another look a moment later.
        guest.wait(Duration::from_millis(report.next_call_ms.min(500)));
        last = Some(report);
    }
    panic!("after {LOOKS_MAX} looks: {last:?}");
}

fn rules(report: &Report) -> Vec<&str> {
    report.findings.iter().map(|finding| finding.rule.as_str()).collect()
}

fn only(report: &Report, rule: &str) -> Finding {
    assert_eq!(rules(report), [rule], "{report:?}");
    assert_eq!(report.findings[0].severity, Severity::Critical);
    report.findings[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_a_kernel_is_seen_and_a_clean_one_gives_no_finding() {
    let mut guest = Guest::boot().await;
    let deadline = Instant::now() + BOOT_TIMEOUT;
    let met = loop {
        let report = guest.look();
        if report.reasons.iter().any(|reason| reason.code == "kernel-met") {
            break report;
        }
        assert!(Instant::now() < deadline, "no kernel: {report:?}");
        guest.wait(Duration::from_millis(500));
    };
    println!("figure first_look_ms {} ms", guest.took_us / 1000);
    assert_eq!(rules(&met), [""; 0], "{met:?}");
    let mut took = Vec::new();
    for _ in 0..10 {
        let report = guest.look();
        assert_eq!(rules(&report), [""; 0], "{report:?}");
        took.push(guest.took_us);
        guest.wait(Duration::from_millis(200));
    }
    took.sort_unstable();
    println!("figure look_ms {} ms", took[5] / 1000);

    let kernel = guest.kernel();
    a_changed_system_call_is_named(&mut guest, &kernel);
    a_task_off_the_list_is_named(&mut guest, &kernel);
    changed_code_is_named(&mut guest, &kernel);
    guest.stop().await;
}

fn a_changed_system_call_is_named(guest: &mut Guest, kernel: &Kernel) {
    let entry = kernel.symbol("sys_call_table") + CALL * 8;
    let before = guest.number(kernel, entry);
    let elsewhere = guest.number(kernel, kernel.symbol("sys_call_table"));
    guest.put(kernel, entry, elsewhere);
    let done = Instant::now();
    let report = look_until(guest, |report| !report.findings.is_empty());
    println!("figure call_seen_after_ms {} ms", done.elapsed().as_millis());
    let finding = only(&report, "linux/system-call-table-changed");
    assert_eq!(finding.evidence[0].address, Some(entry));
    assert_eq!(finding.evidence[0].bytes, elsewhere.to_le_bytes());
    assert!(finding.title.contains("169") && finding.title.contains("reboot"), "{}", finding.title);
    guest.put(kernel, entry, before);
    look_until(guest, |report| report.findings.is_empty());
}

fn a_task_off_the_list_is_named(guest: &mut Guest, kernel: &Kernel) {
    let tasks = kernel.offset("task_struct.tasks");
    let (task, pid) = guest.task(kernel, "kswapd0");
    let next = guest.number(kernel, task + tasks);
    let previous = guest.number(kernel, task + tasks + 8);
    guest.put(kernel, previous, next);
    guest.put(kernel, next + 8, previous);
    let done = Instant::now();
    let report = look_until(guest, |report| !report.findings.is_empty());
    println!("figure process_seen_after_ms {} ms", done.elapsed().as_millis());
    let finding = only(&report, "linux/process-hidden");
    assert_eq!(finding.title, format!("process {pid} (kswapd0) is hidden"));
    assert_eq!(finding.evidence[0].address, Some(task));
    assert!(finding.evidence[0].text.contains("and not in the list of tasks"), "{:?}", finding.evidence);
    guest.put(kernel, previous, task + tasks);
    guest.put(kernel, next + 8, task + tasks);
    look_until(guest, |report| report.findings.is_empty());
}

fn changed_code_is_named(guest: &mut Guest, kernel: &Kernel) {
    // The last bytes of the code are run by nobody.
    let place = kernel.symbol("_etext") - 16;
    let before = guest.number(kernel, place);
    guest.put(kernel, place, before ^ 0xff);
    let report = look_until(guest, |report| !report.findings.is_empty());
    let finding = only(&report, "linux/kernel-code-changed");
    let block = finding.evidence[0].address.unwrap();
    assert!((block..block + 256).contains(&place), "{block:#x} {place:#x}");
    guest.put(kernel, place, before);
    look_until(guest, |report| report.findings.is_empty());
}
