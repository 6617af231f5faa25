//! What sessions of before the start have left: it is spoken once, in slices, before anybody writes the
//! same places, or when its client comes back.

use std::collections::VecDeque;
use std::sync::Arc;

use super::look::Speaker;
use super::{Durability, Effect, Engine, Message, Notice, Output, Speech};
use crate::base::{Instant, Now, SessionId, SessionRef};
use crate::log::{Database, OwnRules};
use crate::op::{End, Namespace, Request, Who, Write};
use crate::rules::Ruleset;
use crate::shard::{Fate, Told};

/// Sessions whose last words one turn speaks.
const OWED_MAX: usize = 256;

/// A last word, and what became of it.
#[derive(Debug)]
pub(super) struct Spoken {
    pub(super) word: Write,
    pub(super) fate: Fate,
    /// What of it was written, if it was not all.
    pub(super) written: Option<Write>,
}

/// The namespaces here to which something is owed.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// What was spoken before the start, and operators have not been told.
    speeches: VecDeque<Speech>,
    /// With the time from which on it is spoken. Sorted by it, the latest first.
    waiting: Vec<(Instant, Namespace)>,
    /// That time has come for the last of these.
    is_due: bool,
}

impl Owed {
    pub(super) fn is_due(&self) -> bool {
        self.is_due || !self.speeches.is_empty()
    }

    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.waiting.last().map(|(due, _)| *due)
    }
}

impl Engine {
    /// Operators are to be told what was spoken before the start.
    pub(super) fn tell_speeches(&mut self, speeches: Vec<Speech>) {
        self.owed.speeches.extend(speeches);
    }

    /// Puts in place what was written down of a namespace that this engine owns, or of its part of it.
    pub(super) fn restore(&mut self, now: Now, namespace: &str, database: Database) {
        let namespace: Namespace = namespace.into();
        let grace = self.config.settings_of(&namespace).restart_grace;
        let own = database.rules.as_ref().and_then(|own| Ruleset::parse(&own.text, self.config.dialect).ok());
        let shard = self.open_shard(&namespace);
        shard.restore(database, own.map(Arc::new));
        if shard.owed_count() > 0 {
            self.owed.waiting.push((now.instant + grace, namespace));
            self.owed.waiting.sort_by_key(|(due, _)| std::cmp::Reverse(*due));
            self.owed.is_due = self.owed.next_wake().is_some_and(|due| due <= now.instant);
        }
    }

    /// Speaks some of what is due.
    pub(super) fn speak_some_owed(&mut self, now: Now, output: &mut Output) {
        for _ in 0..OWED_MAX {
            let Some(Speech { namespace, speaker, fates }) = self.owed.speeches.pop_front() else { break };
            self.last_words_spoken(now, &namespace, fates, &speaker, output);
        }
        for _ in 0..OWED_MAX {
            let due = self.owed.waiting.last().filter(|(due, _)| *due <= now.instant || self.drain.is_on);
            let Some((_, namespace)) = due.cloned() else { break };
            let shard = self.shards.get(&namespace).expect("what is owed is owed to a shard");
            match shard.owed_first() {
                Some(order) => self.speak_owed(now, &namespace, order, End::ServerStopped, output),
                None => drop(self.owed.waiting.pop()),
            }
        }
        self.owed.is_due = self.owed.next_wake().is_some_and(|due| due <= now.instant || self.drain.is_on);
    }

    /// Before somebody changes data: speaks what would change the same.
    pub(super) fn speak_owed_before(
        &mut self,
        now: Now,
        namespace: &Namespace,
        request: &Request,
        output: &mut Output,
    ) {
        let (Request::Write { write, .. } | Request::Exchange { write, .. }) = request else { return };
        let Some(shard) = self.shards.get(namespace) else { return };
        for order in shard.owed_at(write) {
            self.speak_owed(now, namespace, order, End::ServerStopped, output);
        }
    }

    /// A client is back whose session was over when the server started.
    pub(super) fn claimed(&mut self, now: Now, old: &SessionId, namespace: &Namespace, output: &mut Output) {
        if let Some(order) = self.shards.get(namespace).and_then(|shard| shard.owed_of(old)) {
            self.speak_owed(now, namespace, order, End::Superseded, output);
        }
    }

    /// A session names one that is not known here: perhaps it was over when the server started.
    pub(super) fn claim(&mut self, old: SessionId, namespace: &Namespace, output: &mut Output) {
        let owner = self.owner(namespace);
        self.send(owner, Message::Claim { old, namespace: namespace.clone() }, output);
    }

    fn speak_owed(&mut self, now: Now, namespace: &Namespace, order: u64, end: End, output: &mut Output) {
        let Some(shard) = self.shards.get_mut(namespace) else { return };
        let mut told = Vec::new();
        let (session, who) = shard.owed_by(order).map(|(session, who)| (session, Who::of(&who))).unwrap_or_default();
        let fates = shard.speak_owed(now, order, &mut told).into_iter();
        let fates = fates.map(|(word, fate)| Spoken { word, fate, written: None }).collect();
        let speaker = Speaker { session, who, is_owed: true, end };
        self.last_words_spoken(now, namespace, fates, &speaker, output);
        self.finish_owning(namespace, told, output);
    }

    /// Tells the operator what became of last words.
    pub(super) fn last_words_spoken(
        &mut self,
        now: Now,
        namespace: &Namespace,
        fates: Vec<Spoken>,
        speaker: &Speaker,
        output: &mut Output,
    ) {
        let end = speaker.end;
        let (mut spoken, mut yielded, mut denied) = (0, 0, 0);
        for Spoken { word, fate, written } in fates {
            self.looks.fired(now, namespace, speaker, (&word, &fate, written.as_ref()));
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
        output.effects.push(Effect::Notice(Notice::LastWords { end, spoken, yielded, denied }));
    }

    /// After a shard has done something: what is to be written down, what listeners must hear, and
    /// what is to be dropped.
    pub(super) fn finish_owning(&mut self, namespace: &Namespace, told: Vec<Told>, output: &mut Output) {
        if let Some(shard) = self.shards.get_mut(namespace) {
            self.fallen.append(shard.fallen());
            if shard.take_records(&mut output.records) {
                output.must_sync |= self.config.settings_of(namespace).durability == Durability::Fsync;
            }
        }
        self.tell_homes(told, output);
    }

    /// A database's own rules, if it has any.
    pub(super) fn own_rules(&self, namespace: &Namespace) -> Option<OwnRules> {
        self.shards.get(namespace)?.own_rules()
    }

    /// The session's name among clients, for requests that are written down with it.
    pub(super) fn id_for(&self, session: SessionRef, request: &Request) -> Option<SessionId> {
        if matches!(request, Request::MayWrite { .. }) { self.sessions.id(session) } else { None }
    }
}
