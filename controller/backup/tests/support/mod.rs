//! A repository in a folder, and a `restic` beside us.

use controller_backup::{
    Backup, Content, Control, Credentials, Location, Part, Place, Repository, SourceFile,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const PASSWORD: &str = "a long walk along the shore";
/// Longest that anything here is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Bench {
    pub folder: tempfile::TempDir,
    pub repository: PathBuf,
    place: Place,
}

impl Bench {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repository = folder.path().join("repository");
        Self::at(folder, repository)
    }

    /// With the repository elsewhere.
    pub fn at(folder: tempfile::TempDir, repository: PathBuf) -> Self {
        let place = place(&repository);
        Self { folder, repository, place }
    }

    /// Another one of the same repository: a process that was just started.
    pub fn place(&self) -> Place {
        place(&self.repository)
    }

    pub fn create(&self) -> Repository {
        Repository::create(&self.place, &Arc::default()).unwrap()
    }

    pub fn open(&self) -> Repository {
        Repository::open(&self.place, &Arc::default()).unwrap()
    }

    pub fn open_with(&self, control: &Arc<Control>) -> Repository {
        Repository::open(&self.place, control).unwrap()
    }

    /// A file that keeps its time if it is there with these bytes already.
    pub fn file(&self, name: &str, bytes: &[u8]) -> SourceFile {
        let path = self.folder.path().join("files").join(name);
        if fs::read(&path).ok().as_deref() != Some(bytes) {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
        }
        SourceFile { name: name.to_owned(), content: Content::File(path) }
    }

    pub fn back_up(&self, checkpoint: &str, files: &[(&str, Vec<u8>)]) -> Backup {
        let files = files.iter().map(|(name, bytes)| self.file(name, bytes)).collect();
        self.open().back_up(&part(checkpoint), files).unwrap()
    }

    pub fn locks(&self) -> usize {
        fs::read_dir(self.repository.join("locks")).map_or(0, Iterator::count)
    }

    /// Of whole packs.
    pub fn stored_bytes(&self) -> u64 {
        fn walk(path: &Path) -> u64 {
            fs::read_dir(path)
                .unwrap()
                .map(|entry| {
                    let entry = entry.unwrap();
                    // A half one may get its name while we look.
                    let Ok(metadata) = entry.metadata() else { return 0 };
                    match entry.file_name().len() {
                        _ if metadata.is_dir() => walk(&entry.path()),
                        64 => metadata.len(),
                        _ => 0,
                    }
                })
                .sum()
        }
        walk(&self.repository.join("data"))
    }

    pub fn restic_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("restic");
        command
            .args(["--no-cache", "--quiet"])
            .args(arguments)
            .env("RESTIC_PASSWORD", PASSWORD)
            .env("RESTIC_REPOSITORY", &self.repository)
            .env("HOME", self.folder.path());
        if arguments.contains(&"check") {
            // It says that all is well only if it may speak.
            command = Command::new("restic");
            command
                .args(["--no-cache"])
                .args(arguments)
                .env("RESTIC_PASSWORD", PASSWORD)
                .env("RESTIC_REPOSITORY", &self.repository)
                .env("HOME", self.folder.path());
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.restic_command(arguments)
            .output()
            .expect("Debian's restic is installed: packaging/install-dependencies.sh")
    }

    pub fn restic(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "restic {arguments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn restic_fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "restic {arguments:?} went well");
        String::from_utf8(output.stderr).unwrap()
    }
}

pub fn place(repository: &Path) -> Place {
    Place::new(Location::Folder(repository.to_owned()), Credentials::password(PASSWORD), None)
}

pub fn part(checkpoint: &str) -> Part {
    Part {
        deployment: "desk-alice".into(),
        member: "desktop".into(),
        checkpoint: checkpoint.into(),
        host: "host-a".into(),
    }
}

/// Bytes that nothing compresses, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    // xorshift64*: good enough to look like no other seed's.
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "still no {what}");
        std::thread::yield_now();
    }
}
