//! Messages that are damaged, and brokers of which only some members can be asked.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rocketmq::client::MqClientManager;
use rocketmq::config::{ConsumeFrom, ConsumeMode, ConsumerConfig, LitePullConfig, Undecodable};
use rocketmq::{ConsumeResult, LitePullConsumer, PushConsumer};

use crate::log;
use crate::pop::{COMES_AGAIN, INVISIBLE_TIME};
use crate::pulled::{Answer, Pulled, Request, found, pull_answer, record, record_with};
use crate::seen::Seen;
use crate::sending::{send, send_numbers};
use crate::server::{Server, block_on, cluster, consumer_config, unique};
use crate::wait;

on_all_servers_at_once! { Shared:
    what_a_group_does_with_a_damaged_message_is_the_same_in_each_mode,
}

const ZLIB: i32 = 1;

fn bodies(bodies: &[&str]) -> BTreeSet<String> {
    bodies.iter().map(|body| (*body).to_owned()).collect()
}

fn config() -> ConsumerConfig {
    let mut config = consumer_config();
    config.consume_from = ConsumeFrom::First;
    config.pull_error_delay = Duration::from_millis(10);
    config
}

async fn consume(
    server: &Pulled,
    topic: &str,
    config: ConsumerConfig,
    seen: &Seen,
) -> Result<MqClientManager> {
    let manager = MqClientManager::new(cluster(&server.name_server()));
    PushConsumer::builder(unique("group"))
        .config(config)
        .subscribe(topic, "*", seen.listener())
        .build(&manager)?;
    manager.start().await?;
    Ok(manager)
}

/// Good messages at even offsets, between them what is damaged in each of the ways there are; the last one is cut short.
fn answer(topic: &str, pull: &Request) -> Option<Answer> {
    let [crc, magic, packed, cut] = damaged_records(topic, [1, 3, 5, 9]);
    let mut beyond = record(topic, 7, "its offset is anywhere");
    beyond[20..28].copy_from_slice(&i64::MAX.to_be_bytes());
    let good = |offset: i64| record(topic, offset, &offset.to_string());
    match pull.number("queueOffset") {
        0 => Some(found(&[good(0), crc, good(2), magic, good(4), packed, good(6), beyond, good(8), cut], 11)),
        9 => Some(found(&[cut], 11)),
        10 => Some(found(&[good(10)], 11)),
        _ => None,
    }
}

/// One record for each way in which it can be damaged by itself, at these offsets of the queue.
fn damaged_records(topic: &str, [crc, magic, packed, cut]: [i64; 4]) -> [Vec<u8>; 4] {
    let mut crc = record(topic, crc, "its checksum is wrong");
    crc[8..12].copy_from_slice(&7_i32.to_be_bytes());
    let mut magic = record(topic, magic, "its magic number is unknown");
    magic[4..8].copy_from_slice(&7_i32.to_be_bytes());
    let packed = record_with(topic, packed, b"this is not zlib", ZLIB);
    let mut cut = record(topic, cut, "it is cut short");
    cut.truncate(60);
    [crc, magic, packed, cut]
}

fn is_pull_of(topic: &str, request: &Request) -> bool {
    // Of push consumers, and of lite pull consumers.
    matches!(request.code, 11 | 361) && request.fields["topic"] == topic
}

#[test]
fn a_damaged_message_becomes_a_dead_letter_and_those_beside_it_are_handled() -> Result<()> {
    damaged(Undecodable::DeadLetter, &[1_001, 1_003, 1_005, 1_007, 1_009], "it goes to the dead letter queue")
}

#[test]
fn a_damaged_message_is_skipped_where_the_group_says_so() -> Result<()> {
    damaged(Undecodable::Skip, &[], "it is skipped, as `on_undecodable` says")
}

fn damaged(policy: Undecodable, buried: &'static [i64], words: &'static str) -> Result<()> {
    block_on(async move {
        let (topic, seen) = (unique("damaged"), Seen::default());
        let name = topic.clone();
        let server = Pulled::start(
            1,
            move |request| {
                if is_pull_of(&name, request) { answer(&name, request) } else { None }
            },
        )
        .await?;
        let mut config = config();
        config.on_undecodable = policy;
        let manager = consume(&server, &topic, config, &seen).await?;

        seen.until_all(&bodies(&["0", "2", "4", "6", "8", "10"])).await?;
        wait::until("everything is done", async || Ok(server.stored() == Some(11))).await?;

        let mut found = server.buried();
        found.sort_unstable();
        assert_eq!(found, buried);
        seen.ensure_once()?;
        for (offset, reason) in
            [("1", "CRC"), ("3", "magic"), ("5", "unpacked"), ("7", "its offset is"), ("9", "its length")]
        {
            log::until_logged(&[words, &topic, &format!("offset={offset} "), reason]).await?;
        }
        manager.shutdown().await?;
        Ok(())
    })
}

