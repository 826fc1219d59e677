//! An end that loses nothing, and acknowledges nothing that was not handled.

use std::collections::BTreeSet;
use std::future::{pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rocketmq::client::MqClientManager;
use rocketmq::config::{ClusterConfig, Config, ConsumeFrom, ConsumeMode, LitePullConfig};
use rocketmq::{App, Listener, LitePullConsumer, MessageExt, PushConsumer, PushConsumerBuilder};
use serde_json::json;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time;

use crate::log;
use crate::program::Program;
use crate::pulled::{ACK, Answer, POP, Pulled, Request, found, record};
use crate::seen::Seen;
use crate::sending::send_numbers;
use crate::server::{Server, block_on, cluster, consumer_config, producer_config, unique};
use crate::wait;

on_each_server! { Shared:
    a_stop_in_the_middle_of_slow_messages_loses_none,
    sigterm_ends_a_program_in_the_middle_of_its_work_with_exit_code_0,
    a_second_signal_ends_a_program_at_once,
    handlers_that_do_not_end_are_left_behind_and_their_messages_come_again,
    a_handler_that_blocks_its_thread_is_waited_for_and_no_other_begins,
    a_stop_that_nobody_waits_for_is_done_by_the_next_one,
}

on_all_servers_at_once! { Shared:
    what_a_handler_in_order_has_that_does_not_end_comes_again_first,
}

const QUEUES: u32 = 4;

/// That whatever the group has acknowledged was handled, by the offsets that the broker has stored.
async fn ensure_nothing_acknowledged_unhandled(
    server: &Server,
    group: &str,
    topic: &str,
    handled: &[MessageExt],
) -> Result<()> {
    for queue in 0..QUEUES {
        let stored = server.admin().committed(group, topic, queue).await?.unwrap_or_default();
        let offsets: BTreeSet<i64> = handled
            .iter()
            .filter(|message| message.queue_id() == queue as i32)
            .map(MessageExt::queue_offset)
            .collect();
        let missed = (0..stored).find(|offset| !offsets.contains(offset));
        ensure!(missed.is_none(), "queue {queue}: {stored} is stored, but {missed:?} was not handled");
    }
    Ok(())
}

/// Lets another member handle whatever is left, each message at once.
async fn succeed(server: &Server, group: &str, topic: &str) -> Result<(MqClientManager, Seen)> {
    let (manager, seen) = (server.manager(), Seen::default());
    PushConsumer::builder(group)
        .config(consumer_config())
        .subscribe(topic, "*", seen.listener())
        .build(&manager)?;
    manager.start().await?;
    Ok((manager, seen))
}

/// That each of `sent` was handled by one or the other; returns how many by both.
async fn until_handled(sent: &BTreeSet<String>, first: &Seen, successor: &Seen) -> Result<usize> {
    let by_first = first.bodies();
    let rest: BTreeSet<String> = sent.difference(&by_first).cloned().collect();
    let has_rest = |handled: &crate::seen::Handled| rest.iter().all(|body| handled.times.contains_key(body));
    successor.until("the successor has handled the rest", has_rest).await?;
    Ok(by_first.intersection(&successor.bodies()).count())
}

async fn a_stop_in_the_middle_of_slow_messages_loses_none(server: Server) -> Result<()> {
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    let sent = send_numbers(&producer, &topic, 1_000).await?;
    let (begun, done) = (Seen::default(), Seen::default());
    let (arrived, notes) = (begun.clone(), done.clone());
    let manager = server.manager();
    PushConsumer::builder(&group)
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", move |messages| {
            let (arrived, notes) = (arrived.clone(), notes.clone());
            async move {
                messages.iter().for_each(|message| arrived.note(message));
                time::sleep(Duration::from_millis(50)).await;
                messages.iter().for_each(|message| notes.note(message));
            }
        })
        .build(&manager)?;
    manager.start().await?;
    done.until_count(200).await?;

    manager.shutdown().await?;

    let handled = done.count();
    assert!((200..1_000).contains(&handled), "{handled} were handled");
    assert_eq!(begun.bodies(), done.bodies(), "a running handler was not waited for");
    ensure_nothing_acknowledged_unhandled(&server, &group, &topic, &done.messages()).await?;
    let (other, rest) = succeed(&server, &group, &topic).await?;
    let twice = until_handled(&sent, &done, &rest).await?;
    assert_eq!(twice, 0, "there was time to store every offset");
    done.ensure_once()?;
    rest.ensure_once()?;
    other.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn sigterm_ends_a_program_in_the_middle_of_its_work_with_exit_code_0(server: Server) -> Result<()> {
    let (topic, group, done) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    let sent = send_numbers(&producer, &topic, 1_000).await?;
    let program = Program::start(&server, &group, &topic, Duration::from_millis(50), &done)?;
    done.until_count(200).await?;

    // Its `shutdown_timeout`.
    let status = program.terminate(Duration::from_secs(10)).await?;

    assert!(status.success(), "{status}");
    assert!(done.count() < 1_000, "it was over before it was stopped");
    assert_eq!(server.admin().members(&group).await?, [""; 0]);
    let (other, rest) = succeed(&server, &group, &topic).await?;
    let twice = until_handled(&sent, &done, &rest).await?;
    assert_eq!(twice, 0, "there was time to store every offset");
    other.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn a_second_signal_ends_a_program_at_once(server: Server) -> Result<()> {
    let (topic, group, done) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    let sent = send_numbers(&producer, &topic, 20).await?;
    let program = Program::start(&server, &group, &topic, Duration::from_secs(100), &done)?;
    program.begun.until_count(1).await?;

    let status = program.terminate_again_and_again(Duration::from_secs(5)).await?;

    assert_eq!(status.code(), Some(130), "{status}");
    assert_eq!(done.count(), 0);
    let (other, rest) = succeed(&server, &group, &topic).await?;
    rest.until_all(&sent).await?;
    other.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn handlers_that_do_not_end_are_left_behind_and_their_messages_come_again(
    server: Server,
) -> Result<()> {
    let (topic, group, begun) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    let sent = send_numbers(&producer, &topic, 10).await?;
    let mut cluster = server.cluster();
    cluster.client.shutdown_timeout = Duration::from_millis(300);
    let manager = MqClientManager::new(cluster);
    let notes = begun.clone();
    PushConsumer::builder(&group)
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", move |messages| {
            messages.iter().for_each(|message| notes.note(message));
            pending::<()>()
        })
        .build(&manager)?;
    manager.start().await?;
    begun.until_all(&sent).await?;

    let start = Instant::now();
    let error = manager.shutdown().await.expect_err("ten handlers still run").to_string();

    assert!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
    assert!(error.contains("10 handlers") && error.contains(&group), "{error}");
    ensure_nothing_acknowledged_unhandled(&server, &group, &topic, &[]).await?;
    let (other, rest) = succeed(&server, &group, &topic).await?;
    rest.until_all(&sent).await?;
    rest.ensure_once()?;
    other.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn a_handler_that_blocks_its_thread_is_waited_for_and_no_other_begins(server: Server) -> Result<()> {
    let (topic, group, begun, done) = (unique("orders"), unique("group"), Seen::default(), Seen::default());
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    send_numbers(&producer, &topic, 10).await?;
    let (arrived, notes, manager) = (begun.clone(), done.clone(), server.manager());
    PushConsumer::builder(&group)
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", move |messages: Vec<MessageExt>| {
            messages.iter().for_each(|message| arrived.note(message));
            thread::sleep(Duration::from_secs(2));
            messages.iter().for_each(|message| notes.note(message));
            ready(())
        })
        .build(&manager)?;
    manager.start().await?;
    begun.until_count(1).await?;

    manager.shutdown().await?;

    assert_eq!((begun.count(), done.count()), (1, 1), "it was at work, and no other");
    assert_eq!(server.committed(&group, &topic, 1).await?, 1);
    sender.shutdown().await?;
    Ok(())
}

