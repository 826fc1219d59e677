//! The typed calls of POP consumption. Source: `behaviour.md` section 4.1.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::MqClient;
use super::route::Access;
use crate::message::MessageQueue;
use crate::protocol::body::MessageModel;
use crate::protocol::header::{Response, WithBody};
use crate::protocol::pop::{
    AckMessage, Assignment, AssignmentQuestion, BatchAckBody, BatchAckMessage, ChangeInvisibleTime,
    PopHandle, PopMessage, PopMessageResponse, QueryAssignment, RequestMode, SetMessageRequestMode,
};
use crate::protocol::{Request, ResponseCode, json};
use crate::remoting::{Address, Line, RequestError, refused};

/// What a pop came to.
#[derive(Debug)]
pub(crate) enum PopAnswer {
    /// There are messages: the records, back to back.
    Found { header: PopMessageResponse, body: Bytes },
    /// Nothing came while the broker waited.
    Nothing,
    /// So many wait already that the broker would not wait.
    PollingFull,
}

impl MqClient {
    /// Where pops from `queue` go.
    pub(crate) async fn pop_address(&self, queue: &MessageQueue) -> Result<Address, RequestError> {
        self.master(PopMessage::CODE, queue).await
    }

    /// A connection for nothing but pops.
    pub(crate) fn pop_line(&self, address: &Address) -> Line {
        self.remoting.line(address)
    }

    /// Asks for messages; waits at most `pull_timeout`.
    pub(crate) async fn pop(&self, line: &Line, request: &PopMessage) -> Result<PopAnswer, RequestError> {
        let address = line.address();
        let answer = line.request(request, self.config.pull_timeout).await?;
        match answer.response_code() {
            ResponseCode::SUCCESS => {
                let WithBody { header, body } = WithBody::from_command(answer)
                    .map_err(|error| RequestError::bad_answer(address, PopMessage::CODE, &error))?;
                Ok(PopAnswer::Found { header, body })
            }
            ResponseCode::POLLING_TIMEOUT | ResponseCode::PULL_NOT_FOUND => Ok(PopAnswer::Nothing),
            ResponseCode::POLLING_FULL => Ok(PopAnswer::PollingFull),
            _ => Err(refused(address, PopMessage::CODE, &answer)),
        }
    }

    /// Acknowledges a message that was popped from `queue`.
    pub(crate) async fn ack(
        &self,
        group: &Arc<str>,
        queue: &MessageQueue,
        handle: &PopHandle,
    ) -> Result<(), RequestError> {
        let request = AckMessage {
            consumer_group: Arc::clone(group),
            topic: handle.retry.topic(group, &queue.topic),
            queue_id: handle.queue_id,
            extra_info: handle.to_string(),
            offset: handle.queue_offset,
            broker_name: Some(Arc::clone(&handle.broker_name)),
        };
        self.ask_popped(queue, &request, Bytes::new()).await
    }

    /// Acknowledges many at once, each of which a batch can hold.
    pub(crate) async fn ack_batch(
        &self,
        group: &Arc<str>,
        queue: &MessageQueue,
        handles: &[PopHandle],
    ) -> Result<(), RequestError> {
        let body = BatchAckBody::new(group, &queue.topic, &queue.broker_name, handles);
        self.ask_popped(queue, &BatchAckMessage, json::write(&body).into()).await
    }

    /// Makes a message visible to others after `time`, counted from now; returns its handle from now on.
    pub(crate) async fn change_invisible_time(
        &self,
        group: &Arc<str>,
        queue: &MessageQueue,
        handle: &PopHandle,
        time: Duration,
    ) -> Result<PopHandle, RequestError> {
        let request = ChangeInvisibleTime {
            consumer_group: Arc::clone(group),
            topic: handle.retry.topic(group, &queue.topic),
            queue_id: handle.queue_id,
            extra_info: handle.to_string(),
            offset: handle.queue_offset,
            invisible_time: i64::try_from(time.as_millis()).unwrap_or(i64::MAX),
            broker_name: Some(Arc::clone(&handle.broker_name)),
        };
        let answer = self.ask_popped(queue, &request, Bytes::new()).await?;
        Ok(PopHandle {
            // The broker waits for this message alone from now on.
            start_offset: handle.queue_offset,
            pop_time: answer.pop_time,
            invisible_time: answer.invisible_time,
            revive_qid: answer.revive_qid,
            ..handle.clone()
        })
    }

    /// Which queues of `topic` are this member's, as the broker at `address` sees it; `None` where it cannot tell.
    pub(crate) async fn query_assignment(
        &self,
        address: &Address,
        group: &str,
        topic: &str,
        strategy: &str,
    ) -> Result<Option<Vec<Assignment>>, RequestError> {
        let question = AssignmentQuestion {
            topic: topic.to_owned(),
            consumer_group: group.to_owned(),
            client_id: self.id.clone(),
            strategy_name: strategy.to_owned(),
            message_model: MessageModel::Clustering,
        };
        let (address, body) = (self.vip(address), json::write(&question).into());
        let limit = self.config.request_timeout;
        let answer = self.remoting.call(&address, &QueryAssignment, body, limit).await?;
        Ok(answer.0.message_queue_assignments)
    }

    /// Tells the broker at `address` how the members of a group get the messages of a topic.
    pub(crate) async fn set_request_mode(
        &self,
        address: &Address,
        mode: &RequestMode,
    ) -> Result<(), RequestError> {
        let body = json::write(mode).into();
        self.remoting.call(address, &SetMessageRequestMode, body, self.config.request_timeout).await
    }

    /// What is asked about popped messages goes where they were popped, and never to the second port.
    async fn ask_popped<R: Request>(
        &self,
        queue: &MessageQueue,
        request: &R,
        body: Bytes,
    ) -> Result<R::Response, RequestError> {
        let address = self.master(R::CODE, queue).await?;
        self.remoting.call(&address, request, body, self.config.request_timeout).await
    }

    async fn master(
        &self,
        code: crate::protocol::RequestCode,
        queue: &MessageQueue,
    ) -> Result<Address, RequestError> {
        self.find_broker(code, &queue.topic, &queue.broker_name, Access::Write).await
    }
}
