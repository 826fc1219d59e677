//! What names a message that is delayed by time, so that it can be taken back.
//!
//! ```text
//! v1 topic broker-name time-of-delivery-in-unix-ms message-id        in the Base64 of URLs
//! ```
//!
//! Source: `protocol.md` section 2.11, `RecallMessageHandle`.

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Brokers pad, and do not ask for it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A message that is delayed by time: where it waits, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecallHandle {
    /// As it is on the wire.
    pub(crate) topic: String,
    pub(crate) broker_name: String,
    pub(crate) deliver_ms: i64,
    pub(crate) message_id: String,
}

impl RecallHandle {
    pub(crate) fn encode(&self) -> String {
        let Self { topic, broker_name, deliver_ms, message_id } = self;
        BASE64.encode(format!("v1 {topic} {broker_name} {deliver_ms} {message_id}"))
    }

    /// Reads a handle, or says which rule the text breaks.
    pub(crate) fn decode(text: &str) -> Result<Self, &'static str> {
        let bytes = BASE64.decode(text).map_err(|_| "it is not in the Base64 of URLs")?;
        let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
        let parts: Vec<&str> = text.split(' ').collect();
        let [version, topic, broker_name, deliver_ms, message_id, ..] = parts[..] else {
            return Err("it has fewer than five parts");
        };
        if version != "v1" {
            return Err("it is of another version than v1");
        }
        let deliver_ms = deliver_ms.parse().map_err(|_| "its time of delivery is no number")?;
        let owned = str::to_owned;
        Ok(Self {
            topic: owned(topic),
            broker_name: owned(broker_name),
            deliver_ms,
            message_id: owned(message_id),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_of_a_broker_is_read_with_and_without_padding() {
        let text = "djEgdDEgYnJva2VyLWEgMTcwMDAwMDAwMDAwMSBBQzExMDAwMTAwMDAyQTlGMDAwMDAwMDAwMDAwMDNFOA==";
        let handle = RecallHandle {
            topic: "t1".into(),
            broker_name: "broker-a".into(),
            deliver_ms: 1_700_000_000_001,
            message_id: "AC11000100002A9F00000000000003E8".into(),
        };
        assert_eq!(handle.encode(), text);
        assert_eq!(RecallHandle::decode(text), Ok(handle.clone()));
        assert_eq!(RecallHandle::decode(text.trim_end_matches('=')), Ok(handle));
    }

    #[test]
    fn what_is_no_handle_is_refused_with_the_rule() {
        for (text, words) in
            [("v1 t b 1", "five parts"), ("v2 t b 1 id", "version"), ("v1 t b soon id", "time of delivery")]
        {
            let rule = RecallHandle::decode(&BASE64.encode(text)).unwrap_err();
            assert!(rule.contains(words), "{rule}");
        }
        assert!(RecallHandle::decode("no handle!").unwrap_err().contains("Base64"));
        assert!(RecallHandle::decode("").is_err());
    }
}
