//! Message properties: the names that RocketMQ gives a meaning, and the string in which all of them travel.
//!
//! ```text
//! key 0x01 value 0x02 key 0x01 value 0x02 …        no count; the last 0x02 may be missing
//! ```
//!
//! Source: `protocol.md` sections 4.4 and 4.5, `MessageDecoder.messageProperties2String`, `MessageConst`.

/// The business keys by which a message can be looked up, separated by blanks.
pub const KEYS: &str = "KEYS";
/// The one tag of a message.
pub const TAGS: &str = "TAGS";
/// `true` where the sender waits until the broker has stored the message.
pub const WAIT: &str = "WAIT";
/// The delay level, 1 to 18.
pub const DELAY: &str = "DELAY";
/// On a message of a retry topic: the topic that it was first sent to.
pub const RETRY_TOPIC: &str = "RETRY_TOPIC";
/// On a message of a retry topic: the id of the first delivery.
pub const ORIGIN_MESSAGE_ID: &str = "ORIGIN_MESSAGE_ID";
/// While a message waits for its delay: the topic that it will be delivered to.
pub const REAL_TOPIC: &str = "REAL_TOPIC";
/// While a message waits for its delay: the queue that it will be delivered to.
pub const REAL_QUEUE_ID: &str = "REAL_QID";
/// How often a message has been consumed; moved to the send header.
pub const RECONSUME_TIME: &str = "RECONSUME_TIME";
/// How often a message may be consumed; moved to the send header.
pub const MAX_RECONSUME_TIMES: &str = "MAX_RECONSUME_TIMES";
/// The message id that the sending client gave.
pub const UNIQUE_KEY: &str = "UNIQ_KEY";
/// `true` on the half message of a transaction.
pub const TRANSACTION_PREPARED: &str = "TRAN_MSG";
/// The producer group that decides a transaction.
pub const PRODUCER_GROUP: &str = "PGROUP";
/// On a half message: for how many seconds from its birth its broker does not ask what has become of the transaction.
pub const CHECK_IMMUNITY_TIME_IN_SECONDS: &str = "CHECK_IMMUNITY_TIME_IN_SECONDS";
/// On a half message: how often its broker has asked.
pub const TRANSACTION_CHECK_TIMES: &str = "TRANSACTION_CHECK_TIMES";
/// The namespace (v1) of the sender.
pub const INSTANCE_ID: &str = "INSTANCE_ID";
/// The cluster of the broker that stored the message, set by the broker.
pub const CLUSTER: &str = "CLUSTER";
/// The region of the broker, set by the broker.
pub const MSG_REGION: &str = "MSG_REGION";
/// `false` where the broker asks for no message trace.
pub const TRACE_ON: &str = "TRACE_ON";
/// The number of messages in an inner batch.
pub const INNER_NUM: &str = "INNER_NUM";
/// On a dead letter (5.x): the topic that it was first sent to.
pub const DLQ_ORIGIN_TOPIC: &str = "DLQ_ORIGIN_TOPIC";
/// On a dead letter (5.x): the id of the message that it once was.
pub const DLQ_ORIGIN_MESSAGE_ID: &str = "DLQ_ORIGIN_MESSAGE_ID";
/// The key by which ordered messages choose their queue.
pub const SHARDING_KEY: &str = "__SHARDINGKEY";
/// By which a reply finds the request that it answers.
pub const CORRELATION_ID: &str = "CORRELATION_ID";
/// On a request and on its reply: the id of the client that waits for the reply.
pub const REPLY_TO_CLIENT: &str = "REPLY_TO_CLIENT";
/// On a request and on its reply: for how many milliseconds the requester waits.
pub const TTL: &str = "TTL";
/// `reply` on a reply.
pub const MESSAGE_TYPE: &str = "MSG_TYPE";
/// On a reply, as its requester gets it: when it came, in Unix milliseconds.
pub const ARRIVE_TIME: &str = "ARRIVE_TIME";
/// On a reply: when the broker passed it on, in Unix milliseconds.
pub const PUSH_REPLY_TIME: &str = "PUSH_REPLY_TIME";
/// A timer message (5.x): seconds to wait before delivery.
pub const TIMER_DELAY_SEC: &str = "TIMER_DELAY_SEC";
/// A timer message (5.x): milliseconds to wait before delivery.
pub const TIMER_DELAY_MS: &str = "TIMER_DELAY_MS";
/// A timer message (5.x): the time of delivery in Unix milliseconds.
pub const TIMER_DELIVER_MS: &str = "TIMER_DELIVER_MS";

