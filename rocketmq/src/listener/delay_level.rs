//! How long a broker waits before it delivers a message again.

use std::fmt;
use std::time::Duration;

/// One of a broker's 18 delays.
///
/// The times are those of `messageDelayLevel` in a broker's configuration, of which the names of the constants show
/// the default: `1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h`.
///
/// Source: `protocol.md` section 4.10.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DelayLevel(u8);

/// A number that is no delay level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{level} is not a delay level: they go from 1 (1s) to 18 (2h)")]
pub struct DelayLevelError {
    level: u8,
}

impl DelayLevel {
    /// Level 1: one second.
    pub const S1: Self = Self(1);
    /// Level 2: five seconds.
    pub const S5: Self = Self(2);
    /// Level 3: ten seconds.
    pub const S10: Self = Self(3);
    /// Level 4: thirty seconds.
    pub const S30: Self = Self(4);
    /// Level 5: one minute.
    pub const M1: Self = Self(5);
    /// Level 6: two minutes.
    pub const M2: Self = Self(6);
    /// Level 7: three minutes.
    pub const M3: Self = Self(7);
    /// Level 8: four minutes.
    pub const M4: Self = Self(8);
    /// Level 9: five minutes.
    pub const M5: Self = Self(9);
    /// Level 10: six minutes.
    pub const M6: Self = Self(10);
    /// Level 11: seven minutes.
    pub const M7: Self = Self(11);
    /// Level 12: eight minutes.
    pub const M8: Self = Self(12);
    /// Level 13: nine minutes.
    pub const M9: Self = Self(13);
    /// Level 14: ten minutes.
    pub const M10: Self = Self(14);
    /// Level 15: twenty minutes.
    pub const M20: Self = Self(15);
    /// Level 16: thirty minutes.
    pub const M30: Self = Self(16);
    /// Level 17: one hour.
    pub const H1: Self = Self(17);
    /// Level 18: two hours.
    pub const H2: Self = Self(18);

    /// Level `level`, from 1 to 18.
    ///
    /// # Errors
    ///
    /// Where there is no such level.
    pub const fn new(level: u8) -> Result<Self, DelayLevelError> {
        if matches!(level, 1..=18) { Ok(Self(level)) } else { Err(DelayLevelError { level }) }
    }

    /// The number that travels.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The time that a broker waits unless it was configured otherwise.
    pub fn default_delay(self) -> Duration {
        const SECONDS: [u64; 18] =
            [1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200];
        let seconds = SECONDS.get(usize::from(self.0) - 1);
        Duration::from_secs(seconds.copied().unwrap_or_default())
    }
}

impl fmt::Display for DelayLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_go_from_1_to_18() {
        for level in [0, 19, 255] {
            let error = DelayLevel::new(level).unwrap_err().to_string();
            assert_eq!(error, format!("{level} is not a delay level: they go from 1 (1s) to 18 (2h)"));
        }
        assert_eq!(DelayLevel::new(1), Ok(DelayLevel::S1));
        assert_eq!(DelayLevel::new(18), Ok(DelayLevel::H2));
    }

    #[test]
    fn names_are_times() {
        for (level, seconds) in [
            (DelayLevel::S1, 1),
            (DelayLevel::S30, 30),
            (DelayLevel::M1, 60),
            (DelayLevel::M10, 600),
            (DelayLevel::M30, 1800),
            (DelayLevel::H2, 7200),
        ] {
            assert_eq!(level.default_delay(), Duration::from_secs(seconds), "level {level}");
        }
    }
}
