//! Where a session's requests go when its database is spread: one owner at a time.
//!
//! What is on its way to one owner takes effect in the order in which it was sent; what goes to another waits until
//! all of it is answered. So a session's requests take effect in order, whoever does them. A session's last words lie
//! with the owners of what they will change; its home remembers in which order it left them, and at its end sends
//! one messenger to all owners, in that order.
//!
//! Costs: nothing for databases that are not spread. Else 120 bytes a session that asks for something; for a request
//! that goes elsewhere than the last one, the time until that is answered.

use std::collections::VecDeque;

use super::spread::Route;
use super::{Ask, Engine, Message, Output, Over, Stop};
use crate::base::{Now, SessionId, SessionRef, ShardId};
use crate::op::{Namespace, Request};
use crate::presence::{Beside, Load};

/// Where a session's requests have gone.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// Bit `s`: shard `s` may know something of the session.
    known: u64,
    /// Where everything is that is not answered; of no meaning if nothing is.
    target: Option<Route>,
    sent_count: u32,
    /// What waits for that to be answered.
    waiting: VecDeque<Waiting>,
    /// With whom last words may lie, in the order in which they were left.
    runs: Vec<Run>,
    runs_count: u32,
    loads: Vec<(ShardId, Load)>,
    /// The last words of the session's earlier life are being spoken: everything else waits.
    is_beginning_anew: bool,
}

#[derive(Debug)]
enum Waiting {
    Ask(Box<Ask>),
    /// Owners are to be told who the session is: this one, or all.
    Introduction(Option<ShardId>),
    /// The session begins anew: what it has left is spoken.
    Over(Box<Over>),
}

/// A session whose last words are on their way to be spoken.
#[derive(Debug, Default)]
pub(super) struct Departing {
    /// Messengers that have not come back.
    tours_count: u32,
    /// Those that replace it.
    pub(super) followers: Vec<SessionRef>,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    number: u32,
    owner: ShardId,
}

impl Ways {
    fn is_still(&self) -> bool {
        self.sent_count == 0 && !self.is_beginning_anew
    }

    /// Whether the next thing may be done: what is on its way elsewhere must be answered before. A request has a route.
    fn lets_go(&self, route: Option<Route>) -> bool {
        match route {
            Some(Route::One(_)) if !self.is_still() => self.target == route && !self.is_beginning_anew,
            _ => self.is_still(),
        }
    }

    /// Whether the session has to do something before it can end.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty() || self.is_beginning_anew
    }

    /// In which run a last word is that is left with `owner` now, and what lies with others.
    fn beside(&mut self, owner: ShardId) -> Beside {
        if self.runs.last().is_none_or(|run| run.owner != owner) {
            self.runs_count += 1;
            self.runs.push(Run { number: self.runs_count, owner });
        }
        let mut elsewhere = Load::default();
        for (_, load) in self.loads.iter().filter(|(other, _)| *other != owner) {
            elsewhere.places += load.places;
            elsewhere.bytes += load.bytes;
        }
        Beside { run: self.runs_count, elsewhere }
    }

    fn loaded(&mut self, owner: ShardId, load: Load, first_run: u32) {
        self.runs.retain(|run| run.owner != owner || run.number >= first_run);
        match self.loads.iter_mut().find(|(other, _)| *other == owner) {
            Some((_, known)) => *known = load,
            None => self.loads.push((owner, load)),
        }
    }

    /// The owners that the session's end has to visit, the first one last.
    fn tour(&self, keeper: ShardId, is_spread: bool) -> Vec<Stop> {
        let mut stops: Vec<Stop> = Vec::new();
        let mut add = |at: ShardId, run: u32| match stops.last_mut() {
            Some(stop) if stop.at == at => stop.run = stop.run.max(run),
            _ => stops.push(Stop { at, run }),
        };
        // Behind what is on its way: that was asked before the end.
        match self.target.filter(|_| self.sent_count > 0) {
            Some(Route::One(owner)) => add(owner, 0),
            Some(Route::All | Route::Several | Route::Keeper) => add(keeper, 0),
            None => {}
        }
        if is_spread {
            let mut rest = self.known;
            for (index, run) in self.runs.iter().enumerate() {
                let comes_again = self.runs[index + 1..].iter().any(|later| later.owner == run.owner);
                add(run.owner, if comes_again { run.number } else { u32::MAX });
                rest &= !run.owner.bit();
            }
            ShardId::of_bits(rest).for_each(|owner| add(owner, u32::MAX));
        }
        if !is_spread || (self.runs.is_empty() && self.known == 0) {
            add(keeper, u32::MAX);
        }
        stops.reverse();
        stops
    }
}

