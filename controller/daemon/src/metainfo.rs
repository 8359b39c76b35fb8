//! Just enough of BitTorrent v1 metainfo to know that it describes the image its manifest describes.

use crate::problem::{Answer, Refused};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use controller_api::rest::SignedVersion;
use std::path::Path;
use streamer_api::{MANIFEST_FORMAT, Manifest};
use types::Digest;

/// Deepest nesting that is read.
const DEPTH_MAX: u32 = 16;
/// Sizes of a piece in bytes.
const PIECE_BYTES: std::ops::RangeInclusive<u32> = 16 << 10..=16 << 20;

/// Most pieces an image may have: streamers take no more.
const PIECES_MAX: u64 = 1 << 20;
const SHA1_LEN: usize = 20;
const SHA256_LEN: usize = 32;

/// A value of bencode, by reference.
#[derive(Debug, Clone, PartialEq)]
enum Value<'a> {
    Number(i64),
    Bytes(&'a [u8]),
    List,
    /// Entries, and the bytes of the whole.
    Map(Vec<(&'a [u8], Value<'a>)>, &'a [u8]),
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.text.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn until(&mut self, end: u8) -> Option<&'a str> {
        let start = self.at;
        let length = self.text.get(start..)?.iter().take(24).position(|byte| *byte == end)?;
        self.at = start + length + 1;
        std::str::from_utf8(&self.text[start..start + length]).ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length: usize = self.until(b':')?.parse().ok()?;
        let bytes = self.text.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(bytes)
    }

    fn value(&mut self, depth: u32) -> Option<Value<'a>> {
        let start = self.at;
        match self.byte()? {
            _ if depth > DEPTH_MAX => None,
            b'i' => self.until(b'e')?.parse().ok().map(Value::Number),
            b'l' => {
                while self.text.get(self.at)? != &b'e' {
                    self.value(depth + 1)?;
                }
                self.at += 1;
                Some(Value::List)
            }
            b'd' => {
                let mut entries = Vec::new();
                while self.text.get(self.at)? != &b'e' {
                    entries.push((self.bytes()?, self.value(depth + 1)?));
                }
                self.at += 1;
                Some(Value::Map(entries, &self.text[start..self.at]))
            }
            b'0'..=b'9' => {
                self.at = start;
                self.bytes().map(Value::Bytes)
            }
            _ => None,
        }
    }
}

impl<'a> Value<'a> {
    fn get(&self, key: &str) -> Option<&Value<'a>> {
        match self {
            Self::Map(entries, _) => {
                entries.iter().find(|(name, _)| *name == key.as_bytes()).map(|(_, value)| value)
            }
            _ => None,
        }
    }
}

/// Pieces of the image a stored manifest describes.
pub(crate) fn pieces(manifest: &Path) -> Answer<u32> {
    let bytes = std::fs::read(manifest).map_err(|error| Refused::internal(&error))?;
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| Refused::internal(&error))?;
    Ok(count(&manifest))
}

fn count(manifest: &Manifest) -> u32 {
    u32::try_from(manifest.pieces.0.len() / 32).unwrap_or(u32::MAX)
}

/// What metainfo and manifest say of an image.
pub(crate) struct Described {
    /// SHA-1 of the info dictionary, 40 hexadecimal digits.
    pub(crate) info_hash: String,
    /// Pieces it is cut into.
    pub(crate) pieces: u32,
    /// Members only may fetch it (BEP 27).
    pub(crate) private: bool,
    /// Bytes of the image.
    pub(crate) size_bytes: u64,
}

/// Checks that metainfo and manifest describe the file of a checkpoint with this digest.
pub(crate) fn check_layer(image: &Digest, manifest: &[u8], metainfo: &[u8]) -> Result<Described, String> {
    let found = crate::reconcile::digest(manifest);
    if found != *image {
        return Err(format!("the manifest's digest is {found}, not {image}"));
    }
    let parsed: Manifest =
        serde_json::from_slice(manifest).map_err(|error| format!("the manifest cannot be read: {error}"))?;
    check_image((image, parsed.size_bytes), manifest, metainfo)
}

