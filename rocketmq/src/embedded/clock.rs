//! The time: one clock for deadlines and for what is written into messages, so that paused tests see one time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::clock::Clock;

/// A moment, as timers count it and as brokers write it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// For what messages wait for: it may have been moved forward.
    pub(super) instant: Instant,
    /// For what peers are waited for (their heartbeats, their locks, their pulls): it has not been moved.
    pub(super) unmoved: Instant,
    pub(super) unix_ms: i64,
}

impl Now {
    /// When it is `unmoved` by the clock that may have been moved, if nobody moves it meanwhile.
    pub(super) fn moved(&self, unmoved: Instant) -> Instant {
        unmoved + self.instant.saturating_duration_since(self.unmoved)
    }
}

/// The broker's clock, from the system's time at its start.
#[derive(Debug)]
pub(super) struct BrokerClock {
    clock: Clock,
    start: Instant,
    start_unix_ms: i64,
}

impl BrokerClock {
    /// Runs with `clock` from now on.
    pub(super) fn start(clock: Clock) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: clock.now(), start_unix_ms: since_1970.as_millis() as i64, clock }
    }

    pub(super) fn now(&self) -> Now {
        let (unmoved, ahead) = (Instant::now(), self.clock.ahead());
        let instant = unmoved + ahead;
        let elapsed = instant.saturating_duration_since(self.start);
        Now { instant, unmoved, unix_ms: self.start_unix_ms + elapsed.as_millis() as i64 }
    }

    pub(super) fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    pub(super) async fn sleep_until(&self, deadline: Instant) {
        self.clock.sleep_until(deadline).await;
    }
}
