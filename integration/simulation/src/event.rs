//! What happens, and when it does.

use streamer_plan::Block;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Said {
    Ask(Block, bool),
    Urge(u32),
    TakeBack(Block),
    Has(u32),
    Want(u32),
    /// A block at the receiver's downlink.
    Arrives(Block),
    /// A block, received.
    Sends(Block),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    Said { from: usize, to: usize, epochs: (u32, u32), said: Said },
    Sent(usize, u32),
    Verified(usize, u32, u32),
    Wake(usize),
    Reads(usize, u32),
}
