//! Components built against earlier releases of the contract go on working, and everything in the contract is there.

#![allow(clippy::unwrap_used, reason = "a test panics when it fails")]

mod support;

use plugins_runtime::placement::Verdict;
use plugins_runtime::{Kind, Limits, LoadError};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use support::{input, runtime};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::abi::{AbiVariant, WasmType};
use wit_parser::{Function, IndexMap, Resolve, WorldItem, WorldKey};

fn wit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_released_component_loads_and_answers() {
    let (runtime, _folder) = runtime(Limits::default());
    let mut asked = 0;
    for release in files(&wit().join("releases")) {
        for component in files(&release.join("components")) {
            let policy = runtime.load(&std::fs::read(&component).unwrap()).unwrap();
            if policy.kind() == Kind::Placement {
                let verdict = policy.place(&input(3)).unwrap().verdict;
                assert!(matches!(verdict, Verdict::Place { .. }), "{}: {verdict:?}", component.display());
            }
            asked += 1;
        }
    }
    assert!(asked >= 2, "the releases are not there");
}

/// A component that imports every function of the world and traps when it is asked anything.
fn curious(world: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit()).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    let mut text = "(module".to_owned();
    for (interface, function) in functions(&resolve, &resolve.worlds[world].imports) {
        let signature = signature(&resolve, function, AbiVariant::GuestImport);
        write!(text, "(import {interface:?} {:?} (func {signature}))", function.name).unwrap();
    }
    for (interface, function) in functions(&resolve, &resolve.worlds[world].exports) {
        let signature = signature(&resolve, function, AbiVariant::GuestExport);
        let name = format!("{interface}#{}", function.name);
        write!(text, "(func (export {name:?}) {signature} unreachable)").unwrap();
    }
    text += r#"(memory (export "memory") 0)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable))"#;
    let mut module = wat::parse_str(text).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

fn functions<'a>(
    resolve: &'a Resolve,
    items: &'a IndexMap<WorldKey, WorldItem>,
) -> impl Iterator<Item = (String, &'a Function)> {
    items.iter().flat_map(|(key, item)| {
        let WorldItem::Interface { id, .. } = item else { panic!("a world of interfaces only") };
        let interface = resolve.name_world_key(key);
        resolve.interfaces[*id].functions.values().map(move |function| (interface.clone(), function))
    })
}

fn signature(resolve: &Resolve, function: &Function, variant: AbiVariant) -> String {
    let signature = resolve.wasm_signature(variant, function);
    let types = |types: &[WasmType]| {
        types.iter().fold(String::new(), |text, wasm| {
            text + match wasm {
                WasmType::I64 | WasmType::PointerOrI64 => " i64",
                WasmType::F32 => " f32",
                WasmType::F64 => " f64",
                _ => " i32",
            }
        })
    };
    format!("(param{}) (result{})", types(&signature.params), types(&signature.results))
}

#[test]
fn every_function_of_the_contract_is_there() {
    let (runtime, _folder) = runtime(Limits::default());
    for kind in Kind::ALL {
        // It was linked if it came to be asked what it is.
        let error = runtime.load(&curious(&format!("{kind}-policy"))).unwrap_err();
        assert!(matches!(error, LoadError::Describe(_)), "{kind}: {error}");
    }
}
