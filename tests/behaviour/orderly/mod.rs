//! Consumption in order: one handler of a queue at a time, whatever happens.

mod locks;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rocketmq::client::MqClientManager;
use rocketmq::config::{BadPayload as OnBadPayload, ConsumerConfig};
use rocketmq::{
    BadPayload, ConsumeResult, IntoConsumeResult, Message, MessageExt, Outcome, Producer, PushConsumer,
};
use tokio::task::JoinSet;
use tokio::time;

use crate::program::Program;
use crate::seen::Seen;
use crate::sending::{send, send_numbers};
use crate::server::{Server, consumer_config, unique};
use crate::wait;

on_all_servers_at_once! { Shared:
    the_order_of_each_key_survives_failures_a_joining_and_a_killed_member,
}

on_each_server! { Shared:
    a_failing_message_holds_up_its_queue_and_no_other,
    what_fails_too_often_becomes_a_dead_letter_and_the_queue_goes_on,
    a_dead_letter_or_a_bad_payload_does_not_hold_up_its_queue,
    a_bad_payload_that_is_tried_again_is_tried_in_its_turn,
    a_batch_is_a_part_of_the_queue_and_what_it_did_not_acknowledge_comes_again,
    more_queues_than_handlers_take_turns,
    no_span_of_offsets_stops_the_pulls,
}

const QUEUES: u32 = 8;

/// A consumer in order, and the manager that keeps it.
async fn consume<F, Fut>(
    server: &Server,
    group: &str,
    topic: &str,
    config: ConsumerConfig,
    listener: F,
) -> Result<MqClientManager>
where
    F: Fn(Vec<MessageExt>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: IntoConsumeResult> + Send + 'static,
{
    let manager = server.manager();
    PushConsumer::builder(group).orderly().config(config).subscribe(topic, "*", listener).build(&manager)?;
    manager.start().await?;
    Ok(manager)
}

/// Failures are tried again soon.
fn impatient() -> ConsumerConfig {
    let mut config = consumer_config();
    config.suspend = Duration::from_millis(10);
    config
}

/// What was handled, by queue, each message as `body` or, tried again, as `body (times)`.
fn by_queue(seen: &Seen) -> BTreeMap<i32, Vec<String>> {
    let mut queues: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for message in seen.messages() {
        let text = match message.reconsume_times() {
            0 => message.body_str().into_owned(),
            times => format!("{} ({times})", message.body_str()),
        };
        queues.entry(message.queue_id()).or_default().push(text);
    }
    queues
}

/// That what was handled of each queue is what stands in it, from the first message to the last.
fn ensure_in_order(seen: &Seen) -> Result<()> {
    let mut next: BTreeMap<i32, i64> = BTreeMap::new();
    for message in seen.messages() {
        let next = next.entry(message.queue_id()).or_default();
        ensure!(message.queue_offset() == *next, "{message:?} came where {next} was due");
        *next += 1;
    }
    Ok(())
}

// --- The proof: nothing is lost, and nothing overtakes, in three processes, one of which is killed.

/// A line of the book that the members share.
#[derive(Debug, Clone)]
struct Entry {
    member: u32,
    step: String,
    queue: u32,
    key: String,
    number: u32,
}

struct Book(PathBuf);

impl Book {
    fn entries(&self) -> Result<Vec<Entry>> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        // The last line may not be there in full.
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines.map(|line| Entry::read(line).with_context(|| format!("a line is {line:?}"))).collect()
    }

    fn done(&self) -> Result<usize> {
        let mut done: Vec<_> = self.entries()?.into_iter().filter(|entry| entry.step == "done").collect();
        done.sort_unstable_by(|a, b| (&a.key, a.number).cmp(&(&b.key, b.number)));
        done.dedup_by(|a, b| (&a.key, a.number) == (&b.key, b.number));
        Ok(done.len())
    }

    async fn until_done(&self, count: usize, limit: Duration) -> Result<()> {
        wait::until_within(limit, &format!("{count} are done"), async || Ok(count <= self.done()?)).await
    }
}