async fn a_stop_that_nobody_waits_for_is_done_by_the_next_one(server: Server) -> Result<()> {
    let (topic, group, polled, begun) =
        (unique("orders"), unique("group"), unique("polled"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    send_numbers(&producer, &topic, 1).await?;
    let mut cluster = server.cluster();
    cluster.client.offset_interval = Duration::from_secs(3_600);
    let manager = MqClientManager::new(cluster);
    let (notes, may_end) = (begun.clone(), Arc::new(Semaphore::new(0)));
    let gate = Arc::clone(&may_end);
    PushConsumer::builder(&group)
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", move |messages| {
            messages.iter().for_each(|message| notes.note(message));
            let gate = Arc::clone(&gate);
            async move {
                // It has no permits, and lets everybody pass once it is closed.
                let _ = gate.acquire().await;
            }
        })
        .build(&manager)?;
    let mut config = LitePullConfig::default();
    config.consume_from = ConsumeFrom::First;
    let mut lite = LitePullConsumer::builder(&polled).config(config).build(&manager)?;
    lite.subscribe(topic.as_str(), "*").await?;
    manager.start().await?;
    begun.until_count(1).await?;
    ensure!(lite.poll(wait::LIMIT).await?.len() == 1, "the message is there");
    // Who polls again has consumed it.
    ensure!(lite.poll(Duration::from_millis(1)).await?.is_empty(), "there is one message");

    for _ in 0..2 {
        let stop = time::timeout(Duration::from_millis(1), manager.shutdown()).await;
        ensure!(stop.is_err(), "a handler is at work");
    }
    may_end.close();
    manager.shutdown().await?;

    for group in [&group, &polled] {
        assert_eq!(server.committed(group, &topic, 1).await?, 1, "{group}");
        assert_eq!(server.admin().members(group).await?, [""; 0]);
    }
    sender.shutdown().await?;
    Ok(())
}

