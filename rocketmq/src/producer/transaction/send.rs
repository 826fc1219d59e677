//! The half message, the local part, and what it says.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::decision::Decision;
use super::{IntoTransaction, Transaction};
use crate::client::Question;
use crate::error::Error;
use crate::message::{Message, MessageError, id, properties};
use crate::producer::hook::EndingTransaction;
use crate::producer::running::Running;
use crate::producer::send::Call;
use crate::producer::stats::Topic;
use crate::producer::{Producer, SendError, SendResult, SendStatus};
use crate::protocol::transactions::EndTransaction;
use crate::remoting::{Address, RequestError};

/// How long telling a broker what has become of a transaction may take.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// What came of a message that was sent in a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionSendResult {
    /// What the broker said of the half message.
    pub sent: SendResult,
    /// What the local part decided. Should the broker not have heard of it, the check tells it later.
    pub transaction: Transaction,
    /// Why the local part did not decide, where it did not: its error or panic, or, with
    /// [`Rollback`](Transaction::Rollback), that it was not run because the half message was not stored safely.
    pub reason: Option<String>,
}

impl Producer {
    /// Sends a message that is delivered if `local`, the local part, says [`Commit`](Transaction::Commit).
    ///
    /// First the message is stored, where no consumer gets it; then `local` runs; then the broker is told what it said.
    /// An error and a panic of `local` are [`Unknown`](Transaction::Unknown). What is unknown, and what the broker does not
    /// hear of, since this process was killed or the network was down, the broker asks for later: any producer of the
    /// group that runs then, which answers by its check (`#[rocketmq::transaction]`, or
    /// [`ProducerBuilder::check`](crate::ProducerBuilder::check)). So the check decides by what `local` has left
    /// behind, for example a row in a database, and by nothing that dies with the process.
    ///
    /// ```no_run
    /// # use rocketmq::{Message, Producer, Transaction};
    /// # struct Db; impl Db { async fn insert(&self, _: u32) -> std::io::Result<()> { Ok(()) } }
    /// # async fn example(producer: Producer, db: Db, order: u32) -> rocketmq::Result<()> {
    /// let message = Message::new("order-events").key(order.to_string()).json(&order);
    /// let sent = producer
    ///     .send_in_transaction(message, async { db.insert(order).await.map(|()| Transaction::Commit) })
    ///     .await?;
    /// println!("{}: {}", sent.sent.message_id, sent.transaction);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send), a message that is delayed, and a producer without a check. `local` has not run
    /// then, nor will it. The half message may be stored nevertheless (see [`SendError::TimedOut`]): the check is asked
    /// about it, and finds nothing.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the transaction open, wherever it was: `local` is dropped with it, at one of its own
    /// awaits, and the broker asks the check. No message is delivered, or dropped, that should not be.
    pub async fn send_in_transaction<T: IntoTransaction>(
        &self,
        message: Message,
        local: impl Future<Output = T>,
    ) -> Result<TransactionSendResult, SendError> {
        self.send_in_transaction_with(message, |_| local).await
    }

    /// The same with a local part that wants to know what was sent: its message id, for example, to store it with what
    /// it does, so that the check finds it by [`MessageExt::message_id`](crate::MessageExt::message_id).
    ///
    /// # Errors
    ///
    /// Those of [`send_in_transaction`](Self::send_in_transaction).
    ///
    /// # Cancel safety
    ///
    /// That of [`send_in_transaction`](Self::send_in_transaction).
    pub async fn send_in_transaction_with<F, Fut>(
        &self,
        message: Message,
        local: F,
    ) -> Result<TransactionSendResult, SendError>
    where
        F: FnOnce(&SendResult) -> Fut,
        Fut: Future<Output: IntoTransaction>,
    {
        self.running()?.send_in_transaction(message, local).await
    }
}

/// A transaction that ends, and how it is named to the broker.
struct Ending<'a> {
    address: &'a Address,
    end: EndTransaction,
    decision: &'a Decision,
    /// Of the message, as its sender knows it.
    topic: &'a str,
    /// The encoded properties of the message, and its body.
    properties: &'a str,
    body: &'a [u8],
    /// The broker's region, and whether it wants traces.
    region_id: Option<&'a str>,
    is_traced: bool,
}

