//! The typed calls to brokers: one for each thing that consumers and producers want of them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::MqClient;
use super::route::{self, Access};
use crate::message::MessageQueue;
use crate::protocol::body::LockBatch;
use crate::protocol::header::{
    GetConsumerList, GetMaxOffset, GetMinOffset, LockBatchMq, PullMessage, PullMessageResponse,
    QueryConsumerOffset, Response, SearchOffset, SendMessageBack, UnlockBatchMq, UpdateConsumerOffset,
    WithBody,
};
use crate::protocol::{Request, RequestCode, ResponseCode, json};
use crate::remoting::{Address, RequestError, refused};

/// What a pull came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PullStatus {
    /// There are messages.
    Found,
    /// Nothing new came while the broker waited.
    NoNewMessage,
    /// There were messages, none of which the group wants.
    NoMatchedMessage,
    /// The offset is not in the queue; the answer says which one to go on from.
    OffsetIllegal,
}

/// The answer to a pull.
#[derive(Debug)]
pub(crate) struct PullAnswer {
    pub(crate) status: PullStatus,
    pub(crate) header: PullMessageResponse,
    /// The records, back to back.
    pub(crate) body: Bytes,
}

impl MqClient {
    /// Asks for messages; waits at most `pull_timeout`.
    pub(crate) async fn pull(
        &self,
        address: &Address,
        request: &PullMessage,
    ) -> Result<PullAnswer, RequestError> {
        self.pull_as(PullMessage::CODE, address, request, self.config.pull_timeout).await
    }

    /// The same under another code, with another limit.
    pub(crate) async fn pull_as(
        &self,
        code: RequestCode,
        address: &Address,
        request: &PullMessage,
        limit: Duration,
    ) -> Result<PullAnswer, RequestError> {
        let answer = self.remoting.request(address, code, request, Bytes::new(), limit).await?;
        let status = match answer.response_code() {
            ResponseCode::SUCCESS => PullStatus::Found,
            ResponseCode::PULL_NOT_FOUND => PullStatus::NoNewMessage,
            ResponseCode::PULL_RETRY_IMMEDIATELY => PullStatus::NoMatchedMessage,
            ResponseCode::PULL_OFFSET_MOVED => PullStatus::OffsetIllegal,
            _ => return Err(refused(address, code, &answer)),
        };
        let WithBody { header, body } = WithBody::from_command(answer)
            .map_err(|error| RequestError::bad_answer(address, code, &error))?;
        Ok(PullAnswer { status, header, body })
    }

    /// How far `group` is in `queue`; `None` where nothing is stored. Where the master is gone, as a slave knows it.
    pub(crate) async fn query_offset(
        &self,
        group: &Arc<str>,
        queue: &MessageQueue,
    ) -> Result<Option<i64>, RequestError> {
        self.query_offset_at(Access::Read { broker_id: route::MASTER }, group, queue).await
    }

