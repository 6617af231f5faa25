//! What the configuration means: plain values, checked against each other, handed down to rooms that
//! never see a flag.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::absent;
use super::auth::{self, Auth};
use super::low::{Low, NamespaceLow};
use super::place::{Origin, Problem, Typed};
use super::value::{Address, Durability, Duration, FilePath, LateLastWords, LogFormat, LogLevel, RulesDialect};
use crate::base::{Millis, limits};

/// What a server needs before anybody comes, and a little more.
const MEMORY_MAX_MIN: u64 = 16 << 20;

/// Everything that a server is told once, at the start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where WebSocket, Engine.IO, REST and streaming clients come in.
    pub listen: SocketAddr,
    /// Where CoAP clients come in.
    pub coap: Option<SocketAddr>,
    /// Where CoAP clients come in over DTLS.
    pub coaps: Option<SocketAddr>,
    /// Where the operator's tools ask for health and metrics.
    pub internal: SocketAddr,
    /// Whether somebody asked for that internal address: then no other will do.
    pub is_internal_chosen: bool,
    /// The data directory.
    pub data: PathBuf,
    /// From how many MiB of log on a shard takes a snapshot; at least 1.
    pub snapshot_mib: u32,
    /// How many bytes of memory may be in use before nothing new is taken in; `None`: as many as there are.
    pub memory_max: Option<u64>,
    /// The rules file, if there is one.
    pub rules: Option<PathBuf>,
    /// Whose names the rules may use.
    pub rules_dialect: RulesDialect,
    /// Who is believed.
    pub auth: Auth,
    /// What connections that begin with a TLS handshake are served with, if they are.
    pub tls: Option<TlsFiles>,
    /// How many cores to use: 1 to [`limits::SHARDS_MAX`].
    pub shards: u8,
    /// Whether `Bearer owner` and unsigned tokens are accepted, and missing rules allow everything.
    pub is_dev: bool,
    /// How to log.
    pub log_format: LogFormat,
    /// How much to log.
    pub log_level: LogLevel,
    /// What holds in which namespace.
    pub namespaces: Namespaces,
    /// How many connections one address may have at a time.
    pub connections_per_address: Option<u32>,
    /// Over how long sessions end when the server stops.
    pub drain_spread: Millis,
    /// How long a stop may take; longer than `drain_spread`.
    pub drain_max: Millis,
}

/// Where the server's certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, then those that vouch for it: PEM.
    pub cert: PathBuf,
    /// Its private key: PEM.
    pub key: PathBuf,
}

/// What holds in which namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespaces {
    /// The only ones that there may be; `None`: each exists as soon as it is named.
    pub allowed: Option<BTreeSet<String>>,
    /// What holds in those that are not in `named`.
    pub everywhere: Namespace,
    /// What holds in these.
    pub named: BTreeMap<String, Namespace>,
}

/// What holds in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// How often the server pings every connection that can be pinged.
    pub heartbeat: Millis,
    /// How long a WebSocket or Engine.IO session outlives the last byte heard; longer than `heartbeat`.
    pub session_timeout: Millis,
    /// How long a CoAP session outlives the last packet heard.
    pub coap_session_timeout: Millis,
    /// Whether late last words yield.
    pub late_last_words: LateLastWords,
    /// What an acknowledged write survives.
    pub durability: Durability,
    /// How long after a start last words of sessions of before wait for their clients.
    pub restart_grace: Millis,
    /// How many sessions there may be at a time.
    pub sessions_max: Option<u32>,
    /// How many last words may wait.
    pub last_words_max: Option<u32>,
    /// How many writes a second are taken.
    pub writes_per_second: Option<u32>,
}

/// What the configuration may depend on besides itself.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Cores that this process may use.
    pub cores: usize,
    /// Whether a person reads the log as it is written.
    pub is_terminal: bool,
}

/// One setting as it came out, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// `heartbeat`, or `namespace.chat.heartbeat`.
    pub name: String,
    /// As it would be written in the file, without quotes.
    pub value: String,
    /// Who wanted it.
    pub origin: Origin,
}

/// What came out of what was typed.
#[derive(Clone, Debug)]
pub struct Meaning {
    /// The configuration.
    pub config: Config,
    /// All of it, for people.
    pub lines: Vec<Line>,
    /// What is allowed but unwise.
    pub warnings: Vec<Problem>,
}

