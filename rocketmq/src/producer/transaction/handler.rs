//! A check that can be called: an annotated function, or a closure.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{IntoTransaction, Transaction, TransactionDef};
use crate::listener::{BadPayload, BoxFuture, Delivery, Handler, Origin, StateMap};
use crate::message::MessageExt;

/// What a check said, or why it said nothing.
pub(crate) type Checked = Result<Transaction, Box<dyn Error + Send + Sync>>;

/// For the macro: an argument could not be had, so nothing is known.
#[doc(hidden)]
pub fn undecided(bad: BadPayload) -> Checked {
    Err(bad.into())
}

/// What says what has become of the transactions of a group.
#[derive(Clone)]
pub(crate) struct CheckHandler {
    place: Arc<str>,
    function: Arc<dyn Fn(MessageExt) -> BoxFuture<Checked> + Send + Sync>,
}

impl CheckHandler {
    pub(crate) fn from_fn<F, Fut>(place: impl Into<Arc<str>>, function: F) -> Self
    where
        F: Fn(MessageExt) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoTransaction> + Send + 'static,
    {
        let function = Arc::new(function);
        let function = move |message| -> BoxFuture<Checked> {
            // The closure is called inside of the future, where its panic is caught.
            let function = Arc::clone(&function);
            Box::pin(async move { function(message).await.into_transaction() })
        };
        Self { place: place.into(), function: Arc::new(function) }
    }

    /// The annotated function, for the producer of `group`; its state has been looked for.
    pub(crate) fn of(definition: &'static TransactionDef, group: &str, state: Arc<StateMap>) -> Self {
        let (group, handler): (Arc<str>, _) = (group.into(), Handler::of_state(definition.name, state));
        let function = move |message: MessageExt| {
            let queue = Arc::new(message.message_queue());
            let origin = Arc::new(Origin::new(Arc::clone(&group), queue, CancellationToken::new()));
            (definition.call)(Delivery::new(message, &handler, &origin))
        };
        Self { place: definition.to_string().into(), function: Arc::new(function) }
    }

    /// For example `app::check (src/main.rs:12)`.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    pub(super) fn call(&self, message: MessageExt) -> BoxFuture<Checked> {
        (self.function)(message)
    }
}

impl fmt::Debug for CheckHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CheckHandler").field(&self.place()).finish()
    }
}
