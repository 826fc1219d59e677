//! What operators ask of a member of a group, passed on to it: what it is doing, how far it is, to handle one message.
//!
//! Source: `protocol.md` section 2.9, `AdminBrokerProcessor.callConsumer`, `Broker2Client`.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use tracing::debug;

use super::broker::{Broker, success};
use super::names::BROKER_NAME;
use super::state::{Refusal, State};
use crate::message::id;
use crate::protocol::broker_calls::GetConsumerStatus;
use crate::protocol::header::{Header, header};
use crate::protocol::{ExtFields, Field, HeaderError, RemotingCommand, RequestCode, ResponseCode};
use crate::remoting::{Answer, Peer};

/// How long a member has to answer.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(10);
/// And to say how far it is.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

header! {
    /// To one member of a group (307, 309).
    ToMember {
        consumer_group: String = "consumerGroup",
        client_id: Option<String> = "clientId",
        msg_id: Option<String> = "msgId",
    }
}

/// A request on its way to a member.
struct Relayed {
    peer: Peer,
    command: RemotingCommand,
    group: String,
    client_id: String,
}

impl Broker {
    /// Passes a request on, and the answer back.
    pub(super) fn relay(&self, command: &RemotingCommand, answer: Answer) {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let stopping = tasks.stopping().clone();
        if command.request_code() == RequestCode::INVOKE_BROKER_TO_GET_CONSUMER_STATUS {
            let asked = GetConsumerStatus::read(&command.ext_fields).map_err(Refusal::from);
            let asked = asked.and_then(|header| self.with_state(|state| status_of(state, &header)));
            return match asked {
                Ok(members) => tasks.spawn("consumer status", async move {
                    if let Some(status) = stopping.run_until_cancelled(collect_status(members)).await {
                        answer.send(status);
                    }
                }),
                Err(refusal) => answer.send(refusal.into_command()),
            };
        }
        match self.with_state(|state| Relayed::of(state, command)) {
            Ok(relayed) => tasks.spawn("relay", async move {
                if let Some(answered) = stopping.run_until_cancelled(relayed.carry_out()).await {
                    answer.send(answered);
                }
            }),
            Err(refusal) => answer.send(refusal.into_command()),
        }
    }
}

impl Relayed {
    fn of(state: &State, command: &RemotingCommand) -> Result<Self, Refusal> {
        let ToMember { consumer_group: group, client_id, msg_id } = ToMember::read(&command.ext_fields)?;
        let client_id = client_id.unwrap_or_default();
        let mut fields = command.ext_fields.clone();
        let mut body = Bytes::new();
        if command.request_code() == RequestCode::CONSUME_MESSAGE_DIRECTLY {
            body = record(state, msg_id.as_deref().unwrap_or_default())?;
            fields.put("brokerName", BROKER_NAME);
        }
        let Some(peer) = state.groups.peer(&group, &client_id) else {
            let remark = format!("The Consumer <{group}> <{client_id}> not online");
            return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
        };
        let command = RemotingCommand::request(command.request_code(), fields, body);
        Ok(Self { peer, command, group, client_id })
    }

    async fn carry_out(self) -> RemotingCommand {
        let Self { peer, command, group, client_id } = self;
        match peer.call(command, MEMBER_TIMEOUT).await {
            Ok(answer) => {
                let mut copy = RemotingCommand::response(answer.response_code(), answer.remark);
                copy.ext_fields = answer.ext_fields;
                copy.with_body(answer.body)
            }
            Err(error) => {
                debug!(group, client_id, %error, "a member of the group did not answer");
                let remark = format!("consumer <{group}> <{client_id}> Timeout: {error}");
                Refusal::new(ResponseCode::CONSUME_MSG_TIMEOUT, remark).into_command()
            }
        }
    }
}

/// The message whose id an operator gave.
fn record(state: &State, msg_id: &str) -> Result<Bytes, Refusal> {
    let record = id::offset_of(msg_id).and_then(|offset| state.store.find(offset));
    record.map(|record| record.bytes.clone()).ok_or_else(|| {
        let remark = format!("the message {msg_id} is not in this broker");
        Refusal::new(ResponseCode::SYSTEM_ERROR, remark)
    })
}

/// Those who are to be asked how far they are, and the request for each.
fn status_of(
    state: &State,
    header: &GetConsumerStatus,
) -> Result<Vec<(String, Peer, RemotingCommand)>, Refusal> {
    let wanted = header.client_addr.as_deref().filter(|id| !id.is_empty());
    let members = state.groups.peers(&header.group).into_iter();
    let members: Vec<_> =
        members.filter(|(id, _)| wanted.is_none_or(|wanted| wanted == id.as_str())).collect();
    if members.is_empty() {
        let remark = format!("No Any Consumer online in the consumer group: [{}]", header.group);
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    }
    let command = || {
        let code = RequestCode::GET_CONSUMER_STATUS_FROM_CLIENT;
        RemotingCommand::request(code, header.to_fields(), Bytes::new())
    };
    Ok(members.into_iter().map(|(id, peer)| (id, peer, command())).collect())
}

/// Asks one after the other, and puts what they say together as it is: a map of maps whose keys are not JSON.
async fn collect_status(members: Vec<(String, Peer, RemotingCommand)>) -> RemotingCommand {
    let mut table = BTreeMap::new();
    for (id, peer, command) in members {
        match peer.call(command, STATUS_TIMEOUT).await {
            Ok(answer) if answer.response_code() == ResponseCode::SUCCESS => {
                let text = String::from_utf8_lossy(&answer.body);
                let offsets = text.trim().strip_prefix(r#"{"messageQueueTable":"#);
                let offsets = offsets.and_then(|text| text.strip_suffix('}')).unwrap_or("{}");
                table.insert(id, offsets.to_owned());
            }
            Ok(answer) => debug!(member = id, remark = answer.remark, "a member does not say how far it is"),
            Err(error) => debug!(member = id, %error, "a member does not say how far it is"),
        }
    }
    let member = |(id, offsets): (&String, &String)| format!("{}:{offsets}", serde_json::json!(id));
    let members: Vec<_> = table.iter().map(member).collect();
    success().with_body(format!(r#"{{"consumerTable":{{{}}}}}"#, members.join(",")))
}