/// On a popped message that came before: its handle.
pub(crate) const POP_CK: &str = "POP_CK";
/// When a message was popped for the first time, in Unix milliseconds.
pub(crate) const FIRST_POP_TIME: &str = "1ST_POP_TIME";
/// The light queues (5.x) that get the message as well, separated by commas.
pub(crate) const INNER_MULTI_DISPATCH: &str = "INNER_MULTI_DISPATCH";
/// What delays a message; of several, brokers take the first one.
pub(crate) const DELAYS: [&str; 4] = [DELAY, TIMER_DELAY_SEC, TIMER_DELAY_MS, TIMER_DELIVER_MS];

/// Between a key and its value.
const BETWEEN: u8 = 1;
/// After a value.
pub(crate) const AFTER: u8 = 2;
/// What a broker takes: the length is an `i16` in the stored form.
pub(crate) const MAX_BYTES: usize = 32_767;

/// The value of `name` in an encoded property string; of several, the last.
pub(crate) fn find<'a>(encoded: &'a str, name: &str) -> Option<&'a str> {
    find_span(encoded.as_bytes(), name).and_then(|(start, end)| encoded.get(start..end))
}

/// Where the value of `name` stands in an encoded property string.
pub(crate) fn find_span(encoded: &[u8], name: &str) -> Option<(usize, usize)> {
    let name = name.as_bytes();
    let mut found = None;
    let mut start = 0;
    for pair in encoded.split(|byte| *byte == AFTER) {
        // The key, the mark, at least one byte of value: anything less is no property.
        if pair.len() > name.len() + 1 && pair[name.len()] == BETWEEN && &pair[..name.len()] == name {
            found = Some((start + name.len() + 1, start + pair.len()));
        }
        start += pair.len() + 1;
    }
    found
}

/// All pairs of an encoded property string, in their order; segments that are no pair are passed over.
pub(crate) fn iter(encoded: &str) -> impl Iterator<Item = (&str, &str)> {
    encoded
        .split(char::from(AFTER))
        .filter_map(|pair| pair.split_once(char::from(BETWEEN)))
        .filter(|(key, value)| !key.is_empty() && !value.is_empty())
}

/// Encodes pairs in their order; empty values are left out, since no reader would see them.
pub(crate) fn encode<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (key, value) in pairs {
        if !value.is_empty() {
            push(&mut out, key, value);
        }
    }
    out
}

/// Appends a pair to an encoded property string.
pub(crate) fn push(encoded: &mut String, key: &str, value: &str) {
    encoded.reserve(key.len() + value.len() + 2);
    encoded.push_str(key);
    encoded.push(char::from(BETWEEN));
    encoded.push_str(value);
    encoded.push(char::from(AFTER));
}

/// Takes a pair out of an encoded property string.
pub(crate) fn remove(encoded: &mut String, key: &str) {
    if let Some((start, end)) = find_span(encoded.as_bytes(), key) {
        let end = encoded.len().min(end + 1);
        encoded.replace_range(start - key.len() - 1..end, "");
    }
}

/// Whether `text` can stand in a property: the two separators cannot be escaped.
pub(crate) fn is_clean(text: &str) -> bool {
    !text.bytes().any(|byte| byte == BETWEEN || byte == AFTER)
}

