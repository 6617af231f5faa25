//! The owner's half: requests, last words and rules, applied to the shards that live here.

use std::sync::Arc;

use super::look::Speaker;
use super::owed::Spoken;
use super::{Ask, Came, Engine, Kind, Message, Output, Over, Record};
use crate::base::{Now, SessionId, SessionRef, ShardId};
use crate::op::{Event, Identity, Outcome, Refusal, Request, Write};
use crate::presence::Beside;
use crate::rules::Ruleset;
use crate::shard::{Asker, Listener, Shard, Told};

impl Engine {
    pub(super) fn asked(&mut self, now: Now, ask: Box<Ask>, output: &mut Output) {
        let Some(ask) = self.takes_ask(now, ask, output) else { return };
        let Ask { session, id, number, namespace, identity, heard, is_plain, request, beside } = *ask;
        self.speak_owed_before(now, &namespace, &request, output);
        let (by, is_apart) = (self.config.shard, self.is_spread(&namespace));
        self.journal.write(|| {
            let identity = identity.clone();
            Record::Asked { now, session, number, identity, by: by.bit(), is_apart }
        });
        let mut told = Vec::new();
        let kind = Kind::of(&request);
        let too_full = self.is_too_full(&namespace, &request);
        let last_words = || self.shards.get(&namespace).map_or(0, Shard::last_words_count);
        let admitted = match too_full {
            Some(refusal) => Err(refusal),
            None => self.warden.admit(now, &namespace, &identity, &request, last_words),
        };
        let sketch = self.looks.sketch(&namespace, &request);
        let is_leaving = is_apart && matches!(request, Request::MayWrite { .. } | Request::Cancel { .. });
        // Where all is, what lies with others lies here.
        let beside = if is_apart { beside } else { Beside::default() };
        let asker = Asker { session: Some(session), id, identity, heard, is_plain, beside };
        let outcome = match (admitted, self.shard(&namespace)) {
            (Err(refusal), _) => Outcome::Refused(refusal),
            (Ok(()), None) => Outcome::Refused(Refusal::Limit("too many databases")),
            (Ok(()), Some(shard)) => shard.ask(now, &asker, request, &mut told),
        };
        self.looks.answered(now, &asker, sketch, &outcome);
        self.meters.requests[kind as usize][Came::of(&outcome) as usize] += 1;
        // What the request caused is heard before its answer.
        self.finish_owning(&namespace, told, output);
        if is_leaving && let Some(shard) = self.shards.get(&namespace) {
            let (load, first_run) = shard.load_of(session);
            let first_run = first_run.unwrap_or(beside.run);
            self.send(session.home, Message::Load { session, from: by, load, first_run }, output);
        }
        self.send(session.home, Message::Answer { session, number, outcome }, output);
    }

    pub(super) fn identified(
        &mut self,
        now: Now,
        session: SessionRef,
        namespace: &Arc<str>,
        identity: &Arc<Identity>,
        output: &mut Output,
    ) {
        let message = || {
            let (namespace, identity) = (namespace.clone(), identity.clone());
            Message::Identify { session, namespace, identity }
        };
        if !self.hears_who(namespace, message) {
            return;
        }
        let (by, is_apart) = (self.config.shard, self.is_spread(namespace));
        self.journal.write(|| Record::Identified { session, identity: identity.clone(), by, is_apart });
        let mut told = Vec::new();
        if let Some(shard) = self.shards.get_mut(namespace) {
            shard.recheck(now, session, identity, &mut told);
        }
        self.finish_owning(namespace, told, output);
    }

    /// A session is there again that goes on although the server has started anew.
    pub(super) fn resumed(
        &mut self,
        session: SessionRef,
        id: SessionId,
        namespace: &Arc<str>,
        identity: &Arc<Identity>,
        output: &mut Output,
    ) {
        if let Some(shard) = self.shards.get_mut(namespace) {
            shard.resume_will(session, id, identity);
        }
        self.finish_owning(namespace, Vec::new(), output);
    }

