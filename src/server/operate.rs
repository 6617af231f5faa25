//! `sessions`, `ondisconnect`, `explain` and `top`: a running server's view of itself, over its REST API.
//!
//! The surprising idea: none of them trusts what it shows. Names of users and paths come from clients, and a
//! terminal obeys what is printed on it, so everything is cleaned before it is shown. Costs: one page in
//! memory, however many sessions there are.

#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _, Write};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::Stop;
use super::look_flags::{ExplainFlags, LookFlags, OnDisconnectCommand, SessionsCommand, TopFlags};
use super::transfer::client::{Client, Refused};

/// Rows that are asked for at once.
const PAGE_ROWS: usize = 500;
/// Places of an update that are named.
const PLACES_SHOWN: usize = 3;
/// Entries of what became of last words that `top` shows.
const RECENT_SHOWN: usize = 10;

/// Does what is asked about sessions.
///
/// # Errors
///
/// The server cannot be reached or refuses, or there is no such session.
pub fn sessions(command: &SessionsCommand) -> Result<(), Stop> {
    match command {
        SessionsCommand::Ls(flags) => list(&flags.look, "sessions", flags.limit, SESSIONS),
        SessionsCommand::Kill(flags) => {
            let mut client = connect(&flags.look, "sessions")?;
            for session in &flags.sessions {
                let is_number = session.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
                if !is_number {
                    return Err(Stop::Failed(format!("{session}: a session is named CORE.SLOT.GENERATION")));
                }
                match ask(&mut client, "DELETE", &format!("session={session}")) {
                    Ok(_) => say(&format!("killed {session}"))?,
                    Err(Refused::Status(404, _)) => {
                        return Err(Stop::Failed(format!("{session}: there is no such session in this database")));
                    }
                    Err(refused) => return Err(failed(&refused)),
                }
            }
            Ok(())
        }
    }
}

/// Does what is asked about last words.
///
/// # Errors
///
/// The server cannot be reached or refuses.
pub fn ondisconnect(command: &OnDisconnectCommand) -> Result<(), Stop> {
    let OnDisconnectCommand::Ls(flags) = command;
    list(&flags.look, "lastwords", flags.limit, WORDS)
}

/// Tells why a path is as it is.
///
/// # Errors
///
/// The server cannot be reached or refuses.
pub fn explain(flags: &ExplainFlags) -> Result<(), Stop> {
    let mut client = connect(&flags.look, "explain")?;
    let mut param = b"path=".to_vec();
    crate::wire::http::percent_encode(&mut param, &flags.path);
    let param = String::from_utf8(param).expect("it is percent-encoded");
    let seen = ask(&mut client, "GET", &param).map_err(|refused| failed(&refused))?;
    if flags.look.json {
        return say(&seen.to_string());
    }
    explained(&seen, now_ms()).iter().try_for_each(|line| say(line))
}