/// Checks that metainfo, manifest and what was signed describe one image.
pub(crate) fn check(signed: &SignedVersion, manifest: &[u8], metainfo: &[u8]) -> Result<Described, String> {
    check_image((&signed.image, signed.size_bytes), manifest, metainfo)
}

fn check_image(
    (image, size_bytes): (&Digest, u64),
    manifest: &[u8],
    metainfo: &[u8],
) -> Result<Described, String> {
    let digest_found = crate::reconcile::digest(manifest);
    if digest_found != *image {
        return Err(format!("the manifest's digest is {digest_found}, signed is {image}"));
    }
    let manifest: Manifest =
        serde_json::from_slice(manifest).map_err(|error| format!("the manifest cannot be read: {error}"))?;
    if manifest.format != MANIFEST_FORMAT {
        return Err(format!("the manifest has format {:?}, known is {MANIFEST_FORMAT}", manifest.format));
    }
    if manifest.size_bytes != size_bytes || size_bytes == 0 || !size_bytes.is_multiple_of(512) {
        return Err(format!(
            "the manifest has {} bytes, signed are {size_bytes} (not zero, a multiple of 512)",
            manifest.size_bytes
        ));
    }
    if !manifest.piece_bytes.is_power_of_two() || !PIECE_BYTES.contains(&manifest.piece_bytes) {
        return Err(format!(
            "pieces of {} bytes are no power of two of 16KiB to 16MiB",
            manifest.piece_bytes
        ));
    }
    let pieces = manifest.size_bytes.div_ceil(u64::from(manifest.piece_bytes));
    if pieces > PIECES_MAX {
        return Err(format!("the manifest has {pieces} pieces, more than {PIECES_MAX}: take larger ones"));
    }
    if u64::try_from(manifest.pieces.0.len()).ok() != pieces.checked_mul(32) {
        return Err(format!(
            "the manifest has hashes of {} bytes for {pieces} pieces",
            manifest.pieces.0.len()
        ));
    }
    let (info_hash, private) = check_metainfo(&manifest, pieces, metainfo)?;
    Ok(Described { info_hash, pieces: count(&manifest), private, size_bytes })
}

fn check_metainfo(manifest: &Manifest, pieces: u64, metainfo: &[u8]) -> Result<(String, bool), String> {
    let mut reader = Reader { text: metainfo, at: 0 };
    let root = reader.value(0).filter(|_| reader.at == metainfo.len()).ok_or("the metainfo is no bencode")?;
    let info = root.get("info").ok_or("the metainfo has no info")?;
    let Value::Map(_, raw) = info else { return Err("the metainfo's info is no dictionary".into()) };
    let hash = hex::encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, raw));
    if hash != manifest.info_hash {
        return Err(format!("the metainfo's info hash is {hash}, the manifest's {}", manifest.info_hash));
    }
    let number = |key| match info.get(key) {
        Some(Value::Number(number)) => u64::try_from(*number).ok(),
        _ => None,
    };
    let name = match info.get("name") {
        Some(Value::Bytes(name)) => *name,
        _ => b"",
    };
    if name.is_empty() || name == b"." || name == b".." || name.iter().any(|byte| b"/\\\0".contains(byte)) {
        return Err("the metainfo's name is no plain file name".into());
    }
    if info.get("files").is_some() {
        return Err("the metainfo has several files".into());
    }
    if number("length") != Some(manifest.size_bytes) {
        return Err("the metainfo has another length than the manifest".into());
    }
    if number("piece length") != Some(u64::from(manifest.piece_bytes)) {
        return Err("the metainfo has another piece length than the manifest".into());
    }
    match info.get("pieces") {
        Some(Value::Bytes(hashes)) if u64::try_from(hashes.len()).ok() == pieces.checked_mul(20) => {
            check_zero_pieces(manifest, hashes)?;
            Ok((hash, number("private") == Some(1)))
        }
        _ => Err("the metainfo has another number of pieces than the manifest".into()),
    }
}

