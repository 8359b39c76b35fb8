mod world;

use super::PeerKind::{Far, Near, Origin, WebSeed};
use super::*;
use std::collections::BTreeSet;

const MS: Duration = Duration::from_millis(1);

fn geometry(pieces: u32) -> Geometry {
    Geometry::new(u64::from(pieces) * 65536, 65536).unwrap()
}

fn all(pieces: u32) -> Pieces {
    let mut set = Pieces::none(pieces);
    (0..pieces).for_each(|piece| {
        set.insert(piece);
    });
    set
}

fn join(scheduler: &mut Scheduler, peer: PeerKey, kind: PeerKind, pieces: Pieces) {
    join_as(scheduler, peer, PeerFacts { kind, identity: None }, pieces);
}

fn join_as(scheduler: &mut Scheduler, peer: PeerKey, facts: PeerFacts, pieces: Pieces) {
    scheduler.peer_joined(peer, facts, Duration::ZERO);
    scheduler.peer_choking(peer, false);
    scheduler.peer_pieces(peer, pieces);
}

fn fresh(pieces: u32) -> Scheduler {
    Scheduler::new(geometry(pieces), Pieces::none(pieces), 1, 7)
}

fn asked(actions: &[Action]) -> BTreeSet<(PeerKey, u32)> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Request { peer, block, .. } => Some((*peer, block.piece)),
            Action::Cancel { .. } | Action::Want { .. } => None,
        })
        .collect()
}

fn deliver(scheduler: &mut Scheduler, actions: &[Action], now: Duration) {
    for action in actions {
        let Action::Request { peer, block, .. } = action else { continue };
        if scheduler.received(*peer, *block, now) == Received::Complete {
            scheduler.verified(block.piece, Outcome::Held);
        }
    }
}

#[test]
fn only_what_is_read_is_asked_for() {
    let mut scheduler = fresh(10);
    join(&mut scheduler, 1, Origin, all(10));
    assert!(scheduler.plan(MS).is_empty());
    scheduler.demand(3..5, MS);
    let actions = scheduler.plan(MS);
    assert_eq!(asked(&actions), BTreeSet::from([(1, 3), (1, 4)]));
    deliver(&mut scheduler, &actions, 2 * MS);
    assert!(scheduler.plan(2 * MS).is_empty());
    assert_eq!(scheduler.held().iter().collect::<Vec<_>>(), [3, 4]);
}

#[test]
fn another_host_is_asked_before_the_origin() {
    let mut scheduler = fresh(4);
    join(&mut scheduler, 1, Origin, all(4));
    join(&mut scheduler, 2, Near, all(4));
    scheduler.demand(0..1, MS);
    assert_eq!(asked(&scheduler.plan(MS)), BTreeSet::from([(2, 0)]));
}

#[test]
fn the_origin_is_asked_too_when_a_host_is_silent() {
    let mut scheduler = fresh(4);
    join(&mut scheduler, 1, Origin, all(4));
    join(&mut scheduler, 2, Near, all(4));
    scheduler.demand(0..1, MS);
    scheduler.plan(MS);
    let deadline = scheduler.deadline(MS).unwrap();
    assert_eq!(deadline, MS + PATIENCE);
    assert!(asked(&scheduler.plan(deadline - MS)).is_empty());
    let second = scheduler.plan(deadline);
    assert_eq!(asked(&second), BTreeSet::from([(1, 0)]));
    deliver(&mut scheduler, &second, deadline + MS);
    let cancels = scheduler.plan(deadline + MS);
    assert_eq!(cancels.len(), 4, "the silent host's requests are taken back: {cancels:?}");
    assert!(cancels.iter().all(|action| matches!(action, Action::Cancel { peer: 2, .. })));
}

#[test]
fn urgent_pieces_go_round_robin() {
    let mut scheduler = fresh(8);
    for peer in 1..=4 {
        join(&mut scheduler, peer, Near, all(8));
    }
    scheduler.demand(0..4, MS);
    let peers: BTreeSet<PeerKey> = asked(&scheduler.plan(MS)).into_iter().map(|(peer, _)| peer).collect();
    assert_eq!(peers.len(), 4);
}

