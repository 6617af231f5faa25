//! The server's view of itself: what operators ask of an engine, and how it answers.
//!
//! The surprising idea: nobody collects anything. Every answer is made from what is there anyway, a
//! bounded slice of it, when somebody asks; what is kept for looking back ([`Trail`], what became of last
//! words) has a fixed size. A stream of glances is the same question, asked again once a second, and not
//! while its client has not taken the last answer.
//!
//! Costs: a look at sessions goes through at most [`SLOTS_MAX`] slots; a write fills one place of the
//! trail; while somebody watches, a core wakes every [`PROBE`] to see how late it is.

mod recent;
mod trail;

#[cfg(test)]
mod tests;

use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use super::home::Channel;
use super::message::{Manage, Managed, Task};
use super::{Engine, Message, Output};
use crate::base::limits::WATCHERS_MAX;
use crate::base::{Hashing, Instant, Millis, Now, SessionRef, ShardId};
use crate::data::{KeyStr, Path};
use crate::op::{
    Became, Cause, ChildPage, End, Explained, Figures, Glance, Happened, Look, Namespace, Outcome, Owned, PageCall,
    Protocol, RecentPage, Refusal, Request, SessionMark, SessionPage, SessionRow, Sight, Who, Write, kind_of,
};
use crate::presence::{places, places_count};
use crate::shard::{Asker, Fate};
use crate::wire::rest;
use recent::Recent;
use trail::{By, Sketch, Trail, WhoRef};

/// Slots of the session table that one look goes through.
const SLOTS_MAX: u32 = if cfg!(test) { 64 } else { 4_096 };
/// How often a stream is shown everything anew.
const GLANCE: Millis = Millis(1_000);
/// Rows of each kind in a glance.
const GLANCE_ROWS: usize = 100;
/// Rows about one path.
const EXPLAIN_ROWS: usize = 20;
/// How often a core that is watched looks how late it is.
const PROBE: Millis = Millis(50);
/// For how long a core counts as watched after somebody has looked.
const PROBE_FOR: Millis = Millis(3_000);
/// Places of an update that are kept by name.
const PLACES_NAMED: usize = 8;
/// Bytes of the reason for a refusal that are kept.
const WHY_BYTES_MAX: usize = 1_024;

/// What an engine keeps for those who look.
#[derive(Debug)]
pub(super) struct Looks {
    trail: Trail,
    recent: Recent,
    figures: Figures,
    watchers: Vec<Watcher>,
    probe: Option<Probe>,
    lateness: Lateness,
}

/// A stream that is shown everything again and again.
#[derive(Debug)]
struct Watcher {
    session: SessionRef,
    namespace: Namespace,
    /// The last entry that it was told of.
    after: u64,
    next: Instant,
    round: i64,
    /// Cores that have yet to answer in this round.
    missing: u8,
    parts: Vec<Glance>,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    next: Instant,
    until: Instant,
}

/// The most by which a core was too late, by seconds.
#[derive(Debug, Default)]
struct Lateness {
    second: u64,
    current: Millis,
    before: Millis,
}

/// Whose last words became what they became.
#[derive(Debug)]
pub(super) struct Speaker {
    pub(super) session: SessionRef,
    pub(super) who: Who,
    pub(super) is_owed: bool,
    pub(super) end: End,
}

impl Lateness {
    fn at(&mut self, now: Instant) -> &mut Millis {
        let second = now.0 / 1_000;
        if second != self.second {
            self.before = if second == self.second + 1 { self.current } else { Millis(0) };
            (self.second, self.current) = (second, Millis(0));
        }
        &mut self.current
    }

    fn worst(&mut self, now: Instant) -> Millis {
        let current = *self.at(now);
        current.max(self.before)
    }
}

/// What one core remembers of a database.
#[derive(Debug, Default)]
pub struct Memory {
    trail: Vec<trail::Slot>,
    recent: Vec<Happened>,
}

impl Looks {
    /// What is remembered of a database, for who holds it from now on.
    pub(super) fn memory_of(&self, namespace: &Namespace) -> Memory {
        Memory { trail: self.trail.of(namespace), recent: self.recent.of(namespace) }
    }

