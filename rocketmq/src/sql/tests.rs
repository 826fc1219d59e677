//! What is read, held against what real brokers make of the same.

use proptest::prelude::*;

use super::evaluate::{Incomparable, Value};
use super::expression::{Comparison, Expression, Number, Part};
use super::{Selector, SqlError};

/// Taken down from `SelectorParser` of the release itself.
const ANSWERS: &str = include_str!("answers.txt");

/// The first value wins, as there is one only.
fn property<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message
        .split(';')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

#[test]
fn brokers_and_we_make_the_same_of_every_expression() {
    let (messages, answers) = ANSWERS.split_once("---\n").unwrap();
    let messages: Vec<_> = messages.lines().filter(|line| !line.starts_with('#')).collect();
    let mut differ = Vec::new();
    for line in answers.lines() {
        let (expected, text) = line.split_once('\t').unwrap();
        let text = text.replace("\\n", "\n");
        let found = match Selector::parse(&text) {
            Err(_) => "REFUSED".to_owned(),
            Ok(selector) => messages
                .iter()
                .map(|message| match selector.evaluate(&|name| property(message, name)) {
                    Ok(Value::Bool(true)) => 't',
                    Ok(Value::Bool(false)) => 'f',
                    Ok(Value::Null) => 'n',
                    Ok(_) => '?',
                    Err(Incomparable) => 'x',
                })
                .collect(),
        };
        if found != expected {
            differ.push(format!("{text}\n   theirs {expected}\n   ours   {found}"));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    assert!(messages.len() > 5 && answers.lines().count() > 400);
}

#[test]
fn a_mistake_is_named_with_its_place() {
    for (text, words, is_arguable) in [
        ("", "at column 1: expected a property, a number or a text in single quotes, found the end", false),
        ("a = 'open", "at column 5: the text has no end: a single quote is missing", false),
        ("a == 5", "at column 4: expected a property, a number or a text in single quotes, found `=`", false),
        ("a && b", "at column 3: '&' has no meaning here; and is written `AND`", false),
        ("a != 5", "at column 3: '!' has no meaning here; not equal is written `<>`", false),
        ("a = \"x\"", "at column 5: '\"' has no meaning here; a text is written in single quotes", false),
        ("a\n= 'é' AND\n  (b = 1", "at line 3, column 9: expected an operator or `)`, found the end", false),
        ("(a LIKE 'x')", "at column 4: expected an operator or `)`, found `LIKE`", true),
        ("a NOT LIKE 'x'", "at column 3: `NOT` stands before", true),
        ("a > 'x'", "at column 5: texts such as 'x' have no order", false),
        ("a = NULL", "at column 5: NULL equals nothing; write `IS NULL`", false),
        ("a BETWEEN 6 AND 3", "at column 11: the first bound of `BETWEEN` is the greater one", false),
        ("5", "at column 1: 5 is neither true nor false", false),
        ("a IN (5)", "at column 7: expected a text in single quotes, found `5`", false),
        ("a = 0.0", "at column 5: brokers do not read 0.0; write 0", false),
    ] {
        let error = Selector::parse(text).unwrap_err();
        assert!(error.to_string().starts_with(words), "{text}: {error}");
        assert_eq!(error.is_arguable(), is_arguable, "{text}");
    }
}

#[test]
fn what_brokers_pass_over_is_known() {
    for (text, ignored, needs_v5) in [
        ("a = 5", None, false),
        ("a = 5 ORR b = 6", Some("ORR b = 6"), false),
        ("a LIKE 'x'", Some("LIKE 'x'"), false),
        ("a = 5) OR b = 6", Some(") OR b = 6"), false),
        ("a CONTAINS 'x'", None, true),
    ] {
        let selector = Selector::parse(text).unwrap();
        assert_eq!((selector.ignored(), selector.needs_v5()), (ignored, needs_v5), "{text}");
    }
}

#[test]
fn depth_and_length_have_bounds_that_nobody_is_refused_for() {
    let refused: [SqlError; 5] = [
        format!("{}a{}", "(".repeat(5_000), ")".repeat(5_000)),
        format!("{}a = 1", "NOT ".repeat(5_000)),
        format!("{}a = 1", "- ".repeat(5_000)),
        format!("a{}", " IS NULL".repeat(5_000)),
        format!("a = '{}'", "x".repeat(100_000)),
    ]
    .map(|text| Selector::parse(&text).unwrap_err());
    assert!(refused.iter().all(SqlError::is_arguable));
    let long = (0..2_000).map(|n| format!("a = {n}")).collect::<Vec<_>>().join(" OR ");
    assert!(Selector::parse(&long).unwrap().matches(|_| Some("1999")));
}

/// Any text, and texts of words that get past the first one.
fn text() -> impl Strategy<Value = String> {
    const WORDS: [&str; 34] = [
        "a", "b", "_$1", "'x'", "'it''s'", "''", "'", "5", "007", "5.5", ".5", "1e3", "1e999", "0.0", "9l",
        "(", ")", ",", "=", "<>", ">", "<=", "+", "-", "--", "/*", "*/", "AND", "or", "Not", "BETWEEN", "IN",
        "IS", "NULL",
    ];
    let word = prop_oneof![
        9 => prop::sample::select(&WORDS[..]).prop_map(str::to_owned),
        3 => prop::sample::select(&["TRUE", "CONTAINS", "startswith", "ENDSWITH", "\n", "é", "!"][..]).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    prop::collection::vec(word, 0..30).prop_map(|words| words.join(" "))
}

fn expression() -> impl Strategy<Value = Expression> {
    let name = "[a-z_$]{1,3}[0-9]?".prop_filter("reserved", |name: &String| {
        !["not", "and", "or", "in", "is", "null", "true"].contains(&name.as_str())
    });
    let texts = || "[ -~é]{0,4}";
    let number = prop_oneof![
        (0..=i32::MAX).prop_map(Number::Int),
        (i64::from(i32::MAX) + 1..=i64::MAX).prop_map(Number::Long),
        (1e-300..1e300).prop_map(Number::Double),
    ];
    // What may stand beside `<`.
    let ordered =
        prop_oneof![name.clone().prop_map(Expression::Property), number.prop_map(Expression::Number)];
    let property = name.clone().prop_map(|name| Expression::AsBool(Expression::Property(name).into()));
    let comparison = prop::sample::select(vec![
        Comparison::Greater,
        Comparison::GreaterOrEqual,
        Comparison::Less,
        Comparison::LessOrEqual,
    ]);
    let part = prop::sample::select(vec![Part::Any, Part::Start, Part::End]);
    let leaf =
        prop_oneof![
            property,
            any::<bool>().prop_map(Expression::Bool),
            (comparison, ordered.clone(), ordered.clone())
                .prop_map(|(how, left, right)| Expression::Compare(how, left.into(), right.into())),
            (name.clone(), texts()).prop_map(|(name, text)| Expression::Equal(
                Expression::Property(name).into(),
                Expression::Text(text).into()
            )),
            // Negated, bounds are no constants whose order could be wrong.
            (ordered.clone(), ordered.clone(), ordered.clone(), any::<bool>()).prop_map(
                |(value, low, high, not)| {
                    let (value, low, high) =
                        (value.into(), Expression::Negate(low.into()).into(), high.into());
                    Expression::Between { value, low, high, not }
                }
            ),
            (name.clone(), prop::collection::vec(texts(), 1..4), any::<bool>())
                .prop_map(|(property, texts, not)| Expression::In { property, texts, not }),
            (ordered, part, texts(), any::<bool>()).prop_map(|(value, part, text, not)| Expression::Match {
                value: value.into(),
                part,
                text,
                not
            }),
            name.prop_map(|name| Expression::IsNull(Expression::Property(name).into())),
        ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expression::Or),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expression::And),
            inner.clone().prop_map(|of| Expression::Not(of.into())),
            inner.prop_map(|of| Expression::IsNull(unwrapped(of).into())),
        ]
    })
}

/// Beside `IS NULL`, a property is not taken for true or false.
fn unwrapped(expression: Expression) -> Expression {
    match expression {
        Expression::AsBool(property) => *property,
        other => other,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics_and_what_is_read_is_written_and_read_again(text in text(), values in any::<[Option<String>; 2]>()) {
        if let Ok(selector) = Selector::parse(&text) {
            selector.matches(|name| values[usize::from(name == "a")].as_deref());
            let again = Selector::parse(&selector.to_string()).unwrap();
            prop_assert_eq!(&again.expression, &selector.expression);
            prop_assert_eq!(again.ignored(), None);
        }
    }

    #[test]
    fn every_expression_is_written_and_read_again(expression in expression()) {
        let selector = Selector { needs_v5: expression.to_string().contains("WITH") || expression.to_string().contains("CONTAINS"), expression, ignored: None };
        let again = Selector::parse(&selector.to_string()).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(again.expression, selector.expression);
    }
}
