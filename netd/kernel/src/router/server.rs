//! A router's servers: one dnsmasq, which puts itself into the background and gives its privileges away.

use super::{RouterError, file_error};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::stat;
use nix::unistd::Pid;
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{fs, io};
use tokio::process::Command;
use tokio::runtime::Handle;

const PID_FILE: &str = "pid";
const LEASES_FILE: &str = "leases";
const CONFIG_SUFFIX: &str = ".conf";
const CONFIG_FLAG: &str = "--conf-file=";
/// Longest time until it serves.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time between a signal and its end.
const END_TIMEOUT: Duration = Duration::from_secs(3);
const END_POLL: Duration = Duration::from_millis(5);
/// How often those that run are looked at; a look is a read of a file each.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(500);

fn config_path(files: &Path, config: &str) -> PathBuf {
    files.join(format!("{}{CONFIG_SUFFIX}", hex::encode(&Sha256::digest(config)[..16])))
}

/// Starts it in the namespace of the calling thread; it serves once this returns.
pub(super) fn start(files: &Path, config: &str, runtime: &Handle) -> Result<(), RouterError> {
    fs::create_dir_all(files).map_err(file_error(files))?;
    let path = config_path(files, config);
    for old in super::entries(files)?.iter().filter(|name| name.ends_with(CONFIG_SUFFIX)) {
        let old = files.join(old);
        fs::remove_file(&old).map_err(file_error(&old))?;
    }
    fs::write(&path, config).map_err(file_error(&path))?;
    let argument = |flag: &str, path: &Path| {
        let mut words = std::ffi::OsString::from(flag);
        words.push(path);
        words
    };
    // Polled by this thread, so that the child is born in this thread's namespace.
    let work = async {
        Command::new("dnsmasq")
            .arg(argument(CONFIG_FLAG, &path))
            .arg(argument("--pid-file=", &files.join(PID_FILE)))
            .arg(argument("--dhcp-leasefile=", &files.join(LEASES_FILE)))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .output()
            .await
    };
    let ended = runtime.block_on(async { tokio::time::timeout(START_TIMEOUT, work).await });
    let failed = |source| RouterError::Run { program: "dnsmasq", package: "dnsmasq-base", source };
    let output = ended.map_err(|_| RouterError::Timeout("dnsmasq"))?.map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(RouterError::Refused { program: "dnsmasq", words })
}

/// The configuration of the one that runs in this namespace.
pub(super) fn running(files: &Path, namespace: (u64, u64)) -> Option<String> {
    let pid = pid(files)?;
    let path = config_of(pid, files)?;
    let own = stat(format!("/proc/{pid}/ns/net").as_str()).ok()?;
    let config = fs::read_to_string(&path).ok()?;
    let current = (own.st_dev, own.st_ino) == namespace && path == config_path(files, &config);
    current.then_some(config)
}

/// The process that it says it is.
pub(super) fn pid(files: &Path) -> Option<i32> {
    fs::read_to_string(files.join(PID_FILE)).ok()?.trim().parse().ok()
}

/// Whether that process is still one of this router's.
pub(super) fn is_running(pid: i32, files: &Path) -> bool {
    config_of(pid, files).is_some()
}

/// The configuration that a process of ours was started with; none for other processes and dead ones.
fn config_of(pid: i32, files: &Path) -> Option<PathBuf> {
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let flag = command.split(|byte| *byte == 0).find_map(|word| word.strip_prefix(CONFIG_FLAG.as_bytes()))?;
    let path = PathBuf::from(String::from_utf8(flag.to_vec()).ok()?);
    (path.parent() == Some(files)).then_some(path)
}

/// Ends all that were ever started for this router, also those that lost their file.
pub(super) async fn stop(files: &Path) -> Result<(), RouterError> {
    if !files.exists() {
        return Ok(());
    }
    let pids = super::entries(Path::new("/proc"))?;
    let ours =
        pids.iter().filter_map(|name| name.parse().ok()).filter(|pid| config_of(*pid, files).is_some());
    for pid in ours.collect::<Vec<i32>>() {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(pid), signal);
            if has_ended(pid, files).await {
                break;
            }
        }
    }
    let path = files.join(PID_FILE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file_error(&path)(error)),
        _ => Ok(()),
    }
}

async fn has_ended(pid: i32, files: &Path) -> bool {
    let deadline = Instant::now() + END_TIMEOUT;
    while config_of(pid, files).is_some() {
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(END_POLL).await;
    }
    true
}

/// How many leases are given out now.
pub(super) fn leases(files: &Path) -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let text = fs::read_to_string(files.join(LEASES_FILE)).unwrap_or_default();
    // A line of another kind begins with a word: `duid`.
    let ends = text.lines().filter_map(|line| line.split(' ').next()?.parse::<u64>().ok());
    // Zero is for ever.
    u32::try_from(ends.filter(|end| *end == 0 || *end > now).count()).unwrap_or(u32::MAX)
}
