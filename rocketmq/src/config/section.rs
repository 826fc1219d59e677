//! Reads typed values out of the merged tree, and collects every mistake on the way.
//!
//! serde stops at the first mistake and has lost the places. Here each part of the configuration has
//! one function `read` that names its keys, one line each, with type and range; reading takes the keys
//! out of the tree, so what is left over is unknown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;

use ::config::{Map, ValueKind};
use serde_json::Value as Json;

use super::cluster::Secret;
use super::documented::{Fields, documentation};
use super::environment::two_underscores;
use super::nearest::{nearest, suggestion};
use super::outline::{Key, Kind};
use super::place::{KeyPath, Places};
use super::placeholder::{Placeholders, Scalar, Unresolved};
use super::problem::{ConfigErrors, Problem};
use super::schema;
use super::value::{Hint, Raw, Value, ValueError};

/// One key of the configuration in force: what it is, and who said so.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EffectiveValue {
    /// The key with those around it: `groups.orders.concurrency`.
    pub key: String,
    /// As it would be written in the file; secrets are `***`.
    pub value: String,
    /// `rocketmq.yaml:31`, `ROCKETMQ__… (environment)`, `default`, or `code` for a value made by hand.
    pub source: String,
}

impl fmt::Display for EffectiveValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}  # {}", self.key, self.value, self.source)
    }
}

/// What reading needs and what it yields.
pub(super) struct Reader<'a> {
    pub(super) places: &'a Places,
    pub(super) placeholders: &'a Placeholders,
    /// The value was made in code: there is nothing to read, and its ranges are to be checked.
    pub(super) by_hand: bool,
    pub(super) problems: Vec<Problem>,
    /// The keys and sections that are not what somebody meant them to be: they hold what was there before.
    pub(super) mistaken: Vec<KeyPath>,
    pub(super) effective: Vec<EffectiveValue>,
    /// Where every key is noted that is asked for, if somebody wants to know.
    pub(super) outline: Option<Vec<Key>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(places: &'a Places, placeholders: &'a Placeholders, by_hand: bool) -> Self {
        Self {
            places,
            placeholders,
            by_hand,
            problems: Vec::new(),
            mistaken: Vec::new(),
            effective: Vec::new(),
            outline: None,
        }
    }

    /// Reads the tree from its root.
    pub(super) fn root(
        &mut self,
        tree: Map<String, ::config::Value>,
        read: impl FnOnce(&mut Section<'_, 'a>),
    ) {
        self.section(KeyPath::new(), tree, read);
    }

    fn section(
        &mut self,
        path: KeyPath,
        left: Map<String, ::config::Value>,
        read: impl FnOnce(&mut Section<'_, 'a>),
    ) {
        let mistaken_before = self.mistaken.len();
        let mut section =
            Section { reader: self, path, left, known: Vec::new(), fields: Vec::new(), mistaken_before };
        read(&mut section);
        section.refuse_what_is_left();
    }
}

/// Checks a value made in code: reads nothing over it, and so only looks at what is there.
pub(super) fn check_by_hand(read: impl FnOnce(&mut Section<'_, '_>)) -> Result<(), ConfigErrors> {
    let (places, placeholders) = Default::default();
    let mut reader = Reader::new(&places, &placeholders, true);
    reader.root(Map::new(), read);
    reader.problems.into_iter().collect::<ConfigErrors>().into_result()
}

/// The keys at one place of the tree.
pub(super) struct Section<'r, 'a> {
    reader: &'r mut Reader<'a>,
    path: KeyPath,
    left: Map<String, ::config::Value>,
    known: Vec<&'static str>,
    /// What its keys are documented to be; the topmost level is two structs.
    fields: Vec<Fields>,
    mistaken_before: usize,
}