#[test]
fn a_sequential_reader_gets_at_most_two_pieces_ahead() {
    let mut scheduler = fresh(64);
    join(&mut scheduler, 1, Origin, all(64));
    let mut now = MS;
    let mut read_until = 0;
    for piece in 0..40 {
        if !scheduler.held().contains(piece) {
            scheduler.demand(piece..piece + 1, now);
        }
        let actions = scheduler.plan(now);
        deliver(&mut scheduler, &actions, now);
        now += MS;
        read_until = piece;
        let beyond = scheduler.held().iter().filter(|held| *held > piece).count();
        assert!(beyond <= 2, "{beyond} pieces beyond {piece}");
    }
    assert!(scheduler.held().count() > read_until);
}

#[test]
fn a_random_reader_gets_nothing_ahead() {
    let mut scheduler = fresh(64);
    join(&mut scheduler, 1, Origin, all(64));
    for piece in [3, 40, 12, 55, 7] {
        scheduler.demand(piece..piece + 1, MS);
        let actions = scheduler.plan(MS);
        deliver(&mut scheduler, &actions, MS);
    }
    assert_eq!(scheduler.held().count(), 5);
}

#[test]
fn prefetch_takes_the_rarest_and_stops_while_a_read_waits() {
    let mut scheduler = fresh(32);
    join(&mut scheduler, 1, Origin, all(32));
    let mut most = all(32);
    most.remove(9);
    join(&mut scheduler, 2, Near, most);
    scheduler.set_background(Background::Full);
    let actions = scheduler.plan(MS);
    assert!(asked(&actions).contains(&(1, 9)), "the rarest piece is asked of the only one that has it");
    assert!(
        asked(&actions).iter().all(|(peer, piece)| *peer == 2 || *piece == 9),
        "origin last: {actions:?}"
    );

    let mut waiting = fresh(32);
    join(&mut waiting, 1, Origin, all(32));
    waiting.set_background(Background::Full);
    waiting.demand(5..6, MS);
    assert_eq!(asked(&waiting.plan(MS)), BTreeSet::from([(1, 5)]));
}

#[test]
fn a_refused_piece_is_asked_again() {
    let mut scheduler = fresh(4);
    join(&mut scheduler, 1, Near, all(4));
    scheduler.demand(0..1, MS);
    for action in scheduler.plan(MS) {
        let Action::Request { peer, block, .. } = action else { continue };
        scheduler.received(peer, block, MS);
    }
    assert!(scheduler.plan(MS).is_empty(), "a piece being verified is not asked again");
    scheduler.verified(0, Outcome::Refused);
    scheduler.peer_left(1);
    join(&mut scheduler, 2, Near, all(4));
    assert_eq!(asked(&scheduler.plan(MS)), BTreeSet::from([(2, 0)]));
}

fn asked_first(actions: &[Action], urgent_wanted: bool) -> BTreeSet<u32> {
    let matches = |action: &Action| match action {
        Action::Request { block, urgent, .. } if *urgent == urgent_wanted => Some(block.piece),
        _ => None,
    };
    actions.iter().filter_map(matches).collect()
}

#[test]
fn a_piece_on_its_way_is_watched_as_soon_as_a_guest_reads_it() {
    let mut scheduler = fresh(4);
    join(&mut scheduler, 1, Origin, all(4));
    scheduler.set_profile(vec![2]);
    assert_eq!(asked_first(&scheduler.plan(MS), false), BTreeSet::from([2]));
    scheduler.demand(2..3, 2 * MS);
    assert!(scheduler.plan(2 * MS).is_empty(), "it is not asked for again");
    let deadline = scheduler.deadline(2 * MS).unwrap();
    assert!(deadline <= 2 * MS + PATIENCE, "but its peer has no more time than others: {deadline:?}");
}

