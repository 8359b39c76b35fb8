//! Turning a component into machine code, at best in a process of its own.
//!
//! Compiling is the one step whose cost a component dictates before any limit of a call holds: some megabytes can keep a
//! processor busy for a minute and take gigabytes. [`Compiler::Child`] runs this program again with a hidden argument;
//! the child sets limits to its own memory, processor time and files, reads the component from its standard input and
//! writes code to its standard output. A component that brings the compiler down brings down the child.
//!
//! It is no wall against a compiler that a component takes over: what the child writes is run here. That is why only
//! components whose signature was verified come this far.

use crate::limits::{CompileLimits, Limits};
use crate::load::LoadError;
use crate::runtime::config;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use wasmtime::{Engine, InstanceAllocationStrategy};

/// The hidden argument of a program that calls [`compile_child`].
pub const COMPILE_ARGUMENT: &str = "--compile-policy";

/// Exit code of a child that did its work and found the component wanting.
const EXIT_DAMAGED: u8 = 3;
/// Words of a child that are kept.
const WORDS_BYTES_MAX: u64 = 4096;
/// Open files of a child: three pipes, and what the allocator and the clock want.
const FILES_MAX: u64 = 16;

/// Whether this program, run again with [`COMPILE_ARGUMENT`], is a compiler.
static BEGAN_WITH_COMPILE_CHILD: AtomicBool = AtomicBool::new(false);

/// Where components are compiled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Compiler {
    /// In this process: for tests and for the command line of an author, who trusts his own component.
    #[default]
    InProcess,
    /// In a process of its own, with limits.
    Child {
        /// A program that calls [`compile_child`] first of all.
        program: PathBuf,
    },
}

impl Compiler {
    /// This program, run again, if it began with [`compile_child`]; else in this process, as in a test that has a daemon
    /// inside: run again, it would be the test.
    #[must_use]
    pub fn this_program() -> Self {
        if BEGAN_WITH_COMPILE_CHILD.load(Ordering::Relaxed) {
            // The link stays right when the program's file is replaced while it runs.
            Self::Child { program: PathBuf::from("/proc/self/exe") }
        } else {
            Self::InProcess
        }
    }

    /// The code of a component, in the form that [`wasmtime::component::Component::deserialize`] takes.
    pub(crate) fn compile(
        &self,
        engine: &Engine,
        limits: &Limits,
        bytes: &[u8],
    ) -> Result<Vec<u8>, LoadError> {
        match self {
            Self::InProcess => engine.precompile_component(bytes).map_err(|error| damaged(&error)),
            Self::Child { program } => compile_in_child(program.as_os_str(), limits, bytes),
        }
    }
}

fn damaged(error: &wasmtime::Error) -> LoadError {
    LoadError::Damaged { detail: format!("{error:#}") }
}

/// What a child left behind.
struct Ended {
    status: ExitStatus,
    code: Vec<u8>,
    words: String,
    overdue: bool,
}

fn compile_in_child(program: &OsStr, limits: &Limits, bytes: &[u8]) -> Result<Vec<u8>, LoadError> {
    let failed = |detail: String| LoadError::Compiler { detail };
    let limits_text = serde_json::to_string(limits).map_err(|error| failed(error.to_string()))?;
    let child = Command::new(program)
        .args([OsStr::new(COMPILE_ARGUMENT), OsStr::new(&limits_text)])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("cannot start {}: {error}", program.display())))?;
    let ended = converse(child, &limits.compile, bytes).map_err(|error| failed(error.to_string()))?;
    match ended.status.code() {
        Some(0) => Ok(ended.code),
        Some(code) if code == i32::from(EXIT_DAMAGED) => Err(LoadError::Damaged { detail: ended.words }),
        _ => Err(LoadError::TooCostly { detail: why(&ended, &limits.compile) }),
    }
}

/// Why a child did not finish.
fn why(ended: &Ended, limits: &CompileLimits) -> String {
    let words = ended.words.lines().last().unwrap_or_default();
    match ended.status.signal() {
        _ if ended.overdue => format!("it took more than {} s by the wall clock", limits.wall_s()),
        Some(libc::SIGXCPU | libc::SIGKILL) => {
            format!("it took more than {} s of processor time", limits.cpu_s)
        }
        Some(signal) => format!(
            "signal {signal} ended the compiler, which may use {} bytes of memory: {words}",
            limits.memory_bytes_max
        ),
        None => format!("the compiler gave up ({}): {words}", ended.status),
    }
}

