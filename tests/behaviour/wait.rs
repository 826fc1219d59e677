//! Waiting for a condition, with a deadline.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{self, Instant};

/// Long enough for a busy machine; a condition that holds is noticed at once.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Asks until the answer is yes.
pub(crate) async fn until(what: &str, is_so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    until_within(LIMIT, what, is_so).await
}

pub(crate) async fn until_within(
    limit: Duration,
    what: &str,
    mut is_so: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !is_so().await? {
        if deadline <= Instant::now() {
            bail!("waited {limit:?} in vain: {what}");
        }
        time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
