//! One database over many cores: who holds what, and how it all comes together where somebody must see it whole.
//!
//! A database begins *spread*: each core holds the places whose first [`PART_KEYS`] keys are its own. What touches
//! the places of one core goes there; who listens or reads above is served by all ([`wide`](super::wide)), and what is
//! written above is written by all ([`fence`](super::fence)). A leaf one key below the root stands in every part. One core
//! is the database's *keeper*. What cannot be done apart goes to it: it calls all parts home and from then on holds
//! the *whole*, for good.
//!
//! The surprising idea: nobody has to know in time. Whoever is asked for something that it does not hold, or may not
//! decide, passes it on to the keeper, in the order in which it came; and the keeper, who is passed something on,
//! knows from that alone that it must call the parts home.
//!
//! Costs: a hash of two keys for each request. Coming together costs a message to each core and back, and what it
//! takes to put the tree, the listens and the last words of all into one.

use std::collections::VecDeque;
use std::sync::Arc;

use super::config;
use super::{Ask, Came, Durability, Engine, Kind, Manage, Message, Output, Over, Record, Returned, Task};
use crate::base::limits::NAMESPACES_MAX;
use crate::base::{Hashing, Instant, Map, Now, SessionRef, ShardId};
use crate::data::{Draft, Node, Path};
use crate::op::{Identity, Look, Namespace, Outcome, Query, Refusal, Request, Tag, Write};
use crate::presence::Beside;
use crate::rules;
use crate::shard::{Asker, PART_KEYS, READING, Shard, may_be_cut};

/// What an engine knows of databases that are not spread any more.
#[derive(Debug)]
pub(super) struct Spread {
    /// Those that are not here are spread, if they may be.
    modes: Map<Namespace, Mode>,
    /// Those of which this engine has passed something on that it was not to decide alone, and which have not been called
    /// home yet: what comes next must not overtake that, even if it may be decided alone again.
    passing: Map<Namespace, ()>,
    /// Whether the rules of all databases can be decided by each core alone.
    pub(super) is_law_local: bool,
    /// Whether there were ever others: then parts have not heard all of who sessions are.
    has_missed: bool,
    /// Parts of databases that are written down, and have gone home from here: as long as the keeper has not said that
    /// it holds all, nobody else has written them down.
    leaving_count: usize,
}

#[derive(Debug)]
enum Mode {
    /// Its keeper holds all of it.
    Whole,
    /// This engine is its keeper and waits for the parts.
    Uniting(Box<Uniting>),
}

#[derive(Debug)]
struct Uniting {
    /// Parts that have not come home.
    missing: u8,
    parts: Vec<Shard>,
    /// What is done once they have. As much as clients may have on its way.
    waiting: VecDeque<Message>,
}

/// Where a request can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// By the core that holds all places it is about.
    One(ShardId),
    /// By all, each its part; the keeper gives the word.
    All,
    /// By those who hold the places, as one; the keeper has them [stand still](super::fence) meanwhile.
    Several,
    /// Only where all is.
    Keeper,
}

impl Spread {
    pub(super) fn new(hashing: &Hashing, rules: &rules::Ruleset) -> Self {
        let is_law_local = is_local(rules);
        Self { modes: hashing.map(), passing: hashing.map(), is_law_local, has_missed: !is_law_local, leaving_count: 0 }
    }

    /// Whether no part is on its way home that was written down here.
    pub(super) fn is_settled(&self) -> bool {
        self.leaving_count == 0
    }
}

/// Whether each core can decide alone by these rules.
pub(super) fn is_local(rules: &rules::Ruleset) -> bool {
    rules.is_local_to(u8::try_from(PART_KEYS).expect("it is small"))
}

impl Task {
    /// The database of which all must be in one place for this.
    pub(super) const fn about_all_of(&self) -> Option<&Namespace> {
        match self {
            Self::SetRules { namespace, .. } | Self::Complete { namespace, .. } | Self::Try { namespace, .. } => {
                Some(namespace)
            }
            Self::Look { namespace, look } => match look {
                Look::Words { .. } | Look::Recent { .. } | Look::Explain { .. } | Look::Children(_) => Some(namespace),
                Look::Figures | Look::Sessions { .. } | Look::Kill { .. } | Look::Glance { .. } => None,
            },
            Self::Databases | Self::Prefer(_) | Self::GetRules(_) => None,
        }
    }
}

impl Ask {
    /// Who asks one of several owners.
    pub(super) fn asker(&self) -> Asker {
        Asker {
            session: Some(self.session),
            id: None,
            identity: self.identity.clone(),
            heard: self.heard,
            is_plain: self.is_plain,
            beside: Beside::default(),
        }
    }
}

