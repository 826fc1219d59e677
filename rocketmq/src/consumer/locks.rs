//! The brokers' locks, without which no queue is consumed in order, and how they are kept.
//!
//! A broker gives the lock of a queue to one member of a group, for 60 seconds at a time. A member asks for it before
//! it takes the queue, renews it while it has the queue, relies on it for half of that time, and frees it once the last
//! handler of the queue has ended and the offset is stored: so the next member begins where this one stopped. Source:
//! `behaviour.md` sections 3.4 and 3.8 "Orderly", `protocol.md` section 2.7.
//!
//! A member of a broadcast group grants itself the locks of all queues, and no broker is asked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::Shared;
use super::queue::OwnedQueue;
use crate::message::MessageQueue;
use crate::remoting::RequestError;
use crate::tasks::Tasks;

/// How often locks are renewed.
const RENEW_INTERVAL: Duration = Duration::from_secs(20);
/// How soon again after a broker did not answer.
const RENEW_AGAIN: Duration = Duration::from_secs(3);
/// Between two renewals at least, however often they are asked for.
const MIN_INTERVAL: Duration = Duration::from_millis(200);
/// How long after the last renewal a lock is relied on: half of the time for which the broker keeps it.
const LOCK_LIFE: Duration = Duration::from_secs(30);

/// What a consumer has that consumes in order.
#[derive(Debug)]
pub(super) struct Order {
    /// The queues whose lock is ours, may be, or is asked for: those that are owned, and those that were given up and
    /// whose last handler has not ended. None of them is taken anew.
    locked: Mutex<HashMap<MessageQueue, Arc<OwnedQueue>>>,
    /// Asks for a renewal.
    wake: Notify,
    /// Held while a broker is asked for locks or to free some: it works on the requests of a connection in any order,
    /// and a lock that is granted after it was freed is nobody's for a minute.
    turns: Mutex<HashMap<Arc<str>, Arc<AsyncMutex<()>>>>,
    /// What renews the locks, and what asks brokers; they outlive the last handler.
    pub(super) tasks: Tasks,
}

/// What a queue has that is consumed in order.
#[derive(Debug)]
pub(crate) struct QueueOrder {
    pub(super) lock: QueueLock,
    /// Tells the worker that there may be something to do: messages came, or the lock did.
    pub(super) woken: Notify,
    /// Holds the worker as long as it lives; without it no handler of the queue runs.
    pub(super) worker: TaskTracker,
}

impl QueueOrder {
    pub(super) fn new() -> Self {
        let worker = TaskTracker::new();
        // Waiting for it then means: until it is empty.
        worker.close();
        Self { lock: QueueLock::default(), woken: Notify::new(), worker }
    }
}

/// What is known of the lock of a queue.
#[derive(Debug, Default)]
pub(super) struct QueueLock {
    /// When the last request was made that the broker granted; `None` where the lock is not ours.
    renewed: Mutex<Option<Instant>>,
}

impl QueueLock {
    /// Whether the queue may be pulled and handled at `now`.
    pub(super) fn is_valid(&self, now: Instant) -> bool {
        self.renewed().is_some_and(|renewed| now.saturating_duration_since(renewed) <= LOCK_LIFE)
    }

    /// When the last request was made that the broker granted, if the lock is ours.
    pub(super) fn renewed_at(&self) -> Option<Instant> {
        *self.renewed()
    }

    /// Whether the lock was ours, though perhaps too long ago to rely on it.
    fn was_ours(&self) -> bool {
        self.renewed().is_some()
    }

    /// The broker granted what was asked for at `asked_at`: its own clock began to run later.
    pub(super) fn renew(&self, asked_at: Instant) {
        *self.renewed() = Some(asked_at);
    }

    fn lose(&self) {
        *self.renewed() = None;
    }

    fn renewed(&self) -> MutexGuard<'_, Option<Instant>> {
        self.renewed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an answer of the broker means for a queue whose lock was ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Renewal {
    /// It was ours all the time.
    Kept,
    /// It is ours again; meanwhile another member may have had it.
    Regained,
    /// Another member has it.
    Lost,
}

impl Renewal {
    fn of(is_granted: bool, was_valid: bool) -> Self {
        match (is_granted, was_valid) {
            (true, true) => Self::Kept,
            (true, false) => Self::Regained,
            (false, _) => Self::Lost,
        }
    }
}

/// Whether what is held of a queue may still be handled after another member could have had the queue: not if the
/// group went further meanwhile than this member did.
fn is_current(ours: Option<i64>, stored: Option<i64>) -> bool {
    ours.is_some_and(|ours| stored.unwrap_or_default() <= ours)
}

/// What one broker said of the locks of its queues.
struct Answer {
    queues: Vec<Arc<OwnedQueue>>,
    asked_at: Instant,
    granted: Result<HashSet<MessageQueue>, RequestError>,
}

impl Order {
    pub(super) fn new(tasks: Tasks) -> Self {
        Self { locked: Mutex::default(), wake: Notify::new(), turns: Mutex::default(), tasks }
    }

