use super::{Storage, TEMPORARY};
use bytes::Bytes;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A folder of this machine.
pub(crate) struct Folder {
    root: PathBuf,
}

impl Folder {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }
}

impl Storage for Folder {
    fn read(&self, name: &str) -> io::Result<Bytes> {
        fs::read(self.root.join(name)).map(Bytes::from)
    }

    fn read_range(&self, name: &str, range: Range<u64>) -> io::Result<Bytes> {
        let length = usize::try_from(range.end.saturating_sub(range.start)).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        File::open(self.root.join(name))?.read_exact_at(&mut bytes, range.start)?;
        Ok(bytes.into())
    }

    fn write(&self, name: &str, parts: &[Bytes]) -> io::Result<()> {
        let path = self.root.join(name);
        let mut partial = OsString::from(path.as_os_str());
        partial.push(TEMPORARY);
        let partial = PathBuf::from(partial);
        let folder = path.parent().unwrap_or(&self.root);
        let written = write_whole(&partial, folder, parts)
            .and_then(|()| fs::rename(&partial, &path))
            .and_then(|()| File::open(folder)?.sync_all());
        if written.is_err() {
            // A full disk shall at least get this back.
            let _ = fs::remove_file(&partial);
        }
        written
    }

    fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>> {
        let mut found = Vec::new();
        match walk(&self.root.join(folder), folder, &mut found) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            done => done.map(|()| found),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.root.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}

fn write_whole(path: &Path, folder: &Path, parts: &[Bytes]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            options.open(path)?
        }
        opened => opened?,
    };
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_data()
}

fn walk(path: &Path, name: &str, found: &mut Vec<(String, u64)>) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        // Names that are not text are none of ours.
        let Ok(last) = entry.file_name().into_string() else { continue };
        let inner = format!("{name}/{last}");
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&entry.path(), &inner, found)?;
        } else if kind.is_file() {
            match entry.metadata() {
                Ok(metadata) => found.push((inner, metadata.len())),
                // Somebody removed it, or gave it its name, meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_it_was_given() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = Folder::new(root.path().join("deep/inside"));
        folder
            .write("data/ab/abcd", &[Bytes::from_static(b"one"), Bytes::from_static(b"two")])
            .expect("written");
        assert_eq!(folder.read("data/ab/abcd").expect("read"), "onetwo");
        assert_eq!(folder.read_range("data/ab/abcd", 2..4).expect("a part"), "et");
        assert!(folder.read_range("data/ab/abcd", 4..9).is_err(), "a part that is not there");
        assert_eq!(folder.list("data").expect("listed"), [("data/ab/abcd".to_owned(), 6)]);
        assert_eq!(folder.list("keys").expect("no folder"), []);
        folder.remove("data/ab/abcd").expect("removed");
        folder.remove("data/ab/abcd").expect("removed before");
        assert_eq!(folder.read("data/ab/abcd").map_err(|error| error.kind()), Err(io::ErrorKind::NotFound));
    }
}
