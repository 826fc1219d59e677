//! A listener in a crate of its own, which has the library under another name. Nothing here is called by name: whoever links the crate has the listener.

use std::sync::{Arc, Mutex, PoisonError};

use mq::State;

/// The bodies that the listener has handled.
#[derive(Debug, Clone, Default)]
pub struct Book(Arc<Mutex<Vec<String>>>);

impl Book {
    /// All of them, in the order in which they came.
    pub fn entries(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[mq::listener(crate = "mq", group = "${declared.name}-elsewhere", topic = "${declared.name}-elsewhere")]
async fn writes_down(body: String, State(book): State<Book>) {
    book.0.lock().unwrap_or_else(PoisonError::into_inner).push(body);
}
