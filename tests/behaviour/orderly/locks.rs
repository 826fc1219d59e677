//! Who has a queue: its lock goes from member to member, and is lost with brokers.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rocketmq::client::MqClientManager;
use rocketmq::{MessageExt, PushConsumer};
use tokio::sync::Semaphore;
use tokio::time::{self, Instant};

use super::{QUEUES, by_queue, consume, ensure_in_order, impatient};
use crate::log;
use crate::pulled::{Answer, Pulled, found, record};
use crate::seen::Seen;
use crate::sending::{Stream, send, send_numbers};
use crate::server::{Server, block_on, cluster, consumer_config, unique};
use crate::wait;

on_all_servers_at_once! { Alone:
    a_broker_that_is_away_for_longer_than_locks_last_makes_nothing_come_again,
}

on_each_server! { Shared:
    a_queue_goes_to_a_joining_member_once_its_handler_has_ended,
    a_member_that_is_suspended_lets_a_joining_one_have_its_share,
    a_member_that_stops_leaves_its_queues_unlocked,
    a_queue_that_another_member_locked_meanwhile_is_given_up,
}

on_each_server! { Alone:
    the_order_survives_a_broker_that_is_killed_under_load,
}

/// For so long a member relies on a lock that it cannot renew.
const LOCK_LIFE: Duration = Duration::from_secs(30);

async fn a_queue_goes_to_a_joining_member_once_its_handler_has_ended(server: Server) -> Result<()> {
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, 2).await?;
    let (sender, producer) = server.producer().await?;
    for number in 0..10 {
        send(&producer, &topic, [number.to_string()]).await?;
    }
    let (entered, first, second) = (Seen::default(), Seen::default(), Seen::default());
    let gate = Arc::new(Semaphore::new(0));
    let (arrived, closed, done) = (entered.clone(), Arc::clone(&gate), first.clone());
    let listener = move |messages: Vec<MessageExt>| {
        let (arrived, gate, done) = (arrived.clone(), Arc::clone(&closed), done.clone());
        async move {
            arrived.note(&messages[0]);
            // It has no permits, and lets everybody pass once it is given up.
            let _ = gate.acquire().await;
            done.note(&messages[0]);
        }
    };
    let one = consume(&server, &group, &topic, impatient(), listener).await?;
    entered.until_count(2).await?;

    let other = consume(&server, &group, &topic, impatient(), second.listener()).await?;
    wait::until("both are in the group", async || Ok(server.admin().members(&group).await?.len() == 2))
        .await?;
    // There is nothing to wait for: it is what does not happen that counts.
    time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!((entered.count(), second.count()), (2, 0), "a queue had two handlers");
    gate.close();
    wait::until("all were handled", async || Ok(first.count() + second.count() == 10)).await?;
    time::sleep(Duration::from_millis(300)).await;

    assert_eq!((first.count(), second.count()), (6, 4), "the first one keeps a queue, and hands one over");
    first.ensure_once()?;
    second.ensure_once()?;
    assert!(first.bodies().is_disjoint(&second.bodies()), "what was done came again");
    ensure_in_order(&first)?;
    let handed_over = by_queue(&second).into_keys().next().context("it has a queue")?;
    let offsets: Vec<_> = second.messages().iter().map(MessageExt::queue_offset).collect();
    assert_eq!(offsets, [1, 2, 3, 4], "of queue {handed_over}");
    for manager in [one, other, sender] {
        manager.shutdown().await?;
    }
    Ok(())
}

async fn a_member_that_is_suspended_lets_a_joining_one_have_its_share(server: Server) -> Result<()> {
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, 2).await?;
    let (sender, producer) = server.producer().await?;
    let (first, second, one) = (Seen::default(), Seen::default(), server.manager());
    let suspended = PushConsumer::builder(&group)
        .orderly()
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", first.listener())
        .build(&one)?;
    one.start().await?;
    suspended.ready().await;
    suspended.suspend();

    let other = consume(&server, &group, &topic, consumer_config(), second.listener()).await?;
    let sent = send_numbers(&producer, &topic, 10).await?;
    second.until_count(5).await?;
    assert_eq!((first.count(), second.count()), (0, 5), "each has one of the queues");

    suspended.resume();
    first.until_count(5).await?;
    assert!(first.bodies().is_disjoint(&second.bodies()) && second.bodies().is_subset(&sent));
    for manager in [one, other, sender] {
        manager.shutdown().await?;
    }
    Ok(())
}

