//! Reads the answer to a pop: each message with its handle. Plain values, nothing here waits.
//!
//! Source: `MQClientAPIImpl.processPopResponse`.

use std::sync::Arc;

use bytes::Bytes;

use crate::message::stored::{self, RecordError};
use crate::message::{MessageExt, properties};
use crate::protocol::pop::{OffsetInfo, PopHandle, PopMessageResponse, QueueKey, RetryFlag, origin_of_retry};

/// What an answer holds.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) messages: Vec<(MessageExt, PopHandle)>,
    /// Records that are no messages, with their handles, where it can be told which is whose.
    pub(super) unreadable: Vec<(RecordError, Option<PopHandle>)>,
}

/// Reads what the broker `broker_name` popped for `group`.
///
/// # Errors
///
/// Where the header does not say how to acknowledge: nothing can be done with the messages, which come again.
pub(super) fn read(
    header: &PopMessageResponse,
    body: Bytes,
    broker_name: &Arc<str>,
    group: &str,
    max_body_bytes: usize,
) -> Result<Contents, String> {
    let info = |name: &str, text: &Option<String>| {
        OffsetInfo::read(text.as_deref().unwrap_or_default())
            .map_err(|rule| format!("its `{name}` cannot be read: {rule}"))
    };
    let starts = info("startOffsetInfo", &header.start_offset_info)?;
    let mut reader =
        Reader { header, broker_name, starts, left: info("msgOffsetInfo", &header.msg_offset_info)? };
    let mut contents = Contents::default();
    let mut errors = Vec::new();
    for record in stored::decode_all(body, max_body_bytes) {
        match record {
            Ok(message) => {
                let handle = reader.handle_of(&message, group)?;
                contents.messages.push((message, handle));
            }
            Err(error) => errors.push(error),
        }
    }
    // The offsets that are left over are theirs.
    contents.unreadable = errors
        .into_iter()
        .map(|error| {
            let handle = reader.left_at(error.queue_offset);
            (error, handle)
        })
        .collect();
    Ok(contents)
}

struct Reader<'a> {
    header: &'a PopMessageResponse,
    broker_name: &'a Arc<str>,
    starts: OffsetInfo,
    /// The offsets of messages that were not read yet.
    left: OffsetInfo,
}

