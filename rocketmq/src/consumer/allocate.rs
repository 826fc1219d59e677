//! Which queues are whose: every member computes alone, from the same two lists, and all agree.
//!
//! Source: `behaviour.md` section 3.5, with its worked examples.

use crate::config::Allocate;
use crate::message::MessageQueue;

/// The queues of the member `own` among `members`, both lists sorted; `None` where this client cannot share them
/// so. Nothing while brokers do not list the member yet.
pub(crate) fn allocate(
    strategy: Allocate,
    queues: &[MessageQueue],
    members: &[String],
    own: &str,
) -> Option<Vec<MessageQueue>> {
    let Some(index) = members.iter().position(|member| member == own) else { return Some(Vec::new()) };
    match strategy {
        Allocate::Averagely => Some(averagely(queues, members.len(), index).to_vec()),
        Allocate::Circle => Some(queues.iter().skip(index).step_by(members.len()).cloned().collect()),
        _ => None,
    }
}

/// Neighbouring queues, the first members having one more where it does not come out even.
fn averagely(queues: &[MessageQueue], members: usize, index: usize) -> &[MessageQueue] {
    let (each, extra) = (queues.len() / members, queues.len() % members);
    let start = index * each + index.min(extra);
    let count = each + usize::from(index < extra);
    &queues[start..start + count]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(strategy: Allocate, queues: i32, members: usize) -> Vec<Vec<i32>> {
        let queues: Vec<_> = (0..queues).map(|id| MessageQueue::new("t", "b", id)).collect();
        let members: Vec<_> = (0..members).map(|member| format!("m{member}")).collect();
        let share = |own: &String| {
            allocate(strategy, &queues, &members, own).unwrap().iter().map(|queue| queue.queue_id).collect()
        };
        members.iter().map(share).collect()
    }

    #[test]
    fn averagely_gives_neighbours() {
        for (queues, members, expected) in [
            (8, 3, vec![vec![0, 1, 2], vec![3, 4, 5], vec![6, 7]]),
            (10, 4, vec![vec![0, 1, 2], vec![3, 4, 5], vec![6, 7], vec![8, 9]]),
            (4, 4, vec![vec![0], vec![1], vec![2], vec![3]]),
            (2, 3, vec![vec![0], vec![1], vec![]]),
        ] {
            assert_eq!(shares(Allocate::Averagely, queues, members), expected);
        }
    }

    #[test]
    fn circle_deals_them_out() {
        for (queues, members, expected) in [
            (8, 3, vec![vec![0, 3, 6], vec![1, 4, 7], vec![2, 5]]),
            (10, 4, vec![vec![0, 4, 8], vec![1, 5, 9], vec![2, 6], vec![3, 7]]),
            (2, 3, vec![vec![0], vec![1], vec![]]),
        ] {
            assert_eq!(shares(Allocate::Circle, queues, members), expected);
        }
    }

    #[test]
    fn a_member_that_brokers_do_not_list_yet_gets_nothing() {
        let queues = [MessageQueue::new("t", "b", 0)];
        assert_eq!(allocate(Allocate::Averagely, &queues, &["other".into()], "own"), Some(Vec::new()));
    }
}
