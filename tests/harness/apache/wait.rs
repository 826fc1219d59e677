use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{self, Instant};

/// Asks until the answer is yes: at once, then ever less often, at most every tenth of a second.
///
/// # Errors
///
/// The question's own error, at once; or that the time is up.
pub(super) async fn until(
    limit: Duration,
    what: &str,
    mut is_so: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(5);
    while !is_so().await? {
        if deadline <= Instant::now() {
            bail!("waited {limit:?} in vain for {what}");
        }
        time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
    Ok(())
}
