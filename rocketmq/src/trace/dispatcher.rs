//! Collects records and sends them, some at a time, beside the messages that they tell of.
//!
//! Source: `behaviour.md` section 7.1, `AsyncTraceDispatcher`.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::record::Entry;
use crate::error::Error;
use crate::message::Message;
use crate::producer::Producer;

/// Text in one message at most, so that the consoles' readers can take it.
const MAX_TEXT_BYTES: usize = 128_000;
/// Keys in one message at most: they are a property, and all properties together have 32 KiB.
const MAX_KEY_BYTES: usize = 16 << 10;

/// The task that sends records.
pub(super) struct Dispatcher {
    pub(super) entries: mpsc::Receiver<Entry>,
    pub(super) producer: Producer,
    pub(super) topic: String,
    /// So many entries leave at once.
    pub(super) batch: usize,
    /// How long the first of them waits for others.
    pub(super) linger: Duration,
    pub(super) stopping: CancellationToken,
}

impl Dispatcher {
    /// Runs until it is stopped, and sends what is left then.
    pub(super) async fn run(mut self) {
        let mut waiting = Vec::with_capacity(self.batch);
        let mut leave_at = Instant::now();
        let mut is_failing = false;
        let stopping = self.stopping.clone();
        loop {
            tokio::select! {
                received = self.entries.recv_many(&mut waiting, self.batch) => {
                    if received == 0 {
                        break;
                    }
                    if waiting.len() == received {
                        leave_at = Instant::now() + self.linger;
                    }
                }
                () = time::sleep_until(leave_at), if !waiting.is_empty() => {}
                () = stopping.cancelled(), if !self.entries.is_closed() => self.entries.close(),
            }
            if self.batch <= waiting.len() || (leave_at <= Instant::now() && !waiting.is_empty()) {
                self.send(&mut waiting, &mut is_failing).await;
            }
        }
        self.send(&mut waiting, &mut is_failing).await;
    }

    async fn send(&self, waiting: &mut Vec<Entry>, is_failing: &mut bool) {
        for message in pack(&self.topic, waiting.drain(..)) {
            match self.producer.send(message).await {
                Ok(_) => *is_failing = false,
                Err(error) if *is_failing => debug!(topic = self.topic, %error, "traces are lost"),
                Err(error) => {
                    *is_failing = true;
                    warn!(topic = self.topic, %error, cause = %Error::chain(&error), "traces are lost until they can be sent; brokers have their topic with `traceTopicEnable=true`, and any other has to be created");
                }
            }
        }
    }
}

/// The messages in which these entries travel: those of a region together, as many as fit.
fn pack(topic: &str, entries: impl IntoIterator<Item = Entry>) -> Vec<Message> {
    let mut open: BTreeMap<String, Package> = BTreeMap::new();
    let mut messages = Vec::new();
    for Entry { region, keys, text } in entries {
        let package = open.entry(region).or_default();
        let key_bytes: usize = keys.iter().map(|key| key.len() + 1).sum();
        let is_full =
            MAX_TEXT_BYTES < package.text.len() + text.len() || MAX_KEY_BYTES < package.key_bytes + key_bytes;
        if is_full && !package.text.is_empty() {
            messages.push(std::mem::take(package).into_message(topic));
        }
        package.text.push_str(&text);
        // Of a batch with thousands of messages not every one is found by its key, but all by those of their neighbours.
        let room = MAX_KEY_BYTES - package.key_bytes;
        let fitting = keys.into_iter().scan(0, |bytes, key| {
            *bytes += key.len() + 1;
            (*bytes <= room).then_some(key)
        });
        package.keys.extend(fitting);
        package.key_bytes = (package.key_bytes + key_bytes).min(MAX_KEY_BYTES);
    }
    messages.extend(open.into_values().map(|package| package.into_message(topic)));
    messages
}

#[derive(Default)]
struct Package {
    text: String,
    keys: Vec<String>,
    key_bytes: usize,
}

impl Package {
    fn into_message(self, topic: &str) -> Message {
        Message::new(topic).keys(self.keys).body(self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(region: &str, keys: &[&str], text: &str) -> Entry {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        Entry { region: region.to_owned(), keys, text: text.to_owned() }
    }

    #[test]
    fn entries_of_a_region_travel_together() {
        let messages =
            pack("t", [entry("a", &["1", "k"], "x"), entry("b", &["2"], "y"), entry("a", &["3"], "z")]);
        let seen: Vec<_> =
            messages.iter().map(|message| (message.payload().as_ref(), message.get("KEYS"))).collect();
        assert_eq!(seen, [(&b"xz"[..], Some("1 k 3")), (&b"y"[..], Some("2"))]);
    }

    #[test]
    fn a_message_is_never_larger_than_brokers_and_readers_take() {
        let text = "x".repeat(70_000);
        let sizes: Vec<_> = pack("t", [entry("a", &["1"], &text), entry("a", &["2"], &text)])
            .iter()
            .map(|message| message.payload().len())
            .collect();
        assert_eq!(sizes, [70_000, 70_000]);

        let key = "k".repeat(1_000);
        let many = entry("a", &vec![key.as_str(); 50], "x");
        for message in pack("t", [many.clone(), many]) {
            let keys = message.get("KEYS").map_or(0, str::len);
            assert!((10_000..=MAX_KEY_BYTES).contains(&keys), "{keys}");
        }
    }
}
