//! One YAML file as a tree of values, and the place of each of them.
//!
//! `serde_yaml` gives values without their places. So the tree is built here from the events of a
//! parser that marks them, one [`config::Value`] each; a scalar stays the text that was written, because
//! only the key it belongs to knows whether `0012` is a number or an access key.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::slice;

use ::config::{Map, Value, ValueKind};
use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use super::place::{KeyPath, Mark, SourceFile, Stretch};
use super::problem::Problem;

/// Deeper nesting than this is refused: no configuration needs it, and the stack is not endless.
const DEEPEST: usize = 32;
/// More values than this are refused: aliases can make a small file a very large tree.
const MOST_VALUES: usize = 100_000;
/// The key that brings in the keys of other mappings. Source: <https://yaml.org/type/merge.html>.
const MERGE: &str = "<<";

/// A parsed file.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) root: Map<String, Value>,
    pub(super) marks: BTreeMap<KeyPath, Mark>,
    pub(super) source: SourceFile,
    /// What is wrong with it as a file, such as a key that is there twice.
    pub(super) problems: Vec<Problem>,
    /// The keys and sections that have them.
    pub(super) unclear: Vec<KeyPath>,
}

impl Document {
    /// Parses `text`; `file` is its number among the files.
    ///
    /// # Errors
    ///
    /// The first place where the text is no YAML, or no mapping of keys to values.
    pub(super) fn parse(name: &str, text: &str, file: usize) -> Result<Self, Problem> {
        let source = SourceFile {
            name: name.to_owned(),
            lines: text.lines().map(str::to_owned).collect(),
            ..SourceFile::default()
        };
        let mut builder = Builder {
            parser: Parser::new_from_str(text),
            file,
            source,
            marks: BTreeMap::new(),
            anchors: HashMap::new(),
            problems: Vec::new(),
            unclear: Vec::new(),
        };
        let root = builder.document()?;
        let Builder { marks, source, problems, unclear, .. } = builder;
        Ok(Self { root, marks, source, problems, unclear })
    }
}

struct Builder<'t> {
    parser: Parser<'t, StrInput<'t>>,
    file: usize,
    source: SourceFile,
    marks: BTreeMap<KeyPath, Mark>,
    /// What each anchor stands for, and under which key its parts are marked.
    anchors: HashMap<usize, (KeyPath, Value)>,
    problems: Vec<Problem>,
    unclear: Vec<KeyPath>,
}

