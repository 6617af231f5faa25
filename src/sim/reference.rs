//! What a server must do, written down without any cleverness: one tree, a list of all writes, a list
//! of all listens.

use serde_json::Value as Json;

use super::history::Dice;
use super::tree::{Tree, Want, below, join, keys, priority};
use crate::base::limits::LAST_WORDS_MAX;
use crate::base::{Instant, Now};

/// Who somebody is, as far as these laws see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    Nobody,
    User,
    Admin,
}

/// The rules that histories play under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Law {
    /// Everybody may do everything.
    Open,
    /// Nobody may read or write the root, or what is `locked`.
    Locked,
    /// Each room may be read while `open` says so.
    Rooms,
    /// Who writes must be signed in.
    Signed,
}

impl Law {
    pub(super) fn roll(dice: &mut Dice) -> Self {
        match dice.below(10) {
            0..=2 => Self::Open,
            3 => Self::Locked,
            4..=7 => Self::Rooms,
            _ => Self::Signed,
        }
    }

    /// One that each core can decide by itself.
    pub(super) fn roll_local(dice: &mut Dice) -> Self {
        match dice.below(10) {
            0..=6 => Self::Open,
            7 => Self::Locked,
            _ => Self::Signed,
        }
    }

    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Open => r#"{"rules":{".read":true,".write":true}}"#,
            Self::Locked => r#"{"rules":{"$x":{".read":"$x !== 'locked'",".write":"$x !== 'locked'"}}}"#,
            Self::Rooms => {
                r#"{"rules":{".write":true,"open":{".read":true},
                    "$room":{".read":"root.child('open').child($room).val() === true"}}}"#
            }
            Self::Signed => r#"{"rules":{".read":true,".write":"auth !== null"}}"#,
        }
    }

    fn may_write(self, who: Who, path: &str) -> bool {
        who == Who::Admin
            || match self {
                Self::Open | Self::Rooms => true,
                Self::Locked => keys(path).first().is_some_and(|first| *first != "locked"),
                Self::Signed => who == Who::User,
            }
    }

    fn may_read(self, who: Who, tree: &Tree, path: &str) -> bool {
        who == Who::Admin
            || match (self, keys(path).first()) {
                (Self::Open | Self::Signed, _) | (Self::Rooms, Some(&"open")) => true,
                (Self::Locked | Self::Rooms, None) => false,
                (Self::Locked, Some(first)) => *first != "locked",
                (Self::Rooms, Some(room)) => tree.at(&join("open", room)).value == Some(Json::Bool(true)),
            }
    }

    /// Whether a permission to read may be lost to a write.
    fn is_conditional(self, who: Who, path: &str) -> bool {
        who != Who::Admin && self == Self::Rooms && keys(path).first().is_some_and(|first| *first != "open")
    }
}

/// One place that is written: absolute.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) path: String,
    pub(super) is_priority: bool,
    pub(super) draft: Json,
}

impl Place {
    pub(super) fn new(base: &str, place: &str, draft: &Json) -> Self {
        let path = join(base, place);
        let (path, is_priority) = match path.strip_suffix(".priority") {
            Some(node) => (node.trim_end_matches('/').to_owned(), true),
            None => (path, false),
        };
        Self { path, is_priority, draft: draft.clone() }
    }

    /// Whether writing this replaces the other. A priority is below its node.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match (self.is_priority, other.is_priority) {
            (true, false) => false,
            (true, true) => self.path == other.path,
            (false, _) => below(&self.path, &other.path).is_some(),
        }
    }
}

/// One write: all of it or nothing.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Write {
    /// At or above all places.
    pub(super) base: String,
    pub(super) places: Vec<Place>,
    pub(super) is_merge: bool,
}

/// Last words, as registered.
#[derive(Clone, Debug, Default)]
pub(super) struct Words(pub(super) Vec<Write>);

