//! The load generator against the real server, briefly: what it plays is right, and it notices what is not.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use crate::source;

/// The load generator, built if need be: it is another package, so Cargo does not tell where it is.
fn generator() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let output = Command::new(env!("CARGO"))
            .args(["build", "--locked", "--quiet", "--package=stillhere-load", "--message-format=json"])
            .current_dir(source::root())
            .output()
            .expect("cargo runs: it runs this test");
        let told = String::from_utf8_lossy(&output.stdout);
        let messages = told.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut paths = messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from));
        paths.next_back().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)))
    })
}

/// A server that is ready. Killed when dropped.
struct Server {
    child: Child,
    address: String,
    coap: String,
    _data: TempDir,
}

impl Server {
    /// Its sessions end after four seconds: so long no client seems silent because this machine is busy.
    fn start(shards: &str) -> Self {
        Self::start_with(shards, "4s")
    }

    fn start_with(shards: &str, session_timeout: &str) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_stillhere")), shards, session_timeout)
    }

    /// One that may open so many files, with sessions that do not seem silent because this machine is busy.
    fn start_with_files(shards: &str, files: &str) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -n $0 && exec \"$@\"", files, env!("CARGO_BIN_EXE_stillhere")]);
        Self::start_by(shell, shards, "6s")
    }

    fn start_by(mut command: Command, shards: &str, session_timeout: &str) -> Self {
        let data = TempDir::new().expect("a directory");
        let mut child = command
            .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--log-level", "error", "--shards", shards])
            .args(["--coap", "127.0.0.1:0"])
            .envs([("STILLHERE_HEARTBEAT", "1s"), ("STILLHERE_SESSION_TIMEOUT", session_timeout)])
            .env("STILLHERE_COAP_SESSION_TIMEOUT", "10s")
            .current_dir(data.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it says something");
        let word = |name| line.split_whitespace().find_map(|word| word.strip_prefix(name)).expect(&line).to_owned();
        Self { child, address: word("tcp="), coap: word("coap="), _data: data }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the generator, which must succeed, and returns its report.
#[track_caller]
fn run(words: &[&str]) -> Value {
    let output = Command::new(generator()).args(words).args(["--json", "--quiet"]).output().expect("it starts");
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{words:?}\n{told}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&told).expect("it is JSON")
}

/// Plays a scenario and returns its report, which must be good.
#[track_caller]
fn play(words: &[&str]) -> Value {
    let report = run(words);
    assert_eq!(report["is_good"], true, "{report:#}");
    report
}

/// Asserts that a report has a figure, and so many changes that were seen as they should be.
#[track_caller]
fn assert_reached(report: &Value, figure: &str, good_min: u64) {
    assert!(report["figures"][figure]["value"].as_f64().unwrap_or(0.0) > 0.0, "{figure} in {report:#}");
    assert!(report["check"]["good"].as_u64().unwrap_or(0) >= good_min, "{report:#}");
}

#[test]
fn every_scenario_is_played_and_checked() {
    for shards in ["1", "2"] {
        let server = Server::start(shards);
        let pid = server.child.id().to_string();
        let check = |words: &[&str], figure: &str, good_min: u64| {
            let common = ["--address", &server.address, "--server-pid", &pid, "--check", "--warm-up", "100ms"];
            let report = play(&[words, &common].concat());
            assert_reached(&report, figure, good_min);
        };
        check(&["writes", "--sessions", "10", "--for", "300ms"], "server CPU per write", 10);
        check(&["writes", "--sessions", "10", "--for", "300ms", "--rate", "200", "--depth", "2"], "writes", 10);
        check(&["mass-disconnect", "--sessions", "200", "--words", "2"], "server CPU per last word", 400);
        check(
            &["mass-disconnect", "--sessions", "100", "--words", "20", "--watcher-pause", "500ms"],
            "last words",
            2_000,
        );
        check(&["mass-disconnect", "--sessions", "50", "--ending", "goodbye"], "last words", 50);
        check(&["mass-disconnect", "--sessions", "50", "--ending", "close"], "last words", 50);
        check(&["silent-death", "--sessions", "20", "--session-timeout", "4s"], "last words", 20);
        check(&["fan-out", "--sessions", "20", "--for", "300ms"], "server CPU per delivery", 20);
        check(&["flap", "--sessions", "5", "--for", "300ms"], "server CPU per round", 10);
        check(&["storm", "--sessions", "50", "--rate", "500"], "server CPU per connect", 0);
        check(&["idle", "--sessions", "200", "--for", "1500ms"], "heartbeats", 0);
        let wilddog = |words: &[&str], figure: &str, good_min: u64| {
            check(&[words, &["--driver", "wilddog"]].concat(), figure, good_min);
        };
        wilddog(&["writes", "--sessions", "10", "--for", "300ms"], "server CPU per write", 10);
        wilddog(&["mass-disconnect", "--sessions", "200", "--words", "2"], "server CPU per last word", 400);
        wilddog(&["silent-death", "--sessions", "20", "--session-timeout", "4s"], "last words", 20);
        wilddog(&["fan-out", "--sessions", "20", "--for", "300ms"], "server CPU per delivery", 20);
        wilddog(&["flap", "--sessions", "5", "--for", "300ms"], "server CPU per round", 10);
        wilddog(&["idle", "--sessions", "50", "--for", "1500ms"], "server CPU per connect", 0);
        let rest = |words: &[&str], figure: &str, good_min: u64| {
            check(&[words, &["--driver", "rest"]].concat(), figure, good_min);
        };
        rest(&["writes", "--sessions", "10", "--for", "300ms", "--depth", "2"], "server CPU per write", 10);
        rest(&["mass-disconnect", "--sessions", "100", "--words", "2"], "server CPU per last word", 200);
        rest(&["fan-out", "--sessions", "20", "--for", "300ms"], "server CPU per delivery", 20);
        rest(&["flap", "--sessions", "5", "--for", "300ms"], "server CPU per round", 10);
        rest(&["storm", "--sessions", "50", "--ending", "close"], "server CPU per connect", 0);
        rest(&["idle", "--sessions", "50", "--for", "300ms"], "server CPU per connect", 0);
    }
}

/// Whether this machine's kernel is Linux 6.8 or later.
fn lends_descriptors() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux has it");
    let mut numbers = release.split(['.', '-']).map_while(|part| part.trim().parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(8))
}

