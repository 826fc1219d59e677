use std::fmt;
use std::str::FromStr;

use anyhow::{Error, bail};

/// A release of Apache RocketMQ that the tests run against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Version {
    /// The newest 5.x.
    V5_5_0,
    /// The 4.9 line, as many clusters still run it.
    V4_9_7,
}

impl Version {
    /// Every release, the newest first.
    pub const ALL: [Self; 2] = [Self::V5_5_0, Self::V4_9_7];

    /// As Maven Central spells it, `5.5.0`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V5_5_0 => "5.5.0",
            Self::V4_9_7 => "4.9.7",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Version {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match Self::ALL.into_iter().find(|version| version.as_str() == text) {
            Some(version) => Ok(version),
            None => bail!("no tests run against RocketMQ {text:?}, only 5.5.0 and 4.9.7"),
        }
    }
}
