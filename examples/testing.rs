//! cargo test --example testing
//!
//! An application and its tests: each starts the application on a server of its own, delivers messages, moves time, and looks
//! at what became of them. The listener is also called as what it is, a function.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use rocketmq::{App, Json, Message, Producer, Result, State};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    number: u32,
    cents: i64,
}

/// Where orders are booked; it may be out of order for a while.
#[derive(Debug, Clone, Default)]
struct Books(Arc<Mutex<Pages>>);

#[derive(Debug, Default)]
struct Pages {
    orders: BTreeSet<u32>,
    failures_left: u32,
}

impl Books {
    fn book(&self, order: &Order) -> Result<(), String> {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match pages.failures_left.checked_sub(1) {
            Some(left) => {
                pages.failures_left = left;
                Err("the books are closed".to_owned())
            }
            None => {
                pages.orders.insert(order.number);
                Ok(())
            }
        }
    }
}

#[rocketmq::listener(group = "orders", topic = "order-events", tag = "paid")]
async fn on_paid(Json(order): Json<Order>, State(books): State<Books>, producer: Producer) -> Result<()> {
    books.book(&order).map_err(rocketmq::Error::other)?;
    producer.send(Message::new("invoices").json(&order)).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    println!("this example is its tests: cargo test --example testing");
    App::builder().state(Books::default()).run().await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rocketmq::testing::{self, Fate, Incoming};
    use rocketmq::{Config, ConsumeResult, FromMessage};

    use super::*;

    fn paid(number: u32) -> Message {
        Message::new("order-events").tag("paid").json(&Order { number, cents: 995 })
    }

    /// Without `config_value` it would be the `rocketmq.yaml` of the application.
    async fn start(books: &Books) -> Result<testing::App> {
        testing::App::builder().config_value(Config::default()).state(books.clone()).start().await
    }

    #[tokio::test]
    async fn a_paid_order_is_booked_and_invoiced() -> Result<()> {
        let books = Books::default();
        let app = start(&books).await?;

        let delivered = app.deliver(paid(7)).await;

        assert_eq!(delivered.only(), ConsumeResult::Success);
        assert_eq!(delivered.listener(), "testing::on_paid");
        assert_eq!(app.sent("invoices").len(), 1);
        assert!(books.0.lock().unwrap().orders.contains(&7));
        app.shutdown().await
    }

    #[tokio::test]
    async fn while_the_books_are_closed_orders_wait() -> Result<()> {
        let books = Books::default();
        books.0.lock().unwrap().failures_left = 2;
        let app = start(&books).await?;

        let delivered = app.deliver(paid(7)).await;
        assert_eq!(delivered.error(), Some("the books are closed"));

        app.advance(Duration::from_secs(10)).await;
        assert_eq!(app.attempts("orders"), 2);
        app.advance(Duration::from_secs(30)).await;
        assert_eq!(app.attempts("orders"), 3);
        assert_eq!(app.acknowledged("orders").len(), 1);
        assert!(app.dead_letters("orders").is_empty());
        Ok(())
    }

    #[tokio::test]
    async fn what_is_no_order_is_a_dead_letter_at_once() -> Result<()> {
        let app = start(&Books::default()).await?;

        let delivered = app.deliver(Message::new("order-events").tag("paid").body("seven")).await;

        assert_eq!(delivered.fate(), Fate::DeadLettered);
        let dead = app.dead_letters("orders");
        assert_eq!(dead[0].body_str(), "seven");
        assert_eq!(dead[0].reason(), "bad payload: expected value at line 1 column 1");
        Ok(())
    }

    #[tokio::test]
    async fn other_events_are_not_for_us() -> Result<()> {
        let app = start(&Books::default()).await?;
        assert!(app.deliver(Message::new("order-events").tag("shipped").body("7")).await.is_empty());
        Ok(())
    }

    #[tokio::test]
    async fn without_the_books_nothing_starts() {
        let refused = testing::App::builder().config_value(Config::default()).start().await;
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("testing::on_paid (examples/testing.rs:"), "{text}");
        assert!(text.contains("takes State<testing::Books>, but there is no such state"), "{text}");
    }

    #[test]
    fn an_order_is_read_without_a_server() {
        let incoming = Incoming::new(paid(7)).delivery();
        let Json(order) = Json::<Order>::from_message(&incoming).unwrap();
        assert_eq!((order.number, order.cents), (7, 995));
    }
}
