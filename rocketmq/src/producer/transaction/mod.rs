//! Transactions: a message that is delivered if, and only if, something else has happened.
//!
//! The message is stored as a half message, which no consumer gets; then the [local part](send) runs, and what it says
//! decides. Should the broker not hear of it, because the process died or the network did, it [asks](check) a producer
//! of the group, again and again: then the [check](definition) decides.
//!
//! Source: `behaviour.md` section 2.8.

mod check;
mod decision;
mod definition;
mod handler;
mod send;

use std::error::Error;
use std::fmt;

use crate::listener::IntoError;
use crate::message::sys_flag;

pub(super) use check::Checks;
pub(crate) use definition::checks;
pub use definition::{CheckArguments, TransactionDef};
pub use handler::undecided;
pub(crate) use handler::{CheckHandler, Checked};
pub use send::TransactionSendResult;

/// What shall become of a message that was sent in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transaction {
    /// It is delivered.
    Commit,
    /// It is dropped.
    Rollback,
    /// It is not known yet: the broker asks again, up to 15 times, 30 seconds (5.x) or a minute (4.x) apart, then drops
    /// the message (`transactionCheckMax`, `transactionCheckInterval` of the broker).
    Unknown,
}

impl Transaction {
    fn flag(self) -> i32 {
        match self {
            Self::Commit => sys_flag::TRANSACTION_COMMIT,
            Self::Rollback => sys_flag::TRANSACTION_ROLLBACK,
            Self::Unknown => 0,
        }
    }
}

impl fmt::Display for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Commit => "commit",
            Self::Rollback => "rollback",
            Self::Unknown => "unknown",
        })
    }
}

/// A type that the local part of a transaction, or its check, may return: [`Transaction`], or a [`Result`] of it with
/// any error, which is [`Unknown`](Transaction::Unknown).
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say what shall become of a transaction",
    label = "not the result of a transaction",
    note = "the local part of a transaction and a `#[rocketmq::transaction]` return Transaction, or a Result<Transaction, E> with any error E",
    note = "for your own type, implement `rocketmq::IntoTransaction`"
)]
pub trait IntoTransaction {
    /// What shall become of the message; an error leaves that unknown, and is told to the broker.
    ///
    /// # Errors
    ///
    /// Why it is not known.
    fn into_transaction(self) -> Result<Transaction, Box<dyn Error + Send + Sync>>;
}

impl IntoTransaction for Transaction {
    fn into_transaction(self) -> Result<Transaction, Box<dyn Error + Send + Sync>> {
        Ok(self)
    }
}

impl<T: IntoTransaction, E: IntoError> IntoTransaction for Result<T, E> {
    fn into_transaction(self) -> Result<Transaction, Box<dyn Error + Send + Sync>> {
        self.map_err(IntoError::into_error).and_then(IntoTransaction::into_transaction)
    }
}
