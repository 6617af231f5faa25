use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, mpsc};

use clap::{CommandFactory as _, Parser as _};

use super::config::{Machine, Meaning, mean};
use super::flags::{Command, CommandLine};
use super::health::{Health, State};
use super::internal::answer;
use super::keys::pause;
use super::logs::{NoticeLog, Ration, Writer};
use super::low::{CONFIG_VARIABLE, KEYS, Low};
use super::place::{Origin, Problem};
use super::reference::{ABOUT, Part};
use super::value::{Durability, Duration, KeySource, LateLastWords, LogFormat, RulesDialect, Size};
use super::{Server, environment, file, rules, seam};
use crate::auth::{Claims, Provider, Signing};
use crate::base::{ConnId, Instant, Millis, ShardId, limits};
use crate::engine::Notice;
use crate::op::End;

const DOCUMENT: &str = include_str!("../../docs/CONFIGURATION.md");
const MACHINE: Machine = Machine { cores: 4, is_terminal: false };

// ---- values

#[track_caller]
fn check_duration(text: &str, expected: Result<u64, &str>) {
    match (text.parse::<Duration>(), expected) {
        (Ok(Duration(Millis(ms))), Ok(expected)) => assert_eq!(ms, expected, "{text}"),
        (Err(reason), Err(part)) => assert!(reason.contains(part), "{text}: {reason}"),
        (got, expected) => panic!("{text}: {got:?}, expected {expected:?}"),
    }
}

#[test]
fn durations_are_a_number_and_a_unit() {
    check_duration("20s", Ok(20_000));
    check_duration("500ms", Ok(500));
    check_duration("2m", Ok(120_000));
    check_duration("1h", Ok(3_600_000));
    check_duration("0s", Ok(0));
    check_duration("20", Err("has no unit: write \"20s\""));
    check_duration("", Err("is no duration"));
    check_duration("s", Err("the number is missing"));
    check_duration("1.5s", Err("is no duration"));
    check_duration("-1s", Err("is no duration"));
    check_duration("+1s", Err("is no duration"));
    check_duration("1 s", Err("is no duration"));
    check_duration("1s ", Err("is no duration"));
    check_duration("1S", Err("is no duration"));
    check_duration("1m30s", Err("is no duration"));
    check_duration("1é", Err("is no duration"));
    check_duration("99999999999999999999s", Err("too long"));
    check_duration("18446744073709551615m", Err("too long"));
}

#[track_caller]
fn check_size(text: &str, expected: Result<(u64, &str), &str>) {
    match (text.parse::<Size>(), expected) {
        (Ok(size), Ok((bytes, shown))) => assert_eq!((size.0, &size.to_string()[..]), (bytes, shown), "{text}"),
        (Err(reason), Err(part)) => assert!(reason.contains(part), "{text}: {reason}"),
        (got, expected) => panic!("{text}: {got:?}, expected {expected:?}"),
    }
}

#[test]
fn sizes_are_a_number_and_a_unit() {
    check_size("512MiB", Ok((512 << 20, "512MiB")));
    check_size("4GiB", Ok((4 << 30, "4GiB")));
    check_size("2048MiB", Ok((2 << 30, "2GiB")));
    check_size("20000KiB", Ok((20_000 << 10, "20000KiB")));
    check_size("512", Err("has no unit: write \"512MiB\""));
    for bad in ["", "MiB", "4GB", "4 GiB", "-4GiB", "1.5GiB", "4gib"] {
        check_size(bad, Err("is no size"));
    }
    check_size("99999999999999999999GiB", Err("more than there is"));
    check_size("18446744073709551615KiB", Err("more than there is"));
}

// ---- layers

fn flags(words: &[&str]) -> Low {
    let line = CommandLine::try_parse_from(["stillhere", "serve"].iter().chain(words)).expect("these flags are right");
    let Command::Serve(flags) = line.command else { panic!("that was `serve`") };
    flags.low(line.log)
}

