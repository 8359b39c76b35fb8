//! What an author does without a controller: keys, signatures, questions, folders.
#![allow(clippy::unwrap_used, reason = "in a test's helpers too, a panic is the failure")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A published component of the contract's first release.
const COMPONENT: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/wit/releases/0.1.0/components/balanced.wasm");

/// A home of its own, gone after the test.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn component(&self) -> PathBuf {
        let path = self.path("balanced.wasm");
        std::fs::copy(COMPONENT, &path).unwrap();
        path
    }

    /// Runs `collective policy ..` with nothing of the user's.
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_collective"));
        command.arg("policy").args(arguments).current_dir(self.0.path()).env_clear();
        command.env("HOME", self.0.path()).env("PATH", "/usr/bin:/bin").output().unwrap()
    }

    #[track_caller]
    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
        stderr(&output)
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_component_is_signed_and_says_what_it_is() {
    let home = Home::new();
    home.component();
    home.done(&["key", "new", "acme"]);
    home.done(&["sign", "balanced.wasm", "--key", "acme.key"]);
    let about = json(&home.done(&["inspect", "balanced.wasm", "-o", "json"]));
    assert_eq!(about["kind"], "placement");
    assert_eq!(about["contract"], "0.1.0");
    assert_eq!(about["signature"]["fits"], true);
    assert_eq!(about["signature"]["statement"]["name"], "balanced");
    assert_eq!(about["signature"]["statement"]["component"], about["digest"]);
    assert!(
        about["imports"]["collective:policy/cluster@0.1.0"].as_array().is_some_and(|all| !all.is_empty())
    );
    let text = home.done(&["inspect", "balanced.wasm"]);
    assert!(text.contains("Settings") && text.contains("capacity"), "{text}");
}

#[test]
fn a_secret_key_is_its_owners_alone_and_is_never_overwritten() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = Home::new();
    let made = json(&home.done(&["key", "new", "acme", "-o", "json"]));
    let mode = std::fs::metadata(home.path("acme.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = std::fs::read(home.path("acme.key")).unwrap();
    home.refused(&["key", "new", "acme"], 5);
    assert_eq!(std::fs::read(home.path("acme.key")).unwrap(), before);
    for file in ["acme.key", "acme.pub"] {
        assert_eq!(json(&home.done(&["key", "show", file, "-o", "json"])), made);
    }
    assert!(!home.done(&["key", "show", "acme.key"]).contains("PRIVATE"));
}

#[test]
fn what_no_controller_would_load_is_not_signed() {
    let home = Home::new();
    std::fs::write(home.path("broken.wasm"), b"\0asm broken").unwrap();
    home.done(&["key", "new", "acme"]);
    home.refused(&["sign", "broken.wasm", "--key", "acme.key"], 3);
    assert!(!home.path("broken.wasm.sig").exists());
}

#[test]
fn an_unsigned_component_is_not_pushed_unless_asked_for() {
    let home = Home::new();
    home.component();
    let said = home.refused(&["push", "balanced.wasm", "127.0.0.1:1/balanced:1"], 2);
    assert!(said.contains("policy sign"), "{said}");
    let said = home.refused(&["push", "balanced.wasm", "127.0.0.1:1/balanced:1", "--unsigned"], 7);
    assert!(said.contains("127.0.0.1:1"), "{said}");
}

fn question(home: &Home, memory_free_gib: u64) -> serde_json::Value {
    home.done(&["new", "folder", "--kind", "placement"]);
    let text = std::fs::read_to_string(home.path("folder/inputs/three-hosts.json")).unwrap();
    let mut question = json(&text);
    question["hosts"]["memory_free_bytes"][0] = (memory_free_gib << 30).into();
    question
}

fn write(path: &Path, value: &serde_json::Value) {
    std::fs::write(path, value.to_string()).unwrap();
}

#[test]
fn a_recorded_question_is_new_then_accepted_then_held_to() {
    let home = Home::new();
    home.component();
    let inputs = home.path("inputs");
    std::fs::create_dir(&inputs).unwrap();
    write(&inputs.join("one.json"), &question(&home, 4));
    let test = ["test", "balanced.wasm", "--inputs", "inputs"];
    assert_eq!(home.run(&test).status.code(), Some(1), "nothing is expected yet");
    home.done(&["test", "balanced.wasm", "--inputs", "inputs", "--accept"]);
    home.done(&test);
    std::fs::remove_dir_all(home.path("folder")).unwrap();
    write(&inputs.join("one.json"), &question(&home, 15));
    let said = home.refused(&test, 1);
    assert!(said.contains("one: /choices/0/host is \"host-a\": expected \"host-b\""), "{said}");
}

#[test]
fn a_question_of_another_kind_is_refused_with_its_place() {
    let home = Home::new();
    home.component();
    std::fs::create_dir(home.path("inputs")).unwrap();
    write(&home.path("inputs/one.json"), &serde_json::json!({"decision_id": "x", "rollout": {}}));
    let said = home.refused(&["test", "balanced.wasm"], 3);
    assert!(said.contains("one.json") && said.contains("rollout"), "{said}");
}

#[test]
fn a_bench_tells_time_and_memory_by_size() {
    let home = Home::new();
    home.component();
    let costs =
        json(&home.done(&["bench", "balanced.wasm", "--hosts", "10,200", "--rounds", "5", "-o", "json"]));
    assert_eq!(costs.as_array().unwrap().len(), 2);
    for cost in costs.as_array().unwrap() {
        assert!(cost["p50_us"].as_u64() <= cost["p99_us"].as_u64());
        let memory = cost["memory_bytes"].as_u64().unwrap();
        assert!((64 << 10..16 << 20).contains(&memory), "{memory}");
    }
}

#[test]
fn a_published_component_passes_the_check_and_garbage_does_not() {
    let home = Home::new();
    home.component();
    home.done(&["check", "balanced.wasm"]);
    std::fs::write(home.path("broken.wasm"), b"garbage").unwrap();
    assert_eq!(home.run(&["check", "broken.wasm"]).status.code(), Some(1));
}

#[test]
fn a_new_folder_is_made_only_where_nothing_is() {
    let home = Home::new();
    home.done(&["new", "mine", "--kind", "update"]);
    assert!(home.path("mine/vendor/sdk/src/lib.rs").exists());
    home.refused(&["new", "mine", "--kind", "update"], 5);
    home.refused(&["new", "Other", "--kind", "update"], 2);
    assert!(!home.path("Other").exists());
}

#[test]
fn a_component_is_not_wrapped_twice() {
    let home = Home::new();
    home.component();
    let said = home.refused(&["wrap", "balanced.wasm", "--out", "again.wasm"], 3);
    assert!(said.contains("already"), "{said}");
}
