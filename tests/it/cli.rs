//! The command line, through the real program: exit codes, the ready line, signals, the data directory.

#![expect(clippy::disallowed_types, reason = "tests are the clients")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longer than anything here takes, on the busiest machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn stillhere(directory: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stillhere"));
    command.args(words).current_dir(directory).env_clear().stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end, which must be near.
#[track_caller]
fn run(directory: &Path, words: &[&str]) -> Output {
    let mut child = stillhere(directory, words).spawn().expect("the program starts");
    if wait(&mut child).is_none() {
        child.kill().expect("it is our child");
    }
    let output = child.wait_with_output().expect("it is our child");
    assert!(output.status.code().is_some(), "{words:?} does not end: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The exit code; `None` when it does not end.
fn wait(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().expect("it is our child") {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

/// A directory with these files.
fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = TempDir::new().expect("a directory");
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).expect("a file");
    }
    directory
}

/// Runs it in a directory with these files; `told` must be in what it prints.
#[track_caller]
fn check(files: &[(&str, &str)], words: &[&str], code: i32, told: &str) {
    let directory = directory(files);
    let output = run(directory.path(), words);
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert_eq!(output.status.code(), Some(code), "{words:?}\n{text}");
    assert!(text.contains(told), "{words:?} should tell\n{told}\nbut told\n{text}");
}

#[test]
fn exit_codes_tell_usage_from_configuration() {
    check(&[], &["--version"], 0, env!("CARGO_PKG_VERSION"));
    check(&[], &["serve", "--help"], 0, "--internal <ADDR>");
    check(&[], &[], 2, "Usage");
    check(&[], &["serve", "--lisen", "127.0.0.1:0"], 2, "--listen");
    check(&[], &["serve", "--listen", "nowhere"], 2, "`nowhere` is no address");
    check(&[], &["rules", "test"], 2, "FILE");
    check(&[], &["serve", "--dev", "--listen", "0.0.0.0:0"], 78, "--dev: dev lets everybody in");
    check(&[], &["serve", "--config", "none.toml"], 78, "none.toml: cannot be read");
    check(&[], &["serve", "--rules", "none.json", "--listen", "127.0.0.1:0"], 78, "none.json: cannot be read");
}

#[test]
fn check_tells_the_place_and_the_reason() {
    check(&[], &["check"], 0, "late_last_words          yield           default");
    let good = [("s.toml", "heartbeat = \"3s\"\nrules = \"r.json\""), ("r.json", "{\"rules\": {}}")];
    check(&good, &["check", "--config", "s.toml"], 0, "s.toml:1:13");
    check(&good, &["check", "--rules", "r.json"], 0, "--rules");
    let unknown = [("s.toml", "\nhartbeat = \"3s\"")];
    check(
        &unknown,
        &["check", "--config", "s.toml"],
        78,
        "s.toml:2:1: unknown key `hartbeat`; did you mean `heartbeat`?",
    );
    let contradiction = [("s.toml", "heartbeat = \"50s\"")];
    check(&contradiction, &["check", "--config", "s.toml"], 78, "s.toml:1:13: session_timeout");
    let absent = [("s.toml", "tls.cert = \"c.pem\"")];
    check(&absent, &["check", "--config", "s.toml"], 78, "s.toml:1:12: tls.cert says nothing without tls.key");
    let bad_rules = [("r.json", "{\n\"rules\": ?}")];
    check(&bad_rules, &["check", "--rules", "r.json"], 78, "r.json:2:");
    let bad_data = [("s.toml", "data = \"file/below\""), ("file", "")];
    check(
        &bad_data,
        &["check", "--config", "s.toml"],
        78,
        "s.toml:1:8: data directory file/below: file is not a directory",
    );
}

#[test]
fn rules_are_tested_and_counted() {
    let right = r#"{"name":"a","rules":{"rules":{".read":true}},"op":"read","path":"/","data":null,"auth":null,"expected":"allow"}"#;
    let wrong = right.replace("allow", "deny");
    let both = format!("{right}\n{wrong}\n");
    check(&[("r.jsonl", right)], &["rules", "test", "r.jsonl"], 0, "1 passed, 0 failed\n");
    check(
        &[("r.jsonl", right), ("b.jsonl", &both)],
        &["rules", "test", "r.jsonl", "b.jsonl"],
        1,
        "b.jsonl:line 2: a: ",
    );
    check(&[("b.jsonl", &both)], &["rules", "test", "b.jsonl", "b.jsonl"], 1, "\n2 passed, 2 failed\n");
    check(&[], &["rules", "test", "none.jsonl"], 1, "none.jsonl: ");
}

#[test]
fn check_reads_credentials_and_shows_none() {
    let config = "[auth]\nfirebase_project = \"p\"\nfirebase_jwks = \"k.json\"\nsecrets_file = \"s\"\n";
    let good = [("c.toml", config), ("k.json", KEYS), ("s", SECRETS)];
    let words = ["check", "--config", "c.toml"];
    check(&good, &words, 0, "auth: https://securetoken.google.com/p (1 keys); 2 secrets, 0 admin tokens\n");
    let directory = directory(&good);
    let output = run(directory.path(), &words);
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(SECRETS.lines().all(|secret| !told.contains(secret)), "{told}");
    check(&good[..1], &words, 78, "k.json: No such file");
    check(&[good[0], good[1], ("s", "short")], &words, 78, "s:1:1: one of auth.secrets has fewer than 32 bytes");
    check(&[good[0], ("k.json", "[]"), good[2]], &["serve", "--config", "c.toml"], 78, "k.json: not a JSON object");
    let dialect = [("c.toml", "rules = \"r.json\"\nrules_dialect = \"firebase\""), ("r.json", WILDDOG_RULES)];
    check(&dialect, &words, 78, "r.json:1:22: Type error: Function call on target that is not a function.");
    check(&[("c.toml", "rules = \"r.json\""), ("r.json", WILDDOG_RULES)], &words, 0, "ok");
}

const KEYS: &str =
    r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
const SECRETS: &str = "one-secret-of-at-least-32-characters\nanother-of-at-least-32-characters\n";
const WILDDOG_RULES: &str = r#"{"rules": {".read": "auth.uid.startsWith('a')"}}"#;

#[test]
fn the_examples_of_the_document_are_good() {
    let document = include_str!("../../docs/AUTH.md");
    let mut count = 0;
    for example in document.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        count += 1;
        let files = [
            ("c.toml", example),
            ("rules.json", "{\"rules\": {}}"),
            ("keys.json", KEYS),
            ("secrets.txt", SECRETS),
            ("admins.txt", SECRETS),
        ];
        check(&files, &["check", "--config", "c.toml"], 0, "\nok\n");
    }
    assert_eq!(count, 6);
}

