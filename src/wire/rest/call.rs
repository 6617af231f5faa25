//! Heads to calls: what is asked, by whom, and how the answer is wanted.

use std::borrow::Cow;

use super::reply::Reply;
use super::tools::{self, Tool};
use super::{Answering, console, look, query};
use crate::base::SessionId;
use crate::data::{BadLong, Draft, Form, Location, Long, LongReader, Path};
use crate::json;
use crate::op::{Look, Query, Refusal, Write};
use crate::wire::{firebase, http};

/// Reads longer than this may not be asked for.
const TIMEOUT_MS_MAX: u64 = 15 * 60 * 1_000;

const NOT_REST: &str = "append .json to your request URI to use the REST API.";
/// From this length on a body is read a piece at a time.
const LONG_BODY_BYTES_MIN: usize = 128 << 10;
const NOT_JSON: &str = "Invalid data; couldn't parse JSON object, array, or value.";
const NO_OBJECT: &str = "Invalid data; couldn't parse JSON object. Are you sending a JSON object with valid key names?";

/// One request, as far as its head tells.
#[derive(Debug)]
pub struct Call {
    /// The database; `None` where neither the query nor the host names one.
    pub namespace: Option<String>,
    /// The query names it: nobody had to guess.
    pub is_namespace_named: bool,
    /// Who asks: an ID token, a secret, an access token.
    pub credential: Option<String>,
    /// Whom the asker, an administrator, wants to be taken for: the rules' `auth`.
    pub acting_as: Option<serde_json::Value>,
    /// What is asked, or why it cannot be.
    pub what: Result<What, Reply>,
    /// How the answer is wanted.
    pub style: Style,
}

/// How an answer is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Only its head (`HEAD`).
    pub is_head: bool,
    /// The client speaks HTTP/1.1, so the answer may come in chunks.
    pub is_1_1: bool,
    /// The client goes on with the connection.
    pub keeps_alive: bool,
    /// The client reads gzip.
    pub accepts_gzip: bool,
    /// `print=pretty`
    pub is_pretty: bool,
    /// `print=silent`: no body, if all went well.
    pub is_silent: bool,
    /// `callback`: a script that calls this.
    pub callback: Option<String>,
    /// `download`: to be kept as a file of this name.
    pub download: Option<String>,
    /// `X-Firebase-ETag`, or a condition: tell the ETag.
    pub wants_etag: bool,
    /// `if-none-match`: the client has this already.
    pub if_none_match: Option<String>,
}

/// What is asked.
#[derive(Debug)]
pub enum What {
    /// Read once.
    Get(Get),
    /// Read, and go on telling.
    Stream {
        /// Where.
        path: Path,
        /// What of it.
        query: Query,
        /// The stream that this one takes the place of: it is to be over first.
        last_stream: Option<SessionId>,
    },
    /// Go on telling of every operation.
    Profile,
    /// Write; the body says what.
    Write(WriteCall),
    /// Leave a last word with a stream; the body says what.
    LastWord {
        /// With which.
        stream: SessionId,
        /// What.
        write: WriteCall,
    },
    /// Cancel a stream's last words at and below a path.
    CancelLastWords {
        /// Whose.
        stream: SessionId,
        /// Which.
        path: Path,
    },
    /// The server's time.
    Time,
    /// Read the rules.
    GetRules,
    /// Replace the rules by the body.
    PutRules {
        /// Only say whether they are sound.
        is_dry_run: bool,
    },
    /// The names of all databases.
    Databases,
    /// Something of the server itself.
    Look(Look),
    /// Everything of the server itself, again and again.
    Watch,
    /// What the rules would say; the body says to whom and to what.
    Try,
    /// Something that the original service's tools ask of its other servers.
    Tool(Tool),
    /// Nothing that is not known already.
    Known(Reply),
}

impl What {
    /// Whether only administrators may ask for it.
    #[must_use]
    pub const fn is_managing(&self) -> bool {
        matches!(
            self,
            Self::GetRules
                | Self::PutRules { .. }
                | Self::Profile
                | Self::Databases
                | Self::Look(_)
                | Self::Watch
                | Self::Try
        )
    }

