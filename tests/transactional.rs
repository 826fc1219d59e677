//! A program that sends in transactions, for the tests to kill between the half message and its end.
//!
//! The local part of a transaction writes a line into a ledger, a file; the check looks for it there.

use std::env;
use std::fs::{self, OpenOptions};
use std::future::pending;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use rocketmq::{App, Message, MessageExt, State, Transaction};
use tokio::io::{AsyncBufReadExt as _, BufReader, stdin};
use tokio::task::JoinSet;

/// Survives the process.
#[derive(Debug, Clone)]
struct Ledger(PathBuf);

impl Ledger {
    fn write(&self, line: &str) -> std::io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(&self.0)?;
        file.write_all(format!("{line}\n").as_bytes())?;
        file.sync_all()
    }

    fn has(&self, line: &str) -> std::io::Result<bool> {
        match fs::read_to_string(&self.0) {
            Ok(text) => Ok(text.lines().any(|other| other == line)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Whether local parts are at work here, which may not have written their lines yet.
static SENDS: AtomicBool = AtomicBool::new(false);

#[rocketmq::transaction(producer = "payments")]
async fn check(message: &MessageExt, State(ledger): State<Ledger>) -> std::io::Result<Transaction> {
    let transaction = match ledger.has(&message.body_str())? {
        true => Transaction::Commit,
        // On a busy machine a broker asks before the local part has come to its line.
        false if SENDS.load(Ordering::Relaxed) => Transaction::Unknown,
        false => Transaction::Rollback,
    };
    println!("checked {}", message.body_str());
    Ok(transaction)
}

/// Sends what it is told to, a line each: `paid …` is written into the ledger, `unpaid …` is not; then it hangs before
/// anything is decided.
#[tokio::main]
async fn main() -> rocketmq::Result<()> {
    let ledger = Ledger(env::var_os("PROGRAM_LEDGER").unwrap_or_default().into());
    let app = App::builder().state(ledger.clone()).start().await?;
    let producer = app.producer("payments")?;
    let topic = env::var("PROGRAM_TOPIC").unwrap_or_default();
    let mut lines = BufReader::new(stdin()).lines();
    // They end with the process, which is killed.
    let mut sends = JoinSet::new();
    while let Some(line) = lines.next_line().await? {
        SENDS.store(true, Ordering::Relaxed);
        let (producer, ledger, message) =
            (producer.clone(), ledger.clone(), Message::new(&topic).body(line.clone()));
        let send = async move {
            producer
                .send_in_transaction(message, async {
                    if line.starts_with("paid") {
                        ledger.write(&line)?;
                    }
                    println!("local {line}");
                    pending::<std::io::Result<Transaction>>().await
                })
                .await
        };
        sends.spawn(send);
    }
    pending().await
}