    /// Asks for a renewal soon: the broker may have forgotten the locks.
    pub(super) fn renew_soon(&self) {
        self.wake.notify_one();
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<MessageQueue, Arc<OwnedQueue>>> {
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queues whose lock is ours, may be, or is asked for.
    pub(super) fn claimed(&self) -> Vec<Arc<OwnedQueue>> {
        self.locked().values().cloned().collect()
    }

    /// Whose turn it is at a broker.
    fn turn(&self, broker: &Arc<str>) -> Arc<AsyncMutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(Arc::clone(broker)).or_default())
    }
}

impl Shared {
    /// Starts what renews the locks.
    pub(super) fn keep_locks(self: &Arc<Self>) {
        let Some(order) = &self.order else { return };
        let stopping = order.tasks.stopping().clone();
        let shared = Arc::clone(self);
        order.tasks.spawn_lasting("locks", move || {
            let (shared, stopping) = (Arc::clone(&shared), stopping.clone());
            // Its end at any point is no harm: it leaves the asking to others.
            async move {
                let _ = stopping.run_until_cancelled(shared.renew_again_and_again()).await;
            }
        });
    }

    async fn renew_again_and_again(self: Arc<Self>) {
        let Some(order) = &self.order else { return };
        let mut works = true;
        loop {
            let wait = if works { RENEW_INTERVAL } else { RENEW_AGAIN };
            time::sleep(MIN_INTERVAL).await;
            tokio::select! {
                () = time::sleep(wait.saturating_sub(MIN_INTERVAL)) => {}
                () = order.wake.notified() => {}
            }
            let worked = std::mem::replace(&mut works, self.renew_locks(order).await);
            if worked && !works {
                warn!(group = %self.group, pause_after = ?LOCK_LIFE, "locks cannot be renewed, it is tried until it works; without them, queues pause");
            }
        }
    }

    /// Renews every lock; whether everything could be found out.
    async fn renew_locks(self: &Arc<Self>, order: &Order) -> bool {
        let is_held = |owned: &OwnedQueue| owned.order.as_ref().is_some_and(|order| order.lock.was_ours());
        let mut regained = Vec::new();
        let mut complete = true;
        for answer in self.ask_for_locks(order, order.claimed(), is_held).await {
            let (Ok(granted), asked_at) = (answer.granted, answer.asked_at) else {
                complete = false;
                continue;
            };
            for owned in answer.queues {
                let Some(QueueOrder { lock, .. }) = &owned.order else { continue };
                match Renewal::of(granted.contains(owned.queue.as_ref()), lock.is_valid(asked_at)) {
                    Renewal::Kept => owned.renew_lock(asked_at),
                    Renewal::Regained => regained.push((owned, asked_at)),
                    Renewal::Lost => self.lose(&owned),
                }
            }
        }
        for (owned, asked_at) in regained {
            // Also where another broker is still away.
            complete &= self.go_on(&owned, asked_at).await;
        }
        complete
    }

    /// Goes on with a queue whose lock was not renewed in time, unless another member has consumed it meanwhile; whether
    /// that could be found out.
    async fn go_on(self: &Arc<Self>, owned: &Arc<OwnedQueue>, asked_at: Instant) -> bool {
        let (group, queue) = (&self.group, &owned.queue);
        match self.offsets.read(queue).await {
            Ok(stored) if is_current(owned.offset(), stored) => {
                info!(%group, %queue, "the lock of the queue is back, it goes on");
                owned.renew_lock(asked_at);
                true
            }
            Ok(_) => {
                self.lose(owned);
                true
            }
            Err(error) => {
                debug!(%group, %queue, %error, "it is not known how far the group is by now, the queue goes on waiting");
                false
            }
        }
    }

