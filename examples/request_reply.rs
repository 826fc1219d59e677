//! cargo run --example request_reply
//!
//! Asking and answering: a listener that returns `Reply` answers a request, and its requester waits for that. A request
//! that was sent and not answered is another thing than one that was never sent.

use std::env;
use std::time::Duration;

use rocketmq::config::Config;
use rocketmq::{App, Error, Json, Message, Reply, RequestReplyError, Result};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Quote {
    share: String,
    price: f64,
}

#[rocketmq::listener(group = "quotes", topic = "quote-requests")]
async fn quote(share: String) -> Result<Reply<Json<Quote>>> {
    let price = f64::from(share.len() as u32) * 10.5;
    // The reply is sent first, then the request is acknowledged.
    Ok(Reply(Json(Quote { share, price })))
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_target(false).init();
    // The cluster that NAMESRV_ADDR names, where the topic has to be there; or a server in this process.
    let mut config = Config::default();
    let name_servers = env::var("NAMESRV_ADDR").unwrap_or_else(|_| "embedded".to_owned());
    config.cluster.name_servers = name_servers.parse().map_err(Error::other)?;
    let app = App::builder().config_value(config).start().await?;
    app.ready().await;

    let producer = app.producer("default")?;
    let request = Message::new("quote-requests").body("ACME");
    let reply = producer.request(request, Duration::from_secs(3)).await?;
    let quote: Quote = reply.json()?;
    println!("{}: {}", quote.share, quote.price);

    // Nobody listens to that topic.
    let request = Message::new("rumours").body("ACME");
    match producer.request(request, Duration::from_millis(500)).await {
        Err(error @ RequestReplyError::TimedOut { .. }) => println!("sent, not answered: {error}"),
        Err(error) => println!("not sent: {error}"),
        Ok(reply) => println!("{}", reply.body_utf8()?),
    }
    app.shutdown().await
}
