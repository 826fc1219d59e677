//! Which member of a group may consume a queue in order. Source: `RebalanceLockManager`.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::message::MessageQueue;

/// A lock that was not renewed for so long is free.
const LOCK_LIFE: Duration = Duration::from_secs(60);
/// More queues than a group has: what a client asks for beyond is refused.
const MAX_LOCKS_PER_GROUP: usize = 65_536;

/// The locks of all groups.
#[derive(Debug, Default)]
pub(super) struct Locks(HashMap<String, HashMap<MessageQueue, Lock>>);

#[derive(Debug)]
struct Lock {
    client_id: String,
    renewed: Instant,
}

impl Lock {
    fn has_expired(&self, now: Instant) -> bool {
        LOCK_LIFE < now.saturating_duration_since(self.renewed)
    }
}

impl Locks {
    /// Takes or renews the locks of `queues` where no other member holds them; returns those that it now holds.
    pub(super) fn lock(
        &mut self,
        group: &str,
        client_id: &str,
        queues: Vec<MessageQueue>,
        now: Instant,
    ) -> Vec<MessageQueue> {
        let locks = self.0.entry(group.to_owned()).or_default();
        locks.retain(|_, lock| !lock.has_expired(now));
        let mut held = Vec::with_capacity(queues.len().min(MAX_LOCKS_PER_GROUP));
        for queue in queues {
            let is_free = match locks.get(&queue) {
                Some(lock) => lock.client_id == client_id,
                None => locks.len() < MAX_LOCKS_PER_GROUP,
            };
            if is_free {
                locks.insert(queue.clone(), Lock { client_id: client_id.to_owned(), renewed: now });
                held.push(queue);
            }
        }
        held
    }

    /// Frees what this member holds of `queues`.
    pub(super) fn unlock(&mut self, group: &str, client_id: &str, queues: &[MessageQueue]) {
        let Some(locks) = self.0.get_mut(group) else { return };
        for queue in queues {
            if locks.get(queue).is_some_and(|lock| lock.client_id == client_id) {
                locks.remove(queue);
            }
        }
    }

    /// Whether a member of the group consumes in order now.
    pub(super) fn has_any(&self, group: &str, now: Instant) -> bool {
        self.0.get(group).is_some_and(|locks| locks.values().any(|lock| !lock.has_expired(now)))
    }

    /// Forgets the groups without a lock.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.0.retain(|_, locks| locks.values().any(|lock| !lock.has_expired(now)));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_keeps_others_out_until_it_is_freed_or_expires() {
        let mut locks = Locks::default();
        let queues = || vec![MessageQueue::new("t", "broker-a", 0)];
        let start = Instant::now();
        assert_eq!(locks.lock("g", "a", queues(), start), queues());
        assert_eq!(locks.lock("g", "b", queues(), start), []);
        assert_eq!(locks.lock("other", "b", queues(), start), queues());
        assert_eq!(locks.lock("g", "a", queues(), start + LOCK_LIFE), queues());
        assert_eq!(locks.lock("g", "b", queues(), start + 2 * LOCK_LIFE), []);
        let later = start + 2 * LOCK_LIFE + Duration::from_millis(1);
        assert!(!locks.has_any("g", later));
        assert_eq!(locks.lock("g", "b", queues(), later), queues());
        locks.unlock("g", "a", &queues());
        assert!(locks.has_any("g", later));
        locks.unlock("g", "b", &queues());
        assert!(!locks.has_any("g", later));
    }
}