fn variables(pairs: &[(&str, &str)]) -> environment::Environment {
    environment::read(pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
}

fn in_file(text: &str) -> Result<Low, Problem> {
    file::parse(Path::new("conf/test.toml"), text)
}

/// What the three places together mean.
fn meaning(words: &[&str], pairs: &[(&str, &str)], text: &str) -> Result<Meaning, Vec<Problem>> {
    let environment = variables(pairs);
    assert_eq!(environment.problems, []);
    let low = in_file(text).map_err(|problem| vec![problem])?;
    mean(&flags(words).over(environment.low).over(low), MACHINE)
}

#[track_caller]
fn check_line(words: &[&str], pairs: &[(&str, &str)], text: &str, name: &str, expected: &str) {
    let meaning = meaning(words, pairs, text).unwrap_or_else(|problems| panic!("{problems:?}"));
    let line = meaning.lines.iter().find(|line| line.name == name).unwrap_or_else(|| panic!("no line {name}"));
    assert_eq!(format!("{} {}", line.value, line.origin), expected);
}

#[test]
fn flags_beat_the_environment_beats_the_file_beats_defaults() {
    let flag: &[&str] = &["--listen", "127.0.0.1:1"];
    let variable: &[(&str, &str)] = &[("STILLHERE_LISTEN", "127.0.0.1:2")];
    let text = "\n  listen = \"127.0.0.1:3\"";
    check_line(flag, variable, text, "listen", "127.0.0.1:1 --listen");
    check_line(&[], variable, text, "listen", "127.0.0.1:2 STILLHERE_LISTEN");
    check_line(&[], &[], text, "listen", "127.0.0.1:3 conf/test.toml:2:12");
    check_line(&[], &[], "", "listen", "127.0.0.1:9000 default");
    check_line(&[], &[("STILLHERE_LISTEN", "")], "", "listen", "127.0.0.1:9000 default");
    check_line(&["--dev"], &[("STILLHERE_DEV", "0")], "dev = false", "dev", "true --dev");
    check_line(&[], &[("STILLHERE_DEV", "0")], "dev = true", "dev", "false STILLHERE_DEV");
}

#[test]
fn every_key_can_be_set_wherever_it_says() {
    // What is not part of this version has tests of its own.
    for (name, text, words) in [
        ("internal", "\"127.0.0.1:5\"", "127.0.0.1:5"),
        ("data", "\"/d\"", "/d"),
        ("rules", "\"/r\"", "/r"),
        ("rules_dialect", "\"wilddog\"", "wilddog"),
        ("auth.firebase_project", "\"p-1\"", "p-1"),
        ("auth.secrets_file", "\"/s\"", "/s"),
        ("auth.admin_tokens_file", "\"/t\"", "/t"),
        ("auth.leeway", "\"5s\"", "5s"),
        ("shards", "3", "3"),
        ("snapshot_mib", "8", "8"),
        ("memory_max", "\"512MiB\"", "512MiB"),
        ("dev", "true", "true"),
        ("log_format", "\"human\"", "human"),
        ("log_level", "\"debug\"", "debug"),
        ("namespaces", "[\"a\", \"b\"]", "a, b"),
        ("heartbeat", "\"7s\"", "7s"),
        ("session_timeout", "\"77s\"", "77s"),
        ("coap.session_timeout", "\"777s\"", "777s"),
        ("late_last_words", "\"always\"", "always"),
        ("durability", "\"os\"", "os"),
        ("restart_grace", "\"9s\"", "9s"),
    ] {
        let key = KEYS.iter().find(|key| key.name == name).expect("it is a key");
        let column = name.len() + 4;
        check_line(&[], &[], &format!("{name} = {text}"), name, &format!("{words} conf/test.toml:1:{column}"));
        check_line(&[], &[(key.variable, words)], "", name, &format!("{words} {}", key.variable));
        if let Some(flag) = key.flag {
            let flags = if name == "dev" { vec![flag] } else { vec![flag, words] };
            check_line(&flags, &[], "", name, &format!("{words} {flag}"));
        }
        if key.is_per_namespace {
            let text = format!("namespace.chat.{name} = {text}");
            let column = column + "namespace.chat.".len();
            check_line(
                &[],
                &[],
                &text,
                &format!("namespace.chat.{name}"),
                &format!("{words} conf/test.toml:1:{column}"),
            );
        }
    }
}

#[test]
fn paths_of_the_file_are_relative_to_it() {
    check_line(&[], &[], "data = \"d\"", "data", "conf/d conf/test.toml:1:8");
    check_line(&["--data", "d"], &[], "", "data", "d --data");
}

#[test]
fn a_namespace_has_what_it_says_and_else_what_all_have() {
    let text = "heartbeat = \"5s\"\n[namespace.chat]\nlate_last_words = \"always\"\ncoap.session_timeout = \"200s\"";
    let environment = [("STILLHERE_SESSION_TIMEOUT", "12s")];
    let namespaces = meaning(&[], &environment, text).expect("that is right").config.namespaces;
    let chat = namespaces.named["chat"];
    assert_eq!((chat.heartbeat, chat.session_timeout), (Millis(5_000), Millis(12_000)));
    assert_eq!((chat.late_last_words, chat.coap_session_timeout), (LateLastWords::Always, Millis(200_000)));
    assert_eq!(namespaces.everywhere.late_last_words, LateLastWords::Yield);
    assert_eq!(namespaces.everywhere.coap_session_timeout, Millis(180_000));
    assert_eq!(namespaces.allowed, None);
}

#[test]
fn without_a_word_the_server_is_as_documented() {
    let meaning = meaning(&[], &[], "").expect("defaults are right");
    let config = meaning.config;
    assert_eq!(config.listen.to_string(), "127.0.0.1:9000");
    assert_eq!(config.internal.to_string(), "127.0.0.1:9001");
    assert_eq!((config.coap, config.coaps, config.rules), (None, None, None));
    assert_eq!(config.data, Path::new("stillhere-data"));
    assert_eq!((config.shards, config.is_dev), (4, false));
    assert_eq!(config.log_format, LogFormat::Json);
    let all = config.namespaces.everywhere;
    assert_eq!((all.heartbeat, all.session_timeout), (Millis(20_000), Millis(45_000)));
    assert_eq!((all.coap_session_timeout, all.durability), (Millis(180_000), Durability::Fsync));
    assert_eq!(all.restart_grace, Millis(0));
    let people = mean(&Low::default(), Machine { cores: 400, is_terminal: true }).expect("defaults are right").config;
    assert_eq!((people.log_format, usize::from(people.shards)), (LogFormat::Human, limits::SHARDS_MAX));
}

#[test]
fn the_internal_port_is_free_to_choose_when_the_other_is() {
    check_line(&["--listen", "127.0.0.1:0"], &[], "", "internal", "127.0.0.1:0 default");
    check_line(&["--listen", "127.0.0.1:0"], &[], "internal = \"[::1]:7\"", "internal", "[::1]:7 conf/test.toml:1:12");
}

// ---- mistakes

/// `text` is refused as a file with exactly this line.
#[track_caller]
fn check_bad_file(text: &str, expected: &str) {
    let problem = in_file(text).expect_err(text);
    assert_eq!(problem.to_string(), format!("conf/test.toml:{expected}"));
}

#[test]
fn a_mistake_in_the_file_is_told_with_its_place() {
    check_bad_file("\n\nhartbeat = \"2s\"", "3:1: unknown key `hartbeat`; did you mean `heartbeat`?");
    check_bad_file(
        "[coap]\nsession_timout = \"2s\"",
        "2:1: unknown key `session_timout`; did you mean `session_timeout`?",
    );
    check_bad_file(
        "[coap]\nheartbeat = \"2s\"",
        "2:1: unknown key `heartbeat`; known here are listen, session_timeout",
    );
    check_bad_file("[tsl]\ncert = \"x\"", "1:2: unknown key `tsl`; did you mean `tls`?");
    check_bad_file(
        "[namespace.chat]\nheartbeat = \"2s\"\n  listen = \"127.0.0.1:1\"",
        "3:3: unknown key `listen`; known here are heartbeat, session_timeout, late_last_words, durability, restart_grace, sessions_max, last_words_max, writes_per_second, coap",
    );
    check_bad_file("heartbeat = \"20\"", "1:13: `20` has no unit: write \"20s\" for seconds, or use ms, m or h");
    check_bad_file(
        "# é\nheartbeat = 20",
        "2:13: invalid type: integer `20`, expected a duration in quotes, such as \"20s\", \"500ms\" or \"2m\"",
    );
    check_bad_file("late_last_words = \"never\"", "1:19: `never` is none of yield, always");
    check_bad_file("namespaces = \"a\"", "1:14: invalid type: string \"a\", expected a sequence");
    check_bad_file("shards = -1", "1:10: invalid value: integer `-1`, expected u16");
    check_bad_file("dev = \"yes\"", "1:7: invalid type: string \"yes\", expected a boolean");
    check_bad_file("data = \"\"", "1:8: the path is empty");
    check_bad_file("dev = true\ndev = false", "2:1: duplicate key");
    check_bad_file("heartbeat =", "1:12: string values must be quoted, expected literal string");
}

#[test]
fn a_mistake_in_the_environment_is_told_with_its_variable() {
    let environment = variables(&[
        ("STILLHERE_SHARDS", "many"),
        ("STILLHERE_HEARTBEAT", "20"),
        ("STILLHERE_DEV", "yes"),
        ("STILLHERE_HARTBEAT", "20s"),
        ("STILLHERE_PORT_9000_TCP_ADDR", "10.0.0.1"),
        ("HOME", "/"),
    ]);
    let told = |problems: &[Problem]| problems.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        told(&environment.problems),
        [
            "STILLHERE_SHARDS: invalid digit found in string",
            "STILLHERE_DEV: `yes` is none of true, false, 1, 0",
            "STILLHERE_HEARTBEAT: `20` has no unit: write \"20s\" for seconds, or use ms, m or h",
        ]
    );
    let warnings = told(&environment.warnings);
    assert_eq!(warnings[0], "STILLHERE_HARTBEAT: unknown variable, ignored; did you mean `STILLHERE_HEARTBEAT`?");
    assert_eq!(warnings.len(), 2);
}

