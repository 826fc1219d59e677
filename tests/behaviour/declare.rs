//! Annotated functions, from the configuration to the messages they handle.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rocketmq::config::{BadPayload, ClusterConfig, Config};
use rocketmq::{
    App, ConsumeContext, ConsumeResult, Delivery, Json, Message, MessageExt, Next, Producer, Producers,
    PushConsumer, Reply, State, embedded,
};
use rocketmq_tests_elsewhere::Book;
use serde::{Deserialize, Serialize};

use crate::broadcast::folder;
use crate::log;
use crate::seen::Seen;
use crate::sending::send_all;
use crate::server::{Server, block_on, cluster, config, consumer_config, producer_config, unique};
use crate::wait;

on_each_server! { Shared:
    annotated_functions_get_what_they_ask_for,
    a_bad_payload_becomes_a_dead_letter_at_once,
    a_bad_payload_is_tried_again_where_the_group_says_so,
    a_bad_payload_is_skipped_where_the_group_says_so,
    a_bad_payload_in_a_batch_keeps_none_of_the_others,
}

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    number: u32,
}

/// What each of the listeners has handled.
#[derive(Debug, Clone, Default)]
struct Books {
    owned: Seen,
    borrowed: Seen,
    batches: Seen,
    orders: Seen,
    relayed: Seen,
    /// By name, and given to the state when it is made.
    archive: Option<Producer>,
    rows: Seen,
    other: Seen,
    told: Seen,
}

#[rocketmq::listener(group = "${declared.name}-owned", topic = "${declared.name}")]
async fn takes_the_message(message: MessageExt, State(books): State<Books>) {
    books.owned.note(&message);
}

#[rocketmq::listener(group = "${declared.name}-borrowed", topic = "${declared.name}", tag = "odd || even")]
async fn borrows_the_message_and_fails_at_first(
    message: &MessageExt,
    context: ConsumeContext,
    State(books): State<Books>,
) -> Result<(), String> {
    if context.attempt() == 1 {
        return Err("not yet".to_owned());
    }
    books.borrowed.note(message);
    Ok(())
}

#[rocketmq::listener(group = "${declared.name}-batches", topic = "${declared.name}")]
async fn takes_a_batch(messages: Vec<MessageExt>, State(books): State<Books>) -> ConsumeResult {
    messages.iter().for_each(|message| books.batches.note(message));
    ConsumeResult::Success
}

#[rocketmq::listener(group = "${declared.name}-orders", topic = "${declared.name}-orders")]
async fn takes_an_order_and_passes_it_on(
    Json(order): Json<Order>,
    context: ConsumeContext,
    State(books): State<Books>,
    producer: Producer,
) -> Result<ConsumeResult, anyhow::Error> {
    books.orders.note_body(&order.number.to_string());
    let relayed = format!("{}-relayed", context.topic().trim_end_matches("-orders"));
    producer.send(Message::new(relayed).tag("relayed").body(order.number.to_string())).await?;
    Ok(ConsumeResult::Success)
}

#[rocketmq::listener(group = "${declared.name}-relayed", topic = "${declared.name}-relayed", tag = "relayed")]
async fn takes_what_was_passed_on(body: String, State(books): State<Books>) -> Result<()> {
    books.relayed.note_body(&body);
    Ok(())
}

#[rocketmq::listener(group = "${declared.name}-questions", topic = "${declared.name}-questions")]
async fn answers(
    Json(order): Json<Order>,
    context: ConsumeContext,
    State(books): State<Books>,
    producers: Producers,
) -> anyhow::Result<Reply<Json<Order>>> {
    let archived = Message::new(context.topic().replace("-questions", "-relayed")).body("a question");
    let archive = books.archive.context("the state has it")?;
    assert_eq!(archive.group(), producers.get("archive")?.group());
    archive.send(archived).await?;
    Ok(Reply(Json(Order { number: order.number + 1 })))
}

#[rocketmq::listener(group = "${declared.name}-rows", topic = "${declared.name}-rows")]
async fn takes_rows(orders: Vec<Json<Order>>, State(books): State<Books>) -> anyhow::Result<()> {
    orders.iter().for_each(|Json(order)| books.rows.note_body(&order.number.to_string()));
    Ok(())
}

#[rocketmq::listener(group = "${declared.name}-told", topic = "${declared.name}-rows", broadcast)]
async fn is_told(Json(order): Json<Order>, State(books): State<Books>) {
    books.told.note_body(&order.number.to_string());
}

#[rocketmq::listener(
    group = "${declared.name}-owned",
    topic = "${declared.name}-other",
    cluster = "${declared.cluster:default}"
)]
async fn takes_from_another_cluster(message: MessageExt, State(books): State<Books>) {
    books.other.note(&message);
}

const TOPICS: [&str; 7] = ["", "-orders", "-relayed", "-questions", "-rows", "-other", "-elsewhere"];

