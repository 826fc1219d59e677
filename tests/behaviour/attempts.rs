//! One send, several attempts: which answers are followed by another one, where that goes, and what it leaves behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use rocketmq::client::MqClientManager;
use rocketmq::config::{ClusterConfig, NameServers, ProducerConfig};
use rocketmq::{Message, Producer, ResponseCode, SendError};
use tokio::task::JoinSet;

use crate::fake::{Fake, nobody};
use crate::scripted::Scripted;
use crate::server::{block_on, cluster, producer_config};

const V5: i64 = 513;
const V4: i64 = 407;
const TOPIC: &str = "orders";

/// A producer whose name server knows these brokers.
struct Setup {
    _name_server: Fake,
    manager: MqClientManager,
    producer: Producer,
}

impl Setup {
    async fn start(brokers: &[(&str, &Scripted)], config: ProducerConfig) -> Result<Self> {
        Self::start_with(brokers, config, |_| {}).await
    }

    async fn start_with(
        brokers: &[(&str, &Scripted)],
        config: ProducerConfig,
        set: impl FnOnce(&mut ClusterConfig),
    ) -> Result<Self> {
        let brokers: Vec<_> = brokers.iter().map(|(name, broker)| (*name, broker.addr())).collect();
        let name_server = Fake::name_server(TOPIC, &brokers).await?;
        let mut cluster = cluster(&name_server.addr().to_string());
        set(&mut cluster);
        let manager = MqClientManager::new(cluster);
        let producer = Producer::builder("producer").config(config).build(&manager)?;
        manager.start().await?;
        Ok(Self { _name_server: name_server, manager, producer })
    }

    async fn send(&self) -> Result<rocketmq::SendResult, SendError> {
        self.producer.send(message()).await
    }
}

fn message() -> Message {
    Message::new(TOPIC).body("x")
}

#[test]
fn a_refusal_that_another_broker_may_not_share_is_followed_by_another_attempt_there() -> Result<()> {
    block_on(async {
        for code in [1, 2, 14, 16, 17, 204, 205] {
            let refusing = Scripted::start(V5, move |_, _| code).await?;
            let good = Scripted::start(V5, |_, _| 0).await?;
            let brokers = [("broker-a", &refusing), ("broker-b", &good)];
            let setup = Setup::start(&brokers, producer_config()).await?;
            for _ in 0..4 {
                assert_eq!(setup.send().await?.queue.broker_name.as_ref(), "broker-b", "{code}");
            }
            assert_eq!(good.sends().len(), 4);
            assert!(!refusing.sends().is_empty(), "{code}: it was never tried");
            let stats = setup.producer.stats()[TOPIC];
            assert_eq!((stats.sent, stats.retries), (4, refusing.sends().len() as u64));
            setup.manager.shutdown().await?;
        }
        Ok(())
    })
}

#[test]
fn any_other_refusal_ends_the_send_with_the_brokers_code_and_words() -> Result<()> {
    block_on(async {
        let refusing = Scripted::start(V5, |_, _| 13).await?;
        let setup = Setup::start(&[("broker-a", &refusing)], producer_config()).await?;
        let error = setup.send().await.expect_err("it was refused");
        let SendError::Refused { attempts: 1, response, remark, address, .. } = &error else {
            panic!("{error:?}")
        };
        assert_eq!((*response, remark.as_str()), (ResponseCode::MESSAGE_ILLEGAL, "scripted 13"));
        assert_eq!(address.as_ref(), refusing.addr().to_string());
        assert!(!error.is_retryable() && !error.is_flow_control());
        assert_eq!(refusing.sends().len(), 1);
        assert_eq!(setup.producer.stats()[TOPIC].failed, 1);
        setup.manager.shutdown().await?;
        Ok(())
    })
}

