//! Builds the policies of `plugins/policies` as WebAssembly components.
//!
//! The guests are compiled for `wasm32-unknown-unknown`, which has a standard library but no WASI, and the modules
//! are wrapped into components by wit-component. The target comes from rustup where it is installed; elsewhere the
//! distribution's compiler builds the standard library from its sources. A stamp beside the components holds the
//! digest of everything that went in and came out: nothing is built when both still hold.

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use types::Digest;

/// The policies, by the names of their crates.
pub const NAMES: [&str; 6] = ["balanced", "gfs", "linux-integrity", "packed", "tripwire", "waves"];

const TARGET: &str = "wasm32-unknown-unknown";

/// The distribution's compiler: rustup's ships neither the target nor the sources unless asked to.
const DISTRIBUTION_RUSTC: &str = "/usr/bin/rustc";

/// This file, because the recipe is an input as well.
const RECIPE: &str = include_str!("policies.rs");

const REMEDY: &str = "run `rustup target add wasm32-unknown-unknown`, or \
                      `apt-get install rustc-web rust-web-src lld` (Debian)";

/// What `build` left in its folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// One entry per name in [`NAMES`], in that order.
    pub policies: Vec<BuiltPolicy>,
    /// False: everything was there already.
    pub rebuilt: bool,
}

/// One component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltPolicy {
    /// Its crate's name.
    pub name: &'static str,
    /// The component.
    pub path: PathBuf,
    /// Size.
    pub bytes_len: usize,
    /// SHA-256 of the component.
    pub digest: Digest,
}

/// Builds all policies into `out`, or into `policies` in the target directory. Safe to call from several processes
/// at once: one builds, the others wait and find it done.
///
/// # Errors
/// A tool is missing (the message says which, and what to install), a file cannot be read or written, or a guest
/// does not compile.
pub fn build(out: Option<&Path>) -> Result<Built> {
    let root = root()?;
    let target_dir = target_dir(&root)?;
    let out = out.map_or_else(|| target_dir.join("policies"), Path::to_owned);
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let build_dir = target_dir.join("policies-build");
    fs::create_dir_all(&build_dir).with_context(|| format!("cannot make {}", build_dir.display()))?;
    let _lock = lock(&build_dir.join("lock"))?;

    let toolchain = Toolchain::find()?;
    let inputs = inputs_digest(&root, &toolchain)?;
    let stamp = out.join("policies.stamp");
    let present = present(&out);
    if let Some(policies) = present
        && fs::read_to_string(&stamp).is_ok_and(|text| text == stamp_text(inputs, &policies))
    {
        return Ok(Built { policies, rebuilt: false });
    }
    toolchain.compile(&root, &build_dir)?;
    let modules = build_dir.join(TARGET).join("release");
    let policies = NAMES.iter().map(|name| componentize(name, &modules, &out)).collect::<Result<Vec<_>>>()?;
    write(&stamp, stamp_text(inputs, &policies).as_bytes())?;
    Ok(Built { policies, rebuilt: true })
}

/// How guests are compiled on this machine.
#[derive(Debug)]
enum Toolchain {
    /// The target is installed in rustup's toolchain.
    Rustup { version: String },
    /// The distribution's compiler with the sources of its standard library.
    Distribution { version: String, linker: PathBuf },
}

impl Toolchain {
    fn find() -> Result<Self> {
        let installed = output(Command::new("rustup").args(["target", "list", "--installed"]));
        if installed.is_ok_and(|targets| targets.lines().any(|line| line == TARGET)) {
            return Ok(Self::Rustup { version: output(Command::new("rustc").arg("-vV"))? });
        }
        let mut missing = Vec::new();
        let version = output(tidy(&mut Command::new(DISTRIBUTION_RUSTC)).arg("-vV"));
        if version.is_err() {
            missing.push("a distribution compiler (package rustc-web)");
        } else {
            let sysroot = output(tidy(&mut Command::new(DISTRIBUTION_RUSTC)).args(["--print", "sysroot"]))?;
            let sources = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/std/Cargo.toml");
            if !sources.is_file() {
                missing.push("the sources of its standard library (package rust-web-src)");
            }
        }
        let linker = wasm_linker();
        if linker.is_none() {
            missing.push("wasm-ld (package lld)");
        }
        match (version, linker) {
            (Ok(version), Some(linker)) if missing.is_empty() => Ok(Self::Distribution { version, linker }),
            _ => bail!("policies cannot be compiled for {TARGET}: missing {}; {REMEDY}", missing.join(", ")),
        }
    }

    fn compile(&self, root: &Path, build_dir: &Path) -> Result<()> {
        NAMES.iter().try_for_each(|name| self.compile_one(name, root, build_dir))
    }

    /// A module is asked for here alone: a crate that always is one too has a file name without a hash, which two
    /// checkouts or workspaces with one target folder would write over each other.
    fn compile_one(&self, name: &str, root: &Path, build_dir: &Path) -> Result<()> {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        tidy(&mut command);
        command.current_dir(root.join("plugins/policies"));
        command.args(["rustc", "--package", name, "--lib", "--crate-type", "cdylib"]);
        command.args(["--release", "--locked", "--target", TARGET]);
        // Paths of this machine have no place in a published component.
        let mut remaps = vec![format!("--remap-path-prefix={}=.", root.display())];
        if let Some(home) = cargo_home() {
            remaps.push(format!("--remap-path-prefix={}=/cargo", home.display()));
        }
        command.env("CARGO_ENCODED_RUSTFLAGS", remaps.join("\x1f"));
        command.env("CARGO_TARGET_DIR", build_dir);
        if let Self::Distribution { linker, .. } = self {
            command.env("RUSTC", DISTRIBUTION_RUSTC).env("RUSTC_BOOTSTRAP", "1");
            command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
            command.args(["-Z", "build-std=std,panic_abort"]);
        }
        output(&mut command).with_context(|| format!("policy {name} does not compile")).map(drop)
    }