impl Words {
    /// How many places are replaced; `None`, and nothing changes, if there is no room.
    pub(super) fn register(&mut self, word: &Write) -> Option<usize> {
        let before = self.places_count();
        let mut left = self.0.clone();
        for earlier in &mut left {
            earlier.places.retain(|place| !word.places.iter().any(|new| new.covers(place)));
        }
        left.retain(|word| !word.places.is_empty());
        let kept: usize = left.iter().map(|word| word.places.len()).sum();
        if kept + word.places.len() > LAST_WORDS_MAX {
            return None;
        }
        if word.places.is_empty() {
            return Some(0);
        }
        left.push(word.clone());
        self.0 = left;
        Some(before - kept)
    }

    pub(super) fn cancel(&mut self, path: &str) -> usize {
        let before = self.places_count();
        let all = Place { path: path.to_owned(), is_priority: false, draft: Json::Null };
        for word in &mut self.0 {
            word.places.retain(|place| !all.covers(place));
        }
        self.0.retain(|word| !word.places.is_empty());
        before - self.places_count()
    }

    fn places_count(&self) -> usize {
        self.0.iter().map(|word| word.places.len()).sum()
    }
}

/// A listen, as its owner knows it.
#[derive(Clone, Debug)]
pub(super) struct Listen {
    pub(super) actor: usize,
    pub(super) who: Who,
    pub(super) path: String,
    pub(super) want: Want,
    pub(super) tag: Option<u64>,
    is_conditional: bool,
}

/// A write that was made.
#[derive(Clone, Debug)]
struct Made {
    place: Place,
    actor: usize,
    spoken_at: Instant,
}

/// Who asks, and when it counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asking {
    pub(super) actor: usize,
    pub(super) who: Who,
    pub(super) now: Now,
    pub(super) spoken_at: Instant,
}

/// What becomes of a last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Spoken { is_cut: bool },
    Yielded,
    Denied,
}

/// One database.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) law: Law,
    pub(super) tree: Tree,
    made: Vec<Made>,
    pub(super) listens: Vec<Listen>,
    /// Listens that ended because they were no longer allowed, and nobody has asked about.
    pub(super) revoked: Vec<Listen>,
    /// The tree after each write, from the first on.
    pub(super) states: Vec<Tree>,
    /// How often a full window lost a child and another took its place.
    pub(super) refilled: u64,
}

impl Database {
    pub(super) fn new(law: Law, tree: Tree) -> Self {
        let states = vec![tree.clone()];
        Self { law, tree, made: Vec::new(), listens: Vec::new(), revoked: Vec::new(), states, refilled: 0 }
    }

    pub(super) fn may_read(&self, who: Who, path: &str) -> bool {
        self.law.may_read(who, &self.tree, path)
    }

    pub(super) fn may_write(&self, who: Who, write: &Write) -> bool {
        if write.places.is_empty() {
            return self.law.may_write(who, &write.base);
        }
        write.places.iter().all(|place| self.law.may_write(who, &place.path))
    }

