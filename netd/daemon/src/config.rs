//! The configuration: what the operator of this host grants.

use netd_plan::{Host, site_bridge};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use types::SiteName;

/// `/etc/collective/netd.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where to serve.
    #[serde(default = "default_socket")]
    pub(crate) socket: PathBuf,
    /// Where the desired document is kept.
    #[serde(default = "default_state_dir")]
    pub(crate) state_dir: PathBuf,
    /// This host's address towards the other hosts; needed for networks that cross hosts.
    pub(crate) underlay_address: Option<IpAddr>,
    /// The physical link of each site, given to netd alone.
    #[serde(default)]
    pub(crate) uplinks: BTreeMap<SiteName, String>,
    /// The physical link of each trunk (IEEE 802.1Q), given to netd alone.
    #[serde(default)]
    pub(crate) trunks: BTreeMap<String, String>,
}

fn default_socket() -> PathBuf {
    "/run/collective/netd.sock".into()
}

fn default_state_dir() -> PathBuf {
    "/var/lib/collective/netd".into()
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file.
    #[error(transparent)]
    File(#[from] chassis::config::ConfigError),
    /// Two sites on one link, or under one bridge name.
    #[error("{}: [uplinks] {first} and {second} share {what}; each site needs its own", path.display())]
    Shared { path: PathBuf, first: SiteName, second: SiteName, what: String },
    /// A link name the kernel does not take.
    #[error("{}: [uplinks] {site} = {link:?} is no name of a link", path.display())]
    LinkName { path: PathBuf, site: SiteName, link: String },
}

impl Config {
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let config: Self = chassis::config::load(path)?;
        let mut seen: BTreeMap<String, &SiteName> = BTreeMap::new();
        for (site, link) in &config.uplinks {
            let fits = (1..=netd_api::LINK_NAME_LEN_MAX).contains(&link.len());
            if !fits || !link.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
                return Err(ConfigError::LinkName {
                    path: path.into(),
                    site: site.clone(),
                    link: link.clone(),
                });
            }
            for what in [format!("link {link}"), format!("bridge {}", site_bridge(site))] {
                if let Some(first) = seen.insert(what.clone(), site) {
                    let (first, second) = (first.clone(), site.clone());
                    return Err(ConfigError::Shared { path: path.into(), first, second, what });
                }
            }
        }
        Ok(config)
    }

    pub(crate) fn host(&self) -> Host {
        Host { underlay: self.underlay_address, uplinks: self.uplinks.clone(), trunks: self.trunks.clone() }
    }
}
