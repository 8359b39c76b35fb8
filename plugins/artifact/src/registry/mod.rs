//! Components and their signatures in an OCI registry.
//!
//! A component is an artifact in CNCF's layout of WebAssembly (config `application/vnd.wasm.config.v0+json`, one layer
//! `application/wasm`); its signature is a second artifact in the same repository, tagged `sha256-DIGEST.sig` by the
//! component's digest. A registry is a stranger: every answer of it is bounded, blobs are compared with their digests,
//! and nothing it says is trusted beyond that: [`crate::verify`] is what decides.

mod challenge;
mod credentials;
mod manifest;
mod reference;
mod session;

pub use credentials::Credentials;
pub use manifest::{ANNOTATION_KIND, ANNOTATION_NAME, ANNOTATION_VERSION, About};
pub use reference::{ParseReferenceError, Reference};

use crate::{Envelope, digest};
use manifest::Wanted;
use session::{Access, Session};
use std::collections::BTreeMap;
use std::time::Duration;
use types::Digest;

/// How long a registry may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Without a byte.
    pub idle: Duration,
    /// For one request.
    pub total: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { idle: Duration::from_secs(30), total: Duration::from_secs(600) }
    }
}

/// Why nothing was pushed or pulled.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// This machine cannot make the connection.
    #[error("cannot set up a connection to the registry: {detail}")]
    Setup {
        /// Why.
        detail: String,
    },
    /// The user's configuration of passwords cannot be used.
    #[error("the credentials for {registry} cannot be used: {problem}")]
    Credentials {
        /// For which registry.
        registry: String,
        /// Why.
        problem: String,
    },
    /// It does not answer, or redirects where nobody should go.
    #[error("{registry} gives no {what}")]
    Unreachable {
        /// Its address.
        registry: String,
        /// What was asked for.
        what: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The answer ended early or stood still.
    #[error("the {what} did not arrive in full")]
    Interrupted {
        /// What was asked for.
        what: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// It wants to know who asks, or says no to who does.
    #[error(
        "{registry} denies the {what}: {}",
        if *.logged_in { "these credentials do not allow it" } else { "log in with `docker login` or `podman login`" }
    )]
    Denied {
        /// Its address.
        registry: String,
        /// What was asked for.
        what: String,
        /// Credentials were sent.
        logged_in: bool,
    },
    /// It is not there.
    #[error("there is no {what} in {repository}")]
    NotFound {
        /// What was asked for.
        what: String,
        /// Where.
        repository: String,
    },
    /// The registry says no.
    #[error("the registry refuses the {what} with status {status}: {said}")]
    Refused {
        /// What was asked for.
        what: String,
        /// HTTP status.
        status: u16,
        /// The beginning of what it says.
        said: String,
    },
    /// More bytes than anything of that sort has.
    #[error("the {what} is larger than {bytes_max} bytes")]
    TooLarge {
        /// What was asked for.
        what: String,
        /// The limit.
        bytes_max: usize,
    },
    /// The registry gave other bytes than those that were named.
    #[error("the {what} is not what its name says: {found} instead of {wanted}")]
    OtherBytes {
        /// What was asked for.
        what: String,
        /// Its digest.
        wanted: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// An answer that is none.
    #[error("the registry's answer about the {what} is wrong: {problem}")]
    Answer {
        /// What was asked for.
        what: String,
        /// What is wrong.
        problem: String,
    },
}

/// What was put into a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Digest of the component's manifest: what others pin.
    pub manifest: Digest,
    /// Tag of the signature, if one was pushed.
    pub signature_tag: Option<String>,
}

/// What came from a registry. Nothing of it is verified but that it is what the registry's names say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The component.
    pub component: Vec<u8>,
    /// Its signature file, if there is one.
    pub signature: Option<Vec<u8>>,
    /// Digest of the manifest, to pin.
    pub manifest: Digest,
    /// What the pusher wrote about it.
    pub annotations: BTreeMap<String, String>,
}

