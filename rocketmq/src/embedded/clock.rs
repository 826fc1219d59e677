//! The time: one clock for deadlines and for what is written into messages, so that paused tests see one time.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A moment, as timers count it and as brokers write it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) instant: Instant,
    pub(super) unix_ms: i64,
}

/// Runs with the runtime's clock, from the system's time at its start.
#[derive(Debug)]
pub(super) struct Clock(Now);

impl Clock {
    pub(super) fn start() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(Now { instant: Instant::now(), unix_ms: since_1970.as_millis() as i64 })
    }

    pub(super) fn now(&self) -> Now {
        let instant = Instant::now();
        let elapsed = instant.saturating_duration_since(self.0.instant);
        Now { instant, unix_ms: self.0.unix_ms + elapsed.as_millis() as i64 }
    }
}
