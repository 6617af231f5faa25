//! An update of places that several cores hold: done by all of them or by none, and seen as one.
//!
//! The keeper of the database does one at a time. It has each core that holds some of the places stand still and
//! say whether its part may be written. If all may, each writes its own and gives what is to be told of it to the
//! keeper instead of to the homes; the keeper tells each home of all parts at once, answers, and lets the cores go on.
//!
//! The surprising idea: nobody undoes anything. Who stands still decides nothing else of the database, so what may be
//! written still may when the word comes; and since whatever it told before has arrived before what the keeper tells,
//! and whatever it tells later arrives later, standing still is all it takes for many cores to do one thing.
//!
//! What is written above the parts has all cores for owners: each writes what it gets of that, be it nothing, and says what it
//! holds there, so that homes can put it together.
//!
//! Costs: four messages for each core with a part in it, and one for each home of a listener; on these cores, and on the
//! keeper, whatever is asked of the same database meanwhile waits: two ways there and back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::spread::Route;
use super::{Ask, Came, Engine, Kind, Message, Output, Record};
use crate::base::{Hashing, Map, Now, ShardId};
use crate::data::{Draft, Location, Node, Path};
use crate::op::{Namespace, Outcome, Query, Refusal, Request, Write};
use crate::presence::places;
use crate::rules;
use crate::shard::{Listener, PART_KEYS, Told, cut, gather};

/// What a keeper and the owners of the places of an update say to each other.
#[derive(Debug)]
pub struct Fencing {
    /// Which database.
    pub namespace: Namespace,
    /// Which of the keeper's updates.
    pub number: u64,
    /// What.
    pub step: Step,
}

/// How an update of several owners goes on.
#[derive(Debug)]
pub enum Step {
    /// To an owner: stand still, and say whether your part may be written.
    Halt {
        /// What is asked, of all of them.
        ask: Arc<Ask>,
        /// When it counts as done.
        now: Now,
    },
    /// To the keeper: I stand still.
    Vote {
        /// Who.
        from: ShardId,
        /// Whether its part may be written.
        vote: Vote,
        /// What stands there of the place, if it matters.
        standing: Node,
    },
    /// To an owner: write it.
    Commit {
        /// Bit `s`: shard `s` has a part in it.
        owners: u64,
    },
    /// To the keeper: it is written.
    Written {
        /// By whom.
        from: ShardId,
        /// What listeners are to hear.
        told: Vec<Told>,
    },
    /// To an owner: it is over.
    GoOn,
}

/// What an owner says about its part of an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vote {
    /// It may be written.
    Yes,
    /// It may not.
    No(Refusal),
    /// Only who holds all of the database can say.
    Whole,
}

/// The updates of several owners in which a core has a part.
#[derive(Debug)]
pub(super) struct Fences {
    /// Databases of which nothing else is done here.
    standing: Map<Namespace, Standing>,
    /// How many it has led as keeper.
    led_count: u64,
}

/// A database of which a core does nothing but its part of an update.
#[derive(Debug)]
struct Standing {
    number: u64,
    /// What this core is to write.
    part: Option<Part>,
    /// If it is written down: what was here before it has written that, as long as others may not have written theirs.
    before: Option<Box<Before>>,
    /// At the keeper, until it is decided and done.
    lead: Option<Box<Lead>>,
    /// What has come meanwhile. As much as clients may have on its way.
    waiting: VecDeque<Message>,
}

/// A part of a database as it was before an update of several, and what has been written down of that.
#[derive(Debug)]
pub(super) struct Before {
    pub(super) root: Node,
    /// The update before it.
    pub(super) last_joint: u64,
    pub(super) records: Vec<u8>,
}

#[derive(Debug)]
struct Part {
    ask: Arc<Ask>,
    now: Now,
    write: Write,
}

