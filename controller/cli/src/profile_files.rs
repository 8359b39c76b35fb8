//! Profiles that a maker publishes with a version: files of one profile, or of a list of them.

use crate::failure::Failure;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use streamer_api::{PROFILES_MAX, Profile};

/// Where they are beside `appliance.yaml`, if none are named.
const FOLDER: &str = "profiles";
/// Longest file taken.
const BYTES_MAX: u64 = 16 << 20;

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Content {
    Many(Vec<Profile>),
    One(Profile),
}

/// Reads the files named, else those in the folder's `profiles`, by name. What they say is checked by the controller,
/// which knows the image.
pub(crate) fn read(folder: &Path, named: &[PathBuf]) -> Result<Vec<Profile>, Failure> {
    let files = if named.is_empty() { beside(&folder.join(FOLDER))? } else { named.to_vec() };
    let mut profiles = Vec::new();
    for file in &files {
        profiles.extend(read_file(file)?);
    }
    if profiles.len() > PROFILES_MAX {
        return Err(refused(format!("there are {} profiles, more than {PROFILES_MAX}", profiles.len())));
    }
    Ok(profiles)
}

fn refused(message: String) -> Failure {
    Failure::refused(vec![message])
}

fn beside(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let fail = |error: std::io::Error| refused(format!("cannot read {}: {error}", folder.display()));
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(fail)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path) -> Result<Vec<Profile>, Failure> {
    let name = path.display();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| refused(format!("cannot read {name}: {error}")))?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(refused(format!("{name} is larger than 16 MiB: it is no profile")));
    }
    match serde_json::from_slice(&bytes) {
        Ok(Content::One(profile)) => Ok(vec![profile]),
        Ok(Content::Many(profiles)) => Ok(profiles),
        Err(_) => Err(refused(format!("{name} holds no profile: {}", why(&bytes)))),
    }
}

/// What is wrong, with its place: an untagged enum cannot say it.
fn why(bytes: &[u8]) -> String {
    let one = serde_json::from_slice::<Profile>(bytes).map(drop);
    let list = bytes.trim_ascii_start().first() == Some(&b'[');
    let error = if list { serde_json::from_slice::<Vec<Profile>>(bytes).map(drop) } else { one };
    error.map_or_else(|error| error.to_string(), |()| "it is not JSON of one or of a list".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: &str = r#"{"name": "boot", "runs": 3, "entries": [{"piece": 4, "at_ms": 10, "runs": 3}]}"#;

    fn names(profiles: &[Profile]) -> Vec<&str> {
        profiles.iter().map(|profile| profile.name.as_str()).collect()
    }

    #[test]
    fn files_named_are_taken_else_those_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path(), &[]).unwrap(), []);
        std::fs::create_dir(folder.path().join(FOLDER)).unwrap();
        std::fs::write(folder.path().join("profiles/b.json"), BOOT).unwrap();
        std::fs::write(folder.path().join("profiles/a.json"), format!("[{}]", BOOT.replace("boot", "login")))
            .unwrap();
        std::fs::write(folder.path().join("profiles/README.md"), "no profile").unwrap();
        assert_eq!(names(&read(folder.path(), &[]).unwrap()), ["login", "boot"]);
        let other = folder.path().join("other");
        std::fs::write(&other, BOOT).unwrap();
        assert_eq!(names(&read(folder.path(), &[other]).unwrap()), ["boot"]);
    }

    #[test]
    fn what_is_no_profile_is_refused_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.json");
        for (text, part) in [("{", "EOF"), ("[{}]", "missing field `name`"), ("7", "expected struct Profile")]
        {
            std::fs::write(&file, text).unwrap();
            let message = read(folder.path(), std::slice::from_ref(&file)).unwrap_err().messages.join(" ");
            assert!(message.contains("x.json holds no profile") && message.contains(part), "{message}");
        }
        assert!(read(folder.path(), &["/nonexistent".into()]).is_err());
    }
}
