//! What can stand behind a key: each type knows how it is written, and what to say if it is not.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::document::is_null;
use super::nearest;
use super::placeholder::{Scalar, shortened};
use super::schema;

/// Why a single value, given by hand, was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(String);

impl ValueError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// A value as found in the file, its placeholders resolved.
#[derive(Debug)]
pub(super) enum Raw {
    Scalar(Scalar),
    List(Vec<Scalar>),
    Table,
}

impl Raw {
    pub(super) fn plain(text: &str) -> Self {
        Self::Scalar(Scalar { text: text.to_owned(), plain: true })
    }

    /// The text of a scalar that is not null.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Scalar(scalar) if !self.is_null() => Some(&scalar.text),
            _ => None,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Scalar(scalar) if scalar.plain && is_null(&scalar.text))
    }

    /// The elements of a text in brackets. A plain scalar of a file cannot begin with one: this is how a variable holds a list.
    pub(super) fn bracketed(&self) -> Option<impl Iterator<Item = &str>> {
        let Self::Scalar(scalar) = self else { return None };
        let inside = scalar.text.trim().strip_prefix('[')?.strip_suffix(']').filter(|_| scalar.plain)?;
        Some(inside.split(',').map(str::trim).filter(|text| !text.is_empty()))
    }

    /// The value as YAML types it, if it stands without quotes.
    fn typed<T: serde::de::DeserializeOwned>(&self) -> Result<T, Hint> {
        let Self::Scalar(scalar) = self else { return Err(None) };
        match serde_yaml::from_str(&scalar.text) {
            Ok(value) if scalar.plain => Ok(value),
            Ok(_) => Err(Some("write it without quotes".to_owned())),
            Err(_) => Err(None),
        }
    }
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(_) if self.is_null() => write!(f, "no value"),
            Self::Scalar(scalar) if scalar.plain => write!(f, "`{}`", shortened(&scalar.text)),
            Self::Scalar(scalar) => write!(f, "`\"{}\"`", shortened(&scalar.text)),
            Self::List(_) => write!(f, "a list"),
            Self::Table => write!(f, "keys with values"),
        }
    }
}

/// What is wrong with a value beyond its not being what was expected, or what to write.
pub(super) type Hint = Option<String>;

/// A type that a key can have.
pub(super) trait Value: Sized {
    /// Whether a list may stand there.
    const TAKES_LIST: bool = false;

    /// For the words `expected …, found …`.
    fn expected() -> String;
    fn read(raw: &Raw) -> Result<Self, Hint>;
    /// As it would be written; a secret hides itself.
    fn show(&self) -> String;

    /// The element because of which a list is wrong, where it is because of one.
    fn wrong_element(raw: &Raw) -> Option<(usize, Raw)> {
        let Raw::List(list) = raw else { return None };
        let mut elements = list.iter().enumerate().filter(|_| Self::TAKES_LIST);
        let is_wrong = |scalar: &Scalar| Self::read(&Raw::List(vec![scalar.clone()])).is_err();
        elements.find(|(_, scalar)| is_wrong(scalar)).map(|(at, scalar)| (at, Raw::Scalar(scalar.clone())))
    }

    /// In the words of JSON Schema, with as much of the range as can be said in them.
    fn schema(_range: Option<&RangeInclusive<Self>>) -> Json {
        schema::text()
    }
}

impl Value for bool {
    fn expected() -> String {
        "`true` or `false`".to_owned()
    }

    fn schema(_range: Option<&RangeInclusive<Self>>) -> Json {
        json!({ "type": "boolean" })
    }

