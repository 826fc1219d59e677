//! What a group has pulled and handled, by topic: counted where it happens, and looked at every ten seconds.
//!
//! Source: `behaviour.md` section 6. Time is an argument.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::protocol::broker_calls::ConsumeStatus;

/// How often the counters are noted down.
pub(super) const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);
/// Every so many samples one is kept for the hour: every ten minutes.
const HOUR_STEP: u32 = 60;
/// The last minute, or hour, has seven of its samples, with both ends.
const SAMPLES: usize = 7;

/// How a consumer does with one topic. Messages that are delivered again count under the retry topic, `%RETRY%group`,
/// that they come from.
///
/// Rates and times are those of the last minute; whoever has just begun has them from the first message on.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct ConsumeStats {
    /// Messages that were pulled and have a listener, since the start.
    pub pulled: u64,
    /// Messages that were handled with success, since the start.
    pub ok: u64,
    /// Messages whose handling failed, since the start; one that failed twice counts twice.
    pub failed: u64,
    /// Of these, the messages that could not be decoded, whatever `on_bad_payload` makes of them.
    pub bad_payloads: u64,
    /// Messages whose handling failed, in the last hour.
    pub failed_last_hour: u64,
    /// How long a pull that brought messages took on average; brokers answer as soon as there are some.
    pub pull_rt: Duration,
    /// Messages pulled per second.
    pub pull_tps: f64,
    /// How long a call of a listener took on average; that of the last hour, where there was none in the last minute.
    pub consume_rt: Duration,
    /// Messages per second that were handled with success.
    pub ok_tps: f64,
    /// Messages per second whose handling failed.
    pub failed_tps: f64,
}

impl ConsumeStats {
    /// The two together, as one consumer would have them.
    pub(crate) fn plus(self, other: Self) -> Self {
        let mean = |a: Duration, weight_a: f64, b: Duration, weight_b: f64| {
            let weight = weight_a + weight_b;
            if weight > 0.0 {
                (a.mul_f64(weight_a / weight)) + b.mul_f64(weight_b / weight)
            } else {
                a.max(b)
            }
        };
        Self {
            pulled: self.pulled + other.pulled,
            ok: self.ok + other.ok,
            failed: self.failed + other.failed,
            bad_payloads: self.bad_payloads + other.bad_payloads,
            failed_last_hour: self.failed_last_hour + other.failed_last_hour,
            pull_rt: mean(self.pull_rt, self.pull_tps, other.pull_rt, other.pull_tps),
            pull_tps: self.pull_tps + other.pull_tps,
            consume_rt: mean(
                self.consume_rt,
                self.ok_tps + self.failed_tps,
                other.consume_rt,
                other.ok_tps + other.failed_tps,
            ),
            ok_tps: self.ok_tps + other.ok_tps,
            failed_tps: self.failed_tps + other.failed_tps,
        }
    }

    /// In the words of the wire.
    pub(super) fn status(&self) -> ConsumeStatus {
        let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
        ConsumeStatus {
            pull_rt: ms(self.pull_rt),
            pull_tps: self.pull_tps,
            consume_rt: ms(self.consume_rt),
            consume_ok_tps: self.ok_tps,
            consume_failed_tps: self.failed_tps,
            consume_failed_msgs: self.failed_last_hour,
        }
    }
}

/// The topics of a consumer.
#[derive(Debug, Default)]
pub(super) struct Topics(Mutex<BTreeMap<Arc<str>, Arc<TopicCounts>>>);

/// What is counted of one topic, by all of its queues.
#[derive(Debug)]
pub(crate) struct TopicCounts {
    pulls: AtomicU64,
    pulled: AtomicU64,
    pull_us: AtomicU64,
    calls: AtomicU64,
    call_us: AtomicU64,
    ok: AtomicU64,
    failed: AtomicU64,
    bad_payloads: AtomicU64,
    history: Mutex<History>,
}

