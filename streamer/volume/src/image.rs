//! Metainfo and manifest of an image, checked against each other.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use streamer_api::{MANIFEST_FORMAT, Manifest};
use streamer_plan::{Bencode, Geometry, Pieces};
use thiserror::Error;
use types::{Base64, Digest};

/// Most pieces of an image: a bitfield of 128 KiB.
const PIECES_MAX: u32 = 1 << 20;
/// Smallest and largest piece, in bytes.
const PIECE_BYTES: std::ops::RangeInclusive<u32> = 16 << 10..=16 << 20;
/// Sector of every guest's disk, in bytes.
const SECTOR_BYTES: u64 = 512;
/// Bytes hashed by both at a time: half of a first-level cache.
const HASHED_BYTES: usize = 16 << 10;
/// Name in the info dictionary: the same for every image, so that equal bytes have equal digests.
pub(crate) const NAME: &str = "disk";

/// A verified description of an image's bytes.
#[derive(Debug, Clone)]
pub struct Image {
    /// SHA-256 of the manifest's bytes.
    pub digest: Digest,
    /// Sizes.
    pub geometry: Geometry,
    /// SHA-1 of the info dictionary.
    pub info_hash: [u8; 20],
    /// Pieces that are all zero.
    pub zero: Pieces,
    sha1: Vec<u8>,
    sha256: Vec<u8>,
}

/// Which metainfo is taken (BEP 27).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privacy {
    /// Only private ones: the swarm's members are known.
    Private,
    /// Also public ones: anybody may fetch the image.
    Any,
}

