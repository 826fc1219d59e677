//! What is known of the offset that a broker has stored for a group in one queue, and what it is to be told.
//!
//! A broker keeps offsets in memory and writes them to its disk every few seconds (`flushConsumerOffsetInterval`): one that
//! is killed has lost what it was told last, though it had answered. A slave that takes the place of its master has only what
//! it has copied. So each new connection to a master, and each new master, puts in doubt what was known of it. Plain values:
//! nothing here waits.

/// The offset that the broker has stored, as far as is known.
#[derive(Debug, Default)]
pub(crate) struct StoredOffset {
    offset: Option<i64>,
    /// How often there was reason to doubt it.
    doubts: u64,
    /// How many of them are settled.
    settled: u64,
}

/// What the broker is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// This offset, which it has not been told yet.
    Moved(i64),
    /// The same as before, if it has none, or a smaller one; once it has it, `doubts` of the doubts are settled.
    Doubted { offset: i64, doubts: u64 },
}

/// What has come of telling it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// It has taken this offset. That settles no doubt: it may keep only one of several that reach it together, where it has
    /// none of the topic and group, as after a loss. Source: `ConsumerOffsetManager.commitOffset`.
    Stored(i64),
    /// A slave has taken it, for as long as its master is gone.
    AtSlave,
    /// It was asked, and has the offset, or a larger one: so many doubts are settled.
    Known { doubts: u64 },
}

impl StoredOffset {
    /// The broker has stored `offset`.
    pub(crate) fn note(&mut self, offset: i64) {
        self.offset = Some(offset);
    }

    /// What has come of telling the broker. A doubt that came meanwhile stays; the first offset is doubted at once.
    pub(crate) fn learn(&mut self, told: Told) {
        match told {
            Told::Stored(offset) => {
                if self.offset.replace(offset).is_none() {
                    self.doubt();
                }
            }
            Told::AtSlave => {}
            Told::Known { doubts } => self.settled = doubts,
        }
    }

    /// The broker may have lost what it had stored.
    pub(crate) fn doubt(&mut self) {
        self.doubts += 1;
    }

    /// What is to be told where the group is at `offset`; where that is not to be told by itself, `None`.
    pub(crate) fn due(&self, offset: Option<i64>) -> Option<Due> {
        let doubts = self.doubts;
        match (offset, self.offset) {
            (Some(offset), stored) if stored != Some(offset) => Some(Due::Moved(offset)),
            (_, Some(offset)) if self.settled < doubts => Some(Due::Doubted { offset, doubts }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_told_when_it_has_moved() {
        let mut stored = StoredOffset::default();
        assert_eq!((stored.due(None), stored.due(Some(0))), (None, Some(Due::Moved(0))));
        stored.note(5);
        assert_eq!(
            [5, 6, 4].map(|offset| stored.due(Some(offset))),
            [None, Some(Due::Moved(6)), Some(Due::Moved(4))]
        );
    }

    #[test]
    fn the_first_one_is_asked_for_again_once() {
        let mut stored = StoredOffset::default();
        stored.learn(Told::AtSlave);
        assert_eq!(stored.due(Some(5)), Some(Due::Moved(5)));
        stored.learn(Told::Stored(5));
        assert_eq!(stored.due(Some(5)), Some(Due::Doubted { offset: 5, doubts: 1 }));
        stored.learn(Told::Known { doubts: 1 });
        assert_eq!(stored.due(Some(5)), None);
        stored.learn(Told::Stored(6));
        assert_eq!(stored.due(Some(6)), None);
    }

    #[test]
    fn one_that_is_doubted_is_told_again_until_no_doubt_is_left() {
        let mut stored = StoredOffset::default();
        stored.doubt();
        assert_eq!(stored.due(None), None, "nothing was told");
        stored.note(5);
        stored.doubt();
        let first = Some(Due::Doubted { offset: 5, doubts: 2 });
        assert_eq!(
            [None, Some(5), Some(6)].map(|offset| stored.due(offset)),
            [first, first, Some(Due::Moved(6))]
        );
        // The broker went once more while it was asked.
        stored.doubt();
        stored.learn(Told::Known { doubts: 2 });
        let again = Some(Due::Doubted { offset: 5, doubts: 3 });
        assert_eq!(stored.due(Some(5)), again);
        stored.learn(Told::Stored(5));
        assert_eq!(stored.due(Some(5)), again, "it may have kept another one only");
        stored.learn(Told::Known { doubts: 3 });
        assert_eq!(stored.due(Some(5)), None);
    }
}
