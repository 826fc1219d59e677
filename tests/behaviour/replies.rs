//! Requests and replies: between this library's programs, and between them and Java's.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rocketmq::{
    Error, Json, Message, MessageExt, Producer, PushConsumer, Reply, RequestReplyError, SendError,
};
use rocketmq_tests::{JavaProgram, Version};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time;

use crate::seen::Seen;
use crate::server::{Server, consumer_config, producer_config, unique};
use crate::wait;

on_each_server! { Shared:
    listeners_answer_and_each_requester_gets_its_own_reply,
    a_request_without_a_reply_times_out_and_what_comes_later_is_late,
    a_reply_that_cannot_be_sent_is_a_failed_message,
    a_reply_that_nobody_waits_for_any_more_is_given_up,
    a_message_that_is_no_request_is_done,
    requests_are_bounded_and_a_shutdown_waits_for_their_replies,
    java_and_this_library_answer_each_other,
}

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize, Deserialize)]
struct Question {
    number: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    twice: u32,
}

/// Answers numbers.
async fn double(messages: Vec<MessageExt>) -> Result<Reply<Json<Answer>>> {
    let question: Question = messages.first().context("there is one")?.json()?;
    Ok(Reply(Json(Answer { twice: question.number * 2 })))
}

/// An answer that is large enough to be compressed, with properties of its own.
async fn repeat(messages: Vec<MessageExt>) -> Result<Reply<Message>> {
    let text = messages.first().context("there is one")?.body_utf8()?;
    Ok(Reply(Message::new("does not count").body(text.repeat(1_000)).tag("long").property("of", text)))
}

