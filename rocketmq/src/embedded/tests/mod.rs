//! The server as its clients find it: over real sockets, each behaviour once.

mod admin;
mod faults;
mod groups;
mod pops;
mod pulls;
mod retries;
mod sends;
mod transactions;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::time;

use super::{Server, ServerBuilder};
use crate::message::stored;
use crate::message::{MessageExt, batch, tag};
use crate::protocol::body::{ConsumerData, HeartbeatData, SubscriptionData};
use crate::protocol::header::{
    Heartbeat, PullMessage, PullMessageResponse, SendMessageResponse, SendMessageV2, pull_flag,
};
use crate::protocol::{
    ExtFields, Header, HeaderForm, RemotingCommand, Request, RequestCode, ResponseCode, json,
};
use crate::remoting::{
    Address, Answer, Inbound, Limits, RemotingClient, RemotingSettings, RequestError, RequestType, RpcHooks,
};
use crate::tasks::Tasks;

/// Longer than any answer takes, so that only what never comes is waited for so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client with one connection to the broker and one to the name server.
struct Client {
    remoting: RemotingClient,
    broker: Address,
    name_server: Address,
    /// What the broker said by itself.
    told: mpsc::Receiver<RemotingCommand>,
    tasks: Tasks,
}

struct Told(mpsc::Sender<RemotingCommand>);

impl Inbound for Told {
    fn request(&self, _: &Address, command: RemotingCommand, _: Answer) {
        self.0.try_send(command).unwrap();
    }
}

impl Client {
    fn new(server: &Server) -> Self {
        let limits = Limits {
            max_frame_bytes: 16 << 20,
            max_in_flight: 100,
            idle_timeout: PATIENCE * 10,
            max_silence: PATIENCE * 10,
            form: HeaderForm::Json,
        };
        let settings = RemotingSettings {
            connect_timeout: PATIENCE,
            limits,
            signer: None,
            tls: None,
            namespace_v2: None,
            request_type: RequestType::Plain,
            hooks: RpcHooks::default(),
        };
        let (sender, told) = mpsc::channel(100);
        let tasks = Tasks::default();
        Self {
            remoting: RemotingClient::new(settings, Arc::new(Told(sender)), tasks.clone()),
            broker: server.broker().into(),
            name_server: server.name_server().into(),
            told,
            tasks,
        }
    }

    /// The answer, or the code of the refusal.
    async fn call<R: Request>(&self, request: &R) -> Result<R::Response, ResponseCode> {
        self.call_with(request, Bytes::new()).await
    }

    async fn call_with<R: Request>(
        &self,
        request: &R,
        body: impl Into<Bytes>,
    ) -> Result<R::Response, ResponseCode> {
        let called = self.remoting.call(&self.broker, request, body.into(), PATIENCE).await;
        called.map_err(|error| error.response_code().unwrap_or_else(|| panic!("{error}")))
    }

    /// The answer, whatever it says.
    async fn invoke(&self, code: RequestCode, fields: ExtFields, body: impl Into<Bytes>) -> RemotingCommand {
        self.try_invoke(code, fields, body).await.unwrap()
    }

    async fn try_invoke(
        &self,
        code: RequestCode,
        fields: ExtFields,
        body: impl Into<Bytes>,
    ) -> Result<RemotingCommand, RequestError> {
        let command = RemotingCommand::request(code, fields, body.into());
        self.remoting.invoke(&self.broker, command, PATIENCE).await
    }

    async fn send(&self, header: SendMessageV2) -> Result<SendMessageResponse, ResponseCode> {
        self.call_with(&header, "hello").await
    }

    async fn pull(&self, header: PullMessage) -> Pulled {
        let answer = self.invoke(RequestCode::PULL_MESSAGE, header.to_fields(), Bytes::new()).await;
        let code = answer.response_code();
        let header = PullMessageResponse::read(&answer.ext_fields).ok();
        let messages = stored::decode_all(answer.body, 16 << 20).map(Result::unwrap).collect();
        Pulled { code, header, messages }
    }