/// Whether only clients and brokers may set `name`. Source: `MessageConst.STRING_HASH_SET`.
pub(crate) fn is_reserved(name: &str) -> bool {
    const RESERVED: &[&str] = &[
        "TRACE_ON",
        "MSG_REGION",
        "KEYS",
        "TAGS",
        "WAIT",
        "DELAY",
        "RETRY_TOPIC",
        "REAL_TOPIC",
        "REAL_QID",
        "TRAN_MSG",
        "PGROUP",
        "MIN_OFFSET",
        "MAX_OFFSET",
        "BUYER_ID",
        "ORIGIN_MESSAGE_ID",
        "TRANSFER_FLAG",
        "CORRECTION_FLAG",
        "MQ2_FLAG",
        "RECONSUME_TIME",
        "UNIQ_KEY",
        "EXTEND_UNIQ_INFO",
        "MAX_RECONSUME_TIMES",
        "CONSUME_START_TIME",
        "POP_CK",
        "POP_CK_OFFSET",
        "1ST_POP_TIME",
        "TRAN_PREPARED_QUEUE_OFFSET",
        "DUP_INFO",
        "INSTANCE_ID",
        "CORRELATION_ID",
        "REPLY_TO_CLIENT",
        "TTL",
        "ARRIVE_TIME",
        "PUSH_REPLY_TIME",
        "CLUSTER",
        "MSG_TYPE",
        "INNER_MULTI_QUEUE_OFFSET",
        "TIMER_DELAY_MS",
        "TIMER_DELIVER_MS",
        "TIMER_DELAY_SEC",
        "INNER_NUM",
        "INNER_BASE",
        "DLQ_ORIGIN_TOPIC",
        "DLQ_ORIGIN_MESSAGE_ID",
        "TIMER_ENQUEUE_MS",
        "TIMER_DEQUEUE_MS",
        "TIMER_ROLL_TIMES",
        "TIMER_OUT_MS",
        "TIMER_DEL_UNIQKEY",
        "TRANSACTION_CHECK_TIMES",
        "CHECK_IMMUNITY_TIME_IN_SECONDS",
        "__transactionId__",
        "__SHARDINGKEY",
    ];
    RESERVED.contains(&name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_is_found_with_and_without_the_last_separator() {
        for encoded in ["KEYS\u{1}k1\u{2}TAGS\u{1}TagA\u{2}", "KEYS\u{1}k1\u{2}TAGS\u{1}TagA"] {
            assert_eq!(find(encoded, TAGS), Some("TagA"));
            assert_eq!(find(encoded, KEYS), Some("k1"));
            assert_eq!(find(encoded, "TAG"), None);
        }
    }

    #[test]
    fn of_two_equal_keys_the_last_counts_and_broken_pairs_are_passed_over() {
        let encoded = "a\u{1}1\u{2}\u{1}x\u{2}nothing\u{2}b\u{1}\u{2}a\u{1}2\u{2}";
        assert_eq!(find(encoded, "a"), Some("2"));
        assert_eq!(find(encoded, "b"), None);
        assert_eq!(iter(encoded).collect::<Vec<_>>(), [("a", "1"), ("a", "2")]);
    }

    #[test]
    fn a_pair_is_taken_out_wherever_it_stands() {
        for (encoded, left) in [
            ("a\u{1}1\u{2}b\u{1}2\u{2}c\u{1}3\u{2}", "a\u{1}1\u{2}c\u{1}3\u{2}"),
            ("b\u{1}2\u{2}", ""),
            ("a\u{1}1\u{2}b\u{1}2", "a\u{1}1\u{2}"),
            ("bb\u{1}2\u{2}", "bb\u{1}2\u{2}"),
        ] {
            let mut properties = encoded.to_owned();
            remove(&mut properties, "b");
            assert_eq!(properties, left);
        }
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(pairs in prop::collection::vec(("[^\u{1}\u{2}]{1,9}", "[^\u{1}\u{2}]{1,9}"), 0..9)) {
            let encoded = encode(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())));
            let decoded: Vec<_> = iter(&encoded).map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            prop_assert_eq!(&decoded, &pairs);
            for (key, _) in &pairs {
                let last = pairs.iter().rev().find(|(other, _)| other == key).map(|(_, value)| value.as_str());
                prop_assert_eq!(find(&encoded, key), last);
            }
        }

        #[test]
        fn no_text_panics(text in ".*", name in ".*") {
            let _ = find(&text, &name);
            let _ = iter(&text).count();
        }
    }
}
