//! Which messages of a topic a listener wants.

use std::fmt;

use crate::message::tag;
use crate::sql::Selector;

/// Which messages of a topic a consumer wants: by tag, or by an SQL92 expression over properties.
///
/// A mistake in it is reported when the consumer is built.
///
/// ```
/// # use rocketmq::Filter;
/// assert_eq!(Filter::tag("paid || refunded").tags(), ["paid", "refunded"]);
/// assert_eq!(Filter::from("*"), Filter::all());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    kind: ExpressionType,
    expression: String,
    /// Taken from the expression once, since it is compared with every message; empty is every tag.
    tags: Vec<String>,
}

/// The language of a filter's expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpressionType {
    /// Tags, joined by `||`.
    Tag,
    /// SQL92 over properties; the broker must have `enablePropertyFilter` set.
    Sql92,
}

/// An expression that cannot be a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{expression:?} cannot be a filter of type {kind}: {rule}")]
pub struct FilterError {
    kind: ExpressionType,
    expression: String,
    rule: String,
}

impl Filter {
    /// Messages with one of the tags in `expression`, for example `paid || refunded`; `*`, or nothing, is all
    /// messages, with a tag or without.
    pub fn tag(expression: impl Into<String>) -> Self {
        let mut expression = expression.into();
        if expression.trim().is_empty() {
            expression = "*".into();
        }
        let tags = tag::parse(&expression).into_iter().map(str::to_owned).collect();
        Self { kind: ExpressionType::Tag, expression, tags }
    }

    /// Messages whose properties fulfil `expression`, for example `region = 'eu' AND amount > 100`.
    ///
    /// The broker evaluates it, and refuses the consumer at its start unless `enablePropertyFilter` is set there. There are
    /// `AND`, `OR`, `NOT`, `=`, `<>`, `>`, `>=`, `<`, `<=`, `BETWEEN`, `IN ('a', 'b')`, `IS NULL`, `IS NOT NULL`, and since
    /// 5.0 `CONTAINS`, `STARTSWITH` and `ENDSWITH`; texts in single quotes, numbers, `TRUE` and `FALSE`. `TAGS` and `KEYS` are
    /// properties like others. A message whose property is no number does not match what compares it with one, not even
    /// beside an `OR`.
    pub fn sql(expression: impl Into<String>) -> Self {
        Self { kind: ExpressionType::Sql92, expression: expression.into(), tags: Vec::new() }
    }

    /// All messages.
    pub fn all() -> Self {
        Self::tag("*")
    }

    /// The same with another expression: that in which placeholders are resolved.
    pub(crate) fn with_expression(&self, expression: String) -> Self {
        match self.kind {
            ExpressionType::Tag => Self::tag(expression),
            ExpressionType::Sql92 => Self::sql(expression),
        }
    }

    /// The expression as it was written; `*` for all messages.
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// The language of the expression.
    pub fn expression_type(&self) -> ExpressionType {
        self.kind
    }

    /// The tags of a tag expression; none for all messages and for SQL.
    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    /// Whether a message with this tag belongs to the filter; what SQL refuses, the broker has not delivered.
    ///
    /// Brokers compare hashes only, so this has to be asked once more. Source: `behaviour.md` section 3.2.
    pub(crate) fn accepts(&self, tag: Option<&str>) -> bool {
        self.tags.is_empty() || tag.is_some_and(|tag| self.tags.iter().any(|wanted| wanted == tag))
    }

    /// Checks what a broker would misunderstand.
    pub(crate) fn check(&self) -> Result<(), FilterError> {
        let checked = match self.kind {
            ExpressionType::Tag => check_tags(self.expression.trim()),
            ExpressionType::Sql92 if self.expression.trim().is_empty() => Err("it is empty".to_owned()),
            ExpressionType::Sql92 => match Selector::parse(&self.expression) {
                // Whatever a broker may accept is for the broker to judge.
                Err(error) if !error.is_arguable() => Err(error.to_string()),
                _ => Ok(()),
            },
        };
        checked.map_err(|rule| FilterError { kind: self.kind, expression: self.expression.clone(), rule })
    }
}

/// A tag expression.
impl From<&str> for Filter {
    fn from(expression: &str) -> Self {
        Self::tag(expression)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.expression)
    }
}

/// As the word that travels.
impl fmt::Display for ExpressionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tag => "TAG",
            Self::Sql92 => "SQL92",
        })
    }
}

/// The rule for tag expressions, or the part of it that `expression` breaks.
///
/// Stricter than other clients, which drop empty words and take `a | b` for one tag: no message ever has it. The
/// macro crate has the same rule (`model.rs`), for what is known when a program is compiled.
fn check_tags(expression: &str) -> Result<(), String> {
    if expression == "*" {
        return Ok(());
    }
    for word in expression.split("||").map(str::trim) {
        if word.is_empty() {
            return Err("a tag is missing beside `||`".into());
        }
        if word == "*" {
            return Err("`*` is every tag and stands alone".into());
        }
        if word.contains('|') {
            return Err(format!("in `{word}` a single `|` stands for nothing; tags are joined by `||`"));
        }
        if word.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(format!("`{word}` is not one word; tags are joined by `||`"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_keeps_its_text_and_knows_its_tags() {
        for (filter, expression, tags) in [
            (Filter::tag("a||b"), "a||b", &["a", "b"][..]),
            (Filter::tag(" "), "*", &[]),
            (Filter::all(), "*", &[]),
            (Filter::from("a"), "a", &["a"]),
            (Filter::sql("a > 1"), "a > 1", &[]),
            (Filter::sql("(a LIKE 'x')"), "(a LIKE 'x')", &[]),
        ] {
            assert_eq!((filter.expression(), filter.to_string()), (expression, expression.to_owned()));
            assert_eq!(filter.tags(), tags);
            filter.check().unwrap();
        }
        assert_eq!(Filter::all().expression_type().to_string(), "TAG");
        assert_eq!(Filter::sql("x").expression_type().to_string(), "SQL92");
    }

    #[test]
    fn a_message_without_a_tag_never_passes_a_tag_expression() {
        for (filter, tag, accepted) in [
            (Filter::all(), None, true),
            (Filter::all(), Some("a"), true),
            (Filter::tag("a || b"), Some("b"), true),
            (Filter::tag("a || b"), Some("c"), false),
            (Filter::tag("a || b"), None, false),
            (Filter::sql("x = 1"), None, true),
        ] {
            assert_eq!(filter.accepts(tag), accepted, "{filter} {tag:?}");
        }
    }

    #[test]
    fn what_no_message_could_match_is_refused() {
        for (filter, words) in [
            (Filter::tag("a |"), "\"a |\" cannot be a filter of type TAG: in `a |` a single `|`"),
            (Filter::tag("a || || b"), "a tag is missing"),
            (Filter::tag("a ||"), "a tag is missing"),
            (Filter::tag("a || *"), "stands alone"),
            (Filter::tag("a b"), "`a b` is not one word"),
            (Filter::tag("a\u{1}"), "is not one word"),
            (Filter::sql(" "), "\" \" cannot be a filter of type SQL92: it is empty"),
            (Filter::sql("a == 1"), "at column 4: expected a property"),
        ] {
            let error = filter.check().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
