//! A guest's kernel memory by its virtual addresses.

use plugins_sdk::introspection::{Guest, READ_LEN_MAX, ViewError};

/// Reads under one page-table root. Numbers are little endian.
pub(crate) struct KernelMemory<'a, G> {
    pub(crate) guest: &'a G,
    pub(crate) root: u64,
}

impl<G: Guest> KernelMemory<'_, G> {
    /// Any number of bytes, in reads of what one may have.
    pub(crate) fn bytes(&self, address: u64, len: usize) -> Result<Vec<u8>, ViewError> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let part = (len - bytes.len()).min(READ_LEN_MAX as usize) as u32;
            let at = address.checked_add(bytes.len() as u64).ok_or(ViewError::OutOfRange)?;
            bytes.extend(self.guest.read_virtual(self.root, at, part)?);
        }
        Ok(bytes)
    }
}

pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}

pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u16::from_le_bytes(*chunk))
}

/// A number of a table that points relative to its own place.
pub(crate) fn i32_at(bytes: &[u8], offset: usize) -> Option<i32> {
    u32_at(bytes, offset).map(u32::cast_signed)
}
