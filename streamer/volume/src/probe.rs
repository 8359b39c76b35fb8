//! What a test may see of the disk and do to it. Outside tests nothing of it is left.

/// Something that is about to be done to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op<'a> {
    /// Bytes are written at an offset.
    Write(u64, &'a [u8]),
    /// A range is copied from another file: offset, length.
    Copy(u64, u64),
    /// A range becomes a hole: offset, length.
    Punch(u64, u64),
    /// The file is replaced, durably.
    Replace(&'a [u8]),
    /// The file is made durable.
    Sync,
}

#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "a test may answer with an error")]
#[inline]
pub(crate) fn before(_: &std::path::Path, _: &Op<'_>) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(crate) use crate::tests::shim::before;