/// These layers are refused with exactly these parts of lines, in order.
#[track_caller]
fn check_refused(words: &[&str], text: &str, expected: &[&str]) {
    let problems = meaning(words, &[], text).expect_err("it should be refused");
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.contains(expected), "{told}\nshould contain\n{expected}");
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    check_refused(&["--shards", "0"], "", &["--shards: shards = 0: it must be 1 to 64"]);
    check_refused(&["--shards", "65"], "", &["it must be 1 to 64"]);
    check_refused(&["--dev", "--listen", "0.0.0.0:9000"], "", &["--dev: dev lets everybody in"]);
    check_refused(&["--listen", "[::]:9000"], "dev = true", &["conf/test.toml:1:7: dev lets everybody in"]);
    check_refused(&[], "heartbeat = \"999ms\"", &["1:13: heartbeat = \"999ms\": it must be 1s to"]);
    check_refused(&[], "session_timeout = \"25h\"", &["1:19: session_timeout = \"90000s\": it must be"]);
    check_refused(&[], "coap.session_timeout = \"0s\"", &["1:24: coap.session_timeout"]);
    check_refused(&[], "session_timeout = \"20s\"", &["1:19: session_timeout = \"20s\" is not longer than heartbeat"]);
    check_refused(&[], "heartbeat = \"45s\"", &["1:13: session_timeout = \"45s\" is not longer"]);
    let own = "[namespace.chat]\nheartbeat = \"1m\"";
    check_refused(&[], own, &["2:13: session_timeout = \"45s\" is not longer than heartbeat = \"60s\""]);
    let inherited = "heartbeat = \"50s\"\n[namespace.chat]\nlate_last_words = \"always\"";
    check_refused(&[], inherited, &["1:13: session_timeout"]);
    check_refused(&[], "namespaces = []", &["1:14: namespaces is empty"]);
    check_refused(&[], "namespaces = [\"a.b\", \"\"]", &["`a.b`: a name is made of", "name is empty"]);
    check_refused(&[], "namespaces = [\"a\"]\n[namespace.b]", &["2:12: namespace `b` is not among"]);
    check_refused(&[], "[namespace.\"a/b\"]", &["1:12: namespace `a/b`: a name is made of"]);
    let long = format!("namespaces = [\"{}\"]", "x".repeat(limits::NAMESPACE_BYTES_MAX + 1));
    check_refused(&[], &long, &["is longer than 128 bytes"]);
}

