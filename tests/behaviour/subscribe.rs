//! Topics that are subscribed and unsubscribed while the consumer runs.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rocketmq::client::MqClientManager;
use rocketmq::config::{ConsumeMode, ConsumerConfig, RetryDelay};
use rocketmq::{
    ConsumeResult, Filter, Message, MessageExt, PushConsumer, RequestCode, RequestError, RpcAnswer, RpcCall,
    RpcHook, RpcRequest,
};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::timeout;

use crate::seen::{Handled, Seen};
use crate::sending::{send, send_all, send_numbers};
use crate::server::{Server, consumer_config, unique};
use crate::wait;

on_all_servers_at_once! { Shared:
    a_topic_comes_and_goes_and_comes_again_with_nothing_lost,
    what_is_at_work_is_finished_and_what_waits_comes_when_the_topic_is_subscribed_again,
    another_expression_takes_effect_at_once_and_nothing_is_passed_over,
    what_is_retried_of_a_topic_that_was_left_goes_to_the_listener_that_it_had,
    brokers_know_what_is_subscribed_and_refuse_what_they_cannot_do,
    changes_that_come_at_the_same_time_all_count,
}

on_all_servers_of_5_at_once! { Shared:
    a_topic_that_is_popped_comes_and_goes_and_comes_again,
    another_expression_takes_effect_at_once_also_where_messages_are_popped,
    another_expression_takes_effect_also_where_nobody_waits_for_that,
    what_is_popped_of_a_topic_that_is_left_in_the_middle_of_a_rebalance_is_not_lost,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Concurrent,
    Orderly,
    Broadcasting,
    Pop,
}

/// A consumer of all that is subscribed by hand, and how many queues of `watched` it has.
struct Member {
    consumer: PushConsumer,
    manager: MqClientManager,
    group: String,
    queues: Arc<AtomicUsize>,
}

impl Member {
    fn new(server: &Server, kind: Kind, watched: &str, seen: &Seen) -> Result<Self> {
        let mut cluster = server.cluster();
        cluster.client.offset_dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique("offsets"));
        let manager = MqClientManager::new(cluster);
        let (group, queues) = (unique("group"), Arc::new(AtomicUsize::new(0)));
        let mut config = consumer_config();
        if kind == Kind::Pop {
            config.mode = ConsumeMode::Pop;
        }
        let (count, topic) = (Arc::clone(&queues), watched.to_owned());
        let builder = PushConsumer::builder(&group).config(config).message_queue_listener(move |change| {
            if change.topic == topic {
                count.store(change.owned.len(), Ordering::SeqCst);
            }
        });
        let builder = match kind {
            Kind::Concurrent | Kind::Pop => builder,
            Kind::Orderly => builder.orderly(),
            Kind::Broadcasting => builder.broadcasting(),
        };
        let consumer = builder.build(&manager)?;
        consumer.register_message_listener(seen.listener())?;
        Ok(Self { consumer, manager, group, queues })
    }

    async fn until_queues(&self, count: usize) -> Result<()> {
        wait::until(&format!("it has {count} queues"), async || {
            Ok(self.queues.load(Ordering::SeqCst) == count)
        })
        .await
    }
}

async fn a_topic_comes_and_goes_and_comes_again_with_nothing_lost(server: Server) -> Result<()> {
    for kind in [Kind::Concurrent, Kind::Orderly, Kind::Broadcasting] {
        comes_and_goes(&server, kind).await.with_context(|| format!("{kind:?}"))?;
    }
    Ok(())
}

async fn a_topic_that_is_popped_comes_and_goes_and_comes_again(server: Server) -> Result<()> {
    comes_and_goes(&server, Kind::Pop).await
}

/// Does something when a broker has said which queues of a topic are ours, before that is heard.
#[derive(Clone)]
struct InTheMiddle {
    topic: String,
    is_asked: Arc<AtomicBool>,
    work: Arc<Mutex<Option<BoxedWork>>>,
}

type BoxedWork = Pin<Box<dyn Future<Output = ()> + Send>>;

