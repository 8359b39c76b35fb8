//! Claims about the command line itself: what it refuses, with which exit code and words, without any controller.

#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers may panic; clippy exempts only its #[test] functions"
)]

use std::process::{Command, Output, Stdio};

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_collective"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.0.path())
            .env("PATH", std::env::var_os("PATH").unwrap());
        command.current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        text(&self.command(arguments).output().unwrap())
    }
}

fn text(output: &Output) -> (i32, String, String) {
    let read = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), read(&output.stdout), read(&output.stderr))
}

/// One certificate, of nobody.
const CA: &str = include_str!("ca.pem");

#[test]
fn without_a_controller_one_error_says_what_to_do() {
    let (code, out, err) = Home::new().run(&["get", "hosts"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert_eq!(
        err,
        "error: no controller: give --server, set COLLECTIVE_SERVER, or choose a context (`collective playground up` \
         writes one)\n"
    );
}

#[test]
fn an_unreachable_controller_is_exit_code_7() {
    let home = Home::new();
    std::fs::write(home.0.path().join("ca.pem"), CA).unwrap();
    // A port that was free a moment ago, on which nobody listens.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = format!("https://127.0.0.1:{port}");
    let (code, out, err) = home.run(&["--server", &server, "--token", "t", "--ca", "ca.pem", "get", "hosts"]);
    assert_eq!((code, out.as_str()), (7, ""), "{err}");
    assert!(err.starts_with(&format!("error: cannot reach the controller at {server}")), "{err}");
    assert!(err.contains("Connection refused"), "{err}");
}

#[test]
fn a_token_of_a_context_is_never_sent_to_a_server_named_on_the_command_line() {
    let home = Home::new();
    write_context(&home);
    let (code, _, err) = home.run(&["--server", "https://127.0.0.1:1", "get", "hosts"]);
    assert_eq!(code, 2);
    assert!(err.starts_with("error: no token: give --token"), "{err}");
}

#[test]
fn the_current_context_is_used_and_an_unknown_one_is_exit_code_4() {
    let home = Home::new();
    write_context(&home);
    let (code, _, err) = home.run(&["get", "hosts"]);
    assert_eq!(code, 7, "{err}");
    let (code, _, err) = home.run(&["--context", "other", "get", "hosts"]);
    assert_eq!((code, err.as_str()), (4, "error: there is no context \"other\"; there are: office\n"));
}

fn write_context(home: &Home) {
    let folder = home.0.path().join(".config/collective");
    std::fs::create_dir_all(&folder).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = format!(
        "current = \"office\"\n[contexts.office]\nserver = \"https://127.0.0.1:{port}\"\ntoken = \"t\"\nca = \"\"\"{CA}\"\"\"\n"
    );
    std::fs::write(folder.join("config.toml"), file).unwrap();
}

#[test]
fn a_damaged_context_file_is_named_with_its_line() {
    let home = Home::new();
    let folder = home.0.path().join(".config/collective");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("config.toml"), "current = \"a\"\ncurent = 1\n").unwrap();
    let (code, _, err) = home.run(&["get", "hosts"]);
    assert_eq!(code, 2);
    assert!(err.contains("config.toml:2:1: unknown field `curent`"), "{err}");
}

#[test]
fn a_wrong_command_line_is_exit_code_2_and_says_what_is_known() {
    let home = Home::new();
    for (arguments, words) in [
        (&["get", "pods"][..], "there is no such kind; there are bundles"),
        (&["wait", "office"], "write KIND/NAME"),
        (&["wait", "deployment/office", "--timeout", "1w"], "write 500ms, 30s, 5m, 2h or 7d"),
        (&["apply"], "--file <FILE>..."),
        (&["delete", "bundle"], "<NAME>"),
        (&["frobnicate"], "unrecognized subcommand"),
        (&["-o", "xml", "get", "hosts"], "possible values: table, wide, json, yaml, name"),
        (&["playground", "status", "--name", "A B"], "is not a playground name"),
    ] {
        let (code, out, err) = home.run(arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(err.contains(words), "{arguments:?}: {err}");
    }
}

#[test]
fn a_refused_appliance_is_exit_code_3_with_file_line_and_field() {
    let home = Home::new();
    write_context(&home);
    std::fs::write(
        home.0.path().join("appliance.yaml"),
        "apiVersion: collective/v1\nkind: Appliance\nmetadata: {publisher: acme, name: gateway, version: 1.0.0}\nspec:\n  \
         hardware: {vcpus: 0, memory: 1MiB}\n  disks: {system: {file: system.raw}}\n",
    )
    .unwrap();
    let (code, out, err) = home.run(&["appliance", "publish", "."]);
    assert_eq!((code, out.as_str()), (3, ""));
    assert_eq!(
        err,
        "error: ./appliance.yaml:5:14: spec.hardware.vcpus: 0 processors cannot be: write 1 to 64\n\
         error: ./appliance.yaml:5:24: spec.hardware.memory: 1MiB cannot be: write 16MiB to 1TiB\n"
    );
    // Nothing was made on the way to the refusal.
    assert!(!home.0.path().join(".config/collective/publishers").exists());
}

#[test]
fn documents_that_are_none_are_refused_before_anything_is_asked() {
    let home = Home::new();
    write_context(&home);
    std::fs::write(home.0.path().join("empty.yaml"), "\n").unwrap();
    std::fs::write(home.0.path().join("binary.yaml"), [0xff, 0xfe]).unwrap();
    for (file, code, words) in [
        ("empty.yaml", 3, "there is no document"),
        ("binary.yaml", 3, "binary.yaml: it is not UTF-8 text"),
        ("absent.yaml", 2, "cannot read absent.yaml: No such file"),
    ] {
        let (got, _, err) = home.run(&["apply", "-f", file]);
        assert_eq!(got, code, "{err}");
        assert!(err.contains(words), "{err}");
    }
}

#[test]
fn help_names_every_exit_code_and_gives_examples() {
    let (code, out, _) = Home::new().run(&["--help"]);
    assert_eq!(code, 0);
    for words in [
        "  0  done",
        "  3  a document was refused",
        "  8  it took too long",
        "collective apply -f office.yaml",
        "Virtual appliances on libvirt hosts",
        "COLLECTIVE_SERVER",
    ] {
        assert!(out.contains(words), "{words:?} is not in\n{out}");
    }
    assert!(!out.contains("host-init"), "{out}");
}

#[test]
fn the_list_of_commands_is_as_promised() {
    let (_, out, _) = Home::new().run(&["--help"]);
    let start = out.find("Commands:").unwrap();
    let end = out.find("Options:").unwrap();
    let commands: Vec<_> = out[start..end]
        .lines()
        .skip(1)
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(
        commands,
        [
            "appliance",
            "publisher",
            "catalog",
            "apply",
            "diff",
            "get",
            "describe",
            "delete",
            "wait",
            "checkpoint",
            "suspend",
            "resume",
            "host",
            "site",
            "move",
            "rebalance",
            "rollout",
            "token",
            "policy",
            "events",
            "audit",
            "logs",
            "console",
            "stream",
            "network",
            "interpose",
            "doctor",
            "playground",
            "completion",
            "version",
        ]
    );
}

#[test]
fn a_completion_script_is_written_for_each_shell_and_survives_a_closed_pipe() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = home.run(&["completion", shell]);
        assert_eq!(code, 0);
        assert!(out.contains("playground"), "{shell}");
    }
    let mut child =
        home.command(&["completion", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn version_works_without_a_controller() {
    let (code, out, _) = Home::new().run(&["version"]);
    assert_eq!(code, 0);
    assert!(out.starts_with(concat!(
        "collective ",
        env!("CARGO_PKG_VERSION"),
        "\ncontroller unknown: no controller"
    )));
}

#[test]
fn doctor_tries_things_without_touching_the_machine() {
    let links = || std::fs::read_dir("/sys/class/net").unwrap().count();
    let before = links();
    let (code, out, err) = Home::new().run(&["doctor", "-o", "json"]);
    assert_eq!(links(), before);
    assert!(out.starts_with('['), "{out}{err}");
    for check in ["root", "namespaces", "nft bridge", "libvirt", "QEMU", "KVM", "disk", "controller"] {
        assert!(out.contains(&format!("\"name\": \"{check}\"")), "{check} is not in {out}");
    }
    let missing = out.contains("\"result\": \"missing\"");
    assert_eq!(code, i32::from(missing), "{out}");
}

#[test]
fn doctor_says_what_to_install_when_programs_are_missing() {
    let home = Home::new();
    let output = home.command(&["doctor"]).env("PATH", "/nonexistent").output().unwrap();
    let (code, out, _) = text(&output);
    assert_eq!(code, 1);
    for remedy in ["-> install nftables", "-> install libvirt-daemon-system", "-> install qemu-utils"] {
        assert!(out.contains(remedy), "{remedy:?} is not in\n{out}");
    }
    assert!(!out.contains('\u{1b}'), "colour without a terminal:\n{out}");
}

#[test]
fn streams_commands_are_told_from_an_instance_and_take_options_anywhere() {
    let home = Home::new();
    // Where only the controller is missing, the line was understood.
    for line in [
        &["stream", "office/workspace", "--once"][..],
        &["-o", "json", "stream", "top", "--once"],
        &["stream", "why", "office/workspace", "-o", "yaml"],
        &["stream", "prefetch", "acme/workspace@2.0.0", "--hosts", "h1,h2", "--wait"],
        &["stream", "pin", "acme/workspace"],
        &["stream", "limits", "--site", "main", "--site-download", "20MB/s"],
        &["stream", "profiles", "acme/workspace@1.0.0", "-o", "json"],
        &["stream", "holds"],
    ] {
        let (code, _, err) = home.run(line);
        assert!(code == 2 && err.starts_with("error: no controller"), "{line:?}: {err}");
    }
    for (line, part) in [
        (&["stream"][..], "<INSTANCE>"),
        (&["stream", "limits", "--upload", "50"], "write 50MB/s"),
        (&["stream", "limits", "--host", "h1", "--site", "main"], "cannot be used with"),
        (&["stream", "prefetch", "workspace"], "publisher/appliance"),
        (&["stream", "prefetch", "acme/workspace", "--stop", "--wait"], "cannot be used with"),
    ] {
        let (code, _, err) = home.run(line);
        assert!(code == 2 && err.contains(part), "{line:?}: {err}");
    }
}