    fn read(raw: &Raw) -> Result<Self, Hint> {
        raw.typed()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for u32 {
    fn expected() -> String {
        "a whole number".to_owned()
    }

    fn schema(range: Option<&RangeInclusive<Self>>) -> Json {
        let range = range.unwrap_or(&(Self::MIN..=Self::MAX));
        json!({ "type": "integer", "minimum": range.start(), "maximum": range.end() })
    }

    fn read(raw: &Raw) -> Result<Self, Hint> {
        raw.typed()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    fn expected() -> String {
        "text".to_owned()
    }

    fn read(raw: &Raw) -> Result<Self, Hint> {
        raw.text().map(str::to_owned).ok_or(None)
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Value for PathBuf {
    fn expected() -> String {
        "a path".to_owned()
    }

    fn read(raw: &Raw) -> Result<Self, Hint> {
        raw.text().filter(|path| !path.is_empty()).map(Self::from).ok_or(None)
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Value for SocketAddr {
    fn expected() -> String {
        "an address and port such as `127.0.0.1:8086`".to_owned()
    }

    fn schema(_range: Option<&RangeInclusive<Self>>) -> Json {
        json!({ "type": "string", "pattern": "^.+:[0-9]+$", "examples": ["127.0.0.1:8086"] })
    }

    fn read(raw: &Raw) -> Result<Self, Hint> {
        raw.text().and_then(|address| address.parse().ok()).ok_or(None)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// `null`, `""` and the key's absence mean the same.
impl<T: Value> Value for Option<T> {
    fn expected() -> String {
        T::expected()
    }

    fn schema(_range: Option<&RangeInclusive<Self>>) -> Json {
        schema::nullable(&T::schema(None))
    }

    fn read(raw: &Raw) -> Result<Self, Hint> {
        match raw.text() {
            Some("") => Ok(None),
            _ if raw.is_null() => Ok(None),
            _ => T::read(raw).map(Some),
        }
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "null".to_owned(), T::show)
    }
}

/// A list, or its only element.
impl<T: Value> Value for Vec<T> {
    const TAKES_LIST: bool = true;

    fn expected() -> String {
        format!("a list, each {}", T::expected())
    }

    fn schema(_range: Option<&RangeInclusive<Self>>) -> Json {
        let each = T::schema(None);
        json!({ "anyOf": [{ "type": "array", "items": each }, each, { "type": "null" }] })
    }

    fn read(raw: &Raw) -> Result<Self, Hint> {
        if let Some(texts) = raw.bracketed() {
            return texts.map(|text| T::read(&Raw::plain(text))).collect();
        }
        match raw {
            Raw::Scalar(_) if raw.is_null() => Ok(Self::new()),
            Raw::Scalar(_) => T::read(raw).map(|only| vec![only]),
            Raw::List(list) => list.iter().map(|scalar| T::read(&Raw::Scalar(scalar.clone()))).collect(),
            Raw::Table => Err(None),
        }
    }

    fn show(&self) -> String {
        format!("[{}]", self.iter().map(T::show).collect::<Vec<_>>().join(", "))
    }
}

/// One of a few words.
pub(super) trait Word: Copy + PartialEq + 'static {
    const WORDS: &'static [(&'static str, Self)];
}

impl<W: Word> Value for W {
    fn expected() -> String {
        let words: Vec<String> = W::WORDS.iter().map(|(word, _)| format!("`{word}`")).collect();
        match words.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => words.concat(),
        }
    }

    fn schema(_range: Option<&RangeInclusive<Self>>) -> Json {
        json!({ "enum": W::WORDS.iter().map(|(word, _)| *word).collect::<Vec<_>>() })
    }

    fn read(raw: &Raw) -> Result<Self, Hint> {
        let text = raw.text().ok_or(None)?;
        let words = W::WORDS.iter().map(|(word, _)| *word);
        let known = W::WORDS.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        known.ok_or_else(|| nearest::nearest(text, words).map(|near| format!("did you mean `{near}`?")))
    }

    fn show(&self) -> String {
        W::WORDS
            .iter()
            .find(|(_, value)| value == self)
            .map_or_else(String::new, |(word, _)| (*word).to_owned())
    }
}
