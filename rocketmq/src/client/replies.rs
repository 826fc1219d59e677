//! Requests of this client that wait for their replies, and the replies that come.
//!
//! A request is known by the number at the end of its correlation id, whose beginning no other client has. So a reply that
//! comes too late is told from one that was never asked for without anything being kept of the requests that are over.
//!
//! Source: `behaviour.md` section 2.9.

use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time;
use tracing::{debug, warn};

use super::MqClient;
use super::route::{MASTER, TopicRoute};
use crate::message::stored::{self, Record};
use crate::message::{MessageExt, properties, reply_topic};
use crate::protocol::header::PushReply;
use crate::remoting::Address;

/// How long a request waits for brokers to know its client before it is sent all the same: the reply may come through
/// one that does.
const INTRODUCTION: Duration = Duration::from_secs(1);

/// What became of the replies that came to a client, for all of its producers. All but `waiting` only ever grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplyStats {
    /// Requests that wait for their reply now.
    pub waiting: usize,
    /// Replies that were waited for.
    pub replied: u64,
    /// Replies to requests that nobody waits for any more: their time was over, their callers gave up, or another
    /// reply had come before.
    pub late: u64,
    /// Replies to requests that this client never made.
    pub unknown: u64,
}

/// Who waits for which reply.
#[derive(Debug)]
pub(crate) struct Replies {
    /// What every correlation id of this client begins with: 16 hexadecimal digits.
    prefix: String,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<MessageExt>>>,
    replied: AtomicU64,
    late: AtomicU64,
    unknown: AtomicU64,
}

/// A request that waits. Dropping it ends that, and leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Waiting {
    replies: Arc<Replies>,
    number: u64,
    reply: oneshot::Receiver<MessageExt>,
}

/// Whose reply it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Waiting,
    Late,
    Unknown,
}

impl Default for Replies {
    fn default() -> Self {
        Self {
            prefix: format!("{:016x}", fastrand::u64(..)),
            next: AtomicU64::new(0),
            waiting: Mutex::default(),
            replied: AtomicU64::new(0),
            late: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
        }
    }
}

