//! What is read, or listened to, above the parts of a spread database: put together at home.
//!
//! A home asks the keeper, the keeper tells all cores, and each sends home what it holds of the place; from then on
//! each tells of what changes in it. Once all parts are there the client hears of it, as of one.
//!
//! The surprising idea: no part waits for another, and nobody keeps a copy. What a part tells after its share belongs
//! to what is being put together, what it told before does not; and since whatever a share depends on has arrived
//! before it, what all of them make is a state in which no effect is without its cause.
//!
//! Costs: for a listen that is open, an entry at its home; with a limit also the children that stand in the windows
//! of the parts, at most as many for each core as the limit says. One message from each core for one that begins.

use std::collections::BTreeMap;

use super::{Engine, Message, Output};
use crate::base::limits::LISTENS_MAX;
use crate::base::{Now, SessionRef, ShardId};
use crate::data::{Key, Node, Path};
use crate::op::{Event, Namespace, Outcome, Query, Refusal, Request, Tag, Write};
use crate::presence::places;
use crate::shard::{Listener, PART_KEYS, READING, Told, gather, window_event};
use crate::tree::{WindowId, Windows, select};

/// What one session reads and listens to above the parts.
#[derive(Debug, Default)]
pub(super) struct Wide {
    /// Listens whose clients have seen all of them.
    open: BTreeMap<(Path, Tag), Window>,
    /// What is being put together: nothing else of the session is on its way.
    gathering: Option<Gathering>,
}

/// Whose listen, to what.
type Listen = (SessionRef, Path, Tag);

/// What is kept of a listen: something only where there is a limit.
#[derive(Debug)]
enum Window {
    /// All of a place.
    All,
    /// Those of its children that are within bounds.
    Range,
    /// So many of them.
    Limited(Box<Union>),
}

/// What stands in the windows of all parts: the window of the whole is in it.
#[derive(Debug)]
struct Union {
    node: Node,
    windows: Windows,
    id: WindowId,
}

#[derive(Debug)]
struct Gathering {
    number: i64,
    path: Path,
    query: Query,
    /// What is only read is listened to until all of it is there.
    tag: Tag,
    is_read_once: bool,
    /// Of what the client has.
    hash: Option<String>,
    node: Node,
    /// Bit `s`: shard `s` has not sent its part.
    missing: u64,
    refusal: Option<Refusal>,
    is_unindexed: bool,
}

impl Gathering {
    /// Whether it puts together this listen, and a part has sent its share.
    fn has_from(&self, path: &Path, tag: Tag, from: ShardId) -> bool {
        (&self.path, self.tag) == (path, tag) && self.missing & from.bit() == 0
    }
}

impl Engine {
    /// A request is about to go to the keeper that all parts have a share in.
    pub(super) fn begin_gathering(&mut self, session: SessionRef, number: i64, request: &Request) {
        let missing = self.all();
        let (path, query, tag, hash, is_read_once) = match request {
            Request::Get { path, query } => (path, query, Some(READING), None, true),
            Request::Listen { path, query, tag, hash } => (path, query, *tag, hash.clone(), false),
            Request::Unlisten { path, tag } => {
                if let Some(wide) = self.wide.get_mut(&session) {
                    wide.open.remove(&(path.clone(), *tag));
                }
                return self.tidy_wide(session);
            }
            _ => unreachable!("nothing else is done by all"),
        };
        let rules = &self.config.rules;
        let is_unindexed = !query.is_all() && !rules.is_indexed(path, &query.index);
        let wide = self.wide.entry(session).or_default();
        let is_full = wide.open.len() >= LISTENS_MAX;
        let refusal = is_full.then_some(Refusal::Limit("listens of one session"));
        let (path, query, node) = (path.clone(), query.clone(), Node::Empty);
        wide.gathering =
            Some(Gathering { number, path, query, tag, is_read_once, hash, node, missing, refusal, is_unindexed });
    }

