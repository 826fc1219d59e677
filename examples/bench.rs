//! cargo run --release --example bench -- consume 127.0.0.1:9876 TOPIC GROUP N CONCURRENCY [BATCH]
//!
//! Measures this client against a broker that runs already, in the words of its peers' programs:
//!
//! ```text
//! consume NS TOPIC GROUP N CONCURRENCY [BATCH]   a new group each time: it starts at the first offset
//! declared NS TOPIC GROUP N CONCURRENCY          the same with an annotated function
//! produce NS TOPIC N SIZE INFLIGHT               with INFLIGHT 1: what one send after the other takes
//! latency NS TOPIC GROUP N RATE SIZE             send to handler, in one process
//! ```

use std::env;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rocketmq::client::MqClientManager;
use rocketmq::config::{Config, ConsumeFrom, ConsumerConfig, NameServers};
use rocketmq::{App, Bytes, ConsumeResult, Error, Message, MessageExt, Producer, PushConsumer, Result};
use tokio::sync::Notify;
use tokio::time;

const USAGE: &str = "usage: bench consume NS TOPIC GROUP N CONCURRENCY [BATCH] | declared NS TOPIC GROUP N CONCURRENCY | \
                     produce NS TOPIC N SIZE INFLIGHT | latency NS TOPIC GROUP N RATE SIZE";

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["consume", servers, topic, group, rest @ ..] if rest.len() >= 2 => {
            let batch = rest.get(2).map_or(Ok(1), |batch| number(batch))?;
            consume(servers, topic, group, number(rest[0])?, number(rest[1])?, batch).await
        }
        ["declared", servers, topic, group, n, concurrency] => {
            declared(servers, topic, group, number(n)?, number(concurrency)?).await
        }
        ["produce", servers, topic, n, size, in_flight] => {
            produce(servers, topic, number(n)?, number(size)?, number(in_flight)?).await
        }
        ["latency", servers, topic, group, n, rate, size] => {
            latency(servers, topic, group, number(n)?, number(rate)?, number(size)?).await
        }
        _ => Err(Error::other(USAGE)),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| Error::other(format!("{text:?} is not a number; {USAGE}")))
}

/// What the listeners have seen.
static COUNTED: Counted = Counted {
    count: AtomicU64::new(0),
    bytes: AtomicU64::new(0),
    expected: AtomicU64::new(u64::MAX),
    first: OnceLock::new(),
    done: Notify::const_new(),
};

struct Counted {
    count: AtomicU64,
    bytes: AtomicU64,
    expected: AtomicU64,
    first: OnceLock<Instant>,
    done: Notify,
}

impl Counted {
    fn note(&self, messages: &[MessageExt]) {
        self.first.get_or_init(Instant::now);
        let bytes: usize = messages.iter().map(|message| message.body().len()).sum();
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let before = self.count.fetch_add(messages.len() as u64, Ordering::Relaxed);
        let expected = self.expected.load(Ordering::Relaxed);
        if before < expected && expected <= before + messages.len() as u64 {
            self.done.notify_one();
        }
    }

    /// Prints one line once all have come. Where fewer messages come than were asked for, the line shows it.
    async fn report(&self, name: &str, cpu_before: f64, start: Instant) {
        let _ = time::timeout(Duration::from_secs(300), self.done.notified()).await;
        let (cpu, wall) = (cpu_seconds() - cpu_before, start.elapsed());
        let from_first = self.first.get().map_or(wall, Instant::elapsed);
        println!(
            "rust {name} n={} wall_from_first={:.3} wall_from_start={:.3} cpu={cpu:.3} cpu_from_process_start={:.3} peak_mib={:.1}",
            self.count.load(Ordering::Relaxed),
            from_first.as_secs_f64(),
            wall.as_secs_f64(),
            cpu_seconds(),
            peak_mib(),
        );
    }
}

