//! Up to which age a backlog is passed over.

use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use serde_json::{Value as Json, json};

use super::units::{format_rfc3339, parse_rfc3339};
use super::value::{Hint, Raw, Value};

/// What is older is passed over when a group starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkipBefore {
    /// `1h`: what was stored longer ago than that when the consumer starts.
    Age(Duration),
    /// `2026-01-31T00:00:00Z`: what was stored before that time.
    Time(SystemTime),
}

impl SkipBefore {
    /// The time before which messages are passed over, by a consumer that starts `now`.
    pub(crate) fn time(self, now: SystemTime) -> SystemTime {
        match self {
            Self::Age(age) => now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH),
            Self::Time(time) => time,
        }
    }
}

impl Value for SkipBefore {
    fn expected() -> String {
        "a duration such as `1h`, or a time such as `2026-01-31T00:00:00Z`".to_owned()
    }

    fn schema(_range: Option<&RangeInclusive<Self>>) -> Json {
        json!({ "type": "string", "examples": ["1h", "2026-01-31T00:00:00Z"] })
    }

    fn read(raw: &Raw) -> Result<Self, Hint> {
        match parse_rfc3339(raw.text().ok_or(None)?) {
            Some(time) => Ok(Self::Time(time)),
            None => Duration::read(raw).map(Self::Age),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Age(age) => age.show(),
            Self::Time(time) => format_rfc3339(*time),
        }
    }
}
