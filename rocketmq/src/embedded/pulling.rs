//! Pulls: what is answered at once, what waits, and with which code. Source: `PullMessageProcessor`,
//! `DefaultMessageStore.getMessage`; `protocol.md` section 2.5.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::clock::Now;
use super::effects::Effects;
use super::endpoint::ConnectionId;
use super::groups::Unsubscribed;
use super::held_pulls::HeldPull;
use super::state::{Policy, Refusal, State};
use super::store::{Queue, StoredRecord};
use crate::message::{properties, stored, tag};
use crate::protocol::body::{SubscriptionData, perm};
use crate::protocol::header::{Header, PullMessage, PullMessageResponse, pull_flag};
use crate::protocol::{RemotingCommand, ResponseCode};
use crate::remoting::Answer;
use crate::sql::Selector;

/// What one answer holds at most, as with a broker that reads from memory.
const MAX_MESSAGES: usize = 32;
const MAX_BYTES: usize = 256 << 10;
/// How many messages that do not match are passed over for one answer.
const MAX_SCANNED: usize = 800;
/// No pull waits longer, whatever it asks for.
const MAX_SUSPENSION: Duration = Duration::from_secs(60 * 60);

/// Which messages of a topic a group wants.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Filter {
    All,
    /// Those with one of these tag hashes.
    Tags(Vec<i32>),
    /// Those whose properties match.
    Sql(Selector),
    /// An expression that cannot be read.
    Broken,
    /// An expression of this kind, which this broker does not read.
    Unsupported(String),
}

const SQL92: &str = "SQL92";

impl Filter {
    /// What a heartbeat asks for: the hashes are the client's.
    pub(super) fn of(subscription: &SubscriptionData) -> Self {
        match subscription.expression_type.as_str() {
            "" | "TAG" if tag::parse(&subscription.sub_string).is_empty() => Self::All,
            "" | "TAG" => Self::Tags(subscription.code_set.clone()),
            SQL92 => Self::sql(&subscription.sub_string),
            kind => Self::Unsupported(kind.to_owned()),
        }
    }

    fn sql(expression: &str) -> Self {
        Selector::parse(expression).map_or(Self::Broken, Self::Sql)
    }

    /// What a pull itself asks for.
    pub(super) fn parse(expression: &str, kind: &str, policy: &Policy) -> Result<Self, Refusal> {
        let tags = tag::parse(expression);
        match kind {
            "" | "TAG" if matches!(expression, "" | "*") => Ok(Self::All),
            "" | "TAG" if tags.is_empty() => Err(Refusal::new(
                ResponseCode::SUBSCRIPTION_PARSE_FAILED,
                "parse the consumer's subscription failed",
            )),
            "" | "TAG" => Ok(Self::Tags(tags.into_iter().map(tag::hash).collect())),
            // What a broker cannot read in a pull it does not heed; clients ask before ([`State::check_client`]).
            SQL92 if policy.property_filter => Ok(Selector::parse(expression).map_or(Self::All, Self::Sql)),
            kind => Ok(Self::Unsupported(kind.to_owned())),
        }
    }

    pub(super) fn matches(&self, record: &StoredRecord) -> bool {
        match self {
            Self::All => true,
            Self::Tags(hashes) => hashes.contains(&record.tag_hash),
            Self::Sql(selector) => {
                let encoded = stored::encoded_properties(&record.bytes).unwrap_or_default();
                selector.matches(|name| properties::find(encoded, name))
            }
            Self::Broken | Self::Unsupported(_) => false,
        }
    }
}

/// The answer to a pull that is not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PullReply {
    pub(super) code: ResponseCode,
    /// The store's own word for it, by which operators know it.
    status: &'static str,
    pub(super) header: PullMessageResponse,
    records: Vec<Bytes>,
}

impl PullReply {
    pub(super) fn into_command(mut self) -> RemotingCommand {
        let body = match self.records.len() {
            0 | 1 => self.records.pop().unwrap_or_default(),
            _ => {
                let mut body = BytesMut::with_capacity(self.records.iter().map(Bytes::len).sum());
                self.records.iter().for_each(|record| body.extend_from_slice(record));
                body.freeze()
            }
        };
        let mut fields = self.header.to_fields();
        fields.put("topicSysFlag", "0");
        fields.put("groupSysFlag", "0");
        RemotingCommand::response(self.code, self.status.to_owned()).with_fields(fields).with_body(body)
    }
}

