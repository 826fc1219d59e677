//! How far the characters of a JSON string stand for themselves.

/// The length of the part of `bytes` before the first one that a JSON string does not hold as it is: a quote, a
/// backslash, a control character. All of it, where there is none.
pub(super) fn plain_len(bytes: &[u8]) -> usize {
    let mut at = 0;
    // Eight at a time: headers are written and read for every message.
    while let Some(eight) = bytes[at..].first_chunk() {
        let found = special_of(u64::from_le_bytes(*eight));
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let is_special = |byte: &u8| *byte < b' ' || *byte == b'"' || *byte == b'\\';
    at + bytes[at..].iter().position(is_special).unwrap_or(bytes.len() - at)
}

/// The highest bit of the first byte that is special; those of later bytes may be wrong.
///
/// Subtracting from a byte that is smaller borrows, which shows in the highest bit of a byte that did not have it.
fn special_of(eight: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGHEST: u64 = 0x80 * EACH;
    let below = |value: u64, limit: u64| value.wrapping_sub(limit * EACH) & !value & HIGHEST;
    let is = |byte: u8| below(eight ^ (u64::from(byte) * EACH), 1);
    below(eight, u64::from(b' ')) | is(b'"') | is(b'\\')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_special_byte_is_found_wherever_it_stands(bytes in prop::collection::vec(
            prop_oneof![8 => any::<u8>(), 1 => Just(b'"'), 1 => Just(b'\\'), 1 => 0x1E..0x22_u8],
            0..40,
        )) {
            let expected = bytes.iter().position(|byte| *byte < 0x20 || b"\"\\".contains(byte));
            prop_assert_eq!(plain_len(&bytes), expected.unwrap_or(bytes.len()));
        }

        #[test]
        fn what_is_plain_is_passed_over(bytes in prop::collection::vec(0x5D..=255_u8, 0..40)) {
            prop_assert_eq!(plain_len(&bytes), bytes.len());
        }
    }
}
