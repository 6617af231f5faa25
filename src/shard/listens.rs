//! Who listens to what, and what each must hear of a change.
//!
//! A write finds the listens it concerns by looking up its path and every path above it (O(depth)) and
//! by walking those below it; how much else its listeners listen to does not matter. Queries of one
//! location share its [`Windows`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use slab::Slab;
use smallvec::SmallVec;

use super::apply::{Changes, ResolvedWhat};
use super::part::READING;
use crate::base::limits::LISTENS_MAX;
use crate::base::{Hashing, Map, SessionRef};
use crate::data::{Key, Node, Path};
use crate::op::{Event, Identity, Query, Refusal, Tag};
use crate::tree::{Change, Delta, WindowId, Windows};

/// One session's listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Whose.
    pub session: SessionRef,
    /// Its number for it.
    pub tag: Tag,
    /// Whether the rules must allow it anew before each thing it hears, because they look at data.
    pub is_conditional: bool,
    /// How many keys its place lacks to be one core's alone; 0: what it hears is all there is to hear.
    pub width: u8,
    /// What it sees here is as it was: it is told for the sake of what others tell of their parts.
    pub is_same: bool,
}

impl Listener {
    /// One that hears of all changes, whatever rules say.
    #[must_use]
    pub const fn new(session: SessionRef, tag: Tag, width: u8) -> Self {
        Self { session, tag, is_conditional: false, width, is_same: false }
    }
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
    hashing: Hashing,
    /// Paths below a path are neighbours in this order.
    places: BTreeMap<Path, Place>,
    /// How many of them are above the parts.
    wide_places_count: usize,
    by_session: Map<SessionRef, Member>,
}

/// A session that listens.
#[derive(Debug)]
struct Member {
    identity: Arc<Identity>,
    /// At least one. Sorted by path and tag.
    held: Vec<Held>,
}

/// Who wants to listen to what.
pub(super) struct Wish<'a> {
    pub(super) path: &'a Path,
    pub(super) query: &'a Query,
    pub(super) listener: Listener,
    pub(super) identity: &'a Arc<Identity>,
}

/// A conditional listen that something was to be told to.
pub(super) struct Doubt {
    pub(super) path: Path,
    pub(super) listener: Listener,
    /// Which of what is told.
    pub(super) told_index: usize,
}

/// The listens of one location: at least one.
#[derive(Debug, Default)]
struct Place {
    /// Those to all of it.
    whole: Slab<Listener>,
    /// Those to parts of it.
    parts: Option<Box<Parts>>,
}

/// The listens to parts of one location: at least one.
#[derive(Debug)]
struct Parts {
    windows: Windows,
    listeners: Map<WindowId, Slab<Listener>>,
}

/// One listen, as its session finds it.
#[derive(Debug)]
struct Held {
    path: Path,
    tag: Tag,
    /// Which part of the location; `None`: all of it.
    window: Option<WindowId>,
    /// Where it stands in that list.
    index: u32,
}

/// What [`Listens::before`] keeps for [`Listens::after`].
pub(super) struct Noticing {
    /// Locations with windows that the write touches, and what they will want to compare.
    windows: Vec<(Path, Touched)>,
    /// Locations strictly below the base of the write that somebody listens to as a whole, and what
    /// stood there.
    below: Vec<(Path, Node)>,
}

/// What of a location a write touches, and what it was.
enum Touched {
    Whole(Node),
    Children(Vec<(Key, Node)>),
}

impl Listens {
    pub(super) fn new(hashing: &Hashing) -> Self {
        Self { hashing: hashing.clone(), places: BTreeMap::new(), wide_places_count: 0, by_session: hashing.map() }
    }

    /// At how many places somebody listens; `is_all`: also of those above the parts. O(1).
    pub(super) fn places_count(&self, is_all: bool) -> usize {
        self.places.len() - if is_all { 0 } else { self.wide_places_count }
    }

    /// How many there are, and at how many places.
    pub(super) fn count(&self, is_all: bool) -> (usize, usize) {
        let is_counted = |held: &&Held| is_all || Listener::width_at(&held.path) == 0;
        let listens = self.by_session.values().map(|member| member.held.iter().filter(is_counted).count()).sum();
        (listens, self.places_count(is_all))
    }

