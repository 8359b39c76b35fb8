//! A disk that is full when a test wants it to be: a tmpfs in a mount namespace of its own.
//!
//! The namespace belongs to a process that waits for this one; its files are reached through `/proc`, from here and from
//! any daemon a test starts. When this process ends, however it ends, the other one does, and the mount with it.

use anyhow::{Context as _, ensure};
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const SCRIPT: &str = r#"mount -t tmpfs -o "size=$1" collective-test "$2" && echo up && exec cat"#;

/// The disk; gone when dropped. Needs root.
#[derive(Debug)]
pub struct SmallDisk {
    holder: Child,
    path: PathBuf,
    /// Where it is mounted, in its own namespace only.
    _mount_point: tempfile::TempDir,
}

impl SmallDisk {
    /// A disk of so many bytes, a multiple of 4096.
    ///
    /// # Errors
    /// We are not root, or may not mount.
    pub fn new(bytes: u64) -> anyhow::Result<Self> {
        let mount_point = tempfile::tempdir()?;
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh", &bytes.to_string()])
            .arg(mount_point.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run unshare")?;
        let mut line = String::new();
        let stdout = holder.stdout.take().context("no output")?;
        let relative = mount_point.path().strip_prefix("/")?;
        let path = Path::new("/proc").join(holder.id().to_string()).join("root").join(relative);
        let disk = Self { holder, path, _mount_point: mount_point };
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line == "up\n", "no small disk: a test that mounts one needs root");
        Ok(disk)
    }

    /// Its folder, for every process of this machine that may look into ours.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves no byte free.
    ///
    /// # Errors
    /// Anything but that it is full.
    pub fn fill(&self) -> io::Result<()> {
        let mut file = File::options().create(true).append(true).open(self.filler())?;
        loop {
            match file.write_all(&[1; 4096]) {
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
                other => other?,
            }
        }
    }

    /// Takes back what [`Self::fill`] took.
    ///
    /// # Errors
    /// It was not filled.
    pub fn free(&self) -> io::Result<()> {
        fs::remove_file(self.filler())
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // It ends by itself if this fails: its input ends with us.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_full_when_it_is_filled_and_nobody_elses() {
        let disk = SmallDisk::new(64 << 10).unwrap();
        let file = disk.path().join("a");
        disk.fill().unwrap();
        assert_eq!(fs::write(&file, "x").unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.free().unwrap();
        fs::write(&file, "x").unwrap();
        assert_eq!(fs::read_dir(disk._mount_point.path()).unwrap().count(), 0, "mounted there only");
    }
}
