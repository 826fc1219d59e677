//! Strategies for clusters that are spread over machine rooms.

use std::collections::{BTreeMap, BTreeSet};

use super::{AllocateError, AllocateStrategy, index_of};
use crate::message::MessageQueue;

/// Only the queues of brokers of certain rooms, which are named `room@broker`: `machine_room`.
///
/// Members serve the rooms that they are told, all members of a group the same. Queues of other rooms belong to nobody here.
#[derive(Debug, Clone, Default)]
pub struct MachineRoom(BTreeSet<String>);

impl MachineRoom {
    /// The queues of these `rooms`.
    pub fn new(rooms: impl IntoIterator<Item = String>) -> Self {
        Self(rooms.into_iter().collect())
    }

    fn has(&self, queue: &MessageQueue) -> bool {
        matches!(queue.broker_name.split('@').collect::<Vec<_>>()[..], [room, _] if self.0.contains(room))
    }
}

impl AllocateStrategy for MachineRoom {
    fn name(&self) -> &str {
        "MACHINE_ROOM"
    }

    fn allocate(
        &self,
        _: &str,
        own: &str,
        queues: &[MessageQueue],
        members: &[String],
    ) -> Result<Vec<MessageQueue>, AllocateError> {
        let Some(index) = index_of(own, members) else { return Ok(Vec::new()) };
        let queues: Vec<_> = queues.iter().filter(|queue| self.has(queue)).collect();
        let (each, extra) = (queues.len() / members.len(), queues.len() % members.len());
        let neighbours = queues[index * each..(index + 1) * each].iter();
        let one_more = queues[each * members.len()..].get(index).filter(|_| index < extra);
        Ok(neighbours.chain(one_more).map(|queue| (*queue).clone()).collect())
    }
}

/// Says in which room a queue and a member are, for [`MachineRoomNearby`].
pub trait RoomResolver: Send + Sync + 'static {
    /// The room of a queue's broker; `None` where it cannot be told, which is an error: nobody's share is known then.
    fn queue_room(&self, queue: &MessageQueue) -> Option<String>;

    /// The room of the member with this client id, `address@instance[@unit]`; `None` as with a queue.
    fn member_room(&self, client_id: &str) -> Option<String>;
}

/// Rooms by name: brokers are named `room@broker`, and the unit of a client (`client.unit`) is its room.
#[derive(Debug, Clone, Copy, Default)]
pub struct NamedRooms;

impl RoomResolver for NamedRooms {
    fn queue_room(&self, queue: &MessageQueue) -> Option<String> {
        let (room, _) = queue.broker_name.split_once('@')?;
        Some(room.to_owned()).filter(|room| !room.is_empty())
    }

    fn member_room(&self, client_id: &str) -> Option<String> {
        let plain = client_id.strip_suffix("@STREAM").unwrap_or(client_id);
        let unit = plain.splitn(3, '@').nth(2)?;
        Some(unit.to_owned()).filter(|room| !room.is_empty())
    }
}

/// The queues of a room for the members in it, and those of rooms without members for all: `machine_room_nearby`.
///
/// Within these, another strategy shares. What the file says has [`Averagely`](super::Averagely) and [`NamedRooms`].
#[derive(Debug, Clone)]
pub struct MachineRoomNearby<S, R> {
    name: String,
    inner: S,
    rooms: R,
}

impl<S: AllocateStrategy, R: RoomResolver> MachineRoomNearby<S, R> {
    /// Shares by `inner` what is in the same of these `rooms`.
    pub fn new(inner: S, rooms: R) -> Self {
        Self { name: format!("MACHINE_ROOM_NEARBY-{}", inner.name()), inner, rooms }
    }
}

impl<S: AllocateStrategy, R: RoomResolver> AllocateStrategy for MachineRoomNearby<S, R> {
    fn name(&self) -> &str {
        &self.name
    }