    /// Adds a listen and returns what it sees first. A listen of the same session with the same path
    /// and tag is replaced.
    pub(super) fn add(&mut self, wish: &Wish<'_>, node: &Node) -> Result<Node, Refusal> {
        let Wish { path, listener: Listener { session, tag, .. }, .. } = *wish;
        self.remove(session, path, tag);
        if self.by_session.get(&session).is_some_and(|member| member.held.len() >= LISTENS_MAX) {
            return Err(Refusal::Limit("listens of one session"));
        }
        Ok(self.add_any(wish, node))
    }

    /// The same, however many the session has.
    pub(super) fn add_any(&mut self, wish: &Wish<'_>, node: &Node) -> Node {
        let Wish { path, query, listener, identity } = *wish;
        let Listener { session, tag, .. } = listener;
        self.remove(session, path, tag);
        let wide_places_count = &mut self.wide_places_count;
        let place = self.places.entry(path.clone()).or_insert_with(|| {
            *wide_places_count += usize::from(Listener::width_at(path) > 0);
            Place::default()
        });
        let (seen, window, index) = if query.is_all() {
            (node.clone(), None, place.whole.insert(listener))
        } else {
            let parts = place.parts.get_or_insert_with(|| Box::new(Parts::new(&self.hashing)));
            let window = parts.windows.open(query, node);
            let index = parts.listeners.entry(window).or_default().insert(listener);
            (parts.windows.node(window, node), Some(window), index)
        };
        let index = u32::try_from(index).expect("listens are fewer than memory allows");
        let member =
            self.by_session.entry(session).or_insert_with(|| Member { identity: identity.clone(), held: Vec::new() });
        member.identity = identity.clone();
        let at = member.held.partition_point(|other| (&other.path, other.tag) < (path, tag));
        member.held.insert(at, Held { path: path.clone(), tag, window, index });
        seen
    }

    /// Ends what one of all parts has ended of the listens above them, because rules did not allow it when it looked:
    /// their clients have been told.
    pub(super) fn agree(parts: &mut [Self]) {
        let mut counts: BTreeMap<(SessionRef, Path, Tag), usize> = BTreeMap::new();
        for (session, member) in parts.iter().flat_map(|part| &part.by_session) {
            for held in member.held.iter().filter(|held| Listener::width_at(&held.path) > 0) {
                *counts.entry((*session, held.path.clone(), held.tag)).or_default() += 1;
            }
        }
        let parts_count = parts.len();
        let ended = counts.into_iter().filter(|(_, count)| *count < parts_count);
        for ((session, path, tag), _) in ended {
            parts.iter_mut().for_each(|part| part.remove(session, &path, tag));
        }
    }

    /// Takes in the listens of one part of what `root` is now the whole of. Nobody is told anything: each has seen
    /// what there is.
    pub(super) fn take_in(&mut self, part: &Self, root: &Node) {
        for (session, Member { identity, held }) in &part.by_session {
            for held in held {
                let known =
                    self.by_session.get(session).is_some_and(|member| member.find(&held.path, held.tag).is_some());
                // What was to be read has been sent.
                if known || held.tag == Some(READING) {
                    continue;
                }
                let listener = Listener { width: 0, ..*part.listener(held) };
                let wish = Wish { path: &held.path, query: &part.query(held), listener, identity };
                self.add_any(&wish, root.at(held.path.as_str()));
            }
        }
    }

    fn listener(&self, held: &Held) -> &Listener {
        let place = &self.places[&held.path];
        let listeners = match (held.window, &place.parts) {
            (None, _) => &place.whole,
            (Some(window), Some(parts)) => &parts.listeners[&window],
            (Some(_), None) => unreachable!("a window is a part"),
        };
        &listeners[held.index as usize]
    }

    /// Ends one listen, if there is one.
    pub(super) fn remove(&mut self, session: SessionRef, path: &Path, tag: Tag) {
        let Some(member) = self.by_session.get_mut(&session) else { return };
        let Some(at) = member.find(path, tag) else { return };
        let gone = member.held.remove(at);
        if member.held.is_empty() {
            self.by_session.remove(&session);
        }
        self.forget(&gone);
    }