    /// Remembers what another core does.
    pub(super) fn remember(&mut self, Memory { trail, recent }: Memory) {
        if !trail.is_empty() {
            self.trail.take_in(trail);
        }
        recent.into_iter().for_each(|happened| self.recent.keep(happened));
    }

    pub(super) fn new(hashing: &Hashing) -> Self {
        Self {
            trail: Trail::new(hashing.clone()),
            recent: Recent::default(),
            figures: Figures::default(),
            watchers: Vec::new(),
            probe: None,
            lateness: Lateness::default(),
        }
    }

    pub(super) fn next_wake(&self) -> Option<Instant> {
        let watchers = self.watchers.iter().map(|watcher| watcher.next).min();
        watchers.into_iter().chain(self.probe.map(|probe| probe.next)).min()
    }

    /// A connection was opened.
    pub(super) const fn connected(&mut self) {
        self.figures.connections += 1;
    }

    /// A connection is gone.
    pub(super) const fn disconnected(&mut self) {
        self.figures.connections -= 1;
    }

    /// A session begins.
    pub(super) const fn began(&mut self, protocol: Protocol) {
        self.figures.sessions[protocol as usize] += 1;
    }

    /// A session is over.
    pub(super) fn ended(&mut self, protocol: Protocol) {
        self.figures.sessions[protocol as usize] -= 1;
        self.figures.ended += u64::from(protocol != Protocol::Rest);
    }

    /// What a request would change, before it is known whether it may.
    pub(super) fn sketch(&self, namespace: &Namespace, request: &Request) -> Option<Sketch> {
        let (Request::Write { write, .. } | Request::Exchange { write, .. }) = request else { return None };
        Some(self.trail.sketch(namespace, write))
    }

    /// A request is answered.
    pub(super) fn answered(&mut self, now: Now, asker: &Asker, sketch: Option<Sketch>, outcome: &Outcome) {
        self.figures.requests += 1;
        let Some(sketch) = sketch.filter(|_| matches!(outcome, Outcome::Done | Outcome::Value(_))) else { return };
        self.figures.writes += 1;
        let cause = if asker.is_plain { Cause::Rest } else { Cause::Client };
        let session = asker.session.unwrap_or_default();
        self.trail.keep(sketch, now.wall, By { session, who: WhoRef::of(&asker.identity), cause });
    }

    /// A last word became what it became. `written` is what of it was written, if it was not all.
    pub(super) fn fired(
        &mut self,
        now: Now,
        namespace: &Namespace,
        speaker: &Speaker,
        (word, fate, written): (&Write, &Fate, Option<&Write>),
    ) {
        let path = word.path().clone();
        let (became, why, newer) = match fate {
            Fate::Spoken => {
                self.figures.spoken += 1;
                let cause = if speaker.is_owed { Cause::Owed(speaker.end) } else { Cause::LastWord(speaker.end) };
                let sketch = self.trail.sketch(namespace, written.unwrap_or(word));
                let by = By { session: speaker.session, who: WhoRef::from(&speaker.who), cause };
                self.trail.keep(sketch, now.wall, by);
                (Became::Spoken, written.map(|_| "in part: somebody had written the other places since".into()), None)
            }
            Fate::Yielded => {
                self.figures.yielded += 1;
                (Became::Yielded, None, self.trail.latest(namespace, &path).map(Box::new))
            }
            Fate::Denied(denial) => {
                self.figures.denied += 1;
                let mut why = denial.as_ref().map(ToString::to_string).unwrap_or_default();
                let end = (0..=WHY_BYTES_MAX.min(why.len())).rev().find(|end| why.is_char_boundary(*end));
                why.truncate(end.unwrap_or(0));
                (Became::Denied, Some(why.into()), None)
            }
        };
        self.recent.keep(Happened {
            order: 0,
            at: now.wall,
            namespace: namespace.clone(),
            path,
            places: named_places(word),
            places_count: if matches!(word, Write::Merge { .. }) { places_count(word) } else { 0 },
            kind: kind_of(word),
            became,
            end: speaker.end,
            session: speaker.session,
            who: speaker.who.clone(),
            is_owed: speaker.is_owed,
            why,
            newer,
        });
    }