/// An update, as the keeper sees it.
#[derive(Debug)]
struct Lead {
    ask: Arc<Ask>,
    now: Now,
    /// Bit `s`: shard `s` holds some of the places.
    owners: u64,
    /// Of those, who has not answered.
    missing: u64,
    /// It will be made: from here on it cannot be stopped.
    is_decided: bool,
    refusal: Option<Refusal>,
    needs_whole: bool,
    /// What stands at the place, of those who have answered, if it matters.
    standing: Node,
    /// What is answered if it is made.
    outcome: Outcome,
    told: Vec<(ShardId, Vec<Told>)>,
}

impl Fences {
    pub(super) fn new(hashing: &Hashing) -> Self {
        Self { standing: hashing.map(), led_count: 0 }
    }

    /// What a snapshot that begins now tells of a database instead of what is here: others may not have written their
    /// parts of an update.
    pub(super) fn before(&self, namespace: &Namespace) -> Option<&Before> {
        self.standing.get(namespace)?.before.as_deref()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.standing.is_empty()
    }

    /// How much stands still, and waits for that.
    pub(super) fn len(&self) -> usize {
        self.standing.values().map(|standing| 1 + standing.waiting.len()).sum()
    }
}

/// The database that an owner is asked about, if it has to wait for the end of an update.
fn database_of(message: &Message) -> Option<&Namespace> {
    match message {
        Message::Ask(ask) => Some(&ask.namespace),
        Message::Join(ask) => Some(&ask.namespace),
        Message::Over(over) => Some(&over.namespace),
        Message::Manage(manage) => manage.task.about_all_of(),
        Message::Forget { namespace, .. }
        | Message::Identify { namespace, .. }
        | Message::Resume { namespace, .. }
        | Message::Claim { namespace, .. }
        | Message::Recall { namespace }
        | Message::Want { namespace } => Some(namespace),
        _ => None,
    }
}

/// What a write changes at some places: those of one owner. What stands above the parts has all of them for owners,
/// each of what it gets of that.
fn part_of(write: &Write, is_its: impl Fn(&Path) -> bool) -> Write {
    match write {
        Write::Set { path, value } => Write::Set { path: path.clone(), value: cut(path, value, &is_its) },
        Write::SetPriority { .. } => unreachable!("a priority has one owner"),
        Write::Merge { path, changes } => {
            let part = |(place, value): &(Location, Draft)| {
                let at = path.join(&place.path);
                if at.depth() >= PART_KEYS {
                    return is_its(&at).then(|| (place.clone(), value.clone()));
                }
                Some((place.clone(), cut(&at, value, &is_its)))
            };
            Write::Merge { path: path.clone(), changes: changes.iter().filter_map(part).collect() }
        }
    }
}

/// Whether something of it stands above the parts.
fn has_above(write: &Write) -> bool {
    places(write).any(|place| place.path.depth() < PART_KEYS)
}

/// The write that several owners are asked for.
pub(super) fn write_of(request: &Request) -> &Write {
    let (Request::Write { write, .. } | Request::Exchange { write, .. }) = request else {
        unreachable!("only writes have several owners")
    };
    write
}

/// Whether it matters what stands where this writes.
const fn looks_first(request: &Request) -> bool {
    matches!(request, Request::Write { if_hash: Some(_), .. } | Request::Exchange { .. })
}

impl Engine {
    /// Whether this engine does nothing of a database but its part of an update.
    pub(super) fn is_fenced(&self, namespace: &Namespace) -> bool {
        self.fences.standing.contains_key(namespace)
    }

    /// What may be done now. The rest waits until an update is over.
    pub(super) fn passes_fence(&mut self, message: Message) -> Option<Message> {
        let Some(namespace) = database_of(&message).filter(|namespace| self.is_fenced(namespace)) else {
            return Some(message);
        };
        let what = if self.needs_whole(&message) { "wanted whole in an update" } else { "waited for an update" };
        self.journal.write(|| Record::Reached(what));
        let standing = self.fences.standing.get_mut(namespace).expect("it stands still");
        standing.waiting.push_back(message);
        None
    }

