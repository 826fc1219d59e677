//! The form in which a broker stores a message and answers a pull: records back to back.
//!
//! ```text
//! | size: i32 | magic: i32 | body CRC: i32 | queue id: i32 | flag: i32 | queue offset: i64 | commit log offset: i64 |
//! | system flag: i32 | born time: i64 | born host: 8 or 20 | store time: i64 | store host: 8 or 20 |
//! | reconsume times: i32 | prepared transaction offset: i64 | body length: i32, body |
//! | topic length: u8 (v1) or i16 (v2), topic | properties length: i16, properties |
//! ```
//!
//! Big-endian. `size` counts the whole record. Source: `protocol.md` section 4.1, `MessageDecoder.decode`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::message_ext::{MessageExt, Span};
use super::{batch, compression, properties, sys_flag};

pub(super) const MAGIC_V1: i32 = 0xDAA3_20A7_u32 as i32;
const MAGIC_V2: i32 = 0xDAA3_20AB_u32 as i32;
/// Positions of what comes before the hosts, whose length varies.
pub(super) const QUEUE_ID_AT: usize = 12;
pub(super) const FLAG_AT: usize = 16;
pub(super) const QUEUE_OFFSET_AT: usize = 20;
pub(super) const COMMIT_LOG_OFFSET_AT: usize = 28;
pub(super) const SYS_FLAG_AT: usize = 36;
pub(super) const BORN_TIME_AT: usize = 40;
pub(super) const BORN_HOST_AT: usize = 48;
/// The shortest record: IPv4 hosts, no body, no topic, no properties.
const MIN_RECORD: usize = 91;

/// Why one record of a pull could not become a message.
///
/// The other records of the pull are not touched by it.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "the message at offset {queue_offset} of the queue (commit log offset {commit_log_offset}) cannot be read: {reason}"
)]
#[non_exhaustive]
pub struct RecordError {
    /// Where the record stands in its queue; −1 where not even that could be read.
    pub queue_offset: i64,
    /// Where the broker keeps the record, by which it can be sent back; −1 where not even that could be read.
    pub commit_log_offset: i64,
    /// What is wrong with it.
    pub reason: String,
    /// Whether its length is wrong, so that what follows it in the answer cannot be told apart.
    pub ends_answer: bool,
}

/// Reads the records of `bytes` in their order, checking each body's CRC and unpacking compressed bodies to at most
/// `max_body_bytes`. An inner batch becomes the messages that it holds.
///
/// Messages share the memory of `bytes`. A record that cannot be read is an error of its own; where even its length
/// is wrong, the rest of `bytes` is lost with it and that error is the last item.
pub(crate) fn decode_all(
    bytes: Bytes,
    max_body_bytes: usize,
) -> impl Iterator<Item = Result<MessageExt, RecordError>> {
    let mut rest = bytes;
    let mut unwrapped = Vec::new().into_iter();
    std::iter::from_fn(move || {
        if let Some(message) = unwrapped.next() {
            return Some(message);
        }
        if rest.is_empty() {
            return None;
        }
        let record = match split_record(&mut rest) {
            Ok(record) => record,
            Err(error) => {
                rest.clear();
                return Some(Err(error));
            }
        };
        match decode(record, max_body_bytes) {
            Ok(message) if message.sys_flag() & sys_flag::INNER_BATCH == sys_flag::INNER_BATCH => {
                unwrapped = unwrap(&message, max_body_bytes).into_iter();
                unwrapped.next()
            }
            decoded => Some(decoded),
        }
    })
}

fn split_record(rest: &mut Bytes) -> Result<Bytes, RecordError> {
    let size = i32_at(rest, 0).and_then(|size| usize::try_from(size).ok()).unwrap_or_default();
    if size < MIN_RECORD || rest.len() < size {
        let reason = format!("its length is given as {size} bytes where {} are left", rest.len());
        return Err(RecordError { ends_answer: true, ..error(rest, reason) });
    }
    Ok(rest.split_to(size))
}

/// Reads one whole record.
pub(crate) fn decode(record: Bytes, max_body_bytes: usize) -> Result<MessageExt, RecordError> {
    match parse(&record, max_body_bytes) {
        Ok(Parsed { body, topic, properties, reconsume_times }) => {
            Ok(MessageExt::from_record(record, body, topic, properties, reconsume_times))
        }
        Err(reason) => Err(error(&record, reason)),
    }
}

