//! One request or answer, and the two forms of its header.
//!
//! ```text
//! | length: i32 | header form: u8 | header length: u24 | header | body |
//!               '--------------- counted by `length` ---------------'
//! ```
//!
//! Big-endian. Form 0 is JSON, 1 the binary form. Source: `protocol.md` section 1, `RemotingCommand`,
//! `RocketMQSerializable`.

use std::borrow::Cow;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Deserialize;

use super::ext_fields::Decimal;
use super::json_text::plain_len;
use super::{ExtFields, PutField, RequestCode, ResponseCode, json_header};

/// RUST in RocketMQ's list of languages, which brokers show to their operators.
const LANGUAGE: u8 = 12;
const LANGUAGE_NAME: &str = "RUST";
/// What an unknown language is.
const OTHER: u8 = 7;
/// The release whose behaviour this client has: 5.5.0. Brokers answer strict JSON from 4.9.4 (401) on, and announce
/// their shutdown (GO_AWAY) from 5.3.1 (475) on.
pub(crate) const VERSION: i32 = 513;
const IS_RESPONSE: i32 = 1;
const IS_ONEWAY: i32 = 2;

/// How the header of a frame is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum HeaderForm {
    /// What every peer reads; the default of all clients.
    #[default]
    Json,
    /// Smaller. Codes beyond 16 bits (POP) do not fit and are written as JSON all the same.
    RocketMq,
}

/// One request or answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemotingCommand {
    /// A [`RequestCode`] or a [`ResponseCode`], as `is_response` says.
    pub(crate) code: i32,
    pub(crate) version: i32,
    /// The language of the sender, as its number; what is unknown is 7, OTHER.
    pub(crate) language: u8,
    /// Chosen by who asks, repeated by who answers.
    pub(crate) opaque: i32,
    pub(crate) flag: i32,
    pub(crate) remark: Option<String>,
    pub(crate) ext_fields: ExtFields,
    pub(crate) body: Bytes,
}

/// Why the bytes of a frame are no command. The stream has lost its place: close the connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// The announced length is not allowed. Nothing was reserved for it.
    #[error("a frame of {length} bytes is larger than the limit of {limit}")]
    FrameTooLarge { length: usize, limit: usize },
    /// The frame's own lengths contradict each other.
    #[error("{what} takes {length} bytes in a frame that has {left} left")]
    Truncated { what: &'static str, length: i64, left: usize },
    /// Neither JSON nor the binary form.
    #[error("the header has the form {0}, which is neither JSON (0) nor ROCKETMQ (1)")]
    UnknownForm(u8),
    /// The header is not in its form.
    #[error("the header cannot be read: {0}")]
    Header(String),
}

impl RemotingCommand {
    pub(crate) fn request(code: RequestCode, ext_fields: ExtFields, body: Bytes) -> Self {
        Self { code: code.0, version: VERSION, language: LANGUAGE, ext_fields, body, ..Self::empty() }
    }

    pub(crate) fn response(code: ResponseCode, remark: impl Into<Option<String>>) -> Self {
        let (flag, remark) = (IS_RESPONSE, remark.into());
        Self { code: code.0, version: VERSION, language: LANGUAGE, flag, remark, ..Self::empty() }
    }

    /// What a header says that says nothing.
    pub(super) fn empty() -> Self {
        Self {
            code: 0,
            version: 0,
            language: OTHER,
            opaque: 0,
            flag: 0,
            remark: None,
            ext_fields: ExtFields::default(),
            body: Bytes::new(),
        }
    }

    pub(crate) fn with_fields(mut self, ext_fields: ExtFields) -> Self {
        self.ext_fields = ext_fields;
        self
    }

    pub(crate) fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Marks a request that is not to be answered.
    pub(crate) fn oneway(mut self) -> Self {
        self.flag |= IS_ONEWAY;
        self
    }

