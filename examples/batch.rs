//! cargo run --example batch
//!
//! Many messages in one call: a listener that takes a `Vec` gets up to the group's `batch`, of one queue. `AckFirst` says how
//! many are done where the rest is to come again.

use rocketmq::config::{Config, ConsumerConfig, NameServers};
use rocketmq::{App, ConsumeResult, Json, Message, Result, State};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

const BATCH: u32 = 50;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Metric {
    name: String,
    value: f64,
}

/// A table that takes rows until the first bad one.
#[derive(Debug, Clone)]
struct Table(mpsc::Sender<usize>);

impl Table {
    /// How many were inserted.
    async fn insert(&self, rows: &[Json<Metric>]) -> usize {
        let inserted =
            rows.iter().take_while(|Json(row)| row.value.is_finite() && !row.name.is_empty()).count();
        println!("{inserted} of {} rows in one call", rows.len());
        // The receiver is gone once the program ends.
        let _ = self.0.send(inserted).await;
        inserted
    }
}

#[rocketmq::listener(group = "bulk", topic = "metrics")]
async fn on_metrics(rows: Vec<Json<Metric>>, State(table): State<Table>) -> ConsumeResult {
    ConsumeResult::AckFirst(table.insert(&rows).await)
}

/// In rocketmq.yaml: `groups: { bulk: { batch: 50 } }`
fn config() -> Config {
    let mut bulk = ConsumerConfig::default();
    bulk.batch = BATCH;
    let mut config = Config::default();
    config.cluster.name_servers = NameServers::Embedded;
    config.defaults = bulk;
    config
}

fn metric(number: u32) -> Message {
    Message::new("metrics").json(&Metric { name: format!("cpu.{number}"), value: f64::from(number) })
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_target(false).init();
    let (inserted, mut counts) = mpsc::channel(16);
    let app = App::builder().config_value(config()).state(Table(inserted)).start().await?;
    app.ready().await;
    // What is sent as a batch stands next to each other in one queue.
    app.producer("default")?.send_batch((0..200).map(metric)).await?;
    let mut rows = 0;
    while rows < 200 {
        rows += counts.recv().await.unwrap_or_default();
    }
    app.shutdown().await
}

#[cfg(test)]
mod tests {
    use rocketmq::testing;

    use super::*;

    #[tokio::test]
    async fn what_the_table_did_not_take_comes_again() -> Result<()> {
        let (inserted, _counts) = mpsc::channel(64);
        let app = testing::App::builder().config_value(config()).state(Table(inserted)).start().await?;
        let bad = Message::new("metrics").json(&Metric { name: String::new(), value: 0.0 });
        let rows = [metric(1), metric(2), bad].into_iter();
        app.producer("default")?.send_batch(rows).await?;
        app.idle().await;
        assert_eq!((app.acknowledged("bulk").len(), app.retried("bulk").len()), (2, 1));
        app.shutdown().await
    }
}