    /// A request is answered by others.
    pub(super) fn stop_gathering(&mut self, session: SessionRef, number: i64) {
        let Some(wide) = self.wide.get_mut(&session) else { return };
        if wide.gathering.as_ref().is_some_and(|gathering| gathering.number == number) {
            wide.gathering = None;
            self.tidy_wide(session);
        }
    }

    fn tidy_wide(&mut self, session: SessionRef) {
        if self.wide.get(&session).is_some_and(|wide| wide.open.is_empty() && wide.gathering.is_none()) {
            self.wide.remove(&session);
        }
    }

    /// A session is over, or begins anew: to be called while it is known.
    pub(super) fn forget_wide(&mut self, session: SessionRef) {
        let gathering = self.wide.remove(&session).and_then(|wide| wide.gathering);
        if let Some(gathering) = gathering.filter(|gathering| gathering.is_read_once) {
            self.forget(session, gathering.path, Some(READING));
        }
    }

    /// No part is to tell of this any more.
    fn forget(&mut self, session: SessionRef, path: Path, tag: Tag) {
        let Some(state) = self.sessions.get(session) else { return };
        let (namespace, identity) = (state.namespace.clone(), state.identity.clone());
        self.inner.push_back(Message::Forget { session, namespace, path, tag, identity });
    }

    /// A database is one again: whoever listens is told by its keeper alone.
    pub(super) fn united(&mut self, namespace: &Namespace) {
        self.part_is_home(namespace);
        let sessions = &self.sessions;
        self.wide.retain(|session, _| sessions.get(*session).is_none_or(|state| state.namespace != *namespace));
    }

    /// A part has sent its share; none, if it has no room.
    pub(super) fn part_came(
        &mut self,
        now: Now,
        session: SessionRef,
        number: i64,
        from: ShardId,
        part: Option<Node>,
        output: &mut Output,
    ) {
        let gathering = self.wide.get_mut(&session).and_then(|wide| wide.gathering.as_mut());
        let Some(gathering) = gathering.filter(|gathering| gathering.number == number) else { return };
        gathering.missing &= !from.bit();
        match part {
            Some(part) => gather(&mut gathering.node, &gathering.path, &part),
            // It has nothing of it, either.
            None => gathering.refusal = Some(Refusal::Limit("too many databases")),
        }
        if gathering.missing == 0 {
            let gathering = self.wide.get_mut(&session).and_then(|wide| wide.gathering.take());
            self.gathered_all(now, session, gathering.expect("it was there just now"), output);
        }
    }

    fn gathered_all(&mut self, now: Now, session: SessionRef, gathering: Gathering, output: &mut Output) {
        let Gathering { number, path, query, tag, is_read_once, hash, node, refusal, is_unindexed, .. } = gathering;
        if is_read_once {
            self.forget(session, path, Some(READING));
            self.tidy_wide(session);
            return self.answered(now, session, number, &Outcome::Value(select(&node, &query)), output);
        }
        if let Some(refusal) = refusal {
            self.tidy_wide(session);
            return self.answered(now, session, number, &Outcome::Refused(refusal), output);
        }
        let (seen, window) = if query.limit.is_some() {
            let mut windows = Windows::new(&self.hashing);
            let id = windows.open(&query, &node);
            (windows.node(id, &node), Window::Limited(Box::new(Union { node, windows, id })))
        } else {
            (node, if query.is_all() { Window::All } else { Window::Range })
        };
        let wide = self.wide.entry(session).or_default();
        wide.open.insert((path.clone(), tag), window);
        if hash.is_none_or(|hash| hash != seen.hash()) {
            let listener = Listener::new(session, tag, 0);
            self.tell(&Told { event: Event::Set { path, node: seen }, listeners: vec![listener] }, output);
        }
        self.answered(now, session, number, &Outcome::Listening { is_unindexed }, output);
    }

