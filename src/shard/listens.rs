//! Who listens to what, and what each must hear of a change.
//!
//! Listens to the same query of the same location share a *view*. A write finds the views it
//! concerns by looking up its path and every path above it (O(depth)) and by walking those below it;
//! how much else its listeners listen to does not matter.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Unbounded};

use slab::Slab;
use smallvec::{SmallVec, smallvec};

use super::apply::{Changes, ResolvedWhat};
use crate::base::limits::LISTENS_MAX;
use crate::base::{Hashing, Map, SessionRef};
use crate::data::{Key, KeyStr, Node, Path};
use crate::op::{Event, Query, Refusal, Tag};
use crate::tree::{Touched, Window};

/// One session's listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Whose.
    pub session: SessionRef,
    /// Its number for it.
    pub tag: Tag,
}

/// Something that has happened, and who must hear of it.
#[derive(Clone, Debug)]
pub struct Told {
    /// What.
    pub event: Event,
    /// Who.
    pub listeners: Vec<Listener>,
}

/// All listens of one shard.
#[derive(Debug)]
pub(super) struct Listens {
    views: Slab<View>,
    /// The views of each location. Paths below a path are neighbours in this order.
    by_path: BTreeMap<Path, SmallVec<[u32; 2]>>,
    by_session: Map<SessionRef, Vec<Held>>,
}

/// Everybody who listens to one query of one location.
#[derive(Debug)]
struct View {
    query: Query,
    /// What of the location the listeners see; `None`: all of it.
    window: Option<Box<Window>>,
    listeners: Slab<Listener>,
}

/// One listen, as its session finds it. Sorted by path and tag.
#[derive(Debug)]
struct Held {
    path: Path,
    tag: Tag,
    view: u32,
    place: u32,
}

/// What [`Listens::before`] keeps for [`Listens::after`].
pub(super) struct Noticing {
    /// Windows over locations that change, with what they will want to compare.
    windows: Vec<(u32, Path, Touched)>,
    /// Locations strictly below the base of the write that somebody listens to as a whole, and what
    /// stood there.
    below: Vec<(Path, Node)>,
}

impl Listens {
    pub(super) fn new(hashing: &Hashing) -> Self {
        Self { views: Slab::new(), by_path: BTreeMap::new(), by_session: hashing.map() }
    }

    /// Adds a listen and returns what it sees first. A listen of the same session with the same path
    /// and tag is replaced.
    pub(super) fn add(
        &mut self,
        session: SessionRef,
        path: &Path,
        query: Query,
        tag: Tag,
        node: &Node,
    ) -> Result<Node, Refusal> {
        self.remove(session, path, tag);
        if self.by_session.get(&session).is_some_and(|held| held.len() >= LISTENS_MAX) {
            return Err(Refusal::Limit("too many listens"));
        }
        let view = self.view(path, query, node);
        let shared = &mut self.views[view as usize];
        let place = index(shared.listeners.insert(Listener { session, tag }));
        let seen = shared.window.as_ref().map_or_else(|| node.clone(), |window| window.node(node));
        let held = self.by_session.entry(session).or_default();
        let at = held.partition_point(|other| (&other.path, other.tag) < (path, tag));
        held.insert(at, Held { path: path.clone(), tag, view, place });
        Ok(seen)
    }

    /// Ends one listen, if there is one.
    pub(super) fn remove(&mut self, session: SessionRef, path: &Path, tag: Tag) {
        let Some(held) = self.by_session.get_mut(&session) else { return };
        let Ok(at) = held.binary_search_by(|other| (&other.path, other.tag).cmp(&(path, tag))) else { return };
        let gone = held.remove(at);
        if held.is_empty() {
            self.by_session.remove(&session);
        }
        self.forget(&gone);
    }

    /// Ends all listens of a session.
    pub(super) fn remove_all(&mut self, session: SessionRef) {
        for gone in self.by_session.remove(&session).unwrap_or_default() {
            self.forget(&gone);
        }
    }

    /// The listens of a session.
    pub(super) fn of(&self, session: SessionRef) -> Vec<(Path, Query, Tag)> {
        let held = self.by_session.get(&session).map_or(&[][..], Vec::as_slice);
        held.iter().map(|held| (held.path.clone(), self.views[held.view as usize].query.clone(), held.tag)).collect()
    }

