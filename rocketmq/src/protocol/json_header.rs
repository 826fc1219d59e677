//! Reads headers in JSON the way that servers write them, in a fraction of the time that JSON in general takes.
//!
//! Every message that is sent has an answer of its own, so its header is what a producer reads most. It is one object of
//! numbers and plain texts, without blanks. What is anything else (an escape, a null, an unknown member) is left to
//! `serde_json`, which reads all of it.

use super::ExtFields;
use super::command::{RemotingCommand, language_number};
use super::json_text::plain_len;

/// The command, if its header is as servers usually write them.
pub(super) fn read(header: &[u8]) -> Option<RemotingCommand> {
    let mut reader = Reader { rest: std::str::from_utf8(header).ok()? };
    let mut command = RemotingCommand::empty();
    let mut code = None;
    reader.members(|reader, name| {
        match name {
            "code" => code = Some(reader.number()?),
            "flag" => command.flag = reader.number()?,
            "opaque" => command.opaque = reader.number()?,
            "version" => command.version = reader.number()?,
            "language" => command.language = language_number(reader.text()?),
            "remark" => command.remark = Some(reader.text()?.to_owned()),
            "extFields" => command.ext_fields = reader.fields()?,
            // The frame says it, too.
            "serializeTypeCurrentRPC" => _ = reader.text()?,
            _ => return None,
        }
        Some(())
    })?;
    command.code = code?;
    reader.rest.is_empty().then_some(command)
}

/// What is left to read.
struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    /// The members of an object; `value` reads the value of each.
    fn members(&mut self, mut value: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        self.expect(b'{')?;
        if self.expect(b'}').is_some() {
            return Some(());
        }
        loop {
            let name = self.text()?;
            self.expect(b':')?;
            value(self, name)?;
            if self.expect(b',').is_none() {
                return self.expect(b'}');
            }
        }
    }

    fn fields(&mut self) -> Option<ExtFields> {
        let mut fields = ExtFields::with_room();
        self.members(|reader, name| {
            fields.put(name, reader.text()?);
            Some(())
        })?;
        Some(fields)
    }

    /// A text without escapes.
    fn text(&mut self) -> Option<&'a str> {
        self.expect(b'"')?;
        let text = self.split(plain_len(self.rest.as_bytes()))?;
        self.expect(b'"')?;
        Some(text)
    }

    fn number(&mut self) -> Option<i32> {
        let end = self.rest.bytes().position(|byte| !byte.is_ascii_digit() && byte != b'-')?;
        let digits = self.split(end)?;
        // JSON has no number with zeros before it, but for zero itself.
        let has_zeros = digits.starts_with("-0") || digits.len() > 1 && digits.starts_with('0');
        digits.parse().ok().filter(|_| !has_zeros)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.rest = self.rest.strip_prefix(char::from(byte))?;
        Some(())
    }

    fn split(&mut self, at: usize) -> Option<&'a str> {
        let (front, rest) = self.rest.split_at_checked(at)?;
        self.rest = rest;
        Some(front)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers_of_apaches_brokers_are_read() {
        let header = br#"{"code":0,"extFields":{"queueId":"3","TRACE_ON":"true","MSG_REGION":"DefaultRegion","msgId":"7F00000100002A9F00000000730890AB","queueOffset":"17"},"flag":1,"language":"JAVA","opaque":12,"serializeTypeCurrentRPC":"JSON","version":513}"#;
        let command = read(header).unwrap();
        assert_eq!((command.code, command.flag, command.opaque, command.version), (0, 1, 12, 513));
        assert_eq!(command.ext_fields.get("MSG_REGION"), Some("DefaultRegion"));
        assert_eq!(command.ext_fields.iter().count(), 5);
        let refused =
            br#"{"code":14,"flag":1,"language":"JAVA","opaque":-2,"remark":"no \u00e9","version":407}"#;
        assert!(read(refused).is_none(), "it has an escape");
        let refused = "{\"code\":14,\"opaque\":-2,\"remark\":\"né\",\"extFields\":{}}";
        assert_eq!(read(refused.as_bytes()).unwrap().remark.as_deref(), Some("né"));
    }

    #[test]
    fn what_is_not_of_that_kind_is_left_to_others() {
        for header in [
            "",
            "{",
            "{}",
            "[]",
            "{\"code\":1",
            "{\"code\":1}x",
            "{\"code\":01}",
            "{\"code\":-0}",
            "{\"code\":+1}",
            "{\"code\":1.0}",
            "{\"code\":\"1\"}",
            "{\"code\":3000000000}",
            "{ \"code\":1}",
            "{\"code\":1,}",
            "{\"code\":1,\"new\":\"x\"}",
            "{\"code\":1,\"remark\":null}",
            "{\"code\":1,\"extFields\":{\"a\":1}}",
            "{\"code\":1,\"remark\":\"a\nb\"}",
            "{\"code\":1,\"remark\":\"",
            "{\"flag\":1}",
        ] {
            assert_eq!(read(header.as_bytes()), None, "{header}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_any_reader_reads(
            header in r#"\{"code":-?[0-9]{1,2},("flag":[01],)?("remark":"[aé\\n]{0,2}",)?"extFields":\{("a":"[bé]?")?\}(,"version":[0-9])?\}?"#,
        ) {
            if let Some(command) = read(header.as_bytes()) {
                prop_assert_eq!(RemotingCommand::from_any_json(header.as_bytes()).unwrap(), command);
            }
        }

        #[test]
        fn no_text_panics(header in r#"[{}:,"\\0-9ca]*"#) {
            let _ = read(header.as_bytes());
        }
    }
}
