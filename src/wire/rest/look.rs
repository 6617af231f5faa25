//! The server's view of itself over HTTP: `/.stillhere/…` to what is asked, what is seen to JSON.
//!
//! The surprising idea: a session is named by where it lives (`core.slot.generation`), never by its id:
//! who knows an id may end that session and leave words in its name, and operators' screens are looked at
//! by others too. Costs: of a value that is shown along with others, at most [`PREVIEW_BYTES`] are printed.

use super::call::{Verb, What, WriteCall};
use super::reply::Reply;
use crate::base::limits::{LOOK_PLACES_MAX, LOOK_ROWS_MAX};
use crate::base::{SessionRef, ShardId};
use crate::data::{Form, Key, Location, Node, Path, Printer};
use crate::json::{self, Item};
use crate::op::{
    ChildPage, Explained, Figures, Glance, Happened, Look, PageCall, Protocol, RecentPage, Refusal, SessionMark,
    SessionPage, SessionRow, Sight, Trace, Tried, Who, WordMark, WordPage, WordRow, Write, kind_of,
};
use crate::wire::http;

/// Rows where nobody says how many.
const ROWS: usize = 100;
/// Bytes of a value that is shown along with others.
const PREVIEW_BYTES: usize = 200;
/// Places of one last word that are named.
const PLACES_SHOWN: usize = 20;

const NO_LOOK: &str = "there is no such view: see docs/REST.md";

/// A trial of the rules, as its body says.
#[derive(Debug, PartialEq)]
pub struct TrialBody {
    /// Other rules than those in force: their text.
    pub rules: Option<String>,
    /// The rules' `auth`.
    pub auth: serde_json::Value,
    /// Where.
    pub path: Path,
    /// What is written; nothing if it is a read.
    pub write: Option<Write>,
}

/// Reads a request below `/.stillhere/`, without `.json`.
pub(super) fn read(
    head: &http::Head<'_>,
    params: http::Query<'_>,
    name: &str,
    verb: Option<Verb>,
) -> Result<What, Reply> {
    let is_stream = head.headers.lists("accept", "text/event-stream");
    let rows_max = rows_max(params)?;
    let after = params.get("after").filter(|after| !after.is_empty());
    let bad_mark = || Reply::bad("after is not what a page has told as next");
    let look = match (name, verb) {
        ("live", None) if is_stream => return Ok(What::Watch),
        ("live", None) => return Err(Reply::bad("this is a stream: ask for text/event-stream")),
        ("try", Some(Verb::Post)) => return Ok(What::Try),
        ("cores", None) => Look::Figures,
        ("sessions", None) => {
            let from = after.map(|after| session_mark(&after).ok_or_else(bad_mark)).transpose()?.unwrap_or_default();
            Look::Sessions { from, rows_max }
        }
        ("sessions", Some(Verb::Delete)) => {
            let session = params.get("session").and_then(|text| session_ref(&text));
            Look::Kill { session: session.ok_or_else(|| Reply::bad("say which: session=CORE.SLOT.GENERATION"))? }
        }
        ("lastwords", None) => {
            let after = after.map(|after| word_mark(&after).ok_or_else(bad_mark)).transpose()?.unwrap_or_default();
            Look::Words { after, rows_max }
        }
        ("recent", None) => {
            let after = after.map(|after| after.parse().map_err(|_| bad_mark())).transpose()?.unwrap_or_default();
            Look::Recent { after, rows_max }
        }
        ("explain", None) => Look::Explain { path: paths(params)?.into_iter().next().unwrap_or(Path::ROOT) },
        ("children", None) => {
            let after = after.map(|after| Key::parse(&after).map_err(|_| bad_mark())).transpose()?;
            let page = |path| PageCall { path, after: after.clone(), rows_max };
            Look::Children(paths(params)?.into_iter().map(page).collect())
        }
        ("live" | "cores" | "sessions" | "lastwords" | "recent" | "explain" | "children" | "try", _) => {
            return Err(Reply::method_not_allowed());
        }
        _ => return Err(Reply::error(404, NO_LOOK)),
    };
    Ok(What::Look(look))
}