#[test]
fn there_may_be_more_connections_than_files() {
    if !lends_descriptors() {
        return;
    }
    for shards in ["1", "2"] {
        let server = Server::start_with_files(shards, "300");
        let check = |words: &[&str], good_min: u64| {
            let report = play(&[words, &["--address", &server.address, "--check", "--warm-up", "100ms"]].concat());
            assert!(report["check"]["good"].as_u64().unwrap_or(0) >= good_min, "{report:#}");
        };
        check(&["mass-disconnect", "--sessions", "1500"], 1_500);
        check(&["mass-disconnect", "--sessions", "600", "--ending", "goodbye"], 600);
        check(&["silent-death", "--sessions", "600", "--session-timeout", "6s"], 600);
        check(&["fan-out", "--sessions", "600", "--for", "300ms"], 600);
        let files = std::fs::read_dir(format!("/proc/{}/fd", server.child.id())).expect("it runs").count();
        assert!(files < 300, "{files}");
    }
}

#[test]
fn an_ordinary_day_is_played_and_checked() {
    // Nobody is to seem silent because this machine is busy.
    let server = Server::start_with("2", "6s");
    let day = ["mixed", "--sessions", "100", "--for", "1s", "--session-timeout", "6s", "--heartbeat", "500ms"];
    for (driver, figure) in [("firebase", "fell silent"), ("wilddog", "fell silent"), ("rest", "reset")] {
        let more = ["--driver", driver, "--address", &server.address, "--check", "--warm-up", "100ms"];
        let report = play(&[&day[..], &more].concat());
        assert_reached(&report, figure, 200);
    }
}

#[test]
fn devices_are_played_and_checked() {
    for shards in ["1", "2"] {
        let server = Server::start(shards);
        let pid = server.child.id().to_string();
        let common = ["--driver", "coap", "--address", &server.address, "--coap", &server.coap, "--server-pid", &pid];
        let check = |words: &[&str], figure: &str, good_min: u64| {
            let report = play(&[words, &common, &["--check", "--heartbeat", "3s"]].concat());
            assert_reached(&report, figure, good_min);
        };
        check(&["storm", "--sessions", "100"], "server CPU per connect", 0);
        check(&["idle", "--sessions", "100", "--for", "1s"], "server CPU per ping", 0);
        check(&["silent-death", "--sessions", "300", "--for", "1s", "--session-timeout", "10s"], "last words", 300);
    }
}

