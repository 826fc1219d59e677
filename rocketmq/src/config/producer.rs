//! How messages are sent.

use std::time::Duration;

use super::names::check_group;
use super::problem::ConfigErrors;
use super::section::{Section, check_by_hand};
use super::units::ByteSize;
use super::value::Word;

/// The keys of one producer under `producers:`. Made by hand: `ProducerConfig::default()`, then set the
/// fields.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerConfig {
    /// Producer group, 1 to 120 characters; default: the producer's name under `producers:`.
    ///
    /// Brokers ask any member of the group about an open transaction, so producers of transactions
    /// must set it, and no other application may use the same.
    pub group: Option<String>,
    /// The cluster to send to, a name under `clusters:`; default: the one at the top level.
    ///
    /// For declared producers; one built by hand has its name servers.
    pub cluster: Option<String>,
    /// How long one send may take, all its retries included; default `3s`, 1ms to 10m.
    pub send_timeout: Duration,
    /// How many times a failed send is tried again; default 2, 0 to 16.
    pub retries: u32,
    /// Whether a message that was stored, but not yet on disk or on a replica, is sent again; default
    /// `false`.
    pub retry_other_broker: bool,
    /// Bodies of at least this size are compressed; default `4KiB`, 1B to 1GiB.
    pub compress_over: ByteSize,
    /// How bodies are compressed; default `zlib`, the only one that 4.x consumers read.
    pub compression: Compression,
    /// How hard to try, from 0 (fast) to 9 (small); default 5. Not for `lz4`, which has no levels.
    pub compress_level: u32,
    /// Largest body accepted, before compression; default `4MiB`, 1B to 1GiB.
    ///
    /// The brokers' `maxMessageSize` must allow it too.
    pub max_message: ByteSize,
    /// Whether this producer sends in transactions; default `false`. Needs `group`.
    pub transaction: bool,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            group: None,
            cluster: None,
            send_timeout: Duration::from_secs(3),
            retries: 2,
            retry_other_broker: false,
            compress_over: ByteSize::kib(4),
            compression: Compression::Zlib,
            compress_level: 5,
            max_message: ByteSize::mib(4),
            transaction: false,
        }
    }
}

impl ProducerConfig {
    /// Checks a value made by hand against the ranges and rules that hold for the file.
    ///
    /// # Errors
    ///
    /// All that is wrong with it.
    pub fn check(&self) -> Result<(), ConfigErrors> {
        check_by_hand(|keys| self.clone().read(keys))
    }

    pub(super) fn read(&mut self, keys: &mut Section<'_, '_>) {
        let size = ByteSize::bytes(1)..=ByteSize::mib(1024);
        let group_rule = |group: &Option<String>| group.as_deref().map_or(Ok(()), check_group);
        keys.checked("group", &mut self.group, group_rule);
        keys.value("cluster", &mut self.cluster);
        keys.within(
            "send_timeout",
            &mut self.send_timeout,
            Duration::from_millis(1)..=Duration::from_secs(600),
        );
        keys.within("retries", &mut self.retries, 0..=16);
        keys.value("retry_other_broker", &mut self.retry_other_broker);
        keys.within("compress_over", &mut self.compress_over, size.clone());
        keys.value("compression", &mut self.compression);
        keys.within("compress_level", &mut self.compress_level, 0..=9);
        keys.within("max_message", &mut self.max_message, size);
        keys.value("transaction", &mut self.transaction);
        if keys.is_clean() && self.transaction && self.group.is_none() {
            let message =
                "needs a `group` of this application: brokers ask its members about open transactions";
            keys.problem_with("transaction", message);
        }
    }
}

/// How message bodies are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Read by every client.
    #[default]
    Zlib,
    /// Fast; for 5.x consumers.
    Lz4,
    /// Small; for 5.x consumers.
    Zstd,
}

impl Word for Compression {
    const WORDS: &'static [(&'static str, Self)] =
        &[("zlib", Self::Zlib), ("lz4", Self::Lz4), ("zstd", Self::Zstd)];
}