impl Running {
    async fn send_in_transaction<F, Fut>(
        self: &Arc<Self>,
        mut message: Message,
        local: F,
    ) -> Result<TransactionSendResult, SendError>
    where
        F: FnOnce(&SendResult) -> Fut,
        Fut: Future<Output: IntoTransaction>,
    {
        if !self.checks.is_there() {
            return Err(SendError::NoCheck { group: self.group.to_string() });
        }
        check_not_delayed(&message)?;
        // A shutdown waits for it.
        let _open = self.checks.open();
        message.put_property(properties::TRANSACTION_PREPARED, "true");
        message.put_property(properties::PRODUCER_GROUP, &self.group);
        let call = Call::begin(self, message)?;
        let (topic, message) = (Arc::clone(&call.topic), call.message().clone());
        let sent = call.send(None).await?;
        let decision = match sent.status {
            SendStatus::SendOk => Decision::of(async { local(&sent).await }).await,
            status => {
                let reason =
                    format!("the local part was not run: the half message was stored with {status:?}");
                Decision::because(Transaction::Rollback, reason)
            }
        };
        if let Err(error) = self.end_sent(&topic, &message, &sent, &decision).await {
            warn!(
                group = %self.group, topic = %topic.name, message_id = sent.message_id, transaction = %decision.transaction, %error,
                cause = %Error::chain(&error), "the broker did not hear what has become of a transaction, it will ask",
            );
        }
        let Decision { transaction, reason } = decision;
        Ok(TransactionSendResult { sent, transaction, reason })
    }

    async fn end_sent(
        &self,
        topic: &Topic,
        message: &Message,
        sent: &SendResult,
        decision: &Decision,
    ) -> Result<(), RequestError> {
        let deadline = Instant::now() + END_TIMEOUT;
        let mut queue = sent.queue.clone();
        queue.topic = Arc::clone(&topic.wire_name);
        let address = self.publish_address(&queue, deadline).await?;
        let end = EndTransaction {
            topic: Some(Arc::clone(&topic.wire_name)),
            producer_group: Arc::clone(&self.group),
            tran_state_table_offset: sent.queue_offset,
            // What no broker answers is found by no broker either.
            commit_log_offset: id::offset_of(&sent.offset_message_id).unwrap_or_default(),
            commit_or_rollback: decision.transaction.flag(),
            from_transaction_check: Some(false),
            msg_id: sent.message_id.clone(),
            transaction_id: sent.transaction_id.clone(),
            broker_name: Some(Arc::clone(&queue.broker_name)),
        };
        self.end(Ending {
            address: &address,
            end,
            decision,
            topic: &topic.name,
            properties: message.properties.as_str(),
            body: &message.body,
            region_id: sent.region_id.as_deref(),
            is_traced: sent.is_traced,
        })
        .await
    }

    /// Answers the question of a broker, at the address from which it was asked.
    pub(super) async fn end_checked(
        &self,
        Question { address, header, message }: &Question,
        decision: &Decision,
    ) -> Result<(), RequestError> {
        let end = EndTransaction {
            topic: header.topic.as_deref().map(Into::into),
            producer_group: Arc::clone(&self.group),
            tran_state_table_offset: header.tran_state_table_offset,
            commit_log_offset: header.commit_log_offset,
            commit_or_rollback: decision.transaction.flag(),
            from_transaction_check: Some(true),
            msg_id: message.message_id().into_owned(),
            transaction_id: header.transaction_id.clone(),
            broker_name: header.broker_name.as_deref().map(Into::into),
        };
        self.end(Ending {
            address,
            end,
            decision,
            topic: message.topic(),
            properties: message.encoded_properties(),
            body: message.body(),
            region_id: message.property(properties::MSG_REGION),
            is_traced: message.property(properties::TRACE_ON) != Some("false"),
        })
        .await
    }

    async fn end(&self, ending: Ending<'_>) -> Result<(), RequestError> {
        let Ending { address, end, decision, topic, properties, body, region_id, is_traced } = ending;
        if !self.hooks.is_empty() {
            self.hooks.end_transaction(&EndingTransaction {
                group: &self.group,
                address,
                broker_name: end.broker_name.as_deref().unwrap_or_default(),
                topic,
                message_id: &end.msg_id,
                transaction_id: end.transaction_id.as_deref(),
                transaction: decision.transaction,
                reason: decision.reason.as_deref(),
                from_check: end.from_transaction_check == Some(true),
                region_id,
                is_traced,
                properties,
                body,
            });
        }
        self.client.end_transaction_at(address, &end, decision.reason.clone(), END_TIMEOUT).await
    }
}

/// Brokers would drop the delay, and deliver the message when it is committed.
fn check_not_delayed(message: &Message) -> Result<(), MessageError> {
    match properties::DELAYS.iter().any(|name| message.get(name).is_some()) {
        true => Err(MessageError::Transaction {
            topic: message.topic().to_owned(),
            rule: "it is delayed, and brokers deliver it as soon as it is committed; remove the delay",
        }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_in_a_transaction_is_not_delayed() {
        let message = || Message::new("t").body("x");
        assert_eq!(check_not_delayed(&message().delay_level(0)), Ok(()));
        for delayed in [message().delay_level(3), message().delay(Duration::from_secs(1))] {
            let error = check_not_delayed(&delayed).unwrap_err().to_string();
            assert!(error.contains("remove the delay"), "{error}");
        }
    }
}
