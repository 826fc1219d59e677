//! Compressed bodies. Source: `protocol.md` section 4.2; LZ4 is the frame format, as in the Java client.

use std::error::Error;
use std::io::{self, Read, Write};

use bytes::Bytes;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

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
    /// Smallest. It is always read; sending it needs the feature `zstd`.
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
        #[cfg(feature = "zstd")]
        CompressionType::Zstd => {
            let level = i32::try_from(level.min(22)).unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
            zstd::stream::copy_encode(body, &mut out, level)?;
        }
        #[cfg(not(feature = "zstd"))]
        CompressionType::Zstd => return Err(io::ErrorKind::Unsupported.into()),
    }
    Ok(out.into())
}

/// Restores a body of at most `limit` bytes: a small message must not grow into all the memory there is.
pub(crate) fn decompress(kind: CompressionType, body: &[u8], limit: usize) -> io::Result<Bytes> {
    match kind {
        CompressionType::Zlib => read_limited(flate2::read::ZlibDecoder::new(body), limit),
        CompressionType::Lz4 => read_limited(lz4_flex::frame::FrameDecoder::new(body), limit),
        CompressionType::Zstd => unpack_zstd(body, limit),
    }
}

fn read_limited(decoder: impl Read, limit: usize) -> io::Result<Bytes> {
    let mut out = Vec::new();
    let read = decoder.take(limit as u64 + 1).read_to_end(&mut out)?;
    if read > limit {
        return Err(too_large(limit));
    }
    Ok(out.into())
}

/// Reads one frame after the other, and passes over those that are to be skipped, as Java's clients do.
fn unpack_zstd(mut packed: &[u8], limit: usize) -> io::Result<Bytes> {
    let mut out = Vec::new();
    loop {
        // A new one for each frame: one that is used again reserves the window that the next frame declares.
        let mut decoder = FrameDecoder::new();
        match decoder.init(&mut packed) {
            Ok(()) => unpack_frame(&mut decoder, &mut packed, limit, &mut out)?,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length, ..
            })) => {
                packed = packed.get(length as usize..).ok_or(io::ErrorKind::UnexpectedEof)?;
            }
            Err(error) => return Err(damaged(error)),
        }
        if packed.is_empty() {
            return Ok(out.into());
        }
    }
}

/// Adds one frame to `out`, which has at most `limit` bytes.
///
/// The decoder is asked for one byte more than there may be, so that it holds a block beyond them at most. Asked for what is older
/// than the window, it would hold a whole window first, and Java's clients declare up to 128 MiB (level 22) for a body of any size.
fn unpack_frame(
    decoder: &mut FrameDecoder,
    packed: &mut &[u8],
    limit: usize,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    let left = limit - out.len();
    // 0 where the frame does not say.
    let declared = decoder.content_size();
    if declared > left as u64 {
        return Err(too_large(limit));
    }
    let until = BlockDecodingStrategy::UptoBytes(left.saturating_add(1));
    let is_whole = decoder.decode_blocks(packed, until).map_err(damaged)?;
    let len = decoder.can_collect();
    if !is_whole || len > left {
        return Err(too_large(limit));
    }
    decoder.collect_to_writer(out)?;
    if declared != 0 && declared != len as u64 {
        return Err(damaged(format!("{declared} bytes are declared, {len} are there")));
    }
    // What is collected is summed up on its way.
    let sum = decoder.get_checksum_from_data();
    if sum.is_some() && sum != decoder.get_calculated_checksum() {
        return Err(damaged("the checksum is another one"));
    }
    Ok(())
}

fn too_large(limit: usize) -> io::Error {
    damaged(format!("the body unpacks to more than {limit} bytes"))
}