impl InTheMiddle {
    fn new(topic: &str) -> Self {
        Self { topic: topic.to_owned(), is_asked: Arc::default(), work: Arc::default() }
    }

    fn work(&self) -> MutexGuard<'_, Option<BoxedWork>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RpcHook for InTheMiddle {
    fn before(&self, request: &mut RpcRequest<'_>) -> Result<(), String> {
        if request.code() == RequestCode::QUERY_ASSIGNMENT {
            let is_asked = String::from_utf8_lossy(request.body()).contains(&self.topic);
            self.is_asked.store(is_asked, Ordering::SeqCst);
        }
        Ok(())
    }

    fn after(&self, call: &RpcCall<'_>, _: Result<&RpcAnswer<'_>, &RequestError>) {
        if call.code == RequestCode::QUERY_ASSIGNMENT && self.is_asked.load(Ordering::SeqCst) {
            let work = self.work().take();
            work.into_iter().for_each(|work| block_in_place(|| Handle::current().block_on(work)));
        }
    }
}

async fn what_is_popped_of_a_topic_that_is_left_in_the_middle_of_a_rebalance_is_not_lost(
    server: Server,
) -> Result<()> {
    let (kept, left, seen) = (unique("kept"), unique("left"), Seen::default());
    server.create_topic(&kept, 1).await?;
    server.create_topic(&left, 1).await?;
    let (sender, producer) = server.producer().await?;
    let Member { consumer, manager, .. } = Member::new(&server, Kind::Pop, "", &seen)?;
    let hook = InTheMiddle::new(&left);
    manager.register_rpc_hook(hook.clone())?;
    consumer.subscribe(kept.as_str(), "*").await?;
    consumer.subscribe(left.as_str(), "*").await?;
    manager.start().await?;
    let mut sent = send(&producer, &left, ["before"]).await?;
    seen.until_all(&sent).await?;

    let (done, is_done) = oneshot::channel();
    let (leaving, topic) = (consumer.clone(), left.clone());
    *hook.work() = Some(Box::pin(async move {
        let left = leaving.unsubscribe(&topic).await;
        let sent = producer.send(Message::new(topic).body("while it is not subscribed")).await;
        let _ = done.send((left, sent, producer));
    }));
    consumer.resume();
    let (left_it, meanwhile, producer) = is_done.await?;
    ensure!(left_it?, "it was subscribed");
    // What goes on after the answer has its time, until it is at rest again.
    sent.extend(send(&producer, &kept, ["the other topic goes on"]).await?);
    seen.until_all(&sent).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;

    consumer.subscribe(left.as_str(), "*").await?;
    meanwhile?;
    sent.insert("while it is not subscribed".to_owned());
    seen.until_all(&sent).await?;
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn comes_and_goes(server: &Server, kind: Kind) -> Result<()> {
    let (first, second, seen) = (unique("first"), unique("second"), Seen::default());
    server.create_topic(&first, 2).await?;
    server.create_topic(&second, 2).await?;
    let (sender, producer) = server.producer().await?;
    let member = Member::new(server, kind, &second, &seen)?;
    let Member { consumer, manager, .. } = &member;
    consumer.subscribe(first.as_str(), "*").await?;
    manager.start().await?;
    let mut sent = send(&producer, &first, ["before"]).await?;
    seen.until_all(&sent).await?;

    consumer.subscribe(second.as_str(), "*").await?;
    sent.extend(send(&producer, &second, ["while it is subscribed", "twice"]).await?);
    seen.until_all(&sent).await?;

    ensure!(consumer.unsubscribe(&second).await?, "it was subscribed");
    ensure!(!consumer.unsubscribe(&second).await?, "it is not any more");
    if kind != Kind::Pop {
        member.until_queues(0).await?;
    }
    if kind == Kind::Concurrent {
        wait::until("its offsets are stored", async || {
            Ok(server.committed(&member.group, &second, 2).await? == 2)
        })
        .await?;
    }
    let meanwhile = send(&producer, &second, ["while it is not"]).await?;
    sent.extend(send(&producer, &first, ["the other topic goes on"]).await?);
    seen.until_all(&sent).await?;

    consumer.subscribe(second.as_str(), "*").await?;
    sent.extend(meanwhile);
    seen.until_all(&sent).await?;
    seen.ensure_once()?;
    manager.shutdown().await?;
    let late = consumer.subscribe(first.as_str(), "*").await.err().context("it was shut down")?;
    ensure!(late.to_string().contains("cannot subscribe: it is shut down"), "{late}");
    sender.shutdown().await?;
    Ok(())
}

async fn what_is_at_work_is_finished_and_what_waits_comes_when_the_topic_is_subscribed_again(
    server: Server,
) -> Result<()> {
    const COUNT: u32 = 8;
    for kind in [Kind::Concurrent, Kind::Orderly] {
        let (first, second) = (unique("first"), unique("second"));
        let (begun, ended, may_end) = (Seen::default(), Seen::default(), Arc::new(Semaphore::new(0)));
        server.create_topic(&first, 1).await?;
        server.create_topic(&second, 1).await?;
        let (sender, producer) = server.producer().await?;
        let member = Member::new(&server, kind, &second, &Seen::default())?;
        let Member { consumer, manager, group, .. } = &member;
        consumer.subscribe(first.as_str(), "*").await?;
        let (notes, gate) = ([begun.clone(), ended.clone()], Arc::clone(&may_end));
        let listener = move |messages: Vec<MessageExt>| {
            let ([begun, ended], gate) = (notes.clone(), Arc::clone(&gate));
            async move {
                messages.iter().for_each(|message| begun.note(message));
                // Only the first two wait: it is closed then.
                let _ = gate.acquire().await;
                messages.iter().for_each(|message| ended.note(message));
                ConsumeResult::Success
            }
        };
        consumer.subscribe_with(second.as_str(), "*", listener.clone()).await?;
        let sent = send_numbers(&producer, &second, 1).await?;
        manager.start().await?;
        begun.until_all(&sent).await?;

        consumer.unsubscribe(&second).await?;
        let sent = send_numbers(&producer, &second, COUNT).await?;
        ensure!(server.committed(group, &second, 1).await? == 0, "{kind:?}: the first is not done");
        may_end.close();
        ended.until_count(1).await?;
        member.until_queues(0).await?;
        wait::until("the offset behind it is stored", async || {
            Ok(server.committed(group, &second, 1).await? == 1)
        })
        .await?;
        ensure!(begun.count() == 1, "{kind:?}: more were begun: {:?}", begun.bodies());

        consumer.subscribe_with(second.as_str(), "*", listener).await?;
        ended.until_all(&sent).await?;
        // The number 0 was sent twice.
        let times = |handled: &Handled| handled.times.values().sum::<u32>();
        ended.until("all came", |handled| times(handled) == COUNT + 1).await?;
        wait::until("all are stored", async || {
            Ok(server.committed(group, &second, 1).await? == i64::from(COUNT) + 1)
        })
        .await?;
        ensure!(times(&ended.handled()) == COUNT + 1, "{kind:?}: some came twice");
        manager.shutdown().await?;
        sender.shutdown().await?;
    }
    Ok(())
}

async fn another_expression_takes_effect_at_once_and_nothing_is_passed_over(server: Server) -> Result<()> {
    for with_each_pull in [false, true] {
        let mut config = consumer_config();
        config.post_subscription = with_each_pull;
        changes_its_expression(&server, config, Change::AtOnce).await?;
    }
    Ok(())
}

async fn another_expression_takes_effect_at_once_also_where_messages_are_popped(
    server: Server,
) -> Result<()> {
    let mut config = consumer_config();
    config.mode = ConsumeMode::Pop;
    changes_its_expression(&server, config.clone(), Change::AtOnce).await?;
    changes_its_expression(&server, config, Change::Anew).await
}

async fn another_expression_takes_effect_also_where_nobody_waits_for_that(server: Server) -> Result<()> {
    let mut config = consumer_config();
    config.mode = ConsumeMode::Pop;
    changes_its_expression(&server, config, Change::GivenUp).await
}

/// How the expression of a topic is changed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Change {
    AtOnce,
    /// Nobody waits for the end of it.
    GivenUp,
    /// The topic is left, and subscribed again.
    Anew,
}

