//! Namespaces of the first kind: a prefix that travels and that users never see.
//!
//! Source: `protocol.md` section 5.2, `NamespaceUtil`.

use std::sync::Arc;

use super::AUTO_CREATE_TOPIC;
use crate::message::topic::NOT_FOR_CLIENTS;

/// The name on the wire of a topic or group: `namespace%name`, and `%RETRY%namespace%name` where it is prefixed.
pub(crate) fn wrap(namespace: Option<&str>, name: &str) -> Arc<str> {
    let Some(namespace) = namespace.filter(|namespace| !namespace.is_empty()) else { return name.into() };
    let (prefix, plain) = split(name);
    let wrapped = plain.strip_prefix(namespace).is_some_and(|rest| rest.starts_with('%'));
    if wrapped || is_system(name) { name.into() } else { format!("{prefix}{namespace}%{plain}").into() }
}

/// The name as its user knows it: without the namespace; a name that is not in it stays as it is.
pub(crate) fn strip<'a>(namespace: Option<&str>, name: &'a str) -> &'a str {
    let Some(namespace) = namespace.filter(|namespace| !namespace.is_empty()) else { return name };
    name.strip_prefix(namespace).and_then(|rest| rest.strip_prefix('%')).unwrap_or(name)
}

/// The retry topic of a group, whose name is that on the wire.
pub(crate) fn retry_topic(group: &str) -> Arc<str> {
    format!("%RETRY%{group}").into()
}

pub(crate) fn is_retry_topic(topic: &str) -> bool {
    topic.starts_with("%RETRY%")
}

fn split(name: &str) -> (&str, &str) {
    for prefix in ["%RETRY%", "%DLQ%"] {
        if let Some(plain) = name.strip_prefix(prefix) {
            return (prefix, plain);
        }
    }
    ("", name)
}

/// Those of brokers, which are in no namespace. Source: `NamespaceUtil.isSystemResource`.
fn is_system(name: &str) -> bool {
    const OTHERS: [&str; 4] = [AUTO_CREATE_TOPIC, "BenchmarkTest", "RMQ_SYS_TRACE_TOPIC", "CHECKPOINT_TOPIC"];
    NOT_FOR_CLIENTS.contains(&name)
        || OTHERS.contains(&name)
        || name.starts_with("rmq_sys_")
        || name.starts_with("CID_RMQ_SYS_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_wrapped_once_and_behind_their_prefix() {
        for (name, wrapped) in [
            ("orders", "ns%orders"),
            ("ns%orders", "ns%orders"),
            ("%RETRY%orders", "%RETRY%ns%orders"),
            ("%DLQ%ns%orders", "%DLQ%ns%orders"),
            ("TBW102", "TBW102"),
            ("TRANS_CHECK_MAX_TIME_TOPIC", "TRANS_CHECK_MAX_TIME_TOPIC"),
        ] {
            assert_eq!(wrap(Some("ns"), name).as_ref(), wrapped);
        }
        assert_eq!(wrap(None, "orders").as_ref(), "orders");
    }

    #[test]
    fn what_was_wrapped_is_shown_as_it_was_written() {
        for (name, shown) in [("ns%orders", "orders"), ("other%orders", "other%orders"), ("ns", "ns")] {
            assert_eq!(strip(Some("ns"), name), shown);
        }
        assert_eq!(strip(None, "ns%orders"), "ns%orders");
    }
}
