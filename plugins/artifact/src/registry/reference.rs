//! Where an artifact is: `REGISTRY/NAME:TAG`, `REGISTRY/NAME@sha256:..`, or both.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use types::Digest;

const REPOSITORY_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;
const REGISTRY_BYTES_MAX: usize = 255;

/// The name of an artifact in a registry, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Host, and port if one is given.
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A text that names no artifact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} names no artifact: {problem}; write REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:DIGEST")]
pub struct ParseReferenceError {
    text: String,
    problem: &'static str,
}

impl Reference {
    /// Host, and port if one is given.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Name inside of the registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Tag, if one is given.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Digest of the manifest, if it is pinned.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The same artifact, pinned.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// Another tag of the same repository.
    pub(crate) fn with_tag(&self, tag: String) -> Self {
        Self { tag: Some(tag), digest: None, ..self.clone() }
    }

    /// What the distribution API calls it: the digest if there is one.
    pub(crate) fn manifest_name(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            // `from_str` and `with_tag` leave no reference without both.
            (None, None) => String::new(),
        }
    }

    /// Address of the registry's API. Plain HTTP only where nothing leaves the machine.
    pub(crate) fn origin(&self) -> String {
        let host = match self.registry.as_str() {
            // The registry that is called docker.io answers elsewhere.
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let scheme = if is_loopback(host) { "http" } else { "https" };
        format!("{scheme}://{host}")
    }
}

/// Whether a host, with or without a port, is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, ParseReferenceError> {
        let error = |problem| ParseReferenceError { text: crate::statement::shortened(text), problem };
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => {
                (rest, Some(digest.parse().map_err(|_| error("the digest is not sha256: and 64 digits"))?))
            }
        };
        let (registry, rest) = rest.split_once('/').ok_or_else(|| error("the registry is missing"))?;
        if !is_registry(registry) {
            return Err(error("its first part is no registry's host"));
        }
        let (repository, tag) = match rest.rsplit_once(':') {
            None => (rest, None),
            Some((repository, tag)) => (repository, Some(tag)),
        };
        if repository.len() > REPOSITORY_BYTES_MAX || !repository.split('/').all(is_component) {
            return Err(error("the name is not made of a-z, 0-9, '.', '_', '-' and '/'"));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(error("the tag is not made of letters, digits, '.', '_' and '-'"));
        }
        if tag.is_none() && digest.is_none() {
            return Err(error("it has neither a tag nor a digest"));
        }
        Ok(Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

/// A name with a dot or a port, an address, or localhost: anything else is a folder somebody forgot the registry of.
fn is_registry(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
    if text.len() > REGISTRY_BYTES_MAX {
        return false;
    }
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        let port_ok = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return address.parse::<std::net::Ipv6Addr>().is_ok() && port_ok;
    }
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    !host.is_empty()
        && host.bytes().all(plain)
        && port.is_none_or(is_port)
        && (host == "localhost" || host.contains('.') || port.is_some())
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_component(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner) && !text.contains("..")
}

fn is_tag(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=TAG_BYTES_MAX).contains(&text.len())
        && bytes.iter().all(inner)
        && !matches!(bytes.first(), Some(b'.' | b'-'))
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn references_with_tag_digest_or_both_are_read() {
        for (text, origin) in [
            ("ghcr.io/acme/balanced:1.2.3", "https://ghcr.io"),
            ("localhost:5000/balanced:v1", "http://localhost:5000"),
            ("127.0.0.1:5000/balanced:v1", "http://127.0.0.1:5000"),
            ("[::1]:5000/balanced:v1", "http://[::1]:5000"),
            ("registry:5000/a/b/c:v1", "https://registry:5000"),
            ("docker.io/acme/x:1", "https://registry-1.docker.io"),
            (&format!("example.org/x@{DIGEST}"), "https://example.org"),
            (&format!("example.org/x:1@{DIGEST}"), "https://example.org"),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), text);
            assert_eq!(reference.origin(), origin);
        }
    }

    #[test]
    fn what_names_no_artifact_is_refused() {
        for text in [
            "",
            "x",
            "acme/balanced:1",
            "ghcr.io/acme/balanced",
            "ghcr.io/Acme/x:1",
            "ghcr.io//x:1",
            "ghcr.io/x:",
            "ghcr.io/x:-1",
            "ghcr.io/../x:1",
            "ghcr.io/x@sha256:12",
            "ghcr.io:0/x:1",
            "user@ghcr.io/x:1",
            "ghcr.io/x?y:1",
            "[::1/x:1",
            "ghcr.io#/x:1",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_that_only_begins_like_this_machine_is_not_this_machine() {
        for host in ["localhost.example.org", "127.0.0.1.example.org", "127.example.org:80", "10.0.0.1"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_written_the_same_way(text in "[a-z0-9.:/@_\\-\\[\\]]{0,60}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string(), text);
            }
        }
    }
}
