//! Transactions: what is committed is delivered, what is not is not, whoever dies in between.

use std::collections::{BTreeSet, HashMap};
use std::future::pending;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rocketmq::client::MqClientManager;
use rocketmq::message::properties;
use rocketmq::{
    EndingTransaction, Message, MessageExt, Producer, PushConsumer, SendError, SendHook, SendResult,
    Transaction,
};
use rocketmq_tests::{JavaProgram, ServerKind, Version, servers};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::{time, try_join};

use crate::log;
use crate::program::Program;
use crate::seen::Seen;
use crate::server::{Server, block_on, cluster, consumer_config, producer_config, unique};
use crate::wait;

on_each_server! { Shared:
    a_process_that_is_killed_in_between_loses_nothing_and_delivers_nothing_wrongly,
    the_local_part_decides_and_where_it_does_not_the_check_does,
    any_producer_of_the_group_is_asked,
    a_stop_that_nobody_waits_for_is_waited_for_by_the_next_one,
    checks_are_bounded_and_those_beyond_are_asked_for_again,
    java_and_this_library_answer_for_each_other,
}

/// A consumer of `topic`.
async fn consume(server: &Server, topic: &str) -> Result<(MqClientManager, Seen)> {
    let (manager, seen) = (server.manager(), Seen::default());
    PushConsumer::builder(unique("group"))
        .config(consumer_config())
        .subscribe(topic, "*", seen.listener())
        .build(&manager)?;
    manager.start().await?;
    Ok((manager, seen))
}

async fn a_process_that_is_killed_in_between_loses_nothing_and_delivers_nothing_wrongly(
    server: Server,
) -> Result<()> {
    const COUNT: usize = 8;
    let (topic, group) = (unique("payments"), unique("payments-tx"));
    server.create_topic(&topic, 4).await?;
    let ledger = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique("ledger"));
    let bodies =
        |word: &str| -> BTreeSet<String> { (0..COUNT).map(|number| format!("{word} {number}")).collect() };
    let (paid, unpaid) = (bodies("paid"), bodies("unpaid"));
    let (consumer, delivered) = consume(&server, &topic).await?;

    let said = Seen::default();
    let mut victim = Program::start_transactional(&server, &group, &topic, &ledger, &said)?;
    victim.tell(paid.iter().chain(&unpaid)).await?;
    let locals = |seen: &HashMap<String, u32>| seen.keys().filter(|line| line.starts_with("local")).count();
    said.until("all half messages are sent and all local parts done", |handled| {
        locals(&handled.times) == 2 * COUNT
    })
    .await?;
    victim.kill().await?;

    let said = Seen::default();
    let successor = Program::start_transactional(&server, &group, &topic, &ledger, &said)?;
    delivered.until_all(&paid).await?;
    said.until("the check was asked about all", |handled| {
        paid.iter().chain(&unpaid).all(|body| handled.times.contains_key(&format!("checked {body}")))
    })
    .await?;
    successor.kill().await?;
    assert_eq!(delivered.bodies(), paid);
    consumer.shutdown().await?;
    std::fs::remove_file(ledger)?;
    Ok(())
}

/// What brokers were told, by the bodies of the messages.
#[derive(Debug, Clone, Default)]
struct Told(Arc<Mutex<Vec<(String, Transaction, bool)>>>);

impl SendHook for Told {
    fn end_transaction(&self, ending: &EndingTransaction<'_>) {
        let body = String::from_utf8_lossy(ending.body).into_owned();
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.push((body, ending.transaction, ending.from_check));
    }
}

impl Told {
    fn has(&self, body: &str, transaction: Transaction, from_check: bool) -> bool {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.contains(&(body.to_owned(), transaction, from_check))
    }
}

/// Says what the body of a message asks it to: at first something else, if that is what it asks for.
async fn check(message: MessageExt, asked: Seen) -> Result<Transaction, String> {
    let body = message.body_str().into_owned();
    asked.note(&message);
    let times = asked.handled().times.get(&body).copied().unwrap_or_default();
    match body.as_str() {
        "failed, failed again, then committed" if times == 1 => Err("not yet".to_owned()),
        "failed, panicked, then committed" if times == 1 => panic!("as it was told to"),
        "unknown, then rolled back" => Ok(Transaction::Rollback),
        _ => Ok(Transaction::Commit),
    }
}

