//! The configuration disk: a small FAT file system with label CIDATA, as cloud-init's NoCloud source expects it.

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use std::collections::BTreeMap;
use std::io::{Cursor, Write as _};

/// What the guest finds it by, padded as FAT wants it.
const LABEL: [u8; 11] = *b"CIDATA     ";
/// Holds the 64 KiB the contract allows with every file's rounding, and is a size every FAT driver takes.
const SIZE_BYTES: usize = 1 << 20;
/// Bytes of all files together.
pub(crate) const CONTENT_BYTES_MAX: usize = 64 << 10;

/// Why there is no configuration disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigDiskError {
    /// Too much of it.
    #[error("the configuration has {0} bytes, {CONTENT_BYTES_MAX} are allowed")]
    TooLarge(usize),
    /// A name that is no plain file name.
    #[error("{0:?} is not the name of a configuration file")]
    Name(String),
    /// The file system cannot be made.
    #[error("cannot make the configuration disk")]
    Format(#[source] std::io::Error),
}

/// The disk's bytes: the same files give the same bytes.
pub(crate) fn config_disk(files: &BTreeMap<String, String>) -> Result<Vec<u8>, ConfigDiskError> {
    let total = files.values().map(String::len).sum::<usize>();
    if total > CONTENT_BYTES_MAX {
        return Err(ConfigDiskError::TooLarge(total));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if let Some(name) =
        files.keys().find(|name| name.is_empty() || name.len() > 64 || !name.chars().all(plain))
    {
        return Err(ConfigDiskError::Name(name.clone()));
    }
    let mut disk = Cursor::new(vec![0; SIZE_BYTES]);
    let options = FormatVolumeOptions::new().volume_label(LABEL).volume_id(0x0C01_1EC7);
    fatfs::format_volume(&mut disk, options).map_err(ConfigDiskError::Format)?;
    let system = FileSystem::new(&mut disk, FsOptions::new()).map_err(ConfigDiskError::Format)?;
    for (name, text) in files {
        let mut file = system.root_dir().create_file(name).map_err(ConfigDiskError::Format)?;
        file.write_all(text.as_bytes()).map_err(ConfigDiskError::Format)?;
        file.flush().map_err(ConfigDiskError::Format)?;
    }
    system.unmount().map_err(ConfigDiskError::Format)?;
    Ok(disk.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn files() -> BTreeMap<String, String> {
        [
            ("meta-data", "instance-id: 1\n"),
            ("instance.env", "INSTANCE=\"office/gateway\"\n"),
            ("network-config", ""),
        ]
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .into()
    }

    #[test]
    fn other_tools_read_label_and_files_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.img");
        std::fs::write(&path, config_disk(&files()).unwrap()).unwrap();
        let label =
            Command::new("blkid").args(["-p", "-s", "LABEL", "-o", "value"]).arg(&path).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&label.stdout).trim(), "CIDATA");
        for (name, text) in files() {
            let read = Command::new("mtype").arg("-i").arg(&path).arg(format!("::{name}")).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&read.stdout), text, "{name}");
        }
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        assert_eq!(config_disk(&files()).unwrap(), config_disk(&files()).unwrap());
    }

    #[test]
    fn the_limit_is_kept_at_its_edge() {
        let with = |bytes: usize| config_disk(&[("user-data".to_owned(), "x".repeat(bytes))].into());
        assert!(with(CONTENT_BYTES_MAX).is_ok());
        assert!(matches!(with(CONTENT_BYTES_MAX + 1), Err(ConfigDiskError::TooLarge(_))));
    }

    #[test]
    fn a_name_that_leaves_the_disk_is_refused() {
        let error = config_disk(&[("../x".to_owned(), String::new())].into()).unwrap_err();
        assert_eq!(error.to_string(), "\"../x\" is not the name of a configuration file");
    }
}