    /// Whether it is about the server, so that no database need be named.
    #[must_use]
    pub const fn is_about_all(&self) -> bool {
        matches!(self, Self::Databases | Self::Look(Look::Figures))
    }
}

/// One read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Get {
    /// Where.
    pub path: Path,
    /// What of it.
    pub query: Query,
    /// How it is shown.
    pub view: View,
}

/// How what was read is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// As a tree.
    Tree(Form),
    /// Its priority.
    Priority,
    /// How many children there are.
    Count,
}

/// One write, without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteCall {
    /// What kind.
    pub verb: Verb,
    /// Where.
    pub location: Location,
    /// Only if what stands there has this hash.
    pub if_hash: Option<String>,
}

/// What kind of write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Replace.
    Put,
    /// Replace several places below.
    Patch,
    /// Add a child with a new name.
    Post,
    /// Remove.
    Delete,
}

/// A write with its body: what to ask, and how to tell what came of it.
#[derive(Debug, PartialEq)]
pub struct Asked {
    /// What to write.
    pub write: Write,
    /// How to tell.
    pub answering: Answering,
}

impl Call {
    /// Reads a head.
    #[must_use]
    pub fn read(head: &http::Head<'_>) -> Self {
        let target = Target::of(head);
        let params = target.params;
        let mut call = Self {
            namespace: firebase::namespace(target.naming, head.host()).ok().map(Cow::into_owned),
            is_namespace_named: target.naming.get("ns").is_some_and(|name| !name.is_empty()),
            credential: credential(head, params),
            acting_as: None,
            what: Err(Reply::NOTHING),
            style: style(head, params),
        };
        call.what = acting_as(params).and_then(|acting_as| {
            call.acting_as = acting_as;
            what(head, &target)
        });
        call
    }
}

/// Where a request goes.
struct Target<'a> {
    path: &'a str,
    params: http::Query<'a>,
    /// What names the database.
    naming: http::Query<'a>,
}

impl<'a> Target<'a> {
    /// The original service's tools append a path to a URL that has a query already:
    /// `/?ns=name/.settings/rules.json?dryRun=true`.
    fn of(head: &http::Head<'a>) -> Self {
        if head.path == "/"
            && let Some(slash) = head.query.0.find('/').filter(|_| head.query.0.starts_with("ns="))
        {
            let (name, rest) = head.query.0.split_at(slash);
            let (path, params) = rest.split_once('?').unwrap_or((rest, ""));
            return Self { path, params: http::Query(params), naming: http::Query(name) };
        }
        Self { path: head.path, params: head.query, naming: head.query }
    }
}

fn credential(head: &http::Head<'_>, params: http::Query<'_>) -> Option<String> {
    let header = head.headers.text("authorization").and_then(|text| {
        let (scheme, credential) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| credential.trim().to_owned())
    });
    let param = |name| params.get(name).map(Cow::into_owned);
    header.or_else(|| param("access_token")).or_else(|| param("auth")).filter(|text| !text.is_empty())
}

/// `auth_variable_override`
fn acting_as(params: http::Query<'_>) -> Result<Option<serde_json::Value>, Reply> {
    let Some(text) = params.get("auth_variable_override") else { return Ok(None) };
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|_| Reply::bad("auth_variable_override is not valid JSON"))?;
    if value.is_null() || value.is_object() {
        Ok(Some(value))
    } else {
        Err(Reply::bad("auth_variable_override must be an object or null"))
    }
}

fn is_true(params: http::Query<'_>, name: &str) -> bool {
    params.raw(name).is_some_and(|value| matches!(value, "" | "1" | "true"))
}

fn style(head: &http::Head<'_>, params: http::Query<'_>) -> Style {
    let etag = |name| head.headers.text(name).map(|etag| hash_of(etag).to_owned());
    let print = params.get("print");
    Style {
        is_head: head.method == "HEAD",
        is_1_1: head.is_1_1,
        keeps_alive: head.keeps_alive(),
        accepts_gzip: accepts_gzip(head),
        is_pretty: print.as_deref() == Some("pretty"),
        is_silent: print.as_deref() == Some("silent"),
        callback: params.get("callback").map(Cow::into_owned).filter(|name| is_function_name(name)),
        download: params.get("download").filter(|name| !name.is_empty()).map(|name| file_name(&name)),
        wants_etag: ["x-firebase-etag", "if-match", "if-none-match"]
            .iter()
            .any(|name| head.headers.get(name).is_some()),
        if_none_match: etag("if-none-match"),
    }
}

