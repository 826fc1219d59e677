//! What is wrong with a configuration: one problem, and the list that is printed.

use std::fmt;

use super::value::Hint;

/// One mistake: where it is, what it is, and what to do about it.
///
/// Any part of the library that checks what the user declared makes these, so that one list holds all
/// mistakes:
///
/// ```text
/// let problem = Problem::new("group `bulk` is listed but no listener of it is in this program")
///     .at("rocketmq.yaml:33")
///     .detail("set `enabled: false`, or link the crate that holds the listener");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// Where the mistake is, for example `rocketmq.yaml:31:5`; printed before the message.
    pub place: Option<String>,
    /// What is wrong, one line, lower case.
    pub message: String,
    /// Further lines, printed below and further in: what to write, or the places involved.
    pub details: Vec<String>,
    origin: Option<Box<Origin>>,
}

/// What is known of a problem in a file. Boxed: problems are returned as errors, and rarely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    /// File, line and column: problems are listed in the order of the file.
    pub(super) position: (usize, usize, usize),
    /// Nothing where the line may hold a secret.
    pub(super) line: Option<SourceLine>,
}

/// A line of the file, and which part of it is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SourceLine {
    pub(super) number: usize,
    pub(super) text: String,
    /// First column meant, counted from 1, and how many.
    pub(super) column: usize,
    pub(super) width: usize,
}

impl Problem {
    /// A problem without a place; see [`at`](Self::at) and [`detail`](Self::detail).
    pub fn new(message: impl Into<String>) -> Self {
        Self { place: None, message: message.into(), details: Vec::new(), origin: None }
    }

    /// Says where: `rocketmq.yaml:31:5`, `src/main.rs:12`.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// Adds a line below the message.
    #[must_use]
    pub fn detail(mut self, line: impl Into<String>) -> Self {
        self.details.push(line.into());
        self
    }

    pub(super) fn hint(mut self, hint: Hint) -> Self {
        self.details.extend(hint);
        self
    }

    pub(super) fn from(mut self, origin: Origin) -> Self {
        self.origin = Some(Box::new(origin));
        self
    }

    fn position(&self) -> Option<(usize, usize, usize)> {
        self.origin.as_ref().map(|origin| origin.position)
    }
}

/// The block of lines that the list shows, without the list's own two spaces.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}  ")?;
        }
        write!(f, "{}", self.message)?;
        let line = self.origin.as_ref().and_then(|origin| origin.line.as_ref());
        if let Some(SourceLine { number, text, column, width }) = line {
            write!(f, "\n{number:>5} | {text}")?;
            write!(f, "\n      | {:indent$}{}", "", "^".repeat(*width), indent = column - 1)?;
        }
        for line in &self.details {
            write!(f, "\n      {line}")?;
        }
        Ok(())
    }
}

/// Every mistake found in a configuration, at once.
///
/// `Display`, and `Debug` too because `main` and `unwrap` print that one, give the readable list.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ConfigErrors {
    problems: Vec<Problem>,
}

impl ConfigErrors {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one problem.
    pub fn push(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// The problems, those of files first and in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// How many problems there are.
    pub fn len(&self) -> usize {
        self.problems.len()
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// `Ok` when nothing is wrong.
    ///
    /// # Errors
    ///
    /// The list itself, when it holds any problem.
    pub fn into_result(self) -> Result<(), Self> {
        if self.is_empty() { Ok(()) } else { Err(self) }
    }

    pub(super) fn sort(&mut self) {
        // Stable: what has no position in a file keeps its order, after what has.
        self.problems.sort_by_key(|problem| (problem.position().is_none(), problem.position()));
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.len() == 1 { "" } else { "s" };
        writeln!(f, "rocketmq cannot start: {} problem{plural}\n", self.len())?;
        for problem in &self.problems {
            for line in problem.to_string().lines() {
                writeln!(f, "  {line}")?;
            }
        }
        write!(f, "\nnothing was started")
    }
}

impl fmt::Debug for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl std::error::Error for ConfigErrors {}

impl From<Problem> for ConfigErrors {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

impl FromIterator<Problem> for ConfigErrors {
    fn from_iter<I: IntoIterator<Item = Problem>>(problems: I) -> Self {
        Self { problems: problems.into_iter().collect() }
    }
}

impl Extend<Problem> for ConfigErrors {
    fn extend<I: IntoIterator<Item = Problem>>(&mut self, problems: I) {
        self.problems.extend(problems);
    }
}

impl IntoIterator for ConfigErrors {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.problems.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_of_another_room_is_printed_with_its_details_below() {
        let errors = ConfigErrors::from(
            Problem::new("group `orders`: two listeners can take the same message of order-events")
                .detail("app::on_order (src/main.rs:12)  tag = \"paid || refunded\"")
                .detail("app::on_paid  (src/pay.rs:40)   tag = \"paid\"")
                .detail("give them different tags, or different groups if both must see every message"),
        );
        insta::assert_snapshot!(errors, @r#"
        rocketmq cannot start: 1 problem

          group `orders`: two listeners can take the same message of order-events
                app::on_order (src/main.rs:12)  tag = "paid || refunded"
                app::on_paid  (src/pay.rs:40)   tag = "paid"
                give them different tags, or different groups if both must see every message

        nothing was started
        "#);
    }

    #[test]
    fn problems_of_a_file_come_first_and_in_its_order() {
        let mut errors: ConfigErrors = [
            Problem::new("no place"),
            Problem::new("later").from(Origin { position: (0, 9, 1), line: None }),
            Problem::new("earlier").from(Origin { position: (0, 2, 7), line: None }),
        ]
        .into_iter()
        .collect();
        errors.sort();
        let order: Vec<&str> = errors.problems().iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(order, ["earlier", "later", "no place"]);
    }
}
