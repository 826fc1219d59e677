//! What a group subscribes to, and which of its listeners gets a message.
//!
//! All listeners of a group are one consumer. Its subscription of a topic is the union of theirs, which is what
//! brokers hear; a message then goes to the one listener whose topic and tag match, `*` taking the rest. Source:
//! `api.md` section 5, `behaviour.md` section 3.2.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::client::namespace;
use crate::listener::{ExpressionType, Filter, Handler};
use crate::message::tag;
use crate::protocol::body::SubscriptionData;

/// One listener's wish: these messages of this topic.
#[derive(Debug, Clone)]
pub(crate) struct Subscription {
    /// The topic as the user writes it.
    pub(crate) topic: Arc<str>,
    pub(crate) filter: Filter,
    pub(crate) handler: Handler,
    /// Where it was declared, for people: `app::on_order (src/main.rs:12)`.
    pub(crate) place: String,
}

/// Two listeners of a group that could get the same message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct Conflict {
    /// The topic of both.
    pub topic: String,
    /// The first listener and its filter.
    pub first: String,
    /// The second listener and its filter.
    pub second: String,
    /// What is wrong about the two.
    pub reason: &'static str,
    /// What to do about it.
    pub advice: &'static str,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, first, second, reason, advice } = self;
        write!(f, "{reason} of {topic}: {first}, and {second}; {advice}")
    }
}

/// Everything that a consumer subscribes to; fixed once it runs.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    all: Vec<Subscription>,
    /// By the topic on the wire: which of `all` take its messages.
    topics: BTreeMap<Arc<str>, Wanted>,
    retry_topic: Arc<str>,
    namespace: Option<String>,
}

/// What is wanted of one topic.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) data: SubscriptionData,
    /// Places in the list of all subscriptions; those with tags before the one that takes the rest.
    listeners: Vec<usize>,
}

impl Subscriptions {
    /// `group` is the name on the wire. The conflicts have been looked for ([`conflicts`]).
    pub(crate) fn new(all: Vec<Subscription>, group: &str, namespace: Option<&str>) -> Self {
        let version = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        let mut by_topic: BTreeMap<Arc<str>, Vec<usize>> = BTreeMap::new();
        for (at, subscription) in all.iter().enumerate() {
            by_topic.entry(namespace::wrap(namespace, &subscription.topic)).or_default().push(at);
        }
        let mut topics: BTreeMap<_, _> = by_topic
            .into_iter()
            .map(|(topic, mut listeners)| {
                listeners.sort_by_key(|at| all[*at].filter.tags().is_empty());
                let filters: Vec<_> = listeners.iter().map(|at| &all[*at].filter).collect();
                let data = union(&topic, &filters, version);
                (topic, Wanted { data, listeners })
            })
            .collect();
        let retry_topic = namespace::retry_topic(group);
        let data = union(&retry_topic, &[], version);
        topics.insert(Arc::clone(&retry_topic), Wanted { data, listeners: Vec::new() });
        Self { all, topics, retry_topic, namespace: namespace.map(str::to_owned) }
    }

    /// The same without the retry topic, for a group in which nothing is delivered again.
    pub(crate) fn without_retries(mut self) -> Self {
        self.topics.remove(&self.retry_topic);
        self
    }

    pub(crate) fn retry_topic(&self) -> &Arc<str> {
        &self.retry_topic
    }

    pub(crate) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    /// All topics on the wire, the retry topic among them.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &Arc<str>> {
        self.topics.keys()
    }

    pub(crate) fn wanted(&self, topic: &str) -> Option<&Wanted> {
        self.topics.get(topic)
    }

    /// What heartbeats say.
    pub(crate) fn data(&self) -> Vec<SubscriptionData> {
        self.topics.values().map(|wanted| wanted.data.clone()).collect()
    }

    /// Where the first listener of `topic` was declared.
    pub(crate) fn place(&self, topic: &str) -> Option<&str> {
        self.wanted(topic)?.listeners.first().map(|at| self.all[*at].place.as_str())
    }

    pub(crate) fn handler(&self, listener: usize) -> &Handler {
        &self.all[listener].handler
    }

    /// The listener of a message of `topic`, as it is on the wire, with this tag.
    ///
    /// The tag is asked for only where it matters: a topic with one listener for everything needs none.
    pub(crate) fn listener<'a>(&self, topic: &str, tag: impl Fn() -> Option<&'a str>) -> Option<usize> {
        self.listener_among(self.wanted(topic)?, tag)
    }

    /// The listener of a message of `topic` that is delivered again. The group wanted it once: where the topic has one
    /// listener only, that one gets it, whatever its tags are by now, as with the Java client.
    pub(crate) fn listener_of_retried<'a>(
        &self,
        topic: &str,
        tag: impl Fn() -> Option<&'a str>,
    ) -> Option<usize> {
        let wanted = self.wanted(topic)?;
        match wanted.listeners.as_slice() {
            [only] => Some(*only),
            _ => self.listener_among(wanted, tag),
        }
    }

    /// The same where it is known what is wanted of the topic.
    pub(crate) fn listener_among<'a>(
        &self,
        wanted: &Wanted,
        tag: impl Fn() -> Option<&'a str>,
    ) -> Option<usize> {
        match wanted.listeners.as_slice() {
            [only] if self.all[*only].filter.tags().is_empty() => Some(*only),
            several => {
                let tag = tag();
                several.iter().copied().find(|at| self.all[*at].filter.accepts(tag))
            }
        }
    }
}

