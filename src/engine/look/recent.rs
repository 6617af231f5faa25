//! What became of last words lately.
//!
//! The surprising idea: what was not written has a list of its own. When a thousand clients go at once, what
//! was refused must not be swept away by what went well. Costs: up to two times [`KEPT_MAX`] entries a core.

use std::collections::VecDeque;

use crate::data::Path;
use crate::op::{Became, Happened, Namespace, RecentPage};

/// Entries of each list.
const KEPT_MAX: usize = 512;

/// What became of last words.
#[derive(Debug, Default)]
pub(super) struct Recent {
    spoken: VecDeque<Happened>,
    unspoken: VecDeque<Happened>,
    order: u64,
}

impl Recent {
    /// Keeps one more; its number is given here.
    pub(super) fn keep(&mut self, mut happened: Happened) {
        self.order += 1;
        happened.order = self.order;
        let list = if happened.became == Became::Spoken { &mut self.spoken } else { &mut self.unspoken };
        if list.len() == KEPT_MAX {
            list.pop_front();
        }
        list.push_back(happened);
    }

    /// Those of a namespace after the entry `after`, the latest last, and of each list no more than
    /// `rows_max`.
    pub(super) fn page(&self, namespace: &Namespace, after: u64, rows_max: usize) -> RecentPage {
        self.those(rows_max, |entry| entry.order > after && entry.namespace == *namespace)
    }

    /// All of a namespace.
    pub(super) fn of(&self, namespace: &Namespace) -> Vec<Happened> {
        self.those(usize::MAX, |entry| entry.namespace == *namespace).rows
    }

    /// Those about a path, or what is above or below it.
    pub(super) fn about(&self, namespace: &Namespace, path: &Path, rows_max: usize) -> Vec<Happened> {
        let is_about = |entry: &Happened| {
            let touches = |place: &Path| place.contains(path) || path.contains(place);
            let is_named = entry.places.iter().any(touches);
            let is_all_named = !entry.places.is_empty() && entry.places.len() == entry.places_count;
            entry.namespace == *namespace && (is_named || (!is_all_named && touches(&entry.path)))
        };
        self.those(rows_max, is_about).rows
    }

    fn those(&self, rows_max: usize, is_one: impl Fn(&Happened) -> bool) -> RecentPage {
        let mut page = RecentPage { latest: self.order, ..RecentPage::default() };
        for list in [&self.spoken, &self.unspoken] {
            let mut wanted = list.iter().rev().filter(|entry| is_one(entry));
            page.rows.extend(wanted.by_ref().take(rows_max).cloned());
            page.is_cut |= wanted.next().is_some();
        }
        page.rows.sort_unstable_by_key(|entry| entry.order);
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{SessionRef, WallMillis};
    use crate::op::{End, Who};

    fn happened(path: &str, became: Became) -> Happened {
        Happened {
            order: 0,
            at: WallMillis(1),
            namespace: "db".into(),
            path: Path::parse(path).unwrap(),
            places: Box::default(),
            places_count: 0,
            kind: "set",
            became,
            end: End::Closed,
            session: SessionRef::default(),
            who: Who::Nobody,
            is_owed: false,
            why: None,
            newer: None,
        }
    }

    #[test]
    fn what_was_refused_outlives_a_mass_of_what_went_well() {
        let mut recent = Recent::default();
        recent.keep(happened("a/denied", Became::Denied));
        for index in 0..2 * KEPT_MAX {
            recent.keep(happened(&format!("a/{index}"), Became::Spoken));
        }
        let page = recent.page(&"db".into(), 0, usize::MAX);
        assert_eq!((page.rows.len(), page.latest, page.is_cut), (KEPT_MAX + 1, 2 * KEPT_MAX as u64 + 1, false));
        assert_eq!(page.rows[0].path.as_str(), "a/denied");
        assert!(page.rows.is_sorted_by_key(|entry| entry.order));
        let page = recent.page(&"db".into(), 0, 3);
        assert_eq!((page.rows.len(), page.is_cut), (4, true));
        assert_eq!(recent.page(&"db".into(), page.latest, 9).rows, []);
        assert_eq!(recent.page(&"other".into(), 0, 9).rows, []);
    }

    #[test]
    fn a_path_is_told_of_what_is_above_and_below_it() {
        let mut recent = Recent::default();
        for path in ["a", "a/b", "a/b/c", "ab", "a/bc"] {
            recent.keep(happened(path, Became::Spoken));
        }
        let about = recent.about(&"db".into(), &Path::parse("a/b").unwrap(), 9);
        let about: Vec<&str> = about.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(about, ["a", "a/b", "a/b/c"]);
    }

    #[test]
    fn an_update_is_about_its_places_if_they_are_all_known() {
        let mut recent = Recent::default();
        for (places_count, place) in [(1, "a/b"), (1, "c"), (9, "c")] {
            let places = [Path::parse(place).unwrap()].into();
            recent.keep(Happened { places, places_count, ..happened("", Became::Spoken) });
        }
        let about = recent.about(&"db".into(), &Path::parse("a").unwrap(), 9);
        assert_eq!(about.iter().map(|entry| entry.order).collect::<Vec<_>>(), [1, 3]);
    }
}
