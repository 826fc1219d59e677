//! Compressed bodies. Source: `protocol.md` section 4.2; LZ4 is the frame format, as in the Java client.

use std::io::{self, Read, Write};

use bytes::Bytes;

/// How a body is compressed on the wire.
///
/// Clients older than 4.9.4 read zlib only; choose another only where every consumer is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CompressionType {
    /// What every client reads; the default.
    #[default]
    Zlib,
    /// Fastest.
    Lz4,
    /// Smallest.
    Zstd,
}

/// Compresses `body`; `level` is zlib's 0 to 9 and zstd's 1 to 22, and means nothing to LZ4.
pub(crate) fn compress(kind: CompressionType, level: u32, body: &[u8]) -> io::Result<Bytes> {
    let mut out = Vec::with_capacity(body.len() / 2);
    match kind {
        CompressionType::Zlib => {
            let mut encoder =
                flate2::write::ZlibEncoder::new(&mut out, flate2::Compression::new(level.min(9)));
            encoder.write_all(body)?;
            encoder.finish()?;
        }
        CompressionType::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(&mut out);
            encoder.write_all(body)?;
            encoder.finish().map_err(io::Error::other)?;
        }
        CompressionType::Zstd => {
            let level = i32::try_from(level.min(22)).unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
            zstd::stream::copy_encode(body, &mut out, level)?;
        }
    }
    Ok(out.into())
}

/// Restores a body of at most `limit` bytes: a small message must not grow into all the memory there is.
pub(crate) fn decompress(kind: CompressionType, body: &[u8], limit: usize) -> io::Result<Bytes> {
    match kind {
        CompressionType::Zlib => read_limited(flate2::read::ZlibDecoder::new(body), limit),
        CompressionType::Lz4 => read_limited(lz4_flex::frame::FrameDecoder::new(body), limit),
        CompressionType::Zstd => read_limited(zstd::stream::read::Decoder::new(body)?, limit),
    }
}

fn read_limited(decoder: impl Read, limit: usize) -> io::Result<Bytes> {
    let mut out = Vec::new();
    let read = decoder.take(limit as u64 + 1).read_to_end(&mut out)?;
    if read > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the body unpacks to more than {limit} bytes"),
        ));
    }
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [CompressionType; 3] = [CompressionType::Zlib, CompressionType::Lz4, CompressionType::Zstd];

    #[test]
    fn decompressing_undoes_compressing() {
        let body = b"the same again and again ".repeat(400);
        for kind in ALL {
            let packed = compress(kind, 5, &body).unwrap();
            assert!(packed.len() < body.len() / 4, "{kind:?}");
            assert_eq!(decompress(kind, &packed, body.len()).unwrap(), body, "{kind:?}");
        }
    }

    #[test]
    fn a_body_that_unpacks_to_more_than_the_limit_is_refused() {
        let body = vec![0; 1 << 20];
        for kind in ALL {
            let packed = compress(kind, 5, &body).unwrap();
            assert!(decompress(kind, &packed, body.len() - 1).is_err(), "{kind:?}");
        }
    }

    #[test]
    fn damaged_bodies_are_errors() {
        for kind in ALL {
            assert!(decompress(kind, b"certainly not compressed", 1 << 20).is_err(), "{kind:?}");
        }
    }
}
