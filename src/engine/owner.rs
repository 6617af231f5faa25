//! The owner's half: requests, last words and rules, applied to the shards that live here.

use std::sync::Arc;

use super::{Ask, Effect, Engine, Message, Notice, Output, Over, Record};
use crate::base::{Now, SessionRef, ShardId};
use crate::data::Fallen;
use crate::op::{Identity, Outcome, Refusal, Request};
use crate::rules::Ruleset;
use crate::shard::{Asker, Fate, Told};

impl Engine {
    pub(super) fn asked(&mut self, now: Now, ask: Ask, output: &mut Output) {
        let Ask { session, number, namespace, identity, heard, is_plain, request } = ask;
        self.journal.write(|| Record::Asked { now, session, number, identity: identity.clone() });
        let mut told = Vec::new();
        let mut fallen = Fallen::default();
        let outcome = match self.shard(&namespace) {
            None => Outcome::Refused(Refusal::Limit("too many databases")),
            Some(shard) => {
                let asker = Asker { session: Some(session), identity, heard, is_plain };
                let outcome = shard.ask(now, &asker, request, &mut told);
                fallen.append(shard.fallen());
                outcome
            }
        };
        self.fallen.append(&mut fallen);
        // What the request caused is heard before its answer.
        self.tell_homes(told, output);
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
        self.journal.write(|| Record::Identified { session, identity: identity.clone() });
        let mut told = Vec::new();
        if let Some(shard) = self.shards.get_mut(namespace) {
            shard.recheck(now, session, identity, &mut told);
        }
        self.tell_homes(told, output);
    }

    /// Ends a session's listens and performs its last words, in order, each once.
    pub(super) fn speak_last_words(&mut self, now: Now, over: Over, output: &mut Output) {
        let Over { session, namespace, identity, words, end, heard, is_yielding } = over;
        self.journal.write(|| {
            let (identity, words_count) = (identity.clone(), words.len());
            Record::Over { now, session, end, identity, words_count }
        });
        let mut told = Vec::new();
        let (mut spoken, mut yielded, mut denied) = (0, 0, 0);
        if let Some(shard) = self.shards.get_mut(&namespace) {
            shard.leave(now, session, &mut told);
            let heard = is_yielding.then_some(heard);
            for word in &words {
                let fate = shard.fire(now, session, &identity, word, heard, &mut told);
                shard.release(&word.places());
                self.fallen.append(shard.fallen());
                match fate {
                    Fate::Spoken => spoken += 1,
                    Fate::Yielded => yielded += 1,
                    Fate::Denied(_) => denied += 1,
                }
                if fate != Fate::Spoken {
                    let (namespace, path) = (namespace.clone(), word.path().clone());
                    output.effects.push(Effect::Notice(Notice::Unspoken { namespace, path, fate, end }));
                }
            }
        }
        output.effects.push(Effect::Notice(Notice::LastWords { end, spoken, yielded, denied }));
        self.tell_homes(told, output);
    }

    /// Puts other rules in place. The listens that they no longer allow end when their homes have said
    /// who they are: owners do not know identities.
    pub(super) fn set_rules(&mut self, rules: Arc<Ruleset>, output: &mut Output) {
        for shard in self.shards.values_mut() {
            shard.set_rules(rules.clone());
        }
        self.config.rules = rules;
        let owner = self.config.shard;
        for home in (0..self.config.shards).map(ShardId) {
            self.send(home, Message::Introduce { owner }, output);
        }
    }

    /// Carries what listeners must hear to their homes: one message for each home.
    fn tell_homes(&mut self, told: Vec<Told>, output: &mut Output) {
        for Told { event, listeners } in told {
            if listeners.is_empty() {
                continue;
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

    /// Sends a request to the owner of the session's namespace.
    pub(super) fn forward(&mut self, session: SessionRef, number: i64, request: Request, output: &mut Output) {
        let Some(state) = self.sessions.get_mut(session) else { return };
        state.asked();
        let (namespace, identity, heard) = (state.namespace.clone(), state.identity.clone(), state.heard);
        let owner = self.owner(&namespace);
        let ask = Ask { session, number, namespace, identity, heard, is_plain: false, request };
        self.send(owner, Message::Ask(Box::new(ask)), output);
    }
}
