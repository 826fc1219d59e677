//! Messages that a group could not consume: back to it later, or to its dead letters.
//!
//! Source: `AbstractSendMessageProcessor.consumerSendMsgBack`, `SendMessageProcessor.handleRetryAndDLQ`;
//! `protocol.md` section 2.8, `behaviour.md` section 3.8.

use super::clock::Now;
use super::delay::Delay;
use super::effects::Effects;
use super::names;
use super::state::{Refusal, State};
use super::store::{NewMessage, edit_properties};
use crate::message::properties;
use crate::protocol::ResponseCode;
use crate::protocol::header::{SendMessageBack, SendMessageV2};

/// How often a message is delivered again where nobody says.
const MAX_RECONSUME_TIMES: i32 = 16;
/// The first version (3.4.9) whose clients say how often.
const SAYS_MAX_RECONSUME_TIMES: i32 = 121;
/// What is added to the number of times that a message was consumed to get its delay level: 10 s for the first time.
const FIRST_LEVEL: i32 = 3;

impl State {
    /// A consumer gives a message back (36).
    pub(super) fn send_back(
        &mut self,
        header: &SendMessageBack,
        version: i32,
        now: Now,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let group = self.group(&header.group)?;
        let retry_topic = self.group_topic(&names::retry_topic(&group))?;
        let record = self.store.find(header.offset).and_then(|record| NewMessage::from_record(&record.bytes));
        let Some((mut message, stored)) = record else {
            let remark = format!("look message by offset failed, {}", header.offset);
            return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
        };
        let max = max_reconsume_times(header.max_reconsume_times, version);
        let is_dead = header.delay_level < 0 || max <= message.reconsume_times;
        let level = match header.delay_level {
            _ if is_dead => 0,
            0 => FIRST_LEVEL.saturating_add(message.reconsume_times),
            level => level,
        };
        let origin_topic = stored.property(properties::RETRY_TOPIC).unwrap_or(&message.topic);
        let origin_id = match stored.property(properties::ORIGIN_MESSAGE_ID) {
            Some(id) => id.to_owned(),
            None => stored.offset_message_id(),
        };
        message.properties = edit_properties(
            &message.properties,
            &[
                (properties::RETRY_TOPIC, Some(origin_topic)),
                (properties::ORIGIN_MESSAGE_ID, Some(&origin_id)),
                (properties::WAIT, Some("false")),
                (properties::DELAY, Some(&level.to_string())),
            ],
        );
        message.topic = match is_dead {
            true => self.group_topic(&names::dead_letter_topic(&group))?,
            false => retry_topic,
        };
        message.queue_id = 0;
        message.reconsume_times = message.reconsume_times.saturating_add(1);
        let delay = Delay::of(&message.properties, &self.policy.delay_levels, now)?;
        self.put(message, delay, now, effects).map(|_| ())
    }

    /// Turns a message for a retry topic that was consumed too often into a dead letter; likewise one of a group that
    /// consumes in order, because such groups send here only what they have given up.
    pub(super) fn divert_retry(
        &mut self,
        message: &mut NewMessage,
        header: &SendMessageV2,
        version: i32,
        now: Now,
    ) -> Result<(), Refusal> {
        let Some(group) = names::group_of_retry_topic(&header.topic) else { return Ok(()) };
        let group = self.group(group)?;
        let max = max_reconsume_times(header.max_reconsume_times, version);
        if message.reconsume_times <= max && !self.locks.has_any(&group, now.unmoved) {
            return Ok(());
        }
        message.topic = self.group_topic(&names::dead_letter_topic(&group))?;
        message.queue_id = 0;
        message.properties = edit_properties(&message.properties, &[(properties::DELAY, Some("-1"))]);
        Ok(())
    }
}

fn max_reconsume_times(said: Option<i32>, version: i32) -> i32 {
    said.filter(|_| SAYS_MAX_RECONSUME_TIMES <= version).unwrap_or(MAX_RECONSUME_TIMES)
}
