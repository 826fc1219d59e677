//! How fast a group's messages are handed over, where that has a limit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Rate;

/// Messages that were not handed over in time may follow at once for so long, but no more.
const BURST: Duration = Duration::from_millis(100);

/// Says when the next message may be handed over. Costs one look at a flag where there is no limit.
#[derive(Debug)]
pub(super) struct RateLimit {
    is_set: AtomicBool,
    pace: Mutex<Pace>,
}

/// The time at which each message is due, one interval after the one before: a token bucket, counted in time.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Pace {
    /// Between two messages; zero where there is no limit.
    interval: Duration,
    /// When the next one is due.
    next: Instant,
}

impl RateLimit {
    pub(super) fn new(rate: Option<Rate>) -> Self {
        let limit = Self {
            is_set: AtomicBool::new(false),
            pace: Mutex::new(Pace::new(Duration::ZERO, Instant::now())),
        };
        limit.set(rate);
        limit
    }

    /// Changes the limit, from now on.
    pub(super) fn set(&self, rate: Option<Rate>) {
        let interval = rate.map(Rate::interval).unwrap_or_default();
        *self.lock() = Pace::new(interval, Instant::now());
        self.is_set.store(rate.is_some(), Ordering::Release);
    }

    /// Whether there is a limit.
    pub(super) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }

    /// `None`: a message may be handed over, and is counted. Else when to ask again.
    pub(super) fn admit(&self) -> Option<Instant> {
        if !self.is_set() {
            return None;
        }
        self.lock().admit(Instant::now()).err()
    }

    /// Counts so many more messages than those that were admitted; a batch is handed over as a whole.
    pub(super) fn count_more(&self, messages: usize) {
        if messages > 0 && self.is_set() {
            self.lock().count(messages);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pace {
    fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, next: now }
    }

    fn admit(&mut self, now: Instant) -> Result<(), Instant> {
        if now < self.next {
            return Err(self.next);
        }
        // What nobody wanted is not saved up.
        let oldest = now.checked_sub(BURST.max(self.interval)).unwrap_or(now);
        self.next = self.next.max(oldest) + self.interval;
        Ok(())
    }

    fn count(&mut self, messages: usize) {
        let messages = u32::try_from(messages).unwrap_or(u32::MAX);
        self.next += self.interval.saturating_mul(messages);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    /// How many are admitted in a time that begins now.
    fn admitted(pace: &mut Pace, mut now: Instant, time: Duration) -> u32 {
        let end = now + time;
        let mut count = 0;
        while now < end {
            match pace.admit(now) {
                Ok(()) => count += 1,
                Err(next) => now = next,
            }
        }
        count
    }

    #[test]
    fn no_more_than_the_rate_and_a_short_burst_are_admitted() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(Duration::from_millis(10), start);
        assert_eq!(admitted(&mut pace, start, second), 100);
        // Nothing for a minute, then a tenth of a second's at once.
        assert_eq!(admitted(&mut pace, start + second * 60, second), 110);
    }

    #[test]
    fn a_batch_is_paid_for_afterwards() {
        let start = Instant::now();
        let mut pace = Pace::new(Duration::from_millis(100), start);
        assert_eq!(pace.admit(start), Ok(()));
        pace.count(9);
        assert_eq!(pace.admit(start), Err(start + Duration::from_secs(1)));
    }

    #[tokio::test]
    async fn a_limit_may_come_and_go() {
        let limit = RateLimit::new(None);
        assert!((0..1_000).all(|_| limit.admit().is_none()));
        limit.set(Some(Rate::per_hour(NonZeroU32::MIN)));
        assert!(limit.admit().is_none() && limit.admit().is_some());
        limit.set(None);
        limit.count_more(9);
        assert!((0..1_000).all(|_| limit.admit().is_none()));
    }
}