/// A broker that has one message of each of these topics, and holds the next pull for ever. It answers nothing any more once
/// `hangs` is set.
async fn hanging(topics: &[String], hangs: &Arc<AtomicBool>) -> Result<(Pulled, ClusterConfig)> {
    let (topics, hangs) = (topics.to_vec(), Arc::clone(hangs));
    let server = Pulled::start(1, move |request| {
        let topic = request.fields["topic"].as_str().unwrap_or_default();
        match (request.code, request.number("queueOffset")) {
            _ if hangs.load(Ordering::SeqCst) => Some(unanswered()),
            (11 | 361, 0) if topics.iter().any(|known| known == topic) => {
                Some(found(&[record(topic, 0, topic)], 1))
            }
            (11 | 361, _) => Some(unanswered()),
            _ => None,
        }
    })
    .await?;
    let mut cluster = cluster(&server.name_server());
    cluster.client.offset_interval = Duration::from_secs(3_600);
    cluster.client.request_timeout = Duration::from_millis(500);
    Ok((server, cluster))
}

#[test]
fn a_broker_that_hangs_keeps_nobody_from_ending() -> Result<()> {
    block_on(async {
        for orderly in [false, true] {
            let (topics, seen) = ([(); 24].map(|()| unique("orders")), Seen::default());
            let hangs = Arc::new(AtomicBool::new(false));
            let (_server, cluster) = hanging(&topics, &hangs).await?;
            let (group, manager) = (unique("group"), MqClientManager::new(cluster));
            let builder = PushConsumer::builder(&group).config(consumer_config());
            let builder = if orderly { builder.orderly() } else { builder };
            let subscribe = |builder: PushConsumerBuilder, topic: &String| {
                builder.subscribe(topic.as_str(), "*", seen.listener())
            };
            topics.iter().fold(builder, subscribe).build(&manager)?;
            manager.start().await?;
            seen.until_all(&topics.iter().cloned().collect()).await?;

            hangs.store(true, Ordering::SeqCst);
            let start = Instant::now();
            manager.shutdown().await?;

            // The offsets, the locks and the goodbye, together as long as one request.
            ensure!(start.elapsed() < Duration::from_secs(3), "it took {:?}", start.elapsed());
            log::until_logged(&[&group, "some messages will come twice"]).await?;
        }
        Ok(())
    })
}