impl Replies {
    /// Begins to wait for the reply to a new request.
    pub(crate) fn wait(self: &Arc<Self>) -> Waiting {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, reply) = oneshot::channel();
        self.lock().insert(number, sender);
        Waiting { replies: Arc::clone(self), number, reply }
    }

    pub(crate) fn stats(&self) -> ReplyStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ReplyStats {
            waiting: self.lock().len(),
            replied: count(&self.replied),
            late: count(&self.late),
            unknown: count(&self.unknown),
        }
    }

    /// Hands a reply to who waits for it.
    fn take(&self, correlation_id: &str, reply: MessageExt) -> Found {
        let Some(number) = self.number_of(correlation_id) else {
            self.unknown.fetch_add(1, Ordering::Relaxed);
            return Found::Unknown;
        };
        let waiting = self.lock().remove(&number);
        if let Some(waiting) = waiting {
            // Before the requester can look.
            self.replied.fetch_add(1, Ordering::Relaxed);
            if waiting.send(reply).is_ok() {
                return Found::Waiting;
            }
            // Whoever waited gave up at this moment.
            self.replied.fetch_sub(1, Ordering::Relaxed);
        }
        self.late.fetch_add(1, Ordering::Relaxed);
        Found::Late
    }

    /// The number of a request that this client has made.
    fn number_of(&self, correlation_id: &str) -> Option<u64> {
        let number = correlation_id.strip_prefix(self.prefix.as_str())?;
        let number = u64::from_str_radix(number, 16).ok()?;
        (number < self.next.load(Ordering::Relaxed)).then_some(number)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<MessageExt>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    pub(crate) fn correlation_id(&self) -> String {
        format!("{}{:016x}", self.replies.prefix, self.number)
    }

    /// The reply. Cancel safe.
    pub(crate) async fn reply(&mut self) -> MessageExt {
        match (&mut self.reply).await {
            Ok(reply) => reply,
            // The table holds the other end until it has a reply, or this is dropped.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.replies.lock().remove(&self.number);
    }
}

impl MqClient {
    pub(crate) fn replies(&self) -> &Arc<Replies> {
        &self.replies
    }

    /// Takes a reply that a broker has passed on.
    ///
    /// # Errors
    ///
    /// What is wrong with it, for the broker.
    pub(super) fn take_reply(
        &self,
        address: &Address,
        header: PushReply,
        body: &Bytes,
    ) -> Result<(), String> {
        let reply = message(header, body, self.config.max_frame.as_usize())?;
        let Some(correlation_id) = reply.property(properties::CORRELATION_ID).map(str::to_owned) else {
            return Err(format!("the reply has no {}", properties::CORRELATION_ID));
        };
        let (topic, message_id) = (reply.topic().to_owned(), reply.message_id().into_owned());
        match self.replies.take(&correlation_id, reply) {
            Found::Waiting => debug!(%address, correlation_id, message_id, "a reply"),
            Found::Late => {
                warn!(%address, correlation_id, message_id, topic, "a reply came too late: nobody waits for it any more");
            }
            Found::Unknown => {
                warn!(%address, correlation_id, message_id, topic, "a reply to a request that this client never made");
            }
        }
        Ok(())
    }

    /// Makes sure that brokers know this client which may be asked to pass a reply on to it: those of the topic that
    /// a request goes to, and those of the reply topics of their clusters.
    pub(crate) async fn introduce(self: &Arc<Self>, route: &TopicRoute) {
        let clusters: BTreeSet<&str> = route.brokers().iter().map(|broker| broker.cluster.as_str()).collect();
        let mut brokers = masters(route);
        for cluster in clusters {
            // Where there is no such topic, or nobody knows, the brokers of the request have to do.
            if let Ok(route) = self.route(&reply_topic(cluster)).await {
                brokers.extend(masters(&route));
            }
        }
        let mut heartbeats = JoinSet::new();
        for address in brokers.into_iter().filter(|address| !self.is_known_to(address)) {
            let client = Arc::clone(self);
            heartbeats.spawn(async move { client.heartbeat(&address, client.config.request_timeout).await });
        }
        let all = async { while heartbeats.join_next().await.is_some() {} };
        // Those that do not answer in time are left; whether that matters shows in the reply.
        let _ = time::timeout(INTRODUCTION, all).await;
    }
}

fn masters(route: &TopicRoute) -> BTreeSet<Address> {
    let brokers = route.brokers().iter();
    brokers
        .filter_map(|broker| broker.broker_addrs.get(&MASTER))
        .map(|address| address.as_str().into())
        .collect()
}

/// A reply as a message, its body unpacked.
fn message(header: PushReply, body: &Bytes, max_body_bytes: usize) -> Result<MessageExt, String> {
    let mut all = header.properties.unwrap_or_default();
    let arrived = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    if !all.is_empty() && !all.ends_with(char::from(properties::AFTER)) {
        all.push(char::from(properties::AFTER));
    }
    properties::push(&mut all, properties::ARRIVE_TIME, &arrived.to_string());
    if properties::MAX_BYTES < all.len() || 255 < header.topic.len() {
        return Err("its topic or its properties are longer than those of a message".to_owned());
    }
    let record = Record {
        queue_id: header.queue_id,
        flag: header.flag,
        queue_offset: 0,
        commit_log_offset: 0,
        sys_flag: header.sys_flag,
        born_timestamp_ms: header.born_timestamp,
        born_host: host(&header.born_host),
        store_timestamp_ms: header.store_timestamp,
        store_host: host(&header.store_host),
        reconsume_times: header.reconsume_times.unwrap_or_default(),
        prepared_transaction_offset: 0,
        body,
        topic: &header.topic,
        properties: &all,
    };
    stored::decode(record.encode(), max_body_bytes).map_err(|error| error.reason)
}

/// The address that Java writes as `/ip:port` or `name/ip:port`; the unspecified one where it is none.
fn host(text: &str) -> SocketAddr {
    let address = text.rsplit('/').next().unwrap_or_default();
    address.parse().unwrap_or_else(|_| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{CompressionType, Message, compression, sys_flag};

    fn reply() -> MessageExt {
        Message::new("t").body("x").into()
    }

    #[tokio::test]
    async fn a_reply_finds_who_waits_and_late_ones_are_told_from_unknown_ones() {
        let replies = Arc::new(Replies::default());
        let mut first = replies.wait();
        let (answered, given_up) = (first.correlation_id(), replies.wait().correlation_id());
        assert_eq!(replies.stats().waiting, 1, "what is given up leaves nothing behind");
        let never_made = format!("{}{:016x}", replies.prefix, 2);
        for (id, found) in [
            (answered.as_str(), Found::Waiting),
            (&answered, Found::Late),
            (&given_up, Found::Late),
            (&never_made, Found::Unknown),
            ("", Found::Unknown),
            ("2dd0c0f5-6a5b-4b2c-9c9b-2f4f3f3c7d11", Found::Unknown),
            (&format!("{}x", replies.prefix), Found::Unknown),
            (&Replies::default().wait_id(), Found::Unknown),
        ] {
            assert_eq!(replies.take(id, reply()), found, "{id}");
        }
        assert_eq!(first.reply().await.body_str(), "x");
        drop(first);
        assert_eq!(replies.stats(), ReplyStats { waiting: 0, replied: 1, late: 2, unknown: 5 });
    }

    impl Replies {
        fn wait_id(self) -> String {
            Arc::new(self).wait().correlation_id()
        }
    }

    fn header(properties: &str, sys_flag: i32) -> PushReply {
        PushReply {
            producer_group: "g".into(),
            topic: "c_REPLY_TOPIC".into(),
            default_topic: "TBW102".into(),
            default_topic_queue_nums: 4,
            queue_id: 0,
            sys_flag,
            born_timestamp: 5,
            flag: 7,
            properties: Some(properties.to_owned()),
            reconsume_times: None,
            unit_mode: None,
            born_host: "/10.0.0.1:1234".into(),
            store_host: "broker/10.0.0.2:10911".into(),
            store_timestamp: 6,
        }
    }

    #[test]
    fn a_reply_is_unpacked_and_says_when_it_came() {
        let body = b"the same again and again ".repeat(400);
        for &kind in compression::WRITTEN {
            let packed = compression::compress(kind, 5, &body).unwrap();
            let header = header("TAGS\u{1}a\u{2}CORRELATION_ID\u{1}7", sys_flag::of_compression(kind));
            let reply = message(header, &packed, 1 << 20).unwrap();
            assert_eq!(reply.body(), &body[..]);
            assert_eq!((reply.tag(), reply.property(properties::CORRELATION_ID)), (Some("a"), Some("7")));
            assert!(reply.property(properties::ARRIVE_TIME).unwrap().parse::<u64>().unwrap() > 0);
            assert_eq!(reply.born_host(), "10.0.0.1:1234".parse().unwrap());
            assert_eq!(reply.store_host(), "10.0.0.2:10911".parse().unwrap());
            assert_eq!((reply.flag(), reply.born_timestamp_ms(), reply.store_timestamp_ms()), (7, 5, 6));
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let damaged = Bytes::from_static(b"certainly not compressed");
        message(header("", sys_flag::of_compression(CompressionType::Zlib)), &damaged, 1 << 20).unwrap_err();
        message(header(&"x".repeat(40_000), 0), &damaged, 1 << 20).unwrap_err();
        let large = compression::compress(CompressionType::Zlib, 5, &vec![0; 1 << 20]).unwrap();
        message(header("", sys_flag::of_compression(CompressionType::Zlib)), &large, 1 << 10).unwrap_err();
    }
}
