//! What clients say (Firebase wire specification, sections 1.4, 1.5 and 2).

use smallvec::SmallVec;

use super::query::read_query;
use crate::base::limits::{DEPTH_MAX, MERGE_PATHS_MAX};
use crate::data::{Draft, InvalidPath, Location, Path};
use crate::json::{self, Item, Members};
use crate::op::{Query, Refusal, Request, Tag, Write};

/// A client's message.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// About the connection itself.
    Control(Control),
    /// A request, to be answered under its number, in turn.
    Request {
        /// The client's number for it.
        number: i64,
        /// What is asked.
        action: Action,
    },
    /// A request that cannot be granted, to be refused in turn.
    Refused {
        /// The client's number for it.
        number: i64,
        /// Why.
        refusal: Refusal,
    },
    /// Something of an unknown kind: to be ignored.
    Unknown,
    /// Not a message: what follows cannot be trusted. The text says why.
    Broken(&'static str),
}

/// A message about the connection itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// To be answered by a pong.
    Ping,
    /// The client leaves this transport for another (`n`).
    End,
    /// The client goes on on this transport (`a`).
    Switched,
    /// One that means nothing to a server.
    Other,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Nothing: it tells about the client (`s`).
    Stats,
    /// Something of the data (`q`, `n`, `g`, `p`, `m`).
    Ask(Request),
    /// Register last words (`o`, `om`).
    OnDisconnect(Write),
    /// Forget the last words for a path and everything below (`oc`).
    CancelOnDisconnect(Path),
    /// Sign in (`auth`, `gauth`).
    Auth {
        /// The credential.
        cred: String,
        /// Act as nobody although the credential is an administrator's.
        noauth: bool,
        /// Act as whom the rules see as this.
        authvar: Option<serde_json::Value>,
    },
    /// Sign out (`unauth`).
    Unauth,
    /// Show where the client's code comes from (`appcheck`).
    AppCheck,
    /// Take that back (`unappcheck`, and as JavaScript spells it: `unappeck`).
    UnAppCheck,
    /// Say it back (`echo`): JSON.
    Echo(String),
}

/// Reads one message. The text is destroyed.
pub fn decode(text: &mut [u8], reader: &mut json::Reader) -> Incoming {
    reader.read(text, read).unwrap_or(Incoming::Broken("not JSON"))
}

/// Reads one message that has been parsed.
#[must_use]
pub fn read(message: Item<'_>) -> Incoming {
    if message.as_object().is_none() {
        return Incoming::Broken("a message is an object");
    }
    let [kind, body] = message.pick(["t", "d"]);
    let body = body.unwrap_or(Item::Null);
    match kind.and_then(Item::as_text) {
        Some("d") => {
            let [number, name, body] = body.pick(["r", "a", "b"]);
            let Some(number) = number.and_then(Item::as_int) else {
                return Incoming::Broken("a request has a number");
            };
            match action(name, body.unwrap_or(Item::Null)) {
                Ok(action) => Incoming::Request { number, action },
                Err(refusal) => Incoming::Refused { number, refusal },
            }
        }
        Some("c") => Incoming::Control(match body.get("t").and_then(Item::as_text) {
            Some("p") => Control::Ping,
            Some("n") => Control::End,
            Some("a") => Control::Switched,
            _ => Control::Other,
        }),
        _ => Incoming::Unknown,
    }
}

fn action(name: Option<Item<'_>>, whole: Item<'_>) -> Result<Action, Refusal> {
    let name = name.and_then(Item::as_text).ok_or(Refusal::Malformed("a"))?;
    let body = Body::of(whole);
    Ok(match name {
        "s" => Action::Stats,
        "q" | "l" => {
            let (query, tag) = body.listen()?;
            Action::Ask(Request::Listen { path: body.path()?, query, tag, hash: body.hash()? })
        }
        "n" | "u" => Action::Ask(Request::Unlisten { path: body.path()?, tag: body.tag()? }),
        "g" => Action::Ask(Request::Get { path: body.path()?, query: body.query()?.unwrap_or(Query::ALL) }),
        "p" => Action::Ask(Request::Write { write: body.set()?, if_hash: body.hash()? }),
        "m" => Action::Ask(Request::Write { write: body.merge()?, if_hash: body.hash()? }),
        "o" => Action::OnDisconnect(body.set()?),
        "om" => Action::OnDisconnect(body.merge()?),
        "oc" => Action::CancelOnDisconnect(body.path()?),
        "auth" | "gauth" => Action::Auth {
            cred: whole.get("cred").and_then(Item::as_text).ok_or(Refusal::Malformed("cred"))?.to_owned(),
            noauth: matches!(whole.get("noauth"), Some(Item::Bool(true))),
            authvar: whole.get("authvar").map(Item::to_serde),
        },
        "unauth" => Action::Unauth,
        "appcheck" => Action::AppCheck,
        "unappcheck" | "unappeck" => Action::UnAppCheck,
        "echo" => Action::Echo(whole.get("d").unwrap_or(Item::Null).to_serde().to_string()),
        _ => return Err(Refusal::UnknownAction),
    })
}

