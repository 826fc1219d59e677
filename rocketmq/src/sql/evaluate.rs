//! The value of an expression for one message, with all that a broker makes of types.
//!
//! A property is a text; compared with a number it is read as one of that kind. A text that is no such number makes the
//! whole expression fail, and the message does not match: this is not the same as "unknown", which `OR` may overrule.
//! Source: `ComparisonExpression`, `LogicExpression`, `UnaryExpression`, `ExpressionMessageFilter`.

use std::cmp::Ordering;

use super::Selector;
use super::expression::{Comparison, Expression, Number, Part};

/// What a part of an expression comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Text(&'a str),
    Number(Number),
}

/// Two values cannot be compared, and nothing more can be said of the expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Incomparable;

impl Selector {
    /// Whether a message with these properties matches.
    pub(crate) fn matches<'a>(&'a self, properties: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.evaluate(&properties) == Ok(Value::Bool(true))
    }

    pub(super) fn evaluate<'a>(
        &'a self,
        properties: &dyn Fn(&str) -> Option<&'a str>,
    ) -> Result<Value<'a>, Incomparable> {
        self.expression.evaluate(properties)
    }
}

impl Expression {
    fn evaluate<'a>(
        &'a self,
        properties: &dyn Fn(&str) -> Option<&'a str>,
    ) -> Result<Value<'a>, Incomparable> {
        let value = |of: &'a Expression| of.evaluate(properties);
        Ok(match self {
            Self::Property(name) => properties(name).map_or(Value::Null, Value::Text),
            Self::Text(text) => Value::Text(text),
            Self::Number(number) => Value::Number(*number),
            Self::Bool(bool) => Value::Bool(*bool),
            Self::Null => Value::Null,
            Self::Negate(of) => match value(of)? {
                Value::Number(number) => Value::Number(number.negated()),
                _ => Value::Null,
            },
            Self::Not(of) => match value(of)? {
                Value::Bool(bool) => Value::Bool(!bool),
                _ => Value::Null,
            },
            Self::AsBool(of) => match value(of)? {
                Value::Null => Value::Null,
                value => Value::Bool(value == Value::Bool(true)),
            },
            Self::Or(all) => logic(all.iter().map(value), true)?,
            Self::And(all) => logic(all.iter().map(value), false)?,
            Self::Equal(left, right) => equal(value(left)?, value(right)?)?,
            Self::IsNull(of) => Value::Bool(value(of)? == Value::Null),
            Self::Compare(how, left, right) => compare(*how, value(left)?, || value(right))?,
            Self::Between { value: of, low, high, not } => {
                let of = value(of)?;
                let (below, above) = match not {
                    false => (Comparison::GreaterOrEqual, Comparison::LessOrEqual),
                    true => (Comparison::Less, Comparison::Greater),
                };
                let bounds = [(below, low), (above, high)];
                logic(bounds.into_iter().map(|(how, bound)| compare(how, of, || value(bound))), *not)?
            }
            Self::In { property, texts, not } => match properties(property) {
                Some(found) => Value::Bool(texts.iter().any(|text| text == found) != *not),
                None => Value::Null,
            },
            // Not even looked at, whatever it is.
            Self::Match { text, .. } if text.is_empty() => Value::Bool(false),
            Self::Match { value: of, part, text, not } => match value(of)? {
                Value::Text(found) => {
                    let has = match part {
                        Part::Any => found.contains(text.as_str()),
                        Part::Start => found.starts_with(text.as_str()),
                        Part::End => found.ends_with(text.as_str()),
                    };
                    Value::Bool(has != *not)
                }
                _ => Value::Bool(false),
            },
        })
    }
}

/// `OR` where `decisive` is true, `AND` where it is false: the first decisive value decides, else unknown ones do.
fn logic<'a>(
    values: impl Iterator<Item = Result<Value<'a>, Incomparable>>,
    decisive: bool,
) -> Result<Value<'a>, Incomparable> {
    let mut result = Value::Bool(!decisive);
    for value in values {
        match value? {
            Value::Bool(bool) if bool == decisive => return Ok(Value::Bool(decisive)),
            Value::Bool(_) => {}
            _ => result = Value::Null,
        }
    }
    Ok(result)
}

