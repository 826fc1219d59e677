//! The signals that end a process.

use std::io;
use std::process;

use tracing::error;

/// SIGINT and SIGTERM from now on; elsewhere than on Unix, Ctrl-C.
#[derive(Debug)]
pub(super) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for one; its name.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Waits for one; its name.
    pub(super) async fn next(&mut self) -> &'static str {
        if tokio::signal::ctrl_c().await.is_err() {
            // There is no way to hear of it: the process can still be ended from outside.
            std::future::pending::<()>().await;
        }
        "Ctrl-C"
    }
}

/// Ends the process without waiting for anything: what is not acknowledged is delivered again.
pub(super) fn end_at_once(signal: &str) -> ! {
    const INTERRUPTED: i32 = 130;
    error!(signal, "a second signal: ended at once, unfinished messages will be delivered again");
    process::exit(INTERRUPTED)
}