/// Whether `gzip` is listed, and not with a weight of nothing (RFC 9110 section 12.5.3).
fn accepts_gzip(head: &http::Head<'_>) -> bool {
    let lines = head.headers.all("accept-encoding").filter_map(|line| std::str::from_utf8(line).ok());
    lines.flat_map(|line| line.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().strip_prefix("q=").unwrap_or("1");
        name.trim().eq_ignore_ascii_case("gzip") && weight.parse::<f32>().is_ok_and(|weight| weight > 0.0)
    })
}

/// The name of a JavaScript function, perhaps a member of objects: nothing else may be called, or the
/// answer would be whatever script a link's author likes.
fn is_function_name(name: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"_$.".contains(&byte);
    !name.is_empty() && name.len() <= 256 && name.bytes().all(is_good)
}

fn file_name(name: &str) -> String {
    let is_good = |character: char| character.is_ascii_alphanumeric() || "._- ()".contains(character);
    name.chars().take(255).map(|character| if is_good(character) { character } else { '_' }).collect()
}

/// The hash that an ETag is.
fn hash_of(etag: &str) -> &str {
    let bare = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
    if bare == super::reply::EMPTY_ETAG { "" } else { bare }
}

fn what(head: &http::Head<'_>, target: &Target<'_>) -> Result<What, Reply> {
    let params = target.params;
    if head.method == "OPTIONS" {
        return Ok(What::Known(Reply::preflight(head)));
    }
    if let Some(tool) = tools::read(head, target.path) {
        return Ok(What::Tool(tool));
    }
    if target.path == "/" && matches!(head.method, "GET" | "HEAD") {
        if console::is_page_wanted(head) {
            return Ok(What::Known(console::page()));
        }
        return Ok(What::Known(Reply::json(200, br#"{"stillhere":"is ready","rest":"append .json to a path"}"#)));
    }
    if let Some(reply) = console::part(head, target.path) {
        return Ok(What::Known(reply));
    }
    let Some(path) = target.path.strip_suffix(".json") else { return Err(Reply::error(404, NOT_REST)) };
    let path = http::percent_decode(path).map_err(|_| Reply::bad("Invalid path: not percent-encoded UTF-8"))?;
    let verb = verb(head, params)?;
    if params.get("callback").is_some_and(|name| !is_function_name(&name)) {
        return Err(Reply::bad("callback must be the name of a function"));
    }
    check_timeout(params)?;
    check_size_limit(params)?;
    match (&*path, verb) {
        ("/.settings/rules", None) => return Ok(What::GetRules),
        ("/.settings/rules", Some(Verb::Put)) => {
            return Ok(What::PutRules { is_dry_run: is_true(params, "dryRun") });
        }
        ("/.inspect/databases", None) => return Ok(What::Databases),
        ("/.settings/profile", None) if head.headers.lists("accept", "text/event-stream") => return Ok(What::Profile),
        ("/.settings/profile", None) => return Err(Reply::bad("the profile is a stream: ask for text/event-stream")),
        ("/.settings/rules" | "/.settings/profile" | "/.inspect/databases", Some(_)) => {
            return Err(Reply::method_not_allowed());
        }
        (_, None) if params.get("sv").as_deref() == Some("timestamp") => return Ok(What::Time),
        _ => {}
    }
    if let Some(name) = path.strip_prefix("/.stillhere/") {
        return look::read(head, params, name, verb);
    }
    let location = Location::parse(&path).map_err(|bad| Reply::refused(&Refusal::Path(bad)))?;
    match verb {
        None => read(head, params, location),
        Some(verb) => write(head, params, WriteCall { verb, location, if_hash: if_match(head) }),
    }
}

/// What kind of write, if it is one.
fn verb(head: &http::Head<'_>, params: http::Query<'_>) -> Result<Option<Verb>, Reply> {
    const OVERRIDE: &str = "x-http-method-override";
    let mut method = Cow::Borrowed(head.method);
    if method == "POST" {
        let param = || params.pairs().find(|(name, _)| name.eq_ignore_ascii_case(OVERRIDE)).map(|(_, value)| value);
        if let Some(other) = head.headers.text(OVERRIDE).or_else(param) {
            method = Cow::Owned(other.to_ascii_uppercase());
        }
    }
    match &*method {
        "GET" | "HEAD" => Ok(None),
        "PUT" => Ok(Some(Verb::Put)),
        "PATCH" => Ok(Some(Verb::Patch)),
        "POST" => Ok(Some(Verb::Post)),
        "DELETE" => Ok(Some(Verb::Delete)),
        _ => Err(Reply::method_not_allowed()),
    }
}

fn if_match(head: &http::Head<'_>) -> Option<String> {
    head.headers.text("if-match").map(|etag| hash_of(etag).to_owned())
}

/// `timeout=3ms`, `3s`, `3min`: nothing here takes so long, but a wrong one is told.
fn check_timeout(params: http::Query<'_>) -> Result<(), Reply> {
    let Some(text) = params.raw("timeout") else { return Ok(()) };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        _ => 0,
    };
    let ms = number.parse::<u64>().unwrap_or(0).saturating_mul(unit_ms);
    if (1..=TIMEOUT_MS_MAX).contains(&ms) {
        Ok(())
    } else {
        Err(Reply::bad("timeout must be a number followed by ms, s or min, and at most 15min"))
    }
}

/// `writeSizeLimit`: writes are bounded by their bytes here, so a sound one is as good as none.
fn check_size_limit(params: http::Query<'_>) -> Result<(), Reply> {
    match params.raw("writeSizeLimit") {
        None | Some("tiny" | "small" | "medium" | "large" | "unlimited") => Ok(()),
        Some(_) => Err(Reply::bad("writeSizeLimit must be one of tiny, small, medium, large, unlimited")),
    }
}

fn read(head: &http::Head<'_>, params: http::Query<'_>, location: Location) -> Result<What, Reply> {
    let Location { path, is_priority } = location;
    let is_shallow = is_true(params, "shallow");
    let is_count = is_true(params, "count");
    let query = query::read(params, is_shallow)?;
    if head.method == "GET" && head.headers.lists("accept", "text/event-stream") {
        if is_priority || is_shallow || is_count {
            return Err(Reply::bad("a stream shows a location as it is"));
        }
        let last = params.get("ls").map(Cow::into_owned);
        let last = last.or_else(|| head.headers.text("last-event-id").map(str::to_owned));
        let last_stream = last.and_then(|text| SessionId::parse(&text));
        return Ok(What::Stream { path, query, last_stream });
    }
    let view = if is_priority {
        View::Priority
    } else if is_count {
        View::Count
    } else if is_shallow {
        View::Tree(Form::Shallow)
    } else if params.get("format").as_deref() == Some("export") {
        View::Tree(Form::Export)
    } else {
        View::Tree(Form::Plain)
    };
    Ok(What::Get(Get { path, query, view }))
}

fn write(head: &http::Head<'_>, params: http::Query<'_>, write: WriteCall) -> Result<What, Reply> {
    if write.location.is_priority && matches!(write.verb, Verb::Patch | Verb::Post) {
        return Err(Reply::method_not_allowed());
    }
    let Some(stream) = params.get("onDisconnect") else { return Ok(What::Write(write)) };
    let stream = SessionId::parse(&stream).ok_or_else(|| Reply::refused(&Refusal::NoSession))?;
    if head.headers.get("if-match").is_some() {
        return Err(Reply::bad("last words cannot have conditions"));
    }
    if !is_true(params, "cancel") {
        return Ok(What::LastWord { stream, write });
    }
    match write {
        WriteCall { verb: Verb::Delete, location: Location { path, is_priority: false }, .. } => {
            Ok(What::CancelLastWords { stream, path })
        }
        _ => Err(Reply::bad("last words are cancelled by DELETE, at a location")),
    }
}

impl WriteCall {
    /// Whether a body belongs to it.
    #[must_use]
    pub const fn has_body(&self) -> bool {
        !matches!(self.verb, Verb::Delete)
    }

    /// Reads the body, which is destroyed. `name` is for a new child.
    pub fn with_body(&self, body: &mut [u8], reader: &mut json::Reader, name: String) -> Result<Asked, Reply> {
        let location = self.location.clone();
        if self.verb == Verb::Delete {
            return set(location, json::Item::Null, Answering::Removed);
        }
        let read = reader.read(body, |item| match self.verb {
            Verb::Put if location.is_priority => {
                set(location, item, Answering::Get { view: View::Priority, query: Query::ALL })
            }
            Verb::Put => set(location, item, Answering::Written),
            Verb::Post => {
                let depth = self.location.path.depth() + 1;
                let value = Draft::from_json(item, depth).map_err(|bad| Reply::refused(&Refusal::Data(bad)))?;
                self.post(value, name)
            }
            // What the original service's command line removes with.
            Verb::Patch | Verb::Delete if matches!(item, json::Item::Null) => set(location, item, Answering::Removed),
            Verb::Patch | Verb::Delete => {
                let members = item.as_object().ok_or_else(|| Reply::bad(NO_OBJECT))?;
                let write = firebase::read_merge(location.path, members).map_err(|bad| Reply::refused(&bad))?;
                Ok(merged(write))
            }
        });
        read.unwrap_or_else(|_| Err(Reply::bad(NOT_JSON)))
    }

    /// The body, to be read a piece at a time, if it is long. Otherwise it is given back.
    pub fn long_body(&self, body: Vec<u8>) -> Result<LongReader, Vec<u8>> {
        let depth = self.location.path.depth();
        if body.len() < LONG_BODY_BYTES_MIN {
            return Err(body);
        }
        match self.verb {
            Verb::Put if !self.location.is_priority => Ok(LongReader::value(body, depth)),
            Verb::Post => Ok(LongReader::value(body, depth + 1)),
            Verb::Patch => Ok(LongReader::places(body, depth)),
            Verb::Put | Verb::Delete => Err(body),
        }
    }

    /// What a long body asks for. `name` is for a new child.
    pub fn with_long(&self, read: Result<Long, BadLong>, name: String) -> Result<Asked, Reply> {
        let path = self.location.path.clone();
        match read.map_err(bad_long)? {
            Long::Value(value) if self.verb == Verb::Post => self.post(value, name),
            Long::Value(value) => {
                let answering = if self.verb == Verb::Patch { Answering::Removed } else { Answering::Written };
                Ok(Asked { write: Write::Set { path, value }, answering })
            }
            Long::Places(changes) => {
                let write = firebase::merge(path, changes).map_err(|bad| Reply::refused(&bad))?;
                Ok(merged(write))
            }
        }
    }

    fn post(&self, value: Draft, name: String) -> Result<Asked, Reply> {
        let child = Path::parse(&name).expect("a push id is a key");
        let path = self.location.path.join(&child);
        if path.depth() > crate::base::limits::DEPTH_MAX {
            return Err(Reply::refused(&Refusal::Path(crate::data::InvalidPath::TooDeep)));
        }
        // A condition is about the location that was named, so the write must be about it too.
        let write = if self.if_hash.is_some() {
            Write::Merge { path: self.location.path.clone(), changes: vec![(Location::from(child), value)] }
        } else {
            Write::Set { path, value }
        };
        Ok(Asked { write, answering: Answering::Pushed { name } })
    }
}

fn merged(write: Write) -> Asked {
    let places = match &write {
        Write::Merge { changes, .. } => changes.iter().map(|(place, _)| place.clone()).collect(),
        _ => Vec::new(),
    };
    Asked { write, answering: Answering::Merged { places } }
}

fn bad_long(bad: BadLong) -> Reply {
    match bad {
        BadLong::NotJson => Reply::bad(NOT_JSON),
        BadLong::NoObject => Reply::bad(NO_OBJECT),
        BadLong::Data(bad) => Reply::refused(&Refusal::Data(bad)),
        BadLong::Path(bad) => Reply::refused(&Refusal::Path(bad)),
        BadLong::TooManyPlaces => Reply::refused(&Refusal::Limit("paths in one update")),
    }
}

fn set(location: Location, item: json::Item<'_>, answering: Answering) -> Result<Asked, Reply> {
    let write = firebase::read_set(location, item).map_err(|bad| Reply::refused(&bad))?;
    Ok(Asked { write, answering })
}
