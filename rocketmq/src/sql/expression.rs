//! What an expression is made of, and how it is written.

use std::fmt;

/// A part of an expression that has a value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expression {
    Property(String),
    Text(String),
    Number(Number),
    Bool(bool),
    Null,
    Negate(Box<Expression>),
    Not(Box<Expression>),
    /// A property where true or false is wanted. Properties are texts, so this is never true.
    AsBool(Box<Expression>),
    /// At least two.
    Or(Vec<Expression>),
    /// At least two.
    And(Vec<Expression>),
    Equal(Box<Expression>, Box<Expression>),
    IsNull(Box<Expression>),
    Compare(Comparison, Box<Expression>, Box<Expression>),
    Between {
        value: Box<Expression>,
        low: Box<Expression>,
        high: Box<Expression>,
        not: bool,
    },
    In {
        property: String,
        texts: Vec<String>,
        not: bool,
    },
    Match {
        value: Box<Expression>,
        part: Part,
        text: String,
        not: bool,
    },
}

/// A constant; its size says how a text that it is compared with is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Int(i32),
    Long(i64),
    Double(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// Which part of a text is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Any,
    Start,
    End,
}

impl Expression {
    pub(super) fn is_constant(&self) -> bool {
        matches!(self, Self::Text(_) | Self::Number(_) | Self::Bool(_) | Self::Null)
    }

    /// Whether its value is true, false or unknown, and nothing else.
    pub(super) fn is_boolean(&self) -> bool {
        !matches!(self, Self::Property(_) | Self::Text(_) | Self::Number(_) | Self::Negate(_))
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let negated = |not: &bool| if *not { "NOT " } else { "" };
        match self {
            Self::Property(name) => f.write_str(name),
            Self::Text(text) => write!(f, "{}", Quoted(text)),
            Self::Number(Number::Int(number)) => write!(f, "{number}"),
            Self::Number(Number::Long(number)) => write!(f, "{number}"),
            Self::Number(Number::Double(number)) => write!(f, "{number:?}"),
            Self::Bool(true) => f.write_str("TRUE"),
            Self::Bool(false) => f.write_str("FALSE"),
            Self::Null => f.write_str("NULL"),
            Self::Negate(of) => write!(f, "-{}", Operand(of)),
            Self::Not(of) => write!(f, "NOT {}", Operand(of)),
            Self::AsBool(of) => of.fmt(f),
            Self::Or(all) => join(f, all, " OR "),
            Self::And(all) => join(f, all, " AND "),
            Self::Equal(left, right) => write!(f, "{} = {}", Operand(left), Operand(right)),
            Self::IsNull(of) => write!(f, "{} IS NULL", Operand(of)),
            Self::Compare(how, left, right) => write!(f, "{} {how} {}", Operand(left), Operand(right)),
            Self::Between { value, low, high, not } => {
                let not = negated(not);
                write!(f, "{} {not}BETWEEN {} AND {}", Operand(value), Operand(low), Operand(high))
            }
            Self::In { property, texts, not } => {
                write!(f, "{property} {}IN (", negated(not))?;
                for (at, text) in texts.iter().enumerate() {
                    write!(f, "{}{}", if at > 0 { ", " } else { "" }, Quoted(text))?;
                }
                f.write_str(")")
            }
            Self::Match { value, part, text, not } => {
                write!(f, "{} {}{part} {}", Operand(value), negated(not), Quoted(text))
            }
        }
    }
}

fn join(f: &mut fmt::Formatter<'_>, all: &[Expression], between: &str) -> fmt::Result {
    for (at, one) in all.iter().enumerate() {
        write!(f, "{}{}", if at > 0 { between } else { "" }, Operand(one))?;
    }
    Ok(())
}

/// An expression as a part of another one.
struct Operand<'a>(&'a Expression);

impl fmt::Display for Operand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Expression::Property(_) => self.0.fmt(f),
            Expression::AsBool(of) => Operand(of).fmt(f),
            constant if constant.is_constant() => constant.fmt(f),
            other => write!(f, "({other})"),
        }
    }
}

struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0.replace('\'', "''"))
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
        })
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "CONTAINS",
            Self::Start => "STARTSWITH",
            Self::End => "ENDSWITH",
        })
    }
}
