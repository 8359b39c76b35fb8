//! The binary, killed at any moment.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, dead_code, reason = "support is a module of several tests")]

mod support;

use controller_client::Client;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use support::DEADLINE;

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the daemon; the log's line `serving` says where it listens.
fn spawn(folder: &Path) -> (Killed, String) {
    let config = folder.join("collectived.toml");
    let text = format!(
        "state_dir = {:?}\nlisten = \"127.0.0.1:0\"\npublic_names = [\"127.0.0.1\"]\npolicies = \"/nonexistent\"\n",
        folder.join("state")
    );
    std::fs::write(&config, text).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_collectived"))
        .arg("--config")
        .arg(&config)
        .env("COLLECTIVE_LOG_FORMAT", "json")
        .env("COLLECTIVE_LOG", "info")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let child = Killed(child);
    let (sender, receiver) = std::sync::mpsc::channel();
    // Reads on to the end, so that the daemon can always write.
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if line["message"] == "serving" {
                let _ = sender.send(line["listen"].as_str().unwrap_or_default().to_owned());
            }
        }
    });
    let listen = receiver.recv_timeout(DEADLINE).unwrap();
    (child, format!("https://{listen}"))
}

fn client(folder: &Path, url: &str) -> Client {
    let ca = std::fs::read_to_string(folder.join("state/ca.pem")).unwrap();
    let token = std::fs::read_to_string(folder.join("state/admin.token")).unwrap();
    Client::new(url, &ca, Some(token.trim())).unwrap()
}

fn site(number: usize) -> String {
    format!(
        "apiVersion: collective/v1\nkind: Site\nmetadata: {{name: s{number}}}\nspec:\n  lan: {{subnet: 10.0.0.0/24, first: 10.0.0.10, last: 10.0.0.20}}\n"
    )
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_daemon_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..3 {
        let (mut daemon, url) = spawn(folder.path());
        let client = client(folder.path(), &url);
        assert!(client.sites().await.unwrap().len() >= acknowledged, "round {round}");
        let writer = tokio::spawn(async move {
            let mut done = 0;
            while done < 10_000 && client.apply(site(acknowledged + done), false).await.is_ok() {
                done += 1;
                if done == 25 * (round + 1) {
                    daemon.0.kill().unwrap();
                }
            }
            done
        });
        acknowledged += tokio::time::timeout(DEADLINE, writer).await.unwrap().unwrap();
    }
    let (_daemon, url) = spawn(folder.path());
    let client = client(folder.path(), &url);
    let sites = client.sites().await.unwrap();
    assert!(sites.len() >= acknowledged && acknowledged >= 100, "{} of {acknowledged}", sites.len());
    let audit = client.audit(0).await.unwrap();
    assert_eq!(audit.len(), sites.len() + 1, "each change with its entry");
}

#[test]
fn a_wrong_configuration_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("x.toml");
    std::fs::write(&config, "public_names = []\nlisen = 1\n").unwrap();
    let run = || {
        Command::new(env!("CARGO_BIN_EXE_collectived"))
            .arg("--check-config")
            .arg("--config")
            .arg(&config)
            .output()
            .unwrap()
    };
    let output = run();
    assert!(!output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("x.toml:2:1: unknown field `lisen`"),
        "{output:?}"
    );
    std::fs::write(&config, "public_names = []\n").unwrap();
    assert!(String::from_utf8_lossy(&run().stderr).contains("public_names is empty"));
    std::fs::write(&config, "public_names = [\"a\"]\n").unwrap();
    assert!(run().status.success());
}
