//! What engines say to each other. From one engine to another, messages arrive in the order in which
//! they were sent; an engine speaks to itself in the same words.

use std::sync::Arc;

use super::engineio::Order;
use super::fence::Fencing;
use super::io::Peer;
use super::look::Memory;
use super::spread::Route;
use super::visit::{Caller, Response, Visit};
use crate::base::{Instant, SessionId, SessionRef, ShardId};
use crate::data::{Node, Path};
use crate::op::{End, Identity, Look, Namespace, Outcome, Refusal, Request, Sight, Tag, Write};
use crate::presence::{Beside, Load};
use crate::rules::Ruleset;
use crate::shard::{Shard, Told, Trial};

/// A message from one engine to another.
#[derive(Debug)]
#[non_exhaustive]
pub enum Message {
    /// Home to owner: a session asks.
    Ask(Box<Ask>),
    /// Owner to home: the answer to one [`Ask`].
    Answer {
        /// Who asked.
        session: SessionRef,
        /// The client's number for its request.
        number: i64,
        /// What came of it.
        outcome: Outcome,
    },
    /// Owner to home: something that these sessions listen to has happened.
    Tell(Box<Told>),
    /// One of several owners to home: the same, to those who listen to what all of them hold.
    TellWide {
        /// Who.
        from: ShardId,
        /// What.
        told: Box<Told>,
    },
    /// Keeper to home: something that several owners did as one, and what each has to tell of it.
    TellJoint {
        /// An update.
        ask: Arc<Ask>,
        /// By owner.
        parts: Vec<(ShardId, Told)>,
    },
    /// Keeper to owners, and back: an update of places that several of them hold.
    Fence(Box<Fencing>),
    /// Keeper to all: do your part of this.
    Join(Arc<Ask>),
    /// Home to keeper: what a session has read is there, or one part no longer lets it listen; no part needs to tell
    /// of it any more.
    Forget {
        /// Whose.
        session: SessionRef,
        /// Of which database.
        namespace: Namespace,
        /// What.
        path: Path,
        /// Its number for it.
        tag: Tag,
        /// As far as the rules could see.
        identity: Arc<Identity>,
    },
    /// One of several owners to home: its share of what a session reads or begins to listen to.
    Part {
        /// Who asked.
        session: SessionRef,
        /// The client's number for its request.
        number: i64,
        /// Whose share.
        from: ShardId,
        /// It; `None` where there is no room for the database.
        node: Option<Node>,
    },
    /// One of several owners to home, before the answer: what a session's last words there come to.
    Load {
        /// Whose.
        session: SessionRef,
        /// Where.
        from: ShardId,
        /// What counts.
        load: Load,
        /// The first run of which something is left.
        first_run: u32,
    },
    /// To the home of a session that is over: its last words are spoken.
    Toured {
        /// Which.
        session: SessionRef,
    },
    /// Keeper to all others: send me what you hold of this database, and nothing of it any more.
    Recall {
        /// Which.
        namespace: Namespace,
    },
    /// What the keeper asked for.
    Return {
        /// Of which database.
        namespace: Namespace,
        /// All of it.
        part: Box<Returned>,
    },
    /// Keeper to all: I hold all of this database.
    United {
        /// Which.
        namespace: Namespace,
    },
    /// To the keeper: a part can no longer go on by itself.
    Want {
        /// Of which database.
        namespace: Namespace,
    },
    /// Home to owner: a session has another identity from here on.
    Identify {
        /// Which.
        session: SessionRef,
        /// Where it listens.
        namespace: Namespace,
        /// Who it is now.
        identity: Arc<Identity>,
    },
    /// Home to owner: a session is over.
    Over(Box<Over>),
    /// Home to owner: a session is there again that goes on although the server has started anew.
    Resume {
        /// Which, from here on.
        session: SessionRef,
        /// By what it is written down.
        id: SessionId,
        /// Where.
        namespace: Namespace,
        /// Who it is.
        identity: Arc<Identity>,
    },
    /// Home to owner: a client is back whose session was over when the server started.
    Claim {
        /// That session, as its client names it.
        old: SessionId,
        /// Where.
        namespace: Namespace,
    },
    /// A new session's home to an old session's: the same client is back.
    Supersede {
        /// The old session, as its client names it.
        old: SessionId,
        /// The new one, which waits.
        new: SessionRef,
        /// Of the new one; the old one must be of the same.
        namespace: Namespace,
    },
    /// Home to owner: a session waits for what was said before this to take effect.
    Settle {
        /// The session that waits.
        session: SessionRef,
    },
    /// To the home of a waiting session: what it waited for has taken effect.
    Settled {
        /// The session that waited.
        session: SessionRef,
    },
    /// Owner to every home: other rules apply here from now on; say again who your sessions are.
    Introduce {
        /// Who asks.
        owner: ShardId,
    },
    /// To the home of a stream: somebody leaves, or cancels, last words of it.
    Leave(Box<Leave>),
    /// Something that is not about data is asked.
    Manage(Box<Manage>),
    /// The answer to one [`Manage`].
    Managed {
        /// Who asked.
        session: SessionRef,
        /// The number of the request.
        number: i64,
        /// What came of it.
        done: Managed,
    },
    /// To a session's home: a request for it has arrived.
    Visit(Box<Visit>),
    /// To a connection's core: the answer to its request.
    Response {
        /// Who waits for it.
        to: Caller,
        /// What it says.
        response: Box<Response>,
    },
    /// To a connection's core: it becomes a WebSocket of this session.
    Switch {
        /// Who asked.
        to: Caller,
        /// For whom.
        session: SessionRef,
    },
    /// To a session's home: something has arrived at its WebSocket elsewhere.
    Packet {
        /// Whose.
        session: SessionRef,
        /// Which WebSocket.
        from: Caller,
        /// A packet; none if it was only a sign of life.
        text: Option<Vec<u8>>,
    },
    /// To a session's home: its WebSocket elsewhere is gone.
    SocketGone {
        /// Whose.
        session: SessionRef,
        /// Which WebSocket.
        from: Caller,
        /// What that makes of the session.
        end: End,
    },
    /// To a WebSocket's core.
    Order {
        /// Which WebSocket.
        to: Caller,
        /// What to do.
        order: Order,
    },
    /// To a session's home: the connection is gone whose request waited there.
    Gone {
        /// Who no longer waits.
        caller: Caller,
        /// For which session it came.
        session: SessionId,
        /// What that makes of the session.
        end: End,
    },
    /// To the home of a device's session: a datagram of it has arrived elsewhere.
    Datagram {
        /// From whom.
        peer: Peer,
        /// What.
        bytes: Box<[u8]>,
    },
    /// To the core that holds a peer's keys: a datagram for it.
    Post {
        /// To whom.
        peer: Peer,
        /// What.
        bytes: Box<[u8]>,
    },
    /// While draining: the sender will send nothing more.
    Silence,
}

