//! The kit on itself: that it finds what was done, and says so where something else was expected.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rocketmq::config::{ConsumeMode, ProducerConfig};
use rocketmq::testing::{App, Fate, Incoming};
use rocketmq::{
    BadPayload, Config, ConsumeResult, Delivery, Filter, Filtering, FromMessage, Json, Message, MessageExt,
    Next, Producer, Reply, RequestCode, RpcHook, RpcRequest, Shape, State, StateKey, Transaction,
};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time;

const MINUTE: Duration = Duration::from_secs(60);

/// An application with one listener, which fails as often as it is told.
async fn failing(times: u32, config: Config) -> App {
    let calls = Arc::new(AtomicU32::new(0));
    App::builder()
        .config_value(config)
        .without_linked_listeners()
        .listener("orders", "order-events", Filter::tag("paid"), move |_| {
            let call = calls.fetch_add(1, Ordering::Relaxed);
            async move { if call < times { Err(format!("no {call}")) } else { Ok(()) } }
        })
        .start()
        .await
        .expect("there is nothing wrong with it")
}

/// What a test that fails says.
async fn panic_of<T: Send + 'static>(test: impl Future<Output = T> + Send + 'static) -> String {
    let mut running = JoinSet::new();
    running.spawn(test);
    match running.join_next().await {
        Some(Err(error)) => error.into_panic().downcast::<String>().map(|text| *text).unwrap_or_default(),
        _ => panic!("the test did not fail"),
    }
}

fn paid(body: &'static str) -> Message {
    Message::new("order-events").tag("paid").body(body)
}

#[tokio::test]
async fn what_is_delivered_is_handled_when_deliver_returns() {
    let app = failing(0, Config::default()).await;
    let delivered = app.deliver(paid("1")).await;
    assert_eq!((delivered.only(), delivered.fate()), (ConsumeResult::Success, Fate::Acknowledged));
    assert!(app.deliver(Message::new("order-events").tag("other").body("2")).await.is_empty());
    assert!(app.deliver(Message::new("elsewhere").body("3")).await.is_empty());
    assert_eq!(app.attempts("orders"), 1);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_paused_group_is_given_nothing_before_it_is_resumed() {
    let app = failing(0, Config::default()).await;
    app.pause("orders").unwrap();
    for _ in 0..9 {
        app.send(paid("1")).await;
    }
    app.advance(2 * MINUTE).await;
    assert_eq!(app.attempts("orders"), 0);
    app.resume("orders").unwrap();
    assert_eq!(app.handled("order-events").await.len(), 9);
    app.shutdown().await.unwrap();
}

#[tokio::test]
async fn failures_come_again_at_their_time() {
    let app = failing(2, Config::default()).await;
    let delivered = app.deliver(paid("1")).await;
    assert_eq!((delivered.fate(), delivered.error()), (Fate::Retried, Some("no 0")));
    assert_eq!(app.scheduled().len(), 1);
    app.advance(Duration::from_secs(9)).await;
    assert_eq!(app.attempts("orders"), 1);
    app.advance(Duration::from_secs(2)).await;
    assert_eq!(app.attempts("orders"), 2);
    app.advance(MINUTE).await;
    assert_eq!(app.attempts("orders"), 3);
    assert_eq!((app.retried("orders").len(), app.acknowledged("orders").len()), (2, 1));
    assert!(app.dead_letters("orders").is_empty() && app.scheduled().is_empty());
}

#[tokio::test]
async fn a_message_that_always_fails_is_dead_after_hours_that_take_no_time() {
    let app = failing(u32::MAX, Config::default()).await;
    app.send(paid("1")).await;
    app.advance(MINUTE * 60 * 5).await;
    assert_eq!(app.attempts("orders"), 17);
    let dead = app.dead_letters("orders");
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].body_str().as_ref(), dead[0].reason()), ("1", "given up after 17 attempts: no 16"));
}

