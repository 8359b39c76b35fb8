//! Components on this machine: reading, signatures beside them, and a runtime to ask them with.

use crate::context::private_folder;
use crate::failure::{Failure, chain};
use plugins_artifact::{COMPONENT_BYTES_MAX, ENVELOPE_BYTES_MAX, Envelope, Statement};
use plugins_runtime::{Limits, Policy, Runtime};
use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Reads a file of at most so many bytes: a wrong path may be a disk's image.
pub(super) fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let cannot = |error: std::io::Error| Failure::usage(format!("cannot read {}: {error}", path.display()));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(cannot)?;
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() > bytes_max {
        return Err(Failure::refused(vec![format!("{} is larger than {bytes_max} bytes", path.display())]));
    }
    Ok(bytes)
}

/// Reads a component.
pub(super) fn component(path: &Path) -> Result<Vec<u8>, Failure> {
    read(path, COMPONENT_BYTES_MAX)
}

/// Where a component's signature lies.
pub(super) fn signature_path(component: &Path) -> PathBuf {
    let mut name = OsString::from(component);
    name.push(".sig");
    PathBuf::from(name)
}

/// The signature beside a component, if there is one.
pub(super) fn signature(component: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let path = signature_path(component);
    if !path.exists() {
        return Ok(None);
    }
    let bytes = read(&path, ENVELOPE_BYTES_MAX)?;
    Envelope::parse(&bytes)
        .map_err(|error| Failure::refused(vec![format!("{}: {}", path.display(), chain(&error))]))?;
    Ok(Some(bytes))
}

/// A runtime with the limits of a controller, but for what `change` does to them. Compiled code is kept in the user's
/// cache.
pub(super) fn runtime(change: impl FnOnce(&mut Limits)) -> Result<Runtime, Failure> {
    let mut limits = Limits { component_bytes_max: COMPONENT_BYTES_MAX, ..Limits::default() };
    change(&mut limits);
    let folder = cache_folder()?;
    private_folder(&folder)
        .map_err(|error| Failure::failed(format!("cannot make {}: {error}", folder.display())))?;
    Runtime::new(limits, &folder).map_err(|error| Failure::failed(chain(&error)))
}

fn cache_folder() -> Result<PathBuf, Failure> {
    let given = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::home_dir().map(|home| home.join(".cache"));
    let base = given.or_else(home);
    base.map(|base| base.join("collective/compiled-policies"))
        .ok_or_else(|| Failure::failed("no folder for compiled policies: set HOME or XDG_CACHE_HOME"))
}

/// Loads a component; `shown` is what people call it.
pub(super) fn load(runtime: &Runtime, bytes: &[u8], shown: &str) -> Result<Arc<Policy>, Failure> {
    runtime.load(bytes).map_err(|error| Failure::refused(vec![format!("{shown}: {}", chain(&error))]))
}

/// What a signature of a loaded component says.
pub(super) fn statement(policy: &Policy) -> Statement {
    let manifest = policy.manifest();
    Statement {
        component: policy.digest(),
        kind: kind(policy),
        name: manifest.name.clone(),
        version: manifest.version.clone(),
    }
}

/// The kind in the words of signatures.
pub(super) fn kind(policy: &Policy) -> plugins_artifact::Kind {
    use plugins_artifact::Kind;
    match policy.kind() {
        plugins_runtime::Kind::Placement => Kind::Placement,
        plugins_runtime::Kind::Update => Kind::Update,
        plugins_runtime::Kind::Checkpoint => Kind::Checkpoint,
        plugins_runtime::Kind::Introspection => Kind::Introspection,
    }
}
