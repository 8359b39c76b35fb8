//! Bad input as people meet it: typed, answered by a real controller, and one line of error that says where.

#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers may panic; clippy exempts only its #[test] functions"
)]

use controller_daemon::Server;
use controller_daemon::config::Config;
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// A controller that knows nothing yet, and a folder to type in.
struct Desk {
    folder: tempfile::TempDir,
    server: String,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Desk {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            state_dir: folder.path().join("state"),
            listen: "127.0.0.1:0".parse().unwrap(),
            public_names: vec!["127.0.0.1".into()],
            policies: "/nonexistent".into(),
            tracker_url: None,
            moves_max: 4,
        };
        let shutdown = CancellationToken::new();
        let server = Server::bind(&config, shutdown.clone()).await.unwrap();
        let url = format!("https://{}", server.address());
        Self { folder, server: url, shutdown, task: tokio::spawn(server.run()) }
    }

    fn token(&self) -> String {
        std::fs::read_to_string(self.path().join("state/admin.token")).unwrap().trim().to_owned()
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    async fn run_as(&self, token: &str, arguments: &[&str]) -> (i32, String, String) {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_collective"))
            .args(["--server", &self.server, "--token", token, "--ca", "state/ca.pem"])
            .args(arguments)
            .env_clear()
            .env("HOME", self.path())
            .current_dir(self.path())
            .output()
            .await
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    async fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        self.run_as(&self.token(), arguments).await
    }

    async fn revision(&self) -> String {
        self.run(&["version"]).await.1
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

const OFFICE: &str = include_str!("../../../examples/office.yaml");
const SITE: &str = include_str!("../../../examples/site.yaml");

#[tokio::test]
async fn a_bad_document_is_one_line_with_file_line_column_and_field() {
    let desk = Desk::new().await;
    std::fs::write(desk.path().join("site.yaml"), SITE).unwrap();
    let before = desk.revision().await;
    for (from, to, error) in [
        ("metadata: {name: office}", "metadata: {name: office", "error: office.yaml:5:5: this is no YAML: "),
        (
            "channel: stable",
            "chanel: stable",
            "error: office.yaml:12:15: spec.members.gateway.chanel: unknown field",
        ),
        (
            "{eth0: inside}",
            "{eth0: inside, eth0: outside}",
            "error: office.yaml:18:29: \"eth0\" is there twice: remove one",
        ),
        (
            "acme/gateway ",
            "gateway ",
            "error: office.yaml:11:18: spec.members.gateway.appliance: \"gateway\" is not",
        ),
    ] {
        std::fs::write(desk.path().join("office.yaml"), OFFICE.replacen(from, to, 1)).unwrap();
        let (code, out, err) = desk.run(&["apply", "-f", "site.yaml", "-f", "office.yaml"]).await;
        assert_eq!((code, out.as_str(), err.lines().count()), (3, "", 1), "{to}: {err}");
        assert!(err.starts_with(error), "{to}: {err}");
    }
    // What no catalogue knows: a line for each member.
    std::fs::write(desk.path().join("office.yaml"), OFFICE).unwrap();
    let (code, _, err) = desk.run(&["apply", "-f", "site.yaml", "-f", "office.yaml"]).await;
    assert_eq!(code, 3, "{err}");
    let place =
        "error: office.yaml:11:18: spec.members.gateway.appliance: acme/gateway is not in the catalogue";
    assert!(err.starts_with(place), "{err}");
    assert_eq!(desk.revision().await, before, "the good file before the bad one was not taken either");
    assert!(!desk.run(&["get", "sites", "-o", "name"]).await.1.contains("main"));
    desk.end().await;
}

#[tokio::test]
async fn a_wrong_expired_or_weak_token_is_exit_code_6_and_says_what_to_do() {
    let desk = Desk::new().await;
    std::fs::write(desk.path().join("site.yaml"), SITE).unwrap();
    let apply = ["apply", "-f", "site.yaml"];
    let made = |text: String| text.split_whitespace().last().unwrap_or_default().to_owned();
    let (code, expired, err) =
        desk.run(&["token", "create", "late", "--role", "admin", "--valid", "0s"]).await;
    assert_eq!(code, 0, "{err}");
    let (code, reader, err) = desk.run(&["token", "create", "reader", "--role", "read"]).await;
    assert_eq!(code, 0, "{err}");
    for (token, words) in [
        ("nonsense".to_owned(), "this token is unknown or was revoked"),
        (made(expired), "this token has expired: ask for a new one"),
        (made(reader), "this token may only read: use an admin token"),
    ] {
        let (code, out, err) = desk.run_as(&token, &apply).await;
        assert_eq!((code, out.as_str(), err), (6, "", format!("error: {words}\n")));
    }
    assert!(!desk.run(&["get", "sites", "-o", "name"]).await.1.contains("main"));
    desk.end().await;
}

#[tokio::test]
async fn what_is_no_component_or_no_disk_is_exit_code_3_and_leaves_nothing() {
    let desk = Desk::new().await;
    let before = desk.revision().await;
    std::fs::write(desk.path().join("mine.wasm"), "\x7fELF").unwrap();
    let (code, out, err) = desk.run(&["policy", "install", "mine", "mine.wasm"]).await;
    assert_eq!((code, out.as_str()), (3, ""), "{err}");
    assert!(err.starts_with("error: mine.wasm.sig is not there: sign the component with "), "{err}");
    std::fs::write(desk.path().join("mine.wasm.sig"), "{}").unwrap();
    let (code, out, err) = desk.run(&["policy", "install", "mine", "mine.wasm"]).await;
    assert_eq!((code, out.as_str()), (3, ""), "{err}");
    assert!(err.contains("the signature is no DSSE envelope of a policy"), "{err}");

    let appliance = "apiVersion: collective/v1\nkind: Appliance\nmetadata: {publisher: acme, name: gateway, version: 1.0.0}\n\
        spec:\n  hardware: {vcpus: 1, memory: 64MiB}\n  disks: {system: {file: system.raw}}\n";
    std::fs::write(desk.path().join("appliance.yaml"), appliance).unwrap();
    let mut qcow2 = vec![0; 4096];
    qcow2[..4].copy_from_slice(b"QFI\xfb");
    for (disk, words) in [
        (vec![0; 1000], "system.raw has 1000 bytes, which is no multiple of 512: is it truncated?"),
        (qcow2, "system.raw is a qcow2 file: convert it (`qemu-img convert -O raw`)"),
        (vec![7; 4096], "it is no bootable raw disk"),
    ] {
        std::fs::write(desk.path().join("system.raw"), disk).unwrap();
        let (code, out, err) = desk.run(&["appliance", "publish", "."]).await;
        assert_eq!((code, out.as_str(), err.lines().count()), (3, "", 1), "{err}");
        assert!(err.starts_with("error: ./appliance.yaml:6:20: spec.disks.system.file: "), "{err}");
        assert!(err.trim_end().ends_with(words), "{err}");
    }
    assert_eq!(desk.revision().await, before);
    assert!(!desk.path().join(".config").exists(), "no key was made");
    desk.end().await;
}
