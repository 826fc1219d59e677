//! What a producer has sent, by topic.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::SendError;
use crate::client::namespace;
use crate::message::Message;

/// What a producer has sent to one topic since it was started. All of it only ever grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicStats {
    /// Messages that a broker said it has stored.
    pub sent: u64,
    /// Messages that were sent without waiting for an answer.
    pub oneway: u64,
    /// Messages that were not sent, or are not known to have been; but for those that broke a rule. Sends that their
    /// callers gave up do not count at all.
    pub failed: u64,
    /// Attempts beyond the first of a message or a batch.
    pub retries: u64,
    /// Bytes of the bodies of `sent` and `oneway`, before compression.
    pub bytes: u64,
    /// How long the calls for `sent` took together, from the call to its result.
    pub latency: Duration,
    /// How long the longest of them took.
    pub max_latency: Duration,
}

impl TopicStats {
    /// How long a call took on average; zero where none has succeeded yet.
    pub fn mean_latency(&self) -> Duration {
        let mean = self.latency.as_nanos().checked_div(self.sent.into()).unwrap_or_default();
        Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX))
    }
}

/// The topics that a producer has sent to.
#[derive(Debug)]
pub(super) struct Topics {
    namespace: Option<String>,
    by_name: Mutex<HashMap<Arc<str>, Arc<Topic>>>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Topic {
    /// As its senders know it.
    pub(super) name: Arc<str>,
    pub(super) wire_name: Arc<str>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    oneway: AtomicU64,
    failed: AtomicU64,
    retries: AtomicU64,
    bytes: AtomicU64,
    latency_us: AtomicU64,
    max_latency_us: AtomicU64,
}

/// So many messages with so many bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Amount {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

impl Topics {
    pub(super) fn new(namespace: Option<&str>) -> Self {
        Self { namespace: namespace.map(str::to_owned), by_name: Mutex::default() }
    }

    /// The topic that the sender knows by `name`.
    pub(super) fn get(&self, name: &str) -> Arc<Topic> {
        self.get_in(self.namespace.as_deref(), name)
    }

    /// The topic of `message`. That of replies belongs to the brokers, and is in no namespace.
    pub(super) fn of(&self, message: &Message) -> Arc<Topic> {
        let namespace = self.namespace.as_deref().filter(|_| !message.is_reply());
        self.get_in(namespace, message.topic())
    }

    fn get_in(&self, namespace: Option<&str>, name: &str) -> Arc<Topic> {
        let mut topics = self.lock();
        if let Some(topic) = topics.get(name) {
            return Arc::clone(topic);
        }
        let (name, wire_name) = (Arc::from(name), namespace::wrap(namespace, name));
        let topic = Arc::new(Topic { name: Arc::clone(&name), wire_name, counts: Counts::default() });
        topics.insert(name, Arc::clone(&topic));
        topic
    }

    pub(super) fn stats(&self) -> BTreeMap<String, TopicStats> {
        self.lock().iter().map(|(name, topic)| (name.to_string(), topic.counts.read())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Topic>>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Topic {
    /// Counts a call that waited for its answer and got one, or an error.
    pub(super) fn count<T>(&self, amount: Amount, took: Duration, result: &Result<T, SendError>) {
        if result.is_err() {
            return self.count_failed(amount, result);
        }
        let (messages, us) = (amount.messages as u64, took.as_micros() as u64);
        add(&self.counts.sent, messages);
        add(&self.counts.bytes, amount.bytes as u64);
        // Each message of a batch took as long as the batch.
        add(&self.counts.latency_us, us * messages);
        self.counts.max_latency_us.fetch_max(us, Ordering::Relaxed);
    }

    /// Counts a call that did not wait for an answer.
    pub(super) fn count_oneway(&self, amount: Amount, result: &Result<(), SendError>) {
        if result.is_err() {
            return self.count_failed(amount, result);
        }
        add(&self.counts.oneway, amount.messages as u64);
        add(&self.counts.bytes, amount.bytes as u64);
    }

    fn count_failed<T>(&self, amount: Amount, result: &Result<T, SendError>) {
        if !matches!(result, Err(SendError::Message(_))) {
            add(&self.counts.failed, amount.messages as u64);
        }
    }

    pub(super) fn count_retry(&self) {
        add(&self.counts.retries, 1);
    }
}

impl Counts {
    fn read(&self) -> TopicStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TopicStats {
            sent: count(&self.sent),
            oneway: count(&self.oneway),
            failed: count(&self.failed),
            retries: count(&self.retries),
            bytes: count(&self.bytes),
            latency: Duration::from_micros(count(&self.latency_us)),
            max_latency: Duration::from_micros(count(&self.max_latency_us)),
        }
    }
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MessageError;

    #[test]
    fn each_topic_is_counted_under_the_name_that_the_sender_knows() {
        let topics = Topics::new(Some("ns"));
        let topic = topics.get("orders");
        assert_eq!(topic.wire_name.as_ref(), "ns%orders");
        topic.count(Amount { messages: 2, bytes: 10 }, Duration::from_millis(4), &Ok(()));
        topic.count(Amount { messages: 1, bytes: 5 }, Duration::from_millis(1), &Ok(()));
        let failed = SendError::NotRunning { group: "g".into(), state: "sleeps" };
        let amount = Amount { messages: 3, bytes: 1 };
        topics.get("orders").count::<()>(amount, Duration::ZERO, &Err(failed));
        let refused = MessageError::Batch { rule: "it is empty" };
        topics.get("orders").count::<()>(amount, Duration::ZERO, &Err(refused.into()));
        let stats = topics.stats()["orders"];
        assert_eq!((stats.sent, stats.failed, stats.bytes), (3, 3, 15));
        assert_eq!(
            (stats.mean_latency(), stats.max_latency),
            (Duration::from_millis(3), Duration::from_millis(4))
        );
        assert_eq!(TopicStats::default().mean_latency(), Duration::ZERO);
    }
}