    /// Whether this will make the database whole.
    fn needs_whole(&self, message: &Message) -> bool {
        match message {
            Message::Ask(ask) => self.route(&ask.namespace, &ask.request) == Route::Keeper,
            Message::Manage(_) | Message::Want { .. } => true,
            _ => false,
        }
    }

    /// A session asks the keeper to change places that several owners hold.
    pub(super) fn fence(&mut self, now: Now, ask: Ask, output: &mut Output) {
        if let Some(refusal) = self.is_too_full(&ask.namespace, &ask.request) {
            return self.fence_answered(now, &ask, Outcome::Refused(refusal), 0, output);
        }
        let namespace = ask.namespace.clone();
        let places = places(write_of(&ask.request));
        let owners = places.fold(0, |owners, place| {
            // Of what stands above all parts each has one.
            owners | self.holder(&namespace, &place.path).map_or_else(|| self.all(), ShardId::bit)
        });
        if has_above(write_of(&ask.request)) {
            self.journal.write(|| Record::Reached("write above all parts"));
        }
        self.fences.led_count += 1;
        let (number, ask) = (self.fences.led_count, Arc::new(ask));
        let lead = Lead {
            ask: ask.clone(),
            now,
            owners,
            missing: owners,
            is_decided: false,
            refusal: None,
            needs_whole: false,
            standing: Node::Empty,
            outcome: Outcome::Done,
            told: Vec::new(),
        };
        let standing =
            Standing { number, part: None, before: None, lead: Some(Box::new(lead)), waiting: VecDeque::new() };
        let before = self.fences.standing.insert(namespace.clone(), standing);
        assert!(before.is_none(), "a keeper does one after the other");
        self.step_all(owners, &namespace, number, || Step::Halt { ask: ask.clone(), now }, output);
    }

    fn step_all(
        &mut self,
        owners: u64,
        namespace: &Namespace,
        number: u64,
        step: impl Fn() -> Step,
        output: &mut Output,
    ) {
        for owner in ShardId::of_bits(owners) {
            let fencing = Fencing { namespace: namespace.clone(), number, step: step() };
            self.send(owner, Message::Fence(Box::new(fencing)), output);
        }
    }

    /// An update of several owners goes on.
    pub(super) fn fencing(&mut self, fencing: Fencing, output: &mut Output) {
        let Fencing { namespace, number, step } = fencing;
        match step {
            Step::Halt { ask, now } => self.halted(namespace, number, ask, now, output),
            Step::Vote { from, vote, standing } => {
                if let Some(lead) = self.lead(&namespace, number) {
                    gather(&mut lead.standing, write_of(&lead.ask.request).path(), &standing);
                }
                self.voted(&namespace, number, from, vote, output);
            }
            Step::Commit { owners } => self.write_part(&namespace, number, owners, output),
            Step::Written { from, told } => self.written(&namespace, number, from, told, output),
            Step::GoOn => self.goes_on(&namespace, number),
        }
    }

    /// The keeper wants to know whether this engine's part of an update may be written.
    fn halted(&mut self, namespace: Namespace, number: u64, ask: Arc<Ask>, now: Now, output: &mut Output) {
        let own = self.config.shard;
        let write = part_of(write_of(&ask.request), |path| self.holder(&namespace, path) == Some(own));
        let request = Request::Write { write, if_hash: None };
        let vote = self.judge_part(&namespace, &ask, now, &request);
        let Request::Write { write, .. } = request else { unreachable!("it was made just now") };
        let nothing = || Standing { number, part: None, before: None, lead: None, waiting: VecDeque::new() };
        let standing = self.fences.standing.entry(namespace.clone()).or_insert_with(nothing);
        assert_eq!(standing.number, number, "a keeper does one after the other");
        let place = looks_first(&ask.request).then(|| write.path().clone());
        standing.part = Some(Part { ask, now, write });
        let shard = self.shards.get(&namespace);
        let stands = |place: Path| shard.map(|shard| shard.root().at(place.as_str()).clone());
        let standing = place.and_then(stands).unwrap_or_default();
        let keeper = self.owner(&namespace);
        let fencing = Fencing { namespace, number, step: Step::Vote { from: own, vote, standing } };
        self.send(keeper, Message::Fence(Box::new(fencing)), output);
    }

