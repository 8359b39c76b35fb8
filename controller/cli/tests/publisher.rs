//! Claims about a publisher's repository as it is made and kept by typing: no controller anywhere.
#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers may panic; clippy exempts only its #[test] functions"
)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

fn collective(home: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_collective"));
    command.args(arguments).env_clear().env("HOME", home).env("PATH", std::env::var_os("PATH").unwrap());
    let output = command.current_dir(home).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn done(home: &Path, arguments: &[&str]) -> serde_json::Value {
    let (code, out, err) = collective(home, &[arguments, &["-o", "json"]].concat());
    assert_eq!(code, 0, "{arguments:?}: {err}");
    serde_json::from_str(&out).unwrap_or_default()
}

fn role<'a>(shown: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    shown.as_array().unwrap().iter().find(|role| role["role"] == name).unwrap()
}

#[test]
fn a_repository_is_made_rotated_and_renewed_with_keys_that_only_their_owner_reads() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    let shown = done(
        at,
        &["publisher", "init", "repo", "--name", "acme", "--root-keys", "3", "--root-threshold", "2"],
    );
    let root = role(&shown, "root");
    assert_eq!((root["threshold"].as_u64(), root["keys"].as_array().unwrap().len()), (Some(2), 3));
    let keys = at.join(".config/collective/publishers/acme");
    for entry in std::fs::read_dir(&keys).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert!(
        !std::fs::read_dir(at.join("repo"))
            .unwrap()
            .any(|entry| { entry.unwrap().path().extension().is_some_and(|end| end == "key") })
    );
    let before = role(&shown, "timestamp")["keys"].clone();
    let shown = done(at, &["publisher", "rotate", "timestamp", "--repo", "repo"]);
    assert_ne!(role(&shown, "timestamp")["keys"], before);
    assert_eq!(role(&shown, "root")["version"], 2);
    let shown = done(at, &["publisher", "key", "add", "targets", "--repo", "repo", "--threshold", "2"]);
    assert_eq!(role(&shown, "targets")["threshold"], 2);
    let number = role(&shown, "timestamp")["version"].as_u64().unwrap();
    let shown = done(at, &["publisher", "refresh", "--repo", "repo", "--valid-days", "3"]);
    assert_eq!(role(&shown, "timestamp")["version"].as_u64(), Some(number + 1));
}

#[test]
fn what_cannot_be_done_says_why_and_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    let refused = |arguments: &[&str], code: i32, words: &str| {
        let (exit, out, err) = collective(at, arguments);
        assert!(exit == code && out.is_empty() && err.contains(words), "{arguments:?}: {exit} {out} {err}");
    };
    refused(&["publisher", "refresh", "--repo", "repo"], 4, "holds no repository");
    refused(
        &["publisher", "init", "repo", "--name", "acme", "--root-threshold", "2"],
        3,
        "cannot be met by 1 keys",
    );
    done(at, &["publisher", "init", "repo", "--name", "acme"]);
    refused(&["publisher", "init", "repo", "--name", "acme"], 5, "holds a repository already");
    refused(&["publisher", "rotate", "everything", "--repo", "repo"], 2, "is no role: write root");
    refused(&["publisher", "rotate", "appliance/web", "--repo", "repo"], 4, "no role appliance/web");
    refused(
        &["appliance", "promote", "acme/web", "1.0.0", "--repo", "repo"],
        4,
        "no web 1.0.0: publish it first",
    );
    refused(&["appliance", "promote", "evil/web", "1.0.0", "--repo", "repo"], 3, "is acme's, not evil's");
    refused(&["appliance", "yank", "acme/web", "1.0.0", "--repo", "repo"], 2, "--reason");
    let metadata = || std::fs::read_dir(at.join("repo/metadata")).unwrap().count();
    let before = metadata();
    let keys = at.join(".config/collective/publishers/acme");
    std::fs::rename(keys.join("root-1.key"), at.join("safe")).unwrap();
    refused(
        &["publisher", "rotate", "snapshot", "--repo", "repo"],
        6,
        "role root needs signatures of 1 of the keys",
    );
    assert_eq!(metadata(), before);
    std::fs::rename(at.join("safe"), keys.join("root-1.key")).unwrap();
    std::fs::set_permissions(keys.join("root-1.key"), std::fs::Permissions::from_mode(0o640)).unwrap();
    refused(&["publisher", "key", "list", "--repo", "repo"], 6, "chmod 600");
}
