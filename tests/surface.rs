//! What the documentation shows, word for word: attributes, arguments, results, the file, the builder, the parts that are put
//! together by hand, and the kit. Each test is a section of it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use rocketmq::testing::{App, AppBuilder, Fate, Incoming};
use rocketmq::{
    Bytes, ConsumeContext, ConsumeResult, DelayLevel, Filter, Health, Json, Message, MessageExt, Outcome,
    Producer, Producers, Reply, SendResult, State, Transaction,
};
use rocketmq_tests_elsewhere::Book;
use serde::{Deserialize, Serialize};

const FILE: &str = "surface.yaml";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u32,
}

/// What listeners write to; it may be out of order for a while.
#[derive(Debug, Clone, Default)]
struct Db {
    rows: Arc<Mutex<Vec<u32>>>,
    failures: Arc<AtomicU32>,
}

impl Db {
    fn fail_next(&self, times: u32) {
        self.failures.store(times, Ordering::Relaxed);
    }

    fn len(&self) -> usize {
        self.rows().len()
    }

    fn rows(&self) -> MutexGuard<'_, Vec<u32>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn store(&self, Order { id }: Order) -> Result<()> {
        let fails = |left: u32| left.checked_sub(1);
        if self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fails).is_ok() {
            anyhow::bail!("the database is away");
        }
        self.rows().push(id);
        Ok(())
    }
}

#[rocketmq::listener(group = "orders", topic = "order-events", tag = "paid || refunded")]
async fn on_order(Json(order): Json<Order>, State(db): State<Db>) -> anyhow::Result<()> {
    db.store(order).await?;
    Ok(())
}

#[rocketmq::listener(group = "orders", topic = "order-events", tag = "audit")]
async fn on_audit(message: &MessageExt, context: ConsumeContext) -> ConsumeResult {
    assert_eq!(message.tag(), Some("audit"));
    match context.attempt() {
        1 => {
            context.set_delay_hint(DelayLevel::S1);
            ConsumeResult::ReconsumeLater
        }
        2 => ConsumeResult::ReconsumeAfter(DelayLevel::S5),
        _ => ConsumeResult::DeadLetter,
    }
}

#[rocketmq::listener(group = "bulk", topic = "metrics")]
async fn on_metrics(orders: Vec<Json<Order>>, State(db): State<Db>) -> anyhow::Result<()> {
    db.rows().extend(orders.iter().map(|Json(order)| order.id));
    Ok(())
}

#[rocketmq::listener(group = "slices", topic = "slices", tag = "slice")]
async fn slice(messages: &[MessageExt]) -> ConsumeResult {
    ConsumeResult::AckFirst(messages.iter().take_while(|message| message.body_str() != "again").count())
}

#[rocketmq::listener(group = "slices", topic = "slices", tag = "list")]
async fn list(messages: Vec<MessageExt>) -> Result<ConsumeResult, String> {
    if messages.is_empty() { Err("nothing".to_owned()) } else { Ok(ConsumeResult::Success) }
}

#[rocketmq::listener(group = "bodies", topic = "bodies", tag = "text")]
async fn text(body: String) -> Result<(), String> {
    if body == "text" { Ok(()) } else { Err(body) }
}

#[rocketmq::listener(group = "bodies", topic = "bodies", tag = "bytes")]
async fn bytes(body: Bytes) {
    assert_eq!(body, &b"\xff"[..]);
}

#[rocketmq::listener(group = "ledger", topic = "transfers", orderly)]
async fn on_transfer(Json(Order { id }): Json<Order>, State(db): State<Db>) -> Result<(), std::io::Error> {
    db.store(Order { id }).await.map_err(std::io::Error::other)
}

#[rocketmq::listener(group = "quotes", topic = "quote-requests")]
async fn quote(Json(Order { id }): Json<Order>) -> Result<Reply<Json<Order>>, String> {
    Ok(Reply(Json(Order { id: id + 1 })))
}

#[rocketmq::listener(group = "mail", topic = "${mail.topic:mails}")]
#[rocketmq::listener(group = "mail", topic = "mails-vip")]
async fn mail(message: MessageExt, producer: Producer) -> Result<(), rocketmq::Error> {
    producer.send(message.forward_to("mail-done")).await?;
    Ok(())
}

#[rocketmq::listener(
    group = "europe",
    topic = "order-events",
    sql = "region = 'eu' AND amount > ${least:100}"
)]
async fn in_europe(_: MessageExt) {}

