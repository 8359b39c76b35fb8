//! A file of saved memory, and how it comes to be another domain's.
//!
//! libvirt writes a header of its own before QEMU's stream: 92 bytes, then the domain's document and a cookie, each with
//! a zero at its end, then zeros. When such a file is started from, libvirt lets paths and taps be others, but neither
//! the name nor the UUID; QEMU cares for neither. So these two are put in while the file is copied, and everything else
//! stays as it was. The form: `qemu_saveimage.h` of libvirt, version 2, the only one in ten years.
//!
//! The bytes come from other hosts: nothing in them is believed.

use crate::machine::escape;
use std::io::{self, Read, Write};
use uuid::Uuid;

/// What a finished file begins with.
const MAGIC: &[u8; 16] = b"LibvirtQemudSave";
/// What a file begins with that was not finished.
const UNFINISHED: &[u8; 16] = b"LibvirtQemudPart";
/// The version that is read and written.
const VERSION: u32 = 2;
/// Bytes of the header before the document.
const HEADER_BYTES: usize = 92;
/// Formats of QEMU's stream that do not depend on where in the file it begins: plain, or packed by a program. The last
/// one, which has each page in a place of its own, is refused.
const FORMATS: std::ops::RangeInclusive<u32> = 0..=5;
/// Most bytes of document and cookie, with the zeros: libvirt writes 64 KiB more than it needs, documents have some ten.
const TEXT_BYTES_MAX: usize = 16 << 20;

/// Why a file of saved memory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// The file could not be read or the copy not written.
    #[error("its bytes cannot be copied")]
    Copy(#[from] io::Error),
    /// It ends within its header.
    #[error("it ends within its header: it was cut off")]
    Short,
    /// It is something else.
    #[error("it does not begin as libvirt's saved memory does")]
    Magic,
    /// Saving it was not finished.
    #[error("saving it was not finished: take the checkpoint again")]
    Unfinished,
    /// It is of another version or format.
    #[error(
        "its version {version} and format {format} are not supported here: let libvirt write raw ones (snapshot_image_format = \"raw\" in qemu.conf)"
    )]
    Version {
        /// Of the header.
        version: u32,
        /// Of the stream.
        format: u32,
    },
    /// A length in its header is impossible.
    #[error("its header says {0} bytes of text, which cannot be")]
    Length(u32),
    /// Its document is not one.
    #[error("its document has no {0}")]
    Document(&'static str),
}

/// What comes before QEMU's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    was_running: u32,
    format: u32,
    /// The domain's document.
    document: String,
    /// libvirt's own, as it was; empty if there is none.
    cookie: Vec<u8>,
    /// Bytes that document, cookie and zeros take in all.
    text_bytes: usize,
}

/// Copies saved memory, `named` and `uuid` put in the places of the domain's name and UUID. The machine type that the
/// memory was saved on is answered, such as `pc-q35-10.0`: only a domain of that type can go on from it.
///
/// # Errors
/// [`SavedError`]; what was written so far is of no use.
pub fn rehome(
    saved: &mut impl Read,
    to: &mut impl Write,
    named: &str,
    uuid: Uuid,
) -> Result<String, SavedError> {
    let header = Header::read(saved)?.of(named, uuid)?;
    let machine_type = header.machine_type()?.to_owned();
    to.write_all(&header.bytes()?)?;
    io::copy(saved, to)?;
    Ok(machine_type)
}

impl Header {
    /// Reads all of it, and nothing beyond.
    pub(crate) fn read(from: &mut impl Read) -> Result<Self, SavedError> {
        let mut fixed = [0; HEADER_BYTES];
        fill(from, &mut fixed)?;
        if fixed.starts_with(UNFINISHED) {
            return Err(SavedError::Unfinished);
        }
        if !fixed.starts_with(MAGIC) {
            return Err(SavedError::Magic);
        }
        let word = |index: usize| {
            let at = MAGIC.len() + 4 * index;
            u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
        };
        let [version, text, was_running, format, cookie_at] = [0, 1, 2, 3, 4].map(word);
        if version != VERSION || !FORMATS.contains(&format) {
            return Err(SavedError::Version { version, format });
        }
        let text_bytes = usize::try_from(text).ok().filter(|len| (1..=TEXT_BYTES_MAX).contains(len));
        let text_bytes = text_bytes.ok_or(SavedError::Length(text))?;
        let cookie_at = match usize::try_from(cookie_at) {
            Ok(0) => text_bytes,
            Ok(at) if at <= text_bytes => at,
            _ => return Err(SavedError::Length(cookie_at)),
        };
        let mut texts = vec![0; text_bytes];
        fill(from, &mut texts)?;
        let (document, cookie) = texts.split_at(cookie_at);
        let document = std::str::from_utf8(until_zero(document)).map_err(|_| SavedError::Document("text"))?;
        let cookie = until_zero(cookie).to_vec();
        Ok(Self { was_running, format, document: document.to_owned(), cookie, text_bytes })
    }

    /// The header of another domain.
    fn of(mut self, named: &str, uuid: Uuid) -> Result<Self, SavedError> {
        self.document = put(&self.document, "name", &escape(named))?;
        self.document = put(&self.document, "uuid", &uuid.to_string())?;
        Ok(self)
    }

    /// What the memory was saved on.
    pub(crate) fn machine_type(&self) -> Result<&str, SavedError> {
        let missing = SavedError::Document("machine type");
        let os = self.document.split_once("<os").and_then(|(_, rest)| rest.split_once("</os>"));
        let found = os.and_then(|(os, _)| {
            let (_, rest) = os.split_once("machine=")?;
            let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
            rest[1..].split_once(quote)
        });
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '+');
        match found {
            Some((name, _)) if !name.is_empty() && name.chars().all(plain) => Ok(name),
            _ => Err(missing),
        }
    }

    /// As libvirt writes it. It takes the room that it took, if that is enough.
    fn bytes(&self) -> Result<Vec<u8>, SavedError> {
        let cookie_at = self.document.len() + 1;
        let cookie_len = if self.cookie.is_empty() { 0 } else { self.cookie.len() + 1 };
        let text_bytes = self.text_bytes.max(cookie_at + cookie_len);
        let word = |number: usize| u32::try_from(number).map_err(|_| SavedError::Length(u32::MAX));
        let words = [
            VERSION,
            word(text_bytes)?,
            self.was_running,
            self.format,
            if cookie_len == 0 { 0 } else { word(cookie_at)? },
        ];
        let mut bytes = MAGIC.to_vec();
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        bytes.resize(HEADER_BYTES, 0);
        bytes.extend(self.document.as_bytes());
        bytes.push(0);
        bytes.extend(&self.cookie);
        bytes.resize(HEADER_BYTES + text_bytes, 0);
        Ok(bytes)
    }
}

fn fill(from: &mut impl Read, into: &mut [u8]) -> Result<(), SavedError> {
    from.read_exact(into).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => SavedError::Short,
        _ => SavedError::Copy(error),
    })
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The document with another text in its first element of that name; libvirt writes the domain's own before all others.
fn put(document: &str, element: &'static str, text: &str) -> Result<String, SavedError> {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let found = document.split_once(&open).and_then(|(before, rest)| {
        let (old, after) = rest.split_once(&close)?;
        (!old.contains('<')).then(|| format!("{before}{open}{text}{close}{after}"))
    });
    found.ok_or(SavedError::Document(element))
}

#[cfg(test)]
mod tests;
