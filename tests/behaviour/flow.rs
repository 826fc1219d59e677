//! How much a consumer holds of its queues, and how much it asks for: its limits, and at most one pull more.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use rocketmq::client::MqClientManager;
use rocketmq::config::{ByteSize, ConsumerConfig};
use rocketmq::{ConsumeResult, MessageExt, Producer, PushConsumer};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::seen::{Handled, Seen};
use crate::sending::{send, send_numbers};
use crate::server::{Server, consumer_config, producer_config, unique};
use crate::wait;

on_all_servers_at_once! { Shared:
    no_more_is_held_of_a_queue_than_the_limit_and_one_pull,
    a_limit_of_all_queues_is_shared_by_those_that_a_member_has,
    no_more_messages_come_with_a_pull_than_were_asked_for,
    how_many_bytes_come_with_a_pull_is_for_the_broker_to_say,
    a_pull_that_brought_something_is_followed_by_the_pause,
}

/// Handlers that all begin at once, one for each message that is held, and end when they may.
#[derive(Debug, Clone)]
struct Handlers {
    begun: Seen,
    ended: Seen,
    may_end: Arc<Semaphore>,
}

impl Handlers {
    /// Those of a consumer that is made here.
    fn of_consumer(
        manager: &MqClientManager,
        [group, topic]: [&str; 2],
        set: impl FnOnce(&mut ConsumerConfig),
    ) -> Result<(PushConsumer, Self)> {
        let handlers =
            Self { begun: Seen::default(), ended: Seen::default(), may_end: Arc::new(Semaphore::new(0)) };
        let mut config = consumer_config();
        config.concurrency = 1_000;
        set(&mut config);
        let listener = handlers.clone();
        let consumer = PushConsumer::builder(group)
            .config(config)
            .subscribe(topic, "*", move |messages: Vec<MessageExt>| {
                let handlers = listener.clone();
                async move {
                    messages.iter().for_each(|message| handlers.begun.note(message));
                    // It is closed once all may end.
                    if let Ok(permit) = handlers.may_end.acquire().await {
                        permit.forget();
                    }
                    messages.iter().for_each(|message| handlers.ended.note(message));
                    ConsumeResult::Success
                }
            })
            .build(manager)?;
        Ok((consumer, handlers))
    }

    /// How many have begun with messages of each of four queues.
    fn begun_of_each(handled: &Handled) -> [usize; 4] {
        [0, 1, 2, 3].map(|id| handled.messages.iter().filter(|message| message.queue_id() == id).count())
    }
}

