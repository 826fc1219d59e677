//! A check as it stands in the source: what `#[rocketmq::transaction]` writes down.

use std::fmt;

use super::Checked;
use crate::listener::{Argument, BoxFuture, Delivery, Needs, StateKey, StateMap};

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

/// Evaluated while a user's program is compiled: a panic is the compile error, at the place of the caller.
impl CheckArguments {
    /// Checks `argument` against those before it.
    ///
    /// # Panics
    ///
    /// Where they do not go together.
    #[track_caller]
    pub const fn and(before: Needs, argument: Argument) -> Needs {
        let all = before.and(argument);
        assert!(!all.batch, "a check takes one message, not a batch");
        assert!(
            !(before.body && argument.decodes_body()),
            "a check decodes the body once: take one of Json<T>, String and Bytes"
        );
        all
    }

    /// Arguments that go together, and what they need.
    ///
    /// # Panics
    ///
    /// Where none of them is the message.
    #[track_caller]
    pub const fn new(all: &'static [Argument], needs: Needs) -> Self {
        assert!(
            needs.one,
            "a check takes the message: add an argument for it, for example `message: &MessageExt`"
        );
        Self(all)
    }
}