impl Engine {
    /// Sends a request to whoever can do it, behind what the session has asked before.
    pub(super) fn dispatch(&mut self, ask: Box<Ask>, output: &mut Output) {
        if !self.may_be_spread() {
            let owner = self.owner(&ask.namespace);
            return self.send(owner, Message::Ask(ask), output);
        }
        let session = ask.session;
        let route = self.way_of(&ask);
        if ask.is_plain {
            // There is never more than one on its way.
            return self.go_way(ask, route, output);
        }
        let Some(state) = self.sessions.get_mut(session) else { return };
        let ways = state.ways.get_or_insert_default();
        if ways.waiting.is_empty() && ways.lets_go(Some(route)) {
            return self.go_way(ask, route, output);
        }
        ways.waiting.push_back(Waiting::Ask(ask));
    }

    /// Sends what need not wait any longer.
    pub(super) fn go_ways(&mut self, session: SessionRef, output: &mut Output) {
        while let Some((namespace, route)) = self.next_way(session) {
            let Some(ways) = self.ways(session) else { return };
            if !ways.lets_go(route) {
                return;
            }
            match ways.waiting.pop_front() {
                Some(Waiting::Ask(ask)) => self.go_way(ask, route.expect("a request has a way"), output),
                Some(Waiting::Introduction(to)) => self.introduce_to(session, &namespace, to, output),
                Some(Waiting::Over(over)) => self.begin_anew_behind(*over, output),
                None => return,
            }
        }
    }

    fn ways(&mut self, session: SessionRef) -> Option<&mut Ways> {
        self.sessions.get_mut(session)?.ways.as_deref_mut()
    }

    /// Where the next thing goes that waits.
    fn next_way(&self, session: SessionRef) -> Option<(Namespace, Option<Route>)> {
        let state = self.sessions.get(session)?;
        let route = match state.ways.as_deref()?.waiting.front()? {
            Waiting::Introduction(_) | Waiting::Over(_) => None,
            Waiting::Ask(ask) => Some(self.way_of(ask)),
        };
        Some((state.namespace.clone(), route))
    }

    fn way_of(&self, ask: &Ask) -> Route {
        if self.is_spread(&ask.namespace) {
            self.route(&ask.namespace, &ask.request)
        } else {
            Route::One(self.owner(&ask.namespace))
        }
    }

    fn go_way(&mut self, mut ask: Box<Ask>, route: Route, output: &mut Output) {
        let session = ask.session;
        let to = if let Route::One(owner) = route { owner } else { self.owner(&ask.namespace) };
        let known = if route == Route::All { self.all() } else { to.bit() };
        let is_spread = self.is_spread(&ask.namespace);
        let is_leaving = is_spread && matches!(ask.request, Request::MayWrite { .. });
        ask.route = is_spread.then_some(route);
        if let Some(ways) = self.ways(session) {
            ways.target = Some(route);
            ways.sent_count += 1;
            ways.known |= known;
            if is_leaving {
                ask.beside = ways.beside(to);
            }
        }
        if route == Route::All {
            self.begin_gathering(session, ask.number, &ask.request);
        }
        self.send(to, Message::Ask(ask), output);
    }

    /// One of the session's requests is answered.
    pub(super) fn way_answered(&mut self, session: SessionRef, number: i64, output: &mut Output) {
        if !self.wide.is_empty() {
            self.stop_gathering(session, number);
        }
        let Some(ways) = self.ways(session) else { return };
        ways.sent_count = ways.sent_count.checked_sub(1).expect("what is answered was sent");
        if !ways.waiting.is_empty() {
            self.go_ways(session, output);
        }
    }

    /// What a session's last words come to with one owner.
    pub(super) fn load_told(&mut self, session: SessionRef, from: ShardId, load: Load, first_run: u32) {
        if let Some(ways) = self.ways(session) {
            ways.loaded(from, load, first_run);
        }
    }

