//! `${name}` and `${name:default}`.

use std::collections::BTreeMap;
use std::fs;

use super::problem::Problem;

/// How many placeholders one value may hold, those of its variables counted in: text that doubles
/// itself in every variable ends here.
const MOST_PLACEHOLDERS: usize = 1000;
/// How deep defaults and variables may nest.
const DEEPEST: usize = 32;

/// A scalar of the configuration: its text, and whether that may be read as a number or `true`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scalar {
    pub(super) text: String,
    pub(super) plain: bool,
}

/// Why a text has no value.
#[derive(Debug)]
pub(super) struct Unresolved {
    pub(super) problem: Problem,
    /// The variable whose value holds the mistake; it is reported there and nowhere else.
    pub(super) variable: Option<String>,
}

/// Where the names of placeholders are looked up: in the environment first, then under `vars:`.
#[derive(Default)]
pub(super) struct Placeholders {
    pub(super) environment: BTreeMap<String, String>,
    pub(super) vars: BTreeMap<String, Var>,
}

/// A variable as it is written. One that a `ROCKETMQ__VARS__…` variable set is taken as it is.
pub(super) struct Var {
    pub(super) scalar: Scalar,
    pub(super) verbatim: bool,
}

impl Placeholders {
    /// Replaces every placeholder. Text that is nothing but one takes over whether its value is plain.
    pub(super) fn resolve(&self, scalar: &Scalar) -> Result<Scalar, Unresolved> {
        Expansion { from: self, left: MOST_PLACEHOLDERS, inside: Vec::new(), depth: 0 }.scalar(scalar)
    }

    /// The value of one variable.
    pub(super) fn var(&self, name: &str) -> Result<Scalar, Unresolved> {
        let mut expansion = Expansion { from: self, left: MOST_PLACEHOLDERS, inside: Vec::new(), depth: 0 };
        match self.vars.get(name) {
            Some(var) => expansion.var(name, var),
            None => Err(expansion.unset(name)),
        }
    }
}

/// One value on its way: what is open around the place where we are.
struct Expansion<'a> {
    from: &'a Placeholders,
    left: usize,
    /// The variables whose values we are in.
    inside: Vec<String>,
    depth: usize,
}

impl Expansion<'_> {
    fn scalar(&mut self, scalar: &Scalar) -> Result<Scalar, Unresolved> {
        let mut text = String::new();
        let mut rest = scalar.text.as_str();
        while let Some(start) = rest.find("${") {
            let (before, after) = (&rest[..start], &rest[start + 2..]);
            if let Some(before) = before.strip_suffix('$') {
                // `$${name}` is how one writes a literal `${name}`.
                text.push_str(before);
                text.push_str("${");
                rest = after;
                continue;
            }
            let Some(end) = closing_brace(after) else {
                return Err(self.fails(format!("`{}` has no closing `}}`", shortened(&rest[start..]))));
            };
            let value = self.placeholder(&after[..end])?;
            rest = &after[end + 1..];
            if text.is_empty() && before.is_empty() && rest.is_empty() {
                return Ok(value);
            }
            text.push_str(before);
            text.push_str(&value.text);
        }
        text.push_str(rest);
        Ok(Scalar { text, plain: scalar.plain })
    }

    fn placeholder(&mut self, inside: &str) -> Result<Scalar, Unresolved> {
        self.left = match self.left.checked_sub(1) {
            Some(left) if self.depth < DEEPEST => left,
            _ => return Err(self.fails("its placeholders nest too deeply, or are too many".to_owned())),
        };
        self.depth += 1;
        let (name, default) = match inside.split_once(':') {
            Some((name, default)) => (name.trim(), Some(default)),
            None => (inside.trim(), None),
        };
        let value = if let ("file", Some(path)) = (name, default) {
            self.file(path)
        } else if let Some(value) = self.from.environment.get(name) {
            // Taken as it is: a password may well hold `${`.
            Ok(Scalar { text: value.clone(), plain: true })
        } else if let Some(var) = self.from.vars.get(name) {
            self.var(name, var)
        } else if let Some(default) = default {
            self.scalar(&Scalar { text: default.to_owned(), plain: true })
        } else {
            Err(self.unset(name))
        };
        self.depth -= 1;
        value
    }

    fn var(&mut self, name: &str, var: &Var) -> Result<Scalar, Unresolved> {
        if var.verbatim {
            return Ok(var.scalar.clone());
        }
        if self.inside.iter().any(|open| open == name) {
            let circle = format!("{} → {name}", self.inside.join(" → "));
            let unresolved = self.fails(format!("the variables name each other in a circle: {circle}"));
            // Every variable of a circle is at fault, so each is told.
            return Err(Unresolved { variable: self.inside.first().cloned(), ..unresolved });
        }
        self.inside.push(name.to_owned());
        let value = self.scalar(&var.scalar)?;
        self.inside.pop();
        Ok(value)
    }

    fn file(&mut self, path: &str) -> Result<Scalar, Unresolved> {
        let path = self.scalar(&Scalar { text: path.to_owned(), plain: true })?.text;
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Scalar { text: text.trim_end_matches(['\r', '\n']).to_owned(), plain: true }),
            Err(error) => Err(self.fails(format!("`${{file:{path}}}` cannot be read: {error}"))),
        }
    }

    fn unset(&self, name: &str) -> Unresolved {
        if name.is_empty() {
            return self.fails("`${}` names no variable".to_owned());
        }
        let unresolved = self.fails(format!("`${{{name}}}` is not set and has no default"));
        let fixes = format!("set the environment variable {name}, or a key {name} under `vars:`");
        Unresolved { problem: unresolved.problem.detail(fixes), ..unresolved }
    }

    fn fails(&self, message: String) -> Unresolved {
        Unresolved { problem: Problem::new(message), variable: self.inside.last().cloned() }
    }
}

