//! Attempts: at one broker, then at another, until one says that it has the message or the time is over.
//!
//! Source: `behaviour.md` section 2.3.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{self, Instant};
use tracing::{debug, warn};

use super::error::BrokerFeature;
use super::faults::Sign;
use super::hook::Sending;
use super::prepare::Prepared;
use super::running::Running;
use super::stats::Topic;
use super::{SendError, SendResult, SendStatus};
use crate::client::{Access, BrokerVersion, Port, SendAnswer};
use crate::message::MessageQueue;
use crate::protocol::{RequestCode, ResponseCode};
use crate::remoting::{Address, RequestError, TimeLimit};

/// Before the same broker is tried again, for want of another one; twice as long each time.
const MIN_BACKOFF: Duration = Duration::from_millis(50);

/// Where a message may go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Target {
    /// To any queue; after a failure, to one of another broker.
    Any,
    /// To any queue, but to one of this broker first.
    First(Arc<str>),
    /// To this one or nowhere, and only once: a second attempt could overtake, or repeat, what comes after it.
    Only(MessageQueue),
}

/// What has been tried so far.
#[derive(Default)]
struct Tries {
    count: u32,
    last_queue: Option<MessageQueue>,
    last_error: Option<RequestError>,
    /// Stored, though not as safely as could be: what is returned if no other broker does better.
    degraded: Option<SendResult>,
}

impl Tries {
    fn end(self, error: SendError) -> Result<SendResult, SendError> {
        self.degraded.ok_or(error)
    }
}

/// Why an attempt failed.
enum AttemptError {
    /// Another one may succeed.
    Request(RequestError),
    /// None would: the broker is too old.
    Unsupported(SendError),
    /// None would: a hook does not allow it.
    Forbidden(String),
}

impl From<RequestError> for AttemptError {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

/// When an attempt began, and when it has to have ended.
#[derive(Clone, Copy)]
struct Time {
    now: Instant,
    until: Instant,
}

/// Where an attempt goes, and what is known of that place.
struct Place<'a> {
    queue: &'a MessageQueue,
    address: Address,
    /// Known where it matters.
    version: Option<BrokerVersion>,
    /// When the attempt began.
    begun: Instant,
}

impl Running {
    /// Sends until a broker has said that it has the message, within `deadline`.
    pub(super) async fn deliver(
        &self,
        topic: &Topic,
        mut prepared: Prepared,
        target: Target,
        deadline: Instant,
    ) -> Result<SendResult, SendError> {
        let mut tries = Tries::default();
        loop {
            let queue = match self.next_queue(topic, &target, &tries, deadline).await {
                Ok(queue) => queue,
                Err(error) => return tries.end(error),
            };
            let (now, config) = (Instant::now(), &self.config);
            if deadline <= now {
                let (count, cause) = (tries.count, tries.last_error.take());
                return tries.end(self.timed_out(topic, count, cause));
            }
            if tries.count > 0 {
                topic.count_retry();
            }
            tries.count += 1;
            let may_retry = tries.count <= config.retries && !matches!(target, Target::Only(_));
            let limit = config.attempt_timeout.filter(|_| may_retry);
            let until = limit.map_or(deadline, |limit| deadline.min(now + limit));
            let time = Time { now, until };
            let outcome = self.attempt(topic, &mut prepared, &queue, tries.count, time).await;
            self.note(&queue, &outcome, now);
            match outcome {
                Ok(result) if !may_retry || self.is_good(&result) => return Ok(result),
                Ok(result) => {
                    debug!(topic = %topic.name, broker = %queue.broker_name, status = ?result.status, "stored, but not safely enough: another broker is tried");
                    tries.degraded = Some(result);
                }
                Err(AttemptError::Request(error))
                    if may_retry && self.is_retryable(&error) && Instant::now() < deadline =>
                {
                    warn!(topic = %topic.name, broker = %queue.broker_name, attempt = tries.count, %error, cause = %crate::Error::chain(&error), "a send failed, it is tried again");
                    if error.response_code() == Some(ResponseCode::TOPIC_NOT_EXIST) {
                        self.refresh_route(topic, deadline).await;
                    }
                    tries.last_error = Some(error);
                }
                Err(error) => {
                    let count = tries.count;
                    return tries.end(self.failed(topic, count, error));
                }
            }
            tries.last_queue = Some(queue);
        }
    }

