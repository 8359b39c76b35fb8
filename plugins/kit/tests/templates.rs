//! What is in a new folder. That each builds and answers is shown by `make policy-kit`.

use plugins_artifact::Kind;
use plugins_kit::{Language, ScaffoldError, scaffold};
use std::path::{Component, Path};

fn every() -> Vec<(Kind, Language)> {
    let pairs = Kind::ALL.into_iter().flat_map(|kind| Language::ALL.map(|language| (kind, language)));
    pairs.filter(|(kind, language)| scaffold(*kind, *language, "my-policy").is_ok()).collect()
}

#[test]
fn rust_has_templates_of_all_kinds_and_placement_has_all_languages() {
    let there = every();
    for kind in Kind::ALL {
        assert!(there.contains(&(kind, Language::Rust)), "{kind}");
    }
    for language in Language::ALL {
        assert!(there.contains(&(Kind::Placement, language)), "{language}");
    }
}

#[test]
fn every_folder_has_a_makefile_the_contract_and_inputs_and_leaves_no_word_open() {
    for (kind, language) in every() {
        let files = scaffold(kind, language, "my-policy").unwrap();
        let named = |end: &str| files.iter().any(|file| file.path.ends_with(end));
        for end in ["Makefile", "README.md", "types.wit", ".gitignore"] {
            assert!(named(end), "{kind} in {language}: {end}");
        }
        assert!(files.iter().any(|file| file.path.starts_with("inputs")), "{kind} in {language}");
        for file in &files {
            let text = String::from_utf8_lossy(&file.bytes);
            assert!(!text.contains("{{name") && !text.contains("{{kind"), "{}", file.path.display());
            assert!(file.path.extension().is_none_or(|end| end != "in"), "{}", file.path.display());
            let inside = |part| matches!(part, Component::Normal(_));
            assert!(file.path.components().all(inside), "{}", file.path.display());
        }
    }
}

#[test]
fn no_two_files_have_one_path() {
    for (kind, language) in every() {
        let files = scaffold(kind, language, "my-policy").unwrap();
        assert!(files.windows(2).all(|two| two[0].path < two[1].path), "{kind} in {language}");
    }
}

#[test]
fn a_wrong_name_is_refused() {
    for name in ["", "My", "a_b", "9a", "../x", "a/b", &"a".repeat(64)] {
        let error = scaffold(Kind::Placement, Language::Rust, name).unwrap_err();
        assert!(matches!(error, ScaffoldError::Name(_)), "{name}");
    }
}

#[test]
fn the_sdk_in_a_folder_depends_on_what_ours_depends_on() {
    let ours =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk/Cargo.toml")).unwrap();
    let files = scaffold(Kind::Placement, Language::Rust, "my-policy").unwrap();
    let theirs = files.iter().find(|file| file.path == Path::new("vendor/sdk/Cargo.toml")).unwrap();
    let theirs = String::from_utf8(theirs.bytes.clone()).unwrap();
    let dependencies = |text: &str| {
        let after = text.split_once("[dependencies]").unwrap().1;
        let lines = after.lines().filter(|line| !line.starts_with(['#', '[']) && !line.trim().is_empty());
        let names = lines.map(|line| line.split([' ', '.', '=']).next().unwrap().to_owned());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(dependencies(&ours), dependencies(&theirs));
    let guest = |text: &str| text.lines().find(|line| line.starts_with("wit-bindgen")).unwrap().to_owned();
    assert_eq!(guest(&ours), guest(&theirs));
}

#[test]
fn the_book_shows_what_is_in_the_templates() {
    for kind in Kind::ALL {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../docs/policies/{kind}.md"));
        let text = std::fs::read_to_string(page).unwrap();
        let (name, camel) = match kind {
            Kind::Placement => ("roomiest", "Roomiest"),
            Kind::Update => ("one-by-one", "OneByOne"),
            Kind::Checkpoint => ("hourly", "Hourly"),
            Kind::Introspection => ("system-calls", "SystemCalls"),
        };
        let files = scaffold(kind, Language::Rust, name).unwrap();
        let code = files.iter().find(|file| file.path == Path::new("src/lib.rs")).unwrap();
        let code = String::from_utf8(code.bytes.clone()).unwrap();
        let shown: Vec<_> =
            text.split("```rust\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
        assert!(!shown.is_empty() && shown.iter().all(|part| code.contains(part.trim_end())), "{kind}");
        assert!(code.contains(camel), "{kind}");
    }
}