impl Engine {
    /// Whether databases begin spread, unless they were [found whole](Self::begin_whole). Never changes.
    pub(super) const fn may_be_spread(&self) -> bool {
        self.config.shards > 1
    }

    /// A database is whole from the start on. Before anything else.
    pub(super) fn begin_whole(&mut self, namespace: Namespace) {
        if self.may_be_spread() {
            self.spread.modes.insert(namespace, Mode::Whole);
        }
    }

    fn is_written_down(&self, namespace: &Namespace) -> bool {
        self.config.settings_of(namespace).durability != Durability::None
    }

    /// Whether a database is spread, as far as this engine has heard.
    #[must_use]
    pub fn is_spread(&self, namespace: &Namespace) -> bool {
        self.may_be_spread() && !self.spread.modes.contains_key(namespace)
    }

    /// The engine that holds a place of a database that is spread; `None` for what is above all parts.
    #[must_use]
    pub fn holder(&self, namespace: &str, path: &Path) -> Option<ShardId> {
        config::holder(&self.common, self.config.shards, namespace, path)
    }

    /// Where a request about a database that is spread can be done.
    pub(super) fn route(&self, namespace: &str, request: &Request) -> Route {
        let at = |path: &Path| self.holder(namespace, path).map(Route::One);
        match request {
            // Of an update on condition it matters what stands beside its places.
            Request::Write { write: write @ Write::Merge { .. }, if_hash: Some(_) }
            | Request::Exchange { write: write @ Write::Merge { .. }, .. } => at(write.path()).unwrap_or(Route::Keeper),
            Request::Write { write, .. } | Request::Exchange { write, .. } => self.route_write(namespace, write),
            Request::MayWrite { write, .. } => match self.route_write(namespace, write) {
                Route::Several => Route::Keeper,
                route => route,
            },
            Request::Get { path, .. } | Request::Unlisten { path, .. } => at(path).unwrap_or(Route::All),
            Request::Listen { path, query, .. } => at(path).unwrap_or({
                // The children of the root are nobody's alone.
                if query.is_all() || !path.is_root() { Route::All } else { Route::Keeper }
            }),
            Request::Cancel { path } => at(path).unwrap_or(Route::Keeper),
            Request::Profile => Route::Keeper,
        }
    }

    fn route_write(&self, namespace: &str, write: &Write) -> Route {
        if let Some(one) = self.holder(namespace, write.path()) {
            return Route::One(one);
        }
        let (mut first, mut is_several) = (None, false);
        let mut is_apart = |path: &Path, value: Option<&Draft>| match (self.holder(namespace, path), value) {
            (Some(holder), _) => {
                is_several |= *first.get_or_insert(holder) != holder;
                true
            }
            (None, Some(value)) => {
                is_several = true;
                may_be_cut(path, value.stand_in())
            }
            (None, None) => false,
        };
        let is_all_apart = match write {
            Write::Set { path, value } => is_apart(path, Some(value)),
            Write::SetPriority { path, .. } => is_apart(path, None),
            Write::Merge { path, changes } => changes.iter().all(|(place, value)| {
                let value = (!place.is_priority).then_some(value);
                is_apart(&path.join(&place.path), value)
            }),
        };
        match first {
            _ if !is_all_apart => Route::Keeper,
            _ if is_several => Route::Several,
            Some(one) => Route::One(one),
            // It changes nothing.
            None => Route::Keeper,
        }
    }

    /// A bit for each core.
    pub(super) fn all(&self) -> u64 {
        u64::MAX >> (64 - u32::from(self.config.shards))
    }

    /// Whether this would put something below a leaf, of which every core has its own: then it is not for one to do. What
    /// is refused does nothing.
    fn is_below_leaf(&mut self, now: Now, ask: &Ask) -> bool {
        let (Request::Write { write, .. } | Request::Exchange { write, .. }) = &ask.request else { return false };
        let shard = self.shards.get(&ask.namespace).filter(|shard| shard.is_part() && shard.is_below_leaf(write));
        shard.is_some_and(|shard| shard.may_write_part(now, &ask.asker(), write).is_ok())
    }

    /// What comes next for a database is not to be decided here alone.
    fn pass_on(&mut self, namespace: &Namespace) {
        self.journal.write(|| Record::Reached("write below a leaf of all parts"));
        self.spread.passing.insert(namespace.clone(), ());
    }

    /// Whether a part may decide by itself what is asked of it.
    pub(super) fn may_decide_apart(&self, namespace: &Namespace) -> bool {
        self.spread.is_law_local && !self.warden.counts_in(namespace)
    }