    /// Hands a message to a connection. Nobody learns what becomes of it.
    pub(super) async fn deliver_oneway(
        &self,
        topic: &Topic,
        mut prepared: Prepared,
        target: Target,
        deadline: Instant,
    ) -> Result<(), SendError> {
        let queue = self.next_queue(topic, &target, &Tries::default(), deadline).await?;
        let told = self.tell(&mut prepared, &queue, deadline).await;
        told.map_err(|error| self.failed(topic, 1, error))
    }

    /// The queue for the next attempt; before a broker that failed is tried again, for want of another one, it waits.
    async fn next_queue(
        &self,
        topic: &Topic,
        target: &Target,
        tries: &Tries,
        deadline: Instant,
    ) -> Result<MessageQueue, SendError> {
        if let Target::Only(queue) = target {
            return Ok(queue.clone());
        }
        // Anew for each attempt: the last one may have shown that it was out of date.
        let route = self.publish_route(topic, deadline).await?;
        if let (Target::First(broker), 0) = (target, tries.count)
            && let Some(queue) = route.publish.iter().find(|queue| queue.broker_name == *broker)
        {
            return Ok(queue.clone());
        }
        let failed = tries.last_queue.as_ref().map(|queue| queue.broker_name.as_ref());
        let queue = match &self.faults {
            None => self.round_robin.next(&route.publish, failed),
            Some(faults) => self.round_robin.next_avoiding(&route.publish, failed, faults, Instant::now()),
        };
        // A route without queues is none.
        let queue = queue.ok_or_else(|| self.timed_out(topic, tries.count, None))?;
        if failed == Some(queue.broker_name.as_ref()) {
            let wait = MIN_BACKOFF * (1 << tries.count.saturating_sub(1).min(4));
            // Up to a fifth less, so that those who failed together do not come back all at once.
            let until = Instant::now() + wait.mul_f64(1.0 - 0.2 * fastrand::f64());
            time::sleep_until(until.min(deadline)).await;
        }
        Ok(queue.clone())
    }

    async fn attempt(
        &self,
        topic: &Topic,
        prepared: &mut Prepared,
        queue: &MessageQueue,
        attempt: u32,
        time: Time,
    ) -> Result<SendResult, AttemptError> {
        let place = self.place(prepared, queue, time).await?;
        self.announce(prepared, &place, attempt, false)?;
        // A retry takes the first port: where the second is closed, that costs an attempt, not the message.
        let port = if attempt == 1 { Port::Second } else { Port::First };
        let body = prepared.body.clone();
        let limit = TimeLimit::between(time.now, time.until);
        let code = prepared.code;
        let header = prepared.header_for(queue, place.version);
        let answer = self.client.send_at(&place.address, port, code, header, body, limit).await;
        let outcome = answer.map(|answer| result(topic, prepared, queue, answer));
        if !self.hooks.is_empty() {
            let sending = self.sending(prepared, &place, attempt, false);
            self.hooks.after(&sending, outcome.as_ref().map(Some));
        }
        Ok(outcome?)
    }

    async fn tell(
        &self,
        prepared: &mut Prepared,
        queue: &MessageQueue,
        deadline: Instant,
    ) -> Result<(), AttemptError> {
        let place = self.place(prepared, queue, Time { now: Instant::now(), until: deadline }).await?;
        self.announce(prepared, &place, 1, true)?;
        let body = prepared.body.clone();
        let limit = deadline.saturating_duration_since(Instant::now());
        let code = prepared.code;
        let header = prepared.header_for(queue, place.version);
        let told = self.client.send_oneway_at(&place.address, Port::Second, code, header, body, limit).await;
        if !self.hooks.is_empty() {
            let sending = self.sending(prepared, &place, 1, true);
            self.hooks.after(&sending, told.as_ref().map(|()| None));
        }
        Ok(told?)
    }