#[test]
fn what_this_version_lacks_is_refused_and_not_ignored() {
    check_refused(&["--coaps", "127.0.0.1:0"], "", &["--coaps: CoAP over DTLS is not part"]);
    check_refused(&[], "[tls]\ncert = \"c\"", &["2:8: tls.cert says nothing without tls.key"]);
    check_refused(&[], "[tls]\nkey = \"k\"", &["2:7: tls.key says nothing without tls.cert"]);
}

#[test]
fn dev_is_allowed_on_every_loopback_address() {
    for address in ["127.0.0.1:0", "127.9.9.9:1", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
        check_line(&["--dev", "--listen", address], &[], "", "listen", &format!("{address} --listen"));
    }
}

#[track_caller]
fn check_warnings(text: &str, expected: &[&str]) {
    let warnings = meaning(&[], &[], text).expect("it is allowed").warnings;
    let told: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.contains(expected), "{told}\nshould contain\n{expected}");
    }
}

#[test]
fn what_is_unwise_is_warned_of() {
    check_warnings("", &[]);
    check_warnings("shards = 5", &["1:10: 5 shards on 4 cores"]);
    check_warnings("coap.session_timeout = \"175s\"", &[]);
    let once = "coap.session_timeout = \"174s\"\n[namespace.a]\n";
    check_warnings(once, &["1:24: coap.session_timeout = \"174s\" is below 175s"]);
}

// ---- credentials

const SECRET: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn secrets_are_counted_and_never_shown() {
    let text = format!("[auth]\nsecrets = [\"{SECRET}\"]\nadmin_tokens = [\"{SECRET}\", \"{SECRET}\"]");
    let meaning = meaning(&[], &[], &text).expect("that is right");
    let shown = format!("{meaning:?}{:?}", in_file(&text));
    assert!(!shown.contains(SECRET), "{shown}");
    check_line(&[], &[], &text, "auth.secrets", "1 given conf/test.toml:2:11");
    check_line(&[], &[], &text, "auth.admin_tokens", "2 given conf/test.toml:3:16");
    let variable = [("STILLHERE_AUTH_SECRETS", "0123456789abcdef0123456789abcdef, fedcba9876543210fedcba9876543210")];
    check_line(&[], &variable, &text, "auth.secrets", "2 given STILLHERE_AUTH_SECRETS");
    // Nor where they are wrong.
    for text in ["secrets = \"hush-hush\"", "secrets = [\"hush-hush\", 5]", "secrets = 4884488448"] {
        let problem = in_file(&format!("[auth]\n{text}")).expect_err(text).to_string();
        assert!(!problem.contains("hush") && !problem.contains("4884"), "{problem}");
        assert!(problem.contains("2:11: expected a list of secrets"), "{problem}");
    }
    check_refused(&[], "[auth]\nsecrets = [\"short\"]", &["2:11: one of auth.secrets has fewer than 32 bytes"]);
    check_refused(&[], "auth.admin_tokens = [\"\"]", &["1:21: one of auth.admin_tokens has fewer than 32"]);
}