/// The encoded properties of a record, without a look at its body; `None` where it is no record.
pub(crate) fn encoded_properties(record: &[u8]) -> Option<&str> {
    let mut cursor = Cursor { record, at: SYS_FLAG_AT };
    let sys_flag = cursor.i32("the system flag").ok()?;
    cursor.skip(8 + host_len(sys_flag & sys_flag::BORN_HOST_V6) + 8, "the born host").ok()?;
    cursor.skip(host_len(sys_flag & sys_flag::STORE_HOST_V6) + 4 + 8, "the store host").ok()?;
    let body_len = cursor.i32("the body length").ok()?;
    cursor.span(body_len, "the body").ok()?;
    let topic_len = match i32_at(record, 4)? {
        MAGIC_V1 => cursor.u8("the topic length").ok()?.into(),
        _ => cursor.i16("the topic length").ok()?.into(),
    };
    cursor.span(topic_len, "the topic").ok()?;
    let properties_len = cursor.i16("the properties length").ok()?;
    let properties = cursor.span(properties_len.into(), "the properties").ok()?;
    std::str::from_utf8(&record[properties.range()]).ok()
}

fn error(record: &[u8], reason: String) -> RecordError {
    RecordError {
        queue_offset: i64_at(record, QUEUE_OFFSET_AT).unwrap_or(-1),
        commit_log_offset: i64_at(record, COMMIT_LOG_OFFSET_AT).unwrap_or(-1),
        reason,
        ends_answer: false,
    }
}

struct Parsed {
    body: Bytes,
    topic: Span,
    properties: Span,
    reconsume_times: i32,
}

fn parse(record: &Bytes, max_body_bytes: usize) -> Result<Parsed, String> {
    let mut cursor = Cursor { record, at: 4 };
    let magic = cursor.i32("the magic number")?;
    if magic != MAGIC_V1 && magic != MAGIC_V2 {
        return Err(format!("its magic number is {magic:#x}"));
    }
    let crc = cursor.i32("the CRC")?;
    cursor.skip(SYS_FLAG_AT - cursor.at, "the offsets")?;
    let sys_flag = cursor.i32("the system flag")?;
    cursor.skip(8 + host_len(sys_flag & sys_flag::BORN_HOST_V6) + 8, "the born host")?;
    cursor.skip(host_len(sys_flag & sys_flag::STORE_HOST_V6), "the store host")?;
    let reconsume_times = cursor.i32("the reconsume times")?;
    cursor.skip(8, "the transaction offset")?;
    let body_len = cursor.i32("the body length")?;
    let body = cursor.span(body_len, "the body")?;
    let topic_len = if magic == MAGIC_V1 {
        cursor.u8("the topic length")?.into()
    } else {
        cursor.i16("the topic length")?.into()
    };
    let topic = cursor.span(topic_len, "the topic")?;
    let properties_len = cursor.i16("the properties length")?;
    let properties = cursor.span(properties_len.into(), "the properties")?;
    for (span, what) in [(topic, "topic"), (properties, "properties")] {
        if std::str::from_utf8(&record[span.range()]).is_err() {
            return Err(format!("its {what} is not UTF-8"));
        }
    }
    let body = record.slice(body.range());
    // A CRC of 0 is what a broker stores that was told not to compute it.
    if crc != 0 && body_crc(&body) != crc {
        return Err(format!("the CRC of its body is {:#x}, not {crc:#x}", body_crc(&body)));
    }
    let body = unpack(sys_flag, body, max_body_bytes)?;
    Ok(Parsed { body, topic, properties, reconsume_times })
}

fn unpack(sys_flag: i32, body: Bytes, max_body_bytes: usize) -> Result<Bytes, String> {
    match sys_flag::compression(sys_flag) {
        Ok(None) => Ok(body),
        Ok(Some(kind)) => compression::decompress(kind, &body, max_body_bytes)
            .map_err(|error| format!("its {kind:?} body cannot be unpacked: {error}")),
        Err(unknown) => {
            Err(format!("its body is compressed in a way that is not known here (type {unknown})"))
        }
    }
}