fn damaged(reason: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// What this build can write.
#[cfg(test)]
pub(crate) const WRITTEN: &[CompressionType] = &[
    CompressionType::Zlib,
    CompressionType::Lz4,
    #[cfg(feature = "zstd")]
    CompressionType::Zstd,
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    const ALL: [CompressionType; 3] = [CompressionType::Zlib, CompressionType::Lz4, CompressionType::Zstd];

    /// Frames of [`orders`], from Java's client and from the `zstd` library.
    const FRAMES: &[(&str, &[u8])] = &[
        (
            "Java, level 5",
            b"(\xb5/\xfd\x00X\x14\x03\x00T\x03{\"id\":0,\"v\":0},1124394165256367498649811101,\"v\":121},\
              \x15\x00\"\xdb\x082\x83\x01j\xe0\x0a@\x08.\x03\xd4\xc0\x15\x80\x10\\\x06\xa8\x81+f\x12\x82\
              \xcb\x00\x09\xb8\x07\x88\x81+\x80\x0e\\V\x86Y\x07\x01\x00\x00",
        ),
        (
            "Java, level 22",
            b"(\xb5/\xfd\x00\x88\x8c\x02\x00\x84\x02{\"id\":0,\"v\":0},11243946525637869810021},\x16\xa80t\
              \xfb\x1d C\xa2;\x10Rg\xf0\x06\xa3\x80h\"\xa1A\xf6D\xce\x1bz\xf4\x8erB\xcd\x0b\xe90\x8c\xa4\
              \xac#\x03\x01\x00\x00",
        ),
        (
            "C, level 1",
            b"(\xb5/\xfd\x00H\xed\x02\x00bD\x0d\x11\xb0\xb5\x0d\xf0\xae~\x98\x80\x906\xe9%{\xec\xcd\xe8T\
              \x0e^\xc7f}:6k\xfa\x07\xb1\x1b\xc4\x80\x0b'J\xdc\x8d\x04\xabc\xb3>\xb6\x98\x1e\x07\x84\xcd\
              \x9a\xb0\xc5\xf4\x04\x12\x00\"\xb3\x0f \x04\x97\x01j\xe0\x0a@\x08.\x03\xd4\xc0\x15\x80\x10\\\
              6\x93\x1a\xb8\x02\xe8\xc0e\x80\x04\xdc\x8b\x10\xd3\x09",
        ),
        (
            "C, level 1, with its size and checksum",
            b"(\xb5/\xfd$\xc0\x15\x03\x00T\x03{\"id\":0,\"v\":0},1124394165256367498649811101,\"v\":121},\
              \x15\x00\"\xdb\x082\x83\x01j\xe0\x0a@\x08.\x03\xd4\xc0\x15\x80\x10\\\x06\xa8\x81+f\x12\x82\
              \xcb\x00\x09\xb8\x07\x88\x81+\x80\x0e\\V\x86Y\x07n~\x83C",
        ),
        (
            "C, level 3",
            b"(\xb5/\xfd\x00X\xf5\x02\x00\xe4\x02{\"id\":0,\"v\":0},11243941652563674986498111021},\x16\
              \x00#\xcb@d\x1bAf0@\x0d\\\x01\x08\xc1e\x80\x1a\xb8\x02\x10\x82\xcbfR\x83+\x80@\x08.\x03$\xe0\
              \x1e \x06\xae\x00:pY\x19f\x1d",
        ),
        (
            "C, level 3, with its size",
            b"(\xb5/\xfd \xc0\xf5\x02\x00\xe4\x02{\"id\":0,\"v\":0},11243941652563674986498111021},\x16\
              \x00#\xcb@d\x1bAf0@\x0d\\\x01\x08\xc1e\x80\x1a\xb8\x02\x10\x82\xcbfR\x83+\x80@\x08.\x03$\xe0\
              \x1e \x06\xae\x00:pY\x19f\x1d",
        ),
        (
            "C, level 3, with checksum",
            b"(\xb5/\xfd\x04X\xf5\x02\x00\xe4\x02{\"id\":0,\"v\":0},11243941652563674986498111021},\x16\
              \x00#\xcb@d\x1bAf0@\x0d\\\x01\x08\xc1e\x80\x1a\xb8\x02\x10\x82\xcbfR\x83+\x80@\x08.\x03$\xe0\
              \x1e \x06\xae\x00:pY\x19f\x1dn~\x83C",
        ),
        (
            "C, level 19, with its size",
            b"(\xb5/\xfd \xc0M\x02\x00\x02C\x0a\x10\xc0\xb7\x18\xceZ\xfc\xd7\xd3R\x0b-\xd9\xc2)pB\x96\xc6\
              \xef\xfb\xb1\xa9cS(\xd0\x80A\xcf\x05\x89o\xe9H\x9d\xb2#UL\xa1\x16\xa8\x10\x98\xdd\xef\xa0\
              \xa3k\x10\x82\x13x\x0cE@\x14\x09\x03\xba\xcbhV\x11\xa0J\xa0M\x01",
        ),
        (
            "C, level 19, with checksum",
            b"(\xb5/\xfd\x04hM\x02\x00\x02C\x0a\x10\xc0\xb7\x18\xceZ\xfc\xd7\xd3R\x0b-\xd9\xc2)pB\x96\xc6\
              \xef\xfb\xb1\xa9cS(\xd0\x80A\xcf\x05\x89o\xe9H\x9d\xb2#UL\xa1\x16\xa8\x10\x98\xdd\xef\xa0\
              \xa3k\x10\x82\x13x\x0cE@\x14\x09\x03\xba\xcbhV\x11\xa0J\xa0M\x01n~\x83C",
        ),
    ];

    /// A frame that is to be skipped, of three bytes.
    const SKIPPED: &[u8] = b"\x50\x2a\x4d\x18\x03\0\0\0abc";

    fn orders() -> Vec<u8> {
        (0..12).map(|id| format!("{{\"id\":{id},\"v\":{}}},", id * id % 977)).collect::<String>().into()
    }

    fn frame(name: &str) -> Vec<u8> {
        FRAMES.iter().find(|(found, _)| *found == name).unwrap().1.to_vec()
    }

    fn unpack(packed: &[u8]) -> io::Result<Bytes> {
        decompress(CompressionType::Zstd, packed, 1 << 20)
    }

    #[test]
    fn decompressing_undoes_compressing() {
        let body = b"the same again and again ".repeat(400);
        for &kind in WRITTEN {
            let packed = compress(kind, 5, &body).unwrap();
            assert!(packed.len() < body.len() / 4, "{kind:?}");
            assert_eq!(decompress(kind, &packed, body.len()).unwrap(), body, "{kind:?}");
        }
    }

    #[test]
    fn a_body_that_unpacks_to_more_than_the_limit_is_refused() {
        let body = vec![0; 1 << 20];
        for &kind in WRITTEN {
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

    #[test]
    fn zstd_of_all_kinds_is_read_up_to_the_limit() {
        let body = orders();
        for (name, packed) in FRAMES {
            assert_eq!(unpack(packed).unwrap(), body, "{name}");
            let read = |limit| decompress(CompressionType::Zstd, packed, limit);
            assert_eq!(read(body.len()).unwrap(), body, "{name}");
            assert!(read(body.len() - 1).unwrap_err().to_string().contains("more than 191 bytes"), "{name}");
            unpack(&packed[..packed.len() - 1]).unwrap_err();
        }
    }

    #[test]
    fn zstd_is_read_frame_after_frame_and_the_limit_is_for_all_of_them() {
        let (one, body) = (frame("Java, level 5"), orders());
        let twice = [&one[..], SKIPPED, &one, SKIPPED].concat();
        assert_eq!(unpack(&twice).unwrap(), body.repeat(2));
        assert!(decompress(CompressionType::Zstd, &twice, 2 * body.len() - 1).is_err());
        assert_eq!(unpack(SKIPPED).unwrap(), "");
        for after in [&b"garbage"[..], &one[..3], &SKIPPED[..9]] {
            unpack(&[&one[..], after].concat()).unwrap_err();
        }
        unpack(b"").unwrap_err();
    }

    #[test]
    fn a_zstd_window_is_no_leave_to_unpack_more_than_the_limit() {
        // 128 MiB, as Java's clients declare for the smallest of bodies, then 128 KiB of the same byte, 40 times.
        let mut packed = b"\x28\xb5\x2f\xfd\x00\x88".to_vec();
        packed.extend(b"\x02\0\x10x".repeat(39));
        packed.extend(b"\x03\0\x10x");
        let read = |limit| decompress(CompressionType::Zstd, &packed, limit);
        assert_eq!(read(5 << 20).unwrap(), vec![b'x'; 5 << 20]);
        assert!(read(1 << 20).unwrap_err().to_string().contains("more than 1048576 bytes"));
        // One that is larger is refused at once.
        packed[5] += 1;
        assert!(decompress(CompressionType::Zstd, &packed, 5 << 20).is_err());
    }

    #[test]
    fn a_zstd_frame_that_declares_another_size_is_refused() {
        let mut packed = frame("C, level 19, with its size");
        assert_eq!(packed[5], 192);
        packed[5] = 193;
        let error = unpack(&packed).unwrap_err();
        assert_eq!(error.to_string(), "193 bytes are declared, 192 are there");
    }

    #[test]
    fn a_zstd_checksum_tells_every_damage() {
        let body = orders();
        for (name, packed) in FRAMES {
            let has_checksum = packed[4] & 4 != 0;
            let mut packed = packed.to_vec();
            let mut undetected = 0;
            // Behind magic number and flags, one of which says that there is a checksum.
            for bit in 5 * 8..packed.len() * 8 {
                packed[bit / 8] ^= 1 << (bit % 8);
                undetected += usize::from(unpack(&packed).is_ok_and(|unpacked| unpacked != body));
                packed[bit / 8] ^= 1 << (bit % 8);
            }
            assert_eq!(undetected == 0, has_checksum, "{name}: {undetected}");
        }
    }

    proptest! {
        #[test]
        fn no_damage_to_zstd_panics_or_breaks_the_limit(
            frame: Index,
            edits in prop::collection::vec((any::<Index>(), prop::option::of(any::<u8>())), 1..5),
            end: Option<Index>,
        ) {
            let mut packed = frame.get(FRAMES).1.to_vec();
            for (place, byte) in edits {
                let place = place.index(packed.len());
                match byte {
                    Some(byte) => packed[place] = byte,
                    None => drop(packed.remove(place)),
                }
            }
            packed.truncate(end.map_or(packed.len(), |end| end.index(packed.len())));
            let unpacked = decompress(CompressionType::Zstd, &packed, 300);
            prop_assert!(unpacked.is_err() || unpacked.is_ok_and(|body| body.len() <= 300));
        }

        #[test]
        fn no_bytes_behind_a_zstd_header_panic(header in 0..2_usize, bytes: Vec<u8>) {
            let header = [&b"\x28\xb5\x2f\xfd\x00\x58"[..], b"\x28\xb5\x2f\xfd\x24\x40"][header];
            let _ = unpack(&[header, &bytes].concat());
        }
    }
}