/// Two missing values are equal; one that is missing is unequal on the right, and unknown on the left.
fn equal<'a>(left: Value<'a>, right: Value<'a>) -> Result<Value<'a>, Incomparable> {
    Ok(match (left, right) {
        (Value::Null, Value::Null) => Value::Bool(true),
        (Value::Null, _) => Value::Null,
        (_, Value::Null) => Value::Bool(false),
        _ => Value::Bool(order(left, right)? == Ordering::Equal),
    })
}

fn compare<'a>(
    how: Comparison,
    left: Value<'a>,
    right: impl FnOnce() -> Result<Value<'a>, Incomparable>,
) -> Result<Value<'a>, Incomparable> {
    if left == Value::Null {
        return Ok(Value::Null);
    }
    let order = match (left, right()?) {
        (_, Value::Null) => return Ok(Value::Null),
        // Texts have no order, but two of them may both be numbers.
        (Value::Text(left), Value::Text(right)) => double(left)?.total_cmp(&double(right)?),
        (left, right) => order(left, right)?,
    };
    Ok(Value::Bool(match how {
        Comparison::Greater => order == Ordering::Greater,
        Comparison::GreaterOrEqual => order != Ordering::Less,
        Comparison::Less => order == Ordering::Less,
        Comparison::LessOrEqual => order != Ordering::Greater,
    }))
}

/// The order of two values that are there. Of different kinds, a text is read as what it is compared with.
pub(super) fn order(left: Value<'_>, right: Value<'_>) -> Result<Ordering, Incomparable> {
    Ok(match (left, right) {
        (Value::Text(left), Value::Text(right)) => left.cmp(right),
        (Value::Bool(left), Value::Bool(right)) => left.cmp(&right),
        (Value::Number(left), Value::Number(right)) => left.order(right),
        (Value::Text(left), Value::Number(right)) => right.same_kind(left)?.order(right),
        (Value::Number(left), Value::Text(right)) => left.order(left.same_kind(right)?),
        (Value::Text(left), Value::Bool(right)) => left.eq_ignore_ascii_case("true").cmp(&right),
        // A broker fails here.
        (Value::Bool(_), Value::Text(_)) => return Err(Incomparable),
        _ => Ordering::Less,
    })
}

impl Number {
    fn negated(self) -> Self {
        match self {
            Self::Int(number) => Self::Int(number.wrapping_neg()),
            Self::Long(number) => Self::Long(number.wrapping_neg()),
            Self::Double(number) => Self::Double(-number),
        }
    }

    fn order(self, other: Self) -> Ordering {
        match (self.whole(), other.whole()) {
            (Some(left), Some(right)) => left.cmp(&right),
            _ => self.as_f64().total_cmp(&other.as_f64()),
        }
    }

    fn whole(self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(number.into()),
            Self::Long(number) => Some(number),
            Self::Double(_) => None,
        }
    }

    fn as_f64(self) -> f64 {
        match self {
            Self::Int(number) => number.into(),
            Self::Long(number) => number as f64,
            Self::Double(number) => number,
        }
    }

    /// A text as a number of the same kind.
    fn same_kind(self, text: &str) -> Result<Self, Incomparable> {
        match self {
            Self::Int(_) => text.parse().map(Self::Int).map_err(|_| Incomparable),
            Self::Long(_) => text.parse().map(Self::Long).map_err(|_| Incomparable),
            Self::Double(_) => double(text).map(Self::Double),
        }
    }
}

/// A text as Java reads a `double`, but for hexadecimal ones: blanks around it, and one of `f` and `d` behind it, are
/// allowed.
fn double(text: &str) -> Result<f64, Incomparable> {
    let text = text.trim_matches(|c| c <= ' ');
    let (unsigned, is_negative) = match text.strip_prefix('-') {
        Some(unsigned) => (unsigned, true),
        None => (text.strip_prefix('+').unwrap_or(text), false),
    };
    let number = match unsigned {
        "NaN" => return Ok(f64::NAN),
        "Infinity" => f64::INFINITY,
        _ => {
            let digits = unsigned.strip_suffix(['f', 'F', 'd', 'D']).unwrap_or(unsigned);
            let starts_well = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
            digits.parse().ok().filter(|_| starts_well).ok_or(Incomparable)?
        }
    };
    Ok(if is_negative { -number } else { number })
}
