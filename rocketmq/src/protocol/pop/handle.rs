//! The handle of a message that was popped: by it, it is acknowledged or made visible again. It is the property
//! `POP_CK` of a message that comes again; for the others a client makes it of the answer to the pop.
//!
//! ```text
//! start-offset pop-time invisible-time revive-queue retry-flag broker-name queue-id queue-offset     between blanks
//! ```
//!
//! Times are Unix milliseconds of the broker's clock. Source: `protocol.md` section 2.11, `ExtraInfoUtil`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Which topic a message was popped from, under the name of the topic that it was sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum RetryFlag {
    /// The topic itself.
    Normal,
    /// `%RETRY%group_topic`
    V1,
    /// `%RETRY%group+topic`
    V2,
}

/// Where a popped message stands, and until when it is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PopHandle {
    /// The offset of the first message that was popped with it from the same queue.
    pub(crate) start_offset: i64,
    pub(crate) pop_time: i64,
    pub(crate) invisible_time: i64,
    /// In which of its own queues the broker waits for the acknowledgement.
    pub(crate) revive_qid: i32,
    pub(crate) retry: RetryFlag,
    pub(crate) broker_name: Arc<str>,
    pub(crate) queue_id: i32,
    pub(crate) queue_offset: i64,
}

/// A text that is no handle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not the handle of a popped message: {reason}")]
pub(crate) struct PopHandleError {
    text: String,
    reason: &'static str,
}

impl RetryFlag {
    pub(crate) fn digit(self) -> char {
        match self {
            Self::Normal => '0',
            Self::V1 => '1',
            Self::V2 => '2',
        }
    }

    pub(super) fn read(text: &str) -> Option<Self> {
        match text {
            "0" => Some(Self::Normal),
            "1" => Some(Self::V1),
            "2" => Some(Self::V2),
            _ => None,
        }
    }

    /// The topic that a message of `topic` stands in.
    pub(crate) fn topic(self, group: &str, topic: &Arc<str>) -> Arc<str> {
        match self {
            Self::Normal => Arc::clone(topic),
            Self::V1 => retry_topic_v1(group, topic),
            Self::V2 => retry_topic_v2(group, topic),
        }
    }
}

/// Where messages of `topic` wait that `group` popped and did not acknowledge.
pub(crate) fn retry_topic_v1(group: &str, topic: &str) -> Arc<str> {
    format!("%RETRY%{group}_{topic}").into()
}

/// The same at brokers with `enableRetryTopicV2`.
pub(crate) fn retry_topic_v2(group: &str, topic: &str) -> Arc<str> {
    format!("%RETRY%{group}+{topic}").into()
}

/// Which topic `topic` holds messages of that `group` popped before, and how it is marked; `None` where it is no such
/// topic of the group.
pub(crate) fn origin_of_retry<'a>(group: &str, topic: &'a str) -> Option<(RetryFlag, &'a str)> {
    let rest = topic.strip_prefix("%RETRY%")?.strip_prefix(group)?;
    let (flag, origin) = match rest.as_bytes().first()? {
        b'_' => (RetryFlag::V1, &rest[1..]),
        b'+' => (RetryFlag::V2, &rest[1..]),
        _ => return None,
    };
    (!origin.is_empty()).then_some((flag, origin))
}

impl fmt::Display for PopHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start_offset, pop_time, invisible_time, revive_qid, .. } = self;
        let Self { retry, broker_name, queue_id, queue_offset, .. } = self;
        let retry = retry.digit();
        write!(
            f,
            "{start_offset} {pop_time} {invisible_time} {revive_qid} {retry} {broker_name} {queue_id} {queue_offset}"
        )
    }
}

impl FromStr for PopHandle {
    type Err = PopHandleError;

    fn from_str(text: &str) -> Result<Self, PopHandleError> {
        read(text).map_err(|reason| PopHandleError { text: text.to_owned(), reason })
    }
}

fn read(text: &str) -> Result<PopHandle, &'static str> {
    let mut parts = text.split(' ');
    let mut next = || parts.next().ok_or("it has fewer than eight parts");
    let handle = PopHandle {
        start_offset: number(next()?)?,
        pop_time: number(next()?)?,
        invisible_time: number(next()?)?,
        revive_qid: number(next()?)?,
        retry: RetryFlag::read(next()?).ok_or("its retry flag is not 0, 1 or 2")?,
        broker_name: next()?.into(),
        queue_id: number(next()?)?,
        queue_offset: number(next()?)?,
    };
    if handle.broker_name.is_empty() { Err("it names no broker") } else { Ok(handle) }
}

pub(super) fn number<T: FromStr>(text: &str) -> Result<T, &'static str> {
    text.parse().map_err(|_| "a part of it is no number")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "1024 1700000000123 60000 3 1 broker-a 2 1027";

    #[test]
    fn a_handle_is_read_and_written_as_brokers_do() {
        let handle = PopHandle {
            start_offset: 1024,
            pop_time: 1_700_000_000_123,
            invisible_time: 60_000,
            revive_qid: 3,
            retry: RetryFlag::V1,
            broker_name: "broker-a".into(),
            queue_id: 2,
            queue_offset: 1027,
        };
        assert_eq!(TEXT.parse(), Ok(handle.clone()));
        assert_eq!(handle.to_string(), TEXT);
        assert_eq!(format!("{TEXT} more").parse(), Ok(handle));
    }

    #[test]
    fn what_is_no_handle_is_refused_with_the_rule() {
        for (text, words) in [
            ("", "no number"),
            ("1 2 3 4 0 b 5", "eight parts"),
            ("1 2 3 4 7 b 5 6", "retry flag"),
            ("1 2 3 4 0  5 6", "no broker"),
            ("1 2 x 4 0 b 5 6", "no number"),
        ] {
            let error = text.parse::<PopHandle>().unwrap_err().to_string();
            assert!(error.contains(words) && error.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn retry_topics_lead_back_to_the_topic() {
        let topic: Arc<str> = "a_b".into();
        for flag in [RetryFlag::V1, RetryFlag::V2] {
            let retry = flag.topic("my_g", &topic);
            assert_eq!(origin_of_retry("my_g", &retry), Some((flag, "a_b")), "{retry}");
            assert_eq!(origin_of_retry("other", &retry), None);
        }
        assert_eq!(RetryFlag::Normal.topic("g", &topic), topic);
        for no in ["%RETRY%g", "%RETRY%g_", "%RETRY%gx", "g_t", "%RETRY%"] {
            assert_eq!(origin_of_retry("g", no), None, "{no}");
        }
    }

    proptest! {
        #[test]
        fn reading_undoes_writing(
            numbers: [i64; 4], ids: [i32; 2], flag in 0_usize..3, broker_name in "[a-z0-9-]{1,20}",
        ) {
            let [start_offset, pop_time, invisible_time, queue_offset] = numbers;
            let [revive_qid, queue_id] = ids;
            let retry = [RetryFlag::Normal, RetryFlag::V1, RetryFlag::V2][flag];
            let broker_name = broker_name.into();
            let handle = PopHandle {
                start_offset, pop_time, invisible_time, revive_qid, retry, broker_name, queue_id, queue_offset,
            };
            prop_assert_eq!(handle.to_string().parse(), Ok(handle));
        }

        #[test]
        fn no_text_panics(text in "\\PC*", group in "\\PC*") {
            let _ = text.parse::<PopHandle>();
            let _ = origin_of_retry(&group, &text);
        }
    }
}
