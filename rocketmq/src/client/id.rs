//! The name of a client, as brokers and their operators see it.

use std::process;

use crate::message::id::local_address;

/// `<address>@<instance>[@<unit>]`; without an instance, one that no other client has.
///
/// Two clients of one name in a group would each take the same queues. Source: `protocol.md` section 5.2.
pub(super) fn client_id(instance: Option<&str>, unit: Option<&str>) -> String {
    let address = local_address();
    let instance = match instance {
        Some(instance) => instance.to_owned(),
        None => format!("{}#{}", process::id(), fastrand::u64(..1_000_000_000_000)),
    };
    match unit {
        Some(unit) => format!("{address}@{instance}@{unit}"),
        None => format!("{address}@{instance}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unnamed_clients_of_one_process_differ() {
        assert_ne!(client_id(None, None), client_id(None, None));
        assert!(client_id(Some("one"), Some("unit")).ends_with("@one@unit"));
    }
}
