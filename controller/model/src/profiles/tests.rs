use super::*;
use proptest::prelude::*;
use streamer_api::Touch;

fn run(touched: impl IntoIterator<Item = (u32, u32)>) -> Run {
    let touched = touched.into_iter().map(|(piece, at_ms)| Touch { piece, at_ms }).collect();
    Run { whole: true, touched, ..Run::default() }
}

fn in_order(pieces: impl IntoIterator<Item = u32>) -> Run {
    run((0..).zip(pieces).map(|(at, piece)| (piece, at * 10)))
}

fn order(profile: &Profile) -> Vec<u32> {
    profile.entries.iter().map(|entry| entry.piece).collect()
}

#[test]
fn one_run_is_a_profile_in_its_order() {
    let [profile] = merge(&[], &[], &[in_order([5, 1, 9])]).try_into().unwrap();
    assert_eq!((profile.name.as_str(), profile.runs, order(&profile)), ("boot", 1, vec![5, 1, 9]));
}

#[test]
fn pieces_stand_at_their_mean_first_access_and_rare_ones_are_dropped() {
    let mut runs: Vec<Run> = (0..4).map(|_| run([(1, 100), (2, 200), (3, 300), (4, 400)])).collect();
    runs.push(run([(1, 100), (2, 900), (3, 300), (4, 400), (7, 1)]));
    let [profile] = merge(&[], &[], &runs).try_into().unwrap();
    assert_eq!(order(&profile), [1, 3, 2, 4], "piece 2 is at 340 ms in the mean, piece 7 in one run of five");
    assert_eq!((profile.runs, profile.entries[2].at_ms, profile.entries[2].runs), (5, 340, 5));
}

#[test]
fn runs_that_share_little_become_profiles_of_their_own() {
    let (boot, other) = (in_order(0..20), in_order(100..120));
    let profiles = merge(&[], &[], &[boot.clone(), other.clone(), boot]);
    let told: Vec<_> = profiles.iter().map(|profile| (profile.name.as_str(), profile.runs)).collect();
    assert_eq!(told, [("boot", 2), ("boot-2", 1)]);
    // The older kind is forgotten; the other keeps its name all the same.
    let [later] = merge(&[], &profiles, &[other]).try_into().unwrap();
    assert_eq!(later.name, "boot-2");
}

#[test]
fn a_published_profile_keeps_its_name_and_is_refined_by_the_fleet() {
    let entries = (0..10).map(|piece| ProfileEntry { piece, at_ms: piece * 10, runs: 1_000 }).collect();
    let published = Profile { name: "office".into(), runs: 1_000, entries };
    let alone = merge(std::slice::from_ref(&published), &[], &[]);
    assert_eq!((alone[0].runs, order(&alone[0])), (PUBLISHED_RUNS_MAX, order(&published)));
    let runs: Vec<Run> = (0..24).map(|_| in_order(0..12)).collect();
    let refined = merge(std::slice::from_ref(&published), &alone, &runs);
    assert_eq!((refined[0].name.as_str(), refined[0].entries.len()), ("office", 12));
    assert!(changed_much(&alone, &refined));
}

#[test]
fn a_maker_is_told_what_is_wrong_with_a_profile() {
    let entry = |piece| ProfileEntry { piece, at_ms: 0, runs: 1 };
    let profile = |name: &str, entries| Profile { name: name.into(), runs: 1, entries };
    let refused = |profiles: &[Profile]| check(profiles, 10).unwrap_err();
    assert_eq!(check(&[profile("boot", vec![entry(9)])], 10), Ok(()));
    assert!(refused(&[profile("Boot", vec![entry(1)])]).contains("a-z"));
    assert!(refused(&[profile("boot", vec![])]).contains("no piece"));
    assert!(refused(&[profile("boot", vec![entry(10)])]).contains("beyond the image's 10"));
    assert!(refused(&[profile("boot", vec![entry(1), entry(1)])]).contains("twice"));
    let twice = profile("boot", vec![entry(1)]);
    assert!(refused(&[twice.clone(), twice]).contains("two of this name"));
    let many = ProfileEntry { runs: 2, ..entry(1) };
    assert!(refused(&[profile("boot", vec![many])]).contains("more runs"));
    assert!(refused(&vec![profile("boot", vec![entry(1)]); PROFILES_MAX + 1]).contains("more than 16"));
}

fn any_run() -> impl Strategy<Value = Run> {
    // Kinds of guests at three places of the image, so that some runs are alike.
    (0..3_u32, prop::collection::btree_map(0..40_u32, 0..10_000_u32, 1..40))
        .prop_map(|(place, touched)| run(touched.into_iter().map(|(piece, at)| (place * 1_000 + piece, at))))
}

proptest! {
    #[test]
    fn whatever_guests_do_the_profiles_are_in_order_frequent_distinct_and_few(
        runs in prop::collection::vec(any_run(), 0..RUNS_KEPT),
    ) {
        let profiles = merge(&[], &[], &runs);
        prop_assert!(profiles.len() <= PROFILES_MAX);
        prop_assert!(check(&profiles, 4_000).is_ok(), "{:?}", check(&profiles, 4_000));
        prop_assert!(profiles.is_sorted_by_key(|profile| std::cmp::Reverse(profile.runs)));
        for profile in &profiles {
            prop_assert!(profile.entries.is_sorted_by_key(|entry| (entry.at_ms, entry.piece)));
            prop_assert!(profile.entries.iter().all(|entry| entry.runs * RARE_ONE_IN >= profile.runs));
        }
        let counted: u32 = profiles.iter().map(|profile| profile.runs).sum();
        prop_assert!(counted as usize <= runs.len());
    }

    #[test]
    fn merging_again_changes_nothing(runs in prop::collection::vec(any_run(), 1..RUNS_KEPT)) {
        let first = merge(&[], &[], &runs);
        let again = merge(&[], &first, &runs);
        prop_assert_eq!(&again, &first);
        prop_assert!(!changed_much(&first, &again));
    }
}
