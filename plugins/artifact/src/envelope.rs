//! The signature: a DSSE envelope (<https://github.com/secure-systems-lab/dsse>) around a statement.

use crate::key::{KeyId, PublicKey, SecretKey};
use crate::statement::{Kind, Statement, StatementError, shortened};
use crate::{COMPONENT_BYTES_MAX, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use types::Digest;

/// What the payload is.
pub const PAYLOAD_TYPE: &str = "application/vnd.collective.policy.v1+json";

/// Largest envelope, in bytes.
pub const ENVELOPE_BYTES_MAX: usize = 16 << 10;

/// Most signatures of one envelope: each costs a verification per root.
const SIGNATURES_MAX: usize = 8;

/// A signature file, decoded. Nothing in it is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    payload: Vec<u8>,
    statement: Statement,
    signatures: Vec<Vec<u8>>,
}

/// As it is written. Unknown fields are passed over, as DSSE wants.
#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(rename = "payloadType")]
    payload_type: String,
    payload: String,
    signatures: Vec<WireSignature>,
}

#[derive(Serialize, Deserialize)]
struct WireSignature {
    /// A hint for people: verification tries the keys it trusts.
    #[serde(default)]
    keyid: String,
    sig: String,
}

/// A key that the operator trusts with some kinds of policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The operator's name for it.
    pub name: String,
    /// The key.
    pub key: PublicKey,
    /// What it may vouch for.
    pub kinds: BTreeSet<Kind>,
}

/// Who vouches for a component, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// The root's name.
    pub root: String,
    /// Its key.
    pub key: KeyId,
    /// What was signed.
    pub statement: Statement,
}

/// Why a component is not to be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The component is larger than any may be.
    #[error("the component has {bytes} bytes: at most {COMPONENT_BYTES_MAX} are taken")]
    ComponentTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The signature is larger than any may be.
    #[error("the signature has {bytes} bytes: at most {ENVELOPE_BYTES_MAX} are taken")]
    EnvelopeTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// It is no envelope.
    #[error("the signature is no DSSE envelope of a policy: {0}")]
    Malformed(String),
    /// It speaks of something that cannot be.
    #[error("the signature's statement is wrong")]
    Statement(#[from] StatementError),
    /// It is for other bytes.
    #[error("the signature is for {signed}, the component is {found}")]
    OtherComponent {
        /// What was signed.
        signed: Digest,
        /// What it is.
        found: Digest,
    },
    /// No trusted key made it.
    #[error(
        "no trusted key signed it (keys it claims: {}); add the publisher's key to the trust roots of {kind} policies",
        list(.claimed)
    )]
    UnknownKey {
        /// The decision the policy wants to make.
        kind: Kind,
        /// Keys that the envelope says it is from, unchecked.
        claimed: Vec<String>,
    },
    /// A trusted key made it, that may not vouch for this kind.
    #[error("it is signed by {root}, which is not trusted with {kind} policies")]
    KindNotTrusted {
        /// The root's name.
        root: String,
        /// The decision the policy wants to make.
        kind: Kind,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl Envelope {
    /// Decodes a signature file. Proves nothing.
    ///
    /// # Errors
    /// It is too large, no envelope, or its statement is not well-formed.
    pub fn parse(bytes: &[u8]) -> Result<Self, VerifyError> {
        decode(bytes).map(|(envelope, _)| envelope)
    }

    /// What it claims: believe it after [`verify`].
    #[must_use]
    pub fn statement(&self) -> &Statement {
        &self.statement
    }
}

fn decode(bytes: &[u8]) -> Result<(Envelope, Vec<String>), VerifyError> {
    if bytes.len() > ENVELOPE_BYTES_MAX {
        return Err(VerifyError::EnvelopeTooLarge { bytes: bytes.len() });
    }
    let malformed = |error: serde_json::Error| VerifyError::Malformed(error.to_string());
    let wire: Wire = serde_json::from_slice(bytes).map_err(malformed)?;
    if wire.payload_type != PAYLOAD_TYPE {
        let found = shortened(&wire.payload_type);
        return Err(VerifyError::Malformed(format!("its payloadType is {found:?}, not {PAYLOAD_TYPE}")));
    }
    let count = wire.signatures.len();
    if !(1..=SIGNATURES_MAX).contains(&count) {
        let problem = format!("{count} signatures: 1 to {SIGNATURES_MAX} are taken");
        return Err(VerifyError::Malformed(problem));
    }
    let payload = decode_base64("payload", &wire.payload)?;
    let statement: Statement = serde_json::from_slice(&payload).map_err(malformed)?;
    statement.check()?;
    let claimed = wire.signatures.iter().map(|one| shortened(&one.keyid)).collect();
    let signatures =
        wire.signatures.iter().map(|one| decode_base64("sig", &one.sig)).collect::<Result<_, _>>()?;
    Ok((Envelope { payload, statement, signatures }, claimed))
}

/// DSSE allows both alphabets.
fn decode_base64(field: &str, text: &str) -> Result<Vec<u8>, VerifyError> {
    STANDARD
        .decode(text)
        .or_else(|error| URL_SAFE.decode(text).map_err(|_| error))
        .map_err(|error| VerifyError::Malformed(format!("{field}: {error}")))
}

/// What is signed in place of the payload alone, so that its type cannot be changed.
fn pre_authentication_encoding(payload: &[u8]) -> Vec<u8> {
    let header = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
    [header.as_bytes(), payload].concat()
}

/// Signs a statement: the bytes of a signature file.
///
/// # Errors
/// The statement's texts are not those of a policy.
pub fn sign(statement: &Statement, key: &SecretKey) -> Result<Vec<u8>, StatementError> {
    statement.check()?;
    // Digests, a closed enum and checked texts always serialize.
    let payload = serde_json::to_vec(statement).unwrap_or_default();
    let signature = key.sign(&pre_authentication_encoding(&payload));
    let wire = Wire {
        payload_type: PAYLOAD_TYPE.to_owned(),
        payload: STANDARD.encode(&payload),
        signatures: vec![WireSignature {
            keyid: key.public().id().to_string(),
            sig: STANDARD.encode(signature),
        }],
    };
    let mut text = serde_json::to_vec_pretty(&wire).unwrap_or_default();
    text.push(b'\n');
    Ok(text)
}

/// Finds who vouches for a component: one of `roots` signed its digest, and is trusted with the kind it signed for.
/// Do this before anything looks into the component.
///
/// # Errors
/// Nobody that is trusted does.
pub fn verify(envelope: &[u8], component: &[u8], roots: &[Root]) -> Result<Signer, VerifyError> {
    if component.len() > COMPONENT_BYTES_MAX {
        return Err(VerifyError::ComponentTooLarge { bytes: component.len() });
    }
    let (envelope, claimed) = decode(envelope)?;
    let Envelope { payload, statement, signatures } = envelope;
    let found = digest(component);
    if statement.component != found {
        return Err(VerifyError::OtherComponent { signed: statement.component, found });
    }
    let message = pre_authentication_encoding(&payload);
    let kind = statement.kind;
    let mut not_trusted = None;
    for root in roots {
        if !signatures.iter().any(|signature| root.key.verifies(&message, signature)) {
            continue;
        }
        if root.kinds.contains(&kind) {
            return Ok(Signer { root: root.name.clone(), key: root.key.id(), statement });
        }
        not_trusted.get_or_insert_with(|| root.name.clone());
    }
    Err(match not_trusted {
        Some(root) => VerifyError::KindNotTrusted { root, kind },
        None => VerifyError::UnknownKey { kind, claimed },
    })
}
