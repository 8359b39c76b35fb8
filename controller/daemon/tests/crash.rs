//! The binary, killed at any moment.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, dead_code, reason = "support is a module of several tests")]

mod daemon;
mod support;

use daemon::{client, site, spawn};
use std::process::Command;
use support::DEADLINE;

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