#[rocketmq::listener(group = "caches", topic = "changes", broadcast)]
async fn on_change(_: MessageExt) {}

#[rocketmq::listener(group = "audit", topic = "audits", cluster = "dr")]
async fn in_another_cluster(_: MessageExt, State(producers): State<Producers>) {
    assert_eq!(producers.names().collect::<Vec<_>>(), ["default", "orders", "to_dr"]);
}

#[rocketmq::transaction(producer = "orders")]
async fn check(message: MessageExt, State(db): State<Db>) -> Transaction {
    let id = message.json::<Order>().map(|order| order.id).unwrap_or_default();
    if db.rows().contains(&id) { Transaction::Commit } else { Transaction::Rollback }
}

fn kit(db: &Db) -> AppBuilder {
    App::builder().config(FILE).state(db.clone()).state(Book::default())
}

fn paid(id: u32) -> Message {
    Message::new("order-events").tag("paid").json(&Order { id })
}

#[tokio::test]
async fn paid_orders_reach_the_database() {
    let db = Db::default();
    let app = kit(&db).start().await.unwrap();

    let delivered = app.deliver(paid(1)).await;
    assert_eq!((delivered.only(), delivered.listener()), (ConsumeResult::Success, "surface::on_order"));
    assert_eq!(db.len(), 1);

    app.deliver(Message::new("order-events").tag("paid").body("not json")).await;
    assert_eq!(app.dead_letters("orders").len(), 1);

    let before = app.attempts("orders");
    db.fail_next(2);
    app.deliver(paid(2)).await;
    app.advance(Duration::from_secs(60)).await;
    assert_eq!(app.attempts("orders") - before, 3);
    assert_eq!(app.sent("mail-done").len(), 0);
}

#[test]
fn the_configuration_is_valid() {
    rocketmq::check(FILE).unwrap();
}

#[tokio::test]
async fn a_listener_is_a_plain_function() {
    let db = Db::default();
    on_order(Json(Order { id: 1 }), State(db.clone())).await.unwrap();
    assert_eq!(db.len(), 1);
    let incoming = Incoming::new(Message::new("order-events").tag("audit").body("x"));
    let (message, context) = (incoming.message(), incoming.context());
    assert_eq!(context.delay_hint(), None);
    assert_eq!(on_audit(&message, context.clone()).await, ConsumeResult::ReconsumeLater);
    assert_eq!(context.delay_hint(), Some(DelayLevel::S1));
}

#[tokio::test]
async fn every_result_has_its_meaning() {
    let app = kit(&Db::default()).start().await.unwrap();
    app.deliver(Message::new("order-events").tag("audit").body("x")).await;
    // Without a word of the listener it would be 10 s, then 30 s.
    app.advance(Duration::from_secs(2)).await;
    assert_eq!(app.attempts("orders"), 2, "the hint of the context");
    app.advance(Duration::from_secs(6)).await;
    assert_eq!((app.attempts("orders"), app.dead_letters("orders").len()), (3, 1));

    // Those of a batch stand next to each other in one queue.
    let message = |body: &'static str| Message::new("slices").tag("slice").body(body);
    app.producer("default").unwrap().send_batch(["1", "2", "again"].map(message)).await.unwrap();
    app.idle().await;
    let given_back = app.retried("slices");
    assert!(given_back.iter().any(|message| message.body_str() == "again"), "{given_back:?}");
    assert_eq!(app.deliver(Message::new("slices").tag("list").body("x")).await.fate(), Fate::Acknowledged);

    let failed = app.deliver(Message::new("bodies").tag("text").body("other")).await;
    assert_eq!((failed.only(), failed.error()), (ConsumeResult::ReconsumeLater, Some("other")));

    let request = Message::new("quote-requests").json(&Order { id: 41 });
    let reply = app.producer("default").unwrap().request(request, Duration::from_secs(30)).await.unwrap();
    assert_eq!(reply.json::<Order>().unwrap(), Order { id: 42 });
}

