//! Metainfo and manifest of an image, as the streamer takes them from the controller and the controller from a
//! publisher. The input is the manifest's JSON, a zero byte, the metainfo. What links the two (the info hash in the
//! manifest, the digest of the manifest) is put right, else nothing but the hash would ever be looked at.
#![no_main]

// The controller's daemon brings the whole of WebAssembly with it: its reader is taken as it stands.
#[allow(dead_code)]
#[path = "../../controller/daemon/src/metainfo.rs"]
mod metainfo;
mod reconcile {
    pub(crate) use controller_model::name::digest;
}
/// Only so that the reader's neighbours compile: they answer over HTTP, which is not fuzzed here.
mod problem {
    pub(crate) type Answer<T> = Result<T, Refused>;
    pub(crate) struct Refused;
    impl Refused {
        pub(crate) fn internal(_: &impl std::error::Error) -> Self {
            Self
        }
    }
}

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use controller_api::rest::SignedVersion;
use libfuzzer_sys::fuzz_target;
use serde_json::json;
use streamer_api::Manifest;
use streamer_plan::Bencode;
use streamer_volume::{Image, Privacy};

fn mended(manifest: &[u8], metainfo: &[u8]) -> Option<Vec<u8>> {
    let mut manifest: Manifest = serde_json::from_slice(manifest).ok()?;
    let root = Bencode::parse(metainfo)?;
    let info = root.dict()?.get("info")?.dict()?;
    manifest.info_hash = hex::encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, info.written));
    serde_json::to_vec(&manifest).ok()
}

fn signed(manifest: &[u8]) -> SignedVersion {
    let size = serde_json::from_slice::<Manifest>(manifest).map_or(0, |manifest| manifest.size_bytes);
    let version = json!({
        "publisher": "acme", "appliance": "gateway", "version": "1.0.0", "image": reconcile::digest(manifest),
        "size_bytes": size,
        "spec": {"hardware": {"vcpus": 1, "memory": "192MiB"}, "disks": {"system": {"file": "system.raw"}}},
    });
    serde_json::from_value(version).expect("a signed version")
}

fn check(manifest: &[u8], metainfo: &[u8]) {
    let taken = metainfo::check(&signed(manifest), manifest, metainfo);
    let Ok(image) = Image::parse(metainfo, manifest, None, Privacy::Private) else { return };
    // A publisher's own streamer is as strict as the controller, else publishing would end in a riddle.
    assert_eq!(taken.map(|described| described.info_hash), Ok(hex::encode(image.info_hash)));
    let geometry = image.geometry;
    assert!(geometry.pieces() > 0 && geometry.length(geometry.pieces() - 1) > 0);
    assert!(!image.verifies(0, b"") && !image.verifies(u32::MAX, b""));
}

fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (manifest, metainfo) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
    check(manifest, metainfo);
    if let Some(manifest) = mended(manifest, metainfo) {
        check(&manifest, metainfo);
    }
});
