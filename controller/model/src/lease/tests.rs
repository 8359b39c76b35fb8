use super::*;
use std::collections::BTreeSet;

fn host() -> HostName {
    "h1".parse().unwrap()
}

#[test]
fn a_host_is_lost_when_it_was_not_heard_for_the_lease_and_the_margin() {
    let mut book = Book::default();
    assert!(!book.withhold(&host(), 5_000, 0), "counted from the first look");
    assert!(book.grant(&host(), 5_000, 5_000, 1_000));
    let over_ms = 1_000 + 5_000 + margin_ms(5_000);
    assert_eq!(book.over_ms(&host(), 5_000, 2_000), over_ms);
    assert!(!book.withhold(&host(), 5_000, over_ms - 1));
    assert!(book.withhold(&host(), 5_000, over_ms));
    assert!(over_ms - 1_000 <= 6_100, "a lease of five seconds is noticed to have run out within 6.1 s");
}

#[test]
fn a_host_whose_instances_are_being_given_away_gets_no_lease_before_it_was_told() {
    let mut book = Book::default();
    assert!(book.grant(&host(), 5_000, 5_000, 0));
    assert!(book.withhold(&host(), 5_000, 60_000));
    assert!(!book.grant(&host(), 5_000, 5_000, 60_001), "it is back, and its document is the old one");
    book.release();
    assert!(book.grant(&host(), 5_000, 5_000, 60_002));
}

#[test]
fn a_lease_that_became_shorter_is_waited_for_as_long_as_it_was_granted() {
    let mut book = Book::default();
    assert!(book.grant(&host(), 600_000, 600_000, 0));
    assert!(book.grant(&host(), 5_000, 600_000, 1_000));
    assert!(!book.withhold(&host(), 600_000, 600_000));
    assert_eq!(book.longest_ms(&host(), 600_000), Some(600_000));
    assert!(book.withhold(&host(), 600_000, 600_000 + margin_ms(600_000)));
    assert_eq!(book.longest_ms(&host(), 700_000), None);
}

#[test]
fn nothing_longer_is_granted_than_the_store_says() {
    let mut book = Book::default();
    assert!(!book.grant(&host(), 600_000, 5_000, 0));
    assert!(book.grant(&host(), 600_000, 600_000, 1));
}

#[test]
fn a_controller_that_has_just_started_counts_what_the_one_before_promised_from_its_start() {
    let mut book = Book::default();
    assert_eq!(book.over_ms(&host(), 30_000, 7), 7 + 30_000 + margin_ms(30_000));
    assert!(book.grant(&host(), 5_000, 30_000, 8));
    assert!(
        !book.withhold(&host(), 30_000, 30_000),
        "the earlier one may have granted the longer lease just before"
    );
}

fn document(leased: bool) -> HostDesired {
    serde_json::from_value(serde_json::json!({
        "generation": 1, "networks": [], "images": [], "volumes": [], "lease_ms": leased.then_some(5_000),
        "instances": [{"id": "office/gateway", "incarnation": "i", "vcpus": 1, "memory": 1,
            "image": format!("sha256:{}", "ab".repeat(32)), "image_size_bytes": 1, "ports": [], "volumes": [],
            "config": {}, "leased": leased}],
    }))
    .unwrap()
}

#[test]
fn an_instance_that_ran_without_a_lease_is_loose_until_its_host_says_that_it_has_taken_it() {
    let id: BTreeSet<InstanceId> = ["office/gateway".parse().unwrap()].into();
    let new = published(None, None, &document(true));
    assert_eq!((new.longest_ms, new.loose.len()), (5_000, 0), "leased from its first document on");
    let free = document(false);
    let later = published(None, Some(&free), &document(true));
    assert_eq!(later.loose, id);
    let still = published(Some(&later), Some(&document(true)), &document(true));
    assert_eq!(still.loose, id, "another document is no answer");
    assert_eq!(published(Some(&later), Some(&document(true)), &free).loose, BTreeSet::new());
    let again = published(Some(&later), Some(&free), &document(true));
    assert_eq!(again.loose, id, "it may have missed both changes");
}