async fn changes_its_expression(server: &Server, config: ConsumerConfig, change: Change) -> Result<()> {
    let (topic, seen) = (unique("changing"), Seen::default());
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    let manager = server.manager();
    let consumer = PushConsumer::builder(unique("group")).config(config).build(&manager)?;
    consumer.register_message_listener(seen.listener())?;
    consumer.subscribe(topic.as_str(), "a").await?;
    manager.start().await?;
    let of = |body: &'static str| Message::new(topic.as_str()).tag(&body[..1]).body(body);
    // Alone, so that it is passed over before the others come.
    send_all(&producer, [of("b1")]).await?;
    send_all(&producer, ["a1", "a2"].map(of)).await?;
    seen.until("those of the one tag are handled", |handled| handled.times.len() == 2).await?;

    if change == Change::Anew {
        ensure!(consumer.unsubscribe(&topic).await?, "it was subscribed");
    }
    if change == Change::GivenUp {
        let changed = timeout(Duration::ZERO, consumer.subscribe(topic.as_str(), "b")).await;
        ensure!(changed.is_err(), "a broker was told");
        // Whose turn is next.
        ensure!(!consumer.unsubscribe("never-heard-of").await?);
    } else {
        consumer.subscribe(topic.as_str(), "b").await?;
    }
    // What waited at the broker was asked for by the tag of before, and would pass over the first.
    for body in ["b2", "a3", "b3", "a4", "b4"] {
        send_all(&producer, [of(body)]).await?;
    }

    let wanted = |handled: &Handled| ["b2", "b3", "b4"].iter().all(|body| handled.times.contains_key(*body));
    // Far less than that would have waited.
    seen.until_within(Duration::from_secs(10), "those of the other tag are handled", wanted).await?;
    ensure!(seen.bodies().into_iter().eq(["a1", "a2", "b2", "b3", "b4"]), "{:?}", seen.bodies());
    seen.ensure_once()?;
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn what_is_retried_of_a_topic_that_was_left_goes_to_the_listener_that_it_had(
    server: Server,
) -> Result<()> {
    let (kept, left, seen) = (unique("kept"), unique("left"), Seen::default());
    server.create_topic(&kept, 1).await?;
    server.create_topic(&left, 1).await?;
    let (sender, producer) = server.producer().await?;
    let manager = server.manager();
    let mut config = consumer_config();
    // Long enough to unsubscribe the topic meanwhile.
    config.retry_delay = RetryDelay::Level(2);
    let group = unique("group");
    let consumer = PushConsumer::builder(&group)
        .config(config)
        .subscribe(kept.as_str(), "*", seen.listener())
        .build(&manager)?;
    let notes = seen.clone();
    let fails_once = move |messages: Vec<MessageExt>| {
        let is_first = messages[0].reconsume_times() == 0;
        if !is_first {
            messages.iter().for_each(|message| notes.note(message));
        }
        async move { if is_first { ConsumeResult::ReconsumeLater } else { ConsumeResult::Success } }
    };
    consumer.subscribe_with(left.as_str(), "*", fails_once).await?;
    manager.start().await?;
    let sent = send_numbers(&producer, &left, 1).await?;
    wait::until("it is to be retried", async || Ok(server.committed(&group, &left, 1).await? == 1)).await?;

    consumer.unsubscribe(&left).await?;

    seen.until_all(&sent).await?;
    ensure!(seen.messages()[0].topic() == left, "it has the topic that it was sent to");
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn brokers_know_what_is_subscribed_and_refuse_what_they_cannot_do(server: Server) -> Result<()> {
    let (first, second, seen) = (unique("first"), unique("second"), Seen::default());
    server.create_topic(&first, 1).await?;
    server.create_topic(&second, 1).await?;
    let (sender, producer) = server.producer().await?;
    let member = Member::new(&server, Kind::Concurrent, &second, &seen)?;
    let Member { consumer, manager, group, .. } = &member;
    consumer.subscribe(first.as_str(), "*").await?;
    consumer.subscribe("not-wanted-after-all", "*").await?;
    ensure!(consumer.unsubscribe("not-wanted-after-all").await?, "also before the start");
    manager.start().await?;
    let shown = async || server.mqadmin(&["consumerConnection", "-g", group]).await;
    let of = |topic: &str, shown: &str| {
        shown.lines().filter(|line| line.contains(topic)).map(str::to_owned).collect::<String>()
    };

    consumer.subscribe(second.as_str(), "a || b").await?;
    let told = shown().await?;
    ensure!(of(&second, &told).contains("a || b"), "{told}");

    let refused = consumer.subscribe(second.as_str(), Filter::sql("(region LIKE 'e%')")).await;
    let refused = refused.err().context("the broker reads it")?.to_string();
    for part in [&server.broker_addr().to_string(), &second, "SUBSCRIPTION_PARSE_FAILED"] {
        ensure!(refused.contains(part), "{part} is not in: {refused}");
    }
    // Nothing has changed.
    let tagged = ["a", "c"].map(|tag| Message::new(second.as_str()).tag(tag).body(format!("of {tag}")));
    send_all(&producer, tagged).await?;
    seen.until_all(&["of a".to_owned()].into()).await?;

    consumer.subscribe(second.as_str(), Filter::sql("region = 'eu'")).await?;
    let told = shown().await?;
    ensure!(of(&second, &told).contains("region = 'eu'"), "{told}");
    consumer.unsubscribe(&second).await?;
    let told = shown().await?;
    ensure!(!of(&first, &told).is_empty() && of(&second, &told).is_empty(), "{told}");
    ensure!(!consumer.unsubscribe("never-heard-of").await?);

    manager.shutdown().await?;
    let late = consumer.unsubscribe(&first).await.err().context("it was shut down")?;
    ensure!(late.to_string().contains("cannot unsubscribe: it is shut down"), "{late}");
    let without = PushConsumer::builder(unique("group")).subscribe(first.as_str(), "*", seen.listener());
    let again = server.manager();
    let without = without.build(&again)?;
    again.start().await?;
    let error = without.subscribe(second.as_str(), "*").await.err().context("for which listener?")?;
    ensure!(error.to_string().contains("call `subscribe_with`"), "{error}");
    again.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn changes_that_come_at_the_same_time_all_count(server: Server) -> Result<()> {
    let (seen, topics) = (Seen::default(), ["t", "u", "v", "w", "x", "y"].map(unique));
    for topic in &topics {
        server.create_topic(topic, 1).await?;
    }
    let (sender, producer) = server.producer().await?;
    let Member { consumer, manager, .. } = Member::new(&server, Kind::Concurrent, "", &seen)?;
    let (leaving, coming) = topics.split_at(3);
    for topic in leaving {
        consumer.subscribe(topic.as_str(), "*").await?;
    }
    manager.start().await?;

    let mut changes = JoinSet::new();
    for topic in leaving {
        let (consumer, topic) = (consumer.clone(), topic.clone());
        changes.spawn(async move { consumer.unsubscribe(&topic).await });
    }
    for topic in coming {
        let (consumer, topic) = (consumer.clone(), topic.clone());
        changes.spawn(async move { consumer.subscribe(topic, "*").await.map(|()| true) });
    }
    for changed in changes.join_all().await {
        ensure!(changed?);
    }
    for topic in leaving {
        send(&producer, topic, [format!("of {topic}, which was left")]).await?;
    }
    let mut sent = std::collections::BTreeSet::new();
    for topic in coming {
        sent.extend(send(&producer, topic, [format!("of {topic}")]).await?);
    }

    seen.until_all(&sent).await?;

    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}
