//! Reads what Java servers write that is not quite JSON, and writes it where they read nothing else.
//!
//! fastjson writes maps with numbers (`{0:"a:1"}`) and whole objects (`{{"queueId":0}:7}`) as keys. Both become text
//! here: `{"0":"a:1"}` and `{"{\"queueId\":0}":7}`, which any JSON reader takes. Source: `protocol.md` section 3.2.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::HeaderError;
use crate::message::MessageQueue;

/// Deeper than any body of RocketMQ; deeper input is refused, so that it cannot exhaust the stack.
const MAX_DEPTH: usize = 64;

/// Reads a body, tolerating keys that are numbers or objects.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, HeaderError> {
    let malformed = |error: serde_json::Error| HeaderError::Body(error.to_string());
    match serde_json::from_slice(body) {
        Ok(value) => Ok(value),
        // Only what failed is read twice: nearly all bodies are good JSON.
        Err(error) => match std::str::from_utf8(body).ok().and_then(standardize) {
            Some(text) => serde_json::from_str(&text).map_err(malformed),
            None => Err(malformed(error)),
        },
    }
}

/// Writes a body. Brokers need compact JSON, which this is.
pub(crate) fn write<T: Serialize>(value: &T) -> Vec<u8> {
    // Our bodies are plain structs with text keys, which serde_json always can write.
    serde_json::to_vec(value).unwrap_or_default()
}

/// Writes a map whose keys are message queues the one way that Java and Go peers read it: with raw objects as keys.
pub(crate) fn write_queue_map<V: Serialize>(map: &BTreeMap<MessageQueue, V>) -> String {
    let mut out = String::from("{");
    for (at, (queue, value)) in map.iter().enumerate() {
        let text = |text: &str| serde_json::to_string(text).unwrap_or_default();
        let _ = write!(
            out,
            r#"{}{{"brokerName":{},"queueId":{},"topic":{}}}:{}"#,
            if at > 0 { "," } else { "" },
            text(&queue.broker_name),
            queue.queue_id,
            text(&queue.topic),
            serde_json::to_string(value).unwrap_or_default(),
        );
    }
    out.push('}');
    out
}

/// The same document with every key as text; `None` where it is not even that kind of JSON.
fn standardize(text: &str) -> Option<String> {
    let mut reader = Reader { text, at: 0, out: String::with_capacity(text.len() + 64) };
    reader.value(0)?;
    reader.skip_blanks();
    (reader.at == text.len()).then_some(reader.out)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    out: String,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.skip_blanks();
        if self.peek()? != byte {
            return None;
        }
        self.at += 1;
        self.out.push(char::from(byte));
        Some(())
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        if MAX_DEPTH < depth {
            return None;
        }
        self.skip_blanks();
        match self.peek()? {
            b'{' => self.items(b'{', b'}', |reader| reader.member(depth + 1)),
            b'[' => self.items(b'[', b']', |reader| reader.value(depth + 1)),
            b'"' => self.string(),
            _ => self.scalar(),
        }
    }

    fn items(&mut self, open: u8, close: u8, item: impl Fn(&mut Self) -> Option<()>) -> Option<()> {
        self.expect(open)?;
        self.skip_blanks();
        if self.peek()? == close {
            return self.expect(close);
        }
        loop {
            item(self)?;
            self.skip_blanks();
            match self.peek()? {
                b',' => self.expect(b',')?,
                _ => return self.expect(close),
            }
        }
    }

    fn member(&mut self, depth: usize) -> Option<()> {
        self.skip_blanks();
        if self.peek()? == b'"' {
            self.string()?;
        } else {
            let start = self.out.len();
            self.value(depth)?;
            let key = self.out.split_off(start);
            self.out.push_str(&serde_json::to_string(&key).ok()?);
        }
        self.expect(b':')?;
        self.value(depth)
    }

    fn string(&mut self) -> Option<()> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.peek()? {
                b'\\' => self.at += 2,
                b'"' => break,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        self.out.push_str(self.text.get(start..self.at)?);
        Some(())
    }

    fn scalar(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte)) {
            self.at += 1;
        }
        self.out.push_str(self.text.get(start..self.at)?);
        (start < self.at).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_and_objects_become_text_keys() {
        for (given, expected) in [
            (r#"{0:"a:1",1:{2:3}}"#, r#"{"0":"a:1","1":{"2":3}}"#),
            (
                r#"{"offsetTable":{{"brokerName":"b","queueId":0,"topic":"t"}:12}}"#,
                r#"{"offsetTable":{"{\"brokerName\":\"b\",\"queueId\":0,\"topic\":\"t\"}":12}}"#,
            ),
            (r#"{ "a" : [ 1 , true , null , "}" ] }"#, r#"{"a":[1,true,null,"}"]}"#),
        ] {
            assert_eq!(standardize(given).as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_is_not_json_stays_an_error() {
        for text in ["", "{", "{0:}", "{0:1", "[1,]", "{\"a\"}", "\"", "\"\\", &"[".repeat(10_000)] {
            assert!(read::<serde_json::Value>(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_queue_map_is_read_back() {
        let map = BTreeMap::from([(MessageQueue::new("t", "b", 0), 7), (MessageQueue::new("t", "b", 1), 8)]);
        let text = write_queue_map(&map);
        assert_eq!(
            text,
            r#"{{"brokerName":"b","queueId":0,"topic":"t"}:7,{"brokerName":"b","queueId":1,"topic":"t"}:8}"#
        );
        let read: HashMap<String, i64> = read(text.as_bytes()).unwrap();
        assert_eq!(read.len(), 2);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            let _ = standardize(&text);
        }

        #[test]
        fn no_broken_json_panics(text in r#"[\[\]{}:,"\\0-9a ]*"#) {
            let _ = standardize(&text);
        }
    }
}