#[tokio::test]
async fn a_listener_that_hangs_is_stopped_by_its_timeout() {
    let app = App::builder()
        .config_value(Config::default())
        .without_linked_listeners()
        .listener("slow", "t", "*", |_| std::future::pending::<()>())
        .patience(Duration::from_millis(1))
        .start()
        .await
        .unwrap();
    app.send(Message::new("t").body("1")).await;
    app.advance(MINUTE * 14).await;
    assert_eq!(app.attempts("slow"), 0);
    app.advance(MINUTE).await;
    let history = app.history("slow");
    assert_eq!(history.len(), 1);
    assert_eq!(
        history[0].to_string(),
        "slow: the listener of t for *, given to the builder (attempt 1): given back, to be delivered again: it took \
         longer than `consume_timeout`, and was stopped",
    );
}

#[rocketmq::listener(group = "ledger", topic = "transfers", orderly)]
async fn on_transfer(message: &MessageExt, failing: State<Arc<AtomicU32>>) -> Result<(), String> {
    let left = &failing.0;
    match message.body_str().as_ref() {
        "bad"
            if left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok() =>
        {
            Err("not yet".to_owned())
        }
        _ => Ok(()),
    }
}

#[tokio::test]
async fn the_pauses_of_an_orderly_group_take_no_time() {
    let app = App::builder()
        .config_value(Config::default())
        .groups(["ledger"])
        .state(Arc::new(AtomicU32::new(3)))
        .start()
        .await
        .unwrap();
    let message = |body: &'static str| Message::new("transfers").body(body).sharding_key("account");
    let delivered = app.deliver(message("bad")).await;
    assert_eq!((delivered.fate(), delivered.error()), (Fate::Paused, Some("not yet")));
    app.send(message("good")).await;
    app.idle().await;
    assert_eq!(app.attempts("ledger"), 1);
    app.advance(Duration::from_millis(2_500)).await;
    assert_eq!(app.attempts("ledger"), 3);
    app.advance(Duration::from_millis(500)).await;
    let bodies: Vec<_> =
        app.acknowledged("ledger").iter().map(|message| message.body_str().into_owned()).collect();
    assert_eq!(bodies, ["bad", "good"]);
}

#[tokio::test]
async fn a_delayed_message_comes_when_time_does() {
    let app = failing(0, Config::default()).await;
    let delivered = app.deliver(paid("1").delay(MINUTE * 30)).await;
    assert!(delivered.is_empty());
    let text = delivered.to_string();
    assert!(text.starts_with("the message for order-events waits for its time, another "), "{text}");
    app.advance(MINUTE * 29).await;
    assert_eq!(app.attempts("orders"), 0);
    app.advance(MINUTE).await;
    assert_eq!(app.attempts("orders"), 1);
}

