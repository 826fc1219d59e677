//! cargo run --example around
//!
//! Middleware: functions around every delivery, here a trace that goes on, a rate limit, an idempotency check and a timeout.
//! `cargo test --example around` tests each of them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rocketmq::config::NameServers;
use rocketmq::{
    App, Config, ConsumeResult, Delivery, Message, MessageExt, Next, Outcome, Producer, Result, SendHook,
    State,
};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{self, Instant, Interval, MissedTickBehavior};
use tracing::{Instrument, info, info_span};

tokio::task_local! {
    /// The trace of the message that is being handled.
    static TRACE: String;
}

/// Everything that is logged while a message is handled says which one, and in which trace its sender was.
async fn traced(delivery: Delivery, next: Next) -> Outcome {
    let trace = delivery.message().property("traceparent").unwrap_or("none").to_owned();
    let (listener, place) =
        (delivery.listener().to_owned(), delivery.place().unwrap_or("a closure").to_owned());
    let span = info_span!("delivery", listener, place, trace, attempt = delivery.attempt());
    TRACE.scope(trace, next.run(delivery).instrument(span)).await
}

/// What a listener sends belongs to the trace of the message that it handles.
struct SameTrace;

impl SendHook for SameTrace {
    fn prepare(&self, message: Message) -> Message {
        match TRACE.try_with(String::clone) {
            Ok(trace) => message.property("traceparent", trace),
            // No listener is sending.
            Err(_) => message,
        }
    }
}

/// A pace that a group does not go beyond.
#[derive(Debug, Clone)]
struct Pace(Arc<AsyncMutex<Interval>>);

impl Pace {
    fn one_each(period: Duration) -> Self {
        let mut pace = time::interval_at(Instant::now(), period);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self(Arc::new(AsyncMutex::new(pace)))
    }
}

/// Messages wait for their turn; the handlers of the group that wait are counted in its `concurrency`.
async fn paced(State(Pace(pace)): State<Pace>, delivery: Delivery, next: Next) -> Outcome {
    pace.lock().await.tick().await;
    next.run(delivery).await
}

/// The keys of what is done. A real one is a table of the database that the listener writes to, in the same transaction.
#[derive(Debug, Clone, Default)]
struct Done(Arc<Mutex<HashSet<String>>>);

/// A message that was handled before is acknowledged without its listener: RocketMQ delivers at least once.
async fn once(State(Done(done)): State<Done>, delivery: Delivery, next: Next) -> Outcome {
    let key = delivery.message().keys().next().map(str::to_owned);
    let Some(key) = key else { return next.run(delivery).await };
    if done.lock().unwrap_or_else(PoisonError::into_inner).contains(&key) {
        return ConsumeResult::Success.into();
    }
    let outcome = next.run(delivery).await;
    if outcome.is_success() {
        done.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
    }
    outcome
}

/// A listener that takes longer has failed: its message is delivered again.
async fn in_time(limit: Duration, delivery: Delivery, next: Next) -> Outcome {
    match time::timeout(limit, next.run(delivery)).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::failed(format!("the listener took longer than {limit:?}")),
    }
}

#[rocketmq::listener(group = "payments", topic = "payments")]
async fn on_payment(message: MessageExt, producer: Producer) -> Result<()> {
    info!(payment = message.body_utf8()?, "booked");
    if message.tag() == Some("slow") {
        time::sleep(Duration::from_secs(3_600)).await;
    }
    producer.send(Message::new("receipts").body(message.body().clone())).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_target(false).init();
    let mut config = Config::default();
    config.cluster.name_servers = NameServers::Embedded;
    // From the outside in: those of the application in their order, then those of the group.
    let app = App::builder()
        .config_value(config)
        .state(Done::default())
        .state(Pace::one_each(Duration::from_millis(200)))
        .send_hook(SameTrace)
        .around(traced)
        .around_with_state(once)
        .around_group_with_state("payments", paced)
        .around_group("payments", |delivery, next| in_time(Duration::from_secs(1), delivery, next))
        .start()
        .await?;
    app.ready().await;
    let producer = app.producer("default")?;
    for number in [1, 2, 2, 3, 3, 3] {
        let payment =
            Message::new("payments").key(format!("payment-{number}")).body(format!("payment {number}"));
        producer
            .send(payment.property("traceparent", format!("00-{number:032x}-0000000000000001-01")))
            .await?;
    }
    time::sleep(Duration::from_secs(2)).await;
    app.shutdown().await
}