#[test]
fn issuers_are_checked() {
    let issuer = "[[auth.issuer]]\nissuer = \"https://id.example/\"\naudiences = [\"app\"]\njwks = \"k.json\"\n";
    let all = format!(
        "{issuer}algorithms = [\"ES256\"]\nuid_claim = \"id\"\nuid_prefix = \"x:\"\nprovider = \"x\"\n\
         claims = {{ email = \"mail\" }}\nrequired = {{ azp = \"app\" }}\nadmin_claim = \"root\"\nage_max = \"1h\"\n\
         types = [\"at+jwt\"]"
    );
    let auth = meaning(&[], &[], &all).expect("that is right").config.auth;
    let trusted = &auth.issuers[0];
    assert_eq!(trusted.source.to_string(), "conf/k.json");
    assert_eq!((trusted.issuer.uid_claim.as_str(), trusted.issuer.uid_prefix.as_str()), ("id", "x:"));
    assert_eq!(trusted.issuer.provider, Provider::Fixed("x".into()));
    assert_eq!(trusted.issuer.claims, Claims::Named(vec![("email".into(), "mail".into())]));
    assert_eq!(trusted.issuer.required, [("azp".into(), "app".into())]);
    assert_eq!((trusted.issuer.admin_claim.as_deref(), trusted.issuer.age_max_s), (Some("root"), Some(3_600)));
    assert_eq!(
        (&*trusted.issuer.types, &*trusted.issuer.signings),
        (&["at+jwt".to_owned()][..], &[Signing::Es256][..])
    );
    let auth = meaning(&[], &[], issuer).expect("that is right").config.auth;
    assert_eq!(auth.issuers[0].issuer.claims, Claims::All);
    assert_eq!(auth.issuers[0].issuer.provider, Provider::Fixed("https://id.example/".into()));
    assert_eq!(auth.leeway_s, 60);
    check_line(&[], &[], issuer, "auth.issuer", "https://id.example/ (keys: conf/k.json) conf/test.toml:2:10");
    check_refused(&[], &format!("{issuer}{issuer}"), &["6:10: issuer https://id.example/ is configured twice"]);
    let without = issuer.replace("[\"app\"]", "[]");
    check_refused(&[], &without, &["3:13: issuer https://id.example/ needs an audience"]);
    check_refused(&[], &format!("{issuer}algorithms = []"), &["5:14: issuer https://id.example/ may sign in no way"]);
    check_bad_file(&format!("{issuer}algorithms = [\"HS256\"]"), "5:15: `HS256` is none of RS256, ES256, EdDSA");
    check_bad_file("[[auth.issuer]]\nissuer = \"x\"\naudiences = []", "1:1: missing field `jwks`");
    check_refused(&[], "auth.anonymous = true", &["1:18: auth.anonymous needs a secret to sign with"]);
    let file = "[auth]\nanonymous = true\nsecrets_file = \"s\"";
    check_line(&[], &[], file, "auth.anonymous", "true conf/test.toml:2:13");
    check_refused(&[], "auth.leeway = \"11m\"", &["1:15: auth.leeway = \"660s\": it must be at most 600s"]);
}

#[test]
fn a_firebase_project_is_an_issuer() {
    let auth = meaning(&[], &[], "auth.firebase_project = \"p\"").expect("that is right").config.auth;
    assert_eq!(auth.issuers[0].issuer.issuer, "https://securetoken.google.com/p");
    assert!(auth.issuers[0].source.to_string().starts_with("https://www.googleapis.com/"), "{auth:?}");
    let file = "auth.firebase_project = \"p\"\nauth.firebase_jwks = \"k.json\"";
    check_line(&[], &[], file, "auth.firebase_jwks", "conf/k.json conf/test.toml:2:22");
    check_refused(&[], "auth.firebase_jwks = \"k.json\"", &["1:22: auth.firebase_jwks says nothing without"]);
    check_refused(&[], "auth.firebase_project = \"a/b\"", &["1:25: `a/b` is no id of a Firebase project"]);
}

#[track_caller]
fn check_source(text: &str, expected: Result<&str, &str>) {
    match (text.parse::<KeySource>(), expected) {
        (Ok(source), Ok(kind)) => assert_eq!(if matches!(source, KeySource::Url(_)) { "url" } else { "file" }, kind),
        (Err(reason), Err(part)) => assert!(reason.contains(part), "{text}: {reason}"),
        (got, _) => panic!("{text}: {got:?}"),
    }
}

#[test]
fn keys_come_from_a_file_or_over_a_safe_way() {
    check_source("keys.json", Ok("file"));
    check_source("/a/b:c.json", Ok("file"));
    check_source("https://id.example/keys", Ok("url"));
    check_source("http://127.0.0.1:8080/keys", Ok("url"));
    check_source("http://localhost/keys", Ok("url"));
    check_source("http://[::1]:1/keys", Ok("url"));
    check_source("http://id.example/keys", Err("use https"));
    check_source("http://127.0.0.1.example/keys", Err("use https"));
    check_source("http://localhost:80.example/keys", Err("use https"));
    check_source("ftp://id.example/keys", Err("from a file or over https"));
    check_source("https://u:p@id.example/keys", Err("holds no password"));
    check_source("https:///keys", Err("no host"));
    check_source("", Err("the path is empty"));
}