    /// Whether it has passed on to the keeper what it was not to decide alone.
    pub(super) fn has_passed_on(&self, namespace: &Namespace) -> bool {
        self.spread.passing.contains_key(namespace)
    }

    /// Whether this engine is to do now what a message asks about a database. If not, the message has gone where
    /// it will be done. `is_ours`: it is about nothing but what this engine holds of a spread database.
    pub(super) fn takes(
        &mut self,
        namespace: &Namespace,
        is_ours: bool,
        message: impl FnOnce() -> Message,
        output: &mut Output,
    ) -> bool {
        if !self.may_be_spread() {
            return true;
        }
        let keeper = self.owner(namespace);
        let is_keeper = keeper == self.config.shard;
        let is_apart = !self.spread.modes.contains_key(namespace);
        if is_apart && is_ours && self.may_decide_apart(namespace) && !self.has_passed_on(namespace) {
            return true;
        }
        if !is_keeper {
            if is_apart && is_ours && self.spread.passing.len() < NAMESPACES_MAX {
                self.spread.passing.insert(namespace.clone(), ());
            }
            self.send(keeper, message(), output);
            return false;
        }
        if is_apart {
            self.unite(namespace, output);
        }
        match self.spread.modes.get_mut(namespace) {
            Some(Mode::Uniting(uniting)) => {
                uniting.waiting.push_back(message());
                false
            }
            Some(Mode::Whole) => true,
            None => unreachable!("it is spread no longer"),
        }
    }

    /// The same for what may as well be forgotten by whoever holds nothing: the keeper is told by itself.
    pub(super) fn hears_who(&mut self, namespace: &Namespace, message: impl FnOnce() -> Message) -> bool {
        if !self.may_be_spread() {
            return true;
        }
        match self.spread.modes.get_mut(namespace) {
            Some(Mode::Uniting(uniting)) => {
                uniting.waiting.push_back(message());
                false
            }
            Some(Mode::Whole) => self.owner(namespace) == self.config.shard,
            // Who cannot judge leaves it to the keeper, who asks again once it holds all.
            None => self.spread.is_law_local,
        }
    }

    /// A session asks. Says whether this engine is to answer.
    pub(super) fn takes_ask(&mut self, now: Now, ask: Box<Ask>, output: &mut Output) -> Option<Box<Ask>> {
        if !self.may_be_spread() {
            return Some(ask);
        }
        let is_whole_here = matches!(self.spread.modes.get(&ask.namespace), Some(Mode::Whole));
        if is_whole_here && self.owner(&ask.namespace) == self.config.shard {
            return Some(ask);
        }
        let route = ask.route.unwrap_or_else(|| self.route(&ask.namespace, &ask.request));
        let (namespace, own) = (ask.namespace.clone(), self.config.shard);
        let is_ours = match route {
            Route::One(one) => one == own,
            Route::All | Route::Several => self.owner(&namespace) == own,
            Route::Keeper => false,
        };
        let has_room = || self.shards.len() < NAMESPACES_MAX || self.shards.contains_key(&namespace);
        if !is_ours && self.owner(&namespace) == own && !has_room() && self.is_spread(&namespace) {
            // There is no room for all of it: who asks is told so.
            return Some(ask);
        }
        if is_ours && matches!(route, Route::One(_)) && self.is_below_leaf(now, &ask) {
            self.pass_on(&namespace);
        }
        let mut ask = Some(ask);
        let is_taken = self.takes(&namespace, is_ours, || Message::Ask(ask.take().expect("it is sent once")), output);
        let ask = ask.filter(|_| is_taken)?;
        match route {
            Route::All if self.is_spread(&namespace) => self.scatter(now, *ask, output),
            Route::Several if self.is_spread(&namespace) => self.fence(now, *ask, output),
            _ => return Some(ask),
        }
        None
    }

    /// What operators ask of a database is answered by who holds all of it.
    pub(super) fn takes_manage(&mut self, manage: Manage, output: &mut Output) -> Option<Manage> {
        let Some(namespace) = manage.task.about_all_of().cloned() else { return Some(manage) };
        let mut manage = Some(Box::new(manage));
        let message = || Message::Manage(manage.take().expect("it is sent once"));
        let is_taken = self.takes(&namespace, false, message, output);
        manage.filter(|_| is_taken).map(|manage| *manage)
    }

