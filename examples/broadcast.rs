//! cargo run --example broadcast
//!
//! Every process gets every message: to drop what it has cached, to read its configuration anew. Offsets are kept in a file on
//! this machine; a message whose handling fails is dropped. Here two applications stand for two processes.

use std::env;

use rocketmq::config::{Config, NameServers};
use rocketmq::embedded::Server;
use rocketmq::{App, Error, Message, Result, State};
use tokio::sync::mpsc;

/// What this process has cached; here it only tells of what it drops.
#[derive(Debug, Clone)]
struct Cache(&'static str, mpsc::Sender<String>);

#[rocketmq::listener(group = "caches", topic = "price-changes", broadcast)]
async fn on_change(article: String, State(Cache(name, dropped)): State<Cache>) -> Result<()> {
    dropped.send(format!("{name} drops the price of {article}")).await.map_err(Error::other)
}

/// An application as another process would have it.
async fn start(server: &Server, cache: Cache) -> Result<App> {
    let mut config = Config::default();
    config.cluster.name_servers = NameServers::Addresses(vec![server.name_server()]);
    // The file is in a folder of the instance, which has to stay the same when the process is started again.
    config.cluster.client.instance = Some(cache.0.to_owned());
    config.cluster.client.offset_dir = env::temp_dir().join(format!("broadcast-{}", std::process::id()));
    let app = App::builder().config_value(config).state(cache).start().await?;
    app.ready().await;
    Ok(app)
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_target(false).init();
    let server = Server::builder().start().await.map_err(Error::other)?;
    server.create_topic("price-changes", 4).map_err(Error::other)?;
    let (dropped, mut drops) = mpsc::channel(16);
    let one = start(&server, Cache("one", dropped.clone())).await?;
    let other = start(&server, Cache("the other", dropped)).await?;

    one.producer("default")?.send(Message::new("price-changes").body("apples")).await?;
    for _ in 0..2 {
        println!("{}", drops.recv().await.unwrap_or_default());
    }
    one.shutdown().await?;
    other.shutdown().await?;
    server.shutdown().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use rocketmq::testing;
    use rocketmq::testing::Fate;

    use super::*;

    #[tokio::test]
    async fn what_fails_is_dropped() -> Result<()> {
        let (dropped, drops) = mpsc::channel(1);
        let app = testing::App::builder()
            .config_value(Config::default())
            .state(Cache("one", dropped))
            .start()
            .await?;
        let change = || Message::new("price-changes").body("apples");
        assert_eq!(app.deliver(change()).await.fate(), Fate::Acknowledged);
        drop(drops);
        assert_eq!(app.deliver(change()).await.fate(), Fate::Dropped);
        app.shutdown().await
    }
}