impl<'t> Builder<'t> {
    fn document(&mut self) -> Result<Map<String, Value>, Problem> {
        let mut root = Map::new();
        let mut documents = 0;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::Nothing | Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(_) if documents == 0 => documents = 1,
                Event::DocumentStart(_) => {
                    return Err(self.problem(span, "a second document; one file holds one configuration"));
                }
                // A file of comments only: nothing is set.
                Event::Scalar(text, ScalarStyle::Plain, ..) if is_null(&text) => {}
                event => match self.value(&mut KeyPath::new(), event, span, None)?.kind {
                    ValueKind::Table(table) => root = table,
                    _ => return Err(self.problem(span, "expected keys with values, such as `client:`")),
                },
            }
        }
    }

    fn value(
        &mut self,
        path: &mut KeyPath,
        event: Event<'t>,
        span: Span,
        key: Option<Stretch>,
    ) -> Result<Value, Problem> {
        if DEEPEST < path.len() {
            return Err(self.problem(span, "nested too deeply"));
        }
        if MOST_VALUES < self.marks.len() {
            return Err(self.problem(span, format!("more than {MOST_VALUES} values")));
        }
        let place = self.stretch(span);
        let plain = matches!(&event, Event::Scalar(_, ScalarStyle::Plain, _, None));
        let empty = matches!(&event, Event::Scalar(text, ..) if plain && text.is_empty());
        let key = key.unwrap_or(place);
        let value = match &event {
            // There is nothing to point at but the key.
            _ if empty => key,
            Event::MappingStart(..) | Event::SequenceStart(..) => Stretch { width: 1, ..place },
            _ => place,
        };
        self.mark(path, key, value, span, plain);
        let (anchor, value) = match event {
            Event::Scalar(text, _, anchor, _) => (anchor, text.into_owned().into()),
            Event::MappingStart(anchor, _) => (anchor, self.mapping(path)?.into()),
            Event::SequenceStart(anchor, _) => (anchor, self.sequence(path)?.into()),
            Event::Alias(anchor) => (0, self.alias(anchor, path, span)?),
            _ => return Err(self.problem(span, "expected a value")),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, (path.clone(), value.clone()));
        }
        Ok(value)
    }

    fn mapping(&mut self, path: &mut KeyPath) -> Result<Map<String, Value>, Problem> {
        let mut table = Map::new();
        let mut merged = None;
        loop {
            let (event, span) = self.next()?;
            let (key, merges) = match event {
                Event::MappingEnd => {
                    if let Some(bases) = merged {
                        self.merge(&mut table, bases, path, span)?;
                    }
                    return Ok(table);
                }
                Event::Scalar(key, style, ..) => {
                    let merges = key == MERGE && style == ScalarStyle::Plain;
                    (key.into_owned(), merges)
                }
                _ => return Err(self.problem(span, "a key must be a word")),
            };
            let stretch = self.stretch(span);
            path.push(key.clone());
            if table.contains_key(&key) || merges && merged.is_some() {
                let first = match self.marks.get(path) {
                    Some(Mark::File { key, .. }) => key.line,
                    _ => stretch.line,
                };
                let message = format!("{}: is here twice; the first is in line {first}", path.join("."));
                self.problems.push(self.problem(span, message));
                self.unclear.push(if merges { around(path) } else { path.clone() });
            }
            let (event, span) = self.next()?;
            let value = self.value(path, event, span, Some(stretch))?;
            if merges {
                merged = Some(self.bases(value, path, span));
            } else {
                table.insert(key, value);
            }
            path.pop();
        }
    }

    /// The mappings that stand at `<<`, each with the key under which its parts are marked.
    fn bases(&mut self, value: Value, path: &KeyPath, span: Span) -> Vec<(KeyPath, Map<String, Value>)> {
        let bases = match value.kind {
            ValueKind::Array(bases) => {
                let under = |number: usize| [path.as_slice(), &[number.to_string()]].concat();
                bases.into_iter().enumerate().map(|(number, base)| (under(number), base.kind)).collect()
            }
            base => vec![(path.clone(), base)],
        };
        let mut tables = Vec::new();
        for (under, base) in bases {
            match base {
                ValueKind::Table(table) => tables.push((under, table)),
                _ => {
                    let message = format!(
                        "{}: takes the keys of a mapping, as in `{MERGE}: *base`, or of a list of them",
                        path.join(".")
                    );
                    self.problems.push(self.problem(span, message));
                    self.unclear.push(around(path));
                }
            }
        }
        tables
    }

    /// Takes in the keys that `table` has not said itself; of several mappings with a key the first one counts.
    fn merge(
        &mut self,
        table: &mut Map<String, Value>,
        bases: Vec<(KeyPath, Map<String, Value>)>,
        path: &KeyPath,
        span: Span,
    ) -> Result<(), Problem> {
        for (under, base) in bases {
            for (key, value) in base {
                let of = |path: &[String]| [path, slice::from_ref(&key)].concat();
                let (from, to) = (of(&under), of(path));
                if let Entry::Vacant(place) = table.entry(key) {
                    self.copy_marks(&from, &to, span)?;
                    place.insert(value);
                }
            }
        }
        let under = [&path[..], &[MERGE.to_owned()]].concat();
        let taken: Vec<_> = self.marks_under(&under).map(|(key, _)| key.clone()).collect();
        for key in taken {
            self.marks.remove(&key);
        }
        Ok(())
    }

    fn sequence(&mut self, path: &mut KeyPath) -> Result<Vec<Value>, Problem> {
        let mut list = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(list);
            }
            path.push(list.len().to_string());
            list.push(self.value(path, event, span, None)?);
            path.pop();
        }
    }

    /// A copy of what the anchor named. Its parts keep the places at which they were written.
    fn alias(&mut self, anchor: usize, path: &KeyPath, span: Span) -> Result<Value, Problem> {
        let Some((from, value)) = self.anchors.get(&anchor).cloned() else {
            return Err(self.problem(span, "this alias stands inside what it names"));
        };
        let here = self.marks.get(path).cloned();
        self.copy_marks(&from, path, span)?;
        // The key is written here, its value there.
        if let (Some(Mark::File { key, .. }), Some(Mark::File { key: here, .. })) =
            (self.marks.get_mut(path), here)
        {
            *key = here;
        }
        Ok(value)
    }

    fn marks_under<'m>(&'m self, path: &'m KeyPath) -> impl Iterator<Item = (&'m KeyPath, &'m Mark)> {
        self.marks.range(path.clone()..).take_while(move |(key, _)| key.starts_with(path))
    }

    /// Gives what is at `to` the places of what is at `from`.
    fn copy_marks(&mut self, from: &KeyPath, to: &KeyPath, span: Span) -> Result<(), Problem> {
        let under = self.marks_under(from);
        let copies: Vec<_> =
            under.map(|(key, mark)| ([to, &key[from.len()..]].concat(), mark.clone())).collect();
        if MOST_VALUES < self.marks.len() + copies.len() || copies.iter().any(|(key, _)| DEEPEST < key.len())
        {
            return Err(self.problem(span, "the aliases make too large a tree"));
        }
        self.marks.extend(copies);
        Ok(())
    }

    fn mark(&mut self, path: &KeyPath, key: Stretch, value: Stretch, span: Span, plain: bool) {
        if path.iter().any(|key| matches!(key.as_str(), "acl" | "vars")) {
            self.source.private_lines.extend(key.line..=span.end.line().min(self.source.lines.len()));
        }
        self.marks.insert(path.clone(), Mark::File { file: self.file, key, value, plain });
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), Problem> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let message = format!("this is not YAML: {}", error.info());
                let problem = self.problem(Span::empty(*error.marker()), message);
                let line = self.source.lines.get(error.marker().line().wrapping_sub(1));
                Err(match line {
                    // `{ a: ${b} }` is the easiest of mistakes, and the parser's words do not give it away.
                    Some(line) if line.contains("${") => {
                        problem.detail("inside { } and [ ], quote it: \"${…}\"")
                    }
                    _ => problem,
                })
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn problem(&self, span: Span, message: impl Into<String>) -> Problem {
        self.source.problem(self.file, self.stretch(span), message)
    }

    fn stretch(&self, Span { start, end }: Span) -> Stretch {
        let column = start.col() + 1;
        // What goes on over several lines is marked to the end of its first.
        let line_end =
            || self.source.lines.get(start.line().wrapping_sub(1)).map_or(0, |l| l.chars().count());
        let end = if start.line() == end.line() { end.col() } else { line_end() };
        Stretch { line: start.line(), column, width: end.saturating_sub(start.col()) }
    }
}

/// The section that a key stands in.
fn around(path: &KeyPath) -> KeyPath {
    path.split_last().map(|(_, section)| section.to_vec()).unwrap_or_default()
}

/// The words for "no value", if they stand without quotes.
pub(super) fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}
