//! The fields that a command carries beside its code: names and values, both text.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::sync::Arc;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The extension fields of a command, in the order in which they were put.
///
/// There are few of them, so a list that is searched from the front beats a map; and all names and values stand in one
/// text, so that a command costs the same two allocations however many fields it has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ExtFields {
    text: String,
    /// Where each name, and the value behind it, ends in `text`. Headers are shorter than 16 MiB.
    ends: Vec<(u32, u32)>,
}

impl ExtFields {
    /// With room for the fields of any request that is made for every message.
    pub(crate) fn with_room() -> Self {
        Self { text: String::with_capacity(512), ends: Vec::with_capacity(16) }
    }

    pub(crate) fn put(&mut self, name: impl AsRef<str>, value: impl AsRef<str>) {
        self.text.push_str(name.as_ref());
        let name_end = self.end();
        self.text.push_str(value.as_ref());
        self.ends.push((name_end, self.end()));
    }

    /// Puts a field in the place of the one that has this name, if there is one.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        if self.get(name).is_some() {
            let all = std::mem::take(self);
            all.iter().filter(|(other, _)| *other != name).for_each(|(name, value)| self.put(name, value));
        }
        self.put(name, value);
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let (text, mut start) = (self.text.as_bytes(), 0);
        for (name_end, value_end) in &self.ends {
            let (name_end, value_end) = (*name_end as usize, *value_end as usize);
            if text.get(start..name_end) == Some(name.as_bytes()) {
                return self.text.get(name_end..value_end);
            }
            start = value_end;
        }
        None
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut start = 0;
        self.ends.iter().map(move |(name_end, value_end)| {
            let (name_end, value_end) = (*name_end as usize, *value_end as usize);
            let pair = (&self.text[start..name_end], &self.text[name_end..value_end]);
            start = value_end;
            pair
        })
    }

    /// How many bytes all names and values have together.
    pub(crate) fn len_bytes(&self) -> usize {
        self.text.len()
    }

    fn end(&self) -> u32 {
        self.text.len() as u32
    }
}

/// What takes the fields of a header, one after the other: [`ExtFields`], or a header that is being written.
pub(crate) trait PutField {
    fn put_field(&mut self, name: &str, value: &str);

    /// Puts a number as the text that it is on the wire.
    fn put_number(&mut self, name: &str, number: i64);
}

impl PutField for ExtFields {
    fn put_field(&mut self, name: &str, value: &str) {
        self.put(name, value);
    }

    fn put_number(&mut self, name: &str, number: i64) {
        // Digits are text.
        self.put(name, std::str::from_utf8(Decimal::of(number).as_bytes()).unwrap_or_default());
    }
}

/// A number in its digits; quicker than formatting it, as every message that is sent has ten of them.
pub(super) struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    pub(super) fn of(number: i64) -> Self {
        let (mut decimal, mut rest) = (Self { digits: [b'0'; 20], start: 20 }, number.unsigned_abs());
        loop {
            decimal.put(b'0' + (rest % 10) as u8);
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if number < 0 {
            decimal.put(b'-');
        }
        decimal
    }

    fn put(&mut self, digit: u8) {
        self.start -= 1;
        self.digits[self.start] = digit;
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

/// Values are text; numbers and booleans, which 5.5 brokers tolerate, are read as the text they would be. What is
/// neither is no field.
impl<'de> Deserialize<'de> for ExtFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = ExtFields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of names and values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ExtFields, A::Error> {
                let mut fields = ExtFields::with_room();
                let mut start = 0;
                while map.next_key_seed(Text(&mut fields.text))?.is_some() {
                    let name_end = fields.end();
                    match map.next_value_seed(Text(&mut fields.text))? {
                        true => fields.ends.push((name_end, fields.end())),
                        false => fields.text.truncate(start),
                    }
                    start = fields.text.len();
                }
                Ok(fields)
            }

            fn visit_unit<E>(self) -> Result<ExtFields, E> {
                Ok(ExtFields::default())
            }
        }

        deserializer.deserialize_any(Fields)
    }
}

