//! A producer while it runs: all that its sends share.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::SendError;
use super::accumulator::Accumulator;
use super::faults::Faults;
use super::hook::Hooks;
use super::in_flight::{InFlight, OnItsWay};
use super::prepare::DEFAULT_TOPIC_QUEUES;
use super::queue_choice::RoundRobin;
use super::stats::{Amount, Topic, Topics};
use super::transaction::{CheckHandler, Checks};
use crate::client::{Access, MqClient, RouteError, Stop, TopicRoute, TransactionChecker};
use crate::config::ProducerConfig;
use crate::remoting::RequestError;
use crate::tasks::Tasks;

/// How often the detector looks which brokers it has to ask. Source: `behaviour.md` section 1.2.
const DETECTOR_INTERVAL: Duration = Duration::from_secs(3);
/// After no name server has answered, the next try waits so long at first, and twice as long each time,
const MIN_ROUTE_WAIT: Duration = Duration::from_millis(50);
/// but never longer.
const MAX_ROUTE_WAIT: Duration = Duration::from_millis(500);
/// What tasks get to end that have nothing left to do.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// A producer while it runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) client: Arc<MqClient>,
    /// The group on the wire.
    pub(super) group: Arc<str>,
    pub(super) config: ProducerConfig,
    pub(super) hooks: Hooks,
    pub(super) topics: Topics,
    pub(super) round_robin: RoundRobin,
    /// `None` where no broker is avoided.
    pub(super) faults: Option<Faults>,
    pub(super) in_flight: InFlight,
    pub(super) accumulator: Accumulator,
    pub(super) checks: Checks,
    /// Cancelled once no message is accepted any more.
    pub(super) closed: CancellationToken,
    pub(super) tasks: Tasks,
}

impl Running {
    pub(super) fn start(
        client: Arc<MqClient>,
        group: Arc<str>,
        config: ProducerConfig,
        hooks: Hooks,
        check: Option<CheckHandler>,
    ) -> Arc<Self> {
        let running = Arc::new(Self {
            topics: Topics::new(client.config().namespace.as_deref()),
            round_robin: RoundRobin::default(),
            faults: config.avoid_faults.enabled.then(Faults::default),
            in_flight: InFlight::new(&config),
            accumulator: Accumulator::default(),
            checks: Checks::new(check, &config.check),
            closed: CancellationToken::new(),
            tasks: client.tasks().child(),
            client,
            group,
            config,
            hooks,
        });
        if running.has_detector() {
            let detecting = Arc::clone(&running);
            running.tasks.spawn_lasting("fault detector", move || {
                let detecting = Arc::clone(&detecting);
                async move {
                    let closed = detecting.closed.clone();
                    let _ = closed.run_until_cancelled(detecting.detect()).await;
                }
            });
        }
        running
    }

    /// Lets brokers ask what has become of the transactions of the group.
    pub(super) fn answer_checks(self: &Arc<Self>) {
        let checker: Arc<dyn TransactionChecker> = Arc::<Self>::clone(self);
        self.client.add_checker(&self.group, Arc::downgrade(&checker));
    }

    /// Accepts nothing more and waits for what is on its way, for as long as a send may take and the stop has time; likewise for
    /// the local parts and the checks of transactions.
    pub(super) async fn stop(&self, stop: Stop) {
        self.closed.cancel();
        // A send has its own budget; the second is for its answer.
        let limit = self.config.send_timeout + Duration::from_secs(1);
        let (began, limit) = (Instant::now(), limit.min(stop.time_for_sends(self.client.config())));
        let left = self.in_flight.drained(limit).await;
        if left > 0 {
            warn!(group = %self.group, messages = left, "sends did not end in time");
        }
        let open = self.checks.drained(limit.saturating_sub(began.elapsed())).await;
        if open > 0 {
            warn!(group = %self.group, transactions = open, "transactions did not end in time, brokers will ask about them");
        }
        self.checks.forget();
        self.tasks.cancel();
        let stuck = self.tasks.join(END_TIMEOUT).await;
        if stuck > 0 {
            warn!(group = %self.group, tasks = stuck, "tasks of the producer did not end in time");
        }
    }

