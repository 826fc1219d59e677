//! The name of a client, as brokers and their operators see it.

use std::process;

use crate::message::id::local_address;
use crate::remoting::RequestType;

/// `<address>@<instance>[@<unit>][@STREAM]`; without an instance, one that no other client has.
///
/// Two clients of one name in a group would each take the same queues. Source: `protocol.md` section 5.2.
pub(super) fn client_id(instance: Option<&str>, unit: Option<&str>, request_type: RequestType) -> String {
    let address = local_address();
    let instance = match instance {
        Some(instance) => instance.to_owned(),
        None => format!("{}#{}", process::id(), fastrand::u64(..1_000_000_000_000)),
    };
    let unit = unit.map(|unit| format!("@{unit}")).unwrap_or_default();
    let stream = match request_type {
        RequestType::Stream => "@STREAM",
        RequestType::Plain => "",
    };
    format!("{address}@{instance}{unit}{stream}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unnamed_clients_of_one_process_differ() {
        assert_ne!(client_id(None, None, RequestType::Plain), client_id(None, None, RequestType::Plain));
    }

    #[test]
    fn the_name_says_instance_unit_and_whether_streams_are_pulled() {
        for (unit, request_type, expected) in [
            (None, RequestType::Plain, "@one"),
            (Some("unit"), RequestType::Plain, "@one@unit"),
            (None, RequestType::Stream, "@one@STREAM"),
            (Some("unit"), RequestType::Stream, "@one@unit@STREAM"),
        ] {
            let id = client_id(Some("one"), unit, request_type);
            assert_eq!(id.split_once('@').unwrap().1, &expected[1..]);
        }
    }
}
