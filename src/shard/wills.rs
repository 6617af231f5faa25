//! What sessions leave here, and what those of before a restart have left.
//!
//! The surprising idea: last words live beside the data that they will change, not with their session.
//! So one list of records, in one order, tells everything about a database: what stands in it, and what
//! is still owed to it.
//!
//! Costs: some 60 bytes a session that leaves something, beside its words; nothing for the others.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use super::living::BySession;
use super::{Asker, Fate, Shard, Told};
use crate::base::{Now, SessionId, SessionRef};
use crate::data::{Location, Path};
use crate::log::{Database, Estate, OwnRules, Record, encode_left};
use crate::op::{Identity, Refusal, Write};
use crate::presence::{Beside, Full, Ledger};
use crate::rules::Ruleset;

mod look;

const TOO_MANY_LAST_WORDS: Refusal = Refusal::Limit("too many onDisconnect operations");

/// What a session leaves.
#[derive(Debug)]
pub(super) struct Will {
    pub(super) id: SessionId,
    /// Who the session is.
    identity: Arc<Identity>,
    /// Never empty.
    pub(super) ledger: Ledger,
}

/// What all leave.
#[derive(Debug, Default)]
pub(super) struct Wills {
    pub(super) living: BySession<Will>,
    /// Places that the ledgers of `living` will write.
    pub(super) words_count: usize,
    /// Of sessions that were over when the server started, by the order in which they came.
    estates: BTreeMap<u64, Estate>,
    by_secret: BTreeMap<u128, u64>,
    /// By their secrets: of sessions that go on although the server has started anew, and have not been heard of
    /// yet.
    away: BTreeMap<u128, Estate>,
    /// Every place that an estate would write.
    by_place: BTreeMap<Path, Vec<u64>>,
}

impl Wills {
    /// Adds what living sessions have left with another owner.
    pub(super) fn unite(&mut self, other: Self) {
        assert!(other.estates.is_empty() && other.away.is_empty(), "what is owed is owed to the whole");
        self.words_count += other.words_count;
        for (session, Will { id, identity, ledger }) in other.living.into_all() {
            let will = self.living.get_or_insert_with(session, || Will { id, identity, ledger: Ledger::EMPTY });
            will.ledger.unite(ledger);
        }
    }
}

/// How far somebody is who goes through what all leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WillMark {
    /// Not begun.
    Begin,
    /// After this one of before the start.
    Owed(u64),
    /// After this one that goes on.
    Away(u128),
    /// After this session.
    Living(SessionRef),
}

/// What is written down of a shard.
#[derive(Debug, Default)]
pub(super) struct Recording {
    /// `None`: nothing is.
    records: Option<Vec<u8>>,
}

impl Recording {
    pub(super) const fn new(is_on: bool) -> Self {
        Self { records: if is_on { Some(Vec::new()) } else { None } }
    }

    pub(super) fn note(&mut self, record: impl FnOnce(&mut Vec<u8>)) {
        if let Some(records) = &mut self.records {
            record(records);
        }
    }

    pub(super) const fn is_on(&self) -> bool {
        self.records.is_some()
    }

    /// Whether something is yet to be taken.
    pub(super) fn has_news(&self) -> bool {
        self.records.as_ref().is_some_and(|records| !records.is_empty())
    }
}

impl Shard {
    /// Appends what has happened since the last call to `records`. Says whether it was anything.
    pub fn take_records(&mut self, records: &mut Vec<u8>) -> bool {
        match &mut self.recording.records {
            Some(own) if !own.is_empty() => {
                records.append(own);
                true
            }
            _ => false,
        }
    }

    /// Leaves a last word, or refuses it and changes nothing.
    pub(super) fn leave_word(&mut self, now: Now, asker: &Asker, write: Write, bytes: usize) -> Result<(), Refusal> {
        let named = asker.session.zip(asker.id);
        let (session, id) = named.ok_or(Refusal::Malformed("only a session can leave last words"))?;
        self.may_write(now, asker, &write)?;
        let places = write.places();
        if places.is_empty() {
            return Ok(());
        }
        let bytes_noted = u32::try_from(bytes).unwrap_or(u32::MAX);
        let mut record = Vec::new();
        if self.recording.is_on() {
            encode_left(&mut record, &self.namespace, &id, &asker.identity, bytes_noted, asker.beside.run, &write);
        }
        let will = self.wills.living.get_or_insert_with(session, || Will {
            id,
            identity: Arc::clone(&asker.identity),
            ledger: Ledger::EMPTY,
        });
        let before = will.ledger.len();
        let registered = will.ledger.register_beside(write, bytes, asker.beside);
        self.wills.words_count = self.wills.words_count + will.ledger.len() - before;
        match registered {
            Ok(replaced) => {
                will.identity = Arc::clone(&asker.identity);
                places.iter().for_each(|place| self.stamps.hold(place));
                self.release(&replaced);
                self.recording.note(|records| records.append(&mut record));
                Ok(())
            }
            Err(Full::Words | Full::Bytes) => {
                if will.ledger.is_empty() {
                    self.wills.living.remove(session);
                }
                Err(TOO_MANY_LAST_WORDS)
            }
        }
    }

