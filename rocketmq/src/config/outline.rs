//! Which keys there are, with all that is known of each: for the schema, and for the documentation.
//!
//! Nothing is listed here: the functions that read a configuration are run over the defaults, and note what they ask for.

use std::collections::BTreeMap;

use ::config::Map;
use serde_json::Value as Json;

use super::place::KeyPath;
use super::section::Reader;
use super::{ClusterConfig, Config, ConsumerConfig, ProducerConfig};

/// Stands for a name that the user chooses.
pub(super) const ANY: &str = "*";

/// One key.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) path: KeyPath,
    /// What its field is documented to be, a line for each paragraph.
    pub(super) documentation: String,
    pub(super) kind: Kind,
}

/// What can stand behind a key.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// Keys, which follow.
    Section,
    /// Names that the user chooses, and behind each the keys that follow under the name [`ANY`].
    Names,
    /// Names that the user chooses, and behind each a text.
    Texts,
    Value {
        /// For people: `a whole number from 1 to 1024`.
        expected: String,
        /// For editors.
        schema: Json,
        /// As it would be written.
        default: String,
    },
}

/// All keys, in the order in which they are read; each section before what it holds.
pub(super) fn outline() -> Vec<Key> {
    let mut config = Config {
        groups: Some(BTreeMap::from([(ANY.to_owned(), ConsumerConfig::default())])),
        producers: BTreeMap::from([(ANY.to_owned(), ProducerConfig::default())]),
        clusters: BTreeMap::from([(ANY.to_owned(), ClusterConfig::default())]),
        ..Config::default()
    };
    let (places, placeholders) = Default::default();
    let mut reader = Reader::new(&places, &placeholders, true);
    reader.outline = Some(Vec::new());
    reader.root(Map::new(), |keys| config.read(keys));
    reader.outline.unwrap_or_default()
}
