//! Values with a unit: durations, sizes, points in time.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};
use serde_json::{Value as Json, json};

use super::value::{Hint, Raw, Value, ValueError};

/// A number of bytes, written `4MiB`, `64KiB`, `512B`, or as a bare number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(u64);

/// Largest first, so that printing finds the shortest form.
const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl ByteSize {
    /// `count` bytes.
    pub const fn bytes(count: u64) -> Self {
        Self(count)
    }

    /// `count` × 1024 bytes.
    pub const fn kib(count: u32) -> Self {
        Self((count as u64) << 10)
    }

    /// `count` × 1024² bytes.
    pub const fn mib(count: u32) -> Self {
        Self((count as u64) << 20)
    }

    /// How many bytes these are.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// How many bytes these are, at most what memory can hold.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, unit)| self.0 != 0 && self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "0B"),
        }
    }
}

impl FromStr for ByteSize {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let text = text.trim();
        let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let unit = unit.trim_start();
        let Some((_, factor)) =
            UNITS.iter().find(|(name, _)| *name == if unit.is_empty() { "B" } else { unit })
        else {
            return Err(ValueError::new(format!("`{text}`: the units of a size are B, KiB, MiB and GiB")));
        };
        let count = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(*factor));
        count.map(Self).ok_or_else(|| ValueError::new(format!("`{text}` is not a size such as `4MiB`")))
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Value for ByteSize {
    fn expected() -> String {
        "a size such as `4MiB`".to_owned()
    }

    fn schema(_range: Option<&RangeInclusive<Self>>) -> Json {
        json!({ "type": ["string", "integer"], "pattern": r"^\s*[0-9]+\s*(B|KiB|MiB|GiB)?\s*$", "minimum": 0 })
    }

    fn read(raw: &Raw) -> Result<Self, Hint> {
        raw.text().ok_or(None)?.parse().map_err(|error: ValueError| Some(error.to_string()))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Duration {
    fn expected() -> String {
        "a duration such as `3s`".to_owned()
    }

    fn schema(_range: Option<&RangeInclusive<Self>>) -> Json {
        json!({ "type": "string", "pattern": r"^\s*([0-9]+\s*[a-zA-Z]+\s*)+$" })
    }

    fn read(raw: &Raw) -> Result<Self, Hint> {
        let text = raw.text().ok_or(None)?;
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Some(format!("write the unit: `{text}ms`, `{text}s` or `{text}m`")));
        }
        humantime::parse_duration(text).map_err(|_| Some("the units are `ms`, `s`, `m` and `h`".to_owned()))
    }

    fn show(&self) -> String {
        const UNITS: [(&str, u128); 5] =
            [("days", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
        let ms = self.as_millis();
        match UNITS.iter().find(|(_, unit)| ms.is_multiple_of(*unit)) {
            _ if self.is_zero() => "0s".to_owned(),
            Some(("days", unit)) if ms == *unit => "1day".to_owned(),
            Some((name, unit)) if self.subsec_nanos().is_multiple_of(1_000_000) => {
                format!("{}{name}", ms / unit)
            }
            _ => humantime::format_duration(*self).to_string().replace(' ', ""),
        }
    }
}

/// `2026-01-31T00:00:00Z`, or with an offset: `2026-01-31T08:00:00+08:00`.
///
/// `humantime` reads the first form only; the offset is taken off here.
pub(super) fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let offset_at = text.len().checked_sub("+08:00".len()).filter(|at| text.is_char_boundary(*at))?;
    let (local, offset) = text.split_at(offset_at);
    let (east, offset) = match (offset.strip_prefix('+'), offset.strip_prefix('-')) {
        (Some(offset), _) => (true, offset),
        (_, Some(offset)) => (false, offset),
        _ => return humantime::parse_rfc3339(text).ok(),
    };
    let (hours, minutes) = offset.split_once(':')?;
    let (hours, minutes) = (hours.parse::<u8>().ok()?, minutes.parse::<u8>().ok()?);
    if 23 < hours || 59 < minutes {
        return None;
    }
    let offset = Duration::from_secs(u64::from(hours) * 3600 + u64::from(minutes) * 60);
    let local = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let time = if east { local.checked_sub(offset) } else { local.checked_add(offset) }?;
    (SystemTime::UNIX_EPOCH <= time).then_some(time)
}

/// Times before 1970 or after 9999 can be made by hand, and `humantime` would panic.
pub(super) fn format_rfc3339(time: SystemTime) -> String {
    const END_OF_9999: u64 = 253_402_300_799;
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) if since.as_secs() <= END_OF_9999 => humantime::format_rfc3339(time).to_string(),
        _ => format!("{time:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_and_printed_in_its_largest_whole_unit() {
        for (text, bytes, shown) in [
            ("4MiB", 4 << 20, "4MiB"),
            ("64KiB", 64 << 10, "64KiB"),
            ("64 KiB", 64 << 10, "64KiB"),
            ("1024", 1 << 10, "1KiB"),
            ("1000B", 1000, "1000B"),
            ("0", 0, "0B"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.as_u64(), size.to_string().as_str()), (bytes, shown), "{text}");
        }
    }

    #[test]
    fn a_duration_is_printed_in_its_largest_whole_unit() {
        for (duration, shown) in [
            (Duration::ZERO, "0s"),
            (Duration::from_millis(1500), "1500ms"),
            (Duration::from_secs(100), "100s"),
            (Duration::from_secs(120), "2m"),
            (Duration::from_secs(24 * 3600), "1day"),
            (Duration::from_secs(10 * 24 * 3600), "10days"),
            (Duration::from_nanos(1_000_001), "1ms1ns"),
        ] {
            assert_eq!(duration.show(), shown);
            assert_eq!(Duration::read(&Raw::plain(shown)).unwrap(), duration);
        }
    }

    #[test]
    fn a_size_that_could_be_read_two_ways_is_refused() {
        for text in ["4MB", "4k", "1.5MiB", "-1", "", "MiB", "99999999999GiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_offset_moves_the_time_to_utc() {
        let utc = parse_rfc3339("2026-01-31T00:00:00Z");
        assert!(utc.is_some());
        assert_eq!(parse_rfc3339("2026-01-31T08:00:00+08:00"), utc);
        assert_eq!(parse_rfc3339("2026-01-30T18:30:00-05:30"), utc);
        for wrong in ["2026-01-31", "2026-01-31 00:00:00", "1970-01-01T00:00:00+08:00", "ü+08:00", ""] {
            assert_eq!(parse_rfc3339(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_time_made_by_hand_is_printed_without_a_panic() {
        for time in [
            SystemTime::UNIX_EPOCH - Duration::from_secs(1),
            SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40),
        ] {
            assert!(!format_rfc3339(time).is_empty());
        }
    }
}
