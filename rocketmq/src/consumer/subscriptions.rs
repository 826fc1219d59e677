//! All that a consumer subscribes to, and which of its listeners gets a message: the one whose topic and tag match, `*`
//! taking the rest.
//!
//! It may change while the consumer runs. The table is replaced as a whole, so that an answer is sorted by one table; what
//! waits in the queues keeps the listener that it came for. Source: `api.md` section 5, `behaviour.md` section 3.2.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard};

use super::subscription::{Subscription, union};
use crate::client::namespace;
use crate::listener::{Filter, Handler};
use crate::protocol::body::SubscriptionData;

/// Of so many topics that are not subscribed any more it is known who had them.
const MAX_FORMER: usize = 1_024;

/// All that a consumer subscribes to.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    table: Mutex<Arc<Table>>,
    /// Held while brokers are told what has changed: they work on the requests of a connection in any order, and an older
    /// list of topics must not come after a newer one.
    turn: AsyncMutex<()>,
    retry_topic: Arc<str>,
    namespace: Option<String>,
}

/// What is subscribed at a moment.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    /// By the topic on the wire.
    topics: BTreeMap<Arc<str>, Wanted>,
    /// The only listener of each topic that is not subscribed any more: messages of it may still be delivered again.
    former: VecDeque<(Arc<str>, Handler)>,
    /// The newest version in it: brokers take no subscription that is not newer than the one before.
    version: i64,
}

/// What is wanted of one topic.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) data: SubscriptionData,
    /// Those with tags before the one that takes the rest.
    listeners: Vec<Listener>,
}

#[derive(Debug, Clone)]
struct Listener {
    filter: Filter,
    handler: Handler,
    place: String,
}

impl Subscriptions {
    /// `group` is the name on the wire. The conflicts have been looked for ([`conflicts`](super::conflicts)).
    pub(crate) fn new(all: Vec<Subscription>, group: &str, namespace: Option<&str>) -> Self {
        let mut by_topic: BTreeMap<Arc<str>, Vec<Listener>> = BTreeMap::new();
        for Subscription { topic, filter, handler, place } in all {
            let topic = namespace::wrap(namespace, &topic);
            by_topic.entry(topic).or_default().push(Listener { filter, handler, place });
        }
        let retry_topic = namespace::retry_topic(group);
        by_topic.insert(Arc::clone(&retry_topic), Vec::new());
        let version = now_ms();
        let wanted = |(topic, listeners)| (Arc::clone(&topic), Wanted::new(&topic, listeners, version));
        let topics = by_topic.into_iter().map(wanted).collect();
        let table = Table { topics, former: VecDeque::new(), version };
        let (table, turn) = (Mutex::new(Arc::new(table)), AsyncMutex::default());
        Self { table, turn, retry_topic, namespace: namespace.map(str::to_owned) }
    }

    /// The same without the retry topic, for a group in which nothing is delivered again.
    pub(crate) fn without_retries(self) -> Self {
        self.change(|table| table.topics.remove(&self.retry_topic));
        self
    }