async fn the_local_part_decides_and_where_it_does_not_the_check_does(server: Server) -> Result<()> {
    let topic = unique("orders");
    server.create_topic(&topic, 2).await?;
    let (consumer, delivered) = consume(&server, &topic).await?;
    let (manager, asked, told) = (server.manager(), Seen::default(), Told::default());
    let notes = asked.clone();
    let producer = Producer::builder(unique("producer"))
        .config(producer_config())
        .hook(told.clone())
        .check(move |message| check(message, notes.clone()))
        .build(&manager)?;
    manager.start().await?;
    let message =
        |body: &str| Message::new(&topic).tag("t").key("k").property("own", "p").body(body.to_owned());

    let sent = producer.send_in_transaction(message("committed"), async { Transaction::Commit }).await?;
    assert_eq!((sent.transaction, sent.reason), (Transaction::Commit, None));
    let sent_id = sent.sent.message_id;
    let rolled_back = async { Ok::<_, std::io::Error>(Transaction::Rollback) };
    producer.send_in_transaction(message("rolled back"), rolled_back).await?;
    let sent = producer
        .send_in_transaction_with(message("unknown, then committed"), |half| {
            let id = half.message_id.clone();
            async move { if id.is_empty() { Transaction::Commit } else { Transaction::Unknown } }
        })
        .await?;
    assert_eq!((sent.transaction, sent.reason), (Transaction::Unknown, None));
    let unknown = async { Transaction::Unknown };
    producer.send_in_transaction(message("unknown, then rolled back"), unknown).await?;
    let failed = async { Err::<Transaction, _>("the database is down") };
    let sent = producer.send_in_transaction(message("failed, failed again, then committed"), failed).await?;
    assert_eq!(sent.transaction, Transaction::Unknown);
    assert_eq!(sent.reason.as_deref(), Some("the database is down"));
    let panicked =
        async { if producer.group().is_empty() { Transaction::Commit } else { panic!("as it was told to") } };
    let sent = producer.send_in_transaction(message("failed, panicked, then committed"), panicked).await?;
    assert_eq!(sent.reason.as_deref(), Some("it panicked: as it was told to"));
    // One whose caller goes away is open.
    let begun = Notify::new();
    let local = async {
        begun.notify_one();
        pending::<Transaction>().await
    };
    tokio::select! {
        ended = producer.send_in_transaction(message("left, then committed"), local) => bail!("it ended: {ended:?}"),
        () = begun.notified() => {}
    }

    let expected = [
        "committed",
        "unknown, then committed",
        "failed, failed again, then committed",
        "failed, panicked, then committed",
        "left, then committed",
    ];
    let expected: BTreeSet<_> = expected.map(str::to_owned).into();
    delivered.until_all(&expected).await?;
    asked
        .until("the check was asked", |handled| handled.times.contains_key("unknown, then rolled back"))
        .await?;
    wait::until("the broker was told", async || {
        Ok(told.has("unknown, then rolled back", Transaction::Rollback, true))
    })
    .await?;
    assert!(told.has("committed", Transaction::Commit, false));
    assert!(told.has("rolled back", Transaction::Rollback, false));
    assert!(told.has("unknown, then committed", Transaction::Unknown, false));
    assert!(told.has("unknown, then committed", Transaction::Commit, true));
    log::until_logged(&["a check failed", producer.group(), "it panicked: as it was told to"]).await?;
    assert_eq!(delivered.bodies(), expected);
    let messages = delivered.messages();
    let committed =
        messages.iter().find(|message| message.body_str() == "committed").context("it is there")?;
    assert_eq!(committed.message_id(), sent_id);
    assert_eq!((committed.topic(), committed.tag()), (topic.as_str(), Some("t")));
    assert_eq!((committed.keys().next(), committed.property("own")), (Some("k"), Some("p")));
    let group = producer.group();
    assert_eq!(committed.property(properties::PRODUCER_GROUP), Some(group));
    let asked_about = asked.messages();
    let asked_about = asked_about.first().context("it was asked")?;
    assert_eq!((asked_about.topic(), asked_about.tag()), (topic.as_str(), Some("t")));
    manager.shutdown().await?;
    consumer.shutdown().await?;
    Ok(())
}

