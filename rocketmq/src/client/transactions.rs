//! Transactions: saying what has become of one, and being asked.
//!
//! Source: `behaviour.md` sections 2.8 and 5.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::time;
use tracing::{debug, warn};

use super::{AUTO_CREATE_TOPIC, MqClient};
use crate::message::{MessageExt, properties, stored};
use crate::protocol::transactions::{CheckTransactionState, EndTransaction};
use crate::protocol::{Header, RemotingCommand, Request};
use crate::remoting::{Address, RequestError};

/// Where brokers keep half messages. Its route names every broker that may ask about a transaction.
pub(super) const HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
/// Before brokers that nobody named are looked for again; twice as long each time, up to `route_interval`.
const MIN_PAUSE: Duration = Duration::from_secs(1);

/// What a broker wants to know.
#[derive(Debug)]
pub(crate) struct Question {
    /// The broker that asks.
    pub(crate) address: Address,
    pub(crate) header: CheckTransactionState,
    /// The half message, as the broker has it now.
    pub(crate) message: MessageExt,
}

/// A producer of this client that can say what has become of its group's transactions.
pub(crate) trait TransactionChecker: Send + Sync {
    /// Finds out, and tells the broker.
    fn check(self: Arc<Self>, question: Question);
}

impl MqClient {
    /// Lets brokers ask `checker` about the transactions of `group`: those that this process has begun, and those of any
    /// other, for as long as the group is listed in heartbeats.
    pub(crate) fn add_checker(self: &Arc<Self>, group: &Arc<str>, checker: Weak<dyn TransactionChecker>) {
        self.members().checkers.insert(Arc::clone(group), checker);
        self.tasks.spawn("introduction to the brokers of transactions", Arc::clone(self).meet_brokers());
    }

    pub(super) fn has_checkers(&self) -> bool {
        !self.members().checkers.is_empty()
    }

    /// A broker can ask only those that it knows: a producer that has not sent anything since its start, too.
    async fn meet_brokers(self: Arc<Self>) {
        let stopping = self.tasks.stopping();
        let mut pause = MIN_PAUSE;
        loop {
            let found = self.fetch_route(HALF_TOPIC).await.is_ok();
            // A broker that has not looked for open transactions since it was installed does not have the topic yet.
            if found || self.fetch_route(AUTO_CREATE_TOPIC).await.is_ok() {
                self.heartbeat_soon();
            }
            if found {
                return;
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = time::sleep(pause) => {}
            }
            pause = (pause * 2).min(self.config.route_interval);
        }
    }

    /// Hands the question of a broker to the producer of its group.
    pub(super) fn ask_checker(&self, address: &Address, command: &RemotingCommand) {
        let question = match self.question(address, command) {
            Ok(question) => question,
            Err(reason) => {
                return warn!(%address, reason, "a broker asks about a transaction in a way that cannot be understood");
            }
        };
        let group = question.message.property(properties::PRODUCER_GROUP).unwrap_or_default().to_owned();
        let checker = self.members().checkers.get(group.as_str()).and_then(Weak::upgrade);
        match checker {
            Some(checker) => checker.check(question),
            None => {
                warn!(
                    %address, group, topic = question.message.topic(), message_id = %question.message.message_id(),
                    "a broker asks about a transaction of a group without a check in this client: nothing is answered, it asks another one",
                );
            }
        }
    }

    fn question(&self, address: &Address, command: &RemotingCommand) -> Result<Question, String> {
        let header = CheckTransactionState::read(&command.ext_fields).map_err(|error| error.to_string())?;
        let limit = self.config.max_frame.as_usize();
        let mut message = stored::decode(command.body.clone(), limit).map_err(|error| error.to_string())?;
        if let Some(namespace) = &self.config.namespace {
            message.strip_namespace(namespace);
        }
        message.set_broker_name(header.broker_name.as_deref().unwrap_or_default().into());
        Ok(Question { address: Arc::clone(address), header, message })
    }

    /// Tells a broker what has become of a transaction; `remark` says why that is not known. There is no answer: what it
    /// does not hear, it asks for.
    pub(crate) async fn end_transaction_at(
        &self,
        address: &Address,
        end: &EndTransaction,
        remark: Option<String>,
        limit: Duration,
    ) -> Result<(), RequestError> {
        let mut command = self.remoting.oneway_command(address, EndTransaction::CODE, end, Bytes::new())?;
        command.remark = remark;
        debug!(%address, topic = end.topic.as_deref(), message_id = end.msg_id, state = end.commit_or_rollback, "a transaction ends");
        self.remoting.tell(address, command, limit).await
    }
}
