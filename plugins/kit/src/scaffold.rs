//! The files of a new policy.

use crate::contract;
use crate::wrap::world_name;
use include_dir::{Dir, include_dir};
use plugins_artifact::Kind;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use wit_bindgen_core::Files;

static TEMPLATES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/templates");
static SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../sdk/src");

const NAME_BYTES_MAX: usize = 63;
/// Manifests of packages carry this ending in our tree, lest tools there take them for ours.
const TEMPLATE_SUFFIX: &str = ".in";
/// Scripts by name: templates carry no modes.
const SCRIPTS: [&str; 1] = ["build.sh"];

/// The language a policy is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Rust, with our SDK.
    Rust,
    /// Python, with componentize-py.
    Python,
    /// JavaScript, with componentize-qjs.
    Js,
    /// C, with clang.
    C,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Rust, Self::Python, Self::Js, Self::C];

    /// The word for it on command lines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Python => "python",
            Self::Js => "js",
            Self::C => "c",
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that names no language.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no template in {0:?}: write rust, python, js or c")]
pub struct UnknownLanguage(String);

impl FromStr for Language {
    type Err = UnknownLanguage;
    fn from_str(text: &str) -> Result<Self, UnknownLanguage> {
        let known = Self::ALL.into_iter().find(|language| language.as_str() == text);
        known.ok_or_else(|| UnknownLanguage(text.to_owned()))
    }
}

/// A file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// Relative, without `..`.
    pub path: PathBuf,
    /// Its content.
    pub bytes: Vec<u8>,
    /// It is a program.
    pub executable: bool,
}

/// Why there are no files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScaffoldError {
    /// The name is not one of a policy.
    #[error("{0:?} is no policy's name: write 1 to 63 of a-z, 0-9 and -, starting with a letter")]
    Name(String),
    /// Nobody wrote one.
    #[error("there is no template of {kind} policies in {language}; there is one in {}", list(.others))]
    NoTemplate {
        /// The decision.
        kind: Kind,
        /// The language.
        language: Language,
        /// Languages that have one.
        others: Vec<&'static str>,
    },
    /// The contract in this program cannot be read.
    #[error("the bindings for C cannot be written: {detail}")]
    Bindings {
        /// Why.
        detail: String,
    },
}

fn list(names: &[&str]) -> String {
    names.join(", ")
}

/// The files of a new policy of that name, for an empty folder. `make`, `make test` and `make bench` work in it.
///
/// # Errors
/// The name is wrong, or there is no such template.
pub fn scaffold(kind: Kind, language: Language, name: &str) -> Result<Vec<NewFile>, ScaffoldError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let named = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(plain);
    if !named {
        return Err(ScaffoldError::Name(name.to_owned()));
    }
    let words = Words::new(kind, name);
    let template = TEMPLATES.get_dir(format!("{language}/{kind}")).ok_or_else(|| {
        let others = Language::ALL.into_iter().map(Language::as_str);
        let others = others.filter(|other| TEMPLATES.get_dir(format!("{other}/{kind}")).is_some()).collect();
        ScaffoldError::NoTemplate { kind, language, others }
    })?;
    let mut files = Vec::new();
    words.copy(template, template.path(), Path::new(""), &mut files);
    for (from, to) in
        [(format!("{language}/common"), ""), ("common".into(), ""), (format!("inputs/{kind}"), "inputs")]
    {
        if let Some(folder) = TEMPLATES.get_dir(&from) {
            words.copy(folder, folder.path(), Path::new(to), &mut files);
        }
    }
    let wit = if language == Language::Rust { "vendor/wit" } else { "wit" };
    for (name, text) in contract::files() {
        files.push(NewFile {
            path: Path::new(wit).join(name),
            bytes: text.as_bytes().to_vec(),
            executable: false,
        });
    }
    match language {
        Language::Rust => verbatim(&SDK, SDK.path(), Path::new("vendor/sdk/src"), &mut files),
        Language::C => files.extend(bindings_for_c(kind)?),
        Language::Python | Language::Js => {}
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// What templates leave open.
struct Words {
    pairs: [(&'static str, String); 5],
}

impl Words {
    fn new(kind: Kind, name: &str) -> Self {
        let parts = name.split('-').filter(|part| !part.is_empty());
        let camel = parts.map(|part| part[..1].to_ascii_uppercase() + &part[1..]).collect();
        Self {
            pairs: [
                ("{{name}}", name.to_owned()),
                ("{{snake}}", name.replace('-', "_")),
                ("{{Name}}", camel),
                ("{{kind}}", kind.to_string()),
                ("{{contract}}", contract::VERSION.to_owned()),
            ],
        }
    }

    fn fill(&self, text: &str) -> String {
        self.pairs.iter().fold(text.to_owned(), |text, (open, word)| text.replace(open, word))
    }

    fn copy(&self, folder: &Dir<'_>, base: &Path, to: &Path, files: &mut Vec<NewFile>) {
        let at = files.len();
        verbatim(folder, base, to, files);
        for file in &mut files[at..] {
            if let Ok(text) = std::str::from_utf8(&file.bytes) {
                file.bytes = self.fill(text).into_bytes();
            }
            if let Some(path) = file.path.to_str().and_then(|path| path.strip_suffix(TEMPLATE_SUFFIX)) {
                file.path = PathBuf::from(path);
            }
        }
    }
}

fn verbatim(folder: &Dir<'_>, base: &Path, to: &Path, files: &mut Vec<NewFile>) {
    for file in folder.files() {
        let path = to.join(file.path().strip_prefix(base).unwrap_or(file.path()));
        let executable = path.file_name().is_some_and(|name| SCRIPTS.iter().any(|script| name == *script));
        files.push(NewFile { path, bytes: file.contents().to_vec(), executable });
    }
    folder.dirs().for_each(|inner| verbatim(inner, base, to, files));
}

/// Header and source that lie between C and the canonical ABI, and an object file that says which world it is.
fn bindings_for_c(kind: Kind) -> Result<Vec<NewFile>, ScaffoldError> {
    let broken = |detail: String| ScaffoldError::Bindings { detail };
    let (mut resolve, package) = contract::resolve().map_err(broken)?;
    let world = resolve
        .select_world(&[package], Some(&world_name(kind)))
        .map_err(|error| broken(error.to_string()))?;
    let mut generated = Files::default();
    let mut generator = wit_bindgen_c::Opts::default().build();
    generator.generate(&mut resolve, world, &mut generated).map_err(|error| broken(error.to_string()))?;
    let file = |(name, bytes): (&str, &[u8])| NewFile {
        path: Path::new("bindings").join(name),
        bytes: bytes.to_vec(),
        executable: false,
    };
    Ok(generated.iter().map(file).collect())
}
