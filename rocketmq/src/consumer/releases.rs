//! What each broker is still told when handlers have ended, or a queue is given up. One that hangs keeps nobody waiting but
//! those who wait for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::tasks::Tasks;

/// The tasks that store last offsets, free locks, acknowledge what was popped and give back what was not handled, by broker.
#[derive(Debug, Default)]
pub(super) struct Releases(Mutex<BTreeMap<Arc<str>, Tasks>>);

impl Releases {
    /// Those at one broker.
    pub(super) fn at(&self, broker: &Arc<str>) -> Tasks {
        self.lock().entry(Arc::clone(broker)).or_default().clone()
    }

    /// The brokers that were told anything.
    pub(super) fn brokers(&self) -> Vec<Arc<str>> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Tasks>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
