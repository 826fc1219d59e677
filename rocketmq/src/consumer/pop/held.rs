//! Messages that this member has, and that nobody else may see meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{self, Instant};
use tracing::{debug, warn};

use super::queue::PopQueue;
use crate::consumer::Shared;
use crate::listener::Handler;
use crate::message::MessageExt;
use crate::protocol::ResponseCode;
use crate::protocol::pop::PopHandle;
use crate::remoting::RequestError;

/// A request about a message is tried so often in all.
const ATTEMPTS: u32 = 5;
/// Before the second attempt; twice as long before each further one, up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// After a prolongation that failed.
const RENEW_AGAIN: Duration = Duration::from_millis(500);
/// What is given back is to be seen by others at once; less than this is no time for a broker.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A message that was popped.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) message: MessageExt,
    /// The listener that it is for.
    pub(super) listener: Handler,
    pub(super) lease: Lease,
}

/// For how long a message is ours.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    pub(super) handle: PopHandle,
    /// Others see the message from then on.
    ends: Instant,
    /// When that is to be put off; never again for one that was lost.
    renew_at: Option<Instant>,
}

impl Lease {
    /// For a message that came at `now`, and that others do not see for `time`.
    pub(super) fn new(handle: PopHandle, now: Instant, time: Duration) -> Self {
        Self { handle, ends: now + time, renew_at: Some(now + time / 2) }
    }

    pub(super) fn renew_at(&self) -> Option<Instant> {
        self.renew_at
    }

    fn is_due(&self, now: Instant) -> bool {
        self.renew_at.is_some_and(|time| time <= now)
    }

    /// Whether the message is still ours.
    pub(super) fn is_ours(&self, now: Instant) -> bool {
        now < self.ends
    }

    /// The broker did not answer: there may be time for another attempt.
    fn postpone(&mut self, now: Instant) {
        let again = now + RENEW_AGAIN;
        self.renew_at = (again < self.ends).then_some(again);
    }

    fn lose(&mut self, now: Instant) {
        self.ends = now;
        self.renew_at = None;
    }
}

/// What has come of putting off the end of a lease.
pub(super) type Renewed = Vec<(usize, Lease)>;

impl Shared {
    /// Puts off the end of those of `leases` for which it is time; returns them with their places.
    pub(super) async fn renew(self: Arc<Self>, queue: Arc<PopQueue>, leases: Vec<Lease>) -> Renewed {
        let now = Instant::now();
        let mut calls = JoinSet::new();
        for (at, lease) in leases.into_iter().enumerate().filter(|(_, lease)| lease.is_due(now)) {
            let (shared, queue) = (Arc::clone(&self), Arc::clone(&queue));
            calls.spawn(async move { (at, shared.renew_one(&queue, lease).await) });
        }
        let mut renewed = Vec::new();
        while let Some(done) = calls.join_next().await {
            renewed.extend(done);
        }
        renewed
    }

    async fn renew_one(&self, queue: &PopQueue, mut lease: Lease) -> Lease {
        let (asked_at, time) = (Instant::now(), self.config.pop.invisible_time);
        match self.client.change_invisible_time(&self.group, &queue.queue, &lease.handle, time).await {
            Ok(handle) => {
                debug!(group = %self.group, queue = %queue.queue, offset = handle.queue_offset, ?time, "a handler takes its time, its message stays invisible to others");
                return Lease::new(handle, asked_at, time);
            }
            Err(error) => {
                let now = Instant::now();
                if is_gone(&error) {
                    lease.lose(now);
                } else {
                    lease.postpone(now);
                }
                if lease.renew_at.is_none() {
                    warn!(group = %self.group, queue = %queue.queue, offset = lease.handle.queue_offset, %error, "a message that is being handled could not be kept from others, it will be delivered again");
                }
            }
        }
        lease
    }

    /// Makes a message visible to others after `time`; tells whether the broker knows.
    pub(super) async fn release_popped(&self, queue: &PopQueue, lease: &Lease, time: Duration) -> bool {
        let mut patience = Patience::new();
        let changed = loop {
            let changed =
                self.client.change_invisible_time(&self.group, &queue.queue, &lease.handle, time).await;
            if !patience.lasts(&changed).await {
                break changed;
            }
        };
        match changed {
            Ok(_) => true,
            Err(error) => {
                warn!(group = %self.group, queue = %queue.queue, offset = lease.handle.queue_offset, %error, "the broker did not hear when a message shall come again: it will come once its invisible time is over");
                false
            }
        }
    }