fn rows_max(params: http::Query<'_>) -> Result<usize, Reply> {
    let Some(text) = params.raw("limit") else { return Ok(ROWS) };
    let limit = text.parse().ok().filter(|limit| (1..=LOOK_ROWS_MAX).contains(limit));
    limit.ok_or_else(|| Reply::bad("limit must be a number from 1 to 1000"))
}

fn paths(params: http::Query<'_>) -> Result<Vec<Path>, Reply> {
    let texts = params.pairs().filter(|(name, _)| *name == "path").map(|(_, value)| value);
    let read = |text: &str| {
        let text = http::form_decode(text).map_err(|_| Reply::bad("Invalid path: not percent-encoded UTF-8"))?;
        Path::parse(&text).map_err(|bad| Reply::refused(&Refusal::Path(bad)))
    };
    let paths: Vec<Path> = texts.take(LOOK_PLACES_MAX + 1).map(read).collect::<Result<_, _>>()?;
    match paths.len() {
        0 => Ok(vec![Path::ROOT]),
        count if count > LOOK_PLACES_MAX => Err(Reply::bad("that are too many paths at once")),
        _ => Ok(paths),
    }
}

/// `CORE.SLOT`
fn session_mark(text: &str) -> Option<SessionMark> {
    let (core, slot) = text.split_once('.')?;
    Some(SessionMark { core: ShardId(core.parse().ok()?), slot: slot.parse().ok()? })
}

/// `CORE.SLOT.GENERATION`
fn session_ref(text: &str) -> Option<SessionRef> {
    let (core, rest) = text.split_once('.')?;
    let (slot, generation) = rest.split_once('.')?;
    let home = ShardId(core.parse().ok()?);
    Some(SessionRef { home, slot: slot.parse().ok()?, generation: generation.parse().ok()? })
}

/// `owed.N`, or a session
fn word_mark(text: &str) -> Option<WordMark> {
    match text.strip_prefix("owed.") {
        Some(order) => order.parse().ok().map(WordMark::Owed),
        None => session_ref(text).map(WordMark::Living),
    }
}

/// Reads the body of a trial, which is destroyed: `{"op": "read" | "set" | "update" | "remove", "path": …,
/// "value": …, "auth": …, "rules": …}`.
pub fn read_trial(body: &mut [u8], reader: &mut json::Reader) -> Result<TrialBody, Reply> {
    let read = reader.read(body, |item| {
        let text = |name| item.get(name).and_then(Item::as_text).map(str::to_owned);
        let auth = item.get("auth").map_or(serde_json::Value::Null, Item::to_serde);
        let value = item.get("value").map_or(serde_json::Value::Null, Item::to_serde);
        (text("op"), text("path"), auth, value, text("rules"))
    });
    let (op, path, auth, value, rules) =
        read.map_err(|_| Reply::bad("Invalid data; couldn't parse JSON object, array, or value."))?;
    if !auth.is_null() && !auth.is_object() {
        return Err(Reply::bad("auth must be an object or null"));
    }
    let location = Location::parse(&path.unwrap_or_default()).map_err(|bad| Reply::refused(&Refusal::Path(bad)))?;
    let path = location.path.clone();
    let verb = match op.as_deref() {
        Some("read") => return Ok(TrialBody { rules, auth, path, write: None }),
        Some("set") => Verb::Put,
        Some("update") => Verb::Patch,
        Some("remove") => Verb::Delete,
        _ => return Err(Reply::bad("op must be read, set, update or remove")),
    };
    let call = WriteCall { verb, location, if_hash: None };
    let asked = call.with_body(&mut value.to_string().into_bytes(), &mut json::Reader::default(), String::new())?;
    Ok(TrialBody { rules, auth, path, write: Some(asked.write) })
}