#[test]
fn a_key_set_is_kept_as_long_as_its_source_says_within_reason() {
    for (header, seconds) in [
        ("public, max-age=19845, must-revalidate", 19_845),
        ("Max-Age=\"600\"", 600),
        ("max-age=1", 300),
        ("max-age=99999999", 86_400),
        ("no-cache", 3_600),
        ("max-age=soon", 3_600),
        ("s-maxage=7", 3_600),
        ("", 3_600),
    ] {
        assert_eq!(pause(header).as_secs(), seconds, "{header}");
    }
}

/// What comes of files of these texts, named by the configuration.
#[track_caller]
fn check_files(keys: &str, secrets: &str, expected: Result<(usize, usize), &[&str]>) {
    let directory = tempfile::TempDir::new().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("k.json"), keys).expect("a file");
    std::fs::write(path("s"), secrets).expect("a file");
    let text = "auth.firebase_project = \"p\"\nauth.firebase_jwks = \"k.json\"\nauth.secrets_file = \"s\"";
    let low = file::parse(&path("c.toml"), text).expect("that is right");
    let auth = mean(&low, MACHINE).expect("that is right").config.auth;
    match (super::auth::load(&auth, false), expected) {
        (Ok(config), Ok(counts)) => assert_eq!((config.issuers[0].keys.len(), config.secrets.len()), counts),
        (Err(problems), Err(parts)) => {
            assert_eq!(problems.len(), parts.len(), "{problems:?}");
            for (problem, part) in problems.iter().zip(parts) {
                assert!(problem.to_string().contains(part), "{problem}");
            }
        }
        (got, _) => panic!("{got:?}"),
    }
}

const KEYS_ED: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "alg": "EdDSA",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

#[test]
fn files_of_keys_and_secrets_are_checked() {
    check_files(KEYS_ED, SECRET, Ok((1, 1)));
    check_files(KEYS_ED, &format!("\n{SECRET}\r\n\n  {SECRET}x  \n"), Ok((1, 2)));
    check_files("{}", SECRET, Err(&["k.json: not a JSON object with a list `keys`"]));
    check_files("{\"keys\": []}", &format!("{SECRET}\nshort"), Err(&["k.json: no key", "s:2:1: one of auth.secrets"]));
    check_files(KEYS_ED, "\n", Err(&["s: it holds no secret"]));
    check_files(KEYS_ED, &"x".repeat(1024 * 1024 + 1), Err(&["s: cannot be read: it is longer than"]));
}

// ---- the document and the names

#[test]
fn all_names_of_a_key_are_known_where_they_are_used() {
    let command = CommandLine::command();
    let serve = command.find_subcommand("serve").expect("it is a command");
    let mut flags: Vec<String> = serve.get_arguments().chain(command.get_arguments()).filter_map(long).collect();
    flags.retain(|flag| flag != "--help" && flag != "--version" && flag != "--config");
    flags.sort();
    let mut known: Vec<&str> = KEYS.iter().filter_map(|key| key.flag).collect();
    known.sort_unstable();
    assert_eq!(flags, known, "flags of `serve` and flags of KEYS");
    for key in KEYS {
        // A table is a value of no key.
        let problem = in_file(&format!("{} = {{}}", key.name)).expect_err(key.name);
        assert!(!problem.reason.contains("unknown key"), "the file does not know {}", key.name);
        let environment = variables(&[(key.variable, "\u{1}")]);
        assert_eq!(environment.warnings, [], "the environment does not know {}", key.variable);
    }
}

fn long(argument: &clap::Arg) -> Option<String> {
    argument.get_long().map(|name| format!("--{name}"))
}

#[test]
fn the_document_has_every_key_flag_and_variable() {
    let mut names: Vec<String> = vec![CONFIG_VARIABLE.into()];
    for key in KEYS {
        names.extend([key.name.into(), key.variable.into()]);
    }
    let command = CommandLine::command();
    for subcommand in command.get_subcommands() {
        names.extend(subcommand.get_arguments().filter_map(long));
    }
    names.extend(command.get_arguments().filter_map(long));
    for name in names {
        assert!(DOCUMENT.contains(&format!("`{name}`")), "docs/CONFIGURATION.md lacks `{name}`");
    }
}

/// The metrics of the table of `docs/OPERATING.md`: names, kinds, and the names of their labels.
fn documented_metrics() -> Vec<(String, String, Vec<String>)> {
    let table = include_str!("../../docs/OPERATING.md").split("## Metrics").nth(1).expect("there is a chapter");
    let table = table.split("\n## ").next().expect("splitting gives at least one piece");
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        // Each label is named first in its part; its values follow a colon.
        let labels = cells[3].split(';').filter_map(|label| label.split('`').nth(1)).map(str::to_owned);
        (cells[1].trim_matches('`').to_owned(), cells[2].to_owned(), labels.collect())
    })
    .collect()
}