    fn judge_part(&mut self, namespace: &Namespace, ask: &Ask, now: Now, request: &Request) -> Vote {
        if !self.may_decide_apart(namespace) || self.has_passed_on(namespace) {
            return Vote::Whole;
        }
        if let Some(refusal) = self.is_too_full(namespace, request) {
            return Vote::No(refusal);
        }
        match self.shard(namespace) {
            None => Vote::No(Refusal::Limit("too many databases")),
            Some(shard) => match shard.may_write_part(now, &ask.asker(), write_of(request)) {
                Ok(()) if shard.is_below_leaf(write_of(request)) => Vote::Whole,
                Ok(()) => Vote::Yes,
                Err(refusal) => Vote::No(refusal),
            },
        }
    }

    /// What the keeper leads of a database, if it is that update, and what it is yet to hear from others.
    fn lead(&mut self, namespace: &Namespace, number: u64) -> Option<&mut Lead> {
        let standing = self.fences.standing.get_mut(namespace).filter(|standing| standing.number == number)?;
        standing.lead.as_deref_mut()
    }

    /// An owner has said whether its part may be written.
    fn voted(&mut self, namespace: &Namespace, number: u64, from: ShardId, vote: Vote, output: &mut Output) {
        // It may have been called off.
        let Some(lead) = self.lead(namespace, number) else { return };
        lead.missing &= !from.bit();
        match vote {
            Vote::Yes => {}
            Vote::Whole => lead.needs_whole = true,
            // What is full is full whatever the rules say.
            Vote::No(Refusal::Denied) => drop(lead.refusal.get_or_insert(Refusal::Denied)),
            Vote::No(refusal) => lead.refusal = Some(refusal),
        }
        if lead.missing > 0 {
            return;
        }
        if lead.needs_whole {
            return self.call_off(namespace, true, output);
        }
        let Lead { ref ask, now, owners, .. } = *lead;
        let (ask, stood) = (ask.clone(), owners | self.config.shard.bit());
        let lead = self.lead(namespace, number).expect("it was there just now");
        let (refusal, standing) = (lead.refusal.take(), std::mem::take(&mut lead.standing));
        let outcome = self.outcome_of(now, &ask, refusal, standing);
        if matches!(outcome, Outcome::Refused(_) | Outcome::Mismatch(_)) {
            self.fence_answered(now, &ask, outcome, stood, output);
            return self.let_go_on(namespace, number, output);
        }
        self.fence_decided(now, &ask, &outcome, stood);
        let lead = self.lead(namespace, number).expect("it was there just now");
        (lead.is_decided, lead.missing, lead.outcome) = (true, owners, outcome);
        self.step_all(owners, namespace, number, || Step::Commit { owners }, output);
    }

