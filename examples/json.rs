//! cargo run --example json
//!
//! A body that is JSON: the listener takes it decoded. What does not decode can never be handled, so it is a dead letter at
//! once; `on_bad_payload` of the group says otherwise.

use rocketmq::config::{Config, NameServers};
use rocketmq::{App, Json, Message, Result};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

static PAID: Notify = Notify::const_new();

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    number: u32,
    cents: i64,
}

#[rocketmq::listener(group = "orders", topic = "order-events", tag = "paid")]
async fn on_paid(Json(order): Json<Order>) {
    println!("order {} over {} cents is paid", order.number, order.cents);
    PAID.notify_one();
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_target(false).init();
    let mut config = Config::default();
    config.cluster.name_servers = NameServers::Embedded;
    let app = App::builder().config_value(config).start().await?;
    app.ready().await;

    let producer = app.producer("default")?;
    let order = Order { number: 42, cents: 1_999 };
    // A warning says what is wrong with this one, and where it is.
    producer.send(Message::new("order-events").tag("paid").body("forty-two")).await?;
    producer.send(Message::new("order-events").tag("paid").json(&order)).await?;
    PAID.notified().await;
    app.shutdown().await
}

#[cfg(test)]
mod tests {
    use rocketmq::testing;
    use rocketmq::testing::Fate;

    use super::*;

    #[tokio::test]
    async fn what_does_not_decode_is_a_dead_letter() -> Result<()> {
        let app = testing::App::builder().config_value(Config::default()).start().await?;
        let paid = || Message::new("order-events").tag("paid");
        let good = app.deliver(paid().json(&Order { number: 42, cents: 1_999 })).await;
        assert_eq!(good.fate(), Fate::Acknowledged);
        let bad = app.deliver(paid().body(r#"{ "number": 42 }"#)).await;
        assert_eq!(bad.fate(), Fate::DeadLettered);
        let dead = app.dead_letters("orders");
        assert_eq!(dead[0].reason(), "bad payload: missing field `cents` at line 1 column 16");
        app.shutdown().await
    }
}