impl<'a> Section<'_, 'a> {
    /// Says where the keys are documented.
    pub(super) fn document(&mut self, fields: Fields) {
        self.fields.push(fields);
    }

    /// Reads one key into `field`, which keeps its value if the key is not there.
    pub(super) fn value<T: Value>(&mut self, key: &'static str, field: &mut T) {
        let expected = T::expected();
        self.note_value(key, field, &expected, || T::schema(None));
        self.read(key, field, &expected, |_| true);
    }

    /// The same, within a range.
    pub(super) fn within<T: Value + PartialOrd>(
        &mut self,
        key: &'static str,
        field: &mut T,
        range: RangeInclusive<T>,
    ) {
        let expected = expected_within(&range);
        self.note_value(key, field, &expected, || schema_within(&range));
        self.read(key, field, &expected, |value| range.contains(value));
    }

    /// The same, where `null` is allowed and says that there is no limit or that others decide.
    pub(super) fn optional_within<T: Value + PartialOrd>(
        &mut self,
        key: &'static str,
        field: &mut Option<T>,
        range: RangeInclusive<T>,
    ) {
        let expected = format!("{}, or null", expected_within(&range));
        self.note_value(key, field, &expected, || schema::nullable(&schema_within(&range)));
        self.read(key, field, &expected, |value| value.as_ref().is_none_or(|value| range.contains(value)));
    }

    /// The same, where the text must pass a check of its own.
    pub(super) fn checked<T: Value>(
        &mut self,
        key: &'static str,
        field: &mut T,
        check: impl FnOnce(&T) -> Result<(), ValueError>,
    ) {
        let expected = T::expected();
        self.note_value(key, field, &expected, || T::schema(None));
        if self.read(key, field, &expected, |_| true)
            && let Err(error) = check(field)
        {
            self.problem_with(key, error.to_string());
        }
    }

    /// Reads the keys below `key`.
    pub(super) fn section(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'_, 'a>)) {
        self.note(key, || Kind::Section);
        self.known.push(key);
        let path = self.path_of(key);
        let keys = self.left.remove(key);
        let keys = self.keys_of(&path, keys);
        self.reader.section(path, keys, read);
    }

    /// Reads a section whose keys are names that the user chose. An entry that is new starts as `new`.
    /// Says whether the section is there.
    pub(super) fn each<T: Clone>(
        &mut self,
        key: &'static str,
        entries: &mut BTreeMap<String, T>,
        new: &T,
        read: impl Fn(&mut T, &str, &mut Section<'_, 'a>),
    ) -> bool {
        self.note(key, || Kind::Names);
        self.known.push(key);
        let path = self.path_of(key);
        let found = self.left.remove(key);
        let present = found.as_ref().is_some_and(|found| !is_null(found));
        let mut found = self.keys_of(&path, found);
        let names: BTreeSet<String> = found.keys().chain(entries.keys()).cloned().collect();
        for name in names {
            let path = [path.as_slice(), std::slice::from_ref(&name)].concat();
            let keys = found.remove(&name);
            let keys = self.keys_of(&path, keys);
            let entry = entries.entry(name.clone()).or_insert_with(|| new.clone());
            self.reader.section(path, keys, |section| read(entry, &name, section));
        }
        present
    }

    /// Reads `vars:`, whose keys are free and whose values are hidden wherever they would be printed.
    pub(super) fn vars(&mut self, key: &'static str, vars: &mut BTreeMap<String, Secret>) {
        self.note(key, || Kind::Texts);
        self.known.push(key);
        let path = self.path_of(key);
        let found = self.left.remove(key);
        for (name, value) in BTreeMap::from_iter(self.keys_of(&path, found)) {
            let path = [path.as_slice(), std::slice::from_ref(&name)].concat();
            if !matches!(value.kind, ValueKind::String(_)) {
                self.reader.mistaken.push(path.clone());
                self.wrong(&path, "text", &Raw::Table, None);
                continue;
            }
            match self.reader.placeholders.var(&name) {
                Ok(scalar) => {
                    vars.insert(name, Secret::new(scalar.text));
                    continue;
                }
                Err(why) if why.variable.as_ref().is_none_or(|variable| *variable == name) => {
                    self.unresolved(&path, why.problem);
                }
                // Reported at the variable that this one names.
                Err(_) => {}
            }
            self.reader.mistaken.push(path);
        }
    }

    /// A mistake in the relation of keys, reported at `key`.
    pub(super) fn problem_with(&mut self, key: &str, message: impl fmt::Display) {
        self.problem_below(&[key], message);
    }

    /// The same, at a key below this section.
    pub(super) fn problem_below(&mut self, keys: &[&str], message: impl fmt::Display) {
        let path: KeyPath =
            self.path.iter().cloned().chain(keys.iter().map(|key| (*key).to_owned())).collect();
        let message = format!("{}: {message}", path.join("."));
        self.reader.problems.push(self.reader.places.problem_at_value(&path, message));
        self.reader.mistaken.push(path);
    }

    /// A mistake in the name of this very section.
    pub(super) fn problem_with_name(&mut self, message: impl fmt::Display) {
        let message = format!("{}: {message}", self.path.join("."));
        self.reader.problems.push(self.reader.places.problem_at_key(&self.path, message));
        self.reader.mistaken.push(self.path.clone());
    }

    /// Whether nothing is wrong here yet. What relates keys to each other is judged only then: a
    /// follow-up mistake would hide the first.
    pub(super) fn is_clean(&self) -> bool {
        self.reader.mistaken.len() == self.mistaken_before
    }

    /// Whether the file, or another layer, says anything about `key`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.left.contains_key(key)
    }

    /// The same, also after `key` was read.
    pub(super) fn says(&self, key: &str) -> bool {
        self.reader.places.marks.contains_key(&self.path_of(key))
    }

    /// Whether `key` is there under a name that is no key, and will be told of as such.
    pub(super) fn seems_to_have(&self, key: &str) -> bool {
        self.left.keys().any(|left| nearest(left, [key]).is_some())
    }

    /// Whether there is no file at all.
    pub(super) fn is_by_hand(&self) -> bool {
        self.reader.by_hand
    }

    fn note_value<T: Value>(
        &mut self,
        key: &'static str,
        field: &T,
        expected: &str,
        schema: impl FnOnce() -> Json,
    ) {
        self.note(key, || Kind::Value {
            expected: expected.to_owned(),
            schema: schema(),
            default: field.show(),
        });
    }

    fn note(&mut self, key: &'static str, kind: impl FnOnce() -> Kind) {
        let path = self.path_of(key);
        if let Some(outline) = &mut self.reader.outline {
            let documentation = self.fields.iter().find_map(|fields| documentation(fields, key));
            outline.push(Key { path, documentation: documentation.unwrap_or_default(), kind: kind() });
        }
    }

    /// Says whether `field` holds a value of the right form that was set for this very key.
    fn read<T: Value>(
        &mut self,
        key: &'static str,
        field: &mut T,
        expected: &str,
        allowed: impl Fn(&T) -> bool,
    ) -> bool {
        self.known.push(key);
        let path = self.path_of(key);
        let mut found = self.reader.by_hand;
        let mut is_mistaken = true;
        match self.left.remove(key).map(|value| self.raw(&path, value)) {
            None if self.reader.by_hand && !allowed(field) => {
                let message = format!("{}: expected {expected}, found `{}`", path.join("."), field.show());
                self.reader.problems.push(Problem::new(message));
            }
            None => is_mistaken = false,
            // Already reported.
            Some(None) => {}
            Some(Some(raw)) => match T::read(&raw) {
                Ok(value) if allowed(&value) => {
                    *field = value;
                    found = true;
                    is_mistaken = false;
                }
                Ok(_) => self.wrong(&path, expected, &raw, None),
                Err(hint) => match T::wrong_element(&raw) {
                    Some((at, element)) => self.wrong_in_list(&path, at, expected, &element, hint),
                    None => self.wrong(&path, expected, &raw, hint),
                },
            },
        }
        let source = self.source(&path);
        self.reader.effective.push(EffectiveValue { key: path.join("."), value: field.show(), source });
        if is_mistaken {
            self.reader.mistaken.push(path);
        }
        found
    }

    /// Who set a key: itself, or the key whose value it takes over.
    fn source(&self, path: &[String]) -> String {
        if self.reader.by_hand {
            return "code".to_owned();
        }
        let places = self.reader.places;
        let source = places.source(path).or_else(|| places.source(&inherited_from(path)?));
        source.unwrap_or_else(|| "default".to_owned())
    }

    fn wrong(&mut self, path: &[String], expected: &str, raw: &Raw, hint: Hint) {
        let message = format!("{}: expected {expected}, found {raw}", path.join("."));
        self.reader.problems.push(self.reader.places.problem_at_value(path, message).hint(hint));
    }

    fn wrong_in_list(&mut self, path: &[String], at: usize, expected: &str, element: &Raw, hint: Hint) {
        let message = format!("{}: expected {expected}, found {element} in the list", path.join("."));
        let path = [path, &[at.to_string()]].concat();
        self.reader.problems.push(self.reader.places.problem_at_value(&path, message).hint(hint));
    }

    fn unresolved(&mut self, path: &[String], why: Problem) {
        let message = format!("{}: {}", path.join("."), why.message);
        let mut problem = self.reader.places.problem_at_value(path, message);
        problem.details.extend(why.details);
        self.reader.problems.push(problem);
    }

    /// The value with its placeholders resolved; `None` if that failed, and is reported.
    fn raw(&mut self, path: &[String], value: ::config::Value) -> Option<Raw> {
        match value.kind {
            ValueKind::Table(_) => Some(Raw::Table),
            ValueKind::Array(list) => {
                let mut scalars = Vec::new();
                for (index, value) in list.into_iter().enumerate() {
                    let path = [path, &[index.to_string()]].concat();
                    match self.raw(&path, value)? {
                        Raw::Scalar(scalar) => scalars.push(scalar),
                        other => {
                            self.wrong(&path, "text", &other, None);
                            return None;
                        }
                    }
                }
                Some(Raw::List(scalars))
            }
            kind => {
                let scalar = Scalar { text: text_of(kind), plain: self.reader.places.is_plain(path) };
                if self.reader.places.is_environment(path) {
                    return Some(Raw::Scalar(scalar));
                }
                match self.reader.placeholders.resolve(&scalar) {
                    Ok(scalar) => return Some(Raw::Scalar(scalar)),
                    Err(Unresolved { variable: Some(_), .. }) => {}
                    Err(Unresolved { problem, .. }) => self.unresolved(path, problem),
                }
                None
            }
        }
    }

    /// The keys of a section. One without keys may be written without braces: `testGroup:`.
    fn keys_of(&mut self, path: &[String], found: Option<::config::Value>) -> Map<String, ::config::Value> {
        let Some(found) = found else { return Map::new() };
        let from_environment = self.reader.places.is_environment(path);
        match found.kind {
            ValueKind::Table(table) => table,
            _ if is_null(&found) && !from_environment && self.reader.places.is_plain(path) => Map::new(),
            _ => {
                if let Some(raw) = self.raw(path, found) {
                    self.wrong(path, "keys with values", &raw, None);
                }
                self.reader.mistaken.push(path.to_vec());
                Map::new()
            }
        }
    }

    fn refuse_what_is_left(&mut self) {
        for key in BTreeSet::from_iter(self.left.keys()) {
            let path = self.path_of(key);
            let from_environment = self.reader.places.is_environment(&path);
            let near = match from_environment.then(|| two_underscores(key, &self.known)).flatten() {
                Some(near) => near,
                None => suggestion(key, &self.known, "the keys here are"),
            };
            let message = format!("{}: unknown key{near}", path.join("."));
            self.reader.problems.push(self.reader.places.problem_at_key(&path, message));
            let meant = nearest(key, self.known.iter().copied()).map(|meant| self.path_of(meant));
            self.reader.mistaken.extend(meant.into_iter().chain([path]));
        }
    }

    fn path_of(&self, key: &str) -> KeyPath {
        let mut path = self.path.clone();
        path.push(key.to_owned());
        path
    }
}

