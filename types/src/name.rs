//! Names. All follow one rule (RFC 1123 label, at most 32 bytes), so that a name can stand in a file name, a DNS
//! label, a domain name and a URL without quoting.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use utoipa::ToSchema;

/// Longest name in bytes: two names and separators stay below what libvirt, DNS and file systems take.
pub const NAME_LEN_MAX: usize = 32;

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameError {
    kind: &'static str,
    text: String,
    problem: &'static str,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a {}: {}", self.text, self.kind, self.problem)
    }
}

impl std::error::Error for NameError {}

fn check_label(kind: &'static str, text: &str) -> Result<(), NameError> {
    let fail = |problem| Err(NameError { kind, text: text.chars().take(64).collect(), problem });
    if text.is_empty() {
        return fail("it is empty");
    }
    if text.len() > NAME_LEN_MAX {
        return fail("it is longer than 32 bytes");
    }
    if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return fail("use lower-case letters, digits and '-'");
    }
    if text.starts_with('-') || text.ends_with('-') {
        return fail("it starts or ends with '-'");
    }
    Ok(())
}

fn check_version(kind: &'static str, text: &str) -> Result<(), NameError> {
    let fail = |problem| Err(NameError { kind, text: text.chars().take(64).collect(), problem });
    if text.is_empty() {
        return fail("it is empty");
    }
    if text.len() > NAME_LEN_MAX {
        return fail("it is longer than 32 bytes");
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'+' | b'~')) {
        return fail("use letters, digits, '.', '-', '+' and '~'");
    }
    if !text.as_bytes()[0].is_ascii_alphanumeric() {
        return fail("it starts with a sign");
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:ident, $pattern:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String, pattern = $pattern, max_length = 32)]
        pub struct $name(String);

        impl $name {
            /// Checks a text.
            ///
            /// # Errors
            /// [`NameError`] says what is wrong with it.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                $check($kind, &text)?;
                Ok(Self(text))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(/// An IT department's definition of members and wiring.
    BundleName, "bundle name", check_label, "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$");
name!(/// One bundle assigned to a user or group.
    DeploymentName, "deployment name", check_label, "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$");
name!(/// One member of a bundle.
    MemberName, "member name", check_label, "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$");
name!(/// One virtual Ethernet segment of a bundle.
    NetworkName, "network name", check_label, "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$");
name!(/// Where one member's NIC joins one network.
    PortName, "port name", check_label, "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$");
name!(/// A user's own disk, kept across updates.
    VolumeName, "volume name", check_label, "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$");
name!(/// A machine with libvirt and our daemons.
    HostName, "host name", check_label, "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$");
name!(/// Hosts that share a fast network: an office.
    SiteName, "site name", check_label, "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$");
name!(/// The identity whose key signs versions.
    PublisherName, "publisher name", check_label, "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$");
name!(/// A maker's movable pointer to a version.
    ChannelName, "channel name", check_label, "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$");
name!(/// A plugin plus its settings, bound to one decision point.
    PolicyName, "policy name", check_label, "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$");
name!(/// One immutable release of an appliance, such as `1.0.2`.
    VersionName, "version name", check_version, "^[A-Za-z0-9][A-Za-z0-9.+~-]*$");

/// An appliance by publisher and name, written `publisher/appliance`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(example = "acme/gateway")]
pub struct ApplianceRef {
    /// Who makes it.
    pub publisher: PublisherName,
    /// Its name with that publisher.
    pub appliance: String,
}

impl FromStr for ApplianceRef {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let Some((publisher, appliance)) = text.split_once('/') else {
            return Err(NameError {
                kind: "appliance",
                text: text.chars().take(64).collect(),
                problem: "write publisher/appliance",
            });
        };
        check_label("appliance name", appliance)?;
        Ok(Self { publisher: PublisherName::new(publisher)?, appliance: appliance.to_owned() })
    }
}

impl fmt::Display for ApplianceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.publisher, self.appliance)
    }
}

impl TryFrom<String> for ApplianceRef {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ApplianceRef> for String {
    fn from(appliance: ApplianceRef) -> String {
        appliance.to_string()
    }
}

/// One member of a deployment, written `deployment/member`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(example = "office/workspace")]
pub struct InstanceId {
    /// The deployment it belongs to.
    pub deployment: DeploymentName,
    /// The member of the bundle it is.
    pub member: MemberName,
}

impl FromStr for InstanceId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let Some((deployment, member)) = text.split_once('/') else {
            return Err(NameError {
                kind: "instance",
                text: text.chars().take(64).collect(),
                problem: "write deployment/member",
            });
        };
        Ok(Self { deployment: DeploymentName::new(deployment)?, member: MemberName::new(member)? })
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.deployment, self.member)
    }
}

impl TryFrom<String> for InstanceId {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn accepts_exactly_the_rfc_1123_labels_up_to_32_bytes(text in ".{0,40}") {
            let label = !text.is_empty()
                && text.len() <= NAME_LEN_MAX
                && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
                && !text.starts_with('-')
                && !text.ends_with('-');
            prop_assert_eq!(BundleName::new(text.clone()).is_ok(), label);
        }

        #[test]
        fn an_instance_id_survives_text(deployment in "[a-z][a-z0-9]{0,8}", member in "[a-z][a-z0-9]{0,8}") {
            let text = format!("{deployment}/{member}");
            prop_assert_eq!(text.parse::<InstanceId>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_error_names_the_text_and_the_problem() {
        let error = "Acme/gateway".parse::<ApplianceRef>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"Acme\" is not a publisher name: use lower-case letters, digits and '-'"
        );
    }
}