/// Braces inside count, so that a default may hold a placeholder, or JSON.
fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 1;
    for (index, c) in text.char_indices() {
        match c {
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(index);
        }
    }
    None
}

/// At most 40 characters of a text, for a message.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placeholders(environment: &[(&str, &str)], vars: &[(&str, &str)]) -> Placeholders {
        let var = |text: &str| Var { scalar: quoted(text), verbatim: false };
        Placeholders {
            environment: environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            vars: vars.iter().map(|(k, v)| ((*k).to_owned(), var(v))).collect(),
        }
    }

    fn quoted(text: &str) -> Scalar {
        Scalar { text: text.to_owned(), plain: false }
    }

    fn resolve(text: &str) -> Result<String, String> {
        let from = placeholders(
            &[("HOME", "/root"), ("BOTH", "environment"), ("RAW", "${HOME}")],
            &[
                ("BOTH", "vars"),
                ("topic", "mails-${ENV:dev}"),
                ("a", "${b}"),
                ("b", "x${a}"),
                ("bad", "${NO}"),
            ],
        );
        from.resolve(&quoted(text)).map(|value| value.text).map_err(|error| error.problem.message)
    }

    #[test]
    fn names_come_from_the_environment_then_from_vars_then_from_the_default() {
        for (text, value) in [
            ("plain", "plain"),
            ("${HOME}/x and ${HOME}", "/root/x and /root"),
            ("${BOTH}", "environment"),
            ("${topic}", "mails-dev"),
            ("${NO:a:9876;b:9876}", "a:9876;b:9876"),
            ("${NO:}", ""),
            ("${NO:${ALSO_NO:${HOME}}}", "/root"),
            ("${NO:{\"a\": {}}}", "{\"a\": {}}"),
            ("${ HOME }", "/root"),
            ("${RAW}", "${HOME}"),
            ("$${HOME} costs 5$", "${HOME} costs 5$"),
        ] {
            assert_eq!(resolve(text).as_deref(), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_resolved_says_why() {
        for (text, message) in [
            ("${NO}", "`${NO}` is not set and has no default"),
            ("x ${NO", "`${NO` has no closing `}`"),
            ("${}", "`${}` names no variable"),
            ("${a}", "the variables name each other in a circle: a → b → a"),
        ] {
            assert_eq!(resolve(text), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_mistake_inside_a_variable_is_known_as_such() {
        let from = placeholders(&[], &[("bad", "${NO}")]);
        assert_eq!(from.resolve(&quoted("${bad}")).unwrap_err().variable.as_deref(), Some("bad"));
        assert_eq!(from.resolve(&quoted("${NO}")).unwrap_err().variable, None);
    }

    #[test]
    fn only_a_lone_placeholder_takes_the_type_of_its_value() {
        let from = placeholders(&[("N", "8")], &[("text", "8")]);
        for (text, plain) in [("${N}", true), ("${NO:8}", true), ("1${N}", false), ("${text}", false)] {
            assert_eq!(from.resolve(&quoted(text)).unwrap().plain, plain, "{text}");
        }
    }

    #[test]
    fn text_that_doubles_itself_in_every_variable_is_refused() {
        let names: Vec<String> = (0..30).map(|n| format!("v{n}")).collect();
        let values: Vec<String> = (1..31).map(|n| format!("${{v{n}}}${{v{n}}}")).collect();
        let vars: Vec<_> = names.iter().map(String::as_str).zip(values.iter().map(String::as_str)).collect();
        assert!(placeholders(&[("v30", "")], &vars).resolve(&quoted("${v0}")).is_err());
    }

    #[test]
    fn a_secret_can_be_read_from_a_file_without_its_last_newline() {
        let path = std::env::temp_dir().join(format!("rocketmq-secret-{}", std::process::id()));
        fs::write(&path, "s3cr3t\n").unwrap();
        let text = resolve(&format!("${{file:{}}}", path.display()));
        fs::remove_file(&path).unwrap();
        assert_eq!(text.as_deref(), Ok("s3cr3t"));
        assert!(
            resolve("${file:/no/such/file}")
                .unwrap_err()
                .starts_with("`${file:/no/such/file}` cannot be read")
        );
    }
}
