//! Policies written by hand, for what no compiler would make: those that loop, grow, lie and crash, and one that does
//! nothing at all. A specimen is a core module around hand-made memory, wrapped into a component of any kind.

use plugins_runtime::Kind;
use std::fmt::Write as _;
use std::path::Path;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::abi::{AbiVariant, WasmType};
use wit_parser::{Function, InterfaceId, Resolve, WorldId, WorldItem};

/// Address of the answer.
pub const ANSWER: u32 = 4096;
/// Address of what the answer points to.
pub const BEYOND: u32 = ANSWER + 64;

const MANIFEST: u32 = 1024;

/// A policy to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Specimen {
    /// Its world.
    pub kind: Kind,
    /// More of the module: imports (of functions of the world), tables, functions.
    pub parts: String,
    /// Instructions before the answer is given.
    pub work: String,
    /// Instructions before it describes itself.
    pub describe: String,
    /// What `name` says.
    pub name: String,
    /// The answer's bytes, at [`ANSWER`].
    pub answer: Vec<u8>,
}

/// Why a specimen could not be built.
#[derive(Debug, thiserror::Error)]
#[error("the specimen cannot be built: {0}")]
pub struct BuildError(String);

fn failed(error: impl std::fmt::Display) -> BuildError {
    BuildError(error.to_string())
}

impl Specimen {
    /// One that behaves: it gives the least answer of its kind.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            parts: String::new(),
            work: String::new(),
            describe: String::new(),
            name: "hand-made".to_owned(),
            answer: least(kind),
        }
    }

    /// One that behaves after that work.
    #[must_use]
    pub fn that(kind: Kind, work: &str) -> Self {
        Self { work: work.to_owned(), ..Self::new(kind) }
    }

    /// The component. `wit` is the folder of the contract.
    ///
    /// # Errors
    /// A part is no WebAssembly text, or the contract cannot be read.
    pub fn build(&self, wit: &Path) -> Result<Vec<u8>, BuildError> {
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_dir(wit).map_err(failed)?;
        let world = format!("{}-policy", self.kind);
        let world = resolve.select_world(&[package], Some(&world)).map_err(failed)?;
        let mut module = wat::parse_str(self.text(&resolve, world)).map_err(failed)?;
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).map_err(failed)?;
        let mut encoder = ComponentEncoder::default();
        encoder.validate(true).module(&module).map_err(failed)?;
        encoder.encode().map_err(failed)
    }

    fn text(&self, resolve: &Resolve, world: WorldId) -> String {
        let Self { parts, .. } = self;
        let exports: String = exports(resolve, world).map(|export| self.export(resolve, &export)).collect();
        let (manifest, answer) = (data(MANIFEST, &self.manifest()), data(ANSWER, &self.answer));
        format!(
            r#"(module
              {parts}
              (memory (export "memory") 4)
              (global $next (mut i32) (i32.const 131072))
              {manifest}
              {answer}
              (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (local $at i32)
                (local.set $at (global.get $next))
                (global.set $next (i32.and
                  (i32.add (i32.add (global.get $next) (local.get 3)) (i32.const 7)) (i32.const -8)))
                (if (i32.gt_u (global.get $next) (i32.shl (memory.size) (i32.const 16)))
                  (then (drop (memory.grow (i32.shr_u (i32.add (local.get 3) (i32.const 65535)) (i32.const 16))))))
                (local.get $at))
              {exports})"#
        )
    }

    fn export(&self, resolve: &Resolve, (interface, function): &(String, &Function)) -> String {
        let params = resolve.wasm_signature(AbiVariant::GuestExport, function).params;
        let params = params.iter().fold(String::new(), |text, wasm| {
            text + match wasm {
                WasmType::I64 | WasmType::PointerOrI64 => " i64",
                WasmType::F32 => " f32",
                WasmType::F64 => " f64",
                _ => " i32",
            }
        });
        let name = format!("{interface}#{}", function.name);
        let (label, body, address) = match function.name.as_str() {
            "describe" => ("$describe", self.describe.as_str(), MANIFEST),
            // An address where nothing is: ok.
            "validate-settings" => ("$validate", "", 512),
            _ => ("$decide", self.work.as_str(), ANSWER),
        };
        format!(
            "(func {label} (export {name:?}) (param{params}) (result i32) {body} (i32.const {address}))\n"
        )
    }

    fn manifest(&self) -> Vec<u8> {
        let texts = [&self.name, "1.2.3", "A test.", "Apache-2.0", "{}", "{}"];
        let (mut record, mut strings) = (Vec::new(), Vec::new());
        for text in texts {
            let at = MANIFEST as usize + 8 * texts.len() + strings.len();
            record.extend(word(at));
            record.extend(word(text.len()));
            strings.extend(text.as_bytes());
        }
        [record, strings].concat()
    }
}

fn exports(resolve: &Resolve, world: WorldId) -> impl Iterator<Item = (String, &Function)> {
    let functions = |id: InterfaceId, name: String| {
        resolve.interfaces[id].functions.values().map(move |function| (name.clone(), function))
    };
    resolve.worlds[world].exports.iter().flat_map(move |(key, item)| {
        match item {
            WorldItem::Interface { id, .. } => Some(functions(*id, resolve.name_world_key(key))),
            _ => None,
        }
        .into_iter()
        .flatten()
    })
}

/// The answer that says least.
fn least(kind: Kind) -> Vec<u8> {
    const NEXT_CALL_MS: u64 = 1000;
    let (case, next_call_at) = match kind {
        Kind::Placement => return placed(&[(0, 1.0)]),
        // `complete`.
        Kind::Update => (4, 32),
        Kind::Checkpoint => (0, 48),
        Kind::Introspection => (0, 24),
    };
    let mut bytes = vec![0; 64];
    bytes[8] = case;
    bytes[next_call_at..next_call_at + 8].copy_from_slice(&NEXT_CALL_MS.to_le_bytes());
    bytes
}

/// `ok(place({choices, rejections: []}))` with choices that have no reasons.
#[must_use]
pub fn placed(choices: &[(u32, f64)]) -> Vec<u8> {
    let mut bytes = placed_at(BEYOND, u32::try_from(choices.len()).unwrap_or(u32::MAX));
    for (host, score) in choices {
        bytes.extend(u64::from(*host).to_le_bytes());
        bytes.extend(score.to_le_bytes());
        bytes.extend([0; 8]);
    }
    bytes
}

/// `ok(place(..))` whose list of choices has that address and length.
#[must_use]
pub fn placed_at(address: u32, count: u32) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    bytes.extend(address.to_le_bytes());
    bytes.extend(count.to_le_bytes());
    bytes.resize((BEYOND - ANSWER) as usize, 0);
    bytes
}

/// `err(error)` with the case of that number and a text: the same for every kind.
#[must_use]
pub fn declined(case: u8, text: &[u8]) -> Vec<u8> {
    let mut bytes = declined_at(case, BEYOND, u32::try_from(text.len()).unwrap_or(u32::MAX));
    bytes.extend(text);
    bytes
}

/// `err(error)` whose text has that address and length.
#[must_use]
pub fn declined_at(case: u8, address: u32, len: u32) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    (bytes[0], bytes[8]) = (1, case);
    bytes[12..16].copy_from_slice(&address.to_le_bytes());
    bytes[16..20].copy_from_slice(&len.to_le_bytes());
    bytes
}

fn word(number: usize) -> [u8; 4] {
    u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes()
}

fn data(at: u32, bytes: &[u8]) -> String {
    let mut text = format!("(data (i32.const {at}) \"");
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "\\{byte:02x}");
    }
    text + "\")"
}