/// Shows how a server is, again and again.
///
/// # Errors
///
/// The server cannot be reached or refuses.
pub fn top(flags: &TopFlags) -> Result<(), Stop> {
    let mut cores = connect(&flags.look, "cores")?;
    let mut recent = connect(&flags.look, "recent")?;
    let is_terminal = io::stdout().is_terminal() && !flags.look.json;
    let mut before: Option<Value> = None;
    let mut shown = 0;
    loop {
        let seen = ask(&mut cores, "GET", "").map_err(|refused| failed(&refused))?;
        let params = format!("limit={RECENT_SHOWN}");
        let happened = ask(&mut recent, "GET", &params).map_err(|refused| failed(&refused))?;
        let text = if flags.look.json {
            format!("{}\n", seen["cores"])
        } else {
            screen(&seen, before.as_ref(), &happened, now_ms())
        };
        let frame = if is_terminal { format!("\x1b[H\x1b[2J{text}") } else { text };
        print(&frame)?;
        shown += 1;
        if flags.count.is_some_and(|count| shown >= count) {
            return Ok(());
        }
        before = Some(seen);
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// A column: its title, and how a row's text is found.
type Column = (&'static str, fn(&Value) -> String);

const SESSIONS: &[Column] = &[
    ("SESSION", |row| text(&row["session"])),
    ("PROTOCOL", |row| text(&row["protocol"])),
    ("USER", who),
    ("AGE", |row| span(&row["ageMs"])),
    ("LAST HEARD", |row| span(&row["silentMs"])),
    ("LAST WORDS", |row| text(&row["words"])),
];

const WORDS: &[Column] = &[
    ("SESSION", |row| text(&row["session"])),
    ("USER", who),
    ("KIND", |row| text(&row["kind"])),
    ("PATH", |row| text(&row["path"])),
    ("WRITES", written),
];

/// Lists all rows, a page at a time.
fn list(look: &LookFlags, name: &str, limit: Option<usize>, columns: &[Column]) -> Result<(), Stop> {
    let mut client = connect(look, name)?;
    let mut after = String::new();
    let mut left = limit.unwrap_or(usize::MAX);
    let mut table = Table::new(columns);
    while left > 0 {
        let params = format!("limit={}&after={after}", left.min(PAGE_ROWS));
        let page = ask(&mut client, "GET", &params).map_err(|refused| failed(&refused))?;
        let rows = page[name].as_array().map(Vec::as_slice).unwrap_or_default();
        for row in rows.iter().take(left) {
            if look.json { say(&row.to_string())? } else { table.add(row)? }
        }
        left -= rows.len().min(left);
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => break,
        }
    }
    table.end()
}

/// Rows in columns as wide as those of the first page need.
struct Table<'c> {
    columns: &'c [Column],
    waiting: Vec<Vec<String>>,
    widths: Vec<usize>,
}

impl<'c> Table<'c> {
    fn new(columns: &'c [Column]) -> Self {
        Self { columns, waiting: Vec::new(), widths: columns.iter().map(|(title, _)| title.len()).collect() }
    }

    fn add(&mut self, row: &Value) -> Result<(), Stop> {
        self.waiting.push(self.columns.iter().map(|(_, cell)| cell(row)).collect());
        if self.waiting.len() == PAGE_ROWS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Stop> {
        lines(self.columns, &mut self.widths, &std::mem::take(&mut self.waiting)).iter().try_for_each(|line| say(line))
    }

    fn end(mut self) -> Result<(), Stop> {
        if self.waiting.is_empty() { Ok(()) } else { self.flush() }
    }
}

fn lines(columns: &[Column], widths: &mut [usize], rows: &[Vec<String>]) -> Vec<String> {
    let titles: Vec<String> = columns.iter().map(|(title, _)| (*title).to_owned()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(widths.iter()).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    std::iter::once(&titles).chain(rows).map(line).collect()
}

/// Why a path is as it is, for people.
fn explained(seen: &Value, now_ms: u64) -> Vec<String> {
    let mut lines = Vec::new();
    let stands = if seen["exists"] == true { text(&seen["preview"]) } else { "nothing".into() };
    let cut = if seen["cut"] == true { "…" } else { "" };
    lines.push(format!("{}: {stands}{cut}", text(&seen["path"])));
    match &seen["last"] {
        Value::Null => lines.push("last write there or above: not remembered".into()),
        trace => lines.push(format!("last write there or above: {}", traced(trace, now_ms))),
    }
    let mut section = |title: &str, rows: &Value, each: &dyn Fn(&Value) -> String| {
        let rows = rows.as_array().map(Vec::as_slice).unwrap_or_default();
        if !rows.is_empty() {
            lines.push(format!("{title}:"));
            lines.extend(rows.iter().map(|row| format!("  {}", each(row))));
        }
    };
    section("writes below, the latest first", &seen["below"], &|row| traced(row, now_ms));
    section("last words that wait", &seen["waiting"], &|row| {
        format!(
            "{} {} {} of session {} ({})",
            text(&row["kind"]),
            text(&row["path"]),
            written(row),
            text(&row["session"]),
            who(row)
        )
    });
    section("what became of last words", &seen["recent"], &|row| happened(row, now_ms));
    if let Some(unseen) = seen["unseen"].as_u64().filter(|unseen| *unseen > 0) {
        lines.push(format!("{unseen} sessions with last words were not looked at"));
    }
    lines
}

/// One change of data.
fn traced(trace: &Value, now_ms: u64) -> String {
    let how = match trace["cause"].as_str() {
        Some("client") => "by the client of session".to_owned(),
        Some("rest") => "by a plain request, connection".to_owned(),
        _ => format!("the last word of session ({})", text(&trace["end"])),
    };
    let wide = if trace["wide"] == true { ", one of very many places" } else { "" };
    let when = ago(&trace["at"], now_ms);
    format!("{} {when}, {how} {} ({}){wide}", text(&trace["path"]), text(&trace["session"]), who(trace))
}

/// What became of a last word.
fn happened(row: &Value, now_ms: u64) -> String {
    let mut line = format!(
        "{} {} {}, {} of session {} ({}), {}",
        text(&row["became"]),
        places(row),
        ago(&row["at"], now_ms),
        text(&row["kind"]),
        text(&row["session"]),
        who(row),
        text(&row["end"]),
    );
    if row["why"].is_string() {
        line = format!("{line}: {}", text(&row["why"]));
    }
    if row["newer"].is_object() {
        line = format!("{line}; newer: {}", traced(&row["newer"], now_ms));
    }
    line
}

/// Where a last word writes: an update's places say more than what is above them.
fn places(row: &Value) -> String {
    let Some(places) = row["places"].as_array().filter(|places| !places.is_empty()) else { return text(&row["path"]) };
    let named: Vec<String> = places.iter().take(PLACES_SHOWN).map(text).collect();
    let more = number(&row["placesCount"]).saturating_sub(named.len() as u64);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", named.join(" "))
}

/// What `top` shows: figures by core, with rates since `before`.
fn screen(seen: &Value, before: Option<&Value>, recent: &Value, now_ms: u64) -> String {
    const TITLES: [&str; 9] =
        ["CORE", "SESSIONS", "LAST WORDS", "LISTENS", "REQUESTS/s", "WRITES/s", "SPOKEN/s", "QUEUED", "LATE"];
    let cores = seen["cores"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut rows = vec![TITLES.map(str::to_owned)];
    for core in cores {
        let earlier =
            before.and_then(|before| before["cores"].as_array()?.iter().find(|old| old["core"] == core["core"]));
        let rate = |name: &str| {
            let span_ms =
                earlier.map(|old| number(&core["at"]).saturating_sub(number(&old["at"]))).filter(|ms| *ms > 0);
            let more = earlier.map(|old| number(&core[name]).saturating_sub(number(&old[name])));
            more.zip(span_ms).map_or_else(|| "-".into(), |(more, span_ms)| (more * 1_000 / span_ms).to_string())
        };
        let sessions = core["sessions"].as_object().into_iter().flatten().filter(|(name, _)| *name != "rest");
        let sessions: u64 = sessions.map(|(_, count)| number(count)).sum();
        rows.push([
            text(&core["core"]),
            sessions.to_string(),
            text(&core["leaving"]),
            text(&core["listens"]),
            rate("requests"),
            rate("writes"),
            rate("spoken"),
            text(&core["queued"]),
            format!("{} ms", number(&core["lateMs"])),
        ]);
    }
    let widths: Vec<usize> =
        (0..TITLES.len()).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or_default()).collect();
    let mut screen = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
        screen.push_str(&cells.join("  "));
        screen.push('\n');
    }
    let rows = recent["recent"].as_array().map(Vec::as_slice).unwrap_or_default();
    for row in rows.iter().rev().take(RECENT_SHOWN) {
        screen.push_str(&happened(row, now_ms));
        screen.push('\n');
    }
    screen
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

/// Who it is.
fn who(row: &Value) -> String {
    match &row["uid"] {
        _ if row["admin"] == true => "admin".into(),
        Value::String(uid) if uid.is_empty() => "somebody".into(),
        Value::String(uid) => clean(uid),
        _ => "nobody".into(),
    }
}

/// What a last word writes.
fn written(row: &Value) -> String {
    if let Some(count) = row["placesCount"].as_u64() {
        return format!("{count} places");
    }
    if row["kind"] == "remove" {
        return "nothing".into();
    }
    let cut = if row["cut"] == true { "…" } else { "" };
    let filled = if row["serverValues"] == true { " (with server values)" } else { "" };
    format!("{}{cut}{filled}", text(&row["preview"]))
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => clean(text),
        Value::Null => "-".into(),
        other => clean(&other.to_string()),
    }
}

/// Without what a terminal would obey, and without what turns the direction of text.
fn clean(text: &str) -> String {
    let is_bad = |character: char| {
        character.is_control()
            || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|character| if is_bad(character) { '\u{fffd}' } else { character }).collect()
}

fn span(ms: &Value) -> String {
    let seconds = number(ms) / 1_000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

fn ago(at: &Value, now_ms: u64) -> String {
    format!("{} ago", span(&now_ms.saturating_sub(number(at)).into()))
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn connect(look: &LookFlags, view: &str) -> Result<Client, Stop> {
    let server = &look.server;
    Client::connect(server, &format!("/.stillhere/{view}"))
        .map_err(|refused| Stop::Failed(format!("{}: {refused}", server.url)))
}

fn ask(client: &mut Client, method: &str, params: &str) -> Result<Value, Refused> {
    let mut body = Vec::new();
    client.call(method, params, b"", &mut |piece| {
        body.extend_from_slice(piece);
        Ok(())
    })?;
    serde_json::from_slice(&body).map_err(|_| Refused::Nonsense)
}

fn failed(refused: &Refused) -> Stop {
    let hint = if matches!(refused, Refused::Status(401, _)) {
        ": give the credential of an administrator with --auth or STILLHERE_AUTH"
    } else {
        ""
    };
    Stop::Failed(format!("{refused}{hint}"))
}

fn say(line: &str) -> Result<(), Stop> {
    print(&format!("{line}\n"))
}

fn print(text: &str) -> Result<(), Stop> {
    let mut output = io::stdout().lock();
    let printed = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    printed.map_err(|error| Stop::Failed(format!("standard output: {error}")))
}