#[test]
fn a_broker_that_does_not_have_the_topic_makes_the_producer_ask_where_it_is() -> Result<()> {
    block_on(async {
        const TOPIC_NOT_EXIST: i64 = 17;
        let name_server = Arc::new(Scripted::start(V5, |_, _| 0).await?);
        let new = Arc::new(Scripted::start(V5, |_, _| 0).await?);
        // The topic moves just when the old broker is asked.
        let (moving, destination) = (Arc::clone(&name_server), Arc::clone(&new));
        let old = Scripted::start(V5, move |_, _| {
            moving.route_to("broker-b", &destination);
            TOPIC_NOT_EXIST
        })
        .await?;
        name_server.route_to("broker-a", &old);
        let manager = MqClientManager::new(cluster(&name_server.addr().to_string()));
        let producer = Producer::builder("producer").config(producer_config()).build(&manager)?;
        manager.start().await?;
        assert_eq!(producer.send(message()).await?.queue.broker_name.as_ref(), "broker-b");
        assert_eq!((old.sends().len(), new.sends().len()), (1, 1));
        manager.shutdown().await?;
        Ok(())
    })
}

#[test]
fn a_master_that_comes_back_is_sent_to_at_once() -> Result<()> {
    block_on(async {
        let name_server = Scripted::start(V5, |_, _| 0).await?;
        let broker = Scripted::start(V5, |_, _| 0).await?;
        name_server.route_to_slave("broker-a", &broker);
        let mut cluster = cluster(&name_server.addr().to_string());
        // Nobody looks by itself.
        cluster.client.route_interval = Duration::from_secs(3_600);
        let manager = MqClientManager::new(cluster);
        let producer = Producer::builder("producer").config(producer_config()).build(&manager)?;
        manager.start().await?;
        let error = producer.send(message()).await.expect_err("there is no master");
        assert!(format!("{error:?}").contains("NoQueue"), "{error:?}");

        name_server.route_to("broker-a", &broker);
        assert_eq!(producer.send(message()).await?.queue.broker_name.as_ref(), "broker-a");
        manager.shutdown().await?;
        Ok(())
    })
}

#[test]
fn which_refusals_are_followed_by_another_attempt_is_configurable() -> Result<()> {
    block_on(async {
        let refusing = Scripted::start(V5, |_, at| if at < 2 { 215 } else { 0 }).await?;
        let mut config = producer_config();
        config.retry_codes = vec![ResponseCode::FLOW_CONTROL];
        let setup = Setup::start(&[("broker-a", &refusing)], config.clone()).await?;
        assert_eq!(setup.send().await?.message_id.len(), 32);
        assert_eq!(refusing.sends().len(), 3);
        setup.manager.shutdown().await?;

        let refusing = Scripted::start(V5, |_, _| 2).await?;
        let setup = Setup::start(&[("broker-a", &refusing)], config).await?;
        let error = setup.send().await.expect_err("it was refused");
        assert!(error.is_flow_control() && error.is_retryable(), "{error:?}");
        assert_eq!(refusing.sends().len(), 1);
        setup.manager.shutdown().await?;
        Ok(())
    })
}

#[test]
fn what_is_stored_but_not_safely_is_a_result_and_tried_elsewhere_where_that_is_wanted() -> Result<()> {
    block_on(async {
        use rocketmq::SendStatus::{FlushDiskTimeout, FlushSlaveTimeout, SendOk, SlaveNotAvailable};
        for (code, status) in [(10, FlushDiskTimeout), (11, SlaveNotAvailable), (12, FlushSlaveTimeout)] {
            let unsafe_one = Scripted::start(V5, move |_, _| code).await?;
            let setup = Setup::start(&[("broker-a", &unsafe_one)], producer_config()).await?;
            assert_eq!(setup.send().await?.status, status);
            assert_eq!(unsafe_one.sends().len(), 1);
            setup.manager.shutdown().await?;
        }
        let unsafe_one = Scripted::start(V5, |_, _| 10).await?;
        let mut config = producer_config();
        config.retry_other_broker = true;
        let setup = Setup::start(&[("broker-a", &unsafe_one)], config.clone()).await?;
        assert_eq!(setup.send().await?.status, FlushDiskTimeout, "no other broker did better");
        assert_eq!(unsafe_one.sends().len(), 3);
        setup.manager.shutdown().await?;

        let good = Scripted::start(V5, |_, _| 0).await?;
        let setup = Setup::start(&[("broker-a", &unsafe_one), ("broker-b", &good)], config).await?;
        for _ in 0..4 {
            assert_eq!(setup.send().await?.status, SendOk);
        }
        setup.manager.shutdown().await?;
        Ok(())
    })
}

