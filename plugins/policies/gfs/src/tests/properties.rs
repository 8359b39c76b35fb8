//! What holds for any history.

use super::*;
use plugins_sdk::calendar::Offsets;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn any_history() -> impl Strategy<Value = History> {
    let age = prop_oneof![0..3 * DAY_MS, 0..60 * DAY_MS, 0..800 * DAY_MS];
    let row = (age, 0..4 * GIB, 0..5u8, prop::bool::weighted(0.1), prop::bool::weighted(0.1));
    prop::collection::vec(row, 0..60).prop_map(|rows| {
        let checkpoint = |(index, (age_ms, size_bytes, cause, pinned, damaged))| Checkpoint {
            name: format!("c{index:03}"),
            taken_ms: NOON_MS - age_ms,
            size_bytes,
            with_memory: false,
            // Most are the policy's.
            cause: if cause > 3 { 9 } else { cause % 3 },
            pinned,
            verified: if damaged { verified::DAMAGED } else { verified::NEVER },
        };
        History::new(rows.into_iter().enumerate().map(checkpoint).collect())
    })
}

fn any_keep() -> impl Strategy<Value = serde_json::Value> {
    let count = || prop_oneof![Just(0u32), 1..4u32, 1..30u32];
    (count(), count(), count(), count(), count(), 0..3u32).prop_map(|(last, hourly, daily, weekly, monthly, yearly)| {
        json!({"last": last, "hourly": hourly, "daily": daily, "weekly": weekly, "monthly": monthly, "yearly": yearly})
    })
}

fn used(history: &History) -> u64 {
    history.rows().iter().map(|row| row.size_bytes).sum()
}

fn discarded(plan: &Plan) -> BTreeSet<usize> {
    plan.discards.iter().map(|discard| discard.checkpoint as usize).collect()
}

/// Rows that nothing may drop.
fn untouchable(history: &History) -> BTreeSet<usize> {
    let rows = history.rows();
    let newest_good = rows.iter().rposition(|row| row.verified != verified::DAMAGED);
    let mut kept: BTreeSet<_> = newest_good.or(rows.len().checked_sub(1)).into_iter().collect();
    let ours = [cause::POLICY, cause::UPDATE];
    kept.extend((0..rows.len()).filter(|row| rows[*row].pinned || !ours.contains(&rows[*row].cause)));
    kept
}

/// The rule, said once more and otherwise: of the policy's good ones, the newest of each period, of the newest periods.
fn wanted(keep: &serde_json::Value, history: &History) -> BTreeSet<usize> {
    let mut wanted = BTreeSet::new();
    let local = |taken_ms| Offsets::default().local(taken_ms);
    for class in ["last", "hourly", "daily", "weekly", "monthly", "yearly"] {
        let mut newest_of: BTreeMap<i64, usize> = BTreeMap::new();
        for (position, row) in history.rows().iter().enumerate() {
            if row.cause != cause::POLICY || row.verified == verified::DAMAGED {
                continue;
            }
            let at = local(row.taken_ms);
            let period = match class {
                "last" => position as i64,
                "hourly" => (row.taken_ms / HOUR_MS) as i64,
                "daily" => (row.taken_ms / DAY_MS) as i64,
                // The fourth day of 1970 was a Sunday.
                "weekly" => ((row.taken_ms / DAY_MS + 3) / 7) as i64,
                "monthly" => at.month(),
                _ => at.year(),
            };
            // Oldest first: the newest stays.
            newest_of.insert(period, position);
        }
        let count = keep[class].as_u64().unwrap() as usize;
        wanted.extend(newest_of.values().rev().take(count));
    }
    wanted
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_must_stay_stays_whatever_the_quota(
        history in any_history(), keep in any_keep(), dirty in 0..8 * GIB, quota in 0..64 * GIB,
    ) {
        let subject = Subject { used_bytes: used(&history), quota_bytes: quota, ..subject() };
        let plan = ask(&settings(json!({"keep": keep})), &subject, vec![desktop(dirty)], &history, &[]);
        let dropped = discarded(&plan);
        prop_assert_eq!(dropped.len(), plan.discards.len(), "one is dropped twice");
        prop_assert!(dropped.is_disjoint(&untouchable(&history)), "{:?}", dropped);
        prop_assert!((1..=WAIT_MS_MAX).contains(&plan.next_call_ms));
    }

    #[test]
    fn without_a_quota_exactly_what_the_rule_says_is_kept(history in any_history(), keep in any_keep()) {
        let subject = Subject { used_bytes: used(&history), ..subject() };
        let plan = ask(&settings(json!({"keep": keep})), &subject, vec![desktop(0)], &history, &[]);
        let mut expected = wanted(&keep, &history);
        expected.extend(untouchable(&history));
        for (position, row) in history.rows().iter().enumerate() {
            let good = row.verified != verified::DAMAGED;
            if row.cause == cause::UPDATE && good && NOON_MS - row.taken_ms < 14 * DAY_MS {
                expected.insert(position);
            }
        }
        let dropped = discarded(&plan);
        let kept: BTreeSet<_> = (0..history.rows().len()).filter(|row| !dropped.contains(row)).collect();
        prop_assert_eq!(kept, expected);
    }

    #[test]
    fn the_quota_is_kept_wherever_what_must_stay_leaves_room(
        history in any_history(), keep in any_keep(), dirty in 1..8 * GIB, quota in 1..64 * GIB,
    ) {
        let subject = Subject { used_bytes: used(&history), quota_bytes: quota, ..subject() };
        let plan = ask(&settings(json!({"keep": keep})), &subject, vec![desktop(dirty)], &history, &[]);
        let dropped = discarded(&plan);
        let size = |row: &usize| history.rows()[*row].size_bytes;
        let freed: u64 = dropped.iter().map(size).sum();
        let must_stay: u64 = untouchable(&history).iter().map(size).sum();
        let new = if plan.take.is_some() { dirty } else { 0 };
        prop_assert!(used(&history) - freed + new <= quota.max(must_stay), "{} are used", used(&history) - freed + new);
        if plan.take.is_none() && must_stay + dirty <= quota {
            let fleet = Fleet::new(NOON_MS, vec![desktop(dirty)]);
            let unlimited = Subject { quota_bytes: 0, ..subject };
            let given = settings(json!({"keep": keep}));
            let free = Gfs::schedule(&given, &unlimited, &fleet, &history, &fleet, &[]).unwrap();
            prop_assert!(free.take.is_none(), "there was room, and none was taken");
        }
    }

    #[test]
    fn applied_again_and_again_nothing_more_is_dropped(history in any_history(), keep in any_keep(), quota in 0..64 * GIB) {
        let given = settings(json!({"keep": keep}));
        let young = Checkpoint { name: "young".to_owned(), ..checkpoint(0) };
        let rows = history.rows().iter().cloned().chain([young]);
        let history = History::new(rows.collect());
        let drop_once = |history: &History| {
            let subject = Subject { used_bytes: used(history), quota_bytes: quota, ..subject() };
            let plan = ask(&given, &subject, vec![desktop(0)], history, &[]);
            prop_assert_eq!(&plan.take, &None);
            let dropped = discarded(&plan);
            let kept = history.rows().iter().enumerate().filter(|(row, _)| !dropped.contains(row));
            Ok(History::new(kept.map(|(_, row)| row.clone()).collect()))
        };
        let once = drop_once(&history)?;
        prop_assert_eq!(drop_once(&once)?, once);
    }
}
