//! The session of librqbit, as its authors ship it.

use super::{STOCK, metainfo_for};
use librqbit::{
    AddTorrent, AddTorrentOptions, ConnectionOptions, ListenerOptions, ManagedTorrent, PeerConnectionOptions,
    Session, SessionOptions,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use streamer_api::Published;

/// A port nobody else has in a namespace; announced all the same.
const PORT: u16 = 6991;
/// It keeps alive every two minutes, whatever it is told, and hangs up after 10 s of silence unless told.
const SILENCE_MAX: Duration = Duration::from_secs(150);

/// A session; gone with the test.
pub(crate) struct Stock {
    session: Arc<Session>,
    folder: tempfile::TempDir,
}

impl Stock {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let peers = PeerConnectionOptions { read_write_timeout: Some(SILENCE_MAX), ..Default::default() };
        let options = SessionOptions {
            dht: None,
            disable_local_service_discovery: true,
            ipv4_only: true,
            listen: Some(ListenerOptions {
                listen_addr: (STOCK, PORT).into(),
                announce_port: Some(PORT),
                ..Default::default()
            }),
            connect: Some(ConnectionOptions { peer_opts: Some(peers), ..Default::default() }),
            ..Default::default()
        };
        let session = Session::new_with_opts(folder.path().to_owned(), options).await.unwrap();
        Self { session, folder }
    }

    /// What it has, or shall have.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// Joins the swarm: seeds what is there, fetches the rest.
    pub(crate) async fn join(&self, published: &Published) -> Arc<ManagedTorrent> {
        let options = AddTorrentOptions {
            overwrite: true,
            output_folder: Some(self.folder.path().display().to_string()),
            force_tracker_interval: Some(Duration::from_secs(1)),
            ..Default::default()
        };
        let torrent = AddTorrent::from_bytes(metainfo_for(published, STOCK));
        self.session.add_torrent(torrent, Some(options)).await.unwrap().into_handle().unwrap()
    }

    pub(crate) async fn stop(self) {
        self.session.stop().await;
    }
}
