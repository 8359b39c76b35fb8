//! The words a scheduler and its caller share.

use crate::Block;

/// The caller's number of a connected peer.
pub type PeerKey = u64;

/// What a peer is to us: decides in which order peers are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerKind {
    /// A host of our site.
    Near,
    /// Another host, or a foreign client: its bytes cross the WAN.
    Far,
    /// The publisher's own streamer.
    Origin,
    /// A web server with the image's bytes: the last resort.
    WebSeed,
}

impl PeerKind {
    /// Shares its copy with us over a fast network that costs nothing.
    pub(crate) fn is_near(self) -> bool {
        self == Self::Near
    }
}

/// What is known of a peer when it joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerFacts {
    /// What it is to us.
    pub kind: PeerKind,
    /// The identity of a peer that understands [`Action::Want`]; `None`: a foreign one.
    pub identity: Option<u64>,
}

/// How much is fetched that no guest asked for and no profile names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Background {
    /// Nothing.
    #[default]
    Off,
    /// Everything, rarest first, while nobody waits and nothing of the profile is missing.
    Idle,
    /// Everything, rarest first, beside the profile.
    Full,
}

/// What the caller has to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Ask a peer for a block. `urgent`: somebody waits for it. A block asked for before somebody waited is not asked for
    /// again when somebody does: that it has become urgent is the caller's to tell, who told the scheduler.
    Request {
        /// Whom.
        peer: PeerKey,
        /// What.
        block: Block,
        /// The peer should serve it before others.
        urgent: bool,
    },
    /// Take a request back.
    Cancel {
        /// Whose.
        peer: PeerKey,
        /// Which.
        block: Block,
    },
    /// Tell a peer of our site, which fetches this piece for all of it, that a guest waits for it here.
    Want {
        /// Whom.
        peer: PeerKey,
        /// Which piece.
        piece: u32,
    },
}

/// What a block that came in was good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// Nobody asked, or it is late: throw it away.
    Unasked,
    /// Keep it.
    Progress,
    /// Keep it; the piece is complete and must be verified now.
    Complete,
}

/// How verification ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Verified, and kept.
    Held,
    /// The bytes were wrong or could not be kept: it is absent again.
    Refused,
}