#[test]
fn a_damaged_message_is_passed_over_where_messages_are_polled() -> Result<()> {
    block_on(async move {
        let topic = unique("damaged");
        let name = topic.clone();
        let script =
            move |request: &Request| if is_pull_of(&name, request) { answer(&name, request) } else { None };
        let server = Pulled::start(1, script).await?;
        let manager = MqClientManager::new(cluster(&server.name_server()));
        let mut config = LitePullConfig::default();
        config.consume_from = ConsumeFrom::First;
        config.pull_error_delay = Duration::from_millis(10);
        let mut consumer = LitePullConsumer::builder(unique("group")).config(config).build(&manager)?;
        consumer.subscribe(topic.as_str(), "*").await?;
        manager.start().await?;

        let mut polled = Vec::new();
        while polled.len() < 6 {
            let messages = consumer.poll(wait::LIMIT).await?;
            ensure!(!messages.is_empty(), "only {polled:?} came");
            polled.extend(messages.iter().map(|message| message.body_str().into_owned()));
        }

        ensure!(polled == ["0", "2", "4", "6", "8", "10"], "{polled:?}");
        consumer.commit().await?;
        ensure!(server.stored() == Some(11), "{:?}", server.stored());
        for (offset, reason) in
            [("1", "CRC"), ("3", "magic"), ("5", "unpacked"), ("7", "its offset is"), ("9", "its length")]
        {
            let passed = "a message cannot be read: it is passed over";
            log::until_logged(&[passed, &topic, &format!("offset={offset} "), reason]).await?;
        }
        manager.shutdown().await?;
        Ok(())
    })
}

/// Popped messages are damaged in the same ways. One of them the broker does not find again: it is passed over.
#[test]
fn damaged_messages_that_are_popped_become_dead_letters_or_are_skipped() -> Result<()> {
    for (policy, expected, words) in [
        (Undecodable::DeadLetter, &[1_001, 1_003, 1_005, 1_007][..], "it goes to the dead letter queue"),
        (Undecodable::Skip, &[], "it is skipped, as `on_undecodable` says"),
    ] {
        block_on(async move {
            let (topic, seen) = (unique("damaged"), Seen::default());
            let (name, pops) = (topic.clone(), AtomicU32::new(0));
            let server = Pulled::start(1, move |request| popped(&name, request, &pops)).await?;
            let mut config = config();
            (config.mode, config.on_undecodable) = (ConsumeMode::Pop, policy);
            let manager = consume(&server, &topic, config, &seen).await?;

            seen.until_all(&bodies(&["0", "2", "4", "6"])).await?;
            wait::until("all are acknowledged", async || Ok(server.acknowledged() == (0..=7).collect()))
                .await?;

            let buried: BTreeSet<_> = server.buried().into_iter().collect();
            assert_eq!(buried, expected.iter().copied().collect());
            seen.ensure_once()?;
            for (offset, reason) in [("1", "CRC"), ("3", "magic"), ("5", "unpacked"), ("7", "its length")] {
                log::until_logged(&[words, &topic, &format!("offset={offset} "), reason]).await?;
            }
            if policy == Undecodable::DeadLetter {
                log::until_logged(&["cannot be made a dead letter, it is passed over", &topic, "offset=5 "])
                    .await?;
            }
            manager.shutdown().await?;
            Ok(())
        })?;
    }
    Ok(())
}

