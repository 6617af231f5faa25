//! The examples, run: a document that does not run is wrong.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Runs an example that `cargo test` has built, to its end; what it prints.
#[track_caller]
fn run(name: &str, words: &[&str]) -> String {
    let folder = PathBuf::from(env!("CARGO_BIN_EXE_stillhere"));
    let program = folder.with_file_name("examples").join(name);
    if !program.exists() {
        // Only one test was asked for, and Cargo has built no more than that needs.
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--example", name]).current_dir(crate::source::root());
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo runs: it runs this test").success(), "{name} is not built");
    }
    let output = Command::new(program).args(words).stdin(Stdio::null()).output().expect("the example starts");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {said}");
    said
}

#[test]
fn a_whole_server_runs_within_a_program() {
    let said = run("whole_server", &[]);
    assert!(said.contains("joe was \"online\", then \"offline\""), "{said}");
    assert!(said.ends_with("stopped\n"), "{said}");
}

#[test]
fn a_gateway_carries_a_crowd_of_its_own_protocol() {
    let said = run("line_gateway", &["300"]);
    assert!(said.contains("300 clients came, left last words and wrote"), "{said}");
    assert!(said.contains("300 connections broke, and each was seen to go, once"), "{said}");
}

#[test]
fn a_gateway_holds_a_crowd_of_sessions() {
    let said = run("crowd", &["2500"]);
    assert!(said.contains("2500 sessions came and left last words"), "{said}");
    assert!(said.contains("2500 went, and each was heard of, once"), "{said}");
}

#[test]
fn the_core_runs_in_a_loop_of_ones_own() {
    let said = run("own_loop", &[]);
    assert!(said.contains(r#"data: {"path":"/joe","data":"online"}"#), "{said}");
    assert!(said.contains("0 sessions left"), "{said}");
}
