//! cargo run --example inside_axum
//!
//! Inside a web service: `start()` in place of `run()`, so that the program keeps its own `main`, and a handle that routes
//! share. Try `curl -d 42 http://127.0.0.1:3000/orders`; Ctrl-C or SIGTERM stops both, one after the other.

use std::env;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use rocketmq::config::{Config, NameServers};
use rocketmq::{App, Error, Message, Result};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

#[rocketmq::listener(group = "shipping", topic = "order-events")]
async fn ship(order: String) {
    println!("order {order} is shipped");
}

/// Not ready before every group knows its queues, nor once the application stops.
async fn ready(State(app): State<App>) -> StatusCode {
    if app.health().ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// The order is stored when this answers.
async fn order(State(app): State<App>, number: String) -> Result<String, (StatusCode, String)> {
    let unavailable = |error: Error| (StatusCode::SERVICE_UNAVAILABLE, format!("{error:?}"));
    let producer = app.producer("default").map_err(unavailable)?;
    let sent = producer.send(Message::new("order-events").body(number)).await;
    Ok(sent.map_err(|error| unavailable(error.into()))?.message_id)
}

async fn until_signal() -> Result<()> {
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt()).map_err(Error::other)?,
        signal(SignalKind::terminate()).map_err(Error::other)?,
    );
    tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_target(false).init();
    let mut config = Config::default();
    config.cluster.name_servers = NameServers::Embedded;
    let app = App::builder().config_value(config).start().await?;

    let routes =
        Router::new().route("/ready", get(ready)).route("/orders", post(order)).with_state(app.clone());
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(address).await.map_err(Error::other)?;
    println!("listening on {}", listener.local_addr().map_err(Error::other)?);
    // First the routes, which use the producers; then consumers and producers, which finish what they have.
    let stopped =
        async { until_signal().await.unwrap_or_else(|error| tracing::error!(%error, "no signals")) };
    axum::serve(listener, routes).with_graceful_shutdown(stopped).await.map_err(Error::other)?;
    app.shutdown().await
}
