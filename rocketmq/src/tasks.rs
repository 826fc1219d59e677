//! Tasks with an owner: every task of the library is started here, watched here, and ended by one cancellation.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{Instrument, debug_span, error};

/// How long a task that ended by panic stays down before it is started again.
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// A future in a box, which keeps the time down that a build takes, here and in the programs of users.
///
/// An `async fn` is compiled where it is polled, with all that it awaits: whatever is public and long would be compiled
/// again in each crate that awaits it, and each kind of future that is spawned has code of its own in tokio. A plain function
/// that returns a box ends both.
pub(crate) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The tasks of one owner.
///
/// Cheap to clone. [`Tasks::child`] makes a set that its parent's end also ends, so that a consumer can stop alone
/// and a client stops all of its consumers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
}

impl Tasks {
    pub(crate) fn child(&self) -> Self {
        Self { tracker: TaskTracker::new(), stopping: self.stopping.child_token() }
    }

    /// Cancelled once the owner wants its tasks to end.
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Starts a task that ends by itself. A panic is reported and ends this task alone.
    pub(crate) fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let future: Boxed<'static, ()> = Box::pin(future);
        self.spawn_unboxed(name, future);
    }

    /// The same without the box, for what is started with every message.
    #[expect(clippy::disallowed_methods, reason = "the one place that may: what is started here is tracked")]
    pub(crate) fn spawn_unboxed(
        &self,
        name: &'static str,
        future: impl Future<Output = ()> + Send + 'static,
    ) {
        tokio::spawn(self.tracker.track_future(async move {
            if let Err(reason) = catch_panic(future).await {
                error!(task = name, reason, "a task panicked");
            }
        }));
    }

    /// Starts a task that is to run until the owner stops; after a panic it is reported and started again.
    pub(crate) fn spawn_lasting<F>(&self, name: &'static str, mut make: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.start_lasting(name, Box::new(move || Box::pin(make())));
    }

    #[expect(clippy::disallowed_methods, reason = "the other place that may")]
    fn start_lasting(&self, name: &'static str, mut make: Box<dyn FnMut() -> Boxed<'static, ()> + Send>) {
        let stopping = self.stopping.clone();
        let watched = async move {
            while let Err(reason) = catch_panic(make()).await {
                error!(task = name, reason, restart_in = ?RESTART_DELAY, "a task panicked and will be started again");
                tokio::select! {
                    () = stopping.cancelled() => return,
                    () = time::sleep(RESTART_DELAY) => {}
                }
            }
        };
        tokio::spawn(self.tracker.track_future(watched.instrument(debug_span!("task", name))));
    }

    /// Does `work` every `period`, for the first time after one, until the owner stops. What has begun then is finished.
    pub(crate) fn spawn_periodic<F>(
        &self,
        name: &'static str,
        period: Duration,
        work: impl Fn() -> F + Clone + Send + 'static,
    ) where
        F: Future<Output = ()> + Send,
    {
        let stopping = self.stopping.clone();
        self.spawn_lasting(name, move || {
            let (stopping, work) = (stopping.clone(), work.clone());
            async move {
                loop {
                    tokio::select! {
                        () = stopping.cancelled() => return,
                        () = time::sleep(period) => work().await,
                    }
                }
            }
        });
    }

    /// Counts as a task for as long as it lives.
    pub(crate) fn token(&self) -> TaskTrackerToken {
        self.tracker.token()
    }

    /// Asks all tasks to end, without waiting for them.
    pub(crate) fn cancel(&self) {
        self.stopping.cancel();
    }

    /// Waits until all tasks have ended, for at most `limit`; returns how many have not.
    pub(crate) async fn join(&self, limit: Duration) -> usize {
        self.tracker.close();
        // Whether it was in time shows in the number that is left.
        let _ = time::timeout(limit, self.tracker.wait()).await;
        self.tracker.len()
    }
}

/// Runs `future`, turning a panic into its message.
pub(crate) async fn catch_panic<F: Future>(future: F) -> Result<F::Output, String> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(panic) => Poll::Ready(Err(panic_message(panic.as_ref()))),
    })
    .await
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lasting_task_is_started_again_after_a_panic() {
        let tasks = Tasks::default();
        let starts = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&starts);
        tasks.spawn_lasting("test", move || {
            let start = count.fetch_add(1, Ordering::Relaxed);
            async move { assert!(start >= 2, "not yet") }
        });
        assert_eq!(tasks.join(Duration::from_secs(10)).await, 0);
        assert_eq!(starts.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_in_time_is_counted() {
        let tasks = Tasks::default();
        tasks.spawn("stuck", std::future::pending());
        let stopping = tasks.child().stopping().clone();
        tasks.cancel();
        assert!(stopping.is_cancelled());
        assert_eq!(tasks.join(Duration::from_secs(1)).await, 1);
    }
}
