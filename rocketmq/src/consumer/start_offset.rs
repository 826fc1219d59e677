//! Where a group begins in a queue. Source: `behaviour.md` section 3.9.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Shared;
use super::queue::OwnedQueue;
use crate::config::ConsumeFrom;
use crate::remoting::RequestError;

/// The offset to begin at: the group's own where a broker has one, else what `consume_from` says.
///
/// Brokers say 0 for a new group on a queue that is still young, so that it is read from its beginning even with
/// `last`.
pub(super) async fn start_offset(shared: &Shared, owned: &OwnedQueue) -> Result<i64, RequestError> {
    let (client, queue) = (&shared.client, &owned.queue);
    if let Some(stored) = client.query_offset(&shared.group, queue).await? {
        owned.note_stored(stored);
        return Ok(stored);
    }
    let is_retry = queue.topic == *shared.subscriptions.retry_topic();
    match shared.config.consume_from {
        // What waits to be delivered again is older than the group's first offset here, and must not be passed.
        _ if is_retry => Ok(0),
        ConsumeFrom::Last => client.max_offset(queue).await,
        ConsumeFrom::First => client.min_offset(queue).await,
        ConsumeFrom::Timestamp(time) => client.search_offset(queue, unix_ms(time)).await,
    }
}

fn unix_ms(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
