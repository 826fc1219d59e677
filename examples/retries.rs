//! cargo run --example retries
//!
//! What fails comes again: after a delay of the broker's, or of the listener's choice, until the group's `max_reconsume`;
//! then it is a dead letter, which stays in a topic of the group until somebody looks at it.

use std::time::Duration;

use rocketmq::config::{Config, NameServers};
use rocketmq::embedded::Server;
use rocketmq::{App, ConsumeContext, ConsumeResult, DelayLevel, Error, Message, MessageExt, Result};
use tokio::time;

#[rocketmq::listener(group = "payments", topic = "payments")]
async fn on_payment(message: &MessageExt, context: ConsumeContext) -> Result<ConsumeResult> {
    let (payment, attempt) = (message.body_utf8()?, context.attempt());
    println!("{payment}, attempt {attempt}");
    match payment {
        // An error, or a panic: again, after the delay of the group (`retry_delay`).
        "late" if attempt < 3 => Err(Error::other("the bank does not answer")),
        // The listener knows better when.
        "tomorrow" if attempt < 2 => Ok(ConsumeResult::ReconsumeAfter(DelayLevel::S1)),
        // Nothing will make it better.
        "forged" => Ok(ConsumeResult::DeadLetter),
        "hopeless" => Err(Error::other("there is no such account")),
        _ => Ok(ConsumeResult::Success),
    }
}

/// In rocketmq.yaml: `groups: { payments: { max_reconsume: 3 } }`
fn config() -> Config {
    let mut config = Config::default();
    config.defaults.max_reconsume = Some(3);
    config
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_target(false).init();
    // Real brokers wait 10 s, 30 s, 1 min, 2 min, … up to 2 h.
    let server = Server::builder().delay_levels([Duration::from_millis(200); 18]);
    let server = server.start().await.map_err(Error::other)?;
    let mut config = config();
    config.cluster.name_servers = NameServers::Addresses(vec![server.name_server()]);
    server.create_topic("payments", 4).map_err(Error::other)?;
    let app = App::builder().config_value(config).start().await?;
    app.ready().await;

    let producer = app.producer("default")?;
    for payment in ["good", "late", "tomorrow", "forged", "hopeless"] {
        producer.send(Message::new("payments").body(payment)).await?;
    }
    while server.dead_letters("payments") < 2 {
        time::sleep(Duration::from_millis(50)).await;
    }
    for letter in server.messages("%DLQ%payments") {
        println!("a dead letter: {}", letter.body_str());
    }
    app.shutdown().await?;
    server.shutdown().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use rocketmq::testing;

    use super::*;

    #[tokio::test]
    async fn each_failure_has_its_own_end() -> Result<()> {
        let app = testing::App::builder().config_value(config()).start().await?;
        for payment in ["late", "tomorrow", "forged", "hopeless"] {
            app.send(Message::new("payments").body(payment)).await;
        }
        // Minutes that take no time.
        app.advance(Duration::from_secs(10 * 60)).await;
        let attempts = |payment: &str| {
            let history = app.history("payments");
            history.iter().filter(|attempt| attempt.message.body_str() == payment).count()
        };
        assert_eq!(["late", "tomorrow", "forged", "hopeless"].map(attempts), [3, 2, 1, 4]);
        let dead = app.dead_letters("payments");
        let reasons: Vec<_> = dead.iter().map(|letter| (letter.body_str(), letter.reason())).collect();
        assert_eq!(reasons[0], ("forged".into(), "its listener said so"));
        assert_eq!(reasons[1], ("hopeless".into(), "given up after 4 attempts: there is no such account"));
        app.shutdown().await
    }
}
