//! Waits until messages are settled, and moves time from one moment to the next at which something happens.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time;

use super::{App, fail};
use crate::consumer::{Open, PopQueue, Progress, PushConsumer, QueueProgress};
use crate::embedded::Server;
use crate::error::{Error, Result};
use crate::message::MessageQueue;
use crate::producer::SendResult;

/// How often it is looked whether everything is settled.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// What one failure lists.
const MAX_LISTED: usize = 10;

/// Something that is still to be done before time moves.
#[derive(Debug)]
struct Unsettled {
    group: Arc<str>,
    queue: Arc<MessageQueue>,
    what: What,
}

#[derive(Debug)]
enum What {
    /// The consumer has not asked for it.
    NotPulled,
    /// It waits for its listener; what is popped waits without its offset being known.
    Waiting(Option<i64>),
    /// Its listener has it.
    InHands(i64, Open),
}

/// What is waited for.
#[derive(Debug, Clone, Copy)]
enum Scope<'a> {
    /// That every queue has somebody who knows where to begin.
    Start,
    Everything,
    /// On the wire.
    Topic(&'a str),
    Message {
        topic: &'a str,
        queue_id: i32,
        offset: i64,
    },
}

impl App {
    /// Waits until every group is ready, or says which ones are not.
    pub(super) async fn until_ready(&self) -> Result<()> {
        // Of the system: tokio's may be paused.
        let begin = Instant::now();
        loop {
            if self.app().consumers().all(|(_, _, consumer)| consumer.is_ready()) {
                return Ok(());
            }
            if self.limit < begin.elapsed() {
                return Err(self.not_ready());
            }
            time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn not_ready(&self) -> Error {
        let mut text = format!("this is not ready after {:?} (`AppBuilder::limit`):", self.limit);
        let waiting = self.app().consumers().filter(|(_, _, consumer)| !consumer.is_ready());
        for (cluster, group, consumer) in waiting {
            let lacks = self.lacks(cluster, consumer);
            text.push_str(&format!("\n  group {group} of cluster {cluster}: {lacks}"));
        }
        Error::other(text)
    }

    /// What keeps a consumer from being ready, as far as it can be seen.
    fn lacks(&self, cluster: &str, consumer: &PushConsumer) -> String {
        let (Some(server), Some(progress)) = (self.app().servers().get(cluster), consumer.progress()) else {
            return consumer.state().to_string();
        };
        let missing = progress.topics.iter().filter(|topic| server.queues_of(topic) == 0);
        let missing: Vec<&str> = missing.map(AsRef::as_ref).collect();
        if missing.is_empty() {
            let begun = progress.queues.iter().filter(|queue| 0 <= queue.pulled_to).count();
            return format!("it has begun in {begun} queues");
        }
        format!("there is no topic {}", missing.join(", "))
    }

    /// Waits until no message can be missed any more that is sent from now on: a group may begin at the end of a queue.
    pub(super) async fn until_begun(&self) {
        self.until(Scope::Start).await;
    }

    /// Waits until everything, or what is in `topic`, is settled.
    pub(super) async fn until_settled(&self, topic: Option<&str>) {
        let topic = topic.map(|topic| self.wire_name(topic));
        self.until(topic.as_deref().map_or(Scope::Everything, Scope::Topic)).await;
    }

    /// Waits until every group that may get the message has had it.
    pub(super) async fn until_handled(&self, sent: &SendResult) {
        let topic = self.wire_name(&sent.queue.topic);
        let (queue_id, offset) = (sent.queue.queue_id, sent.queue_offset);
        self.until(Scope::Message { topic: &topic, queue_id, offset }).await;
    }

    async fn until(&self, scope: Scope<'_>) {
        // Of the system: tokio's may be paused.
        let begin = Instant::now();
        loop {
            // First: once a decision has arrived, its message is there.
            let is_deciding = scope.needs_decisions() && self.a_decision_is_on_its_way();
            let unsettled = self.unsettled(scope);
            if unsettled.is_empty() && !is_deciding {
                return;
            }
            if self.limit < begin.elapsed() {
                self.give_up(&unsettled);
            }
            time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Goes from one moment to the next at which something happens, up to the end.
    pub(super) async fn move_on(&self, by: Duration) {
        let clock = &self.instruments.clock;
        // Counted in what it is moved by: the time that the test itself takes comes on top, so that a pause of a second
        // is over after a second, whenever in the meantime it began.
        let mut left = by;
        loop {
            self.until_nothing_moves().await;
            let step = self.next_moment().map(|next| next.saturating_duration_since(clock.now()));
            let Some(step) = step.filter(|step| *step <= left) else { break };
            clock.advance(step);
            left -= step;
        }
        clock.advance(left);
        self.until_nothing_moves().await;
    }

    /// When the next message is due, or the next listener has taken too long, or the next pause is over.
    fn next_moment(&self) -> Option<time::Instant> {
        let due = self.app().servers().values().filter_map(Server::next_due);
        due.chain(self.instruments.clock.next_wake()).min()
    }

    /// Waits until everything is settled that will be without time moving.
    async fn until_nothing_moves(&self) {
        let begin = Instant::now();
        loop {
            let is_deciding = self.a_decision_is_on_its_way();
            let is_due = self.next_moment().is_some_and(|next| next <= self.instruments.clock.now());
            let unsettled = self.unsettled(Scope::Everything);
            let hangs = |one: &Unsettled| match &one.what {
                What::InHands(_, open) => !open.has_ended && self.patience < open.since.elapsed(),
                // It waits because all places are taken by those that hang.
                What::Waiting(_) => self.patience < begin.elapsed(),
                What::NotPulled => false,
            };
            let asked = self.app().servers().values().filter_map(Server::asked_since).max();
            let is_asked = asked.is_some_and(|since| since.elapsed() < self.patience);
            if !is_due && !is_asked && !is_deciding && unsettled.iter().all(hangs) {
                return;
            }
            if self.limit < begin.elapsed() {
                self.give_up(&unsettled);
            }
            time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Whether a message is about to be there that was committed, or gone that was rolled back.
    fn a_decision_is_on_its_way(&self) -> bool {
        self.decided.is_on_its_way(self.app().servers().values(), self.patience)
    }

    fn unsettled(&self, scope: Scope<'_>) -> Vec<Unsettled> {
        let mut unsettled = Vec::new();
        for (cluster, _, consumer) in self.app().consumers() {
            let Some(server) = self.app().servers().get(cluster) else { continue };
            let Some(progress) = consumer.progress() else { continue };
            if progress.is_suspended || !scope.concerns(&progress) {
                continue;
            }
            let is_popped =
                |topic: &&Arc<str>| progress.popped.iter().any(|popped| popped.queue.topic == **topic);
            for popped in progress.popped.iter().filter(|popped| scope.includes(&popped.queue.topic)) {
                unsettled.extend(self.of_popped(server, &progress, popped, scope));
            }
            let pulled = progress.topics.iter().filter(|topic| !is_popped(topic));
            for topic in pulled.filter(|topic| scope.includes(topic)) {
                for queue_id in
                    (0..server.queues_of(topic)).filter(|queue_id| scope.includes_queue(*queue_id))
                {
                    unsettled.extend(self.of_queue(server, &progress, topic, queue_id, scope));
                }
            }
        }
        unsettled
    }

    /// What is still to be done by one group in one queue; one of several is enough.
    fn of_queue(
        &self,
        server: &Server,
        progress: &Progress,
        topic: &Arc<str>,
        queue_id: i32,
        scope: Scope<'_>,
    ) -> Option<Unsettled> {
        let end = match scope {
            Scope::Message { offset, .. } => offset + 1,
            _ => server.max_offset(topic, queue_id),
        };
        let find = |queue: &&QueueProgress| queue.queue.topic == *topic && queue.queue.queue_id == queue_id;
        let owned = progress.queues.iter().find(find);
        let unsettled = |queue: Arc<MessageQueue>, what| {
            Some(Unsettled { group: Arc::clone(&progress.group), queue, what })
        };
        let Some(QueueProgress { queue, shown, pulled_to, unfinished }) = owned else {
            let is_empty = server.min_offset(topic, queue_id) == server.max_offset(topic, queue_id);
            let queue = || Arc::new(MessageQueue::new(Arc::clone(topic), "broker-a", queue_id));
            let may_be_nobodys = is_empty && !matches!(scope, Scope::Start);
            return if may_be_nobodys { None } else { unsettled(queue(), What::NotPulled) };
        };
        if *pulled_to < 0 {
            return unsettled(Arc::clone(queue), What::NotPulled);
        }
        for offset in unfinished.iter().copied().filter(|offset| scope.includes_offset(*offset)) {
            match self.instruments.journal.open(&progress.group, shown, offset) {
                // Those behind it wait for it.
                Some(open) if open.is_paused && progress.is_orderly => return None,
                Some(open) if open.is_paused => {}
                Some(open) => return unsettled(Arc::clone(queue), What::InHands(offset, open)),
                None => return unsettled(Arc::clone(queue), What::Waiting(Some(offset))),
            }
        }
        // What is beyond may be for others only; then the broker has the consumer wait.
        let is_pulled = end <= *pulled_to || server.is_awaited(&progress.group, topic, queue_id);
        if is_pulled { None } else { unsettled(Arc::clone(queue), What::NotPulled) }
    }

    /// The same of what one group pops: brokers know what is done, and the consumer how many it has not told them of.
    fn of_popped(
        &self,
        server: &Server,
        progress: &Progress,
        popped: &PopQueue,
        scope: Scope<'_>,
    ) -> Option<Unsettled> {
        let (group, queue) = (&progress.group, &popped.queue);
        let unsettled = |what| Some(Unsettled { group: Arc::clone(group), queue: Arc::clone(queue), what });
        if !popped.has_begun() {
            return unsettled(What::NotPulled);
        }
        if matches!(scope, Scope::Start) {
            return None;
        }
        // In this order: the consumer asks again once it has counted what the last answer brought.
        let is_awaited = server.is_pop_awaited(group, &queue.topic, queue.queue_id);
        match popped.unacked() {
            0 if is_awaited => None,
            0 => unsettled(What::NotPulled),
            unacked => {
                let open = self.instruments.journal.open_of(group);
                // Of those that listeners have, the one that is the least likely to hang.
                let last = open.iter().max_by_key(|(_, open)| (open.has_ended, open.since)).cloned();
                unsettled(match last.filter(|_| unacked <= open.len()) {
                    Some((offset, open)) => What::InHands(offset, open),
                    None => What::Waiting(None),
                })
            }
        }
    }

    fn give_up(&self, unsettled: &[Unsettled]) -> ! {
        let mut text = format!("this is not settled after {:?} (`AppBuilder::limit`):", self.limit);
        for one in unsettled.iter().take(MAX_LISTED) {
            text.push_str(&format!("\n  {one}"));
        }
        if MAX_LISTED < unsettled.len() {
            text.push_str(&format!("\n  and {} more", unsettled.len() - MAX_LISTED));
        }
        if unsettled.is_empty() {
            text.push_str("\n  a message or a pause whose time has come, or the end of a transaction");
        }
        let groups: BTreeSet<_> = self.app().consumers().map(|(_, group, _)| group).collect();
        let groups: Vec<_> = groups.into_iter().collect();
        fail(&format!("{text}\nthe groups of the application: {}", groups.join(", ")))
    }
}

impl Scope<'_> {
    /// Whether messages of transactions may be among those that are waited for.
    fn needs_decisions(self) -> bool {
        matches!(self, Self::Everything | Self::Topic(_))
    }

    /// Whether the group takes part.
    fn concerns(self, progress: &Progress) -> bool {
        match self {
            Self::Start | Self::Everything => true,
            Self::Topic(topic) | Self::Message { topic, .. } => {
                progress.topics.iter().any(|other| **other == *topic)
            }
        }
    }

    /// Whether this topic of such a group does: what is delivered again is so, in its retry topic.
    fn includes(self, topic: &str) -> bool {
        match self {
            Self::Start | Self::Everything => true,
            Self::Topic(wanted) => topic == wanted || topic.starts_with("%RETRY%"),
            Self::Message { topic: wanted, .. } => topic == wanted,
        }
    }

    fn includes_queue(self, id: i32) -> bool {
        match self {
            Self::Message { queue_id, .. } => id == queue_id,
            _ => true,
        }
    }

    fn includes_offset(self, other: i64) -> bool {
        match self {
            Self::Message { offset, .. } => other == offset,
            _ => true,
        }
    }
}

impl fmt::Display for Unsettled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, queue, what } = self;
        match what {
            What::NotPulled => write!(f, "group {group} has not taken everything from {queue}"),
            What::Waiting(None) => write!(f, "group {group}: messages of {queue} wait for their listener"),
            What::Waiting(Some(offset)) => {
                write!(f, "group {group}: {queue} offset {offset} waits for its listener")
            }
            What::InHands(offset, Open { listener, since, .. }) => {
                write!(
                    f,
                    "group {group}: {listener} has had {queue} offset {offset} for {:?}",
                    since.elapsed()
                )
            }
        }
    }
}