/// The messages of an inner batch, each as a record of its own that inherits what stands outside.
///
/// Source: `protocol.md` section 4.8, `MessageDecoder.decodeMessage`.
fn unwrap(outer: &MessageExt, max_body_bytes: usize) -> Vec<Result<MessageExt, RecordError>> {
    let fail = |reason: String| RecordError {
        queue_offset: outer.queue_offset(),
        commit_log_offset: outer.commit_log_offset(),
        reason,
        ends_answer: false,
    };
    let mut queue_offset = outer.queue_offset();
    batch::decode(outer.body().clone())
        .map(|item| {
            let item = item.map_err(|reason| fail(format!("its inner batch is damaged: {reason}")))?;
            let record = Record {
                queue_id: outer.queue_id(),
                flag: item.flag,
                queue_offset,
                commit_log_offset: outer.commit_log_offset(),
                sys_flag: outer.sys_flag() & !(sys_flag::INNER_BATCH | sys_flag::COMPRESSED),
                born_timestamp_ms: outer.born_timestamp_ms(),
                born_host: outer.born_host(),
                store_timestamp_ms: outer.store_timestamp_ms(),
                store_host: outer.store_host(),
                reconsume_times: outer.reconsume_times() as i32,
                prepared_transaction_offset: outer.prepared_transaction_offset(),
                body: &item.body,
                topic: outer.topic(),
                properties: &item.properties,
            };
            queue_offset += 1;
            decode(record.encode(), max_body_bytes)
        })
        .collect()
}

/// The CRC of a stored body, without the sign bit. Source: `UtilAll.crc32`.
pub(crate) fn body_crc(body: &[u8]) -> i32 {
    (crc32fast::hash(body) & 0x7FFF_FFFF) as i32
}

/// The values of a record, to be written: by the embedded broker, by the test kit, for an inner batch.
#[derive(Debug, Clone)]
pub(crate) struct Record<'a> {
    pub(crate) queue_id: i32,
    pub(crate) flag: i32,
    pub(crate) queue_offset: i64,
    pub(crate) commit_log_offset: i64,
    pub(crate) sys_flag: i32,
    pub(crate) born_timestamp_ms: i64,
    pub(crate) born_host: SocketAddr,
    pub(crate) store_timestamp_ms: i64,
    pub(crate) store_host: SocketAddr,
    pub(crate) reconsume_times: i32,
    pub(crate) prepared_transaction_offset: i64,
    pub(crate) body: &'a [u8],
    pub(crate) topic: &'a str,
    pub(crate) properties: &'a str,
}

impl Record<'_> {
    /// Writes the record; version 2 where the topic is longer than a `u8` counts, as 5.x brokers do.
    pub(crate) fn encode(&self) -> Bytes {
        let host_flags = flag_of_host(self.born_host, sys_flag::BORN_HOST_V6)
            | flag_of_host(self.store_host, sys_flag::STORE_HOST_V6);
        let sys_flag = self.sys_flag & !(sys_flag::BORN_HOST_V6 | sys_flag::STORE_HOST_V6) | host_flags;
        let v2 = usize::from(u8::MAX) < self.topic.len();
        let mut out = BytesMut::with_capacity(
            MIN_RECORD + 25 + self.body.len() + self.topic.len() + self.properties.len(),
        );
        out.put_i32(0);
        out.put_i32(if v2 { MAGIC_V2 } else { MAGIC_V1 });
        out.put_i32(body_crc(self.body));
        out.put_i32(self.queue_id);
        out.put_i32(self.flag);
        out.put_i64(self.queue_offset);
        out.put_i64(self.commit_log_offset);
        out.put_i32(sys_flag);
        out.put_i64(self.born_timestamp_ms);
        put_host(&mut out, self.born_host);
        out.put_i64(self.store_timestamp_ms);
        put_host(&mut out, self.store_host);
        out.put_i32(self.reconsume_times);
        out.put_i64(self.prepared_transaction_offset);
        out.put_i32(self.body.len() as i32);
        out.put_slice(self.body);
        if v2 {
            out.put_i16(self.topic.len() as i16);
        } else {
            out.put_u8(self.topic.len() as u8);
        }
        out.put_slice(self.topic.as_bytes());
        out.put_i16(self.properties.len() as i16);
        out.put_slice(self.properties.as_bytes());
        let size = out.len() as i32;
        out[..4].copy_from_slice(&size.to_be_bytes());
        out.freeze()
    }
}

fn flag_of_host(host: SocketAddr, v6: i32) -> i32 {
    if host.is_ipv6() { v6 } else { 0 }
}

fn put_host(out: &mut BytesMut, host: SocketAddr) {
    match host.ip() {
        IpAddr::V4(ip) => out.put_slice(&ip.octets()),
        IpAddr::V6(ip) => out.put_slice(&ip.octets()),
    }
    out.put_i32(host.port().into());
}

