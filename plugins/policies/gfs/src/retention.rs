//! Which checkpoints are kept: grandfathers, fathers and sons, then what the quota leaves.

use crate::settings::{Manual, Settings};
use plugins_sdk::calendar::LocalMinute;
use plugins_sdk::checkpoint::{Checkpoints, Discard, Subject, cause, verified};
use plugins_sdk::{Context, Reason};

const DAY_MS: u64 = 86_400_000;

/// Why a checkpoint stays. A coarser class is worth more: what it wants goes last when the quota is short, so that a
/// short quota costs fine steps of the near past and not the far past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    Update,
    Last,
    Hourly,
    Daily,
    Weekly,
    Monthly,
    Yearly,
}

/// What is known of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) taken_ms: u64,
    pub(crate) size_bytes: u64,
    pub(crate) pinned: bool,
    pub(crate) damaged: bool,
    pub(crate) owner: Owner,
}

/// Whose rule a checkpoint follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// This policy's.
    Policy,
    /// It stays for some days.
    Update,
    /// Not ours to drop: a person's, or of a kind that this policy does not know.
    Others,
}

/// What becomes of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It must stay: pinned, somebody else's, or the newest good one.
    Untouchable,
    /// A rule wants it; the coarsest that does.
    Wanted(Class),
    /// No rule wants it.
    Unneeded,
    /// It cannot be restored.
    Damaged,
}

/// The checkpoints, oldest first.
pub(crate) fn read(settings: &Settings, checkpoints: &impl Checkpoints) -> Vec<Row> {
    let (taken, sizes) = (checkpoints.taken(), checkpoints.sizes_bytes());
    let (causes, pinned, verified) = (checkpoints.causes(), checkpoints.pinned(), checkpoints.verified());
    let row = |row: usize| Row {
        taken_ms: taken[row],
        size_bytes: sizes[row],
        pinned: pinned[row] != 0,
        damaged: verified[row] == verified::DAMAGED,
        owner: match causes[row] {
            cause::POLICY => Owner::Policy,
            cause::UPDATE => Owner::Update,
            cause::PERSON if settings.manual == Manual::Age => Owner::Policy,
            _ => Owner::Others,
        },
    };
    (0..checkpoints.checkpoint_count()).map(row).collect()
}

/// What becomes of each checkpoint if there is room for all.
pub(crate) fn fates(settings: &Settings, now_ms: u64, rows: &[Row]) -> Vec<Fate> {
    let classes = classes(settings, rows);
    let newest_good = rows.iter().rposition(|row| !row.damaged);
    // Something is better than nothing where nothing is good.
    let last_resort = newest_good.or(rows.len().checked_sub(1));
    let fate = |(position, row): (usize, &Row)| {
        if row.pinned || row.owner == Owner::Others || Some(position) == last_resort {
            return Fate::Untouchable;
        }
        if row.damaged {
            return Fate::Damaged;
        }
        let of_update = row.owner == Owner::Update;
        let recent = now_ms.saturating_sub(row.taken_ms) < u64::from(settings.update_days) * DAY_MS;
        match classes[position] {
            Some(class) => Fate::Wanted(class),
            None if of_update && recent => Fate::Wanted(Class::Update),
            None => Fate::Unneeded,
        }
    };
    rows.iter().enumerate().map(fate).collect()
}

/// Number of the period that a checkpoint is of, from when it was taken and its place.
type PeriodOf = fn(LocalMinute, u64) -> i64;

/// The coarsest class that wants each checkpoint of the policy.
fn classes(settings: &Settings, rows: &[Row]) -> Vec<Option<Class>> {
    let mut classes = vec![None; rows.len()];
    let keep = settings.keep;
    // In the order of their worth: a later one writes over an earlier.
    let rules: [(Class, u32, PeriodOf); 6] = [
        (Class::Last, keep.last, |_, position| i64::try_from(position).unwrap_or(i64::MAX)),
        (Class::Hourly, keep.hourly, |local, _| local.hour()),
        (Class::Daily, keep.daily, |local, _| local.day()),
        (Class::Weekly, keep.weekly, |local, _| local.week()),
        (Class::Monthly, keep.monthly, |local, _| local.month()),
        (Class::Yearly, keep.yearly, |local, _| local.year()),
    ];
    for (class, count, period_of) in rules {
        let mut left = count;
        let mut last_period = None;
        for (position, row) in rows.iter().enumerate().rev() {
            if left == 0 {
                break;
            }
            if row.owner != Owner::Policy || row.damaged {
                continue;
            }
            let local = settings.utc_offset.local(row.taken_ms);
            let period = period_of(local, position as u64);
            // The newest of each period; going back, a period never comes again.
            if last_period != Some(period) {
                last_period = Some(period);
                classes[position] = Some(class);
                left -= 1;
            }
        }
    }
    classes
}

/// What is dropped, and whether there is room for a new one afterwards.
pub(crate) struct Outcome {
    pub(crate) discards: Vec<Discard>,
    /// Bytes that the checkpoints take after that.
    pub(crate) used_bytes: u64,
}

/// Drops what no rule wants; then, if the quota has no room for `new_bytes` more, also what is wanted, as little as
/// will do.
pub(crate) fn discards(
    settings: &Settings,
    subject: &Subject,
    rows: &[Row],
    new_bytes: u64,
    context: &impl Context,
) -> Outcome {
    let fates = fates(settings, context.now_ms(), rows);
    let mut outcome = Outcome { discards: Vec::new(), used_bytes: subject.used_bytes };
    let mut order: Vec<(usize, Fate)> = fates.into_iter().enumerate().collect();
    // Stable: the oldest of equals first.
    order.sort_by_key(|(_, fate)| match fate {
        Fate::Damaged => (0, None),
        Fate::Unneeded => (1, None),
        Fate::Wanted(class) => (2, Some(*class)),
        Fate::Untouchable => (3, None),
    });
    let fits = |used_bytes: u64| subject.quota_bytes == 0 || used_bytes + new_bytes <= subject.quota_bytes;
    for (position, fate) in order {
        let reason = match fate {
            Fate::Damaged => Reason::plain("damaged", "it cannot be restored".to_owned()),
            Fate::Unneeded => Reason::plain("not-wanted", "no rule wants it any more".to_owned()),
            Fate::Wanted(class) if !fits(outcome.used_bytes) && rows[position].size_bytes > 0 => {
                let text = format!("the quota is short, and it is wanted only as {}", class.as_str());
                Reason::plain("over-quota", text)
            }
            Fate::Wanted(_) | Fate::Untouchable => continue,
        };
        outcome.used_bytes = outcome.used_bytes.saturating_sub(rows[position].size_bytes);
        let checkpoint = u32::try_from(position).unwrap_or(u32::MAX);
        outcome.discards.push(Discard { checkpoint, reasons: vec![reason] });
    }
    outcome
}

impl Class {
    fn as_str(self) -> &'static str {
        match self {
            Self::Update => "the state before an update",
            Self::Last => "one of the last",
            Self::Hourly => "an hourly one",
            Self::Daily => "a daily one",
            Self::Weekly => "a weekly one",
            Self::Monthly => "a monthly one",
            Self::Yearly => "a yearly one",
        }
    }
}
