//! What fuzzers feed: any bytes, as rules and as expressions. Each probe asserts what must hold whatever
//! they are. `fuzz/` has a target for each, and `tests/corpus.rs` replays its corpus.

use serde_json::json;

use super::{Ask, Change, Dialect, Ruleset, What};
use crate::base::WallMillis;
use crate::data::{Node, Path};
use crate::op::{Identity, Query};

/// A door for fuzzers.
pub type Probe = fn(&[u8]);

/// All of them, by the names of their targets and corpora.
pub const ALL: [(&str, Probe); 2] = [("rules_text", rules_text), ("rules_expression", rules_expression)];

/// A rules file. A refusal names a place in it; what one dialect takes, both together take; and what is
/// taken can be asked, and gives the same answer twice.
pub fn rules_text(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let both = Ruleset::parse(text, Dialect::Both);
    for dialect in [Dialect::Firebase, Dialect::Wilddog] {
        if Ruleset::parse(text, dialect).is_ok() {
            assert!(both.is_ok(), "what one dialect takes, both take");
        }
    }
    match both {
        Ok(rules) => {
            assert_eq!(rules.source(), text, "rules are kept as they were written");
            for path in ["", "a", "a/b", "users/u1", "users/u1/name"] {
                let (first, second) = (ask(&rules, path), ask(&rules, path));
                assert_eq!(first, second, "the same question has the same answer");
            }
        }
        Err(bad) => {
            let line = text.split('\n').nth(bad.line as usize - 1).expect("the line is one of the text");
            let end = line.encode_utf16().count() + 1;
            assert!((1..=end).contains(&(bad.column as usize)), "column {} of {line:?}", bad.column);
            assert!(!bad.text.is_empty(), "it says why");
        }
    }
}

/// One expression; the first byte says for which rule. What is true is not false: an expression and its
/// opposite are never both granted.
pub fn rules_expression(bytes: &[u8]) {
    let Some((verb, expression)) = bytes.split_first() else { return };
    let Ok(expression) = str::from_utf8(expression) else { return };
    let verb = [".read", ".write", ".validate"][usize::from(*verb) % 3];
    let compile = |expression: &str| {
        let mut rules = json!({".read": false, ".write": verb == ".validate", "$a": {"$b": {}}});
        rules["$a"]["$b"][verb] = json!(expression);
        Ruleset::parse(&json!({"rules": rules}).to_string(), Dialect::Both).ok()
    };
    let Some(rules) = compile(expression) else { return };
    let asked = |rules: &Ruleset| {
        let [read, write] = ask(rules, "users/u1");
        if verb == ".read" { read } else { write }
    };
    let is_granted = asked(&rules);
    assert_eq!(is_granted, asked(&rules), "the same question has the same answer");
    // Their being longer or deeper may make these too much.
    if let Some(opposite) = compile(&format!("!({expression})")) {
        assert!(!(is_granted && asked(&opposite)), "{expression:?} and its opposite are both granted");
    }
    if let Some(same) = compile(&format!("({expression}) && true")) {
        assert_eq!(is_granted, asked(&same), "{expression:?} and itself");
    }
}

/// Whether a user may read a place, and write a text there.
fn ask(rules: &Ruleset, path: &str) -> [bool; 2] {
    let path = Path::parse(path).expect("the probe's own paths are right");
    let mut root = Node::Empty;
    for (place, text) in [("users/u1/name", "Ann"), ("users/u2", "Bob"), ("a/b/c", "deep")] {
        root.set(place, Node::text(text));
    }
    let identity = Identity {
        auth: json!({"uid": "u1", "provider": "custom", "token": {"email": "a@b.c", "n": 7, "ok": true}}),
        ..Identity::NOBODY
    };
    let ask = Ask { root: &root, identity: &identity, now: WallMillis(1_700_000_000_000) };
    let new = Node::text("new");
    let changes = [Change { path: &path, what: What::Value(&new) }];
    [rules.may_read(&ask, &path, &Query::ALL).is_allowed(), rules.may_write(&ask, &changes).is_allowed()]
}