    /// Ends a session's listens and performs its last words, in order, each once.
    pub(super) fn speak_last_words(&mut self, now: Now, over: Over, output: &mut Output) {
        let Some(mut over) = self.takes_over(over, output) else { return };
        let mut told = Vec::new();
        let (words, is_last) = self.left_here(now, &mut over, &mut told);
        let next = (!is_last).then(|| over.clone());
        let was_toured = !over.tour.is_empty() || self.may_be_spread();
        let Over { session, namespace, identity, made, end, ended, heard, is_yielding, tour: _ } = over;
        if is_last {
            self.meters.delays.count(now.instant.since(ended).0);
        }
        self.journal.write(|| {
            let (identity, words_count) = (identity.clone(), words.len());
            Record::Over { now, session, end, identity, words_count, is_last }
        });
        let mut fates = Vec::new();
        if let Some(shard) = self.shards.get_mut(&namespace) {
            let heard = is_yielding.then_some(heard);
            for word in words {
                let here = made.iter().find(|(left, _)| left == word.path()).map(|(_, path)| word.at(path.clone()));
                let fate = match &here {
                    None => shard.fire(now, session, &identity, &word, heard, &mut told),
                    Some(here) => {
                        // What was held is what stands above both.
                        shard.hold(here);
                        let fate = shard.fire(now, session, &identity, here, heard, &mut told);
                        shard.release(&word.places());
                        fate
                    }
                };
                let written = shard.take_partly();
                fates.push(Spoken { word: here.unwrap_or(word), fate, written });
            }
        }
        if is_last || !fates.is_empty() {
            let speaker = Speaker::living(session, &identity, end);
            self.last_words_spoken(now, &namespace, fates, &speaker, output);
        }
        self.finish_owning(&namespace, told, output);
        match next {
            Some(over) => {
                let to = over.tour.last().expect("it is not the last stop").at;
                self.send(to, Message::Over(Box::new(over)), output);
            }
            None if was_toured => self.send(session.home, Message::Toured { session }, output),
            None => {}
        }
    }

    /// What a session has left here that is to be spoken now; and whether nothing is left of it elsewhere.
    fn left_here(&mut self, now: Now, over: &mut Over, told: &mut Vec<Told>) -> (Vec<Write>, bool) {
        let is_apart = self.is_spread(&over.namespace);
        let stop = over.tour.pop();
        let shard = self.shards.get_mut(&over.namespace);
        let Some(stop) = stop.filter(|_| is_apart) else {
            return (shard.map(|shard| shard.leave(now, over.session, told)).unwrap_or_default(), true);
        };
        let words = shard.map(|shard| shard.leave_until(over.session, stop.run)).unwrap_or_default();
        (words, over.tour.is_empty())
    }

    /// Puts other rules in place. The listens that they no longer allow end when their homes have said
    /// who they are: owners do not know identities.
    pub(super) fn set_rules(&mut self, rules: Arc<Ruleset>, output: &mut Output) {
        let namespaces: Vec<_> = self.shards.keys().cloned().collect();
        for namespace in namespaces {
            if let Some(shard) = self.shards.get_mut(&namespace) {
                shard.set_rules(rules.clone());
            }
            self.finish_owning(&namespace, Vec::new(), output);
        }
        self.config.rules = rules;
        self.judge_fences_anew(output);
        self.law_changed(output);
        self.introduce_me(output);
    }

    /// Has all homes say again who their sessions are.
    pub(super) fn introduce_me(&mut self, output: &mut Output) {
        let owner = self.config.shard;
        for home in (0..self.config.shards).map(ShardId) {
            self.send(home, Message::Introduce { owner }, output);
        }
    }

    /// Carries what listeners must hear to their homes: one message for each home.
    pub(super) fn tell_homes(&mut self, told: Vec<Told>, output: &mut Output) {
        for Told { event, mut listeners } in told {
            if listeners.is_empty() {
                continue;
            }
            self.meters.listeners.count(listeners.len() as u64);
            if listeners.iter().any(|listener| listener.width > 0) {
                let wide = listeners.extract_if(.., |listener| listener.width > 0).collect();
                self.tell_homes_wide(&event, wide, output);
                if listeners.is_empty() {
                    continue;
                }
            }
            let is_all_here = listeners.iter().all(|listener| listener.session.home == self.config.shard);
            if is_all_here {
                self.inner.push_back(Message::Tell(Told { event, listeners }));
                continue;
            }
            let mut rest = listeners;
            while let Some(first) = rest.first() {
                let home = first.session.home;
                let (here, elsewhere) = rest.into_iter().partition(|listener| listener.session.home == home);
                rest = elsewhere;
                self.send(home, Message::Tell(Told { event: event.clone(), listeners: here }), output);
            }
        }
    }

    /// The same for those who listen to more than one owner holds.
    fn tell_homes_wide(&mut self, event: &Event, mut rest: Vec<Listener>, output: &mut Output) {
        let from = self.config.shard;
        while let Some(first) = rest.first() {
            let home = first.session.home;
            let (listeners, elsewhere) = rest.into_iter().partition(|listener| listener.session.home == home);
            rest = elsewhere;
            let told = Box::new(Told { event: event.clone(), listeners });
            self.send(home, Message::TellWide { from, told }, output);
        }
    }

    /// Sends a request to the owner of the session's namespace.
    pub(super) fn forward(&mut self, session: SessionRef, number: i64, request: Request, output: &mut Output) {
        self.resume_device(session, output);
        let id = self.id_for(session, &request);
        let Some(state) = self.sessions.get_mut(session) else { return };
        state.asked();
        let (namespace, identity, heard) = (state.namespace.clone(), state.identity.clone(), state.heard);
        let beside = Beside::default();
        let ask = Ask { session, id, number, namespace, identity, heard, is_plain: false, request, beside };
        self.dispatch(Box::new(ask), output);
    }
}
