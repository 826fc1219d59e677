//! From words to an expression, by the rules that brokers have.

use std::cmp::Ordering;

use super::evaluate::{Value, order};
use super::expression::{Comparison, Expression, Number, Part};
use super::lexer::{Key, Lexer, Token};
use super::{Selector, SqlError};

/// How deep expressions stand in each other: as deep as anybody writes, and no danger to the stack.
const MAX_DEPTH: usize = 100;
/// Longer than anybody writes: a heartbeat carries it.
const MAX_BYTES: usize = 64 << 10;

type Result<T, E = SqlError> = std::result::Result<T, E>;

pub(super) fn parse(text: &str) -> Result<Selector> {
    if MAX_BYTES < text.len() {
        let what = format!("it has {} bytes, more than {MAX_BYTES}", text.len());
        return Err(SqlError::new(text, 0, what).arguable());
    }
    let mut parser = Parser::new(text)?;
    let (at, operand) = (parser.at, parser.or()?);
    let expression = parser.as_boolean(at, operand)?.expression;
    let ignored = (parser.token != Token::End).then(|| text[parser.at..].to_owned());
    Ok(Selector { expression, ignored, needs_v5: parser.needs_v5 })
}

/// An expression and how many others stand in it, one in the other.
#[derive(Debug)]
struct Parsed {
    expression: Expression,
    depth: usize,
}

