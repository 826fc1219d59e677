//! Which queue gets the next message. Source: `behaviour.md` section 2.6.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

use super::faults::Faults;
use crate::message::{MessageQueue, tag};

/// One queue after the other, beginning anywhere, so that producers do not march in step.
#[derive(Debug)]
pub(super) struct RoundRobin(AtomicUsize);

impl Default for RoundRobin {
    fn default() -> Self {
        Self(AtomicUsize::new(fastrand::usize(..1 << 16)))
    }
}

impl RoundRobin {
    /// The next of `queues`; after a failure one of another broker than `failed`, if there is one.
    pub(super) fn next<'a>(
        &self,
        queues: &'a [MessageQueue],
        failed: Option<&str>,
    ) -> Option<&'a MessageQueue> {
        self.find(queues, |queue| failed != Some(queue.broker_name.as_ref())).or_else(|| self.pick(queues))
    }

    /// The same, but before all others one of a broker that is well, then one of a broker that can be reached.
    pub(super) fn next_avoiding<'a>(
        &self,
        queues: &'a [MessageQueue],
        failed: Option<&str>,
        faults: &Faults,
        now: Instant,
    ) -> Option<&'a MessageQueue> {
        let is_other = |queue: &MessageQueue| failed != Some(queue.broker_name.as_ref());
        self.find(queues, |queue| is_other(queue) && faults.is_available(&queue.broker_name, now))
            .or_else(|| self.find(queues, |queue| is_other(queue) && faults.is_reachable(&queue.broker_name)))
            .or_else(|| self.pick(queues))
    }

    /// The next of `queues` that is `good`; all of them get their turn.
    fn find<'a>(
        &self,
        queues: &'a [MessageQueue],
        good: impl Fn(&MessageQueue) -> bool,
    ) -> Option<&'a MessageQueue> {
        (0..queues.len()).filter_map(|_| self.pick(queues)).find(|queue| good(queue))
    }

    fn pick<'a>(&self, queues: &'a [MessageQueue]) -> Option<&'a MessageQueue> {
        queues.get(self.0.fetch_add(1, Ordering::Relaxed).checked_rem(queues.len())?)
    }
}

/// The queue of all messages with this sharding key. Source: `SelectMessageQueueByHash`.
pub(super) fn of_key<'a>(queues: &'a [MessageQueue], sharding_key: &str) -> Option<&'a MessageQueue> {
    let count = i32::try_from(queues.len()).ok()?;
    let at = tag::hash(sharding_key).checked_rem(count)?.unsigned_abs();
    queues.get(at as usize)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::faults::Sign;
    use super::*;

    fn queues(brokers: &[&str]) -> Vec<MessageQueue> {
        brokers.iter().enumerate().map(|(id, broker)| MessageQueue::new("t", *broker, id as i32)).collect()
    }

    #[test]
    fn every_queue_gets_its_turn() {
        let (choice, queues) = (RoundRobin::default(), queues(&["a", "a", "b"]));
        let mut ids: Vec<_> = (0..3).map(|_| choice.next(&queues, None).unwrap().queue_id).collect();
        ids.sort_unstable();
        assert_eq!(ids, [0, 1, 2]);
    }

    #[test]
    fn a_broker_that_failed_is_avoided_while_there_is_another() {
        let choice = RoundRobin::default();
        for _ in 0..10 {
            assert_eq!(choice.next(&queues(&["a", "a", "b"]), Some("a")).unwrap().broker_name.as_ref(), "b");
            assert!(choice.next(&queues(&["a", "a"]), Some("a")).is_some());
        }
        assert!(choice.next(&[], None).is_none());
    }

    #[test]
    fn brokers_that_are_well_come_before_those_that_can_be_reached_before_all_others() {
        let (choice, faults, now) = (RoundRobin::default(), Faults::default(), Instant::now());
        let queues = queues(&["silent", "slow", "well"]);
        let next =
            |failed| choice.next_avoiding(&queues, failed, &faults, now).unwrap().broker_name.to_string();
        faults.note(&"silent".into(), Sign::Silent, true, now);
        faults.note(&"slow".into(), Sign::Took(Duration::from_secs(2)), true, now);
        for _ in 0..5 {
            assert_eq!(next(None), "well");
            assert_eq!(next(Some("well")), "slow");
        }
        faults.note(&"well".into(), Sign::Refused, true, now);
        faults.note(&"slow".into(), Sign::Refused, true, now);
        let all: std::collections::HashSet<_> = (0..3).map(|_| next(None)).collect();
        assert!(!all.is_empty(), "somebody has to get the message");
    }

    #[test]
    fn a_key_has_the_queue_that_it_has_in_java() {
        // `Math.abs(key.hashCode() % n)` of the strings.
        for (key, count, expected) in
            [("TagA", 4, 3), ("order-created", 4, 3), ("a", 3, 1), ("", 3, 0), ("order-created", 7, 3)]
        {
            let queues = queues(&vec!["a"; count]);
            assert_eq!(of_key(&queues, key).unwrap().queue_id, expected, "{key} of {count}");
        }
        assert!(of_key(&[], "a").is_none());
    }
}