    /// Another member has the queue, or had it: what is held of it here counts no more.
    fn lose(self: &Arc<Self>, owned: &Arc<OwnedQueue>) {
        warn!(group = %self.group, queue = %owned.queue, "the lock of the queue went to another member, which gets again what was not stored");
        if let Some(order) = &owned.order {
            order.lock.lose();
        }
        self.give_up(owned);
    }

    /// Asks for the locks of `queues`, none of which is owned; returns those that may be taken now.
    pub(super) async fn lock_new(&self, order: &Order, queues: Vec<MessageQueue>) -> Vec<Arc<OwnedQueue>> {
        let mut asked = self.claim(order, queues);
        let mut locked = Vec::new();
        for answer in self.ask_for_locks(order, asked.values().cloned().collect(), |_| true).await {
            for queue in answer.granted.into_iter().flatten() {
                let Some(owned) = asked.remove(&queue) else { continue };
                owned.renew_lock(answer.asked_at);
                locked.push(owned);
            }
        }
        for refused in asked.keys() {
            debug!(group = %self.group, queue = %refused, "the queue could not be locked");
            order.locked().remove(refused);
        }
        locked
    }

    /// Notes that the locks of `queues` are asked for, but for those that have been given up and are not free yet.
    fn claim(&self, order: &Order, queues: Vec<MessageQueue>) -> HashMap<MessageQueue, Arc<OwnedQueue>> {
        let mut locked = order.locked();
        let free = queues.into_iter().filter(|queue| !locked.contains_key(queue));
        let claimed: HashMap<_, _> = free.map(|queue| (queue.clone(), self.new_queue(&queue))).collect();
        locked.extend(claimed.iter().map(|(queue, owned)| (queue.clone(), Arc::clone(owned))));
        claimed
    }

    /// Asks every broker for the locks of those of its queues that are wanted when it is our turn, all at the same time. Once
    /// asked, the turn lasts until it has answered, even where nobody waits for that any more.
    async fn ask_for_locks(
        &self,
        order: &Order,
        queues: Vec<Arc<OwnedQueue>>,
        is_wanted: fn(&OwnedQueue) -> bool,
    ) -> Vec<Answer> {
        if queues.is_empty() {
            return Vec::new();
        }
        let asking = CancellationToken::new();
        let mut calls = JoinSet::new();
        for (broker, mut queues) in by_broker(queues, |owned| &owned.queue) {
            let (client, group) = (Arc::clone(&self.client), Arc::clone(&self.group));
            let (turn, given_up) = (order.turn(&broker), asking.clone());
            let is_ours_anyway = self.offsets.is_local();
            calls.spawn(async move {
                let _turn = given_up.run_until_cancelled(turn.lock()).await?;
                // Not before it is our turn: a lock may have been freed until now.
                queues.retain(|owned| is_wanted(owned));
                let asked: Vec<_> = queues.iter().map(|owned| owned.queue.as_ref().clone()).collect();
                let asked_at = Instant::now();
                if is_ours_anyway || asked.is_empty() {
                    return Some(Answer { queues, asked_at, granted: Ok(asked.into_iter().collect()) });
                }
                let granted = client.lock_queues(&group, &broker, asked).await;
                if let Err(error) = &granted {
                    debug!(%group, %broker, queues = queues.len(), %error, "the broker did not say which queues it locks, it is asked again");
                }
                Some(Answer { queues, asked_at, granted: granted.map(HashSet::from_iter) })
            });
        }
        let (sender, answers) = oneshot::channel();
        order.tasks.spawn("ask for locks", async move {
            let mut answers = Vec::new();
            while let Some(answer) = calls.join_next().await {
                answers.extend(answer.ok().flatten());
            }
            // The consumer may have been stopped meanwhile.
            let _ = sender.send(answers);
        });
        let _given_up = asking.drop_guard();
        answers.await.unwrap_or_default()
    }

    /// Lets go of a queue, which stays locked until its last handler has ended and its offset is stored.
    pub(super) fn leave(self: &Arc<Self>, owned: &Arc<OwnedQueue>) {
        if self.forget(owned) {
            let (shared, owned) = (Arc::clone(self), Arc::clone(owned));
            let releases = self.releases.at(&owned.queue.broker_name);
            releases.spawn("release", async move { shared.depart(&owned).await });
        }
    }

