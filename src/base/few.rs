//! Lists that are mostly empty.
//!
//! One word where a vector takes three, and nothing on the heap while it is empty: what a million sessions have, and
//! few of them use. Costs: a second block, and a second look, where it is not empty.

use std::ops::{Deref, DerefMut};

/// A list of `T`s, one word long.
#[expect(clippy::box_collection, reason = "the vector itself is what is kept out of the way")]
#[derive(Clone, Debug)]
pub struct Few<T>(
    /// Never an empty one.
    Option<Box<Vec<T>>>,
);

const _: () = assert!(size_of::<Few<u64>>() == size_of::<usize>(), "that is what it is for");

impl<T> Few<T> {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        match &self.0 {
            Some(all) => all.len(),
            None => 0,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Adds one at the end.
    pub fn push(&mut self, one: T) {
        self.0.get_or_insert_default().push(one);
    }

    /// Takes one out; the last one comes in its place.
    ///
    /// # Panics
    /// If there is none at `index`.
    pub fn swap_remove(&mut self, index: usize) -> T {
        let one = self.0.as_mut().expect("there is something at the index").swap_remove(index);
        self.tidy();
        one
    }

    /// Takes the first one out.
    pub fn pop_first(&mut self) -> Option<T> {
        let one = (!self.is_empty()).then(|| self.0.as_mut().map(|all| all.remove(0)))?;
        self.tidy();
        one
    }

    /// Keeps those that are to be kept.
    pub fn retain(&mut self, is_kept: impl FnMut(&T) -> bool) {
        if let Some(all) = &mut self.0 {
            all.retain(is_kept);
            self.tidy();
        }
    }

    /// Takes all out.
    #[must_use]
    pub fn take(&mut self) -> Vec<T> {
        self.0.take().map_or_else(Vec::new, |all| *all)
    }

    /// Drops all.
    pub fn clear(&mut self) {
        self.0 = None;
    }

    fn tidy(&mut self) {
        if self.0.as_ref().is_some_and(|all| all.is_empty()) {
            self.0 = None;
        }
    }
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> From<Vec<T>> for Few<T> {
    fn from(all: Vec<T>) -> Self {
        if all.is_empty() { Self(None) } else { Self(Some(Box::new(all))) }
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Self {
        Vec::from_iter(all).into()
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        self.0.as_ref().map_or(&[], |all| all)
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.0.as_mut().map_or(&mut [], |all| all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_list_that_owns_nothing_while_it_is_empty() {
        let mut few = Few::new();
        let mut plain = Vec::new();
        let mut dice = 1_u32;
        for _ in 0..2_000 {
            dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            match dice >> 29 {
                0..=3 => {
                    few.push(dice);
                    plain.push(dice);
                }
                4 if !plain.is_empty() => assert_eq!(few.swap_remove(0), plain.swap_remove(0)),
                5 => assert_eq!(few.pop_first(), (!plain.is_empty()).then(|| plain.remove(0))),
                6 => {
                    few.retain(|one| one % 3 > 0);
                    plain.retain(|one| one % 3 > 0);
                }
                _ if dice.is_multiple_of(64) => assert_eq!(few.take(), std::mem::take(&mut plain)),
                _ => {}
            }
            assert_eq!((&*few, few.len()), (&*plain, plain.len()));
            assert_eq!((few.is_empty(), few.0.is_none()), (plain.is_empty(), plain.is_empty()));
        }
        few.clear();
        assert!(few.0.is_none());
        assert!(Few::from(Vec::<u8>::new()).0.is_none());
    }
}
