//! What a listener may return.

use std::error::Error;

use super::{DelayLevel, Outcome};

/// What shall become of the delivered messages.
///
/// The words are RocketMQ's, and each has one meaning for the broker. Source: `behaviour.md` section 3.8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConsumeResult {
    /// All are done.
    Success,
    /// All are delivered again, after the group's `retry_delay`.
    ///
    /// Where messages are popped (`mode: pop`), `retry_delay: broker` is 10s 30s 1m 2m … 10m 20m 30m 1h 2h, longer each
    /// time.
    ///
    /// In an orderly group the queue pauses for the group's `suspend` and goes on with the same messages, as after an
    /// error, a panic and a timeout; a message that was tried again `max_reconsume` times goes to the dead letter
    /// queue.
    ReconsumeLater,
    /// All are delivered again, after this time.
    ///
    /// Where messages are popped (`mode: pop`), it is the time that the level has by default, whatever the broker is
    /// configured to ([`DelayLevel::default_delay`]).
    ///
    /// In an orderly group: as [`ReconsumeLater`](Self::ReconsumeLater), and the queue pauses for the time of the
    /// level ([`DelayLevel::default_delay`]), 30 seconds at most.
    ReconsumeAfter(DelayLevel),
    /// All go to the dead letter queue of the group, `%DLQ%group`, and are not delivered again.
    ///
    /// In an orderly group the queue goes on with the messages behind them once a broker has them.
    DeadLetter,
    /// The first so many of the batch are done, the rest is delivered again; as many as there are, or more, is
    /// [`Success`](Self::Success), none is [`ReconsumeLater`](Self::ReconsumeLater).
    ///
    /// In an orderly group the rest is at the head of the queue then, which pauses.
    AckFirst(usize),
}

/// The result of a listener in the words of the Java and Go clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumeConcurrentlyResult {
    /// Whether anything is done at all.
    pub status: ConsumeConcurrentlyStatus,
    /// The index of the last message handled with success, −1 for none; [`i32::MAX`] is always all of them. Counts
    /// only with [`ConsumeSuccess`](ConsumeConcurrentlyStatus::ConsumeSuccess).
    pub ack_index: i32,
}

/// The status of a [`ConsumeConcurrentlyResult`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumeConcurrentlyStatus {
    /// The messages up to `ack_index` are done, the rest is delivered again.
    ConsumeSuccess,
    /// All are delivered again.
    ReconsumeLater,
}

/// A type that a listener may return: `()`, [`ConsumeResult`], [`Reply`](super::Reply), [`ConsumeConcurrentlyResult`],
/// or a [`Result`] of these with any error.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be returned by a `#[rocketmq::listener]`",
    label = "not a listener result",
    note = "a listener returns (), ConsumeResult, Reply<T>, or a Result<_, E> of these with any error E",
    note = "for your own type, implement `rocketmq::IntoConsumeResult`"
)]
pub trait IntoConsumeResult {
    /// Whether it may hold a reply, which only one message at a time can have.
    const REPLIES: bool = false;

    /// What came of the delivery.
    fn into_outcome(self) -> Outcome;
}

impl IntoConsumeResult for () {
    fn into_outcome(self) -> Outcome {
        ConsumeResult::Success.into()
    }
}

impl IntoConsumeResult for ConsumeResult {
    fn into_outcome(self) -> Outcome {
        self.into()
    }
}

impl IntoConsumeResult for ConsumeConcurrentlyResult {
    fn into_outcome(self) -> Outcome {
        let result = match self.status {
            ConsumeConcurrentlyStatus::ReconsumeLater => ConsumeResult::ReconsumeLater,
            ConsumeConcurrentlyStatus::ConsumeSuccess if self.ack_index == i32::MAX => ConsumeResult::Success,
            ConsumeConcurrentlyStatus::ConsumeSuccess => {
                ConsumeResult::AckFirst(usize::try_from(self.ack_index.saturating_add(1)).unwrap_or(0))
            }
        };
        result.into()
    }
}

impl<R: IntoConsumeResult, E: IntoError> IntoConsumeResult for Result<R, E> {
    const REPLIES: bool = R::REPLIES;

    fn into_outcome(self) -> Outcome {
        match self {
            Ok(result) => result.into_outcome(),
            Err(error) => Outcome::Failed(error.into_error()),
        }
    }
}

/// Any error that can be told: whatever is `Into<Box<dyn Error + Send + Sync>>`. It is there for its text.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a `#[rocketmq::listener]` or of a transaction",
    label = "its error cannot be handed on",
    note = "any `std` error that is Send + Sync will do, also String, anyhow::Error and Box<dyn Error + Send + Sync>; not Box<dyn Error>, which has to stay in its thread"
)]
pub trait IntoError {
    /// The error as it is logged.
    fn into_error(self) -> Box<dyn Error + Send + Sync>;
}

#[diagnostic::do_not_recommend]
impl<E: Into<Box<dyn Error + Send + Sync>>> IntoError for E {
    fn into_error(self) -> Box<dyn Error + Send + Sync> {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_result_has_one_meaning() {
        let concurrently = |ack_index| ConsumeConcurrentlyResult {
            status: ConsumeConcurrentlyStatus::ConsumeSuccess,
            ack_index,
        };
        let later =
            ConsumeConcurrentlyResult { status: ConsumeConcurrentlyStatus::ReconsumeLater, ack_index: 5 };
        for (outcome, expected) in [
            (().into_outcome(), ConsumeResult::Success),
            (ConsumeResult::DeadLetter.into_outcome(), ConsumeResult::DeadLetter),
            (Ok::<_, String>(()).into_outcome(), ConsumeResult::Success),
            (Ok::<_, String>(ConsumeResult::AckFirst(2)).into_outcome(), ConsumeResult::AckFirst(2)),
            (concurrently(-1).into_outcome(), ConsumeResult::AckFirst(0)),
            (concurrently(i32::MIN).into_outcome(), ConsumeResult::AckFirst(0)),
            (concurrently(4).into_outcome(), ConsumeResult::AckFirst(5)),
            (concurrently(i32::MAX).into_outcome(), ConsumeResult::Success),
            (later.into_outcome(), ConsumeResult::ReconsumeLater),
        ] {
            assert!(
                matches!(outcome, Outcome::Done(result) if result == expected),
                "{outcome:?}, {expected:?}"
            );
        }
    }

    #[test]
    fn an_error_is_told_in_its_own_words() {
        for outcome in [
            Err::<(), _>("out of stock").into_outcome(),
            Err::<ConsumeResult, _>(String::from("out of stock")).into_outcome(),
            Err::<(), _>(std::io::Error::other("out of stock")).into_outcome(),
        ] {
            assert!(!outcome.is_success());
            assert!(
                matches!(&outcome, Outcome::Failed(error) if error.to_string() == "out of stock"),
                "{outcome:?}"
            );
        }
    }
}
