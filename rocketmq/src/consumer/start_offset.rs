//! Where a group begins in a queue. Source: `behaviour.md` section 3.9.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::info;

use super::Shared;
use super::queue::OwnedQueue;
use crate::client::{Access, MqClient, namespace};
use crate::config::ConsumeFrom;
use crate::message::MessageQueue;
use crate::remoting::RequestError;

/// The offset to begin at: the group's own where there is one, else what `consume_from` says.
///
/// Brokers say 0 for a new group on a queue that is still young, so that it is read from its beginning even with
/// `last`.
pub(super) async fn start_offset(shared: &Shared, owned: &OwnedQueue) -> Result<i64, RequestError> {
    let (client, queue) = (&shared.client, &owned.queue);
    let consume_from = shared.config.consume_from;
    let stored = match shared.offsets.read(queue).await? {
        None if !shared.offsets.is_local() => {
            masters_offset(client, &shared.group, queue, consume_from).await?
        }
        stored => stored,
    };
    if let Some(stored) = stored {
        owned.note_stored(stored);
        return match shared.skip_before {
            Some(time) if !namespace::is_retry_topic(&queue.topic) => {
                skip_backlog(shared, queue, stored, time).await
            }
            _ => Ok(stored),
        };
    }
    first_offset(client, queue, consume_from).await
}

/// The group's offset, where a broker has said that it has none; whether that was the master is not known.
///
/// A slave that does the work of its master has only those of the offsets that it has copied. To begin at the end for that
/// reason, or at a time, would pass over messages: then the master has to say so, as with the Java client.
pub(super) async fn masters_offset(
    client: &MqClient,
    group: &Arc<str>,
    queue: &MessageQueue,
    consume_from: ConsumeFrom,
) -> Result<Option<i64>, RequestError> {
    match consume_from {
        ConsumeFrom::Last | ConsumeFrom::Timestamp(_) if !namespace::is_retry_topic(&queue.topic) => {
            client.query_offset_at(Access::Write, group, queue).await
        }
        _ => Ok(None),
    }
}

/// The first offset from `stored` on that is not older than `time`. Brokers before 5.0 may name the last one that is.
async fn skip_backlog(
    shared: &Shared,
    queue: &MessageQueue,
    stored: i64,
    time: SystemTime,
) -> Result<i64, RequestError> {
    let found = shared.client.search_offset(queue, unix_ms(time)).await?;
    if found <= stored {
        return Ok(stored);
    }
    // What was deleted meanwhile was not passed over by us.
    let first = shared.client.min_offset(queue).await?.max(stored);
    let skipped = (found - first).max(0);
    info!(group = %shared.group, %queue, from = stored, to = found, skipped, "a backlog is passed over, as `skip_before` says");
    Ok(found)
}

/// The offset to begin at where no broker has one of the group.
pub(super) async fn first_offset(
    client: &MqClient,
    queue: &MessageQueue,
    consume_from: ConsumeFrom,
) -> Result<i64, RequestError> {
    match consume_from {
        // What waits to be delivered again is older than the group's first offset here, and must not be passed.
        _ if namespace::is_retry_topic(&queue.topic) => Ok(0),
        ConsumeFrom::Last => client.max_offset(queue).await,
        ConsumeFrom::First => client.min_offset(queue).await,
        ConsumeFrom::Timestamp(time) => client.search_offset(queue, unix_ms(time)).await,
    }
}

pub(super) fn unix_ms(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
