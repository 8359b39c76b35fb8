//! Names of roles and files, the same on both sides.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use types::{ApplianceRef, ChannelName, VersionName};

/// In the root: whose repository it is.
pub(crate) const PUBLISHER_FIELD: &str = "x-collective-publisher";
pub(crate) const METADATA: &str = "metadata";
pub(crate) const TARGETS: &str = "targets";
pub(crate) const IMAGES: &str = "images";
/// Of the specification that the metadata follows.
pub(crate) const SPEC_VERSION: &str = "1.0.0";

/// Who signs what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Which keys count.
    Root,
    /// Who speaks for which appliance.
    Targets,
    /// Which files belong together.
    Snapshot,
    /// What is the newest.
    Timestamp,
    /// The versions and channels of one appliance.
    Appliance(String),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::Targets => f.write_str("targets"),
            Self::Snapshot => f.write_str("snapshot"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Appliance(name) => write!(f, "appliance/{name}"),
        }
    }
}

impl FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "root" => Ok(Self::Root),
            "targets" => Ok(Self::Targets),
            "snapshot" => Ok(Self::Snapshot),
            "timestamp" => Ok(Self::Timestamp),
            _ => match text.strip_prefix("appliance/") {
                Some(name) if is_appliance(name) => Ok(Self::Appliance(name.to_owned())),
                _ => Err(format!(
                    "{text:?} is no role: write root, targets, snapshot, timestamp or appliance/NAME"
                )),
            },
        }
    }
}

impl Role {
    /// A file name without a slash.
    pub(crate) fn label(&self) -> String {
        self.to_string().replace('/', "-")
    }
}

/// TUF's own roles' files cannot be taken by an appliance.
pub(crate) fn is_appliance(name: &str) -> bool {
    !matches!(name, "root" | "targets" | "snapshot" | "timestamp")
        && format!("x/{name}").parse::<ApplianceRef>().is_ok()
}

/// Where an appliance's channels point, and what of it is withdrawn.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channels {
    /// By channel.
    #[serde(default)]
    pub channels: BTreeMap<ChannelName, VersionName>,
    /// Withdrawn versions, with the reason.
    #[serde(default)]
    pub yanked: BTreeMap<VersionName, String>,
}

/// A target's meaning by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meaning {
    Version(VersionName),
    Metainfo(VersionName),
    Manifest(VersionName),
    Channels,
}

type End = (&'static str, fn(VersionName) -> Meaning);

const ENDS: [End; 3] = [
    (".version.json", Meaning::Version),
    (".metainfo", Meaning::Metainfo),
    (".manifest.json", Meaning::Manifest),
];

impl Meaning {
    /// `web.2.0.0.version.json`
    pub(crate) fn name(&self, appliance: &str) -> String {
        match self {
            Self::Version(version) => format!("{appliance}.{version}.version.json"),
            Self::Metainfo(version) => format!("{appliance}.{version}.metainfo"),
            Self::Manifest(version) => format!("{appliance}.{version}.manifest.json"),
            Self::Channels => format!("{appliance}.channels.json"),
        }
    }

    /// None for what a later program may have put there.
    pub(crate) fn parse(appliance: &str, name: &str) -> Option<Self> {
        let rest = name.strip_prefix(appliance)?.strip_prefix('.')?;
        if rest == "channels.json" {
            return Some(Self::Channels);
        }
        ENDS.iter().find_map(|(end, meaning)| Some(meaning(rest.strip_suffix(end)?.parse().ok()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_meaning_is_read_back_from_its_name() {
        let version: VersionName = "2.0.0+b~1".parse().unwrap();
        for meaning in [
            Meaning::Version(version.clone()),
            Meaning::Metainfo(version.clone()),
            Meaning::Manifest(version),
            Meaning::Channels,
        ] {
            assert_eq!(Meaning::parse("web", &meaning.name("web")), Some(meaning.clone()));
            assert_eq!(Meaning::parse("we", &meaning.name("web")), None);
        }
        assert_eq!(Meaning::parse("web", "web.later.xml"), None);
    }

    #[test]
    fn an_appliance_takes_no_role_of_the_framework() {
        for name in ["root", "targets", "snapshot", "timestamp", "a.b", "", "../x"] {
            assert!(!is_appliance(name), "{name}");
            assert!(format!("appliance/{name}").parse::<Role>().is_err(), "{name}");
        }
        assert_eq!("appliance/web".parse(), Ok(Role::Appliance("web".into())));
    }
}
