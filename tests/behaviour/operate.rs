//! Operators look at consumers, and tell them what to do, with Apache's own tool.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use rocketmq::client::MqClientManager;
use rocketmq::config::ConsumeMode;
use rocketmq::{
    App, ConsumeHook, ConsumeResult, ConsumeStatus, Consumed, Consuming, Delivery, Message, MessageExt, Next,
    PushConsumer,
};
use rocketmq_tests::{ServerKind, Version, can_run};
use tokio::sync::{Semaphore, watch};
use tokio::{time, try_join};

use crate::seen::Seen;
use crate::sending::{send, send_numbers};
use crate::server::{Server, Use, config, consumer_config, run, unique};
use crate::wait;

on_all_servers_at_once! { Shared:
    what_a_consumer_does_is_shown_to_operators,
    what_a_consumer_that_pops_does_is_shown_to_operators,
    a_group_goes_on_from_where_an_operator_sets_it_while_it_runs,
    a_group_that_is_suspended_goes_on_from_where_an_operator_has_set_it,
    a_message_is_handled_by_the_client_that_an_operator_sends_it_to,
}

on_each_server! { Shared:
    calls_are_counted_and_shown_to_hooks,
}

on_all_servers_at_once! { Otherwise:
    members_go_on_from_where_they_are_told_in_the_form_for_java_and_in_that_for_c,
}

const QUEUES: u32 = 4;

/// Keeps handlers from ending until it is opened.
#[derive(Debug, Clone)]
struct Gate(Arc<Semaphore>);

impl Gate {
    fn closed() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    fn open(&self) {
        self.0.close();
    }

    async fn pass(&self) {
        // Opening it is closing the semaphore.
        let _ = self.0.acquire().await;
    }
}

/// A listener that notes messages, and waits at the gate with those whose body says so.
fn gated(
    seen: &Seen,
    gate: &Gate,
    waits: &'static str,
) -> impl Fn(Vec<MessageExt>) -> std::pin::Pin<Box<dyn Future<Output = ConsumeResult> + Send>> + Send + Sync + use<>
{
    let (seen, gate) = (seen.clone(), gate.clone());
    move |messages| {
        let (seen, gate) = (seen.clone(), gate.clone());
        Box::pin(async move {
            for message in &messages {
                seen.note(message);
                if message.body_str().starts_with(waits) {
                    gate.pass().await;
                }
            }
            ConsumeResult::Success
        })
    }
}

/// The lines of a table that has this word in it.
fn lines<'a>(printed: &'a str, word: &str) -> Vec<&'a str> {
    printed.lines().filter(|line| line.contains(word)).collect()
}

