//! Pure scheduling: which block of which piece is asked of which peer next.
//!
//! No socket, file or clock is touched here: the caller passes the time in, and gets [`Action`]s out. Start at
//! [`Scheduler`]; [`Geometry`] and [`Pieces`] are the words it is written in. [`Bencode`] is the one notation that
//! metainfo and trackers share.
//!
//! A piece is in exactly one state:
//!
//! ```text
//!             plan            last block          verified
//!   absent ──────────▶ fetching ──────▶ verifying ─────────▶ held
//!      ▲                   │                │                 │
//!      └───── peers gone ──┴─── poisoned ───┘◀──── lost ──────┘
//! ```
//!
//! Fetching is one or more attempts, each of a whole piece from one peer: blocks of two peers are never mixed, so that a
//! piece that fails verification names its culprit. Sequential pickers and BitTorrent's rarest-first were refused for
//! pieces a guest waits for: those go out at once, and to a second peer when the first is silent for [`PATIENCE`].

mod bencode;
mod geometry;
mod pieces;
mod profile;
mod scheduler;

pub use bencode::{BENCODE_DEPTH_MAX, Bencode, BencodeDict};
pub use geometry::{BLOCK_BYTES, Block, Geometry};
pub use pieces::{Pieces, WrongBitfield};
pub use profile::{
    FIT_MARGIN, FIT_MIN, GuestClock, Matcher, Profile, RECENT_TOUCHES, Recorder, TOUCHES_MIN, interleave,
};
pub use scheduler::{
    Action, Background, Outcome, PATIENCE, PeerFacts, PeerKey, PeerKind, Received, STEAL_AGE, Scheduler,
    Tuning, URGENT_WINDOW_BLOCKS,
};
