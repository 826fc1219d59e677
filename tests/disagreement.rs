//! Two annotated listeners that contradict each other: a program of its own, since all of a program's are collected.

use rocketmq::config::Config;
use rocketmq::{App, MessageExt, Next, Producer, State};

#[rocketmq::listener(group = "group", topic = "orders", tag = "paid || new")]
async fn the_one(_: MessageExt) {}

#[rocketmq::listener(group = "group", topic = "orders", tag = "paid")]
async fn the_other(_: MessageExt) {}

#[rocketmq::listener(group = "group", topic = "mails", orderly)]
async fn in_order(_: MessageExt) {}

#[derive(Clone)]
struct Outbox;

#[rocketmq::listener(group = "senders", topic = "letters")]
async fn sends(_: MessageExt, _: Producer, _: State<Outbox>) {}

/// Before anything is connected: there is no server here.
#[tokio::test]
async fn listeners_that_disagree_stop_the_start_and_both_are_named() {
    let error = App::builder().config_value(Config::default()).start().await.unwrap_err().to_string();
    let parts = [
        "group `group`",
        "the_one (tests/disagreement.rs:",
        "the_other (tests/disagreement.rs:",
        "paid || new",
    ];
    for part in parts.into_iter().chain(["in_order (tests/disagreement.rs:", "disagree on `orderly`"]) {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
}

/// One look at the list is enough. What a complete configuration would give is not taken to be missing.
#[tokio::test]
async fn mistakes_in_the_configuration_do_not_hide_those_of_listeners() {
    let mut config = Config::default();
    config.defaults.concurrency = 0;
    let app = App::builder()
        .config_value(config)
        .state_with(|_| Ok(Outbox))
        .around_with_state(|_: State<u32>, delivery, next: Next| next.run(delivery));
    let error = app.start().await.unwrap_err().to_string();
    for part in [
        "4 problems",
        "defaults.concurrency: expected",
        "takes State<u32>",
        "the_other (",
        "disagree on `orderly`",
    ] {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
}

/// Each is still a function, which can be called.
#[tokio::test]
async fn annotated_functions_stay_functions() {
    let message = || MessageExt::from(rocketmq::Message::new("orders").body("x"));
    the_one(message()).await;
    the_other(message()).await;
    in_order(message()).await;
}
