//! What operators ask of a consumer, through its brokers: where it is, what it is doing, to go on from elsewhere, to handle
//! one message now.
//!
//! Source: `behaviour.md` section 5. Everything runs in tasks of its own: a connection is never kept from reading.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time;
use tracing::{debug, info, warn};

use super::{GroupMember, MqClient};
use crate::message::{MessageExt, MessageQueue, stored};
use crate::protocol::broker_calls::{
    ConsumeDirectlyResult, ConsumeMessageDirectly, ConsumerRunningInfo, GetConsumerRunningInfo,
    GetConsumerStatus, ResetOffset, read_offset_table, write_consumer_status,
};
use crate::protocol::{Header, HeaderError, RemotingCommand, RequestCode, ResponseCode, json};
use crate::remoting::{Address, Answer};

/// Commands at the same time; those beyond are refused.
pub(super) const MAX_COMMANDS: usize = 64;
/// A broker waits no longer for an answer.
const LIMIT: Duration = Duration::from_secs(10);

/// What came of a message that was to be handled at once, or why it was not.
pub(crate) type Directly = Pin<Box<dyn Future<Output = Result<ConsumeDirectlyResult, String>> + Send>>;

impl MqClient {
    /// Does what a broker asks, and answers within its time.
    pub(super) fn obey(self: &Arc<Self>, address: &Address, command: RemotingCommand, answer: Answer) {
        let Ok(permit) = Arc::clone(&self.commands).try_acquire_owned() else {
            warn!(%address, code = %command.request_code(), limit = MAX_COMMANDS, "too many commands at the same time, one is refused");
            let remark = format!("the client is busy with {MAX_COMMANDS} commands");
            return answer.send(RemotingCommand::response(ResponseCode::SYSTEM_BUSY, remark));
        };
        let (client, address) = (Arc::clone(self), Arc::clone(address));
        self.tasks.spawn("command", async move {
            let code = command.request_code();
            let response = tokio::select! {
                () = client.tasks.stopping().cancelled() => Err("the client is being shut down".to_owned()),
                done = time::timeout(LIMIT, client.response(&command)) => {
                    done.unwrap_or_else(|_| Err(format!("it is not done after {LIMIT:?}")))
                }
            };
            if let Err(remark) = &response {
                debug!(%address, %code, remark, "a command was not carried out");
            }
            let refused = |remark| RemotingCommand::response(ResponseCode::SYSTEM_ERROR, remark);
            answer.send(response.unwrap_or_else(refused));
            drop(permit);
        });
    }

    async fn response(&self, command: &RemotingCommand) -> Result<RemotingCommand, String> {
        let body = match command.request_code() {
            RequestCode::RESET_CONSUMER_CLIENT_OFFSET => {
                self.reset_offsets(command).map_err(|error| error.to_string())?;
                Vec::new()
            }
            RequestCode::GET_CONSUMER_STATUS_FROM_CLIENT => self.consumer_status(command).map_err(text)?,
            RequestCode::GET_CONSUMER_RUNNING_INFO => self.running_info(command)?.encode(),
            _ => json::write(&self.consume_directly(command).await?),
        };
        Ok(RemotingCommand::response(ResponseCode::SUCCESS, None).with_body(body))
    }

    fn reset_offsets(&self, command: &RemotingCommand) -> Result<(), HeaderError> {
        let ResetOffset { topic, group, .. } = ResetOffset::read(&command.ext_fields)?;
        let offsets = read_offset_table(&command.body)?;
        info!(group, topic, queues = offsets.len(), "a broker asks to go on from other offsets");
        if let Some(member) = self.consumer(&group) {
            member.reset_offsets(&topic, offsets);
        }
        Ok(())
    }

    /// A group that is not here is nowhere.
    fn consumer_status(&self, command: &RemotingCommand) -> Result<Vec<u8>, HeaderError> {
        let GetConsumerStatus { topic, group, .. } = GetConsumerStatus::read(&command.ext_fields)?;
        let offsets = self.consumer(&group).map(|member| member.offsets(&topic)).unwrap_or_default();
        Ok(write_consumer_status(&offsets))
    }

    fn running_info(&self, command: &RemotingCommand) -> Result<ConsumerRunningInfo, String> {
        let request = GetConsumerRunningInfo::read(&command.ext_fields).map_err(text)?;
        let member = self.member(&request.consumer_group)?;
        let mut info = member.running_info(request.jstack_enable.unwrap_or_default());
        let name_servers: String =
            self.name_servers.candidates().map(|address| format!("{address};")).collect();
        info.properties.extend(
            [
                ("PROP_NAMESERVER_ADDR", name_servers),
                ("PROP_CLIENT_VERSION", CLIENT_VERSION.to_owned()),
                ("instanceName", self.id.split('@').nth(1).unwrap_or_default().to_owned()),
                ("rocketmqRustVersion", env!("CARGO_PKG_VERSION").to_owned()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        Ok(info)
    }

    async fn consume_directly(&self, command: &RemotingCommand) -> Result<ConsumeDirectlyResult, String> {
        let request = ConsumeMessageDirectly::read(&command.ext_fields).map_err(text)?;
        let member = self.member(&request.consumer_group)?;
        let limit = self.config.max_frame.as_usize();
        let message = stored::decode_all(command.body.clone(), limit).next();
        let mut message = message.ok_or("there is no message in the body")?.map_err(text)?;
        message.set_broker_name(request.broker_name.unwrap_or_default().into());
        info!(
            group = request.consumer_group, topic = message.topic(), message_id = %message.message_id(),
            "an operator sends a message to this client directly",
        );
        member.consume_directly(message).await
    }

    fn member(&self, group: &str) -> Result<Arc<dyn GroupMember>, String> {
        self.consumer(group)
            .ok_or_else(|| format!("the consumer group {group} is not in the client {}", self.id))
    }
}

/// The release whose number our requests name, in the words of Java's `MQVersion`.
const CLIENT_VERSION: &str = "V5_5_0";

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// What a member without listeners says.
pub(crate) fn no_listeners(message: &MessageExt) -> Directly {
    let remark =
        format!("this consumer has no listeners: the message {} stays unhandled", message.message_id());
    Box::pin(async move { Err(remark) })
}

/// Offsets by queue.
pub(crate) type Offsets = BTreeMap<MessageQueue, i64>;