    /// Cancels a session's last words at and below `path`.
    pub(super) fn cancel_words(&mut self, session: SessionRef, path: &Path) {
        let Some(will) = self.wills.living.get_mut(session) else { return };
        let before = will.ledger.len();
        let (cancelled, secret) = (will.ledger.cancel(path), will.id.secret);
        self.wills.words_count -= before - will.ledger.len();
        if will.ledger.is_empty() {
            self.wills.living.remove(session);
        }
        if !cancelled.is_empty() {
            self.release(&cancelled);
            self.recording.note(|records| {
                let namespace = self.namespace.to_string();
                Record::Cancelled { namespace, secret, path: path.clone() }.encode(records);
            });
        }
    }

    /// A session is somebody else from here on.
    pub(super) fn identify_will(&mut self, session: SessionRef, identity: &Arc<Identity>) {
        let Some(will) = self.wills.living.get_mut(session).filter(|will| will.identity != *identity) else { return };
        will.identity = Arc::clone(identity);
        let secret = will.id.secret;
        self.recording.note(|records| {
            let (namespace, identity) = (self.namespace.to_string(), (**identity).clone());
            Record::Identified { namespace, secret, identity }.encode(records);
        });
    }

    /// The session is over: it hears no more, and what it leaves is to be [spoken](Self::fire) at once.
    #[must_use = "last words that are taken and not written are lost"]
    pub fn leave(&mut self, now: Now, session: SessionRef, told: &mut Vec<Told>) -> Vec<Write> {
        self.listens.remove_all(session);
        self.stop_profiling(session);
        self.profile_disconnect(now, told);
        let Some(mut will) = self.wills.living.remove(session) else { return Vec::new() };
        self.wills.words_count -= will.ledger.len();
        self.note_over(will.id.secret, u32::MAX);
        will.ledger.take()
    }

    /// Its last words of runs up to this are spoken: what they write follows in the same frame.
    pub(super) fn note_over(&mut self, secret: u128, run: u32) {
        self.recording.note(|records| {
            let namespace = self.namespace.to_string();
            Record::Over { namespace, secret, run }.encode(records);
        });
    }

    /// Remembers writes to the places of a word, and above them, until they are released.
    pub fn hold(&mut self, word: &Write) {
        word.places().iter().for_each(|place| self.stamps.hold(place));
    }

    /// Nobody waits for these places any more, on account of one last word.
    pub fn release(&mut self, places: &[Location]) {
        places.iter().for_each(|place| self.stamps.release(place));
    }

    /// Puts in place what was written down before a restart; `own` are its own rules, if it has any. Only into
    /// a shard that is empty.
    pub fn restore(&mut self, database: Database, own: Option<Arc<Ruleset>>) {
        assert!(self.root.is_empty() && self.wills.estates.is_empty(), "only an empty shard is restored");
        self.root = database.root;
        if let Some((rules, OwnRules { over, .. })) = own.zip(database.rules) {
            (self.rules, self.rules_over) = (rules, Some(over));
        }
        for estate in database.estates.into_values().filter(|estate| !estate.ledger.is_empty()) {
            if estate.is_alive {
                // Whatever others write from here on is newer than the silence of who left this.
                estate.ledger.places().for_each(|place| self.stamps.hold(&place));
                self.wills.away.insert(estate.id.secret, estate);
                continue;
            }
            let order = estate.order;
            self.wills.by_secret.insert(estate.id.secret, order);
            for place in estate.ledger.places() {
                self.wills.by_place.entry(place.path).or_default().push(order);
            }
            self.wills.estates.insert(order, estate);
        }
    }

    /// A session is heard of that goes on: what it left is its own again.
    pub fn resume_will(&mut self, session: SessionRef, id: SessionId, identity: &Arc<Identity>) {
        let Some(Estate { identity: was, ledger, .. }) = self.wills.away.remove(&id.secret) else { return };
        self.wills.words_count += ledger.len();
        self.wills.living.get_or_insert_with(session, || Will { id, identity: was, ledger });
        self.identify_will(session, identity);
    }

