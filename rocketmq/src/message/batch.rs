//! The body of a batch: messages of one topic, back to back. Source: `protocol.md` section 4.8.
//!
//! ```text
//! | size: i32, itself included | magic: i32 | crc: i32 | flag: i32 | body length: i32, body | properties length: i16, properties |
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// What one item of a batch holds.
#[derive(Debug)]
pub(crate) struct BatchItem {
    pub(crate) flag: i32,
    pub(crate) body: Bytes,
    pub(crate) properties: String,
}

/// What a message of a batch takes there.
pub(crate) fn size_of(body: &[u8], properties: &str) -> usize {
    22 + body.len() + properties.len()
}

/// Appends one message, whose properties are no longer than an `i16` counts.
pub(crate) fn encode(out: &mut BytesMut, flag: i32, body: &[u8], properties: &str) {
    let size = size_of(body, properties);
    out.reserve(size);
    out.put_i32(size as i32);
    out.put_i32(0);
    out.put_i32(0);
    out.put_i32(flag);
    out.put_i32(body.len() as i32);
    out.put_slice(body);
    out.put_i16(properties.len() as i16);
    out.put_slice(properties.as_bytes());
}

/// Reads the items in their order; after an error there are no more.
pub(crate) fn decode(mut body: Bytes) -> impl Iterator<Item = Result<BatchItem, String>> {
    std::iter::from_fn(move || {
        if body.is_empty() {
            return None;
        }
        let item = next(&mut body);
        if item.is_err() {
            body.clear();
        }
        Some(item)
    })
}

fn next(rest: &mut Bytes) -> Result<BatchItem, String> {
    let size = rest.clone().try_get_i32().map_err(|error| error.to_string())?;
    let mut item = match usize::try_from(size) {
        Ok(size) if size <= rest.len() => rest.split_to(size),
        _ => return Err(format!("an item of {size} bytes where {} are left", rest.len())),
    };
    let short = |error: bytes::TryGetError| error.to_string();
    for _ in ["size", "magic", "crc"] {
        item.try_get_i32().map_err(short)?;
    }
    let flag = item.try_get_i32().map_err(short)?;
    let body_len = item.try_get_i32().map_err(short)?;
    let body = split(&mut item, body_len, "body")?;
    let properties_len = item.try_get_i16().map_err(short)?;
    let properties = split(&mut item, properties_len.into(), "properties")?;
    let properties =
        String::from_utf8(properties.into()).map_err(|_| "properties that are not UTF-8".to_owned())?;
    Ok(BatchItem { flag, body, properties })
}

fn split(item: &mut Bytes, len: i32, what: &str) -> Result<Bytes, String> {
    match usize::try_from(len) {
        Ok(len) if len <= item.len() => Ok(item.split_to(len)),
        _ => Err(format!("{what} of {len} bytes where {} are left", item.len())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_item_has_the_documented_bytes() {
        let mut out = BytesMut::new();
        encode(&mut out, 0, b"hi", "TAGS\u{1}A\u{2}");
        let expected = b"\0\0\0\x1f\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02hi\0\x07TAGS\x01A\x02";
        assert_eq!(&out[..], expected);
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(items in prop::collection::vec((any::<i32>(), any::<Vec<u8>>(), "[a-z]{0,20}"), 0..8)) {
            let mut out = BytesMut::new();
            for (flag, body, properties) in &items {
                encode(&mut out, *flag, body, properties);
            }
            let decoded: Vec<_> = decode(out.freeze())
                .map(|item| item.map(|item| (item.flag, item.body.to_vec(), item.properties)).unwrap())
                .collect();
            prop_assert_eq!(decoded, items);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = decode(bytes.into()).count();
        }
    }
}
