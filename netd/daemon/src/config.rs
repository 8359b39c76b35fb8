//! The configuration: what the operator of this host grants.

use netd_kernel::RouterFolders;
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
    /// Where the namespaces of routers get their names; a folder of its own for each netd of one machine.
    #[serde(default = "default_namespace_dir")]
    pub(crate) namespace_dir: PathBuf,
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

/// Where `ip netns` looks.
fn default_namespace_dir() -> PathBuf {
    "/run/netns".into()
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file.
    #[error(transparent)]
    File(#[from] chassis::config::ConfigError),
    /// Two grants of one link, or two sites under one bridge name.
    #[error("{}: {first} and {second} share {what}; each needs its own", path.display())]
    Shared { path: PathBuf, first: String, second: String, what: String },
    /// A link name the kernel does not take.
    #[error("{}: {grant} = {link:?} is no name of a link", path.display())]
    LinkName { path: PathBuf, grant: String, link: String },
}

impl Config {
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let config: Self = chassis::config::load(path)?;
        config.check_grants(path)?;
        Ok(config)
    }

    fn check_grants(&self, path: &Path) -> Result<(), ConfigError> {
        let sites = self.uplinks.iter().map(|(site, link)| (format!("[uplinks] {site}"), link, Some(site)));
        let trunks = self.trunks.iter().map(|(trunk, link)| (format!("[trunks] {trunk}"), link, None));
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        for (grant, link, site) in sites.chain(trunks) {
            let fits = (1..=netd_api::LINK_NAME_LEN_MAX).contains(&link.len());
            if !fits || !link.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
                return Err(ConfigError::LinkName { path: path.into(), grant, link: link.clone() });
            }
            let bridge = site.map(|site| format!("bridge {}", site_bridge(site)));
            for what in [format!("link {link}")].into_iter().chain(bridge) {
                if let Some(first) = seen.insert(what.clone(), grant.clone()) {
                    return Err(ConfigError::Shared { path: path.into(), first, second: grant, what });
                }
            }
        }
        Ok(())
    }

    pub(crate) fn router_folders(&self) -> RouterFolders {
        RouterFolders { namespaces: self.namespace_dir.clone(), state: self.state_dir.clone() }
    }

    pub(crate) fn host(&self) -> Host {
        Host { underlay: self.underlay_address, uplinks: self.uplinks.clone(), trunks: self.trunks.clone() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "in a test a panic is the failure")]
    use super::*;

    #[test]
    fn each_link_is_granted_once_and_under_a_name_the_kernel_takes() {
        let check = |text: &str| {
            let config: Config = toml::from_str(text).unwrap();
            config.check_grants(Path::new("netd.toml")).map_err(|error| error.to_string())
        };
        let ok = "[uplinks]\nlab = \"eth1\"\n[trunks]\ncore = \"eth2\"\n";
        assert_eq!(check(ok), Ok(()));
        let shared = |trunks: &str| check(&format!("[uplinks]\nlab = \"eth1\"\n[trunks]\n{trunks}\n"));
        assert_eq!(
            shared("core = \"eth1\""),
            Err("netd.toml: [uplinks] lab and [trunks] core share link eth1; each needs its own".to_owned())
        );
        assert_eq!(
            shared("a = \"eth2\"\nb = \"eth2\""),
            Err("netd.toml: [trunks] a and [trunks] b share link eth2; each needs its own".to_owned())
        );
        assert_eq!(
            shared("a = \"eth 2\""),
            Err("netd.toml: [trunks] a = \"eth 2\" is no name of a link".to_owned())
        );
    }
}