#[test]
fn a_broker_that_hangs_keeps_nobody_who_polls_from_ending() -> Result<()> {
    block_on(async {
        let (topics, hangs) = ([(); 24].map(|()| unique("orders")), Arc::new(AtomicBool::new(false)));
        let (_server, cluster) = hanging(&topics, &hangs).await?;
        let manager = MqClientManager::new(cluster);
        let mut config = LitePullConfig::default();
        config.auto_commit_interval = Duration::from_secs(600);
        let mut consumer = LitePullConsumer::builder(unique("group")).config(config).build(&manager)?;
        for topic in &topics {
            consumer.subscribe(topic.as_str(), "*").await?;
        }
        manager.start().await?;
        for polled in 0..topics.len() {
            let messages = consumer.poll(wait::LIMIT).await?;
            ensure!(messages.len() == 1, "{} after {polled}", messages.len());
        }

        hangs.store(true, Ordering::SeqCst);
        let start = Instant::now();
        let error = consumer.commit().await.err().context("nobody heard of it")?.to_string();
        ensure!(error.contains("did not answer"), "{error}");
        manager.shutdown().await?;

        ensure!(start.elapsed() < Duration::from_secs(6), "it took {:?}", start.elapsed());
        Ok(())
    })
}

const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Two brokers, each with one message of each of these topics, of which the second answers nothing any more once `hangs` is set.
async fn one_hanging(topics: &[&str], hangs: &Arc<AtomicBool>) -> Result<(Pulled, ClusterConfig)> {
    let topics: BTreeSet<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
    let hangs = Arc::clone(hangs);
    let server = Pulled::start_apart(2, move |request| {
        let topic = request.fields["topic"].as_str().unwrap_or_default();
        match (request.code, request.number("queueOffset")) {
            _ if request.member == 1 && hangs.load(Ordering::SeqCst) => Some(unanswered()),
            (11 | 361, 0) if topics.contains(topic) => {
                Some(found(&[record(topic, 0, &format!("{topic} {}", request.member))], 1))
            }
            (11 | 361, _) => Some(unanswered()),
            _ => None,
        }
    })
    .await?;
    let mut cluster = cluster(&server.name_server());
    cluster.client.offset_interval = Duration::from_secs(3_600);
    cluster.client.request_timeout = REQUEST_TIMEOUT;
    Ok((server, cluster))
}

/// That the first broker, since `start` and long before the second could have answered, got the offset of a topic and then
/// the goodbye of a group.
fn ensure_told(server: &Pulled, start: Instant, topic: &str, group: &str) -> Result<()> {
    let all = |code: i64, name: &str, value: &str| -> Vec<_> {
        let asked = server.asked(code).into_iter();
        let asked = asked.filter(|request| request.member == 0 && request.at >= start);
        asked.filter(|request| request.fields[name] == *value).collect()
    };
    // A stop tells how far the queue is at once, and again when the handlers have ended.
    let offset = all(15, "topic", topic).pop().context("no offset")?;
    ensure!(offset.number("commitOffset") == 1, "{offset:?}");
    let goodbyes = all(35, "consumerGroup", group);
    let goodbye = goodbyes.first().context("no goodbye")?;
    ensure!(offset.at <= goodbye.at, "the goodbye of {group} came first");
    let late = goodbye.at - start;
    ensure!(late < REQUEST_TIMEOUT, "the goodbye of {group} came after {late:?}");
    Ok(())
}

#[test]
fn a_broker_that_hangs_keeps_no_other_from_hearing_the_offsets_and_the_goodbye() -> Result<()> {
    block_on(async {
        let (topic, in_order, hangs) = (unique("orders"), unique("in-order"), Arc::default());
        let (server, cluster) = one_hanging(&[&topic, &in_order], &hangs).await?;
        let (group, orderly_group, producer_group) =
            (unique("group"), unique("in-order"), unique("producer"));
        let mut config = Config::default();
        config.cluster = cluster;
        config.defaults = consumer_config();
        let mut producer = producer_config();
        producer.group = Some(producer_group.clone());
        config.producers.insert("default".to_owned(), producer);
        let seen = Seen::default();
        let app = App::builder()
            .config_value(config)
            .without_linked_listeners()
            .listener(&group, &topic, "*", seen.listener())
            .listener_with(Listener::new(&orderly_group, &in_order, "*", seen.listener()).orderly())
            .start()
            .await?;
        seen.until_count(4).await?;

        hangs.store(true, Ordering::SeqCst);
        let start = Instant::now();
        app.shutdown().await?;

        let took = start.elapsed();
        ensure!(took < REQUEST_TIMEOUT * 2, "it took {took:?}");
        ensure_told(&server, start, &topic, &group)?;
        ensure_told(&server, start, &in_order, &orderly_group)?;
        let freed = server.asked(42).iter().any(|request| request.member == 0);
        ensure!(freed, "the lock was not freed");
        let producers = server.asked(35).into_iter().filter(|goodbye| goodbye.member == 0);
        let mut groups = producers.map(|goodbye| goodbye.fields["producerGroup"].clone());
        ensure!(groups.any(|group| group == *producer_group), "the producer did not say goodbye");
        Ok(())
    })
}