impl State {
    /// Answers a pull, or lets it wait.
    pub(super) fn pull(
        &mut self,
        header: PullMessage,
        connection: ConnectionId,
        answer: Answer,
        now: Now,
        effects: &mut Effects,
    ) {
        let (filter, reply) = match self.try_pull(&header) {
            Ok(pulled) => pulled,
            Err(refusal) => return effects.answer(answer, Err(refusal)),
        };
        if header.sys_flag & pull_flag::COMMIT_OFFSET != 0 {
            let PullMessage { consumer_group, topic, queue_id, commit_offset, .. } = &header;
            self.offsets.commit(consumer_group, topic, *queue_id, *commit_offset);
        }
        let may_wait = header.sys_flag & pull_flag::SUSPEND != 0;
        if reply.code != ResponseCode::PULL_NOT_FOUND || !may_wait || self.held.is_full() {
            return effects.answer(answer, Ok(reply));
        }
        let millis = u64::try_from(header.suspend_timeout_millis).unwrap_or_default();
        let deadline = now.unmoved + Duration::from_millis(millis).min(MAX_SUSPENSION);
        self.wake_at(now.moved(deadline));
        self.held.hold(HeldPull { header, filter, connection, deadline, answer });
    }

    /// Answers a pull whose waiting is over, because something came or because nothing did.
    pub(super) fn answer_held(&mut self, pull: HeldPull, effects: &mut Effects) {
        let reply = self.try_pull(&pull.header).map(|(_, reply)| reply);
        effects.answer(pull.answer, reply);
    }

    fn try_pull(&mut self, header: &PullMessage) -> Result<(Arc<Filter>, PullReply), Refusal> {
        self.group(&header.consumer_group)?;
        let name = &header.topic;
        let Some(topic) = self.store.topic(name) else {
            let remark = format!("topic[{name}] not exist, apply first please!");
            return Err(Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark));
        };
        if topic.config.perm & perm::READ == 0 {
            let remark = format!("the topic[{name}] pulling message is forbidden");
            return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
        }
        let queue = topic.queue(header.queue_id).filter(|_| header.queue_id < topic.config.read_queues);
        let Some(queue) = queue else {
            let remark = format!(
                "queueId[{}] is illegal, topic:[{name}] topicConfig.readQueueNums:[{}]",
                header.queue_id, topic.config.read_queues
            );
            return Err(Refusal::new(ResponseCode::INVALID_PARAMETER, remark));
        };
        let filter = self.filter(header)?;
        let mut reply = read(queue, header, &filter);
        if let Some(target) = self.offsets.take_reset(&header.consumer_group, name, header.queue_id) {
            reply = PullReply {
                code: ResponseCode::PULL_OFFSET_MOVED,
                status: "OFFSET_RESET",
                header: PullMessageResponse { next_begin_offset: target, ..reply.header },
                records: Vec::new(),
            };
        }
        Ok((filter, reply))
    }

    /// The filter of a pull: its own one or that of the group's heartbeats.
    fn filter(&self, header: &PullMessage) -> Result<Arc<Filter>, Refusal> {
        let filter = if header.sys_flag & pull_flag::SUBSCRIPTION != 0 {
            let expression = header.subscription.as_deref().unwrap_or_default();
            Arc::new(Filter::parse(
                expression,
                header.expression_type.as_deref().unwrap_or_default(),
                &self.policy,
            )?)
        } else {
            let subscription =
                self.groups.subscription(&header.consumer_group, &header.topic).map_err(|missing| {
                    let remark = match missing {
                        Unsubscribed::Group => "the consumer's group info not exist",
                        Unsubscribed::Topic => "the consumer's subscription not exist",
                    };
                    Refusal::new(ResponseCode::SUBSCRIPTION_NOT_EXIST, remark)
                })?;
            if subscription.version < header.sub_version {
                let remark = "the consumer's subscription not latest";
                return Err(Refusal::new(ResponseCode::SUBSCRIPTION_NOT_LATEST, remark));
            }
            Arc::clone(&subscription.filter)
        };
        match &*filter {
            Filter::Unsupported(kind) => Err(unsupported_filter(kind)),
            Filter::Sql(_) | Filter::Broken if !self.policy.property_filter => Err(unsupported_filter(SQL92)),
            Filter::Broken => {
                let remark = "The broker's consumer filter data is not exist!Your expression may be wrong!";
                Err(Refusal::new(ResponseCode::FILTER_DATA_NOT_EXIST, remark))
            }
            Filter::All | Filter::Tags(_) | Filter::Sql(_) => Ok(filter),
        }
    }

    /// Whether consumers can be filtered for like this (46). Expressions of tags always work.
    ///
    /// Source: `ClientManageProcessor.checkClientConfig`.
    pub(super) fn check_client(&self, subscription: &SubscriptionData) -> Result<(), Refusal> {
        match Filter::of(subscription) {
            Filter::All | Filter::Tags(_) => Ok(()),
            Filter::Unsupported(kind) => Err(unsupported_filter(&kind)),
            _ if !self.policy.property_filter => Err(unsupported_filter(SQL92)),
            Filter::Sql(_) => Ok(()),
            Filter::Broken => {
                Err(Refusal::new(ResponseCode::SUBSCRIPTION_PARSE_FAILED, "Invalid MessageSelector. "))
            }
        }
    }
}

