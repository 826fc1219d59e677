//! What an application lets through to its listeners, beyond tags and SQL.
//!
//! Source: `behaviour.md` sections 3.7 and 7.4, `FilterMessageHook`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tracing::error;

use super::hook::Hooks;
use crate::message::{MessageExt, MessageQueue};
use crate::tasks::panic_message;

/// Code of an application that looks at every message that was pulled, after its tag was compared and before a listener
/// gets it: of one consumer ([`PushConsumerBuilder::filter_hook`](crate::PushConsumerBuilder::filter_hook)), or of all
/// that an application declares ([`AppBuilder::filter_hook`](crate::AppBuilder::filter_hook)).
///
/// A message that it does not want counts as consumed: no listener gets it, and it does not come again. It must not
/// block. One that panics is reported, and lets the message through.
pub trait FilterHook: Send + Sync + 'static {
    /// Whether a listener is to get the message.
    fn wants(&self, filtering: &Filtering<'_>, message: &MessageExt) -> bool;
}

impl<F: Fn(&Filtering<'_>, &MessageExt) -> bool + Send + Sync + 'static> FilterHook for F {
    fn wants(&self, filtering: &Filtering<'_>, message: &MessageExt) -> bool {
        self(filtering, message)
    }
}

/// Where a message that is looked at was pulled.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Filtering<'a> {
    /// The consumer group.
    pub group: &'a str,
    /// The queue; of a message that is delivered again, one of the group's retry topic.
    pub queue: &'a MessageQueue,
}

impl Hooks {
    /// Whether all filter hooks want the message.
    pub(super) fn want(&self, group: &str, queue: &MessageQueue, message: &MessageExt) -> bool {
        let filtering = Filtering { group, queue };
        self.filters().iter().all(|hook| {
            catch_unwind(AssertUnwindSafe(|| hook.wants(&filtering, message))).unwrap_or_else(|panic| {
                let reason = panic_message(panic.as_ref());
                error!(group, %queue, offset = message.queue_offset(), reason, "a filter hook panicked, the message is let through");
                true
            })
        })
    }
}
