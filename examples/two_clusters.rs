//! cargo run --example two_clusters
//!
//! One process in two clusters: what comes from the one at the top level of `two_clusters.yaml` is mirrored into `dr`.
//! Both are servers in this process; put addresses in their places.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rocketmq::{App, Error, Message, MessageExt, Producers, Result, State};
use tokio::sync::Notify;
use tokio::time;

#[rocketmq::listener(group = "mirror", topic = "orders")]
async fn mirror(message: MessageExt, State(producers): State<Producers>) -> Result<()> {
    println!("{} is mirrored", message.body_str());
    producers.get("to_dr")?.send(message.forward_to("orders")).await?;
    Ok(())
}

#[rocketmq::listener(group = "audit", topic = "orders", cluster = "dr")]
async fn audit(message: MessageExt, State(done): State<Arc<Notify>>) {
    println!("{} is in the other cluster", message.body_str());
    done.notify_one();
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::WARN).init();
    run().await
}

async fn run() -> Result<()> {
    let done = Arc::new(Notify::new());
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("two_clusters.yaml");
    let app = App::builder().config(file).state(Arc::clone(&done)).start().await?;
    app.producer("default")?.send(Message::new("orders").body("order 1")).await?;
    let arrived = time::timeout(Duration::from_secs(30), done.notified()).await;
    app.shutdown().await?;
    arrived.map_err(|_| Error::other("the order did not come to the other cluster"))
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn what_is_sent_to_one_cluster_comes_out_of_the_other() {
        super::run().await.expect("it was mirrored");
    }
}
