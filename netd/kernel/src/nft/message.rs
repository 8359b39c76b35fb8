//! nfnetlink messages as bytes: written in one buffer, read in place.
//!
//! By hand and not with a crate of typed attributes: of the hundred thousand elements of a large host each would be a
//! dozen boxed values; and what is read of a skeleton has to be compared and written again byte for byte.

/// `NFPROTO_BRIDGE`.
const FAMILY: u8 = 7;
const HEADER_BYTES: usize = 20;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// Takes the marks off an attribute's kind.
pub(super) const KIND_MASK: u16 = 0x3fff;
const NESTED: u16 = 0x8000;
/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;

pub(super) const NLM_F_REQUEST: u16 = 0x1;
pub(super) const NLM_F_ACK: u16 = 0x4;
pub(super) const NLM_F_DUMP: u16 = 0x300;
pub(super) const NLM_F_CREATE: u16 = 0x400;
pub(super) const NLM_F_APPEND: u16 = 0x800;
pub(super) const NLM_F_DUMP_INTR: u16 = 0x10;
pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;

/// Kinds of messages (`NFT_MSG_…`, `NFNL_MSG_BATCH_…`).
pub(super) mod kind {
    use super::SUBSYSTEM;

    const fn nft(number: u16) -> u16 {
        SUBSYSTEM << 8 | number
    }

    pub(in super::super) const BATCH_BEGIN: u16 = 0x10;
    pub(in super::super) const BATCH_END: u16 = 0x11;
    pub(in super::super) const NEW_TABLE: u16 = nft(0);
    pub(in super::super) const GET_TABLE: u16 = nft(1);
    pub(in super::super) const DELETE_TABLE: u16 = nft(2);
    pub(in super::super) const NEW_CHAIN: u16 = nft(3);
    pub(in super::super) const GET_CHAIN: u16 = nft(4);
    pub(in super::super) const NEW_RULE: u16 = nft(6);
    pub(in super::super) const GET_RULE: u16 = nft(7);
    pub(in super::super) const NEW_SET: u16 = nft(9);
    pub(in super::super) const GET_SET: u16 = nft(10);
    pub(in super::super) const NEW_ELEMENTS: u16 = nft(12);
    pub(in super::super) const GET_ELEMENTS: u16 = nft(13);
    pub(in super::super) const DELETE_ELEMENTS: u16 = nft(14);
    pub(in super::super) const GET_GENERATION: u16 = nft(16);
}

/// Messages one after the other.
#[derive(Debug, Default)]
pub(super) struct Messages {
    bytes: Vec<u8>,
    open: Option<usize>,
}

/// Where an attribute began whose length is not known yet.
#[derive(Debug)]
pub(super) struct Nest(usize);

impl Messages {
    /// Ends the last message and begins one more.
    pub(super) fn begin(&mut self, kind: u16, flags: u16, sequence: u32) {
        self.end();
        self.open = Some(self.bytes.len());
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        self.bytes.extend(sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        let is_batch = kind == kind::BATCH_BEGIN || kind == kind::BATCH_END;
        let resource = if is_batch { SUBSYSTEM } else { 0 };
        self.bytes.extend([if is_batch { 0 } else { FAMILY }, 0]);
        self.bytes.extend(resource.to_be_bytes());
    }

    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.header(kind, ATTRIBUTE_HEADER_BYTES + value.len());
        self.bytes.extend(value);
        self.pad();
    }

    /// A string as the kernel wants it.
    pub(super) fn text(&mut self, kind: u16, text: &str) {
        self.header(kind, ATTRIBUTE_HEADER_BYTES + text.len() + 1);
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    /// Attributes that are written already.
    pub(super) fn raw(&mut self, attributes: &[u8]) {
        self.bytes.extend(attributes);
    }

    pub(super) fn nest(&mut self, kind: u16) -> Nest {
        let start = self.bytes.len();
        self.header(kind | NESTED, 0);
        Nest(start)
    }

    /// Lengths of more than 16 bits cannot be written: see [`Self::nested`].
    pub(super) fn end_nest(&mut self, nest: &Nest) {
        let length = u16::try_from(self.nested(nest)).unwrap_or(u16::MAX);
        if let Some(field) = self.bytes.get_mut(nest.0..nest.0 + 2) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
    }

    /// Bytes in the attribute so far.
    pub(super) fn nested(&self, nest: &Nest) -> usize {
        self.bytes.len() - nest.0
    }

    /// All of it.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.end();
        self.bytes
    }

    fn end(&mut self) {
        let Some(start) = self.open.take() else { return };
        // A batch of more than 4 GiB does not fit into memory twice.
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        if let Some(field) = self.bytes.get_mut(start..start + 4) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
    }

    fn header(&mut self, kind: u16, length: usize) {
        let length = u16::try_from(length).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// One message as received.
#[derive(Debug)]
pub(super) struct Received<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    /// After the netlink header.
    body: &'a [u8],
}

impl<'a> Received<'a> {
    /// The attributes of a message of nftables.
    pub(super) fn attributes(&self) -> &'a [u8] {
        self.body.get(4..).unwrap_or_default()
    }

    /// The error that an answer or the end of a dump carries; 0 is success.
    pub(super) fn error(&self) -> i32 {
        let code = self.body.first_chunk::<4>().map(|bytes| i32::from_ne_bytes(*bytes));
        code.unwrap_or_default().saturating_neg()
    }
}

/// The messages of one datagram.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
        let message = bytes.get(..length).filter(|message| message.len() >= HEADER_BYTES - 4)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        let short = |at: usize| Some(u16::from_ne_bytes(*message.get(at..)?.first_chunk()?));
        Some(Received {
            kind: short(4)?,
            flags: short(6)?,
            sequence: u32::from_ne_bytes(*message.get(8..)?.first_chunk()?),
            body: message.get(HEADER_BYTES - 4..)?,
        })
    })
}

/// The attributes in some bytes, each with its kind. Ends at the first that is cut off.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    marked(bytes).map(|(kind, value)| (kind & KIND_MASK, value))
}

/// The same, with the marks that a kind may carry.
pub(super) fn marked(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
        let value = bytes.get(ATTRIBUTE_HEADER_BYTES..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a kind.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A string of the kernel.
pub(super) fn text(bytes: &[u8]) -> &str {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    std::str::from_utf8(bytes.get(..end).unwrap_or_default()).unwrap_or_default()
}

/// Big-endian, as nftables numbers are.
pub(super) fn u64_of(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// Big-endian, as nftables numbers are.
pub(super) fn u32_of(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}
