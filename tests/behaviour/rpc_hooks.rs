//! Hooks that see every request of a client, and every answer.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use rocketmq::client::MqClientManager;
use rocketmq::config::SerializeType;
use rocketmq::{
    App, Message, Producer, PushConsumer, RequestCode, RequestError, ResponseCode, RpcAnswer, RpcCall,
    RpcHook, RpcRequest, SendError,
};

use crate::seen::Seen;
use crate::sending::send_numbers;
use crate::server::{Server, config, consumer_config, producer_config, unique};

on_each_server! { Shared:
    hooks_see_what_is_asked_and_answered,
    what_a_hook_forbids_does_not_leave,
    hooks_of_an_application_see_all_that_it_asks,
}

/// Adds a field to every request, and writes down what it sees.
#[derive(Clone, Default)]
struct Watch(Arc<Mutex<Notes>>);

#[derive(Default)]
struct Notes {
    asked: Vec<(RequestCode, bool)>,
    /// What was asked, whether it went well, the fields of the answer, and the length of its body.
    answered: Vec<(RequestCode, bool, BTreeSet<String>, usize)>,
    failed: Vec<String>,
}

impl Watch {
    fn change<T>(&self, change: impl FnOnce(&mut Notes) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn asked(&self, code: RequestCode) -> usize {
        self.change(|notes| notes.asked.iter().filter(|(asked, _)| *asked == code).count())
    }
}

impl RpcHook for Watch {
    fn before(&self, request: &mut RpcRequest<'_>) -> Result<(), String> {
        request.put("seenBy", "watch");
        self.change(|notes| notes.asked.push((request.code(), request.is_oneway())));
        match request.field("b").is_some_and(|topic| topic.contains("forbidden")) {
            true => Err("this topic is for others".to_owned()),
            false => Ok(()),
        }
    }

    fn after(&self, call: &RpcCall<'_>, answer: Result<&RpcAnswer<'_>, &RequestError>) {
        self.change(|notes| match answer {
            Ok(answer) => {
                let fields = answer.fields().map(|(name, _)| name.to_owned()).collect();
                let is_good = answer.code() == ResponseCode::SUCCESS;
                notes.answered.push((call.code, is_good, fields, answer.body().len()));
            }
            Err(error) => {
                notes.failed.push(format!("{} {} {error} {:?}", call.address, call.code, call.took))
            }
        });
    }
}

async fn hooks_see_what_is_asked_and_answered(server: Server) -> Result<()> {
    for form in [SerializeType::Json, SerializeType::Rocketmq] {
        let (topic, seen, watch) = (unique("orders"), Seen::default(), Watch::default());
        server.create_topic(&topic, 1).await?;
        let mut cluster = server.cluster();
        cluster.client.serialize = form;
        let manager = MqClientManager::new(cluster);
        manager.register_rpc_hook(watch.clone())?;
        let producer = Producer::builder(unique("producer")).config(producer_config()).build(&manager)?;
        PushConsumer::builder(unique("group"))
            .config(consumer_config())
            .subscribe(topic.as_str(), "*", seen.listener())
            .build(&manager)?;
        manager.start().await?;
        let error = manager.register_rpc_hook(Watch::default()).expect_err("there is a client");
        ensure!(error.to_string().contains("before the manager"), "{error}");
        let mut sent = send_numbers(&producer, &topic, 20).await?;
        producer.send_oneway(Message::new(&topic).body("oneway")).await?;
        sent.insert("oneway".to_owned());
        seen.until_all(&sent).await?;
        manager.shutdown().await?;

        let Notes { asked, answered, .. } = watch.change(std::mem::take);
        let asked_sends: Vec<_> =
            asked.iter().filter(|(code, _)| *code == RequestCode::SEND_MESSAGE_V2).collect();
        ensure!(asked_sends.iter().filter(|(_, is_oneway)| *is_oneway).count() == 1, "{asked_sends:?}");
        let of = |code: RequestCode| answered.iter().filter(move |(answered, ..)| *answered == code);
        ensure!(of(RequestCode::SEND_MESSAGE_V2).count() == 20, "{answered:?}");
        ensure!(
            of(RequestCode::SEND_MESSAGE_V2).all(|(_, good, fields, _)| *good && fields.contains("msgId"))
        );
        ensure!(of(RequestCode::GET_ROUTEINFO_BY_TOPIC).any(|(_, good, _, body)| *good && *body > 0));
        ensure!(
            of(RequestCode::PULL_MESSAGE)
                .any(|(_, good, fields, body)| { *good && *body > 0 && fields.contains("nextBeginOffset") })
        );
        for code in
            [RequestCode::HEART_BEAT, RequestCode::UPDATE_CONSUMER_OFFSET, RequestCode::UNREGISTER_CLIENT]
        {
            ensure!(of(code).any(|(_, good, ..)| *good), "{code}: {answered:?}");
        }
    }
    Ok(())
}

async fn what_a_hook_forbids_does_not_leave(server: Server) -> Result<()> {
    let (topic, forbidden, watch) = (unique("orders"), unique("forbidden"), Watch::default());
    for topic in [&topic, &forbidden] {
        server.create_topic(topic, 1).await?;
    }
    let manager = server.manager();
    manager.register_rpc_hook(watch.clone())?;
    let producer = Producer::builder(unique("producer")).config(producer_config()).build(&manager)?;
    manager.start().await?;
    let error = producer.send(Message::new(&forbidden).body("x")).await.expect_err("the hook says no");
    let words = format!("{:?}", rocketmq::Error::from(error.clone()));
    ensure!(matches!(&error, SendError::Failed { attempts: 1, .. }), "{error:?}");
    ensure!(words.contains("this topic is for others") && words.contains("SEND_MESSAGE_V2"), "{words}");
    ensure!(!error.is_retryable());
    let error = producer.send_oneway(Message::new(&forbidden).body("x")).await.expect_err("the hook says no");
    ensure!(matches!(error, SendError::Failed { .. }), "{error:?}");
    producer.send(Message::new(&topic).body("x")).await?;
    ensure!(server.admin().max_offset(&forbidden, 0).await? == 0, "it has left");
    ensure!(watch.asked(RequestCode::SEND_MESSAGE_V2) == 3);
    ensure!(watch.change(|notes| notes.failed.is_empty()), "what has not left has no answer");
    manager.shutdown().await?;
    Ok(())
}

async fn hooks_of_an_application_see_all_that_it_asks(server: Server) -> Result<()> {
    let (topic, watch, seen) = (unique("orders"), Watch::default(), Seen::default());
    server.create_topic(&topic, 1).await?;
    let mut config = config(&server);
    config.cluster.client.request_timeout = Duration::from_secs(10);
    let app = App::builder()
        .config_value(config)
        .without_linked_listeners()
        .rpc_hook(watch.clone())
        .listener(unique("group"), topic.as_str(), "*", seen.listener())
        .start()
        .await?;
    app.producer("default")?.send(Message::new(&topic).body("one")).await?;
    seen.until_count(1).await?;
    app.shutdown().await?;
    for code in [RequestCode::SEND_MESSAGE_V2, RequestCode::PULL_MESSAGE, RequestCode::HEART_BEAT] {
        ensure!(watch.asked(code) > 0, "{code}");
    }
    Ok(())
}