    /// Lets others have messages that no handler has seen.
    pub(super) async fn give_back(self: Arc<Self>, queue: Arc<PopQueue>, leases: Vec<Lease>) {
        let count = leases.len();
        if count == 0 {
            return;
        }
        debug!(group = %self.group, queue = %queue.queue, count, "messages that were not handled are given back");
        let mut calls = JoinSet::new();
        for lease in leases {
            let (shared, queue) = (Arc::clone(&self), Arc::clone(&queue));
            calls.spawn(async move { shared.release_popped(&queue, &lease, AT_ONCE).await });
        }
        while calls.join_next().await.is_some() {}
        queue.settled(count);
    }
}

/// The broker has no such message any more, or never had.
pub(super) fn is_gone(error: &RequestError) -> bool {
    matches!(
        error.response_code(),
        Some(ResponseCode::NO_MESSAGE | ResponseCode::TOPIC_NOT_EXIST | ResponseCode::MESSAGE_ILLEGAL)
    )
}

/// How often a request about a message is tried again, and how soon.
#[derive(Debug)]
pub(super) struct Patience {
    left: u32,
    pause: Duration,
    /// A broker that is away is waited for until then, however often that is.
    until: Option<Instant>,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { left: ATTEMPTS - 1, pause: FIRST_PAUSE, until: None }
    }

    /// The same, but a broker that is away, as one is that is restarted, gets so long to come back.
    pub(super) fn lasting(time: Duration) -> Self {
        Self { until: Some(Instant::now() + time), ..Self::new() }
    }

    /// Whether to ask once more after this answer; if so, it has been waited for that.
    pub(super) async fn lasts<T>(&mut self, answered: &Result<T, RequestError>) -> bool {
        let Err(error) = answered else { return false };
        let is_away =
            error.response_code().is_none() && self.until.is_some_and(|until| Instant::now() < until);
        if !error.is_retryable() || is_gone(error) || self.left == 0 && !is_away {
            return false;
        }
        time::sleep(self.pause).await;
        self.left = self.left.saturating_sub(1);
        self.pause = (self.pause * 2).min(LAST_PAUSE);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::RequestCode;
    use crate::remoting::Address;

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_renewed_at_half_of_its_time_and_no_more_once_it_is_over() {
        let handle: PopHandle = "1 2 3 4 0 b 5 6".parse().unwrap();
        let (start, time) = (Instant::now(), Duration::from_secs(10));
        let mut lease = Lease::new(handle, start, time);
        for (after, due, ours) in [(4, false, true), (5, true, true), (9, true, true), (10, true, false)] {
            let now = start + Duration::from_secs(after);
            assert_eq!((lease.is_due(now), lease.is_ours(now)), (due, ours), "after {after}s");
        }
        lease.postpone(start + Duration::from_secs(5));
        assert!(
            !lease.is_due(start + Duration::from_secs(5)) && lease.is_due(start + Duration::from_secs(6))
        );
        lease.postpone(start + Duration::from_millis(9_600));
        assert_eq!(lease.renew_at(), None);
        let mut lost = Lease::new(lease.handle, start, time);
        lost.lose(start);
        assert!(!lost.is_ours(start) && lost.renew_at().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_is_away_is_waited_for_and_one_that_refuses_is_asked_a_few_times() {
        let (address, code): (Address, _) = ("b:1".into(), RequestCode::ACK_MESSAGE);
        let away =
            RequestError::TimedOut { address: Arc::clone(&address), code, limit: Duration::from_secs(3) };
        let refused = |response| RequestError::Refused {
            address: Arc::clone(&address),
            code,
            response,
            remark: String::new(),
        };
        let minute = Duration::from_secs(60);
        for (error, patience, at_least, at_most) in [
            (away.clone(), Patience::lasting(minute), minute, minute + LAST_PAUSE),
            (away, Patience::new(), Duration::from_secs(1), Duration::from_secs(2)),
            (
                refused(ResponseCode::SYSTEM_BUSY),
                Patience::lasting(minute),
                Duration::from_secs(1),
                Duration::from_secs(2),
            ),
            (refused(ResponseCode::NO_MESSAGE), Patience::lasting(minute), Duration::ZERO, Duration::ZERO),
        ] {
            let (mut patience, began, told) = (patience, Instant::now(), error.to_string());
            let answered: Result<(), _> = Err(error);
            while patience.lasts(&answered).await {}
            let waited = began.elapsed();
            assert!((at_least..=at_most).contains(&waited), "{told}: {waited:?}");
        }
    }
}
