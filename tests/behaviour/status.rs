//! The status page of an application, as a probe and a scraper see it.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rocketmq::config::{Config, NameServers, Startup};
use rocketmq::embedded::Server;
use rocketmq::{App, BadPayload, ConsumeResult, Delivery, Listener, Message, Next};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::fake::nobody;
use crate::server::{block_on, cluster};
use crate::wait;

/// The status code and the body of an answer.
async fn ask(address: SocketAddr, method: &str, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end of its head")?;
    let code = head.split(' ').nth(1).context("the answer has no code")?;
    Ok((code.parse()?, body.to_owned()))
}

#[test]
fn the_page_says_what_an_application_does_from_its_start_to_its_end() -> Result<()> {
    block_on(async {
        let (begun, goes_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (began, waits) = (Arc::clone(&begun), Arc::clone(&goes_on));
        let mut config = Config::default();
        config.cluster.name_servers = NameServers::Embedded;
        config.health.listen = Some("127.0.0.1:0".parse()?);
        let app = App::builder()
            .without_linked_listeners()
            .config_value(config)
            .listener("watched", "orders", "*", move |_| {
                let (began, waits) = (Arc::clone(&began), Arc::clone(&waits));
                async move {
                    began.add_permits(1);
                    waits.acquire().await.map(|_| ConsumeResult::Success)
                }
            })
            .start()
            .await?;
        let page = app.status_page().context("there is a status page")?;
        app.ready().await;

        assert_eq!(ask(page, "GET", "/livez").await?, (200, "ok\n".to_owned()));
        assert_eq!(ask(page, "GET", "/readyz").await?, (200, "ok\n".to_owned()));
        assert_eq!(ask(page, "HEAD", "/readyz").await?, (200, String::new()));
        assert_eq!(ask(page, "POST", "/readyz").await?.0, 405);
        assert_eq!(ask(page, "GET", "/").await?.0, 404);
        app.producer("default")?.send(Message::new("orders").body("1")).await?;
        let (code, metrics) = ask(page, "GET", "/metrics").await?;
        assert_eq!(code, 200);
        for line in [
            "# TYPE rocketmq_producer_sent_total counter",
            "rocketmq_producer_sent_total{producer=\"default\",topic=\"orders\"} 1",
            "rocketmq_consumer_ready{cluster=\"default\",group=\"watched\"} 1",
        ] {
            assert!(metrics.lines().any(|it| it == line), "{line}: {metrics}");
        }

        let _ = begun.acquire().await?;
        wait::until("the page says that the message has come", async || {
            let line =
                "rocketmq_consumer_pulled_total{cluster=\"default\",group=\"watched\",topic=\"orders\"} 1";
            Ok(ask(page, "GET", "/metrics").await?.1.lines().any(|it| it == line))
        })
        .await?;
        let mut stopping = JoinSet::new();
        let stopped = app.clone();
        stopping.spawn(async move { stopped.shutdown().await });
        wait::until("the page says that the application stops", async || {
            Ok(ask(page, "GET", "/readyz").await? == (503, "the application is stopping\n".to_owned()))
        })
        .await?;
        assert_eq!(ask(page, "GET", "/livez").await?.0, 200, "its handler is still at work");
        goes_on.add_permits(1);
        stopping.join_next().await.context("the shutdown ends")???;
        assert!(ask(page, "GET", "/livez").await.is_err(), "it has ended");
        Ok(())
    })
}

#[test]
fn a_group_in_two_clusters_is_ready_where_it_is_so_in_both() -> Result<()> {
    block_on(async {
        let (near, far) = (Server::builder().start().await?, Server::builder().start().await?);
        near.create_topic("orders", 1)?;
        let mut config = Config::default();
        config.cluster = cluster(&near.name_server());
        // Consumers are kept by the names of their clusters: this one comes before that of the default cluster.
        config.clusters.insert("a-far-one".to_owned(), cluster(&far.name_server()));
        config.health.listen = Some("127.0.0.1:0".parse()?);
        let listener = || Listener::new("watched", "orders", "*", |_| async { ConsumeResult::Success });
        let app = App::builder()
            .without_linked_listeners()
            .config_value(config)
            .listener_with(listener())
            .listener_with(listener().cluster("a-far-one"))
            .start()
            .await?;
        let page = app.status_page().context("there is a status page")?;
        wait::until("only the far cluster is not ready", async || {
            let (code, text) = ask(page, "GET", "/readyz").await?;
            Ok(code == 503 && text.contains("a-far-one") && text.lines().count() == 1)
        })
        .await?;
        let health = app.health();
        ensure!(!health.ready && !health.groups["watched"].ready, "{health:?}");
        far.create_topic("orders", 1)?;
        app.ready().await;
        let health = app.health();
        ensure!(health.ready && health.groups["watched"].ready, "{health:?}");

        for is_paused in [false, true, false] {
            match is_paused {
                true => app.pause("watched")?,
                false => app.resume("watched")?,
            }
            let health = app.health();
            ensure!(health.ready && health.groups["watched"].paused == is_paused, "{health:?}");
            let metrics = ask(page, "GET", "/metrics").await?.1;
            for cluster in ["default", "a-far-one"] {
                let labels = format!("{{cluster=\"{cluster}\",group=\"watched\"}}");
                let line = format!("rocketmq_consumer_paused{labels} {}", u8::from(is_paused));
                ensure!(metrics.lines().any(|it| it == line), "{line}: {metrics}");
            }
        }
        app.shutdown().await?;
        far.shutdown().await;
        near.shutdown().await;
        Ok(())
    })
}

#[test]
fn what_does_not_decode_is_counted_on_the_page() -> Result<()> {
    block_on(async {
        let mut config = Config::default();
        config.cluster.name_servers = NameServers::Embedded;
        config.health.listen = Some("127.0.0.1:0".parse()?);
        let app = App::builder()
            .without_linked_listeners()
            .config_value(config)
            .listener("watched", "orders", "*", |_| async { ConsumeResult::Success })
            .around(|delivery: Delivery, next: Next| async move {
                match delivery.message().body_str().as_ref() {
                    "bad" => BadPayload::new("no order").into(),
                    _ => next.run(delivery).await,
                }
            })
            .start()
            .await?;
        app.ready().await;
        let page = app.status_page().context("there is a status page")?;
        let producer = app.producer("default")?;
        for body in ["good", "bad", "good"] {
            producer.send(Message::new("orders").body(body)).await?;
        }
        wait::until("the page has counted all of them", async || {
            let metrics = ask(page, "GET", "/metrics").await?.1;
            let has = |family: &str, count: u32| {
                let line = format!(
                    "rocketmq_consumer_{family}_total{{cluster=\"default\",group=\"watched\",topic=\"orders\"}} {count}"
                );
                metrics.lines().any(|it| it == line)
            };
            Ok(has("ok", 2) && has("failed", 1) && has("bad_payloads", 1))
        })
        .await?;
        app.shutdown().await?;
        Ok(())
    })
}

#[test]
fn a_start_that_waits_for_its_name_server_can_be_watched() -> Result<()> {
    block_on(async {
        let page = nobody().await?;
        let mut config = Config::default();
        config.cluster.name_servers = NameServers::Addresses(vec![nobody().await?.to_string()]);
        config.cluster.client.startup = Startup::Wait;
        config.health.listen = Some(page);
        let listener = |_| async { ConsumeResult::Success };
        let app = App::builder().without_linked_listeners().config_value(config);
        let mut start = JoinSet::new();
        start.spawn(app.listener("watched", "orders", "*", listener).start());
        wait::until("the process says that it lives", async || {
            Ok(matches!(ask(page, "GET", "/livez").await, Ok((200, _))))
        })
        .await?;
        let (code, text) = ask(page, "GET", "/readyz").await?;
        assert_eq!(code, 503);
        assert!(text.contains("group watched of cluster default"), "{text}");
        Ok(())
    })
}

#[test]
fn an_address_that_is_taken_stops_the_start_with_its_key() -> Result<()> {
    block_on(async {
        let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let mut config = Config::default();
        config.cluster.name_servers = NameServers::Embedded;
        config.health.listen = Some(taken.local_addr()?);
        let app = App::builder().without_linked_listeners().config_value(config);
        let error = app.start().await.expect_err("the port is taken").to_string();
        assert!(
            error.contains("health.listen") && error.contains(&taken.local_addr()?.to_string()),
            "{error}"
        );
        Ok(())
    })
}