impl Drop for Book {
    fn drop(&mut self) {
        // Best effort: it is in `target`.
        drop(fs::remove_file(&self.0));
    }
}

impl Entry {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let member = words.next()?.parse().ok()?;
        let (step, queue) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
        Some(Self { member, step, queue, key: words.next()?.to_owned(), number: words.next()?.parse().ok()? })
    }
}

/// Between the beginning of a handler and its end, no other one begins in that queue; one that was killed has no end.
fn ensure_one_at_a_time(book: &[Entry], killed: u32) -> Result<()> {
    let mut running: BTreeMap<u32, &Entry> = BTreeMap::new();
    for entry in book {
        match (entry.step.as_str(), running.remove(&entry.queue)) {
            ("begin", None) => drop(running.insert(entry.queue, entry)),
            ("begin", Some(other)) if other.member == killed => drop(running.insert(entry.queue, entry)),
            ("begin", Some(other)) => bail!("{entry:?} began while this was handled: {other:?}"),
            (_, Some(begun)) if begun.member == entry.member && begun.key == entry.key => {}
            (_, begun) => bail!("{entry:?} ended, and this had begun: {begun:?}"),
        }
    }
    Ok(())
}

/// Each key is done in the order of sending, without a gap. Only what the killed member had done since its last offset
/// was stored is done once more: as a part of the same order that ends where it ended.
fn ensure_each_key_in_order(book: &[Entry], killed: u32, keys: usize, per_key: u32) -> Result<()> {
    let mut by_key: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in book.iter().filter(|entry| entry.step == "done") {
        by_key.entry(&entry.key).or_default().push(entry);
    }
    ensure!(by_key.len() == keys, "{} keys instead of {keys}", by_key.len());
    for (key, entries) in by_key {
        let (mut next, mut repeats) = (0, 0);
        let mut last: Option<&Entry> = None;
        for entry in entries {
            if entry.number != next {
                let was_killed = last.is_some_and(|last| last.member == killed);
                ensure!(
                    entry.number < next && was_killed,
                    "{key}: {entry:?} came where {next} was due, after {last:?}"
                );
                repeats += 1;
            }
            next = entry.number + 1;
            last = Some(entry);
        }
        ensure!(next == per_key, "{key}: the last one is {next}, not {per_key}");
        ensure!(repeats <= 1, "{key}: it was repeated {repeats} times");
    }
    Ok(())
}

/// Sends messages of `keys` keys to each queue, one after the other, as many of each key: `key number`.
async fn send_keyed(producer: &Producer, topic: &str, keys: u32, per_key: u32) -> Result<()> {
    // A producer goes through the queues in turn, and the topics share its turn.
    let elsewhere = producer.send(Message::new(format!("{topic}-probe")).body("where is it?")).await?;
    let first = elsewhere.queue.queue_id as u32 + 1;
    for number in 0..per_key {
        for key in 0..keys {
            for queue in (first..first + QUEUES).map(|queue| queue % QUEUES) {
                let key = format!("key-{queue}-{key}");
                let message = Message::new(topic).key(&key).body(format!("{key} {number}"));
                let sent = producer.send(message).await?;
                ensure!(sent.queue.queue_id as u32 == queue, "{key} went to {}", sent.queue);
            }
        }
    }
    Ok(())
}

