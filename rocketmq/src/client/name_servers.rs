//! Which name server to ask: one at a time, the next as soon as one does not answer.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::remoting::Address;

/// The name servers of a cluster, in an order of this client's own, so that clients spread over them.
///
/// Name servers do not know each other; each has the whole truth, sooner or later. A call tries all of them before
/// it fails. Source: `behaviour.md` section 1.5.
#[derive(Debug)]
pub(super) struct NameServerList {
    addresses: Vec<Address>,
    /// The one that answered last.
    current: AtomicUsize,
}

impl NameServerList {
    pub(super) fn new(addresses: &[String]) -> Self {
        let mut addresses: Vec<Address> = addresses.iter().map(|address| address.as_str().into()).collect();
        fastrand::shuffle(&mut addresses);
        Self { addresses, current: AtomicUsize::new(0) }
    }

    pub(super) fn contains(&self, address: &Address) -> bool {
        self.addresses.contains(address)
    }

    /// All addresses, the one that answered last first.
    pub(super) fn candidates(&self) -> impl Iterator<Item = &Address> {
        let current = self.current.load(Ordering::Relaxed);
        (0..self.addresses.len())
            .filter_map(move |step| self.addresses.get((current + step) % self.addresses.len()))
    }

    /// Remembers who answered.
    pub(super) fn answered(&self, address: &Address) {
        if let Some(at) = self.addresses.iter().position(|other| other == address) {
            self.current.store(at, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_answered_is_asked_first_and_no_one_is_left_out() {
        let list = NameServerList::new(&["a:1".into(), "b:1".into(), "c:1".into()]);
        list.answered(&"b:1".into());
        let candidates: Vec<_> = list.candidates().map(|address| address.to_string()).collect();
        assert_eq!(candidates[0], "b:1");
        assert_eq!(candidates.len(), 3);
    }
}
