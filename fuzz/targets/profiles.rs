//! Profiles of an image, as the streamer takes them from the controller, and a guest that is matched against them. The
//! input is the profiles' JSON, a zero byte, and the pieces the guest touches, two bytes each.
#![no_main]

// The streamer's daemon is a program without a library: this part of it is taken as it stands.
#[allow(dead_code)]
#[path = "../../streamer/daemon/src/sources.rs"]
mod sources;
mod problem {
    /// As the daemon's: why it refuses.
    #[allow(dead_code)]
    #[derive(Debug)]
    pub(crate) enum Refusal {
        Source(String),
        Profiles(String),
    }
}

use libfuzzer_sys::fuzz_target;
use streamer_api::PROFILES_MAX;
use streamer_plan::{Matcher, Profile, interleave};

/// Of the image.
const PIECES: u32 = 64;

fn no_piece_twice(mut pieces: Vec<u32>) {
    assert!(pieces.iter().all(|piece| *piece < PIECES));
    pieces.sort_unstable();
    assert!(pieces.windows(2).all(|two| two[0] != two[1]));
}

fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let Ok(said) = serde_json::from_slice::<Vec<streamer_api::Profile>>(&bytes[..end]) else { return };
    let taken = sources::check_profiles(&said, PIECES);
    let order = |profile: &streamer_api::Profile| -> Vec<u32> {
        profile.entries.iter().map(|entry| entry.piece).collect()
    };
    let profiles: Vec<Profile> =
        said.iter().map(|profile| Profile::new(profile.name.clone(), order(profile), PIECES)).collect();
    for (said, profile) in said.iter().zip(&profiles) {
        // What is refused is mended here all the same; what is taken needs no mending.
        assert!(taken.is_err() || order(said) == profile.order());
        no_piece_twice(profile.order().to_vec());
    }
    assert!(taken.is_err() || profiles.len() <= PROFILES_MAX);
    let mut guest = Matcher::new(&profiles);
    for touch in bytes.get(end + 1..).unwrap_or_default().as_chunks::<2>().0 {
        let before = guest.next(&profiles);
        if !guest.touch(u32::from(u16::from_be_bytes(*touch)), &profiles) {
            assert_eq!(guest.next(&profiles), before, "it said that nothing changed");
        }
        assert!(guest.chosen().is_none_or(|chosen| chosen < profiles.len()));
        assert!(profiles.iter().all(|profile| (0.0..=1.0).contains(&guest.score(profile))));
        no_piece_twice(guest.next(&profiles));
    }
    let fewer = &profiles[profiles.len() / 2..];
    no_piece_twice(interleave(&[guest.next(&profiles), Matcher::new(fewer).next(fewer)], PIECES));
    guest.replace(fewer);
    no_piece_twice(guest.next(fewer));
});
