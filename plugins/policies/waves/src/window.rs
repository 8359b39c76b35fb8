//! When rolls may begin.

use plugins_sdk::calendar::{LocalMinute, Offsets, Weekday, time_of_day, weekday};
use serde::Deserialize;

const MINUTE_MS: u64 = 60_000;
const DAY_MINUTES: u32 = 1440;
/// A window that opens at all opens within a week and a change of the clocks.
const SEARCH_MINUTES_MAX: u64 = 8 * 1440;

/// A part of some days, by local time.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Window {
    /// Days on which it begins.
    #[serde(default = "every_day")]
    pub(crate) days: Vec<Weekday>,
    from: TimeOfDay,
    /// Not after `from`: on the next day.
    to: TimeOfDay,
}

fn every_day() -> Vec<Weekday> {
    Weekday::ALL.to_vec()
}

/// Minute of the day, written as `22:30`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct TimeOfDay(u32);

impl TryFrom<String> for TimeOfDay {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no time of day: give one from \"00:00\" to \"24:00\"");
        time_of_day(&text).map(Self).ok_or_else(wrong)
    }
}

impl Window {
    /// How long it is, 1 ..= 1440 minutes: one that ends when it begins lasts a whole day.
    pub(crate) fn len_minutes(&self) -> u32 {
        match (self.to.0 + DAY_MINUTES - self.from.0) % DAY_MINUTES {
            0 => DAY_MINUTES,
            len => len,
        }
    }

    /// Whether a roll may begin at that minute.
    fn is_open(&self, at: LocalMinute, tail_minutes: u32) -> bool {
        let usable = self.len_minutes().saturating_sub(tail_minutes);
        let (day, minute) = (at.day(), at.minute_of_day());
        // Begun today, or the day before and still going on.
        [(day, minute), (day - 1, minute + DAY_MINUTES)].into_iter().any(|(day, minute)| {
            let since = minute.checked_sub(self.from.0);
            since.is_some_and(|since| since < usable) && self.days.contains(&weekday(day))
        })
    }
}

/// Whether a roll may begin now.
pub(crate) fn is_open(windows: &[Window], tail_minutes: u32, offsets: &Offsets, now_ms: u64) -> bool {
    let at = offsets.local(now_ms);
    windows.is_empty() || windows.iter().any(|window| window.is_open(at, tail_minutes))
}

/// The next instant at which a roll may begin, if there is one within a week. Minute by minute: that is right
/// whatever the offsets do, and takes less time than it takes to say why anything cleverer would be.
pub(crate) fn next_opening(
    windows: &[Window],
    tail_minutes: u32,
    offsets: &Offsets,
    now_ms: u64,
) -> Option<u64> {
    let first = now_ms / MINUTE_MS + 1;
    (first..first + SEARCH_MINUTES_MAX)
        .map(|minute| minute * MINUTE_MS)
        .find(|instant| is_open(windows, tail_minutes, offsets, *instant))
}

/// A local instant for people: `mon 22:00`.
pub(crate) fn in_words(offsets: &Offsets, instant_ms: u64) -> String {
    let at = offsets.local(instant_ms);
    let minute = at.minute_of_day();
    format!("{} {:02}:{:02}", at.weekday().as_str(), minute / 60, minute % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugins_sdk::calendar::instant;
    use serde_json::json;

    fn window(json: serde_json::Value) -> Window {
        serde_json::from_value(json).unwrap()
    }

    fn open(window: &Window, at: &str) -> bool {
        is_open(std::slice::from_ref(window), 0, &Offsets::default(), instant(at).unwrap())
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
        // 2026-11-20 is a Friday.
        let window = window(json!({"days": ["fri"], "from": "22:00", "to": "06:00"}));
        assert_eq!(window.len_minutes(), 480);
        for (at, expected) in [
            ("2026-11-20T05:00:00Z", false),
            ("2026-11-20T21:59:59Z", false),
            ("2026-11-20T22:00:00Z", true),
            ("2026-11-21T05:59:59Z", true),
            ("2026-11-21T06:00:00Z", false),
            ("2026-11-21T22:00:00Z", false),
        ] {
            assert_eq!(open(&window, at), expected, "{at}");
        }
    }

    #[test]
    fn a_window_that_ends_when_it_begins_lasts_a_day() {
        let window = window(json!({"days": ["sat"], "from": "12:00", "to": "12:00"}));
        assert!(open(&window, "2026-11-22T11:59:00Z") && !open(&window, "2026-11-22T12:00:00Z"));
    }

    #[test]
    fn no_roll_begins_in_the_tail_of_a_window() {
        let windows = [window(json!({"from": "22:00", "to": "24:00"}))];
        let at = |text| is_open(&windows, 30, &Offsets::default(), instant(text).unwrap());
        assert!(at("2026-11-20T23:29:00Z") && !at("2026-11-20T23:30:00Z"));
    }

    #[test]
    fn the_next_opening_follows_local_time() {
        let windows = [window(json!({"days": ["sun"], "from": "03:00", "to": "04:00"}))];
        let offsets: Offsets = serde_json::from_value(json!([
            {"since": "2026-10-25T01:00:00Z", "offset": "+01:00"},
            {"since": "2027-03-28T01:00:00Z", "offset": "+02:00"},
        ]))
        .unwrap();
        let next = |at| next_opening(&windows, 0, &offsets, instant(at).unwrap());
        assert_eq!(next("2026-11-16T00:00:00Z"), instant("2026-11-22T02:00:00Z"));
        assert_eq!(next("2027-03-22T00:00:00Z"), instant("2027-03-28T01:00:00Z"));
        assert_eq!(in_words(&offsets, instant("2027-03-28T01:00:00Z").unwrap()), "sun 03:00");
    }

    #[test]
    fn a_window_in_the_hour_that_summer_skips_opens_a_week_later() {
        let windows = [window(json!({"days": ["sun"], "from": "02:00", "to": "03:00"}))];
        let offsets: Offsets = serde_json::from_value(json!([
            {"since": "2026-10-25T01:00:00Z", "offset": "+01:00"},
            {"since": "2027-03-28T01:00:00Z", "offset": "+02:00"},
        ]))
        .unwrap();
        let next = next_opening(&windows, 0, &offsets, instant("2027-03-28T00:30:00Z").unwrap());
        assert_eq!(next, instant("2027-04-04T00:00:00Z"));
    }

    #[test]
    fn a_time_that_no_clock_shows_is_refused() {
        for wrong in ["25:00", "24:01", "7:00", "12:60", "noon"] {
            let value = json!({"from": wrong, "to": "06:00"});
            assert!(serde_json::from_value::<Window>(value).is_err(), "{wrong}");
        }
    }
}