/// The metrics of a text, in the same way.
fn printed_metrics(text: &str) -> Vec<(String, String, Vec<String>)> {
    let mut metrics: Vec<(String, String, Vec<String>)> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a kind");
            metrics.push((name.to_owned(), kind.to_owned(), Vec::new()));
        } else if let Some((_, rest)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let labels = &mut metrics.last_mut().expect("a sample follows its family").2;
            for label in rest.split("\",").filter_map(|pair| pair.split_once('=')).map(|(name, _)| name.to_owned()) {
                if label != "le" && !labels.contains(&label) {
                    labels.push(label);
                }
            }
        }
    }
    metrics
}

#[test]
fn the_document_has_every_metric_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::builder().listen(([127, 0, 0, 1], 0).into()).data(directory.path()).shards(2).dev().start();
    let server = server.unwrap();
    let (mut printed, mut documented) = (printed_metrics(&server.health().metrics()), documented_metrics());
    server.stop().unwrap();
    printed.sort();
    documented.sort();
    assert_eq!(printed, documented);
}

#[test]
fn the_reference_is_what_the_document_has() {
    let generated: Vec<&str> = DOCUMENT.split("<!-- generated -->\n").skip(1).collect();
    assert_eq!(generated.len(), Part::ALL.len(), "a table for each part");
    for (part, text) in Part::ALL.into_iter().zip(generated) {
        let text = text.split("<!-- /generated -->").next().expect("splitting gives at least one piece");
        assert_eq!(text, part.table(), "docs/CONFIGURATION.md is not what `stillhere config reference` prints");
    }
    let names: Vec<&str> = ABOUT.iter().map(|about| about.name).collect();
    assert_eq!(names, KEYS.map(|key| key.name), "each key has its text, in the same order");
    // What it says of defaults is what holds.
    let defaults = mean(&Low::default(), Machine { cores: 4, is_terminal: false }).expect("defaults are right");
    for about in ABOUT {
        // Secrets are shown in one line for all.
        let Some(line) = defaults.lines.iter().find(|line| line.name == about.name) else { continue };
        let told = about.default.trim_matches(['`', '"']);
        if about.default.starts_with('`') && !about.default.contains("` ") {
            assert_eq!(told.trim_start_matches("./"), line.value, "{}", about.name);
        } else if about.default == "none" {
            assert_eq!(line.value, "-", "{}", about.name);
        }
    }
}

#[test]
fn the_documents_example_is_a_good_file() {
    let example = DOCUMENT.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    let example = example.expect("the document has an example");
    let meaning = meaning(&[], &[], example).unwrap_or_else(|problems| panic!("{problems:#?}"));
    // Whoever copies it gets what nobody asked to change, but for the lines that show a change.
    let defaults = mean(&Low::default(), MACHINE).expect("defaults are right");
    for line in defaults.lines.iter().filter(|line| !["rules", "data", "shards", "namespaces"].contains(&&*line.name)) {
        let shown = meaning.lines.iter().find(|shown| shown.name == line.name).map(|shown| &shown.value);
        assert_eq!(shown, Some(&line.value), "{}", line.name);
    }
}

// ---- rules

#[track_caller]
fn check_rules(text: &str, expected: Result<(), usize>) {
    let result = seam::compile_rules(text, RulesDialect::Both).map(drop).map_err(|remark| remark.line);
    assert_eq!(result, expected, "{text}");
}