/// Appends a name or a value to the text; says whether there was one.
struct Text<'a>(&'a mut String);

impl<'de> DeserializeSeed<'de> for Text<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Text<'_> {
    fn push(self, value: impl fmt::Display) -> bool {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{value}");
        true
    }
}

impl<'de> Visitor<'de> for Text<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        self.0.push_str(text);
        Ok(true)
    }

    fn visit_bool<E>(self, value: bool) -> Result<bool, E> {
        Ok(self.push(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<bool, E> {
        Ok(self.push(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<bool, E> {
        Ok(self.push(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<bool, E> {
        Ok(self.push(value))
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(false)
    }
}

/// A field that a header needs and does not have, or has with a value that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    /// The field is not there.
    #[error("the header field `{0}` is missing")]
    Missing(&'static str),
    /// The field is there, with something else in it.
    #[error("the header field `{name}` is {value:?}, not {expected}")]
    Malformed { name: &'static str, value: String, expected: &'static str },
    /// The body is not what the answer should hold.
    #[error("the body cannot be read: {0}")]
    Body(String),
}

/// What a header field can be.
pub(crate) trait Field: Sized {
    fn put(&self, name: &'static str, fields: &mut impl PutField);

    /// Reads the field; `value` is what the command has under `name`.
    fn read(name: &'static str, value: Option<&str>) -> Result<Self, HeaderError>;
}

macro_rules! numbers {
    ($($type:ty => $expected:literal),*) => {$(
        impl Field for $type {
            fn put(&self, name: &'static str, fields: &mut impl PutField) {
                fields.put_number(name, i64::from(*self));
            }

            fn read(name: &'static str, value: Option<&str>) -> Result<Self, HeaderError> {
                let value = value.ok_or(HeaderError::Missing(name))?;
                value.parse().map_err(|_| HeaderError::Malformed { name, value: value.to_owned(), expected: $expected })
            }
        }
    )*};
}
numbers!(i32 => "a number of 32 bits", i64 => "a number of 64 bits");

impl Field for bool {
    fn put(&self, name: &'static str, fields: &mut impl PutField) {
        fields.put_field(name, if *self { "true" } else { "false" });
    }

    /// As Java reads it: anything but `true` is false.
    fn read(name: &'static str, value: Option<&str>) -> Result<Self, HeaderError> {
        value.map(|value| value.eq_ignore_ascii_case("true")).ok_or(HeaderError::Missing(name))
    }
}

impl Field for String {
    fn put(&self, name: &'static str, fields: &mut impl PutField) {
        fields.put_field(name, self);
    }

    fn read(name: &'static str, value: Option<&str>) -> Result<Self, HeaderError> {
        value.map(str::to_owned).ok_or(HeaderError::Missing(name))
    }
}

impl Field for Cow<'static, str> {
    fn put(&self, name: &'static str, fields: &mut impl PutField) {
        fields.put_field(name, self);
    }

    fn read(name: &'static str, value: Option<&str>) -> Result<Self, HeaderError> {
        String::read(name, value).map(Self::Owned)
    }
}

impl Field for Arc<str> {
    fn put(&self, name: &'static str, fields: &mut impl PutField) {
        fields.put_field(name, self);
    }

    fn read(name: &'static str, value: Option<&str>) -> Result<Self, HeaderError> {
        value.map(Arc::from).ok_or(HeaderError::Missing(name))
    }
}

/// A field that may be absent.
impl<T: Field> Field for Option<T> {
    fn put(&self, name: &'static str, fields: &mut impl PutField) {
        if let Some(value) = self {
            value.put(name, fields);
        }
    }

    fn read(name: &'static str, value: Option<&str>) -> Result<Self, HeaderError> {
        value.map(|value| T::read(name, Some(value))).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_they_are_formatted_with() {
        for number in [0, 7, 10, -1, -20, 1_700_000_000_000, i64::MAX, i64::MIN] {
            assert_eq!(Decimal::of(number).as_bytes(), number.to_string().as_bytes());
        }
    }
}