    /// Calls the parts of a database home.
    pub(super) fn unite(&mut self, namespace: &Namespace, output: &mut Output) {
        assert!(!self.is_fenced(namespace), "nothing is called home in the midst of an update");
        let missing = self.config.shards - 1;
        let uniting = Uniting { missing, parts: Vec::new(), waiting: VecDeque::new() };
        let before = self.spread.modes.insert(namespace.clone(), Mode::Uniting(Box::new(uniting)));
        assert!(before.is_none(), "it was spread");
        self.spread.passing.remove(namespace);
        let own = self.config.shard;
        for other in (0..self.config.shards).map(ShardId).filter(|other| *other != own) {
            self.send(other, Message::Recall { namespace: namespace.clone() }, output);
        }
    }

    /// A database's keeper wants to hold all of it.
    pub(super) fn recalled(&mut self, namespace: Namespace, output: &mut Output) {
        let before = self.spread.modes.insert(namespace.clone(), Mode::Whole);
        assert!(before.is_none(), "parts are called home once");
        self.spread.passing.remove(&namespace);
        self.note_for_snapshot(&namespace);
        self.spread.leaving_count += usize::from(self.is_written_down(&namespace));
        let (shard, memory) = (self.shards.remove(&namespace), self.looks.memory_of(&namespace));
        let part = Box::new(Returned { shard, memory });
        let keeper = self.owner(&namespace);
        self.send(keeper, Message::Return { namespace, part }, output);
    }

    /// A part has come home.
    pub(super) fn returned(&mut self, namespace: &Namespace, part: Returned, output: &mut Output) {
        self.looks.remember(part.memory);
        let Some(Mode::Uniting(uniting)) = self.spread.modes.get_mut(namespace) else {
            unreachable!("nobody sends a part who was not asked for it")
        };
        uniting.parts.extend(part.shard);
        uniting.missing -= 1;
        if uniting.missing > 0 {
            return;
        }
        let Some(Mode::Uniting(uniting)) = self.spread.modes.insert(namespace.clone(), Mode::Whole) else {
            unreachable!("it was there just now")
        };
        let Uniting { parts, waiting, .. } = *uniting;
        let common = self.common.clone();
        if !parts.is_empty() && !self.shards.contains_key(namespace) {
            // What is there has room.
            self.open_shard(namespace);
        }
        if let Some(whole) = self.shards.get_mut(namespace) {
            whole.unite(parts, &common);
            // From here on nobody needs what the others have written down: this must outlive what that did.
            output.must_sync |= whole.record_all(&mut output.records);
        }
        for home in (0..self.config.shards).map(ShardId) {
            self.send(home, Message::United { namespace: namespace.clone() }, output);
        }
        if self.spread.has_missed {
            // Other rules may be why, or may have been for a while: parts could not judge by them.
            self.introduce_me(output);
        }
        waiting.into_iter().rev().for_each(|message| self.inner.push_front(message));
    }

    /// The keeper holds, and has written down, what was here.
    pub(super) fn part_is_home(&mut self, namespace: &Namespace) {
        if self.owner(namespace) != self.config.shard && self.is_written_down(namespace) {
            let count = self.spread.leaving_count.checked_sub(1);
            self.spread.leaving_count = count.expect("what is home has gone there");
        }
    }

    /// A part cannot go on alone.
    pub(super) fn wanted_whole(&mut self, namespace: &Namespace, output: &mut Output) {
        if self.is_spread(namespace) {
            self.unite(namespace, output);
        }
    }

    /// Other rules are in place: who cannot decide by them alone calls for the keeper.
    pub(super) fn law_changed(&mut self, output: &mut Output) {
        self.spread.is_law_local = is_local(&self.config.rules);
        if self.spread.is_law_local {
            return;
        }
        self.spread.has_missed = true;
        let parts: Vec<_> =
            self.shards.iter().filter(|(_, shard)| shard.is_part()).map(|(name, _)| name.clone()).collect();
        for namespace in parts {
            let keeper = self.owner(&namespace);
            if keeper != self.config.shard || self.is_fenced(&namespace) {
                self.send(keeper, Message::Want { namespace }, output);
            } else if self.is_spread(&namespace) {
                self.unite(&namespace, output);
            }
        }
    }

