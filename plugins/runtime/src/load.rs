//! Whether a component may become a policy: what it is, what it imports, what it exports. Nothing of it runs here.

use crate::error::PolicyError;
use crate::kind::Kind;
use crate::manifest::SettingsIssue;
use wasmtime::Engine;
use wasmtime::component::Component;

/// The package of the contract, and the versions of it that are served: 0.1.x.
const PACKAGE: &str = "collective:policy/";
const TRACK: &str = "0.1.";

/// What every policy exports besides the interface of its kind.
const PLUGIN: &str = "plugin";

/// What policies of every kind may import.
const COMMON: &[&str] = &["types", "context", "log"];

/// Most names of exports that an error repeats.
const NAMES_SHOWN_MAX: usize = 8;

/// Why a component does not become a policy.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum LoadError {
    /// It is larger than [`crate::Limits::component_bytes_max`].
    #[error("the component has {bytes} bytes, more than the {bytes_max} that are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// It does not begin as WebAssembly does.
    #[error("this is not WebAssembly: give the .wasm file of a component")]
    NotWebAssembly,
    /// It is a core module.
    #[error(
        "this is a core WebAssembly module: make it a component, for example with `wasm-tools component new`"
    )]
    NotComponent,
    /// It is WebAssembly, but cut off, invalid or beyond what the engine supports.
    #[error("the component is damaged or not supported: {detail}")]
    Damaged {
        /// What the engine says.
        detail: String,
    },
    /// Compiling it takes more than it may.
    #[error("the component is too costly to compile: {detail}")]
    TooCostly {
        /// Which limit.
        detail: String,
    },
    /// There is no compiler.
    #[error("the component cannot be compiled here: {detail}")]
    Compiler {
        /// What is missing.
        detail: String,
    },
    /// It speaks another version of the contract.
    #[error("the component uses {name}, this runtime serves versions {TRACK}x: build it against those")]
    OtherVersion {
        /// The import or export.
        name: String,
    },
    /// It asks for something policies do not get.
    #[error(
        "the component imports {name}, which a policy of its kind does not get: it may import collective:policy/ {}",
        .allowed.join(", ")
    )]
    UnknownImport {
        /// The import.
        name: String,
        /// Interfaces that it may import.
        allowed: &'static [&'static str],
    },
    /// It is not of a world we know.
    #[error("the component is no policy: it does not export collective:policy/{missing} (it exports: {})", list(.exports))]
    WrongWorld {
        /// What is missing.
        missing: &'static str,
        /// What it exports instead.
        exports: Vec<String>,
    },
    /// It is of several worlds.
    #[error("the component is a {first} and a {second} policy: make two of it")]
    SeveralWorlds {
        /// One kind.
        first: Kind,
        /// Another.
        second: Kind,
    },
    /// The names are right and the types are not, or it needs a function that this runtime lacks.
    #[error("the component does not fit the contract: {detail}")]
    Contract {
        /// What the engine says.
        detail: String,
    },
    /// It failed while it was asked what it is.
    #[error("the policy cannot describe itself")]
    Describe(#[source] PolicyError),
    /// It says nonsense about itself.
    #[error("the policy's manifest is wrong: {field} {problem}")]
    Manifest {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Its default settings do not pass its own validation.
    #[error("the policy refuses its own default settings: {}", .issues.first().map_or("", |issue| &issue.message))]
    DefaultSettings {
        /// What it says about them.
        issues: Vec<SettingsIssue>,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// Looks at the first bytes, because the engine's own words for these mistakes help nobody.
pub(crate) fn check_header(bytes: &[u8], bytes_max: usize) -> Result<(), LoadError> {
    const MAGIC: &[u8] = b"\0asm";
    const MODULE: &[u8] = &[1, 0, 0, 0];
    if bytes.len() > bytes_max {
        return Err(LoadError::TooLarge { bytes: bytes.len(), bytes_max });
    }
    match bytes.strip_prefix(MAGIC) {
        None => Err(LoadError::NotWebAssembly),
        Some(rest) if rest.starts_with(MODULE) => Err(LoadError::NotComponent),
        Some(_) => Ok(()),
    }
}

/// What a component turned out to be.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) kind: Kind,
    /// Names of its imports.
    pub(crate) imports: Vec<String>,
}

/// Compares the component's imports and exports with the contract, by name, and says of which kind it is.
pub(crate) fn check_world(engine: &Engine, component: &Component) -> Result<Known, LoadError> {
    let world = component.component_type();
    let imports: Vec<String> = world.imports(engine).map(|(name, _)| name.to_owned()).collect();
    let exports: Vec<String> = world.exports(engine).map(|(name, _)| name.to_owned()).collect();
    for name in imports.iter().chain(&exports) {
        if let Some((_, version)) = ours(name)
            && !version.starts_with(TRACK)
        {
            return Err(LoadError::OtherVersion { name: name.clone() });
        }
    }
    let exported =
        |wanted: &str| exports.iter().any(|name| ours(name).is_some_and(|(name, _)| name == wanted));
    let mut kinds = Kind::ALL.into_iter().filter(|kind| exported(kind.as_str()));
    let kind = kinds.next();
    if let (Some(first), Some(second)) = (kind, kinds.next()) {
        return Err(LoadError::SeveralWorlds { first, second });
    }
    // What it may import is a better answer than what it lacks, also where its kind is not known.
    let allowed = kind.map_or(COMMON, Kind::imports);
    let granted = |name: &String| ours(name).is_some_and(|(interface, _)| allowed.contains(&interface));
    if let Some(name) = imports.iter().find(|name| !granted(name)) {
        return Err(LoadError::UnknownImport { name: name.clone(), allowed });
    }
    let wrong = |missing| {
        let exports = exports.iter().take(NAMES_SHOWN_MAX).cloned().collect();
        LoadError::WrongWorld { missing, exports }
    };
    if !exported(PLUGIN) {
        return Err(wrong(PLUGIN));
    }
    let kind = kind.ok_or_else(|| wrong("placement, update, checkpoint or introspection"))?;
    Ok(Known { kind, imports })
}

/// Interface and version of a name of our package.
fn ours(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(PACKAGE)?.split_once('@')
}
