//! Programs that end with us, however we end.

use anyhow::Context as _;
use playground::namespace;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Starts the program, says its pid, and kills it when its own standard input ends or a signal to all of us arrives.
const SCRIPT: &str = r#"trap : HUP INT TERM; exec 3<&0; "$@" </dev/null >"$LOG" 2>&1 & pid=$!; echo $pid; read -r _ <&3; kill -KILL $pid 2>/dev/null; wait"#;

/// A running program; killed and waited for when dropped.
#[derive(Debug)]
pub(crate) struct Leashed {
    shell: Child,
    /// The program's own.
    pub(crate) pid: u32,
}

impl Leashed {
    /// Starts a program, inside a network namespace if one is named; what it says goes to `log`.
    pub(crate) fn start(network: Option<&Path>, argv: &[OsString], log: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "leash"]).args(argv).env("LOG", log).env("COLLECTIVE_LOG", "warn");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let spawned = match network {
            Some(network) => namespace::run(network, move || command.spawn()).and_then(|inner| inner),
            None => command.spawn(),
        };
        let what = || format!("cannot start {}", argv[0].display());
        let mut shell = spawned.with_context(what)?;
        let mut line = String::new();
        if let Some(out) = shell.stdout.take() {
            BufReader::new(out).read_line(&mut line).with_context(what)?;
        }
        let pid = line.trim().parse().with_context(what)?;
        Ok(Self { shell, pid })
    }
}

impl Drop for Leashed {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// Runs a program to its end: its standard output.
///
/// Call it where blocking is fine, or through [`tokio::task::spawn_blocking`].
pub(crate) fn output(argv: &[OsString]) -> anyhow::Result<String> {
    let what =
        || format!("run {}", argv.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "));
    let output = Command::new(&argv[0]).args(&argv[1..]).stdin(Stdio::null()).output().with_context(what)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{}: {}", what(), errors.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Words of a command line.
#[macro_export]
macro_rules! argv {
    ($($word:expr),* $(,)?) => { [$(std::ffi::OsString::from($word)),*] };
}
