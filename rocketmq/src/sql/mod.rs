//! SQL92 expressions over message properties, as brokers read them.
//!
//! Brokers evaluate them; here they are read before anything is connected, so that a mistake is known with its place, and
//! evaluated by the embedded broker. What a broker accepts is accepted here, oddities included: both releases were asked
//! what they make of several hundred expressions, and [`tests`] holds their answers.
//!
//! ```text
//! or         = and { "OR" and }
//! and        = equality { "AND" equality }
//! equality   = comparison { ("=" | "<>") comparison | "IS" [ "NOT" ] "NULL" }
//! comparison = unary { (">" | ">=" | "<" | "<=") unary
//!                    | [ "NOT" ] ("CONTAINS" | "STARTSWITH" | "ENDSWITH") text            5.x
//!                    | [ "NOT" ] "BETWEEN" unary "AND" unary
//!                    | [ "NOT" ] "IN" "(" text { "," text } ")" }
//! unary      = ("+" | "-" | "NOT") unary | primary
//! primary    = text | number | "TRUE" | "FALSE" | "NULL" | property | "(" or ")"
//! ```
//!
//! What follows a complete expression is not read, only its next word. Source: `protocol.md` section 5.4,
//! `SelectorParser` of 5.5.0 and 4.9.7.

#[cfg_attr(
    not(feature = "embedded"),
    allow(dead_code, reason = "it is brokers that evaluate; without one here it is only tested")
)]
mod evaluate;
mod expression;
mod lexer;
mod parser;
#[cfg(test)]
mod tests;

use std::fmt;

use expression::Expression;

/// An expression that was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Selector {
    expression: Expression,
    /// What stands behind the expression, which no broker reads.
    ignored: Option<String>,
    /// Whether it has words that releases before 5.0 do not know, and take for the end of the expression.
    needs_v5: bool,
}

/// Why a text is no expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SqlError {
    /// Counted from 1, in characters.
    line: usize,
    column: usize,
    what: String,
    /// Whether another release may well accept it.
    is_arguable: bool,
}

impl Selector {
    /// Reads an expression.
    pub(crate) fn parse(text: &str) -> Result<Self, SqlError> {
        parser::parse(text)
    }

    /// The text behind the expression that brokers pass over in silence, where there is some.
    pub(crate) fn ignored(&self) -> Option<&str> {
        self.ignored.as_deref()
    }

    /// Whether releases before 5.0 misunderstand it in silence.
    pub(crate) fn needs_v5(&self) -> bool {
        self.needs_v5
    }
}

impl SqlError {
    fn new(text: &str, at: usize, what: impl Into<String>) -> Self {
        let before = text.get(..at).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            what: what.into(),
            is_arguable: false,
        }
    }

    /// The same as what only some releases say.
    fn arguable(self) -> Self {
        Self { is_arguable: true, ..self }
    }

    /// Whether a broker may accept it nevertheless: words that are not known here, or more than is read here.
    pub(crate) fn is_arguable(&self) -> bool {
        self.is_arguable
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, what, .. } = self;
        match line {
            1 => write!(f, "at column {column}: {what}"),
            _ => write!(f, "at line {line}, column {column}: {what}"),
        }
    }
}

/// As it would be written, which is read as the same again.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.expression.fmt(f)
    }
}
