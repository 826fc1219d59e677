//! The typed calls of producers.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::MqClient;
use super::route::Access;
use crate::message::MessageQueue;
use crate::protocol::header::{
    GetMaxOffset, Header, RecallMessage, RecallMessageResponse, SendMessageResponse, SendMessageV2,
};
use crate::protocol::{Request, RequestCode, ResponseCode};
use crate::remoting::{Address, RequestError, TimeLimit, refused};

/// The answer to a send that was stored, in full or not quite.
#[derive(Debug)]
pub(crate) struct SendAnswer {
    pub(crate) code: ResponseCode,
    pub(crate) header: SendMessageResponse,
}

/// Which of a broker's two ports a request takes, where the configuration allows a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    First,
    Second,
}

impl MqClient {
    /// Where messages for `broker` go: its master.
    pub(crate) async fn publish_address(&self, topic: &str, broker: &str) -> Result<Address, RequestError> {
        self.find_broker(SendMessageV2::CODE, topic, broker, Access::Write).await
    }

    /// Stores a message at the master of `broker`.
    pub(crate) async fn send(
        &self,
        broker: &str,
        request: &SendMessageV2,
        body: Bytes,
        limit: Duration,
    ) -> Result<SendAnswer, RequestError> {
        let address = self.publish_address(&request.topic, broker).await?;
        self.send_at(&address, Port::Second, SendMessageV2::CODE, request, body, limit).await
    }

    /// Stores a message or a batch at the broker with this address, or has a reply passed on: what `code` says.
    pub(crate) async fn send_at(
        &self,
        address: &Address,
        port: Port,
        code: RequestCode,
        request: &SendMessageV2,
        body: Bytes,
        limit: impl Into<TimeLimit>,
    ) -> Result<SendAnswer, RequestError> {
        let address = self.port(address, port);
        let answer = self.remoting.request(&address, code, request, body, limit).await?;
        match answer.response_code() {
            ResponseCode::SUCCESS
            | ResponseCode::FLUSH_DISK_TIMEOUT
            | ResponseCode::FLUSH_SLAVE_TIMEOUT
            | ResponseCode::SLAVE_NOT_AVAILABLE => {
                let header = SendMessageResponse::read(&answer.ext_fields)
                    .map_err(|error| RequestError::bad_answer(&address, code, &error))?;
                Ok(SendAnswer { code: answer.response_code(), header })
            }
            _ => Err(refused(&address, code, &answer)),
        }
    }

    /// Hands a message to the connection of the broker with this address; nobody learns what becomes of it.
    pub(crate) async fn send_oneway_at(
        &self,
        address: &Address,
        port: Port,
        code: RequestCode,
        request: &SendMessageV2,
        body: Bytes,
        limit: Duration,
    ) -> Result<(), RequestError> {
        let address = self.port(address, port);
        let command = self.remoting.oneway_command(&address, code, request, body)?;
        self.remoting.tell(&address, command, limit).await
    }

    /// Takes a timer message back before its time; returns its id.
    pub(crate) async fn recall_at(
        &self,
        address: &Address,
        request: &RecallMessage,
        limit: Duration,
    ) -> Result<RecallMessageResponse, RequestError> {
        self.remoting.call(address, request, Bytes::new(), limit).await
    }

    /// Whether the broker with this address answers within `limit`.
    pub(crate) async fn is_answering(
        &self,
        address: &Address,
        queue: &MessageQueue,
        limit: Duration,
    ) -> bool {
        let question = GetMaxOffset { topic: Arc::clone(&queue.topic), queue_id: queue.queue_id };
        self.remoting.call(address, &question, Bytes::new(), limit).await.is_ok()
    }

    fn port<'a>(&self, address: &'a Address, port: Port) -> Cow<'a, Address> {
        match port {
            Port::First => Cow::Borrowed(address),
            Port::Second => self.vip(address),
        }
    }
}
