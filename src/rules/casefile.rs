//! Runs files of rule cases: each line is a JSON object with rules, data, a request and what is
//! expected of it. Text in, report out; whoever has files reads them.
//!
//! The members of a case: `rules` (or `rules_text`, byte for byte), `dialect`, `data`, `auth` (the
//! rules' variable itself), `path`, `op` (`read`, `write`, `update`, `deploy`), `newData`, `query`,
//! `now`, `expected` (`allow`, `deny`, `accepted`, `parse_error`), `error` (its text without position),
//! `name`. Whatever else is there is for people.

use std::fmt;

use super::eval::{Asking, Value};
use super::ruleset::{Ask, Dialect, Ruleset, Verdict};
use super::view::{Change, What};
use crate::base::WallMillis;
use crate::data::{Draft, Location, Node, Path, Priority, PriorityDraft};
use crate::json::{self, Item, Reader};
use crate::op::Identity;

/// The rules' `now` where a case does not say.
const NOW: WallMillis = WallMillis(1_700_000_000_000);

/// What came of running cases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Cases that turned out as expected.
    pub passed: usize,
    /// Those that did not.
    pub mismatches: Vec<Mismatch>,
}

/// A case that turned out otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Its line in the file, from 1.
    pub line: usize,
    /// Its name; empty if it has none.
    pub name: String,
    /// What was expected and what happened, or why the line is no case.
    pub text: String,
}

impl Report {
    /// Adds another report to this one.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.mismatches.extend(other.mismatches);
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: {}", self.line, self.name, self.text)
    }
}

/// Each mismatch, and last `N passed, M failed`.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mismatch in &self.mismatches {
            writeln!(f, "{mismatch}")?;
        }
        write!(f, "{} passed, {} failed", self.passed, self.mismatches.len())
    }
}

/// Runs every case of a file; empty lines do not count.
#[must_use]
pub fn run(text: &str) -> Report {
    let mut report = Report::default();
    let mut reader = Reader::default();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let outcome = reader.read(&mut line.as_bytes().to_vec(), |case| {
            let name = case.get("name").and_then(Item::as_text).unwrap_or("").to_owned();
            (name, run_case(case))
        });
        let (name, text) = match outcome {
            Ok((_, Ok(()))) => {
                report.passed += 1;
                continue;
            }
            Ok((name, Err(text))) => (name, text),
            Err(json::NotJson) => (String::new(), "the line is not JSON".to_owned()),
        };
        report.mismatches.push(Mismatch { line: index + 1, name, text });
    }
    report
}

/// Runs one case; says what went otherwise than expected.
fn run_case(case: Item<'_>) -> Result<(), String> {
    let text_of = |member: &str| case.get(member).and_then(Item::as_text);
    let expected = text_of("expected").ok_or("the case has no `expected`")?;
    let rules_text = match (text_of("rules_text"), case.get("rules")) {
        (Some(text), _) => text.to_owned(),
        (None, Some(rules)) => compact(rules),
        (None, None) => return Err("the case has no `rules`".to_owned()),
    };
    let dialect = match text_of("dialect") {
        None | Some("firebase") => Dialect::Firebase,
        Some("wilddog") => Dialect::Wilddog,
        Some("both") => Dialect::Both,
        Some(other) => return Err(format!("unknown dialect {other}")),
    };
    let rules = match Ruleset::parse(&rules_text, dialect) {
        Ok(rules) => rules,
        Err(error) => {
            return match text_of("error") {
                _ if expected != "parse_error" => Err(format!("expected {expected}, got parse_error: {error}")),
                Some(text) if text != error.text => Err(format!("expected the error {text:?}, got {:?}", error.text)),
                _ => Ok(()),
            };
        }
    };
    let (happened, why) = match text_of("op") {
        Some("deploy") => ("accepted", String::new()),
        Some(op) => match verdict(case, op, &rules)? {
            Ok(Verdict::Allowed) => ("allow", String::new()),
            Ok(Verdict::Denied(denial)) => ("deny", format!(": {denial}")),
            Err(why) => ("deny", format!(": {why}")),
        },
        None => return Err("the case has no `op`".to_owned()),
    };
    if happened == expected { Ok(()) } else { Err(format!("expected {expected}, got {happened}{why}")) }
}