async fn consume(
    servers: &str,
    topic: &str,
    group: &str,
    n: u64,
    concurrency: u32,
    batch: u32,
) -> Result<()> {
    COUNTED.expected.store(n, Ordering::Relaxed);
    let mut config = ConsumerConfig::default();
    config.concurrency = concurrency;
    config.batch = batch;
    config.consume_from = ConsumeFrom::First;
    let manager = MqClientManager::with_name_servers([servers])?;
    PushConsumer::builder(group)
        .config(config)
        .subscribe(topic, "*", |messages: Vec<MessageExt>| async move {
            COUNTED.note(&messages);
            ConsumeResult::Success
        })
        .build(&manager)?;
    let (cpu_before, start) = (cpu_seconds(), Instant::now());
    manager.start().await?;
    COUNTED.report("consume", cpu_before, start).await;
    manager.shutdown().await
}

#[rocketmq::listener(group = "${bench.group}", topic = "${bench.topic}")]
async fn count(message: MessageExt) -> ConsumeResult {
    COUNTED.note(std::slice::from_ref(&message));
    ConsumeResult::Success
}

/// The same work, declared: what the attribute, the extraction and the application cost beside the manual path.
async fn declared(servers: &str, topic: &str, group: &str, n: u64, concurrency: u32) -> Result<()> {
    COUNTED.expected.store(n, Ordering::Relaxed);
    let mut config = Config::default();
    config.cluster.name_servers = NameServers::Addresses(vec![servers.to_owned()]);
    config.vars.insert("bench.topic".to_owned(), topic.into());
    config.vars.insert("bench.group".to_owned(), group.into());
    config.defaults.concurrency = concurrency;
    config.defaults.consume_from = ConsumeFrom::First;
    let (cpu_before, start) = (cpu_seconds(), Instant::now());
    let app = App::builder().config_value(config).start().await?;
    COUNTED.report("declared", cpu_before, start).await;
    app.shutdown().await
}

async fn produce(servers: &str, topic: &str, n: u64, size: usize, in_flight: usize) -> Result<()> {
    let manager = MqClientManager::with_name_servers([servers])?;
    let producer = Producer::builder("bench-rust").build(&manager)?;
    manager.start().await?;
    let body = Bytes::from(bytes(size));
    producer.send(Message::new(topic).body(body.clone())).await?;
    let (next, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let took = Arc::new(Histogram::default());
    let (cpu_before, start) = (cpu_seconds(), Instant::now());
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..in_flight {
        let (producer, topic, body) = (producer.clone(), topic.to_owned(), body.clone());
        let (next, failed, took) = (Arc::clone(&next), Arc::clone(&failed), Arc::clone(&took));
        senders.spawn(async move {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if n <= i {
                    return;
                }
                let message = Message::new(&*topic).tag("t").key(format!("k{i}")).body(body.clone());
                let begun = Instant::now();
                match producer.send(message).await {
                    Ok(_) => took.note(begun.elapsed()),
                    Err(_) => _ = failed.fetch_add(1, Ordering::Relaxed),
                }
            }
        });
    }
    while senders.join_next().await.is_some() {}
    let (cpu, wall) = (cpu_seconds() - cpu_before, start.elapsed().as_secs_f64());
    println!(
        "rust produce n={n} wall={wall:.3} cpu={cpu:.3} failed={} p50={:.3}ms p99={:.3}ms peak_mib={:.1}",
        failed.load(Ordering::Relaxed),
        took.at(0.50),
        took.at(0.99),
        peak_mib()
    );
    manager.shutdown().await
}

/// How long things took, to less than a hundredth: counts by powers of two, each in 128 steps. It takes no memory of its
/// own for what it notes, so that it does not show in what it measures.
struct Histogram(Vec<AtomicU64>);

