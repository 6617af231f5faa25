//! One session of a gateway.

use std::sync::Arc;

use super::ear::{Answer, Ear};
use super::listen::{Listen, Mailbox};
use super::{Error, Json, Value};
use crate::base::SessionId;
use crate::base::limits::{DEPTH_MAX, MERGE_PATHS_MAX};
use crate::data::{Draft, InvalidPath, Location, Path};
use crate::engine::{Opening, Saying};
use crate::op::{BadCredential, End, Outcome, Query, Refusal, Request, Write};
use crate::runtime::{Door, Ear as _, Ticket};
use crate::wire::firebase::{merge, read_set};

/// Requests that nobody waits for have this number.
const UNANSWERED: i64 = 0;

/// A client, as the server sees it: what it wrote is its, and what it left is spoken when it ends.
///
/// Methods take `&self` and may be called from several tasks at once; what one task asks takes effect in the
/// order in which it awaits. Dropping it ends the session as if its connection had broken.
#[derive(Debug)]
#[must_use = "a session that is dropped is over"]
pub struct Session {
    line: Line,
    id: SessionId,
}

/// The way to a session's core, and back.
#[derive(Clone, Debug)]
pub(super) struct Line {
    door: Door,
    pub(super) ear: Arc<Ear>,
}

/// Ends a session that nobody has: while it is being opened, and afterwards.
struct Opened(Option<Line>);

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(line) = self.0.take() {
            line.end(End::Dropped);
        }
    }
}

impl Session {
    pub(super) async fn open(door: Door, opening: Opening) -> Result<Self, Error> {
        let line = Line { ear: Arc::new(Ear::default()), door };
        let ticket = line.door.enter().await;
        line.say(ticket, Saying::Open(Box::new(opening)));
        let mut guard = Opened(Some(line));
        let line = guard.0.as_ref().expect("it was put there just now");
        let id = line.ear.opened().await?;
        let line = guard.0.take().expect("it is taken once");
        Ok(Self { line, id })
    }

    /// The name by which a later session may [replace](super::Opening::replacing) this one: a secret.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// Replaces what stands at a path.
    ///
    /// # Errors
    /// [`Error::Refused`]: the rules or a limit say no, or path or data are none. [`Error::NotJson`].
    /// [`Error::Over`]: it is unknown whether it was done if the session ended meanwhile.
    pub async fn set(&self, path: &str, value: impl Into<Json>) -> Result<(), Error> {
        let (write, _) = set(path, value.into())?;
        self.done(Request::Write { write, if_hash: None }).await
    }

    /// Replaces what stands at several paths below `path`, all or none.
    ///
    /// # Errors
    /// As [`set`](Self::set); and [`Error::Refused`] if one of the paths is above another.
    pub async fn update<K, V>(&self, path: &str, changes: impl IntoIterator<Item = (K, V)>) -> Result<(), Error>
    where
        K: AsRef<str>,
        V: Into<Json>,
    {
        let changes = changes.into_iter().map(|(path, value)| (path, value.into()));
        let (write, _) = update(Path::parse(path)?, changes)?;
        self.done(Request::Write { write, if_hash: None }).await
    }