    /// Ends all listens of a session.
    pub(super) fn remove_all(&mut self, session: SessionRef) {
        for gone in self.by_session.remove(&session).into_iter().flat_map(|member| member.held) {
            self.forget(&gone);
        }
    }

    /// The listens of a session.
    pub(super) fn of(&self, session: SessionRef) -> Vec<(Path, Query, Tag)> {
        let held = self.by_session.get(&session).map_or(&[][..], |member| &member.held);
        held.iter().map(|held| (held.path.clone(), self.query(held), held.tag)).collect()
    }

    /// The query of one listen.
    pub(super) fn query_of(&self, session: SessionRef, path: &Path, tag: Tag) -> Option<Query> {
        let member = self.by_session.get(&session)?;
        member.find(path, tag).map(|at| self.query(&member.held[at]))
    }

    /// Who a listening session is.
    pub(super) fn identity(&self, session: SessionRef) -> Option<&Arc<Identity>> {
        self.by_session.get(&session).map(|member| &member.identity)
    }

    /// The session is somebody else from now on.
    pub(super) fn set_identity(&mut self, session: SessionRef, identity: &Arc<Identity>) {
        if let Some(member) = self.by_session.get_mut(&session) {
            member.identity = identity.clone();
        }
    }

    /// Whether a listen must be allowed anew before each thing that it hears: other rules, or another
    /// identity, change that too.
    pub(super) fn set_conditional(&mut self, session: SessionRef, path: &Path, tag: Tag, is_conditional: bool) {
        let Some(member) = self.by_session.get(&session) else { return };
        let Some(at) = member.find(path, tag) else { return };
        let Held { window, index, .. } = member.held[at];
        let place = self.places.get_mut(path).expect("a listen stands at its place");
        let listeners = match (window, &mut place.parts) {
            (None, _) => &mut place.whole,
            (Some(window), Some(parts)) => parts.listeners.get_mut(&window).expect("a listen stands at its window"),
            (Some(_), None) => unreachable!("a window is a part"),
        };
        listeners[index as usize].is_conditional = is_conditional;
    }

    fn query(&self, held: &Held) -> Query {
        let Some(window) = held.window else { return Query::ALL };
        let parts = self.places[&held.path].parts.as_ref().expect("a window is a part");
        parts.windows.query(window).clone()
    }

    /// Removes a listen from its place, and the place with its last listen.
    fn forget(&mut self, gone: &Held) {
        let place = self.places.get_mut(&gone.path).expect("a listen stands at its place");
        match (gone.window, &mut place.parts) {
            (None, _) => drop(place.whole.remove(gone.index as usize)),
            (Some(_), None) => unreachable!("a window is a part"),
            (Some(window), Some(parts)) => {
                parts.remove(window, gone.index);
                if parts.windows.is_empty() {
                    place.parts = None;
                }
            }
        }
        if place.whole.is_empty() && place.parts.is_none() {
            self.places.remove(&gone.path);
            self.wide_places_count -= usize::from(Listener::width_at(&gone.path) > 0);
        }
    }

    /// To be called before `changes` (all at or below `base`) are made to `root`.
    pub(super) fn before(&self, base: &Path, changes: &Changes, root: &Node) -> Noticing {
        let mut noticing = Noticing { windows: Vec::new(), below: Vec::new() };
        if self.places.is_empty() {
            return noticing;
        }
        for prefix in base.prefixes() {
            if let Some((path, place)) = self.places.get_key_value(prefix) {
                notice_windows(path, place, changes, root, &mut noticing);
            }
        }
        let is_plain_set = changes.len() == 1 && changes[0].path == *base;
        let below: BTreeSet<&Path> = if is_plain_set {
            self.strictly_below(base).map(|(path, _)| path).collect()
        } else {
            changes.iter().flat_map(|change| self.related(base, &change.path)).collect()
        };
        for path in below {
            let place = &self.places[path];
            notice_windows(path, place, changes, root, &mut noticing);
            if !place.whole.is_empty() {
                noticing.below.push((path.clone(), root.at(path.as_str()).clone()));
            }
        }
        noticing
    }

