//! cargo run --example state
//!
//! Values that listeners share: given to the builder, taken as `State<T>`, one for each type. A value that is missing stops
//! the start with the listener's place, long before the first message.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rocketmq::config::{Config, NameServers};
use rocketmq::{App, Error, Message, Producer, Result, State};
use tokio::sync::mpsc;

/// Cheap to clone: a pool of connections, a client, a counter.
#[derive(Debug, Clone, Default)]
struct Visits(Arc<AtomicU64>);

/// Whoever wants to know of them.
#[derive(Debug, Clone)]
struct Watchers(mpsc::Sender<u64>);

/// A producer of its own, by its name under `producers:`.
#[derive(Debug, Clone)]
struct Audit(Producer);

#[rocketmq::listener(group = "visits", topic = "visits")]
async fn on_visit(
    page: String,
    State(Visits(visits)): State<Visits>,
    State(Watchers(watchers)): State<Watchers>,
    State(Audit(audit)): State<Audit>,
) -> Result<()> {
    let count = visits.fetch_add(1, Ordering::Relaxed) + 1;
    audit.send(Message::new("audit").body(format!("visit {count} to {page}"))).await?;
    watchers.send(count).await.map_err(Error::other)
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_target(false).init();
    let mut config = Config::default();
    config.cluster.name_servers = NameServers::Embedded;
    let (watchers, mut counts) = mpsc::channel(16);
    let app = App::builder()
        .config_value(config)
        .state(Visits::default())
        .state(Watchers(watchers))
        // Made once the producers are there, and before anything is connected.
        .state_with(|producers| Ok(Audit(producers.get("default")?)))
        .start()
        .await?;
    app.ready().await;

    let producer = app.producer("default")?;
    for page in ["home", "shop", "cart"] {
        producer.send(Message::new("visits").body(page)).await?;
        println!("{:?} visits", counts.recv().await);
    }
    app.shutdown().await
}

#[cfg(test)]
mod tests {
    use rocketmq::testing;

    use super::*;

    #[tokio::test]
    async fn state_that_is_missing_is_named_before_the_start() {
        let app = testing::App::builder().config_value(Config::default()).state(Visits::default());
        let error = app.start().await.expect_err("two are missing").to_string();
        assert!(error.contains("takes State<state::Watchers>, but there is no such state"), "{error}");
    }

    #[tokio::test]
    async fn listeners_share_the_values() -> Result<()> {
        let (visits, (watchers, mut counts)) = (Visits::default(), mpsc::channel(16));
        let app = testing::App::builder()
            .config_value(Config::default())
            .state(visits.clone())
            .state(Watchers(watchers))
            .state_with(|producers| Ok(Audit(producers.get("default")?)))
            .start()
            .await?;
        app.deliver(Message::new("visits").body("home")).await;
        assert_eq!((counts.recv().await, visits.0.load(Ordering::Relaxed)), (Some(1), 1));
        assert_eq!(app.sent("audit")[0].body_str(), "visit 1 to home");
        app.shutdown().await
    }
}
