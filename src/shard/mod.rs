//! One partition of one namespace's tree: the order of writes, and who hears of them.
//!
//! Everything that changes data goes one way (limits, rules, tree, listeners, answer), whoever asks:
//! a client, a REST call, a last word. The surprising idea: a shard answers at once and completely;
//! it collects what listeners must hear in a list that the engine carries home. Costs: O(depth)
//! lookups a write, plus what its listeners need.

mod apply;
mod listens;
mod living;
mod part;
mod profile;
mod trial;
mod wills;

use std::borrow::Cow;
use std::sync::Arc;

pub use listens::{Listener, Told, window_event};
pub use part::{PART_KEYS, READING, cut, divide, gather, may_be_cut};

use crate::base::{Hashing, Instant, Now, SessionId, SessionRef};
use crate::data::{Fallen, Node, Path};
use crate::log::{OwnRules, Record};
use crate::op::{Event, Identity, Namespace, Outcome, Query, Refusal, Request, Tag, Write};
use crate::presence::{Beside, Stamps, places_count};
use crate::rules::{Ask, Denial, Ruleset};
use crate::tree;
use listens::{Doubt, Listens, Wish};
pub use trial::Trial;
pub use wills::WillMark;
use wills::{Recording, Wills};

/// Who asks.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The session, unless it is a request without one.
    pub session: Option<SessionRef>,
    /// As the session's client names it: needed for last words.
    pub id: Option<SessionId>,
    /// As far as the rules can see.
    pub identity: Arc<Identity>,
    /// When it asked: its writes count as spoken then.
    pub heard: Instant,
    /// Whether it asks without a socket.
    pub is_plain: bool,
    /// What it leaves with other owners.
    pub beside: Beside,
}

/// What came of one last word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was written.
    Spoken,
    /// It was late, and somebody had written the path since.
    Yielded,
    /// It was refused; by which rules, if it was by rules.
    Denied(Option<Box<Denial>>),
}

impl Fate {
    /// The word for logs and metrics.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Spoken => "spoken",
            Self::Yielded => "yielded",
            Self::Denied(_) => "denied",
        }
    }

    /// The rules that refused it, if rules did.
    #[must_use]
    pub fn denial(&self) -> Option<&Denial> {
        if let Self::Denied(denial) = self { denial.as_deref() } else { None }
    }
}

/// One partition of one namespace.
#[derive(Debug)]
pub struct Shard {
    namespace: Namespace,
    root: Node,
    rules: Arc<Ruleset>,
    /// What names the rules of all databases over which these were put in place for this one; `None`: they are
    /// those of all.
    rules_over: Option<u32>,
    listens: Listens,
    stamps: Stamps,
    wills: Wills,
    recording: Recording,
    /// What was removed.
    fallen: Fallen,
    /// Those who are told of every operation.
    profilers: Vec<Listener>,
    /// What was written of the last word that was fired last, if it was not all.
    partly: Option<Write>,
    /// Other cores hold other parts of the same database.
    is_part: bool,
    /// See [`last_joint`](Self::last_joint).
    last_joint: u64,
}

impl Shard {
    /// An empty partition under these rules.
    #[must_use]
    pub fn new(namespace: Namespace, rules: Arc<Ruleset>, hashing: &Hashing) -> Self {
        Self {
            namespace,
            root: Node::Empty,
            rules,
            rules_over: None,
            listens: Listens::new(hashing),
            stamps: Stamps::new(hashing.clone()),
            wills: Wills::default(),
            recording: Recording::default(),
            fallen: Fallen::default(),
            profilers: Vec::new(),
            partly: None,
            is_part: false,
            last_joint: 0,
        }
    }

    /// From now on what happens is written down: see [`take_records`](Self::take_records).
    #[must_use]
    pub fn recorded(mut self) -> Self {
        self.recording = Recording::new(true);
        self
    }

    /// Whether what happens is written down.
    #[must_use]
    pub const fn is_recorded(&self) -> bool {
        self.recording.is_on()
    }

    /// What was removed since it was asked last, for whoever has time to drop it.
    pub const fn fallen(&mut self) -> &mut Fallen {
        &mut self.fallen
    }

    /// The data, as it stands.
    #[must_use]
    pub const fn root(&self) -> &Node {
        &self.root
    }

    /// Does what `asker` asks for and says what came of it. What listeners must hear *before* the
    /// answer is appended to `told`.
    pub fn ask(&mut self, now: Now, asker: &Asker, request: Request, told: &mut Vec<Told>) -> Outcome {
        let profiled = self.before_profiled(asker, &request);
        let from = told.len();
        let outcome = self.perform(now, asker, request, told);
        if let Some(asked) = profiled {
            self.after_profiled(now, asker, asked, &outcome, from, told);
        }
        outcome
    }

