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
//! | `GET /v1/images/{digest}/stalls` | | `Vec<`[`Stall`]`>`: the last [`STALLS_KEPT`], oldest first |
//! | `GET /v1/images/{digest}/runs` | | `Vec<`[`Run`]`>`: what each reader touched first, and when |
//! | `POST /v1/images/{digest}/profiles` | `Vec<`[`Profile`]`>` | 204: these from now on, also for readers that run |
//! | `GET /v1/events?image={digest}` | | newline-delimited JSON, one [`StreamEvent`] a line, until the client leaves; of every image without `image` |
//! | `GET /v1/limits`, `PUT /v1/limits` | [`Limits`] | [`Limits`]: in force at once, kept over restarts |
//! | `GET /v1/status` | | [`StreamerStatus`] |
//! | `GET /metrics` | | Prometheus text |
//!
//! The block export is NBD (fixed newstyle) on a second unix socket; the export name is the digest's 64 hexadecimal
//! digits, alone or followed by `/` and a reader's name: 1 to 128 letters, digits, `.`, `_`, `:`, `/` and `-`. Runs and
//! stalls are told apart by reader. Byte ranges of zero pieces are holes.

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
    /// BitTorrent v1 metainfo (BEP 3), one file; private (BEP 27) unless the streamer's peers speak without TLS.
    pub metainfo: Base64,
    /// Bytes of the manifest; their SHA-256 is the image's digest.
    pub manifest: Base64,
    /// Announce URL. It may be `https`: then the streamer's own certificate is shown.
    pub tracker: String,
    /// How much is fetched that nobody has asked for yet, beyond the profile.
    #[serde(default)]
    pub prefetch: Prefetch,
    /// What guests of this image are known to read, in order; each reader is matched against all of them. At most
    /// [`PROFILES_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<Profile>,
    /// URL of the image's raw bytes on a web server that answers range requests (RFC 9110): asked when no peer has a
    /// piece. `https`, or `http` where the streamer's peers speak without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web_seed: Option<String>,
    /// Who is asked for pieces.
    #[serde(default, skip_serializing_if = "Sources::is_default")]
    pub sources: Sources,
    /// Never evicted while set, named or not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pin: bool,
}

impl ImageSource {
    /// A source with nothing but what every image has.
    #[must_use]
    pub fn new(metainfo: Base64, manifest: Base64, tracker: String) -> Self {
        Self {
            metainfo,
            manifest,
            tracker,
            prefetch: Prefetch::Off,
            profiles: Vec::new(),
            web_seed: None,
            sources: Sources::Swarm,
            pin: false,
        }
    }
}

/// Who is asked for pieces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sources {
    /// Peers; the web seed, if there is one, only for what no peer has.
    #[default]
    Swarm,
    /// The web seed alone: client and server, for comparison.
    WebSeed,
}

impl Sources {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Profiles of one image.
pub const PROFILES_MAX: usize = 16;

/// Pieces that guests of an image read, in the order of their mean first access (VMTorrent, CoNEXT 2012).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Of the task, such as `boot`: 1 to 63 lower-case letters, digits and `-`.
    pub name: String,
    /// Runs it was made of.
    pub runs: u32,
    /// In order; no piece twice.
    pub entries: Vec<ProfileEntry>,
}

/// One piece of a [`Profile`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileEntry {
    /// Its index.
    pub piece: u32,
    /// Mean time of first access since the run began, without waits for pieces, in milliseconds.
    pub at_ms: u32,
    /// Runs that read it, of those the profile was made of.
    pub runs: u32,
}

/// What one reader touched since it connected.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The name it gave behind the export's, or empty.
    pub reader: String,
    /// When it connected, in milliseconds since 1970.
    pub began_unix_ms: u64,
    /// It is still connected.
    pub connected: bool,
    /// It began with the reader's first connection to this daemon: nothing is missing before.
    pub whole: bool,
    /// The profile it is served by, if one fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// How well each profile fits, best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<ProfileScore>,
    /// Pieces in order of first access; zero pieces are left out.
    pub touched: Vec<Touch>,
}

/// A piece's first access in a [`Run`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Touch {
    /// Its index.
    pub piece: u32,
    /// Since the run began, without waits for pieces, in milliseconds.
    pub at_ms: u32,
}

/// How well a profile fits a reader.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProfileScore {
    /// The profile's name.
    pub profile: String,
    /// Share of the reader's latest first accesses that the profile names, 0 to 1.
    pub score: f64,
}

/// Stalls kept for each image.
pub const STALLS_KEPT: usize = 1024;