fn expected_within<T: Value>(range: &RangeInclusive<T>) -> String {
    let kind = T::expected();
    let kind = kind.split(" such as ").next().unwrap_or(&kind);
    format!("{kind} from {} to {}", range.start().show(), range.end().show())
}

/// The ends of the range are examples: not every range can be said in a schema.
fn schema_within<T: Value>(range: &RangeInclusive<T>) -> Json {
    let mut schema = T::schema(Some(range));
    let ends = [range.start(), range.end()].map(|end| schema::typed(&end.show()));
    schema["examples"] = ends.into_iter().collect();
    schema
}

/// A group takes what it does not say from `defaults`, a cluster's `client` from the top level's.
fn inherited_from(path: &[String]) -> Option<KeyPath> {
    match path {
        [groups, _, rest @ ..] if groups == "groups" => Some([&["defaults".to_owned()], rest].concat()),
        [clusters, _, rest @ ..] if clusters == "clusters" && rest.first()? == "client" => {
            Some(rest.to_vec())
        }
        _ => None,
    }
}

/// Scalars are always text here; see `document`.
fn text_of(kind: ValueKind) -> String {
    match kind {
        ValueKind::String(text) => text,
        other => other.to_string(),
    }
}

fn is_null(value: &::config::Value) -> bool {
    matches!(&value.kind, ValueKind::String(text) if super::document::is_null(text))
}