/// Reads one word ahead.
#[derive(Debug)]
struct Parser<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    token: Token<'a>,
    /// Where that word begins.
    at: usize,
    /// How many rules call each other.
    nesting: usize,
    needs_v5: bool,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self> {
        let mut lexer = Lexer::new(text);
        let (at, token) = lexer.next()?;
        Ok(Self { text, lexer, token, at, nesting: 0, needs_v5: false })
    }

    fn or(&mut self) -> Result<Parsed> {
        self.chain(Key::Or, Self::and, Expression::Or)
    }

    fn and(&mut self) -> Result<Parsed> {
        self.chain(Key::And, Self::equality, Expression::And)
    }

    /// Operands with the same word between them.
    fn chain(
        &mut self,
        key: Key,
        operand: impl Fn(&mut Self) -> Result<Parsed>,
        make: impl FnOnce(Vec<Expression>) -> Expression,
    ) -> Result<Parsed> {
        let mut at = self.at;
        let first = operand(self)?;
        if self.token != Token::Key(key) {
            return Ok(first);
        }
        let Parsed { expression, mut depth } = self.as_boolean(at, first)?;
        let mut all = vec![expression];
        while self.take(&Token::Key(key))? {
            at = self.at;
            let next = operand(self)?;
            let next = self.as_boolean(at, next)?;
            depth = depth.max(next.depth);
            all.push(next.expression);
        }
        self.made(make(all), depth)
    }

    fn equality(&mut self) -> Result<Parsed> {
        let at = self.at;
        let mut left = self.comparison()?;
        loop {
            if self.take(&Token::Symbol("="))? {
                left = self.equal(at, left)?;
            } else if self.take(&Token::Symbol("<>"))? {
                let equal = self.equal(at, left)?;
                left = self.made(Expression::Not(equal.expression.into()), equal.depth)?;
            } else if self.take(&Token::Key(Key::Is))? {
                let not = self.take(&Token::Key(Key::Not))?;
                self.expect(&Token::Key(Key::Null), if not { "`NULL`" } else { "`NULL` or `NOT NULL`" })?;
                left = self.made(Expression::IsNull(left.expression.into()), left.depth)?;
                if not {
                    left = self.made(Expression::Not(left.expression.into()), left.depth)?;
                }
            } else {
                return Ok(left);
            }
        }
    }

    fn equal(&mut self, left_at: usize, left: Parsed) -> Result<Parsed> {
        let right_at = self.at;
        let right = self.comparison()?;
        for (at, operand) in [(left_at, &left), (right_at, &right)] {
            if operand.expression == Expression::Null {
                return Err(self.error(at, "NULL equals nothing; write `IS NULL` or `IS NOT NULL`"));
            }
        }
        if let (Expression::Bool(_), constant) = (&left.expression, &right.expression)
            && constant.is_constant()
            && !constant.is_boolean()
        {
            return Err(self.error(right_at, format!("{constant} cannot be compared with true or false")));
        }
        let depth = left.depth.max(right.depth);
        self.made(Expression::Equal(left.expression.into(), right.expression.into()), depth)
    }

    fn comparison(&mut self) -> Result<Parsed> {
        const COMPARISONS: [(&str, Comparison); 4] = [
            (">", Comparison::Greater),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            ("<=", Comparison::LessOrEqual),
        ];
        let at = self.at;
        let mut left = self.unary()?;
        loop {
            if let Token::Symbol(symbol) = self.token
                && let Some((_, how)) = COMPARISONS.iter().find(|(known, _)| *known == symbol)
            {
                self.advance()?;
                let right_at = self.at;
                let right = self.unary()?;
                self.check_ordered(at, &left)?;
                self.check_ordered(right_at, &right)?;
                let depth = left.depth.max(right.depth);
                let compare = Expression::Compare(*how, left.expression.into(), right.expression.into());
                left = self.made(compare, depth)?;
                continue;
            }
            let not_at = self.at;
            let not = self.take(&Token::Key(Key::Not))?;
            left = match self.token {
                Token::Key(Key::Contains) => self.matching(left, Part::Any, not)?,
                Token::Key(Key::StartsWith) => self.matching(left, Part::Start, not)?,
                Token::Key(Key::EndsWith) => self.matching(left, Part::End, not)?,
                Token::Key(Key::Between) => self.between(at, left, not)?,
                Token::Key(Key::In) => self.is_in(at, left, not)?,
                _ if not => {
                    let words = "`NOT` stands before a value, or before BETWEEN, IN, CONTAINS, STARTSWITH and ENDSWITH";
                    // The next release may have one more of them.
                    return Err(self.error(not_at, words).arguable());
                }
                _ => return Ok(left),
            };
        }
    }

    fn matching(&mut self, left: Parsed, part: Part, not: bool) -> Result<Parsed> {
        self.needs_v5 = true;
        self.advance()?;
        let text = self.quoted()?;
        self.made(Expression::Match { value: left.expression.into(), part, text, not }, left.depth)
    }

    fn between(&mut self, at: usize, left: Parsed, not: bool) -> Result<Parsed> {
        self.advance()?;
        let low_at = self.at;
        let low = self.unary()?;
        self.expect(&Token::Key(Key::And), "`AND`, as in `BETWEEN 1 AND 9`")?;
        let high_at = self.at;
        let high = self.unary()?;
        if !not {
            self.check_range(low_at, &low.expression, &high.expression)?;
        }
        for (at, operand) in [(at, &left), (low_at, &low), (high_at, &high)] {
            self.check_ordered(at, operand)?;
        }
        let depth = left.depth.max(low.depth).max(high.depth);
        let (value, low, high) = (left.expression.into(), low.expression.into(), high.expression.into());
        self.made(Expression::Between { value, low, high, not }, depth)
    }

    fn is_in(&mut self, at: usize, left: Parsed, not: bool) -> Result<Parsed> {
        self.advance()?;
        self.expect(&Token::Symbol("("), "`(`, as in `IN ('a', 'b')`")?;
        let mut texts = vec![self.quoted()?];
        while self.take(&Token::Symbol(","))? {
            texts.push(self.quoted()?);
        }
        self.expect(&Token::Symbol(")"), "`,` or `)`")?;
        let Expression::Property(property) = left.expression else {
            return Err(self.error(at, "only a property can be looked for with `IN`"));
        };
        self.made(Expression::In { property, texts, not }, left.depth)
    }

    fn unary(&mut self) -> Result<Parsed> {
        self.nesting += 1;
        if MAX_DEPTH < self.nesting {
            return Err(self.too_deep());
        }
        let parsed = self.unary_inside()?;
        self.nesting -= 1;
        Ok(parsed)
    }

    fn unary_inside(&mut self) -> Result<Parsed> {
        if self.take(&Token::Symbol("+"))? {
            self.unary()
        } else if self.take(&Token::Symbol("-"))? {
            let of = self.unary()?;
            self.made(Expression::Negate(of.expression.into()), of.depth)
        } else if self.take(&Token::Key(Key::Not))? {
            let at = self.at;
            let of = self.unary()?;
            let of = self.as_boolean(at, of)?;
            self.made(Expression::Not(of.expression.into()), of.depth)
        } else {
            self.primary()
        }
    }

    fn primary(&mut self) -> Result<Parsed> {
        let at = self.at;
        let expression = match std::mem::replace(&mut self.token, Token::End) {
            Token::Text(text) => Expression::Text(text),
            Token::Whole(digits) => Expression::Number(self.whole(at, digits)?),
            Token::Fraction(text) => Expression::Number(self.fraction(at, text)?),
            Token::Word(name) => Expression::Property(name.to_owned()),
            Token::Key(Key::True) => Expression::Bool(true),
            Token::Key(Key::False) => Expression::Bool(false),
            Token::Key(Key::Null) => Expression::Null,
            Token::Symbol("(") => {
                self.advance()?;
                let inside = self.or()?;
                self.expect(&Token::Symbol(")"), "an operator or `)`")?;
                return Ok(inside);
            }
            other => {
                self.token = other;
                return Err(self.unexpected("a property, a number or a text in single quotes"));
            }
        };
        self.advance()?;
        self.made(expression, 0)
    }

    fn whole(&self, at: usize, digits: &str) -> Result<Number> {
        let number: i64 =
            digits.parse().map_err(|_| self.error(at, format!("{digits} is larger than {}", i64::MAX)))?;
        Ok(i32::try_from(number).map_or(Number::Long(number), Number::Int))
    }

    fn fraction(&self, at: usize, text: &str) -> Result<Number> {
        match text.parse::<f64>() {
            Ok(0.0) => Err(self.error(at, format!("brokers do not read {text}; write 0"))),
            Ok(number) if number.is_finite() => Ok(Number::Double(number)),
            _ => Err(self.error(at, format!("{text} is larger than any number"))),
        }
    }

    fn quoted(&mut self) -> Result<String> {
        match std::mem::replace(&mut self.token, Token::End) {
            Token::Text(text) => {
                self.advance()?;
                Ok(text)
            }
            other => {
                self.token = other;
                Err(self.unexpected("a text in single quotes"))
            }
        }
    }

    /// A property stands for its value where true or false is wanted; numbers and texts cannot.
    fn as_boolean(&self, at: usize, parsed: Parsed) -> Result<Parsed> {
        match parsed.expression {
            Expression::Property(_) => self.made(Expression::AsBool(parsed.expression.into()), parsed.depth),
            expression if expression.is_boolean() => Ok(Parsed { expression, ..parsed }),
            other => Err(self.error(at, format!("{other} is neither true nor false"))),
        }
    }

    /// What stands beside `<` and its like: a number, or what may turn out to be one.
    fn check_ordered(&self, at: usize, operand: &Parsed) -> Result<()> {
        match &operand.expression {
            Expression::Number(_) => Ok(()),
            Expression::Text(text) => {
                Err(self.error(at, format!("texts such as '{text}' have no order; only numbers have")))
            }
            other if other.is_boolean() => Err(self.error(at, format!("{other} is no number"))),
            _ => Ok(()),
        }
    }

    fn check_range(&self, at: usize, low: &Expression, high: &Expression) -> Result<()> {
        let value = |of| match of {
            &Expression::Number(number) => Some(Value::Number(number)),
            Expression::Text(text) => Some(Value::Text(text)),
            &Expression::Bool(bool) => Some(Value::Bool(bool)),
            _ => None,
        };
        match (value(low), value(high)) {
            (Some(low), Some(high)) if order(high, low) == Ok(Ordering::Less) => {
                Err(self.error(at, "the first bound of `BETWEEN` is the greater one"))
            }
            _ => Ok(()),
        }
    }

    fn made(&self, expression: Expression, inside: usize) -> Result<Parsed> {
        match inside {
            ..MAX_DEPTH => Ok(Parsed { expression, depth: inside + 1 }),
            _ => Err(self.too_deep()),
        }
    }

    fn too_deep(&self) -> SqlError {
        self.error(self.at, format!("more than {MAX_DEPTH} expressions stand in each other")).arguable()
    }

    fn advance(&mut self) -> Result<()> {
        (self.at, self.token) = self.lexer.next()?;
        Ok(())
    }

    /// Goes on if this is the next word; whether it is.
    fn take(&mut self, wanted: &Token<'_>) -> Result<bool> {
        let found = self.token == *wanted;
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn expect(&mut self, wanted: &Token<'_>, words: &str) -> Result<()> {
        if self.take(wanted)? { Ok(()) } else { Err(self.unexpected(words)) }
    }

    fn unexpected(&self, expected: &str) -> SqlError {
        let error = self.error(self.at, format!("expected {expected}, found {}", self.token));
        // A word may mean something to a newer release.
        if matches!(self.token, Token::Word(_)) { error.arguable() } else { error }
    }

    fn error(&self, at: usize, what: impl Into<String>) -> SqlError {
        SqlError::new(self.text, at, what)
    }
}