    /// Removes what stands at a path.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn remove(&self, path: &str) -> Result<(), Error> {
        let write = Write::Set { path: Path::parse(path)?, value: Draft::EMPTY };
        self.done(Request::Write { write, if_hash: None }).await
    }

    /// Reads what stands at a path.
    ///
    /// # Errors
    /// [`Error::Refused`]: the rules say no, or the path is none. [`Error::Over`].
    pub async fn get(&self, path: &str) -> Result<Value, Error> {
        self.query(path, Query::ALL).await
    }

    /// Reads some of the children of a path.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn query(&self, path: &str, query: Query) -> Result<Value, Error> {
        match self.line.ask(Request::Get { path: Path::parse(path)?, query }).await? {
            Outcome::Value(node) => Ok(Value(node)),
            outcome => Err(unexpected(outcome)),
        }
    }

    /// Listens to everything at and below a path.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn listen(&self, path: &str) -> Result<Listen, Error> {
        self.listen_to(path, Query::ALL).await
    }

    /// Listens to some of the children of a path.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn listen_to(&self, path: &str, query: Query) -> Result<Listen, Error> {
        let path = Path::parse(path)?;
        let mailbox = Arc::new(Mailbox::default());
        let tag = self.line.ear.add_listen(&mailbox);
        // From here on it is taken away again when it is dropped, whatever happens.
        let listen = Listen { line: self.line.clone(), mailbox, path: path.clone(), tag, is_done: false };
        let request = Request::Listen { path, query, tag: Some(tag), hash: None };
        match self.line.ask(request).await? {
            Outcome::Listening { .. } => Ok(listen),
            outcome => Err(unexpected(outcome)),
        }
    }

    /// Last words at a path: what the server writes, once, when this session ends in whatever way.
    ///
    /// # Errors
    /// [`Error::Refused`]: the path is none.
    pub fn on_disconnect(&self, path: &str) -> Result<OnDisconnect<'_>, Error> {
        Ok(OnDisconnect { session: self, path: Path::parse(path)? })
    }

    /// The client shows who it is, with a token that the server is configured to believe.
    ///
    /// # Errors
    /// [`Error::Refused`] with [`Refusal::Credential`]: it stays who it was. [`Error::Over`].
    pub async fn sign_in(&self, credential: impl Into<String>) -> Result<(), Error> {
        let credential = credential.into();
        if credential.is_empty() {
            return Err(Error::Refused(Refusal::Credential(BadCredential::Invalid)));
        }
        let outcome = self.line.ask_as(|number| Saying::SignIn { number, credential }).await?;
        done(outcome)
    }

    /// The client is nobody from here on.
    ///
    /// # Errors
    /// [`Error::Over`].
    pub async fn sign_out(&self) -> Result<(), Error> {
        let outcome = self.line.ask_as(|number| Saying::SignOut { number }).await?;
        done(outcome)
    }

    /// The client is alive: something of it was heard. Every request says so, too. Costs nothing where an earlier
    /// sign of life is still on its way; never waits.
    pub fn heartbeat(&self) {
        if self.line.ear.place().begin_heartbeat() {
            self.line.door.say_at_once(self.line.ear.clone(), Saying::Heard);
        }
    }

    /// Why the session is over, if it is.
    #[must_use]
    pub fn is_over(&self) -> Option<Error> {
        self.line.ear.over()
    }

    /// Waits until the session is over, and says why: its client fell silent, another replaced it, the server
    /// stops.
    pub async fn ended(&self) -> Error {
        self.line.ear.ended().await
    }

    /// The client says goodbye. When this is ready its last words are on their way to the owner of the data:
    /// whoever asks after that finds them done.
    pub async fn end(self) {
        self.line.end(End::Closed);
        self.line.ear.ended().await;
    }

    async fn done(&self, request: Request) -> Result<(), Error> {
        done(self.line.ask(request).await?)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.line.ear.over().is_none() {
            self.line.end(End::Dropped);
        }
    }
}

/// Last words of a session at a path: see [`Session::on_disconnect`].
#[derive(Debug)]
pub struct OnDisconnect<'s> {
    session: &'s Session,
    path: Path,
}