/// Says what `low` means on `machine`.
///
/// # Errors
///
/// Everything that is wrong with it, at least one problem.
pub fn mean(low: &Low, machine: Machine) -> Result<Meaning, Vec<Problem>> {
    let mut scribe = Scribe { lines: Vec::new(), warnings: Vec::new(), problems: absent::problems(low) };
    let listen = scribe.note("listen", or(&low.listen, || Address(loopback(9_000)))).0;
    let coap = scribe.note_optional("coap.listen", &low.coap).map(|address| address.0);
    let coaps = scribe.note_optional("coaps.listen", &low.coaps).map(|address| address.0);
    // Whoever lets the system choose one port wants no fixed one elsewhere.
    let internal_port = if listen.port() == 0 { 0 } else { 9_001 };
    let internal = or(&low.internal, || Address(loopback(internal_port)));
    let is_internal_chosen = internal.origin.is_chosen();
    let internal = scribe.note("internal", internal).0;
    let data = scribe.note("data", or(&low.data, || FilePath("stillhere-data".into()))).0;
    let snapshot_mib = or(&low.snapshot_mib, || 64);
    if snapshot_mib.value == 0 {
        scribe.problems.push(Problem::new(&snapshot_mib.origin, "snapshot_mib = 0: it must be 1 or more"));
    }
    let snapshot_mib = scribe.note("snapshot_mib", snapshot_mib);
    if let Some(low) = low.memory_max.as_ref().filter(|memory_max| memory_max.value.0 < MEMORY_MAX_MIN) {
        let reason = format!("memory_max = \"{}\": it must be 16MiB or more", low.value);
        scribe.problems.push(Problem::new(&low.origin, reason));
    }
    let memory_max = scribe.note_optional("memory_max", &low.memory_max).map(|size| size.0);
    let rules = scribe.note_optional("rules", &low.rules).map(|path| path.0);
    let rules_dialect = scribe.note("rules_dialect", or(&low.rules_dialect, || RulesDialect::Both));
    let shards = scribe.shards(low, machine);
    let is_dev = scribe.note("dev", or(&low.dev, || false));
    if is_dev {
        scribe.dev_is_local(low, &[("listen", Some(listen)), ("coap.listen", coap), ("coaps.listen", coaps)]);
    }
    let log_format_default = if machine.is_terminal { LogFormat::Human } else { LogFormat::Json };
    let log_format = scribe.note("log_format", or(&low.log_format, || log_format_default));
    let log_level = scribe.note("log_level", or(&low.log_level, || LogLevel::Info));
    let tls = scribe.tls(low);
    let auth = auth::mean(&low.auth, &mut scribe);
    let namespaces = scribe.namespaces(low);
    let connections_per_address = scribe.optional_count("connections_per_address", &low.connections_per_address);
    let (drain_spread, drain_max) = scribe.drain(low);
    let Scribe { lines, warnings, problems } = scribe;
    if !problems.is_empty() {
        return Err(problems);
    }
    let config = Config {
        listen,
        coap,
        coaps,
        internal,
        is_internal_chosen,
        data,
        snapshot_mib,
        memory_max,
        rules,
        rules_dialect,
        auth,
        tls,
        shards,
        is_dev,
        log_format,
        log_level,
        namespaces,
        connections_per_address,
        drain_spread,
        drain_max,
    };
    Ok(Meaning { config, lines, warnings })
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

pub(super) fn or<T: Clone>(typed: &Option<Typed<T>>, default: impl FnOnce() -> T) -> Typed<T> {
    typed.clone().unwrap_or_else(|| Typed { value: default(), origin: Origin::Default })
}

/// Writes down what each setting came to and what is wrong with it.
pub(super) struct Scribe {
    pub(super) lines: Vec<Line>,
    pub(super) warnings: Vec<Problem>,
    pub(super) problems: Vec<Problem>,
}

/// A namespace's settings with their origins, so that one that contradicts another can be blamed.
#[derive(Clone)]
struct Settled {
    heartbeat: Typed<Duration>,
    session_timeout: Typed<Duration>,
    coap_session_timeout: Typed<Duration>,
    late_last_words: Typed<LateLastWords>,
    durability: Typed<Durability>,
    restart_grace: Typed<Duration>,
    sessions_max: Option<Typed<u32>>,
    last_words_max: Option<Typed<u32>>,
    writes_per_second: Option<Typed<u32>>,
}

impl Scribe {
    pub(super) fn note<T: Display>(&mut self, name: impl Into<String>, typed: Typed<T>) -> T {
        self.lines.push(Line { name: name.into(), value: typed.value.to_string(), origin: typed.origin });
        typed.value
    }

    pub(super) fn note_optional<T: Display + Clone>(&mut self, name: &str, typed: &Option<Typed<T>>) -> Option<T> {
        match typed {
            Some(typed) => Some(self.note(name, typed.clone())),
            None => {
                self.lines.push(Line { name: name.into(), value: "-".into(), origin: Origin::Default });
                None
            }
        }
    }

    fn optional_count(&mut self, name: &str, typed: &Option<Typed<u32>>) -> Option<u32> {
        if let Some(typed) = typed {
            self.check_count(name, typed);
        }
        self.note_optional(name, typed)
    }

    /// Whoever wants nothing to come in does not start a server.
    fn check_count(&mut self, name: &str, typed: &Typed<u32>) {
        if typed.value == 0 {
            self.problems.push(Problem::new(&typed.origin, format!("{name} = 0: it must be 1 or more")));
        }
    }

    /// How long a stop takes, in sum and for its first part.
    fn drain(&mut self, low: &Low) -> (Millis, Millis) {
        let spread = or(&low.drain_spread, || Duration(Millis::from_secs(5)));
        let max = or(&low.drain_max, || Duration(Millis::from_secs(10)));
        if max.value.0 <= spread.value.0 || max.value.0 > limits::DRAIN_MAX {
            let culprit = if max.origin.is_chosen() { &max.origin } else { &spread.origin };
            let reason = format!(
                "drain_max = \"{}\": it must be longer than drain_spread = \"{}\", and at most {}",
                max.value,
                spread.value,
                Duration(limits::DRAIN_MAX)
            );
            self.problems.push(Problem::new(culprit, reason));
        }
        (self.note("drain_spread", spread).0, self.note("drain_max", max).0)
    }

    fn shards(&mut self, low: &Low, machine: Machine) -> u8 {
        let shards_max = u16::try_from(limits::SHARDS_MAX).expect("a shard's number is one byte");
        let cores = u16::try_from(machine.cores).unwrap_or(shards_max).clamp(1, shards_max);
        let typed = or(&low.shards, || cores);
        if typed.value == 0 || typed.value > shards_max {
            let reason = format!("shards = {}: it must be 1 to {shards_max}", typed.value);
            self.problems.push(Problem::new(&typed.origin, reason));
        } else if usize::from(typed.value) > machine.cores {
            let reason = format!("{} shards on {} cores: they will wait for each other", typed.value, machine.cores);
            self.warnings.push(Problem::new(&typed.origin, reason));
        }
        let shards = self.note("shards", typed);
        u8::try_from(shards).unwrap_or(u8::MAX)
    }

    fn tls(&mut self, low: &Low) -> Option<TlsFiles> {
        let cert = self.note_optional("tls.cert", &low.tls_cert);
        let key = self.note_optional("tls.key", &low.tls_key);
        let lonely = match (&low.tls_cert, &low.tls_key) {
            (Some(cert), None) => Some((cert, "tls.cert says nothing without tls.key")),
            (None, Some(key)) => Some((key, "tls.key says nothing without tls.cert")),
            _ => None,
        };
        if let Some((typed, reason)) = lonely {
            self.problems.push(Problem::new(&typed.origin, reason));
        }
        Some(TlsFiles { cert: cert?.0, key: key?.0 })
    }

    /// Anybody may do anything on a server to develop against, so nobody else may reach it.
    fn dev_is_local(&mut self, low: &Low, addresses: &[(&str, Option<SocketAddr>)]) {
        let place = low.dev.as_ref().map_or(&Origin::Default, |dev| &dev.origin);
        for (name, address) in addresses {
            let Some(address) = address.filter(|address| !address.ip().to_canonical().is_loopback()) else { continue };
            let reason = format!(
                "dev lets everybody in as owner, so it is refused on {name} = {address}: use a loopback address"
            );
            self.problems.push(Problem::new(place, reason));
        }
    }

    fn namespaces(&mut self, low: &Low) -> Namespaces {
        let allowed = self.allowed(low);
        let defaults = Settled {
            heartbeat: or(&None, || Duration(Millis::from_secs(20))),
            session_timeout: or(&None, || Duration(Millis::from_secs(45))),
            coap_session_timeout: or(&None, || Duration(Millis::from_secs(180))),
            late_last_words: or(&None, || LateLastWords::Yield),
            durability: or(&None, || Durability::Fsync),
            restart_grace: or(&None, || Duration(Millis(0))),
            sessions_max: None,
            last_words_max: None,
            writes_per_second: None,
        };
        let everywhere = settle(&low.everywhere, &defaults);
        // All are written down for all namespaces; for one, only what it says itself.
        self.check(&everywhere, &everywhere);
        self.note("heartbeat", everywhere.heartbeat.clone());
        self.note("session_timeout", everywhere.session_timeout.clone());
        self.note("coap.session_timeout", everywhere.coap_session_timeout.clone());
        self.note("late_last_words", everywhere.late_last_words.clone());
        self.note("durability", everywhere.durability.clone());
        self.note("restart_grace", everywhere.restart_grace.clone());
        self.optional_count("sessions_max", &everywhere.sessions_max);
        self.optional_count("last_words_max", &everywhere.last_words_max);
        self.optional_count("writes_per_second", &everywhere.writes_per_second);
        let mut named = BTreeMap::new();
        for (name, (origin, own)) in &low.namespace {
            if let Err(reason) = check_name(name) {
                self.problems.push(Problem::new(origin, reason));
            }
            if allowed.as_ref().is_some_and(|allowed| !allowed.contains(name)) {
                let reason = format!("namespace `{name}` is not among those that `namespaces` allows");
                self.problems.push(Problem::new(origin, reason));
            }
            let settled = settle(own, &everywhere);
            self.check(&settled, &everywhere);
            for quota in [&own.sessions_max, &own.last_words_max, &own.writes_per_second].into_iter().flatten() {
                self.check_count("a quota", quota);
            }
            self.note_own(name, own);
            named.insert(name.clone(), settled.plain());
        }
        Namespaces { allowed, everywhere: everywhere.plain(), named }
    }

    fn allowed(&mut self, low: &Low) -> Option<BTreeSet<String>> {
        let Some(typed) = &low.namespaces else {
            let value = "any".into();
            self.lines.push(Line { name: "namespaces".into(), value, origin: Origin::Default });
            return None;
        };
        if typed.value.is_empty() {
            self.problems.push(Problem::new(&typed.origin, "namespaces is empty: nobody could connect to anything"));
        }
        if typed.value.len() > limits::NAMESPACES_MAX {
            let reason = format!("namespaces has {} names of at most {}", typed.value.len(), limits::NAMESPACES_MAX);
            self.problems.push(Problem::new(&typed.origin, reason));
        }
        for reason in typed.value.iter().filter_map(|name| check_name(name).err()) {
            self.problems.push(Problem::new(&typed.origin, reason));
        }
        let (value, origin) = (typed.value.join(", "), typed.origin.clone());
        self.lines.push(Line { name: "namespaces".into(), value, origin });
        Some(typed.value.iter().cloned().collect())
    }

    fn note_own(&mut self, name: &str, own: &NamespaceLow) {
        let mut note = |key: &str, value: Option<(String, &Origin)>| {
            if let Some((value, origin)) = value {
                self.lines.push(Line { name: format!("namespace.{name}.{key}"), value, origin: origin.clone() });
            }
        };
        note("heartbeat", own.heartbeat.as_ref().map(text));
        note("session_timeout", own.session_timeout.as_ref().map(text));
        note("coap.session_timeout", own.coap_session_timeout.as_ref().map(text));
        note("late_last_words", own.late_last_words.as_ref().map(text));
        note("durability", own.durability.as_ref().map(text));
        note("restart_grace", own.restart_grace.as_ref().map(text));
        note("sessions_max", own.sessions_max.as_ref().map(text));
        note("last_words_max", own.last_words_max.as_ref().map(text));
        note("writes_per_second", own.writes_per_second.as_ref().map(text));
    }

    /// Checks the times of one namespace. What it has from `above` was checked there, so each mistake is
    /// told once.
    fn check(&mut self, settled: &Settled, above: &Settled) {
        // The largest gap between two pings of a device is 165 seconds, and the retransmissions of the
        // last one take 10 more.
        const COAP_SESSION_TIMEOUT_WISE: Millis = Millis::from_secs(175);
        let is_first = std::ptr::eq(settled, above);
        let is_new = |typed: &Typed<Duration>, above: &Typed<Duration>| is_first || typed != above;
        let is_new_heartbeat = is_new(&settled.heartbeat, &above.heartbeat);
        let is_new_timeout = is_new(&settled.session_timeout, &above.session_timeout);
        let is_new_coap_timeout = is_new(&settled.coap_session_timeout, &above.coap_session_timeout);
        let mut is_sound = true;
        for (name, typed, is_new) in [
            ("heartbeat", &settled.heartbeat, is_new_heartbeat),
            ("session_timeout", &settled.session_timeout, is_new_timeout),
            ("coap.session_timeout", &settled.coap_session_timeout, is_new_coap_timeout),
        ] {
            if !(limits::HEARTBEAT_MIN..=limits::SESSION_TIMEOUT_MAX).contains(&typed.value.0) {
                is_sound = false;
                if is_new {
                    let (min, max) = (limits::HEARTBEAT_MIN, Duration(limits::SESSION_TIMEOUT_MAX));
                    let reason = format!("{name} = \"{}\": it must be {min} to {max}", typed.value);
                    self.problems.push(Problem::new(&typed.origin, reason));
                }
            }
        }
        let (heartbeat, timeout) = (&settled.heartbeat, &settled.session_timeout);
        if is_sound && (is_new_heartbeat || is_new_timeout) && timeout.value.0 <= heartbeat.value.0 {
            let culprit = if is_new_timeout && timeout.origin.is_chosen() { timeout } else { heartbeat };
            let reason = format!(
                "session_timeout = \"{}\" is not longer than heartbeat = \"{}\": living clients would be ended \
                 before they are asked",
                timeout.value, heartbeat.value,
            );
            self.problems.push(Problem::new(&culprit.origin, reason));
        }
        let (grace, max) = (&settled.restart_grace, limits::SESSION_TIMEOUT_MAX);
        if is_new(grace, &above.restart_grace) && grace.value.0 > max {
            let reason = format!("restart_grace = \"{}\": it must be at most {}", grace.value, Duration(max));
            self.problems.push(Problem::new(&grace.origin, reason));
        }
        let coap_timeout = &settled.coap_session_timeout;
        if is_new_coap_timeout && coap_timeout.value.0 < COAP_SESSION_TIMEOUT_WISE {
            let reason = format!(
                "coap.session_timeout = \"{}\" is below {COAP_SESSION_TIMEOUT_WISE}: devices ping every 165s, so \
                 living ones may be ended",
                coap_timeout.value,
            );
            self.warnings.push(Problem::new(&coap_timeout.origin, reason));
        }
    }
}

impl Settled {
    fn plain(&self) -> Namespace {
        let count = |typed: &Option<Typed<u32>>| typed.as_ref().map(|typed| typed.value);
        Namespace {
            heartbeat: self.heartbeat.value.0,
            session_timeout: self.session_timeout.value.0,
            coap_session_timeout: self.coap_session_timeout.value.0,
            late_last_words: self.late_last_words.value,
            durability: self.durability.value,
            restart_grace: self.restart_grace.value.0,
            sessions_max: count(&self.sessions_max),
            last_words_max: count(&self.last_words_max),
            writes_per_second: count(&self.writes_per_second),
        }
    }
}

fn settle(own: &NamespaceLow, above: &Settled) -> Settled {
    Settled {
        heartbeat: own.heartbeat.clone().unwrap_or_else(|| above.heartbeat.clone()),
        session_timeout: own.session_timeout.clone().unwrap_or_else(|| above.session_timeout.clone()),
        coap_session_timeout: own.coap_session_timeout.clone().unwrap_or_else(|| above.coap_session_timeout.clone()),
        late_last_words: own.late_last_words.clone().unwrap_or_else(|| above.late_last_words.clone()),
        durability: own.durability.clone().unwrap_or_else(|| above.durability.clone()),
        restart_grace: own.restart_grace.clone().unwrap_or_else(|| above.restart_grace.clone()),
        sessions_max: own.sessions_max.clone().or_else(|| above.sessions_max.clone()),
        last_words_max: own.last_words_max.clone().or_else(|| above.last_words_max.clone()),
        writes_per_second: own.writes_per_second.clone().or_else(|| above.writes_per_second.clone()),
    }
}

fn text<T: Display>(typed: &Typed<T>) -> (String, &Origin) {
    (typed.value.to_string(), &typed.origin)
}

/// A namespace comes from `ns=` or from the first label of a host: it has no dots and nothing that a
/// path or a query would end at.
fn check_name(name: &str) -> Result<(), String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if name.is_empty() {
        Err("a namespace's name is empty".into())
    } else if name.len() > limits::NAMESPACE_BYTES_MAX {
        Err(format!("namespace `{name}` is longer than {} bytes", limits::NAMESPACE_BYTES_MAX))
    } else if !name.bytes().all(is_allowed) {
        Err(format!("namespace `{name}`: a name is made of letters, digits, - and _"))
    } else {
        Ok(())
    }
}
