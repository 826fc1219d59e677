//! How much may be on its way at the same time: by count and by bytes. What is on its way is also what a shutdown waits
//! for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{self, Instant};

use crate::config::ProducerConfig;

/// The limits of a producer, and what is left of them.
#[derive(Debug)]
pub(super) struct InFlight {
    messages: Limit,
    bytes: Limit,
    /// That wait for their replies, or are about to.
    requests: Limit,
}

#[derive(Debug)]
struct Limit {
    left: Arc<Semaphore>,
    max: u32,
}

/// Says that something is on its way, for as long as it lives.
#[derive(Debug)]
pub(super) struct OnItsWay {
    _messages: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl InFlight {
    pub(super) fn new(config: &ProducerConfig) -> Self {
        let bytes = u32::try_from(config.max_in_flight_bytes.as_u64()).unwrap_or(u32::MAX);
        Self {
            messages: Limit::new(config.max_in_flight),
            bytes: Limit::new(bytes),
            requests: Limit::new(config.max_requests),
        }
    }

    /// Waits until there is room for so much, until `deadline`; those who came first go first. What is larger than all
    /// there is goes alone.
    pub(super) async fn admit(&self, messages: usize, bytes: usize, deadline: Instant) -> Option<OnItsWay> {
        let _messages = self.messages.take(messages, deadline).await?;
        let _bytes = self.bytes.take(bytes, deadline).await?;
        Some(OnItsWay { _messages, _bytes })
    }

    /// Waits until there is room for a request, until `deadline`.
    pub(super) async fn admit_request(&self, deadline: Instant) -> Option<OwnedSemaphorePermit> {
        self.requests.take(1, deadline).await
    }

    /// Waits until nothing is on its way any more and no request waits, for at most `limit`; returns how many messages
    /// and requests still are.
    pub(super) async fn drained(&self, limit: Duration) -> usize {
        let deadline = Instant::now() + limit;
        self.requests.drained(deadline).await + self.messages.drained(deadline).await
    }
}

impl Limit {
    fn new(max: u32) -> Self {
        Self { left: Arc::new(Semaphore::new(max as usize)), max }
    }

    /// Waits until all of it is free; returns how much is not.
    async fn drained(&self, deadline: Instant) -> usize {
        match self.take(self.max as usize, deadline).await {
            Some(_) => 0,
            None => self.max as usize - self.left.available_permits(),
        }
    }

    async fn take(&self, amount: usize, deadline: Instant) -> Option<OwnedSemaphorePermit> {
        let amount = u32::try_from(amount).unwrap_or(u32::MAX).min(self.max);
        // The usual case, without a timer.
        if let Ok(permit) = Arc::clone(&self.left).try_acquire_many_owned(amount) {
            return Some(permit);
        }
        let waited = time::timeout_at(deadline, Arc::clone(&self.left).acquire_many_owned(amount)).await;
        // It is never closed. Whoever gets in with the last of its time could do nothing with it.
        waited.ok()?.ok().filter(|_| Instant::now() < deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ByteSize;

    fn in_flight(messages: u32, kib: u32) -> InFlight {
        let mut config = ProducerConfig::default();
        config.max_in_flight = messages;
        config.max_in_flight_bytes = ByteSize::kib(kib);
        InFlight::new(&config)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(10)
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_a_limit_the_next_waits_until_another_has_ended() {
        for (messages, kib, each) in [(2, 100, 1), (100, 2, 1024)] {
            let in_flight = in_flight(messages, kib);
            let first = in_flight.admit(1, each, soon()).await.unwrap();
            let _second = in_flight.admit(1, each, soon()).await.unwrap();
            assert!(in_flight.admit(1, each, soon()).await.is_none());
            drop(first);
            assert!(in_flight.admit(1, each, soon()).await.is_some());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_larger_than_all_there_is_goes_alone() {
        let in_flight = in_flight(10, 1);
        let large = in_flight.admit(1, 1 << 20, soon()).await.unwrap();
        assert!(in_flight.admit(1, 1, soon()).await.is_none());
        drop(large);
        assert!(in_flight.admit(1, 1, soon()).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn draining_counts_what_is_left() {
        let in_flight = in_flight(10, 1);
        let left = in_flight.admit(3, 1, soon()).await.unwrap();
        assert_eq!(in_flight.drained(Duration::from_secs(1)).await, 3);
        drop(left);
        assert_eq!(in_flight.drained(Duration::from_secs(1)).await, 0);
    }
}