    /// The same, asked of this one of the broker's addresses.
    pub(crate) async fn query_offset_at(
        &self,
        access: Access,
        group: &Arc<str>,
        queue: &MessageQueue,
    ) -> Result<Option<i64>, RequestError> {
        let request = QueryConsumerOffset {
            consumer_group: Arc::clone(group),
            topic: Arc::clone(&queue.topic),
            queue_id: queue.queue_id,
            set_zero_if_not_found: None,
        };
        let address =
            self.find_broker(QueryConsumerOffset::CODE, &queue.topic, &queue.broker_name, access).await?;
        match self.call_vip(&address, &request).await {
            Ok(answer) => Ok(Some(answer.offset)),
            Err(error) if error.response_code() == Some(ResponseCode::QUERY_NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Stores how far `group` is in `queue`, and waits until the broker says that it has; whether that is the master.
    ///
    /// A slave that has to do meanwhile takes its offsets from the master once that is back, so the master has to be told then.
    pub(crate) async fn update_offset(
        &self,
        group: &Arc<str>,
        queue: &MessageQueue,
        commit_offset: i64,
    ) -> Result<bool, RequestError> {
        let request = UpdateConsumerOffset {
            consumer_group: Arc::clone(group),
            topic: Arc::clone(&queue.topic),
            queue_id: queue.queue_id,
            commit_offset,
        };
        let address = self
            .find_broker(
                UpdateConsumerOffset::CODE,
                &queue.topic,
                &queue.broker_name,
                Access::Read { broker_id: 0 },
            )
            .await?;
        self.call_vip(&address, &request).await?;
        Ok(self.broker_address(&queue.broker_name, Access::Write).as_ref() == Some(&address))
    }

    /// The offset that the next message of `queue` will get.
    pub(crate) async fn max_offset(&self, queue: &MessageQueue) -> Result<i64, RequestError> {
        let request = GetMaxOffset { topic: Arc::clone(&queue.topic), queue_id: queue.queue_id };
        self.ask_about(queue, &request).await.map(|answer| answer.offset)
    }

    /// The offset of the first message that `queue` still has.
    pub(crate) async fn min_offset(&self, queue: &MessageQueue) -> Result<i64, RequestError> {
        let request = GetMinOffset { topic: Arc::clone(&queue.topic), queue_id: queue.queue_id };
        self.ask_about(queue, &request).await.map(|answer| answer.offset)
    }

    /// The offset of the first message of `queue` that was stored at `timestamp_ms` or later.
    pub(crate) async fn search_offset(
        &self,
        queue: &MessageQueue,
        timestamp_ms: i64,
    ) -> Result<i64, RequestError> {
        let request = SearchOffset {
            topic: Arc::clone(&queue.topic),
            queue_id: queue.queue_id,
            timestamp: timestamp_ms,
        };
        self.ask_about(queue, &request).await.map(|answer| answer.offset)
    }

    /// The ids of all clients that have `group`, as a broker of `topic` knows them.
    pub(crate) async fn consumer_ids(
        &self,
        group: &Arc<str>,
        topic: &str,
    ) -> Result<Vec<String>, RequestError> {
        let address = self.any_broker_of(topic).ok_or_else(|| RequestError::NoAddress {
            code: GetConsumerList::CODE,
            reason: format!("no broker of topic {topic} is known"),
        })?;
        self.consumer_ids_at(&address, group).await
    }

    /// The same, as the broker at `address` knows them.
    pub(crate) async fn consumer_ids_at(
        &self,
        address: &Address,
        group: &Arc<str>,
    ) -> Result<Vec<String>, RequestError> {
        let request = GetConsumerList { consumer_group: Arc::clone(group) };
        Ok(self.call_vip(address, &request).await?.0.consumer_id_list)
    }

    /// Takes or renews the locks of `queues`, all of `broker`, for this member of `group`; those that it has now.
    pub(crate) async fn lock_queues(
        &self,
        group: &str,
        broker: &str,
        queues: Vec<MessageQueue>,
    ) -> Result<Vec<MessageQueue>, RequestError> {
        let answer = self.ask_about_locks(group, broker, queues, &LockBatchMq).await?;
        Ok(answer.0.lock_ok_mq_set)
    }

    /// Gives the locks of `queues`, all of `broker`, free, and waits until the broker says that they are.
    pub(crate) async fn unlock_queues(
        &self,
        group: &str,
        broker: &str,
        queues: Vec<MessageQueue>,
    ) -> Result<(), RequestError> {
        self.ask_about_locks(group, broker, queues, &UnlockBatchMq).await
    }

    async fn ask_about_locks<R: Request>(
        &self,
        group: &str,
        broker: &str,
        queues: Vec<MessageQueue>,
        request: &R,
    ) -> Result<R::Response, RequestError> {
        let topic = queues.first().map(|queue| Arc::clone(&queue.topic)).unwrap_or_default();
        let address = self.find_broker(R::CODE, &topic, broker, Access::Write).await?;
        let body = LockBatch {
            consumer_group: group.to_owned(),
            client_id: self.id.clone(),
            only_this_broker: false,
            mq_set: queues,
        };
        let (address, body) = (self.vip(&address), json::write(&body).into());
        self.remoting.call(&address, request, body, self.config.request_timeout).await
    }

    /// Hands a message back to the broker that holds it, to be delivered again.
    pub(crate) async fn send_back(
        &self,
        broker: &str,
        topic: &str,
        request: &SendMessageBack,
        limit: Duration,
    ) -> Result<(), RequestError> {
        let address = self.find_broker(SendMessageBack::CODE, topic, broker, Access::Write).await?;
        self.remoting.call(&self.vip(&address), request, Bytes::new(), limit).await
    }

    /// Asks the master of a queue, or a slave where it is gone: its messages can be read all the same.
    async fn ask_about<R: Request>(
        &self,
        queue: &MessageQueue,
        request: &R,
    ) -> Result<R::Response, RequestError> {
        let access = Access::Read { broker_id: route::MASTER };
        let address = self.find_broker(R::CODE, &queue.topic, &queue.broker_name, access).await?;
        self.call_vip(&address, request).await
    }

    /// Asks what may be asked at the second port of a broker.
    async fn call_vip<R: Request>(
        &self,
        address: &Address,
        request: &R,
    ) -> Result<R::Response, RequestError> {
        let limit = self.config.request_timeout;
        self.remoting.call(&self.vip(address), request, Bytes::new(), limit).await
    }
}