    /// The status of the answer.
    pub(super) fn write(&mut self, asking: Asking, write: &Write, if_hash: Option<&str>) -> &'static str {
        let is_stale = if_hash.is_some_and(|hash| hash != self.tree.at(&write.base).hash());
        let is_allowed = self.may_write(asking.who, write);
        if is_stale && (is_allowed || self.may_read(asking.who, &write.base)) {
            return "datastale";
        }
        if !is_allowed {
            return "permission_denied";
        }
        self.commit(asking, write);
        "ok"
    }

    fn commit(&mut self, asking: Asking, write: &Write) {
        let before = self.tree.clone();
        let values = write.places.iter().filter(|place| !place.is_priority);
        let mut values: Vec<(&String, Tree)> = values
            .map(|Place { path, draft, .. }| (path, Tree::resolve(draft, &before.at(path), asking.now.wall)))
            .collect();
        // What is nothing in the end is a removal, however it was written.
        values.sort_by_key(|(_, tree)| tree.is_empty());
        values.into_iter().for_each(|(path, tree)| self.tree.set(path, tree));
        for Place { path, draft, .. } in write.places.iter().filter(|place| place.is_priority) {
            let standing = before.at(path);
            self.tree.set_priority(path, priority(draft, standing.priority.as_ref(), asking.now.wall));
        }
        self.states.push(self.tree.clone());
        let Asking { actor, spoken_at, .. } = asking;
        self.made.extend(write.places.iter().map(|place| Made { place: place.clone(), actor, spoken_at }));
        self.end_forbidden(&before, write);
        self.count_refilled(&before);
    }

    /// Ends the listens that were to hear of the write and may not.
    fn end_forbidden(&mut self, before: &Tree, write: &Write) {
        let (law, tree) = (self.law, &self.tree);
        let is_over = |listen: &Listen| {
            listen.is_conditional
                && !law.may_read(listen.who, tree, &listen.path)
                && is_told(listen, before, tree, write)
        };
        let (over, left) = std::mem::take(&mut self.listens).into_iter().partition(is_over);
        self.listens = left;
        self.revoked.extend::<Vec<_>>(over);
    }

    fn count_refilled(&mut self, before: &Tree) {
        for listen in self.listens.iter().filter(|listen| listen.want.limit.is_some()) {
            let (old, new) = (before.at(&listen.path), self.tree.at(&listen.path));
            if old == new {
                continue;
            }
            let (old_seen, new_seen) = (old.select(&listen.want), new.select(&listen.want));
            let is_in = |key: &String| old.children.contains_key(key) && !old_seen.children.contains_key(key);
            let has_lost = old_seen.children.keys().any(|key| !new_seen.children.contains_key(key));
            self.refilled += u64::from(has_lost && new_seen.children.keys().any(is_in));
        }
    }

    pub(super) fn listen(&mut self, actor: usize, who: Who, path: &str, want: &Want, tag: Option<u64>) {
        let is_conditional = self.law.is_conditional(who, path);
        self.listens.push(Listen { actor, who, path: path.to_owned(), want: want.clone(), tag, is_conditional });
    }

    pub(super) fn unlisten(&mut self, actor: usize, path: &str, tag: Option<u64>) {
        self.listens.retain(|listen| (listen.actor, listen.path.as_str(), listen.tag) != (actor, path, tag));
    }

    /// The owner of some paths hears who somebody is: what is not allowed ends.
    pub(super) fn identify(&mut self, actor: usize, who: Who, is_its: impl Fn(&str) -> bool) {
        let (law, tree) = (self.law, &self.tree);
        let is_meant = |listen: &Listen| listen.actor == actor && is_its(&listen.path);
        for listen in self.listens.iter_mut().filter(|listen| is_meant(listen)) {
            listen.who = who;
            listen.is_conditional = law.is_conditional(who, &listen.path);
        }
        let is_over = |listen: &Listen| is_meant(listen) && !law.may_read(who, tree, &listen.path);
        let (over, left) = std::mem::take(&mut self.listens).into_iter().partition(is_over);
        self.listens = left;
        self.revoked.extend::<Vec<_>>(over);
    }

    /// Performs one last word. With `heard`, it yields to what others have written since.
    pub(super) fn fire(&mut self, asking: Asking, word: &Write, heard: Option<Instant>) -> Fate {
        let mut word = word.clone();
        let count = word.places.len();
        if let Some(heard) = heard {
            let is_newer = |made: &Made, place: &Place| {
                made.spoken_at > heard && made.actor != asking.actor && made.place.covers(place)
            };
            word.places.retain(|place| !self.made.iter().any(|made| is_newer(made, place)));
        }
        if word.places.is_empty() {
            return Fate::Yielded;
        }
        if !self.may_write(asking.who, &word) {
            return Fate::Denied;
        }
        self.commit(asking, &word);
        Fate::Spoken { is_cut: word.places.len() < count }
    }

    /// The session hears no more.
    pub(super) fn leave(&mut self, actor: usize) {
        self.listens.retain(|listen| listen.actor != actor);
    }
}

/// Whether the write is something that the listener hears of.
fn is_told(listen: &Listen, before: &Tree, after: &Tree, write: &Write) -> bool {
    let Listen { path, want, .. } = listen;
    let (old, new) = (before.at(path), after.at(path));
    if !want.is_all() {
        return old.select(want) != new.select(want);
    }
    if below(path, &write.base).is_some() {
        return true;
    }
    if write.places.iter().any(|place| below(&place.path, path).is_some()) {
        return old != new;
    }
    write.places.iter().any(|place| below(path, &place.path).is_some())
}