    fn describe(&self) -> String {
        match self {
            Self::Rustup { version } => format!("rustup\n{version}"),
            Self::Distribution { version, linker } => format!("{}\n{version}", linker.display()),
        }
    }
}

/// Takes away what an outer cargo or the caller's shell would impose on the guests.
fn tidy(command: &mut Command) -> &mut Command {
    for name in ["RUSTC", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "LD_LIBRARY_PATH"] {
        command.env_remove(name);
    }
    command
}

/// Runs a command and gives its standard output; the error holds its standard error.
fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    ensure!(
        output.status.success(),
        "{program} ended with {}:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `wasm-ld`, or the highest `wasm-ld-VERSION`, from the search path.
fn wasm_linker() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let folders = env::split_paths(&path).filter_map(|folder| fs::read_dir(folder).ok());
    let versions = folders.flatten().flatten().filter_map(|entry| {
        let name = entry.file_name();
        let rest = name.to_str()?.strip_prefix("wasm-ld")?;
        let version: u32 = if rest.is_empty() { u32::MAX } else { rest.strip_prefix('-')?.parse().ok()? };
        Some((version, entry.path()))
    });
    versions.max_by_key(|(version, _)| *version).map(|(_, path)| path)
}

fn root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is in no repository")?;
    ensure!(root.join("plugins/policies/Cargo.toml").is_file(), "{} is no checkout", root.display());
    Ok(root.to_owned())
}

fn target_dir(root: &Path) -> Result<PathBuf> {
    let dir = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    std::path::absolute(&dir).with_context(|| format!("{} is no target directory", dir.display()))
}

fn cargo_home() -> Option<PathBuf> {
    let home = || env::home_dir().map(|home| home.join(".cargo"));
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home)
}

fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// Digest of every file that the components are made of, and of the tools.
fn inputs_digest(root: &Path, toolchain: &Toolchain) -> Result<Digest> {
    let mut files = BTreeMap::new();
    for folder in ["plugins/wit", "plugins/sdk", "plugins/policies"] {
        collect(root, &root.join(folder), &mut files)?;
    }
    let mut hasher = Sha256::new();
    let mut feed = |bytes: &[u8]| {
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    feed(RECIPE.as_bytes());
    feed(toolchain.describe().as_bytes());
    for (name, contents) in &files {
        feed(name.as_bytes());
        feed(contents);
    }
    Ok(Digest::from_bytes(hasher.finalize().into()))
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    let unreadable = || format!("cannot read {}", folder.display());
    for entry in fs::read_dir(folder).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        if path.is_dir() && !path.ends_with("target") {
            collect(root, &path, files)?;
        } else if path
            .extension()
            .is_some_and(|end| ["rs", "wit", "toml", "lock", "json"].iter().any(|e| end == *e))
        {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            let contents = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files.insert(name, contents);
        }
    }
    Ok(())
}

fn present(out: &Path) -> Option<Vec<BuiltPolicy>> {
    let read = |name: &&'static str| {
        let path = out.join(name).with_extension("wasm");
        fs::read(&path).ok().map(|bytes| BuiltPolicy::new(name, path, &bytes))
    };
    NAMES.iter().map(read).collect()
}

impl BuiltPolicy {
    fn new(name: &'static str, path: PathBuf, bytes: &[u8]) -> Self {
        let digest = Digest::from_bytes(Sha256::digest(bytes).into());
        Self { name, path, bytes_len: bytes.len(), digest }
    }
}

fn stamp_text(inputs: Digest, policies: &[BuiltPolicy]) -> String {
    let outputs: String =
        policies.iter().map(|policy| format!("{} {}\n", policy.digest, policy.name)).collect();
    format!("{inputs} inputs\n{outputs}")
}

fn componentize(name: &'static str, modules: &Path, out: &Path) -> Result<BuiltPolicy> {
    // A library has the name of its crate with underscores.
    let module_path = modules.join(name.replace('-', "_")).with_extension("wasm");
    let module = fs::read(&module_path).with_context(|| format!("cannot read {}", module_path.display()))?;
    let component = wit_component::ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|encoder| encoder.encode())
        .with_context(|| format!("{} cannot be made a component", module_path.display()))?;
    let path = out.join(name).with_extension("wasm");
    write(&path, &component)?;
    Ok(BuiltPolicy::new(name, path, &component))
}

/// Replaces a file at once: a reader sees the old bytes or the new ones.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("new");
    fs::write(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_build_finds_everything_done_and_a_damaged_component_is_built_again() {
        let out = tempfile::tempdir().unwrap();
        let first = build(Some(out.path())).unwrap();
        let second = build(Some(out.path())).unwrap();
        assert!(first.rebuilt && !second.rebuilt);
        assert_eq!(first.policies, second.policies);
        fs::write(&first.policies[0].path, b"damaged").unwrap();
        let third = build(Some(out.path())).unwrap();
        assert_eq!((third.rebuilt, &third.policies), (true, &first.policies));
    }

    #[test]
    fn a_component_names_no_path_of_this_machine() {
        let out = tempfile::tempdir().unwrap();
        for policy in build(Some(out.path())).unwrap().policies {
            let bytes = fs::read(policy.path).unwrap();
            let manifest_dir = env!("CARGO_MANIFEST_DIR").as_bytes();
            assert!(!bytes.windows(manifest_dir.len()).any(|window| window == manifest_dir));
        }
    }
}