/// A JSON object that is being written.
struct Object<'o> {
    out: &'o mut Vec<u8>,
    is_empty: bool,
}

impl<'o> Object<'o> {
    fn begin(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, is_empty: true }
    }

    fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::replace(&mut self.is_empty, false) {
            self.out.push(b',');
        }
        json::text(self.out, name);
        self.out.push(b':');
        self.out
    }

    fn text(&mut self, name: &str, value: &str) -> &mut Self {
        json::text(self.name(name), value);
        self
    }

    fn number(&mut self, name: &str, value: impl itoa::Integer) -> &mut Self {
        json::integer(self.name(name), value);
        self
    }

    fn is(&mut self, name: &str, value: bool) -> &mut Self {
        self.name(name).extend_from_slice(if value { b"true" } else { b"false" });
        self
    }

    fn null(&mut self, name: &str) -> &mut Self {
        self.name(name).extend_from_slice(b"null");
        self
    }

    fn rows<T>(&mut self, name: &str, rows: &[T], each: impl Fn(&mut Vec<u8>, &T)) -> &mut Self {
        array(self.name(name), rows, each);
        self
    }

    fn session(&mut self, session: SessionRef) -> &mut Self {
        self.text("session", &number(session))
    }

    /// `uid`, or `admin`; neither of nobody.
    fn who(&mut self, who: &Who) -> &mut Self {
        match who {
            Who::Nobody => self.null("uid"),
            Who::Somebody => self.text("uid", ""),
            Who::User(uid) => self.text("uid", uid),
            Who::Admin => self.null("uid").is("admin", true),
        }
    }

    fn end(&mut self) {
        self.out.push(b'}');
    }
}

fn array<T>(out: &mut Vec<u8>, rows: &[T], each: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (index, row) in rows.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        each(out, row);
    }
    out.push(b']');
}

/// A session as operators name it.
fn number(session: SessionRef) -> String {
    format!("{}.{}.{}", session.home.0, session.slot, session.generation)
}

fn slashed(path: &Path) -> String {
    format!("/{}", path.as_str())
}

