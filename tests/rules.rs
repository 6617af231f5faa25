//! The known cases of the rules language, from the recordings of the services that it comes from.

use stillhere::rules::casefile::{self, Report};

/// Cases that turn out otherwise on purpose; `tests/rules/DIFFERENCES.md` says why.
const DIFFERENT: &[&str] =
    &["wilddog/replace, two occurrences (first only per the docs)", "wilddog/$variable modulo a number"];

#[track_caller]
fn check(text: &str, count: usize) {
    let Report { passed, mismatches } = casefile::run(text);
    let (known, unknown): (Vec<_>, Vec<_>) =
        mismatches.into_iter().partition(|mismatch| DIFFERENT.contains(&mismatch.name.as_str()));
    let told: Vec<String> = unknown.iter().map(ToString::to_string).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
    assert_eq!(passed + known.len(), count, "every case has run");
}

#[test]
fn cases() {
    check(include_str!("rules/cases.jsonl"), 743);
}

#[test]
fn deploy_cases() {
    check(include_str!("rules/deploy_cases.jsonl"), 193);
}

#[test]
fn deploy_matrix() {
    check(include_str!("rules/deploy_matrix.jsonl"), 426);
}

#[test]
fn cases_wilddog() {
    check(include_str!("rules/cases_wilddog.jsonl"), 30);
}
