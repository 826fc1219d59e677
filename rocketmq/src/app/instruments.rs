//! What an application runs by and writes to, where it is tested.

use crate::clock::Clock;
use crate::consumer::Journal;

/// The clock and the journal of an application; by default those of the runtime, and none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Instruments {
    /// By which messages wait.
    pub(crate) clock: Clock,
    /// Where consumers write down what becomes of messages.
    pub(crate) journal: Journal,
}
