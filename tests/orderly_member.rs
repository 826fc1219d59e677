//! A program that consumes in order, for the tests to kill. What it does it writes into a book that it shares with the
//! other members of its group: one line at a time, so that the lines of all are in the order of what happened.

use std::env;
use std::fs::{File, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::sync::LazyLock;
use std::time::Duration;

use rocketmq::{ConsumeContext, MessageExt};
use tokio::time;

static BOOK: LazyLock<io::Result<File>> = LazyLock::new(|| {
    let path = env::var_os("MEMBER_BOOK").unwrap_or_default();
    OpenOptions::new().append(true).create(true).open(path)
});

/// Takes its time; fails now and then, in every way there is.
#[rocketmq::listener(group = "${member.group}", topic = "${member.topic}", orderly)]
async fn on_message(message: &MessageExt, context: ConsumeContext) -> Result<(), String> {
    write("begin", message)?;
    time::sleep(Duration::from_millis(2)).await;
    let mut dice = DefaultHasher::new();
    (message.body(), context.attempt()).hash(&mut dice);
    let number = dice.finish() % 200;
    if number < 4 {
        write("fail", message)?;
    }
    match number {
        0 => panic!("as it was told to"),
        1..4 => Err("as it was told to".to_owned()),
        _ => write("done", message),
    }
}

fn write(step: &str, message: &MessageExt) -> Result<(), String> {
    let line = format!("{} {step} {} {}\n", std::process::id(), message.queue_id(), message.body_str());
    let mut book = BOOK.as_ref().map_err(ToString::to_string)?;
    book.write_all(line.as_bytes()).map_err(|error| error.to_string())
}

#[tokio::main]
async fn main() -> rocketmq::Result<()> {
    // They are to happen.
    std::panic::set_hook(Box::new(|_| {}));
    rocketmq::run().await
}
