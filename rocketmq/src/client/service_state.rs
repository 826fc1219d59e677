//! What a manager, a consumer or a producer is doing: once started it can be stopped, and never started again.

use std::fmt;
use std::sync::{Mutex, PoisonError};

/// The states that a manager, a consumer and a producer go through, in this order.
///
/// Source: `ServiceState` of the Java client; `behaviour.md` section 1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServiceState {
    /// Made, not started.
    CreateJust,
    /// Starting, or the start has failed.
    StartFailed,
    /// At work.
    Running,
    /// Shut down; it cannot be started again.
    ShutdownAlready,
}

/// A call that the state does not allow.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what} cannot {action}: it is {state}")]
#[non_exhaustive]
pub struct StateError {
    /// Which manager, consumer or producer.
    pub what: String,
    /// What was asked of it.
    pub action: &'static str,
    /// The state that it is in.
    pub state: ServiceState,
}

impl fmt::Display for ServiceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CreateJust => "not started yet",
            Self::StartFailed => "starting, or its start has failed; make a new one",
            Self::Running => "running already",
            Self::ShutdownAlready => "shut down, and cannot be started again; make a new one",
        })
    }
}

/// The state of one of them.
#[derive(Debug)]
pub(crate) struct StateCell(Mutex<ServiceState>);

impl Default for StateCell {
    fn default() -> Self {
        Self(Mutex::new(ServiceState::CreateJust))
    }
}

impl StateCell {
    pub(crate) fn get(&self) -> ServiceState {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, state: ServiceState) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Goes from `from` to `to`, or says why not.
    pub(crate) fn change(
        &self,
        from: ServiceState,
        to: ServiceState,
        what: impl fmt::Display,
        action: &'static str,
    ) -> Result<(), StateError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *state != from {
            return Err(StateError { what: what.to_string(), action, state: *state });
        }
        *state = to;
        Ok(())
    }

    /// Complains unless the state is `expected`.
    pub(crate) fn expect(
        &self,
        expected: ServiceState,
        what: impl fmt::Display,
        action: &'static str,
    ) -> Result<(), StateError> {
        self.change(expected, expected, what, action)
    }
}