#[test]
fn rules_are_checked_with_their_line() {
    check_rules(r#"{"rules": {".read": true}}"#, Ok(()));
    check_rules("// who\n{\"rules\": /* all\n */ {\".read\": \"'//' == '/*'\"}} // end", Ok(()));
    check_rules("{\"rules\": {\n  \".read\": ?\n}}", Err(2));
    check_rules("{\"rules\": {\n /* \u{e9} \n */ \".read\" true}}", Err(3));
}

#[test]
fn without_a_file_everything_is_denied_unless_in_dev() {
    let closed = rules::load(&meaning(&[], &[], "").expect("right").config).expect("ours are sound");
    let open = rules::load(&meaning(&["--dev"], &[], "").expect("right").config).expect("ours are sound");
    assert!(closed.text.contains("false") && !closed.text.contains("true"), "{}", closed.text);
    assert!(open.text.contains("true") && !open.text.contains("false"), "{}", open.text);
}

// ---- health and logs

#[track_caller]
fn check_answer(health: &Health, request: &str, status: u16, body_part: &str) {
    let answer = answer(request.as_bytes(), health).unwrap_or_else(|| panic!("no answer to {request}"));
    assert_eq!(answer.status, status, "{request}");
    assert!(answer.body.contains(body_part), "{request}: {}", answer.body);
}

#[test]
fn the_internal_address_says_how_the_server_is() {
    let health = Health::default();
    check_answer(&health, "GET /healthz HTTP/1.1\r\n\r\n", 200, "ok");
    check_answer(&health, "GET /readyz HTTP/1.1\r\n\r\n", 503, "starting");
    health.set_ready(3);
    check_answer(&health, "GET /readyz?verbose HTTP/1.1\r\nHost: x\r\n\r\n", 200, "ok");
    health.set_draining();
    check_answer(&health, "GET /readyz HTTP/1.0\r\n\r\n", 503, "draining");
    check_answer(&health, "HEAD /healthz HTTP/1.1\r\n\r\n", 200, "");
    check_answer(&health, "POST /healthz HTTP/1.1\r\n\r\n", 405, "");
    check_answer(&health, "GET / HTTP/1.1\r\n\r\n", 404, "");
    check_answer(&health, "\u{1}\r\n\r\n", 400, "");
    health.count_notice(&Notice::Violation { conn: ConnId(1), what: "a test" });
    for end in [End::Closed, End::Dropped, End::TimedOut, End::Superseded, End::Killed, End::ServerStopped] {
        health.count_notice(&Notice::Ended { end, silent: Millis(1) });
    }
    health.count_notice(&Notice::LastWords { end: End::Dropped, spoken: 5, yielded: 6, denied: 7 });
    health.count_rules_refused();
    health.count_auth_reload(false);
    health.count_key_fetch(true);
    for line in [
        "stillhere_build_info{version=\"",
        "stillhere_ready 0",
        "stillhere_shards 3",
        "stillhere_rules_reloads_total{result=\"refused\"} 1",
        "stillhere_auth_reloads_total{result=\"refused\"} 1",
        "stillhere_key_fetches_total{result=\"ok\"} 1",
        "stillhere_key_fetches_total{result=\"failed\"} 0",
        "stillhere_notices_total{kind=\"violation\"} 1",
        "stillhere_sessions_ended_total{end=\"timed_out\"} 1",
        "stillhere_sessions_ended_total{end=\"server_stopped\"} 1",
        "stillhere_last_words_total{fate=\"spoken\",end=\"dropped\"} 5",
        "stillhere_last_words_total{fate=\"yielded\",end=\"dropped\"} 6",
        "stillhere_last_words_total{fate=\"denied\",end=\"dropped\"} 7",
    ] {
        check_answer(&health, "GET /metrics HTTP/1.1\r\n\r\n", 200, line);
    }
    assert_eq!(answer(b"GET /healthz HTTP/1.1\r\nHost", &health), None);
}

#[test]
fn lines_of_one_kind_are_rationed() {
    let mut ration = Ration::default();
    let window = limits::NOTICE_WINDOW;
    let start = Instant(1_000_000);
    for _ in 0..limits::NOTICES_MAX {
        assert_eq!(ration.take(start), Some(0));
    }
    assert_eq!(ration.take(start), None);
    assert_eq!(ration.take(start + Millis(window.0 - 1)), None);
    assert_eq!(ration.take(start + window), Some(2));
    assert_eq!(ration.take(start + window), Some(0));
}

#[test]
fn a_full_log_loses_lines_and_does_not_wait() {
    let health = Arc::new(Health::default());
    let (lines, _queue) = mpsc::sync_channel(1);
    let mut writer = Writer { lines, health: Arc::clone(&health) };
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        for _ in 0..3 {
            writer.write_all(b"a line\n").expect("nobody is told that it is lost");
        }
        done.send(())
    });
    assert_eq!(is_done.recv_timeout(std::time::Duration::from_secs(30)), Ok(()), "it waits");
    assert!(health.metrics().contains("stillhere_log_lines_lost_total 2"));
}

#[test]
fn new_clients_are_sent_elsewhere_before_the_others_go() {
    let health = Health::default();
    health.set_ready(1);
    let seen = std::cell::Cell::new(None);
    super::life::drain(&health, &|| seen.set(Some(health.state())));
    assert_eq!(seen.get(), Some(State::Draining));
}

#[test]
fn every_notice_is_counted_even_if_it_is_not_logged() {
    let health = Arc::new(Health::default());
    let mut log = NoticeLog::new(ShardId(0), Arc::clone(&health));
    let count = u64::from(limits::NOTICES_MAX) + 5;
    for _ in 0..count {
        log.note(Instant(7), &Notice::Violation { conn: ConnId(1), what: "a test" });
    }
    assert!(health.metrics().contains(&format!("stillhere_notices_total{{kind=\"violation\"}} {count}")));
}

#[test]
fn a_place_counts_characters() {
    let place = |offset| Origin::in_file(&"f".into(), "é=1\nàb", offset).to_string();
    assert_eq!(
        (place(0), place(2), place(5), place(7)),
        ("f:1:1".into(), "f:1:2".into(), "f:2:1".into(), "f:2:2".into())
    );
}
