//! The configuration file.

use anyhow::{Context as _, bail};
use chassis::tls::{self, ClientCertificate, Identity};
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use streamer_swarm::Tls;
use streamer_volume::Privacy;
use types::ByteSize;

/// The file, key by key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Unix socket of the API.
    pub(crate) socket: PathBuf,
    /// Unix socket of the block export.
    pub(crate) nbd_socket: PathBuf,
    /// Where images are cached.
    pub(crate) cache_dir: PathBuf,
    /// Where peers are listened for.
    listen: SocketAddr,
    /// The address peers reach us by, if it is not the one listened on.
    announce_address: Option<IpAddr>,
    /// What we are to other streamers.
    #[serde(default)]
    role: Role,
    /// Whether peers speak TLS.
    #[serde(default)]
    peer_tls: PeerTls,
    /// Our certificate: for peers and for trackers.
    tls: Option<TlsFiles>,
    /// Most bytes of pieces on disk.
    pub(crate) cache_bytes_max: Option<ByteSize>,
    /// The site this host is of: peers of the same one are preferred, and one copy of a piece crosses to it.
    pub(crate) site: Option<String>,
    /// Where every image is also a file, for people and for hypervisors without NBD; needs FUSE.
    pub(crate) mount_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Role {
    #[default]
    Host,
    Origin,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PeerTls {
    #[default]
    Required,
    /// Anybody may fetch: for public channels and other clients.
    Off,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsFiles {
    /// Certificates of the authority.
    ca: PathBuf,
    /// Our certificate.
    cert: PathBuf,
    /// Its key.
    key: PathBuf,
}

impl Config {
    /// Which images are taken: public ones only where peers speak without TLS, for there anybody may join.
    pub(crate) fn privacy(&self) -> Privacy {
        match self.peer_tls {
            PeerTls::Required => Privacy::Private,
            PeerTls::Off => Privacy::Any,
        }
    }

    /// Everything the swarm needs, read and checked.
    pub(crate) fn engine(&self) -> anyhow::Result<streamer_swarm::Config> {
        let identity = match &self.tls {
            Some(files) => Some(Identity::load(&files.ca, &files.cert, &files.key)?),
            None => None,
        };
        let tls = match (&identity, self.peer_tls) {
            (_, PeerTls::Off) => None,
            (Some(identity), PeerTls::Required) => Some(Tls::new(
                tls::server_config(identity.clone(), ClientCertificate::Required)?,
                tls::client_config(identity.clone())?,
                &identity.authorities,
                tls::provider(),
            )?),
            (None, PeerTls::Required) => {
                bail!("peers need certificates: add a [tls] section, or write peer_tls = \"off\"")
            }
        };
        let client = match identity {
            Some(identity) => tls::client_config(identity)?,
            None => tls::anonymous_client_config(&[])?,
        };
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(client)
            .no_proxy()
            .user_agent(concat!("collective-streamer/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("cannot set up the tracker's client")?;
        Ok(streamer_swarm::Config {
            listen: self.listen,
            announce: self.announce_address.map(|ip| SocketAddr::new(ip, self.listen.port())),
            role: match self.role {
                Role::Host => streamer_swarm::Role::Host,
                Role::Origin => streamer_swarm::Role::Origin,
            },
            tls,
            http,
            site: self.site.clone(),
        })
    }
}
