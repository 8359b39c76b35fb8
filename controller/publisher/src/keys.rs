//! Ed25519 keys in files, one folder or several: offline keys come on a stick when they are needed.

use crate::error::PublisherError;
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tough::schema::decoded::{Decoded, Hex};
use tough::schema::key::Key;
use tough::sign::Sign as _;

/// Digits of a key's id that people are shown.
const SHORT_LEN: usize = 12;

/// What a role's file says of a key.
#[derive(Debug, Clone)]
pub struct PublicKey {
    pub(crate) id: Decoded<Hex>,
    pub(crate) key: Key,
}

impl PublicKey {
    /// 64 hexadecimal digits of an Ed25519 public key.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, PublisherError> {
        let fail = |detail: &str| PublisherError::Metadata(format!("{detail}: write 64 hexadecimal digits"));
        let key: Key = text.trim().parse().map_err(|_| fail("that is no Ed25519 public key"))?;
        match key {
            Key::Ed25519 { .. } => Self::of(key),
            _ => Err(fail("that is no Ed25519 public key")),
        }
    }

    fn of(key: Key) -> Result<Self, PublisherError> {
        let id = key.key_id().map_err(|error| PublisherError::Metadata(error.to_string()))?;
        Ok(Self { id, key })
    }

    /// The first digits of its id.
    #[must_use]
    pub fn short(&self) -> String {
        short(&self.id)
    }
}

pub(crate) fn short(id: &Decoded<Hex>) -> String {
    let mut text = hex::encode(&**id);
    text.truncate(SHORT_LEN);
    text
}

pub(crate) struct SecretKey {
    pub(crate) id: Decoded<Hex>,
    pub(crate) pair: Ed25519KeyPair,
    path: PathBuf,
}

/// The secret keys that are at hand.
pub struct KeyRing {
    folder: PathBuf,
    keys: Vec<SecretKey>,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRing").field("folder", &self.folder).field("keys", &self.keys.len()).finish()
    }
}

impl KeyRing {
    /// Reads every `*.key` of the folders. New keys go to the first, which is made if it is not there.
    ///
    /// # Errors
    /// A folder or key cannot be used, or others may read it.
    pub fn open(folder: &Path, others: &[PathBuf]) -> Result<Self, PublisherError> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| PublisherError::File { path: folder.to_owned(), source })?;
        let mut ring = Self { folder: folder.to_owned(), keys: Vec::new() };
        for folder in std::iter::once(&ring.folder.clone()).chain(others) {
            ring.read(folder)?;
        }
        Ok(ring)
    }

    fn read(&mut self, folder: &Path) -> Result<(), PublisherError> {
        let failed = |source| PublisherError::File { path: folder.to_owned(), source };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|end| end == "key") {
                paths.push(path);
            }
        }
        paths.sort();
        for path in paths {
            self.keys.push(read_key(path)?);
        }
        Ok(())
    }

    /// Makes a key for a role, in a file of that name with the next free number.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn make(&mut self, label: &str) -> Result<PublicKey, PublisherError> {
        let path = (1..=u32::MAX)
            .map(|number| self.folder.join(format!("{label}-{number}.key")))
            .find(|path| !path.exists())
            .ok_or_else(|| PublisherError::Metadata("there are too many keys".to_owned()))?;
        let no_key = |_| PublisherError::Metadata("no key can be made".to_owned());
        let pair = Ed25519KeyPair::generate().map_err(no_key)?;
        let der = pair.to_pkcs8v1().map_err(no_key)?;
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            STANDARD.encode(der.as_ref())
        );
        chassis::durable::write(&path, pem.as_bytes(), 0o600)
            .map_err(|source| PublisherError::File { path: path.clone(), source })?;
        let public = PublicKey::of(pair.tuf_key())?;
        self.keys.push(SecretKey { id: public.id.clone(), pair, path });
        Ok(public)
    }

    /// Those of these keys that are at hand.
    pub(crate) fn among<'a>(&'a self, ids: &'a [Decoded<Hex>]) -> Vec<&'a SecretKey> {
        ids.iter().filter_map(|id| self.keys.iter().find(|key| key.id == *id)).collect()
    }

    /// The file of a key by its short id.
    #[must_use]
    pub fn file(&self, short_id: &str) -> Option<&Path> {
        self.keys.iter().find(|key| short(&key.id) == short_id).map(|key| key.path.as_path())
    }
}

fn read_key(path: PathBuf) -> Result<SecretKey, PublisherError> {
    let failed = |source| PublisherError::File { path: path.clone(), source };
    let mode = std::fs::metadata(&path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(PublisherError::KeyOpen { path, mode });
    }
    let pem = std::fs::read(&path).map_err(failed)?;
    let damaged = |detail: String| PublisherError::Damaged { path: path.clone(), detail };
    let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|error| damaged(error.to_string()))?;
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der())
        .map_err(|error| damaged(format!("it is no Ed25519 key: {error}")))?;
    let public = PublicKey::of(pair.tuf_key())?;
    Ok(SecretKey { id: public.id, pair, path })
}