#[test]
fn a_broker_that_hangs_keeps_no_other_from_hearing_the_offsets_of_who_polls() -> Result<()> {
    block_on(async {
        let (topic, group, hangs) = (unique("orders"), unique("group"), Arc::default());
        let (server, cluster) = one_hanging(&[&topic], &hangs).await?;
        let manager = MqClientManager::new(cluster);
        let mut config = LitePullConfig::default();
        config.auto_commit_interval = Duration::from_secs(600);
        let mut consumer = LitePullConsumer::builder(&group).config(config).build(&manager)?;
        consumer.subscribe(topic.as_str(), "*").await?;
        manager.start().await?;
        for _ in 0..2 {
            ensure!(consumer.poll(wait::LIMIT).await?.len() == 1, "each broker has one message");
        }
        // Who polls again has consumed them.
        ensure!(consumer.poll(Duration::from_millis(1)).await?.is_empty(), "there are two messages");

        hangs.store(true, Ordering::SeqCst);
        let start = Instant::now();
        manager.shutdown().await?;

        let took = start.elapsed();
        ensure!(took < REQUEST_TIMEOUT * 2, "it took {took:?}");
        ensure_told(&server, start, &topic, &group)
    })
}

/// Two brokers that know POP, each with one message.
fn popped(topic: &str, request: &Request) -> Option<Answer> {
    const QUERY_ASSIGNMENT: i64 = 400;
    match request.code {
        QUERY_ASSIGNMENT => {
            let assigned = |broker: usize| {
                let queue = json!({"topic": topic, "brokerName": format!("broker-{broker}"), "queueId": -1});
                json!({"messageQueue": queue, "mode": "POP"})
            };
            let assigned = json!({"messageQueueAssignments": [assigned(0), assigned(1)]});
            Some(Answer { body: assigned.to_string().into_bytes(), ..Answer::default() })
        }
        // The first pop does not wait for messages.
        POP if request.fields["pollTime"] == "0" => {
            let fields = json!({
                "popTime": "1700000000000", "invisibleTime": "60000", "reviveQid": "0", "restNum": "0",
                "startOffsetInfo": "0 0 0", "msgOffsetInfo": "0 0 0",
            });
            let body = record(topic, 0, &request.member.to_string());
            Some(Answer { fields, body, ..Answer::default() })
        }
        POP => Some(unanswered()),
        _ => None,
    }
}

#[test]
fn a_broker_that_hangs_keeps_no_other_from_hearing_what_was_popped_and_handled() -> Result<()> {
    block_on(async {
        let (topic, group) = (unique("orders"), unique("group"));
        let (hangs, may_end) = (Arc::new(AtomicBool::new(false)), Arc::new(Semaphore::new(0)));
        let (name, hang) = (topic.clone(), Arc::clone(&hangs));
        let server = Pulled::start_apart(2, move |request| {
            if request.member == 1 && hang.load(Ordering::SeqCst) {
                return Some(unanswered());
            }
            popped(&name, request)
        })
        .await?;
        let mut cluster = cluster(&server.name_server());
        cluster.client.request_timeout = REQUEST_TIMEOUT;
        let (manager, begun) = (MqClientManager::new(cluster), Seen::default());
        let mut config = consumer_config();
        config.mode = ConsumeMode::Pop;
        let (notes, ends) = (begun.clone(), Arc::clone(&may_end));
        PushConsumer::builder(&group)
            .config(config)
            .subscribe(topic.as_str(), "*", move |messages| {
                messages.iter().for_each(|message| notes.note(message));
                let ends = Arc::clone(&ends);
                async move { ends.acquire().await.map(SemaphorePermit::forget) }
            })
            .build(&manager)?;
        manager.start().await?;
        begun.until_count(2).await?;

        hangs.store(true, Ordering::SeqCst);
        may_end.add_permits(2);
        let start = Instant::now();
        manager.shutdown().await?;

        let took = start.elapsed();
        ensure!(took < REQUEST_TIMEOUT * 2, "it took {took:?}");
        let asked = |code: i64| server.asked(code).into_iter().find(|request| request.member == 0);
        let ack = asked(ACK).context("nothing was acknowledged")?;
        let goodbye = asked(35).context("there was no goodbye")?;
        ensure!(ack.at <= goodbye.at && goodbye.at - start < REQUEST_TIMEOUT, "{:?}", goodbye.at - start);
        Ok(())
    })
}

