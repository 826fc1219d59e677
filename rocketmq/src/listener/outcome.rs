//! What came of a delivery.

use std::error::Error;
use std::fmt;

use super::ConsumeResult;
use super::state::MissingState;
use crate::message::Message;

type BoxError = Box<dyn Error + Send + Sync>;

/// What came of a delivery: what `next.run(delivery).await` gives an `around`.
///
/// It is a report; the group's policy turns it into an acknowledgement, a retry or a dead letter.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The listener decided.
    Done(ConsumeResult),
    /// The listener answered a request: the reply is sent, then the request is done.
    Reply(Box<Message>),
    /// The listener returned an error: the messages are delivered again.
    Failed(BoxError),
    /// The listener was not called, since a message cannot give what it takes: `on_bad_payload` decides.
    BadPayload(BadPayload),
}

impl Outcome {
    /// That the delivery failed, for this reason: the messages are delivered again.
    pub fn failed(reason: impl Into<BoxError>) -> Self {
        Self::Failed(reason.into())
    }

    /// Whether the listener is done with all messages; a reply may still have to be sent.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Done(ConsumeResult::Success) | Self::Reply(_))
    }
}

impl From<ConsumeResult> for Outcome {
    fn from(result: ConsumeResult) -> Self {
        Self::Done(result)
    }
}

impl From<BadPayload> for Outcome {
    fn from(bad: BadPayload) -> Self {
        if bad.is_of_the_application() { Self::Failed(bad.reason) } else { Self::BadPayload(bad) }
    }
}

/// A message that can never be handled, however often it is delivered: its body does not decode.
#[derive(Debug)]
pub struct BadPayload {
    index: usize,
    reason: BoxError,
}

impl BadPayload {
    /// The property of a dead letter that says what was wrong with the message: `on_bad_payload: dead_letter`.
    pub const PROPERTY: &'static str = "BAD_PAYLOAD";
    /// Properties share their room, about 32 KiB, with those of the application.
    const LONGEST_REASON: usize = 512;

    /// What is wrong, as a property can hold it: one line, and not a long one.
    pub(crate) fn reason(&self) -> String {
        let reason = self.reason.to_string().replace(char::is_control, " ");
        let end = (0..=Self::LONGEST_REASON.min(reason.len())).rev().find(|at| reason.is_char_boundary(*at));
        reason[..end.unwrap_or(0)].to_owned()
    }

    /// The message, or the first one of a batch, for this reason.
    pub fn new(reason: impl Into<BoxError>) -> Self {
        Self { index: 0, reason: reason.into() }
    }

    /// Whether the application is to blame, which gave no such state, and not the message.
    pub(super) fn is_of_the_application(&self) -> bool {
        self.reason.is::<MissingState>()
    }

    /// It is the message at `index` of the batch.
    #[must_use]
    pub fn at(mut self, index: usize) -> Self {
        self.index = index;
        self
    }

    /// Which message of the batch it is; 0 for a listener that takes one.
    pub fn index(&self) -> usize {
        self.index
    }
}

impl fmt::Display for BadPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The reason is the whole of it, so it is told here and not again as `source`.
        match self.index {
            0 => write!(f, "bad payload: {}", self.reason),
            index => write!(f, "bad payload of message {index} (from 0) of the batch: {}", self.reason),
        }
    }
}

impl Error for BadPayload {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_fits_into_a_property() {
        assert_eq!(BadPayload::new("a\u{1}b\nc").reason(), "a b c");
        let long = BadPayload::new("ü".repeat(1000)).reason();
        assert_eq!(long, "ü".repeat(256));
        assert_eq!(BadPayload::new(format!("x{}", "ü".repeat(1000))).reason().len(), 511);
    }

    #[test]
    fn a_bad_payload_reads_well() {
        for (bad, text) in [
            (BadPayload::new("no tenant"), "bad payload: no tenant"),
            (BadPayload::new("no tenant").at(2), "bad payload of message 2 (from 0) of the batch: no tenant"),
        ] {
            assert_eq!(bad.to_string(), text);
        }
    }
}
