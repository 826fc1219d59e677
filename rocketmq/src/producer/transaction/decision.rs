//! What user code has decided, whatever it did instead of deciding.

use super::{IntoTransaction, Transaction};
use crate::error::Error;
use crate::tasks::catch_panic;

/// So much of a reason is told to the broker, in characters.
const MAX_REASON: usize = 1_024;

/// What shall become of a transaction, and why that is so where nobody decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) transaction: Transaction,
    pub(super) reason: Option<String>,
}

impl Decision {
    /// Runs `future`. An error and a panic leave it unknown.
    pub(super) async fn of<T: IntoTransaction>(future: impl Future<Output = T>) -> Self {
        match catch_panic(async { future.await.into_transaction() }).await {
            Ok(Ok(transaction)) => Self { transaction, reason: None },
            Ok(Err(error)) => {
                let causes = Error::chain(error.as_ref());
                let separator = if causes.is_empty() { "" } else { ": " };
                Self::unknown(format!("{error}{separator}{causes}"))
            }
            Err(panic) => Self::unknown(format!("it panicked: {panic}")),
        }
    }

    pub(super) fn unknown(reason: String) -> Self {
        Self::because(Transaction::Unknown, reason)
    }

    pub(super) fn because(transaction: Transaction, reason: String) -> Self {
        let reason = match reason.char_indices().nth(MAX_REASON) {
            Some((end, _)) => format!("{} …", &reason[..end]),
            None => reason,
        };
        Self { transaction, reason: Some(reason) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn of<T: IntoTransaction>(value: T) -> (Transaction, Option<String>) {
        let Decision { transaction, reason } = Decision::of(async { value }).await;
        (transaction, reason)
    }

    #[tokio::test]
    async fn what_is_no_decision_is_unknown_and_says_why() {
        assert_eq!(of(Transaction::Commit).await, (Transaction::Commit, None));
        assert_eq!(of(Ok::<_, String>(Transaction::Rollback)).await, (Transaction::Rollback, None));
        let failed = Err::<Transaction, _>(Error::from(std::io::Error::other("the disk is full")));
        assert_eq!(of(failed).await, (Transaction::Unknown, Some("the disk is full".into())));
        let panicked = Decision::of::<Transaction>(async { panic!("no disk") }).await;
        assert_eq!(panicked, Decision::unknown("it panicked: no disk".into()));
        let endless = of(Err::<Transaction, _>("é".repeat(10_000))).await.1.unwrap();
        assert_eq!(endless.chars().count(), MAX_REASON + 2);
    }
}
