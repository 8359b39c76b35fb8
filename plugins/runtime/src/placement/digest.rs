//! What a decision was made from, in 32 bytes.
//!
//! The digest of an input is the SHA-256 of a small JSON document without white space, keys in the order of their
//! bytes: the fields of [`PlacementInput`], with the digest of the hosts in place of the columns that describe hosts,
//! and digests of the non-zero elements in place of the three columns that depend on the request. The digest of the
//! hosts is the SHA-256 of the SHA-256s of blocks of [`BLOCK_ROWS`] hosts, so that one changed host costs one block and
//! not ten thousand hosts.

use super::{PlacementInput, PlacementQuestion, Request, Snapshot};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use types::Digest;

/// Hosts of one block.
const BLOCK_ROWS: usize = 64;

/// One host, as far as the request does not matter.
#[derive(Debug, Default)]
pub(super) struct HostRow<'a> {
    pub(super) name: &'a str,
    pub(super) site: &'a str,
    pub(super) state: u8,
    pub(super) attested: bool,
    pub(super) memory_total_bytes: u64,
    pub(super) memory_free_bytes: u64,
    pub(super) disk_total_bytes: u64,
    pub(super) disk_free_bytes: u64,
    pub(super) cpu_total_milli: u32,
    pub(super) cpu_free_milli: u32,
    pub(super) instance_count: u32,
    pub(super) load: f32,
}

/// Appends a host: numbers little-endian, texts after their lengths, then the labels it has.
pub(super) fn write_row<'a>(
    row: &HostRow<'_>,
    labels: impl Iterator<Item = (&'a str, &'a str)>,
    out: &mut Vec<u8>,
) {
    write_text(row.name, out);
    write_text(row.site, out);
    out.extend([row.state, u8::from(row.attested)]);
    let wide = [row.memory_total_bytes, row.memory_free_bytes, row.disk_total_bytes, row.disk_free_bytes];
    wide.iter().for_each(|number| out.extend(number.to_le_bytes()));
    let narrow = [row.cpu_total_milli, row.cpu_free_milli, row.instance_count, row.load.to_bits()];
    narrow.iter().for_each(|number| out.extend(number.to_le_bytes()));
    for (key, value) in labels.filter(|(_, value)| !value.is_empty()) {
        write_text(key, out);
        write_text(value, out);
    }
    // No key is empty: this ends the labels.
    write_text("", out);
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// The digests of the blocks.
#[derive(Debug, Clone)]
pub(super) struct Blocks {
    digests: Vec<[u8; 32]>,
    whole: Digest,
}

impl Blocks {
    pub(super) fn new(rows: usize, write: impl Fn(usize, &mut Vec<u8>)) -> Self {
        let mut bytes = Vec::new();
        let starts = (0..rows).step_by(BLOCK_ROWS);
        let digests = starts.map(|start| block(start, rows, &write, &mut bytes)).collect();
        let mut blocks = Self { digests, whole: Digest::from_bytes([0; 32]) };
        blocks.seal();
        blocks
    }

    /// Takes a changed row into account.
    pub(super) fn renew(&mut self, row: usize, rows: usize, write: impl Fn(usize, &mut Vec<u8>)) {
        let number = row / BLOCK_ROWS;
        if let Some(digest) = self.digests.get_mut(number) {
            *digest = block(number * BLOCK_ROWS, rows, &write, &mut Vec::new());
            self.seal();
        }
    }

    pub(super) fn digest(&self) -> Digest {
        self.whole
    }

    fn seal(&mut self) {
        self.whole = Digest::from_bytes(Sha256::digest(self.digests.as_flattened()).into());
    }
}

fn block(start: usize, rows: usize, write: &impl Fn(usize, &mut Vec<u8>), bytes: &mut Vec<u8>) -> [u8; 32] {
    bytes.clear();
    (start..rows.min(start + BLOCK_ROWS)).for_each(|row| write(row, bytes));
    Sha256::digest(&*bytes).into()
}

/// The document that is hashed: fields in the order of their names.
#[derive(Serialize)]
struct Document<'a> {
    decision_id: &'a str,
    hosts: Digest,
    image_cached_bytes: Digest,
    now_ms: u64,
    peers: Digest,
    request: RequestDocument<'a>,
    revision: u64,
    rivals: Digest,
    seed: u32,
    settings: Digest,
}

/// The request: fields in the order of their names.
#[derive(Serialize)]
struct RequestDocument<'a> {
    appliance: &'a str,
    attributes: &'a std::collections::BTreeMap<String, String>,
    choices_max: u32,
    current_host: Option<&'a str>,
    deployment: &'a str,
    disk_bytes: u64,
    image_bytes: u64,
    instance: &'a str,
    member: &'a str,
    memory_bytes: u64,
    pinned_host: Option<&'a str>,
    vcpus_milli: u32,
    version: &'a str,
}

impl<'a> RequestDocument<'a> {
    fn of(request: &'a Request) -> Self {
        Self {
            appliance: &request.appliance,
            attributes: &request.attributes,
            choices_max: request.choices_max,
            current_host: request.current_host.as_deref(),
            deployment: &request.deployment,
            disk_bytes: request.disk_bytes,
            image_bytes: request.image_bytes,
            instance: &request.instance,
            member: &request.member,
            memory_bytes: request.memory_bytes,
            pinned_host: request.pinned_host.as_deref(),
            vcpus_milli: request.vcpus_milli,
            version: &request.version,
        }
    }
}

/// Digest of a question about these hosts.
pub(crate) fn question(hosts: &Snapshot, question: &PlacementQuestion) -> Digest {
    let document = Document {
        decision_id: &question.decision_id,
        hosts: hosts.digest(),
        image_cached_bytes: sparse(&question.image_cached_bytes, |number| number.to_le_bytes()),
        now_ms: question.now_ms,
        peers: sparse(&question.peers, |number| number.to_le_bytes()),
        request: RequestDocument::of(&question.request),
        revision: question.revision.0,
        rivals: sparse(&question.rivals, |number| number.to_le_bytes()),
        seed: question.seed,
        settings: crate::canonical::digest(&question.settings),
    };
    // Serialising plain structs with text keys cannot fail.
    let text = serde_json::to_vec(&document).unwrap_or_default();
    Digest::from_bytes(Sha256::digest(text).into())
}

/// Digest of an input. One that no snapshot can be made of has that of its JSON.
pub(super) fn input(input: &PlacementInput) -> Digest {
    match Snapshot::new(&input.hosts) {
        Ok(hosts) => question(&hosts, &PlacementQuestion::of(input)),
        Err(_) => crate::canonical::digest(input),
    }
}

/// Digest of the elements that are not zero, each after its position.
fn sparse<T: Copy + Default + PartialEq, const N: usize>(
    column: &[T],
    bytes_of: impl Fn(T) -> [u8; N],
) -> Digest {
    let mut bytes = Vec::new();
    for (position, value) in (0u32..).zip(column).filter(|(_, value)| **value != T::default()) {
        bytes.extend(position.to_le_bytes());
        bytes.extend(bytes_of(*value));
    }
    Digest::from_bytes(Sha256::digest(&bytes).into())
}