/// What the rules say to a case's request; the inner error is a request that is refused before rules
/// are asked, the outer one a case that makes no sense.
fn verdict(case: Item<'_>, op: &str, rules: &Ruleset) -> Result<Result<Verdict, String>, String> {
    let now = case.get("now").and_then(Item::as_int).and_then(|now| u64::try_from(now).ok()).map_or(NOW, WallMillis);
    let data = match case.get("data") {
        None => Node::Empty,
        Some(data) => Draft::from_json(data, 0)
            .map_err(|why| format!("the case's data cannot be stored: {why:?}"))?
            .resolve(&Node::Empty, now),
    };
    let auth = case.get("auth").map_or(serde_json::Value::Null, Item::to_serde);
    let identity = Identity { is_admin: false, auth, expires_s: None };
    let ask = Ask { root: &data, identity: &identity, now };
    let path = case.get("path").and_then(Item::as_text).ok_or("the case has no `path`")?;
    let location = match Location::parse(path) {
        Ok(location) => location,
        Err(why) => return Ok(Err(format!("{why:?}"))),
    };
    let new_data = case.get("newData").unwrap_or(Item::Null);
    let writes = match op {
        "read" => {
            let asking = case.get("query").map_or(Asking::NOTHING, asking);
            return Ok(Ok(rules.may_read_asking(&ask, &location.path, &asking)));
        }
        "write" => Pending::read(location, new_data, &ask).map(|write| vec![write]),
        "update" => updates(&location.path, new_data, &ask)?,
        other => return Err(format!("unknown op {other}")),
    };
    Ok(writes.map(|writes| {
        let changes: Vec<Change<'_>> = writes.iter().map(Pending::change).collect();
        if changes.is_empty() {
            rules.may_write_at(&ask, &location_path(path))
        } else {
            rules.may_write(&ask, &changes)
        }
    }))
}

fn location_path(text: &str) -> Path {
    Path::parse(text).unwrap_or_default()
}

/// A change with its value.
struct Pending {
    path: Path,
    what: Resolved,
}

enum Resolved {
    Value(Node),
    Priority(Option<Priority>),
}

impl Pending {
    fn read(location: Location, value: Item<'_>, ask: &Ask<'_>) -> Result<Self, String> {
        let Location { path, is_priority } = location;
        let standing = ask.root.at(path.as_str());
        let what = if is_priority {
            let draft: PriorityDraft = Draft::priority_from_json(value).map_err(|why| format!("{why:?}"))?;
            Resolved::Priority(draft.resolve(standing, ask.now))
        } else {
            let draft = Draft::from_json(value, path.depth()).map_err(|why| format!("{why:?}"))?;
            Resolved::Value(draft.resolve(standing, ask.now))
        };
        Ok(Self { path, what })
    }

    const fn change(&self) -> Change<'_> {
        let what = match &self.what {
            Resolved::Value(node) => What::Value(node),
            Resolved::Priority(priority) => What::Priority(priority.as_ref()),
        };
        Change { path: &self.path, what }
    }
}

/// The changes of a multi-path update.
fn updates(base: &Path, patch: Item<'_>, ask: &Ask<'_>) -> Result<Result<Vec<Pending>, String>, String> {
    let members = patch.as_object().ok_or("an update's `newData` is an object")?;
    let mut writes: Vec<Pending> = Vec::new();
    for (name, value) in members {
        let location = match Location::parse(name) {
            Ok(location) => Location { path: base.join(&location.path), ..location },
            Err(why) => return Ok(Err(format!("{why:?}"))),
        };
        let overlaps = |other: &Pending| other.path.contains(&location.path) || location.path.contains(&other.path);
        if writes.iter().any(overlaps) {
            return Ok(Err(format!("{name} overlaps another path of the update")));
        }
        match Pending::read(location, value, ask) {
            Ok(write) => writes.push(write),
            Err(why) => return Ok(Err(why)),
        }
    }
    Ok(Ok(writes))
}

/// The rules' variable `query`, member by member.
fn asking(query: Item<'_>) -> Asking<'_> {
    fn value(item: Option<Item<'_>>) -> Value<'_> {
        match item {
            Some(Item::Bool(value)) => Value::Bool(value),
            Some(Item::Text(text)) => Value::Text(text),
            Some(number) => number.as_double().map_or(Value::Null, Value::Number),
            None => Value::Null,
        }
    }
    let is = |member: &str| matches!(query.get(member), Some(Item::Bool(true)));
    let count = |member: &str| query.get(member).and_then(Item::as_int).and_then(|count| u32::try_from(count).ok());
    Asking {
        is_by_key: is("orderByKey"),
        is_by_value: is("orderByValue"),
        is_by_priority: is("orderByPriority"),
        child: query.get("orderByChild").and_then(Item::as_text),
        start: value(query.get("startAt")),
        end: value(query.get("endAt")),
        equal: value(query.get("equalTo")),
        first: count("limitToFirst"),
        last: count("limitToLast"),
    }
}

/// JSON text of a value, members in their order: which mistake comes first depends on it.
fn compact(item: Item<'_>) -> String {
    let mut out = Vec::new();
    write(&mut out, item);
    String::from_utf8(out).expect("JSON is text")
}

fn write(out: &mut Vec<u8>, item: Item<'_>) {
    match item {
        Item::Null => out.extend_from_slice(b"null"),
        Item::Bool(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
        Item::Int(value) => json::integer(out, value),
        Item::Double(value) => json::number(out, value),
        Item::Text(text) => json::text(out, text),
        Item::Array(values) => {
            out.push(b'[');
            for (index, value) in values.enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(out, value);
            }
            out.push(b']');
        }
        Item::Object(members) => {
            out.push(b'{');
            for (index, (name, value)) in members.enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                json::text(out, name);
                out.push(b':');
                write(out, value);
            }
            out.push(b'}');
        }
    }
}