#[test]
fn the_known_rules_cases_pass_from_the_command_line() {
    for (file, counted) in [
        ("cases.jsonl", "743 passed, 0 failed"),
        ("deploy_cases.jsonl", "193 passed, 0 failed"),
        ("deploy_matrix.jsonl", "426 passed, 0 failed"),
        ("cases_wilddog.jsonl", "28 passed, 2 failed"),
    ] {
        let path = format!("{}/tests/rules/{file}", env!("CARGO_MANIFEST_DIR"));
        check(&[], &["rules", "test", &path], i32::from(!counted.ends_with(" 0 failed")), counted);
    }
}

#[test]
fn check_leaves_nothing_behind() {
    let directory = directory(&[]);
    assert_eq!(run(directory.path(), &["check"]).status.code(), Some(0));
    assert_eq!(std::fs::read_dir(directory.path()).expect("it is there").count(), 0);
}

/// A server that is ready. Killed when dropped, should it still run.
struct Server {
    child: Child,
    /// The words of the ready line after the first.
    ready: Vec<(String, String)>,
    /// Everything that it logs.
    log: mpsc::Receiver<String>,
}

impl Server {
    fn start(directory: &Path, words: &[&str]) -> Self {
        Self::wait(stillhere(directory, &[&["serve"], words].concat()))
    }