#[test]
fn a_given_queue_is_tried_once() -> Result<()> {
    block_on(async {
        let refusing = Scripted::start(V5, |_, _| 14).await?;
        let good = Scripted::start(V5, |_, _| 0).await?;
        let setup = Setup::start(&[("broker-a", &refusing), ("broker-b", &good)], producer_config()).await?;
        let queues = setup.producer.queues(TOPIC).await?;
        let bad = queues.iter().find(|queue| queue.broker_name.as_ref() == "broker-a");
        let bad = bad.expect("it has queues");
        let sent = [
            setup.producer.send_to(bad, message()).await,
            setup.producer.send_with(message(), |queues, _| queues.iter().find(|queue| *queue == bad)).await,
        ];
        for sent in sent {
            assert!(matches!(&sent, Err(SendError::Refused { attempts: 1, .. })), "{sent:?}");
        }
        // Of twenty keys, some have a queue of the broker that refuses.
        let mut refused = 0;
        for key in 0..20 {
            match setup.producer.send_ordered(message(), format!("key-{key}")).await {
                Ok(_) => {}
                Err(SendError::Refused { attempts: 1, .. }) => refused += 1,
                Err(error) => panic!("{error:?}"),
            }
        }
        assert!(0 < refused && refused < 20, "{refused}");
        assert_eq!(refusing.sends().len(), 2 + refused);
        setup.manager.shutdown().await?;
        Ok(())
    })
}

#[test]
fn all_attempts_together_have_the_time_of_one_send() -> Result<()> {
    block_on(async {
        let refusing = Scripted::start(V5, |_, _| 14).await?;
        let mut config = producer_config();
        (config.retries, config.send_timeout) = (16, Duration::from_millis(700));
        let setup = Setup::start(&[("broker-a", &refusing)], config).await?;
        let start = Instant::now();
        let error = setup.send().await.expect_err("it is always refused");
        assert!(start.elapsed() < Duration::from_secs(3), "it took {:?}", start.elapsed());
        let (SendError::TimedOut { attempts, .. } | SendError::Refused { attempts, .. }) = &error else {
            panic!("{error:?}")
        };
        assert!((2..16).contains(attempts), "{error:?}");
        // Also where there was no time for another one: it says what the last one came to.
        assert_eq!(error.response_code(), Some(ResponseCode::SERVICE_NOT_AVAILABLE), "{error:?}");
        setup.manager.shutdown().await?;
        Ok(())
    })
}