#[test]
fn hosts_of_a_site_fetch_each_piece_across_the_wan_once() {
    let identities = [11, 22, 33];
    let mut owners: Vec<BTreeSet<u32>> = Vec::new();
    for us in identities {
        let mut scheduler = Scheduler::new(geometry(24), Pieces::none(24), us, 7);
        join(&mut scheduler, 0, Origin, all(24));
        for near in identities.into_iter().filter(|identity| *identity != us) {
            let facts = PeerFacts { kind: Near, identity: Some(near) };
            join_as(&mut scheduler, near, facts, Pieces::none(24));
        }
        scheduler.set_profile((0..24).collect());
        let mut fetched = BTreeSet::new();
        for _ in 0..100 {
            let actions = scheduler.plan(MS);
            fetched.extend(asked(&actions).into_iter().map(|(_, piece)| piece));
            deliver(&mut scheduler, &actions, MS);
        }
        owners.push(fetched);
    }
    let together: BTreeSet<u32> = owners.iter().flatten().copied().collect();
    assert_eq!(together, (0..24).collect());
    assert_eq!(owners.iter().map(BTreeSet::len).sum::<usize>(), 24, "{owners:?}");
    assert!(owners.iter().all(|pieces| pieces.len() >= 3), "the work is shared: {owners:?}");
}

#[test]
fn what_the_host_that_should_fetch_does_not_bring_is_fetched_in_the_end() {
    let mut scheduler = fresh(16);
    join(&mut scheduler, 0, Origin, all(16));
    for near in 1..=3 {
        join_as(&mut scheduler, near, PeerFacts { kind: Near, identity: Some(near * 77) }, Pieces::none(16));
    }
    scheduler.set_profile((0..16).collect());
    let mut now = MS;
    for _ in 0..200 {
        let actions = scheduler.plan(now);
        deliver(&mut scheduler, &actions, now);
        now += 200 * MS;
    }
    assert!(scheduler.held().is_full(), "{} of 16", scheduler.held().count());
}

#[test]
fn a_guest_waits_for_the_site_only_as_long_as_it_takes() {
    let mut scheduler = fresh(16);
    join(&mut scheduler, 0, Origin, all(16));
    for near in 1..=3 {
        join_as(&mut scheduler, near, PeerFacts { kind: Near, identity: Some(near * 77) }, Pieces::none(16));
    }
    let theirs = (0..16).find(|piece| scheduler.site_rank(*piece, MS) == 2).unwrap();
    scheduler.demand(theirs..theirs + 1, MS);
    let Some(Action::Want { peer, piece }) = scheduler.plan(MS).pop() else { panic!("nobody is told") };
    assert_eq!(piece, theirs);
    assert!(scheduler.plan(MS).is_empty(), "it is told once");

    let second = scheduler.deadline(MS).unwrap();
    assert!(second <= MS + PATIENCE, "{second:?}");
    let mut now = second;
    let mut told = vec![peer];
    let asked = loop {
        let actions = scheduler.plan(now);
        told.extend(actions.iter().filter_map(|action| match action {
            Action::Want { peer, .. } => Some(*peer),
            _ => None,
        }));
        if !asked(&actions).is_empty() {
            break asked(&actions);
        }
        now = scheduler.deadline(now).unwrap();
    };
    assert_eq!(asked, BTreeSet::from([(0, theirs)]));
    assert_eq!(told.len(), 2, "the first, then the second: {told:?}");
    assert!(now <= Duration::from_secs(1), "{now:?}");
}

#[test]
fn a_near_guest_waits_no_longer_than_ours_for_what_we_fetch() {
    let mut scheduler = fresh(16);
    join(&mut scheduler, 0, Origin, all(16));
    join_as(&mut scheduler, 1, PeerFacts { kind: Near, identity: Some(5) }, Pieces::none(16));
    join_as(&mut scheduler, 2, PeerFacts { kind: Far, identity: Some(6) }, Pieces::none(16));
    scheduler.peer_wants(1, 9, MS);
    scheduler.peer_wants(2, 10, MS);
    scheduler.peer_wants(1, 999, MS);
    assert_eq!(asked_first(&scheduler.plan(MS), true), BTreeSet::from([9]), "only near peers may wish");
    assert_eq!(scheduler.waited_for().count(), 0, "no guest of ours waits");
}

#[test]
fn a_request_not_yet_served_comes_home_from_the_wan() {
    let mut scheduler = fresh(4);
    join(&mut scheduler, 0, Origin, all(4));
    join(&mut scheduler, 1, Near, Pieces::none(4));
    scheduler.set_profile(vec![3]);
    assert_eq!(asked(&scheduler.plan(MS)), BTreeSet::from([(0, 3)]));
    scheduler.peer_has(1, 3);
    let actions = scheduler.plan(2 * MS);
    assert!(matches!(actions[0], Action::Cancel { peer: 0, .. }));
    assert_eq!(asked(&actions), BTreeSet::from([(1, 3)]));
}

