//! The task of one queue: asks for messages and holds them until somebody polls. Source: `behaviour.md` section 4.2.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time;
use tracing::{debug, error, info, trace, warn};

use super::queue::{AssignedQueue, Step};
use super::running::Running;
use super::selection::Wanted;
use crate::client::{Access, PullAnswer, PullStatus};
use crate::consumer::puller::{FLOW_CONTROL_DELAY, FULL_DELAY, TAKEOVER_DELAY};
use crate::consumer::records::records;
use crate::message::MessageExt;
use crate::protocol::header::{PullMessage, pull_flag};
use crate::protocol::{Request, RequestCode, ResponseCode};
use crate::remoting::RequestError;

/// After the offset to begin at could not be found out.
const BEGIN_DELAY: Duration = Duration::from_secs(3);

/// The task of one queue.
pub(super) struct Puller {
    shared: Arc<Running>,
    queue: Arc<AssignedQueue>,
    /// The request of lite pull consumers, or of all consumers at brokers that do not know that.
    code: RequestCode,
    /// Which of the broker's addresses to ask, as it said last.
    broker_id: i64,
    /// Where the last answer could not be read any further.
    cut_at: Option<i64>,
    /// Whether the last request failed, so that a broker that is gone is reported once.
    is_failing: bool,
}

impl Puller {
    pub(super) fn new(shared: Arc<Running>, queue: Arc<AssignedQueue>) -> Self {
        Self {
            shared,
            queue,
            code: RequestCode::LITE_PULL_MESSAGE,
            broker_id: 0,
            cut_at: None,
            is_failing: false,
        }
    }

    /// Runs until the queue is no longer ours or the consumer stops. `takeover` says that another member may have had
    /// the queue just now.
    pub(super) async fn run(mut self, takeover: bool) {
        let stopping = self.queue.stopping.clone();
        tokio::select! {
            () = stopping.cancelled() => {}
            () = self.work(takeover) => {}
        }
    }

    async fn work(&mut self, takeover: bool) {
        if takeover {
            time::sleep(TAKEOVER_DELAY).await;
        }
        let queue = Arc::clone(&self.queue);
        loop {
            let step = queue.step(&self.shared.flow_limits(), self.shared.is_full());
            // What somebody changes here (a seek, a pause) ends whatever the task waits for.
            tokio::select! {
                biased;
                () = queue.interrupt.notified() => {}
                () = self.take(step) => {}
            }
        }
    }

    /// Takes one step. It may be dropped at any time: what an answer brings is kept or not, as a whole.
    async fn take(&mut self, step: Step) {
        match step {
            Step::Begin { epoch } => self.begin(epoch).await,
            Step::Pull { epoch, offset } => self.pull(epoch, offset).await,
            Step::Full => {
                trace!(group = %self.shared.group, queue = %self.queue.queue, "flow control: nobody polls fast enough");
                tokio::select! {
                    () = self.queue.room.notified() => {}
                    () = time::sleep(FULL_DELAY) => {}
                }
            }
            Step::Paused => std::future::pending().await,
        }
    }

    async fn begin(&mut self, epoch: u64) {
        match self.shared.start_offset(&self.queue.queue).await {
            Ok((offset, stored)) => {
                self.works_again();
                debug!(group = %self.shared.group, queue = %self.queue.queue, offset, "pulling begins");
                self.queue.begin(epoch, offset, stored);
            }
            Err(error) => self.failed(&error, "cannot find out where to begin", BEGIN_DELAY).await,
        }
    }

    async fn pull(&mut self, epoch: u64, offset: i64) {
        let wanted = self.shared.wanted(&self.queue.topic);
        match self.ask(offset, &wanted).await {
            Ok(answer) => {
                self.works_again();
                self.broker_id = answer.header.suggest_which_broker_id;
                self.receive(epoch, offset, answer, &wanted).await;
            }
            Err(error) => self.pull_failed(&error).await,
        }
    }

    /// Asks for messages. The filter goes along each time, so that heartbeats need not have been heard; how far the
    /// group is does not, since that is not known before somebody commits.
    async fn ask(&self, offset: i64, wanted: &Wanted) -> Result<PullAnswer, RequestError> {
        let Running { group, config, client, .. } = &*self.shared;
        let queue = &self.queue.queue;
        let access = Access::Read { broker_id: self.broker_id };
        let address = client.find_broker(PullMessage::CODE, &queue.topic, &queue.broker_name, access).await?;
        let data = wanted.data(&queue.topic);
        let request = PullMessage {
            consumer_group: Arc::clone(group),
            topic: Arc::clone(&queue.topic),
            queue_id: queue.queue_id,
            queue_offset: offset,
            max_msg_nums: i32::try_from(config.pull_batch).unwrap_or(i32::MAX),
            sys_flag: pull_flag::SUSPEND | pull_flag::SUBSCRIPTION | pull_flag::LITE_PULL,
            commit_offset: 0,
            suspend_timeout_millis: config.pull_suspend.as_millis() as i64,
            subscription: Some(data.sub_string.into()),
            sub_version: 0,
            expression_type: Some(data.expression_type),
            max_msg_bytes: None,
            broker_name: Some(Arc::clone(&queue.broker_name)),
        };
        client.pull_as(self.code, &address, &request, config.pull_timeout).await
    }

