//! The bits of a message's system flag. Source: `protocol.md` section 4.2, `MessageSysFlag`.

use super::CompressionType;

pub(crate) const COMPRESSED: i32 = 0x1;
/// The half message of a transaction.
pub(crate) const TRANSACTION_PREPARED: i32 = 0x4;
/// A committed transaction, in the message as in the word of its producer.
pub(crate) const TRANSACTION_COMMIT: i32 = 0x8;
/// A transaction that was rolled back; also the bits that all of these take.
pub(crate) const TRANSACTION_ROLLBACK: i32 = 0xC;
pub(crate) const BORN_HOST_V6: i32 = 0x10;
pub(crate) const STORE_HOST_V6: i32 = 0x20;
/// An inner batch that the client has to split: both bits together.
pub(crate) const INNER_BATCH: i32 = 0x40 | 0x80;
const COMPRESSION_SHIFT: i32 = 8;
const COMPRESSION_MASK: i32 = 0x7;

/// The compression that the flag names; `None` where the body is stored as it was sent.
///
/// # Errors
///
/// The number of a compression that this client does not know.
pub(crate) fn compression(flag: i32) -> Result<Option<CompressionType>, i32> {
    if flag & COMPRESSED == 0 {
        return Ok(None);
    }
    match (flag >> COMPRESSION_SHIFT) & COMPRESSION_MASK {
        // Clients older than 4.9.4 set no type and know only zlib.
        0 | 3 => Ok(Some(CompressionType::Zlib)),
        1 => Ok(Some(CompressionType::Lz4)),
        2 => Ok(Some(CompressionType::Zstd)),
        unknown => Err(unknown),
    }
}

/// The bits that say that a body is compressed, and how.
pub(crate) fn of_compression(compression: CompressionType) -> i32 {
    let number = match compression {
        CompressionType::Zlib => 3,
        CompressionType::Lz4 => 1,
        CompressionType::Zstd => 2,
    };
    COMPRESSED | number << COMPRESSION_SHIFT
}
