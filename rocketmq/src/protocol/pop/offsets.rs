//! Where the messages of an answer to a pop stand in their queues: two fields of its header.
//!
//! ```text
//! startOffsetInfo   retry-flag queue-id offset;…                 the first offset that was looked at, for each queue
//! msgOffsetInfo     retry-flag queue-id offset,offset,…;…        those of the messages, in their order
//! ```
//!
//! Source: `protocol.md` section 2.11, `ExtraInfoUtil`.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::handle::{RetryFlag, number};

/// More offsets than an answer may hold: it has 32 messages at most.
const MAX_OFFSETS: usize = 1024;

/// A queue of the topic that was asked for, or of its retry topic.
pub(crate) type QueueKey = (RetryFlag, i32);

/// Offsets by queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OffsetInfo(pub(crate) BTreeMap<QueueKey, Vec<i64>>);

impl OffsetInfo {
    /// Reads either field.
    ///
    /// # Errors
    ///
    /// The rule that the text breaks.
    pub(crate) fn read(text: &str) -> Result<Self, &'static str> {
        let mut all: BTreeMap<QueueKey, Vec<i64>> = BTreeMap::new();
        let mut count = 0;
        for item in text.split(';').filter(|item| !item.is_empty()) {
            let mut parts = item.splitn(3, ' ');
            let mut next = || parts.next().ok_or("an item has fewer than three parts");
            let flag = RetryFlag::read(next()?).ok_or("a retry flag is not 0, 1 or 2")?;
            let queue_id = number(next()?)?;
            let offsets = all.entry((flag, queue_id)).or_default();
            for offset in next()?.split(',') {
                offsets.push(number(offset)?);
                count += 1;
                if MAX_OFFSETS < count {
                    return Err("it has more offsets than an answer has messages");
                }
            }
        }
        Ok(Self(all))
    }

    pub(crate) fn offsets(&self, queue: QueueKey) -> &[i64] {
        self.0.get(&queue).map(Vec::as_slice).unwrap_or_default()
    }

    /// Writes the field.
    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        for ((flag, queue_id), offsets) in &self.0 {
            let offsets: Vec<_> = offsets.iter().map(i64::to_string).collect();
            let between = if text.is_empty() { "" } else { ";" };
            // Writing into a `String` cannot fail.
            let _ = write!(text, "{between}{} {queue_id} {}", flag.digit(), offsets.join(","));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_fields_of_a_broker_are_read() {
        let info = OffsetInfo::read("0 3 17,18,21;1 0 5;2 0 6").unwrap();
        assert_eq!(info.offsets((RetryFlag::Normal, 3)), [17, 18, 21]);
        assert_eq!(info.offsets((RetryFlag::V1, 0)), [5]);
        assert_eq!(info.offsets((RetryFlag::V2, 0)), [6]);
        assert_eq!(info.offsets((RetryFlag::Normal, 4)), [0; 0]);
        assert_eq!(OffsetInfo::read("").unwrap(), OffsetInfo::default());
    }

    #[test]
    fn what_does_not_say_where_is_refused() {
        let long = format!("0 0 {}", vec!["1"; MAX_OFFSETS + 1].join(","));
        for text in ["0", "0 1", "3 1 1", "0 x 1", "0 1 1,", "0 1 ,1", "0 1 1 2", &long] {
            assert!(OffsetInfo::read(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn reading_undoes_writing(all in prop::collection::btree_map(
            (0_usize..3, 0_i32..9), prop::collection::vec(any::<i64>(), 1..5), 0..9,
        )) {
            let flags = [RetryFlag::Normal, RetryFlag::V1, RetryFlag::V2];
            let info = OffsetInfo(all.into_iter().map(|((flag, id), offsets)| ((flags[flag], id), offsets)).collect());
            prop_assert_eq!(OffsetInfo::read(&info.encode()), Ok(info));
        }

        #[test]
        fn no_text_panics(text in "[0-9 ,;x-]*|\\PC*") {
            let _ = OffsetInfo::read(&text);
        }
    }
}
