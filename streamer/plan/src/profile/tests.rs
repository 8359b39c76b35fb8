use super::*;
use proptest::prelude::*;

const PIECES: u32 = 400;

fn profile(name: &str, pieces: impl IntoIterator<Item = u32>) -> Profile {
    Profile::new(name.to_owned(), pieces, PIECES)
}

fn follow(matcher: &mut Matcher, pieces: impl IntoIterator<Item = u32>, profiles: &[Profile]) {
    for piece in pieces {
        matcher.touch(piece, profiles);
    }
}

#[test]
fn a_guest_that_has_read_nothing_is_served_by_the_first_profile() {
    let profiles = [profile("boot", 0..100), profile("other", 100..200)];
    let matcher = Matcher::new(&profiles);
    assert_eq!(matcher.chosen(), Some(0));
    assert_eq!(matcher.next(&profiles), (0..100).collect::<Vec<_>>());
    assert_eq!(Matcher::new(&[]).chosen(), None);
}

#[test]
fn a_guest_is_switched_to_the_profile_it_follows() {
    let profiles = [profile("boot", 0..100), profile("other", 50..200)];
    let mut matcher = Matcher::new(&profiles);
    follow(&mut matcher, 150..150 + 8, &profiles);
    assert_eq!(matcher.chosen(), Some(1));
}

#[test]
fn two_profiles_that_fit_alike_are_not_switched_between() {
    let profiles = [profile("boot", 0..100), profile("other", 0..101)];
    let mut matcher = Matcher::new(&profiles);
    follow(&mut matcher, (0..101).rev(), &profiles);
    assert_eq!(matcher.chosen(), Some(0));
}

#[test]
fn a_profile_that_fits_nobody_is_dropped_after_eight_touches() {
    let profiles = [profile("wrong", 200..400)];
    let mut matcher = Matcher::new(&profiles);
    follow(&mut matcher, 0..7, &profiles);
    assert_eq!(matcher.chosen(), Some(0));
    follow(&mut matcher, 7..8, &profiles);
    assert_eq!(matcher.chosen(), None);
    assert!(matcher.next(&profiles).is_empty());
}

#[test]
fn a_guest_that_comes_back_to_a_profile_is_served_by_it_again() {
    let profiles = [profile("late", 200..400)];
    let mut matcher = Matcher::new(&profiles);
    follow(&mut matcher, 0..40, &profiles);
    assert_eq!(matcher.chosen(), None);
    follow(&mut matcher, 200..240, &profiles);
    assert_eq!(matcher.chosen(), Some(0));
}

#[test]
fn what_a_guest_has_passed_comes_last() {
    let profiles = [profile("boot", 0..100)];
    let mut matcher = Matcher::new(&profiles);
    follow(&mut matcher, 40..60, &profiles);
    let next = matcher.next(&profiles);
    assert!(next[0] >= 40, "{next:?}");
    assert_eq!(next.len(), 100);
    assert_eq!(next.last().copied(), next[0].checked_sub(1));
}

#[test]
fn other_profiles_are_judged_by_what_was_touched_before_they_came() {
    let old = [profile("wrong", 300..400)];
    let mut matcher = Matcher::new(&old);
    follow(&mut matcher, 0..20, &old);
    let new = [profile("wrong", 300..400), profile("right", 0..100)];
    matcher.replace(&new);
    assert_eq!(matcher.chosen(), Some(1));
    matcher.replace(&[]);
    assert_eq!(matcher.chosen(), None);
}

#[test]
fn a_guests_clock_stands_while_it_waits() {
    let ms = Duration::from_millis;
    let mut clock = GuestClock::default();
    assert_eq!(clock.read(ms(10)), ms(10));
    clock.wait(ms(10));
    clock.wait(ms(15));
    assert_eq!(clock.read(ms(20)), ms(10));
    clock.resume(ms(20));
    assert_eq!(clock.read(ms(25)), ms(10));
    clock.resume(ms(30));
    assert_eq!(clock.read(ms(35)), ms(15));
}

#[test]
fn a_piece_is_recorded_at_its_first_touch_only() {
    let mut recorder = Recorder::new(4);
    assert!(recorder.touch(2, Duration::from_millis(5)));
    assert!(!recorder.touch(2, Duration::from_millis(9)));
    assert!(recorder.has(2) && !recorder.has(3));
    assert_eq!(recorder.touched(), [(2, Duration::from_millis(5))]);
}

#[test]
fn guests_are_served_in_turns() {
    assert_eq!(interleave(&[vec![1, 2, 3], vec![9, 2, 7, 8]], 10), [1, 9, 2, 3, 7, 8]);
    assert!(interleave(&[vec![99]], 10).is_empty());
}

proptest! {
    #[test]
    fn the_next_pieces_are_the_profiles_own_each_once(
        order in prop::collection::vec(0..PIECES * 2, 0..300),
        touches in prop::collection::vec(0..PIECES, 0..200),
    ) {
        let profiles = [profile("boot", order)];
        let mut matcher = Matcher::new(&profiles);
        follow(&mut matcher, touches, &profiles);
        let mut next = matcher.next(&profiles);
        let mut whole = if matcher.chosen().is_some() { profiles[0].order().to_vec() } else { Vec::new() };
        next.sort_unstable();
        whole.sort_unstable();
        prop_assert!(whole.windows(2).all(|pair| pair[0] != pair[1]));
        prop_assert_eq!(next, whole);
    }

    #[test]
    fn a_guests_time_never_runs_faster_than_the_clock_nor_backwards(
        steps in prop::collection::vec((0u64..50, prop::bool::ANY), 1..100),
    ) {
        let (mut clock, mut now, mut waiting, mut last) = (GuestClock::default(), 0, 0u32, Duration::ZERO);
        for (step, wait) in steps {
            now += step;
            let at = Duration::from_millis(now);
            if wait {
                clock.wait(at);
                waiting += 1;
            } else if waiting > 0 {
                clock.resume(at);
                waiting -= 1;
            }
            let read = clock.read(at);
            prop_assert!(read >= last && read <= at);
            last = read;
        }
    }
}
