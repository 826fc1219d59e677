//! Which queue gets the next message. Source: `behaviour.md` section 2.6.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::message::MessageQueue;

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
        let pick = || queues.get(self.0.fetch_add(1, Ordering::Relaxed).checked_rem(queues.len())?);
        let first = pick()?;
        if failed != Some(first.broker_name.as_ref()) {
            return Some(first);
        }
        let other =
            (1..queues.len()).filter_map(|_| pick()).find(|queue| failed != Some(queue.broker_name.as_ref()));
        other.or(Some(first))
    }
}

#[cfg(test)]
mod tests {
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
}
