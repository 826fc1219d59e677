//! What becomes of messages that are not handled.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use rocketmq::{ConsumeResult, DelayLevel, MessageExt, PushConsumer};
use tokio::runtime::Handle;

use crate::seen::Seen;
use crate::sending::{send, send_numbers};
use crate::server::{Server, consumer_config, unique};
use crate::wait;

on_each_server! { Shared:
    a_failing_message_comes_again_and_becomes_a_dead_letter,
    a_message_whose_handler_panics_comes_again_and_becomes_a_dead_letter,
    a_message_whose_handler_takes_too_long_comes_again,
    a_message_whose_handler_blocks_its_thread_comes_again,
    a_dead_letter_is_not_tried_again,
    of_a_batch_only_what_is_not_acknowledged_comes_again,
    a_message_comes_again_after_the_delay_that_was_asked_for,
}

/// The ways in which messages of a group came: how often each had come before, by body.
fn times_before(seen: &Seen, body: &str) -> Vec<u32> {
    let messages = seen.messages();
    messages.iter().filter(|message| message.body_str() == body).map(MessageExt::reconsume_times).collect()
}

/// Reads the dead letters of a group, as an operator's program would, once they are `expected`.
async fn dead_letters(server: &Server, group: &str, expected: &BTreeSet<String>) -> Result<Vec<MessageExt>> {
    wait::until("there are as many dead letters as expected", async || {
        Ok(usize::try_from(server.dead_letters(group).await?)? == expected.len())
    })
    .await?;
    let (manager, seen) = (server.manager(), Seen::default());
    PushConsumer::builder(unique("operator"))
        .config(consumer_config())
        .subscribe(format!("%DLQ%{group}"), "*", seen.listener())
        .build(&manager)?;
    manager.start().await?;
    seen.until_all(expected).await?;
    seen.ensure_once()?;
    manager.shutdown().await?;
    Ok(seen.messages())
}

