//! Every image is also a file.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod stand;

use stand::{Daemon, Stand, tool};
use streamer_api::Prefetch;

#[tokio::test]
async fn an_image_is_a_file_that_arrives_as_it_is_read() {
    let stand = Stand::new(24).await;
    let folder = tempfile::tempdir().unwrap();
    let mount = folder.path().join("images");
    let mut host = Daemon::start("host", &format!("mount_dir = {:?}", mount.display().to_string())).await;
    host.put(&stand.published, &stand.tracker.url, Prefetch::Off).await;
    let file = mount.join(stand.published.digest.hex());
    let path = file.display().to_string();
    assert_eq!(std::fs::metadata(&file).unwrap().len(), stand.bytes.len() as u64);
    tool("cmp", &[&path, stand.raw.to_str().unwrap()]).await;
    let status = host.status(&stand.published).await;
    assert_eq!(status.pieces_local, 18);
    assert!(status.readers.is_empty(), "a person is no guest");
    // A killed daemon leaves a dead mount; the next one takes its place, and unmounts at its end.
    host.kill();
    assert!(std::fs::File::open(&file).is_err());
    host.again().await;
    tool("cmp", &[&path, stand.raw.to_str().unwrap()]).await;
    host.stop().await;
    assert_eq!(std::fs::read_dir(&mount).unwrap().count(), 0);
}
