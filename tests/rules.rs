//! The known cases of the rules language, from the recordings of the services that it comes from.

use stillhere::rules::casefile::{self, Report};

/// Cases that turn out otherwise on purpose; `tests/rules/DIFFERENCES.md` says why.
const DIFFERENT: &[&str] =
    &["wilddog/replace, two occurrences (first only per the docs)", "wilddog/$variable modulo a number"];

#[track_caller]
fn check(file: &str, count: usize) {
    let text = std::fs::read_to_string(format!("{}/tests/rules/{file}", env!("CARGO_MANIFEST_DIR"))).expect("the file");
    let Report { passed, mismatches } = casefile::run(&text);
    let (known, unknown): (Vec<_>, Vec<_>) =
        mismatches.into_iter().partition(|mismatch| DIFFERENT.contains(&mismatch.name.as_str()));
    let told: Vec<String> = unknown.iter().map(ToString::to_string).collect();
    assert!(told.is_empty(), "{file}:\n{}", told.join("\n"));
    assert_eq!(passed + known.len(), count, "every case of {file} has run");
}

#[test]
fn cases() {
    check("cases.jsonl", 743);
}

#[test]
fn deploy_cases() {
    check("deploy_cases.jsonl", 193);
}

#[test]
fn deploy_matrix() {
    check("deploy_matrix.jsonl", 426);
}

#[test]
fn cases_wilddog() {
    check("cases_wilddog.jsonl", 30);
}
