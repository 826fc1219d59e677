//! The requests of POP: what they ask, and what their answers look like. The decisions are the state's.

use super::broker::{Broker, success};
use super::endpoint::Connection;
use super::state::Refusal;
use crate::protocol::pop::{
    AckMessage, AssignmentAnswer, AssignmentQuestion, BatchAckBody, ChangeInvisibleTime, PopHandle,
    PopMessage, RequestMode,
};
use crate::protocol::{Header, RemotingCommand, RequestCode, ResponseCode, json};
use crate::remoting::Answer;

impl Broker {
    pub(super) fn pop(&self, connection: &Connection, command: &RemotingCommand, answer: Answer) {
        match PopMessage::read(&command.ext_fields) {
            Ok(header) => {
                self.change(|state, now, effects| state.pop(header, connection.id, answer, now, effects));
            }
            Err(error) => answer.send(Refusal::from(error).into_command()),
        }
    }

    /// What is asked about popping, and is answered at once; `None` for everything else.
    pub(super) fn answer_pop_request(
        &self,
        command: &RemotingCommand,
    ) -> Option<Result<RemotingCommand, Refusal>> {
        Some(match command.request_code() {
            RequestCode::ACK_MESSAGE => self.ack(command),
            RequestCode::BATCH_ACK_MESSAGE => self.ack_batch(command),
            RequestCode::CHANGE_MESSAGE_INVISIBLETIME => self.change_invisible_time(command),
            RequestCode::QUERY_ASSIGNMENT => self.query_assignment(command),
            RequestCode::SET_MESSAGE_REQUEST_MODE => self.set_request_mode(command),
            _ => return None,
        })
    }

    fn ack(&self, command: &RemotingCommand) -> Result<RemotingCommand, Refusal> {
        let AckMessage { consumer_group, topic, queue_id, extra_info, offset, .. } =
            AckMessage::read(&command.ext_fields)?;
        let handle = handle(&extra_info, queue_id, offset)?;
        self.with_state(|state| state.ack(&consumer_group, &topic, &handle))?;
        Ok(success())
    }

    fn ack_batch(&self, command: &RemotingCommand) -> Result<RemotingCommand, Refusal> {
        let BatchAckBody { acks, .. } = json::read(&command.body)?;
        if acks.is_empty() {
            return Err(Refusal::new(ResponseCode::NO_MESSAGE, ""));
        }
        self.with_state(|state| state.ack_batch(&acks));
        Ok(success())
    }

    fn change_invisible_time(&self, command: &RemotingCommand) -> Result<RemotingCommand, Refusal> {
        let header = ChangeInvisibleTime::read(&command.ext_fields)?;
        let handle = handle(&header.extra_info, header.queue_id, header.offset)?;
        let ChangeInvisibleTime { consumer_group, topic, invisible_time, .. } = header;
        let changed = self.change(|state, now, _| {
            state.change_invisible_time(&consumer_group, &topic, &handle, invisible_time, now)
        })?;
        Ok(success().with_fields(changed.to_fields()))
    }

    fn query_assignment(&self, command: &RemotingCommand) -> Result<RemotingCommand, Refusal> {
        let question: AssignmentQuestion = json::read(&command.body)?;
        let message_queue_assignments = self.with_state(|state| state.assign(&question));
        Ok(success().with_body(json::write(&AssignmentAnswer { message_queue_assignments })))
    }

    fn set_request_mode(&self, command: &RemotingCommand) -> Result<RemotingCommand, Refusal> {
        let request: RequestMode = json::read(&command.body)?;
        self.with_state(|state| state.set_request_mode(&request))?;
        Ok(success())
    }
}

/// The handle that a client sent, with the place that it names beside.
fn handle(extra_info: &str, queue_id: i32, queue_offset: i64) -> Result<PopHandle, Refusal> {
    let handle = extra_info.parse::<PopHandle>();
    let handle = handle.map_err(|error| Refusal::new(ResponseCode::SYSTEM_ERROR, error.to_string()))?;
    Ok(PopHandle { queue_id, queue_offset, ..handle })
}