/// Calls of listeners, before they are counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) calls: u64,
    /// How long they took together.
    pub(super) took: Duration,
    /// Messages.
    pub(super) ok: u64,
    pub(super) failed: u64,
    /// Of these, those that could not be decoded.
    pub(super) bad_payloads: u64,
}

/// The counters at one time.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    pulls: u64,
    pulled: u64,
    pull_us: u64,
    calls: u64,
    call_us: u64,
    ok: u64,
    failed: u64,
}

#[derive(Debug)]
struct History {
    minute: VecDeque<Sample>,
    hour: VecDeque<Sample>,
    taken: u32,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    totals: Totals,
}

impl Topics {
    /// The counters of a topic, as it is on the wire.
    pub(super) fn of(&self, topic: &Arc<str>, now: Instant) -> Arc<TopicCounts> {
        Arc::clone(self.lock().entry(Arc::clone(topic)).or_insert_with(|| Arc::new(TopicCounts::new(now))))
    }

    /// Notes down all counters.
    pub(super) fn sample(&self, now: Instant) {
        self.lock().values().for_each(|counts| counts.sample(now));
    }

    /// By the topic on the wire.
    pub(super) fn stats(&self, now: Instant) -> BTreeMap<Arc<str>, ConsumeStats> {
        self.lock().iter().map(|(topic, counts)| (Arc::clone(topic), counts.stats(now))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<TopicCounts>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TopicCounts {
    fn new(now: Instant) -> Self {
        let zero = Sample { at: now, totals: Totals::default() };
        let history = History { minute: [zero].into(), hour: [zero].into(), taken: 0 };
        Self {
            pulls: AtomicU64::new(0),
            pulled: AtomicU64::new(0),
            pull_us: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            call_us: AtomicU64::new(0),
            ok: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            bad_payloads: AtomicU64::new(0),
            history: Mutex::new(history),
        }
    }

    /// A pull brought so many messages.
    pub(super) fn count_pull(&self, messages: usize, took: Duration) {
        add(&self.pulls, 1);
        add(&self.pulled, messages as u64);
        add(&self.pull_us, took.as_micros() as u64);
    }

    pub(super) fn count_calls(&self, tally: Tally) {
        add(&self.calls, tally.calls);
        add(&self.call_us, tally.took.as_micros() as u64);
        add(&self.ok, tally.ok);
        add(&self.failed, tally.failed);
        add(&self.bad_payloads, tally.bad_payloads);
    }

    fn sample(&self, now: Instant) {
        let sample = Sample { at: now, totals: self.totals() };
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        keep(&mut history.minute, sample);
        history.taken += 1;
        if history.taken.is_multiple_of(HOUR_STEP) {
            keep(&mut history.hour, sample);
        }
    }

    fn stats(&self, now: Instant) -> ConsumeStats {
        let totals = self.totals();
        let (minute, hour) = {
            let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
            (history.minute.front().copied(), history.hour.front().copied())
        };
        let fallback = Sample { at: now, totals };
        let (minute, hour) = (minute.unwrap_or(fallback), hour.unwrap_or(fallback));
        let seconds = now.saturating_duration_since(minute.at).as_secs_f64();
        let tps = |amount: u64| if seconds > 0.0 { amount as f64 / seconds } else { 0.0 };
        let (recent, lately) = (totals.since(&minute.totals), totals.since(&hour.totals));
        let calls = if recent.calls > 0 { recent } else { lately };
        ConsumeStats {
            pulled: totals.pulled,
            ok: totals.ok,
            failed: totals.failed,
            bad_payloads: self.bad_payloads.load(Ordering::Relaxed),
            failed_last_hour: lately.failed,
            pull_rt: mean(recent.pull_us, recent.pulls),
            pull_tps: tps(recent.pulled),
            consume_rt: mean(calls.call_us, calls.calls),
            ok_tps: tps(recent.ok),
            failed_tps: tps(recent.failed),
        }
    }

    fn totals(&self) -> Totals {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            pulls: count(&self.pulls),
            pulled: count(&self.pulled),
            pull_us: count(&self.pull_us),
            calls: count(&self.calls),
            call_us: count(&self.call_us),
            ok: count(&self.ok),
            failed: count(&self.failed),
        }
    }
}

impl Totals {
    fn since(&self, earlier: &Self) -> Self {
        Self {
            pulls: self.pulls - earlier.pulls,
            pulled: self.pulled - earlier.pulled,
            pull_us: self.pull_us - earlier.pull_us,
            calls: self.calls - earlier.calls,
            call_us: self.call_us - earlier.call_us,
            ok: self.ok - earlier.ok,
            failed: self.failed - earlier.failed,
        }
    }
}

fn keep(samples: &mut VecDeque<Sample>, sample: Sample) {
    if samples.len() == SAMPLES {
        samples.pop_front();
    }
    samples.push_back(sample);
}

fn mean(sum_us: u64, count: u64) -> Duration {
    Duration::from_micros(sum_us.checked_div(count).unwrap_or_default())
}

fn add(counter: &AtomicU64, amount: u64) {
    if amount > 0 {
        counter.fetch_add(amount, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn handled(ok: u64, failed: u64, took: Duration) -> Tally {
        Tally { calls: ok + failed, took, ok, failed, bad_payloads: failed / 2 }
    }

    #[test]
    fn rates_are_those_of_the_last_minute_and_known_from_the_beginning() {
        let start = Instant::now();
        let counts = TopicCounts::new(start);
        counts.count_pull(30, Duration::from_millis(8));
        counts.count_pull(10, Duration::from_millis(4));
        counts.count_calls(handled(36, 4, 2 * SECOND));
        let stats = counts.stats(start + 4 * SECOND);
        assert_eq!((stats.pulled, stats.ok, stats.failed, stats.bad_payloads), (40, 36, 4, 2));
        assert_eq!((stats.pull_tps, stats.ok_tps, stats.failed_tps), (10.0, 9.0, 1.0));
        assert_eq!((stats.pull_rt.as_millis(), stats.consume_rt.as_millis()), (6, 50));

        for sample in 1..=20 {
            counts.sample(start + sample * SAMPLE_INTERVAL);
        }
        let stats = counts.stats(start + 200 * SECOND);
        assert_eq!((stats.pulled, stats.pull_tps, stats.ok_tps), (40, 0.0, 0.0), "long ago");
        assert_eq!((stats.consume_rt.as_millis(), stats.failed_last_hour), (50, 4), "within the hour");
        counts.count_calls(handled(60, 0, 60 * SECOND));
        let stats = counts.stats(start + 200 * SECOND);
        assert_eq!((stats.ok_tps, stats.consume_rt), (1.0, SECOND), "in the last minute");
    }

    #[test]
    fn what_was_more_than_an_hour_ago_counts_for_the_total_only() {
        let start = Instant::now();
        let counts = TopicCounts::new(start);
        counts.count_calls(handled(1, 1, SECOND));
        for sample in 1..=7 * HOUR_STEP {
            counts.sample(start + sample * SAMPLE_INTERVAL);
        }
        let stats = counts.stats(start + 7 * HOUR_STEP * SAMPLE_INTERVAL);
        assert_eq!((stats.ok, stats.failed, stats.failed_last_hour), (1, 1, 0));
        assert_eq!(stats.consume_rt, Duration::ZERO);
    }

    #[test]
    fn two_consumers_of_a_group_add_up() {
        let one = ConsumeStats { ok: 1, ok_tps: 1.0, consume_rt: SECOND, ..ConsumeStats::default() };
        let other = ConsumeStats { ok: 3, ok_tps: 3.0, consume_rt: 5 * SECOND, ..ConsumeStats::default() };
        let both = one.plus(other);
        assert_eq!((both.ok, both.ok_tps, both.consume_rt), (4, 4.0, 4 * SECOND));
        assert_eq!(ConsumeStats::default().plus(one).consume_rt, SECOND);
    }
}