    /// Something has happened in one part that sessions here hear of who listen above.
    pub(super) fn tell_wide(&mut self, from: ShardId, told: Told, output: &mut Output) {
        let Told { event, listeners } = told;
        let mut as_it_is = Vec::new();
        for listener in listeners {
            let Some(wide) = self.wide.get_mut(&listener.session) else { continue };
            let path = place_of(&event, listener.width);
            if let Some(gathering) = &mut wide.gathering
                && gathering.has_from(&path, listener.tag, from)
            {
                fold(&mut gathering.node, &path, &event);
                continue;
            }
            let place = (path, listener.tag);
            let Some(window) = wide.open.get_mut(&place) else { continue };
            if matches!(event, Event::Revoked { .. }) {
                wide.open.remove(&place);
                as_it_is.push(listener);
                self.tidy_wide(listener.session);
                // Others may have looked when it was allowed, or will look when it is again.
                self.forget(listener.session, place.0, place.1);
                continue;
            }
            let Window::Limited(union) = window else {
                as_it_is.push(listener);
                continue;
            };
            let mut told = Vec::new();
            union.hear(&place.0, &[&event], |event| told.push(Told { event, listeners: vec![listener] }));
            told.iter().for_each(|told| self.tell(told, output));
        }
        if !as_it_is.is_empty() {
            self.tell(&Told { event, listeners: as_it_is }, output);
        }
    }

    /// Several parts have changed as one, by an update. Whoever listens above them hears of it as of one change.
    pub(super) fn tell_joint(&mut self, write: &Write, parts: &[(ShardId, Told)], output: &mut Output) {
        // By listen: which of these it hears.
        let mut heard: BTreeMap<Listen, (Vec<Listener>, Vec<usize>)> = BTreeMap::new();
        for (index, (_, Told { event, listeners })) in parts.iter().enumerate() {
            let (near, wide): (Vec<_>, Vec<_>) = listeners.iter().partition(|listener| listener.width == 0);
            if !near.is_empty() {
                self.tell(&Told { event: event.clone(), listeners: near }, output);
            }
            for listener in wide {
                let listen = (listener.session, place_of(event, listener.width), listener.tag);
                let (listeners, indices) = heard.entry(listen).or_default();
                listeners.push(listener);
                indices.push(index);
            }
        }
        // Those who hear the same are told the same. A range hears of children in their own order.
        let mut alike: BTreeMap<(Path, bool, Vec<usize>), Vec<Listener>> = BTreeMap::new();
        let events = |indices: &[usize]| indices.iter().map(|index| &parts[*index].1.event).collect::<Vec<_>>();
        let is_replaced = |at: &Path| places(write).any(|place| !place.is_priority && place.path.contains(at));
        for ((session, path, tag), (listeners, indices)) in heard {
            let Some(wide) = self.wide.get_mut(&session) else { continue };
            if let Some(gathering) = &mut wide.gathering {
                let has_from = |index: &usize| gathering.has_from(&path, tag, parts[*index].0);
                // Their shares came before, and so of all of them.
                if indices.iter().all(has_from) {
                    fold(&mut gathering.node, &path, &as_one(&path, &events(&indices), None));
                    continue;
                }
            }
            let Some(listener) = listeners.into_iter().find(|listener| !listener.is_same) else { continue };
            let place = (path, tag);
            match wide.open.get_mut(&place) {
                None => {}
                Some(Window::Limited(union)) => {
                    let mut told = Vec::new();
                    let tell = |event| told.push(Told { event, listeners: vec![listener] });
                    if is_replaced(&place.0) {
                        union.hear_replaced(&place.0, &events(&indices), tell);
                    } else {
                        union.hear(&place.0, &events(&indices), tell);
                    }
                    told.iter().for_each(|told| self.tell(told, output));
                }
                Some(window) => {
                    let is_all = matches!(window, Window::All);
                    alike.entry((place.0, is_all, indices)).or_default().push(listener);
                }
            }
        }
        let order: BTreeMap<Path, usize> = places(write).map(|place| place.path).zip(0..).collect();
        for ((path, is_all, indices), listeners) in alike {
            let event = as_one(&path, &events(&indices), is_all.then_some(&order));
            self.tell(&Told { event, listeners }, output);
        }
    }
}

