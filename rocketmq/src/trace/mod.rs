//! Message traces: who sent a message, what became of its transaction, who handled it and how that went, as messages to a
//! topic that consoles and `mqadmin queryMsgTraceById` read.
//!
//! A [`Tracer`] is a hook of producers and consumers. What they tell it becomes [records](record), which a task of its own,
//! the [dispatcher], sends some at a time; where that cannot keep up, traces are dropped, never messages held up.

mod dispatcher;
mod record;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::warn;

use self::dispatcher::Dispatcher;
use self::record::Entry;
use crate::client::{Home, ServiceState, Stop};
use crate::config::{ClientConfig, ProducerConfig, TraceConfig};
use crate::consumer::{ConsumeHook, Consumed, Consuming};
use crate::error::{Error, Result};
use crate::message::id;
use crate::producer::{EndingTransaction, Producer, SendHook, SendResult, Sending};
use crate::remoting::RequestError;
use crate::tasks::Tasks;

/// The group of the producer that sends traces, as Go's client calls it.
const GROUP: &str = "_INNER_TRACE_PRODUCER";
/// How long one message with traces may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long what is left gets at the end.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Writes traces of what producers send, of how their transactions end, and of what consumers handle.
///
/// `trace.enabled` in the configuration is all that an application needs. By hand, a tracer is registered at a manager
/// and is a hook of those that shall be traced:
///
/// ```no_run
/// # async fn example(manager: rocketmq::client::MqClientManager) -> rocketmq::Result<()> {
/// use rocketmq::config::TraceConfig;
/// use rocketmq::{ConsumeResult, Producer, PushConsumer, Tracer};
///
/// let tracer = Tracer::new(TraceConfig::default())?;
/// manager.register_tracer(&tracer)?;
/// let producer = Producer::builder("orders").hook(tracer.clone()).build(&manager)?;
/// PushConsumer::builder("billing")
///     .subscribe("order-events", "*", |_| async { ConsumeResult::Success })
///     .consume_hook(tracer)
///     .build(&manager)?;
/// # manager.start().await }
/// ```
///
/// A broker that was not told otherwise marks messages as wanting no trace where it was started with `traceOn=false`;
/// those before 5.0 do so for consumption. Traces are sent to the topic of `trace.topic`. A clone is another handle to the same tracer.
#[derive(Clone)]
pub struct Tracer {
    inner: Arc<Inner>,
}

struct Inner {
    config: TraceConfig,
    producer: Producer,
    entries: mpsc::Sender<Entry>,
    /// Until the dispatcher is started.
    receiver: Mutex<Option<mpsc::Receiver<Entry>>>,
    client: OnceLock<ClientConfig>,
    /// Before the number of a call: what the two records of a call have in common.
    request: String,
    dropped: AtomicU64,
    tasks: Tasks,
}

impl Tracer {
    /// A tracer with these settings; whether they say `enabled` does not count here.
    ///
    /// # Errors
    ///
    /// Where a setting is out of its range.
    pub fn new(config: TraceConfig) -> Result<Self> {
        config.check()?;
        let mut producer = ProducerConfig::default();
        producer.send_timeout = SEND_TIMEOUT;
        let producer = Producer::builder(GROUP).config(producer).create()?;
        let (entries, receiver) = mpsc::channel(config.max_queued as usize);
        let inner = Inner {
            config,
            producer,
            entries,
            receiver: Mutex::new(Some(receiver)),
            client: OnceLock::new(),
            request: id::unique(),
            dropped: AtomicU64::new(0),
            tasks: Tasks::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// How many traces were dropped because they could not be sent fast enough.
    pub fn dropped(&self) -> u64 {
        self.inner.dropped.load(Ordering::Relaxed)
    }

    /// Tells the tracer where its client comes from.
    pub(crate) fn settle(&self, home: Home) -> Result<()> {
        let client = home.cluster.client.clone();
        self.inner.producer.settle(home)?;
        self.inner.client.set(client).map_err(|_| Error::producer(GROUP, "it is registered already"))
    }

    pub(crate) fn state(&self) -> ServiceState {
        self.inner.producer.state()
    }

    /// Begins to send what was and will be told.
    pub(crate) async fn start(&self) -> Result<()> {
        self.inner.producer.start().await?;
        let receiver = self.inner.receiver.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Only one start gets this far.
        let Some(entries) = receiver else { return Ok(()) };
        let TraceConfig { topic, batch, linger, .. } = &self.inner.config;
        let dispatcher = Dispatcher {
            entries,
            producer: self.inner.producer.clone(),
            topic: topic.clone(),
            batch: *batch as usize,
            linger: *linger,
            stopping: self.inner.tasks.stopping().clone(),
        };
        self.inner.tasks.spawn("traces", dispatcher.run());
        Ok(())
    }

    /// Sends what is left, as far as the stop has time.
    pub(crate) async fn shutdown(&self, stop: Stop) {
        self.inner.tasks.cancel();
        let end = self.inner.client.get().map(|client| stop.deadline(client));
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let limit = left.unwrap_or_default().min(END_TIMEOUT);
        if self.inner.tasks.join(limit).await > 0 {
            warn!(?limit, "the last traces could not be sent in time, they are lost");
        }
        self.inner.producer.stop(stop, None).await;
    }

    fn namespace(&self) -> Option<&str> {
        self.inner.client.get().and_then(|client| client.namespace.as_deref())
    }

    fn put(&self, entry: Option<Entry>) {
        let Some(entry) = entry else { return };
        if self.inner.entries.try_send(entry).is_err() {
            let before = self.inner.dropped.fetch_add(1, Ordering::Relaxed);
            if before == 0 {
                warn!(
                    max_queued = self.inner.config.max_queued,
                    "traces come faster than they can be sent: some are dropped from now on"
                );
            }
        }
    }

    fn note_call(&self, consuming: &Consuming<'_>, consumed: Option<&Consumed>) {
        if consuming.messages.iter().any(|message| message.topic() == self.inner.config.topic) {
            return;
        }
        let request = format!("{}{:X}", self.inner.request, consuming.call);
        self.put(record::consumed(consuming, consumed, &request, self.namespace(), SystemTime::now()));
    }
}

impl SendHook for Tracer {
    fn after(&self, sending: &Sending<'_>, outcome: Result<Option<&SendResult>, &RequestError>) {
        if let Ok(Some(sent)) = outcome
            && sent.queue.topic.as_ref() != self.inner.config.topic
        {
            self.put(record::published(sending, sent, self.namespace(), SystemTime::now()));
        }
    }

    fn end_transaction(&self, ending: &EndingTransaction<'_>) {
        if ending.topic != self.inner.config.topic {
            self.put(record::ended(ending, self.namespace(), SystemTime::now()));
        }
    }
}

impl ConsumeHook for Tracer {
    fn before(&self, consuming: &Consuming<'_>) {
        self.note_call(consuming, None);
    }

    fn after(&self, consuming: &Consuming<'_>, consumed: &Consumed) {
        self.note_call(consuming, Some(consumed));
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer")
            .field("topic", &self.inner.config.topic)
            .field("dropped", &self.dropped())
            .finish_non_exhaustive()
    }
}
