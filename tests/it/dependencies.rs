//! What is built in: the licences, bans and sources of `deny.toml`, checked without installing `cargo deny`.

use std::process::Command;

use serde_json::Value;

use crate::source;

/// What Cargo knows about every package that the project is built and tested with.
fn packages() -> Vec<Value> {
    metadata().1
}

/// The same without those that only tests, benchmarks and examples bring along.
fn packages_built_in() -> Vec<Value> {
    let (metadata, packages) = metadata();
    let nodes = array(&metadata["resolve"]["nodes"]);
    let mut found: Vec<&str> = array(&metadata["workspace_members"]).iter().filter_map(Value::as_str).collect();
    let mut next = 0;
    while let Some(id) = found.get(next).copied() {
        next += 1;
        let node = nodes.iter().find(|node| text(node, "id") == id).expect("what is depended on is resolved");
        let is_built_in =
            |dependency: &&Value| array(&dependency["dep_kinds"]).iter().any(|kind| text(kind, "kind") != "dev");
        for dependency in array(&node["deps"]).iter().filter(is_built_in) {
            let package = text(dependency, "pkg");
            if !found.contains(&package) {
                found.push(package);
            }
        }
    }
    packages.into_iter().filter(|package| found.contains(&text(package, "id"))).collect()
}

fn metadata() -> (Value, Vec<Value>) {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--filter-platform=x86_64-unknown-linux-gnu"])
        .current_dir(source::root())
        .output()
        .expect("cargo runs: it runs this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let resolved: Vec<&Value> = array(&metadata["resolve"]["nodes"]).iter().map(|node| &node["id"]).collect();
    let is_resolved = |package: &&Value| resolved.contains(&&package["id"]);
    let packages = array(&metadata["packages"]).iter().filter(is_resolved).cloned().collect();
    (metadata, packages)
}

fn array(value: &Value) -> &[Value] {
    value.as_array().expect("Cargo writes a list here")
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_default()
}

fn policy() -> toml::Table {
    source::read("deny.toml").parse().expect("deny.toml is TOML")
}

/// The strings of a list in `deny.toml`, or of one member of each table in it.
fn strings(list: &toml::Value, member: &str) -> Vec<String> {
    let entries = list.as_array().expect("deny.toml has a list here");
    let name = |entry: &toml::Value| entry.get(member).unwrap_or(entry).as_str().map(str::to_owned);
    entries.iter().map(|entry| name(entry).expect("deny.toml has a string here")).collect()
}

#[test]
fn licences_are_allowed() {
    let policy = policy();
    let allowed = strings(&policy["licenses"]["allow"], "allow");
    let excepted = strings(&policy["licenses"]["exceptions"], "crate");
    let mut wrong = Vec::new();
    for package in packages() {
        let (name, licence) = (text(&package, "name"), text(&package, "license"));
        if !excepted.iter().any(|crate_name| crate_name == name) && !is_allowed(licence, &allowed) {
            wrong.push(format!("{name}: {licence:?}"));
        }
    }
    assert!(wrong.is_empty(), "licences that deny.toml does not allow:\n{}", wrong.join("\n"));
}

#[test]
fn nothing_banned_is_built_in() {
    let banned = strings(&policy()["bans"]["deny"], "crate");
    let found: Vec<String> = packages_built_in().iter().map(|package| text(package, "name").to_owned()).collect();
    assert!(found.iter().any(|name| name == "glommio"), "the search finds what is built in: {found:?}");
    let wrong: Vec<&String> = found.iter().filter(|name| banned.contains(name)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn packages_come_from_the_registry_or_from_here() {
    for package in packages() {
        let origin = text(&package, "source");
        assert!(origin.is_empty() || origin.starts_with("registry+"), "{}: {origin}", text(&package, "name"));
    }
}

/// Whether one of the ways to satisfy an SPDX expression needs only allowed licences. Any bracket holds a
/// choice (`(A OR B) AND C`), as all brackets in practice do.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let is_one_allowed = |term: &str| allowed.iter().any(|licence| licence == term.trim_matches([' ', '(', ')']));
    let expression = expression.replace('/', " OR ");
    if expression.contains('(') {
        return expression.split(" AND ").all(|part| part.split(" OR ").any(is_one_allowed));
    }
    expression.split(" OR ").any(|part| part.split(" AND ").all(is_one_allowed))
}

#[test]
fn expressions_are_understood() {
    #[track_caller]
    fn check(expression: &str, is_good: bool) {
        let allowed = ["MIT".to_owned(), "Unicode-3.0".to_owned(), "Apache-2.0 WITH LLVM-exception".to_owned()];
        assert_eq!(is_allowed(expression, &allowed), is_good, "{expression}");
    }
    check("MIT", true);
    check("GPL-3.0", false);
    check("", false);
    check("MIT/Apache-2.0", true);
    check("GPL-3.0 OR MIT", true);
    check("GPL-3.0 AND MIT", false);
    check("(MIT OR GPL-3.0) AND Unicode-3.0", true);
    check("(MIT OR GPL-3.0) AND Apache-2.0", false);
    check("Apache-2.0 WITH LLVM-exception", true);
}
