//! Who may import whom: the table of `docs/ARCHITECTURE.md` is this test's input, so neither can drift.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{self, File};

/// A room, and the rooms that it may import.
type Table = BTreeMap<String, BTreeSet<String>>;

/// Not a room: the crate's own list of rooms.
const LIST_OF_ROOMS: &str = "src/lib.rs";

#[test]
fn rooms_import_only_what_the_table_lists() {
    let table = parse(&source::read("docs/ARCHITECTURE.md"));
    let files = [source::files("src"), source::files("loadgen/src")].concat_all();
    let mut wrong = Vec::new();
    let is_test = |path: &str| path.ends_with("/tests.rs") || path.contains("/tests/");
    for file in files.iter().filter(|file| file.is_rust() && file.path != LIST_OF_ROOMS && !is_test(&file.path)) {
        let room = room_of(&file.path);
        let Some(allowed) = table.get(room) else {
            wrong.push(format!("{}: the room {room:?} is not in the table", file.path));
            continue;
        };
        let code = source::code_only(&file.text);
        for other in imports(&code, if room == "main" || room == "loadgen" { "stillhere" } else { "crate" }) {
            if other != room && !allowed.contains(&other) {
                wrong.push(format!("{}: {room} may not import {other}", file.path));
            }
        }
        if room != "loadgen" && leaves_by_super(&code, depth_of(&file.path)) {
            wrong.push(format!("{}: leaves its room by `super::`; write `crate::`", file.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn table_is_a_table_of_rooms_without_cycles() {
    let table = parse(&source::read("docs/ARCHITECTURE.md"));
    for (room, allowed) in &table {
        for other in allowed {
            assert!(table.contains_key(other), "{room} may import {other}, which is no room");
        }
    }
    assert_eq!(cycle(&table), None);
}

trait ConcatAll {
    fn concat_all(self) -> Vec<File>;
}

impl<const N: usize> ConcatAll for [Vec<File>; N] {
    fn concat_all(self) -> Vec<File> {
        self.into_iter().flatten().collect()
    }
}

/// Reads the block that starts with ```` ```layers ````: `room : room room`, one room a line.
fn parse(document: &str) -> Table {
    let block = document.split("```layers\n").nth(1).expect("the document has a block of layers");
    let block = block.split("```").next().expect("splitting gives at least one piece");
    let mut table = Table::new();
    for line in block.lines().filter(|line| !line.trim().is_empty()) {
        let (room, allowed) = line.split_once(':').unwrap_or_else(|| panic!("no colon in {line:?}"));
        let allowed = allowed.split_whitespace().map(str::to_owned).collect();
        let before = table.insert(room.trim().to_owned(), allowed);
        assert_eq!(before, None, "{room} is listed twice");
    }
    table
}

fn room_of(path: &str) -> &str {
    if path.starts_with("loadgen/") {
        return "loadgen";
    }
    let rest = path.strip_prefix("src/").expect("only the library's files have rooms");
    rest.split('/').next().expect("splitting gives at least one piece").trim_end_matches(".rs")
}

/// How many modules deep the file is: `src/room/mod.rs` is 1, `src/room/part.rs` is 2.
fn depth_of(path: &str) -> usize {
    let pieces = path.trim_start_matches("loadgen/").trim_end_matches("/mod.rs").trim_end_matches("/main.rs");
    (pieces.split('/').count() - 1).max(1)
}

/// The rooms named after `root::`, alone or as `root::{a, b::c}`.
fn imports(code: &str, root: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    let needle = format!("{root}::");
    for (at, _) in code.match_indices(&needle) {
        if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':') {
            continue;
        }
        let rest = &code[at + needle.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            rooms.extend(firsts_of_group(group));
        } else {
            rooms.insert(word(rest));
        }
    }
    rooms.retain(|room| !room.is_empty() && room.chars().all(|c| c.is_lowercase() || c.is_ascii_digit() || c == '_'));
    rooms
}

/// Of `a, b::{c, d}, e} …`: `a`, `b`, `e`.
fn firsts_of_group(group: &str) -> Vec<String> {
    let mut firsts = Vec::new();
    let mut depth = 1;
    let mut is_first = true;
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' => is_first = depth == 1,
            _ if is_first && !character.is_whitespace() => {
                firsts.push(word(&group[at..]));
                is_first = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    firsts
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Whether a chain of `super::` is as long as the file is deep.
fn leaves_by_super(code: &str, depth: usize) -> bool {
    code.contains(&"super::".repeat(depth))
}

/// A room that can reach itself, with the way.
fn cycle(table: &Table) -> Option<Vec<String>> {
    fn visit(table: &Table, room: &str, way: &mut Vec<String>, done: &mut BTreeSet<String>) -> bool {
        if way.iter().any(|before| before == room) {
            way.push(room.to_owned());
            return true;
        }
        if done.contains(room) {
            return false;
        }
        way.push(room.to_owned());
        for other in table.get(room).into_iter().flatten() {
            if visit(table, other, way, done) {
                return true;
            }
        }
        way.pop();
        done.insert(room.to_owned());
        false
    }
    let mut done = BTreeSet::new();
    table.keys().find_map(|room| {
        let mut way = Vec::new();
        visit(table, room, &mut way, &mut done).then_some(way)
    })
}

#[test]
fn imports_are_found() {
    #[track_caller]
    fn check(code: &str, rooms: &[&str]) {
        assert_eq!(imports(code, "crate").into_iter().collect::<Vec<_>>(), rooms, "{code}");
    }
    check("use crate::base::Now;", &["base"]);
    check("use crate::{base::{Now, Millis}, op, tree::Tree as T};", &["base", "op", "tree"]);
    check("fn f(x: crate::data::Path) -> crate::op::Event {}", &["data", "op"]);
    check("pub(crate) use other_crate::wire::X;", &[]);
    check("crate::CONSTANT; $crate::Thing", &[]);
}

#[test]
fn super_is_followed() {
    #[track_caller]
    fn check(path: &str, code: &str, leaves: bool) {
        assert_eq!(leaves_by_super(code, depth_of(path)), leaves, "{path}: {code}");
    }
    check("src/tree/mod.rs", "use super::op::Event;", true);
    check("src/tree/node.rs", "use super::Tree;", false);
    check("src/tree/node.rs", "use super::super::op::Event;", true);
    check("src/wire/http/parse.rs", "use super::super::Output;", false);
    check("src/wire/http/parse.rs", "use super::super::super::op::Event;", true);
}

#[test]
fn cycles_are_found() {
    #[track_caller]
    fn check(table: &str, is_cyclic: bool) {
        assert_eq!(cycle(&parse(&format!("```layers\n{table}\n```"))).is_some(), is_cyclic, "{table}");
    }
    check("a:\nb: a\nc: a b", false);
    check("a: c\nb: a\nc: b", true);
    check("a: a", true);
}
