//! cargo run --example delayed
//!
//! Messages that are delivered later: after a delay level, which all brokers know; after a time or at a time, which
//! those of 5.x know. The latter can be taken back before they are delivered.

use std::env;
use std::time::{Duration, Instant, SystemTime};

use rocketmq::config::Config;
use rocketmq::{App, Error, Message, Result, SendError, State};
use tokio::sync::mpsc;

#[rocketmq::listener(group = "reminders", topic = "reminders")]
async fn remind(text: String, State(reminders): State<mpsc::Sender<String>>) {
    // The receiver is gone once the program ends.
    let _ = reminders.send(text).await;
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_target(false).init();
    // The cluster that NAMESRV_ADDR names, where the topic has to be there; or a server in this process.
    let mut config = Config::default();
    let name_servers = env::var("NAMESRV_ADDR").unwrap_or_else(|_| "embedded".to_owned());
    config.cluster.name_servers = name_servers.parse().map_err(Error::other)?;
    let (delivered, mut reminders) = mpsc::channel::<String>(16);
    let app = App::builder().config_value(config).state(delivered).start().await?;
    app.ready().await;
    let producer = app.producer("default")?;
    let reminder = |text: &str| Message::new("reminders").body(text.to_owned());
    let start = Instant::now();
    let mut expected = 1;

    producer.send(reminder("level 1: one second").delay_level(1)).await?;
    let in_three = SystemTime::now() + Duration::from_secs(3);
    match producer.send(reminder("at a time").deliver_at(in_three)).await {
        Ok(_) => {
            producer.send(reminder("after two seconds").delay(Duration::from_secs(2))).await?;
            expected = 3;
            // On Apache's brokers taking back has to be switched on: recallMessageEnable=true.
            let sent = producer.send(reminder("never").delay(Duration::from_secs(60))).await?;
            match producer.recall(&sent.recall_handle.unwrap_or_default()).await {
                Ok(id) => println!("taken back: {id}"),
                Err(error) => println!("not taken back: {error}"),
            }
        }
        // A broker of 4.9 would deliver it at once, so it does not get it.
        Err(error @ SendError::Unsupported { .. }) => println!("{error}"),
        Err(error) => return Err(error.into()),
    }

    for _ in 0..expected {
        if let Some(text) = reminders.recv().await {
            println!("{:4.1} s  {text}", start.elapsed().as_secs_f64());
        }
    }
    app.shutdown().await
}
