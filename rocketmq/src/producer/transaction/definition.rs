//! A check as it stands in the source: what `#[rocketmq::transaction]` writes down.

use std::fmt;

use super::Checked;
use crate::listener::{Argument, BoxFuture, Delivery, Shape, StateKey, StateMap};

/// Everything that is known of a check when the program is compiled.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct TransactionDef {
    /// The function's path, for example `app::orders::check`.
    pub name: &'static str,
    /// The source file, as `file!` names it.
    pub file: &'static str,
    /// The line of the attribute in that file.
    pub line: u32,
    /// The name under `producers:`; its `${…}` are not resolved yet.
    pub producer: &'static str,
    /// What the function takes.
    pub arguments: CheckArguments,
    /// Takes the arguments out of the half message and calls the function.
    pub call: fn(Delivery) -> BoxFuture<Checked>,
}

inventory::collect!(TransactionDef);

/// All checks that are linked into this program, in no order that means anything.
pub(crate) fn checks() -> impl Iterator<Item = &'static TransactionDef> {
    inventory::iter::<TransactionDef>()
}

impl TransactionDef {
    /// The state that the function takes and `state` does not hold.
    pub(crate) fn missing_state(&self, state: &StateMap) -> Vec<StateKey> {
        let required = self.arguments.0.iter().flat_map(Argument::requires);
        required.filter(|key| !state.contains(key)).collect()
    }
}

/// `app::check (src/main.rs:12)`
impl fmt::Display for TransactionDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}:{})", self.name, self.file, self.line)
    }
}

/// What a check takes, looked at as a whole.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct CheckArguments(&'static [Argument]);

impl CheckArguments {
    /// Checks arguments against each other, while a user's program is compiled.
    ///
    /// # Panics
    ///
    /// Where they do not go together: that is the compile error.
    pub const fn new(all: &'static [Argument]) -> Self {
        let (mut takes_message, mut takes_batch, mut bodies) = (false, false, 0);
        let mut at = 0;
        while at < all.len() {
            match all[at].shape() {
                Shape::Neutral => {}
                Shape::One => takes_message = true,
                Shape::Batch => takes_batch = true,
            }
            bodies += all[at].decodes_body() as usize;
            at += 1;
        }
        assert!(!takes_batch, "a check takes one message, not a batch");
        assert!(
            takes_message,
            "a check takes the message: add an argument for it, for example `message: &MessageExt`"
        );
        assert!(bodies <= 1, "a check decodes the body once: take one of Json<T>, String and Bytes");
        Self(all)
    }
}
