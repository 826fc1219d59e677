//! Messages that are to be delivered later: by level, as all brokers can, or at a time, as those of 5.x can.
//!
//! Source: `HookUtils.handleScheduleMessage`, `ScheduleMessageService`; `protocol.md` section 4.10.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::clock::Now;
use super::state::Refusal;
use super::store::{NewMessage, edit_properties, encode};
use crate::message::properties;
use crate::protocol::ResponseCode;

/// What a 5.x broker does not deliver later than.
pub(super) const MAX_TIMER: Duration = Duration::from_secs(3 * 24 * 60 * 60);
/// To what a 5.x broker rounds the time of delivery that it notes down.
const TIMER_PRECISION_MS: i64 = 1_000;
/// The time of delivery that a 5.x broker noted down.
const TIMER_OUT_MS: &str = "TIMER_OUT_MS";

/// How a message is to be delayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delay {
    wait: Duration,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// From 1.
    Level(usize),
    /// When, in Unix milliseconds.
    Timer(i64),
}

impl Delay {
    /// What the properties of a message ask for; a level beyond the last one means the last one.
    pub(super) fn of(encoded: &str, levels: &[Duration], now: Now) -> Result<Option<Self>, Refusal> {
        let level = properties::find(encoded, properties::DELAY).and_then(|level| level.parse().ok());
        let level =
            level.filter(|level: &i32| *level > 0).map_or(0, |level| levels.len().min(level as usize));
        if level > 0 {
            return Ok(Some(Self { wait: levels[level - 1], kind: Kind::Level(level) }));
        }
        let Some(deliver_ms) = timer(encoded, now.unix_ms)? else { return Ok(None) };
        let wait_ms = deliver_ms.saturating_sub(now.unix_ms);
        match u64::try_from(wait_ms).map(Duration::from_millis) {
            Ok(wait) if MAX_TIMER < wait => Err(illegal_timer()),
            Ok(wait) if !wait.is_zero() => Ok(Some(Self { wait, kind: Kind::Timer(deliver_ms) })),
            _ => Ok(None),
        }
    }

    /// When a timer message goes off, to the precision of a 5.x broker.
    pub(super) fn timer_out_ms(&self) -> Option<i64> {
        match self.kind {
            Kind::Level(_) => None,
            Kind::Timer(ms) => Some((ms - 1) / TIMER_PRECISION_MS * TIMER_PRECISION_MS),
        }
    }

    /// Notes down in the properties where the message is to go.
    fn mark(&self, message: &NewMessage) -> String {
        let queue_id = message.queue_id.to_string();
        let level = match self.kind {
            Kind::Level(level) => Some(level.to_string()),
            Kind::Timer(_) => None,
        };
        let timer = self.timer_out_ms().map(|ms| ms.to_string());
        let mut changes = vec![
            (properties::REAL_TOPIC, Some(&*message.topic)),
            (properties::REAL_QUEUE_ID, Some(&*queue_id)),
        ];
        changes.extend(level.as_deref().map(|level| (properties::DELAY, Some(level))));
        changes.extend(timer.as_deref().map(|timer| (TIMER_OUT_MS, Some(timer))));
        edit_properties(&message.properties, &changes)
    }
}

/// When the message asks to be delivered, in Unix milliseconds.
fn timer(encoded: &str, now_ms: i64) -> Result<Option<i64>, Refusal> {
    // It has waited already.
    if properties::find(encoded, TIMER_OUT_MS).is_some() {
        return Ok(None);
    }
    let number = |name| match properties::find(encoded, name) {
        Some(text) => text.parse().map(Some).map_err(|_| illegal_timer()),
        None => Ok(None),
    };
    if let Some(seconds) = number(properties::TIMER_DELAY_SEC)? {
        return Ok(Some(now_ms.saturating_add(i64::saturating_mul(seconds, 1_000))));
    }
    if let Some(ms) = number(properties::TIMER_DELAY_MS)? {
        return Ok(Some(now_ms.saturating_add(ms)));
    }
    number(properties::TIMER_DELIVER_MS)
}

fn illegal_timer() -> Refusal {
    let remark = format!(
        "timer message illegal, the delay time should not be bigger than the max delay {}ms; or if set del msg, the \
         delay time should be bigger than the current time",
        MAX_TIMER.as_millis()
    );
    Refusal::new(ResponseCode::MESSAGE_ILLEGAL, remark)
}

/// The messages that wait for their time.
#[derive(Debug)]
pub(super) struct DelayedMessages {
    /// By time, those of one time in their order.
    waiting: BTreeMap<(Instant, u64), NewMessage>,
    sequence: u64,
    /// How many there ever were on each level (of timers: in front), which is the offset that a sender is told.
    offsets: Vec<i64>,
    bytes: usize,
    max_bytes: usize,
}

