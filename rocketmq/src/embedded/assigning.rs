//! Which queues are whose, for members that ask the broker, and how their messages come.
//!
//! Source: `QueryAssignmentProcessor`, `MessageRequestModeManager`.

use std::collections::HashMap;
use std::sync::Arc;

use super::names::{self, BROKER_NAME};
use super::state::{Refusal, State};
use crate::message::MessageQueue;
use crate::protocol::ResponseCode;
use crate::protocol::pop::{Assignment, AssignmentQuestion, MessageRequestMode, RequestMode};

/// What operators have said, by topic and group; both exist, so that there are not more than those.
#[derive(Debug, Default)]
pub(super) struct RequestModes(HashMap<(Arc<str>, Arc<str>), (MessageRequestMode, i32)>);

impl RequestModes {
    fn of(&self, topic: &Arc<str>, group: &Arc<str>) -> (MessageRequestMode, i32) {
        self.0.get(&(Arc::clone(topic), Arc::clone(group))).copied().unwrap_or_default()
    }
}

impl State {
    /// An operator says how messages come.
    pub(super) fn set_request_mode(&mut self, request: &RequestMode) -> Result<(), Refusal> {
        let RequestMode { topic, consumer_group, mode, pop_share_queue_num } = request;
        if names::group_of_retry_topic(topic).is_some() {
            let remark = "retry topic is not allowed to set mode";
            return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
        }
        let Some(topic) = self.store.topic(topic) else {
            let remark = format!("topic[{topic}] not exist");
            return Err(Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark));
        };
        let Some(group) = self.groups.known(consumer_group) else {
            let remark = format!("subscription group [{consumer_group}] does not exist");
            return Err(Refusal::new(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
        };
        let key = (Arc::clone(&topic.name), Arc::clone(group));
        self.modes.0.insert(key, (*mode, *pop_share_queue_num));
        Ok(())
    }

    /// The share of one member; `None` where the broker cannot tell.
    pub(super) fn assign(&self, question: &AssignmentQuestion) -> Option<Vec<Assignment>> {
        let topic = self.store.topic(&question.topic)?;
        let group = self.groups.known(&question.consumer_group)?;
        let mut members = self.groups.members(group);
        if members.is_empty() {
            return None;
        }
        members.sort_unstable();
        let strategy = Strategy::named(&question.strategy_name)?;
        let (mode, share) = self.modes.of(&topic.name, group);
        let (queues, own) =
            (topic.config.read_queues, members.iter().position(|id| *id == question.client_id));
        let mut ids: Vec<i32> = match mode {
            MessageRequestMode::Pop if share <= 0 => vec![-1],
            MessageRequestMode::Pop if queues < members.len() as i32 => {
                own.map(|own| own as i32 % queues.max(1)).into_iter().collect()
            }
            MessageRequestMode::Pop => {
                let own = own.into_iter();
                let also = own.flat_map(|own| (own..).take(1 + (share as usize).min(members.len())));
                also.flat_map(|at| strategy.share(queues, members.len(), at % members.len())).collect()
            }
            MessageRequestMode::Pull | MessageRequestMode::Unknown => {
                own.map(|own| strategy.share(queues, members.len(), own)).unwrap_or_default()
            }
        };
        ids.sort_unstable();
        ids.dedup();
        let assignment = |id| Assignment {
            message_queue: MessageQueue::new(Arc::clone(&topic.name), BROKER_NAME, id),
            mode,
        };
        Some(ids.into_iter().map(assignment).collect())
    }
}

/// The strategies that brokers know.
#[derive(Debug, Clone, Copy)]
enum Strategy {
    Averagely,
    Circle,
}

impl Strategy {
    fn named(name: &str) -> Option<Self> {
        match name {
            "AVG" => Some(Self::Averagely),
            "AVG_BY_CIRCLE" => Some(Self::Circle),
            _ => None,
        }
    }

    /// The queues of the member at `own` of `members`.
    fn share(self, queues: i32, members: usize, own: usize) -> Vec<i32> {
        let (members, own) = (members as i32, own as i32);
        match self {
            Self::Averagely => {
                let (each, more) = (queues / members, queues % members);
                let start = own * each + own.min(more);
                (start..start + each + i32::from(own < more)).collect()
            }
            Self::Circle => (0..queues).filter(|id| id % members == own).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_those_of_the_worked_examples() {
        for (queues, members, averagely, circle) in [
            (
                8,
                3,
                vec![vec![0, 1, 2], vec![3, 4, 5], vec![6, 7]],
                vec![vec![0, 3, 6], vec![1, 4, 7], vec![2, 5]],
            ),
            (2, 3, vec![vec![0], vec![1], vec![]], vec![vec![0], vec![1], vec![]]),
        ] {
            let shares =
                |strategy: Strategy| (0..members).map(|own| strategy.share(queues, members, own)).collect();
            let (found, dealt): (Vec<_>, Vec<_>) = (shares(Strategy::Averagely), shares(Strategy::Circle));
            assert_eq!((found, dealt), (averagely, circle));
        }
        assert!(Strategy::named("CONSISTENT_HASH").is_none());
    }
}