/// A read that had to wait for one or more pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stall {
    /// When it began, in milliseconds since 1970.
    pub began_unix_ms: u64,
    /// Since its reader's run began, in milliseconds.
    pub at_ms: u64,
    /// Who waited: the name given behind the export's.
    pub reader: String,
    /// The piece that came last.
    pub piece: u32,
    /// How long, in milliseconds.
    pub waited_ms: u64,
    /// Who sent that piece: `origin`, `peer`, `web_seed`, or absent while it waits or if it was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The profile that served the reader then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Why the piece was not here before.
    pub why: StallCause,
}

/// Why a piece was not here when it was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StallCause {
    /// No profile fitted the reader.
    #[default]
    NoProfile,
    /// The profile does not name it.
    NotInProfile,
    /// The profile names it, but the guest was faster.
    Late,
}

/// Something that happened, as it happens. A client that is too slow misses some, and is told how many.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StreamEvent {
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// Which image.
    pub image: Digest,
    /// What.
    #[serde(flatten)]
    pub what: Happening,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Happening {
    /// A piece was verified and is here.
    Piece {
        /// Its index.
        piece: u32,
        /// `origin`, `peer`, `web_seed` or `cache`.
        source: String,
        /// Who sent it, `address:port`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<String>,
    },
    /// A piece was wrong and thrown away; its sender is banned for a while.
    Poisoned {
        /// Its index.
        piece: u32,
        /// Who sent it.
        from: String,
    },
    /// A read began to wait.
    Waiting {
        /// Who.
        reader: String,
        /// For what.
        piece: u32,
    },
    /// A read had waited, and has its bytes.
    Stalled(Stall),
    /// A peer connected.
    Joined {
        /// Who, `address:port`.
        peer: String,
    },
    /// A peer is gone.
    Left {
        /// Who, `address:port`.
        peer: String,
        /// Why.
        why: String,
    },
    /// Another profile serves a reader, or none.
    Profile {
        /// Whom.
        reader: String,
        /// Which, if any.
        profile: Option<String>,
        /// How well each fits.
        scores: Vec<ProfileScore>,
    },
    /// Events were left out: the client reads too slowly.
    Missed {
        /// How many.
        events: u64,
    },
}

/// Most bytes a second; absent is without limit. Each at least 16 KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// From peers, in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download_bytes_per_s: Option<u64>,
    /// To peers, in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_bytes_per_s: Option<u64>,
    /// From peers of other sites, origins and web seeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site_download_bytes_per_s: Option<u64>,
    /// To peers of other sites.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site_upload_bytes_per_s: Option<u64>,
}

/// How much is fetched that no guest has asked for yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Prefetch {
    /// Nothing: only what is read, and the profile.
    #[default]
    Off,
    /// Everything, rarest first, while no read waits and nothing of the profile is missing.
    Idle,
    /// Everything, rarest first, beside the profile.
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
    /// Bytes fetched and sent in the last second.
    #[serde(default)]
    pub rates: Rates,
    /// Readers connected to its export.
    #[serde(default)]
    pub readers: Vec<Reader>,
    /// Connected peers.
    pub peers: Vec<PeerStatus>,
    /// One character a piece: `z` zero, `h` here, `f` being fetched, `.` absent. Only in the answer for one image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub piece_map: Option<String>,
    /// Why nothing moves, if so: no tracker, no peers, disk full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Bytes a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rates {
    /// Fetched.
    pub down_bytes_per_s: u64,
    /// Sent.
    pub up_bytes_per_s: u64,
}

/// Somebody who reads an image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Reader {
    /// The name given behind the export's, or empty.
    pub name: String,
    /// The profile that serves it, if one fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// How well that profile fits, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Pieces of that profile that are missing here.
    pub profile_missing: u32,
    /// Reads that had to wait.
    pub stalls: Stalls,
}

/// Bytes by where they came from. `origin + peer + web_seed + zero + cache` is what reads and prefetch have touched of the image,
/// counted once a piece.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BytesBySource {
    /// From the publisher's own streamer.
    pub origin: u64,
    /// From other hosts.
    pub peer: u64,
    /// From the web seed.
    #[serde(default)]
    pub web_seed: u64,
    /// Known zero: touched, never fetched.
    pub zero: u64,
    /// Was here already when the image was named (an earlier run's cache), or was copied from another image here.
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
    /// It is of our site.
    #[serde(default)]
    pub same_site: bool,
    /// Bytes a second fetched from it and sent to it.
    #[serde(default)]
    pub rates: Rates,
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
    /// Anybody may fetch it: the metainfo is not private (BEP 27), and any BitTorrent client joins the swarm. Streamers
    /// whose peers speak TLS refuse such an image.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub public: bool,
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
    /// In force.
    #[serde(default)]
    pub limits: Limits,
    /// The site it says it is of, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Stable, kebab-case: `invalid-image`, `not-found`, `busy`, `disk-full`, `io`, `internal`.
    pub code: String,
    /// What, where, and what to do.
    pub message: String,
}
