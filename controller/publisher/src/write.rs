//! Metadata as files: signed, whole or absent.

use crate::error::PublisherError;
use crate::keys::{KeyRing, short};
use crate::layout::{METADATA, Role as OurRole};
use aws_lc_rs::digest::{SHA256, digest};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use tough::schema::decoded::{Decoded, Hex};
use tough::schema::{Hashes, Metafile, Role, RoleKeys, Signature, Signed, Target};

/// Everything may read what is public.
const MODE: u32 = 0o644;

pub(crate) fn put(path: &Path, bytes: &[u8]) -> Result<(), PublisherError> {
    chassis::durable::write(path, bytes, MODE)
        .map_err(|source| PublisherError::File { path: path.into(), source })
}

pub(crate) fn folder(path: &Path) -> Result<(), PublisherError> {
    std::fs::create_dir_all(path).map_err(|source| PublisherError::File { path: path.into(), source })
}

pub(crate) fn metadata(folder: &Path, name: &str) -> PathBuf {
    folder.join(METADATA).join(name)
}

pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, PublisherError> {
    let bytes = std::fs::read(path).map_err(|source| PublisherError::File { path: path.into(), source })?;
    serde_json::from_slice(&bytes)
        .map_err(|error| PublisherError::Damaged { path: path.into(), detail: error.to_string() })
}

/// Signs with every key of the role that is at hand.
pub(crate) fn signatures<T: Role>(
    signed: &T,
    ring: &KeyRing,
    keys: &[Decoded<Hex>],
) -> Result<Vec<Signature>, PublisherError> {
    let bytes = signed.canonical_form().map_err(|error| PublisherError::Metadata(error.to_string()))?;
    let sign = |key: &crate::keys::SecretKey| Signature {
        keyid: key.id.clone(),
        sig: key.pair.sign(&bytes).as_ref().to_vec().into(),
    };
    Ok(ring.among(keys).into_iter().map(sign).collect())
}

/// Fails unless a threshold of the keys is at hand. Asked before anything is written.
pub(crate) fn must_sign(
    role: &OurRole,
    keys: &[Decoded<Hex>],
    threshold: NonZeroU64,
    ring: &KeyRing,
) -> Result<(), PublisherError> {
    let at_hand = ring.among(keys).len();
    if (at_hand as u64) < threshold.get() {
        let (role, keys) = (role.clone(), keys.iter().map(short).collect());
        return Err(PublisherError::KeysMissing { role, threshold: threshold.get(), keys, at_hand });
    }
    Ok(())
}

/// Bytes of a signed role's file.
pub(crate) fn text<T: Serialize>(signed: &Signed<T>) -> Result<Vec<u8>, PublisherError> {
    let mut bytes =
        serde_json::to_vec_pretty(signed).map_err(|error| PublisherError::Metadata(error.to_string()))?;
    bytes.push(b'\n');
    Ok(bytes)
}

pub(crate) fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}

fn hashes(bytes: &[u8]) -> Hashes {
    Hashes { sha256: sha256(bytes).into(), _extra: HashMap::new() }
}

/// What a snapshot or timestamp says of a file.
pub(crate) fn metafile(bytes: &[u8], version: NonZeroU64) -> Metafile {
    Metafile {
        length: Some(bytes.len() as u64),
        hashes: Some(hashes(bytes)),
        version,
        _extra: HashMap::new(),
    }
}

/// What a role says of a target.
pub(crate) fn target(bytes: &[u8]) -> Target {
    Target {
        length: bytes.len() as u64,
        hashes: hashes(bytes),
        custom: HashMap::new(),
        _extra: HashMap::new(),
    }
}

pub(crate) fn role_keys(keyids: Vec<Decoded<Hex>>, threshold: NonZeroU64) -> RoleKeys {
    RoleKeys { keyids, threshold, _extra: HashMap::new() }
}
