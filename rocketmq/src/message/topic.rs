//! The topics of brokers themselves. Source: `TopicValidator` of 5.x; `behaviour.md` section 2.2.

/// Where 4.x brokers keep delayed messages. The four X are the end of its name, not a place to be filled in.
pub(crate) const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";

/// Where brokers keep half messages.
pub(crate) const HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";

/// Where brokers note which half messages are decided.
pub(crate) const OP_HALF_TOPIC: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";

/// Where half messages go about which nobody has decided.
pub(crate) const CHECKED_TOO_OFTEN_TOPIC: &str = "TRANS_CHECK_MAX_TIME_TOPIC";

pub(crate) const SELF_TEST_TOPIC: &str = "SELF_TEST_TOPIC";
pub(crate) const OFFSET_MOVED_TOPIC: &str = "OFFSET_MOVED_EVENT";

/// Those that brokers alone may write.
pub(crate) const NOT_FOR_CLIENTS: [&str; 6] =
    [SCHEDULE_TOPIC, HALF_TOPIC, OP_HALF_TOPIC, CHECKED_TOO_OFTEN_TOPIC, SELF_TEST_TOPIC, OFFSET_MOVED_TOPIC];