    /// Where the queue is, and whether the broker there can do what the message needs.
    async fn place<'a>(
        &self,
        prepared: &Prepared,
        queue: &'a MessageQueue,
        Time { now: begun, until }: Time,
    ) -> Result<Place<'a>, AttemptError> {
        let address = self.publish_address(queue, until).await?;
        if !prepared.needs_version() {
            return Ok(Place { queue, address, version: None, begun });
        }
        let limit = until.saturating_duration_since(Instant::now());
        let version = self.client.broker_version(&address, limit).await?;
        if prepared.is_timer && version < BrokerVersion::V5_0_0 {
            let error = SendError::unsupported(BrokerFeature::TimerMessage, &address, version);
            return Err(AttemptError::Unsupported(error));
        }
        Ok(Place { queue, address, version: Some(version), begun })
    }

    pub(super) async fn publish_address(
        &self,
        queue: &MessageQueue,
        deadline: Instant,
    ) -> Result<Address, RequestError> {
        // The usual case, without a timer.
        if let Some(address) = self.client.broker_address(&queue.broker_name, Access::Write) {
            return Ok(address);
        }
        let asked = self.client.publish_address(&queue.topic, &queue.broker_name);
        time::timeout_at(deadline, asked).await.unwrap_or_else(|_| {
            Err(RequestError::NoAddress {
                code: RequestCode::SEND_MESSAGE_V2,
                reason: format!("no name server said in time where broker {} is", queue.broker_name),
            })
        })
    }

    /// Lets the hooks see, and forbid, what is about to be sent.
    fn announce(
        &self,
        prepared: &Prepared,
        place: &Place<'_>,
        attempt: u32,
        oneway: bool,
    ) -> Result<(), AttemptError> {
        if self.hooks.is_empty() {
            return Ok(());
        }
        let sending = self.sending(prepared, place, attempt, oneway);
        self.hooks.check(&sending).map_err(AttemptError::Forbidden)?;
        self.hooks.before(&sending);
        Ok(())
    }

    fn sending<'a>(
        &'a self,
        prepared: &'a Prepared,
        place: &'a Place<'_>,
        attempt: u32,
        oneway: bool,
    ) -> Sending<'a> {
        Sending {
            group: &self.group,
            queue: place.queue,
            address: &place.address,
            message_id: &prepared.message_id,
            messages: prepared.messages,
            body_len: prepared.body.len(),
            properties: prepared.properties(),
            attempt,
            oneway,
            took: place.begun.elapsed(),
        }
    }

    fn is_good(&self, result: &SendResult) -> bool {
        result.status == SendStatus::SendOk || !self.config.retry_other_broker
    }

    fn is_retryable(&self, error: &RequestError) -> bool {
        match error {
            RequestError::Refused { response, .. } => self.config.retry_codes.contains(response),
            other => other.is_retryable(),
        }
    }

    fn note(&self, queue: &MessageQueue, outcome: &Result<SendResult, AttemptError>, begun: Instant) {
        let Some(faults) = &self.faults else { return };
        let took = begun.elapsed();
        let sign = match outcome {
            Ok(_) | Err(AttemptError::Request(RequestError::NoAddress { .. })) => Sign::Took(took),
            Err(AttemptError::Request(RequestError::Forbidden { .. })) => return,
            Err(AttemptError::Request(RequestError::Refused { .. })) => Sign::Refused,
            Err(AttemptError::Request(_)) => Sign::Silent,
            // It was not asked.
            Err(AttemptError::Unsupported(_) | AttemptError::Forbidden(_)) => return,
        };
        faults.note(&queue.broker_name, sign, self.has_detector(), Instant::now());
    }

    /// What becomes of the question shows in the next attempt.
    async fn refresh_route(&self, topic: &Topic, deadline: Instant) {
        let _ = time::timeout_at(deadline, self.client.fetch_route(&topic.wire_name)).await;
    }

    /// What the caller learns of a send whose last attempt ended so.
    fn failed(&self, topic: &Topic, attempts: u32, error: AttemptError) -> SendError {
        let topic = topic.name.to_string();
        match error {
            AttemptError::Request(error) => {
                SendError::of_attempt(topic, attempts, self.config.send_timeout, error)
            }
            AttemptError::Unsupported(error) => error,
            AttemptError::Forbidden(reason) => SendError::Forbidden { topic, reason },
        }
    }
}

fn result(topic: &Topic, prepared: &Prepared, queue: &MessageQueue, answer: SendAnswer) -> SendResult {
    SendResult {
        status: SendStatus::of(answer.code),
        message_id: prepared.message_id.clone(),
        offset_message_id: answer.header.msg_id,
        queue: MessageQueue {
            topic: Arc::clone(&topic.name),
            broker_name: Arc::clone(&queue.broker_name),
            queue_id: answer.header.queue_id,
        },
        queue_offset: answer.header.queue_offset,
        transaction_id: answer.header.transaction_id,
        recall_handle: answer.header.recall_handle,
        region_id: answer.header.region_id,
        is_traced: answer.header.trace_on != Some(false),
    }
}
