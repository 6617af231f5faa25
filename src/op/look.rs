//! What operators ask about the server itself, and what they are told.
//!
//! Everything here is bounded by whoever makes it: a look costs a core a slice of a turn, however many
//! sessions there are.

use std::sync::Arc;

use super::{End, Identity, Namespace, Write};
use crate::base::{Millis, SessionRef, ShardId, WallMillis};
use crate::data::{Key, Node, Path};

/// Something that an operator wants to see. Of one namespace, but for [`Look::Figures`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// How each core is.
    Figures,
    /// Some sessions.
    Sessions {
        /// From where on.
        from: SessionMark,
        /// How many, at most.
        rows_max: usize,
    },
    /// End a session.
    Kill {
        /// Which.
        session: SessionRef,
    },
    /// Some last words that wait.
    Words {
        /// From where on.
        after: WordMark,
        /// How many, at most: those of one session stay together.
        rows_max: usize,
    },
    /// What became of last words lately.
    Recent {
        /// After the entry of this number.
        after: u64,
        /// How many, at most: the latest.
        rows_max: usize,
    },
    /// What has changed, and what will change, what stands at a path.
    Explain {
        /// That.
        path: Path,
    },
    /// What stands at some places: a page of their children, not what is below those.
    Children(Vec<PageCall>),
    /// The beginning of everything of a namespace, at one moment: what a stream shows again and again.
    Glance {
        /// The entries of [`Look::Recent`] after this.
        after: u64,
        /// How many sessions of each core, and how many last words.
        rows_max: usize,
    },
}

/// How far somebody is who goes through all sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionMark {
    /// The core.
    pub core: ShardId,
    /// The slot of its table that comes next.
    pub slot: u32,
}

/// How far somebody is who goes through all last words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WordMark {
    /// Not begun.
    #[default]
    Begin,
    /// After this estate.
    Owed(u64),
    /// After this session.
    Living(SessionRef),
}

/// Which children of a place are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageCall {
    /// The place.
    pub path: Path,
    /// Those after this key.
    pub after: Option<Key>,
    /// How many, at most.
    pub rows_max: usize,
}

/// How a session's client speaks with us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Firebase's, over a WebSocket.
    WebSocket,
    /// Firebase's, by requests.
    LongPolling,
    /// A response that does not end.
    Stream,
    /// Plain requests.
    Rest,
    /// Wilddog's.
    Wilddog,
    /// Datagrams.
    Coap,
    /// Not at all: the session is one of the program that the server runs within.
    Guest,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::WebSocket, Self::LongPolling, Self::Stream, Self::Rest, Self::Wilddog, Self::Coap, Self::Guest];

    /// The word for metrics, where it stands beside no other of ours: it says whose protocol it is.
    #[must_use]
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::WebSocket => "firebase_websocket",
            Self::LongPolling => "firebase_polling",
            _ => self.as_str(),
        }
    }

    /// The word for people and tools.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::LongPolling => "long_polling",
            Self::Stream => "stream",
            Self::Rest => "rest",
            Self::Wilddog => "wilddog",
            Self::Coap => "coap",
            Self::Guest => "guest",
        }
    }
}

/// Who somebody is, for operators.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Who {
    /// Signed out.
    #[default]
    Nobody,
    /// Signed in without an id.
    Somebody,
    /// The user of this id, or of one that begins so.
    User(Arc<str>),
    /// An administrator.
    Admin,
}

impl Who {
    /// Whose identity that is.
    #[must_use]
    pub fn of(identity: &Identity) -> Self {
        match identity.uid() {
            _ if identity.is_admin => Self::Admin,
            Some(uid) => Self::User(uid.into()),
            None if identity.auth.is_null() => Self::Nobody,
            None => Self::Somebody,
        }
    }
}

/// What an operator sees.
#[derive(Clone, Debug, PartialEq)]
pub enum Sight {
    /// How one core is.
    Figures(Box<Figures>),
    /// Some sessions.
    Sessions(SessionPage),
    /// Whether there was such a session.
    Killed(bool),
    /// Some last words.
    Words(WordPage),
    /// What became of last words.
    Recent(RecentPage),
    /// Why a place is as it is.
    Explained(Box<Explained>),
    /// Pages of children.
    Children(Vec<ChildPage>),
    /// What the rules say to a [trial](super::Look).
    Tried(Tried),
    /// The beginning of everything, as far as one core knows it.
    Glance(Box<Glance>),
}

/// How one core is. Counts begin at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Which.
    pub core: ShardId,
    /// When it was asked.
    pub at: WallMillis,
    /// Connections that are open.
    pub connections: u32,
    /// Sessions by [`Protocol::ALL`].
    pub sessions: [u32; Protocol::ALL.len()],
    /// Requests that it has answered as an owner.
    pub requests: u64,
    /// Writes among them that changed data.
    pub writes: u64,
    /// Sessions of here that are over.
    pub ended: u64,
    /// Last words that were written.
    pub spoken: u64,
    /// Last words that yielded.
    pub yielded: u64,
    /// Last words that were refused.
    pub denied: u64,
    /// Sessions that have last words with this owner.
    pub leaving: usize,
    /// Sessions of before the start whose last words wait here.
    pub estates: usize,
    /// Locations of this owner that somebody listens to.
    pub listens: usize,
    /// Namespaces that it owns.
    pub namespaces: usize,
    /// Messages to itself that it has not read, and answers that it has not sent in full.
    pub queued: usize,
    /// The most by which it came too late for something in the last whole second, or in this one.
    pub late: Millis,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// Where it lives.
    pub session: SessionRef,
    /// How its client speaks.
    pub protocol: Protocol,
    /// Who its client is.
    pub who: Who,
    /// Since when it lives.
    pub age: Millis,
    /// Since when nothing was heard of it.
    pub silent: Millis,
    /// How many last words it has left, a merge being one.
    pub words: usize,
}

