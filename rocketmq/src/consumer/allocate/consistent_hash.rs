//! The ring of Java's `AllocateMessageQueueConsistentHash`, key for key: members of both kinds share one group.

use std::collections::BTreeMap;

use md5::{Digest, Md5};

use super::{AllocateError, AllocateStrategy, index_of};
use crate::message::MessageQueue;

/// Places of a member on the ring, with Java's default.
const VIRTUAL_NODES: usize = 10;

/// A queue belongs to the member that follows it on a ring of hashes, so that few queues move when a member comes or goes:
/// `consistent_hash`. Shares may differ much in size.
#[derive(Debug, Clone, Copy)]
pub struct ConsistentHash {
    virtual_nodes: usize,
}

impl ConsistentHash {
    /// With so many places of each member on the ring, at least one, all members with the same number. More of them make shares
    /// more even.
    pub fn new(virtual_nodes: usize) -> Self {
        Self { virtual_nodes: virtual_nodes.max(1) }
    }
}

impl Default for ConsistentHash {
    /// With ten places of each member, as Java's.
    fn default() -> Self {
        Self::new(VIRTUAL_NODES)
    }
}

impl AllocateStrategy for ConsistentHash {
    fn name(&self) -> &str {
        "CONSISTENT_HASH"
    }

    fn allocate(
        &self,
        _: &str,
        own: &str,
        queues: &[MessageQueue],
        members: &[String],
    ) -> Result<Vec<MessageQueue>, AllocateError> {
        let Some(index) = index_of(own, members) else { return Ok(Vec::new()) };
        let mut ring = BTreeMap::new();
        for (at, member) in members.iter().enumerate() {
            for node in 0..self.virtual_nodes {
                ring.insert(key(&format!("{member}-{node}")), at);
            }
        }
        let owner = |queue: &&MessageQueue| {
            let from = ring.range(key(&java_name(queue))..).chain(&ring).next();
            from.is_some_and(|(_, at)| *at == index)
        };
        Ok(queues.iter().filter(owner).cloned().collect())
    }
}

/// What Java's `MessageQueue.toString` says, which is what it hashes.
fn java_name(queue: &MessageQueue) -> String {
    let MessageQueue { topic, broker_name, queue_id } = queue;
    format!("MessageQueue [topic={topic}, brokerName={broker_name}, queueId={queue_id}]")
}

/// The first four bytes of the MD5 hash, big-endian.
fn key(text: &str) -> u32 {
    let hash = Md5::digest(text.as_bytes());
    hash.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{queues, shares};
    use super::*;

    #[test]
    fn keys_are_those_of_java() {
        assert_eq!(key("10.0.0.1@1001-0"), 1_664_424_904);
        assert_eq!(key(&java_name(&MessageQueue::new("T", "broker-a", 0))), 1_630_488_180);
    }

    #[test]
    fn a_queue_goes_to_the_next_member_on_the_ring() {
        let members = ["10.0.0.1@1001", "10.0.0.2@1002", "10.0.0.3@1003"];
        let shares = shares(&ConsistentHash::default(), &queues("broker-a", 0..8), &members);
        assert_eq!(shares, [vec![], vec![1, 4, 5, 6, 7], vec![0, 2, 3]]);
    }

    #[test]
    fn only_the_queues_of_a_member_that_goes_move() {
        let all = ["a", "b", "c", "d"];
        let queues = queues("broker-a", 0..64);
        let before = shares(&ConsistentHash::new(50), &queues, &all);
        let after = shares(&ConsistentHash::new(50), &queues, &all[..3]);
        for (before, after) in before.iter().zip(&after) {
            assert!(before.iter().all(|queue| after.contains(queue)), "{before:?} {after:?}");
        }
        assert_eq!(after.concat().len(), 64);
    }
}
