//! Runs the examples that are no tests themselves, as their first lines say, and looks at what they print.

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

/// What a busy machine takes for what usually takes a second.
const LIMIT: Duration = Duration::from_secs(60);

/// An example that runs.
struct Program {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Program {
    fn start(name: &str, arguments: &[&str]) -> Self {
        Self::start_in(None, name, arguments)
    }

    /// In the cluster behind these name servers.
    fn start_in(name_servers: Option<&str>, name: &str, arguments: &[&str]) -> Self {
        let file = example(name);
        let mut child = Command::new(&file)
            .args(arguments)
            .env_remove("NAMESRV_ADDR")
            .envs(name_servers.map(|addresses| ("NAMESRV_ADDR", addresses)))
            // Where `rocketmq.yaml` is.
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} (cargo build --examples): {error}", file.display()));
        let (sender, lines) = mpsc::channel();
        let outputs: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|output| Box::new(output) as Box<dyn Read + Send>),
            child.stderr.take().map(|output| Box::new(output) as Box<dyn Read + Send>),
        ];
        for output in outputs.into_iter().flatten() {
            let sender = sender.clone();
            thread::spawn(move || {
                // The receiver is gone where the test has failed.
                BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
            });
        }
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a line with `words`; the line.
    fn until(&mut self, words: &str) -> String {
        let end = Instant::now() + LIMIT;
        while let Ok(line) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            self.seen.push(line.clone());
            if line.contains(words) {
                return line;
            }
        }
        panic!("{words:?} did not come; what came:\n{}", self.seen.join("\n"));
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &id]).status().expect("there is a `kill`");
        assert!(sent.success());
    }

    /// Waits until it has ended well; all that it has printed.
    fn end(mut self) -> String {
        let end = Instant::now() + LIMIT;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("it does not end:\n{}", self.seen.join("\n")),
            }
        }
        let status = self.child.wait().expect("it was started");
        let printed = self.seen.join("\n");
        assert!(status.success(), "{status}:\n{printed}");
        printed
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It has ended already, or the test has failed.
        let _ = self.child.kill();
    }
}

/// Beside the folder of this test's own program.
fn example(name: &str) -> PathBuf {
    let this = env::current_exe().expect("the system knows it");
    let folder = this.parent().and_then(Path::parent).expect("cargo puts tests into target/debug/deps");
    folder.join("examples").join(name).with_extension(env::consts::EXE_EXTENSION)
}

/// Runs an example that ends by itself.
fn ends(name: &str, expected: &[&str]) {
    ends_in(None, name, expected);
}

fn ends_in(name_servers: Option<&str>, name: &str, expected: &[&str]) {
    let printed = Program::start_in(name_servers, name, &[]).end();
    for words in expected {
        assert!(printed.contains(words), "{words:?} is missing in:\n{printed}");
    }
}

#[test]
fn bench_says_how_it_is_used() {
    let mut bench = Program::start("bench", &[]);
    bench.until("usage: bench consume NS TOPIC GROUP N CONCURRENCY");
}

/// The ways of sending, with what they print: in this process, and in the cluster that `NAMESRV_ADDR` names.
const SENDERS: [(&str, &[&str]); 5] = [
    ("delayed", &["taken back: ", "level 1: one second", "after two seconds", "at a time"]),
    ("ordered", &["order 5 shipped", "chosen by hand: "]),
    ("producer", &["10 messages stand in order-events", "nothing was sent:", "order-events: "]),
    ("request_reply", &["ACME: 42", "sent, not answered:"]),
    ("transaction", &["what became of a lamp? commit", "a book is shipped", "a lamp is shipped"]),
];

#[test]
fn senders_run_in_this_process() {
    SENDERS.iter().for_each(|(name, expected)| ends(name, expected));
}

#[test]
fn senders_run_in_the_cluster_that_is_named() {
    let runtime = tokio::runtime::Runtime::new().expect("the system has threads");
    let server = rocketmq::embedded::Server::builder()
        .transaction_timeout(Duration::from_millis(500))
        .transaction_check_interval(Duration::from_millis(500));
    let server = runtime.block_on(server.start()).expect("it listens");
    for topic in ["orders-to-ship", "quote-requests", "reminders"] {
        server.create_topic(topic, 4).expect("it is a name");
    }
    for (name, expected) in SENDERS {
        ends_in(Some(&server.name_server()), name, expected);
    }
    for topic in ["order-events", "order-steps", "orders-to-ship", "reminders"] {
        assert!(!server.messages(topic).is_empty(), "{topic}: it was not used");
    }
    runtime.block_on(server.shutdown());
}

#[test]
fn lite_pull() {
    ends("lite_pull", &["polled \"hello number 10\"", "streamed \"hello number 10\"", "committed Some("]);
}

#[test]
fn manual() {
    ends("manual", &["received \"hello number 1\"", "received \"hello number 10\""]);
}

#[test]
fn orderly() {
    ends("orderly", &["transfer 5, attempt 2: the account is closed", "transfer 5, attempt 3: booked"]);
}

#[test]
fn pop() {
    ends("pop", &["quick: job ", "slow: job "]);
}

#[test]
fn quickstart_runs_until_it_is_interrupted() {
    let mut quickstart = Program::start("quickstart", &[]);
    quickstart.until("received \"hello number 2\"");
    quickstart.signal("-INT");
    assert!(quickstart.end().contains("stopped"));
}

#[test]
fn inside_axum_serves_and_consumes_until_it_is_terminated() {
    let mut service = Program::start("inside_axum", &["127.0.0.1:0"]);
    let line = service.until("listening on ");
    let address = line.rsplit(' ').next().expect("it is the last word");
    let is_ready = || request(address, "GET /ready HTTP/1.1", "").starts_with("HTTP/1.1 200");
    let end = Instant::now() + LIMIT;
    while !is_ready() {
        assert!(Instant::now() < end, "it does not become ready");
        thread::sleep(Duration::from_millis(20));
    }
    let answer = request(address, "POST /orders HTTP/1.1", "42");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    service.until("order 42 is shipped");
    service.signal("-TERM");
    assert!(service.end().contains("stopped"));
}

/// An answer as it came.
fn request(address: &str, line: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let length = body.len();
    let request = format!(
        "{line}\r\nhost: {address}\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}
