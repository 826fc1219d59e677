//! What a broker said of a message that it stored.

use crate::message::MessageQueue;
use crate::protocol::ResponseCode;

/// What a broker said of a message that it stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendResult {
    /// Whether it is stored as safely as the broker is configured to.
    pub status: SendStatus,
    /// The id of the message, which every delivery of it will show.
    pub message_id: String,
    /// The id that says where the broker keeps it.
    pub offset_message_id: String,
    /// The queue that it went to, with the topic as the sender knows it.
    pub queue: MessageQueue,
    /// Where it stands in that queue; of a delayed message, among those that wait.
    pub queue_offset: i64,
    /// The id of its transaction, on 5.x brokers.
    pub transaction_id: Option<String>,
    /// By which a message that is delayed by time can be taken back before it is delivered: see
    /// [`Producer::recall`](crate::Producer::recall).
    pub recall_handle: Option<String>,
    /// The region of the broker, if it says one.
    pub region_id: Option<String>,
    /// Whether the broker wants [traces](crate::Tracer) of the message.
    pub is_traced: bool,
}

/// How safely a message is stored. In all cases it is stored, and will be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendStatus {
    /// As the broker is configured to.
    SendOk,
    /// On the master, which has not written it to its disk in time.
    FlushDiskTimeout,
    /// On the master, whose slave has not confirmed it in time.
    FlushSlaveTimeout,
    /// On the master, which has no slave at the moment.
    SlaveNotAvailable,
}

impl SendStatus {
    pub(super) fn of(code: ResponseCode) -> Self {
        match code {
            ResponseCode::FLUSH_DISK_TIMEOUT => Self::FlushDiskTimeout,
            ResponseCode::FLUSH_SLAVE_TIMEOUT => Self::FlushSlaveTimeout,
            ResponseCode::SLAVE_NOT_AVAILABLE => Self::SlaveNotAvailable,
            _ => Self::SendOk,
        }
    }
}

impl SendResult {
    /// The results of the messages of a batch, of which this is the answer to the whole; `ids` are theirs.
    ///
    /// A broker that stores the batch as one record answers with one offset id, which is then that of all.
    pub(super) fn split(self, ids: Vec<String>) -> Vec<Self> {
        let offset_ids: Vec<&str> = self.offset_message_id.split(',').collect();
        let offset_id = |at: usize| match offset_ids.len() == ids.len() {
            true => offset_ids[at],
            false => self.offset_message_id.as_str(),
        };
        let offset_ids: Vec<String> = (0..ids.len()).map(|at| offset_id(at).to_owned()).collect();
        let results = ids.into_iter().zip(offset_ids).zip(self.queue_offset..);
        results
            .map(|((message_id, offset_message_id), queue_offset)| Self {
                message_id,
                offset_message_id,
                queue_offset,
                queue: self.queue.clone(),
                transaction_id: None,
                recall_handle: None,
                region_id: self.region_id.clone(),
                is_traced: self.is_traced,
                status: self.status,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(offset_ids: &str) -> SendResult {
        SendResult {
            status: SendStatus::SendOk,
            message_id: "batch".into(),
            offset_message_id: offset_ids.into(),
            queue: MessageQueue::new("t", "b", 3),
            queue_offset: 7,
            transaction_id: None,
            recall_handle: None,
            region_id: None,
            is_traced: true,
        }
    }

    #[test]
    fn each_message_of_a_batch_gets_its_own_place() {
        for (answered, expected) in
            [("x,y", [("a", "x", 7), ("b", "y", 8)]), ("whole", [("a", "whole", 7), ("b", "whole", 8)])]
        {
            let results = answer(answered).split(vec!["a".into(), "b".into()]);
            let places: Vec<_> = results
                .iter()
                .map(|one| (one.message_id.as_str(), one.offset_message_id.as_str(), one.queue_offset))
                .collect();
            assert_eq!(places, expected);
        }
    }
}