    /// Listened-to paths strictly below `base` that are above, at or below `changed`.
    fn related<'l>(&'l self, base: &Path, changed: &'l Path) -> impl Iterator<Item = &'l Path> + use<'l> {
        let above = changed.prefixes().skip(base.depth() + 1);
        let above = above.filter_map(|prefix| self.places.get_key_value(prefix)).map(|(path, _)| path);
        above.chain(self.strictly_below(changed).map(|(path, _)| path))
    }

    fn strictly_below<'l>(&'l self, path: &Path) -> impl Iterator<Item = (&'l Path, &'l Place)> + use<'l> {
        // In byte order, what is below a path is what begins with it and a slash.
        let prefix = if path.is_root() { String::new() } else { format!("{}/", path.as_str()) };
        let from = self.places.range::<str, _>((Excluded(prefix.as_str()), Unbounded));
        from.take_while(move |(other, _)| other.as_str().starts_with(&prefix))
    }

    /// To be called after the changes, with what [`before`](Self::before) returned. Listeners that may
    /// hear it only if the rules still allow it are returned instead of being told.
    pub(super) fn after(
        &mut self,
        noticing: Noticing,
        base: &Path,
        changes: &Changes,
        root: &Node,
        told: &mut Vec<Told>,
    ) -> Vec<Doubt> {
        let mut telling = Telling { told, doubts: Vec::new() };
        if self.places.is_empty() {
            return telling.doubts;
        }
        {
            let places = base.prefixes().filter_map(|prefix| self.places.get_key_value(prefix));
            let whole = places.map(|(path, place)| (path, &place.whole)).filter(|(_, listeners)| !listeners.is_empty());
            let whole: SmallVec<[_; 4]> = whole.collect();
            if !whole.is_empty() {
                telling.tell(event_at(base, changes, root), whole);
            }
        }
        for (path, old) in noticing.below {
            let whole = &self.places[&path].whole;
            if let Some(event) = event_below(&path, &old, changes, root) {
                telling.tell(event, [(&path, whole)]);
            } else if is_wide(whole) && is_replaced(&path, changes) {
                let node = root.at(path.as_str()).clone();
                let listeners = whole.iter().map(|(_, listener)| Listener { is_same: true, ..*listener }).collect();
                telling.told.push(Told { event: Event::Set { path, node }, listeners });
            }
        }
        for (path, touched) in noticing.windows {
            let place = self.places.get_mut(&path).expect("listens do not change while a write is made");
            let Parts { windows, listeners } = &mut **place.parts.as_mut().expect("it had windows before");
            let node = root.at(path.as_str());
            let tell = |window: WindowId, delta: Delta| {
                telling.tell(window_event(&path, delta), [(&path, &listeners[&window])]);
            };
            match touched {
                Touched::Whole(old) if listeners.values().any(is_wide) => {
                    // Others show other children: of these each is told by itself.
                    let mut children: Vec<(Key, Node)> =
                        old.children().iter().map(|(key, child)| (key.clone(), child.clone())).collect();
                    let new = node.children().iter().filter(|(key, _)| old.child(key).is_empty());
                    children.extend(new.map(|(key, _)| (key.clone(), Node::Empty)));
                    windows.update(node, &children, tell);
                }
                Touched::Whole(old) => windows.replace(&old, node, tell),
                Touched::Children(children) => windows.update(node, &children, tell),
            }
        }
        telling.doubts
    }
}

/// What is told, as it is collected.
struct Telling<'a> {
    told: &'a mut Vec<Told>,
    doubts: Vec<Doubt>,
}

impl Telling<'_> {
    fn tell<'l>(&mut self, event: Event, to: impl IntoIterator<Item = (&'l Path, &'l Slab<Listener>)>) {
        let mut listeners = Vec::new();
        let told_index = self.told.len();
        for (path, some) in to {
            for (_, listener) in some {
                if listener.is_conditional {
                    self.doubts.push(Doubt { path: path.clone(), listener: *listener, told_index });
                } else {
                    listeners.push(*listener);
                }
            }
        }
        self.told.push(Told { event, listeners });
    }
}