    fn perform(&mut self, now: Now, asker: &Asker, request: Request, told: &mut Vec<Told>) -> Outcome {
        let done = match request {
            Request::Write { write, if_hash } => self
                .write(now, asker, &write, if_hash.as_deref(), told)
                .map(|()| Outcome::Done)
                .map_err(|refused| refused.refusal),
            Request::Exchange { write, if_hash } => self.exchange(now, asker, &write, if_hash.as_deref(), told),
            Request::Get { path, query } => self.get(now, asker, &path, &query).map(Outcome::Value),
            Request::Listen { path, query, tag, hash } => {
                self.listen(now, asker, Listen { path, query, tag, hash }, told)
            }
            Request::Unlisten { path, tag } => {
                if let Some(session) = asker.session {
                    self.listens.remove(session, &path, tag);
                }
                Ok(Outcome::Done)
            }
            Request::MayWrite { write, bytes } => self.leave_word(now, asker, write, bytes).map(|()| Outcome::Done),
            Request::Cancel { path } => {
                if let Some(session) = asker.session {
                    self.cancel_words(session, &path);
                }
                Ok(Outcome::Done)
            }
            Request::Profile => self.profile(asker),
        };
        done.unwrap_or_else(Outcome::Refused)
    }

    fn exchange(
        &mut self,
        now: Now,
        asker: &Asker,
        write: &Write,
        if_hash: Option<&str>,
        told: &mut Vec<Told>,
    ) -> Result<Outcome, Refusal> {
        let done = self.write(now, asker, write, if_hash, told);
        let standing = self.root.at(write.path().as_str()).clone();
        match done.map_err(|refused| refused.refusal) {
            Ok(()) => Ok(Outcome::Value(standing)),
            Err(Refusal::Stale) if self.may_read(now, &asker.identity, write.path(), &Query::ALL) => {
                Ok(Outcome::Mismatch(standing))
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// The text of the rules.
    #[must_use]
    pub fn rules(&self) -> &Arc<Ruleset> {
        &self.rules
    }

    /// Performs one last word that `session` has [left](Self::leave). With `heard`, the session ended in silence after that
    /// moment, and the word yields to whatever another client has written there since.
    pub fn fire(
        &mut self,
        now: Now,
        session: SessionRef,
        identity: &Arc<Identity>,
        word: &Write,
        heard: Option<Instant>,
        told: &mut Vec<Told>,
    ) -> Fate {
        let fate = self.fire_held(now, session, identity, word, heard, told);
        self.release(&word.places());
        fate
    }

    fn fire_held(
        &mut self,
        now: Now,
        session: SessionRef,
        identity: &Arc<Identity>,
        word: &Write,
        heard: Option<Instant>,
        told: &mut Vec<Told>,
    ) -> Fate {
        let kept = match heard {
            Some(heard) => self.stamps.without_newer(word.clone(), heard, session).map(Cow::Owned),
            None => Some(Cow::Borrowed(word)),
        };
        let Some(kept) = kept else { return Fate::Yielded };
        let is_whole = places_count(&kept) == places_count(word);
        let word = kept;
        let heard = heard.unwrap_or(now.instant);
        let asker = Asker {
            session: Some(session),
            id: None,
            identity: Arc::clone(identity),
            heard,
            is_plain: false,
            beside: Beside::default(),
        };
        let from = told.len();
        let done = self.write(now, &asker, &word, None, told);
        self.profile_last_word(now, &word, done.is_ok(), from, told);
        match done {
            Ok(()) => {
                self.partly = (!is_whole).then(|| word.into_owned());
                Fate::Spoken
            }
            Err(refused) => Fate::Denied(refused.denial),
        }
    }

    /// What was written of the last word that was [fired](Self::fire) last, if it was not all.
    pub const fn take_partly(&mut self) -> Option<Write> {
        self.partly.take()
    }

    /// The session's identity, or the rules, have changed: ends the listens that it no longer may have.
    pub fn recheck(&mut self, now: Now, session: SessionRef, identity: &Arc<Identity>, told: &mut Vec<Told>) {
        if !identity.is_admin && self.stop_profiling(session) {
            let listener = Listener::new(session, None, 0);
            let event = Event::Revoked { path: Path::ROOT, query: Query::ALL };
            told.push(Told { event, listeners: vec![listener] });
        }
        self.listens.set_identity(session, identity);
        self.identify_will(session, identity);
        for (path, query, tag) in self.listens.of(session) {
            if self.may_read(now, identity, &path, &query) {
                let is_conditional = self.is_conditional(identity, &path);
                self.listens.set_conditional(session, &path, tag, is_conditional);
            } else {
                let width = self.width_at(&path);
                self.revoke(Listener::new(session, tag, width), path, query, told);
            }
        }
    }

    fn width_at(&self, path: &Path) -> u8 {
        if self.is_part { Listener::width_at(path) } else { 0 }
    }

    /// Ends a listen that the rules no longer allow.
    fn revoke(&mut self, listener: Listener, path: Path, query: Query, told: &mut Vec<Told>) {
        self.listens.remove(listener.session, &path, listener.tag);
        told.push(Told { event: Event::Revoked { path, query }, listeners: vec![listener] });
    }

    /// Lets those conditional listeners hear what was told that still may.
    fn decide(&mut self, now: Now, doubts: Vec<Doubt>, told: &mut Vec<Told>) {
        for Doubt { path, listener, told_index } in doubts {
            let query = self.listens.query_of(listener.session, &path, listener.tag);
            // It may have been ended by an earlier doubt about the same write.
            let Some((query, identity)) = query.zip(self.listens.identity(listener.session)) else { continue };
            if self.may_read(now, identity, &path, &query) {
                told[told_index].listeners.push(listener);
            } else {
                self.revoke(listener, path, query, told);
            }
        }
    }

    /// How many listens there are, and to how many locations. Those above the parts stand in each part, and are
    /// counted by the one that `is_keeper`.
    #[must_use]
    pub fn listens_count(&self, is_keeper: bool) -> (usize, usize) {
        self.listens.count(is_keeper || !self.is_part)
    }

    /// How many places last words wait for, with all above them.
    #[must_use]
    pub const fn held_count(&self) -> usize {
        self.stamps.len()
    }

    /// Puts other rules in place. The engine then has every session [rechecked](Self::recheck).
    pub fn set_rules(&mut self, rules: Arc<Ruleset>) {
        self.rules = rules;
        if self.rules_over.take().is_some() {
            let namespace = self.namespace.to_string();
            self.recording.note(|records| Record::Rules { namespace, own: None }.encode(records));
        }
    }

    /// The same, for rules of its own: `over` names those of all databases at this time.
    pub fn set_own_rules(&mut self, rules: Arc<Ruleset>, over: u32) {
        self.rules = rules;
        self.rules_over = Some(over);
        let (namespace, own) = (self.namespace.to_string(), self.own_rules());
        self.recording.note(|records| Record::Rules { namespace, own }.encode(records));
    }

    /// Its own rules, if it has any.
    #[must_use]
    pub fn own_rules(&self) -> Option<OwnRules> {
        self.rules_over.map(|over| OwnRules { text: self.rules.source().to_owned(), over })
    }

    /// Whether the rules must be asked anew before this listener hears something.
    fn is_conditional(&self, identity: &Identity, path: &Path) -> bool {
        !identity.is_admin && self.rules.read_depends_on_data(path)
    }

    fn may_read(&self, now: Now, identity: &Identity, path: &Path, query: &Query) -> bool {
        let ask = Ask { root: &self.root, identity, now: now.wall };
        identity.is_admin || self.rules.may_read(&ask, path, query).is_allowed()
    }

    fn get(&self, now: Now, asker: &Asker, path: &Path, query: &Query) -> Result<Node, Refusal> {
        if !self.may_read(now, &asker.identity, path, query) {
            return Err(Refusal::Denied);
        }
        let node = self.root.at(path.as_str());
        Ok(if query.is_all() { node.clone() } else { tree::select(node, query) })
    }

    fn listen(&mut self, now: Now, asker: &Asker, listen: Listen, told: &mut Vec<Told>) -> Result<Outcome, Refusal> {
        let Listen { path, query, tag, hash } = listen;
        let session = asker.session.ok_or(Refusal::Malformed("only a session can listen"))?;
        if !self.may_read(now, &asker.identity, &path, &query) {
            return Err(Refusal::Denied);
        }
        let is_unindexed = !query.is_all() && !self.rules.is_indexed(&path, &query.index);
        let is_conditional = self.is_conditional(&asker.identity, &path);
        let listener = Listener { is_conditional, ..Listener::new(session, tag, self.width_at(&path)) };
        let wish = Wish { path: &path, query: &query, listener, identity: &asker.identity };
        let node = self.listens.add(&wish, self.root.at(path.as_str()))?;
        let is_known = hash.is_some_and(|hash| hash == node.hash());
        if !is_known {
            told.push(Told { event: Event::Set { path, node }, listeners: vec![listener] });
        }
        Ok(Outcome::Listening { is_unindexed })
    }
}

/// The parts of [`Request::Listen`].
struct Listen {
    path: Path,
    query: Query,
    tag: Tag,
    hash: Option<String>,
}
