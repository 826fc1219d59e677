//! How a stop shares its time.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::ClientConfig;

/// Of the time of one request, one of this many parts is for what comes after the last messages were sent.
const PARTS: u32 = 3;

/// A stop, and what it has come to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stop {
    began: Instant,
    /// When all handlers had ended, or were given up.
    handled: Instant,
}

impl Stop {
    /// One that begins now, with no handler at work.
    pub(crate) fn begin() -> Self {
        let now = Instant::now();
        Self { began: now, handled: now }
    }

    /// No handler is at work any more.
    pub(crate) fn handled(self) -> Self {
        Self { handled: Instant::now(), ..self }
    }

    /// When it is to be over: within `shutdown_timeout`, and no sooner than one request takes.
    pub(crate) fn deadline(&self, config: &ClientConfig) -> Instant {
        (self.began + config.shutdown_timeout).max(self.handled + config.request_timeout)
    }

    /// How long may be waited, from now on, for messages that are on their way.
    pub(crate) fn time_for_sends(&self, config: &ClientConfig) -> Duration {
        let end = self.deadline(config) - config.request_timeout / PARTS;
        end.saturating_duration_since(Instant::now())
    }
}

/// How long handlers may go on after a stop signal: what follows has its time within `shutdown_timeout`, too, unless that is
/// very short.
pub(crate) fn time_for_handlers(config: &ClientConfig) -> Duration {
    let rest = config.shutdown_timeout.saturating_sub(config.request_timeout);
    rest.max(config.shutdown_timeout / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(shutdown: u64, request: u64) -> ClientConfig {
        ClientConfig {
            shutdown_timeout: Duration::from_secs(shutdown),
            request_timeout: Duration::from_secs(request),
            ..ClientConfig::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_the_handlers_has_the_time_of_a_request_within_that_of_the_stop() {
        let began = Instant::now();
        let stop = Stop::begin();
        for (shutdown, request, handlers) in [(30, 3, 27), (10, 3, 7), (4, 3, 2), (0, 3, 0)] {
            let config = config(shutdown, request);
            assert_eq!(time_for_handlers(&config), Duration::from_secs(handlers), "{shutdown} {request}");
            // They had all of it, or none.
            for took in [handlers, 0] {
                let handled = Stop { handled: began + Duration::from_secs(took), ..stop };
                let end = Duration::from_secs(shutdown.max(took + request));
                assert_eq!(handled.deadline(&config), began + end, "{shutdown} {request} {took}");
                assert_eq!(handled.time_for_sends(&config), end - Duration::from_secs(1));
            }
        }
    }
}