impl Member {
    fn find(&self, path: &Path, tag: Tag) -> Option<usize> {
        self.held.binary_search_by(|other| (&other.path, other.tag).cmp(&(path, tag))).ok()
    }
}

impl Parts {
    fn new(hashing: &Hashing) -> Self {
        Self { windows: Windows::new(hashing), listeners: hashing.map() }
    }

    fn remove(&mut self, window: WindowId, index: u32) {
        let listeners = self.listeners.get_mut(&window).expect("a listen stands at its window");
        listeners.remove(index as usize);
        if self.windows.close(window) {
            let gone = self.listeners.remove(&window);
            assert!(gone.is_some_and(|gone| gone.is_empty()), "a window closes with its last listen");
        }
    }
}

fn notice_windows(path: &Path, place: &Place, changes: &Changes, root: &Node, noticing: &mut Noticing) {
    if place.parts.is_some() {
        noticing.windows.push((path.clone(), touched(path, changes, root)));
    }
}

/// Which children of `path` the changes touch, and what they were.
fn touched(path: &Path, changes: &Changes, root: &Node) -> Touched {
    let node = root.at(path.as_str());
    let mut children: Vec<(Key, Node)> = Vec::new();
    for change in changes {
        let Some(below) = path.relative(&change.path) else {
            if change.path.contains(path) && matches!(change.what, ResolvedWhat::Value(_)) {
                return Touched::Whole(node.clone());
            }
            continue;
        };
        let first = below.split('/').next().unwrap_or_default();
        match (Key::parse(first), &change.what) {
            (Ok(key), _) => {
                let old = node.child(&key).clone();
                children.push((key, old));
            }
            // The change is at the location itself; its own priority does not matter to a window.
            (Err(_), ResolvedWhat::Priority(_)) => {}
            (Err(_), ResolvedWhat::Value(_)) => return Touched::Whole(node.clone()),
        }
    }
    Touched::Children(children)
}

/// What listeners at or above the write hear of it.
fn event_at(base: &Path, changes: &Changes, root: &Node) -> Event {
    if let [change] = &changes[..]
        && change.path == *base
    {
        let node = match &change.what {
            // What was put there stands there: no need to look for it.
            ResolvedWhat::Value(node) => node,
            ResolvedWhat::Priority(_) => root.at(base.as_str()),
        };
        return Event::Set { path: base.clone(), node: node.clone() };
    }
    let places = changes.iter().map(|change| {
        let place = base.below(&change.path).expect("a merge's places are below its base");
        (place, root.at(change.path.as_str()).clone())
    });
    Event::Merge { path: base.clone(), changes: places.collect() }
}

/// Whether these listen to more than one part holds.
fn is_wide(listeners: &Slab<Listener>) -> bool {
    listeners.iter().any(|(_, listener)| listener.width > 0)
}

/// Whether all of `path` is written anew.
fn is_replaced(path: &Path, changes: &Changes) -> bool {
    changes.iter().any(|change| change.path.contains(path))
}

/// What listeners to the whole of `path`, strictly below the write's base, hear of it.
fn event_below(path: &Path, old: &Node, changes: &Changes, root: &Node) -> Option<Event> {
    if is_replaced(path, changes) {
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

/// What the listeners of a window hear.
#[must_use]
pub fn window_event(path: &Path, delta: Delta) -> Event {
    let mut children = match delta {
        Delta::Whole(node) => return Event::Set { path: path.clone(), node },
        Delta::Children(children) => children.into_iter().map(|(key, change)| match change {
            Change::Left => (key, Node::Empty),
            Change::Entered(node) | Change::Changed(node) => (key, node),
        }),
    };
    match (children.len(), children.next()) {
        (1, Some((key, node))) => Event::Set { path: path.child(&key), node },
        (_, first) => {
            let changes = first.into_iter().chain(children).map(|(key, node)| (Path::ROOT.child(&key), node));
            Event::Merge { path: path.clone(), changes: changes.collect() }
        }
    }
}
