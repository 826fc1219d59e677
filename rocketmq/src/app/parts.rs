//! What an application is made of.

use tokio_util::sync::CancellationToken;

use crate::consumer::PushConsumer;
use crate::producer::Producers;

/// Handles to the consumers and producers of an application. A clone has the same ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Parts {
    /// In the order of their clusters and groups.
    pub(super) consumers: Vec<Member>,
    /// By their names under `producers:`.
    pub(super) producers: Producers,
    /// Cancelled when the application begins to stop.
    pub(super) stopping: CancellationToken,
}

/// The consumer of a group: this process as a member of it.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// The name of its cluster in the configuration.
    #[cfg_attr(
        not(any(feature = "health", feature = "testing")),
        expect(dead_code, reason = "the status page shows it")
    )]
    pub(super) cluster: String,
    pub(super) group: String,
    pub(super) consumer: PushConsumer,
}