    /// One member of a group that subscribes to these topics, all tags each.
    async fn heartbeat(&self, client_id: &str, group: &str, topics: &[&str]) {
        let subscriptions: Vec<_> = topics.iter().map(|topic| (*topic, "*")).collect();
        self.subscribe(client_id, group, 1, &subscriptions).await;
    }

    async fn subscribe(&self, client_id: &str, group: &str, version: i64, subscriptions: &[(&str, &str)]) {
        let subscription = |(topic, expression): &(&str, &str)| SubscriptionData {
            topic: (*topic).into(),
            sub_string: (*expression).into(),
            code_set: tag::parse(expression).into_iter().map(tag::hash).collect(),
            sub_version: version,
            expression_type: if expression.contains('=') { "SQL92" } else { "TAG" }.into(),
            ..SubscriptionData::default()
        };
        let data = ConsumerData {
            group_name: group.into(),
            subscription_data_set: subscriptions.iter().map(subscription).collect(),
            ..ConsumerData::default()
        };
        let heartbeat = HeartbeatData {
            client_id: client_id.into(),
            consumer_data_set: vec![data],
            ..HeartbeatData::default()
        };
        self.call_with(&Heartbeat, json::write(&heartbeat)).await.unwrap();
    }

    /// The next thing that the broker says by itself: code and group.
    async fn told(&mut self) -> (RequestCode, Option<String>) {
        let command = time::timeout(PATIENCE, self.told.recv()).await.unwrap().unwrap();
        (command.request_code(), command.ext_fields.get("consumerGroup").map(str::to_owned))
    }

    fn disconnect(&self) {
        self.tasks.cancel();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.disconnect();
    }
}

struct Pulled {
    code: ResponseCode,
    /// Only refusals have none.
    header: Option<PullMessageResponse>,
    messages: Vec<MessageExt>,
}

impl Pulled {
    fn bodies(&self) -> Vec<String> {
        self.messages.iter().map(|message| message.body_str().into_owned()).collect()
    }

    fn next(&self) -> i64 {
        self.header.as_ref().unwrap().next_begin_offset
    }
}

fn fast() -> ServerBuilder {
    Server::builder().delay_levels([1, 20, 30, 40].map(Duration::from_millis))
}

async fn started() -> Server {
    fast().start().await.unwrap()
}

fn message(topic: &str, queue_id: i32, properties: &[(&str, &str)]) -> SendMessageV2 {
    SendMessageV2 {
        producer_group: "producers".into(),
        topic: topic.into(),
        default_topic: "TBW102".into(),
        default_topic_queue_nums: 4,
        queue_id,
        sys_flag: 0,
        born_timestamp: 1_700_000_000_000,
        flag: 7,
        properties: Some(crate::message::properties::encode(properties.iter().copied())),
        reconsume_times: None,
        unit_mode: None,
        max_reconsume_times: None,
        batch: None,
        broker_name: None,
    }
}

/// A pull of the group `g` that does not wait and brings its own subscription.
fn pull(topic: &str, queue_id: i32, queue_offset: i64) -> PullMessage {
    PullMessage {
        consumer_group: "g".into(),
        topic: topic.into(),
        queue_id,
        queue_offset,
        max_msg_nums: 32,
        sys_flag: pull_flag::SUBSCRIPTION,
        commit_offset: 0,
        suspend_timeout_millis: 0,
        subscription: Some("*".into()),
        sub_version: 0,
        expression_type: None,
        max_msg_bytes: None,
        broker_name: None,
    }
}

/// The same, waiting for as long as a test has patience.
fn waiting_pull(topic: &str, queue_id: i32, queue_offset: i64) -> PullMessage {
    PullMessage {
        sys_flag: pull_flag::SUBSCRIPTION | pull_flag::SUSPEND,
        suspend_timeout_millis: 2 * PATIENCE.as_millis() as i64,
        ..pull(topic, queue_id, queue_offset)
    }
}

fn batch_of(messages: &[(&str, &str)]) -> Bytes {
    let mut out = BytesMut::new();
    for (body, tag) in messages {
        batch::encode(&mut out, 3, body.as_bytes(), &crate::message::properties::encode([("TAGS", *tag)]));
    }
    out.freeze()
}
