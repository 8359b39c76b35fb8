//! The controller's disk is full: a real one, without a free byte.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, dead_code, reason = "support is a module of several tests")]

mod daemon;
mod support;

use controller_api::rest::{Problem, ProblemCode};
use controller_client::{Client, ClientError};
use std::fmt::Debug;
use std::path::Path;
use support::{Publisher, component, trusted};
use xtask::small_disk::SmallDisk;

fn full<T: Debug>(result: Result<T, ClientError>) -> Problem {
    let problem = result.unwrap_err().problem().unwrap().clone();
    assert_eq!(problem.code, ProblemCode::DiskFull, "{problem:?}");
    assert!(problem.message.starts_with("the controller's disk is full: cannot "), "{problem:?}");
    assert!(problem.message.contains("No space left on device"), "{problem:?}");
    let remedy = "; nothing was changed: free space there and ask again";
    assert!(problem.message.ends_with(remedy), "{problem:?}");
    problem
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// Applies sites until one is refused: how many were taken.
async fn apply_until_full(client: &Client) -> usize {
    for number in 0..100_000 {
        if let Err(error) = client.apply(daemon::site(number), false).await {
            let problem = full::<()>(Err(error));
            assert!(problem.message.contains("/state/store.redb"), "{problem:?}");
            return number;
        }
    }
    panic!("the disk is never full");
}

#[tokio::test]
async fn a_full_disk_refuses_with_one_clear_error_and_loses_nothing() {
    let disk = SmallDisk::new(16 << 20).unwrap();
    let component = component("balanced");
    let name: types::PolicyName = "balanced".parse().unwrap();
    let (running, url) = daemon::spawn(disk.path());
    let client = daemon::client(disk.path(), &url);
    let publisher = Publisher::new();
    client.put_publisher(&"acme".parse().unwrap(), &publisher.public()).await.unwrap();
    let policy = trusted(&client).await.signed(&component);
    disk.fill().unwrap();

    let version = publisher.version("gateway", "1.0.0", 1);
    let state = disk.path().join("state");
    let problem = full(client.publish(&version).await);
    assert!(problem.message.contains("/state/images/"), "{problem:?}");
    let problem = full(client.put_policy(&name, &policy).await);
    assert!(problem.message.contains("/state/policies/"), "{problem:?}");
    assert_eq!((files(&state.join("images")), files(&state.join("policies"))), (0, 0));
    assert!(client.appliances().await.unwrap().is_empty() && client.policies().await.unwrap().is_empty());

    // What the store's file has room for is taken, and no more. Everything else goes on.
    let taken = apply_until_full(&client).await;
    let revision = client.version().await.unwrap().revision;
    full(client.apply(daemon::site(taken), false).await);
    full(client.apply(daemon::site(taken), false).await);
    assert_eq!(client.version().await.unwrap().revision, revision);
    assert_eq!(client.sites().await.unwrap().len(), taken);
    assert_eq!(client.audit(0).await.unwrap().len(), taken + 3);
    assert_eq!(daemon::get(disk.path(), &url, "/healthz").await, 200);

    // Killed, it starts on the full disk with all it took.
    drop(running);
    let (running, url) = daemon::spawn(disk.path());
    let client = daemon::client(disk.path(), &url);
    assert_eq!(client.sites().await.unwrap().len(), taken);
    full(client.apply(daemon::site(taken), false).await);

    disk.free().unwrap();
    client.apply(daemon::site(taken), false).await.unwrap();
    client.publish(&version).await.unwrap();
    client.put_policy(&name, &policy).await.unwrap();
    drop(running);
    let (_running, url) = daemon::spawn(disk.path());
    let client = daemon::client(disk.path(), &url);
    assert_eq!(client.sites().await.unwrap().len(), taken + 1);
    assert_eq!((client.appliances().await.unwrap().len(), client.policies().await.unwrap().len()), (1, 1));
    let numbers: Vec<u64> = client.audit(0).await.unwrap().iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, (1..=taken as u64 + 6).collect::<Vec<_>>(), "the chain has no gap and no fork");
}