async fn what_a_consumer_does_is_shown_to_operators(server: Server) -> Result<()> {
    if server.is_embedded() && !can_run(Version::V5_5_0)? {
        return Ok(());
    }
    let (topic, group, orderly) = (unique("orders"), unique("group"), unique("orderly"));
    server.create_topic(&topic, QUEUES).await?;
    let (sender, producer) = server.producer().await?;
    let (seen, in_order, gate) = (Seen::default(), Seen::default(), Gate::closed());
    let (manager, other) = (server.manager(), server.manager());
    let mut settings = consumer_config();
    settings.concurrency = 7;
    PushConsumer::builder(&group)
        .config(settings)
        .subscribe(topic.as_str(), "paid", gated(&seen, &gate, "slow"))
        .build(&manager)?;
    PushConsumer::builder(&orderly)
        .config(consumer_config())
        .orderly()
        .subscribe(topic.as_str(), "*", in_order.listener())
        .build(&other)?;
    try_join!(manager.start(), other.start())?;
    let paid = |body: String| producer.send(Message::new(&topic).tag("paid").body(body));
    for number in 0..20 {
        paid(number.to_string()).await?;
    }
    let slow = paid("slow".to_owned()).await?;
    seen.until_count(21).await?;
    in_order.until_count(21).await?;
    wait::until("all but one are stored", async || Ok(server.committed(&group, &topic, QUEUES).await? == 20))
        .await?;
    wait::until("all are stored", async || Ok(server.committed(&orderly, &topic, QUEUES).await? == 21))
        .await?;
    let id_of = async |group: &str| {
        let members = server.admin().members(group).await?;
        members.into_iter().next().context("there is a member")
    };
    let (client_id, orderly_id) = (id_of(&group).await?, id_of(&orderly).await?);

    let (progress, connection, status, orderly_status) = try_join!(
        async { server.mqadmin(&["consumerProgress", "-g", &group]).await },
        async { server.mqadmin(&["consumerConnection", "-g", &group]).await },
        async { server.mqadmin(&["consumerStatus", "-g", &group, "-i", &client_id, "-s"]).await },
        async { server.mqadmin(&["consumerStatus", "-g", &orderly, "-i", &orderly_id]).await },
    )?;

    // No command of the tool asks for this, but brokers pass it on.
    let offsets = server.admin().consumer_offsets(&orderly, &topic).await?;
    let queue = |id: u32| format!(r#"{{"brokerName":"broker-a","queueId":{id},"topic":"{topic}"}}:"#);
    assert!(offsets.contains(&orderly_id) && (0..QUEUES).all(|id| offsets.contains(&queue(id))), "{offsets}");
    assert_eq!(lines(&progress, &topic).len(), QUEUES as usize, "{progress}");
    assert!(progress.contains("Diff Total: 1\n"), "{progress}");
    for word in [&client_id, "RUST", &topic, "paid", "CONSUME_PASSIVELY", "CLUSTERING", "FIRST_OFFSET"] {
        assert!(connection.contains(word), "{word}: {connection}");
    }
    let value = |name: &str| {
        let of_name = |line: &str| {
            Some(line.split_once(':')?.1.trim().to_owned()).filter(|_| line.trim_start().starts_with(name))
        };
        status.lines().find_map(of_name).unwrap_or_default()
    };
    assert_eq!(value("consumeThreadMin"), "7", "{status}");
    assert_eq!(value("PROP_CONSUMEORDERLY"), "false", "{status}");
    assert_eq!(value("PROP_NAMESERVER_ADDR"), format!("{};", server.name_server()), "{status}");
    let started: u128 = value("PROP_CONSUMER_START_TIMESTAMP").parse()?;
    assert!(started <= SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis(), "{status}");
    // A row for the subscription, one for each queue in both tables of queues, and one for the rates.
    assert!(2 + QUEUES as usize <= lines(&status, &topic).len(), "{status}");
    assert!(status.contains("%RETRY%"), "{status}");
    let at_work = lines(&status, &slow.message_id);
    assert_eq!(at_work.len(), 1, "what handlers are doing is told: {status}");
    assert!(at_work[0].contains(&format!("the listener of {topic}")), "{status}");
    assert!(status.contains("1 of 7 handlers are busy"), "{status}");
    assert!(orderly_status.contains("locked=true"), "{orderly_status}");
    assert!(lines(&orderly_status, "PROP_CONSUMEORDERLY")[0].contains("true"), "{orderly_status}");

    gate.open();
    for manager in [manager, other, sender] {
        manager.shutdown().await?;
    }
    Ok(())
}

async fn what_a_consumer_that_pops_does_is_shown_to_operators(server: Server) -> Result<()> {
    if server.is_4_9() || server.is_embedded() && !can_run(Version::V5_5_0)? {
        return Ok(());
    }
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    let (seen, gate, manager) = (Seen::default(), Gate::closed(), server.manager());
    let mut config = consumer_config();
    (config.mode, config.concurrency) = (ConsumeMode::Pop, 7);
    PushConsumer::builder(&group)
        .config(config)
        .subscribe(topic.as_str(), "*", gated(&seen, &gate, "slow"))
        .build(&manager)?;
    manager.start().await?;
    let slow = producer.send(Message::new(&topic).body("slow")).await?;
    seen.until_count(1).await?;
    let client_id = server.admin().members(&group).await?.into_iter().next().context("there is a member")?;

    let status = server.mqadmin(&["consumerStatus", "-g", &group, "-i", &client_id, "-s"]).await?;

    let popped = status.split("#Consumer Pop Detail#").nth(1).context("it is told what is popped")?;
    assert!(lines(popped, &topic)[0].contains("waitAckCount:1"), "{status}");
    let at_work = lines(&status, &slow.message_id);
    assert_eq!(at_work.len(), 1, "what handlers are doing is told: {status}");
    assert!(at_work[0].contains(&format!("the listener of {topic}")), "{status}");
    assert!(status.contains("1 of 7 handlers are busy"), "{status}");
    gate.open();
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn a_group_goes_on_from_where_an_operator_sets_it_while_it_runs(server: Server) -> Result<()> {
    if server.is_embedded() && !can_run(Version::V5_5_0)? {
        return Ok(());
    }
    let topic = unique("orders");
    let (back, ahead, orderly) = (unique("back"), unique("ahead"), unique("orderly"));
    server.create_topic(&topic, 2).await?;
    let (sender, producer) = server.producer().await?;
    let mut cluster = server.cluster();
    // Brokers of 5.x tell a consumer with its next pull.
    cluster.client.pull_suspend = Duration::from_secs(1);
    let managers = [(); 3].map(|()| MqClientManager::new(cluster.clone()));
    let (by_back, by_ahead, by_orderly) = (Seen::default(), Seen::default(), Seen::default());
    let gate = Gate::closed();
    let mut one_at_a_time = consumer_config();
    one_at_a_time.concurrency = 1;
    PushConsumer::builder(&back)
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", by_back.listener())
        .build(&managers[0])?;
    PushConsumer::builder(&ahead)
        .config(one_at_a_time)
        .subscribe(topic.as_str(), "*", gated(&by_ahead, &gate, "new"))
        .build(&managers[1])?;
    PushConsumer::builder(&orderly)
        .config(consumer_config())
        .orderly()
        .subscribe(topic.as_str(), "*", gated(&by_orderly, &gate, "new, the last"))
        .build(&managers[2])?;
    for manager in &managers {
        manager.start().await?;
    }
    let old = send(&producer, &topic, (0..20).map(|number| format!("old {number}"))).await?;
    for seen in [&by_back, &by_ahead, &by_orderly] {
        seen.until_all(&old).await?;
    }
    // Clocks count milliseconds: what follows is stored in a later one.
    time::sleep(Duration::from_millis(20)).await;
    let noon = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis().to_string();
    time::sleep(Duration::from_millis(20)).await;
    let mut new = send(&producer, &topic, (0..20).map(|number| format!("new {number}"))).await?;
    new.extend(send(&producer, &topic, ["new, the last"]).await?);
    let all: std::collections::BTreeSet<_> = old.union(&new).cloned().collect();
    by_back.until_all(&all).await?;
    by_orderly.until_all(&all).await?;
    // Its only handler is at the gate, with all other new ones waiting behind.
    by_ahead.until_count(21).await?;
    wait::until("what was handled is stored", async || {
        Ok(server.committed(&back, &topic, 2).await? == 41
            && server.committed(&ahead, &topic, 2).await? == 20)
    })
    .await?;

    let reset = async |group: &str, time: &str| {
        server.mqadmin(&["resetOffsetByTime", "-g", group, "-t", &topic, "-s", time]).await
    };
    let (printed, ..) = try_join!(reset(&back, &noon), reset(&ahead, "now"), reset(&orderly, &noon))?;

    // One line for each queue.
    assert_eq!(lines(&printed, "broker-a").len(), 2, "{printed}");
    by_back
        .until("the new ones were handled twice", |handled| new.iter().all(|body| 2 <= handled.times[body]))
        .await?;
    assert!(old.iter().all(|body| by_back.handled().times[body] == 1), "the old ones were not");
    wait::until("the group that was set ahead is there", async || {
        Ok(server.committed(&ahead, &topic, 2).await? == 41)
    })
    .await?;
    gate.open();
    by_orderly
        .until("the new ones were handled twice, in order", |handled| {
            new.iter().all(|body| 2 <= handled.times[body])
        })
        .await?;
    for group in [&back, &orderly] {
        wait::until("all is stored", async || Ok(server.committed(group, &topic, 2).await? == 41)).await?;
    }
    // What came of the message that was being handled all the time moves nothing, and those behind it were dropped.
    let later = send(&producer, &topic, ["later"]).await?;
    by_ahead
        .until("what came later was handled", |handled| {
            later.iter().all(|body| handled.times.contains_key(body))
        })
        .await?;
    assert_eq!(by_ahead.count(), 22, "{:?}", by_ahead.bodies());
    wait::until("what came later is stored", async || Ok(server.committed(&ahead, &topic, 2).await? == 42))
        .await?;
    for manager in managers {
        manager.shutdown().await?;
    }
    sender.shutdown().await?;
    Ok(())
}

async fn a_group_that_is_suspended_goes_on_from_where_an_operator_has_set_it(server: Server) -> Result<()> {
    let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, 2).await?;
    let (sender, producer) = server.producer().await?;
    let mut cluster = server.cluster();
    cluster.client.pull_suspend = Duration::from_secs(1);
    let manager = MqClientManager::new(cluster);
    let consumer = PushConsumer::builder(&group)
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&manager)?;
    manager.start().await?;
    let sent = send_numbers(&producer, &topic, 20).await?;
    seen.until_all(&sent).await?;
    wait::until("all are stored", async || Ok(server.committed(&group, &topic, 2).await? == 20)).await?;

    consumer.suspend();
    server.admin().reset_offset(&group, &topic, 0, false).await?;
    // The pulls that waited are answered with the new offset; Apache's brokers look every five seconds.
    time::sleep(Duration::from_millis(if server.is_embedded() { 300 } else { 7_000 })).await;
    seen.ensure_once()?;
    consumer.resume();

    seen.until("all were handled twice", |handled| handled.times.values().all(|times| 2 <= *times)).await?;
    wait::until("all are stored", async || Ok(server.committed(&group, &topic, 2).await? == 20)).await?;
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

/// As `mqadmin` asks for it, and as a tool would that is written in C++.
async fn members_go_on_from_where_they_are_told_in_the_form_for_java_and_in_that_for_c(
    server: Server,
) -> Result<()> {
    let (topic, group, seen) = (unique("orders"), unique("group"), Seen::default());
    server.create_topic(&topic, 2).await?;
    let (sender, producer) = server.producer().await?;
    let sent = send_numbers(&producer, &topic, 20).await?;
    let manager = server.manager();
    PushConsumer::builder(&group)
        .config(consumer_config())
        .subscribe(topic.as_str(), "*", seen.listener())
        .build(&manager)?;
    manager.start().await?;
    for (times, in_c) in [(2, false), (3, true)] {
        seen.until_all(&sent).await?;
        wait::until("all are stored", async || Ok(server.committed(&group, &topic, 2).await? == 20)).await?;

        server.admin().reset_offset(&group, &topic, 0, in_c).await?;

        let what = format!("all were handled {times} times");
        seen.until(&what, |handled| handled.times.values().all(|handled| times <= *handled)).await?;
    }
    wait::until("all are stored", async || Ok(server.committed(&group, &topic, 2).await? == 20)).await?;
    manager.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

/// What the others above do not ask of the embedded server: on Apache's there is nothing of ours in it.
#[test]
fn mqadmin_looks_at_the_embedded_server_and_changes_it() -> Result<()> {
    if !can_run(Version::V5_5_0)? {
        return Ok(());
    }
    run(ServerKind::Embedded, Use::Alone, async |server| {
        let (topic, made, group) = (unique("orders"), unique("made"), unique("group"));
        server.create_topic(&topic, 3).await?;
        let (sender, producer) = server.producer().await?;
        let (seen, manager) = (Seen::default(), server.manager());
        PushConsumer::builder(&group)
            .config(consumer_config())
            .subscribe(topic.as_str(), "*", seen.listener())
            .build(&manager)?;
        manager.start().await?;
        seen.until_all(&send_numbers(&producer, &topic, 30).await?).await?;
        wait::until("all are stored", async || Ok(server.committed(&group, &topic, 3).await? == 30)).await?;
        let broker = server.broker_addr().to_string();
        let (route, status, clusters, topics, created) = try_join!(
            async { server.mqadmin(&["topicRoute", "-t", &topic]).await },
            async { server.mqadmin(&["topicStatus", "-t", &topic]).await },
            async { server.mqadmin(&["clusterList"]).await },
            async { server.mqadmin(&["topicList", "-c"]).await },
            async {
                server.mqadmin(&["updateTopic", "-b", &broker, "-t", &made, "-r", "5", "-w", "5"]).await
            },
        )?;
        assert!(route.contains(&broker) && route.contains("\"readQueueNums\":3"), "{route}");
        assert_eq!(lines(&status, "broker-a").len(), 3, "{status}");
        assert!(clusters.contains("DefaultCluster") && clusters.contains(&broker), "{clusters}");
        let listed = lines(&topics, &topic);
        assert!(listed.iter().any(|line| line.contains(&group)), "with who consumes it: {topics}");
        assert!(created.contains("success"), "{created}");
        let (stats, progress) =
            try_join!(async { server.mqadmin(&["statsAll", "-t", &topic]).await }, async {
                server.mqadmin(&["consumerProgress"]).await
            },)?;
        assert!(stats.contains(&topic), "{stats}");
        let of_group = lines(&progress, &group);
        assert!(
            of_group.iter().any(|line| line.contains("PUSH") && line.contains("CLUSTERING")),
            "{progress}"
        );
        manager.shutdown().await?;
        sender.shutdown().await?;
        Ok(())
    })
}

/// What a hook has seen: the listener, the body, and how the call ended.
type Ends = Arc<Mutex<Vec<(u64, String, Option<Consumed>)>>>;

struct Noting(Ends);

impl Noting {
    fn note(&self, consuming: &Consuming<'_>, consumed: Option<Consumed>) {
        let body = consuming.messages[0].body_str().into_owned();
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ends.push((consuming.call, body, consumed));
    }
}

impl ConsumeHook for Noting {
    fn before(&self, consuming: &Consuming<'_>) {
        self.note(consuming, None);
    }

    fn after(&self, consuming: &Consuming<'_>, consumed: &Consumed) {
        self.note(consuming, Some(consumed.clone()));
        assert!(consuming.messages[0].body_str() != "panics", "a hook's panic is its own business");
    }
}

/// Fails where the body says so.
async fn judge(messages: Vec<MessageExt>) -> Result<ConsumeResult, String> {
    match &*messages[0].body_str() {
        "fails" => Err("out of stock".to_owned()),
        "panics" => panic!("out of paper"),
        "waits" => {
            time::sleep(Duration::from_millis(5)).await;
            Ok(ConsumeResult::Success)
        }
        "later" => Ok(ConsumeResult::ReconsumeLater),
        _ => Ok(ConsumeResult::Success),
    }
}

async fn a_message_is_handled_by_the_client_that_an_operator_sends_it_to(server: Server) -> Result<()> {
    if server.is_embedded() && !can_run(Version::V5_5_0)? {
        return Ok(());
    }
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    let mut config = config(&server);
    config.defaults.consume_from = rocketmq::config::ConsumeFrom::First;
    let (around, mut handled) = watch::channel(Vec::new());
    let ends = Ends::default();
    let app = App::builder()
        .config_value(config)
        .without_linked_listeners()
        .listener(&group, &topic, "wanted", judge)
        .around(move |delivery: Delivery, next: Next| {
            around.send_modify(|bodies| bodies.push(delivery.message().body_str().into_owned()));
            next.run(delivery)
        })
        .consume_hook(Noting(Arc::clone(&ends)))
        .start()
        .await?;
    app.ready().await;
    // Nobody but an operator brings these to a listener: they have other tags until they are sent to it.
    let mut ids = Vec::new();
    for (tag, body) in [("wanted", "is well"), ("wanted", "later"), ("other", "is not wanted")] {
        let sent = producer.send(Message::new(&topic).tag(tag).body(body)).await?;
        ids.push(sent.offset_message_id);
    }
    handled.wait_for(|bodies| bodies.len() == 2).await?;
    wait::until("all is stored", async || Ok(server.committed(&group, &topic, 1).await? == 3)).await?;
    let hooked = ends.lock().unwrap_or_else(PoisonError::into_inner).len();
    let client_id = server.admin().members(&group).await?.into_iter().next().context("there is a member")?;

    let ids = ids.join(",");
    let mut command = vec!["queryMsgById", "-i", &ids, "-g", &group, "-d", &client_id];
    if server.version() == Version::V5_5_0 {
        command.extend(["-t", &topic]);
    }
    let printed = server.mqadmin(&command).await?;

    assert!(printed.contains("CR_SUCCESS") && printed.contains("CR_LATER"), "{printed}");
    assert_eq!(printed.matches("consumeResult=").count(), 2, "what no listener wants is refused: {printed}");
    let bodies = handled.borrow().clone();
    let times = |body: &str| bodies.iter().filter(|other| *other == body).count();
    assert!(2 <= times("is well") && times("is not wanted") == 0, "{bodies:?}");
    assert!(2 <= times("later"), "{bodies:?}");
    let ends = std::mem::take(&mut *ends.lock().unwrap_or_else(PoisonError::into_inner));
    assert!(
        ends[hooked..].iter().all(|(_, body, _)| body == "later"),
        "hooks do not run for these: {ends:?}"
    );
    assert_eq!(server.committed(&group, &topic, 1).await?, 3);
    app.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}

async fn calls_are_counted_and_shown_to_hooks(server: Server) -> Result<()> {
    let (topic, group) = (unique("orders"), unique("group"));
    server.create_topic(&topic, 1).await?;
    let (sender, producer) = server.producer().await?;
    let ends = Ends::default();
    let mut config = config(&server);
    // None of them comes a second time.
    config.defaults.max_reconsume = Some(0);
    let app = App::builder()
        .config_value(config)
        .without_linked_listeners()
        .listener(&group, &topic, "*", judge)
        .consume_hook(Noting(Arc::clone(&ends)))
        .start()
        .await?;
    let mut sent = send_numbers(&producer, &topic, 50).await?;
    sent.extend(send(&producer, &topic, ["fails", "panics", "waits", "later"]).await?);
    wait::until("all is stored", async || Ok(server.committed(&group, &topic, 1).await? == 54)).await?;

    let stats = app.stats(&group)?[&topic];
    assert_eq!((stats.pulled, stats.ok, stats.failed, stats.failed_last_hour), (54, 51, 3, 3), "{stats:?}");
    assert!(0.0 < stats.pull_tps && 0.0 < stats.ok_tps && 0.0 < stats.failed_tps, "{stats:?}");
    assert!(Duration::ZERO < stats.pull_rt && Duration::ZERO < stats.consume_rt, "{stats:?}");
    assert!(app.stats("nobody").is_err());
    let ends = std::mem::take(&mut *ends.lock().unwrap_or_else(PoisonError::into_inner));
    for body in &sent {
        let calls: Vec<_> = ends.iter().filter(|(_, other, _)| other == body).collect();
        let [(before, _, None), (after, _, Some(consumed))] = &calls[..] else { panic!("{body}: {calls:?}") };
        assert_eq!(before, after, "{body}");
        let (status, error) = match body.as_str() {
            "fails" => (ConsumeStatus::Exception, Some("out of stock")),
            "panics" => (ConsumeStatus::Exception, Some("a panic: out of paper")),
            "later" => (ConsumeStatus::Failed, None),
            _ => (ConsumeStatus::Success, None),
        };
        assert_eq!((consumed.status, consumed.error.as_deref()), (status, error), "{body}");
        assert_eq!(consumed.success, status == ConsumeStatus::Success);
        assert!(body != "waits" || Duration::from_millis(5) <= consumed.took, "{consumed:?}");
    }
    app.shutdown().await?;
    sender.shutdown().await?;
    Ok(())
}
