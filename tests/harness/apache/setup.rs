use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, anyhow};
use tokio::sync::OnceCell;

use super::process;
use super::{Apache, Version};

/// A release and the broker settings that differ from the harness's own.
///
/// ```text
/// Setup::new(Version::V5_5_0).broker("messageDelayLevel", "1s 1s 1s 2s").shared().await?
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    version: Version,
    broker: BTreeMap<String, String>,
    files: BTreeMap<String, String>,
    properties: BTreeMap<String, String>,
}

impl Setup {
    /// This release with the settings that all tests share.
    pub fn new(version: Version) -> Self {
        Self { version, broker: BTreeMap::new(), files: BTreeMap::new(), properties: BTreeMap::new() }
    }

    /// Sets one line of `broker.conf`.
    #[must_use]
    pub fn broker(mut self, key: &str, value: &str) -> Self {
        self.broker.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Puts one more file beside `broker.conf`, such as the accounts of 4.9: `plain_acl.yml`.
    #[must_use]
    pub fn file(mut self, name: &str, text: impl Into<String>) -> Self {
        self.files.insert(name.to_owned(), text.into());
        self
    }

    /// Sets a system property (`-Dkey=value`) of both processes; TLS is configured so.
    #[must_use]
    pub fn property(mut self, key: &str, value: impl Into<String>) -> Self {
        self.properties.insert(key.to_owned(), value.into());
        self
    }

    /// A server of its own for one test, which may then kill it.
    ///
    /// # Errors
    ///
    /// As [`Apache::start`].
    pub async fn start(self) -> Result<Apache> {
        // The ports were free when we looked; somebody else may have been quicker. Once is bad
        // luck, thrice is something else.
        for _ in 0..2 {
            match Apache::launch(self.clone()).await {
                Err(error) if process::is_port_taken(&error) => {}
                result => return result,
            }
        }
        Apache::launch(self).await
    }

    /// The server with exactly this setup that the tests of this binary share.
    ///
    /// # Errors
    ///
    /// As [`Apache::shared`].
    pub async fn shared(self) -> Result<&'static Apache> {
        let server = shared_cell(&self).get_or_init(|| start_for_good(self)).await;
        let server = server.as_ref().map_err(|error| anyhow!("{error}"))?;
        server.announce_logs();
        Ok(server)
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn broker_settings(&self) -> &BTreeMap<String, String> {
        &self.broker
    }

    pub(super) fn files(&self) -> &BTreeMap<String, String> {
        &self.files
    }

    pub(super) fn properties(&self) -> &BTreeMap<String, String> {
        &self.properties
    }
}

/// Text, because every test that asks for a server that failed is told why.
type Started = OnceCell<Result<Apache, String>>;

/// The place for the shared server of this setup. It is never freed: nothing runs at the end of a
/// test binary, so the servers end by the supervisors' noticing that we are gone.
fn shared_cell(setup: &Setup) -> &'static Started {
    static CELLS: Mutex<Vec<(Setup, &'static Started)>> = Mutex::new(Vec::new());
    let mut cells = CELLS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, cell)) = cells.iter().find(|(known, _)| known == setup) {
        return cell;
    }
    let cell: &'static Started = Box::leak(Box::default());
    cells.push((setup.clone(), cell));
    cell
}

async fn start_for_good(setup: Setup) -> Result<Apache, String> {
    setup.start().await.map_err(|error| format!("{error:#}"))
}
