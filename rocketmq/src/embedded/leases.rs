//! Messages that were popped: nobody else sees them until their time is up or they are acknowledged.
//!
//! Source: `PopCheckPoint`, `PopReviveService`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::time::Instant;

/// Messages that may be unacknowledged at a time; nothing is handed out beyond.
const MAX_LEASES: usize = 100_000;

/// One handing out of one message.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct LeaseKey {
    pub(super) group: Arc<str>,
    /// The one that the message stands in.
    pub(super) topic: Arc<str>,
    pub(super) queue_id: i32,
    pub(super) offset: i64,
    /// Tells it from the one before: an old handle does nothing to a new lease.
    pub(super) pop_time: i64,
}

/// All messages that were popped and not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Leases {
    ends: HashMap<LeaseKey, Instant>,
    by_end: BTreeSet<(Instant, LeaseKey)>,
}

impl Leases {
    /// How many more there may be.
    pub(super) fn room(&self) -> usize {
        MAX_LEASES.saturating_sub(self.ends.len())
    }

    pub(super) fn put(&mut self, key: LeaseKey, end: Instant) {
        self.remove(&key);
        self.by_end.insert((end, key.clone()));
        self.ends.insert(key, end);
    }

    /// Ends a lease, if there is such a one.
    pub(super) fn remove(&mut self, key: &LeaseKey) {
        if let Some(end) = self.ends.remove(key) {
            self.by_end.remove(&(end, key.clone()));
        }
    }

    /// Takes out one whose time is up.
    pub(super) fn next_over(&mut self, now: Instant) -> Option<LeaseKey> {
        let (_, key) = self.by_end.first().filter(|(end, _)| *end <= now)?.clone();
        self.remove(&key);
        Some(key)
    }

    pub(super) fn next_end(&self) -> Option<Instant> {
        self.by_end.first().map(|(end, _)| *end)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(offset: i64, pop_time: i64) -> LeaseKey {
        LeaseKey { group: "g".into(), topic: "t".into(), queue_id: 0, offset, pop_time }
    }

    #[test]
    fn what_is_not_acknowledged_is_over_in_its_time_and_an_old_handle_does_nothing_to_a_new_lease() {
        let (mut leases, start) = (Leases::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        leases.put(key(1, 10), after(5));
        leases.put(key(2, 10), after(3));
        leases.put(key(3, 10), after(1));
        leases.remove(&key(3, 10));
        // Put off: a new handle.
        leases.remove(&key(2, 10));
        leases.put(key(2, 20), after(9));
        leases.remove(&key(2, 10));
        assert_eq!(leases.next_end(), Some(after(5)));
        assert_eq!(leases.next_over(after(4)), None);
        assert_eq!(leases.next_over(after(9)), Some(key(1, 10)));
        assert_eq!(leases.next_over(after(9)), Some(key(2, 20)));
        assert_eq!((leases.next_over(after(99)), leases.room()), (None, MAX_LEASES));
    }
}
