//! The table of all keys, `keys.md`, which the documentation of the room shows: it is what the keys are.

use std::fmt::Write as _;

use super::super::outline::{Key, Kind, outline};
use super::kept;

/// The tables; what is behind groups and clusters is as in one of these.
const TABLES: [(&str, &str); 8] = [
    ("", "At the top level"),
    ("client", "`client:`"),
    ("acl", "`acl:`"),
    ("tls", "`tls:`"),
    ("trace", "`trace:`"),
    ("health", "`health:`"),
    ("defaults", "`defaults:`, and each group under `groups:`"),
    ("producers.*", "Each producer under `producers:`"),
];

#[test]
fn the_documentation_shows_every_key() {
    let keys = outline();
    let mut tables = TABLES.map(|(path, title)| (path.to_owned(), title.to_owned())).to_vec();
    for key in keys.iter().filter(|key| matches!(key.kind, Kind::Section)) {
        let title = match key.path.as_slice() {
            [first, name] if first == "defaults" => format!("`{name}:` of a group"),
            [first, _, name] if first == "producers" => format!("`{name}:` of a producer"),
            _ => continue,
        };
        tables.push((key.path.join("."), title));
    }
    let mut text = String::new();
    for (path, title) in &tables {
        writeln!(text, "## {title}\n\n| Key | Takes | Default | What it is |\n|---|---|---|---|").unwrap();
        for key in keys.iter().filter(|key| above(key) == *path) {
            writeln!(text, "{}", row(key)).unwrap();
        }
        text.push('\n');
    }
    for path in keys.iter().map(above) {
        let is_shown = tables.iter().any(|(shown, _)| *shown == path);
        let is_twin = path.starts_with("groups.*") || path.starts_with("clusters.*");
        assert!(is_shown || is_twin, "what is behind {path} is in no table");
    }
    kept(concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/keys.md"), &text);
}

/// The section that a key is in.
fn above(key: &Key) -> String {
    key.path.split_last().map(|(_, above)| above.join(".")).unwrap_or_default()
}

fn row(key: &Key) -> String {
    let (takes, default) = match &key.kind {
        Kind::Section => ("keys, see below".to_owned(), String::new()),
        Kind::Names => ("names, each with keys".to_owned(), String::new()),
        Kind::Texts => ("names, each with a text".to_owned(), String::new()),
        // There is one for values made by hand, but a file has to say it.
        Kind::Value { expected, .. } if key.path == ["name_servers"] => {
            (expected.clone(), "required".to_owned())
        }
        Kind::Value { expected, default, .. } => (expected.clone(), format!("`{default}`")),
    };
    let name = key.path.last().cloned().unwrap_or_default();
    let text = key.documentation.replace('\n', "<br>");
    [format!("`{name}`"), takes, default, text]
        .iter()
        .fold("|".to_owned(), |row, cell| format!("{row} {} |", cell.replace('|', "\\|")))
}