async fn listeners_answer_and_each_requester_gets_its_own_reply(server: Server) -> Result<()> {
    const COUNT: u32 = 200;
    let name = unique("replies");
    let (numbers, texts) = (format!("{name}-numbers"), format!("{name}-texts"));
    for topic in [&numbers, &texts] {
        server.create_topic(topic, 4).await?;
    }
    let answering = server.manager();
    PushConsumer::builder(numbers.as_str())
        .config(consumer_config())
        .subscribe(numbers.as_str(), "*", double)
        .build(&answering)?;
    PushConsumer::builder(texts.as_str())
        .config(consumer_config())
        .orderly()
        .subscribe(texts.as_str(), "*", repeat)
        .build(&answering)?;
    answering.start().await?;
    // Another client, which no broker has heard of before.
    let (sender, producer) = server.producer().await?;
    let mut requests = JoinSet::new();
    for number in 0..COUNT {
        let (producer, message) = (producer.clone(), Message::new(&numbers).json(&Question { number }));
        requests.spawn(async move { (number, producer.request(message, PATIENCE).await) });
    }
    while let Some(replied) = requests.join_next().await {
        let (number, reply) = replied?;
        assert_eq!(reply?.json::<Answer>()?.twice, number * 2);
    }
    let reply = producer.request(Message::new(&texts).body("again "), PATIENCE).await?;
    assert_eq!(reply.body_str(), "again ".repeat(1_000));
    assert_eq!((reply.tag(), reply.property("of")), (Some("long"), Some("again ")));
    assert!(reply.property(rocketmq::message::properties::ARRIVE_TIME).is_some());
    let stats = producer.reply_stats();
    assert_eq!((stats.waiting, stats.replied, stats.late, stats.unknown), (0, u64::from(COUNT) + 1, 0, 0));
    assert_eq!(producer.stats()[&numbers].sent, u64::from(COUNT));
    // The reply is sent first, then the request is done: none comes again.
    wait::until("all are done", async || {
        let done =
            server.committed(&numbers, &numbers, 4).await? + server.committed(&texts, &texts, 4).await?;
        Ok(done == i64::from(COUNT) + 1)
    })
    .await?;
    answering.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn a_request_without_a_reply_times_out_and_what_comes_later_is_late(server: Server) -> Result<()> {
    let (topic, group) = (unique("questions"), unique("group"));
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    let message = |body: &'static str| Message::new(&topic).body(body);
    let error =
        producer.request(message("one"), Duration::from_millis(300)).await.expect_err("nobody answers");
    assert!(error.is_timeout(), "{error:?}");
    match &error {
        RequestReplyError::TimedOut { .. } => assert!(error.was_sent()),
        // On a busy machine the sending alone may take so long.
        other => assert!(matches!(other, RequestReplyError::NotConfirmed { .. }), "{other:?}"),
    }
    let given_up = async { producer.request(message("two"), PATIENCE).await.map(drop) };
    let sent = async {
        wait::until("two is stored", async || Ok(server.admin().max_offset(&topic, 0).await? == 2)).await
    };
    tokio::select! {
        ended = given_up => ended?,
        sent = sent => sent?,
    }
    assert_eq!(producer.reply_stats().waiting, 0, "what is over leaves nothing behind");
    let answering = server.manager();
    PushConsumer::builder(group.as_str())
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", |_| async { Reply("late") })
        .build(&answering)?
        .start()
        .await?;
    wait::until("both replies came", async || Ok(producer.reply_stats().late == 2)).await?;
    let reply = producer.request(message("three"), PATIENCE).await?;
    assert_eq!(reply.body_str(), "late");
    let stats = producer.reply_stats();
    assert_eq!((stats.waiting, stats.replied, stats.unknown), (0, 1, 0));

    let error =
        producer.request(Message::new("not a topic").body("x"), PATIENCE).await.expect_err("a bad topic");
    assert!(matches!(error, RequestReplyError::NotSent(SendError::Message(_))), "{error:?}");
    answering.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

/// Fails to say at first what it knows.
#[derive(Serialize)]
#[serde(untagged)]
enum Said {
    Badly(std::collections::BTreeMap<(u8, u8), u8>),
    Well(&'static str),
}

async fn a_reply_that_cannot_be_sent_is_a_failed_message(server: Server) -> Result<()> {
    let (topic, seen) = (unique("questions"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let (manager, producer) = server.producer().await?;
    let noted = seen.clone();
    PushConsumer::builder(unique("group"))
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", move |messages: Vec<MessageExt>| {
            messages.iter().for_each(|message| noted.note(message));
            let is_first = messages.iter().all(|message| message.reconsume_times() == 0);
            async move {
                Reply(Json(match is_first {
                    // JSON has no such keys.
                    true => Said::Badly([((1, 2), 3)].into()),
                    false => Said::Well("done"),
                }))
            }
        })
        .build(&manager)?
        .start()
        .await?;
    let reply = producer.request(Message::new(&topic).body("x"), PATIENCE).await?;
    assert_eq!(reply.json::<String>()?, "done");
    assert_eq!(seen.messages().len(), 2);
    manager.shutdown().await?;
    Ok(())
}

async fn a_reply_that_nobody_waits_for_any_more_is_given_up(server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("questions"), unique("group"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let gone = Arc::new(Notify::new());
    let (noted, awaited) = (seen.clone(), Arc::clone(&gone));
    let answering = server.manager();
    PushConsumer::builder(group.as_str())
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", move |messages: Vec<MessageExt>| {
            messages.iter().for_each(|message| noted.note(message));
            let gone = Arc::clone(&awaited);
            async move {
                gone.notified().await;
                Reply("too late")
            }
        })
        .build(&answering)?
        .start()
        .await?;
    let (sender, producer) = server.producer().await?;
    let request = Message::new(&topic).body("x");
    tokio::select! {
        ended = producer.request(request, Duration::from_millis(1_500)) => drop(ended),
        () = pending() => {}
    }
    seen.until_count(1).await?;
    sender.shutdown().await?;
    gone.notify_one();
    wait::until("it is done", async || Ok(server.committed(&group, &topic, 1).await? == 1)).await?;
    seen.ensure_once()?;
    answering.shutdown().await?;
    assert_eq!(server.admin().max_offset(&format!("%RETRY%{group}"), 0).await?, 0, "it does not come again");
    Ok(())
}

async fn a_message_that_is_no_request_is_done(server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("questions"), unique("group"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    let (noted, by_hand) = (seen.clone(), producer.clone());
    PushConsumer::builder(group.as_str())
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", move |messages: Vec<MessageExt>| {
            let (seen, producer) = (noted.clone(), by_hand.clone());
            async move {
                let message = messages.first().context("there is one")?;
                match producer.reply(message, "by hand").await {
                    Err(SendError::Message(error)) => seen.note_body(&error.to_string()),
                    other => seen.note_body(&format!("{other:?}")),
                }
                Ok::<_, anyhow::Error>(Reply("y"))
            }
        })
        .build(&sender)?
        .start()
        .await?;
    producer.send(Message::new(&topic).body("x")).await?;
    wait::until("it is done", async || Ok(server.committed(&group, &topic, 1).await? == 1)).await?;
    assert!(seen.bodies().iter().all(|said| said.contains("it is no request")), "{:?}", seen.bodies());

    // The reply by hand comes first, that of the listener is late.
    let reply = producer.request(Message::new(&topic).body("x"), PATIENCE).await?;
    assert_eq!(reply.body_str(), "by hand");
    wait::until("the other came, too", async || Ok(producer.reply_stats().late == 1)).await?;
    sender.shutdown().await?;
    Ok(())
}

async fn requests_are_bounded_and_a_shutdown_waits_for_their_replies(server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("questions"), unique("group"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let answering = server.manager();
    let (noted, may_answer) = (seen.clone(), Arc::new(Notify::new()));
    let awaited = Arc::clone(&may_answer);
    PushConsumer::builder(group.as_str())
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", move |messages: Vec<MessageExt>| {
            messages.iter().for_each(|message| noted.note(message));
            let may_answer = Arc::clone(&awaited);
            async move {
                may_answer.notified().await;
                Reply("at last")
            }
        })
        .build(&answering)?
        .start()
        .await?;
    let manager = server.manager();
    let mut config = producer_config();
    config.max_requests = 1;
    let producer = Producer::builder(unique("producer")).config(config).build(&manager)?;
    manager.start().await?;
    let (asking, message) = (producer.clone(), Message::new(&topic).body("x"));
    let mut first = JoinSet::new();
    first.spawn(async move { asking.request(message, PATIENCE).await });
    seen.until_count(1).await?;
    let second = producer.request(Message::new(&topic).body("y"), Duration::from_millis(50)).await;
    assert!(matches!(second, Err(RequestReplyError::TooMany { limit: 1, .. })), "{second:?}");
    let mut stopping = JoinSet::new();
    stopping.spawn(async move { manager.shutdown().await });
    // What is accepted no more shows that the shutdown has begun.
    wait::until("it begins to stop", async || {
        let sent = time::timeout(PATIENCE, producer.send(Message::new("t").body("x"))).await?;
        Ok(matches!(sent, Err(SendError::NotRunning { .. })))
    })
    .await?;
    may_answer.notify_one();
    let reply = first.join_next().await.context("it was begun")???;
    assert_eq!(reply.body_str(), "at last");
    stopping.join_next().await.context("it was begun")???;
    let error = producer.request(Message::new(&topic).body("z"), PATIENCE).await.expect_err("it is closed");
    let words = Error::from(error).to_string();
    assert!(words.contains("is shut down"), "{words}");
    answering.shutdown().await?;
    Ok(())
}

