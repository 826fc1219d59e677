//! The fields that a command carries beside its code: names and values, both text.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// The extension fields of a command, in the order in which they were put.
///
/// There are few of them, so a list that is searched from the front beats a map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ExtFields(Vec<(Cow<'static, str>, Cow<'static, str>)>);

impl ExtFields {
    pub(crate) fn with_capacity(fields: usize) -> Self {
        Self(Vec::with_capacity(fields))
    }

    pub(crate) fn put(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) {
        self.0.push((name.into(), value.into()));
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_ref())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
    }
}

/// Values are text; numbers and booleans, which 5.5 brokers tolerate, are read as the text they would be.
impl<'de> Deserialize<'de> for ExtFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = ExtFields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of names and values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ExtFields, A::Error> {
                let mut fields = ExtFields::with_capacity(8);
                while let Some(name) = map.next_key::<String>()? {
                    match map.next_value::<serde_json::Value>()? {
                        serde_json::Value::Null => {}
                        serde_json::Value::String(value) => fields.put(name, value),
                        other => fields.put(name, other.to_string()),
                    }
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
    fn put(&self, name: &'static str, fields: &mut ExtFields);

    /// Reads the field; `value` is what the command has under `name`.
    fn read(name: &'static str, value: Option<&str>) -> Result<Self, HeaderError>;
}

macro_rules! numbers {
    ($($type:ty => $expected:literal),*) => {$(
        impl Field for $type {
            fn put(&self, name: &'static str, fields: &mut ExtFields) {
                fields.put(name, self.to_string());
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
    fn put(&self, name: &'static str, fields: &mut ExtFields) {
        fields.put(name, if *self { "true" } else { "false" });
    }

    /// As Java reads it: anything but `true` is false.
    fn read(name: &'static str, value: Option<&str>) -> Result<Self, HeaderError> {
        value.map(|value| value.eq_ignore_ascii_case("true")).ok_or(HeaderError::Missing(name))
    }
}

impl Field for String {
    fn put(&self, name: &'static str, fields: &mut ExtFields) {
        fields.put(name, self.clone());
    }

    fn read(name: &'static str, value: Option<&str>) -> Result<Self, HeaderError> {
        value.map(str::to_owned).ok_or(HeaderError::Missing(name))
    }
}

impl Field for Arc<str> {
    fn put(&self, name: &'static str, fields: &mut ExtFields) {
        fields.put(name, self.to_string());
    }

    fn read(name: &'static str, value: Option<&str>) -> Result<Self, HeaderError> {
        value.map(Arc::from).ok_or(HeaderError::Missing(name))
    }
}

/// A field that may be absent.
impl<T: Field> Field for Option<T> {
    fn put(&self, name: &'static str, fields: &mut ExtFields) {
        if let Some(value) = self {
            value.put(name, fields);
        }
    }

    fn read(name: &'static str, value: Option<&str>) -> Result<Self, HeaderError> {
        value.map(|value| T::read(name, Some(value))).transpose()
    }
}