const _: () = assert!(size_of::<Message>() <= 80, "each is moved four times on its way, and between caches");

/// What one of several owners has held.
#[derive(Debug)]
pub struct Returned {
    /// Its part, if there is anything in it.
    pub shard: Option<Shard>,
    /// What operators may want to know of it.
    pub memory: Memory,
}

/// A request about a stream's last words. It is answered by [`Message::Answer`].
#[derive(Debug)]
pub struct Leave {
    /// Whose they are, as its client names it.
    pub stream: SessionId,
    /// Of the stream, as the asker believes.
    pub namespace: Namespace,
    /// Who asks.
    pub asker: SessionRef,
    /// Its number for the request.
    pub number: i64,
    /// What.
    pub what: Leaving,
}

/// What is asked about last words.
#[derive(Debug)]
pub enum Leaving {
    /// Keep this one.
    Word {
        /// What it writes.
        write: Write,
        /// How much of the session's room it takes, in bytes.
        bytes: usize,
    },
    /// Cancel those at and below a path.
    Cancel {
        /// That.
        path: Path,
    },
}

/// A request that is not about data.
#[derive(Debug)]
pub struct Manage {
    /// Who asks.
    pub asker: SessionRef,
    /// The number of the request.
    pub number: i64,
    /// What.
    pub task: Task,
}

/// What is asked that is not about data.
#[derive(Clone, Debug)]
pub enum Task {
    /// Name the namespaces that you own.
    Databases,
    /// Requests of administrators that name no namespace are meant for this one.
    Prefer(Namespace),
    /// Show the rules of a namespace that you own.
    GetRules(Namespace),
    /// Replace them.
    SetRules {
        /// Whose.
        namespace: Namespace,
        /// By these.
        rules: Arc<Ruleset>,
    },
    /// Show something of yourself.
    Look {
        /// Of which namespace.
        namespace: Namespace,
        /// What.
        look: Look,
    },
    /// To an owner: add what only you know to what a home has told.
    Complete {
        /// Of which namespace.
        namespace: Namespace,
        /// Of what became of last words, only what comes after this.
        after: u64,
        /// What was told.
        sight: Box<Sight>,
    },
    /// Say what the rules of a namespace that you own would say.
    Try {
        /// Which.
        namespace: Namespace,
        /// Other rules than those in force.
        rules: Option<Arc<Ruleset>>,
        /// To whom.
        identity: Arc<Identity>,
        /// To what.
        trial: Trial,
    },
}

/// What came of a [`Task`].
#[derive(Debug)]
pub enum Managed {
    /// The namespaces.
    Databases(Vec<Namespace>),
    /// It is done.
    Done,
    /// The rules.
    Rules(Arc<Ruleset>),
    /// It was refused.
    Refused(Refusal),
    /// What there is to be seen.
    Seen(Box<Sight>),
}

/// A session's request to the owner of a namespace.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Who asks.
    pub session: SessionRef,
    /// As its client names it, where it leaves a last word.
    pub id: Option<SessionId>,
    /// The client's number for its request.
    pub number: i64,
    /// Which database.
    pub namespace: Namespace,
    /// As far as the rules can see.
    pub identity: Arc<Identity>,
    /// When it asked.
    pub heard: Instant,
    /// Whether it asks without a socket.
    pub is_plain: bool,
    /// For what.
    pub request: Request,
    /// What it leaves with other owners.
    pub beside: Beside,
    /// Where it can be done, if its home takes the database for one that is spread.
    pub(super) route: Option<Route>,
}

const _: () = assert!(size_of::<Ask>() <= 256, "four cache lines, which go from core to core");

/// One owner that a session's end has to visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Which.
    pub at: ShardId,
    /// Last words of runs up to this are spoken there.
    pub run: u32,
}

/// The end of a session, as the owner of its namespace hears of it.
#[derive(Clone, Debug)]
pub struct Over {
    /// Whose.
    pub session: SessionRef,
    /// Which database.
    pub namespace: Namespace,
    /// Under which identity its last words are spoken.
    pub identity: Arc<Identity>,
    /// Last words whose paths are made only now: the path under which each was left, and the path that it gets.
    pub made: Vec<(Path, Path)>,
    /// Why it is over.
    pub end: End,
    /// When it was found to be over.
    pub ended: Instant,
    /// When it was last heard.
    pub heard: Instant,
    /// Whether its last words are late and yield to what others have written since.
    pub is_yielding: bool,
    /// Where the database is, or was, spread: the owners that are to be visited, the next one last. Else empty.
    pub tour: Vec<Stop>,
}
