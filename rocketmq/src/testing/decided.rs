//! What producers have decided about transactions, but brokers may not have heard of yet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::embedded::Server;
use crate::producer::{EndingTransaction, SendHook, Transaction};

/// When a commit or a rollback was sent, by the id of its message. A clone is another handle to the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Decided(Arc<Mutex<HashMap<String, Instant>>>);

impl Decided {
    /// Whether a decision that was sent within the last `patience` has not arrived: nobody is told that it has.
    pub(super) fn is_on_its_way<'a>(
        &self,
        mut servers: impl Iterator<Item = &'a Server>,
        patience: Duration,
    ) -> bool {
        let mut decided = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        decided.retain(|_, sent| sent.elapsed() < patience);
        !decided.is_empty()
            && servers.any(|server| {
                server.half_messages().iter().any(|half| decided.contains_key(half.message_id().as_ref()))
            })
    }
}

impl SendHook for Decided {
    fn end_transaction(&self, ending: &EndingTransaction<'_>) {
        if ending.transaction != Transaction::Unknown {
            let mut decided = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            decided.insert(ending.message_id.to_owned(), Instant::now());
        }
    }
}
