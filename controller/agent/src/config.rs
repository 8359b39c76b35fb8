//! The agent's configuration file.

use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use types::ByteSize;

/// Memory kept for the host itself if the configuration does not say.
const MEMORY_RESERVED_DEFAULT: ByteSize = ByteSize(512 << 20);

/// `/etc/collective/agent.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Overlays, volumes, and everything that outlives this process.
    #[serde(default = "state_dir")]
    pub state_dir: PathBuf,
    /// Sockets of guests.
    #[serde(default = "run_dir")]
    pub run_dir: PathBuf,
    /// The controller, `https://name:port`.
    pub controller: String,
    /// libvirt, such as `qemu:///system`.
    #[serde(default = "libvirt_uri")]
    pub libvirt_uri: String,
    /// netd's socket.
    #[serde(default = "netd_socket")]
    pub netd_socket: PathBuf,
    /// The streamer's socket.
    #[serde(default = "streamer_socket")]
    pub streamer_socket: PathBuf,
    /// Where the streamer exports images; QEMU opens it.
    #[serde(default = "nbd_socket")]
    pub nbd_socket: PathBuf,
    /// Address other hosts reach this one by.
    pub underlay_address: IpAddr,
    /// Where guests of other hosts come in when they move here; port 4250 of the underlay address if absent.
    #[serde(default)]
    pub move_listen: Option<SocketAddr>,
    /// Memory kept for the host itself.
    #[serde(default = "memory_reserved")]
    pub memory_reserved: ByteSize,
    /// Guests get no more than this together, however much the machine has.
    #[serde(default)]
    pub memory_max: Option<ByteSize>,
    /// Who this host is, as `collective-agent join` wrote it.
    pub identity: IdentityFiles,
}

/// PEM files of a joined host.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityFiles {
    /// The controller's certificate authority.
    pub ca: PathBuf,
    /// This host's certificate.
    pub cert: PathBuf,
    /// This host's key.
    pub key: PathBuf,
}

fn state_dir() -> PathBuf {
    "/var/lib/collective/agent".into()
}
fn run_dir() -> PathBuf {
    "/run/collective".into()
}
fn libvirt_uri() -> String {
    "qemu:///system".to_owned()
}
fn netd_socket() -> PathBuf {
    "/run/collective/netd.sock".into()
}
fn streamer_socket() -> PathBuf {
    "/run/collective/streamer.sock".into()
}
fn nbd_socket() -> PathBuf {
    "/run/collective/streamer-nbd.sock".into()
}
fn memory_reserved() -> ByteSize {
    MEMORY_RESERVED_DEFAULT
}
