//! POP: brokers hand out messages one by one, to any member, and want each acknowledged.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rocketmq::client::MqClientManager;
use rocketmq::config::{BadPayload as OnBadPayload, ConsumeMode, ConsumerConfig, Rebalance};
use rocketmq::{
    BadPayload, ConsumeResult, DelayLevel, IntoConsumeResult, Message, MessageExt, MessageQueue, Outcome,
    PushConsumer,
};
use rocketmq_tests::{ServerKind, Version};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{self, Instant};

use crate::fake::{Fake, Notes};
use crate::program::Program;
use crate::pulled::{Answer, Pulled};
use crate::seen::Seen;
use crate::sending::{Stream, send, send_numbers};
use crate::server::{Server, Use, block_on, cluster, consumer_config, run, unique};
use crate::wait;

on_all_servers_of_5_at_once! { Shared:
    nothing_is_lost_when_handlers_fail_one_member_joins_and_another_is_killed,
    a_slow_handler_keeps_its_messages_and_so_do_those_that_wait_for_it,
    each_request_of_a_group_that_pops_is_used_and_answered,
    what_fails_comes_again_and_is_a_dead_letter_in_the_end,
    of_a_batch_only_what_is_not_acknowledged_comes_again,
    a_bad_payload_concerns_one_message_only,
    a_member_that_stops_gives_back_what_it_has_not_begun,
    members_follow_when_the_mode_is_changed_and_leave_nothing_behind,
    a_topic_that_is_created_later_is_popped_as_well,
    a_broker_may_share_the_queues_that_are_pulled,
    members_may_share_only_some_of_the_queues,
    a_rate_limit_holds_and_what_waits_for_its_turn_stays_with_its_member,
}

on_all_servers_of_5_at_once! { Alone:
    a_broker_that_is_killed_and_comes_back_costs_no_message,
}

/// Where brokers keep what comes again in retry topics of the second kind.
mod retry_topic_v2 {
    use super::*;

    on_all_servers_of_5_at_once! { Otherwise:
        what_fails_comes_again_and_is_a_dead_letter_in_the_end,
        members_follow_when_the_mode_is_changed_and_leave_nothing_behind,
    }
}

pub(crate) const INVISIBLE_TIME: Duration = Duration::from_secs(5);
/// A broker of Apache looks for what was not acknowledged every few seconds.
pub(crate) const COMES_AGAIN: Duration = Duration::from_secs(45);

pub(crate) fn pop_config() -> ConsumerConfig {
    let mut config = consumer_config();
    config.mode = ConsumeMode::Pop;
    config.pop.invisible_time = INVISIBLE_TIME;
    config
}

/// A consumer, and the manager that keeps it.
pub(crate) async fn consume<F, Fut>(
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
    let mut cluster = server.cluster();
    cluster.client.rebalance_interval = Duration::from_secs(1);
    // Brokers with retry topics of both kinds look into one of them each time, and do not say when something comes to the other.
    cluster.client.pull_suspend = Duration::from_secs(1);
    let manager = MqClientManager::new(cluster);
    PushConsumer::builder(group).config(config).subscribe(topic, "*", listener).build(&manager)?;
    manager.start().await?;
    Ok(manager)
}

/// How often each delivery of a message was one before, in the order in which they came.
fn times(seen: &Seen, body: &str) -> Vec<u32> {
    let messages = seen.messages();
    messages.iter().filter(|message| message.body_str() == body).map(MessageExt::reconsume_times).collect()
}

