//! The binary, killed at any moment.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, dead_code, reason = "support is a module of several tests")]

mod daemon;
mod support;

use daemon::{client, site, spawn};
use std::process::Command;
use support::{Author, DEADLINE, component};

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

#[tokio::test]
async fn a_daemon_killed_while_policies_change_has_the_components_it_speaks_of_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let name: types::PolicyName = "mine".parse().unwrap();
    let author = Author::new();
    let both = [author.signed(&component("balanced")), author.signed(&component("packed"))];
    for round in 0..4_u64 {
        let (mut daemon, url) = spawn(folder.path());
        let (client, killed) = (client(folder.path(), &url), client(folder.path(), &url));
        let root = author.root(&[controller_api::policy::PolicyKind::Placement]);
        client.put_trust_root(&"acme".parse().unwrap(), &root).await.unwrap();
        check_components(folder.path(), &client).await;
        let (name, both) = (name.clone(), both.clone());
        let writer = tokio::spawn(async move {
            let mut number = 0;
            while killed.put_policy(&name, &both[number % 2]).await.is_ok() {
                number += 1;
            }
        });
        // Somewhere in the middle of one of them.
        tokio::time::sleep(std::time::Duration::from_millis(150 + 170 * round)).await;
        daemon.0.kill().unwrap();
        tokio::time::timeout(DEADLINE, writer).await.unwrap().unwrap();
    }
    let (_daemon, url) = spawn(folder.path());
    let client = client(folder.path(), &url);
    check_components(folder.path(), &client).await;
    assert_eq!(client.policies().await.unwrap().len(), 1, "one of the installs was acknowledged");
}

/// Every release's bytes are there, and nothing else is.
async fn check_components(folder: &std::path::Path, client: &controller_client::Client) {
    let mut expected = std::collections::BTreeSet::new();
    for policy in client.policies().await.unwrap() {
        for release in std::iter::once(&policy.active).chain(&policy.earlier) {
            let bytes = client.policy_component(&policy.name, Some(&release.digest)).await.unwrap();
            assert_eq!(plugins_artifact::digest(&bytes), release.digest);
            expected.insert(format!("{}.wasm", release.digest.hex()));
        }
    }
    let found = std::fs::read_dir(folder.join("state/policies")).unwrap();
    let found: std::collections::BTreeSet<_> =
        found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, expected);
}