    /// The language of the sender.
    pub(crate) fn language_name(&self) -> &'static str {
        LANGUAGES.get(usize::from(self.language)).copied().unwrap_or("OTHER")
    }

    pub(crate) fn is_response(&self) -> bool {
        self.flag & IS_RESPONSE != 0
    }

    pub(crate) fn is_oneway(&self) -> bool {
        self.flag & IS_ONEWAY != 0
    }

    pub(crate) fn request_code(&self) -> RequestCode {
        RequestCode(self.code)
    }

    pub(crate) fn response_code(&self) -> ResponseCode {
        ResponseCode(self.code)
    }

    /// Everything of the frame before the body. The body follows as it is, so that it need not be copied.
    pub(crate) fn encode_head(&self, form: HeaderForm) -> Bytes {
        let fits = i16::try_from(self.code).is_ok();
        let form = if fits { form } else { HeaderForm::Json };
        // Names, quotes and escapes take as much again as short values do.
        let mut out = BytesMut::with_capacity(256 + 2 * self.ext_fields.len_bytes());
        out.put_u64(0);
        match form {
            HeaderForm::Json => self.put_json(&mut out),
            HeaderForm::RocketMq => self.put_binary(&mut out),
        }
        finish_head(out, form, self.body.len())
    }

    /// Reads one whole frame, without its leading length. The body shares the frame's memory.
    pub(crate) fn from_frame(mut frame: Bytes) -> Result<Self, DecodeError> {
        if frame.len() < 4 {
            return Err(DecodeError::Truncated { what: "the header length", length: 4, left: frame.len() });
        }
        let word = frame.get_u32();
        let (form, length) = ((word >> 24) as u8, (word & 0x00FF_FFFF) as usize);
        if frame.len() < length {
            return Err(DecodeError::Truncated {
                what: "the header",
                length: length as i64,
                left: frame.len(),
            });
        }
        let header = frame.split_to(length);
        let command = match form {
            0 => json_header::read(&header).map_or_else(|| Self::from_any_json(&header), Ok),
            1 => Self::from_binary(header),
            unknown => Err(DecodeError::UnknownForm(unknown)),
        }?;
        Ok(command.with_body(frame))
    }

    fn put_json(&self, out: &mut BytesMut) {
        put_json_start(out, self.code);
        let mut fields = JsonFields { out, is_first: true };
        self.ext_fields.iter().for_each(|(name, value)| fields.put_field(name, value));
        put_json_number(out, r#"},"flag":"#, self.flag);
        let language = if self.language == LANGUAGE { LANGUAGE_NAME } else { "OTHER" };
        put_json_end(out, language, self.opaque, self.remark.as_deref(), self.version);
    }

    /// Reads what is JSON at all; slower than [`json_header`].
    pub(super) fn from_any_json(header: &[u8]) -> Result<Self, DecodeError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Header<'a> {
            code: i32,
            #[serde(default, borrow)]
            language: Option<Cow<'a, str>>,
            #[serde(default)]
            version: i32,
            #[serde(default)]
            opaque: i32,
            #[serde(default)]
            flag: i32,
            #[serde(default)]
            remark: Option<String>,
            #[serde(default)]
            ext_fields: ExtFields,
        }
        let header: Header<'_> =
            serde_json::from_slice(header).map_err(|error| DecodeError::Header(error.to_string()))?;
        Ok(Self {
            code: header.code,
            version: header.version,
            language: language_number(header.language.as_deref().unwrap_or_default()),
            opaque: header.opaque,
            flag: header.flag,
            remark: header.remark,
            ext_fields: header.ext_fields,
            body: Bytes::new(),
        })
    }

    fn put_binary(&self, out: &mut BytesMut) {
        out.put_i16(self.code as i16);
        out.put_u8(self.language);
        out.put_i16(self.version as i16);
        out.put_i32(self.opaque);
        out.put_i32(self.flag);
        let remark = self.remark.as_deref().unwrap_or_default();
        out.put_i32(remark.len() as i32);
        out.put_slice(remark.as_bytes());
        // Java reads an empty value as null, which would break a signature: it is left out instead.
        let fields = || self.ext_fields.iter().filter(|(_, value)| !value.is_empty());
        let length: usize = fields().map(|(name, value)| 6 + name.len() + value.len()).sum();
        out.put_i32(length as i32);
        for (name, value) in fields() {
            out.put_i16(name.len() as i16);
            out.put_slice(name.as_bytes());
            out.put_i32(value.len() as i32);
            out.put_slice(value.as_bytes());
        }
    }

    fn from_binary(mut header: Bytes) -> Result<Self, DecodeError> {
        let short = |error: bytes::TryGetError| DecodeError::Header(error.to_string());
        let code = header.try_get_i16().map_err(short)?;
        let language = header.try_get_u8().map_err(short)?;
        let version = header.try_get_i16().map_err(short)?;
        let opaque = header.try_get_i32().map_err(short)?;
        let flag = header.try_get_i32().map_err(short)?;
        let remark_len = header.try_get_i32().map_err(short)?;
        let remark = split_text(&mut header, remark_len, "the remark")?;
        let fields_len = header.try_get_i32().map_err(short)?;
        let mut rest = split(&mut header, fields_len, "the extension fields")?;
        let mut ext_fields = ExtFields::default();
        while !rest.is_empty() {
            let name_len = rest.try_get_i16().map_err(short)?;
            let name = split_text(&mut rest, name_len.into(), "the name of a field")?;
            let value_len = rest.try_get_i32().map_err(short)?;
            let value = split_text(&mut rest, value_len, "the value of a field")?;
            ext_fields.put(name, value);
        }
        Ok(Self {
            code: code.into(),
            version: version.into(),
            language,
            opaque,
            flag,
            remark: (!remark.is_empty()).then_some(remark),
            ext_fields,
            body: Bytes::new(),
        })
    }
}