/// What somebody hears who listens at `place`, of which several parts hold some, of what these have to tell: in the
/// order of the places of an update, or of their keys. What each tells of a place above the parts is its share of that.
fn as_one(place: &Path, events: &[&Event], order: Option<&BTreeMap<Path, usize>>) -> Event {
    let [first, rest @ ..] = events else { unreachable!("somebody has something to tell") };
    if rest.is_empty() {
        return (*first).clone();
    }
    let base = |event: &Event| if let Event::Merge { path, .. } = event { Some(path.clone()) } else { None };
    // Told by all, an update is named by where it was made, if that is above; else by where it is heard.
    let path = base(first).filter(|path| rest.iter().all(|event| base(event).as_ref() == Some(path)));
    let path = path.unwrap_or_else(|| place.clone());
    let (mut changes, mut above) = (Vec::new(), BTreeMap::new());
    for event in events {
        each_place(event, |at, node| {
            if at.depth() < PART_KEYS {
                gather(above.entry(at.clone()).or_default(), at, node);
            } else {
                changes.push((at.clone(), node.clone()));
            }
        });
    }
    changes.extend(above);
    let is_set = |event: &&Event| matches!(event, Event::Set { path, .. } if path.depth() < PART_KEYS);
    if events.iter().all(is_set) {
        let (path, node) = changes.pop().expect("each tells what it holds of the same place");
        return Event::Set { path, node };
    }
    match order {
        Some(order) => changes.sort_by_key(|(place, _)| order.get(place).copied()),
        None => changes.sort_by(|(a, _), (b, _)| a.keys().cmp(b.keys())),
    }
    let below = |place: &Path| path.below(place).expect("what somebody hears of is at or below the place");
    Event::Merge { changes: changes.into_iter().map(|(place, node)| (below(&place), node)).collect(), path }
}

impl Union {
    /// Takes in what has happened at once in the windows of some parts, where all of the place was written anew.
    fn hear_replaced(&mut self, path: &Path, events: &[&Event], mut tell: impl FnMut(Event)) {
        let old = self.node.clone();
        events.iter().for_each(|event| fold(&mut self.node, path, event));
        self.windows.replace(&old, &self.node, |_, delta| tell(window_event(path, delta)));
    }

    /// The same, where some of its children were.
    fn hear(&mut self, path: &Path, events: &[&Event], mut tell: impl FnMut(Event)) {
        let mut touched: Vec<(Key, Node)> = Vec::new();
        for event in events {
            each_place(event, |place, _| {
                let key = path.relative(place).and_then(|below| Key::parse(below.split('/').next()?).ok());
                if let Some(key) = key {
                    touched.push((key.clone(), self.node.child(&key).clone()));
                }
            });
        }
        events.iter().for_each(|event| fold(&mut self.node, path, event));
        let Self { node, windows, id } = self;
        windows.update(node, &touched, |window, delta| {
            assert_eq!(window, *id, "there is one window");
            tell(window_event(path, delta));
        });
    }
}

/// Where somebody listens so many keys above the parts, who hears of this.
fn place_of(event: &Event, width: u8) -> Path {
    let depth = PART_KEYS - usize::from(width);
    let first = match event {
        Event::Set { path, .. } | Event::Revoked { path, .. } => path.clone(),
        Event::Merge { path, changes } => changes.first().map_or(path.clone(), |(place, _)| path.join(place)),
        Event::Operation(_) => Path::ROOT,
    };
    first.keys().take(depth).fold(Path::ROOT, |path, key| path.child(key))
}

fn each_place(event: &Event, mut each: impl FnMut(&Path, &Node)) {
    match event {
        Event::Set { path, node } => each(path, node),
        Event::Merge { path, changes } => changes.iter().for_each(|(place, node)| each(&path.join(place), node)),
        Event::Revoked { .. } | Event::Operation(_) => {}
    }
}

/// Takes into what stands at `path` what an event says of it.
fn fold(node: &mut Node, path: &Path, event: &Event) {
    // A parent that is emptied on the way would lose its priority.
    for is_removal in [false, true] {
        each_place(event, |place, new| {
            if let Some(below) = path.below(place)
                && new.is_empty() == is_removal
            {
                node.set(below.as_str(), new.clone());
            }
        });
    }
}
