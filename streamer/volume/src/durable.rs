//! Files that are whole or absent.

use crate::probe::{self, Op};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// Replaces a file so that after a crash either the old or the new content is there.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    probe::before(path, &Op::Replace(bytes))?;
    let beside = path.with_extension("new");
    let replaced = write_new(&beside, bytes).and_then(|()| fs::rename(&beside, path));
    if replaced.is_err() {
        // Half a file would keep a full disk full; it may never have come to be.
        let _ = fs::remove_file(&beside);
    }
    replaced?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_data()
}

/// Makes renames in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
