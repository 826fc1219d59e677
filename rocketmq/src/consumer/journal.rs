//! What becomes of every message, written down for the test kit; nothing is written where nobody reads it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::consume::Ending;
use crate::listener::{ConsumeResult, Delivery, Outcome};
use crate::message::{MessageExt, MessageQueue};

/// The journal of an application; the default one has no pages. A clone is the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Journal(Option<Arc<Mutex<Pages>>>);

#[derive(Debug, Default)]
struct Pages {
    entries: Vec<Entry>,
    /// What listeners have now, or will get again here, by group, queue and offset.
    open: HashMap<(String, MessageQueue, i64), Open>,
}

/// What became of a message when its listener was called.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) group: String,
    pub(crate) listener: String,
    pub(crate) message: MessageExt,
    pub(crate) fate: Fate,
    pub(crate) result: ConsumeResult,
    pub(crate) error: Option<String>,
}

/// What became of a message after one call of its listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(not(feature = "testing"), expect(unreachable_pub, reason = "it is the test kit that shows it"))]
pub enum Fate {
    /// It is done.
    Acknowledged,
    /// It went back to the broker, which delivers it again later.
    Retried,
    /// It stays at the head of its queue, and is handled again after a pause: so it goes in an orderly group, and where
    /// no broker took it back.
    Paused,
    /// It went to the dead letter queue.
    DeadLettered,
    /// It could not be decoded, and was passed over, as `on_bad_payload: skip` says.
    Skipped,
    /// Its handling failed in a broadcast group, which has neither retries nor a dead letter queue.
    Dropped,
}

/// A message that is not settled.
#[derive(Debug, Clone)]
pub(crate) struct Open {
    pub(crate) listener: String,
    pub(crate) since: Instant,
    /// Its listener does not have it now, but will get it again after a pause.
    pub(crate) is_paused: bool,
    /// Its listener is done with it, in whichever way; what follows from that is not.
    pub(crate) has_ended: bool,
}

impl Journal {
    #[cfg(feature = "testing")]
    pub(crate) fn new() -> Self {
        Self(Some(Arc::default()))
    }

    /// Whether anybody reads it.
    pub(super) fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// A listener is called.
    pub(super) fn begun(&self, delivery: &Delivery) {
        let Some(mut pages) = self.pages() else { return };
        for message in delivery.messages() {
            let open = Open {
                listener: delivery.listener().to_owned(),
                since: Instant::now(),
                is_paused: false,
                has_ended: false,
            };
            pages.open.insert(key(delivery, message), open);
        }
    }

    /// The call has ended, in whichever way.
    pub(super) fn ended(&self, delivery: &Delivery) {
        let Some(mut pages) = self.pages() else { return };
        for message in delivery.messages() {
            if let Some(open) = pages.open.get_mut(&key(delivery, message)) {
                open.has_ended = true;
            }
        }
    }

    /// Notes what becomes of one message of a call; to be called before it is done, so that whoever sees it done finds
    /// it here.
    pub(super) fn note(&self, delivery: &Delivery, message: &MessageExt, ending: &Ending, fate: Fate) {
        let Some(mut pages) = self.pages() else { return };
        let key = key(delivery, message);
        match pages.open.get_mut(&key) {
            Some(open) if fate == Fate::Paused => open.is_paused = true,
            None => return,
            Some(_) => drop(pages.open.remove(&key)),
        }
        let (result, error) = describe(ending, fate);
        pages.entries.push(Entry {
            group: delivery.group().to_owned(),
            listener: delivery.listener().to_owned(),
            message: message.clone(),
            fate,
            result,
            error,
        });
    }

    fn pages(&self) -> Option<MutexGuard<'_, Pages>> {
        self.0.as_ref().map(|pages| pages.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(feature = "testing")]
impl Journal {
    /// All entries that `is_wanted`, in their order.
    pub(crate) fn entries(&self, is_wanted: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        self.pages()
            .map(|pages| pages.entries.iter().filter(|entry| is_wanted(entry)).cloned().collect())
            .unwrap_or_default()
    }

    /// All messages of a group that its listeners have, with their offsets.
    pub(crate) fn open_of(&self, group: &str) -> Vec<(i64, Open)> {
        let Some(pages) = self.pages() else { return Vec::new() };
        let of_group = pages.open.iter().filter(|((of, ..), _)| of == group);
        of_group.map(|((_, _, offset), open)| (*offset, open.clone())).collect()
    }

    /// What is known of a message that is not settled.
    pub(crate) fn open(&self, group: &str, queue: &MessageQueue, offset: i64) -> Option<Open> {
        self.pages()?.open.get(&(group.to_owned(), queue.clone(), offset)).cloned()
    }
}

fn key(delivery: &Delivery, message: &MessageExt) -> (String, MessageQueue, i64) {
    (delivery.group().to_owned(), delivery.queue().clone(), message.queue_offset())
}

/// The result in the listener's words, and why it was no success.
fn describe(ending: &Ending, fate: Fate) -> (ConsumeResult, Option<String>) {
    let by_fate = match fate {
        Fate::Acknowledged | Fate::Skipped => ConsumeResult::Success,
        Fate::Retried | Fate::Paused => ConsumeResult::ReconsumeLater,
        Fate::DeadLettered | Fate::Dropped => ConsumeResult::DeadLetter,
    };
    match ending {
        Ending::Outcome(Outcome::Done(result)) => (*result, None),
        Ending::Outcome(Outcome::Failed(error)) => (by_fate, Some(chain(error.as_ref()))),
        Ending::Outcome(Outcome::BadPayload(bad)) => (by_fate, Some(bad.to_string())),
        Ending::Outcome(Outcome::Reply(_)) => (by_fate, Some("its reply was not sent".to_owned())),
        Ending::Panicked(reason) => (by_fate, Some(format!("a panic: {reason}"))),
        Ending::TimedOut => {
            (by_fate, Some("it took longer than `consume_timeout`, and was stopped".to_owned()))
        }
    }
}

/// An error with its causes.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Acknowledged => "acknowledged",
            Self::Retried => "given back, to be delivered again",
            Self::Paused => "kept, to be handled again after a pause",
            Self::DeadLettered => "a dead letter",
            Self::Skipped => "skipped",
            Self::Dropped => "dropped",
        })
    }
}