/// The union of filters, as brokers want it. Tags are hashed there; SQL stands alone.
pub(super) fn union(topic: &str, filters: &[&Filter], version: i64) -> SubscriptionData {
    let sql = filters.iter().find(|filter| filter.expression_type() == ExpressionType::Sql92);
    let everything = filters.iter().any(|filter| filter.tags().is_empty());
    let tags: Vec<String> = if everything {
        Vec::new()
    } else {
        filters.iter().flat_map(|filter| filter.tags()).cloned().collect()
    };
    let expression = match sql {
        Some(sql) => sql.expression().to_owned(),
        None if tags.is_empty() => "*".to_owned(),
        None => tags.join(" || "),
    };
    SubscriptionData {
        class_filter_mode: false,
        topic: topic.to_owned(),
        sub_string: expression,
        code_set: tags.iter().map(|tag| tag::hash(tag)).collect(),
        tags_set: tags,
        sub_version: version,
        expression_type: sql.map_or(ExpressionType::Tag, |sql| sql.expression_type()).to_string(),
    }
}

/// Every two subscriptions that could take the same message. Source: `api.md` section 5, rule 1.
pub(crate) fn conflicts(all: &[Subscription]) -> Vec<Conflict> {
    let pairs = all
        .iter()
        .enumerate()
        .flat_map(|(at, first)| all[at + 1..].iter().map(move |second| (first, second)));
    pairs.filter_map(|(first, second)| conflict(first, second)).collect()
}

fn conflict(first: &Subscription, second: &Subscription) -> Option<Conflict> {
    let is_sql = |subscription: &Subscription| subscription.filter.expression_type() == ExpressionType::Sql92;
    let (a, b) = (first.filter.tags(), second.filter.tags());
    let (reason, advice) = if first.topic != second.topic {
        return None;
    } else if is_sql(first) || is_sql(second) {
        (
            "an `sql` listener must be the only one of its group that takes messages",
            "give them different groups, or one listener for both: brokers filter a topic of a group by one expression",
        )
    } else if a.is_empty() && b.is_empty() || a.iter().any(|tag| b.contains(tag)) {
        (
            "two listeners can take the same message",
            "give them different tags, or different groups if both must see every message",
        )
    } else {
        return None;
    };
    let describe = |subscription: &Subscription| {
        let key = if is_sql(subscription) { "sql" } else { "tag" };
        format!("{}  {key} = {:?}", subscription.place, subscription.filter.expression())
    };
    Some(Conflict {
        topic: first.topic.to_string(),
        first: describe(first),
        second: describe(second),
        reason,
        advice,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(topic: &str, filter: Filter) -> Subscription {
        let place = format!("on_{filter}");
        let handler = Handler::from_fn(place.clone(), |_| async {});
        Subscription { topic: topic.into(), filter, handler, place }
    }

    fn tags(topic: &str, expression: &str) -> Subscription {
        subscription(topic, Filter::tag(expression))
    }

    #[test]
    fn a_message_goes_to_the_listener_of_its_tag_and_the_rest_to_the_star() {
        let all = vec![tags("t", "*"), tags("t", "a || b"), tags("t", "c"), tags("u", "a")];
        let subscriptions = Subscriptions::new(all, "g", None);
        for (topic, tag, listener) in [
            ("t", Some("b"), Some(1)),
            ("t", Some("c"), Some(2)),
            ("t", Some("d"), Some(0)),
            ("t", None, Some(0)),
            ("u", Some("a"), Some(3)),
            ("u", Some("b"), None),
            ("u", None, None),
            ("v", Some("a"), None),
        ] {
            assert_eq!(subscriptions.listener(topic, || tag), listener, "{topic} {tag:?}");
        }
    }

    #[test]
    fn a_retried_message_goes_to_the_only_listener_of_its_topic_whatever_its_tag() {
        let all = vec![tags("t", "a"), tags("t", "b"), tags("u", "a")];
        let subscriptions = Subscriptions::new(all, "g", None);
        for (topic, tag, listener) in [
            ("t", Some("b"), Some(1)),
            ("t", Some("c"), None),
            ("u", Some("a"), Some(2)),
            ("u", Some("b"), Some(2)),
            ("u", None, Some(2)),
            ("v", Some("a"), None),
        ] {
            assert_eq!(subscriptions.listener_of_retried(topic, || tag), listener, "{topic} {tag:?}");
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
        assert_eq!(
            subscriptions.topics().map(|topic| topic.as_ref()).collect::<Vec<_>>(),
            ["%RETRY%ns%g", "ns%t"]
        );
    }

    #[test]
    fn listeners_that_could_take_the_same_message_are_refused_with_both_places() {
        for (first, second, conflicting) in [
            (tags("t", "a"), tags("t", "b"), false),
            (tags("t", "a"), tags("t", "*"), false),
            (tags("t", "a"), tags("u", "a"), false),
            (tags("t", "a || b"), tags("t", "b"), true),
            (tags("t", "*"), tags("t", "*"), true),
            (subscription("t", Filter::sql("x = 1")), tags("t", "a"), true),
        ] {
            let places = (first.place.clone(), second.place.clone());
            let found = conflicts(&[first, second]);
            assert_eq!(found.len(), usize::from(conflicting), "{places:?}");
            for conflict in found {
                let text = conflict.to_string();
                assert!(text.contains(&places.0) && text.contains(&places.1), "{text}");
            }
        }
    }
}
