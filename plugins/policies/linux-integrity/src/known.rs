//! What a call leaves for the next: kept by the host, out of the guest's reach.

use crate::kernel::Kernel;
use crate::tables::Table;
use crate::text::Baseline;
use serde::{Deserialize, Serialize};

/// Everything that is known of a kernel since its first look.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Known {
    pub(crate) facts: Facts,
    pub(crate) baseline: Baseline,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) kernel: Kernel,
    pub(crate) tables: Vec<Table>,
    /// Entries that were wrong when first seen, as findings say them.
    pub(crate) wrong: Vec<(String, usize, u64)>,
    /// Where each interrupt is handled.
    pub(crate) interrupts: Vec<u64>,
    /// Processes that not all views showed at the last call: task and number.
    pub(crate) suspects: Vec<(u64, u32)>,
    /// How many of each hash follow.
    pub(crate) lens: [usize; 3],
}

impl Known {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let Baseline { text, blocks, constants } = &self.baseline;
        let facts = Facts { lens: [text.len(), blocks.len(), constants.len()], ..self.facts.clone() };
        // Plain structs with text keys cannot fail to be written.
        let json = serde_json::to_vec(&facts).unwrap_or_default();
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json);
        bytes.extend(text.iter().flat_map(|hash| hash.to_le_bytes()));
        bytes.extend(blocks.iter().flat_map(|hash| hash.to_le_bytes()));
        bytes.extend(constants.iter().flat_map(|hash| hash.to_le_bytes()));
        bytes
    }

    /// Nothing, if it is empty or another version wrote it.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (len, rest) = bytes.split_first_chunk()?;
        let (json, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
        let facts: Facts = serde_json::from_slice(json).ok()?;
        let [text, blocks, constants] = facts.lens;
        let (text, rest) = rest.split_at_checked(text.checked_mul(8)?)?;
        let (blocks, rest) = rest.split_at_checked(blocks.checked_mul(4)?)?;
        if rest.len() != constants.checked_mul(8)? {
            return None;
        }
        let baseline = Baseline { text: longs(text), blocks: shorts(blocks), constants: longs(rest) };
        Some(Self { facts, baseline })
    }
}

fn longs(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect()
}

fn shorts(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|chunk| u32::from_le_bytes(*chunk)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_damage_starts_anew() {
        let known = Known {
            facts: Facts { suspects: vec![(7, 8)], lens: [2, 3, 1], ..Facts::default() },
            baseline: Baseline { text: vec![1, u64::MAX], blocks: vec![1, 2, u32::MAX], constants: vec![9] },
        };
        let bytes = known.to_bytes();
        assert_eq!(Known::from_bytes(&bytes), Some(known));
        for end in 0..bytes.len() {
            assert_eq!(Known::from_bytes(&bytes[..end]), None);
        }
        assert_eq!(Known::from_bytes(b"another version's"), None);
    }
}
