//! The documents in a registry: CNCF's layout of WebAssembly artifacts, and a signature beside it.

use crate::envelope::ENVELOPE_BYTES_MAX;
use crate::statement::shortened;
use crate::{COMPONENT_BYTES_MAX, digest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use types::Digest;

pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.wasm.config.v0+json";
const COMPONENT_TYPE: &str = "application/wasm";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
const ENVELOPE_TYPE: &str = "application/vnd.dsse.envelope.v1+json";
/// Content of [`EMPTY_TYPE`].
const EMPTY: &[u8] = b"{}";

/// Largest manifest, in bytes. Ours have less than 2 KiB.
pub(crate) const MANIFEST_BYTES_MAX: usize = 64 << 10;
/// Most annotations that are shown.
const ANNOTATIONS_MAX: usize = 32;

/// Annotation: which decision the policy makes.
pub const ANNOTATION_KIND: &str = "vnd.collective.policy.kind";
/// Annotation: the policy's own name.
pub const ANNOTATION_NAME: &str = "vnd.collective.policy.name";
/// Annotation: the policy's own version.
pub const ANNOTATION_VERSION: &str = "org.opencontainers.image.version";

/// One blob: what it is, its digest and its size in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Descriptor {
    #[serde(rename = "mediaType")]
    media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

impl Descriptor {
    fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self { media_type: media_type.to_owned(), digest: digest(bytes), size: bytes.len() as u64 }
    }
}

/// An image manifest, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// Bytes for a registry.
#[derive(Debug)]
pub(crate) struct Artifact {
    pub(crate) blobs: Vec<Vec<u8>>,
    pub(crate) manifest: Vec<u8>,
}

/// What is written about a component in a registry, for people and catalogues. Nobody trusts it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// One sentence.
    pub summary: String,
    /// SPDX expression.
    pub license: String,
    /// Names of the interfaces it imports.
    pub imports: Vec<String>,
    /// Names of the interfaces it exports.
    pub exports: Vec<String>,
}

/// The artifact of a component. The same component always gives the same bytes.
pub(crate) fn of_component(component: &[u8], statement: &crate::Statement, about: &About) -> Artifact {
    let layer = Descriptor::of(COMPONENT_TYPE, component);
    let config = serde_json::json!({
        // A time of its own would give each push another digest.
        "created": "1970-01-01T00:00:00Z",
        "architecture": "wasm",
        "os": "wasip2",
        "layerDigests": [layer.digest.to_string()],
        "component": { "exports": about.exports, "imports": about.imports, "target": null },
    })
    .to_string()
    .into_bytes();
    let annotations = [
        (ANNOTATION_KIND, statement.kind.as_str()),
        (ANNOTATION_NAME, &statement.name),
        (ANNOTATION_VERSION, &statement.version),
        ("org.opencontainers.image.title", &statement.name),
        ("org.opencontainers.image.description", &about.summary),
        ("org.opencontainers.image.licenses", &about.license),
    ];
    let manifest = Manifest {
        schema_version: 2,
        media_type: MANIFEST_TYPE.to_owned(),
        artifact_type: None,
        config: Descriptor::of(CONFIG_TYPE, &config),
        layers: vec![layer],
        subject: None,
        annotations: annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
    };
    Artifact { blobs: vec![config, component.to_vec()], manifest: encode(&manifest) }
}

/// The artifact of a signature of the artifact with that manifest.
pub(crate) fn of_signature(envelope: &[u8], signed_manifest: &[u8]) -> Artifact {
    let manifest = Manifest {
        schema_version: 2,
        media_type: MANIFEST_TYPE.to_owned(),
        artifact_type: Some(ENVELOPE_TYPE.to_owned()),
        config: Descriptor::of(EMPTY_TYPE, EMPTY),
        layers: vec![Descriptor::of(ENVELOPE_TYPE, envelope)],
        // Registries that know referrers list the signature with what it is for, and delete it with it.
        subject: Some(Descriptor::of(MANIFEST_TYPE, signed_manifest)),
        annotations: BTreeMap::new(),
    };
    Artifact { blobs: vec![EMPTY.to_vec(), envelope.to_vec()], manifest: encode(&manifest) }
}

/// Tag under which a component's signature lies.
pub(crate) fn signature_tag(component: &Digest) -> String {
    format!("sha256-{}.sig", component.hex())
}

fn encode(manifest: &Manifest) -> Vec<u8> {
    // Texts, numbers and digests always serialize.
    serde_json::to_vec(manifest).unwrap_or_default()
}

/// What a manifest should be of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Component,
    Signature,
}

/// Reads a stranger's manifest and gives the one layer that is wanted.
pub(crate) fn parse(bytes: &[u8], wanted: Wanted) -> Result<(Descriptor, BTreeMap<String, String>), String> {
    if bytes.len() > MANIFEST_BYTES_MAX {
        return Err(format!("{} bytes: at most {MANIFEST_BYTES_MAX} are read", bytes.len()));
    }
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if manifest.schema_version != 2 {
        return Err(format!("schemaVersion {} instead of 2", manifest.schema_version));
    }
    if !(manifest.media_type.is_empty() || manifest.media_type == MANIFEST_TYPE) {
        return Err(format!("mediaType {:?} instead of {MANIFEST_TYPE}", shortened(&manifest.media_type)));
    }
    let (layer_type, bytes_max) = match wanted {
        Wanted::Component => (COMPONENT_TYPE, COMPONENT_BYTES_MAX),
        Wanted::Signature => (ENVELOPE_TYPE, ENVELOPE_BYTES_MAX),
    };
    let [layer] = manifest.layers.as_slice() else {
        return Err(format!("{} layers instead of one", manifest.layers.len()));
    };
    if layer.media_type != layer_type {
        return Err(format!("a layer of {:?} instead of {layer_type}", shortened(&layer.media_type)));
    }
    if layer.size > bytes_max as u64 {
        return Err(format!("a layer of {} bytes: at most {bytes_max} are taken", layer.size));
    }
    let shown = manifest.annotations.iter().take(ANNOTATIONS_MAX);
    let annotations = shown.map(|(key, value)| (shortened(key), shortened(value))).collect();
    Ok((layer.clone(), annotations))
}
