//! Where each value was written: the file, line and column, or the environment variable.

use std::collections::{BTreeMap, BTreeSet};

use super::problem::{Origin, Problem, SourceLine};

/// `["groups", "orders", "batch"]`. Not one string: names under `vars:` hold dots.
pub(super) type KeyPath = Vec<String>;

/// A stretch of one line, in characters counted from 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) width: usize,
}

/// Where one key and its value are.
#[derive(Debug, Clone)]
pub(super) enum Mark {
    /// `plain` is a scalar without quotes: `8` may be a number, `"8"` is text.
    File {
        file: usize,
        key: Stretch,
        value: Stretch,
        plain: bool,
    },
    Environment {
        variable: String,
    },
}

/// A configuration file as far as error messages need it.
#[derive(Debug, Default)]
pub(super) struct SourceFile {
    pub(super) name: String,
    pub(super) lines: Vec<String>,
    /// Lines that may hold a secret, and so are never shown.
    pub(super) private_lines: BTreeSet<usize>,
}

/// A line is shown in an error message up to this length; longer ones only get their place.
const LONGEST_LINE_SHOWN: usize = 160;

impl SourceFile {
    /// The words `name:line:column  message`, and the line with its carets below.
    pub(super) fn problem(&self, file: usize, stretch: Stretch, message: impl Into<String>) -> Problem {
        let Stretch { line, column, .. } = stretch;
        Problem::new(message)
            .at(format!("{}:{line}:{column}", self.name))
            .from(Origin { position: (file, line, column), line: self.source_line(stretch) })
    }

    fn source_line(&self, Stretch { line: number, column, width }: Stretch) -> Option<SourceLine> {
        let line = self.lines.get(number.checked_sub(1)?)?;
        let length = line.chars().count();
        if self.may_hold_a_secret(number, line) || length < column || LONGEST_LINE_SHOWN < length {
            return None;
        }
        // A tab or a terminal's escape sequence would move the carets, or do worse.
        let text = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Some(SourceLine { number, text, column, width: width.clamp(1, length + 1 - column) })
    }

    /// The words are for lines of a file that could not be parsed.
    fn may_hold_a_secret(&self, number: usize, line: &str) -> bool {
        let line = line.to_lowercase();
        self.private_lines.contains(&number)
            || ["secret", "token", "password", "access_key"].iter().any(|word| line.contains(word))
    }
}

/// The places of all keys of all layers; a key that several layers set has the place of the strongest.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) files: Vec<SourceFile>,
    pub(super) marks: BTreeMap<KeyPath, Mark>,
    /// The keys of which a file says more than one thing, or nothing that can be taken in.
    pub(super) unclear: Vec<KeyPath>,
}

impl Places {
    /// Whether the scalar there is written without quotes, so that it may be a number or `true`.
    pub(super) fn is_plain(&self, path: &[String]) -> bool {
        !matches!(self.marks.get(path), Some(Mark::File { plain: false, .. }))
    }

    /// Whether the value there came from a `ROCKETMQ__…` variable.
    pub(super) fn is_environment(&self, path: &[String]) -> bool {
        matches!(self.marks.get(path), Some(Mark::Environment { .. }))
    }

    /// `rocketmq.yaml:33`, `ROCKETMQ__… (environment)`, or `None` for what nobody set.
    pub(super) fn source(&self, path: &[String]) -> Option<String> {
        match self.marks.get(path)? {
            Mark::File { file, key, .. } => Some(format!("{}:{}", self.files.get(*file)?.name, key.line)),
            Mark::Environment { variable } => Some(format!("{variable} (environment)")),
        }
    }

    /// A problem with a key, or with the section around it if the key is nowhere.
    pub(super) fn problem_at_key(&self, path: &[String], message: String) -> Problem {
        self.problem(path, message, |key, _| key)
    }

    /// A problem with the value of a key, or with the section around it if the key is nowhere.
    pub(super) fn problem_at_value(&self, path: &[String], message: String) -> Problem {
        self.problem(path, message, |_, value| value)
    }

    fn problem(&self, path: &[String], message: String, part: fn(Stretch, Stretch) -> Stretch) -> Problem {
        let nearest =
            (1..=path.len()).rev().find_map(|length| Some((length, self.marks.get(&path[..length])?)));
        match nearest {
            Some((length, Mark::File { file, key, value, .. })) => match self.files.get(*file) {
                Some(source) if length == path.len() => source.problem(*file, part(*key, *value), message),
                Some(source) => source.problem(*file, *key, message),
                None => Problem::new(message),
            },
            Some((_, Mark::Environment { variable })) => {
                Problem::new(format!("{variable} (environment): {message}"))
            }
            // Not a word of it anywhere: the file is the place where it should be.
            None => match self.files.first() {
                Some(source) => Problem::new(message).at(&source.name),
                None => Problem::new(message),
            },
        }
    }
}
