//! Days, weeks and hours for policies: a guest has no clock and no time zones, so the operator gives the offset from
//! UTC, or a list of offsets from when on each holds.

use serde::Deserialize;

const MINUTE_MS: u64 = 60_000;
const DAY_MINUTES: i64 = 1440;
const OFFSET_MINUTES_MAX: i64 = 14 * 60;

/// Most offsets of one [`Offsets`]: a century of summers and winters.
pub const OFFSETS_MAX: usize = 200;

/// A day of the week. The order is that of ISO 8601.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Weekday {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Weekday {
    /// All, Monday first.
    pub const ALL: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    /// Its name, as in settings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        ["mon", "tue", "wed", "thu", "fri", "sat", "sun"][self as usize]
    }
}

/// A minute where the operator is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalMinute(i64);

impl LocalMinute {
    /// Days since 1970-01-01.
    #[must_use]
    pub fn day(self) -> i64 {
        self.0.div_euclid(DAY_MINUTES)
    }

    /// 0 ..< 1440.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "a remainder of 1440")]
    pub fn minute_of_day(self) -> u32 {
        self.0.rem_euclid(DAY_MINUTES) as u32
    }

    /// Day of the week.
    #[must_use]
    pub fn weekday(self) -> Weekday {
        weekday(self.day())
    }

    /// Hours since the first of 1970.
    #[must_use]
    pub fn hour(self) -> i64 {
        self.0.div_euclid(60)
    }

    /// Weeks since the one of 1970-01-01; each begins on a Monday.
    #[must_use]
    pub fn week(self) -> i64 {
        // 1970-01-01 was a Thursday.
        (self.day() + 3).div_euclid(7)
    }

    /// Months since January of year 0.
    #[must_use]
    pub fn month(self) -> i64 {
        let (year, month, _) = civil(self.day());
        year * 12 + month - 1
    }

    /// Year of the Gregorian calendar.
    #[must_use]
    pub fn year(self) -> i64 {
        civil(self.day()).0
    }
}

/// Day of the week of a number of days since 1970-01-01.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "a remainder of 7")]
pub fn weekday(day: i64) -> Weekday {
    Weekday::ALL[(day + 3).rem_euclid(7) as usize]
}

/// How local time differs from UTC: one offset such as `"+01:00"`, or a list of `{"since": "2026-03-29T01:00:00Z",
/// "offset": "+02:00"}`, ascending. Before the first of the list, the first holds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "serde_json::Value")]
pub struct Offsets(Vec<(u64, i64)>);

impl Default for Offsets {
    fn default() -> Self {
        Self(vec![(0, 0)])
    }
}

impl Offsets {
    /// Local time of an instant in milliseconds since 1970.
    #[must_use]
    #[expect(clippy::cast_possible_wrap, reason = "an instant is below 2^53")]
    pub fn local(&self, instant_ms: u64) -> LocalMinute {
        let past = self.0.partition_point(|(since, _)| *since <= instant_ms);
        let minutes = self.0.get(past.saturating_sub(1)).map_or(0, |(_, minutes)| *minutes);
        LocalMinute((instant_ms / MINUTE_MS) as i64 + minutes)
    }
}

impl TryFrom<serde_json::Value> for Offsets {
    type Error = String;

    fn try_from(value: serde_json::Value) -> Result<Self, String> {
        const FORM: &str = "give an offset from UTC such as \"+01:00\", or a list of \
                            {\"since\": \"2026-03-29T01:00:00Z\", \"offset\": \"+02:00\"}, ascending";
        let wrong = || FORM.to_owned();
        if let Some(text) = value.as_str() {
            return Ok(Self(vec![(0, offset(text).ok_or_else(wrong)?)]));
        }
        let list =
            value.as_array().filter(|list| (1..=OFFSETS_MAX).contains(&list.len())).ok_or_else(wrong)?;
        let parse = |entry: &serde_json::Value| {
            let fields = entry.as_object().filter(|fields| fields.len() == 2)?;
            let since = instant(fields.get("since")?.as_str()?)?;
            Some((since, offset(fields.get("offset")?.as_str()?)?))
        };
        let offsets: Vec<_> = list.iter().map(parse).collect::<Option<_>>().ok_or_else(wrong)?;
        if offsets.is_sorted_by(|a, b| a.0 < b.0) { Ok(Self(offsets)) } else { Err(wrong()) }
    }
}

/// Minutes east of UTC of a text such as `+05:30` or `Z`.
fn offset(text: &str) -> Option<i64> {
    if text == "Z" {
        return Some(0);
    }
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let minutes = digits(hours, 2)? * 60 + digits(minutes, 2).filter(|minutes| *minutes < 60)?;
    (minutes <= OFFSET_MINUTES_MAX).then_some(sign * minutes)
}