/// A piece that is all zero in the manifest must be so in the metainfo: it is never fetched.
fn check_zero_pieces(manifest: &Manifest, sha1s: &[u8]) -> Result<(), String> {
    let (piece_bytes, size) = (u64::from(manifest.piece_bytes), manifest.size_bytes);
    let mut known: Option<(u64, Vec<u8>)> = None;
    let pieces = manifest.pieces.0.chunks(SHA256_LEN).zip(sha1s.chunks(SHA1_LEN));
    for (piece, (sha256, sha1)) in (0_u64..).zip(pieces) {
        if sha256.iter().any(|byte| *byte != 0) {
            continue;
        }
        let length = piece_bytes.min(size - piece * piece_bytes);
        if known.as_ref().is_none_or(|(known, _)| *known != length) {
            let zeros = vec![0; usize::try_from(length).unwrap_or_default()];
            known = Some((length, digest(&SHA1_FOR_LEGACY_USE_ONLY, &zeros).as_ref().to_vec()));
        }
        if known.as_ref().is_none_or(|(_, hash)| hash != sha1) {
            return Err(format!("piece {piece} is zero in the manifest but not in the metainfo"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Reader { text: &bytes, at: 0 }.value(0);
        }

        #[test]
        fn no_bencode_like_text_makes_the_reader_panic(text in "[dlie0-9:a]{0,64}") {
            let _ = Reader { text: text.as_bytes(), at: 0 }.value(0);
        }
    }

    const SIZE: u64 = 40 << 10;
    const PIECE: u32 = 16 << 10;

    /// An image of three pieces, the second and the short third all zero; each part may be changed before it is signed.
    fn described(
        change_info: impl FnOnce(String) -> String,
        change_hashes: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Described, String> {
        let sha1 = |bytes: &[u8]| digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref().to_vec();
        let mut sha1s = [vec![7; 20], sha1(&[0; 16 << 10]), sha1(&[0; 8 << 10])].concat();
        change_hashes(&mut sha1s);
        let head = change_info(format!("d6:lengthi{SIZE}e4:name6:system12:piece lengthi{PIECE}e6:pieces60:"));
        let info = [head.as_bytes(), &sha1s, b"7:privatei1ee"].concat();
        let manifest = Manifest {
            format: MANIFEST_FORMAT.into(),
            size_bytes: SIZE,
            piece_bytes: PIECE,
            info_hash: hex::encode(sha1(&info)),
            pieces: types::Base64([vec![9; 32], vec![0; 64]].concat()),
        };
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let signed = SignedVersion {
            publisher: "acme".parse().unwrap(),
            appliance: "plain".into(),
            version: "1.0.0".parse().unwrap(),
            image: crate::reconcile::digest(&manifest),
            size_bytes: SIZE,
            spec: serde_json::from_value(serde_json::json!({
                "hardware": {"vcpus": 1, "memory": "64MiB"}, "disks": {},
            }))
            .unwrap(),
            untested: None,
        };
        check(&signed, &manifest, &[b"d4:info", info.as_slice(), b"e"].concat())
    }

    // Such images were published, and then no host could run them.
    #[test]
    fn what_streamers_refuse_is_refused_when_it_is_published() {
        assert_eq!(described(|info| info, |_| {}).unwrap().pieces, 3);
        let refused = |change: &dyn Fn(String) -> String| described(change, |_| {}).err().unwrap();
        let named = |name: &'static str| move |info: String| info.replace("6:system", name);
        for name in ["2:..", "8:a/system", "0:"] {
            assert!(refused(&named(name)).contains("no plain file name"), "{name}");
        }
        assert!(refused(&|info| info.replacen('d', "d5:filesle", 1)).contains("several files"));
        let wrong = described(|info| info, |sha1s| sha1s[59] ^= 1).err().unwrap();
        assert_eq!(wrong, "piece 2 is zero in the manifest but not in the metainfo");
    }

    #[test]
    fn a_deep_nesting_is_refused() {
        let text = format!("{}{}", "l".repeat(100_000), "e".repeat(100_000));
        assert_eq!(Reader { text: text.as_bytes(), at: 0 }.value(0), None);
    }
}