    /// Gives all cores the word to do their part of a request, unless the rules refuse it.
    fn scatter(&mut self, now: Now, ask: Ask, output: &mut Output) {
        self.journal.write(|| {
            let Ask { session, number, ref identity, .. } = ask;
            let by = self.config.shard;
            Record::Asked { now, session, number, identity: identity.clone(), by: by.bit(), is_apart: true }
        });
        let (session, number) = (ask.session, ask.number);
        let kind = Kind::of(&ask.request);
        let outcome = match &ask.request {
            Request::Listen { path, query, .. } | Request::Get { path, query } => {
                let asking = rules::Ask { root: &Node::Empty, identity: &ask.identity, now: now.wall };
                let rules = &self.config.rules;
                // Such rules look at no data.
                if rules.may_read(&asking, path, query).is_allowed() {
                    Outcome::Listening { is_unindexed: !query.is_all() && !rules.is_indexed(path, &query.index) }
                } else {
                    Outcome::Refused(Refusal::Denied)
                }
            }
            Request::Unlisten { .. } => Outcome::Done,
            _ => unreachable!("nothing else is done by all"),
        };
        let asker = ask.asker();
        self.looks.answered(now, &asker, None, &outcome);
        self.meters.requests[kind as usize][Came::of(&outcome) as usize] += 1;
        if !matches!(outcome, Outcome::Refused(_)) {
            self.give_word(ask, output);
        }
        if !matches!(outcome, Outcome::Listening { .. }) {
            self.send(session.home, Message::Answer { session, number, outcome }, output);
        }
    }

    fn give_word(&mut self, ask: Ask, output: &mut Output) {
        let (ask, own) = (Arc::new(ask), self.config.shard);
        for core in (0..self.config.shards).map(ShardId).filter(|core| *core != own) {
            self.send(core, Message::Join(ask.clone()), output);
        }
        // At once: what comes next may be the end of the session.
        self.joined(&ask, output);
    }

    /// What was read once, and therefore listened to, is read; or what was listened to may not be by what one part knows.
    pub(super) fn forgotten(
        &mut self,
        session: SessionRef,
        namespace: Namespace,
        listen: (Path, Tag),
        identity: Arc<Identity>,
        output: &mut Output,
    ) {
        let is_keeper = self.owner(&namespace) == self.config.shard;
        let message = || {
            let (namespace, (path, tag), identity) = (namespace.clone(), listen.clone(), identity.clone());
            Message::Forget { session, namespace, path, tag, identity }
        };
        if self.takes(&namespace, is_keeper, message, output) && self.is_spread(&namespace) {
            let (heard, beside) = (Instant(0), Beside::default());
            let (path, tag) = listen;
            let request = Request::Unlisten { path, tag };
            let (id, number, is_plain, route) = (None, 0, true, Some(Route::All));
            let ask = Ask { session, id, number, namespace, identity, heard, is_plain, request, beside, route };
            self.give_word(ask, output);
        }
    }

    /// The keeper has given the word to do this part of a request.
    pub(super) fn joined(&mut self, ask: &Ask, output: &mut Output) {
        let Ask { session, number, namespace, identity, request, .. } = ask;
        let (session, number, from) = (*session, *number, self.config.shard);
        let Some(shard) = self.shard(namespace) else {
            return self.send(session.home, Message::Part { session, number, from, node: None }, output);
        };
        let node = match request {
            Request::Listen { path, query, tag, .. } => shard.join(session, identity, (path, query, *tag)),
            // What happens to this part before the others have come belongs to what is read.
            Request::Get { path, .. } => shard.join(session, identity, (path, &Query::ALL, Some(READING))),
            Request::Unlisten { path, tag } => return shard.part_with(session, path, *tag),
            _ => unreachable!("nothing else is done by all"),
        };
        self.send(session.home, Message::Part { session, number, from, node: Some(node) }, output);
    }

    /// Whether a last word that was left here is to be written where another core holds what stands there.
    fn goes_elsewhere(&self, over: &Over) -> bool {
        let is_here = |path: &Path| self.holder(&over.namespace, path).is_none_or(|holder| holder == self.config.shard);
        over.made.iter().any(|(left, made)| is_here(left) && !is_here(made))
    }

    /// Whether the end of a session is to be performed here, now.
    pub(super) fn takes_over(&mut self, over: Over, output: &mut Output) -> Option<Over> {
        let namespace = over.namespace.clone();
        let is_ours = over.tour.last().is_some_and(|stop| stop.at == self.config.shard);
        let part = self.shards.get(&namespace).filter(|shard| is_ours && shard.is_part());
        if part.is_some_and(|part| part.leaves_below_leaf(over.session)) {
            self.pass_on(&namespace);
        } else if is_ours && self.is_spread(&namespace) && self.goes_elsewhere(&over) {
            self.spread.passing.insert(namespace.clone(), ());
        }
        let mut over = Some(Box::new(over));
        let is_taken = self.takes(&namespace, is_ours, || Message::Over(over.take().expect("it is sent once")), output);
        over.filter(|_| is_taken).map(|over| *over)
    }
}