    /// For one change at a time, with all that follows from it.
    pub(super) async fn turn(&self) -> AsyncMutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// What is subscribed now. For one look at it: per pull, not per message.
    pub(crate) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.lock())
    }

    pub(crate) fn retry_topic(&self) -> &Arc<str> {
        &self.retry_topic
    }

    pub(crate) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    /// What heartbeats say.
    pub(crate) fn data(&self) -> Vec<SubscriptionData> {
        self.table().topics.values().map(|wanted| wanted.data.clone()).collect()
    }

    /// What brokers would hear of a subscription.
    pub(super) fn data_of(&self, topic: &str, filter: &Filter) -> SubscriptionData {
        union(&namespace::wrap(self.namespace.as_deref(), topic), &[filter], self.table().version)
    }

    /// Subscribes a topic, in place of what was subscribed of it.
    pub(super) fn subscribe(&self, subscription: Subscription) {
        let Subscription { topic, filter, handler, place } = subscription;
        let topic = namespace::wrap(self.namespace.as_deref(), &topic);
        self.change(|table| {
            table.version = now_ms().max(table.version + 1);
            let wanted = Wanted::new(&topic, vec![Listener { filter, handler, place }], table.version);
            table.topics.insert(Arc::clone(&topic), wanted);
            table.former.retain(|(former, _)| *former != topic);
        });
    }

    /// Takes nothing more of a topic; its name on the wire, where it was subscribed.
    pub(super) fn unsubscribe(&self, topic: &str) -> Option<Arc<str>> {
        let topic = namespace::wrap(self.namespace.as_deref(), topic);
        if topic == self.retry_topic {
            return None;
        }
        self.change(|table| {
            let Wanted { mut listeners, .. } = table.topics.remove(&topic)?;
            if let (Some(only), true) = (listeners.pop(), listeners.is_empty()) {
                table.former.push_back((Arc::clone(&topic), only.handler));
                table.former.drain(..table.former.len().saturating_sub(MAX_FORMER));
            }
            Some(topic)
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let mut current = self.lock();
        let mut table = Table::clone(&current);
        let changed = change(&mut table);
        *current = Arc::new(table);
        changed
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Table>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// All topics on the wire, the retry topic among them.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &Arc<str>> {
        self.topics.keys()
    }

    pub(crate) fn wanted(&self, topic: &str) -> Option<&Wanted> {
        self.topics.get(topic)
    }

    /// The version of what is wanted of a topic, which each change of it makes another one.
    pub(crate) fn version(&self, topic: &str) -> Option<i64> {
        self.wanted(topic).map(|wanted| wanted.data.sub_version)
    }

    /// Where the first listener of `topic` was declared.
    pub(crate) fn place(&self, topic: &str) -> Option<&str> {
        self.wanted(topic)?.listeners.first().map(|listener| listener.place.as_str())
    }

    /// The listener of a message of `topic`, as it is on the wire, with this tag.
    ///
    /// The tag is asked for only where it matters: a topic with one listener for everything needs none.
    pub(crate) fn listener<'a>(&self, topic: &str, tag: impl Fn() -> Option<&'a str>) -> Option<&Handler> {
        self.wanted(topic)?.listener(tag)
    }

    /// The listener of a message of `topic` that is delivered again. The group wanted it once: where the topic has one
    /// listener only, that one gets it, whatever its tags are by now, as with the Java client; so does the one that was
    /// the only one when the topic was unsubscribed.
    pub(crate) fn listener_of_retried<'a>(
        &self,
        topic: &str,
        tag: impl Fn() -> Option<&'a str>,
    ) -> Option<&Handler> {
        let Some(wanted) = self.wanted(topic) else {
            let former = self.former.iter().find(|(former, _)| former.as_ref() == topic);
            return former.map(|(_, handler)| handler);
        };
        match wanted.listeners.as_slice() {
            [only] => Some(&only.handler),
            _ => wanted.listener(tag),
        }
    }
}

impl Wanted {
    fn new(topic: &str, mut listeners: Vec<Listener>, version: i64) -> Self {
        listeners.sort_by_key(|listener| listener.filter.tags().is_empty());
        let filters: Vec<_> = listeners.iter().map(|listener| &listener.filter).collect();
        let data = union(topic, &filters, version);
        Self { data, listeners }
    }

