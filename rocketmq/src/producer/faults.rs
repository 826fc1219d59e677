//! Which brokers are slow or fail, and for how long they are left alone. Source: `behaviour.md` section 2.6,
//! `MQFaultStrategy`, `LatencyFaultToleranceImpl` of 5.x.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// From so many milliseconds on, a send keeps its broker out of use for so many milliseconds.
const TABLE: [(u64, u64); 5] =
    [(550, 2_000), (1_800, 5_000), (3_000, 6_000), (5_000, 10_000), (15_000, 30_000)];
/// A failed send counts as one that took so long.
const FAILURE_MS: u64 = 10_000;

/// What is known of the brokers; those that it does not hold are well.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<HashMap<Arc<str>, Fault>>);

#[derive(Debug, Clone, Copy)]
struct Fault {
    available_from: Instant,
    reachable: bool,
    /// When the detector asks next.
    ask_at: Instant,
}

/// What a send said about its broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// It answered, or was not even asked, after so long.
    Took(Duration),
    /// It refused the message.
    Refused,
    /// It was not reached, or did not answer.
    Silent,
}

impl Faults {
    /// Notes what a send said about `broker`. Where a detector runs, it finds out when one that refused or was silent
    /// answers again; without it, only time does.
    pub(super) fn note(&self, broker: &Arc<str>, sign: Sign, has_detector: bool, now: Instant) {
        let (ms, reachable) = match sign {
            Sign::Took(latency) => (u64::try_from(latency.as_millis()).unwrap_or(u64::MAX), true),
            Sign::Refused => (FAILURE_MS, false),
            Sign::Silent => (FAILURE_MS, !has_detector),
        };
        let available_from = now + out_of_use(ms);
        let mut faults = self.lock();
        let fault =
            faults.entry(Arc::clone(broker)).or_insert(Fault { available_from, reachable, ask_at: now });
        fault.available_from = fault.available_from.max(available_from);
        fault.reachable = reachable;
    }

    pub(super) fn is_available(&self, broker: &str, now: Instant) -> bool {
        self.lock().get(broker).is_none_or(|fault| fault.available_from <= now)
    }

    pub(super) fn is_reachable(&self, broker: &str) -> bool {
        self.lock().get(broker).is_none_or(|fault| fault.reachable)
    }

    /// The brokers that are to be asked whether they answer again, each of them no more often than every `interval`.
    pub(super) fn to_ask(&self, interval: Duration, now: Instant) -> Vec<Arc<str>> {
        let mut faults = self.lock();
        let due = faults.iter_mut().filter(|(_, fault)| !fault.reachable && fault.ask_at <= now);
        due.map(|(broker, fault)| {
            fault.ask_at = now + interval;
            Arc::clone(broker)
        })
        .collect()
    }

    /// The broker answered.
    pub(super) fn note_answer(&self, broker: &str) {
        if let Some(fault) = self.lock().get_mut(broker) {
            fault.reachable = true;
        }
    }

    /// The broker is gone.
    pub(super) fn forget(&self, broker: &str) {
        self.lock().remove(broker);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Fault>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn out_of_use(latency_ms: u64) -> Duration {
    let entry = TABLE.iter().rev().find(|(threshold, _)| *threshold <= latency_ms);
    Duration::from_millis(entry.map_or(0, |(_, duration)| *duration))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_slow_broker_is_left_alone_for_the_time_of_the_table() {
        for (latency, expected) in [
            (0, 0),
            (549, 0),
            (550, 2_000),
            (1_800, 5_000),
            (4_999, 6_000),
            (5_000, 10_000),
            (u64::MAX, 30_000),
        ] {
            assert_eq!(out_of_use(latency), ms(expected), "{latency}");
        }
    }

    #[test]
    fn a_good_send_does_not_end_the_time_but_makes_the_broker_reachable() {
        let (faults, now, broker) = (Faults::default(), Instant::now(), "a".into());
        faults.note(&broker, Sign::Refused, false, now);
        faults.note(&broker, Sign::Took(ms(3)), false, now);
        assert!(!faults.is_available("a", now + ms(9_999)) && faults.is_available("a", now + ms(10_000)));
        assert!(faults.is_reachable("a") && faults.is_available("unknown", now));
    }

    #[test]
    fn a_silent_broker_is_unreachable_only_where_somebody_will_find_out_otherwise() {
        let (faults, now) = (Faults::default(), Instant::now());
        for (broker, has_detector) in [("a", false), ("b", true)] {
            faults.note(&broker.into(), Sign::Silent, has_detector, now);
            assert_eq!(faults.is_reachable(broker), !has_detector);
        }
    }

    #[test]
    fn the_detector_asks_those_who_were_silent_again_and_again() {
        let (faults, now) = (Faults::default(), Instant::now());
        faults.note(&"a".into(), Sign::Silent, true, now);
        faults.note(&"b".into(), Sign::Took(ms(1)), true, now);
        assert_eq!(faults.to_ask(ms(2_000), now), ["a".into()]);
        assert!(faults.to_ask(ms(2_000), now + ms(1_999)).is_empty());
        assert_eq!(faults.to_ask(ms(2_000), now + ms(2_000)).len(), 1);
        faults.note_answer("a");
        assert!(faults.is_reachable("a") && faults.to_ask(ms(2_000), now + ms(9_000)).is_empty());
        faults.note(&"a".into(), Sign::Silent, true, now);
        faults.forget("a");
        assert!(faults.is_available("a", now));
    }
}
