//! What may travel together in a batch that its sender put together. Source: `behaviour.md` section 2.5,
//! `MessageBatch.generateFromList`.

use crate::message::{Message, MessageError, properties};

/// Checks messages, each of which is good by itself, against each other; returns one that speaks for all of them.
pub(super) fn check(messages: &[Message]) -> Result<&Message, MessageError> {
    let Some((first, rest)) = messages.split_first() else {
        return Err(MessageError::Batch { rule: "it is empty" });
    };
    let differ = |of: fn(&Message) -> Option<&str>| rest.iter().any(|message| of(message) != of(first));
    let rule = if differ(|message| Some(message.topic())) {
        "its messages have different topics"
    } else if differ(|message| message.get(properties::WAIT)) {
        "some of its messages wait until they are stored, others do not (`wait_store`)"
    } else if differ(|message| message.get(properties::SHARDING_KEY)) {
        "its messages have different sharding keys, and it goes to one queue"
    } else if first.topic().starts_with("%RETRY%") {
        "brokers take no batch for a retry topic"
    } else if messages.iter().any(|message| properties::DELAYS.iter().any(|name| message.get(name).is_some()))
    {
        "brokers would deliver its delayed messages at once"
    } else if messages.iter().any(|message| message.get(properties::CORRELATION_ID).is_some()) {
        "replies travel alone"
    } else {
        return Ok(first);
    };
    Err(MessageError::Batch { rule })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_does_not_go_together_is_named() {
        let message = || Message::new("t").body("x");
        let delayed = [
            message().delay_level(1),
            message().delay(Duration::from_secs(1)),
            message().deliver_at(std::time::SystemTime::now()),
        ];
        for (messages, words) in [
            (vec![], "empty"),
            (vec![message(), Message::new("u").body("x")], "different topics"),
            (vec![message(), message().wait_store(false)], "wait"),
            (vec![message().sharding_key("a"), message().sharding_key("b")], "sharding keys"),
            (vec![message(), message().sharding_key("b")], "sharding keys"),
            (vec![Message::new("%RETRY%g").body("x")], "retry topic"),
        ]
        .into_iter()
        .chain(delayed.map(|message| (vec![message], "delayed")))
        {
            let error = check(&messages).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let good = |message: Message| message.sharding_key("a").wait_store(false);
        check(&[good(message().tag("x")), good(message().key("k"))]).unwrap();
    }
}
