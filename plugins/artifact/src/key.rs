//! Ed25519 keys, in the files that OpenSSL writes too.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

const SECRET: &str = "PRIVATE KEY";
const PUBLIC: &str = "PUBLIC KEY";
/// A public key's file is 113 bytes, a secret one's 119; some carry comments.
const PEM_BYTES_MAX: usize = 16 << 10;
/// DER of `SubjectPublicKeyInfo` up to the 32 bytes (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why something is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no such block.
    #[error("there is no key in it: a file with -----BEGIN {expected}----- is needed")]
    NoPem {
        /// Words of the block.
        expected: &'static str,
    },
    /// The block is damaged.
    #[error("its PEM is damaged: {0}")]
    Damaged(String),
    /// It is a key of another kind.
    #[error("it is no Ed25519 key: {0}")]
    NotEd25519(String),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    NoRandomness,
}

/// Names a key: SHA-256 of its 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(pub types::Digest);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.hex())
    }
}

/// What signatures are verified with. As text: base64 of its 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Takes the 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Names it.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId(crate::digest(&self.0))
    }

    /// Reads a PEM file with `PUBLIC KEY`, or the key's base64 alone.
    ///
    /// # Errors
    /// It holds no Ed25519 public key.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if !text.contains("-----BEGIN") {
            return text.trim().parse();
        }
        let der = pem_decode(text, PUBLIC)?;
        let raw = der.strip_prefix(&SPKI_PREFIX).and_then(|raw| raw.try_into().ok());
        raw.map(Self).ok_or_else(|| KeyError::NotEd25519(format!("{} bytes of another form", der.len())))
    }

    /// The PEM file.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem_encode(&[SPKI_PREFIX.as_slice(), &self.0].concat(), PUBLIC)
    }

    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&STANDARD.encode(self.0))
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = STANDARD.decode(text).map_err(|_| KeyError::NoPem { expected: PUBLIC })?;
        let length = bytes.len();
        let array = bytes.try_into();
        array.map(Self).map_err(|_| KeyError::NotEd25519(format!("{length} bytes instead of 32")))
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;
    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

/// What signatures are made with.
pub struct SecretKey(Ed25519KeyPair);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public())
    }
}

impl SecretKey {
    /// A new one.
    ///
    /// # Errors
    /// [`KeyError::NoRandomness`].
    pub fn generate() -> Result<Self, KeyError> {
        Ed25519KeyPair::generate().map(Self).map_err(|_| KeyError::NoRandomness)
    }

    /// Reads a PEM file with `PRIVATE KEY` (PKCS#8, RFC 8410).
    ///
    /// # Errors
    /// It holds no Ed25519 key.
    pub fn parse(pem: &str) -> Result<Self, KeyError> {
        let der = pem_decode(pem, SECRET)?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der);
        pair.map(Self).map_err(|error| KeyError::NotEd25519(error.to_string()))
    }

    /// The PEM file. Keep it where only its owner reads.
    ///
    /// # Errors
    /// The key cannot be encoded.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        let der = self.0.to_pkcs8v1().map_err(|_| KeyError::Damaged("it cannot be encoded".into()))?;
        Ok(pem_encode(der.as_ref(), SECRET))
    }

    /// Its other half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(bytes)
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).as_ref().to_vec()
    }
}

fn pem_encode(der: &[u8], label: &str) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn pem_decode(text: &str, label: &'static str) -> Result<Vec<u8>, KeyError> {
    if text.len() > PEM_BYTES_MAX {
        return Err(KeyError::Damaged(format!("{} bytes are no key", text.len())));
    }
    let after = text.split_once(&format!("-----BEGIN {label}-----")).map(|(_, rest)| rest);
    let body = after.and_then(|rest| rest.split_once(&format!("-----END {label}-----")));
    let (body, _) = body.ok_or(KeyError::NoPem { expected: label })?;
    let base64: String = body.split_whitespace().collect();
    STANDARD.decode(base64).map_err(|error| KeyError::Damaged(error.to_string()))
}
