//! From characters to words. One word at a time is read, since what no rule asks for may be anything.

use std::fmt;

use super::SqlError;

/// A word of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token<'a> {
    End,
    Word(&'a str),
    Key(Key),
    Text(String),
    /// Digits, and an `l` perhaps.
    Whole(&'a str),
    /// With a point or an exponent.
    Fraction(&'a str),
    Symbol(&'static str),
}

/// A reserved word, in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Not,
    And,
    Or,
    Between,
    In,
    True,
    False,
    Null,
    Is,
    Contains,
    StartsWith,
    EndsWith,
}

const KEYS: [(&str, Key); 12] = [
    ("NOT", Key::Not),
    ("AND", Key::And),
    ("OR", Key::Or),
    ("BETWEEN", Key::Between),
    ("IN", Key::In),
    ("TRUE", Key::True),
    ("FALSE", Key::False),
    ("NULL", Key::Null),
    ("IS", Key::Is),
    ("CONTAINS", Key::Contains),
    ("STARTSWITH", Key::StartsWith),
    ("ENDSWITH", Key::EndsWith),
];

/// The longer ones first.
const SYMBOLS: [&str; 11] = ["<>", "<=", ">=", "<", ">", "=", "(", ")", ",", "+", "-"];

/// Reads words from a text.
#[derive(Debug)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The next word and where it begins; [`Token::End`] again and again at the end.
    pub(super) fn next(&mut self) -> Result<(usize, Token<'a>), SqlError> {
        self.skip_blanks()?;
        let start = self.at;
        let rest = &self.text[start..];
        let Some(first) = rest.chars().next() else { return Ok((start, Token::End)) };
        let (token, len) = match first {
            '\'' => self.quoted(rest)?,
            '0'..='9' | '.' => self.number(rest)?,
            'a'..='z' | 'A'..='Z' | '_' | '$' => {
                let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
                let word = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
                let key = KEYS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
                (key.map_or(Token::Word(word), |(_, key)| Token::Key(*key)), word.len())
            }
            other => match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
                Some(symbol) => (Token::Symbol(symbol), symbol.len()),
                None => return Err(self.illegal(other)),
            },
        };
        self.at += len;
        Ok((start, token))
    }

    fn illegal(&self, character: char) -> SqlError {
        let hint = match character {
            '!' => "; not equal is written `<>`",
            '&' => "; and is written `AND`",
            '|' => "; or is written `OR`",
            '"' => "; a text is written in single quotes",
            _ => "",
        };
        SqlError::new(self.text, self.at, format!("{character:?} has no meaning here{hint}"))
    }

    /// Passes over blanks and comments. A line comment needs an end of its line, or it is two minus signs.
    fn skip_blanks(&mut self) -> Result<(), SqlError> {
        loop {
            let rest = &self.text[self.at..];
            let blanks =
                rest.find(|c| !matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}')).unwrap_or(rest.len());
            let rest = &rest[blanks..];
            self.at += blanks;
            let comment = if rest.starts_with("--") {
                rest.find(['\n', '\r']).map(|end| end + 1)
            } else if let Some(inside) = rest.strip_prefix("/*") {
                let unclosed =
                    || SqlError::new(self.text, self.at, "the comment has no end: `*/` is missing");
                Some(inside.find("*/").map(|end| end + 4).ok_or_else(unclosed)?)
            } else {
                None
            };
            match comment {
                Some(len) => self.at += len,
                None => return Ok(()),
            }
        }
    }

    /// A text in single quotes, in which two of them stand for one.
    fn quoted(&self, rest: &str) -> Result<(Token<'a>, usize), SqlError> {
        let mut text = String::new();
        let mut at = 1;
        while let Some(quote) = rest[at..].find('\'') {
            text.push_str(&rest[at..at + quote]);
            at += quote + 1;
            if !rest[at..].starts_with('\'') {
                return Ok((Token::Text(text), at));
            }
            text.push('\'');
            at += 1;
        }
        Err(SqlError::new(self.text, self.at, "the text has no end: a single quote is missing"))
    }

    fn number(&self, rest: &'a str) -> Result<(Token<'a>, usize), SqlError> {
        let digits = |from: usize| {
            rest[from..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - from) + from
        };
        let whole = digits(0);
        let mut end = whole;
        if rest[end..].starts_with('.') {
            end = digits(end + 1);
            if end == 1 {
                return Err(self.illegal('.'));
            }
        }
        if rest[end..].starts_with(['e', 'E']) {
            let sign = usize::from(rest[end + 1..].starts_with(['+', '-']));
            let exponent = digits(end + 1 + sign);
            if exponent > end + 1 + sign {
                end = exponent;
            }
        }
        if end > whole {
            return Ok((Token::Fraction(&rest[..end]), end));
        }
        // A number does not begin with 0, unless it is 0.
        if rest.starts_with('0') {
            return Ok((Token::Whole(&rest[..1]), 1));
        }
        let suffix = usize::from(rest[whole..].starts_with(['l', 'L']));
        Ok((Token::Whole(&rest[..whole]), whole + suffix))
    }
}

/// As errors name it.
impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => f.write_str("the end"),
            Self::Word(text) | Self::Whole(text) | Self::Fraction(text) | Self::Symbol(text) => {
                write!(f, "`{text}`")
            }
            Self::Text(text) => write!(f, "the text '{text}'"),
            Self::Key(key) => {
                let name = KEYS.iter().find(|(_, known)| known == key).map_or("", |(name, _)| name);
                write!(f, "`{name}`")
            }
        }
    }
}
