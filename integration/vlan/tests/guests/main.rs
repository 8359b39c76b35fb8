//! Claims about VLANs, each shown by guests that boot a kernel with 802.1Q for it.
#![allow(clippy::unwrap_used, reason = "in a test's helpers a panic is the failure")]
#![allow(clippy::print_stdout, reason = "figures, for those who ask to see them")]

mod guest;
mod image;
mod trunk;

use guest::Guest;
use std::time::Duration;
use trunk::Trunk;

/// Three to thirty seconds when nothing else runs.
const PATIENCE: Duration = Duration::from_secs(120);

/// An emulated machine makes and removes eight thousand links.
const PATIENCE_FOR_THOUSANDS: Duration = Duration::from_secs(600);

/// Boots one guest for one claim.
fn check(claim: &str, longest: Duration) {
    let _turn = guest::turn();
    Guest::boot(claim, None).expect_within(longest);
}

#[test]
fn frames_leave_by_the_trunk_under_their_networks_tag_and_no_other() {
    check("tags", PATIENCE);
}

#[test]
fn a_guest_that_tags_its_frames_gets_nowhere() {
    check("hopping", PATIENCE);
}

#[test]
fn an_arriving_guest_is_announced_in_its_vlan() {
    check("arrival", PATIENCE);
}

#[test]
fn every_vlan_of_a_trunk_is_made_and_removed() {
    check("every", PATIENCE_FOR_THOUSANDS);
}

#[test]
fn two_hosts_on_one_trunk_share_each_vlan_and_nothing_leaves_untagged() {
    let _turn = guest::turn();
    let trunk = Trunk::new();
    let answering = Guest::boot("answering", Some(trunk.end(0)));
    let asking = Guest::boot("asking", Some(trunk.end(1)));
    asking.expect_within(PATIENCE);
    answering.expect_within(PATIENCE);
    // Addresses of virtual machines begin with these; those of the hosts' own cards do not.
    let theirs = |frame: &&Vec<u8>| frame[6..11] == [2, 0, 0, 0, 0];
    let frames = trunk.frames();
    let vids: Vec<u16> = frames.iter().filter(theirs).map(|frame| vid_of(frame).unwrap()).collect();
    for vid in [100, 200] {
        assert!(vids.iter().filter(|v| **v == vid).count() >= 4, "{vids:?}");
    }
    assert!(vids.iter().all(|vid| [100, 200].contains(vid)), "{vids:?}");
}

/// Of a frame as it is on a wire; the first VLAN is the one without a tag.
fn vid_of(frame: &[u8]) -> Option<u16> {
    let tag = u16::from_be_bytes([frame[14], frame[15]]);
    Some(if frame[12..14] == [0x81, 0] { tag & 0xfff } else { 1 })
}