/// `preview`: the beginning of a value as JSON text; `is_cut` if that is not all.
fn preview(object: &mut Object<'_>, node: &Node) {
    let mut text = Vec::new();
    let mut is_whole = true;
    if let Node::Leaf(_) | Node::Ranked(_) = node
        && node.as_leaf().is_some()
    {
        crate::data::plain(&mut text, node);
    } else {
        is_whole = Printer::new(node.clone(), Form::Plain).print(&mut text, PREVIEW_BYTES);
    }
    let mut text = String::from_utf8(text).expect("JSON is text");
    if text.len() > PREVIEW_BYTES {
        let end = (0..=PREVIEW_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        is_whole = false;
    }
    object.text("preview", &text).is("cut", !is_whole);
}

impl Reply {
    /// What was seen: one sight, or one of each core.
    #[must_use]
    pub fn sights(sights: &[Sight]) -> Self {
        let mut out = Vec::new();
        match sights {
            [Sight::Figures(_), ..] => {
                let mut figures: Vec<&Figures> = sights
                    .iter()
                    .filter_map(|sight| if let Sight::Figures(figures) = sight { Some(&**figures) } else { None })
                    .collect();
                figures.sort_unstable_by_key(|figures| figures.core);
                let mut object = Object::begin(&mut out);
                object.rows("cores", &figures, |out, figures| write_figures(out, figures)).end();
            }
            [Sight::Killed(false), ..] => return Self::refused(&Refusal::NoSession),
            [sight, ..] => write_sight(&mut out, sight),
            [] => unreachable!("somebody has looked"),
        }
        Self::json(200, &out)
    }
}

fn write_sight(out: &mut Vec<u8>, sight: &Sight) {
    match sight {
        Sight::Figures(figures) => write_figures(out, figures),
        Sight::Sessions(page) => write_sessions(out, page),
        Sight::Killed(was_there) => Object::begin(out).is("killed", *was_there).end(),
        Sight::Words(page) => write_words(out, page),
        Sight::Recent(page) => write_recent(out, page),
        Sight::Explained(explained) => write_explained(out, explained),
        Sight::Children(pages) => {
            let mut object = Object::begin(out);
            object.rows("pages", pages, write_children).end();
        }
        Sight::Tried(tried) => write_tried(out, tried),
        Sight::Glance(glance) => write_parts(out, std::slice::from_ref(glance)),
    }
}

fn write_figures(out: &mut Vec<u8>, figures: &Figures) {
    let mut object = Object::begin(out);
    object.number("core", figures.core.0).number("at", figures.at.0).number("connections", figures.connections);
    let mut sessions = Object::begin(object.name("sessions"));
    for (protocol, count) in Protocol::ALL.iter().zip(figures.sessions) {
        sessions.number(protocol.as_str(), count);
    }
    sessions.end();
    object
        .number("requests", figures.requests)
        .number("writes", figures.writes)
        .number("ended", figures.ended)
        .number("spoken", figures.spoken)
        .number("yielded", figures.yielded)
        .number("denied", figures.denied)
        .number("leaving", figures.leaving)
        .number("estates", figures.estates)
        .number("listens", figures.listens)
        .number("databases", figures.namespaces)
        .number("queued", figures.queued)
        .number("lateMs", figures.late.0)
        .end();
}

fn write_sessions(out: &mut Vec<u8>, page: &SessionPage) {
    let mut object = Object::begin(out);
    object.rows("sessions", &page.rows, write_session);
    match page.next {
        Some(SessionMark { core, slot }) => object.text("next", &format!("{}.{slot}", core.0)),
        None => object.null("next"),
    };
    object.end();
}

fn write_session(out: &mut Vec<u8>, row: &SessionRow) {
    let mut object = Object::begin(out);
    object.session(row.session).number("core", row.session.home.0).text("protocol", row.protocol.as_str());
    object.who(&row.who).number("ageMs", row.age.0).number("silentMs", row.silent.0).number("words", row.words).end();
}

fn write_words(out: &mut Vec<u8>, page: &WordPage) {
    let mut object = Object::begin(out);
    object.rows("lastwords", &page.rows, write_word);
    match page.next {
        Some(WordMark::Owed(order)) => object.text("next", &format!("owed.{order}")),
        Some(WordMark::Living(session)) => object.text("next", &number(session)),
        Some(WordMark::Begin) | None => object.null("next"),
    };
    object.end();
}

fn write_word(out: &mut Vec<u8>, row: &WordRow) {
    let mut object = Object::begin(out);
    object.session(row.session).who(&row.who).is("owed", row.is_owed);
    object.text("kind", kind_of(&row.write)).text("path", &slashed(row.write.path()));
    match &row.write {
        Write::Set { value, .. } => {
            preview(&mut object, value.stand_in());
            object.is("serverValues", !value.is_fixed());
        }
        Write::SetPriority { .. } => {}
        Write::Merge { changes, .. } => {
            let shown: Vec<&Location> = changes.iter().map(|(place, _)| place).take(PLACES_SHOWN).collect();
            object.rows("places", &shown, |out, place| json::text(out, place.path.as_str()));
            object.number("placesCount", changes.len());
        }
    }
    object.end();
}

fn write_recent(out: &mut Vec<u8>, page: &RecentPage) {
    let mut object = Object::begin(out);
    object.rows("recent", &page.rows, write_happened).number("latest", page.latest).is("cut", page.is_cut).end();
}

fn write_happened(out: &mut Vec<u8>, row: &Happened) {
    let mut object = Object::begin(out);
    object.number("order", row.order).number("at", row.at.0).text("path", &slashed(&row.path)).text("kind", row.kind);
    if row.places_count > 0 {
        object.rows("places", &row.places, |out, place| json::text(out, &slashed(place)));
        object.number("placesCount", row.places_count);
    }
    object.text("became", row.became.as_str()).text("end", row.end.as_str());
    object.session(row.session).who(&row.who).is("owed", row.is_owed);
    if let Some(why) = &row.why {
        object.text("why", why);
    }
    if let Some(newer) = &row.newer {
        write_trace(object.name("newer"), newer);
    }
    object.end();
}

fn write_trace(out: &mut Vec<u8>, trace: &Trace) {
    let mut object = Object::begin(out);
    match &trace.path {
        Some(path) => object.text("path", &slashed(path)),
        None => object.null("path"),
    };
    object.number("at", trace.at.0).text("cause", trace.cause.as_str());
    if let Some(end) = trace.cause.end() {
        object.text("end", end.as_str());
    }
    object.session(trace.session).who(&trace.who);
    if trace.is_wide {
        object.is("wide", true);
    }
    object.end();
}

fn write_explained(out: &mut Vec<u8>, explained: &Explained) {
    let mut object = Object::begin(out);
    object.text("path", &slashed(&explained.path)).is("exists", !explained.node.is_empty());
    preview(&mut object, &explained.node);
    match &explained.last {
        Some(trace) => write_trace(object.name("last"), trace),
        None => drop(object.null("last")),
    }
    object
        .rows("below", &explained.below, write_trace)
        .rows("waiting", &explained.waiting, write_word)
        .number("unseen", explained.unseen)
        .rows("recent", &explained.recent, write_happened)
        .end();
}

fn write_children(out: &mut Vec<u8>, page: &ChildPage) {
    let mut object = Object::begin(out);
    object.text("path", &slashed(&page.path)).number("count", page.node.children().len());
    if page.node.children().is_empty() {
        preview(&mut object, &page.node);
    }
    object.rows("children", &page.rows, |out, (key, node)| {
        let mut object = Object::begin(out);
        object.text("key", key.as_str()).number("count", node.children().len());
        if node.children().is_empty() {
            preview(&mut object, node);
        }
        object.end();
    });
    object.is("more", page.is_cut).end();
}

fn write_tried(out: &mut Vec<u8>, tried: &Tried) {
    let mut object = Object::begin(out);
    object.is("allowed", tried.is_allowed);
    if let Some(why) = &tried.why {
        object.text("why", why);
    }
    object.rows("rules", &tried.places, |out, (line, column)| {
        Object::begin(out).number("line", *line).number("column", *column).end();
    });
    object.end();
}

/// What all cores have told, as one object.
fn write_parts(out: &mut Vec<u8>, parts: &[Glance]) {
    let mut object = Object::begin(out);
    object.rows("cores", parts, |out, part| write_figures(out, &part.figures));
    let sessions: Vec<&SessionRow> = parts.iter().flat_map(|part| &part.sessions.rows).collect();
    object.rows("sessions", &sessions, |out, row| write_session(out, row));
    // The last core's page has none after it.
    let is_cut = parts.iter().any(|part| part.sessions.next.is_some_and(|next| next.core == part.figures.core));
    object.is("sessionsCut", is_cut);
    if let Some(owned) = parts.iter().find_map(|part| part.owned.as_ref()) {
        object.rows("lastwords", &owned.words.rows, write_word).is("lastwordsCut", owned.words.next.is_some());
        object.number("leaving", owned.leaving);
        object.rows("recent", &owned.recent.rows, write_happened).is("recentCut", owned.recent.is_cut);
    }
    object.end();
}

/// Appends what all cores have told as an event.
pub fn write_glance(out: &mut Vec<u8>, parts: &[Glance]) {
    out.extend_from_slice(b"event: glance\ndata: ");
    write_parts(out, parts);
    out.extend_from_slice(b"\n\n");
}