pub(super) fn unsupported_filter(kind: &str) -> Refusal {
    let remark = format!("The broker does not support consumer to filter message by {kind}");
    Refusal::new(ResponseCode::SYSTEM_ERROR, remark)
}

/// What a queue has for a pull.
fn read(queue: &Queue, header: &PullMessage, filter: &Filter) -> PullReply {
    let (min, max, offset) = (queue.min_offset(), queue.max_offset(), header.queue_offset);
    let mut records = Vec::new();
    let (status, code, next) = if max == 0 {
        let code = if offset == 0 { ResponseCode::PULL_NOT_FOUND } else { ResponseCode::PULL_OFFSET_MOVED };
        ("NO_MESSAGE_IN_QUEUE", code, 0)
    } else if offset < min {
        ("OFFSET_TOO_SMALL", ResponseCode::PULL_OFFSET_MOVED, min)
    } else if offset == max {
        ("OFFSET_OVERFLOW_ONE", ResponseCode::PULL_NOT_FOUND, max)
    } else if offset > max {
        ("OFFSET_OVERFLOW_BADLY", ResponseCode::PULL_OFFSET_MOVED, max)
    } else {
        let next = collect(queue, header, filter, &mut records);
        match records.is_empty() {
            true => ("NO_MATCHED_MESSAGE", ResponseCode::PULL_RETRY_IMMEDIATELY, next),
            false => ("FOUND", ResponseCode::SUCCESS, next),
        }
    };
    let header = PullMessageResponse {
        suggest_which_broker_id: 0,
        next_begin_offset: next,
        min_offset: min,
        max_offset: max,
    };
    PullReply { code, status, header, records }
}

/// Collects the messages that match, one at least if there is one; returns the offset to go on from.
///
/// `maxMsgBytes` is not looked at: 5.x clients send it, but brokers keep to their own limit.
fn collect(queue: &Queue, header: &PullMessage, filter: &Filter, records: &mut Vec<Bytes>) -> i64 {
    let max_messages = usize::try_from(header.max_msg_nums).unwrap_or_default().clamp(1, MAX_MESSAGES);
    let mut next = header.queue_offset;
    let mut bytes = 0;
    for record in queue.from(header.queue_offset).take(MAX_SCANNED) {
        if filter.matches(record) {
            bytes += record.bytes.len();
            if !records.is_empty() && MAX_BYTES < bytes {
                break;
            }
            records.push(record.bytes.clone());
        }
        next += 1;
        if records.len() == max_messages {
            break;
        }
    }
    next
}