    async fn receive(&mut self, epoch: u64, begin: i64, answer: PullAnswer, wanted: &Wanted) {
        if !wanted.is_same(&self.shared.wanted(&self.queue.topic)) {
            // Another filter has come meanwhile. The answer must not count as passed over what it did not bring.
            return;
        }
        let next = answer.header.next_begin_offset;
        match answer.status {
            PullStatus::Found => {
                let (messages, cut_at) = self.decode(answer.body, wanted, begin..next);
                let is_new = cut_at.is_some() && cut_at != self.cut_at;
                let next = match cut_at {
                    None => next,
                    Some(offset) if is_new => offset,
                    // The broker has nothing better: that record is the one that is damaged.
                    Some(offset) => offset + 1,
                };
                self.cut_at = cut_at;
                let has_messages = !messages.is_empty();
                if self.queue.keep(epoch, messages, next) && has_messages {
                    self.shared.arrived.notify_waiters();
                }
                if is_new {
                    time::sleep(self.shared.config.pull_error_delay).await;
                }
            }
            PullStatus::NoNewMessage | PullStatus::NoMatchedMessage => {
                self.queue.keep(epoch, Vec::new(), next);
            }
            PullStatus::OffsetIllegal => {
                warn!(group = %self.shared.group, queue = %self.queue.queue, to = next, "the offset is not in the queue, it is corrected");
                self.queue.correct(epoch, next);
                // A broker that corrects again and again is asked again and again, but not all the time.
                time::sleep(FULL_DELAY).await;
            }
        }
    }

    /// The messages of an answer about these offsets that are wanted, and where the rest cannot be told apart. There is no
    /// retry topic that an unreadable one could go to: it is reported and passed over.
    fn decode(&self, body: Bytes, wanted: &Wanted, offsets: Range<i64>) -> (Vec<MessageExt>, Option<i64>) {
        let (group, queue) = (&self.shared.group, &self.queue.queue);
        let mut messages = Vec::new();
        for record in records(body, self.shared.max_body_bytes, offsets) {
            match record {
                Ok(mut message) => {
                    // Brokers compare the hashes of tags only.
                    if wanted.filter.accepts(message.tag()) {
                        message.set_broker_name(Arc::clone(&queue.broker_name));
                        message.strip_namespace(self.shared.namespace());
                        messages.push(message);
                    }
                }
                Err((offset, error)) if error.ends_answer && self.cut_at != Some(offset) => {
                    warn!(%group, %queue, offset, %error, "an answer cannot be read from here on, it is asked for again");
                    return (messages, Some(offset));
                }
                Err((offset, error)) => {
                    error!(%group, topic = %queue.topic, %queue, offset, %error, "a message cannot be read: it is passed over");
                    if error.ends_answer {
                        return (messages, Some(offset));
                    }
                }
            }
        }
        (messages, None)
    }

    async fn pull_failed(&mut self, error: &RequestError) {
        // Another address of the broker may do; with none suggested, the master.
        self.broker_id = 0;
        let delay = match error.response_code() {
            Some(ResponseCode::REQUEST_CODE_NOT_SUPPORTED) if self.code == RequestCode::LITE_PULL_MESSAGE => {
                debug!(group = %self.shared.group, queue = %self.queue.queue, "the broker is an older one: it is pulled from as by push consumers");
                self.code = PullMessage::CODE;
                return;
            }
            Some(ResponseCode::FLOW_CONTROL) => FLOW_CONTROL_DELAY,
            _ => self.shared.config.pull_error_delay,
        };
        self.failed(error, "a pull failed", delay).await;
    }

    async fn failed(&mut self, error: &RequestError, what: &str, delay: Duration) {
        let (group, queue) = (&self.shared.group, &self.queue.queue);
        if std::mem::replace(&mut self.is_failing, true) {
            debug!(%group, %queue, %error, "{what} again");
        } else {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            warn!(%group, %queue, %error, cause, retry_in = ?delay, "{what}, it is tried until it works");
        }
        time::sleep(delay).await;
    }

    fn works_again(&mut self) {
        if std::mem::take(&mut self.is_failing) {
            info!(group = %self.shared.group, queue = %self.queue.queue, "pulling works again");
        }
    }
}