#[tokio::test]
async fn what_listeners_send_is_told_from_what_the_test_sends() {
    let producer = Arc::new(OnceLock::<Producer>::new());
    let sender = Arc::clone(&producer);
    let app = App::builder()
        .config_value(Config::default())
        .without_linked_listeners()
        .listener("mail", "mails", "*", move |messages| {
            let producer = sender.get().unwrap().clone();
            async move { producer.send(messages[0].forward_to("mail-done")).await.map(drop) }
        })
        .start()
        .await
        .unwrap();
    producer.set(app.producer("default").unwrap()).unwrap();
    app.send(Message::new("mail-done").body("of the test")).await;
    let handled = {
        app.send(Message::new("mails").body("hello")).await;
        app.handled("mails").await
    };
    assert_eq!(handled.len(), 1);
    let sent = app.sent("mail-done");
    assert_eq!((sent.len(), sent[0].body_str().as_ref()), (1, "hello"));
    assert_eq!(app.sent("mails").len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_run_side_by_side() {
    let mut apps = JoinSet::new();
    for _ in 0..16 {
        apps.spawn(async {
            let app = failing(1, Config::default()).await;
            app.deliver(paid("1")).await;
            app.advance(MINUTE).await;
            assert_eq!(app.attempts("orders"), 2);
            app.shutdown().await
        });
    }
    for stopped in apps.join_all().await {
        stopped.unwrap();
    }
}

#[tokio::test]
async fn an_application_that_is_dropped_leaves_nothing_behind() {
    {
        let app = App::builder()
            .config_value(Config::default())
            .without_linked_listeners()
            .listener("slow", "t", "*", |_| std::future::pending::<()>())
            .listener("failing", "t", "*", |_| async { Err::<(), _>("no") })
            .groups(["ledger"])
            .state(Arc::new(AtomicU32::new(u32::MAX)))
            .start()
            .await
            .unwrap();
        app.send(Message::new("t").body("1")).await;
        app.send(Message::new("transfers").body("bad")).await;
        app.handled("transfers").await;
    }
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let gone = async {
        while 0 < tasks() {
            time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(time::timeout(Duration::from_secs(30), gone).await.is_ok(), "{} tasks are left", tasks());
}

#[tokio::test]
async fn what_does_not_settle_is_named() {
    let app = App::builder()
        .config_value(Config::default())
        .without_linked_listeners()
        .listener("slow", "t", "*", |_| std::future::pending::<()>())
        .limit(Duration::from_millis(20))
        .start()
        .await
        .unwrap();
    let app = Arc::new(app);
    let delivering = Arc::clone(&app);
    let text = panic_of(async move { delivering.deliver(Message::new("t").body("1")).await }).await;
    let expected = "this is not settled after 20ms (`AppBuilder::limit`):\n  group slow: the listener of t for *, given to the builder has had t@broker-a#";
    assert!(text.starts_with(expected), "{text}");
    let text = panic_of(async move { app.attempts("slwo") }).await;
    assert_eq!(text, "there is no group `slwo`; there are: slow");
}

/// With it a group gets its queues, and cannot begin in any of them.
struct WithoutOffsets;

impl RpcHook for WithoutOffsets {
    fn before(&self, request: &mut RpcRequest<'_>) -> Result<(), String> {
        match request.code() {
            RequestCode::QUERY_CONSUMER_OFFSET => Err("nobody is told where to begin".to_owned()),
            _ => Ok(()),
        }
    }
}

#[tokio::test]
async fn a_group_that_does_not_become_ready_is_named() {
    let app = App::builder()
        .config_value(Config::default())
        .without_linked_listeners()
        .listener("lost", "t", "*", |_| async {})
        .rpc_hook(WithoutOffsets)
        .limit(Duration::from_millis(20))
        .start()
        .await;
    let text = app.unwrap_err().to_string();
    assert_eq!(
        text,
        "this is not ready after 20ms (`AppBuilder::limit`):\n  group lost of cluster default: it has begun in 0 queues",
    );
}

#[tokio::test]
async fn a_namespace_is_nowhere_to_be_seen() {
    let mut config = Config::default();
    config.cluster.client.namespace = Some("ns".to_owned());
    config.defaults.max_reconsume = Some(1);
    let app = failing(u32::MAX, config).await;
    app.send(paid("1")).await;
    let handled = app.handled("order-events").await;
    assert_eq!(
        (handled.len(), handled[0].group.as_str(), handled[0].message.topic()),
        (1, "orders", "order-events")
    );
    app.advance(MINUTE).await;
    assert_eq!((app.attempts("orders"), app.dead_letters("orders").len()), (2, 1));
    assert!(app.deliver(paid("2").delay(MINUTE)).await.is_empty());
    assert_eq!(app.scheduled()[0].1.topic(), "order-events");
    app.producer("default").unwrap().send(Message::new("elsewhere").body("2")).await.unwrap();
    assert_eq!(app.sent("elsewhere")[0].topic(), "elsewhere");
    assert_eq!(app.deliver(paid("3")).await.fate(), Fate::Retried);
    // It is there nevertheless.
    assert_eq!(app.server().messages("ns%elsewhere").len(), 1);
}

#[tokio::test]
async fn a_group_that_did_not_get_the_message_is_told_who_did() {
    let app = failing(0, Config::default()).await;
    let delivered = app.deliver(paid("1")).await;
    let text = panic_of(async move { delivered.of("mail").result }).await;
    assert_eq!(
        text,
        "group `mail` did not get the message. of the message for order-events came:\n  orders: the listener of \
         order-events for paid, given to the builder (attempt 1): acknowledged",
    );
}

#[derive(serde::Deserialize)]
struct Mail {
    to: String,
}

#[rocketmq::listener(group = "mail", topic = "mails")]
async fn on_mail(Json(mail): Json<Mail>) -> ConsumeResult {
    if mail.to.is_empty() { ConsumeResult::DeadLetter } else { ConsumeResult::Success }
}

#[tokio::test]
async fn a_dead_letter_says_why_it_is_one() {
    let app = App::builder().config_value(Config::default()).groups(["mail"]).start().await.unwrap();
    app.send_json("mails", &serde_json::json!({ "to": "" })).await;
    app.send_json("mails", &serde_json::json!({ "from": "me" })).await;
    let handled = app.handled("mails").await;
    assert_eq!(handled[0].listener, "testing::on_mail");
    let mut reasons: Vec<_> =
        app.dead_letters("mail").iter().map(|letter| letter.reason().to_owned()).collect();
    reasons.sort();
    assert_eq!(reasons, ["bad payload: missing field `to` at line 1 column 13", "its listener said so"]);
}

#[tokio::test]
async fn a_start_fails_in_the_words_of_production() {
    let app = App::builder().config_value(Config::default()).groups(["ledger", "lager"]).start().await;
    let text = app.unwrap_err().to_string();
    for words in [
        "there is no listener of group `lager` in this program",
        "testing::on_transfer (tests/testing.rs:",
        "takes State<alloc::sync::Arc<core::sync::atomic::AtomicU32>>, but there is no such state",
    ] {
        assert!(text.contains(words), "{text}");
    }
}

#[tokio::test]
async fn the_file_counts_but_for_what_real_servers_need() {
    let file = std::env::temp_dir().join(format!("testing-{}.yaml", std::process::id()));
    let text = "
name_servers: ${NO_SUCH_VARIABLE}
acl: { access_key: '${NO_SUCH_VARIABLE}', secret_key: '${file:/no/such/file}' }
tls: { enabled: true, ca: /no/such/file }
health: { listen: '127.0.0.1:1' }
defaults: { max_reconsume: 2 }
groups: { mail: {}, elsewhere: {} }
";
    std::fs::write(&file, text).unwrap();
    let listener = |_| async { Err::<(), _>("no") };
    let app = App::builder()
        .config(&file)
        .env("ROCKETMQ__GROUPS__MAIL__MAX_RECONSUME", "1")
        .without_linked_listeners()
        .listener("mail", "${topic}", "*", listener)
        .env("topic", "t")
        .start()
        .await
        .unwrap();
    std::fs::remove_file(file).unwrap();
    app.deliver(Message::new("t").body("1")).await;
    app.advance(MINUTE).await;
    assert_eq!((app.attempts("mail"), app.dead_letters("mail").len()), (2, 1));
}

#[tokio::test]
async fn a_listener_is_called_without_a_server() {
    let incoming = Incoming::new(Message::new("transfers").body("bad")).group("ledger").attempt(3);
    let result = on_transfer(&incoming.message(), State(Arc::new(AtomicU32::new(1)))).await;
    assert_eq!(result.unwrap_err(), "not yet");
    let context = incoming.context();
    assert_eq!((context.group(), context.topic(), context.attempt()), ("ledger", "transfers", 3));
}

#[tokio::test]
async fn arounds_lie_around_each_other_in_the_order_in_which_they_were_added() {
    let steps = Arc::new(Mutex::new(Vec::new()));
    let around = |name: &'static str| {
        let steps = Arc::clone(&steps);
        move |delivery: Delivery, next: Next| {
            let steps = Arc::clone(&steps);
            async move {
                let queue = delivery.queue().queue_id >= 0 && delivery.group() == "a";
                steps.lock().unwrap().push(format!("{name} {} {queue}", delivery.listener()));
                next.run(delivery).await
            }
        }
    };
    let app = App::builder()
        .config_value(Config::default())
        .without_linked_listeners()
        .listener("a", "t", "*", |_| async {})
        .listener("b", "u", "*", |_| async {})
        .around_group("a", around("third"))
        .around(around("first"))
        .around_group("b", around("never"))
        .around(around("second"))
        .around_group("${group}", around("fourth"))
        .env("group", "a")
        .start()
        .await
        .unwrap();
    app.deliver(Message::new("t").body("1")).await;
    let listener = "the listener of t for *, given to the builder";
    let expected = ["first", "second", "third", "fourth"].map(|name| format!("{name} {listener} true"));
    assert_eq!(*steps.lock().unwrap(), expected);
}

/// An argument of a user's own, which is built on state.
struct Tenant(String);

#[derive(Clone)]
struct Tenants(Arc<str>);

impl FromMessage<'_> for Tenant {
    const SHAPE: Shape = Shape::Neutral;

    fn from_message(delivery: &Delivery) -> Result<Self, BadPayload> {
        let State(Tenants(default)) = State::from_message(delivery)?;
        Ok(Self(delivery.message().property("tenant").unwrap_or(&default).to_owned()))
    }

    fn requires() -> Vec<StateKey> {
        State::<Tenants>::requires()
    }
}

#[rocketmq::listener(group = "tenants", topic = "tenants")]
async fn for_a_tenant(_message: &MessageExt, Tenant(name): Tenant) -> Result<(), String> {
    if name == "acme" { Ok(()) } else { Err(name) }
}

#[tokio::test]
async fn what_arguments_of_users_need_is_looked_for_before_the_start() {
    let kit = || App::builder().config_value(Config::default()).groups(["tenants"]);
    let text = kit().start().await.unwrap_err().to_string();
    let expected = "testing::for_a_tenant (tests/testing.rs:";
    assert!(text.contains(expected) && text.contains("State<testing::Tenants>"), "{text}");
    let app = kit().state(Tenants("acme".into())).start().await.unwrap();
    assert_eq!(app.deliver(Message::new("tenants").body("1")).await.only(), ConsumeResult::Success);
}

#[tokio::test]
async fn a_group_that_pops_is_waited_for_like_any_other() {
    let mut config = Config::default();
    config.defaults.mode = ConsumeMode::Pop;
    config.defaults.max_reconsume = Some(2);
    let app = failing(1, config.clone()).await;
    let delivered = app.deliver(paid("1")).await;
    assert_eq!((delivered.fate(), delivered.error()), (Fate::Retried, Some("no 0")));
    app.send(paid("2")).await;
    app.idle().await;
    assert_eq!((app.attempts("orders"), app.acknowledged("orders").len()), (2, 1));
    app.advance(MINUTE).await;
    let bodies: Vec<_> =
        app.acknowledged("orders").iter().map(|message| message.body_str().into_owned()).collect();
    assert_eq!(bodies, ["2", "1"]);

    let app = failing(u32::MAX, config).await;
    app.deliver(paid("1")).await;
    app.advance(MINUTE * 10).await;
    let dead = app.dead_letters("orders");
    assert_eq!((app.attempts("orders"), dead.len()), (3, 1));
    assert_eq!(dead[0].reason(), "given up after 3 attempts: no 2");
}

#[rocketmq::listener(group = "europe", topic = "regions", sql = "region = 'eu' AND amount BETWEEN 1 AND 5")]
async fn in_europe(_: &MessageExt) -> Result<(), String> {
    Err("not yet".to_owned())
}

#[tokio::test]
async fn what_sql_does_not_choose_is_for_nobody() {
    let app = App::builder().config_value(Config::default()).groups(["europe"]).start().await.unwrap();
    let message = |region: &str, amount: u32| {
        let message = Message::new("regions").property("region", region).body("x");
        message.property("amount", amount.to_string())
    };
    for other in [message("us", 3), message("eu", 6), Message::new("regions").body("x")] {
        assert!(app.deliver(other).await.is_empty());
    }
    let chosen = app.deliver(message("eu", 5)).await;
    assert_eq!((chosen.listener(), chosen.fate()), ("testing::in_europe", Fate::Retried));
    // What comes again is not chosen again.
    app.advance(MINUTE).await;
    assert_eq!((app.attempts("europe"), app.handled("regions").await.len()), (3, 3));
}

#[tokio::test]
async fn what_a_hook_keeps_from_the_listeners_is_not_waited_for() {
    let app = App::builder()
        .config_value(Config::default())
        .without_linked_listeners()
        .listener("orders", "t", "*", |_| async {})
        .filter_hook(|filtering: &Filtering<'_>, message: &MessageExt| {
            filtering.group == "orders" && message.property("test").is_none()
        })
        .start()
        .await
        .unwrap();
    assert!(app.deliver(Message::new("t").property("test", "yes").body("1")).await.is_empty());
    assert_eq!(app.deliver(Message::new("t").body("2")).await.only(), ConsumeResult::Success);
    app.idle().await;
    assert_eq!(app.attempts("orders"), 1);
}

#[rocketmq::listener(group = "caches", topic = "changes", broadcast)]
async fn on_change(change: String) -> Result<(), String> {
    if change == "bad" { Err("unknown".to_owned()) } else { Ok(()) }
}

#[tokio::test]
async fn what_fails_in_a_group_that_broadcasts_is_dropped() {
    for _ in 0..2 {
        let app = App::builder().config_value(Config::default()).groups(["caches"]).start().await.unwrap();
        let change = |body: &'static str| Message::new("changes").body(body);
        assert_eq!(app.deliver(change("good")).await.fate(), Fate::Acknowledged);
        let bad = app.deliver(change("bad")).await;
        assert_eq!((bad.fate(), bad.error()), (Fate::Dropped, Some("unknown")));
        app.advance(MINUTE * 60).await;
        assert_eq!((app.attempts("caches"), app.dead_letters("caches").len()), (2, 0));
        app.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn open_transactions_are_seen_and_looked_into_when_time_moves() {
    let mut config = Config::default();
    let mut orders = ProducerConfig::default();
    (orders.group, orders.transaction) = (Some("orders-tx".to_owned()), true);
    config.producers.insert("orders".to_owned(), orders);
    let asked = Arc::new(AtomicU32::new(0));
    let asks = Arc::clone(&asked);
    let app = App::builder()
        .config_value(config)
        .without_linked_listeners()
        .listener("shipping", "order-events", "*", |_| async {})
        .transaction("orders", move |_| {
            let before = asks.fetch_add(1, Ordering::Relaxed);
            async move { if before == 0 { Transaction::Unknown } else { Transaction::Commit } }
        })
        .start()
        .await
        .unwrap();
    let producer = app.producer("orders").unwrap();
    producer.send_in_transaction(paid("1"), async { Transaction::Unknown }).await.unwrap();
    app.idle().await;
    let open = app.open_transactions();
    assert_eq!((open.len(), open[0].body_str().as_ref(), open[0].topic()), (1, "1", "order-events"));
    app.advance(Duration::from_secs(10)).await;
    assert_eq!(
        (asked.load(Ordering::Relaxed), app.open_transactions().len(), app.attempts("shipping")),
        (1, 1, 0)
    );
    app.advance(MINUTE).await;
    assert_eq!(
        (asked.load(Ordering::Relaxed), app.open_transactions().len(), app.attempts("shipping")),
        (2, 0, 1)
    );
}

#[rocketmq::listener(group = "quotes", topic = "quote-requests")]
async fn quote(share: String) -> Result<Reply<String>, String> {
    if share == "NONE" { Err("no share".to_owned()) } else { Ok(Reply(format!("{share}: 42"))) }
}

#[tokio::test]
async fn requests_are_answered_and_what_came_of_them_is_seen() {
    let app = App::builder().config_value(Config::default()).groups(["quotes"]).start().await.unwrap();
    let request = Message::new("quote-requests").body("ACME");
    let reply = app.producer("default").unwrap().request(request, MINUTE).await.unwrap();
    assert_eq!(reply.body_str(), "ACME: 42");
    let handled = app.handled("quote-requests").await;
    assert_eq!((handled.len(), handled[0].fate), (1, Fate::Acknowledged));
    let failed = app.deliver(Message::new("quote-requests").body("NONE")).await;
    assert_eq!((failed.fate(), failed.error()), (Fate::Retried, Some("no share")));
}

#[tokio::test]
async fn an_application_is_stopped_by_any_of_its_handles() {
    let app = rocketmq::App::builder()
        .config_value({
            let mut config = Config::default();
            config.cluster.name_servers = rocketmq::config::NameServers::Embedded;
            config
        })
        .without_linked_listeners()
        .listener("orders", "t", "*", |_| async {})
        .start()
        .await
        .unwrap();
    app.ready().await;
    assert!(app.health().ready);
    let other = app.clone();
    let (first, second) = tokio::join!(app.shutdown(), other.shutdown());
    first.and(second).unwrap();
    assert!(!app.health().ready && !app.producers().get("default").unwrap().group().is_empty());
    other.shutdown().await.unwrap();
}