    fn wait(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the program starts");
        let (lines, log) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        let (said, first) = mpsc::channel();
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = stdout.read_line(&mut line);
            said.send(line)
        });
        let line = first.recv_timeout(PATIENCE).unwrap_or_default();
        let mut words = line.split_whitespace();
        if words.next() != Some("ready") {
            let _ = child.kill();
            panic!("not ready: {line:?}; {:?}", log.iter().collect::<Vec<_>>());
        }
        let pair = |word: &str| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        let ready = words.map(|word| pair(word).expect("name=value")).collect();
        Self { child, ready, log }
    }

    fn address(&self, name: &str) -> SocketAddr {
        let (_, value) = self.ready.iter().find(|(word, _)| word == name).expect("it is in the ready line");
        value.parse().expect("it is an address")
    }

    /// Asks the internal address.
    fn ask(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address("internal")).expect("it listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().expect("kill starts").success());
    }

    /// Waits for a line of the log that has this in it.
    #[track_caller]
    fn expect_log(&self, part: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = Vec::new();
        while let Ok(line) = self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if line.contains(part) {
                return;
            }
            lines.push(line);
        }
        panic!("no line with {part} in {lines:#?}");
    }

    fn exit_code(&mut self) -> Option<i32> {
        wait(&mut self.child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_server_tells_when_it_is_ready_and_drains_when_asked() {
    for signal in ["-TERM", "-INT"] {
        let directory = directory(&[("s.toml", "durability = \"none\"")]);
        let flags = ["--listen", "127.0.0.1:0", "--shards", "1", "--config", "s.toml"];
        let mut server = Server::start(directory.path(), &flags);
        let names: Vec<&str> = server.ready.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["tcp", "coap", "coaps", "internal", "shards"]);
        assert_eq!([&server.ready[1].1, &server.ready[2].1, &server.ready[4].1], ["-", "-", "1"]);
        assert_ne!(server.address("tcp").port(), 0);
        TcpStream::connect(server.address("tcp")).expect("it listens");
        assert!(server.ask("/readyz").starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(server.ask("/metrics").contains("\nstillhere_shards 1\n"));
        server.expect_log("data is kept in memory only");
        server.signal(signal);
        assert_eq!(server.exit_code(), Some(0));
        server.expect_log("\"stopped\"");
        assert!(directory.path().join("stillhere-data").is_dir());
    }
}

#[test]
fn a_data_directory_has_one_server() {
    let directory = directory(&[]);
    let server = Server::start(directory.path(), &["--listen", "127.0.0.1:0", "--shards", "1"]);
    let second = run(directory.path(), &["serve", "--listen", "127.0.0.1:0", "--shards", "1"]);
    let told = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{told}");
    let holder = format!("data directory stillhere-data is in use by process {}", server.child.id());
    assert!(told.contains(&holder), "{told}");
    // A running server is no reason to find its configuration bad.
    assert_eq!(run(directory.path(), &["check"]).status.code(), Some(0));
    drop(server);
    // However the first one ended, the second one can have it.
    let mut third = Server::start(directory.path(), &["--listen", "127.0.0.1:0", "--shards", "1"]);
    third.signal("-TERM");
    assert_eq!(third.exit_code(), Some(0));
}

#[test]
fn an_address_in_use_is_a_failure() {
    let directory = directory(&[]);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("it has one").to_string();
    let output = run(directory.path(), &["serve", "--listen", "127.0.0.1:0", "--internal", &address]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&address));
    let output = run(directory.path(), &["serve", "--listen", &address, "--internal", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&address));
}

#[test]
fn the_default_internal_address_gives_way() {
    // Whether this succeeds or somebody else has it: it is in use.
    let _taken = TcpListener::bind("127.0.0.1:9001");
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let directory = directory(&[]);
    let server = Server::start(directory.path(), &["--listen", &free.to_string(), "--shards", "1"]);
    assert_ne!(server.address("internal").port(), 9_001);
    assert!(server.ask("/healthz").starts_with("HTTP/1.1 200 "));
}

#[test]
fn sighup_reads_the_rules_again_and_bad_rules_change_nothing() {
    let directory = directory(&[("r.json", "{\"rules\": {\".read\": true}}")]);
    let words = ["--listen", "127.0.0.1:0", "--shards", "1", "--rules", "r.json"];
    let mut server = Server::start(directory.path(), &words);
    std::fs::write(directory.path().join("r.json"), "{\"rules\":\n\n ?}").expect("a file");
    server.signal("-HUP");
    server.expect_log("r.json:3:");
    std::fs::write(directory.path().join("r.json"), "{\"rules\": {\".read\": false}}").expect("a file");
    server.signal("-HUP");
    server.expect_log("rules reloaded");
    let metrics = server.ask("/metrics");
    assert!(metrics.contains("rules_reloads_total{result=\"ok\"} 1"), "{metrics}");
    assert!(metrics.contains("rules_reloads_total{result=\"refused\"} 1"), "{metrics}");
    server.signal("-TERM");
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn the_environment_is_read_and_flags_beat_it() {
    let directory = directory(&[("s.toml", "data = \"elsewhere\"\nshards = 3")]);
    let mut command = stillhere(directory.path(), &["serve", "--shards", "1"]);
    command.envs([("STILLHERE_LISTEN", "127.0.0.1:0"), ("STILLHERE_SHARDS", "2"), ("STILLHERE_CONFIG", "s.toml")]);
    let server = Server::wait(command);
    assert_eq!(server.ready[4].1, "1");
    assert!(directory.path().join("elsewhere/lock").is_file());
    assert!(!directory.path().join("stillhere-data").exists());
}

#[test]
fn nobody_reading_the_log_does_not_stop_the_server() {
    let directory = directory(&[("r.json", "{\"rules\": {}}")]);
    let mut command = stillhere(directory.path(), &["serve", "--listen", "127.0.0.1:0", "--shards", "1"]);
    command.args(["--rules", "r.json"]);
    let mut child = command.spawn().expect("the program starts");
    // Held open and never read.
    let _stderr = child.stderr.take();
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("it says something");
    let (_, log) = mpsc::channel();
    let mut server = Server { child, ready: Vec::new(), log };
    // More than a pipe holds.
    for _ in 0..600 {
        server.signal("-HUP");
    }
    server.signal("-TERM");
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn slow_and_many_askers_are_bounded() {
    let directory = directory(&[]);
    let server = Server::start(directory.path(), &["--listen", "127.0.0.1:0", "--shards", "1"]);
    let address = server.address("internal");
    let idle: Vec<TcpStream> = (0..16).map(|_| TcpStream::connect(address).expect("it listens")).collect();
    // One more is closed, whatever it asks.
    let mut extra = TcpStream::connect(address).expect("it listens");
    let _ = extra.write_all(b"GET /healthz HTTP/1.1\r\n\r\n");
    let mut answer = Vec::new();
    let _ = extra.read_to_end(&mut answer);
    assert!(answer.is_empty());
    // An asker that says nothing is closed in time, and makes room.
    let started = Instant::now();
    for mut stream in idle {
        stream.set_read_timeout(Some(PATIENCE)).expect("it can be set");
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty());
    }
    assert!(started.elapsed() < PATIENCE);
    assert!(server.ask("/healthz").starts_with("HTTP/1.1 200 "));
}
