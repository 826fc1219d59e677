//! cargo run --example filter
//!
//! Messages chosen by what they are about: by tag, or by properties in SQL92. The broker does it (`enablePropertyFilter=true`), so
//! that nothing else travels. An expression that cannot be read stops the start with its place.

use rocketmq::config::{Config, NameServers};
use rocketmq::{App, Message, Result, State};
use tokio::sync::mpsc;

type Told = mpsc::Sender<&'static str>;

#[rocketmq::listener(group = "shop", topic = "order-events", tag = "paid || refunded")]
async fn on_money(order: String, State(told): State<Told>) {
    println!("{order}: money has moved");
    // The receiver is gone once the program ends.
    let _ = told.send("money").await;
}

/// `${…}` works in an expression as in any text; numbers, texts in single quotes, `BETWEEN`, `IN`, `IS NULL` are those of SQL.
#[rocketmq::listener(
    group = "customs",
    topic = "order-events",
    sql = "region <> '${home:eu}' AND amount >= ${least:150}"
)]
async fn on_import(order: String, State(told): State<Told>) {
    println!("{order}: to be declared");
    let _ = told.send("customs").await;
}

/// What a producer sends: properties are texts, and compared as numbers where the other side is one.
fn order(name: &str, tag: &str, region: &str, amount: u32) -> Message {
    let message = Message::new("order-events").tag(tag).body(name.to_owned());
    message.property("region", region).property("amount", amount.to_string())
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_target(false).init();
    let mut config = Config::default();
    config.cluster.name_servers = NameServers::Embedded;
    let (told, mut seen) = mpsc::channel::<&str>(16);
    let app = App::builder().config_value(config).state(told).start().await?;
    app.ready().await;
    let producer = app.producer("default")?;
    for message in [
        order("a book", "paid", "eu", 20),
        order("a lamp", "shipped", "us", 200),
        order("a chair", "refunded", "uk", 180),
    ] {
        producer.send(message).await?;
    }
    for _ in 0..4 {
        seen.recv().await;
    }
    app.shutdown().await
}

#[cfg(test)]
mod tests {
    use rocketmq::testing;

    use super::*;

    /// The groups that got each of these orders.
    async fn chosen(app: &testing::App, order: Message) -> Vec<String> {
        let delivered = app.deliver(order).await;
        delivered.attempts().iter().map(|attempt| attempt.group.clone()).collect()
    }

    fn kit() -> (testing::AppBuilder, mpsc::Receiver<&'static str>) {
        let (told, seen) = mpsc::channel::<&str>(16);
        (testing::App::builder().config_value(Config::default()).state(told), seen)
    }

    #[tokio::test]
    async fn each_group_gets_what_it_chose() -> Result<()> {
        let (kit, _seen) = kit();
        let app = kit.start().await?;
        assert_eq!(chosen(&app, order("a book", "paid", "eu", 200)).await, ["shop"]);
        assert_eq!(chosen(&app, order("a lamp", "shipped", "us", 150)).await, ["customs"]);
        assert!(chosen(&app, order("a pen", "shipped", "us", 149)).await.is_empty());
        // A message without the property is not chosen by it.
        assert!(chosen(&app, Message::new("order-events").body("a card")).await.is_empty());
        let mut both = chosen(&app, order("a chair", "refunded", "uk", 180)).await;
        both.sort();
        assert_eq!(both, ["customs", "shop"]);
        app.shutdown().await
    }

    #[tokio::test]
    async fn an_expression_may_have_values_of_the_configuration() -> Result<()> {
        let (kit, _seen) = kit();
        let app = kit.env("home", "us").start().await?;
        assert!(chosen(&app, order("a lamp", "shipped", "us", 150)).await.is_empty());
        assert_eq!(chosen(&app, order("a lamp", "shipped", "eu", 150)).await, ["customs"]);
        app.shutdown().await
    }

    #[tokio::test]
    async fn an_expression_that_cannot_be_read_stops_the_start_with_its_place() {
        let (kit, _seen) = kit();
        let refused = kit.env("least", "= 150").start().await;
        let text = refused.expect_err("`>= = 150` is no comparison").to_string();
        assert!(text.contains("filter::on_import (examples/filter.rs:") && text.contains("column"), "{text}");
    }
}