/// The configuration of an application in which all of these listeners have topics and groups of their own.
async fn declared(server: &Server) -> Result<(String, Config)> {
    let name = unique("declared");
    for topic in TOPICS.map(|end| format!("{name}{end}")) {
        server.create_topic(&topic, 4).await?;
    }
    let mut config = config(server);
    config.cluster.client.offset_dir = folder();
    config.vars.insert("declared.name".to_owned(), name.as_str().into());
    config.defaults.max_reconsume = Some(1);
    config.defaults.batch = 4;
    Ok((name, config))
}

/// All of them at work, and the one of the other crate.
async fn started(config: Config, books: &Books) -> Result<App> {
    Ok(App::builder().config_value(config).state(books.clone()).state(Book::default()).start().await?)
}

async fn annotated_functions_get_what_they_ask_for(server: Server) -> Result<()> {
    let (name, mut config) = declared(&server).await?;
    let books = Books::default();
    let mut archive = config.producers["default"].clone();
    archive.group = Some(format!("{name}-archive"));
    config.producers.insert("archive".to_owned(), archive);
    let (given, elsewhere) = (books.clone(), Book::default());
    let app = App::builder()
        .config_value(config)
        .state_with(|producers| Ok(Books { archive: Some(producers.get("archive")?), ..given }))
        .state(elsewhere.clone())
        .start()
        .await?;
    let producer = app.producer("default")?;

    let message = |number: u32| {
        let tag = if number.is_multiple_of(2) { "even" } else { "odd" };
        Message::new(&name).tag(tag).body(number.to_string())
    };
    let sent = send_all(&producer, (0..40).map(message)).await?;
    let orders = format!("{name}-orders");
    send_all(&producer, (0..40).map(|number| Message::new(&orders).json(&Order { number }))).await?;

    producer.send(Message::new(format!("{name}-elsewhere")).body("far away")).await?;
    for seen in [&books.owned, &books.borrowed, &books.batches, &books.orders, &books.relayed] {
        seen.until_all(&sent).await?;
        seen.ensure_once()?;
    }
    let question = Message::new(format!("{name}-questions")).json(&Order { number: 7 });
    let reply = producer.request(question, Duration::from_secs(30)).await?;
    assert_eq!(reply.json::<Order>()?.number, 8);
    assert_eq!(app.producer("archive")?.stats()[&format!("{name}-relayed")].sent, 1);
    wait::until("the listener of the other crate has it", async || Ok(elsewhere.entries() == ["far away"]))
        .await?;
    assert!(books.borrowed.messages().iter().all(|message| message.reconsume_times() == 1));
    app.ready().await;
    let health = app.health();
    assert!(health.ready && health.groups.len() == 9, "{health:?}");
    app.shutdown().await?;
    for group in ["owned", "borrowed", "batches", "orders", "relayed"] {
        assert_eq!(server.dead_letters(&format!("{name}-{group}")).await?, 0, "{group}");
    }
    Ok(())
}

async fn a_bad_payload_becomes_a_dead_letter_at_once(server: Server) -> Result<()> {
    // It is the default.
    bad_payloads(server, None, 1, 2).await
}

async fn a_bad_payload_is_tried_again_where_the_group_says_so(server: Server) -> Result<()> {
    bad_payloads(server, Some(BadPayload::Retry), 2, 2).await
}

async fn a_bad_payload_is_skipped_where_the_group_says_so(server: Server) -> Result<()> {
    bad_payloads(server, Some(BadPayload::Skip), 1, 0).await
}

/// Two bad ones among good ones: each is delivered `times`, and `dead` of them become dead letters.
async fn bad_payloads(server: Server, policy: Option<BadPayload>, times: u32, dead: i64) -> Result<()> {
    let (name, mut config) = declared(&server).await?;
    if let Some(policy) = policy {
        config.defaults.on_bad_payload = policy;
    }
    let (group, topic) = (format!("{name}-orders"), format!("{name}-orders"));
    let (books, deliveries) = (Books::default(), Arc::new(AtomicU32::new(0)));
    let count = Arc::clone(&deliveries);
    let app = App::builder()
        .config_value(config)
        .state(books.clone())
        .state(Book::default())
        .around(move |delivery: Delivery, next: Next| {
            if delivery.message().body_str().starts_with("bad") {
                count.fetch_add(1, Ordering::Relaxed);
            }
            next.run(delivery)
        })
        .start()
        .await?;
    let producer = app.producer("default")?;

    let good = (0..10).map(|number| Message::new(&topic).json(&Order { number }));
    let bad = ["bad 1", "bad 2"].map(|body| Message::new(&topic).body(body));
    send_all(&producer, good.chain(bad)).await?;

    let numbers: BTreeSet<String> = (0..10).map(|number| number.to_string()).collect();
    books.orders.until_all(&numbers).await?;
    wait::until("all are done", async || Ok(server.committed(&group, &topic, 4).await? == 12)).await?;
    wait::until("the bad ones are where they belong", async || {
        Ok(deliveries.load(Ordering::Relaxed) == 2 * times && server.dead_letters(&group).await? == dead)
    })
    .await?;
    books.orders.ensure_once()?;
    app.shutdown().await?;
    assert_eq!(deliveries.load(Ordering::Relaxed), 2 * times);
    assert_eq!(server.dead_letters(&group).await?, dead);
    if dead > 0 {
        ensure_reasons(&server, &group, 2).await?;
    }
    Ok(())
}

