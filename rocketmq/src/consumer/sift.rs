//! What a pull brought, one record after the other: for which listener it is, or why for none.
//!
//! A record that is no message concerns nobody but itself: it is reported, and becomes what the group's `on_undecodable`
//! says, while the queue goes on.

use std::sync::Arc;

use bytes::Bytes;
use tracing::{error, warn};

use super::Shared;
use super::process_queue::ProcessQueue;
use super::queue::OwnedQueue;
use super::records::records;
use super::subscriptions::Table;
use crate::client::namespace;
use crate::config::Undecodable;
use crate::listener::Handler;
use crate::message::{MessageExt, RecordError};

/// What is to become of the records of one answer.
#[derive(Debug, Default)]
pub(super) struct Sifted<'t> {
    /// In their order.
    places: Vec<Place<'t>>,
    /// Where the rest of the answer cannot be told apart: at this offset.
    pub(super) cut_at: Option<(i64, RecordError)>,
}

/// What an offset of the queue holds; those that hold nothing for this group are left out.
#[derive(Debug)]
pub(super) enum Place<'t> {
    For {
        listener: &'t Handler,
        message: MessageExt,
    },
    /// It was handed to this group once, and no listener takes it any more.
    Orphan(MessageExt),
    Unreadable {
        offset: i64,
        error: RecordError,
    },
}

impl Shared {
    /// Sorts the records of an answer that begins at `begin` and ends before `end`, by what is subscribed now.
    pub(super) fn sift<'t>(
        &self,
        table: &'t Table,
        owned: &OwnedQueue,
        body: Bytes,
        begin: i64,
        end: i64,
    ) -> Sifted<'t> {
        let subscriptions = &self.subscriptions;
        let wanted = table.wanted(&owned.queue.topic);
        // Beside the group's own: those of what was popped once.
        let is_retry = owned.queue.topic == *subscriptions.retry_topic()
            || wanted.is_none() && namespace::is_retry_topic(&owned.queue.topic);
        let mut sifted = Sifted::default();
        for record in records(body, self.max_body_bytes, begin..end) {
            let mut message = match record {
                Ok(message) => message,
                Err((offset, error)) if error.ends_answer => {
                    sifted.cut_at = Some((offset, error));
                    break;
                }
                Err((offset, error)) => {
                    sifted.places.push(Place::Unreadable { offset, error });
                    continue;
                }
            };
            message.set_broker_name(Arc::clone(&owned.queue.broker_name));
            let listener = if is_retry {
                message.restore_topic(subscriptions.retry_topic());
                message.restore_popped_topic(&self.group);
                table.listener_of_retried(message.topic(), || message.tag())
            } else {
                wanted.and_then(|wanted| wanted.listener(|| message.tag()))
            };
            message.strip_namespace(subscriptions.namespace());
            match listener {
                // Brokers compare the hashes of tags only.
                None if !is_retry => {}
                None => sifted.places.push(Place::Orphan(message)),
                Some(_) if !self.hooks.want(&self.group, &owned.queue, &message) => {}
                Some(listener) => sifted.places.push(Place::For { listener, message }),
            }
        }
        sifted
    }

    /// Puts what was sifted where listeners get it; how many messages that are.
    pub(super) fn keep(self: &Arc<Self>, owned: &Arc<OwnedQueue>, sifted: Vec<Place<'_>>) -> usize {
        let mut aside = Vec::new();
        let kept = owned.with(|messages| {
            let mut kept = 0;
            for place in sifted {
                match place {
                    Place::For { listener, message } => {
                        messages.put(message, listener.clone());
                        kept += 1;
                    }
                    Place::Orphan(message) => {
                        messages.put_unreadable(message.queue_offset());
                        aside.push(Place::Orphan(message));
                    }
                    Place::Unreadable { offset, error } => {
                        self.hold(messages, offset, &error);
                        aside.push(Place::Unreadable { offset, error });
                    }
                }
            }
            kept
        });
        for place in aside {
            match place {
                Place::For { .. } => {}
                Place::Orphan(message) => {
                    warn!(
                        group = %self.group, topic = message.topic(), tag = message.tag(), message_id = %message.message_id(),
                        "a retried message has no listener any more: it goes to the dead letter queue",
                    );
                    let (shared, owned) = (Arc::clone(self), Arc::clone(owned));
                    self.handlers.spawn("dead letter", async move { shared.bury(&owned, &message).await });
                }
                Place::Unreadable { offset, error } => self.set_aside(owned, offset, &error),
            }
        }
        kept
    }

    /// Keeps the offset from passing a record that is to become a dead letter.
    fn hold(&self, messages: &mut ProcessQueue<Handler>, offset: i64, error: &RecordError) {
        if self.becomes_dead_letter(error) {
            messages.put_unreadable(offset);
        }
    }

    fn becomes_dead_letter(&self, error: &RecordError) -> bool {
        self.config.on_undecodable == Undecodable::DeadLetter && error.commit_log_offset >= 0
    }

    /// Does with a record that is no message what the group wants done.
    fn set_aside(self: &Arc<Self>, owned: &Arc<OwnedQueue>, offset: i64, reason: &RecordError) {
        let (group, queue) = (&self.group, &owned.queue);
        let commit_log_offset = reason.commit_log_offset;
        if self.becomes_dead_letter(reason) {
            warn!(%group, topic = %queue.topic, %queue, offset, error = %reason, "a message cannot be read: it goes to the dead letter queue");
            let (shared, owned) = (Arc::clone(self), Arc::clone(owned));
            self.handlers.spawn("dead letter", async move {
                shared.bury_raw(&owned, offset, commit_log_offset).await;
            });
        } else if self.config.on_undecodable == Undecodable::Skip {
            error!(%group, topic = %queue.topic, %queue, offset, error = %reason, "a message cannot be read: it is skipped, as `on_undecodable` says");
        } else {
            error!(%group, topic = %queue.topic, %queue, offset, error = %reason, "a message cannot be read, nor where the broker keeps it: it cannot be made a dead letter, and is passed over");
        }
    }
}

impl<'t> Sifted<'t> {
    pub(super) fn into_places(self) -> Vec<Place<'t>> {
        self.places
    }
}