/// Minute of the day of a text such as `22:30`; `24:00` is the end of the day.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 ..= 1440")]
pub fn time_of_day(text: &str) -> Option<u32> {
    let (hours, minutes) = text.split_once(':')?;
    let minutes = digits(hours, 2)? * 60 + digits(minutes, 2).filter(|minutes| *minutes < 60)?;
    (minutes <= DAY_MINUTES).then_some(minutes as u32)
}

/// Milliseconds since 1970 of a text such as `2026-03-29T01:00:00Z`.
#[must_use]
pub fn instant(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let [year, month, day] = parts(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = parts(time, ':', [2, 2, 2])?;
    let days = days(year, month, day);
    let exists = civil(days) == (year, month, day) && hour < 24 && minute < 60 && second < 60;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    exists.then_some(seconds).and_then(|seconds| u64::try_from(seconds).ok()).map(|seconds| seconds * 1000)
}

fn parts(text: &str, separator: char, lens: [usize; 3]) -> Option<[i64; 3]> {
    let mut pieces = text.split(separator);
    let mut parsed = [0; 3];
    for (value, len) in parsed.iter_mut().zip(lens) {
        *value = digits(pieces.next()?, len)?;
    }
    pieces.next().is_none().then_some(parsed)
}

fn digits(text: &str, len: usize) -> Option<i64> {
    (text.len() == len && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Year, month (1 ..= 12) and day (1 ..= 31) of a number of days since 1970-01-01, in the Gregorian calendar. Years
/// are taken to begin in March, so that the day that some lack is their last.
#[must_use]
pub fn civil(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * shifted_month + 2) / 5 + 1)
}

/// Days since 1970-01-01; the inverse of [`civil`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let of_era_year = year.rem_euclid(400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let of_era = of_era_year * 365 + of_era_year / 4 - of_era_year / 100 + of_year;
    year.div_euclid(400) * 146_097 + of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before_it() {
        let mut before = civil(-1);
        assert_eq!(before, (1969, 12, 31));
        for day in 0..146_097 {
            let (year, month, of_month) = civil(day);
            let next_day = (before.0, before.1, before.2 + 1);
            let next_month = (before.0, before.1 + 1, 1);
            let next_year = (before.0 + 1, 1, 1);
            assert!([next_day, next_month, next_year].contains(&(year, month, of_month)), "{day}");
            assert_eq!(days(year, month, of_month), day);
            before = (year, month, of_month);
        }
        assert_eq!(civil(146_097), (2370, 1, 1));
    }

    #[test]
    fn instants_are_read_and_days_have_their_weekdays() {
        let leap = instant("2028-02-29T12:00:00Z").unwrap();
        let local = Offsets::default().local(leap);
        assert_eq!((local.weekday(), local.minute_of_day(), local.year()), (Weekday::Tue, 720, 2028));
        assert_eq!(instant("1970-01-01T00:00:01Z"), Some(1000));
        for wrong in
            ["2027-02-29T00:00:00Z", "2027-13-01T00:00:00Z", "2027-01-01T24:00:00Z", "2027-01-01", "x"]
        {
            assert_eq!(instant(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn weeks_begin_on_monday() {
        let at = |text| Offsets::default().local(instant(text).unwrap());
        let (sunday, monday) = (at("2026-11-22T23:59:00Z"), at("2026-11-23T00:00:00Z"));
        assert_eq!((sunday.weekday(), monday.weekday()), (Weekday::Sun, Weekday::Mon));
        assert_eq!(monday.week(), sunday.week() + 1);
    }

    #[test]
    fn summer_begins_when_the_list_says_so() {
        let offsets: Offsets = serde_json::from_value(json!([
            {"since": "2026-03-29T01:00:00Z", "offset": "+02:00"},
            {"since": "2026-10-25T01:00:00Z", "offset": "+01:00"},
        ]))
        .unwrap();
        let minute = |text| offsets.local(instant(text).unwrap()).minute_of_day();
        assert_eq!(minute("2026-10-25T00:59:00Z"), 2 * 60 + 59);
        assert_eq!(minute("2026-10-25T01:00:00Z"), 2 * 60);
        assert_eq!(minute("2026-01-01T00:00:00Z"), 2 * 60);
    }

    #[test]
    fn an_offset_of_another_form_is_refused() {
        for wrong in [json!("1"), json!("+1:00"), json!("+15:00"), json!([]), json!(60), json!("é:00")] {
            assert!(serde_json::from_value::<Offsets>(wrong.clone()).is_err(), "{wrong}");
        }
        let unsorted = json!([{"since": "2027-01-01T00:00:00Z", "offset": "Z"},
                              {"since": "2026-01-01T00:00:00Z", "offset": "Z"}]);
        assert!(serde_json::from_value::<Offsets>(unsorted).is_err());
        let half: Offsets = serde_json::from_value(json!("-03:30")).unwrap();
        assert_eq!(half.local(0).minute_of_day(), 20 * 60 + 30);
    }
}