    /// Frees the lock of a queue that is given up, once its last handler has ended and its offset is stored.
    async fn depart(&self, owned: &OwnedQueue) {
        let (Some(order), Some(QueueOrder { worker, .. })) = (&self.order, &owned.order) else { return };
        // One that was dropped may be another member's by now.
        if !owned.is_dropped() {
            self.persist_last(owned).await;
        }
        // A handler that does not end keeps the lock until that expires.
        if self.drained.run_until_cancelled(worker.wait()).await.is_none() && !worker.is_empty() {
            return;
        }
        if !owned.is_dropped() {
            self.persist_last(owned).await;
        }
        owned.drop_queue();
        self.unlock(order, &owned.queue.broker_name, &[owned]).await;
        order.locked().remove(owned.queue.as_ref());
        debug!(group = %self.group, queue = %owned.queue, "the queue was given up");
    }

    /// Frees all locks of a broker, but for those of queues whose handler still runs: they expire.
    pub(super) async fn free_locks(&self, broker: &Arc<str>) {
        let Some(order) = &self.order else { return };
        let is_idle =
            |owned: &Arc<OwnedQueue>| owned.order.as_ref().is_some_and(|order| order.worker.is_empty());
        let mut locked = order.claimed();
        locked.retain(|owned| owned.queue.broker_name == *broker);
        let (idle, busy): (Vec<_>, Vec<_>) = locked.into_iter().partition(is_idle);
        if !busy.is_empty() {
            warn!(group = %self.group, %broker, queues = busy.len(), "queues whose handlers did not finish stay locked, for a minute at most");
        }
        let idle: Vec<_> = idle.iter().map(Arc::as_ref).collect();
        self.unlock(order, broker, &idle).await;
    }

    /// Frees locks of one broker.
    async fn unlock(&self, order: &Order, broker: &Arc<str>, queues: &[&OwnedQueue]) {
        let turn = order.turn(broker);
        let _turn = turn.lock().await;
        queues.iter().filter_map(|owned| owned.order.as_ref()).for_each(|order| order.lock.lose());
        if self.offsets.is_local() || queues.is_empty() {
            return;
        }
        let queues = queues.iter().map(|owned| owned.queue.as_ref().clone()).collect();
        if let Err(error) = self.client.unlock_queues(&self.group, broker, queues).await {
            warn!(group = %self.group, %broker, %error, "locks could not be freed, others get the queues when they expire, within a minute");
        }
    }
}

fn by_broker<T>(
    queues: impl IntoIterator<Item = T>,
    queue: impl Fn(&T) -> &MessageQueue,
) -> BTreeMap<Arc<str>, Vec<T>> {
    let mut brokers: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for each in queues {
        brokers.entry(Arc::clone(&queue(&each).broker_name)).or_default().push(each);
    }
    brokers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_relied_on_for_30_seconds_after_it_was_asked_for() {
        let lock = QueueLock::default();
        let start = Instant::now();
        assert!(!lock.is_valid(start), "never asked for");
        lock.renew(start);
        assert!(lock.is_valid(start + LOCK_LIFE));
        assert!(!lock.is_valid(start + LOCK_LIFE + Duration::from_millis(1)));
        lock.renew(start + RENEW_INTERVAL);
        assert!(lock.is_valid(start + RENEW_INTERVAL + LOCK_LIFE));
        lock.lose();
        assert!(!lock.is_valid(start) && !lock.was_ours());
    }

    #[test]
    fn an_answer_says_whether_another_member_has_the_queue_or_may_have_had_it() {
        for (is_granted, was_valid, renewal) in [
            (true, true, Renewal::Kept),
            (true, false, Renewal::Regained),
            (false, true, Renewal::Lost),
            (false, false, Renewal::Lost),
        ] {
            assert_eq!(Renewal::of(is_granted, was_valid), renewal);
        }
    }

    #[test]
    fn a_queue_goes_on_unless_the_group_went_further_without_it() {
        for (ours, stored, goes_on) in [
            (Some(10), Some(10), true),
            (Some(10), Some(7), true),
            (Some(10), None, true),
            (Some(10), Some(11), false),
            (None, Some(3), false),
            (None, None, false),
        ] {
            assert_eq!(is_current(ours, stored), goes_on, "{ours:?} {stored:?}");
        }
    }

    #[test]
    fn each_broker_is_asked_once_for_all_of_its_queues() {
        let queue = |broker: &str, id| MessageQueue::new("t", broker, id);
        let brokers = by_broker([queue("b", 0), queue("a", 0), queue("b", 1)], |queue| queue);
        let counts: Vec<_> = brokers.iter().map(|(broker, queues)| (broker.as_ref(), queues.len())).collect();
        assert_eq!(counts, [("a", 1), ("b", 2)]);
    }
}
