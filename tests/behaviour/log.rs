//! What the library has warned of: for users it is part of what happens, so that some cases look at it.

use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use anyhow::Result;
use tracing_subscriber::EnvFilter;

use crate::wait;

/// All warnings of all tests: names are unique, so that each finds its own.
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Collects warnings; what RUST_LOG asks for also goes to standard error, for whoever looks into a failed test.
pub(crate) fn start() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("rocketmq=warn"));
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(|| Log).init();
    });
}

/// Waits until there is a line with all of `parts`.
pub(crate) async fn until_logged(parts: &[&str]) -> Result<()> {
    wait::until(&format!("something is logged with {parts:?}"), async || {
        Ok(lines().iter().any(|line| parts.iter().all(|part| line.contains(part))))
    })
    .await
}

fn lines() -> MutexGuard<'static, Vec<String>> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes one event at a time.
struct Log;

impl Write for Log {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        lines().push(String::from_utf8_lossy(event).into_owned());
        if std::env::var_os("RUST_LOG").is_some() {
            io::stderr().write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