#[tokio::test]
async fn every_argument_is_what_was_sent() {
    let db = Db::default();
    let app = kit(&db).start().await.unwrap();
    for (tag, body) in [("text", &b"text"[..]), ("bytes", b"\xff")] {
        let delivered = app.deliver(Message::new("bodies").tag(tag).body(body)).await;
        assert_eq!(delivered.fate(), Fate::Acknowledged, "{delivered}");
    }
    let bad = app.deliver(Message::new("bodies").tag("text").body(&b"\xff"[..])).await;
    assert_eq!(bad.fate(), Fate::DeadLettered);
    let metrics = (0..20).map(|id| Message::new("metrics").json(&Order { id }));
    app.producer("default").unwrap().send_batch(metrics).await.unwrap();
    app.idle().await;
    assert_eq!((db.len(), app.attempts("bulk")), (20, 20));
}

#[tokio::test]
async fn every_attribute_has_its_meaning() {
    let db = Db::default();
    let app = kit(&db).start().await.unwrap();

    // Both subscriptions of one function; the topic of the first is that of the file.
    for topic in ["mails-dev", "mails-vip"] {
        assert_eq!(app.deliver(Message::new(topic).key("7").body("hello")).await.listener(), "surface::mail");
    }
    let done = app.sent("mail-done");
    assert_eq!((done.len(), done[0].keys().collect::<Vec<_>>()), (2, vec!["7"]));

    let order = |region: &str, amount: &str| {
        Message::new("order-events").property("region", region).property("amount", amount).body("x")
    };
    assert_eq!(app.deliver(order("eu", "101")).await.of("europe").fate, Fate::Acknowledged);
    assert!(app.deliver(order("eu", "99")).await.is_empty());
    assert!(app.deliver(order("us", "101")).await.is_empty());

    db.fail_next(1);
    let transfer = |id: u32| Message::new("transfers").sharding_key("account").json(&Order { id });
    assert_eq!(app.deliver(transfer(1)).await.fate(), Fate::Paused);
    app.send(transfer(2)).await;
    app.advance(Duration::from_millis(500)).await;
    assert_eq!(*db.rows(), [1, 2], "the file says `suspend: 500ms`");

    assert_eq!(app.deliver(Message::new("changes").body("x")).await.fate(), Fate::Acknowledged);

    app.producer("to_dr").unwrap().send(Message::new("audits").body("x")).await.unwrap();
    let handled = app.handled("audits").await;
    assert_eq!((handled.len(), handled[0].fate), (1, Fate::Acknowledged));
    assert!(app.server().messages("audits").is_empty() && app.server_of("dr").messages("audits").len() == 1);

    let elsewhere = app.deliver(Message::new("surface-elsewhere").body("x")).await;
    assert_eq!(elsewhere.listener(), "rocketmq_tests_elsewhere::writes_down");
}

#[tokio::test]
async fn a_group_of_the_file_without_a_listener_stops_the_start() {
    let kit = kit(&Db::default()).env("ROCKETMQ__CLUSTERS__DR__CLIENT__REQUEST_TIMEOUT", "5s");
    let text = kit.env("MAIL_ON", "no").start().await.unwrap_err().to_string();
    assert!(text.contains("groups.mail.enabled"), "{text}");

    let text = App::builder().config("surface.yaml").env("declared.name", "another");
    let text = text.state(Db::default()).start().await.unwrap_err().to_string();
    for words in [
        "the group `another-elsewhere` of this listener is not listed under `groups:`",
        "group surface-elsewhere is listed but no listener of it is in this program",
        "add `use that_crate as _;` to main.rs",
        "takes State<rocketmq_tests_elsewhere::Book>, but there is no such state",
    ] {
        assert!(text.contains(words), "{text}");
    }
}

#[tokio::test]
async fn a_message_is_there_if_what_it_tells_of_is() {
    let db = Db::default();
    let app = kit(&db).start().await.unwrap();
    let orders = app.producer("orders").unwrap();
    let vip = |id: u32| Message::new("mails-vip").json(&Order { id });
    let stored = db.store(Order { id: 1 });
    orders.send_in_transaction(vip(1), async { stored.await.map(|()| Transaction::Commit) }).await.unwrap();
    assert_eq!(app.handled("mails-vip").await.len(), 1);

    // Nobody knows what has become of these: the check is asked.
    db.store(Order { id: 2 }).await.unwrap();
    for id in [2, 3] {
        orders.send_in_transaction(vip(id), async { Transaction::Unknown }).await.unwrap();
    }
    assert_eq!(app.open_transactions().len(), 2);
    app.advance(Duration::from_secs(40)).await;
    assert_eq!(app.handled("mails-vip").await.len(), 2);
}