    /// Somebody looks: for a while the core sees how late it is.
    fn looked(&mut self, now: Instant) {
        let next = self.probe.map_or(now + PROBE, |probe| probe.next);
        self.probe = Some(Probe { next, until: now + PROBE_FOR });
    }

    /// The core's turn has come, which was due at `due`.
    pub(super) fn due(&mut self, now: Instant, due: Option<Instant>) {
        if let Some(due) = due.filter(|due| *due <= now) {
            let late = self.lateness.at(now);
            *late = now.since(due).max(*late);
        }
        if let Some(probe) = self.probe.filter(|probe| probe.next <= now) {
            self.probe = (now < probe.until).then_some(Probe { next: now + PROBE, ..probe });
        }
    }
}

impl Engine {
    /// An operator's question has come here.
    pub(super) fn looked_at(&mut self, now: Now, manage: Manage, output: &mut Output) {
        let Manage { asker, number, task } = manage;
        let sight = match task {
            Task::Look { namespace, look } => {
                let after = if let Look::Glance { after, .. } = look { after } else { 0 };
                let needs_owner = matches!(look, Look::Sessions { .. } | Look::Glance { .. });
                let sight = self.look(now, &namespace, look, output);
                if needs_owner {
                    let owner = self.owner(&namespace);
                    let task = Task::Complete { namespace, after, sight: Box::new(sight) };
                    let manage = Manage { asker, number, task };
                    return self.send(owner, Message::Manage(Box::new(manage)), output);
                }
                sight
            }
            Task::Complete { namespace, after, mut sight } => {
                self.complete(&namespace, after, &mut sight);
                *sight
            }
            Task::Try { namespace, rules, identity, trial } => match self.shard(&namespace) {
                Some(shard) => Sight::Tried(shard.try_rules(now, &identity, rules.as_deref(), &trial)),
                None => {
                    let done = Managed::Refused(Refusal::Limit("too many databases"));
                    return self.send(asker.home, Message::Managed { session: asker, number, done }, output);
                }
            },
            Task::Databases | Task::Prefer(_) | Task::GetRules(_) | Task::SetRules { .. } => {
                unreachable!("who calls has looked what it is")
            }
        };
        let done = Managed::Seen(Box::new(sight));
        self.send(asker.home, Message::Managed { session: asker, number, done }, output);
    }

    fn look(&mut self, now: Now, namespace: &Namespace, look: Look, output: &mut Output) -> Sight {
        match look {
            Look::Figures => Sight::Figures(Box::new(self.figures(now))),
            Look::Sessions { from, rows_max } => Sight::Sessions(self.session_page(now, namespace, from, rows_max)),
            Look::Kill { session } => {
                let state = self.sessions.get(session).filter(|state| state.namespace == *namespace);
                let is_there = state.is_some_and(|state| state.protocol != Protocol::Rest);
                if is_there {
                    self.end(now, session, End::Killed, output);
                }
                Sight::Killed(is_there)
            }
            Look::Words { after, rows_max } => {
                let shard = self.shards.get(namespace);
                Sight::Words(shard.map(|shard| shard.words_page(after, rows_max)).unwrap_or_default())
            }
            Look::Recent { after, rows_max } => Sight::Recent(self.looks.recent.page(namespace, after, rows_max)),
            Look::Explain { path } => Sight::Explained(Box::new(self.explain(namespace, path))),
            Look::Children(pages) => Sight::Children(self.children(namespace, pages)),
            Look::Glance { rows_max, .. } => {
                let figures = self.figures(now);
                let from = SessionMark { core: self.config.shard, slot: 0 };
                let sessions = self.session_page(now, namespace, from, rows_max);
                Sight::Glance(Box::new(Glance { figures, sessions, owned: None }))
            }
        }
    }

