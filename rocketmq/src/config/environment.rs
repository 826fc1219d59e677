//! `ROCKETMQ__CLIENT__REQUEST_TIMEOUT=5s`: single keys from the environment.
//!
//! The environment is upper case, names in the file are not. `config`'s own source of this kind would make
//! `ROCKETMQ__GROUPS__TESTGROUP__…` a second group `testgroup` beside `testGroup`. So names that the user
//! chose are looked up among those of the file, and one that is not there is a mistake.

use std::collections::BTreeMap;

use ::config::{Map, Value, ValueKind};

use super::DEFAULT_PRODUCER;
use super::nearest::suggestion;
use super::place::KeyPath;
use super::problem::Problem;

const PREFIX: &str = "ROCKETMQ__";
const SEPARATOR: &str = "__";

/// The sections whose keys are names, and what is named there.
const NAMED: [(&str, &str); 4] =
    [("groups", "group"), ("producers", "producer"), ("clusters", "cluster"), ("vars", "variable")];

/// One key set by the environment.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) variable: String,
    pub(super) path: KeyPath,
    pub(super) value: String,
}

/// What the environment sets over `tree`, and what it sets in vain.
pub(super) fn settings(
    environment: &BTreeMap<String, String>,
    tree: &Map<String, Value>,
) -> (Vec<Setting>, Vec<Problem>) {
    let mut settings = Vec::new();
    let mut problems = Vec::new();
    // Backwards: where one variable sets a key below another's, the upper one comes last, stays in place
    // and is refused as no section. Forwards it would vanish without a word.
    for (variable, value) in environment.iter().rev() {
        let Some(keys) = variable.strip_prefix(PREFIX) else { continue };
        match path(keys, tree) {
            Ok(path) => settings.push(Setting { variable: variable.clone(), path, value: value.clone() }),
            Err(message) => problems.push(Problem::new(format!("{variable} (environment): {message}"))),
        }
    }
    problems.reverse();
    (settings, problems)
}

fn path(keys: &str, tree: &Map<String, Value>) -> Result<KeyPath, String> {
    if keys.is_empty() {
        return Err(format!("a key has to follow, as in `{PREFIX}CLIENT__REQUEST_TIMEOUT`"));
    }
    let keys = keys.to_lowercase();
    let (section, below) = keys.split_once(SEPARATOR).unwrap_or((&keys, ""));
    let Some((_, kind)) = NAMED.iter().find(|(named, _)| *named == section && !below.is_empty()) else {
        return Ok(keys.split(SEPARATOR).map(str::to_owned).collect());
    };
    // Where a variable can hold a name as it is, as in a container's definition, that is no other name.
    let below = as_variable(below);
    let (name, rest) = named(section, kind, &below, tree)?;
    let rest = rest.split(SEPARATOR).filter(|_| !rest.is_empty());
    Ok([section, &name].into_iter().chain(rest).map(str::to_owned).collect())
}

/// The name of the file that `below` begins with, and the keys after it.
fn named<'k>(
    section: &str,
    kind: &str,
    below: &'k str,
    tree: &Map<String, Value>,
) -> Result<(String, &'k str), String> {
    let names = names(section, tree);
    let matches = names.iter().filter_map(|name| {
        let rest = below.strip_prefix(&as_variable(name))?;
        let rest = if rest.is_empty() { rest } else { rest.strip_prefix(SEPARATOR)? };
        Some((rest, *name))
    });
    // A name may hold the separator, so that two can match: the longer one is meant.
    let mut matches: Vec<(&str, &str)> = matches.collect();
    matches.sort_by_key(|(rest, name)| (rest.len(), *name));
    match matches.as_slice() {
        [] => {
            let name = below.split(SEPARATOR).next().unwrap_or(below);
            let near = match two_underscores(name, &names) {
                Some(near) => near,
                None if names.is_empty() => format!("; name it in the file first, under `{section}:`"),
                None => suggestion(name, &names, &format!("the {section} are")),
            };
            Err(format!("there is no {kind} `{name}`{near}"))
        }
        [(rest, one), (also, other), ..] if rest == also => {
            Err(format!("this can be {kind} `{one}` or `{other}`; the environment cannot tell them apart"))
        }
        [(rest, name), ..] => Ok(((*name).to_owned(), rest)),
    }
}

fn names<'t>(section: &str, tree: &'t Map<String, Value>) -> Vec<&'t str> {
    let mut names: Vec<&str> = match tree.get(section).map(|value| &value.kind) {
        Some(ValueKind::Table(table)) => table.keys().map(String::as_str).collect(),
        _ => Vec::new(),
    };
    if section == "producers" && !names.contains(&DEFAULT_PRODUCER) {
        names.push(DEFAULT_PRODUCER);
    }
    names.sort_unstable();
    names
}

/// What is meant where one underscore stands for the two between a key and the next one.
pub(super) fn two_underscores(key: &str, known: &[&str]) -> Option<String> {
    let meant = known.iter().find_map(|known| {
        let known = as_variable(known);
        let rest = key.strip_prefix(&known)?.strip_prefix('_')?;
        Some(format!("{known}{SEPARATOR}{rest}").to_uppercase())
    })?;
    Some(format!("; two underscores stand between one key and the next: `{meant}`"))
}

/// A shell sets no variable with `-`, `.`, `%` or `|` in its name; `_` stands for each.
fn as_variable(name: &str) -> String {
    name.to_lowercase().replace(|c: char| !c.is_alphanumeric(), "_")
}
