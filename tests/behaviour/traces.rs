//! Message traces, as the programs that read them find them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use rocketmq::config::TraceConfig;
use rocketmq::{App, ConsumeResult, Message, Producer, PushConsumer, Tracer, Transaction};

use crate::seen::Seen;
use crate::server::{Server, config, consumer_config, producer_config, unique};
use crate::wait;

on_each_server! { Shared:
    a_trace_tells_who_sent_a_message_and_how_each_try_to_handle_it_went,
    a_trace_tells_what_became_of_a_transaction,
}

/// All messages with records, once there are at least `count` of these.
async fn read(server: &Server, traces: &str, count: usize) -> Result<Seen> {
    let (seen, manager) = (Seen::default(), server.manager());
    PushConsumer::builder(unique("reader"))
        .config(consumer_config())
        .subscribe(traces, "*", seen.listener())
        .build(&manager)?;
    manager.start().await?;
    seen.until("all records have come", |handled| {
        handled.messages.iter().map(|message| message.body_str().matches('\u{2}').count()).sum::<usize>()
            >= count
    })
    .await?;
    manager.shutdown().await?;
    Ok(seen)
}

async fn a_trace_tells_who_sent_a_message_and_how_each_try_to_handle_it_went(server: Server) -> Result<()> {
    let (topic, traces, group) = (unique("traced"), unique("traces"), unique("group"));
    server.create_topic(&topic, 1).await?;
    server.create_topic(&traces, 1).await?;
    let mut config = config(&server);
    config.trace.enabled = true;
    config.trace.topic.clone_from(&traces);
    config.trace.linger = Duration::from_millis(50);
    let tries = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&tries);
    let app = App::builder()
        .without_linked_listeners()
        .config_value(config)
        .listener(&group, &topic, "*", move |_| {
            let first = counted.fetch_add(1, Ordering::Relaxed) == 0;
            async move { if first { ConsumeResult::ReconsumeLater } else { ConsumeResult::Success } }
        })
        .start()
        .await?;
    let message = Message::new(&topic).tag("paid").key("k1").key("k2").body("1234567");
    let sent = app.producer("default")?.send(message).await?;
    wait::until("the message was tried twice", async || Ok(tries.load(Ordering::Relaxed) == 2)).await?;
    // What is not sent yet leaves now.
    app.shutdown().await?;

    // A broker of 4.9 asks for no trace of consumption.
    let seen = read(&server, &traces, if server.is_4_9() { 1 } else { 5 }).await?;

    let id = sent.message_id.as_str();
    assert!(seen.messages().iter().all(|message| message.keys().any(|key| key == id)));
    assert!(seen.messages().iter().all(|message| message.keys().any(|key| key == "k2")));
    let text: String = seen.messages().iter().map(|message| message.body_str().into_owned()).collect();
    let records: Vec<Vec<&str>> =
        text.split_terminator('\u{2}').map(|record| record.split('\u{1}').collect()).collect();
    let of = |kind: &str| records.iter().filter(|record| record[0] == kind).collect::<Vec<_>>();
    let [publication] = of("Pub")[..] else { anyhow::bail!("not one publication: {records:?}") };
    let broker = server.broker_addr().to_string();
    assert_eq!(publication[2..10], ["DefaultRegion", "default", &topic, id, "paid", "k1 k2", &broker, "7"]);
    assert_eq!(publication[11..], ["0", &sent.offset_message_id, "true"]);
    assert!(publication[1].parse::<u64>().context("when")? > 1_700_000_000_000);
    if server.is_4_9() {
        return Ok(());
    }
    let (before, after) = (of("SubBefore"), of("SubAfter"));
    for (at, (retries, success, code)) in [("0", "false", "4"), ("1", "true", "0")].into_iter().enumerate() {
        assert_eq!(before[at][2..4], ["DefaultRegion", &group], "{records:?}");
        assert_eq!(before[at][6..], [retries, "k1 k2"], "{records:?}");
        assert_eq!(after[at][1], before[at][4], "one call has one request id: {records:?}");
        assert_eq!(after[at][4..7], [success, "k1 k2", code], "{records:?}");
        assert_eq!(after[at][8], group, "{records:?}");
    }
    assert_eq!((before[0][5], after[0][2]), (id, id));
    Ok(())
}

async fn a_trace_tells_what_became_of_a_transaction(server: Server) -> Result<()> {
    let (topic, traces, group) = (unique("traced"), unique("traces"), unique("producer"));
    server.create_topic(&topic, 1).await?;
    server.create_topic(&traces, 1).await?;
    let mut config = TraceConfig::default();
    config.topic.clone_from(&traces);
    let (manager, tracer) = (server.manager(), Tracer::new(config)?);
    manager.register_tracer(&tracer)?;
    let producer = Producer::builder(&group)
        .config(producer_config())
        .hook(tracer)
        .check(|_| async { Transaction::Commit })
        .build(&manager)?;
    manager.start().await?;
    let message = |body: &'static str| Message::new(&topic).tag("paid").key("k1").body(body);
    let refused = producer.send_in_transaction(message("1"), async { Transaction::Rollback }).await?;
    let open = producer.send_in_transaction(message("12"), async { Transaction::Unknown }).await?;
    wait::until("the check has committed", async || Ok(server.admin().max_offset(&topic, 0).await? > 0))
        .await?;
    manager.shutdown().await?;

    let seen = read(&server, &traces, 5).await?;
    assert!(seen.messages().iter().all(|message| message.keys().any(|key| key == "k1")));
    let text: String = seen.messages().iter().map(|message| message.body_str().into_owned()).collect();
    let records: Vec<Vec<&str>> =
        text.split_terminator('\u{2}').map(|record| record.split('\u{1}').collect()).collect();
    let of = |kind: &str| records.iter().filter(|record| record[0] == kind).collect::<Vec<_>>();
    let broker = server.broker_addr().to_string();
    for (publication, (sent, length)) in of("Pub").into_iter().zip([(&refused.sent, "1"), (&open.sent, "2")])
    {
        let id = sent.message_id.as_str();
        assert_eq!(publication[2..10], ["DefaultRegion", &group, &topic, id, "paid", "k1", &broker, length]);
        assert_eq!(publication[11..], ["1", &sent.offset_message_id, "true"]);
    }
    let (refused, open) = (refused.sent.message_id.as_str(), open.sent.message_id.as_str());
    let expected =
        [(refused, "ROLLBACK_MESSAGE", "false"), (open, "UNKNOW", "false"), (open, "COMMIT_MESSAGE", "true")];
    let mut ends = of("EndTransaction");
    // A broker that has not noted down yet that it is committed asks once more.
    ends.dedup_by_key(|end| end[2..].to_vec());
    assert_eq!(ends.len(), expected.len());
    for (end, (id, state, from_check)) in ends.into_iter().zip(expected) {
        assert!(end[1].parse::<u64>().context("when")? > 1_700_000_000_000);
        assert_eq!(
            end[2..],
            ["DefaultRegion", &group, &topic, id, "paid", "k1", &broker, "2", id, state, from_check]
        );
    }
    Ok(())
}