    fn figures(&mut self, now: Now) -> Figures {
        self.looks.looked(now.instant);
        let mut figures = Figures {
            core: self.config.shard,
            at: now.wall,
            queued: self.inner.len() + self.long_answers_count(),
            namespaces: self.shards.len(),
            late: self.looks.lateness.worst(now.instant),
            ..self.looks.figures.clone()
        };
        for (namespace, shard) in &self.shards {
            figures.leaving += shard.leaving_count();
            figures.estates += shard.owed_count();
            figures.listens += shard.listened_count(self.owner(namespace) == self.config.shard);
        }
        figures
    }

    /// The sessions of a namespace in the next slots. Plain connections are no clients that are here.
    fn session_page(&self, now: Now, namespace: &Namespace, from: SessionMark, rows_max: usize) -> SessionPage {
        let to = from.slot.saturating_add(SLOTS_MAX).min(self.sessions.slots_count());
        let mut page = SessionPage::default();
        let mut next_slot = to;
        for (session, state) in self.sessions.iter_slots(from.slot..to) {
            if state.namespace != *namespace || state.protocol == Protocol::Rest {
                continue;
            }
            if page.rows.len() >= rows_max {
                next_slot = session.slot;
                break;
            }
            page.rows.push(SessionRow {
                session,
                protocol: state.protocol,
                who: Who::of(&state.identity),
                age: now.instant.since(state.opened),
                silent: now.instant.since(state.heard),
                words: 0,
            });
        }
        let core = self.config.shard;
        let is_last = core.0 + 1 >= self.config.shards;
        page.next = if next_slot < self.sessions.slots_count() {
            Some(SessionMark { core, slot: next_slot })
        } else {
            (!is_last).then_some(SessionMark { core: ShardId(core.0 + 1), slot: 0 })
        };
        page
    }

    /// Adds what only the owner of a namespace knows to what a home has told.
    fn complete(&self, namespace: &Namespace, after: u64, sight: &mut Sight) {
        let Some(shard) = self.shards.get(namespace) else { return };
        let sessions = match sight {
            Sight::Sessions(page) => page,
            Sight::Glance(glance) => {
                if glance.figures.core == self.config.shard {
                    let words = shard.words_page(crate::op::WordMark::Begin, GLANCE_ROWS);
                    let recent = self.looks.recent.page(namespace, after, GLANCE_ROWS);
                    glance.owned = Some(Owned { words, leaving: shard.leaving_count(), recent });
                }
                &mut glance.sessions
            }
            _ => return,
        };
        for row in &mut sessions.rows {
            row.words = shard.words_count(row.session);
        }
    }

    fn explain(&self, namespace: &Namespace, path: Path) -> Explained {
        let shard = self.shards.get(namespace);
        let (waiting, unseen) = shard.map(|shard| shard.words_about(&path, EXPLAIN_ROWS)).unwrap_or_default();
        Explained {
            node: shard.map(|shard| shard.root().at(path.as_str()).clone()).unwrap_or_default(),
            last: self.looks.trail.latest(namespace, &path),
            below: self.looks.trail.below(namespace, &path, EXPLAIN_ROWS),
            waiting,
            unseen,
            recent: self.looks.recent.about(namespace, &path, EXPLAIN_ROWS),
            path,
        }
    }

    fn children(&self, namespace: &Namespace, pages: Vec<PageCall>) -> Vec<ChildPage> {
        let root = self.shards.get(namespace).map(|shard| shard.root().clone()).unwrap_or_default();
        let page = |PageCall { path, after, rows_max }: PageCall| {
            let node = root.at(path.as_str()).clone();
            let start = after.as_ref().map_or(Unbounded, |key| Excluded(KeyStr::new(key.as_str())));
            let mut children = node.children().from(start);
            let rows: Vec<_> =
                children.by_ref().take(rows_max).map(|(key, node)| (key.clone(), node.clone())).collect();
            let is_cut = children.next().is_some();
            ChildPage { path, rows, is_cut, node }
        };
        pages.into_iter().map(page).collect()
    }

    /// Whether somebody more may watch.
    pub(super) const fn may_watch(&self) -> bool {
        self.looks.watchers.len() < WATCHERS_MAX
    }

