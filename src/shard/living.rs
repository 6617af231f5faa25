//! Something for each of many sessions, found by their references.
//!
//! The surprising idea: sessions come in the order of their slots, and a tree that grows at its end leaves
//! half of its room empty. Eight neighbours therefore share an entry. Costs: one entry of a tree for eight
//! sessions, and their room at once: nothing to speak of where sessions are many, eight times as much as
//! needed where there is one.

use std::collections::BTreeMap;
use std::ops::Bound::{Included, Unbounded};

use crate::base::{SessionRef, ShardId};

/// Neighbours that share an entry: a power of two.
const NEIGHBOURS: u32 = 8;

/// A `V` for each of some sessions.
#[derive(Debug)]
pub(super) struct BySession<V> {
    /// By home and slot; none is empty.
    groups: BTreeMap<(ShardId, u32), Box<Group<V>>>,
    /// How many sessions have something.
    len: usize,
}

#[derive(Debug)]
struct Group<V> {
    generations: [u32; NEIGHBOURS as usize],
    values: [Option<V>; NEIGHBOURS as usize],
}

impl<V> Default for BySession<V> {
    fn default() -> Self {
        Self { groups: BTreeMap::new(), len: 0 }
    }
}

impl<V> Group<V> {
    const EMPTY: Self = Self { generations: [0; NEIGHBOURS as usize], values: [const { None }; NEIGHBOURS as usize] };

    /// The session's place, if it is the session that has it.
    fn place(&mut self, session: SessionRef) -> Option<&mut Option<V>> {
        let (_, at) = position(session);
        (self.generations[at] == session.generation).then_some(&mut self.values[at])
    }

    fn is_empty(&self) -> bool {
        self.values.iter().all(Option::is_none)
    }
}

/// The session's group, and its place in it.
fn position(session: SessionRef) -> ((ShardId, u32), usize) {
    let at = usize::try_from(session.slot % NEIGHBOURS).expect("it is below eight");
    ((session.home, session.slot / NEIGHBOURS), at)
}

impl<V> BySession<V> {
    /// How many sessions have something.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// That of a session.
    pub(super) fn get(&self, session: SessionRef) -> Option<&V> {
        let (key, at) = position(session);
        let group = self.groups.get(&key)?;
        group.values[at].as_ref().filter(|_| group.generations[at] == session.generation)
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, session: SessionRef) -> Option<&mut V> {
        self.groups.get_mut(&position(session).0)?.place(session)?.as_mut()
    }

    /// That of a session; made, if it has none.
    ///
    /// # Panics
    /// If an earlier tenant of the session's slot has one still: a session's end comes before its slot is
    /// given away.
    pub(super) fn get_or_insert_with(&mut self, session: SessionRef, make: impl FnOnce() -> V) -> &mut V {
        let (group, at) = position(session);
        let group = self.groups.entry(group).or_insert_with(|| Box::new(Group::EMPTY));
        if group.values[at].is_none() {
            group.generations[at] = session.generation;
            self.len += 1;
        }
        assert_eq!(group.generations[at], session.generation, "the slot's earlier tenant is gone");
        group.values[at].get_or_insert_with(make)
    }

    /// Takes away that of a session.
    pub(super) fn remove(&mut self, session: SessionRef) -> Option<V> {
        let (key, _) = position(session);
        let group = self.groups.get_mut(&key)?;
        let value = group.place(session)?.take();
        self.len -= usize::from(value.is_some());
        if group.is_empty() {
            self.groups.remove(&key);
        }
        value
    }

    /// All there are.
    pub(super) fn into_all(self) -> impl Iterator<Item = (SessionRef, V)> {
        self.groups.into_iter().flat_map(|((home, number), group)| {
            let slots = number * NEIGHBOURS..;
            let Group { generations, values } = *group;
            let all = slots.zip(generations).zip(values);
            all.filter_map(move |((slot, generation), value)| Some((SessionRef { home, slot, generation }, value?)))
        })
    }

    /// All, or those of the sessions after one, by home and slot.
    pub(super) fn iter_after(&self, after: Option<SessionRef>) -> impl Iterator<Item = (SessionRef, &V)> {
        let from = after.map_or(Unbounded, |session| Included(position(session).0));
        self.groups.range((from, Unbounded)).flat_map(move |(&(home, number), group)| {
            let slots = number * NEIGHBOURS..;
            let all = slots.zip(&group.generations).zip(&group.values);
            all.filter_map(move |((slot, &generation), value)| {
                let is_after = after.is_none_or(|after| (home, slot) > (after.home, after.slot));
                value.as_ref().filter(|_| is_after).map(|value| (SessionRef { home, slot, generation }, value))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(home: u8, slot: u32, generation: u32) -> SessionRef {
        SessionRef { home: ShardId(home), slot, generation }
    }

    #[test]
    fn each_session_has_its_own() {
        let mut all: BySession<(u8, u32)> = BySession::default();
        for (home, slot) in [(1, 9), (0, 7), (0, 8), (1, 0), (0, 100)] {
            all.get_or_insert_with(session(home, slot, 3), || (home, slot));
        }
        assert_eq!(all.get_mut(session(0, 8, 3)), Some(&mut (0, 8)));
        assert_eq!(all.get_mut(session(0, 8, 4)), None, "a later tenant");
        assert_eq!(all.get_mut(session(0, 9, 3)), None);
        let listed = |all: &BySession<(u8, u32)>, after| {
            all.iter_after(after).map(|(session, value)| (session.slot, *value)).collect::<Vec<_>>()
        };
        assert_eq!(listed(&all, None), [(7, (0, 7)), (8, (0, 8)), (100, (0, 100)), (0, (1, 0)), (9, (1, 9))]);
        assert_eq!(listed(&all, Some(session(0, 8, 3))), [(100, (0, 100)), (0, (1, 0)), (9, (1, 9))]);
        assert_eq!(listed(&all, Some(session(0, 101, 0))), [(0, (1, 0)), (9, (1, 9))]);
        assert_eq!(all.remove(session(0, 8, 2)), None, "an earlier tenant");
        assert_eq!(all.remove(session(0, 8, 3)), Some((0, 8)));
        assert_eq!(all.remove(session(0, 8, 3)), None);
        assert_eq!(listed(&all, Some(session(0, 7, 3))), [(100, (0, 100)), (0, (1, 0)), (9, (1, 9))]);
        assert_eq!((all.groups.len(), all.len()), (4, 4), "an empty group is gone");
        assert_eq!((all.get(session(0, 7, 3)), all.get(session(0, 7, 2))), (Some(&(0, 7)), None));
        all.get_or_insert_with(session(0, 8, 4), || (5, 5));
        assert_eq!(all.get_mut(session(0, 8, 4)), Some(&mut (5, 5)), "the slot's next tenant");
    }

    #[test]
    fn a_tenant_that_was_not_taken_away_is_our_mistake() {
        let next = std::panic::catch_unwind(|| {
            let mut all = BySession::default();
            all.get_or_insert_with(session(0, 8, 3), || 1);
            *all.get_or_insert_with(session(0, 8, 4), || 2)
        });
        let text = next.unwrap_err().downcast::<String>().unwrap();
        assert!(text.contains("the slot's earlier tenant is gone"), "{text}");
    }
}
