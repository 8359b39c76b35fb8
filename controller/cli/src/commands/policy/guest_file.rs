//! A guest written in a file, for tests of introspection policies.

use plugins_runtime::introspection::{Disk, Flow, GuestViews, Paging, Region, ViewError};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

/// What an introspection policy sees, where no guest runs. All of it may be absent.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct GuestFile {
    /// RAM, ascending by address.
    memory: Vec<Piece>,
    /// Registers of each vCPU, such as `{"cr3": "0x1000"}`.
    registers: Vec<BTreeMap<String, Number>>,
    /// Newest first.
    flows: Vec<Flow>,
    disks: Vec<DiskFile>,
}

/// Bytes at an address: `hex`, then zeros up to `len`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Piece {
    address: Number,
    #[serde(default)]
    hex: Hex,
    /// Bytes in all, if zeros follow.
    #[serde(default)]
    len: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct DiskFile {
    name: String,
    #[serde(default)]
    hex: Hex,
    #[serde(default)]
    len: u64,
}

/// A number, or its text: addresses are read in hexadecimal.
#[derive(Debug, Clone, Copy)]
struct Number(u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u64),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(number) => Ok(Self(number)),
            Either::Text(text) => {
                let digits = text.strip_prefix("0x").unwrap_or(&text).replace('_', "");
                u64::from_str_radix(&digits, 16)
                    .map(Self)
                    .map_err(|_| serde::de::Error::custom(format!("{text:?} is no address: write 0x1f00")))
            }
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Hex(Vec<u8>);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text: String = String::deserialize(deserializer)?.split_whitespace().collect();
        let pair = |at: usize| text.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
        let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(pair).collect();
        bytes.map(Self).ok_or_else(|| serde::de::Error::custom("write bytes as pairs of hexadecimal digits"))
    }
}

/// Copies from `bytes`, then zeros, starting at `offset`.
fn fill(bytes: &[u8], offset: u64, into: &mut [u8]) {
    for (index, byte) in into.iter_mut().enumerate() {
        let at = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(index));
        *byte = at.and_then(|at| bytes.get(at)).copied().unwrap_or(0);
    }
}

fn size(hex: &Hex, len: u64) -> u64 {
    len.max(hex.0.len() as u64)
}

impl GuestViews for GuestFile {
    fn regions(&self) -> Result<Vec<Region>, ViewError> {
        let region = |piece: &Piece| Region { start: piece.address.0, len: size(&piece.hex, piece.len) };
        Ok(self.memory.iter().map(region).filter(|region| region.len > 0).collect())
    }

    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), ViewError> {
        let holds = |piece: &&Piece| {
            address >= piece.address.0 && address - piece.address.0 < size(&piece.hex, piece.len)
        };
        let piece = self.memory.iter().find(holds).ok_or(ViewError::OutOfRange)?;
        fill(&piece.hex.0, address - piece.address.0, into);
        Ok(())
    }

    fn paging(&self) -> Result<Paging, ViewError> {
        Ok(Paging::FourLevels)
    }

    fn registers(&self, vcpu: u32) -> Result<BTreeMap<String, u64>, ViewError> {
        let registers = self.registers.get(vcpu as usize).ok_or(ViewError::OutOfRange)?;
        Ok(registers.iter().map(|(name, value)| (name.clone(), value.0)).collect())
    }

    fn flows(&self, limit: usize) -> Result<Vec<Flow>, ViewError> {
        Ok(self.flows.iter().take(limit).cloned().collect())
    }

    fn disks(&self) -> Result<Vec<Disk>, ViewError> {
        let disk = |disk: &DiskFile| Disk { name: disk.name.clone(), size: size(&disk.hex, disk.len) };
        Ok(self.disks.iter().map(disk).collect())
    }

    fn read_disk(&self, disk: u32, offset: u64, into: &mut [u8]) -> Result<(), ViewError> {
        let disk = self.disks.get(disk as usize).ok_or(ViewError::OutOfRange)?;
        fill(&disk.hex.0, offset, into);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_read_and_zeros_follow_what_is_written() {
        let text = r#"{"memory": [{"address": "0xffff_0000", "hex": "de ad", "len": 4096}],
                       "registers": [{"cr3": "0x1000", "rip": 7}]}"#;
        let guest: GuestFile = serde_json::from_str(text).unwrap();
        assert_eq!(guest.regions().unwrap(), [Region { start: 0xffff_0000, len: 4096 }]);
        let mut bytes = [9; 3];
        guest.read(0xffff_0001, &mut bytes).unwrap();
        assert_eq!(bytes, [0xad, 0, 0]);
        assert_eq!(guest.read(0x1_0000_1000, &mut bytes), Err(ViewError::OutOfRange));
        assert_eq!(guest.registers(0).unwrap()["cr3"], 0x1000);
        assert_eq!(guest.registers(0).unwrap()["rip"], 7);
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in [r#"{"memory": [{"address": "zz"}]}"#, r#"{"memory": [{"address": 1, "hex": "abc"}]}"#] {
            assert!(serde_json::from_str::<GuestFile>(text).is_err(), "{text}");
        }
    }
}
