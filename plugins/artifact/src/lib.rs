//! Policies as artifacts: who vouches for a component, and where it is fetched from.
//!
//! [`sign`] and [`verify`] are pure. A signature is a DSSE envelope around a [`Statement`] that names a component by
//! its digest; it lies beside the component as `NAME.wasm.sig`, and in an OCI [`registry`] as a second artifact.
//!
//! This crate neither compiles nor runs a component, and keeps no trust: the caller brings the [`Root`]s that hold
//! now. What the component says about itself is compared with what was signed by [`Statement::describes`], after it
//! was loaded.
//!
//! Invariants:
//! * [`verify`] says yes only to bytes whose digest a trusted key signed, for a kind that this key is trusted with.
//! * No input makes this crate allocate more than its named limits allow.
//!
//! A signature inside of the component was refused: it would change the digest that everything else goes by. The crate
//! `oci-client` was refused: it reads manifests, tokens and errors without a bound, and cannot be given one.

mod envelope;
mod key;
pub mod registry;
mod statement;

pub use envelope::{ENVELOPE_BYTES_MAX, Envelope, PAYLOAD_TYPE, Root, Signer, VerifyError, sign, verify};
pub use key::{KeyError, KeyId, PublicKey, SecretKey};
pub use statement::{Kind, Mismatch, Statement, StatementError, UnknownKind};

/// Largest component that is signed, verified or fetched, in bytes.
pub const COMPONENT_BYTES_MAX: usize = 32 << 20;

/// SHA-256 of bytes, as components, layers and manifests are named.
#[must_use]
pub fn digest(bytes: &[u8]) -> types::Digest {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let mut array = [0; 32];
    array.copy_from_slice(digest.as_ref());
    types::Digest::from_bytes(array)
}