/// The dead letters of a group say why they are.
async fn ensure_reasons(server: &Server, group: &str, count: usize) -> Result<()> {
    let (manager, dead) = (server.manager(), Seen::default());
    PushConsumer::builder(unique("reader"))
        .config(consumer_config())
        .subscribe(format!("%DLQ%{group}"), "*", dead.listener())
        .build(&manager)?;
    manager.start().await?;
    dead.until_count(count).await?;
    for message in dead.messages() {
        let reason = message.property(rocketmq::BadPayload::PROPERTY).unwrap_or_default();
        assert!(message.body_str().starts_with("bad") && reason.contains("at line 1"), "{message:?}");
    }
    manager.shutdown().await?;
    Ok(())
}

async fn a_bad_payload_in_a_batch_keeps_none_of_the_others(server: Server) -> Result<()> {
    let (name, config) = declared(&server).await?;
    let (group, topic) = (format!("{name}-rows"), format!("{name}-rows"));
    let books = Books::default();
    let (sender, producer) = server.producer().await?;
    let message = |number: u32| match number % 10 {
        3 => Message::new(&topic).body(format!("bad {number}")),
        _ => Message::new(&topic).json(&Order { number }),
    };
    // Before the start, so that batches are full.
    send_all(&producer, (0..40).map(message)).await?;

    let app = started(config, &books).await?;
    let good = (0..40).filter(|number| number % 10 != 3).map(|number: u32| number.to_string()).collect();
    books.rows.until_all(&good).await?;
    wait::until("all are done", async || Ok(server.committed(&group, &topic, 4).await? == 40)).await?;
    wait::until("the bad ones are dead letters", async || Ok(server.dead_letters(&group).await? == 4))
        .await?;
    books.rows.ensure_once()?;
    let stats = app.stats(&group)?[&topic];
    assert_eq!((stats.ok, stats.failed, stats.bad_payloads), (36, 4, 4), "{stats:?}");
    // A broadcast group has nowhere to put them, which is said.
    let told = format!("{name}-told");
    books.told.until_all(&good).await?;
    wait::until("all are counted", async || Ok(app.stats(&told)?[&topic].bad_payloads == 4)).await?;
    log::until_logged(&["a message cannot be decoded: it is dropped", &told]).await?;
    app.shutdown().await?;
    ensure_reasons(&server, &group, 4).await?;
    sender.shutdown().await?;
    Ok(())
}

/// Two clusters in one process, under one instance name and with the same group in both.
#[test]
fn a_process_works_in_two_clusters_at_once() -> Result<()> {
    block_on(async {
        let here = embedded::Server::builder().start().await?;
        let there = embedded::Server::builder().start().await?;
        let (name, mut config) = (unique("declared"), Config::default());
        config.cluster = named_cluster(&here);
        config.clusters.insert("dr".to_owned(), named_cluster(&there));
        config.defaults = consumer_config();
        let mut to_there = producer_config();
        to_there.cluster = Some("dr".to_owned());
        config.producers.insert("dr".to_owned(), to_there);
        config.vars.insert("declared.name".to_owned(), name.as_str().into());
        config.vars.insert("declared.cluster".to_owned(), "dr".into());
        for topic in TOPICS {
            here.create_topic(&format!("{name}{topic}"), 4)?;
            there.create_topic(&format!("{name}{topic}"), 4)?;
        }
        let books = Books::default();
        let app = started(config, &books).await?;
        let bodies = |place: &str| (0..40).map(|number| format!("{place} {number}")).collect::<BTreeSet<_>>();
        for (producer, place) in [("default", "here"), ("dr", "there")] {
            let producer = app.producer(producer)?;
            for topic in [name.clone(), format!("{name}-other")] {
                send_all(&producer, bodies(place).into_iter().map(|body| Message::new(&topic).body(body)))
                    .await?;
            }
        }
        books.owned.until_all(&bodies("here")).await?;
        books.other.until_all(&bodies("there")).await?;
        let stats = app.stats(&format!("{name}-owned"))?;
        app.shutdown().await?;
        for seen in [&books.owned, &books.other] {
            seen.ensure_once()?;
            assert_eq!(seen.count(), 40, "something came from the wrong cluster");
        }
        assert_eq!((stats[&name].pulled, stats[&format!("{name}-other")].pulled), (40, 40));
        here.shutdown().await;
        there.shutdown().await;
        Ok(())
    })
}

/// A cluster in which this process has the name that it has in the other one.
fn named_cluster(server: &embedded::Server) -> ClusterConfig {
    let mut cluster = cluster(&server.name_server());
    cluster.client.instance = Some("one-name".to_owned());
    cluster.client.offset_dir = folder();
    cluster
}