async fn java_and_this_library_answer_each_other(server: Server) -> Result<()> {
    const SOURCE: &str = include_str!("../harness/java/RequestReply.java");
    let version = if server.knows_timers() { Version::V5_5_0 } else { Version::V4_9_7 };
    if !rocketmq_tests::servers()?.contains(&rocketmq_tests::ServerKind::Apache(version)) {
        return Ok(());
    }
    let (to_java, to_us) = (unique("to-java"), unique("to-us"));
    for topic in [&to_java, &to_us] {
        server.create_topic(topic, 2).await?;
    }
    let (manager, producer) = server.producer().await?;
    PushConsumer::builder(unique("group"))
        .config(consumer_config())
        .subscribe(to_us.as_str(), "*", |messages: Vec<MessageExt>| async move {
            let heard: String = messages.iter().map(|message| message.body_str()).collect();
            // Compressed, so that Java has to unpack it.
            Reply(Message::new("").body(format!("Rust heard {heard}{}", ".".repeat(5_000))).tag("rust"))
        })
        .build(&manager)?
        .start()
        .await?;
    let (name_server, group) = (server.name_server(), unique("java"));
    let mut answering =
        JavaProgram::start(version, "RequestReply", SOURCE, &["reply", &name_server, &to_java, &group])
            .await?;
    let asking_group = unique("java");
    let arguments = ["request", &name_server, &to_us, &asking_group, "one", "two", "three"];
    let mut asking = JavaProgram::start(version, "RequestReply", SOURCE, &arguments).await?;

    answering.lines("ready", 1).await?;
    for body in ["x", "y", "z"] {
        let reply = producer.request(Message::new(&to_java).body(body), Duration::from_secs(60)).await?;
        assert_eq!(reply.body_str(), format!("Java heard {body}"));
    }
    let replies = asking.lines("reply: ", 3).await?;
    for (reply, body) in replies.iter().zip(["one", "two", "three"]) {
        assert_eq!(*reply, format!("Rust heard {body}{} rust", ".".repeat(5_000)));
    }
    let stats = producer.reply_stats();
    assert_eq!((stats.replied, stats.unknown), (3, 0));
    asking.stop().await?;
    answering.stop().await?;
    manager.shutdown().await?;
    Ok(())
}