    fn allocate(
        &self,
        group: &str,
        own: &str,
        queues: &[MessageQueue],
        members: &[String],
    ) -> Result<Vec<MessageQueue>, AllocateError> {
        if index_of(own, members).is_none() {
            return Ok(Vec::new());
        }
        let member_room = |member: &str| {
            self.rooms.member_room(member).ok_or_else(|| {
                format!("the room of the member {member} is not known; with the usual resolver it is its `client.unit`")
            })
        };
        let mut queue_rooms: BTreeMap<String, Vec<MessageQueue>> = BTreeMap::new();
        for queue in queues {
            let room = self.rooms.queue_room(queue).ok_or_else(|| {
                format!(
                    "the room of the broker {} is not known; with the usual resolver it is named `room@broker`",
                    queue.broker_name
                )
            })?;
            queue_rooms.entry(room).or_default().push(queue.clone());
        }
        let mut member_rooms: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for member in members {
            member_rooms.entry(member_room(member)?).or_default().push(member.clone());
        }
        let own_room = member_room(own)?;
        let mut share = Vec::new();
        if let (Some(neighbours), Some(queues)) = (member_rooms.get(&own_room), queue_rooms.get(&own_room)) {
            share.extend(self.inner.allocate(group, own, queues, neighbours)?);
        }
        for (_, queues) in queue_rooms.iter().filter(|(room, _)| !member_rooms.contains_key(*room)) {
            share.extend(self.inner.allocate(group, own, queues, members)?);
        }
        Ok(share)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Averagely;
    use super::super::tests::{MEMBERS, queues, shares};
    use super::*;

    #[test]
    fn a_room_is_shared_with_what_is_left_over_dealt_out() {
        let rooms = || MachineRoom::new(["room".to_owned()]);
        for (count, members, expected) in [
            (8, 3, vec![vec![0, 1, 6], vec![2, 3, 7], vec![4, 5]]),
            (10, 4, vec![vec![0, 1, 8], vec![2, 3, 9], vec![4, 5], vec![6, 7]]),
            (4, 4, vec![vec![0], vec![1], vec![2], vec![3]]),
            (2, 3, vec![vec![0], vec![1], vec![]]),
        ] {
            assert_eq!(shares(&rooms(), &queues("room@b", 0..count), &MEMBERS[..members]), expected);
        }
    }

    #[test]
    fn queues_of_other_rooms_are_nobodys() {
        let brokers = ["other@b", "room", "room@a", "room@b@c", "room@d"];
        let queues: Vec<_> =
            brokers.into_iter().zip(0..).map(|(b, id)| MessageQueue::new("T", b, id)).collect();
        assert_eq!(shares(&MachineRoom::new(["room".to_owned()]), &queues, &["m0", "m1"]), [[2], [4]]);
    }

    #[test]
    fn members_serve_their_own_room_and_those_without_members() {
        struct FirstLetter;
        impl RoomResolver for FirstLetter {
            fn queue_room(&self, queue: &MessageQueue) -> Option<String> {
                queue.broker_name.get(..1).map(str::to_owned)
            }
            fn member_room(&self, client_id: &str) -> Option<String> {
                client_id.get(..1).map(str::to_owned)
            }
        }
        let queues = [queues("a", 0..4), queues("b", 4..6), queues("c", 6..8)].concat();
        let strategy = MachineRoomNearby::new(Averagely, FirstLetter);
        assert_eq!(strategy.name(), "MACHINE_ROOM_NEARBY-AVG");
        let shares = shares(&strategy, &queues, &["a1", "a2", "b1"]);
        assert_eq!(shares, [vec![0, 1, 6], vec![2, 3, 7], vec![4, 5]]);
    }

    #[test]
    fn rooms_are_told_from_names_and_one_that_cannot_be_told_is_an_error() {
        for (client_id, room) in [
            ("10.0.0.1@1#2@east", Some("east")),
            ("10.0.0.1@DEFAULT@east@STREAM", Some("east")),
            ("10.0.0.1@DEFAULT", None),
            ("10.0.0.1@DEFAULT@STREAM", None),
        ] {
            assert_eq!(NamedRooms.member_room(client_id).as_deref(), room, "{client_id}");
        }
        let strategy = MachineRoomNearby::new(Averagely, NamedRooms);
        let (roomless, member) = (["1@1".to_owned()], ["1@1@east".to_owned()]);
        let error = strategy.allocate("g", "1@1", &queues("east@b", 0..1), &roomless).unwrap_err();
        assert!(error.to_string().contains("client.unit"), "{error}");
        let error = strategy.allocate("g", "1@1@east", &queues("b", 0..1), &member).unwrap_err();
        assert!(error.to_string().contains("room@broker"), "{error}");
    }
}