    /// A stream is to be shown everything of a namespace, from now on.
    pub(super) fn begin_watching(&mut self, now: Now, session: SessionRef, namespace: Namespace) {
        let watcher =
            Watcher { session, namespace, after: 0, next: now.instant, round: 0, missing: 0, parts: Vec::new() };
        self.looks.watchers.push(watcher);
    }

    /// Asks all cores anew for those who watch.
    pub(super) fn serve_watchers(&mut self, now: Now, output: &mut Output) {
        let mut watchers = std::mem::take(&mut self.looks.watchers);
        watchers.retain(|watcher| self.sessions.get(watcher.session).is_some());
        for watcher in watchers.iter_mut().filter(|watcher| watcher.next <= now.instant) {
            watcher.next = now.instant + GLANCE;
            let state = self.sessions.get(watcher.session).expect("the others were removed");
            if !state.identity.is_admin {
                self.end(now, watcher.session, End::Killed, output);
                continue;
            }
            // Who has not taken the last answer is not given another.
            if watcher.missing > 0 || !self.has_taken_all(watcher.session) {
                continue;
            }
            watcher.round += 1;
            watcher.missing = self.config.shards;
            watcher.parts.clear();
            for core in (0..self.config.shards).map(ShardId) {
                let look = Look::Glance { after: watcher.after, rows_max: GLANCE_ROWS };
                let task = Task::Look { namespace: watcher.namespace.clone(), look };
                let manage = Manage { asker: watcher.session, number: watcher.round, task };
                self.send(core, Message::Manage(Box::new(manage)), output);
            }
        }
        self.looks.watchers = watchers;
    }

    /// One core's part of what a stream is to be shown.
    pub(super) fn watched(&mut self, session: SessionRef, round: i64, sight: Sight, output: &mut Output) {
        let watcher = self.looks.watchers.iter_mut().find(|watcher| watcher.session == session);
        let Some(watcher) = watcher.filter(|watcher| watcher.round == round) else { return };
        let Sight::Glance(glance) = sight else { return };
        watcher.parts.push(*glance);
        watcher.missing -= 1;
        if watcher.missing > 0 {
            return;
        }
        let mut parts = std::mem::take(&mut watcher.parts);
        parts.sort_unstable_by_key(|part| part.figures.core);
        let recent = parts.iter().find_map(|part| part.owned.as_ref()).map(|owned| &owned.recent);
        if let Some(RecentPage { latest, .. }) = recent {
            watcher.after = *latest;
        }
        if let Some(conn) = self.sessions.get(session).and_then(|state| state.channel.last_conn()) {
            self.send_bytes(conn, output, |out| rest::write_glance(out, &parts));
        }
    }

    /// The protocol by which a channel reaches its client.
    pub(super) const fn protocol_of(channel: &Channel) -> Protocol {
        match channel {
            Channel::Socket(_) | Channel::Gone => Protocol::WebSocket,
            Channel::Poll(_) => Protocol::LongPolling,
            Channel::Rest(_) => Protocol::Rest,
            Channel::Stream(_) => Protocol::Stream,
            Channel::EngineIo(_) => Protocol::Wilddog,
            Channel::Device(_) => Protocol::Coap,
            Channel::Guest(_) => Protocol::Guest,
        }
    }

    /// What is kept of one engine's namespaces may be asked of it alone: who is asked.
    pub(super) fn look_target(&self, namespace: &Namespace, look: &Look) -> Option<ShardId> {
        match look {
            Look::Sessions { from, .. } => (from.core.0 < self.config.shards).then_some(from.core),
            Look::Kill { session } => (session.home.0 < self.config.shards).then_some(session.home),
            _ => Some(self.owner(namespace)),
        }
    }
}

/// The first places of an update.
fn named_places(word: &Write) -> Box<[Path]> {
    if matches!(word, Write::Merge { .. }) {
        places(word).take(PLACES_NAMED).map(|place| place.path).collect()
    } else {
        Box::default()
    }
}

/// Who speaks, for those who look back.
impl Speaker {
    pub(super) fn living(session: SessionRef, identity: &Arc<crate::op::Identity>, end: End) -> Self {
        Self { session, who: Who::of(identity), is_owed: false, end }
    }
}
