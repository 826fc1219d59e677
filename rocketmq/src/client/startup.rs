//! The patience of a start: name servers may come up later than this process.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{self, Instant};
use tracing::{debug, warn};

use super::{MqClient, RouteError};
use crate::config::Startup;
use crate::error::{Error, Result};

impl MqClient {
    /// Asks for the routes of all topics of a consumer group that starts; a topic without one is looked for later, too.
    ///
    /// # Errors
    ///
    /// Where no name server answers within `startup_timeout`, unless `startup: wait`.
    pub(crate) async fn find_routes<'a>(
        &self,
        group: &str,
        topics: impl IntoIterator<Item = &'a Arc<str>>,
    ) -> Result<()> {
        let config = self.config();
        let started = Instant::now();
        let mut reported = false;
        for topic in topics {
            loop {
                match self.fetch_route(topic).await {
                    Err(error @ RouteError::NoNameServer { .. }) => {
                        let is_late = config.startup_timeout <= started.elapsed();
                        if is_late && config.startup == Startup::Fail {
                            return Err(error.into());
                        }
                        if !std::mem::replace(&mut reported, true) {
                            let give_up = (config.startup == Startup::Fail).then_some(config.startup_timeout);
                            warn!(group, %error, cause = %Error::chain(&error), ?give_up, "the start waits for a name server");
                        }
                        time::sleep(
                            (config.startup_timeout / 20)
                                .clamp(Duration::from_millis(10), Duration::from_secs(1)),
                        )
                        .await;
                    }
                    Ok(_) => break,
                    Err(error) => {
                        debug!(group, %topic, %error, "no route at start");
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}
