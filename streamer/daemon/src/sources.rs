//! What an image's source may say.

use crate::problem::Refusal;
use streamer_api::{ImageSource, PROFILES_MAX, Profile, Sources};
use streamer_plan::Pieces;
use streamer_volume::Privacy;

/// Longest URL of a web seed, in bytes.
const URL_BYTES_MAX: usize = 2048;

/// Checks what metainfo and manifest do not say.
pub(crate) fn check(source: &ImageSource, pieces: u32, privacy: Privacy) -> Result<(), Refusal> {
    let wrong = |what: String| Err(Refusal::Source(what));
    match &source.web_seed {
        None if source.sources == Sources::WebSeed => {
            return wrong("the web seed alone is to be asked, but none is named".to_owned());
        }
        None => {}
        Some(url) if url.len() > URL_BYTES_MAX => {
            return wrong(format!("the web seed's URL is longer than {URL_BYTES_MAX} bytes"));
        }
        Some(url) if url.starts_with("https://") => {}
        Some(url) if url.starts_with("http://") && privacy == Privacy::Any => {}
        Some(url) if url.starts_with("http://") => {
            return wrong(format!("the web seed {url} is not https, and peers speak TLS here"));
        }
        Some(url) => return wrong(format!("the web seed {url:?} is no https URL")),
    }
    check_profiles(&source.profiles, pieces)
}

/// Bad profiles are refused whole: half a profile would be a wrong one.
pub(crate) fn check_profiles(profiles: &[Profile], pieces: u32) -> Result<(), Refusal> {
    let wrong = |what: String| Err(Refusal::Profiles(what));
    if profiles.len() > PROFILES_MAX {
        return wrong(format!("{} of them, {PROFILES_MAX} at most", profiles.len()));
    }
    for (index, profile) in profiles.iter().enumerate() {
        let name = &profile.name;
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || name.len() > 63 || !name.bytes().all(plain) {
            return wrong(format!("{name:?} is no name: 1 to 63 lower-case letters, digits and -"));
        }
        if profiles[..index].iter().any(|other| other.name == *name) {
            return wrong(format!("two are called {name:?}"));
        }
        let mut seen = Pieces::none(pieces);
        for entry in &profile.entries {
            if entry.piece >= pieces {
                return wrong(format!("{name:?} names piece {} of {pieces}", entry.piece));
            }
            if !seen.insert(entry.piece) {
                return wrong(format!("{name:?} names piece {} twice", entry.piece));
            }
        }
    }
    Ok(())
}