impl Default for Histogram {
    fn default() -> Self {
        Self((0..Self::STEPS * 64).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Histogram {
    const STEP_BITS: u32 = 7;
    const STEPS: u64 = 1 << Self::STEP_BITS;

    fn note(&self, took: Duration) {
        let ns = took.as_nanos() as u64;
        let shift = ns.checked_ilog2().unwrap_or(0).saturating_sub(Self::STEP_BITS);
        // From the second power on, the highest bit is set in every step.
        let bucket = u64::from(shift) * Self::STEPS + (ns >> shift);
        if let Some(count) = self.0.get(bucket as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What this share of them took at most, in milliseconds.
    fn at(&self, share: f64) -> f64 {
        let counts: Vec<u64> = self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let wanted = (counts.iter().sum::<u64>() as f64 * share).ceil() as u64;
        let mut seen = 0;
        let bucket = counts.iter().position(|count| {
            seen += count;
            wanted <= seen && seen > 0
        });
        let bucket = bucket.unwrap_or_default() as u64;
        let shift = (bucket / Self::STEPS).saturating_sub(1);
        ((bucket - shift * Self::STEPS) << shift) as f64 / 1e6
    }
}

async fn latency(servers: &str, topic: &str, group: &str, n: usize, rate: u32, size: usize) -> Result<()> {
    let manager = MqClientManager::with_name_servers([servers])?;
    // Older messages of the topic are not counted.
    let run = unix_ns().to_string();
    let seen = Arc::new((Mutex::new(Vec::with_capacity(n)), Notify::new()));
    let (found, own_run) = (Arc::clone(&seen), run.clone());
    let consumer = PushConsumer::builder(group)
        .subscribe(topic, "*", move |messages: Vec<MessageExt>| {
            let now = unix_ns();
            for message in messages.iter().filter(|message| message.property("r") == Some(own_run.as_str())) {
                let sent: u128 = message.property("t").and_then(|sent| sent.parse().ok()).unwrap_or(now);
                let mut latencies = found.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                latencies.push(now.saturating_sub(sent));
                if latencies.len() == n {
                    found.1.notify_one();
                }
            }
            async { ConsumeResult::Success }
        })
        .build(&manager)?;
    let producer = Producer::builder("bench-rust-lat").build(&manager)?;
    let body = bytes(size);
    manager.start().await?;
    consumer.ready().await;
    producer.send(Message::new(topic).body(body.clone())).await?;
    time::sleep(Duration::from_secs(8)).await;
    let (cpu_before, start) = (cpu_seconds(), time::Instant::now());
    let mut sends = tokio::task::JoinSet::new();
    for i in 0..n {
        time::sleep_until(start + Duration::from_secs(i as u64) / rate).await;
        let message = Message::new(topic)
            .property("r", run.clone())
            .property("t", unix_ns().to_string())
            .body(body.clone());
        let producer = producer.clone();
        sends.spawn(async move { producer.send(message).await });
        while sends.try_join_next().is_some() {}
    }
    let _ = time::timeout(Duration::from_secs(30), seen.1.notified()).await;
    let cpu = cpu_seconds() - cpu_before;
    let mut latencies = seen.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    latencies.sort_unstable();
    let at = |share: usize| latencies.get(latencies.len() * share / 1_000).map_or(0.0, |ns| *ns as f64 / 1e6);
    println!(
        "rust latency n={} p50={:.3}ms p99={:.3}ms p999={:.3}ms max={:.3}ms cpu={cpu:.3}",
        latencies.len(),
        at(500),
        at(990),
        at(999),
        latencies.last().map_or(0.0, |ns| *ns as f64 / 1e6),
    );
    manager.shutdown().await
}

fn bytes(size: usize) -> Vec<u8> {
    vec![b'x'; size]
}

fn unix_ns() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}

/// User and system time of this process so far, from the kernel's own account (Linux).
fn cpu_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The fields after the command, which may hold blanks itself: utime and stime are the 14th and 15th of all.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
}

/// The most memory that this process ever had (Linux).
fn peak_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or_default() / 1024.0
}