#[cfg(test)]
mod tests {
    use rocketmq::testing;

    use super::*;

    fn payment(key: &str) -> Message {
        Message::new("payments").key(key).body("10")
    }

    fn kit() -> testing::AppBuilder {
        testing::App::builder().config_value(Config::default())
    }

    #[tokio::test]
    async fn what_was_handled_is_not_handled_again() -> Result<()> {
        let (done, reached) = (Done::default(), Arc::new(Mutex::new(Vec::new())));
        let seen = Arc::clone(&reached);
        let app = kit()
            .state(done.clone())
            .around_with_state(once)
            .around(move |delivery: Delivery, next: Next| {
                seen.lock().unwrap().extend(delivery.message().keys().map(str::to_owned));
                async move {
                    match delivery.message().body_str().as_ref() {
                        "fails" => Outcome::failed("no"),
                        _ => next.run(delivery).await,
                    }
                }
            })
            .start()
            .await?;
        for key in ["a", "a", "b"] {
            assert_eq!(app.deliver(payment(key)).await.only(), ConsumeResult::Success);
        }
        app.deliver(payment("c").body("fails")).await;
        assert_eq!(*reached.lock().unwrap(), ["a", "b", "c"]);
        assert!(!done.0.lock().unwrap().contains("c"), "what failed is not done");
        app.shutdown().await
    }

    #[tokio::test]
    async fn a_listener_that_takes_too_long_has_failed() -> Result<()> {
        let in_time = |delivery: Delivery, next| {
            let limit = match delivery.message().tag() {
                Some("slow") => Duration::from_millis(1),
                _ => Duration::from_secs(60),
            };
            in_time(limit, delivery, next)
        };
        let app = kit().around_group("payments", in_time).start().await?;
        let delivered = app.deliver(payment("a").tag("slow")).await;
        assert_eq!(delivered.error(), Some("the listener took longer than 1ms"));
        assert_eq!(app.deliver(payment("b")).await.only(), ConsumeResult::Success);
        Ok(())
    }

    #[tokio::test]
    async fn messages_wait_for_their_turn() -> Result<()> {
        let period = Duration::from_millis(20);
        let app =
            kit().state(Pace::one_each(period)).around_group_with_state("payments", paced).start().await?;
        let begin = Instant::now();
        for key in ["a", "b", "c"] {
            app.send(payment(key)).await;
        }
        assert_eq!(app.handled("payments").await.len(), 3);
        assert!(period * 2 <= begin.elapsed(), "{:?}", begin.elapsed());
        Ok(())
    }

    #[tokio::test]
    async fn a_trace_goes_on_in_what_the_listener_sends() -> Result<()> {
        let app = kit().around(traced).send_hook(SameTrace).start().await?;
        for trace in ["00-1-1-01", "00-2-1-01"] {
            app.deliver(payment("a").property("traceparent", trace)).await;
        }
        app.deliver(payment("b")).await;
        let receipts = app.sent("receipts");
        let mut traces: Vec<_> = receipts.iter().map(|receipt| receipt.property("traceparent")).collect();
        traces.sort_unstable();
        assert_eq!(traces, [Some("00-1-1-01"), Some("00-2-1-01"), Some("none")]);
        app.shutdown().await
    }

    #[tokio::test]
    async fn what_an_around_needs_is_looked_for_before_the_start() {
        let refused = kit().around_with_state(once).around_group_with_state("payments", paced).start().await;
        let text = refused.unwrap_err().to_string();
        for words in
            ["takes State<around::Done>", "takes State<around::Pace>", "the `around` at examples/around.rs:"]
        {
            assert!(text.contains(words), "{text}");
        }
        let refused = kit().around_group("payment", |delivery, next: Next| next.run(delivery)).start().await;
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("is for group `payment`, which has no listener"), "{text}");
    }
}
