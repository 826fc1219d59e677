//! What stands in the answer to a pull, one record after the other, and at which offset of the queue.

use std::ops::Range;

use bytes::Bytes;

use crate::message::{MessageExt, RecordError, stored};

/// The records of an answer about these offsets; for one that is no message, the offset that is likely its own. After an
/// error that [ends the answer](RecordError::ends_answer) there are no more.
pub(super) fn records(
    body: Bytes,
    max_body_bytes: usize,
    offsets: Range<i64>,
) -> impl Iterator<Item = Result<MessageExt, (i64, RecordError)>> {
    let (mut expected, end) = (offsets.start, offsets.end);
    stored::decode_all(body, max_body_bytes).map(move |record| {
        match record.and_then(|message| within(message, end)) {
            Ok(message) => {
                expected = expected.max(message.queue_offset() + 1);
                Ok(message)
            }
            Err(error) => {
                // A damaged record may say any offset.
                let is_likely = (expected..end).contains(&error.queue_offset);
                let offset = if is_likely { error.queue_offset } else { expected };
                expected = offset + 1;
                Err((offset, error))
            }
        }
    })
}

/// A message beyond the end of its answer would keep those after it from being put into the queue.
fn within(message: MessageExt, end: i64) -> Result<MessageExt, RecordError> {
    if message.queue_offset() < end {
        return Ok(message);
    }
    let reason = format!("its offset is {}, but the answer ends before {end}", message.queue_offset());
    Err(RecordError {
        queue_offset: -1,
        commit_log_offset: message.commit_log_offset(),
        reason,
        ends_answer: false,
    })
}
