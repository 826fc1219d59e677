//! Tells listeners when a topic gets or loses queues. Source: `behaviour.md` section 4.2, `TopicMessageQueueChangeListener`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::client::{MqClient, RouteError, namespace};
use crate::message::MessageQueue;

type Listener = Arc<dyn Fn(&[MessageQueue]) + Send + Sync>;

/// The topics that somebody listens to, as users know them.
#[derive(Default)]
pub(super) struct QueueWatch {
    topics: Mutex<BTreeMap<Arc<str>, Watched>>,
    /// Told when a topic is new.
    added: Notify,
}

struct Watched {
    listener: Listener,
    /// The queues at the last look; `None` before the first.
    queues: Option<Vec<MessageQueue>>,
}

impl QueueWatch {
    pub(super) fn add(&self, topic: Arc<str>, listener: Listener) {
        self.topics().insert(topic, Watched { listener, queues: None });
        self.added.notify_one();
    }

    /// Looks at once, then every `period`, until the consumer stops.
    pub(super) async fn run(
        self: Arc<Self>,
        client: Arc<MqClient>,
        period: Duration,
        stopping: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = self.look(&client) => {}
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = self.added.notified() => {}
                () = time::sleep(period) => {}
            }
        }
    }

    async fn look(&self, client: &MqClient) {
        let topics: Vec<_> = self.topics().keys().cloned().collect();
        for topic in topics {
            match queues_of(client, &topic).await {
                Ok(queues) => self.compare(&topic, &queues),
                Err(RouteError::NoTopic { .. }) => self.compare(&topic, &[]),
                Err(error) => {
                    debug!(%topic, %error, "the queues of the topic are not known, they are looked at later");
                }
            }
        }
    }

    /// Calls the listener of `topic` if its queues are others than at the last look.
    fn compare(&self, topic: &str, queues: &[MessageQueue]) {
        let listener = {
            let mut topics = self.topics();
            let Some(watched) = topics.get_mut(topic) else { return };
            let before = watched.queues.replace(queues.to_vec());
            before.filter(|before| *before != queues).map(|_| Arc::clone(&watched.listener))
        };
        if let Some(listener) = listener {
            info!(topic, queues = queues.len(), "the queues of the topic have changed");
            listener(queues);
        }
    }

    fn topics(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Watched>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The queues of `topic` that can be read, as users know them, asked of a name server now.
pub(super) async fn queues_of(client: &MqClient, topic: &str) -> Result<Vec<MessageQueue>, RouteError> {
    let namespace = client.config().namespace.as_deref();
    let route = client.fetch_route(&namespace::wrap(namespace, topic)).await?;
    let topic: Arc<str> = topic.into();
    let queues = route.subscribe.iter();
    Ok(queues
        .map(|queue| MessageQueue::new(Arc::clone(&topic), Arc::clone(&queue.broker_name), queue.queue_id))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_hears_of_changes_only() {
        let watch = QueueWatch::default();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let note = Arc::clone(&heard);
        watch.add("t".into(), Arc::new(move |queues| note.lock().unwrap().push(queues.len())));
        for queues in [1, 1, 2, 2, 0, 0, 1] {
            let queues: Vec<_> = (0..queues).map(|id| MessageQueue::new("t", "b", id)).collect();
            watch.compare("t", &queues);
        }
        watch.compare("other", &[]);
        assert_eq!(*heard.lock().unwrap(), [2, 0, 1]);
    }
}