/// Reads a host at `at`; the unspecified address where the record is too short, which a decoded one never is.
pub(super) fn host_at(record: &[u8], at: usize, v6: bool) -> SocketAddr {
    let unspecified = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let read = || {
        let mut bytes = record.get(at..)?;
        let ip: IpAddr = if v6 {
            Ipv6Addr::from(bytes.try_get_u128().ok()?).into()
        } else {
            Ipv4Addr::from(bytes.try_get_u32().ok()?).into()
        };
        Some(SocketAddr::new(ip, bytes.try_get_i32().ok()? as u16))
    };
    read().unwrap_or(unspecified)
}

/// The length of a host: address and port.
pub(super) fn host_len(v6: i32) -> usize {
    if v6 == 0 { 8 } else { 20 }
}

pub(super) fn i32_at(record: &[u8], at: usize) -> Option<i32> {
    record.get(at..)?.first_chunk().map(|bytes| i32::from_be_bytes(*bytes))
}

pub(super) fn i64_at(record: &[u8], at: usize) -> Option<i64> {
    record.get(at..)?.first_chunk().map(|bytes| i64::from_be_bytes(*bytes))
}

/// A place in a record; every step is checked, every error says what was to be read.
struct Cursor<'a> {
    record: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn skip(&mut self, len: usize, what: &str) -> Result<(), String> {
        self.span(i32::try_from(len).unwrap_or(i32::MAX), what).map(|_| ())
    }

    fn span(&mut self, len: i32, what: &str) -> Result<Span, String> {
        let start = self.at;
        let end = usize::try_from(len)
            .ok()
            .and_then(|len| start.checked_add(len))
            .filter(|end| *end <= self.record.len());
        let Some(end) = end else {
            return Err(format!(
                "{what} would take {len} bytes where {} are left",
                self.record.len() - start
            ));
        };
        self.at = end;
        Ok(Span::new(start, end))
    }

    fn take<const N: usize>(&mut self, what: &str) -> Result<[u8; N], String> {
        let bytes = self.record.get(self.at..).and_then(<[u8]>::first_chunk);
        let bytes = *bytes.ok_or_else(|| format!("it ends before {what}"))?;
        self.at += N;
        Ok(bytes)
    }

    fn u8(&mut self, what: &str) -> Result<u8, String> {
        self.take::<1>(what).map(|[byte]| byte)
    }

    fn i16(&mut self, what: &str) -> Result<i16, String> {
        self.take(what).map(i16::from_be_bytes)
    }

    fn i32(&mut self, what: &str) -> Result<i32, String> {
        self.take(what).map(i32::from_be_bytes)
    }
}

