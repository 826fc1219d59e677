//! The rules for the texts of an attribute, as far as they are known when a program is compiled.
//!
//! The library has the same ones for texts that come from the configuration.

const MAX_TOPIC_LEN: usize = 127;
const MAX_GROUP_LEN: usize = 120;

/// A consumer group; not blank, which is checked for all texts alike. Source: `Validators.checkGroup`, Java client 5.3.
pub(crate) fn check_group(group: &str) -> Result<(), String> {
    check_name(group, "group", MAX_GROUP_LEN)
}

/// A topic. Source: `Validators.checkTopic`, Java client 5.3.
pub(crate) fn check_topic(topic: &str) -> Result<(), String> {
    check_name(topic, "topic", MAX_TOPIC_LEN).map_err(|rule| match topic.contains([',', ' ']) {
        true => format!("{rule}; for two topics write the attribute twice"),
        false => rule,
    })
}

fn check_name(name: &str, what: &str, max_len: usize) -> Result<(), String> {
    if has_placeholders(name)? {
        return Ok(());
    }
    if max_len < name.len() {
        return Err(format!("a {what} has at most {max_len} characters, this one has {}", name.len()));
    }
    match name.chars().find(|c| !c.is_ascii_alphanumeric() && !"%|_-".contains(*c)) {
        Some('$' | '#' | '{' | '}') => Err(format!(
            "a value from the configuration is written ${{name}} or ${{name:default}}, not {name}"
        )),
        Some(c) => {
            Err(format!("{c:?} cannot be in a {what}: only letters, digits, `_`, `-`, `%` and `|` can"))
        }
        None => Ok(()),
    }
}

/// A tag expression: `*`, or words joined by `||`. The library's rule is in `listener/filter.rs`.
pub(crate) fn check_tag(expression: &str) -> Result<(), String> {
    let expression = expression.trim();
    if has_placeholders(expression)? || expression == "*" {
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
            return Err(format!("`{word}` is not one word; tags are joined by `||`: \"paid || refunded\""));
        }
    }
    Ok(())
}

/// An SQL92 expression, of which the library reads the rest when the program starts: only words of other languages.
pub(crate) fn check_sql(expression: &str) -> Result<(), String> {
    let has_comments = expression.contains("--") || expression.contains("/*");
    if has_placeholders(expression)? || has_comments {
        return Ok(());
    }
    // Every other piece is a text in quotes.
    let outside = expression.split('\'').step_by(2);
    for (word, sql) in [("==", "="), ("!=", "<>"), ("&&", "AND"), ("||", "OR")] {
        if outside.clone().any(|piece| piece.contains(word)) {
            return Err(format!("`{word}` is not SQL92: write `{sql}`"));
        }
    }
    Ok(())
}

/// Any other text.
pub(crate) fn check_text(text: &str) -> Result<(), String> {
    has_placeholders(text).map(|_| ())
}

/// Whether the configuration has a say in `text`; then only the form of the placeholders is known.
fn has_placeholders(text: &str) -> Result<bool, String> {
    let mut rest = text;
    while let Some((_, inside)) = rest.split_once("${") {
        let Some((placeholder, after)) = inside.split_once('}') else {
            return Err(format!("`${{{inside}` has no end: a placeholder is ${{name}} or ${{name:default}}"));
        };
        check_placeholder(placeholder)?;
        rest = after;
    }
    Ok(rest.len() < text.len())
}

fn check_placeholder(placeholder: &str) -> Result<(), String> {
    let (name, default) = placeholder.split_once(':').unwrap_or((placeholder, ""));
    if default.contains("${") {
        return Err("a placeholder cannot stand in the default of another".into());
    }
    if name.is_empty() {
        return Err(format!(
            "`${{{placeholder}}}` has no name: a placeholder is ${{name}} or ${{name:default}}"
        ));
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c)) {
        return Err(format!(
            "`{name}` cannot be the name of a placeholder: only letters, digits, `_`, `-` and `.` can"
        ));
    }
    Ok(())
}

/// Of `known`, what was most likely meant by `word`, if anything.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let contained = known.iter().find(|name| word.contains(*name));
    let (distance, name) = known.iter().map(|name| (distance(&word, name), name)).min()?;
    let is_near = distance <= 1 + name.len() / 4;
    if is_near { Some(name) } else { contained.copied() }
}

/// How many letters have to be put in, taken out or changed. Source: Levenshtein.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_brokers_take() {
        for (name, words) in [
            ("orders", ""),
            ("%RETRY%a|b_c-9", ""),
            ("a b", "' ' cannot be in a topic"),
            ("a,b", "`%` and `|` can; for two topics write the attribute twice"),
            ("订单", "'订' cannot be in a topic"),
            ("$TOPIC", "is written ${name} or ${name:default}, not $TOPIC"),
            ("#{topic}", "is written ${name} or ${name:default}, not #{topic}"),
            (&"t".repeat(128), "at most 127 characters, this one has 128"),
        ] {
            let mistake = check_topic(name).err().unwrap_or_default();
            assert_eq!(mistake.is_empty(), words.is_empty(), "{name}: {mistake}");
            assert!(mistake.contains(words), "{name}: {mistake}");
        }
        assert!(check_topic(&"t".repeat(127)).is_ok());
        assert!(check_group(&"g".repeat(120)).is_ok());
        assert!(check_group(&"g".repeat(121)).is_err());
    }

    #[test]
    fn a_tag_expression_is_words_joined_by_double_bars() {
        for good in ["*", " * ", "a", "a||b", " a || b ", "${tags:a b}", "a || ${tag}"] {
            assert_eq!(check_tag(good), Ok(()), "{good}");
        }
        for bad in ["a |", "a | b", "a || ", "|| a", "a || *", "a b", "a && b", "a or b"] {
            assert!(check_tag(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn words_of_other_languages_are_not_sql() {
        for good in ["a = 5 AND b <> 'x == y'", "a IN ('||', 'it''s')", "${expression}", "a > 1 -- not =="] {
            assert_eq!(check_sql(good), Ok(()), "{good}");
        }
        for (bad, words) in [
            ("a == 5", "write `=`"),
            ("a != 5", "write `<>`"),
            ("a > 1 && b > 1", "write `AND`"),
            ("a = 'x' || b = 'y'", "write `OR`"),
            ("${a", "has no end"),
        ] {
            let error = check_sql(bad).unwrap_err();
            assert!(error.contains(words), "{bad}: {error}");
        }
    }

    #[test]
    fn what_the_configuration_decides_is_not_judged() {
        for good in ["${mail.topic:mails}", "${A}", "a-${B:}-c", "${A}${B:x y}"] {
            assert_eq!(check_topic(good), Ok(()), "{good}");
        }
        for (bad, words) in [
            ("${a", "has no end"),
            ("a-${", "has no end"),
            ("${}", "has no name"),
            ("${:a}", "has no name"),
            ("${a b}", "cannot be the name"),
            ("${a:${b}}", "default of another"),
        ] {
            let error = check_topic(bad).unwrap_err();
            assert!(error.contains(words), "{bad}: {error}");
        }
    }

    #[test]
    fn the_nearest_option_is_found() {
        let known = ["group", "topic", "tag", "sql", "orderly", "broadcast", "cluster"];
        for (word, name) in [
            ("topics", Some("topic")),
            ("Topic", Some("topic")),
            ("tags", Some("tag")),
            ("ordered", Some("orderly")),
            ("consumer_group", Some("group")),
            ("boardcast", Some("broadcast")),
            ("concurrency", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, &known), name, "{word}");
        }
    }
}