    /// Waits for room among what is on its way.
    pub(super) async fn admit(
        &self,
        topic: &Topic,
        amount: Amount,
        deadline: Instant,
    ) -> Result<OnItsWay, SendError> {
        let admitted = self.in_flight.admit(amount.messages, amount.bytes, deadline).await;
        let waited = self.config.send_timeout;
        let admitted =
            admitted.ok_or_else(|| SendError::FlowControl { topic: topic.name.to_string(), waited })?;
        // The producer may have found nothing on its way just before, and be shut down by now.
        match self.closed.is_cancelled() {
            false => Ok(admitted),
            true => Err(SendError::NotRunning { group: self.group.to_string(), state: "is shut down" }),
        }
    }

    /// The queues that can be written, asked for if none is known.
    pub(super) async fn publish_route(
        &self,
        topic: &Topic,
        deadline: Instant,
    ) -> Result<Arc<TopicRoute>, SendError> {
        let route = match self.client.known_publish_route(&topic.wire_name) {
            Some(route) => Ok(route),
            None => self.ask_route(topic, deadline).await?,
        };
        let route = route.and_then(|route| match route.publish.is_empty() {
            false => Ok(route),
            true => Err(RouteError::NoQueue { topic: topic.name.to_string(), access: "written" }),
        });
        route.map_err(|source| SendError::Route { topic: topic.name.to_string(), source })
    }

    /// Asks for the queues of a topic, again and again where no name server answers: one may be back before `deadline`.
    /// It knows no topic at first, until brokers have told it theirs.
    async fn ask_route(
        &self,
        topic: &Topic,
        deadline: Instant,
    ) -> Result<Result<Arc<TopicRoute>, RouteError>, SendError> {
        let (mut wait, mut last) = (MIN_ROUTE_WAIT, None);
        loop {
            let asked = self.client.publish_route(&topic.wire_name, DEFAULT_TOPIC_QUEUES);
            let error = match (time::timeout_at(deadline, asked).await, last) {
                (Ok(Err(error @ RouteError::NoNameServer { .. })), _)
                | (Ok(Err(error @ RouteError::NoTopic { .. })), Some(_)) => error,
                (Ok(asked), _) => return Ok(asked),
                (Err(_), Some(error)) => return Ok(Err(error)),
                (Err(_), None) => return Err(self.timed_out(topic, 0, None)),
            };
            // Up to a fifth less, so that those who failed together do not come back all at once.
            let until = Instant::now() + wait.mul_f64(1.0 - 0.2 * fastrand::f64());
            if deadline <= until {
                return Ok(Err(error));
            }
            time::sleep_until(until).await;
            wait = (wait * 2).min(MAX_ROUTE_WAIT);
            last = Some(error);
        }
    }

    pub(super) fn timed_out(&self, topic: &Topic, attempts: u32, source: Option<RequestError>) -> SendError {
        let (topic, limit) = (topic.name.to_string(), self.config.send_timeout);
        SendError::TimedOut { topic, attempts, limit, source }
    }

    pub(super) fn has_detector(&self) -> bool {
        self.faults.is_some() && self.config.avoid_faults.detector
    }

    /// Asks brokers that failed whether they answer again. Never ends. Source: `behaviour.md` section 2.6.
    async fn detect(self: Arc<Self>) {
        let Some(faults) = &self.faults else { return };
        let config = &self.config.avoid_faults;
        loop {
            time::sleep(DETECTOR_INTERVAL.min(config.detect_interval)).await;
            for broker in faults.to_ask(config.detect_interval, Instant::now()) {
                let address = self.client.broker_address(&broker, Access::Write);
                let (Some(address), Some(queue)) = (address, self.client.any_queue_on(&broker)) else {
                    faults.forget(&broker);
                    continue;
                };
                if self.client.is_answering(&address, &queue, config.detect_timeout).await {
                    info!(%broker, %address, "the broker answers again");
                    faults.note_answer(&broker);
                }
            }
        }
    }
}