/// Why metainfo and manifest are no image.
#[derive(Debug, Error)]
pub enum InvalidImage {
    /// Another manifest than the one that was named.
    #[error("the manifest's digest is {found}, not {expected}: send the manifest that was published")]
    WrongDigest {
        /// What was named.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// The manifest cannot be read.
    #[error("the manifest is not JSON of the format {MANIFEST_FORMAT}")]
    Manifest(#[source] serde_json::Error),
    /// The manifest says something impossible.
    #[error("the manifest is wrong: {0}")]
    ManifestValue(String),
    /// The metainfo cannot be read.
    #[error("the metainfo is not BitTorrent v1 metainfo: {0}")]
    Metainfo(String),
    /// The metainfo says something impossible or something else than the manifest.
    #[error("the metainfo is wrong: {0}")]
    MetainfoValue(String),
}

impl Image {
    /// Reads and checks metainfo and manifest. `expected` is the digest the image was named by; `privacy` says whether a
    /// public image is taken too.
    ///
    /// # Errors
    /// [`InvalidImage`]; nothing in here trusts a length it has not checked.
    pub fn parse(
        metainfo: &[u8],
        manifest: &[u8],
        expected: Option<Digest>,
        privacy: Privacy,
    ) -> Result<Self, InvalidImage> {
        let found = sha256(manifest);
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(InvalidImage::WrongDigest { expected, found });
        }
        let manifest: Manifest = serde_json::from_slice(manifest).map_err(InvalidImage::Manifest)?;
        let geometry = check_manifest(&manifest)?;
        let (info_hash, sha1) = check_metainfo(metainfo, &manifest, geometry, privacy)?;
        let mut image = Self {
            digest: found,
            geometry,
            info_hash,
            zero: Pieces::none(geometry.pieces()),
            sha1,
            sha256: manifest.pieces.0,
        };
        image.find_zero_pieces()?;
        Ok(image)
    }

    /// Are these the bytes of the piece? Both hashes must be right.
    #[must_use]
    pub fn verifies(&self, piece: u32, bytes: &[u8]) -> bool {
        if bytes.len() != self.geometry.length(piece) as usize {
            return false;
        }
        let at = piece as usize * 20;
        let (sha1, sha256) = hashes(bytes);
        self.sha256_of(piece) == Some(&sha256) && self.sha1.get(at..at + 20) == Some(&sha1)
    }

    /// SHA-256 of a piece's bytes; zero bytes for a zero piece.
    pub(crate) fn sha256_of(&self, piece: u32) -> Option<&[u8]> {
        let at = piece as usize * 32;
        self.sha256.get(at..at + 32)
    }

    fn find_zero_pieces(&mut self) -> Result<(), InvalidImage> {
        let mut known: Option<(u32, [u8; 20])> = None;
        for piece in 0..self.geometry.pieces() {
            let at = piece as usize;
            if self.sha256[at * 32..at * 32 + 32].iter().any(|byte| *byte != 0) {
                continue;
            }
            let length = self.geometry.length(piece);
            if known.as_ref().is_none_or(|(known, _)| *known != length) {
                known = Some((length, zero_sha1(length)));
            }
            if known.as_ref().map(|(_, hash)| hash.as_slice()) != Some(&self.sha1[at * 20..at * 20 + 20]) {
                return Err(InvalidImage::MetainfoValue(format!(
                    "piece {piece} is zero in the manifest but not in the metainfo"
                )));
            }
            self.zero.insert(piece);
        }
        Ok(())
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    let mut raw = [0; 32];
    raw.copy_from_slice(digest(&SHA256, bytes).as_ref());
    Digest::from_bytes(raw)
}

pub(crate) fn sha1(bytes: &[u8]) -> [u8; 20] {
    let mut raw = [0; 20];
    raw.copy_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref());
    raw
}

/// SHA-1 and SHA-256 in one pass: what one has read from memory, the other finds in the nearest cache.
pub(crate) fn hashes(bytes: &[u8]) -> ([u8; 20], [u8; 32]) {
    let (mut one, mut two) = (Context::new(&SHA1_FOR_LEGACY_USE_ONLY), Context::new(&SHA256));
    for part in bytes.chunks(HASHED_BYTES) {
        one.update(part);
        two.update(part);
    }
    let (mut sha1, mut sha256) = ([0; 20], [0; 32]);
    sha1.copy_from_slice(one.finish().as_ref());
    sha256.copy_from_slice(two.finish().as_ref());
    (sha1, sha256)
}

pub(crate) fn zero_sha1(length: u32) -> [u8; 20] {
    sha1(&vec![0; length as usize])
}

/// Sizes a streamer accepts.
pub(crate) fn check_sizes(size_bytes: u64, piece_bytes: u32) -> Result<Geometry, String> {
    if size_bytes == 0 || !size_bytes.is_multiple_of(SECTOR_BYTES) {
        return Err(format!("{size_bytes} bytes are not a positive multiple of {SECTOR_BYTES}"));
    }
    if !piece_bytes.is_power_of_two() || !PIECE_BYTES.contains(&piece_bytes) {
        return Err(format!("pieces of {piece_bytes} bytes: a power of two from 16 KiB to 16 MiB is needed"));
    }
    Geometry::new(size_bytes, piece_bytes)
        .filter(|geometry| geometry.pieces() <= PIECES_MAX)
        .ok_or_else(|| format!("more than {PIECES_MAX} pieces: take larger ones"))
}

fn check_manifest(manifest: &Manifest) -> Result<Geometry, InvalidImage> {
    let wrong = |what: String| Err(InvalidImage::ManifestValue(what));
    if manifest.format != MANIFEST_FORMAT {
        return wrong(format!("format {:?}, not {MANIFEST_FORMAT:?}", manifest.format));
    }
    let geometry =
        check_sizes(manifest.size_bytes, manifest.piece_bytes).map_err(InvalidImage::ManifestValue)?;
    if manifest.pieces.0.len() != geometry.pieces() as usize * 32 {
        return wrong(format!(
            "{} bytes of hashes for {} pieces",
            manifest.pieces.0.len(),
            geometry.pieces()
        ));
    }
    Ok(geometry)
}

fn check_metainfo(
    metainfo: &[u8],
    manifest: &Manifest,
    geometry: Geometry,
    privacy: Privacy,
) -> Result<([u8; 20], Vec<u8>), InvalidImage> {
    let wrong = |what: &str| Err(InvalidImage::MetainfoValue(what.to_owned()));
    let unread = |what: &str| InvalidImage::Metainfo(what.to_owned());
    let root = Bencode::parse(metainfo).ok_or_else(|| unread("it is malformed"))?;
    let info = root.dict().and_then(|root| root.get("info")).and_then(Bencode::dict);
    let info = info.ok_or_else(|| unread("it has no info dictionary"))?;
    let info_hash = sha1(info.written);
    if hex(&info_hash) != manifest.info_hash {
        return wrong("its info hash is not the manifest's");
    }
    let number = |key| info.integer(key).and_then(|number| u64::try_from(number).ok());
    let name = info.bytes("name").unwrap_or_default();
    if name.is_empty() || name == b"." || name == b".." || name.iter().any(|b| b"/\\\0".contains(b)) {
        return wrong("its name is not a plain file name");
    }
    if info.get("files").is_some() || number("length") != Some(geometry.size_bytes()) {
        return wrong("it does not describe one file of the manifest's size");
    }
    if number("piece length") != Some(u64::from(geometry.piece_bytes())) {
        return wrong("its piece length is not the manifest's");
    }
    if privacy == Privacy::Private && number("private") != Some(1) {
        return wrong("it is not private: anybody could fetch it");
    }
    match info.bytes("pieces") {
        Some(sha1s) if sha1s.len() == geometry.pieces() as usize * 20 => Ok((info_hash, sha1s.to_vec())),
        _ => wrong("it has not one hash for each piece"),
    }
}

/// Writes the pair: the metainfo's bytes, the manifest's bytes.
pub(crate) fn write(
    geometry: Geometry,
    sha1s: &[u8],
    sha256s: Vec<u8>,
    tracker: &str,
    public: bool,
) -> Result<(Vec<u8>, Vec<u8>), serde_json::Error> {
    let mut info = format!(
        "d6:lengthi{}e4:name{}:{NAME}12:piece lengthi{}e6:pieces{}:",
        geometry.size_bytes(),
        NAME.len(),
        geometry.piece_bytes(),
        sha1s.len()
    )
    .into_bytes();
    info.extend_from_slice(sha1s);
    info.extend_from_slice(if public { b"e" } else { b"7:privatei1ee" });
    let mut metainfo = format!("d8:announce{}:{tracker}4:info", tracker.len()).into_bytes();
    metainfo.extend_from_slice(&info);
    metainfo.push(b'e');
    let manifest = Manifest {
        format: MANIFEST_FORMAT.to_owned(),
        size_bytes: geometry.size_bytes(),
        piece_bytes: geometry.piece_bytes(),
        info_hash: hex(&sha1(&info)),
        pieces: Base64(sha256s),
    };
    Ok((metainfo, serde_json::to_vec(&manifest)?))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
