//! The check of a producer's transactions, checked: which producer, and what its function is.

use syn::{LitStr, Path};

use crate::function::Function;
use crate::mistakes::Mistakes;
use crate::options::{check_missing, check_names, library, text};
use crate::parse::{Item, Opt, TRANSACTION};
use crate::rules;

/// Everything that `expand` writes down.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) producer: LitStr,
    pub(crate) library: Option<Path>,
    pub(crate) function: Function,
}

impl Transaction {
    /// Checks both halves, so that the mistakes of both are shown.
    pub(crate) fn new(options: &[Opt], item: syn::Result<Item>, mut mistakes: Mistakes) -> syn::Result<Self> {
        // What could not be read may be what seems to be missing.
        if mistakes.is_empty() {
            check_missing(options, &TRANSACTION, &mut mistakes);
        }
        check_names(options, &TRANSACTION, &mut mistakes);
        let producer = text(options, "producer", rules::check_text, &mut mistakes);
        let library = library(options, &mut mistakes);
        let function = mistakes.collect(item).map(|item| Function::new(item, &TRANSACTION, &mut mistakes));
        let transaction =
            producer.zip(function).map(|(producer, function)| Self { producer, library, function });
        mistakes.none_or(transaction)
    }
}
