//! How a lite pull consumer pulls, how much it holds, and when it stores how far it has come.

use std::time::Duration;

use super::client::PULL_MARGIN;
use super::consumer::{Allocate, ConsumeFrom, FixedQueue, check_allocate};
use super::problem::ConfigErrors;
use super::section::{Section, check_by_hand};

/// How a [`LitePullConsumer`](crate::LitePullConsumer) works; by hand only, the file does not have it.
///
/// `LitePullConfig::default()`, then set the fields. Defaults are those of the Java client; ranges, too, where it has
/// some. Source: `behaviour.md` section 4.2.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LitePullConfig {
    /// Store by itself how far polls have come; default `true`.
    ///
    /// What a poll returned counts as consumed when its caller polls again, and is stored within
    /// `auto_commit_interval`. `false` leaves it to [`commit`](crate::LitePullConsumer::commit).
    pub auto_commit: bool,
    /// How often that is stored; default `5s`, 1s to 1h. After a crash, at most this much comes again.
    pub auto_commit_interval: Duration,
    /// Messages asked for in one pull, and the most that a poll returns; default 10, 1 to 1024.
    ///
    /// Brokers may cap it lower: at 32, those of messages from memory.
    pub pull_batch: u32,
    /// How long a broker may hold a pull that finds no message; default `20s`, 1ms to 2m.
    pub pull_suspend: Duration,
    /// How long to wait for the answer to a pull; default `30s`, 1ms to 10m, and at least `pull_suspend` plus 5s, which
    /// are for the broker's own delay and the way.
    pub pull_timeout: Duration,
    /// Pause after a pull that failed; default `1s`, 1ms to 10m.
    pub pull_error_delay: Duration,
    /// Messages held here over all queues, pulled but not consumed; default 10000, 1 to 6553500.
    ///
    /// At this limit, and at each of the next three, queues are not pulled until polls catch up. It may be passed by
    /// one pull of each queue.
    pub messages: u32,
    /// Messages held here of one queue; default 1000, 1 to 65535.
    pub messages_per_queue: u32,
    /// MiB of bodies held here of one queue; default 100, 1 to 1024. Memory grows as this × queues.
    pub mib_per_queue: u32,
    /// Distance between the first and the last offset held here of one queue; default 2000, 1 to 65535.
    pub span: u32,
    /// Where a queue begins for which the group has no offset yet; default `last`.
    pub consume_from: ConsumeFrom,
    /// How the queues of a topic are shared among the members of the group; default `averagely`. All members must agree.
    pub allocate: Allocate,
    /// For `Allocate::MachineRoom`: the rooms whose brokers, named `room@broker`, this member serves.
    pub rooms: Vec<String>,
    /// For `Allocate::ByConfig`: the queues of this member.
    pub queues: Vec<FixedQueue>,
    /// How often the queues of a topic that is listened to are looked at; default `30s`, 100ms to 1h. See
    /// [`register_queue_change_listener`](crate::LitePullConsumer::register_queue_change_listener).
    pub queue_check_interval: Duration,
}

impl Default for LitePullConfig {
    fn default() -> Self {
        Self {
            auto_commit: true,
            auto_commit_interval: Duration::from_secs(5),
            pull_batch: 10,
            pull_suspend: Duration::from_secs(20),
            pull_timeout: Duration::from_secs(30),
            pull_error_delay: Duration::from_secs(1),
            messages: 10_000,
            messages_per_queue: 1000,
            mib_per_queue: 100,
            span: 2000,
            consume_from: ConsumeFrom::Last,
            allocate: Allocate::Averagely,
            rooms: Vec::new(),
            queues: Vec::new(),
            queue_check_interval: Duration::from_secs(30),
        }
    }
}

impl LitePullConfig {
    /// Checks the ranges and rules.
    ///
    /// # Errors
    ///
    /// All that is wrong.
    pub fn check(&self) -> Result<(), ConfigErrors> {
        check_by_hand(|keys| self.clone().read(keys))
    }

    fn read(&mut self, keys: &mut Section<'_, '_>) {
        let ms = Duration::from_millis;
        let secs = Duration::from_secs;
        keys.within("auto_commit_interval", &mut self.auto_commit_interval, secs(1)..=secs(3600));
        keys.within("pull_batch", &mut self.pull_batch, 1..=1024);
        keys.within("pull_suspend", &mut self.pull_suspend, ms(1)..=secs(120));
        keys.within("pull_timeout", &mut self.pull_timeout, ms(1)..=secs(600));
        keys.within("pull_error_delay", &mut self.pull_error_delay, ms(1)..=secs(600));
        keys.within("messages", &mut self.messages, 1..=6_553_500);
        keys.within("messages_per_queue", &mut self.messages_per_queue, 1..=65535);
        keys.within("mib_per_queue", &mut self.mib_per_queue, 1..=1024);
        keys.within("span", &mut self.span, 1..=65535);
        keys.within("queue_check_interval", &mut self.queue_check_interval, ms(100)..=secs(3600));
        check_allocate(self.allocate, &self.rooms, &self.queues, keys);
        if keys.is_clean() && self.pull_timeout < self.pull_suspend + PULL_MARGIN {
            keys.problem_with(
                "pull_timeout",
                "must be at least `pull_suspend` and 5s: an idle pull would time out",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_named_with_what_is_allowed() {
        assert!(LitePullConfig::default().check().is_ok());
        let mut config = LitePullConfig::default();
        config.auto_commit_interval = Duration::from_millis(999);
        config.pull_batch = 0;
        let text = config.check().unwrap_err().to_string();
        for part in ["auto_commit_interval", "1s to 1h", "pull_batch", "1 to 1024"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(text.matches("expected").count(), 2, "{text}");
    }

    #[test]
    fn a_pull_may_not_end_before_the_broker_answers() {
        let mut config = LitePullConfig::default();
        config.pull_suspend = Duration::from_secs(26);
        let text = config.check().unwrap_err().to_string();
        assert!(text.contains("pull_timeout"), "{text}");
    }
}
