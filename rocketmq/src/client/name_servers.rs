//! Which name server to ask: the one that answered last, and the next as soon as one does not answer.

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

/// One question, from the first name server that is asked to the answer. Where none comes, or whoever asks gives up before it
/// does, the next question goes to another one first.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    list: &'a NameServerList,
    first: usize,
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
        self.beginning_with(self.current.load(Ordering::Relaxed))
    }

    /// For one question.
    pub(super) fn turn(&self) -> Turn<'_> {
        Turn { list: self, first: self.current.load(Ordering::Relaxed) }
    }

    fn beginning_with(&self, first: usize) -> impl Iterator<Item = &Address> {
        (0..self.addresses.len())
            .filter_map(move |step| self.addresses.get((first + step) % self.addresses.len()))
    }
}

impl<'a> Turn<'a> {
    /// All addresses, in the order in which they are asked.
    pub(super) fn candidates(&self) -> impl Iterator<Item = &'a Address> + use<'a> {
        self.list.beginning_with(self.first)
    }

    /// Remembers who answered.
    pub(super) fn answered(mut self, address: &Address) {
        if let Some(at) = self.list.addresses.iter().position(|other| other == address) {
            self.list.current.store(at, Ordering::Relaxed);
            // Nobody begins there.
            self.first = self.list.addresses.len();
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Some(next) = (self.first + 1).checked_rem(self.list.addresses.len()) else { return };
        // Unless another question has found somebody better.
        let _ = self.list.current.compare_exchange(self.first, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_answered_is_asked_first_and_no_one_is_left_out() {
        let list = NameServerList::new(&["a:1".into(), "b:1".into(), "c:1".into()]);
        list.turn().answered(&"b:1".into());
        let candidates: Vec<_> = list.turn().candidates().map(|address| address.to_string()).collect();
        assert_eq!(candidates[0], "b:1");
        assert_eq!(candidates.len(), 3);
    }

    #[test]
    fn one_that_did_not_answer_is_asked_last() {
        let list = NameServerList::new(&["a:1".into(), "b:1".into(), "c:1".into()]);
        let order = || -> Vec<_> { list.candidates().cloned().collect() };
        let before = order();
        let (given_up, answered) = (list.turn(), list.turn());
        drop(given_up);
        assert_eq!(order(), [&before[1..], &before[..1]].concat());
        answered.answered(&before[2]);
        assert_eq!(order()[0], before[2]);

        let late = list.turn();
        list.turn().answered(&before[1]);
        drop(late);
        assert_eq!(order()[0], before[1], "others know better");
    }
}
