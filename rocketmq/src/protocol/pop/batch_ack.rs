//! Many acknowledgements in one request.
//!
//! Those of messages that were popped together from one queue are one entry: a set of bits, bit `k` of byte `k / 8` for
//! the message at `start offset + k`. Source: `protocol.md` section 2.11, `BatchAck`, `BitSetSerializerDeserializer`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use super::handle::{PopHandle, RetryFlag};

/// Messages that were popped together are not further apart: brokers pass over no more than this for one answer.
const MAX_BITS: i64 = 1 << 16;

/// The body of 200151.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct BatchAckBody {
    pub(crate) broker_name: String,
    pub(crate) acks: Vec<BatchAck>,
}

/// Messages that were popped together from one queue; the short names are the wire's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct BatchAck {
    #[serde(rename = "c")]
    pub(crate) consumer_group: String,
    /// The topic that they were sent to, whichever they stand in.
    #[serde(rename = "t")]
    pub(crate) topic: String,
    #[serde(rename = "r")]
    pub(crate) retry: String,
    #[serde(rename = "so")]
    pub(crate) start_offset: i64,
    #[serde(rename = "q")]
    pub(crate) queue_id: i32,
    #[serde(rename = "rq")]
    pub(crate) revive_queue_id: i32,
    #[serde(rename = "pt")]
    pub(crate) pop_time: i64,
    #[serde(rename = "it")]
    pub(crate) invisible_time: i64,
    #[serde(rename = "b")]
    pub(crate) bits: String,
}

impl BatchAckBody {
    /// Puts acknowledgements for one broker together, each of which is one that [`BatchAck::can_hold`].
    pub(crate) fn new(group: &str, topic: &str, broker_name: &str, handles: &[PopHandle]) -> Self {
        let mut together: BTreeMap<_, Vec<i64>> = BTreeMap::new();
        for handle in handles {
            let PopHandle { retry, queue_id, start_offset, revive_qid, pop_time, invisible_time, .. } =
                handle;
            let key = (*retry, *queue_id, *start_offset, *revive_qid, *pop_time, *invisible_time);
            together.entry(key).or_default().push(handle.queue_offset - start_offset);
        }
        let acks = together.into_iter().map(|(key, bits)| {
            let (retry, queue_id, start_offset, revive_queue_id, pop_time, invisible_time) = key;
            BatchAck {
                consumer_group: group.to_owned(),
                topic: topic.to_owned(),
                retry: retry.digit().to_string(),
                start_offset,
                queue_id,
                revive_queue_id,
                pop_time,
                invisible_time,
                bits: encode(&bits),
            }
        });
        Self { broker_name: broker_name.to_owned(), acks: acks.collect() }
    }
}

impl BatchAck {
    /// Whether the message is near enough to the first one of its entry.
    pub(crate) fn can_hold(handle: &PopHandle) -> bool {
        handle.queue_offset.checked_sub(handle.start_offset).is_some_and(|bit| (0..MAX_BITS).contains(&bit))
    }

    pub(crate) fn retry(&self) -> Option<RetryFlag> {
        RetryFlag::read(&self.retry)
    }

    /// The offsets of the messages; `None` where the bits cannot be read.
    pub(crate) fn offsets(&self) -> Option<Vec<i64>> {
        let bytes = BASE64_STANDARD.decode(&self.bits).ok()?;
        if MAX_BITS < bytes.len() as i64 * 8 {
            return None;
        }
        let is_set = |bit: &usize| bytes[bit / 8] & (1 << (bit % 8)) != 0;
        (0..bytes.len() * 8).filter(is_set).map(|bit| self.start_offset.checked_add(bit as i64)).collect()
    }
}

fn encode(bits: &[i64]) -> String {
    let bits = bits.iter().filter_map(|bit| usize::try_from(*bit).ok());
    let mut bytes = Vec::new();
    for bit in bits {
        if bytes.len() <= bit / 8 {
            bytes.resize(bit / 8 + 1, 0_u8);
        }
        bytes[bit / 8] |= 1 << (bit % 8);
    }
    BASE64_STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::json;

    fn handle(start_offset: i64, queue_offset: i64, retry: RetryFlag) -> PopHandle {
        PopHandle {
            start_offset,
            pop_time: 1_700_000_000_123,
            invisible_time: 60_000,
            revive_qid: 3,
            retry,
            broker_name: "broker-a".into(),
            queue_id: 2,
            queue_offset,
        }
    }

    #[test]
    fn what_was_popped_together_is_one_entry() {
        let handles = [
            handle(10, 10, RetryFlag::Normal),
            handle(10, 19, RetryFlag::Normal),
            handle(4, 5, RetryFlag::V1),
            handle(10, 11, RetryFlag::Normal),
        ];
        let body = BatchAckBody::new("g", "t", "broker-a", &handles);
        // Bits 0, 1 and 9 are the bytes 3 and 2.
        assert_eq!(
            String::from_utf8(json::write(&body)).unwrap(),
            r#"{"brokerName":"broker-a","acks":[{"c":"g","t":"t","r":"0","so":10,"q":2,"rq":3,"pt":1700000000123,"it":60000,"b":"AwI="},{"c":"g","t":"t","r":"1","so":4,"q":2,"rq":3,"pt":1700000000123,"it":60000,"b":"Ag=="}]}"#
        );
        let offsets: Vec<_> = body.acks.iter().map(BatchAck::offsets).collect();
        assert_eq!(offsets, [Some(vec![10, 11, 19]), Some(vec![5])]);
        assert_eq!(body.acks[1].retry(), Some(RetryFlag::V1));
    }

    #[test]
    fn what_is_far_off_or_not_there_is_not_put_together() {
        for (start, offset, fits) in [(5, 5, true), (5, 4, false), (0, MAX_BITS, false), (i64::MIN, 5, false)]
        {
            assert_eq!(
                BatchAck::can_hold(&handle(start, offset, RetryFlag::Normal)),
                fits,
                "{start} {offset}"
            );
        }
    }

    proptest! {
        #[test]
        fn reading_undoes_writing(bits in prop::collection::btree_set(0..MAX_BITS, 0..40), start in 0..i64::MAX / 2) {
            let handles: Vec<_> = bits.iter().map(|bit| handle(start, start + bit, RetryFlag::Normal)).collect();
            let body = BatchAckBody::new("g", "t", "b", &handles);
            let offsets: Vec<_> = body.acks.iter().flat_map(|ack| ack.offsets().unwrap()).collect();
            prop_assert_eq!(offsets, bits.iter().map(|bit| start + bit).collect::<Vec<_>>());
        }

        #[test]
        fn no_text_panics(bits in "[A-Za-z0-9+/=]*|\\PC*", start_offset: i64) {
            let _ = BatchAck { bits, start_offset, ..BatchAck::default() }.offsets();
        }
    }
}
