//! What is remembered for a while, and how often somebody may do something.
//!
//! The surprising idea: nothing is deleted one by one. There are two tables, and when the younger has
//! lasted long enough, or is full, the older is dropped whole. What is remembered lasts for one span
//! at least (unless strangers fill the table), and for two at most.

use std::hash::Hash;

use crate::base::{Hashing, Instant, Map, Millis};

/// Remembers values for a while.
#[derive(Debug)]
pub(super) struct Lately<K, V> {
    young: Map<K, V>,
    old: Map<K, V>,
    turned: Instant,
    span: Millis,
    entries_max: usize,
}

impl<K: Eq + Hash, V> Lately<K, V> {
    pub(super) fn new(hashing: &Hashing, span: Millis, entries_max: usize) -> Self {
        Self { young: hashing.map(), old: hashing.map(), turned: Instant(0), span, entries_max }
    }

    fn turn(&mut self, now: Instant) {
        let age = now.since(self.turned);
        let is_full = self.young.len() >= self.entries_max;
        if age < self.span && !is_full {
            return;
        }
        let fresh = Map::with_hasher(self.young.hasher().clone());
        self.old = std::mem::replace(&mut self.young, fresh);
        if age.0 >= 2 * self.span.0 && !is_full {
            self.old = Map::with_hasher(self.young.hasher().clone());
        }
        self.turned = now;
    }

    /// What is remembered under that key. Does not make it last longer.
    pub(super) fn get(&mut self, now: Instant, key: &K) -> Option<&mut V> {
        self.turn(now);
        match self.young.get_mut(key) {
            Some(value) => Some(value),
            None => self.old.get_mut(key),
        }
    }

    /// Remembers a value from now on.
    pub(super) fn insert(&mut self, now: Instant, key: K, value: V) {
        self.turn(now);
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    /// Drops what has lasted long enough, although nobody asks.
    pub(super) fn tidy(&mut self, now: Instant) {
        self.turn(now);
    }

    /// Whether there is room for another.
    pub(super) fn has_room(&mut self, now: Instant) -> bool {
        let age = now.since(self.turned);
        age >= self.span || self.young.len() < self.entries_max
    }
}

/// How often something may happen: a burst, then once in each pause.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) burst: u64,
    pub(super) pause: Millis,
}

/// Where somebody stands within a [`Pace`]: one number (the generic cell rate algorithm).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Brake {
    /// When all that was done would have been done without a burst.
    earned: Instant,
}

impl Brake {
    /// Whether it may happen once more now.
    pub(super) fn lets(&mut self, now: Instant, pace: Pace) -> bool {
        let base = self.earned.max(now);
        let is_allowed = base.since(now).0 <= (pace.burst - 1) * pace.pause.0;
        if is_allowed {
            self.earned = base + pace.pause;
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brake_lets_a_burst_through_and_then_one_each_pause() {
        let pace = Pace { burst: 10, pause: Millis(500) };
        let mut brake = Brake::default();
        let start = Instant(1_000_000);
        let burst = (0..30).filter(|_| brake.lets(start, pace)).count();
        assert_eq!(burst, 10);
        let later = (0..100).filter(|tenth| brake.lets(start + Millis(100 * tenth), pace)).count();
        assert!((19..=20).contains(&later), "two each second for ten seconds: {later}");
        assert_eq!((0..30).filter(|_| brake.lets(start + Millis(60_000), pace)).count(), 10);
    }

    #[test]
    fn what_is_remembered_lasts_for_a_span_and_is_gone_after_two() {
        let hashing = Hashing::from_seed([1, 2, 3, 4]);
        let mut lately = Lately::new(&hashing, Millis(1_000), 3);
        let at = |ms: u64| Instant(10_000 + ms);
        lately.insert(at(0), 1, "one");
        assert_eq!(lately.get(at(999), &1), Some(&mut "one"));
        lately.insert(at(1_500), 2, "two");
        assert_eq!(
            (lately.get(at(1_600), &1).copied(), lately.get(at(2_400), &2).copied()),
            (Some("one"), Some("two"))
        );
        assert_eq!(lately.get(at(2_600), &1), None);
        assert_eq!(lately.get(at(9_000), &2), None);
        for key in 10..15 {
            assert!(lately.has_room(at(9_000)) || key >= 13);
            lately.insert(at(9_000), key, "full");
        }
        assert_eq!(lately.get(at(9_000), &14), Some(&mut "full"), "strangers only drive out strangers");
    }
}