#[tokio::test]
async fn annotated_checks_go_with_annotated_listeners() {
    let with =
        |config: AppBuilder| config.without_linked_listeners().listener("mine", "t", "*", |_| async {});
    // Neither the producer of the check is there, nor its state.
    let app = with(App::builder().config_value(rocketmq::Config::default())).start().await.unwrap();
    assert_eq!(app.deliver(Message::new("t").body("x")).await.fate(), Fate::Acknowledged);

    let app = with(App::builder().config(FILE)).start().await.unwrap();
    let orders = app.producer("orders").unwrap();
    let text = orders.send_in_transaction(Message::new("t").body("x"), async { Transaction::Commit }).await;
    let text = text.unwrap_err().to_string();
    assert!(text.contains("#[rocketmq::transaction(producer ="), "{text}");

    let app = with(App::builder().config(FILE)).transaction("orders", |_| async { Transaction::Commit });
    let app = app.groups(["caches"]).start().await.unwrap();
    assert_eq!(app.deliver(Message::new("changes").body("x")).await.listener(), "surface::on_change");
    let orders = app.producer("orders").unwrap();
    orders.send_in_transaction(Message::new("t").body("x"), async { Transaction::Unknown }).await.unwrap();
    app.advance(Duration::from_secs(40)).await;
    assert_eq!(app.handled("t").await.len(), 1);
}

#[tokio::test]
async fn an_application_inside_of_a_program() -> Result<(), rocketmq::Error> {
    let (measured, mut times) = tokio::sync::mpsc::channel(16);
    let app = rocketmq::App::builder()
        .config(FILE)
        .state(Db::default())
        .state(Book::default())
        .around(move |delivery, next| {
            let measured = measured.clone();
            async move {
                let begin = Instant::now();
                let outcome = next.run(delivery).await;
                measured.send(begin.elapsed()).await.map_or_else(Outcome::failed, |()| outcome)
            }
        })
        .start()
        .await?;
    app.ready().await;

    app.pause("orders")?;
    app.resume("orders")?;
    let unknown = app.pause("odrers").unwrap_err().to_string();
    assert!(
        unknown.contains("there is no such group; there are: ") && unknown.contains("orders"),
        "{unknown}"
    );
    app.producer("default")?.send(paid(42).key("42")).await?;
    let report: Health = app.health();
    assert!(report.ready && report.groups.len() == 11, "{report:?}");
    assert!(times.recv().await.is_some());
    app.shutdown().await?;
    assert!(!app.health().ready);
    Ok(())
}

#[tokio::test]
async fn parts_that_are_put_together_by_hand() -> Result<()> {
    let server = rocketmq::embedded::Server::builder().start().await?;
    server.create_topic("testTopic", 4)?;
    let (handled, mut seen) = tokio::sync::mpsc::channel(16);

    let manager = rocketmq::client::MqClientManager::global();
    let consumer = rocketmq::PushConsumer::builder("testGroup")
        .name_servers([server.name_server()])
        .subscribe("testTopic", Filter::tag("*"), move |messages: Vec<MessageExt>| {
            let handled = handled.clone();
            async move {
                for message in &messages {
                    handled.send(message.body_str().into_owned()).await.unwrap();
                }
                ConsumeResult::Success
            }
        })
        .build(manager)?;
    consumer.start().await?;
    consumer.suspend();
    consumer.resume();
    consumer.ready().await;

    let producer = Producer::builder("p").name_servers([server.name_server()]).build(manager)?;
    producer.start().await?;
    let message = |body: &'static str| Message::new("testTopic").body(body);
    let sent: SendResult = producer.send(message("1")).await?;
    assert_eq!(&*sent.queue.topic, "testTopic");
    producer.send_oneway(message("2")).await?;
    producer.send_batch([message("3"), message("4")]).await?;
    let mut bodies = Vec::new();
    while bodies.len() < 4 {
        bodies.extend(seen.recv().await);
    }
    bodies.sort();
    assert_eq!(bodies, ["1", "2", "3", "4"]);

    let again = rocketmq::PushConsumer::builder("testGroup")
        .name_servers([server.name_server()])
        .subscribe("testTopic", "*", |_| async {})
        .build(manager);
    let text = again.map(drop).unwrap_err().to_string();
    assert!(text.contains("a consumer of this group already"), "{text}");
    consumer.shutdown().await?;
    producer.shutdown().await;
    server.shutdown().await;
    Ok(())
}