async fn no_more_is_held_of_a_queue_than_the_limit_and_one_pull(server: Server) -> Result<()> {
    const COUNT: u32 = 80;
    const PULL: u32 = 8;
    // Ten such bodies are less than a MiB, and eleven are more.
    const BODY_BYTES: usize = 100 << 10;
    // A name, and how many messages are not yet too many. A limit for all queues is halved where there is a queue of retries.
    type Limit = (&'static str, [u32; 2], fn(&mut ConsumerConfig));
    let limits: [Limit; 5] = [
        ("messages-per-queue", [20, 20], |config| config.flow.messages_per_queue = 20),
        ("messages-per-topic", [10, 20], |config| config.flow.messages_per_topic = Some(20)),
        ("mib-per-queue", [10, 10], |config| config.flow.mib_per_queue = 1),
        ("mib-per-topic", [10, 10], |config| config.flow.mib_per_topic = Some(1)),
        ("span", [21, 21], |config| config.flow.span = 20),
    ];
    let topic = unique("held");
    server.create_topic(&topic, 1).await?;
    let (manager, producer) = server.producer().await?;
    let sent =
        send(&producer, &topic, (0..COUNT).map(|number| format!("{number:04}").repeat(BODY_BYTES / 4)))
            .await?;
    let mut members = Vec::new();
    for (name, bounds, set) in limits {
        let (consumer, handlers) =
            Handlers::of_consumer(&manager, [&format!("{topic}-{name}"), &topic], |config| {
                config.pull_batch = PULL;
                set(config);
            })?;
        consumer.start().await?;
        members.push((name, bounds, consumer, handlers));
    }
    let mut broken = Vec::new();
    for (name, [least, most], consumer, handlers) in members {
        handlers.begun.until_count(least as usize + 1).await?;
        for done in 0..COUNT {
            let pulled = consumer.stats().get(&topic).map_or(0, |stats| stats.pulled);
            let held = pulled - u64::from(done);
            if u64::from(most + PULL) < held {
                broken.push(format!("{name}: {held} were held once {done} were done"));
            }
            handlers.may_end.add_permits(1);
            handlers.ended.until_count(done as usize + 1).await?;
        }
        handlers.ended.until_all(&sent).await?;
        handlers.ended.ensure_once()?;
    }
    ensure!(broken.is_empty(), "{broken:#?}");
    manager.shutdown().await?;
    Ok(())
}

async fn a_limit_of_all_queues_is_shared_by_those_that_a_member_has(server: Server) -> Result<()> {
    const PULL: u32 = 4;
    // All queues of the first member are four and that of retries, which may not be there yet; later each member has two,
    // and one of them that of retries: between 16 and 20 messages of each queue, later between 26 and 40.
    const LIMIT: u32 = 80;
    let (topic, group) = (unique("held"), unique("group"));
    server.create_topic(&topic, 4).await?;
    let (sender, producer) = server.producer().await?;
    let sent = send_numbers(&producer, &topic, 240).await?;
    let limit = |config: &mut ConsumerConfig| {
        config.pull_batch = PULL;
        config.flow.messages_per_topic = Some(LIMIT);
    };
    let (first, second) = (server.manager(), server.manager());
    let (_, by_first) = Handlers::of_consumer(&first, [&group, &topic], limit)?;
    let (_, by_second) = Handlers::of_consumer(&second, [&group, &topic], limit)?;

    first.start().await?;
    let all_full = |handled: &Handled| Handlers::begun_of_each(handled).iter().all(|begun| 16 < *begun);
    by_first.begun.until("all four are full", all_full).await?;
    let held = Handlers::begun_of_each(&by_first.begun.handled());
    ensure!(held.iter().all(|held| *held <= 24), "{held:?}");

    second.start().await?;
    let two_full =
        |handled: &Handled| Handlers::begun_of_each(handled).iter().filter(|begun| 26 < **begun).count() == 2;
    by_first.begun.until("two hold more", two_full).await?;
    by_second.begun.until("and the other two in the other member", two_full).await?;
    for handlers in [&by_first, &by_second] {
        let held = Handlers::begun_of_each(&handlers.begun.handled());
        ensure!(held.iter().all(|held| *held <= 44), "{held:?}");
    }

    by_first.may_end.close();
    by_second.may_end.close();
    wait::until("everything was handled", async || {
        Ok(by_first.ended.bodies().union(&by_second.ended.bodies()).eq(&sent))
    })
    .await?;
    for manager in [first, second, sender] {
        manager.shutdown().await?;
    }
    Ok(())
}

async fn no_more_messages_come_with_a_pull_than_were_asked_for(server: Server) -> Result<()> {
    let topic = unique("pulled");
    server.create_topic(&topic, 1).await?;
    let (manager, producer) = server.producer().await?;
    let sent = send_numbers(&producer, &topic, 40).await?;
    for pull_batch in [2, 7] {
        let group = unique("group");
        let (consumer, handlers) = Handlers::of_consumer(&manager, [&group, &topic], |config| {
            config.pull_batch = pull_batch;
            // Whatever the first pull brings is too much already.
            config.flow.messages_per_queue = 1;
        })?;
        consumer.start().await?;
        for pulls in 1..=3 {
            let expected = (pulls * pull_batch) as usize;
            handlers.begun.until_count(expected).await?;
            ensure!(handlers.begun.count() == expected, "{} of {pull_batch}", handlers.begun.count());
            handlers.may_end.add_permits(pull_batch as usize);
            handlers.ended.until_count(expected).await?;
        }
        handlers.may_end.close();
        handlers.ended.until_all(&sent).await?;
    }
    manager.shutdown().await?;
    Ok(())
}

async fn how_many_bytes_come_with_a_pull_is_for_the_broker_to_say(server: Server) -> Result<()> {
    // Two are less than the 256 KiB that brokers give at once, and three are more.
    const BODY_BYTES: usize = 100 << 10;
    let topic = unique("pulled");
    server.create_topic(&topic, 1).await?;
    let (manager, mut config) = (server.manager(), producer_config());
    config.compress_over = ByteSize::mib(1);
    let producer = Producer::builder(unique("producer")).config(config).build(&manager)?;
    manager.start().await?;
    let bodies = (0..6).map(|number| number.to_string().repeat(BODY_BYTES));
    let sent = send(&producer, &topic, bodies).await?;
    for wish in [ByteSize::kib(1), ByteSize::mib(64)] {
        let (consumer, handlers) = Handlers::of_consumer(&manager, [&unique("group"), &topic], |config| {
            config.pull_batch_bytes = wish;
            // Whatever the first pull brings is too much already.
            config.flow.messages_per_queue = 1;
        })?;
        consumer.start().await?;
        for pulled in [2, 4, 6] {
            handlers.begun.until_count(pulled).await?;
            ensure!(handlers.begun.count() == pulled, "{} with {wish:?}", handlers.begun.count());
            handlers.may_end.add_permits(2);
            handlers.ended.until_count(pulled).await?;
        }
        handlers.ended.until_all(&sent).await?;
    }
    manager.shutdown().await?;
    Ok(())
}

async fn a_pull_that_brought_something_is_followed_by_the_pause(server: Server) -> Result<()> {
    const PAUSE: Duration = Duration::from_secs(1);
    let (topic, group) = (unique("paused"), unique("group"));
    server.create_topic(&topic, 1).await?;
    let (manager, producer) = server.producer().await?;
    let sent = send_numbers(&producer, &topic, 6).await?;
    let (consumer, handlers) = Handlers::of_consumer(&manager, [&group, &topic], |config| {
        config.pull_batch = 2;
        config.pull_interval = PAUSE;
    })?;
    handlers.may_end.close();
    let start = Instant::now();
    consumer.start().await?;
    handlers.ended.until_all(&sent).await?;

    let took = start.elapsed();
    ensure!(PAUSE * 2 <= took, "three pulls came within {took:?}");
    manager.shutdown().await?;
    Ok(())
}