/// What the body of a request may have, unread.
#[derive(Clone, Copy)]
struct Body<'t> {
    path: Option<Item<'t>>,
    data: Option<Item<'t>>,
    hash: Option<Item<'t>>,
    query: Option<Item<'t>>,
    tag: Option<Item<'t>>,
}

impl<'t> Body<'t> {
    fn of(whole: Item<'t>) -> Self {
        let [path, data, hash, query, tag] = whole.pick(["p", "d", "h", "q", "t"]);
        Self { path, data, hash, query, tag }
    }

    fn path_text(self) -> Result<&'t str, Refusal> {
        self.path.and_then(Item::as_text).ok_or(Refusal::Malformed("p"))
    }

    fn path(self) -> Result<Path, Refusal> {
        Path::parse(self.path_text()?).map_err(Refusal::Path)
    }

    fn data(self) -> Result<Item<'t>, Refusal> {
        self.data.ok_or(Refusal::Malformed("d"))
    }

    fn hash(self) -> Result<Option<String>, Refusal> {
        match self.hash {
            None | Some(Item::Null) => Ok(None),
            Some(Item::Text(hash)) => Ok(Some(hash.to_owned())),
            Some(_) => Err(Refusal::Malformed("h")),
        }
    }

    fn tag(self) -> Result<Tag, Refusal> {
        let Some(tag) = self.tag else { return Ok(None) };
        let tag = tag.as_int().and_then(|tag| u64::try_from(tag).ok());
        tag.filter(|tag| *tag > 0).map(Some).ok_or(Refusal::Malformed("t"))
    }

    fn query(self) -> Result<Option<Query>, Refusal> {
        self.query.map(read_query).transpose()
    }

    /// What to listen to, and under which tag. Of a part of a location without a tag, the client
    /// could not tell the events from those of the whole.
    fn listen(self) -> Result<(Query, Tag), Refusal> {
        let query = self.query()?.unwrap_or(Query::ALL);
        let tag = self.tag()?;
        if tag.is_none() && !query.is_all() { Err(Refusal::Malformed("t")) } else { Ok((query, tag)) }
    }

    fn set(self) -> Result<Write, Refusal> {
        read_set(Location::parse(self.path_text()?).map_err(Refusal::Path)?, self.data()?)
    }

    fn merge(self) -> Result<Write, Refusal> {
        read_merge(self.path()?, self.data()?.as_object().ok_or(Refusal::Malformed("d"))?)
    }
}

/// Reads what is to stand at a location.
pub fn read_set(Location { path, is_priority }: Location, data: Item<'_>) -> Result<Write, Refusal> {
    if is_priority {
        let priority = Draft::priority_from_json(data).map_err(Refusal::Data)?;
        return Ok(Write::SetPriority { path, priority });
    }
    let value = Draft::from_json(data, path.depth()).map_err(Refusal::Data)?;
    Ok(Write::Set { path, value })
}

/// Reads what is to stand at several places below a path.
pub fn read_merge(path: Path, members: Members<'_>) -> Result<Write, Refusal> {
    if members.len() > MERGE_PATHS_MAX {
        return Err(Refusal::Limit("paths in one update"));
    }
    let mut changes = Vec::with_capacity(members.len());
    for (name, item) in members {
        let location = Location::parse(name).map_err(Refusal::Path)?;
        let depth = path.depth() + location.path.depth();
        if depth > DEPTH_MAX {
            return Err(Refusal::Path(InvalidPath::TooDeep));
        }
        if location.is_priority {
            // As a draft it is a leaf like any other; as a priority it may not be every leaf.
            Draft::priority_from_json(item).map_err(Refusal::Data)?;
        }
        changes.push((location, Draft::from_json(item, depth).map_err(Refusal::Data)?));
    }
    merge(path, changes)
}

/// What is to stand at several places below a path, if none is above another.
pub fn merge(path: Path, changes: Vec<(Location, Draft)>) -> Result<Write, Refusal> {
    if overlap(&changes) { Err(Refusal::Overlap) } else { Ok(Write::Merge { path, changes }) }
}

/// Whether a place is the same as another or above it. Its priority is below a place.
fn overlap(changes: &[(Location, Draft)]) -> bool {
    if changes.len() < 2 {
        return false;
    }
    // In this order whatever is below a place follows it at once, so neighbours tell.
    let mut places: SmallVec<[&Location; 16]> = changes.iter().map(|(location, _)| location).collect();
    places.sort_unstable_by(|a, b| tree_order(a).cmp(tree_order(b)));
    places.windows(2).any(|pair| match (pair[0].is_priority, pair[1].is_priority) {
        (false, _) => pair[0].path.contains(&pair[1].path),
        (true, is_priority) => is_priority && pair[0].path == pair[1].path,
    })
}

/// The bytes of a place such that a place comes directly before all that is below it, its priority
/// first: no key holds a byte as small as these.
fn tree_order(location: &Location) -> impl Iterator<Item = u8> {
    let keys = location.path.as_str().bytes().map(|byte| if byte == b'/' { 1 } else { byte });
    keys.chain(location.is_priority.then_some(0))
}
