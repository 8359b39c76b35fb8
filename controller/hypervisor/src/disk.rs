//! What a disk of a machine is made of: the file that the guest writes, and what it stands on. Pure: values in, text
//! out.

use crate::machine::{escape, path, push};
use std::path::PathBuf;

/// How long QEMU keeps reads of an export waiting for a server that went away before it pauses the guest.
const RECONNECT_DELAY_S: u32 = 30;

/// How disk files are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    /// Past the page cache; the file system has to know `O_DIRECT`.
    Direct,
    /// Through the page cache; the guest's flushes are honoured.
    Writeback,
}

/// How the bytes of a disk, or of a part of one, are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// As the guest sees them.
    Raw,
    /// QEMU's copy-on-write format: what it does not hold is that of what it stands on.
    Qcow2,
}

impl Format {
    /// `raw` or `qcow2`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// An NBD export on a unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Its name.
    pub name: String,
    /// The server's socket.
    pub socket: PathBuf,
}

/// A file with a disk's bytes, or a part of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskFile {
    /// Where.
    pub path: PathBuf,
    /// How.
    pub format: Format,
}

/// What a disk's active file, or a layer, stands on. It is only read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Under {
    /// A frozen file of this host.
    File(DiskFile),
    /// Bytes that a server of this host has, or fetches when they are asked for. A layer's are in its own format: a
    /// qcow2 file behind an export is read as qcow2.
    Export {
        /// Where.
        export: Export,
        /// How.
        format: Format,
    },
}

/// All of one disk.
///
/// libvirt and QEMU are told the whole of it and believe it; the names that qcow2 files hold of what they stand on are
/// never read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The only file that the guest writes.
    pub active: DiskFile,
    /// What it stands on, newest first; the last one stands on nothing. Only a qcow2 stands on something.
    pub under: Vec<Under>,
}

impl Chain {
    /// A disk of a single raw file.
    #[must_use]
    pub fn raw(path: PathBuf) -> Self {
        Self { active: DiskFile { path, format: Format::Raw }, under: Vec::new() }
    }

    /// A qcow2 file over an image as its guest sees it.
    #[must_use]
    pub fn over_image(overlay: PathBuf, image: Export) -> Self {
        let active = DiskFile { path: overlay, format: Format::Qcow2 };
        Self { active, under: vec![Under::Export { export: image, format: Format::Raw }] }
    }

    /// `<source>` and the whole `<backingStore>`, each line indented by six.
    pub(crate) fn sources(&self, xml: &mut String) {
        push(xml, format_args!("      <source file='{}'/>\n", path(&self.active.path)));
        // A disk of one raw file has nothing beneath: said also, or libvirt would look into the guest's bytes.
        push(xml, format_args!("      "));
        for under in &self.under {
            under_xml(xml, under);
        }
        xml.push_str("<backingStore/>");
        for _ in &self.under {
            xml.push_str("</backingStore>");
        }
        xml.push('\n');
    }
}

/// Opens the `<backingStore>` of one of them.
fn under_xml(xml: &mut String, under: &Under) {
    match under {
        Under::File(file) => push(
            xml,
            format_args!(
                "<backingStore type='file'><format type='{}'/><source file='{}'/>",
                file.format.as_str(),
                path(&file.path),
            ),
        ),
        Under::Export { export, format } => push(
            xml,
            format_args!(
                "<backingStore type='network'><format type='{}'/><source protocol='nbd' name='{}'>\
                 <host transport='unix' socket='{}'/><reconnect delay='{RECONNECT_DELAY_S}'/></source>",
                format.as_str(),
                escape(&export.name),
                path(&export.socket),
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(chain: &Chain) -> String {
        let mut xml = String::new();
        chain.sources(&mut xml);
        xml.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_disk_of_one_file_stands_on_nothing() {
        assert_eq!(text(&Chain::raw("/v/home.raw".into())), "<source file='/v/home.raw'/> <backingStore/>");
    }

    #[test]
    fn a_chain_is_told_whole_newest_first_and_closed() {
        let export = |name: &str| Export { name: name.to_owned(), socket: "/s".into() };
        let chain = Chain {
            active: DiskFile { path: "/a".into(), format: Format::Qcow2 },
            under: vec![
                Under::File(DiskFile { path: "/b&".into(), format: Format::Qcow2 }),
                Under::Export { export: export("c'"), format: Format::Qcow2 },
                Under::Export { export: export("d"), format: Format::Raw },
            ],
        };
        assert_eq!(
            text(&chain),
            "<source file='/a'/> <backingStore type='file'><format type='qcow2'/><source file='/b&amp;'/>\
             <backingStore type='network'><format type='qcow2'/><source protocol='nbd' name='c&apos;'>\
             <host transport='unix' socket='/s'/><reconnect delay='30'/></source>\
             <backingStore type='network'><format type='raw'/><source protocol='nbd' name='d'>\
             <host transport='unix' socket='/s'/><reconnect delay='30'/></source>\
             <backingStore/></backingStore></backingStore></backingStore>"
        );
    }
}