    /// Every session with a listen, in a fixed order.
    pub(super) fn sessions(&self) -> Vec<SessionRef> {
        let mut sessions: Vec<_> = self.by_session.keys().copied().collect();
        sessions.sort_unstable();
        sessions
    }

    /// The view of this query; a new one if nobody has it yet.
    fn view(&mut self, path: &Path, query: Query, node: &Node) -> u32 {
        let at_path = self.by_path.entry(path.clone()).or_default();
        let is_same = |id: &&u32| {
            let view = &self.views[**id as usize];
            // All of a location is the same in any order.
            view.query == query || (view.query.is_all() && query.is_all())
        };
        if let Some(id) = at_path.iter().find(is_same) {
            return *id;
        }
        let window = (!query.is_all()).then(|| Box::new(Window::new(query.clone(), node)));
        let id = index(self.views.insert(View { query, window, listeners: Slab::new() }));
        at_path.push(id);
        id
    }

    /// Removes a listen from its view, and the view with its last listen.
    fn forget(&mut self, gone: &Held) {
        let view = &mut self.views[gone.view as usize];
        view.listeners.remove(gone.place as usize);
        if !view.listeners.is_empty() {
            return;
        }
        self.views.remove(gone.view as usize);
        let at_path = self.by_path.get_mut(&gone.path).expect("a view stands at its path");
        at_path.retain(|id| *id != gone.view);
        if at_path.is_empty() {
            self.by_path.remove(&gone.path);
        }
    }

    /// To be called before `changes` (all at or below `base`) are made to `root`.
    pub(super) fn before(&self, base: &Path, changes: &Changes, root: &Node) -> Noticing {
        let mut noticing = Noticing { windows: Vec::new(), below: Vec::new() };
        if self.by_path.is_empty() {
            return noticing;
        }
        for prefix in base.prefixes() {
            if let Some((path, ids)) = self.by_path.get_key_value(prefix) {
                self.notice_windows(path, ids, changes, root, &mut noticing);
            }
        }
        let is_plain_set = changes.len() == 1 && changes[0].path == *base;
        let below: BTreeSet<&Path> = if is_plain_set {
            self.strictly_below(base).map(|(path, _)| path).collect()
        } else {
            changes.iter().flat_map(|change| self.related(base, &change.path)).collect()
        };
        for path in below {
            let ids = &self.by_path[path];
            self.notice_windows(path, ids, changes, root, &mut noticing);
            if ids.iter().any(|id| self.views[*id as usize].window.is_none()) {
                noticing.below.push((path.clone(), root.at(path.as_str()).clone()));
            }
        }
        noticing
    }

    /// Listened-to paths strictly below `base` that are above, at or below `changed`.
    fn related<'l>(&'l self, base: &Path, changed: &'l Path) -> impl Iterator<Item = &'l Path> {
        let above = changed.prefixes().skip(base.depth() + 1);
        let above = above.filter_map(|prefix| self.by_path.get_key_value(prefix)).map(|(path, _)| path);
        above.chain(self.strictly_below(changed).map(|(path, _)| path))
    }

    fn strictly_below<'l>(&'l self, path: &Path) -> impl Iterator<Item = (&'l Path, &'l SmallVec<[u32; 2]>)> + use<'l> {
        // In byte order, what is below a path is what begins with it and a slash.
        let prefix = if path.is_root() { String::new() } else { format!("{}/", path.as_str()) };
        let from = self.by_path.range::<str, _>((Excluded(prefix.as_str()), Unbounded));
        from.take_while(move |(other, _)| other.as_str().starts_with(&prefix))
    }

    fn notice_windows(&self, path: &Path, ids: &[u32], changes: &Changes, root: &Node, noticing: &mut Noticing) {
        for id in ids {
            if self.views[*id as usize].window.is_some() {
                noticing.windows.push((*id, path.clone(), touched(path, changes, root)));
            }
        }
    }

    /// To be called after the changes, with what [`before`](Self::before) returned.
    pub(super) fn after(
        &mut self,
        noticing: Noticing,
        base: &Path,
        changes: &Changes,
        root: &Node,
        told: &mut Vec<Told>,
    ) {
        if self.by_path.is_empty() {
            return;
        }
        let mut above = Vec::new();
        for prefix in base.prefixes() {
            for id in self.by_path.get(prefix).into_iter().flatten() {
                let view = &self.views[*id as usize];
                if view.window.is_none() {
                    above.extend(view.listeners.iter().map(|(_, listener)| *listener));
                }
            }
        }
        if !above.is_empty() {
            told.push(Told { event: event_at(base, changes, root), listeners: above });
        }
        for (path, old) in noticing.below {
            let listeners = self.whole_listeners(&path);
            if let Some(event) = event_below(&path, &old, changes, root) {
                told.push(Told { event, listeners });
            }
        }
        for (id, path, touched) in noticing.windows {
            let view = &mut self.views[id as usize];
            let window = view.window.as_mut().expect("only views with windows are noticed");
            let seen = window.update(root.at(path.as_str()), touched);
            if let Some(event) = window_event(&path, seen) {
                told.push(Told { event, listeners: view.listeners.iter().map(|(_, listener)| *listener).collect() });
            }
        }
    }

    fn whole_listeners(&self, path: &Path) -> Vec<Listener> {
        let views = self.by_path[path].iter().map(|id| &self.views[*id as usize]);
        let whole = views.filter(|view| view.window.is_none());
        whole.flat_map(|view| view.listeners.iter().map(|(_, listener)| *listener)).collect()
    }
}