impl DelayedMessages {
    /// Beyond `max_bytes` no message is taken: what waits here is never dropped.
    pub(super) fn new(levels: usize, max_bytes: usize) -> Self {
        Self { waiting: BTreeMap::new(), sequence: 0, offsets: vec![0; levels + 1], bytes: 0, max_bytes }
    }

    /// Lets a message wait; returns its offset among those that wait equally long.
    pub(super) fn park(&mut self, mut message: NewMessage, delay: Delay, now: Now) -> Result<i64, Refusal> {
        message.properties = delay.mark(&message);
        if properties::MAX_BYTES < message.properties.len() {
            return Err(Refusal::illegal_message());
        }
        // A copy of its own: the body may be a slice of a much larger network buffer.
        message.body = Bytes::copy_from_slice(&message.body);
        let bytes = size(&message);
        if self.max_bytes < self.bytes + bytes {
            let remark = format!("the delayed messages would take more than {} bytes", self.max_bytes);
            return Err(Refusal::new(ResponseCode::SYSTEM_BUSY, remark));
        }
        self.bytes += bytes;
        self.waiting.insert((now.instant + delay.wait, self.sequence), message);
        self.sequence += 1;
        let lane = match delay.kind {
            Kind::Level(level) => level,
            Kind::Timer(_) => 0,
        };
        let offset = self.offsets.get_mut(lane).map(|next| {
            *next += 1;
            *next - 1
        });
        Ok(offset.unwrap_or_default())
    }

    /// Takes out a message by its unique key, if it waits here.
    pub(super) fn take_back(&mut self, unique_key: &str) {
        let is_it = |message: &NewMessage| {
            properties::find(&message.properties, properties::UNIQUE_KEY) == Some(unique_key)
        };
        let found = self.waiting.iter().find(|(_, message)| is_it(message)).map(|(due, _)| *due);
        if let Some(message) = found.and_then(|due| self.waiting.remove(&due)) {
            self.bytes -= size(&message);
        }
    }

    /// Takes out the next message whose time has come.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<NewMessage> {
        let first = self.waiting.first_entry()?;
        if now < first.key().0 {
            return None;
        }
        let message = first.remove();
        self.bytes -= size(&message);
        Some(message)
    }

    /// When the next message is due.
    pub(super) fn next_time(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((due, _), _)| *due)
    }

    /// All that wait, the next one first, as they would be stored.
    pub(super) fn records(&self, host: SocketAddr) -> Vec<(Instant, Bytes)> {
        self.waiting.iter().map(|((due, _), message)| (*due, encode(message, host, 0, 0, 0))).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

fn size(message: &NewMessage) -> usize {
    256 + message.body.len() + message.properties.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEVELS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

    fn at(unix_ms: i64) -> Now {
        let now = Instant::now();
        Now { instant: now, unmoved: now, unix_ms }
    }

    fn delay(key: &str, value: &str) -> Result<Option<Delay>, Refusal> {
        let now = at(10_000);
        Delay::of(&properties::encode([(key, value)]), &LEVELS, now)
    }

    #[test]
    fn a_delay_is_a_level_or_a_time() {
        let level = |level: usize| Some(Delay { wait: LEVELS[level - 1], kind: Kind::Level(level) });
        for (key, value, expected) in [
            ("KEYS", "1", None),
            ("DELAY", "0", None),
            ("DELAY", "-1", None),
            ("DELAY", "soon", None),
            ("DELAY", "1", level(1)),
            ("DELAY", "18", level(2)),
            ("TIMER_DELAY_SEC", "2", Some(Delay { wait: Duration::from_secs(2), kind: Kind::Timer(12_000) })),
            (
                "TIMER_DELAY_MS",
                "7",
                Some(Delay { wait: Duration::from_millis(7), kind: Kind::Timer(10_007) }),
            ),
            (
                "TIMER_DELIVER_MS",
                "10050",
                Some(Delay { wait: Duration::from_millis(50), kind: Kind::Timer(10_050) }),
            ),
            ("TIMER_DELIVER_MS", "9000", None),
        ] {
            assert_eq!(delay(key, value).unwrap(), expected, "{key}={value}");
        }
        for (key, value) in [
            ("TIMER_DELAY_SEC", "later"),
            ("TIMER_DELAY_SEC", "259201"),
            ("TIMER_DELAY_SEC", "9223372036854775807"),
        ] {
            assert_eq!(delay(key, value).unwrap_err().code, ResponseCode::MESSAGE_ILLEGAL, "{key}={value}");
        }
    }

    #[test]
    fn a_timer_runs_once() {
        let now = at(0);
        let encoded = properties::encode([(TIMER_OUT_MS, "0"), (properties::TIMER_DELAY_SEC, "1")]);
        assert_eq!(Delay::of(&encoded, &LEVELS, now).unwrap(), None);
    }

    #[test]
    fn without_levels_no_message_waits() {
        let now = at(0);
        assert_eq!(Delay::of("DELAY\u{1}3\u{2}", &[], now).unwrap(), None);
    }
}