async fn the_order_of_each_key_survives_failures_a_joining_and_a_killed_member(server: Server) -> Result<()> {
    const KEYS: u32 = 10;
    const PER_KEY: u32 = 100;
    const ALL: usize = (QUEUES * KEYS * PER_KEY) as usize;
    let (topic, group) = (unique("orders"), unique("group"));
    for topic in [topic.clone(), format!("{topic}-probe")] {
        server.create_topic(&topic, QUEUES).await?;
    }
    let (sender, producer) = server.producer().await?;
    let book = Book(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique("book")));
    let victim = Program::start_orderly(&server, &group, &topic, &book.0)?;
    let killed = victim.id()?;
    let (mut sending, sent_to) = (JoinSet::new(), topic.clone());
    sending.spawn(async move { send_keyed(&producer, &sent_to, KEYS, PER_KEY).await });

    book.until_done(1_000, wait::LIMIT).await?;
    let other = Program::start_orderly(&server, &group, &topic, &book.0)?;
    let id = other.id()?;
    wait::until("the other one handles messages, too", async || {
        Ok(book.entries()?.iter().filter(|entry| entry.member == id).count() > 200)
    })
    .await?;
    victim.kill().await?;
    ensure!(book.done()? < ALL, "it was killed too late");

    sending.join_next().await.context("it was started")???;
    // Its queues stay locked for a minute.
    book.until_done(ALL, Duration::from_secs(120)).await?;
    let status = other.terminate(Duration::from_secs(10)).await?;
    ensure!(status.success(), "{status}");
    let entries = book.entries()?;
    ensure!(entries.iter().any(|entry| entry.step == "fail"), "nothing failed");
    ensure_one_at_a_time(&entries, killed)?;
    ensure_each_key_in_order(&entries, killed, (QUEUES * KEYS) as usize, PER_KEY)?;
    assert_eq!(server.committed(&group, &topic, QUEUES).await?, ALL as i64);
    assert_eq!(server.dead_letters(&group).await?, 0);
    sender.shutdown().await?;
    Ok(())
}

// --- What becomes of a message.

