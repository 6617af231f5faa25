//! The client that sees what the others leave behind.

use crate::check::Model;
use crate::client::{Event, number};

/// The place of a track below `root`.
#[must_use]
pub fn place(root: &str, track: u32) -> String {
    format!("{root}/u{track}")
}

/// One client that listens to a place, and the model of what it must see there.
#[derive(Debug)]
pub struct Watcher {
    /// Which.
    pub client: u32,
    /// Where it listens.
    pub root: String,
    /// What it must see, and has seen.
    pub model: Model,
}

/// A change that the watcher was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Where.
    pub track: usize,
    /// Its number.
    pub change: Option<u32>,
}

impl Watcher {
    /// A watcher of `tracks` places below `root`.
    #[must_use]
    pub fn new(client: u32, root: &str, tracks: usize) -> Self {
        Self { client, root: root.to_owned(), model: Model::new(tracks) }
    }

    /// What an event tells it. `None` for what is no news of a track; what is nobody's place is counted
    /// as wrong.
    pub fn sight(&mut self, client: u32, event: &Event<'_>) -> Option<Sight> {
        let Event::Told { base, place, value } = event else { return None };
        if client != self.client {
            return None;
        }
        // Either `root/u7` has changed, or of `root` the child `u7`.
        let below = base.strip_prefix(self.root.as_str()).map(|rest| rest.trim_start_matches('/'));
        let name = match below {
            Some("") => place,
            Some(name) if place.is_empty() => name,
            _ => "",
        };
        let Some(track) = name.strip_prefix('u').and_then(|digits| digits.parse().ok()) else {
            self.model.wrong(|| format!("/{base}/{place} is no place of this run"));
            return None;
        };
        Some(Sight { track, change: number(*value) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stillhere::json::Item;

    #[test]
    fn places_are_recognized_however_they_are_told() {
        #[track_caller]
        fn check(base: &str, place: &str, value: i64, expected: Option<(usize, Option<u32>)>, wrong: u64) {
            let mut watcher = Watcher::new(0, "run/s", 10);
            let sight = watcher.sight(0, &Event::Told { base, place, value: Item::Int(value) });
            assert_eq!(sight.map(|sight| (sight.track, sight.change)), expected, "{base} {place}");
            assert_eq!(watcher.model.finish().wrong, wrong, "{base} {place}");
        }
        check("run/s/u7", "", 1, Some((7, Some(1))), 0);
        check("run/s", "u7", 2, Some((7, Some(2))), 0);
        check("run/s", "u7", -2, Some((7, None)), 0);
        check("run/s", "v7", 1, None, 1);
        check("run/t/u7", "", 1, None, 1);
        check("run/s/u7", "x", 1, None, 1);
    }
}