async fn a_member_that_stops_leaves_its_queues_unlocked(server: Server) -> Result<()> {
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    let (first, second) = (Seen::default(), Seen::default());
    let one = consume(&server, &group, &topic, consumer_config(), first.listener()).await?;
    send_numbers(&producer, &topic, 100).await?;
    first.until_count(100).await?;
    one.shutdown().await?;

    let started = Instant::now();
    let other = consume(&server, &group, &topic, consumer_config(), second.listener()).await?;
    send(&producer, &topic, (100..200).map(|number| number.to_string())).await?;
    second.until_count(100).await?;
    let waited = started.elapsed();
    ensure!(waited < Duration::from_secs(15), "the queues were locked for {waited:?}");
    assert!(first.bodies().is_disjoint(&second.bodies()), "what was done came again");
    other.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

// --- Locks that are lost.

async fn the_order_survives_a_broker_that_is_killed_under_load(mut server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, 4).await?;
    let (sender, producer) = server.producer().await?;
    let manager = consume(&server, &group, &topic, impatient(), seen.listener()).await?;
    let stream = Stream::start(producer, &topic, Duration::from_millis(1));
    stream.until_count(300).await?;
    seen.until_count(100).await?;

    server.kill_broker().await?;
    let killed_at = stream.count();
    server.restart_broker().await?;

    stream.until_count(killed_at + 300).await?;
    let sent = stream.stop().await;
    // Some may have been stored whose confirmation was lost: more than were sent may be handled, not fewer.
    seen.until("all were handled", |handled| sent.iter().all(|body| handled.times.contains_key(body)))
        .await?;
    // The only member has every queue all the time: nothing has to come again.
    seen.ensure_once()?;
    ensure_in_order(&seen)?;
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn a_broker_that_is_away_for_longer_than_locks_last_makes_nothing_come_again(
    mut server: Server,
) -> Result<()> {
    let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    let mut sent = send_numbers(&producer, &topic, 100).await?;
    let mut cluster = server.cluster();
    // What is handled while the broker is away is known here only.
    cluster.client.offset_interval = Duration::from_secs(3_600);
    let manager = MqClientManager::new(cluster);
    let notes = seen.clone();
    PushConsumer::builder(&group)
        .orderly()
        .config(impatient())
        .subscribe(topic.as_str(), "*", move |messages: Vec<MessageExt>| {
            let notes = notes.clone();
            async move {
                time::sleep(Duration::from_millis(10)).await;
                notes.note(&messages[0]);
            }
        })
        .build(&manager)?;
    manager.start().await?;
    seen.until_count(20).await?;
    // All of them are here by now.
    server.kill_broker().await?;
    seen.until_all(&sent).await?;
    time::sleep(LOCK_LIFE + Duration::from_secs(1)).await;

    server.restart_broker().await?;
    sent.extend(send(&producer, &topic, ["after"]).await?);
    seen.until_all(&sent).await?;
    seen.ensure_once()?;
    ensure_in_order(&seen)?;
    manager.shutdown().await?;
    assert_eq!(server.committed(&group, &topic, 1).await?, 101);
    sender.shutdown().await?;
    Ok(())
}

#[test]
fn a_broker_that_stays_away_does_not_hold_up_the_queues_of_one_that_is_back() -> Result<()> {
    const LOCK: i64 = 41;
    const PULL: i64 = 11;
    block_on(async {
        let (topic, seen, away) = (unique("orders"), Seen::default(), Arc::new(AtomicUsize::new(0)));
        let (known, brokers) = (topic.clone(), Arc::clone(&away));
        // The first is back once only one of them is away, and has a message then.
        let server = Pulled::start_apart(2, move |request| {
            let is_away = request.member >= 2 - brokers.load(Ordering::SeqCst);
            match request.code {
                LOCK if is_away => Some(Answer { code: -1, ..Answer::default() }),
                PULL if request.fields["topic"] == *known && request.number("queueOffset") == 0 => {
                    let is_back = brokers.load(Ordering::SeqCst) == 1 && !is_away;
                    is_back.then(|| found(&[record(&known, 0, "x")], 1))
                }
                _ => None,
            }
        })
        .await?;
        let mut cluster = cluster(&server.name_server());
        cluster.client.request_timeout = Duration::from_millis(500);
        let (manager, group) = (MqClientManager::new(cluster), unique("group"));
        PushConsumer::builder(&group)
            .orderly()
            .config(consumer_config())
            .subscribe(topic.as_str(), "*", seen.listener())
            .build(&manager)?;
        manager.start().await?;
        wait::until("both are pulled from", async || {
            let pulls = server.pulls();
            Ok([0, 1].iter().all(|member| pulls.iter().any(|pull| pull.member == *member)))
        })
        .await?;

        away.store(2, Ordering::SeqCst);
        time::sleep(LOCK_LIFE + Duration::from_secs(1)).await;
        away.store(1, Ordering::SeqCst);

        seen.until_count(1).await?;
        manager.shutdown().await?;
        Ok(())
    })
}

async fn a_queue_that_another_member_locked_meanwhile_is_given_up(server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    // Members are sorted by name: the first one keeps the only queue.
    let join = async |name: &str| {
        let mut cluster = server.cluster();
        cluster.client.instance = Some(name.to_owned());
        let manager = MqClientManager::new(cluster);
        PushConsumer::builder(&group)
            .orderly()
            .config(impatient())
            .subscribe(topic.as_str(), "*", seen.listener())
            .build(&manager)?;
        manager.start().await.map(|()| manager)
    };
    let numbers = |range: Range<u32>| range.map(|number| number.to_string()).collect::<BTreeSet<_>>();
    let first = join("first").await?;
    send(&producer, &topic, numbers(0..10)).await?;
    seen.until_all(&numbers(0..10)).await?;
    let admin = server.admin();
    let client_id = admin.members(&group).await?.pop().context("it is there")?;

    // The broker was restarted, say, and this one was slow to come back.
    admin.unlock(&group, &client_id, &topic, 0).await?;
    ensure!(admin.lock(&group, "intruder", &topic, 0).await?, "it is locked");
    // Whoever joins makes the others look.
    let second = join("second").await?;
    log::until_logged(&[group.as_str(), "the lock of the queue went to another member"]).await?;
    for number in numbers(10..20) {
        send(&producer, &topic, [number]).await?;
    }
    // There is nothing to wait for: it is what does not happen that counts.
    time::sleep(Duration::from_millis(1_500)).await;
    seen.until_all(&numbers(0..10)).await?;

    admin.commit(&group, &topic, 0, 15).await?;
    admin.unlock(&group, "intruder", &topic, 0).await?;
    seen.until_count(15).await?;
    let mut expected = numbers(0..10);
    expected.extend(numbers(15..20));
    seen.until_all(&expected).await?;
    seen.ensure_once()?;
    for manager in [first, second, sender] {
        manager.shutdown().await?;
    }
    assert_eq!(server.committed(&group, &topic, 1).await?, 20);
    Ok(())
}
