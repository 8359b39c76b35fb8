//! The contract, embedded.

use std::path::Path;
use wit_parser::{PackageId, Resolve, UnresolvedPackageGroup};

/// Version of the contract that folders made here are written against.
pub const VERSION: &str = "0.1.1";

macro_rules! files {
    ($($name:literal),* $(,)?) => { [$(($name, include_str!(concat!("../../wit/", $name)))),*] };
}

const FILES: [(&str, &str); 10] = files![
    "types.wit",
    "context.wit",
    "log.wit",
    "plugin.wit",
    "cluster.wit",
    "placement.wit",
    "instances.wit",
    "update.wit",
    "checkpoint.wit",
    "introspection.wit",
];

/// The files of the WIT package, by name.
#[must_use]
pub fn files() -> &'static [(&'static str, &'static str)] {
    &FILES
}

/// The package, parsed.
pub(crate) fn resolve() -> Result<(Resolve, PackageId), String> {
    let mut sources = wit_parser::SourceMap::new();
    for (name, text) in FILES {
        sources.push(Path::new(name), text);
    }
    let package: UnresolvedPackageGroup = sources.parse().map_err(|(_, error)| error.to_string())?;
    let mut resolve = Resolve::default();
    let id = resolve.push_group(package).map_err(|error| error.to_string())?;
    Ok((resolve, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_contract_is_embedded() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut there: Vec<_> =
            names.filter_map(|name| name.into_string().ok()).filter(|name| name.ends_with(".wit")).collect();
        let mut embedded: Vec<_> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        there.sort();
        embedded.sort();
        assert_eq!(embedded, there);
    }

    #[test]
    fn the_version_is_that_of_the_contract() {
        let (resolve, id) = resolve().unwrap();
        assert_eq!(resolve.packages[id].name.version.as_ref().unwrap().to_string(), VERSION);
    }
}