async fn a_failing_message_holds_up_its_queue_and_no_other(server: Server) -> Result<()> {
    let (topic, seen) = (unique("orders"), Seen::default());
    server.create_topic(&topic, 2).await?;
    let (sender, producer) = server.producer().await?;
    for number in 0..20 {
        send(&producer, &topic, [number.to_string()]).await?;
    }
    let notes = seen.clone();
    let listener = move |messages: Vec<MessageExt>| {
        let message = &messages[0];
        notes.note(message);
        let times = message.reconsume_times();
        // Every way to fail holds up the queue in the same way.
        let result: Result<ConsumeResult, String> = match (message.body_str().as_ref(), times) {
            ("4", 0) => Err("not now".to_owned()),
            ("4", 1) => panic!("not now"),
            ("4", 2) => Ok(ConsumeResult::ReconsumeLater),
            ("4", 3) => Ok(ConsumeResult::AckFirst(0)),
            _ => Ok(ConsumeResult::Success),
        };
        async { result }
    };
    let manager = consume(&server, &unique("group"), &topic, impatient(), listener).await?;

    seen.until("all were handled", |handled| handled.messages.len() == 24).await?;
    let mut queues = by_queue(&seen);
    let with_four = |queue: &Vec<String>| queue.contains(&"4".to_owned());
    let held_up = queues.remove(if with_four(&queues[&0]) { &0 } else { &1 }).context("it is there")?;
    let numbers =
        |is_even: bool| (0..20).filter(move |number| (number % 2 == 0) == is_even).map(|n| n.to_string());
    let mut expected: Vec<String> = numbers(true).collect();
    expected.splice(2..3, ["4", "4 (1)", "4 (2)", "4 (3)", "4 (4)"].map(str::to_owned));
    assert_eq!(held_up, expected);
    assert_eq!(queues.into_values().collect::<Vec<_>>(), [numbers(false).collect::<Vec<_>>()]);
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn what_fails_too_often_becomes_a_dead_letter_and_the_queue_goes_on(server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    for body in ["good", "fails", "hangs", "panics", "last"] {
        let message = Message::new(&topic).tag("tag").key("key").property("mine", "kept").body(body);
        producer.send(message).await?;
    }
    let mut config = impatient();
    config.max_reconsume = Some(1);
    config.consume_timeout = Duration::from_secs(1);
    let notes = seen.clone();
    let listener = move |messages: Vec<MessageExt>| {
        notes.note(&messages[0]);
        async move {
            match messages[0].body_str().as_ref() {
                "fails" => return Err("as it was told to"),
                "hangs" => time::sleep(Duration::from_secs(3_600)).await,
                "panics" => panic!("as it was told to"),
                _ => {}
            }
            Ok(())
        }
    };
    let manager = consume(&server, &group, &topic, config, listener).await?;

    seen.until("all were handled", |handled| handled.times.contains_key("last")).await?;
    let expected = ["good", "fails", "fails (1)", "hangs", "hangs (1)", "panics", "panics (1)", "last"]
        .map(str::to_owned);
    assert_eq!(by_queue(&seen)[&0], expected);
    wait::until("the offset has passed all", async || Ok(server.committed(&group, &topic, 1).await? == 5))
        .await?;
    manager.shutdown().await?;
    let dead = Seen::default();
    let dead_letters = format!("%DLQ%{group}");
    let reader =
        consume(&server, &unique("group"), &dead_letters, consumer_config(), dead.listener()).await?;
    dead.until_count(3).await?;
    for (message, body) in dead.messages().iter().zip(["fails", "hangs", "panics"]) {
        assert_eq!(message.body_str(), body);
        assert_eq!((message.tag(), message.property("mine")), (Some("tag"), Some("kept")));
        assert_eq!(message.keys().collect::<Vec<_>>(), ["key"]);
        assert_eq!(message.property("RETRY_TOPIC"), Some(topic.as_str()));
        assert_eq!(message.reconsume_times(), 2, "{message:?}");
        let sent =
            seen.messages().into_iter().find(|sent| sent.body_str() == body).context("it was handled")?;
        assert_eq!(message.message_id(), sent.message_id());
    }
    reader.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

/// What a listener that takes a value apart says of a message.
enum Decoded {
    Good,
    Bad(usize),
    Dead,
}

impl IntoConsumeResult for Decoded {
    fn into_outcome(self) -> Outcome {
        match self {
            Self::Good => ConsumeResult::Success.into(),
            Self::Bad(index) => BadPayload::new("no number").at(index).into(),
            Self::Dead => ConsumeResult::DeadLetter.into(),
        }
    }
}

/// Notes a batch only if all of it is good.
fn decoder(seen: &Seen) -> impl Fn(Vec<MessageExt>) -> std::future::Ready<Decoded> + Send + Sync + use<> {
    let seen = seen.clone();
    move |messages| {
        let is_bad = |message: &MessageExt| message.body_str() == "bad" && message.reconsume_times() < 2;
        std::future::ready(match messages.iter().position(is_bad) {
            Some(index) => Decoded::Bad(index),
            None if messages[0].body_str() == "dead" => Decoded::Dead,
            None => {
                messages.iter().for_each(|message| seen.note(message));
                Decoded::Good
            }
        })
    }
}

async fn a_dead_letter_or_a_bad_payload_does_not_hold_up_its_queue(server: Server) -> Result<()> {
    for (policy, batch, dead) in [(OnBadPayload::DeadLetter, 1, 2), (OnBadPayload::Skip, 3, 0)] {
        let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
        server.create_topic(&topic, 1).await?;
        let (sender, producer) = server.producer().await?;
        let special = if dead > 0 { "dead" } else { "2.5" };
        for body in ["1", "bad", "2", special, "3", "4", "5"] {
            send(&producer, &topic, [body]).await?;
        }
        let mut config = consumer_config();
        // Nothing of this may take that long.
        config.suspend = Duration::from_secs(30);
        config.on_bad_payload = policy;
        config.batch = batch;
        let manager = consume(&server, &group, &topic, config, decoder(&seen)).await?;
        seen.until("the last one was handled", |handled| handled.times.contains_key("5")).await?;
        let mut expected = vec!["1", "2", special, "3", "4", "5"];
        expected.retain(|body| *body != "dead");
        assert_eq!(by_queue(&seen)[&0], expected);
        manager.shutdown().await?;
        assert_eq!(server.committed(&group, &topic, 1).await?, 7);
        wait::until("the dead letters are there", async || Ok(server.dead_letters(&group).await? == dead))
            .await?;
        sender.shutdown().await?;
    }
    Ok(())
}

async fn a_bad_payload_that_is_tried_again_is_tried_in_its_turn(server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    for body in ["1", "2", "bad", "3"] {
        send(&producer, &topic, [body]).await?;
    }
    let mut config = impatient();
    config.on_bad_payload = OnBadPayload::Retry;
    config.batch = 4;
    let manager = consume(&server, &group, &topic, config, decoder(&seen)).await?;
    seen.until("the last one was handled", |handled| handled.times.contains_key("3")).await?;
    assert_eq!(by_queue(&seen)[&0], ["1", "2", "bad (2)", "3"]);
    manager.shutdown().await?;
    assert_eq!(server.committed(&group, &topic, 1).await?, 4);
    sender.shutdown().await?;
    Ok(())
}

async fn a_batch_is_a_part_of_the_queue_and_what_it_did_not_acknowledge_comes_again(
    server: Server,
) -> Result<()> {
    const BATCH: usize = 8;
    let (topic, group, all) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    for number in 0..100 {
        let tag = if number % 10 == 9 { "rare" } else { "common" };
        producer.send(Message::new(&topic).tag(tag).body(number.to_string())).await?;
    }
    let mut config = impatient();
    config.batch = BATCH as u32;
    let sizes = Seen::default();
    let (notes, all_sizes) = (all.clone(), sizes.clone());
    let listener = move |tag: &'static str| {
        let (notes, sizes) = (notes.clone(), all_sizes.clone());
        move |messages: Vec<MessageExt>| {
            sizes.note_body(&messages.len().to_string());
            let is_pure = messages.iter().all(|message| message.tag() == Some(tag));
            // Of what comes the first time, the first half is done.
            let done = match messages[0].reconsume_times() {
                0 => messages.len().div_ceil(2),
                _ => messages.len(),
            };
            let done = if is_pure && messages.len() <= BATCH { done } else { 0 };
            messages[..done].iter().for_each(|message| notes.note(message));
            async move { ConsumeResult::AckFirst(done) }
        }
    };
    let manager = server.manager();
    PushConsumer::builder(&group)
        .orderly()
        .config(config)
        .subscribe(topic.as_str(), "common", listener("common"))
        .subscribe(topic.as_str(), "rare", listener("rare"))
        .build(&manager)?;
    manager.start().await?;

    all.until_count(100).await?;
    all.ensure_once()?;
    ensure_in_order(&all)?;
    assert!(sizes.bodies().contains(&BATCH.to_string()), "no batch was full: {:?}", sizes.bodies());
    assert!(all.messages().iter().any(|message| message.reconsume_times() > 0), "nothing came again");
    manager.shutdown().await?;
    assert_eq!(server.committed(&group, &topic, 1).await?, 100);
    sender.shutdown().await?;
    Ok(())
}

// --- Turns and limits.

async fn more_queues_than_handlers_take_turns(server: Server) -> Result<()> {
    let (topic, seen) = (unique("orders"), Seen::default());
    server.create_topic(&topic, 4).await?;
    let (sender, producer) = server.producer().await?;
    send_numbers(&producer, &topic, 400).await?;
    let mut config = consumer_config();
    config.concurrency = 1;
    config.max_continuous = Duration::from_millis(20);
    let notes = seen.clone();
    let listener = move |messages: Vec<MessageExt>| {
        let notes = notes.clone();
        async move {
            time::sleep(Duration::from_millis(2)).await;
            notes.note(&messages[0]);
        }
    };
    let manager = consume(&server, &unique("group"), &topic, config, listener).await?;
    seen.until_count(400).await?;
    seen.ensure_once()?;
    ensure_in_order(&seen)?;
    let queues: Vec<_> = seen.messages().iter().map(MessageExt::queue_id).collect();
    let turns = queues.windows(2).filter(|pair| pair[0] != pair[1]).count();
    ensure!(turns > 20, "the queues had {turns} turns only");
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn no_span_of_offsets_stops_the_pulls(server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    let sent = send_numbers(&producer, &topic, 1_000).await?;
    let mut config = consumer_config();
    config.flow.messages_per_queue = 50;
    config.flow.span = 1;
    config.pull_batch = 10;
    let manager = consume(&server, &group, &topic, config, seen.listener()).await?;
    seen.until_all(&sent).await?;
    seen.ensure_once()?;
    ensure_in_order(&seen)?;
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}
