//! cargo run --example transaction
//!
//! A message that is delivered if, and only if, the order that it tells of is in the database: also where this process
//! dies in between. The local part of the transaction writes the order; the check looks for it.

use std::collections::BTreeSet;
use std::env;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rocketmq::config::{Config, ProducerConfig};
use rocketmq::{App, Error, Message, Result, State, Transaction, embedded};
use tokio::sync::mpsc;

/// In a real program it outlives the process.
#[derive(Debug, Clone, Default)]
struct Database(Arc<Mutex<BTreeSet<String>>>);

impl Database {
    fn insert(&self, order: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(order.to_owned());
    }

    fn has(&self, order: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(order)
    }
}

/// Brokers ask any process with this producer about transactions that did not end.
#[rocketmq::transaction(producer = "orders")]
async fn check(order: String, State(database): State<Database>) -> Transaction {
    let transaction = if database.has(&order) { Transaction::Commit } else { Transaction::Rollback };
    println!("what became of {order}? {transaction}");
    transaction
}

#[rocketmq::listener(group = "shipping", topic = "orders-to-ship")]
async fn ship(order: String, State(shipped): State<mpsc::Sender<String>>) {
    println!("{order} is shipped");
    // The receiver is gone once the program ends.
    let _ = shipped.send(order).await;
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_target(false).init();
    // The cluster that NAMESRV_ADDR names, where the topic has to be there, and brokers ask after 6 to 36 seconds; or a
    // server in this process, which does so earlier.
    let server = embedded::Server::builder()
        .transaction_timeout(Duration::from_millis(500))
        .transaction_check_interval(Duration::from_millis(500));
    let server = server.start().await.map_err(Error::other)?;
    server.create_topic("orders-to-ship", 4).map_err(Error::other)?;
    let name_servers = env::var("NAMESRV_ADDR").unwrap_or_else(|_| server.name_server());

    // In rocketmq.yaml: `producers: { orders: { group: orders-tx, transaction: true } }`
    let mut config = Config::default();
    config.cluster.name_servers = name_servers.parse().map_err(Error::other)?;
    let mut orders = ProducerConfig::default();
    (orders.group, orders.transaction) = (Some("orders-tx".to_owned()), true);
    config.producers.insert("orders".to_owned(), orders);
    let database = Database::default();
    let (shipping, mut shipped) = mpsc::channel::<String>(16);
    let app = App::builder().config_value(config).state(database.clone()).state(shipping).start().await?;
    app.ready().await;
    let producer = app.producer("orders")?;

    let order = |name: &str| Message::new("orders-to-ship").body(name.to_owned());
    producer
        .send_in_transaction(order("a book"), async {
            database.insert("a book");
            Transaction::Commit
        })
        .await?;
    // The payment fails: the local part knows, and nobody ships.
    producer.send_in_transaction(order("a yacht"), async { Transaction::Rollback }).await?;
    // The answer of the database is lost after it has written: the check finds out.
    let lost = producer.send_in_transaction(order("a lamp"), async {
        database.insert("a lamp");
        Err::<Transaction, _>("the connection to the database was lost")
    });
    let lost = lost.await?;
    println!("a lamp: {}, {}", lost.transaction, lost.reason.unwrap_or_default());

    // The book at once, the yacht never, the lamp once the broker has asked.
    let mut awaited = BTreeSet::from(["a book", "a lamp"]);
    while !awaited.is_empty() {
        let order = shipped.recv().await.unwrap_or_default();
        awaited.remove(order.as_str());
    }
    shipped.close();
    app.shutdown().await?;
    server.shutdown().await;
    Ok(())
}
