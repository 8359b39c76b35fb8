//! The streamer's contract: images named here are exported at once and fetched as they are read.
//!
//! Served as HTTP/JSON on a unix socket:
//!
//! | request | body | answer |
//! |---|---|---|
//! | `PUT /v1/images/{digest}` | [`ImageSource`] | [`ImageStatus`]: exported now, whether or not a byte is here. Idempotent. 422 [`Problem`] if metainfo, manifest and digest do not belong together |
//! | `DELETE /v1/images/{digest}` | | 204: no longer exported nor fetched; its cached pieces stay until evicted |
//! | `POST /v1/images/{digest}/evict` | | 204: cached pieces are removed; 409 while exported |
//! | `GET /v1/images` | | `Vec<`[`ImageStatus`]`>` without piece maps |
//! | `GET /v1/images/{digest}` | | [`ImageStatus`] with its piece map |
//! | `POST /v1/publish` | [`PublishRequest`] | newline-delimited JSON, one [`PublishProgress`] a line, the last with `published` or `problem` |
//! | `GET /v1/status` | | [`StreamerStatus`] |
//! | `GET /metrics` | | Prometheus text |
//!
//! The block export is NBD (fixed newstyle) on a second unix socket; the export name is the digest's 64 hexadecimal
//! digits. Byte ranges of zero pieces are holes.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use types::{Base64, ByteSize, Digest};
use utoipa::ToSchema;

/// Format of a manifest's first line; the reader refuses another.
///
/// A manifest is UTF-8 JSON of [`Manifest`], serialised once by the publisher; its SHA-256 is the image's digest.
pub const MANIFEST_FORMAT: &str = "collective-image/1";

/// The verified description of an image's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`].
    pub format: String,
    /// Bytes of the image, a multiple of 512.
    pub size_bytes: u64,
    /// Bytes of every piece but perhaps the last: a power of two, 16 KiB to 16 MiB.
    pub piece_bytes: u32,
    /// SHA-1 of the BitTorrent info dictionary, 40 lower-case hexadecimal digits.
    pub info_hash: String,
    /// SHA-256 of each piece, 32 bytes each, concatenated; all zero bytes where the piece itself is all zero: such a
    /// piece is never fetched nor stored.
    pub pieces: Base64,
}

/// Where an image's bytes come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageSource {
    /// BitTorrent v1 metainfo (BEP 3), private (BEP 27), one file.
    pub metainfo: Base64,
    /// Bytes of the manifest; their SHA-256 is the image's digest.
    pub manifest: Base64,
    /// Announce URL. It may be `https`: then the streamer's own certificate is shown.
    pub tracker: String,
    /// How much is fetched that nobody has asked for yet.
    #[serde(default)]
    pub prefetch: Prefetch,
}

/// How much is fetched that no guest has asked for yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Prefetch {
    /// Nothing: only what is read.
    #[default]
    Off,
    /// Everything, while no read waits.
    Full,
}

/// One image on this host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ImageStatus {
    /// Hexadecimal digits: the name of its export.
    pub export: String,
    /// Bytes of the image.
    pub size_bytes: u64,
    /// Bytes a piece.
    pub piece_bytes: u32,
    /// Pieces in all.
    pub pieces: u32,
    /// Pieces that are all zero.
    pub pieces_zero: u32,
    /// Pieces verified and stored here (zero pieces not counted).
    pub pieces_local: u32,
    /// Bytes of pieces fetched and verified, by where they came from, since this daemon first had the image.
    pub bytes: BytesBySource,
    /// Bytes sent to others.
    pub bytes_uploaded: u64,
    /// Bytes of pieces that failed verification and were thrown away.
    pub bytes_poisoned: u64,
    /// Reads that had to wait.
    pub stalls: Stalls,
    /// Connected peers.
    pub peers: Vec<PeerStatus>,
    /// One character a piece: `z` zero, `h` here, `f` being fetched, `.` absent. Only in the answer for one image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub piece_map: Option<String>,
    /// Why nothing moves, if so: no tracker, no peers, disk full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Bytes by where they came from. `origin + peer + zero + cache` is what reads and prefetch have touched of the image,
/// counted once a piece.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BytesBySource {
    /// From the publisher's own streamer.
    pub origin: u64,
    /// From other hosts.
    pub peer: u64,
    /// Known zero: touched, never fetched.
    pub zero: u64,
    /// Was here already when the image was named (an earlier run's cache).
    pub cache: u64,
}

/// Reads that had to wait for an absent piece.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stalls {
    /// How many.
    pub count: u64,
    /// Their waits added up, in milliseconds.
    pub total_ms: u64,
    /// The longest, in milliseconds.
    pub longest_ms: u64,
    /// Waiting right now.
    pub waiting: u32,
}

/// One connected peer of an image's swarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerStatus {
    /// `address:port`.
    pub address: String,
    /// It is the publisher's own streamer.
    pub origin: bool,
    /// Pieces it has.
    pub pieces: u32,
    /// Bytes fetched from it.
    pub bytes_down: u64,
    /// Bytes sent to it.
    pub bytes_up: u64,
}

/// Cuts, hashes and seeds a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishRequest {
    /// Absolute path the streamer can read: raw bytes of a disk. Its bytes are copied (reflinked where the file system
    /// can) into the streamer's cache and pinned there.
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// Announce URL to write into the metainfo.
    pub tracker: String,
    /// Bytes a piece; 256 KiB up to 32 GiB of image and 1 MiB above if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub piece_bytes: Option<ByteSize>,
}

/// One line of a publish.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublishProgress {
    /// Bytes read so far.
    pub bytes_done: u64,
    /// Bytes in all.
    pub bytes_total: u64,
    /// The result, in the last line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Published>,
    /// Why it failed, in the last line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// A published image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Published {
    /// SHA-256 of `manifest`.
    pub digest: Digest,
    /// Bytes of the image.
    pub size_bytes: u64,
    /// BitTorrent v1 metainfo.
    pub metainfo: Base64,
    /// JSON of [`Manifest`].
    pub manifest: Base64,
}

/// The daemon as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StreamerStatus {
    /// Path of the NBD socket.
    pub nbd_socket: String,
    /// Where peers reach it, `address:port`.
    pub listen: String,
    /// Bytes the cache holds.
    pub cache_bytes: u64,
    /// Bytes free on the cache's file system.
    pub free_bytes: u64,
    /// Images exported.
    pub images: u32,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Stable, kebab-case: `invalid-image`, `not-found`, `busy`, `disk-full`, `io`, `internal`.
    pub code: String,
    /// What, where, and what to do.
    pub message: String,
}
