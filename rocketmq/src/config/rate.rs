//! How many messages may be handed over in a time.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::value::{Hint, Raw, Value, ValueError};

/// So many messages in a time, written `100/s`, `6000/m`, `50/h`, or as a bare number of messages a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    messages: NonZeroU32,
    per: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
    Hour,
}

const UNITS: [(&str, Unit); 3] = [("s", Unit::Second), ("m", Unit::Minute), ("h", Unit::Hour)];

impl Rate {
    /// So many messages a second.
    pub const fn per_second(messages: NonZeroU32) -> Self {
        Self { messages, per: Unit::Second }
    }

    /// So many messages a minute.
    pub const fn per_minute(messages: NonZeroU32) -> Self {
        Self { messages, per: Unit::Minute }
    }

    /// So many messages an hour.
    pub const fn per_hour(messages: NonZeroU32) -> Self {
        Self { messages, per: Unit::Hour }
    }

    /// The time between two messages.
    pub fn interval(self) -> Duration {
        let per = match self.per {
            Unit::Second => 1,
            Unit::Minute => 60,
            Unit::Hour => 3_600,
        };
        Duration::from_secs(per) / self.messages.get()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(_, unit)| *unit == self.per).map_or("s", |(name, _)| name);
        write!(f, "{}/{unit}", self.messages)
    }
}

impl FromStr for Rate {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let refused = || {
            ValueError::new(format!(
                "`{text}` is not a rate such as `100/s`: 1 to {} messages for each of s, m and h",
                u32::MAX
            ))
        };
        let (messages, unit) = text.split_once('/').unwrap_or((text, "s"));
        let unit = UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(refused)?;
        let messages = messages.trim().parse().map_err(|_| refused())?;
        Ok(Self { messages, per: unit.1 })
    }
}

impl Value for Rate {
    fn expected() -> String {
        "a rate such as `100/s`".to_owned()
    }

    fn schema(_range: Option<&RangeInclusive<Self>>) -> Json {
        json!({
            "type": ["string", "integer"],
            "pattern": r"^\s*[0-9]+\s*(/\s*[smh]\s*)?$",
            "minimum": 1,
            "examples": ["100/s"],
        })
    }

    fn read(raw: &Raw) -> Result<Self, Hint> {
        raw.text().ok_or(None)?.parse().map_err(|error: ValueError| Some(error.to_string()))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_read_as_it_is_written() {
        for (text, shown, interval) in [
            ("100/s", "100/s", Duration::from_millis(10)),
            ("4", "4/s", Duration::from_millis(250)),
            ("120 / m", "120/m", Duration::from_millis(500)),
            ("1/h", "1/h", Duration::from_secs(3_600)),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.to_string().as_str(), rate.interval()), (shown, interval));
        }
        for text in ["", "0/s", "-1/s", "1/d", "1.5/s", "/s", "5000000000"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
