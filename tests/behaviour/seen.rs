//! What listeners have handled: the one side of every count.

use std::collections::{BTreeSet, HashMap};
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use rocketmq::{ConsumeResult, MessageExt};
use tokio::sync::watch;
use tokio::time;

use crate::wait::LIMIT;

/// What was handled, as often as it was. A clone is another handle to the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    handled: Mutex<Handled>,
    changes: watch::Sender<()>,
}

/// By the body, which tests make unique.
#[derive(Debug, Default)]
pub(crate) struct Handled {
    pub(crate) times: HashMap<String, u32>,
    pub(crate) messages: Vec<MessageExt>,
}

impl Seen {
    /// A listener that is content with every message, and notes it.
    pub(crate) fn listener(&self) -> impl Fn(Vec<MessageExt>) -> Ready<ConsumeResult> + Send + Sync + use<> {
        let seen = self.clone();
        move |messages| {
            messages.iter().for_each(|message| seen.note(message));
            ready(ConsumeResult::Success)
        }
    }

    pub(crate) fn note(&self, message: &MessageExt) {
        {
            let mut handled = self.handled();
            *handled.times.entry(message.body_str().into_owned()).or_default() += 1;
            handled.messages.push(message.clone());
        }
        self.0.changes.send_replace(());
    }

    /// Notes what somebody else has handled.
    pub(crate) fn note_body(&self, body: &str) {
        *self.handled().times.entry(body.to_owned()).or_default() += 1;
        self.0.changes.send_replace(());
    }

    pub(crate) fn handled(&self) -> MutexGuard<'_, Handled> {
        self.0.handled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many different messages were handled.
    pub(crate) fn count(&self) -> usize {
        self.handled().times.len()
    }

    /// The messages in the order in which they were handled.
    pub(crate) fn messages(&self) -> Vec<MessageExt> {
        self.handled().messages.clone()
    }

    pub(crate) fn bodies(&self) -> BTreeSet<String> {
        self.handled().times.keys().cloned().collect()
    }

    /// Waits until all of `sent` were handled, and nothing else.
    pub(crate) async fn until_all(&self, sent: &BTreeSet<String>) -> Result<()> {
        let all = |handled: &Handled| {
            handled.times.len() >= sent.len() && sent.iter().all(|body| handled.times.contains_key(body))
        };
        if let Err(error) = self.until("all were handled", all).await {
            let missing: Vec<_> = sent.difference(&self.bodies()).take(5).cloned().collect();
            bail!("{error}: {} were sent; not handled: {missing:?} …", sent.len());
        }
        let handled = self.bodies();
        let foreign: Vec<_> = handled.difference(sent).collect();
        ensure!(foreign.is_empty(), "handled, but not sent: {foreign:?}");
        Ok(())
    }

    /// Waits until so many different messages were handled.
    pub(crate) async fn until_count(&self, count: usize) -> Result<()> {
        self.until(&format!("{count} were handled"), |handled| count <= handled.times.len()).await
    }

    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Handled) -> bool) -> Result<()> {
        self.until_within(LIMIT, what, is_so).await
    }

    pub(crate) async fn until_within(
        &self,
        limit: Duration,
        what: &str,
        is_so: impl Fn(&Handled) -> bool,
    ) -> Result<()> {
        let mut changes = self.0.changes.subscribe();
        // The sender lives as long as `self`.
        let waited = time::timeout(limit, changes.wait_for(|()| is_so(&self.handled()))).await.is_ok();
        if !waited {
            let bodies: Vec<_> = self.bodies().into_iter().take(10).collect();
            bail!("waited {limit:?} in vain until {what}: {} were, such as {bodies:?}", self.count());
        }
        Ok(())
    }

    /// That no message was handled more than once.
    pub(crate) fn ensure_once(&self) -> Result<()> {
        let handled = self.handled();
        let twice: Vec<_> = handled.times.iter().filter(|(_, times)| **times > 1).take(5).collect();
        ensure!(twice.is_empty(), "handled more than once: {twice:?} …");
        Ok(())
    }
}
