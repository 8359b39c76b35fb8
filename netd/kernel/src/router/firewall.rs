//! A router's own table. Everything here runs on a thread that is in its namespace.

use super::{RouterError, file_error};
use crate::NftError;
use crate::nft::program;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::process::Output;
use std::time::Duration;
use std::{fs, io};
use tokio::runtime::Handle;

const FILE: &str = "rules.nft";
const TABLE: &str = "inet collective";
const SEAL_PREFIX: &str = "sealed_";
/// Longest run of `nft`.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Puts the rules in place, atomically, and seals them: an empty chain whose name is the digest of the text and of what
/// the kernel made of it. Stopped before the seal is there, the rules are loaded again.
pub(super) fn replace(files: &Path, rules: &str, runtime: &Handle) -> Result<(), RouterError> {
    fs::create_dir_all(files).map_err(file_error(files))?;
    let path = files.join(FILE);
    fs::write(&path, rules).map_err(file_error(&path))?;
    load(&format!("add table {TABLE}\ndelete table {TABLE}\n{rules}"), runtime)?;
    let Some(table) = list(runtime)? else {
        return Err(refused("the table vanished right after it was made"));
    };
    load(&format!("add chain {TABLE} {}\n", seal(rules, &table)), runtime)
}

/// The rules last loaded, if they are in force as they were loaded.
pub(super) fn in_force(files: &Path, runtime: &Handle) -> Result<Option<String>, RouterError> {
    let path = files.join(FILE);
    let rules = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(file_error(&path))?,
    };
    let Some(table) = list(runtime)? else { return Ok(None) };
    let wanted = seal(&rules, &table);
    let seals: Vec<&str> = objects(&table)
        .iter()
        .filter_map(|object| object["chain"]["name"].as_str())
        .filter(|name| name.starts_with(SEAL_PREFIX))
        .collect();
    Ok((seals == [wanted]).then_some(rules))
}

fn objects(table: &Value) -> &[Value] {
    table["nftables"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn seal(rules: &str, table: &Value) -> String {
    let mut hash = Sha256::new();
    hash.update(rules);
    for object in objects(table) {
        let mut object = object.clone();
        let Some((kind, body)) = object.as_object_mut().and_then(|o| o.iter_mut().next()) else { continue };
        let is_seal = body["name"].as_str().is_some_and(|name| name.starts_with(SEAL_PREFIX));
        if kind == "metainfo" || (kind == "chain" && is_seal) {
            continue;
        }
        if let Some(fields) = body.as_object_mut() {
            fields.remove("handle");
        }
        hash.update(object.to_string());
    }
    format!("{SEAL_PREFIX}{}", hex::encode(&hash.finalize()[..16]))
}

fn refused(words: &str) -> RouterError {
    RouterError::Refused { program: "nft", words: words.trim().to_owned() }
}

fn list(runtime: &Handle) -> Result<Option<Value>, RouterError> {
    let output = run(&["-j", "list", "table", "inet", "collective"], "", runtime)?;
    if output.status.success() {
        let listing = serde_json::from_slice(&output.stdout);
        return listing.map(Some).map_err(|error| refused(&format!("its listing is no JSON: {error}")));
    }
    let error = String::from_utf8_lossy(&output.stderr);
    if error.contains("No such file or directory") { Ok(None) } else { Err(refused(&error)) }
}

fn load(text: &str, runtime: &Handle) -> Result<(), RouterError> {
    let output = run(&["-f", "-"], text, runtime)?;
    if output.status.success() { Ok(()) } else { Err(refused(&String::from_utf8_lossy(&output.stderr))) }
}

/// Polled by this thread, so that the child is born in this thread's namespace.
fn run(arguments: &[&str], input: &str, runtime: &Handle) -> Result<Output, RouterError> {
    runtime.block_on(program::run(arguments, input, TIMEOUT)).map_err(|error| match error {
        NftError::Run(source) => RouterError::Run { program: "nft", package: "nftables", source },
        NftError::Timeout => RouterError::Timeout("nft"),
        other => refused(&other.to_string()),
    })
}