/// Some sessions of one core.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionPage {
    /// In the order of their slots.
    pub rows: Vec<SessionRow>,
    /// Where it goes on; absent after the last core's last.
    pub next: Option<SessionMark>,
}

/// One last word that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WordRow {
    /// Whose.
    pub session: SessionRef,
    /// Who that is.
    pub who: Who,
    /// Its session was over when the server started.
    pub is_owed: bool,
    /// What it would write.
    pub write: Write,
}

/// Some last words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WordPage {
    /// By session, in the order in which they will be spoken.
    pub rows: Vec<WordRow>,
    /// Where it goes on, if there may be more.
    pub next: Option<WordMark>,
}

/// What became of a last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    /// It was written.
    Spoken,
    /// Somebody had written the path since.
    Yielded,
    /// It was refused.
    Denied,
}

impl Became {
    /// The word for people and tools.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Spoken => "spoken",
            Self::Yielded => "yielded",
            Self::Denied => "denied",
        }
    }
}

/// What became of one last word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// Its number; later ones are higher.
    pub order: u64,
    /// When.
    pub at: WallMillis,
    /// Where.
    pub namespace: Namespace,
    /// The path that it was about.
    pub path: Path,
    /// The first places of an update, absolute; none of what is about one place.
    pub places: Box<[Path]>,
    /// How many places that update had.
    pub places_count: usize,
    /// What kind of write it was: see [`kind_of`].
    pub kind: &'static str,
    /// What became of it.
    pub became: Became,
    /// Why its session was over.
    pub end: End,
    /// Its session.
    pub session: SessionRef,
    /// Whose it was.
    pub who: Who,
    /// The session was over when the server started.
    pub is_owed: bool,
    /// What refused it, for people.
    pub why: Option<Box<str>>,
    /// What it yielded to, if that is known.
    pub newer: Option<Box<Trace>>,
}

/// What became of some last words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecentPage {
    /// The latest last.
    pub rows: Vec<Happened>,
    /// The number of the latest of all.
    pub latest: u64,
    /// There were more than are told.
    pub is_cut: bool,
}

/// What somebody changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A client of a session asked for it.
    Client,
    /// A plain request asked for it.
    Rest,
    /// It was a last word, and its session had ended so.
    LastWord(End),
    /// The same of a session that was over when the server started.
    Owed(End),
}

impl Cause {
    /// The word for people and tools.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Rest => "rest",
            Self::LastWord(_) => "last_word",
            Self::Owed(_) => "last_word_of_before_start",
        }
    }

    /// Why its session was over, if it was.
    #[must_use]
    pub const fn end(self) -> Option<End> {
        match self {
            Self::Client | Self::Rest => None,
            Self::LastWord(end) | Self::Owed(end) => Some(end),
        }
    }
}

/// One change of data, as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Where; absent if it was too long to be kept and nobody has asked by it.
    pub path: Option<Path>,
    /// When.
    pub at: WallMillis,
    /// What made it.
    pub cause: Cause,
    /// By whom it was asked.
    pub session: SessionRef,
    /// Who that was.
    pub who: Who,
    /// It was an update of very many places below: perhaps not of the one that was asked for.
    pub is_wide: bool,
}

/// Why a place is as it is, as far as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Which.
    pub path: Path,
    /// What stands there.
    pub node: Node,
    /// The latest write there or above.
    pub last: Option<Trace>,
    /// Writes below, the latest first.
    pub below: Vec<Trace>,
    /// Last words that will write there, above or below.
    pub waiting: Vec<WordRow>,
    /// So many sessions with last words were not looked at.
    pub unseen: usize,
    /// What became of last words there, above or below.
    pub recent: Vec<Happened>,
}

/// Some children of one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildPage {
    /// The place.
    pub path: Path,
    /// What stands there.
    pub node: Node,
    /// Its children, in order.
    pub rows: Vec<(Key, Node)>,
    /// There are more.
    pub is_cut: bool,
}

/// What the rules say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Whether they allow it.
    pub is_allowed: bool,
    /// Why not, for people.
    pub why: Option<String>,
    /// The line and the column of each rule that said no.
    pub places: Vec<(u32, u32)>,
}

/// The beginning of everything of a namespace, as far as one core knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Glance {
    /// How the core is.
    pub figures: Figures,
    /// The first sessions of the core.
    pub sessions: SessionPage,
    /// What only the owner knows.
    pub owned: Option<Owned>,
}

/// What only the owner of a namespace knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    /// The first last words that wait.
    pub words: WordPage,
    /// Sessions that have left some.
    pub leaving: usize,
    /// What became of others.
    pub recent: RecentPage,
}

/// What kind of write it is, for people and tools.
#[must_use]
pub const fn kind_of(write: &Write) -> &'static str {
    match write {
        Write::Set { value, .. } if value.is_empty() => "remove",
        Write::Set { .. } => "set",
        Write::SetPriority { .. } => "set_priority",
        Write::Merge { .. } => "update",
    }
}
