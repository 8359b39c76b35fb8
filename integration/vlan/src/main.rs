//! The first and only process of a guest without a disk: makes VLANs with netd's own planner and kernel layer, and says
//! on the console whether the claim it was booted for holds. `tests/guests.rs` boots it.
#![allow(clippy::unwrap_used, reason = "in a test's helpers a panic is the failure")]
#![allow(clippy::print_stdout, reason = "the console is where the verdict is read")]

mod claims;
mod every;
#[allow(dead_code, reason = "shared with netd's tests in namespaces")]
#[path = "../../../netd/kernel/tests/namespaces/frames.rs"]
mod frames;
mod hosts;
#[allow(dead_code, reason = "shared with netd's tests in namespaces")]
#[path = "../../../netd/kernel/tests/namespaces/namespace.rs"]
mod namespace;
#[allow(dead_code, reason = "shared with netd's tests in namespaces")]
#[path = "../../../netd/kernel/tests/namespaces/world.rs"]
mod world;

use anyhow::{Context as _, anyhow};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::path::Path;

/// What a guest can be booted to show, by the name it is asked for.
const CLAIMS: [(&str, fn()); 6] = [
    ("tags", claims::frames_leave_by_the_trunk_under_their_networks_tag_and_no_other),
    ("hopping", claims::a_guest_that_tags_its_frames_gets_nowhere),
    ("arrival", claims::an_arriving_guest_is_announced_in_its_vlan),
    ("asking", hosts::ask),
    ("answering", hosts::answer),
    ("every", every::every_vlan_of_a_trunk_is_made_and_removed),
];

fn main() {
    if let Err(error) = prepare() {
        println!("cannot prepare the guest: {error:#}");
    } else {
        run();
    }
    let _ = reboot(RebootMode::RB_AUTOBOOT);
}

fn run() {
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let wanted = line.split_whitespace().find_map(|word| word.strip_prefix("claim=")).unwrap_or_default();
    let Some((name, claim)) = CLAIMS.iter().find(|(name, _)| *name == wanted) else {
        println!("no claim is named {wanted:?}");
        return;
    };
    match std::panic::catch_unwind(claim) {
        Ok(()) => println!("claim {name} holds"),
        Err(_) => println!("claim {name} does not hold"),
    }
}

/// File systems, a console, modules.
fn prepare() -> anyhow::Result<()> {
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp")] {
        fs::create_dir_all(at)?;
        mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount {at}"))?;
    }
    let console = OpenOptions::new().read(true).write(true).open("/dev/console")?;
    nix::unistd::dup2_stdin(&console)?;
    nix::unistd::dup2_stdout(&console)?;
    nix::unistd::dup2_stderr(&console)?;
    for name in fs::read_to_string("/modules/order")?.lines() {
        let file = File::open(Path::new("/modules").join(format!("{name}.ko")))
            .with_context(|| format!("module {name}"))?;
        finit_module(&file, &CString::default(), ModuleInitFlags::empty())
            .map_err(|error| anyhow!("module {name}: {error}"))?;
    }
    Ok(())
}