/// A producer of `group` that sends nothing, and whose check decides and notes.
async fn deciding(server: &Server, group: &str) -> Result<(MqClientManager, Seen)> {
    let (manager, asked) = (server.manager(), Seen::default());
    let notes = asked.clone();
    Producer::builder(group)
        .config(producer_config())
        .check(move |message| check(message, notes.clone()))
        .build(&manager)?;
    manager.start().await?;
    Ok((manager, asked))
}

async fn a_stop_that_nobody_waits_for_is_waited_for_by_the_next_one(server: Server) -> Result<()> {
    let topic = unique("orders");
    server.create_topic(&topic, 1).await?;
    let (manager, check) = (server.manager(), |_| async { Transaction::Unknown });
    let producer =
        Producer::builder(unique("producer")).config(producer_config()).check(check).build(&manager)?;
    manager.start().await?;
    let (begun, may_end) = (Notify::new(), Notify::new());
    let local = async {
        begun.notify_one();
        may_end.notified().await;
        Transaction::Commit
    };
    let stops = async {
        begun.notified().await;
        for _ in 0..2 {
            let stop = time::timeout(Duration::from_millis(1), producer.shutdown()).await;
            ensure!(stop.is_err(), "a local part is at work");
        }
        may_end.notify_one();
        manager.shutdown().await?;
        Ok(())
    };
    let send = async { Ok(producer.send_in_transaction(Message::new(&topic).body("1"), local).await?) };
    let (sent, ()) = try_join!(send, stops)?;
    assert_eq!(sent.transaction, Transaction::Commit);
    Ok(())
}

/// Sends in transactions of `group` that nobody decides, and goes away.
async fn leave_open(
    server: &Server,
    group: &str,
    messages: impl IntoIterator<Item = Message>,
) -> Result<Vec<SendResult>> {
    let manager = server.manager();
    let check = |_| async { Transaction::Unknown };
    let producer = Producer::builder(group).config(producer_config()).check(check).build(&manager)?;
    manager.start().await?;
    let mut sent = Vec::new();
    for message in messages {
        sent.push(producer.send_in_transaction(message, async { Transaction::Unknown }).await?.sent);
    }
    manager.shutdown().await?;
    Ok(sent)
}

async fn any_producer_of_the_group_is_asked(server: Server) -> Result<()> {
    let (topic, group) = (unique("orders"), unique("producer"));
    server.create_topic(&topic, 1).await?;
    let (consumer, delivered) = consume(&server, &topic).await?;
    let (other, asked) = deciding(&server, &group).await?;
    leave_open(&server, &group, [Message::new(&topic).body("left behind")]).await?;
    delivered.until_all(&BTreeSet::from(["left behind".to_owned()])).await?;
    assert_eq!(asked.bodies(), delivered.bodies());
    other.shutdown().await?;
    consumer.shutdown().await?;
    Ok(())
}