/// The proof: a thousand messages with keys in each of eight queues, handlers that fail, a member that joins, and one that is
/// killed with messages in its hands.
async fn nothing_is_lost_when_handlers_fail_one_member_joins_and_another_is_killed(
    server: Server,
) -> Result<()> {
    const QUEUES: u32 = 8;
    const PER_QUEUE: u32 = 1_000;
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    let (by_victim, by_first, by_joined) = (Seen::default(), Seen::default(), Seen::default());
    let pause = Duration::from_millis(500);
    let victim = Program::start_popping(&server, &group, &topic, pause, INVISIBLE_TIME, &by_victim)?;
    let listener = |seen: &Seen| {
        let notes = seen.clone();
        move |messages: Vec<MessageExt>| {
            let fails = messages[0].reconsume_times() < 3 && fastrand(messages[0].queue_offset());
            if !fails {
                messages.iter().for_each(|message| notes.note(message));
            }
            async move {
                time::sleep(Duration::from_millis(20)).await;
                if fails { ConsumeResult::ReconsumeAfter(DelayLevel::S1) } else { ConsumeResult::Success }
            }
        }
    };
    let first = consume(&server, &group, &topic, pop_config(), listener(&by_first)).await?;
    let members = async |count: usize| {
        wait::until("the members are in the group", async || {
            Ok(server.admin().members(&group).await?.len() == count)
        })
        .await
    };
    members(2).await?;
    let me = server.admin().members(&group).await?.remove(0);
    assert_eq!(server.admin().mode(&group, &me, &topic).await?, "POP", "what the broker was told");

    let mut sending = JoinSet::new();
    let (sender_of_all, sent_to) = (producer.clone(), topic.clone());
    sending.spawn(async move {
        let mut sent = BTreeSet::new();
        for number in 0..PER_QUEUE {
            let keyed = (0..QUEUES).map(|queue| {
                let queue_of =
                    MessageQueue::new(sent_to.as_str(), "broker-a", i32::try_from(queue).unwrap_or(0));
                let body = format!("key-{queue}-{} {number}", number % 10);
                let key = body.split(' ').next().unwrap_or_default().to_owned();
                (queue_of, Message::new(sent_to.as_str()).key(key).body(body))
            });
            for (queue, message) in keyed {
                let body = String::from_utf8_lossy(message.payload()).into_owned();
                sender_of_all.send_to(&queue, message).await?;
                sent.insert(body);
            }
        }
        anyhow::Ok(sent)
    });
    by_first.until_count(500).await?;
    let joined = consume(&server, &group, &topic, pop_config(), listener(&by_joined)).await?;
    members(3).await?;
    by_joined.until_count(100).await?;
    by_victim.until_count(100).await?;
    let taken_along = victim.kill_at_work(&by_victim).await?;
    let by_others = || -> Vec<_> { [&by_first, &by_joined].into_iter().flat_map(Seen::messages).collect() };
    let before_its_end = by_others();
    let sent = sending.join_next().await.context("it was started")???;
    assert_eq!(sent.len(), (QUEUES * PER_QUEUE) as usize);

    let handled = || -> BTreeSet<String> {
        [&by_victim, &by_first, &by_joined].into_iter().flat_map(Seen::bodies).collect()
    };
    wait::until_within(2 * COMES_AGAIN, "everything was handled", async || Ok(handled().len() == sent.len()))
        .await?;
    ensure!(handled() == sent, "something else was handled");
    let times = |messages: &[MessageExt], body: &str| {
        messages.iter().filter(|message| message.body_str() == body).count()
    };
    for body in taken_along {
        // Where a busy machine renews too late, a message is handled twice: another member may have had it before the victim.
        let before = times(&before_its_end, &body);
        let what = format!("{body} comes again, which the victim had when it was killed");
        wait::until_within(COMES_AGAIN, &what, async || Ok(before < times(&by_others(), &body))).await?;
        let all = by_others();
        let again = all.iter().filter(|message| message.body_str() == body);
        let again =
            again.max_by_key(|message| message.reconsume_times()).context("it has just been there")?;
        // Nobody saw it before the victim had had its time.
        let popped = |property: &str, at: usize| -> Result<i64> {
            let text = again.property(property).with_context(|| format!("{body} has no {property}"))?;
            Ok(text.split(' ').nth(at).context("it is cut short")?.parse()?)
        };
        let since = popped("POP_CK", 1)? - popped("1ST_POP_TIME", 0)?;
        ensure!(INVISIBLE_TIME.as_millis() as i64 <= since, "{body} came after {since} ms");
        ensure!(0 < again.reconsume_times(), "{body} came for the first time");
    }
    let by_others = by_others();
    for message in &by_others {
        let body = message.body_str();
        ensure!(message.keys().eq(body.split(' ').take(1)), "{body} came with another key");
        ensure!(message.topic() == topic, "a retry topic was shown: {}", message.topic());
    }
    let retried = by_others.iter().filter(|message| message.reconsume_times() > 0).count();
    ensure!(sent.len() / 20 < retried, "only {retried} failed");
    assert_eq!(server.dead_letters(&group).await?, 0);
    joined.shutdown().await?;
    first.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

/// The broker forgets its members, and what it was told last.
async fn a_broker_that_is_killed_and_comes_back_costs_no_message(mut server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, 4).await?;
    let (sender, producer) = server.producer().await?;
    let manager = consume(&server, &group, &topic, pop_config(), seen.listener()).await?;
    // One that has nothing to acknowledge, and so nothing to say but that it waits.
    let (quiet, idle) = (unique("quiet"), unique("idle"));
    server.create_topic(&quiet, 1).await?;
    let waiting = consume(&server, &idle, &quiet, pop_config(), |_| async {}).await?;
    let stream = Stream::start(producer, &topic, Duration::from_millis(1));
    seen.until_count(200).await?;

    server.kill_broker().await?;
    let killed_at = stream.count();
    server.restart_broker().await?;

    // Long before the next heartbeat that would have come by itself.
    wait::until_within(Duration::from_secs(10), "the broker knows the members again", async || {
        let admin = server.admin();
        Ok(admin.members(&group).await?.len() == 1 && admin.members(&idle).await?.len() == 1)
    })
    .await?;
    stream.until_count(killed_at + 200).await?;
    let sent = stream.stop().await;
    seen.until_within(COMES_AGAIN, "every confirmed message was handled", |handled| {
        sent.iter().all(|body| handled.times.contains_key(body))
    })
    .await?;
    waiting.shutdown().await?;
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

/// One in ten, the same ones in every run.
fn fastrand(number: i64) -> bool {
    number.wrapping_mul(2_654_435_761).rem_euclid(10) == 0
}

async fn a_slow_handler_keeps_its_messages_and_so_do_those_that_wait_for_it(server: Server) -> Result<()> {
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    // Acknowledged together, many at a time.
    let quick = send_numbers(&producer, &topic, 300).await?;
    let (by_slow, by_other, begun) = (Seen::default(), Seen::default(), Seen::default());
    let mut config = pop_config();
    config.concurrency = 1;
    let (notes, begins) = (by_slow.clone(), begun.clone());
    let slow = consume(&server, &group, &topic, config, move |messages: Vec<MessageExt>| {
        let (notes, begins) = (notes.clone(), begins.clone());
        async move {
            begins.note(&messages[0]);
            if messages[0].body_str().starts_with("slow") {
                time::sleep(INVISIBLE_TIME + INVISIBLE_TIME / 2).await;
            }
            notes.note(&messages[0]);
        }
    })
    .await?;
    by_slow.until_all(&quick).await?;
    let sent = send(&producer, &topic, ["slow 1", "slow 2"]).await?;
    begun.until_count(301).await?;
    let other = consume(&server, &group, &topic, pop_config(), by_other.listener()).await?;

    by_slow.until_within(COMES_AGAIN, "both were handled", |handled| handled.times.len() == 302).await?;
    slow.shutdown().await?;
    // What comes again only after the time of a message is over comes after whatever else could come.
    let after = Instant::now();
    wait::until_within(COMES_AGAIN, "enough time has gone by", async || {
        Ok(after.elapsed() > INVISIBLE_TIME + Duration::from_secs(3))
    })
    .await?;
    by_slow.ensure_once()?;
    ensure!(by_other.count() == 0, "the other one got {:?} of {sent:?}", by_other.bodies());
    assert_eq!(server.admin().max_offset(&server.pop_retry_topic(&group, &topic), 0).await?, 0);
    other.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn each_request_of_a_group_that_pops_is_used_and_answered(server: Server) -> Result<()> {
    const SUCCESS: i64 = 0;
    const CHANGE_INVISIBLE_TIME: i64 = 200_053;
    let (topic, seen, notes) = (unique("orders"), Seen::default(), Notes::default());
    server.create_topic(&topic, 2).await?;
    let (sender, producer) = server.producer().await?;
    let broker = Fake::noting(server.broker_addr(), &notes).await?;
    let name_server = Fake::name_server(&topic, &[("broker-a", broker.addr())]).await?;
    let manager = MqClientManager::new(cluster(&name_server.addr().to_string()));
    let handled = seen.clone();
    PushConsumer::builder(unique("group"))
        .config(pop_config())
        .subscribe(topic.as_str(), "*", move |messages: Vec<MessageExt>| {
            let (seen, message) = (handled.clone(), messages[0].clone());
            async move {
                let fails = message.body_str() == "fails" && message.reconsume_times() == 0;
                if message.body_str() == "slow" {
                    time::sleep(INVISIBLE_TIME + INVISIBLE_TIME / 2).await;
                }
                seen.note(&message);
                if fails { ConsumeResult::ReconsumeAfter(DelayLevel::S1) } else { ConsumeResult::Success }
            }
        })
        .build(&manager)?;
    let mut sent = send_numbers(&producer, &topic, 500).await?;
    manager.start().await?;
    sent.extend(send(&producer, &topic, ["fails", "slow"]).await?);

    seen.until_within(COMES_AGAIN, "one came twice", |handled| {
        handled.times.len() == sent.len() && handled.times.get("fails") == Some(&2)
    })
    .await?;
    for (request, code) in [
        ("to set the mode", 401),
        ("which queues are ours", 400),
        ("to pop", 200_050),
        ("to acknowledge", 200_051),
        ("to acknowledge many", 200_151),
        ("to change the invisible time", CHANGE_INVISIBLE_TIME),
    ] {
        wait::until(&format!("it is asked {request}"), async || Ok(notes.count(code, SUCCESS) > 0)).await?;
    }
    let changed = notes.count(CHANGE_INVISIBLE_TIME, SUCCESS);
    ensure!(2 <= changed, "{changed} times: one fails, and one is slow");
    let twice = seen.handled().times.values().filter(|times| **times > 1).count();
    ensure!(twice == 1, "{twice} came again");
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn what_fails_comes_again_and_is_a_dead_letter_in_the_end(server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, 2).await?;
    let (sender, producer) = server.producer().await?;
    let mut config = pop_config();
    config.max_reconsume = Some(2);
    config.retry_delay = rocketmq::config::RetryDelay::Level(1);
    config.consume_timeout = Duration::from_secs(1);
    let notes = seen.clone();
    let manager = consume(&server, &group, &topic, config, move |messages: Vec<MessageExt>| {
        notes.note(&messages[0]);
        async move {
            match (messages[0].body_str().as_ref(), messages[0].reconsume_times()) {
                ("fails", _) => Err("as it was told to"),
                ("panics", _) => panic!("as it was told to"),
                ("hopeless", _) => Ok(ConsumeResult::DeadLetter),
                ("once", 0) => Ok(ConsumeResult::ReconsumeLater),
                ("hangs", 0) => pending().await,
                _ => Ok(ConsumeResult::Success),
            }
        }
    })
    .await?;
    let sent = send(&producer, &topic, ["good", "fails", "panics", "hopeless", "once", "hangs"]).await?;
    let dead = ["fails", "panics", "hopeless"];

    wait::until_within(2 * COMES_AGAIN, "the dead letters are there", async || {
        Ok(server.dead_letters(&group).await? == 3 && seen.handled().times.get("hangs") == Some(&2))
    })
    .await?;
    seen.until_all(&sent).await?;
    for (body, expected) in
        [("good", 0), ("fails", 2), ("panics", 2), ("hopeless", 0), ("once", 1), ("hangs", 1)]
    {
        assert_eq!(times(&seen, body), (0..=expected).collect::<Vec<_>>(), "{body}");
    }
    let sent_ids: BTreeSet<_> = seen
        .messages()
        .iter()
        .filter(|message| dead.contains(&message.body_str().as_ref()))
        .map(|message| message.message_id().into_owned())
        .collect();
    manager.shutdown().await?;
    let letters = Seen::default();
    let mut reader_config = consumer_config();
    reader_config.rebalance = Rebalance::Client;
    let dead_topic = format!("%DLQ%{group}");
    let reader =
        consume(&server, &unique("operator"), &dead_topic, reader_config, letters.listener()).await?;
    letters.until_count(3).await?;
    let ids: BTreeSet<_> =
        letters.messages().iter().map(|message| message.message_id().into_owned()).collect();
    assert_eq!(ids, sent_ids, "the id of a message changed");
    for letter in letters.messages() {
        assert_eq!(letter.property("RETRY_TOPIC"), Some(topic.as_str()));
    }
    reader.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn of_a_batch_only_what_is_not_acknowledged_comes_again(server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    let mut sent = BTreeSet::new();
    for body in ["0", "1", "2", "3", "4"] {
        sent.extend(send(&producer, &topic, [body]).await?);
    }
    let mut config = pop_config();
    config.batch = 5;
    config.retry_delay = rocketmq::config::RetryDelay::Level(1);
    let notes = seen.clone();
    let manager = consume(&server, &group, &topic, config, move |messages: Vec<MessageExt>| {
        messages.iter().for_each(|message| notes.note(message));
        let is_first = messages.len() == 5 && messages[0].reconsume_times() == 0;
        async move { if is_first { ConsumeResult::AckFirst(2) } else { ConsumeResult::Success } }
    })
    .await?;

    seen.until_within(COMES_AGAIN, "three came again", |handled| handled.messages.len() == 8).await?;
    seen.until_all(&sent).await?;
    for (body, expected) in [("0", 0), ("1", 0), ("2", 1), ("3", 1), ("4", 1)] {
        assert_eq!(times(&seen, body), (0..=expected).collect::<Vec<_>>(), "{body}");
    }
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn a_bad_payload_concerns_one_message_only(server: Server) -> Result<()> {
    struct Decoded(Option<usize>);

    impl IntoConsumeResult for Decoded {
        fn into_outcome(self) -> Outcome {
            match self.0 {
                Some(bad) => BadPayload::new("no number").at(bad).into(),
                None => ConsumeResult::Success.into(),
            }
        }
    }

    let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    for body in ["1", "bad", "2", "3"] {
        send(&producer, &topic, [body]).await?;
    }
    let mut config = pop_config();
    config.batch = 4;
    config.on_bad_payload = OnBadPayload::DeadLetter;
    let notes = seen.clone();
    let manager = consume(&server, &group, &topic, config, move |messages: Vec<MessageExt>| {
        let bad = messages.iter().position(|message| message.body_str() == "bad");
        if bad.is_none() {
            messages.iter().for_each(|message| notes.note(message));
        }
        async move { Decoded(bad) }
    })
    .await?;

    seen.until_all(&["1", "2", "3"].map(str::to_owned).into()).await?;
    wait::until("the dead letter is there", async || Ok(server.dead_letters(&group).await? == 1)).await?;
    seen.ensure_once()?;
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn a_member_that_stops_gives_back_what_it_has_not_begun(server: Server) -> Result<()> {
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, 2).await?;
    let (sender, producer) = server.producer().await?;
    let sent = send_numbers(&producer, &topic, 20).await?;
    let (by_first, by_other, begun) = (Seen::default(), Seen::default(), Seen::default());
    let gate = std::sync::Arc::new(Semaphore::new(0));
    let mut config = pop_config();
    // Nobody would get them for so long.
    config.pop.invisible_time = Duration::from_secs(300);
    config.concurrency = 1;
    let (notes, begins, opens) = (by_first.clone(), begun.clone(), std::sync::Arc::clone(&gate));
    let first = consume(&server, &group, &topic, config, move |messages: Vec<MessageExt>| {
        let (notes, begins, opens) = (notes.clone(), begins.clone(), std::sync::Arc::clone(&opens));
        async move {
            begins.note(&messages[0]);
            // It is closed by nobody.
            drop(opens.acquire().await);
            notes.note(&messages[0]);
        }
    })
    .await?;
    begun.until_count(1).await?;
    let mut stopping = JoinSet::new();
    stopping.spawn(async move { first.shutdown().await });
    let other = consume(&server, &group, &topic, pop_config(), by_other.listener()).await?;

    by_other.until_within(COMES_AGAIN, "the rest was handled", |handled| handled.times.len() == 19).await?;
    ensure!(stopping.try_join_next().is_none(), "it did not wait for its handler");
    gate.add_permits(1);
    stopping.join_next().await.context("it was started")???;
    by_first.until_count(1).await?;
    assert_eq!(by_first.bodies().union(&by_other.bodies()).cloned().collect::<BTreeSet<_>>(), sent);
    by_other.ensure_once()?;
    other.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn members_follow_when_the_mode_is_changed_and_leave_nothing_behind(server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, 2).await?;
    let (sender, producer) = server.producer().await?;
    let mut config = pop_config();
    config.retry_delay = rocketmq::config::RetryDelay::Level(1);
    let notes = seen.clone();
    let manager = consume(&server, &group, &topic, config, move |messages: Vec<MessageExt>| {
        let fails = messages[0].reconsume_times() == 0 && messages[0].body_str().starts_with("fails");
        if !fails {
            notes.note(&messages[0]);
        }
        async move { if fails { Err("as it was told to") } else { Ok(()) } }
    })
    .await?;
    let (popped, pulled) = (server.pop_retry_topic(&group, &topic), format!("%RETRY%{group}"));
    let mut sent = BTreeSet::new();
    for (mode, failed) in [("", &popped), ("PULL", &pulled), ("POP", &popped)] {
        if !mode.is_empty() {
            server.admin().set_mode(&group, &topic, mode).await?;
        }
        sent.extend(send(&producer, &topic, (0..20).map(|n| format!("{mode} {n}"))).await?);
        // Members hear of it a moment later. What fails goes another way in each mode.
        let before = server.admin().max_offset(failed, 0).await?;
        let mut probes = 0;
        wait::until_within(COMES_AGAIN, &format!("messages come in another way {mode}"), async || {
            probes += 1;
            sent.extend(send(&producer, &topic, [format!("fails {mode} {probes}")]).await?);
            Ok(before < server.admin().max_offset(failed, 0).await?)
        })
        .await?;
    }
    let all = |handled: &crate::seen::Handled| sent.iter().all(|body| handled.times.contains_key(body));
    seen.until_within(COMES_AGAIN, "all was handled", all).await?;
    seen.until_all(&sent).await?;
    wait::until("the offsets have passed all", async || {
        Ok(server.committed(&group, &topic, 2).await? == i64::try_from(sent.len())?)
    })
    .await?;
    assert_eq!(server.dead_letters(&group).await?, 0);
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn a_topic_that_is_created_later_is_popped_as_well(server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
    let (sender, producer) = server.producer().await?;
    let notes = seen.clone();
    let manager =
        consume(&server, &group, &topic, pop_config(), move |messages: Vec<MessageExt>| {
            notes.note(&messages[0]);
            let again = messages[0].reconsume_times() == 0;
            async move {
                if again { ConsumeResult::ReconsumeAfter(DelayLevel::S1) } else { ConsumeResult::Success }
            }
        })
        .await?;
    server.create_topic(&topic, 2).await?;
    let sent = send_numbers(&producer, &topic, 10).await?;
    seen.until_within(COMES_AGAIN, "all came twice", |handled| {
        handled.times.len() == 10 && handled.times.values().all(|times| *times == 2)
    })
    .await?;
    seen.until_all(&sent).await?;
    // Where a pulled message that failed would be.
    assert_eq!(server.admin().max_offset(&format!("%RETRY%{group}"), 0).await?, 0);
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn a_broker_may_share_the_queues_that_are_pulled(server: Server) -> Result<()> {
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, 4).await?;
    let (sender, producer) = server.producer().await?;
    let mut config = consumer_config();
    config.rebalance = Rebalance::Broker;
    let (one, two) = (Seen::default(), Seen::default());
    let first = consume(&server, &group, &topic, config.clone(), one.listener()).await?;
    let second = consume(&server, &group, &topic, config, two.listener()).await?;
    let queues = |seen: &Seen| -> BTreeSet<i32> {
        seen.messages().iter().rev().take(20).map(MessageExt::queue_id).collect()
    };
    let stream = Stream::start(producer, &topic, Duration::from_millis(2));
    wait::until("each has half of the queues", async || {
        let (one, two) = (queues(&one), queues(&two));
        Ok(one.len() == 2 && two.len() == 2 && one.is_disjoint(&two))
    })
    .await?;
    let sent = stream.stop().await;
    wait::until("everything was handled", async || {
        let (one, two) = (one.bodies(), two.bodies());
        Ok(sent.iter().all(|body| one.contains(body) || two.contains(body)))
    })
    .await?;
    first.shutdown().await?;
    second.shutdown().await?;
    // The last one may have been stored without the sender having heard of it.
    let (committed, least) = (server.committed(&group, &topic, 4).await?, i64::try_from(sent.len())?);
    ensure!((least..=least + 1).contains(&committed), "{committed} is stored, {least} were sent");
    sender.shutdown().await?;
    Ok(())
}

/// A broker that was restarted has heard of another member, and not yet of this one.
#[test]
fn a_broker_that_does_not_know_a_member_takes_no_queue_from_it() -> Result<()> {
    const QUERY_ASSIGNMENT: i64 = 400;
    const CONSUMER_LIST: i64 = 38;
    const KNOWN: usize = 0;
    const UNKNOWN: usize = 1;
    const WITHOUT: usize = 2;
    block_on(async {
        let (topic, seen, state) = (unique("orders"), Seen::default(), Arc::new(AtomicUsize::new(KNOWN)));
        let (known, now) = (topic.clone(), Arc::clone(&state));
        let server = Pulled::start(1, move |request| {
            let body = match (request.code, now.load(Ordering::SeqCst)) {
                (QUERY_ASSIGNMENT, KNOWN) => json!({"messageQueueAssignments": [{
                    "messageQueue": {"topic": known, "brokerName": "broker-a", "queueId": 0}, "mode": "PULL",
                }]}),
                (QUERY_ASSIGNMENT, _) => json!({"messageQueueAssignments": []}),
                (CONSUMER_LIST, UNKNOWN) => json!({"consumerIdList": ["another"]}),
                _ => return None,
            };
            Some(Answer { body: body.to_string().into_bytes(), ..Answer::default() })
        })
        .await?;
        let mut config = consumer_config();
        config.rebalance = Rebalance::Broker;
        let (manager, is_lost) =
            (MqClientManager::new(cluster(&server.name_server())), Arc::new(AtomicBool::new(false)));
        let (note, of_topic) = (Arc::clone(&is_lost), topic.clone());
        let consumer = PushConsumer::builder(unique("group"))
            .config(config)
            .subscribe(topic.as_str(), "*", seen.listener())
            .message_queue_listener(move |change| {
                if change.topic == of_topic {
                    note.store(change.owned.is_empty(), Ordering::SeqCst);
                }
            })
            .build(&manager)?;
        manager.start().await?;
        wait::until("the queue is pulled", async || Ok(!server.pulls().is_empty())).await?;

        state.store(UNKNOWN, Ordering::SeqCst);
        consumer.resume();
        let asked = server.asked(QUERY_ASSIGNMENT).len();
        wait::until("it was asked twice", async || Ok(server.asked(QUERY_ASSIGNMENT).len() >= asked + 4))
            .await?;
        ensure!(!is_lost.load(Ordering::SeqCst), "the queue was given up");

        state.store(WITHOUT, Ordering::SeqCst);
        wait::until("it is another member's", async || Ok(is_lost.load(Ordering::SeqCst))).await?;
        manager.shutdown().await?;
        Ok(())
    })
}

async fn members_may_share_only_some_of_the_queues(server: Server) -> Result<()> {
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, 6).await?;
    let (sender, producer) = server.producer().await?;
    let mut config = pop_config();
    config.pop.share_queues = Some(1);
    let seen = [Seen::default(), Seen::default(), Seen::default()];
    let mut managers = Vec::new();
    for seen in &seen {
        managers.push(consume(&server, &group, &topic, config.clone(), seen.listener()).await?);
    }
    // Two queues of its own, and the two of the next one.
    let queues = |seen: &Seen| -> BTreeSet<i32> {
        seen.messages().iter().rev().take(60).map(MessageExt::queue_id).collect()
    };
    let stream = Stream::start(producer, &topic, Duration::from_millis(2));
    wait::until_within(COMES_AGAIN, "each pops from four of the six queues", async || {
        Ok(seen.iter().all(|seen| queues(seen).len() == 4))
    })
    .await?;
    let sent = stream.stop().await;
    wait::until_within(COMES_AGAIN, "everything was handled", async || {
        let all: BTreeSet<String> = seen.iter().flat_map(Seen::bodies).collect();
        Ok(sent.is_subset(&all))
    })
    .await?;
    for manager in managers {
        manager.shutdown().await?;
    }
    sender.shutdown().await?;
    Ok(())
}

async fn a_rate_limit_holds_and_what_waits_for_its_turn_stays_with_its_member(server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("limited"), unique("group"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    let mut config = pop_config();
    config.rate_limit = Some("2/s".parse()?);
    // All of them are popped at once, and many wait for longer than they would stay invisible.
    let sent = send_numbers(&producer, &topic, 32).await?;
    let (begun, manager) = (Instant::now(), server.manager());
    let consumer = PushConsumer::builder(&group)
        .config(config)
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&manager)?;
    manager.start().await?;
    seen.until_count(3).await?;
    // Half a second between two of them, however slow this machine is.
    ensure!(Duration::from_secs(1) <= begun.elapsed(), "three within {:?}", begun.elapsed());
    seen.until_count(16).await?;
    ensure!(INVISIBLE_TIME < begun.elapsed(), "sixteen within {:?}", begun.elapsed());
    consumer.set_rate_limit(None);

    seen.until_all(&sent).await?;
    seen.ensure_once()?;
    assert_eq!(server.admin().max_offset(&server.pop_retry_topic(&group, &topic), 0).await?, 0);
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

#[test]
fn a_broker_that_is_too_old_stops_the_start_and_is_named() -> Result<()> {
    run(ServerKind::Apache(Version::V4_9_7), Use::Shared, async |server: Server| {
        let topic = unique("orders");
        server.create_topic(&topic, 1).await?;
        let mut asks = consumer_config();
        asks.rebalance = Rebalance::Broker;
        for (config, key, instead) in
            [(pop_config(), "mode: pop", "mode: pull"), (asks, "rebalance: broker", "rebalance: client")]
        {
            let started = consume(&server, &unique("group"), &topic, config, |_| async {}).await;
            let error = started.err().context("4.9 cannot do that")?.to_string();
            let address = server.broker_addr().to_string();
            for part in ["broker-a", address.as_str(), "4.9.7", key, instead, "5.0"] {
                ensure!(error.contains(part), "{part}: {error}");
            }
        }
        Ok(())
    })
}