async fn a_failing_message_comes_again_and_becomes_a_dead_letter(server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, 4).await?;
    let (sender, producer) = server.producer().await?;
    let mut config = consumer_config();
    config.max_reconsume = Some(2);
    let notes = seen.clone();
    let manager = server.manager();
    PushConsumer::builder(&group)
        .config(config)
        .subscribe(topic.as_str(), "*", move |messages| {
            messages.iter().for_each(|message| notes.note(message));
            let fails = messages.iter().any(|message| message.body_str().starts_with("bad"));
            async move { if fails { Err("it is bad") } else { Ok(()) } }
        })
        .build(&manager)?;
    manager.start().await?;

    let good = send(&producer, &topic, (0..20).map(|number| format!("good {number}"))).await?;
    let bad = send(&producer, &topic, (0..3).map(|number| format!("bad {number}"))).await?;

    let dead = dead_letters(&server, &group, &bad).await?;
    seen.until_all(&good.union(&bad).cloned().collect()).await?;
    assert!(seen.messages().iter().all(|message| message.topic() == topic), "a retry topic was shown");
    for body in &good {
        assert_eq!(times_before(&seen, body), [0], "{body}");
    }
    for body in &bad {
        assert_eq!(times_before(&seen, body), [0, 1, 2], "{body}");
        let ids: BTreeSet<_> = seen
            .messages()
            .iter()
            .chain(&dead)
            .filter(|message| message.body_str() == *body)
            .map(|message| message.message_id().into_owned())
            .collect();
        assert_eq!(ids.len(), 1, "the id of {body} changed");
    }
    wait::until("all are done", async || Ok(server.committed(&group, &topic, 4).await? == 23)).await?;
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn a_message_whose_handler_panics_comes_again_and_becomes_a_dead_letter(server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    let mut config = consumer_config();
    config.max_reconsume = Some(1);
    // One at a time: a panic must not take the place of the others.
    config.concurrency = 1;
    let notes = seen.clone();
    let manager = server.manager();
    PushConsumer::builder(&group)
        .config(config)
        .subscribe(topic.as_str(), "*", move |messages| {
            messages.iter().for_each(|message| notes.note(message));
            let body = messages[0].body_str().into_owned();
            async move {
                assert_ne!(body, "panics before it waits", "as it was told");
                tokio::task::yield_now().await;
                assert_ne!(body, "panics after it has waited", "as it was told");
            }
        })
        .build(&manager)?;
    manager.start().await?;

    let bad = send(&producer, &topic, ["panics before it waits", "panics after it has waited"]).await?;
    let good = send_numbers(&producer, &topic, 10).await?;

    dead_letters(&server, &group, &bad).await?;
    seen.until_all(&good.union(&bad).cloned().collect()).await?;
    for body in &bad {
        assert_eq!(times_before(&seen, body), [0, 1], "{body}");
    }
    for body in &good {
        assert_eq!(times_before(&seen, body), [0], "{body}");
    }
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn a_message_whose_handler_takes_too_long_comes_again(server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    let mut config = consumer_config();
    config.consume_timeout = Duration::from_secs(1);
    let notes = seen.clone();
    let manager = server.manager();
    PushConsumer::builder(&group)
        .config(config)
        .subscribe(topic.as_str(), "*", move |messages| {
            messages.iter().for_each(|message| notes.note(message));
            let is_stuck = messages[0].body_str() == "slow" && messages[0].reconsume_times() == 0;
            async move {
                if is_stuck {
                    pending::<()>().await;
                }
            }
        })
        .build(&manager)?;
    manager.start().await?;

    let mut sent = send(&producer, &topic, ["slow"]).await?;
    sent.extend(send_numbers(&producer, &topic, 10).await?);

    seen.until("the slow one came again", |handled| handled.times.get("slow") == Some(&2)).await?;
    seen.until_all(&sent).await?;
    assert_eq!(times_before(&seen, "slow"), [0, 1]);
    wait::until("all are done", async || Ok(server.committed(&group, &topic, 1).await? == 11)).await?;
    assert_eq!(server.dead_letters(&group).await?, 0);
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

/// Nothing can stop such a handler: its message is given back without asking, and what it says later does not count.
async fn a_message_whose_handler_blocks_its_thread_comes_again(server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    let mut config = consumer_config();
    config.consume_timeout = Duration::from_secs(1);
    let notes = seen.clone();
    let manager = server.manager();
    PushConsumer::builder(&group)
        .config(config)
        .subscribe(topic.as_str(), "*", move |messages| {
            messages.iter().for_each(|message| notes.note(message));
            if messages[0].reconsume_times() == 0 {
                thread::sleep(Duration::from_secs(6));
            }
            async { Err::<(), _>("whatever it says") }
        })
        .build(&manager)?;
    manager.start().await?;
    // The thread that blocks may be the one that looks at sockets and clocks for all others, which sleep: tokio then
    // stands still until somebody comes from outside, as this one does.
    let (_here, gone) = mpsc::channel::<()>();
    let runtime = Handle::current();
    thread::spawn(move || {
        while gone.recv_timeout(Duration::from_millis(100)) == Err(RecvTimeoutError::Timeout) {
            runtime.spawn(async {});
        }
    });
    let start = Instant::now();
    send(&producer, &topic, ["blocks"]).await?;
    seen.until("it came again", |handled| handled.times.get("blocks") == Some(&2)).await?;
    assert!(start.elapsed() < Duration::from_secs(6), "it came only after the first one was done");
    assert_eq!(times_before(&seen, "blocks"), [0, 1]);
    // The first one's failure must not bring the message once more: the second one's does.
    seen.until("the second one failed", |handled| handled.times.get("blocks") == Some(&3)).await?;
    assert_eq!(times_before(&seen, "blocks")[2], 2);
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn a_dead_letter_is_not_tried_again(server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, 2).await?;
    let (sender, producer) = server.producer().await?;
    let notes = seen.clone();
    let manager = server.manager();
    PushConsumer::builder(&group)
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", move |messages| {
            messages.iter().for_each(|message| notes.note(message));
            let is_hopeless = messages[0].body_str() == "hopeless";
            async move { if is_hopeless { ConsumeResult::DeadLetter } else { ConsumeResult::Success } }
        })
        .build(&manager)?;
    manager.start().await?;
    let mut sent = send(&producer, &topic, ["hopeless"]).await?;
    let dead = dead_letters(&server, &group, &sent).await?;
    assert_eq!(dead.len(), 1);
    sent.extend(send_numbers(&producer, &topic, 10).await?);
    seen.until_all(&sent).await?;
    seen.ensure_once()?;
    wait::until("all are done", async || Ok(server.committed(&group, &topic, 2).await? == 11)).await?;
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn of_a_batch_only_what_is_not_acknowledged_comes_again(server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    // One after the other, so that the batch is in this order, and before there is anybody to take the first alone.
    let mut sent = BTreeSet::new();
    for body in ["0", "1", "2", "3", "4"] {
        sent.extend(send(&producer, &topic, [body]).await?);
    }
    let mut config = consumer_config();
    config.batch = 5;
    let notes = seen.clone();
    let manager = server.manager();
    PushConsumer::builder(&group)
        .config(config)
        .subscribe(topic.as_str(), "*", move |messages| {
            messages.iter().for_each(|message| notes.note(message));
            let is_first = messages.len() == 5 && messages[0].reconsume_times() == 0;
            async move { if is_first { ConsumeResult::AckFirst(2) } else { ConsumeResult::Success } }
        })
        .build(&manager)?;
    manager.start().await?;

    seen.until("three came again", |handled| handled.messages.len() == 8).await?;
    seen.until_all(&sent).await?;
    for (body, times) in [("0", 1), ("1", 1), ("2", 2), ("3", 2), ("4", 2)] {
        let expected: Vec<u32> = (0..times).collect();
        assert_eq!(times_before(&seen, body), expected, "{body}");
    }
    wait::until("all are done", async || Ok(server.committed(&group, &topic, 1).await? == 5)).await?;
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn a_message_comes_again_after_the_delay_that_was_asked_for(server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    let notes = seen.clone();
    let manager = server.manager();
    PushConsumer::builder(&group)
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", move |messages| {
            messages.iter().for_each(|message| notes.note(message));
            let is_first = messages[0].reconsume_times() == 0;
            async move {
                if is_first { ConsumeResult::ReconsumeAfter(DelayLevel::S5) } else { ConsumeResult::Success }
            }
        })
        .build(&manager)?;
    manager.start().await?;
    let sent = send_numbers(&producer, &topic, 5).await?;
    seen.until_all(&sent).await?;
    seen.until("all came again", |handled| handled.messages.len() == 10).await?;
    for body in &sent {
        assert_eq!(times_before(&seen, body), [0, 1], "{body}");
    }
    let stored: Vec<i64> = seen.messages().iter().map(MessageExt::store_timestamp_ms).collect();
    let (first, again) = stored.split_at(5);
    let (earliest, least) = (first.iter().min(), server.second_delay().as_millis() as i64);
    assert!(server.delay() < server.second_delay());
    for again in again {
        // Clocks and schedules are a little coarse.
        let waited = again - earliest.copied().unwrap_or_default();
        assert!(least - 50 <= waited, "{waited} ms in place of {least}");
    }
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}