async fn checks_are_bounded_and_those_beyond_are_asked_for_again(server: Server) -> Result<()> {
    const COUNT: usize = 24;
    let topic = unique("orders");
    server.create_topic(&topic, 2).await?;
    let (consumer, delivered) = consume(&server, &topic).await?;
    let manager = server.manager();
    let (at_work, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counters = (Arc::clone(&at_work), Arc::clone(&most));
    let (may_end, gate) = watch::channel(false);
    let check = move |_| {
        let ((at_work, most), mut gate) = (counters.clone(), gate.clone());
        async move {
            most.fetch_max(at_work.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let opened = gate.wait_for(|may_end| *may_end).await.map(drop);
            at_work.fetch_sub(1, Ordering::SeqCst);
            opened.map(|()| Transaction::Commit)
        }
    };
    let mut config = producer_config();
    (config.check.concurrency, config.check.queue) = (3, 5);
    let producer = Producer::builder(unique("producer")).config(config).check(check).build(&manager)?;
    manager.start().await?;
    let mut sends = JoinSet::new();
    for number in 0..COUNT {
        let (producer, message) = (producer.clone(), Message::new(&topic).body(number.to_string()));
        sends.spawn(
            async move { producer.send_in_transaction(message, async { Transaction::Unknown }).await },
        );
    }
    while let Some(sent) = sends.join_next().await {
        sent??;
    }
    log::until_logged(&["as many checks run and wait as may", producer.group()]).await?;
    wait::until("as many checks run as may", async || Ok(at_work.load(Ordering::SeqCst) == 3)).await?;
    may_end.send_replace(true);
    delivered.until_all(&(0..COUNT).map(|number| number.to_string()).collect()).await?;
    assert_eq!(most.load(Ordering::SeqCst), 3);
    manager.shutdown().await?;
    consumer.shutdown().await?;
    Ok(())
}

async fn java_and_this_library_answer_for_each_other(server: Server) -> Result<()> {
    const SOURCE: &str = include_str!("../harness/java/Transactions.java");
    const ROLLED_BACK: &str = "unknown, then rolled back";
    let version = if server.is_4_9() { Version::V4_9_7 } else { Version::V5_5_0 };
    if !servers()?.contains(&ServerKind::Apache(version)) {
        return Ok(());
    }
    let (topic, left_by_us, left_by_java) = (unique("orders"), unique("by-us"), unique("by-java"));
    server.create_topic(&topic, 2).await?;
    let (consumer, delivered) = consume(&server, &topic).await?;
    let (deciding, asked) = deciding(&server, &left_by_java).await?;
    let messages = ["left by us", ROLLED_BACK]
        .map(|body| Message::new(&topic).tag("rust").key("k").property("own", "p").body(body));
    let ours = leave_open(&server, &left_by_us, messages).await?;

    let name_server = server.name_server();
    let arguments = [&name_server, &topic, &left_by_us, &left_by_java, "left by Java", ROLLED_BACK];
    let mut java = JavaProgram::start(version, "Transactions", SOURCE, &arguments).await?;
    let javas = java.lines("left: ", 2).await?;
    java.lines("ready", 1).await?;
    let of_ours = |body: &str, at: usize| format!("{body}|{topic}|rust|k|p|{}", ours[at].message_id);
    let expected = BTreeSet::from([of_ours("left by us", 0), of_ours(ROLLED_BACK, 1)]);
    wait::until("Java was asked about what we have left", async || {
        Ok(java.lines("checked: ", 2).await?.into_iter().collect::<BTreeSet<_>>() == expected)
    })
    .await?;
    delivered.until_all(&["sent by Java", "left by us", "left by Java"].map(str::to_owned).into()).await?;
    asked.until("we were asked about what Java has left", |handled| handled.times.len() == 2).await?;
    for (body, id) in ["left by Java", ROLLED_BACK].into_iter().zip(&javas) {
        let asked = asked.messages();
        let message = asked.iter().find(|message| message.body_str() == body).context("we were asked")?;
        assert_eq!((&*message.message_id(), message.topic()), (id.as_str(), topic.as_str()));
        assert_eq!((message.tag(), message.keys().next()), (Some("java"), Some("k")));
        assert_eq!(message.property("own"), Some("p"));
    }
    for (body, id) in [("left by us", &ours[0].message_id), ("left by Java", &javas[0])] {
        let delivered = delivered.messages();
        let message = delivered.iter().find(|message| message.body_str() == body).context("it is there")?;
        assert_eq!(*message.message_id(), **id);
    }
    java.stop().await?;
    deciding.shutdown().await?;
    consumer.shutdown().await?;
    Ok(())
}

#[test]
fn wrong_use_is_refused_before_anything_is_sent() -> Result<()> {
    block_on(async {
        let manager = MqClientManager::new(cluster("127.0.0.1:1"));
        let without = Producer::builder("without").build(&manager)?;
        let with = Producer::builder("with").check(|_| async { Transaction::Commit }).build(&manager)?;
        manager.start().await?;
        let local = || async { panic!("the local part is not run") };
        let send = async |producer: &Producer, message| {
            producer.send_in_transaction::<Transaction>(message, local()).await.expect_err("it is wrong")
        };
        let error = send(&without, Message::new("t").body("x")).await;
        assert!(matches!(error, SendError::NoCheck { .. }), "{error}");
        assert!(error.to_string().contains("#[rocketmq::transaction(producer ="), "{error}");
        let error = send(&with, Message::new("t").body("x").delay_level(3)).await;
        assert!(error.to_string().contains("remove the delay"), "{error}");
        manager.shutdown().await?;

        let manager = MqClientManager::new(cluster("127.0.0.1:1"));
        let mut config = producer_config();
        config.group = Some("promised".to_owned());
        config.transaction = true;
        Producer::builder("promised").config(config).build(&manager)?;
        let error = manager.start().await.expect_err("it has no check").to_string();
        assert!(error.contains("promised") && error.contains(".check("), "{error}");
        Ok(())
    })
}
