//! `transmission-daemon`, told what to do by its files alone.

use super::{TRANSMISSION, metainfo_for};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use streamer_api::Published;

/// A process; killed and removed with the test.
pub(crate) struct Transmission {
    folder: tempfile::TempDir,
    process: Child,
}

impl Drop for Transmission {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Transmission {
    /// Starts it; `seed` is there from the beginning, for the torrent it is of.
    pub(crate) fn start(seed: Option<(&[u8], &Published)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        ["done", "part", "watch"].into_iter().for_each(|name| std::fs::create_dir(path(name)).unwrap());
        let settings = serde_json::json!({
            "bind-address-ipv4": IpAddr::from(TRANSMISSION),
            "dht-enabled": false,
            "lpd-enabled": false,
            "pex-enabled": false,
            "utp-enabled": false,
            "port-forwarding-enabled": false,
            "rpc-enabled": false,
            "download-dir": path("done"),
            "incomplete-dir": path("part"),
            "incomplete-dir-enabled": true,
            "watch-dir": path("watch"),
            "watch-dir-enabled": true,
        });
        std::fs::write(path("settings.json"), settings.to_string()).unwrap();
        if let Some((bytes, published)) = seed {
            std::fs::write(path("done").join("disk"), bytes).unwrap();
            std::fs::write(path("watch").join("disk.torrent"), metainfo_for(published, TRANSMISSION))
                .unwrap();
        }
        let log = std::fs::File::create(path("log")).unwrap();
        let process = Command::new("transmission-daemon")
            .args(["--foreground", "--log-debug", "--config-dir"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("transmission-daemon is installed");
        Self { folder, process }
    }

    /// Starts it; it joins a swarm with nothing.
    pub(crate) fn join(published: &Published) -> Self {
        let transmission = Self::start(None);
        // By another name first: it must not be read in half.
        let (here, there) =
            (transmission.folder.path().join("new"), transmission.folder.path().join("watch/disk.torrent"));
        std::fs::write(&here, metainfo_for(published, TRANSMISSION)).unwrap();
        std::fs::rename(here, there).unwrap();
        transmission
    }

    /// Where the disk is once it is whole.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("done").join("disk")
    }

    /// Where the disk is until then.
    pub(crate) fn part(&self) -> PathBuf {
        self.folder.path().join("part").join("disk.part")
    }
}