    /// What is answered to who asks, of whom the owners have said this, where this stands: as one owner would.
    fn outcome_of(&self, now: Now, ask: &Ask, refusal: Option<Refusal>, standing: Node) -> Outcome {
        let (write, if_hash, is_exchange) = match &ask.request {
            Request::Exchange { write, if_hash } => (write, if_hash.as_deref(), true),
            Request::Write { write, if_hash } => (write, if_hash.as_deref(), false),
            _ => unreachable!("only writes have several owners"),
        };
        let is_stale = if_hash.is_some_and(|hash| hash != standing.hash());
        // Such rules look at no data above the parts.
        let asking = rules::Ask { root: &Node::Empty, identity: &ask.identity, now: now.wall };
        let may_read =
            || ask.identity.is_admin || self.config.rules.may_read(&asking, write.path(), &Query::ALL).is_allowed();
        match refusal {
            // Who may read learns that it has asked about old data, and nobody else learns anything of it.
            None | Some(Refusal::Denied) if is_stale && is_exchange && may_read() => Outcome::Mismatch(standing),
            Some(Refusal::Denied) if is_stale && may_read() => Outcome::Refused(Refusal::Stale),
            Some(refusal) => Outcome::Refused(refusal),
            None if is_stale => Outcome::Refused(Refusal::Stale),
            None if is_exchange => match write {
                Write::Set { value, .. } => Outcome::Value(value.resolve(&standing, now.wall)),
                _ => unreachable!("only values are exchanged"),
            },
            None => Outcome::Done,
        }
    }

    /// The word has come: nothing has happened here since this engine said yes.
    fn write_part(&mut self, namespace: &Namespace, number: u64, owners: u64, output: &mut Output) {
        let standing = self.fences.standing.get_mut(namespace).filter(|standing| standing.number == number);
        let part = standing.and_then(|standing| standing.part.take());
        let Part { ask, now, write } = part.expect("who is told to write stands still");
        let mut told = Vec::new();
        let shard = self.shards.get_mut(namespace).expect("who may write has room");
        // Where nothing is written down no snapshot asks, and a second root would have pages copied.
        let before = shard.is_recorded().then(|| (shard.root().clone(), shard.last_joint()));
        shard.write_part(now, &ask.asker(), &write, (number, owners), &mut told);
        let from = output.records.len();
        self.finish_owning(namespace, Vec::new(), output);
        if let Some((root, last_joint)) = before {
            let records = output.records[from..].to_vec();
            let standing = self.fences.standing.get_mut(namespace).expect("it stands still");
            standing.before = Some(Box::new(Before { root, last_joint, records }));
        }
        let (keeper, from) = (self.owner(namespace), self.config.shard);
        let fencing = Fencing { namespace: namespace.clone(), number, step: Step::Written { from, told } };
        self.send(keeper, Message::Fence(Box::new(fencing)), output);
    }

    /// An owner has written its part.
    fn written(&mut self, namespace: &Namespace, number: u64, from: ShardId, told: Vec<Told>, output: &mut Output) {
        let lead = self.lead(namespace, number).expect("what is decided is not called off");
        lead.missing &= !from.bit();
        lead.told.push((from, told));
        if lead.missing > 0 {
            return;
        }
        let (ask, mut told) = (lead.ask.clone(), std::mem::take(&mut lead.told));
        let outcome = std::mem::replace(&mut lead.outcome, Outcome::Done);
        told.sort_by_key(|(from, _)| *from);
        self.tell_homes_joint(&ask, told, output);
        let (session, number_asked) = (ask.session, ask.number);
        let answer = Message::Answer { session, number: number_asked, outcome };
        self.send(session.home, answer, output);
        self.let_go_on(namespace, number, output);
    }

    /// What is told to a home is one message, whichever part it comes from.
    fn tell_homes_joint(&mut self, ask: &Arc<Ask>, told: Vec<(ShardId, Vec<Told>)>, output: &mut Output) {
        let mut homes: BTreeMap<ShardId, Vec<(ShardId, Told)>> = BTreeMap::new();
        // Those above hear of several parts, and hear one thing.
        let mut wide_count_max = 0;
        for (from, told) in told {
            let mut wide_count = 0;
            for Told { event, listeners } in told {
                let wide_here = listeners.iter().filter(|listener| listener.width > 0).count();
                wide_count += wide_here;
                if listeners.len() > wide_here {
                    self.meters.listeners.count((listeners.len() - wide_here) as u64);
                }
                let mut by_home: BTreeMap<ShardId, Vec<Listener>> = BTreeMap::new();
                for listener in listeners {
                    by_home.entry(listener.session.home).or_default().push(listener);
                }
                for (home, listeners) in by_home {
                    homes.entry(home).or_default().push((from, Told { event: event.clone(), listeners }));
                }
            }
            wide_count_max = wide_count.max(wide_count_max);
        }
        if wide_count_max > 0 {
            self.meters.listeners.count(wide_count_max as u64);
        }
        for (home, parts) in homes {
            self.send(home, Message::TellJoint { ask: ask.clone(), parts }, output);
        }
    }