/// A broker that knows POP, and finds one of the damaged messages no more when it is to make it a dead letter.
fn popped(topic: &str, request: &Request, pops: &AtomicU32) -> Option<Answer> {
    const SEND_BACK: i64 = 36;
    const QUERY_ASSIGNMENT: i64 = 400;
    const POP: i64 = 200_050;
    const BATCH_ACK: i64 = 200_151;
    const NOT_SUPPORTED: i64 = 3;
    const POLLING_TIMEOUT: i64 = 210;
    match request.code {
        SEND_BACK if request.number("offset") == 1_005 => Some(Answer { code: 1, ..Answer::default() }),
        // What is acknowledged then comes one by one.
        BATCH_ACK => Some(Answer { code: NOT_SUPPORTED, ..Answer::default() }),
        QUERY_ASSIGNMENT => {
            let queue = serde_json::json!({ "topic": topic, "brokerName": "broker-a", "queueId": -1 });
            let assigned =
                serde_json::json!({ "messageQueueAssignments": [{ "messageQueue": queue, "mode": "POP" }] });
            Some(Answer { body: assigned.to_string().into_bytes(), ..Answer::default() })
        }
        POP => {
            let is_first = pops.fetch_add(1, Ordering::Relaxed) == 0;
            let offsets = if is_first { "0 0 0,1,2,3,4,5,6,7" } else { "" };
            let fields = serde_json::json!({
                "popTime": "1700000000000", "invisibleTime": "60000", "reviveQid": "0", "restNum": "0",
                "startOffsetInfo": if is_first { "0 0 0" } else { "" }, "msgOffsetInfo": offsets,
            });
            let good = |offset: i64| record(topic, offset, &offset.to_string());
            let [crc, magic, packed, cut] = damaged_records(topic, [1, 3, 5, 7]);
            let records = [good(0), crc, good(2), magic, good(4), packed, good(6), cut];
            let body = if is_first { records.concat() } else { Vec::new() };
            Some(Answer { code: if is_first { 0 } else { POLLING_TIMEOUT }, fields, body })
        }
        _ => None,
    }
}

/// Through real brokers: a message says that it is compressed, and is not.
async fn what_a_group_does_with_a_damaged_message_is_the_same_in_each_mode(server: Server) -> Result<()> {
    let topic = unique("damaged");
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    let mut sent = send_numbers(&producer, &topic, 3).await?;
    server.admin().store(&topic, ZLIB, "this is not zlib").await?;
    sent.extend(send(&producer, &topic, ["later"]).await?);
    let mut groups = Vec::new();
    for mode in [ConsumeMode::Pull, ConsumeMode::Pop] {
        if mode == ConsumeMode::Pop && server.is_4_9() {
            continue;
        }
        for (policy, dead_letters) in [(Undecodable::DeadLetter, 1), (Undecodable::Skip, 0)] {
            let (group, seen, manager) = (unique("group"), Seen::default(), server.manager());
            let mut config = config();
            (config.mode, config.on_undecodable) = (mode, policy);
            config.pop.invisible_time = INVISIBLE_TIME;
            PushConsumer::builder(&group)
                .config(config)
                .subscribe(topic.as_str(), "*", seen.listener())
                .build(&manager)?;
            manager.start().await?;
            groups.push((group, seen, manager, dead_letters));
        }
    }
    for (group, seen, _, dead_letters) in &groups {
        seen.until_all(&sent).await?;
        wait::until("it is done with, too", async || {
            Ok(server.dead_letters(group).await? == *dead_letters
                && server.committed(group, &topic, 1).await? == 5)
        })
        .await?;
    }
    // What was popped and not acknowledged would come again after that time.
    let after = Instant::now();
    wait::until_within(COMES_AGAIN, "enough time has gone by", async || {
        Ok(after.elapsed() > INVISIBLE_TIME + Duration::from_secs(3))
    })
    .await?;
    for (group, seen, manager, dead_letters) in groups {
        seen.ensure_once()?;
        assert_eq!(server.dead_letters(&group).await?, dead_letters, "{group}");
        assert_eq!(server.admin().max_offset(&server.pop_retry_topic(&group, &topic), 0).await?, 0);
        manager.shutdown().await?;
    }
    sender.shutdown().await?;
    Ok(())
}

#[test]
fn what_a_broker_cannot_make_a_dead_letter_is_passed_over_and_reported() -> Result<()> {
    block_on(async {
        let (topic, seen, refused) = (unique("lost"), Seen::default(), Arc::new(AtomicU32::new(0)));
        let (name, count) = (topic.clone(), Arc::clone(&refused));
        let server = Pulled::start(1, move |request| {
            if request.code == 36 {
                count.fetch_add(1, Ordering::Relaxed);
                return Some(Answer { code: 1, ..Answer::default() });
            }
            if !is_pull_of(&name, request) || request.number("queueOffset") != 0 {
                return None;
            }
            let mut damaged = record(&name, 0, "its magic number is unknown");
            damaged[4..8].copy_from_slice(&7_i32.to_be_bytes());
            Some(found(&[damaged, record(&name, 1, "1")], 2))
        })
        .await?;
        let manager = consume(&server, &topic, config(), &seen).await?;

        seen.until_all(&bodies(&["1"])).await?;
        wait::until("everything is done", async || Ok(server.stored() == Some(2))).await?;

        assert_eq!(refused.load(Ordering::Relaxed), 3);
        log::until_logged(&["cannot be made a dead letter, it is passed over", &topic]).await?;
        manager.shutdown().await?;
        Ok(())
    })
}