impl Reader<'_> {
    fn handle_of(&mut self, message: &MessageExt, group: &str) -> Result<PopHandle, String> {
        if let Some(text) = message.property(properties::POP_CK) {
            let handle: PopHandle = text.parse().map_err(|error| format!("{error}"))?;
            self.take((handle.retry, handle.queue_id), handle.queue_offset);
            return Ok(handle);
        }
        let flag = origin_of_retry(group, message.topic()).map_or(RetryFlag::Normal, |(flag, _)| flag);
        let key = (flag, message.queue_id());
        let offset = self.take(key, message.queue_offset());
        Ok(self.handle(key, offset))
    }

    /// Takes out the offset of a message: the one that its record names, or else the first that is left of its queue.
    fn take(&mut self, key: QueueKey, offset: i64) -> i64 {
        let Some(left) = self.left.0.get_mut(&key).filter(|left| !left.is_empty()) else { return offset };
        left.remove(left.iter().position(|left| *left == offset).unwrap_or_default())
    }

    fn left_at(&mut self, offset: i64) -> Option<PopHandle> {
        let key = *self.left.0.iter().find(|(_, left)| left.contains(&offset))?.0;
        self.take(key, offset);
        Some(self.handle(key, offset))
    }

    fn handle(&self, key: QueueKey, queue_offset: i64) -> PopHandle {
        let PopMessageResponse { pop_time, invisible_time, revive_qid, .. } = *self.header;
        let (retry, queue_id) = key;
        PopHandle {
            start_offset: self.starts.offsets(key).first().copied().unwrap_or(queue_offset),
            pop_time,
            invisible_time,
            revive_qid,
            retry,
            broker_name: Arc::clone(self.broker_name),
            queue_id,
            queue_offset,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::stored::Record;

    const HANDLE: &str = "7 1700000000000 60000 5 1 broker-a 0 7";

    fn record(queue_id: i32, queue_offset: i64, topic: &str, body: &[u8], properties: &str) -> Bytes {
        let host = "127.0.0.1:1".parse().unwrap();
        let record = Record {
            queue_id,
            flag: 0,
            queue_offset,
            commit_log_offset: 9,
            sys_flag: 0,
            born_timestamp_ms: 0,
            born_host: host,
            store_timestamp_ms: 0,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body,
            topic,
            properties,
        };
        record.encode()
    }

    fn header(starts: &str, offsets: &str) -> PopMessageResponse {
        PopMessageResponse {
            pop_time: 1_700_000_000_000,
            invisible_time: 60_000,
            revive_qid: 2,
            rest_num: 0,
            start_offset_info: Some(starts.to_owned()),
            msg_offset_info: Some(offsets.to_owned()),
        }
    }

    fn contents(header: &PopMessageResponse, records: &[Bytes]) -> Contents {
        read(header, records.concat().into(), &"broker-a".into(), "g", 1 << 20).unwrap()
    }

    fn handles(contents: &Contents) -> Vec<String> {
        contents.messages.iter().map(|(_, handle)| handle.to_string()).collect()
    }

    #[test]
    fn each_message_gets_the_handle_of_its_queue() {
        let header = header("0 0 10;0 3 20;1 0 7;2 0 1", "0 0 10,12;0 3 20;1 0 7;2 0 4");
        let again = properties::encode([(properties::POP_CK, HANDLE)]);
        let records = [
            record(0, 10, "t", b"a", ""),
            record(3, 20, "t", b"b", ""),
            record(0, 12, "t", b"c", ""),
            record(0, 7, "t", b"d", &again),
            record(0, 4, "%RETRY%g+t", b"e", ""),
        ];
        assert_eq!(
            handles(&contents(&header, &records)),
            [
                "10 1700000000000 60000 2 0 broker-a 0 10",
                "20 1700000000000 60000 2 0 broker-a 3 20",
                "10 1700000000000 60000 2 0 broker-a 0 12",
                HANDLE,
                "1 1700000000000 60000 2 2 broker-a 0 4",
            ]
        );
    }

    #[test]
    fn an_old_broker_that_names_no_offsets_leaves_it_to_the_messages() {
        let contents = contents(&header("", ""), &[record(1, 5, "t", b"a", "")]);
        assert_eq!(handles(&contents), ["5 1700000000000 60000 2 0 broker-a 1 5"]);
    }

    #[test]
    fn a_record_that_is_no_message_can_be_acknowledged_all_the_same() {
        let mut broken = record(0, 11, "t", b"hello", "").to_vec();
        let at = broken.windows(5).position(|window| window == b"hello").unwrap();
        broken[at] = b'j';
        let records = [record(0, 10, "t", b"a", ""), broken.into(), record(0, 12, "t", b"c", "")];
        let contents = contents(&header("0 0 10", "0 0 10,11,12"), &records);
        assert_eq!(contents.messages.len(), 2);
        let [(_, Some(handle))] = &contents.unreadable[..] else { panic!("{contents:?}") };
        assert_eq!(handle.to_string(), "10 1700000000000 60000 2 0 broker-a 0 11");
    }

    #[test]
    fn a_header_that_does_not_say_how_to_acknowledge_is_refused() {
        let error = read(&header("0 0", ""), Bytes::new(), &"b".into(), "g", 1).unwrap_err();
        assert!(error.contains("startOffsetInfo"), "{error}");
        let broken = record(0, 1, "t", b"x", &properties::encode([(properties::POP_CK, "1 2 3")]));
        let error = read(&header("", ""), broken, &"b".into(), "g", 1).unwrap_err();
        assert!(error.contains("\"1 2 3\""), "{error}");
    }

    proptest! {
        #[test]
        fn no_answer_panics(starts in "[0-3 ,;]*", offsets in "[0-3 ,;]*", body: Vec<u8>) {
            let _ = read(&header(&starts, &offsets), body.into(), &"b".into(), "g", 1 << 20);
        }
    }
}