#[test]
fn those_who_wait_for_a_hot_piece_spread_over_its_holders() {
    let mut moved = 0;
    for seed in 0..100 {
        let mut scheduler = Scheduler::new(geometry(4), Pieces::none(4), 1, seed * 7919 + 1);
        join(&mut scheduler, 1, Near, all(4));
        join(&mut scheduler, 2, Near, Pieces::none(4));
        scheduler.demand(0..1, MS);
        scheduler.plan(MS);
        scheduler.peer_has(2, 0);
        moved += u32::from(asked(&scheduler.plan(20 * MS)).contains(&(2, 0)));
    }
    assert!((30..70).contains(&moved), "about half go to the second holder: {moved}");
}

#[test]
fn a_web_seed_is_the_last_resort() {
    let mut scheduler = fresh(8);
    join(&mut scheduler, 0, WebSeed, all(8));
    let mut some = all(8);
    some.remove(5);
    join(&mut scheduler, 1, Origin, some);
    scheduler.demand(4..6, MS);
    assert_eq!(asked(&scheduler.plan(MS)), BTreeSet::from([(1, 4), (0, 5)]));
    let late = scheduler.plan(MS + PATIENCE);
    assert!(asked(&late).contains(&(0, 4)), "the origin is silent: {late:?}");

    let mut ahead = fresh(8);
    join(&mut ahead, 0, WebSeed, all(8));
    join(&mut ahead, 1, Far, all(8));
    ahead.set_background(Background::Full);
    assert!(asked(&ahead.plan(MS)).iter().all(|(peer, _)| *peer == 1));
}

#[test]
fn a_profile_guests_do_not_follow_is_kept_from_their_way() {
    let mut scheduler = fresh(64);
    join(&mut scheduler, 0, Origin, all(64));
    scheduler.set_profile((32..64).collect());
    for piece in [1, 9, 4, 14] {
        scheduler.demand(piece..piece + 1, MS);
    }
    let actions = scheduler.plan(MS);
    assert!(asked_first(&actions, false).is_empty(), "guests wait for other pieces: {actions:?}");
    for piece in [1, 9, 4, 14] {
        scheduler.found(piece);
    }
    let idle = scheduler.plan(2 * MS);
    assert_eq!(idle.iter().filter(|action| matches!(action, Action::Request { .. })).count(), 1, "{idle:?}");

    for piece in [32, 40] {
        scheduler.demand(piece..piece + 1, 3 * MS);
    }
    scheduler.plan(3 * MS);
    scheduler.found(32);
    scheduler.found(40);
    let trusted = asked_first(&scheduler.plan(4 * MS), false);
    assert!(!trusted.is_empty(), "it names what guests read after all");
}

#[test]
fn a_replaced_profile_starts_nothing_more() {
    let mut scheduler = fresh(64);
    join(&mut scheduler, 0, Origin, all(64));
    scheduler.set_profile((0..32).collect());
    let first = scheduler.plan(MS);
    scheduler.set_profile((32..64).collect());
    let (mut wire, mut started) = (first.clone(), BTreeSet::new());
    for round in 2..60 {
        deliver(&mut scheduler, &wire, round * MS);
        wire = scheduler.plan(round * MS);
        started.extend(asked(&wire).into_iter().map(|(_, piece)| piece));
    }
    let begun = asked_first(&first, false);
    assert!(started.iter().all(|piece| *piece >= 32 || begun.contains(piece)), "{started:?} after {begun:?}");
    assert!((32..64).all(|piece| scheduler.held().contains(piece)));
}

#[test]
fn background_waits_for_the_profile_if_it_is_to_be_idle() {
    for (background, both) in [(Background::Idle, false), (Background::Full, true)] {
        let mut scheduler = fresh(64);
        join(&mut scheduler, 0, Origin, all(64));
        // The profile's only piece is had by nobody but the web seed that is not there.
        let mut some = all(64);
        some.remove(63);
        scheduler.peer_pieces(0, some);
        scheduler.set_profile(vec![63]);
        scheduler.set_background(background);
        assert_eq!(!scheduler.plan(MS).is_empty(), both, "{background:?}");
    }
}