    /// An update is over, for the keeper: behind what it has told of it.
    fn let_go_on(&mut self, namespace: &Namespace, number: u64, output: &mut Output) {
        let own = self.config.shard.bit();
        let standing = self.fences.standing.get_mut(namespace).expect("it stands still");
        let lead = standing.lead.take().expect("the keeper leads");
        self.step_all(lead.owners | own, namespace, number, || Step::GoOn, output);
    }

    /// An update is over: what has come meanwhile is next, in the order in which it came.
    fn goes_on(&mut self, namespace: &Namespace, number: u64) {
        let standing = self.fences.standing.remove(namespace).expect("it stands still");
        assert_eq!(standing.number, number, "a keeper does one after the other");
        standing.waiting.into_iter().rev().for_each(|message| self.inner.push_front(message));
    }

    /// An update cannot be decided as it was begun: it is asked anew, before everything that has come meanwhile.
    fn call_off(&mut self, namespace: &Namespace, needs_whole: bool, output: &mut Output) {
        let standing = self.fences.standing.get_mut(namespace).expect("it stands still");
        let (number, lead) = (standing.number, standing.lead.as_ref().expect("the keeper leads"));
        let ask = Box::new(Ask::clone(&lead.ask));
        standing.waiting.push_front(Message::Ask(ask));
        if needs_whole {
            standing.waiting.push_front(Message::Want { namespace: namespace.clone() });
        }
        self.journal.write(|| Record::Reached("update called off"));
        self.let_go_on(namespace, number, output);
    }

    /// Other rules are in place, or there is room, or none: what was judged by what was and is not decided is judged anew.
    pub(super) fn judge_fences_anew(&mut self, output: &mut Output) {
        let is_open = |standing: &Standing| standing.lead.as_ref().is_some_and(|lead| !lead.is_decided);
        let open = self.fences.standing.iter().filter(|(_, standing)| is_open(standing));
        let open: Vec<Namespace> = open.map(|(namespace, _)| namespace.clone()).collect();
        for namespace in open {
            self.call_off(&namespace, false, output);
        }
    }

    /// It is known what becomes of an update of several owners.
    fn fence_decided(&mut self, now: Now, ask: &Ask, outcome: &Outcome, stood: u64) {
        self.journal.write(|| {
            let Ask { session, number, ref identity, .. } = *ask;
            Record::Asked { now, session, number, identity: identity.clone(), by: stood, is_apart: true }
        });
        let is_done = matches!(outcome, Outcome::Done | Outcome::Value(_));
        if looks_first(&ask.request) {
            self.journal.write(|| Record::Reached(if is_done { "transaction above all parts" } else { "stale above" }));
        }
        self.journal.write(|| {
            Record::Reached(if is_done { "update of several owners" } else { "update of several owners refused" })
        });
        let sketch = self.looks.sketch(&ask.namespace, &ask.request);
        self.looks.answered(now, &ask.asker(), sketch, outcome);
        self.meters.requests[Kind::of(&ask.request) as usize][Came::of(outcome) as usize] += 1;
    }

    fn fence_answered(&mut self, now: Now, ask: &Ask, outcome: Outcome, stood: u64, output: &mut Output) {
        self.fence_decided(now, ask, &outcome, stood);
        let Ask { session, number, .. } = *ask;
        self.send(session.home, Message::Answer { session, number, outcome }, output);
    }
}