    /// The listener of a message with this tag.
    pub(crate) fn listener<'a>(&self, tag: impl Fn() -> Option<&'a str>) -> Option<&Handler> {
        match self.listeners.as_slice() {
            [only] if only.filter.tags().is_empty() => Some(&only.handler),
            several => {
                let tag = tag();
                several.iter().find(|one| one.filter.accepts(tag)).map(|one| &one.handler)
            }
        }
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::subscription::tests::tags;

    #[test]
    fn a_message_goes_to_the_listener_of_its_tag_and_the_rest_to_the_star() {
        let all = vec![tags("t", "*"), tags("t", "a || b"), tags("t", "c"), tags("u", "a")];
        let table = Subscriptions::new(all, "g", None).table();
        for (topic, tag, listener) in [
            ("t", Some("b"), Some("on_t a || b")),
            ("t", Some("c"), Some("on_t c")),
            ("t", Some("d"), Some("on_t *")),
            ("t", None, Some("on_t *")),
            ("u", Some("a"), Some("on_u a")),
            ("u", Some("b"), None),
            ("u", None, None),
            ("v", Some("a"), None),
        ] {
            assert_eq!(table.listener(topic, || tag).map(Handler::name), listener, "{topic} {tag:?}");
        }
    }

    #[test]
    fn a_retried_message_goes_to_the_only_listener_of_its_topic_whatever_its_tag() {
        let all = vec![tags("t", "a"), tags("t", "b"), tags("u", "a")];
        let table = Subscriptions::new(all, "g", None).table();
        for (topic, tag, listener) in [
            ("t", Some("b"), Some("on_t b")),
            ("t", Some("c"), None),
            ("u", Some("a"), Some("on_u a")),
            ("u", Some("b"), Some("on_u a")),
            ("u", None, Some("on_u a")),
            ("v", Some("a"), None),
        ] {
            let found = table.listener_of_retried(topic, || tag).map(Handler::name);
            assert_eq!(found, listener, "{topic} {tag:?}");
        }
    }

    #[test]
    fn brokers_hear_the_union() {
        let all = vec![tags("t", "a || b"), tags("t", "c"), tags("u", "*"), tags("u", "x")];
        let subscriptions = Subscriptions::new(all, "g", None);
        let data: Vec<_> = subscriptions
            .data()
            .into_iter()
            .map(|data| (data.topic, data.sub_string, data.code_set))
            .collect();
        assert_eq!(
            data,
            [
                ("%RETRY%g".into(), "*".into(), vec![]),
                ("t".into(), "a || b || c".into(), vec![97, 98, 99]),
                ("u".into(), "*".into(), vec![]),
            ]
        );
    }

    #[test]
    fn topics_are_wrapped_in_their_namespace() {
        let subscriptions = Subscriptions::new(vec![tags("t", "*")], "ns%g", Some("ns"));
        subscriptions.subscribe(tags("u", "*"));
        let table = subscriptions.table();
        let topics: Vec<_> = table.topics().map(|topic| topic.as_ref()).collect();
        assert_eq!(topics, ["%RETRY%ns%g", "ns%t", "ns%u"]);
        assert_eq!(subscriptions.unsubscribe("u").as_deref(), Some("ns%u"));
    }

    #[test]
    fn a_topic_may_come_go_and_change_and_each_time_its_version_is_a_newer_one() {
        let subscriptions = Subscriptions::new(vec![tags("t", "a"), tags("u", "*")], "g", None);
        let version = |topic: &str| subscriptions.table().version(topic);
        let before = version("t");
        subscriptions.subscribe(tags("t", "b"));
        let changed = version("t");
        assert!(subscriptions.unsubscribe("t").is_some() && version("t").is_none());
        assert!(subscriptions.unsubscribe("t").is_none(), "it is not subscribed any more");
        subscriptions.subscribe(tags("t", "c"));
        assert!(before < changed && changed < version("t"));
        assert_eq!(version("u"), before, "nothing is different about it");
        let table = subscriptions.table();
        assert_eq!(table.listener("t", || Some("c")).map(Handler::name), Some("on_t c"));
        assert_eq!(table.listener("t", || Some("a")), None);
    }

    #[test]
    fn what_is_retried_of_a_topic_that_was_left_goes_to_the_only_listener_that_it_had() {
        let all = vec![tags("t", "a"), tags("u", "a"), tags("u", "b")];
        let subscriptions = Subscriptions::new(all, "g", None);
        subscriptions.unsubscribe("t");
        subscriptions.unsubscribe("u");
        let table = subscriptions.table();
        assert_eq!(table.listener_of_retried("t", || None).map(Handler::name), Some("on_t a"));
        assert_eq!(table.listener_of_retried("u", || Some("a")), None, "it had two");
        assert_eq!(table.listener("t", || Some("a")), None, "what is new is not wanted");
        for number in 0..MAX_FORMER {
            subscriptions.subscribe(tags(&number.to_string(), "*"));
            subscriptions.unsubscribe(&number.to_string());
        }
        assert_eq!(subscriptions.table().former.len(), MAX_FORMER);
        assert_eq!(subscriptions.table().listener_of_retried("t", || None), None, "too long ago");
    }

    #[test]
    fn the_retry_topic_is_not_to_be_left() {
        let subscriptions = Subscriptions::new(vec![tags("t", "*")], "g", None);
        assert_eq!(subscriptions.unsubscribe("%RETRY%g"), None);
        assert!(subscriptions.table().wanted("%RETRY%g").is_some());
    }
}