/// Feeds the child, reads what it says, and ends it when it is overdue.
fn converse(mut child: Child, limits: &CompileLimits, bytes: &[u8]) -> io::Result<Ended> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let gone = || io::Error::other("a pipe to the compiler is missing");
    let (mut stdin, stdout, stderr) =
        (stdin.ok_or_else(gone)?, stdout.ok_or_else(gone)?, stderr.ok_or_else(gone)?);
    let (done, finished) = mpsc::channel::<()>();
    let code = reading(stdout, limits.code_bytes_max as u64, done)?;
    let words = reading_words(stderr)?;
    let mut overdue = false;
    thread::scope(|scope| {
        // A child that ended early does not read to the end: its exit says why.
        scope.spawn(move || drop(stdin.write_all(bytes)));
        // The reader of the code drops its end when the child's output ends.
        if finished.recv_timeout(Duration::from_secs(limits.wall_s())) == Err(mpsc::RecvTimeoutError::Timeout)
        {
            overdue = true;
            // It may have ended meanwhile.
            let _ = child.kill();
        }
    });
    let status = child.wait()?;
    let joined = |thread: JoinHandle<io::Result<Vec<u8>>>| {
        thread.join().unwrap_or_else(|_| Err(io::Error::other("a reader panicked")))
    };
    let (code, words) = (joined(code)?, joined(words)?);
    Ok(Ended { status, code, words: String::from_utf8_lossy(&words).trim().to_owned(), overdue })
}

/// Reads at most `bytes_max` and then closes the pipe; drops `done` at the end.
fn reading(
    pipe: impl Read + Send + 'static,
    bytes_max: u64,
    done: mpsc::Sender<()>,
) -> io::Result<JoinHandle<io::Result<Vec<u8>>>> {
    thread::Builder::new().name("policy-compiler".to_owned()).spawn(move || {
        let mut bytes = Vec::new();
        let read = pipe.take(bytes_max).read_to_end(&mut bytes);
        drop(done);
        read.map(|_| bytes)
    })
}

fn reading_words(pipe: impl Read + Send + 'static) -> io::Result<JoinHandle<io::Result<Vec<u8>>>> {
    let (done, _) = mpsc::channel();
    reading(pipe, WORDS_BYTES_MAX, done)
}

/// Compiles a component from standard input to standard output, if that is what this program was started for. Call it
/// first of all in `main`, and return what it gives.
#[must_use]
pub fn compile_child() -> Option<ExitCode> {
    BEGAN_WITH_COMPILE_CHILD.store(true, Ordering::Relaxed);
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()?.as_os_str() != COMPILE_ARGUMENT {
        return None;
    }
    Some(match serve(arguments.next()) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, words)) => {
            // Whoever started this has gone if it does not listen.
            let _ = writeln!(io::stderr(), "{words}");
            ExitCode::from(code)
        }
    })
}

fn serve(limits: Option<OsString>) -> Result<(), (u8, String)> {
    let refused = |words: String| (1, words);
    let limits = limits.and_then(|text| serde_json::from_str::<Limits>(text.to_str()?).ok());
    let limits = limits.ok_or_else(|| refused("the limits are no JSON".to_owned()))?;
    limit_this_process(&limits.compile).map_err(|error| refused(format!("cannot limit itself: {error}")))?;
    let mut bytes = Vec::new();
    let taken = limits.component_bytes_max as u64 + 1;
    io::stdin().take(taken).read_to_end(&mut bytes).map_err(|error| refused(error.to_string()))?;
    let mut config = config(&limits);
    // Nothing runs here, and the pool would take the address space that the limit leaves to the compiler.
    config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    let engine = Engine::new(&config).map_err(|error| refused(format!("{error:#}")))?;
    let code = engine.precompile_component(&bytes).map_err(|error| (EXIT_DAMAGED, format!("{error:#}")))?;
    let mut out = io::stdout().lock();
    out.write_all(&code).and_then(|()| out.flush()).map_err(|error| refused(error.to_string()))
}

/// Before a byte of the component is read.
fn limit_this_process(limits: &CompileLimits) -> io::Result<()> {
    limit(libc::RLIMIT_AS, limits.memory_bytes_max as u64)?;
    limit(libc::RLIMIT_CPU, limits.cpu_s)?;
    limit(libc::RLIMIT_NOFILE, FILES_MAX)?;
    // Pipes are no files: it can write to nothing else.
    limit(libc::RLIMIT_FSIZE, 0)?;
    limit(libc::RLIMIT_CORE, 0)
}

fn limit(resource: libc::__rlimit_resource_t, most: u64) -> io::Result<()> {
    let most = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: the pointer is to a live structure, which the call only reads.
    if unsafe { libc::setrlimit(resource, &raw const most) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
