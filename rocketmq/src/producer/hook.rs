//! What an application adds to every send, or looks at: trace contexts, permissions, measurements.
//!
//! Source: `behaviour.md` section 2.10.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{SendResult, Transaction};
use crate::message::{Message, MessageQueue};
use crate::remoting::RequestError;

/// Code of an application that runs with every send: of one producer
/// ([`ProducerBuilder::hook`](crate::ProducerBuilder::hook)), or of all that the file declares
/// ([`AppBuilder::send_hook`](crate::AppBuilder::send_hook)).
///
/// All methods are called on the task that sends, and must not block. Every method does nothing by default.
pub trait SendHook: Send + Sync + 'static {
    /// Completes a message before it is checked and encoded; for example with the context of a trace, as a property.
    ///
    /// Called once for each message, also for those of a batch.
    fn prepare(&self, message: Message) -> Message {
        message
    }

    /// Says whether a message may be sent, before each attempt: what Java's `CheckForbiddenHook` is for. An error ends the send with
    /// [`SendError::Forbidden`](crate::SendError::Forbidden), which holds it; nothing has left the process.
    ///
    /// # Errors
    ///
    /// Why not, in words for people.
    fn check(&self, _sending: &Sending<'_>) -> Result<(), String> {
        Ok(())
    }

    /// An attempt begins.
    fn before(&self, _sending: &Sending<'_>) {}

    /// An attempt has ended: with the broker's answer, without one (`None`) where it was sent
    /// [one way](crate::Producer::send_oneway), or with an error. Not called for an attempt that its caller gave up.
    fn after(&self, _sending: &Sending<'_>, _outcome: Result<Option<&SendResult>, &RequestError>) {}

    /// A broker is about to be told what has become of a transaction: what Java's `EndTransactionHook` is for.
    fn end_transaction(&self, _ending: &EndingTransaction<'_>) {}
}

/// A transaction that ends, or stays open because nobody knows.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct EndingTransaction<'a> {
    /// The producer's group.
    pub group: &'a str,
    /// The address of the broker.
    pub address: &'a str,
    /// Its name; empty where one that asked did not say it.
    pub broker_name: &'a str,
    /// The topic that the message is for, as the sender knows it.
    pub topic: &'a str,
    /// The id of the message.
    pub message_id: &'a str,
    /// The id of the transaction, on 5.x brokers.
    pub transaction_id: Option<&'a str>,
    /// What is decided.
    pub transaction: Transaction,
    /// Why it was not, by the local part or the check.
    pub reason: Option<&'a str>,
    /// Whether the broker has asked; else the local part has just ended.
    pub from_check: bool,
    /// The region of the broker, if it says one.
    pub region_id: Option<&'a str>,
    /// Whether the broker wants [traces](crate::Tracer) of the message.
    pub is_traced: bool,
    /// The message's properties as they travel (see [`properties`](crate::message::properties)).
    pub properties: &'a str,
    /// The message's body.
    pub body: &'a [u8],
}

/// One attempt to send a message or a batch.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Sending<'a> {
    /// The producer's group.
    pub group: &'a str,
    /// Where to, with the topic as it is on the wire.
    pub queue: &'a MessageQueue,
    /// The address of the broker.
    pub address: &'a str,
    /// The id of the message; a batch has one of its own.
    pub message_id: &'a str,
    /// How many messages it is.
    pub messages: usize,
    /// The length of the body as it travels: compressed, or of the whole batch.
    pub body_len: usize,
    /// All properties as they travel (see [`properties`](crate::message::properties)); those of a batch stand in its
    /// messages.
    pub properties: &'a str,
    /// From 1.
    pub attempt: u32,
    /// Whether the broker does not answer.
    pub oneway: bool,
    /// How long the attempt has taken so far.
    pub took: Duration,
}

/// The hooks of a producer, in the order in which they were added.
#[derive(Clone, Default)]
pub(crate) struct Hooks(Vec<Arc<dyn SendHook>>);

impl Hooks {
    pub(crate) fn add(&mut self, hook: impl SendHook) {
        self.0.push(Arc::new(hook));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn prepare(&self, message: Message) -> Message {
        self.0.iter().fold(message, |message, hook| hook.prepare(message))
    }

    pub(super) fn check(&self, sending: &Sending<'_>) -> Result<(), String> {
        self.0.iter().try_for_each(|hook| hook.check(sending))
    }

    pub(super) fn before(&self, sending: &Sending<'_>) {
        self.0.iter().for_each(|hook| hook.before(sending));
    }

    pub(super) fn end_transaction(&self, ending: &EndingTransaction<'_>) {
        self.0.iter().for_each(|hook| hook.end_transaction(ending));
    }

    pub(super) fn after(&self, sending: &Sending<'_>, outcome: Result<Option<&SendResult>, &RequestError>) {
        self.0.iter().for_each(|hook| hook.after(sending, outcome));
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hooks").field(&self.0.len()).finish()
    }
}
