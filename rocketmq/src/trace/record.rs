//! One thing that happened to a message, as the console and `mqadmin queryMsgTraceById` read it.
//!
//! ```text
//! type 0x01 field 0x01 field … 0x02        what is missing is written `null`, for readers drop empty ends
//! ```
//!
//! Source: `protocol.md` section 5.3, `TraceDataEncoder`.

use std::fmt::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::client::namespace;
use crate::consumer::{ConsumeStatus, Consumed, Consuming};
use crate::message::properties;
use crate::producer::{EndingTransaction, SendResult, Sending, Transaction};

/// Where a broker says none. Source: `MixAll.DEFAULT_TRACE_REGION_ID`.
const DEFAULT_REGION: &str = "DefaultRegion";

/// Records that travel together, since they are of the same message or the same call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Records of different regions do not go into one message.
    pub(super) region: String,
    /// By what the message with the records is found again: ids and business keys.
    pub(super) keys: Vec<String>,
    pub(super) text: String,
}

/// What kind of message it is. Source: `MessageType`; these are its ordinals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal = 0,
    Half = 1,
    /// Every end of a transaction, whatever that is.
    Commit = 2,
    Delayed = 3,
}

impl Kind {
    fn of(encoded: &str) -> Self {
        let has = |name: &&str| properties::find(encoded, name).is_some();
        match () {
            () if has(&properties::TRANSACTION_PREPARED) => Self::Half,
            () if properties::DELAYS.iter().any(has) => Self::Delayed,
            () => Self::Normal,
        }
    }
}

/// A message that was stored.
pub(super) fn published(
    sending: &Sending<'_>,
    sent: &SendResult,
    namespace: Option<&str>,
    now: SystemTime,
) -> Option<Entry> {
    let region = sent.region_id.clone().filter(|_| sent.is_traced)?;
    let property = |name| properties::find(sending.properties, name);
    let mut text = String::new();
    Record::begin(&mut text, "Pub")
        .field(ms(now - sending.took))
        .field(&region)
        .field(namespace::strip(namespace, sending.group))
        .field(&sent.queue.topic)
        .field(&sent.message_id)
        .field(property(properties::TAGS).unwrap_or_default())
        .field(property(properties::KEYS).unwrap_or_default())
        .field(sending.address)
        .field(sending.body_len)
        .field(sending.took.as_millis())
        .field(Kind::of(sending.properties) as u8)
        .field(&sent.offset_message_id)
        .field(true)
        .end();
    Some(Entry { region, keys: keys(&sent.message_id, property(properties::KEYS)), text })
}

/// A transaction of which a broker is told what has become, or that it is still open.
pub(super) fn ended(
    ending: &EndingTransaction<'_>,
    namespace: Option<&str>,
    now: SystemTime,
) -> Option<Entry> {
    if !ending.is_traced {
        return None;
    }
    let region = ending.region_id.unwrap_or(DEFAULT_REGION);
    let property = |name| properties::find(ending.properties, name);
    let mut text = String::new();
    Record::begin(&mut text, "EndTransaction")
        .field(ms(now))
        .field(region)
        .field(namespace::strip(namespace, ending.group))
        .field(ending.topic)
        .field(ending.message_id)
        .field(property(properties::TAGS).unwrap_or_default())
        .field(property(properties::KEYS).unwrap_or_default())
        .field(ending.address)
        .field(Kind::Commit as u8)
        .field(ending.transaction_id.unwrap_or(ending.message_id))
        .field(state_name(ending.transaction))
        .field(ending.from_check)
        .end();
    let keys = keys(ending.message_id, property(properties::KEYS));
    Some(Entry { region: region.to_owned(), keys, text })
}

/// By what a record of one message is found.
fn keys(message_id: &str, keys: Option<&str>) -> Vec<String> {
    let keys = keys.unwrap_or_default().split(' ').filter(|key| !key.is_empty());
    [message_id].into_iter().chain(keys).map(str::to_owned).collect()
}

/// A call of a listener that begins, or, with how it went, has ended. `request` is the same for both.
pub(super) fn consumed(
    consuming: &Consuming<'_>,
    consumed: Option<&Consumed>,
    request: &str,
    namespace: Option<&str>,
    now: SystemTime,
) -> Option<Entry> {
    // Brokers before 5.0 name no region in messages, and with it ask for no trace.
    let traced = consuming.messages.iter().filter_map(|message| {
        let wants = message.property(properties::TRACE_ON) != Some("false");
        message.property(properties::MSG_REGION).filter(|_| wants).map(|region| (message, region))
    });
    let group = namespace::strip(namespace, consuming.group);
    let mut entry: Option<Entry> = None;
    for (message, region) in traced {
        let entry = entry.get_or_insert_with(|| Entry {
            region: region.to_owned(),
            keys: Vec::new(),
            text: String::new(),
        });
        let (id, keys) = (message.message_id(), message.property(properties::KEYS));
        entry.keys.push(id.to_string());
        entry.keys.extend(message.keys().map(str::to_owned));
        match consumed {
            None => Record::begin(&mut entry.text, "SubBefore")
                .field(ms(now))
                .field(region)
                .field(group)
                .field(request)
                .field(id)
                .field(message.reconsume_times())
                .field(keys.unwrap_or("null"))
                .end(),
            Some(consumed) => {
                let each = consumed.took.as_millis() / consuming.messages.len().max(1) as u128;
                Record::begin(&mut entry.text, "SubAfter")
                    .field(request)
                    .field(id)
                    .field(each)
                    .field(consumed.success)
                    .field(keys.unwrap_or("null"))
                    .field(context_code(consumed.status))
                    .field(ms(now))
                    .field(group)
                    .end();
            }
        }
    }
    entry
}

/// Source: `ConsumeReturnType`; these are its ordinals, of which 3, a listener that returned nothing, cannot be here.
fn context_code(status: ConsumeStatus) -> u8 {
    match status {
        ConsumeStatus::Success => 0,
        ConsumeStatus::TimedOut => 1,
        ConsumeStatus::Exception => 2,
        ConsumeStatus::Failed => 4,
    }
}

/// Source: `LocalTransactionState`; these are its names.
fn state_name(transaction: Transaction) -> &'static str {
    match transaction {
        Transaction::Commit => "COMMIT_MESSAGE",
        Transaction::Rollback => "ROLLBACK_MESSAGE",
        Transaction::Unknown => "UNKNOW",
    }
}

fn ms(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis()
}

/// A record while it is written.
struct Record<'a>(&'a mut String);

impl<'a> Record<'a> {
    fn begin(text: &'a mut String, kind: &str) -> Self {
        text.push_str(kind);
        Self(text)
    }

    fn field(self, value: impl fmt::Display) -> Self {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "\u{1}{value}");
        self
    }

    fn end(self) {
        self.0.push('\u{2}');
    }
}
