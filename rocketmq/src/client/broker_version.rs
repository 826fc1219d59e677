//! Which release a broker is, as far as it matters: some do silently nothing with what they do not know.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::MqClient;
use crate::remoting::{Address, RequestError};

/// The number by which a release calls itself in every answer. Source: `protocol.md` section 1.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BrokerVersion(pub(crate) i32);

impl BrokerVersion {
    /// The first release with timer messages.
    pub(crate) const V5_0_0: Self = Self(413);
    /// The first release that keeps the properties of a batch out of its messages.
    pub(crate) const V5_4_0: Self = Self(493);
}

/// As people know it, where errors are likely to name it. A snapshot counts one less than its release.
impl fmt::Display for BrokerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            392..=411 => write!(f, "4.9.{}", (self.0 - 392) / 2),
            ..413 => write!(f, "older than 5.0 (version number {})", self.0),
            _ => write!(f, "5.x (version number {})", self.0),
        }
    }
}

/// What brokers said in their last answers to heartbeats, by address.
#[derive(Debug, Default)]
pub(super) struct BrokerVersions(Mutex<HashMap<Address, BrokerVersion>>);

impl BrokerVersions {
    pub(super) fn note(&self, address: &Address, version: i32) {
        self.lock().insert(Arc::clone(address), BrokerVersion(version));
    }

    /// The broker has been connected anew: it may be another release by now, and does not know this client.
    pub(super) fn forget(&self, address: &Address) {
        self.lock().remove(address);
    }

    pub(super) fn retain(&self, keep: impl Fn(&Address) -> bool) {
        self.lock().retain(|address, _| keep(address));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Address, BrokerVersion>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MqClient {
    /// Whether the broker at `address` has heard of this client since it was connected.
    pub(super) fn is_known_to(&self, address: &Address) -> bool {
        self.versions.lock().contains_key(address)
    }

    /// The release of the broker at `address`: known from its heartbeats, and asked for by one if there was none yet.
    pub(crate) async fn broker_version(
        &self,
        address: &Address,
        limit: Duration,
    ) -> Result<BrokerVersion, RequestError> {
        let known = self.versions.lock().get(address).copied();
        match known {
            Some(version) => Ok(version),
            None => self.heartbeat(address, limit).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_named_as_people_know_them() {
        for (number, name) in [
            (393, "4.9.0"),
            (406, "4.9.7"),
            (407, "4.9.7"),
            (275, "older than 5.0 (version number 275)"),
            (513, "5.x (version number 513)"),
        ] {
            assert_eq!(BrokerVersion(number).to_string(), name);
        }
        assert!(BrokerVersion(407) < BrokerVersion::V5_0_0 && BrokerVersion::V5_0_0 <= BrokerVersion(513));
    }
}