/// Which children of `path` the changes touch, and what they were.
fn touched(path: &Path, changes: &Changes, root: &Node) -> Touched {
    let node = root.at(path.as_str());
    let mut keys: SmallVec<[Key; 1]> = smallvec![];
    for change in changes {
        let Some(below) = path.relative(&change.path) else {
            if change.path.contains(path) {
                return Touched::Whole;
            }
            continue;
        };
        let first = below.split('/').next().unwrap_or_default();
        match Key::parse(first) {
            Ok(key) => keys.push(key),
            // The change is at the location itself; its priority alone does not matter to a window.
            Err(_) if matches!(change.what, ResolvedWhat::Priority(_)) => {}
            Err(_) => return Touched::Whole,
        }
    }
    keys.sort_unstable();
    keys.dedup();
    // A leaf that becomes an inner node had no children to compare with.
    Touched::Children(
        keys.into_iter()
            .map(|key| {
                let old = node.child(&key).clone();
                (key, old)
            })
            .collect(),
    )
}

/// What listeners at or above the write hear of it.
fn event_at(base: &Path, changes: &Changes, root: &Node) -> Event {
    if let [change] = &changes[..]
        && change.path == *base
    {
        return Event::Set { path: base.clone(), node: root.at(base.as_str()).clone() };
    }
    let places = changes.iter().map(|change| {
        let place = base.below(&change.path).expect("a merge's places are below its base");
        (place, root.at(change.path.as_str()).clone())
    });
    Event::Merge { path: base.clone(), changes: places.collect() }
}

/// What listeners to the whole of `path`, strictly below the write's base, hear of it.
fn event_below(path: &Path, old: &Node, changes: &Changes, root: &Node) -> Option<Event> {
    let is_replaced = changes.iter().any(|change| change.path.contains(path));
    if is_replaced {
        let node = root.at(path.as_str());
        return (node != old).then(|| Event::Set { path: path.clone(), node: node.clone() });
    }
    let mut parts: Vec<(Path, Node)> = changes
        .iter()
        .filter_map(|change| Some((path.below(&change.path)?, root.at(change.path.as_str()).clone())))
        .collect();
    match parts.len() {
        0 => None,
        1 => parts.pop().map(|(place, node)| Event::Set { path: path.join(&place), node }),
        _ => Some(Event::Merge { path: path.clone(), changes: parts }),
    }
}

/// What the listeners of a window hear: nothing, one child, or several at once.
fn window_event(path: &Path, mut seen: Vec<(Key, Node)>) -> Option<Event> {
    match seen.len() {
        0 => None,
        1 => seen.pop().map(|(key, node)| Event::Set { path: path.child(&key), node }),
        _ => {
            let changes = seen.into_iter().map(|(key, node)| (Path::ROOT.child(KeyStr::new(key.as_str())), node));
            Some(Event::Merge { path: path.clone(), changes: changes.collect() })
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "sessions × LISTENS_MAX stays below 2^32 long after memory ends")]
fn index(place: usize) -> u32 {
    assert!(place < u32::MAX as usize, "more listens than a shard can count");
    place as u32
}