#[test]
fn an_engine_needs_no_server() {
    let report = play(&["mass-disconnect", "--driver", "engine", "--sessions", "1000", "--words", "2", "--check"]);
    assert_eq!(report["check"]["good"], 2_000);
    let report =
        play(&["silent-death", "--driver", "engine", "--sessions", "100", "--session-timeout", "4s", "--check"]);
    assert_eq!(report["check"]["good"], 100);
    play(&["writes", "--driver", "engine", "--warm-up", "10ms", "--for", "100ms", "--check"]);
    play(&["flap", "--driver", "engine", "--warm-up", "10ms", "--for", "100ms", "--check"]);
    play(&["mixed", "--driver", "engine", "--sessions", "50", "--session-timeout", "6s", "--for", "300ms", "--check"]);
    play(&["fan-out", "--driver", "engine", "--warm-up", "10ms", "--for", "100ms", "--check"]);
    let folder = TempDir::new().expect("a directory");
    let picture = folder.path().join("latencies.svg");
    let file = picture.to_str().expect("it is text");
    play(&["writes", "--driver", "engine", "--warm-up", "10ms", "--for", "100ms", "--picture", file]);
    let drawn = std::fs::read_to_string(&picture).expect("it is there");
    assert!(drawn.starts_with("<svg") && drawn.contains("<polyline"), "{drawn}");
}

/// Plays a scenario against us and a peer, both of whom must reach a figure, and returns what is remarked.
#[track_caller]
fn play_beside(peer: &str, words: &[&str], figure: &str) -> Vec<String> {
    let common = ["--against", peer, "--rounds", "1", "--warm-up", "100ms"];
    let told = run(&[words, &common, &["--stillhere", env!("CARGO_BIN_EXE_stillhere")]].concat());
    for name in ["stillhere", peer] {
        assert!(told["figures"][figure]["medians"][name].as_f64().unwrap_or(0.0) > 0.0, "{told:#}");
    }
    let remarks = told["remarks"].as_array().expect("it is a list").iter();
    remarks.filter_map(Value::as_str).map(str::to_owned).collect()
}

#[test]
fn a_broker_is_measured_beside_us() {
    let check = |words: &[&str], figure: &str| {
        let remarks = play_beside("mosquitto", &[words, &["--check"]].concat(), figure);
        assert!(remarks.iter().all(|remark| !remark.contains("not all")), "{remarks:?}");
    };
    check(&["mass-disconnect", "--sessions", "50"], "last words");
    check(&["writes", "--sessions", "5", "--for", "300ms", "--depth", "3"], "sessions");
    check(&["flap", "--sessions", "5", "--for", "300ms"], "sessions");
    check(&["fan-out", "--sessions", "10", "--for", "300ms"], "connects");
    check(&["mixed", "--sessions", "50", "--for", "300ms", "--mix", "3,0,1,0"], "arrivals");
    // It looks for the silent now and then: what it says is late, and seen nevertheless.
    let words = ["silent-death", "--sessions", "10", "--session-timeout", "6s", "--check"];
    play_beside("mosquitto", &words, "event after its deadline, p50");
}

#[test]
fn what_only_answers_is_measured_beside_us() {
    let check = |words: &[&str], figure: &str| {
        let remarks = play_beside("raw", words, figure);
        // On a busy machine the generator may say that it is the slower of the two.
        assert!(remarks.iter().all(|remark| remark.contains("of its core")), "{remarks:?}");
    };
    check(&["writes", "--sessions", "5", "--for", "300ms"], "server CPU per write");
    check(&["fan-out", "--sessions", "10", "--for", "300ms"], "server CPU per delivery");
}

#[test]
fn what_a_driver_cannot_play_is_refused() {
    #[track_caller]
    fn check(driver: &str, words: &[&str], why: &str) {
        let output = Command::new(generator()).args(words).args(["--driver", driver]).output().expect("it starts");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(why), "{told}");
    }
    check("mqtt", &["storm", "--words", "2"], "one will");
    check("mqtt", &["flap", "--ending", "goodbye"], "forgets the will");
    check("mqtt", &["mixed", "--mix", "1,1,0,0"], "forgets the will");
    check("mqtt", &["silent-death", "--session-timeout", "2s"], "one and a half times");
    check("rest", &["silent-death"], "nobody can tell");
    check("engine", &["mass-disconnect", "--watcher-pause", "1s"], "needs a socket");
    check("firebase", &["flap", "--words", "0"], "without last words");
    check("rest", &["mixed", "--mix", "1,0,0,1"], "nobody can tell");
    check("rest", &["flap", "--ending", "goodbye"], "no goodbye");
    check("coap", &["mixed"], "idle, storm and silent-death");
}

#[test]
fn what_is_wrong_fails() {
    // The server ends sessions after two seconds, and the generator is told three.
    let server = Server::start_with("1", "2s");
    let words = ["silent-death", "--sessions", "5", "--session-timeout", "3s", "--address", &server.address];
    let output = Command::new(generator()).args(words).args(["--check", "--json"]).output().expect("it starts");
    let report: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(output.status.code(), Some(1), "{report:#}");
    assert_eq!(report["check"]["early"], 5, "{report:#}");
    let output = Command::new(generator()).args(["writes", "--address", "127.0.0.1:1"]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1), "nobody listens there");
}
