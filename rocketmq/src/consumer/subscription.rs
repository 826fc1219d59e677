//! What a listener of a group subscribes to, and what several listeners may not.
//!
//! All listeners of a group are one consumer. Its subscription of a topic is the union of theirs, which is what
//! brokers hear. Source: `api.md` section 5, `behaviour.md` section 3.2.

use std::fmt;
use std::sync::Arc;

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
pub(super) mod tests {
    use super::*;

    pub(in crate::consumer) fn subscription(topic: &str, filter: Filter) -> Subscription {
        let place = format!("on_{topic} {filter}");
        let handler = Handler::from_fn(place.clone(), |_| async {});
        Subscription { topic: topic.into(), filter, handler, place }
    }

    pub(in crate::consumer) fn tags(topic: &str, expression: &str) -> Subscription {
        subscription(topic, Filter::tag(expression))
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
