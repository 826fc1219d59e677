//! Annotated functions, from the configuration to the messages they handle.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rocketmq::config::{BadPayload, Config};
use rocketmq::{
    App, ConsumeContext, ConsumeResult, Delivery, Json, Message, MessageExt, Next, Producer, Producers,
    Reply, State,
};
use serde::{Deserialize, Serialize};

use crate::seen::Seen;
use crate::sending::send_all;
use crate::server::{Server, config, unique};
use crate::wait;

on_each_server! { Shared:
    annotated_functions_get_what_they_ask_for,
    a_bad_payload_becomes_a_dead_letter_at_once,
    a_bad_payload_is_tried_again_where_the_group_says_so,
    a_bad_payload_is_skipped_where_the_group_says_so,
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

/// The configuration of an application in which all of these listeners have topics and groups of their own.
async fn declared(server: &Server) -> Result<(String, Config)> {
    let name = unique("declared");
    for topic in ["", "-orders", "-relayed", "-questions"].map(|end| format!("{name}{end}")) {
        server.create_topic(&topic, 4).await?;
    }
    let mut config = config(server);
    config.vars.insert("declared.name".to_owned(), name.as_str().into());
    config.defaults.max_reconsume = Some(1);
    config.defaults.batch = 4;
    Ok((name, config))
}

async fn annotated_functions_get_what_they_ask_for(server: Server) -> Result<()> {
    let (name, mut config) = declared(&server).await?;
    let books = Books::default();
    let mut archive = config.producers["default"].clone();
    archive.group = Some(format!("{name}-archive"));
    config.producers.insert("archive".to_owned(), archive);
    let given = books.clone();
    let app = App::builder()
        .config_value(config)
        .state_with(|producers| Ok(Books { archive: Some(producers.get("archive")?), ..given }))
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

    for seen in [&books.owned, &books.borrowed, &books.batches, &books.orders, &books.relayed] {
        seen.until_all(&sent).await?;
        seen.ensure_once()?;
    }
    let question = Message::new(format!("{name}-questions")).json(&Order { number: 7 });
    let reply = producer.request(question, Duration::from_secs(30)).await?;
    assert_eq!(reply.json::<Order>()?.number, 8);
    assert_eq!(app.producer("archive")?.stats()[&format!("{name}-relayed")].sent, 1);
    assert!(books.borrowed.messages().iter().all(|message| message.reconsume_times() == 1));
    app.ready().await;
    let health = app.health();
    assert!(health.ready && health.groups.len() == 6, "{health:?}");
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
    Ok(())
}