impl OnDisconnect<'_> {
    /// Then, replace what stands there. Takes the place of an earlier last word there.
    ///
    /// # Errors
    /// As [`Session::set`]: the rules are asked now, and once more then.
    pub async fn set(self, value: impl Into<Json>) -> Result<(), Error> {
        let (value, bytes) = value.into().read(|item| Ok(Draft::from_json(item, self.path.depth())?))?;
        let write = Write::Set { path: self.path.clone(), value };
        self.leave(write, bytes).await
    }

    /// Then, replace what stands at several paths below it, all or none.
    ///
    /// # Errors
    /// As [`Session::update`].
    pub async fn update<K, V>(self, changes: impl IntoIterator<Item = (K, V)>) -> Result<(), Error>
    where
        K: AsRef<str>,
        V: Into<Json>,
    {
        let changes = changes.into_iter().map(|(path, value)| (path, value.into()));
        let (write, bytes) = update(self.path.clone(), changes)?;
        self.leave(write, bytes).await
    }

    /// Then, remove what stands there.
    ///
    /// # Errors
    /// As [`Session::remove`].
    pub async fn remove(self) -> Result<(), Error> {
        let write = Write::Set { path: self.path.clone(), value: Draft::EMPTY };
        self.leave(write, "null".len()).await
    }

    /// Takes back the last words at and below the path: after this none of them is spoken.
    ///
    /// # Errors
    /// [`Error::Over`].
    pub async fn cancel(self) -> Result<(), Error> {
        self.session.done(Request::Cancel { path: self.path }).await
    }

    async fn leave(self, write: Write, bytes: usize) -> Result<(), Error> {
        let bytes = bytes + self.path.as_str().len();
        self.session.done(Request::MayWrite { write, bytes }).await
    }
}

impl Line {
    fn say(&self, ticket: Ticket, saying: Saying) {
        // Whatever is said from here on is as good as a sign of life, and stands before the next one.
        self.door.say(ticket, self.ear.clone(), saying);
    }

    async fn ask(&self, request: Request) -> Result<Outcome, Error> {
        self.ask_as(|number| Saying::Ask { number, request: Box::new(request) }).await
    }

    /// Says something that is answered, and waits for the answer.
    async fn ask_as(&self, say: impl FnOnce(i64) -> Saying) -> Result<Outcome, Error> {
        let (ticket, number, reply) = loop {
            let ticket = self.door.enter().await;
            // Nothing waits between the number and the queue: both are in one order.
            if let Some((number, reply)) = self.ear.expect()? {
                break (ticket, number, reply);
            }
            drop(ticket);
            self.ear.calm().await;
        };
        self.say(ticket, say(number));
        Answer(reply).await
    }

    /// For what must not wait and is not answered. Does nothing for a session that is over.
    pub(super) fn say_at_once_unanswered(&self, request: Request) {
        if self.ear.over().is_none() {
            self.door.say_at_once(self.ear.clone(), Saying::Ask { number: UNANSWERED, request: Box::new(request) });
        }
    }

    fn end(&self, end: End) {
        self.door.say_at_once(self.ear.clone(), Saying::End(end));
    }
}

fn set(path: &str, value: Json) -> Result<(Write, usize), Error> {
    let place = Location::parse(path)?;
    value.read(|item| Ok(read_set(place, item)?))
}

fn update<K: AsRef<str>>(path: Path, changes: impl Iterator<Item = (K, Json)>) -> Result<(Write, usize), Error> {
    let (mut bytes, mut drafts) = (0, Vec::new());
    for (below, value) in changes {
        let place = Location::parse(below.as_ref())?;
        if drafts.len() == MERGE_PATHS_MAX {
            return Err(Error::Refused(Refusal::Limit("paths in one update")));
        }
        let depth = path.depth() + place.path.depth();
        if depth > DEPTH_MAX {
            return Err(Error::from(InvalidPath::TooDeep));
        }
        let (draft, value_bytes) = value.read(|item| {
            if place.is_priority {
                // As a draft it is a leaf like any other; as a priority it may not be every leaf.
                Draft::priority_from_json(item)?;
            }
            Ok(Draft::from_json(item, depth)?)
        })?;
        bytes += value_bytes + below.as_ref().len();
        drafts.push((place, draft));
    }
    Ok((merge(path, drafts)?, bytes))
}

fn done(outcome: Outcome) -> Result<(), Error> {
    match outcome {
        Outcome::Done => Ok(()),
        outcome => Err(unexpected(outcome)),
    }
}

fn unexpected(outcome: Outcome) -> Error {
    match outcome {
        Outcome::Refused(refusal) => Error::Refused(refusal),
        Outcome::Done | Outcome::Value(_) | Outcome::Mismatch(_) | Outcome::Listening { .. } => {
            unreachable!("an owner answers what it was asked")
        }
    }
}
