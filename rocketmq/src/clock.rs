//! The time by which messages wait: that of the runtime, or one that a test moves forward.
//!
//! What a message waits for runs by this clock: delays, retries, `consume_timeout`, the pauses of a queue. What only the
//! wire waits for (connections, answers, heartbeats, locks) does not: the peer is really there, and no test should lose
//! it by moving its clock. That is also why this is not tokio's paused time, which moves all of them, and moves by itself
//! whenever the runtime has nothing to do: as it does whenever a socket is about to become readable.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{self, Instant};

/// A clock; a clone shows the same time. The default one is that of the runtime, and cannot be moved.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clock(Option<Arc<Movable>>);

#[derive(Debug)]
struct Movable {
    /// How far it is ahead of the runtime's clock.
    ahead: watch::Sender<Duration>,
    /// When those will wake who sleep by it, by their numbers.
    sleepers: Mutex<BTreeMap<u64, Instant>>,
    next_sleeper: AtomicU64,
}

#[cfg_attr(not(feature = "embedded"), allow(dead_code, reason = "it is moved where there is a server"))]
impl Clock {
    /// A clock that can be moved forward.
    pub(crate) fn movable() -> Self {
        Self(Some(Arc::new(Movable {
            ahead: watch::Sender::new(Duration::ZERO),
            sleepers: Mutex::default(),
            next_sleeper: AtomicU64::new(0),
        })))
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::now() + self.ahead()
    }

    /// How far it was moved.
    pub(crate) fn ahead(&self) -> Duration {
        self.0.as_ref().map_or(Duration::ZERO, |movable| *movable.ahead.borrow())
    }

    /// Moves it forward, and wakes those whose time has come. A clock that cannot be moved stays as it is.
    pub(crate) fn advance(&self, by: Duration) {
        if let Some(movable) = &self.0 {
            movable.ahead.send_modify(|ahead| *ahead = ahead.saturating_add(by).min(MAX_AHEAD));
        }
    }

    /// When the next of those will wake who sleep by it and [can be waited for](Self::sleep).
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        self.0.as_ref()?.sleepers().values().min().copied()
    }

    pub(crate) async fn sleep(&self, duration: Duration) {
        let Some(movable) = &self.0 else { return time::sleep(duration).await };
        let deadline = self.now() + duration.min(MAX_AHEAD);
        let _sleeper = Sleeper::new(movable, deadline);
        movable.sleep_until(deadline).await;
    }

    /// The same until a time; [`next_wake`](Self::next_wake) does not tell of it.
    pub(crate) async fn sleep_until(&self, deadline: Instant) {
        match &self.0 {
            Some(movable) => movable.sleep_until(deadline).await,
            None => time::sleep_until(deadline).await,
        }
    }

    /// What comes of `future`, if that is within `limit`.
    pub(crate) async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        if self.0.is_none() {
            return time::timeout(limit, future).await.ok();
        }
        let mut future = pin!(future);
        tokio::select! {
            biased;
            output = &mut future => Some(output),
            () = self.sleep(limit) => None,
        }
    }
}

/// Further no clock is moved: instants are not endless.
const MAX_AHEAD: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

impl Movable {
    async fn sleep_until(&self, deadline: Instant) {
        let mut ahead = self.ahead.subscribe();
        loop {
            let now = Instant::now() + *ahead.borrow_and_update();
            let left = deadline.saturating_duration_since(now);
            tokio::select! {
                () = time::sleep(left) => return,
                // The sender is here, so that it can only have changed.
                _ = ahead.changed() => {}
            }
        }
    }

    fn sleepers(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who sleeps, for as long as that lasts.
struct Sleeper<'a> {
    movable: &'a Movable,
    number: u64,
}

impl<'a> Sleeper<'a> {
    fn new(movable: &'a Movable, deadline: Instant) -> Self {
        let number = movable.next_sleeper.fetch_add(1, Ordering::Relaxed);
        movable.sleepers().insert(number, deadline);
        Self { movable, number }
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.movable.sleepers().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn whoever_sleeps_wakes_when_the_clock_is_moved() {
        let clock = Clock::movable();
        let (sleeping, start) = (clock.clone(), Instant::now());
        let sleeper =
            async move { tokio::join!(sleeping.sleep(HOUR), sleeping.timeout(HOUR, pending::<()>())).1 };
        let moves = async {
            tokio::task::yield_now().await;
            assert!(clock.next_wake().is_some_and(|wake| HOUR / 2 < wake - start));
            clock.advance(HOUR / 2);
            tokio::task::yield_now().await;
            clock.advance(HOUR / 2);
        };
        assert_eq!(tokio::join!(sleeper, moves).0, None);
        assert!(start.elapsed() < HOUR / 2 && HOUR <= clock.now() - start);
        assert_eq!(clock.next_wake(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn without_being_moved_it_runs_with_the_runtime() {
        for clock in [Clock::default(), Clock::movable()] {
            let start = Instant::now();
            clock.sleep(HOUR).await;
            clock.sleep_until(start + HOUR * 2).await;
            assert_eq!(clock.timeout(HOUR, pending::<()>()).await, None);
            assert_eq!(clock.timeout(HOUR, async { 7 }).await, Some(7));
            assert!(HOUR * 3 <= start.elapsed() && start.elapsed() < HOUR * 4, "{:?}", start.elapsed());
        }
    }
}
