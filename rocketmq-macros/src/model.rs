//! A listener, checked: what its options say, and what its function is.

use syn::{LitStr, Path};

use crate::function::Function;
use crate::mistakes::Mistakes;
use crate::options::{check_missing, check_names, find, flag, library, text};
use crate::parse::{Item, LISTENER, Opt};
use crate::rules;

/// Everything that `expand` writes down.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) options: Options,
    pub(crate) function: Function,
}

/// The options of the attribute.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) group: LitStr,
    pub(crate) topic: LitStr,
    pub(crate) tag: Option<LitStr>,
    pub(crate) sql: Option<LitStr>,
    pub(crate) orderly: bool,
    pub(crate) broadcast: bool,
    pub(crate) cluster: Option<LitStr>,
    pub(crate) library: Option<Path>,
}

impl Listener {
    /// Checks both halves, so that the mistakes of both are shown.
    pub(crate) fn new(options: &[Opt], item: syn::Result<Item>, mut mistakes: Mistakes) -> syn::Result<Self> {
        let options = Options::new(options, &mut mistakes);
        let function = mistakes.collect(item).map(|item| Function::new(item, &LISTENER, &mut mistakes));
        let listener = options.zip(function).map(|(options, function)| Self { options, function });
        mistakes.none_or(listener)
    }
}

impl Options {
    /// `None` after a mistake.
    fn new(options: &[Opt], mistakes: &mut Mistakes) -> Option<Self> {
        // What could not be read may be what seems to be missing.
        if mistakes.is_empty() {
            check_missing(options, &LISTENER, mistakes);
        }
        check_names(options, &LISTENER, mistakes);
        check_together(options, mistakes);
        let group = text(options, "group", rules::check_group, mistakes);
        let topic = text(options, "topic", rules::check_topic, mistakes);
        let tag = text(options, "tag", rules::check_tag, mistakes);
        let sql = text(options, "sql", rules::check_sql, mistakes);
        let cluster = text(options, "cluster", rules::check_text, mistakes);
        let orderly = flag(options, "orderly", mistakes);
        let broadcast = flag(options, "broadcast", mistakes);
        let library = library(options, mistakes);
        let (group, topic) = group.zip(topic)?;
        Some(Self { group, topic, tag, sql, orderly, broadcast, cluster, library })
    }
}

fn check_together(options: &[Opt], mistakes: &mut Mistakes) {
    if let (Some(_), Some(sql)) = (find(options, "tag"), find(options, "sql")) {
        mistakes.add(sql.name.span(), "a listener chooses by `tag` or by `sql`, not by both");
    }
    // One with a value may well say that it is off.
    let flag = |name| find(options, name).filter(|option| option.value.is_none());
    if let (Some(orderly), Some(_)) = (flag("orderly"), flag("broadcast")) {
        mistakes.add(
            orderly.name.span(),
            "a broadcast listener cannot be orderly: the broker locks queues only for clustering consumers",
        );
    }
}