/// Puts a component, and its signature first if there is one, under the reference's tag.
///
/// The signature comes first, so that nobody finds a component whose signature is still under way.
///
/// # Errors
/// The reference has no tag, or the registry does not take it.
pub async fn push(
    reference: &Reference,
    component: &[u8],
    statement: &crate::Statement,
    about: &About,
    signature: Option<&[u8]>,
    credentials: Option<Credentials>,
    patience: Patience,
) -> Result<Pushed, RegistryError> {
    let Some(tag) = reference.tag() else {
        let detail = format!("{reference} has no tag, which is where to push to");
        return Err(RegistryError::Setup { detail });
    };
    let mut session = Session::open(reference, Access::Push, credentials, patience)?;
    let artifact = manifest::of_component(component, statement, about);
    for blob in &artifact.blobs {
        session.put_blob(blob).await?;
    }
    let mut signature_tag = None;
    if let Some(envelope) = signature {
        let tag = manifest::signature_tag(&digest(component));
        let signature = manifest::of_signature(envelope, &artifact.manifest);
        for blob in &signature.blobs {
            session.put_blob(blob).await?;
        }
        session.put_manifest(&tag, &signature.manifest).await?;
        signature_tag = Some(tag);
    }
    session.put_manifest(tag, &artifact.manifest).await?;
    Ok(Pushed { manifest: digest(&artifact.manifest), signature_tag })
}

/// Fetches a component and its signature. A digest in the reference decides, whatever the tag says.
///
/// # Errors
/// It is not there, or the registry answers with something else.
pub async fn pull(
    reference: &Reference,
    credentials: Option<Credentials>,
    patience: Patience,
) -> Result<Pulled, RegistryError> {
    let mut session = Session::open(reference, Access::Pull, credentials, patience)?;
    let name = reference.manifest_name();
    let bytes = session.manifest(&name).await?;
    let found = digest(&bytes);
    if let Some(wanted) = reference.digest()
        && wanted != found
    {
        return Err(RegistryError::OtherBytes { what: format!("manifest of {reference}"), wanted, found });
    }
    let answer = |what: &str, problem| RegistryError::Answer { what: what.to_owned(), problem };
    let (layer, annotations) =
        manifest::parse(&bytes, Wanted::Component).map_err(|problem| answer("manifest", problem))?;
    let component = session.blob(layer.digest, size(&layer)).await?;
    let signature = match session.manifest(&signature_name(reference, &layer.digest)).await {
        Err(RegistryError::NotFound { .. }) => None,
        Err(error) => return Err(error),
        Ok(bytes) => {
            let (layer, _) =
                manifest::parse(&bytes, Wanted::Signature).map_err(|problem| answer("signature", problem))?;
            let envelope = session.blob(layer.digest, size(&layer)).await?;
            // A registry cannot make a file here that only looks like a signature.
            Envelope::parse(&envelope).map_err(|error| answer("signature", error.to_string()))?;
            Some(envelope)
        }
    };
    Ok(Pulled { component, signature, manifest: found, annotations })
}

/// The parsers of strangers' bytes, for fuzzing.
#[doc(hidden)]
pub mod strangers {
    use super::manifest::Wanted;

    /// Reads a manifest; the layer's size if it is one.
    #[must_use]
    pub fn manifest(bytes: &[u8]) -> Option<u64> {
        super::manifest::parse(bytes, Wanted::Component).ok().map(|(layer, _)| layer.size)
    }

    /// Reads a challenge.
    pub fn challenge(header: &str) {
        drop(super::challenge::parse(header));
    }
}

fn signature_name(reference: &Reference, component: &Digest) -> String {
    reference.with_tag(manifest::signature_tag(component)).manifest_name()
}

/// `manifest::parse` refuses sizes above our limits, which fit.
fn size(layer: &manifest::Descriptor) -> usize {
    usize::try_from(layer.size).unwrap_or(0)
}