    /// Appends records of what the next sessions after `after` leave, at most so many; says which was the
    /// last, or nothing if there are no more. Those of before the start come first.
    pub fn record_wills(&self, after: WillMark, count: usize, records: &mut Vec<u8>) -> Option<WillMark> {
        let mut mark = None;
        let mut put = |id: &SessionId, identity: &Identity, ledger: &Ledger| {
            for (write, bytes, run) in ledger.entries() {
                encode_left(records, &self.namespace, id, identity, bytes, run, write);
            }
        };
        let owed = match after {
            WillMark::Begin => Some(self.wills.estates.range(..)),
            WillMark::Owed(order) => Some(self.wills.estates.range((Excluded(order), Unbounded))),
            WillMark::Away(_) | WillMark::Living(_) => None,
        };
        let away = match after {
            WillMark::Begin | WillMark::Owed(_) => Some(self.wills.away.range(..)),
            WillMark::Away(secret) => Some(self.wills.away.range((Excluded(secret), Unbounded))),
            WillMark::Living(_) => None,
        };
        let mut left = count;
        for (order, estate) in owed.into_iter().flatten().take(count) {
            put(&estate.id, &estate.identity, &estate.ledger);
            (mark, left) = (Some(WillMark::Owed(*order)), left - 1);
        }
        // Those who are away come before the living, whom they may join meanwhile: nobody is missed.
        for (secret, estate) in away.into_iter().flatten().take(left) {
            put(&estate.id, &estate.identity, &estate.ledger);
            (mark, left) = (Some(WillMark::Away(*secret)), left - 1);
        }
        let after = match after {
            WillMark::Living(session) => Some(session),
            WillMark::Begin | WillMark::Owed(_) | WillMark::Away(_) => None,
        };
        for (session, will) in self.wills.living.iter_after(after).take(left) {
            put(&will.id, &will.identity, &will.ledger);
            mark = Some(WillMark::Living(session));
        }
        mark
    }

    /// How many places the last words of living sessions will write.
    #[must_use]
    pub const fn last_words_count(&self) -> usize {
        self.wills.words_count
    }

    /// How many sessions of before the restart have not had their last words spoken.
    #[must_use]
    pub fn owed_count(&self) -> usize {
        self.wills.estates.len()
    }

    /// The first of them.
    #[must_use]
    pub fn owed_first(&self) -> Option<u64> {
        self.wills.estates.keys().next().copied()
    }

    /// That one of them which a client names.
    #[must_use]
    pub fn owed_of(&self, id: &SessionId) -> Option<u64> {
        let order = self.wills.by_secret.get(&id.secret)?;
        self.wills.estates.get(order).is_some_and(|estate| estate.id.names_same(id)).then_some(*order)
    }

    /// Those of them that would write at, above or below a place of `write`, in order.
    #[must_use]
    pub fn owed_at(&self, write: &Write) -> Vec<u64> {
        if self.wills.estates.is_empty() {
            return Vec::new();
        }
        let mut orders = Vec::new();
        for place in crate::presence::places(write) {
            let above = place.path.prefixes().filter_map(|path| self.wills.by_place.get(path));
            orders.extend(above.flatten());
            // Keys are texts of which others may be prefixes: what is below stands among what follows.
            let below = self.wills.by_place.range::<str, _>((Included(place.path.as_str()), Unbounded));
            let below = below.take_while(|(path, _)| path.as_str().starts_with(place.path.as_str()));
            orders.extend(below.filter(|(path, _)| place.path.contains(path)).flat_map(|(_, orders)| orders));
        }
        orders.sort_unstable();
        orders.dedup();
        orders
    }

    /// Speaks the last words of a session of before the restart, in order, each once. What became of each.
    pub fn speak_owed(&mut self, now: Now, order: u64, told: &mut Vec<Told>) -> Vec<(Write, Fate)> {
        let Some(mut estate) = self.wills.estates.remove(&order) else { return Vec::new() };
        self.wills.by_secret.remove(&estate.id.secret);
        for place in estate.ledger.places() {
            if let Some(orders) = self.wills.by_place.get_mut(place.path.as_str()) {
                orders.retain(|other| *other != order);
                if orders.is_empty() {
                    self.wills.by_place.remove(place.path.as_str());
                }
            }
        }
        let is_expired = estate.identity.expires_s.is_some_and(|expires_s| expires_s <= now.wall.0 / 1_000);
        let identity = if is_expired { Arc::new(Identity::NOBODY) } else { estate.identity };
        let beside = Beside::default();
        let asker = Asker { session: None, id: None, identity, heard: now.instant, is_plain: false, beside };
        self.note_over(estate.id.secret, u32::MAX);
        let speak = |word: Write| {
            let from = told.len();
            let done = self.write(now, &asker, &word, None, told);
            self.profile_last_word(now, &word, done.is_ok(), from, told);
            let fate = match done {
                Ok(()) => Fate::Spoken,
                Err(refused) => Fate::Denied(refused.denial),
            };
            (word, fate)
        };
        estate.ledger.take().into_iter().map(speak).collect()
    }
}