#[test]
fn a_broker_that_hangs_takes_no_more_than_the_time_of_one_attempt() -> Result<()> {
    block_on(async {
        let hanging = Scripted::start(V5, |_, _| -1).await?;
        let good = Scripted::start(V5, |_, _| 0).await?;
        let mut config = producer_config();
        config.attempt_timeout = Some(Duration::from_millis(200));
        let setup = Setup::start(&[("broker-a", &hanging), ("broker-b", &good)], config).await?;
        let start = Instant::now();
        for _ in 0..4 {
            assert_eq!(setup.send().await?.queue.broker_name.as_ref(), "broker-b");
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert!(!hanging.sends().is_empty());
        setup.manager.shutdown().await?;
        Ok(())
    })
}

#[test]
fn a_broker_that_goes_away_gets_the_same_request_again_over_a_new_connection() -> Result<()> {
    block_on(async {
        let leaving = Scripted::start(V5, |_, at| if at == 1 { 1_500 } else { 0 }).await?;
        let setup = Setup::start(&[("broker-a", &leaving)], producer_config()).await?;
        for _ in 0..3 {
            setup.send().await?;
        }
        let sends = leaving.sends();
        let connections: Vec<_> = sends.iter().map(|send| send.connection).collect();
        assert_eq!(connections, [0, 0, 1, 1]);
        assert_eq!(sends[1].fields, sends[2].fields, "it is the same request");
        assert_eq!(setup.producer.stats()[TOPIC].retries, 0, "that was no attempt of its own");
        setup.manager.shutdown().await?;

        // Twice, and the send fails: with an attempt at another broker, if there were one.
        let leaving = Scripted::start(V5, |_, _| 1_500).await?;
        let mut config = producer_config();
        config.retries = 0;
        let setup = Setup::start(&[("broker-a", &leaving)], config).await?;
        let error = setup.send().await.expect_err("it is gone");
        assert_eq!(error.response_code(), Some(ResponseCode::GO_AWAY));
        assert_eq!(leaving.sends().len(), 2);
        setup.manager.shutdown().await?;
        Ok(())
    })
}

#[test]
fn a_broker_that_failed_is_left_alone_for_a_while_where_faults_are_avoided() -> Result<()> {
    block_on(async {
        for avoid in [false, true] {
            let refusing = Scripted::start(V5, |_, _| 14).await?;
            let good = Scripted::start(V5, |_, _| 0).await?;
            let mut config = producer_config();
            config.avoid_faults.enabled = avoid;
            let setup = Setup::start(&[("broker-a", &refusing), ("broker-b", &good)], config).await?;
            for _ in 0..20 {
                setup.send().await?;
            }
            let tried = refusing.sends().len();
            assert!(if avoid { tried == 1 } else { 5 <= tried }, "avoided: {avoid}, tried: {tried}");
            setup.manager.shutdown().await?;
        }
        Ok(())
    })
}

#[test]
fn the_detector_finds_a_broker_that_answers_again() -> Result<()> {
    block_on(async {
        let code = Arc::new(AtomicI64::new(14));
        let answer = Arc::clone(&code);
        let refusing = Scripted::start(V5, move |_, _| answer.load(Ordering::Relaxed)).await?;
        let good = Scripted::start(V5, |_, _| 0).await?;
        let mut config = producer_config();
        config.avoid_faults.enabled = true;
        config.avoid_faults.detector = true;
        config.avoid_faults.detect_interval = Duration::from_millis(50);
        let setup = Setup::start(&[("broker-a", &refusing), ("broker-b", &good)], config).await?;
        for _ in 0..4 {
            setup.send().await?;
        }
        code.store(0, Ordering::Relaxed);
        const GET_MAX_OFFSET: i64 = 30;
        crate::wait::until("the detector asks", async || {
            Ok(refusing.asked().iter().any(|asked| asked.code == GET_MAX_OFFSET))
        })
        .await?;
        setup.manager.shutdown().await?;
        let asked = refusing.asked().len();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(refusing.asked().len(), asked, "it goes on after the shutdown");
        Ok(())
    })
}

#[test]
fn a_timer_message_is_refused_here_where_the_broker_would_deliver_it_at_once() -> Result<()> {
    block_on(async {
        let delays: [fn(Message) -> Message; 3] = [
            |message| message.delay(Duration::from_secs(5)),
            |message| message.delay(Duration::from_millis(5)),
            |message| message.deliver_at(std::time::SystemTime::now() + Duration::from_secs(5)),
        ];
        for delay in delays {
            let (old, new) = (Scripted::start(V4, |_, _| 0).await?, Scripted::start(V5, |_, _| 0).await?);
            let setup = Setup::start(&[("broker-a", &old)], producer_config()).await?;
            let error = setup.producer.send(delay(message())).await.expect_err("it is too old");
            let text = error.to_string();
            assert!(matches!(error, SendError::Unsupported { .. }), "{error:?}");
            assert!(text.contains("5.0") && text.contains("4.9.7"), "{text}");
            let oneway = setup.producer.send_oneway(delay(message())).await;
            assert!(matches!(oneway, Err(SendError::Unsupported { .. })), "{oneway:?}");
            assert!(old.sends().is_empty());
            setup.producer.send(message().delay_level(3)).await?;
            setup.manager.shutdown().await?;

            let setup = Setup::start(&[("broker-a", &new)], producer_config()).await?;
            setup.producer.send(delay(message())).await?;
            setup.manager.shutdown().await?;
        }
        Ok(())
    })
}

#[test]
fn a_batch_has_a_name_of_its_own_only_where_that_is_not_written_into_its_messages() -> Result<()> {
    block_on(async {
        // Those of 5.3.3 and 5.4.0.
        for (version, named) in [(V4, false), (479, false), (493, true), (V5, true)] {
            let broker = Scripted::start(version, |_, _| 0).await?;
            let setup = Setup::start(&[("broker-a", &broker)], producer_config()).await?;
            setup.producer.send_batch([message(), message()]).await?;
            let [batch] = &broker.sends()[..] else { panic!("not one send") };
            assert_eq!((batch.code, &batch.fields["m"]), (320, &serde_json::json!("true")));
            let properties = batch.fields["i"].as_str().unwrap_or_default();
            assert_eq!(properties.contains("UNIQ_KEY"), named, "{properties:?}");
            setup.manager.shutdown().await?;
        }
        Ok(())
    })
}

#[test]
fn what_may_take_the_second_port_does_so_and_a_retry_does_not() -> Result<()> {
    block_on(async {
        let broker = Scripted::start(V5, |asked, _| if asked.code == 310 { 14 } else { 0 }).await?;
        let mut config = producer_config();
        config.retries = 1;
        let vip = |cluster: &mut ClusterConfig| cluster.client.vip_channel = true;
        let setup = Setup::start_with(&[("broker-a", &broker)], config, vip).await?;
        setup.send().await.expect_err("both attempts were refused");
        let (first, second) = (broker.addr().port(), broker.addr().port() - 2);
        let ports: Vec<_> = broker.sends().iter().map(|send| send.port).collect();
        assert_eq!(ports, [second, first]);
        let heartbeats = broker.asked();
        let mut heartbeats = heartbeats.iter().filter(|asked| asked.code == 34);
        assert!(heartbeats.all(|heartbeat| heartbeat.port == first), "a group would be counted twice");
        setup.manager.shutdown().await?;
        Ok(())
    })
}

#[test]
fn beyond_what_may_be_on_its_way_a_send_waits_and_then_says_why_it_failed() -> Result<()> {
    block_on(async {
        let hanging = Scripted::start(V5, |_, _| -1).await?;
        let mut config = producer_config();
        config.max_in_flight = 2;
        config.send_timeout = Duration::from_millis(1_500);
        let setup = Setup::start(&[("broker-a", &hanging)], config).await?;
        setup.producer.queues(TOPIC).await?;
        // They keep their places until they have heard that their time is over.
        let mut first = [Box::pin(setup.send()), Box::pin(setup.send())];
        crate::wait::until("two are on their way", async || {
            for send in &mut first {
                let begun = tokio::time::timeout(Duration::ZERO, send).await;
                assert!(begun.is_err(), "nobody answers: {begun:?}");
            }
            Ok(hanging.sends().len() == 2)
        })
        .await?;
        let mut others = tokio::task::JoinSet::new();
        for _ in 0..6 {
            let producer = setup.producer.clone();
            others.spawn(async move { producer.send(message()).await });
        }
        while let Some(sent) = others.join_next().await {
            let error = sent?.expect_err("there is no room for it");
            assert!(matches!(error, SendError::FlowControl { .. }), "{error:?}");
            assert!(error.is_flow_control() && error.is_retryable());
        }
        for send in first {
            let error = send.await.expect_err("nobody answers");
            assert!(matches!(error, SendError::TimedOut { attempts: 1, .. }), "{error:?}");
        }
        assert_eq!(hanging.sends().len(), 2);
        setup.manager.shutdown().await?;
        Ok(())
    })
}

#[test]
fn a_name_server_that_hangs_takes_no_more_than_the_time_of_the_send() -> Result<()> {
    block_on(async {
        let silent = Fake::silent().await?;
        let manager = MqClientManager::new(cluster(&silent.addr().to_string()));
        let mut config = producer_config();
        config.send_timeout = Duration::from_millis(200);
        let producer = Producer::builder("producer").config(config).build(&manager)?;
        manager.start().await?;
        let start = Instant::now();
        let error = producer.send(message()).await.expect_err("nobody answers");
        assert!(matches!(error, SendError::TimedOut { attempts: 0, .. }), "{error:?}");
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        manager.shutdown().await?;
        Ok(())
    })
}

/// Whether the first send creates the topic is not known then.
#[test]
fn a_name_server_that_goes_in_the_middle_of_the_search_says_nothing_about_the_topic() -> Result<()> {
    block_on(async {
        let server = Fake::name_server_without_topics("TBW102").await?;
        let manager = MqClientManager::with_name_servers([server.addr().to_string()])?;
        let mut config = producer_config();
        config.send_timeout = Duration::from_millis(300);
        let producer = Producer::builder("producer").config(config).build(&manager)?;
        manager.start().await?;
        let error = producer.send(message()).await.unwrap_err();
        let error = format!("{:#}", anyhow::Error::from(error));
        assert!(error.contains("no name server"), "{error}");
        assert!(2 <= server.connections(), "it is asked again while there is time");
        manager.shutdown().await?;
        Ok(())
    })
}

/// Each client begins with one of the two; some of so many with the silent one.
#[test]
fn a_name_server_that_hangs_is_left_for_one_that_answers() -> Result<()> {
    block_on(async {
        let (silent, good) = (Fake::silent().await?, Scripted::start(V5, |_, _| 0).await?);
        let talking = Fake::name_server(TOPIC, &[("broker-a", good.addr())]).await?;
        let both = [&silent, &talking].map(|server| server.addr().to_string());
        for (send_timeout_ms, may_fail) in [(3_000, 0), (200, 1)] {
            let mut sends = JoinSet::new();
            for _ in 0..12 {
                let mut cluster = ClusterConfig::default();
                cluster.name_servers = NameServers::Addresses(both.to_vec());
                let mut config = producer_config();
                config.send_timeout = Duration::from_millis(send_timeout_ms);
                sends.spawn(async move {
                    let manager = MqClientManager::new(cluster);
                    let producer = Producer::builder("producer").config(config).build(&manager)?;
                    manager.start().await?;
                    for _ in 0..may_fail {
                        // It has less time than it takes to find out.
                        drop(producer.send(message()).await);
                    }
                    producer.send(message()).await?;
                    manager.shutdown().await?;
                    anyhow::Ok(())
                });
            }
            for sent in sends.join_all().await {
                sent?;
            }
        }
        Ok(())
    })
}

#[test]
fn what_breaks_a_rule_is_refused_before_anybody_is_asked() -> Result<()> {
    block_on(async {
        let manager = MqClientManager::new(cluster(&nobody().await?.to_string()));
        let mut config = producer_config();
        config.max_delay = Duration::from_secs(60);
        config.max_message = rocketmq::config::ByteSize::kib(1);
        let producer = Producer::builder("producer").config(config).build(&manager)?;
        manager.start().await?;
        let large = || message().body(vec![b'x'; 600]);
        for (messages, words) in [
            (vec![message().delay(Duration::from_secs(61))], "`max_delay` of 60s"),
            (
                vec![message().deliver_at(std::time::SystemTime::now() + Duration::from_secs(90))],
                "`max_delay` of 60s",
            ),
            (vec![message().property("TIMER_DELAY_MS", "5")], "RocketMQ's own"),
            (vec![message(), Message::new("other").body("x")], "different topics"),
            (vec![message(), message().delay_level(1)], "delayed"),
            (vec![], "empty"),
            (vec![large(), large()], "`max_message`"),
            (vec![message(), Message::new(TOPIC)], "no body"),
        ] {
            let error = match <[Message; 1]>::try_from(messages) {
                Ok([message]) => producer.send(message).await.expect_err(words),
                Err(batch) => producer.send_batch(batch).await.expect_err(words),
            };
            assert!(matches!(error, SendError::Message(_)) && !error.is_retryable(), "{error:?}");
            assert!(error.to_string().contains(words), "{error}");
        }
        let error = producer.recall("what?").await.expect_err("it is none");
        assert!(error.to_string().contains("recall handle"), "{error}");
        let queue = rocketmq::MessageQueue::new("other", "broker-a", 0);
        let error = producer.send_to(&queue, message()).await.expect_err("it is another topic's");
        assert!(error.to_string().contains("other@broker-a#0"), "{error}");
        manager.shutdown().await?;
        Ok(())
    })
}