/// Everything of a request's frame before a body of so many bytes, in JSON: what [`RemotingCommand::encode_head`] makes of
/// a command, for one that nobody needs but for that. Every message that is sent is such a request.
pub(crate) fn encode_request(
    code: RequestCode,
    opaque: i32,
    body_len: usize,
    write: impl FnOnce(&mut JsonFields<'_>),
) -> Bytes {
    let mut out = BytesMut::with_capacity(768);
    out.put_u64(0);
    put_json_start(&mut out, code.0);
    write(&mut JsonFields { out: &mut out, is_first: true });
    put_json_number(&mut out, r#"},"flag":"#, 0);
    put_json_end(&mut out, LANGUAGE_NAME, opaque, None, VERSION);
    finish_head(out, HeaderForm::Json, body_len)
}

/// Sets the lengths, for which there are eight bytes at the front.
fn finish_head(mut out: BytesMut, form: HeaderForm, body_len: usize) -> Bytes {
    let header = out.len() - 8;
    let form = if form == HeaderForm::Json { 0 } else { 1 };
    out[..4].copy_from_slice(&((4 + header + body_len) as u32).to_be_bytes());
    out[4..8].copy_from_slice(&(form << 24 | header as u32).to_be_bytes());
    out.freeze()
}

fn put_json_start(out: &mut BytesMut, code: i32) {
    put_json_number(out, r#"{"code":"#, code);
    out.put_slice(br#","extFields":{"#);
}

fn put_json_end(out: &mut BytesMut, language: &str, opaque: i32, remark: Option<&str>, version: i32) {
    out.put_slice(br#","language":""#);
    out.put_slice(language.as_bytes());
    put_json_number(out, r#"","opaque":"#, opaque);
    if let Some(remark) = remark {
        out.put_slice(br#","remark":"#);
        put_json_text(out, remark);
    }
    put_json_number(out, r#","serializeTypeCurrentRPC":"JSON","version":"#, version);
    out.put_u8(b'}');
}

fn put_json_number(out: &mut BytesMut, before: &str, number: i32) {
    out.put_slice(before.as_bytes());
    out.put_slice(Decimal::of(number.into()).as_bytes());
}

/// The fields of a header that is being written.
pub(crate) struct JsonFields<'a> {
    out: &'a mut BytesMut,
    is_first: bool,
}

impl JsonFields<'_> {
    fn put_name(&mut self, name: &str) {
        if !std::mem::take(&mut self.is_first) {
            self.out.put_u8(b',');
        }
        put_json_text(self.out, name);
        self.out.put_u8(b':');
    }
}

impl PutField for JsonFields<'_> {
    fn put_field(&mut self, name: &str, value: &str) {
        self.put_name(name);
        put_json_text(self.out, value);
    }

    fn put_number(&mut self, name: &str, number: i64) {
        self.put_name(name);
        self.out.put_u8(b'"');
        self.out.put_slice(Decimal::of(number).as_bytes());
        self.out.put_u8(b'"');
    }
}

fn split(from: &mut Bytes, length: i32, what: &'static str) -> Result<Bytes, DecodeError> {
    match usize::try_from(length) {
        Ok(length) if length <= from.len() => Ok(from.split_to(length)),
        _ => Err(DecodeError::Truncated { what, length: length.into(), left: from.len() }),
    }
}

fn split_text(from: &mut Bytes, length: i32, what: &'static str) -> Result<String, DecodeError> {
    let bytes = split(from, length, what)?;
    String::from_utf8(bytes.into()).map_err(|_| DecodeError::Header(format!("{what} is not UTF-8")))
}

/// Source: `protocol.md` section 1.4.
const LANGUAGES: [&str; 14] = [
    "JAVA", "CPP", "DOTNET", "PYTHON", "DELPHI", "ERLANG", "RUBY", "OTHER", "HTTP", "GO", "PHP", "OMS",
    "RUST", "NODE_JS",
];

pub(super) fn language_number(name: &str) -> u8 {
    LANGUAGES.iter().position(|other| *other == name).map_or(OTHER, |at| at as u8)
}

/// Writes a JSON string: the quick way where nothing needs an escape, which is nearly always.
fn put_json_text(out: &mut BytesMut, text: &str) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.put_u8(b'"');
    let mut rest = bytes;
    loop {
        let (plain, others) = rest.split_at(plain_len(rest));
        out.put_slice(plain);
        let Some((byte, others)) = others.split_first() else { break };
        match byte {
            b'"' | b'\\' => out.put_slice(&[b'\\', *byte]),
            _ => out.put_slice(&[b'\\', b'u', b'0', b'0', hex_digit(byte >> 4), hex_digit(byte & 0xF)]),
        }
        rest = others;
    }
    out.put_u8(b'"');
}

fn hex_digit(number: u8) -> u8 {
    b"0123456789abcdef"[usize::from(number)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn route_request() -> RemotingCommand {
        let mut fields = ExtFields::default();
        fields.put("topic", "t1");
        let mut command = RemotingCommand::request(RequestCode::GET_ROUTEINFO_BY_TOPIC, fields, Bytes::new());
        command.opaque = 7;
        command
    }

    #[test]
    fn the_binary_form_has_the_documented_bytes() {
        let head = route_request().encode_head(HeaderForm::RocketMq);
        let hex: String = head.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "000000260100002200690c02010000000700000000000000000000000d0005746f706963000000027431"
        );
    }

    #[test]
    fn a_request_is_written_at_once_as_it_would_be_as_a_command() {
        let mut command = route_request().with_body("body");
        command.ext_fields.put("i", "k\u{1}v\u{2}\"\\ü");
        let head = encode_request(RequestCode::GET_ROUTEINFO_BY_TOPIC, 7, 4, |fields| {
            command.ext_fields.iter().for_each(|(name, value)| fields.put_field(name, value));
        });
        assert_eq!(head, command.encode_head(HeaderForm::Json));
    }

    #[test]
    fn a_header_of_the_java_client_is_read() {
        let header = br#"{"code":105,"extFields":{"acceptStandardJsonOnly":"true","topic":"t"},"flag":0,"language":"JAVA","opaque":0,"serializeTypeCurrentRPC":"JSON","version":513}"#;
        let mut frame = BytesMut::new();
        frame.put_u32(header.len() as u32);
        frame.put_slice(header);
        let command = RemotingCommand::from_frame(frame.freeze()).unwrap();
        assert_eq!(command.request_code(), RequestCode::GET_ROUTEINFO_BY_TOPIC);
        assert_eq!(command.ext_fields.get("topic"), Some("t"));
        assert_eq!((command.language, command.version), (0, 513));
    }

    #[test]
    fn values_that_are_no_text_and_unknown_members_are_tolerated() {
        let header = br#"{"code":0,"extFields":{"n":null,"a":1,"x":{"y":[]},"b":true,"c":[1]},"language":"COBOL","new":{"x":[]}}"#;
        let mut frame = BytesMut::new();
        frame.put_u32(header.len() as u32);
        frame.put_slice(header);
        let command = RemotingCommand::from_frame(frame.freeze()).unwrap();
        assert_eq!(command.ext_fields.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "true")]);
        assert_eq!(command.language, 7);
    }

    #[test]
    fn a_code_beyond_16_bits_is_written_as_json() {
        let command = RemotingCommand::request(RequestCode(200_050), ExtFields::default(), Bytes::new());
        assert_eq!(command.encode_head(HeaderForm::RocketMq)[4], 0);
    }

    #[test]
    fn lengths_that_contradict_the_frame_are_refused() {
        for frame in [&b"\0\0"[..], b"\0\0\0\x09{}", b"\x02\0\0\0", b"\x01\0\0\x03\0\0\0", b"\0\0\0\x02{]"] {
            assert!(RemotingCommand::from_frame(Bytes::copy_from_slice(frame)).is_err(), "{frame:?}");
        }
    }

    fn any_command() -> impl Strategy<Value = RemotingCommand> {
        let fields = prop::collection::vec(("[^\u{0}]{1,12}", ".{1,40}"), 0..6);
        (any::<i16>(), any::<i32>(), 0..4_i32, proptest::option::of(".{1,20}"), fields, any::<Vec<u8>>())
            .prop_map(|(code, opaque, flag, remark, fields, body)| {
                let mut ext_fields = ExtFields::default();
                for (name, value) in fields {
                    ext_fields.put(name, value);
                }
                let code = code.into();
                let body = body.into();
                RemotingCommand {
                    code,
                    version: VERSION,
                    language: LANGUAGE,
                    opaque,
                    flag,
                    remark,
                    ext_fields,
                    body,
                }
            })
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(command in any_command(), binary: bool) {
            let form = if binary { HeaderForm::RocketMq } else { HeaderForm::Json };
            let mut frame = BytesMut::from(&command.encode_head(form)[..]);
            frame.put_slice(&command.body);
            prop_assert_eq!(frame.get_u32() as usize, frame.len());
            prop_assert_eq!(RemotingCommand::from_frame(frame.freeze()).unwrap(), command);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = RemotingCommand::from_frame(bytes.into());
        }

        #[test]
        fn no_binary_header_panics(mut bytes: Vec<u8>) {
            let mut frame = vec![1, 0, 0, bytes.len().min(255) as u8];
            frame.append(&mut bytes);
            let _ = RemotingCommand::from_frame(frame.into());
        }
    }
}
