//! The configuration file.

use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;

/// One TOML file. Everything but the names has a default.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder of the store, the certificates, images and policies. Ours alone.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// Where people, agents and streamers reach it.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Names and addresses in its certificate; the first is how it calls itself.
    #[serde(default)]
    pub public_names: Vec<String>,
    /// Folder with `balanced.wasm` and `packed.wasm`, installed at the first start.
    #[serde(default = "default_policies")]
    pub policies: PathBuf,
    /// Announce URL; `https://FIRST_NAME:PORT/announce` if absent.
    #[serde(default)]
    pub tracker_url: Option<String>,
    /// Guests that are on their way to other hosts at once; others wait.
    #[serde(default = "default_moves_max")]
    pub moves_max: usize,
}

fn default_moves_max() -> usize {
    controller_model::moving::UNDER_WAY_MAX
}

fn default_state_dir() -> PathBuf {
    "/var/lib/collective/collectived".into()
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 8443))
}

fn default_policies() -> PathBuf {
    "/usr/lib/collective/policies".into()
}

/// A configuration that says something that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum WrongConfig {
    /// No name.
    #[error(
        "public_names is empty: write the names or addresses by which hosts and people reach the controller"
    )]
    NoName,
    /// The tracker's address is no URL.
    #[error("tracker_url {0:?} does not begin with https:// or http://")]
    Tracker(String),
}

impl Config {
    /// Checks what types cannot say.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), WrongConfig> {
        if self.public_names.is_empty() {
            return Err(WrongConfig::NoName);
        }
        match &self.tracker_url {
            Some(url) if !url.starts_with("https://") && !url.starts_with("http://") => {
                Err(WrongConfig::Tracker(url.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Announce URL.
    #[must_use]
    pub fn tracker(&self, port: u16) -> String {
        self.tracker_url.clone().unwrap_or_else(|| format!("{}/announce", self.public_url(port)))
    }

    /// As hosts and people reach it.
    #[must_use]
    pub fn public_url(&self, port: u16) -> String {
        let name = self.public_names.first().map_or("localhost", String::as_str);
        let name = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
        format!("https://{name}:{port}")
    }
}