#[test]
fn a_slave_is_read_from_when_the_broker_says_so_and_is_told_no_offset() -> Result<()> {
    block_on(async {
        let (topic, seen) = (unique("slave"), Seen::default());
        let name = topic.clone();
        let server = Pulled::start(2, move |request| {
            if !is_pull_of(&name, request) {
                return None;
            }
            let body = |offset: i64| record(&name, offset, &offset.to_string());
            match (request.member, request.number("queueOffset")) {
                // The master hands over to its slave, which hands back.
                (0, 0) => Some(pull_answer(0, 1, 1, body(0))),
                (1, 1) => Some(pull_answer(0, 2, 1, body(1))),
                (1, 2) => Some(pull_answer(0, 3, 0, body(2))),
                (0, 3) => Some(pull_answer(0, 4, 0, body(3))),
                _ => None,
            }
        })
        .await?;
        let manager = consume(&server, &topic, config(), &seen).await?;

        seen.until_all(&bodies(&["0", "1", "2", "3"])).await?;

        let pulls = server.pulls();
        let asked: Vec<_> =
            pulls.iter().take(4).map(|pull| (pull.member, pull.number("queueOffset"))).collect();
        assert_eq!(asked, [(0, 0), (1, 1), (1, 2), (0, 3)]);
        let commits = |pull: &Request| pull.number("sysFlag") & 1 == 1;
        assert!(pulls.iter().all(|pull| pull.member == 0 || !commits(pull)), "{pulls:?}");
        wait::until("the master is told the offset", async || Ok(server.stored() == Some(4))).await?;
        assert!(server.asked(15).iter().all(|store| store.member == 0));
        manager.shutdown().await?;
        Ok(())
    })
}

#[test]
fn a_queue_of_foreign_messages_only_moves_on() -> Result<()> {
    block_on(async {
        let (topic, seen) = (unique("foreign"), Seen::default());
        let name = topic.clone();
        let server = Pulled::start(1, move |request| {
            if !is_pull_of(&name, request) {
                return None;
            }
            match request.number("queueOffset") {
                0 => Some(pull_answer(20, 800, 0, Vec::new())),
                // Their hashes are alike, their tags are not.
                800 => Some(found(&[record(&name, 800, "without a tag")], 801)),
                _ => None,
            }
        })
        .await?;
        let manager = MqClientManager::new(cluster(&server.name_server()));
        PushConsumer::builder(unique("group"))
            .config(config())
            .subscribe(topic.as_str(), "a", seen.listener())
            .build(&manager)?;
        manager.start().await?;

        wait::until("the offset has moved", async || Ok(server.stored() == Some(801))).await?;

        assert_eq!(seen.count(), 0);
        manager.shutdown().await?;
        Ok(())
    })
}

#[test]
fn an_offset_that_a_broker_could_not_tell_is_asked_for_again() -> Result<()> {
    block_on(async {
        let (topic, asked) = (unique("unsure"), Arc::new(AtomicU32::new(0)));
        let (name, count) = (topic.clone(), Arc::clone(&asked));
        let server = Pulled::start(1, move |request| {
            if request.fields["topic"] != *name {
                return None;
            }
            match request.code {
                // An error is not "there is none", from which `last` would jump to the end.
                14 if count.fetch_add(1, Ordering::Relaxed) < 2 => {
                    Some(Answer { code: 1, ..Answer::default() })
                }
                14 => Some(Answer { fields: serde_json::json!({ "offset": "5" }), ..Answer::default() }),
                30 => Some(Answer { fields: serde_json::json!({ "offset": "900" }), ..Answer::default() }),
                _ => None,
            }
        })
        .await?;
        let mut config = config();
        config.consume_from = ConsumeFrom::Last;
        let manager = MqClientManager::new(cluster(&server.name_server()));
        PushConsumer::builder(unique("group"))
            .config(config)
            .subscribe(topic.as_str(), "*", |_| async { ConsumeResult::Success })
            .build(&manager)?;
        manager.start().await?;

        wait::until("it is pulled from", async || Ok(!server.pulls().is_empty())).await?;

        assert_eq!(server.pulls()[0].number("queueOffset"), 5);
        assert_eq!(asked.load(Ordering::Relaxed), 3);
        manager.shutdown().await?;
        Ok(())
    })
}