/// Where the value of a property of `record` stands, in positions of the record.
pub(super) fn property_span(record: &[u8], properties: Span, name: &str) -> Option<Span> {
    let (start, end) = properties::find_span(&record[properties.range()], name)?;
    Some(Span::new(properties.start() + start, properties.start() + end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX_BODY: usize = 4 << 20;

    /// A record of a 5.5.0 broker (`protocol.md` section 4.1): topic `pref_t1`, body `hello`.
    pub(crate) fn recorded() -> Bytes {
        let properties = "MSG_REGION\u{1}DefaultRegion\u{2}UNIQ_KEY\u{1}C0000202493C1B28A1FA0123456700FF\u{2}CLUSTER\u{1}\
                          DefaultCluster\u{2}TAGS\u{1}TagA\u{2}KEYS\u{1}k1\u{2}TRACE_ON\u{1}true\u{2}";
        let head = "000000e1daa320a73610a686000000000000000000000000000000020000000073089 0ab000000000000018bcfe56800\
                    7f0000010000960a000001a2062d608c7f00000100002a9f0000000000000000000000000000000568656c6c6f07\
                    707265665f7431007a"
            .replace(' ', "");
        let mut bytes: Vec<u8> =
            (0..head.len()).step_by(2).map(|at| u8::from_str_radix(&head[at..at + 2], 16).unwrap()).collect();
        bytes.extend_from_slice(properties.as_bytes());
        bytes.into()
    }

    fn record<'a>(body: &'a [u8], topic: &'a str, properties: &'a str) -> Record<'a> {
        Record {
            queue_id: 3,
            flag: 7,
            queue_offset: 42,
            commit_log_offset: 4_242,
            sys_flag: 0,
            born_timestamp_ms: 1_000,
            born_host: "[2001:db8::1]:5".parse().unwrap(),
            store_timestamp_ms: 2_000,
            store_host: "127.0.0.1:10911".parse().unwrap(),
            reconsume_times: 2,
            prepared_transaction_offset: 0,
            body,
            topic,
            properties,
        }
    }

    #[test]
    fn a_record_of_a_real_broker_is_read() {
        let message = decode(recorded(), MAX_BODY).unwrap();
        assert_eq!(message.topic(), "pref_t1");
        assert_eq!(message.body(), "hello");
        assert_eq!(message.tag(), Some("TagA"));
        assert_eq!(message.keys().collect::<Vec<_>>(), ["k1"]);
        assert_eq!(message.message_id(), "C0000202493C1B28A1FA0123456700FF");
        assert_eq!(message.offset_message_id(), "7F00000100002A9F00000000730890AB");
        assert_eq!((message.queue_id(), message.queue_offset()), (0, 2));
    }

    #[test]
    fn a_message_shares_the_memory_of_its_record() {
        let record = recorded();
        let message = decode(record.clone(), MAX_BODY).unwrap();
        assert!(record.as_ptr_range().contains(&message.body().as_ptr()));
    }

    #[test]
    fn a_damaged_body_is_an_error_of_that_message_alone() {
        let mut damaged = recorded().to_vec();
        let at = damaged.windows(5).position(|window| window == b"hello").unwrap();
        damaged[at] = b'j';
        let both: Bytes = [damaged.as_slice(), &recorded()].concat().into();
        let decoded: Vec<_> = decode_all(both, MAX_BODY).collect();
        assert_eq!(decoded.len(), 2);
        let error = decoded[0].as_ref().unwrap_err();
        assert_eq!((error.queue_offset, error.commit_log_offset), (2, 0x730890ab));
        assert!(error.reason.contains("CRC"), "{error}");
        assert_eq!(decoded[1].as_ref().unwrap().body(), "hello");
    }

    #[test]
    fn a_topic_longer_than_a_byte_counts_is_written_and_read_as_version_2() {
        let topic = "t".repeat(300);
        let message = decode(record(b"x", &topic, "").encode(), MAX_BODY).unwrap();
        assert_eq!(message.topic(), topic);
    }

    #[test]
    fn compressed_bodies_are_unpacked_and_their_limit_is_kept() {
        let body = b"again ".repeat(500);
        for &kind in compression::WRITTEN {
            let packed = compression::compress(kind, 5, &body).unwrap();
            let mut record = record(&packed, "t", "");
            record.sys_flag = sys_flag::of_compression(kind);
            assert_eq!(decode(record.encode(), MAX_BODY).unwrap().body(), &body, "{kind:?}");
            assert!(decode(record.encode(), body.len() - 1).is_err(), "{kind:?}");
        }
    }

    #[test]
    fn an_inner_batch_becomes_its_messages() {
        let mut body = BytesMut::new();
        batch::encode(&mut body, 1, b"one", "TAGS\u{1}a\u{2}");
        batch::encode(&mut body, 2, b"two", "");
        let mut record = record(&body, "t", "INNER_NUM\u{1}2\u{2}");
        record.sys_flag = sys_flag::INNER_BATCH;
        let messages: Vec<_> = decode_all(record.encode(), MAX_BODY).map(Result::unwrap).collect();
        let seen: Vec<_> = messages.iter().map(|m| (m.body().clone(), m.queue_offset(), m.tag())).collect();
        assert_eq!(seen, [("one".into(), 42, Some("a")), ("two".into(), 43, None)]);
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(body: Vec<u8>, topic in "[a-z]{1,400}", value in "[^\u{1}\u{2}]{1,50}", v6: bool) {
            let properties = properties::encode([("k", value.as_str())]);
            let mut record = record(&body, &topic, &properties);
            if v6 {
                record.store_host = "[::1]:9".parse().unwrap();
            }
            let message = decode(record.encode(), MAX_BODY).unwrap();
            prop_assert_eq!(message.body(), &body);
            prop_assert_eq!(message.topic(), topic.as_str());
            prop_assert_eq!(message.property("k"), Some(value.as_str()));
            prop_assert_eq!(message.born_host(), record.born_host);
            prop_assert_eq!(message.store_host(), record.store_host);
            prop_assert_eq!(message.reconsume_times(), 2);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = decode_all(bytes.into(), MAX_BODY).count();
        }

        #[test]
        fn no_damage_to_a_record_panics(at in 0_usize..225, byte: u8, cut in 0_usize..225) {
            let mut record = recorded().to_vec();
            record[at] = byte;
            record.truncate(225 - cut);
            let _ = decode_all(record.into(), MAX_BODY).count();
        }
    }
}