#[test]
fn a_stop_ends_in_its_time_though_a_handler_and_a_broker_do_not() -> Result<()> {
    block_on(async {
        let (topic, group, hangs) = (unique("orders"), unique("group"), Arc::default());
        let (server, mut cluster) = one_hanging(&[&topic], &hangs).await?;
        cluster.client.shutdown_timeout = REQUEST_TIMEOUT * 2;
        let (manager, begun) = (MqClientManager::new(cluster), Seen::default());
        let notes = begun.clone();
        PushConsumer::builder(&group)
            .config(consumer_config())
            .subscribe(topic.as_str(), "*", move |messages| {
                messages.iter().for_each(|message| notes.note(message));
                pending::<()>()
            })
            .build(&manager)?;
        manager.start().await?;
        begun.until_count(2).await?;

        hangs.store(true, Ordering::SeqCst);
        let start = Instant::now();
        manager.shutdown().await.expect_err("two handlers still run");

        let took = start.elapsed();
        // The second is for the connections.
        ensure!(took < REQUEST_TIMEOUT * 2 + Duration::from_secs(1), "it took {took:?}");
        let goodbyes = server.asked(35);
        let told = goodbyes.iter().find(|goodbye| goodbye.fields["consumerGroup"] == *group);
        let told = told.context("nobody was told")?;
        ensure!(told.member == 0 && told.at - start < REQUEST_TIMEOUT * 2, "{told:?}");
        Ok(())
    })
}

fn unanswered() -> Answer {
    Answer { code: -1, ..Answer::default() }
}

async fn what_a_handler_in_order_has_that_does_not_end_comes_again_first(server: Server) -> Result<()> {
    let (topic, group, begun) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    let sent = send_numbers(&producer, &topic, 40).await?;
    let mut cluster = server.cluster();
    cluster.client.shutdown_timeout = Duration::from_millis(300);
    let manager = MqClientManager::new(cluster);
    let notes = begun.clone();
    PushConsumer::builder(&group)
        .orderly()
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", move |messages| {
            messages.iter().for_each(|message| notes.note(message));
            pending::<()>()
        })
        .build(&manager)?;
    manager.start().await?;
    begun.until_count(QUEUES as usize).await?;

    let start = Instant::now();
    let error = manager.shutdown().await.expect_err("four handlers still run").to_string();

    ensure!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
    ensure!(error.contains("4 handlers") && error.contains(&group), "{error}");
    ensure!(begun.count() == QUEUES as usize, "more were begun: {:?}", begun.bodies());
    ensure_nothing_acknowledged_unhandled(&server, &group, &topic, &[]).await?;
    let (other, rest) = (server.manager(), Seen::default());
    PushConsumer::builder(&group)
        .orderly()
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", rest.listener())
        .build(&other)?;
    other.start().await?;
    // Their queues stay locked for a minute, for all that is known they are still handled.
    let all = |handled: &crate::seen::Handled| sent.iter().all(|body| handled.times.contains_key(body));
    rest.until_within(Duration::from_secs(90), "the successor has handled all", all).await?;
    rest.ensure_once()?;
    for queue in 0..QUEUES {
        let offsets = rest.messages().into_iter().filter(|message| message.queue_id() == queue as i32);
        let offsets: Vec<_> = offsets.map(|message| message.queue_offset()).collect();
        ensure!(offsets.is_sorted() && offsets[0] == 0, "queue {queue}: {offsets:?}");
    }
    other.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}
