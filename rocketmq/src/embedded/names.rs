//! Names: which are allowed, which belong to the broker, and which are made of a group's.
//!
//! Source: `TopicValidator`, `MixAll`, of 5.x.

use super::state::Refusal;
use crate::message::topic::{
    CHECKED_TOO_OFTEN_TOPIC, HALF_TOPIC, NOT_FOR_CLIENTS, OFFSET_MOVED_TOPIC, OP_HALF_TOPIC, SCHEDULE_TOPIC,
    SELF_TEST_TOPIC,
};
use crate::protocol::ResponseCode;

pub(super) const BROKER_NAME: &str = "broker-a";
pub(super) const CLUSTER_NAME: &str = "DefaultCluster";
pub(super) const REGION: &str = "DefaultRegion";
/// The topic whose queues and permissions a topic gets that is created by a first send.
pub(super) const TEMPLATE_TOPIC: &str = "TBW102";

const RETRY_PREFIX: &str = "%RETRY%";
const DEAD_LETTER_PREFIX: &str = "%DLQ%";
const MAX_TOPIC_LEN: usize = 127;
const MAX_RETRY_TOPIC_LEN: usize = 255;
const MAX_GROUP_LEN: usize = 255;
const SYSTEM_TOPICS: [&str; 10] = [
    TEMPLATE_TOPIC,
    SCHEDULE_TOPIC,
    "BenchmarkTest",
    HALF_TOPIC,
    "RMQ_SYS_TRACE_TOPIC",
    OP_HALF_TOPIC,
    CHECKED_TOO_OFTEN_TOPIC,
    SELF_TEST_TOPIC,
    OFFSET_MOVED_TOPIC,
    "CHECKPOINT_TOPIC",
];

pub(super) fn retry_topic(group: &str) -> String {
    format!("{RETRY_PREFIX}{group}")
}

pub(super) fn dead_letter_topic(group: &str) -> String {
    format!("{DEAD_LETTER_PREFIX}{group}")
}

/// The group whose retry topic this is.
pub(super) fn group_of_retry_topic(topic: &str) -> Option<&str> {
    topic.strip_prefix(RETRY_PREFIX)
}

pub(super) fn check_topic(topic: &str) -> Result<(), Refusal> {
    let illegal = |remark| Err(Refusal::new(ResponseCode::INVALID_PARAMETER, remark));
    let of_a_group = topic.starts_with(RETRY_PREFIX) || topic.starts_with(DEAD_LETTER_PREFIX);
    let limit = if of_a_group { MAX_RETRY_TOPIC_LEN } else { MAX_TOPIC_LEN };
    if topic.trim().is_empty() {
        return illegal("The specified topic is blank.".to_owned());
    }
    if !has_legal_characters(topic) {
        return illegal(format!(
            "The specified topic: {topic}, contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$"
        ));
    }
    if limit < topic.len() {
        return illegal(format!("The specified topic: {topic}, is longer than topic max length: {limit}"));
    }
    Ok(())
}

/// Whether clients may send to it.
pub(super) fn check_sendable(topic: &str) -> Result<(), Refusal> {
    if NOT_FOR_CLIENTS.contains(&topic) {
        let remark = format!("Sending message to topic[{topic}] is forbidden.");
        return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
    }
    Ok(())
}

/// Whether clients may create it.
pub(super) fn check_creatable(topic: &str) -> Result<(), Refusal> {
    check_topic(topic)?;
    if SYSTEM_TOPICS.contains(&topic) || topic.starts_with("rmq_sys_") {
        let remark = format!("The topic[{topic}] is conflict with system topic.");
        return Err(Refusal::new(ResponseCode::INVALID_PARAMETER, remark));
    }
    Ok(())
}

pub(super) fn is_legal_group(group: &str) -> bool {
    !group.is_empty() && group.len() <= MAX_GROUP_LEN && has_legal_characters(group)
}

fn has_legal_characters(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"%|_-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_judged_as_by_a_5x_broker() {
        for (topic, legal) in [
            ("orders", true),
            ("a%b|c_d-1", true),
            ("", false),
            ("with blank", false),
            ("中文", false),
            (&"t".repeat(127), true),
            (&"t".repeat(128), false),
            (&retry_topic(&"g".repeat(248)), true),
            (&retry_topic(&"g".repeat(249)), false),
        ] {
            assert_eq!(check_topic(topic).is_ok(), legal, "{topic}");
        }
        assert!(check_creatable("TBW102").is_err() && check_creatable("rmq_sys_x").is_err());
        assert!(check_sendable(SCHEDULE_TOPIC).is_err() && check_sendable("TBW102").is_ok());
    }
}