    /// Owners hear who a session is, behind everything that it has asked as somebody else.
    pub(super) fn introduce_behind(&mut self, session: SessionRef, to: Option<ShardId>, output: &mut Output) {
        // Of whom nothing is known, nobody has to know more.
        if let Some(ways) = self.ways(session) {
            ways.waiting.push_back(Waiting::Introduction(to));
            self.go_ways(session, output);
        }
    }

    fn introduce_to(&mut self, session: SessionRef, namespace: &Namespace, to: Option<ShardId>, output: &mut Output) {
        let keeper = self.owner(namespace);
        let is_spread = self.is_spread(namespace);
        let Some(state) = self.sessions.get(session) else { return };
        let (known, identity) = (state.ways.as_ref().map_or(0, |ways| ways.known), state.identity.clone());
        for owner in (0..self.config.shards).map(ShardId) {
            // The keeper may be about to hold all of it.
            let is_known = owner == keeper || (is_spread && known & owner.bit() != 0);
            if is_known && to.is_none_or(|to| to == owner) {
                let (namespace, identity) = (namespace.clone(), identity.clone());
                self.send(owner, Message::Identify { session, namespace, identity }, output);
            }
        }
    }

    /// Sends the news of a session's end to all who know of it. `ways` are those it has gone.
    pub(super) fn send_over(&mut self, mut over: Over, ways: Option<Box<Ways>>, output: &mut Output) {
        let keeper = self.owner(&over.namespace);
        if !self.may_be_spread() {
            return self.send(keeper, Message::Over(Box::new(over)), output);
        }
        over.tour = ways.unwrap_or_default().tour(keeper, self.is_spread(&over.namespace));
        let first = over.tour.last().expect("somebody is visited").at;
        self.departing.entry(place(over.session)).or_default().tours_count += 1;
        self.send(first, Message::Over(Box::new(over)), output);
    }

    /// The same for a session that begins anew, behind everything that it has asked.
    pub(super) fn send_over_and_wait(&mut self, over: Over, output: &mut Output) {
        if !self.may_be_spread() {
            return self.send_over(over, None, output);
        }
        let session = over.session;
        if let Some(state) = self.sessions.get_mut(session) {
            state.ways.get_or_insert_default().waiting.push_back(Waiting::Over(Box::new(over)));
            self.go_ways(session, output);
        }
    }

    fn begin_anew_behind(&mut self, over: Over, output: &mut Output) {
        self.forget_wide(over.session);
        let Some(ways) = self.ways(over.session) else { return };
        let waiting = std::mem::take(&mut ways.waiting);
        let before = std::mem::replace(ways, Ways { waiting, is_beginning_anew: true, ..Ways::default() });
        self.send_over(over, Some(Box::new(before)), output);
    }

    /// The last words of a session are spoken, wherever they lay.
    pub(super) fn toured(&mut self, now: Now, session: SessionRef, output: &mut Output) {
        let departing = self.departing.get_mut(&place(session)).expect("a messenger comes back to where it came from");
        departing.tours_count -= 1;
        if departing.tours_count > 0 {
            return;
        }
        let followers = self.departing.remove(&place(session)).unwrap_or_default().followers;
        for session in followers {
            self.send(session.home, Message::Settled { session }, output);
        }
        if self.sessions.get(session).is_none() {
            self.sessions.give_away(session.slot);
        }
        if let Some(ways) = self.ways(session) {
            ways.is_beginning_anew = false;
            self.go_ways(session, output);
            self.part_if_done(now, session, output);
        }
        if self.drain.is_on && self.drain.next_slot == self.sessions.slots_count() {
            self.drain(now, output);
        }
    }

    /// Has `new` wait until the last words of `old`, which is over, are spoken. Says whether they may not be.
    pub(super) fn follow_departing(&mut self, old: &SessionId, new: SessionRef) -> bool {
        let departing = self.departing.get_mut(&(old.slot, old.generation));
        departing.map(|departing| departing.followers.push(new)).is_some()
    }
}

/// A session's place among those of its home, as far as its client knows it.
pub(super) fn place(session: SessionRef) -> (u32, u32) {
    (session.slot, session.generation & 0x00ff_ffff)
}
