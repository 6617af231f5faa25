//! Exactly what was typed, in one place: the command line, the environment, or the file.
//!
//! All three are read into the same [`Low`], each value with its [`Origin`]; laying
//! them over each other is then one line a key. What they mean is decided in [`config`](super::config).

use std::collections::BTreeMap;

use super::place::{Origin, Typed};
use super::value::{
    Address, Durability, Duration, FilePath, KeySource, LateLastWords, LogFormat, LogLevel, RulesDialect, Secrets,
    Signing, Size,
};

/// A setting that there is, under all its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// In the file: `coap.session_timeout` is `session_timeout` in the table `[coap]`.
    pub name: &'static str,
    /// In the environment.
    pub variable: &'static str,
    /// On the command line, when it has a flag.
    pub flag: Option<&'static str>,
    /// Whether a `[namespace.NAME]` may have its own.
    pub is_per_namespace: bool,
}

const fn key(name: &'static str, variable: &'static str, flag: Option<&'static str>) -> Key {
    Key { name, variable, flag, is_per_namespace: false }
}

const fn namespace_key(name: &'static str, variable: &'static str) -> Key {
    Key { name, variable, flag: None, is_per_namespace: true }
}

/// Every setting, in the order in which they are shown.
pub const KEYS: [Key; 36] = [
    key("listen", "STILLHERE_LISTEN", Some("--listen")),
    key("coap.listen", "STILLHERE_COAP", Some("--coap")),
    key("coaps.listen", "STILLHERE_COAPS", Some("--coaps")),
    key("internal", "STILLHERE_INTERNAL", Some("--internal")),
    key("data", "STILLHERE_DATA", Some("--data")),
    key("snapshot_mib", "STILLHERE_SNAPSHOT_MIB", None),
    key("memory_max", "STILLHERE_MEMORY_MAX", None),
    key("rules", "STILLHERE_RULES", Some("--rules")),
    key("rules_dialect", "STILLHERE_RULES_DIALECT", None),
    key("shards", "STILLHERE_SHARDS", Some("--shards")),
    key("dev", "STILLHERE_DEV", Some("--dev")),
    key("log_format", "STILLHERE_LOG_FORMAT", Some("--log-format")),
    key("log_level", "STILLHERE_LOG", Some("--log-level")),
    key("tls.cert", "STILLHERE_TLS_CERT", None),
    key("tls.key", "STILLHERE_TLS_KEY", None),
    key("auth.firebase_project", "STILLHERE_AUTH_FIREBASE_PROJECT", None),
    key("auth.firebase_jwks", "STILLHERE_AUTH_FIREBASE_JWKS", None),
    key("auth.secrets", "STILLHERE_AUTH_SECRETS", None),
    key("auth.secrets_file", "STILLHERE_AUTH_SECRETS_FILE", None),
    key("auth.admin_tokens", "STILLHERE_AUTH_ADMIN_TOKENS", None),
    key("auth.admin_tokens_file", "STILLHERE_AUTH_ADMIN_TOKENS_FILE", None),
    key("auth.anonymous", "STILLHERE_AUTH_ANONYMOUS", None),
    key("auth.leeway", "STILLHERE_AUTH_LEEWAY", None),
    key("namespaces", "STILLHERE_NAMESPACES", None),
    key("connections_per_address", "STILLHERE_CONNECTIONS_PER_ADDRESS", None),
    key("drain_spread", "STILLHERE_DRAIN_SPREAD", None),
    key("drain_max", "STILLHERE_DRAIN_MAX", None),
    namespace_key("heartbeat", "STILLHERE_HEARTBEAT"),
    namespace_key("session_timeout", "STILLHERE_SESSION_TIMEOUT"),
    namespace_key("coap.session_timeout", "STILLHERE_COAP_SESSION_TIMEOUT"),
    namespace_key("late_last_words", "STILLHERE_LATE_LAST_WORDS"),
    namespace_key("durability", "STILLHERE_DURABILITY"),
    namespace_key("restart_grace", "STILLHERE_RESTART_GRACE"),
    namespace_key("sessions_max", "STILLHERE_SESSIONS_MAX"),
    namespace_key("last_words_max", "STILLHERE_LAST_WORDS_MAX"),
    namespace_key("writes_per_second", "STILLHERE_WRITES_PER_SECOND"),
];

/// The variable that names the configuration file; it has no key, for the file cannot name itself.
pub const CONFIG_VARIABLE: &str = "STILLHERE_CONFIG";

/// What was typed in one place. `None`: nothing was said about it there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Low {
    /// Where WebSocket, Engine.IO, REST and streaming clients come in.
    pub listen: Option<Typed<Address>>,
    /// Where CoAP clients come in.
    pub coap: Option<Typed<Address>>,
    /// Where CoAP clients come in over DTLS.
    pub coaps: Option<Typed<Address>>,
    /// Where the operator's tools ask for health and metrics.
    pub internal: Option<Typed<Address>>,
    /// The data directory.
    pub data: Option<Typed<FilePath>>,
    /// The rules file.
    pub rules: Option<Typed<FilePath>>,
    /// Whose names the rules may use.
    pub rules_dialect: Option<Typed<RulesDialect>>,
    /// Who is believed.
    pub auth: AuthLow,
    /// How many cores to use.
    pub shards: Option<Typed<u16>>,
    /// `snapshot_mib`
    pub snapshot_mib: Option<Typed<u32>>,
    /// `memory_max`
    pub memory_max: Option<Typed<Size>>,
    /// Whether this is a server to develop against.
    pub dev: Option<Typed<bool>>,
    /// How to log.
    pub log_format: Option<Typed<LogFormat>>,
    /// How much to log.
    pub log_level: Option<Typed<LogLevel>>,
    /// The certificate chain.
    pub tls_cert: Option<Typed<FilePath>>,
    /// The certificate's private key.
    pub tls_key: Option<Typed<FilePath>>,
    /// The only namespaces that there may be.
    pub namespaces: Option<Typed<Vec<String>>>,
    /// How many connections one address may have.
    pub connections_per_address: Option<Typed<u32>>,
    /// Over how long sessions end when the server stops.
    pub drain_spread: Option<Typed<Duration>>,
    /// How long a stop may take.
    pub drain_max: Option<Typed<Duration>>,
    /// What holds in every namespace that says nothing else.
    pub everywhere: NamespaceLow,
    /// What single namespaces say, and where each begins.
    pub namespace: BTreeMap<String, (Origin, NamespaceLow)>,
}

/// What was typed about who is believed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuthLow {
    /// The Firebase project whose users are believed.
    pub firebase_project: Option<Typed<String>>,
    /// Where the keys are that sign its tokens.
    pub firebase_jwks: Option<Typed<KeySource>>,
    /// Database secrets.
    pub secrets: Option<Typed<Secrets>>,
    /// A file with more of them.
    pub secrets_file: Option<Typed<FilePath>>,
    /// Administrators' tokens.
    pub admin_tokens: Option<Typed<Secrets>>,
    /// A file with more of them.
    pub admin_tokens_file: Option<Typed<FilePath>>,
    /// By how much clocks may differ.
    pub leeway: Option<Typed<Duration>>,
    /// Whether anybody may sign in as somebody.
    pub anonymous: Option<Typed<bool>>,
    /// Other issuers of tokens: only the file can name them.
    pub issuers: Vec<IssuerLow>,
}

/// What was typed about an issuer of tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct IssuerLow {
    /// What `iss` must be.
    pub issuer: Typed<String>,
    /// One of these must be in `aud`.
    pub audiences: Typed<Vec<String>>,
    /// Where its keys are.
    pub jwks: Typed<KeySource>,
    /// How it may sign.
    pub algorithms: Option<Typed<Vec<Signing>>>,
    /// The claim that is the user's id.
    pub uid_claim: Option<Typed<String>>,
    /// What is put before the id.
    pub uid_prefix: Option<Typed<String>>,
    /// What rules see as `auth.provider`.
    pub provider: Option<Typed<String>>,
    /// Which claims rules see, and as what.
    pub claims: Option<BTreeMap<String, String>>,
    /// Claims that must be there.
    pub required: BTreeMap<String, String>,
    /// The claim that makes an administrator.
    pub admin_claim: Option<Typed<String>>,
    /// The oldest token that is accepted.
    pub age_max: Option<Typed<Duration>>,
    /// Values of the header's `typ` besides `JWT`.
    pub types: Vec<String>,
}

/// What was typed about one namespace, or about all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamespaceLow {
    /// How often the server pings.
    pub heartbeat: Option<Typed<Duration>>,
    /// When a silent WebSocket or Engine.IO session ends.
    pub session_timeout: Option<Typed<Duration>>,
    /// When a silent CoAP session ends.
    pub coap_session_timeout: Option<Typed<Duration>>,
    /// Whether late last words yield.
    pub late_last_words: Option<Typed<LateLastWords>>,
    /// What an acknowledged write survives.
    pub durability: Option<Typed<Durability>>,
    /// `restart_grace`
    pub restart_grace: Option<Typed<Duration>>,
    /// How many sessions there may be.
    pub sessions_max: Option<Typed<u32>>,
    /// How many last words may wait.
    pub last_words_max: Option<Typed<u32>>,
    /// How many writes a second are taken.
    pub writes_per_second: Option<Typed<u32>>,
}

impl Low {
    /// What holds when `self` is laid over `below`.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        let mut namespace = below.namespace;
        for (name, (origin, low)) in self.namespace {
            let lower = namespace.remove(&name).map(|(_, lower)| lower).unwrap_or_default();
            namespace.insert(name, (origin, low.over(lower)));
        }
        Self {
            listen: self.listen.or(below.listen),
            coap: self.coap.or(below.coap),
            coaps: self.coaps.or(below.coaps),
            internal: self.internal.or(below.internal),
            data: self.data.or(below.data),
            rules: self.rules.or(below.rules),
            rules_dialect: self.rules_dialect.or(below.rules_dialect),
            auth: self.auth.over(below.auth),
            shards: self.shards.or(below.shards),
            snapshot_mib: self.snapshot_mib.or(below.snapshot_mib),
            memory_max: self.memory_max.or(below.memory_max),
            dev: self.dev.or(below.dev),
            log_format: self.log_format.or(below.log_format),
            log_level: self.log_level.or(below.log_level),
            tls_cert: self.tls_cert.or(below.tls_cert),
            tls_key: self.tls_key.or(below.tls_key),
            namespaces: self.namespaces.or(below.namespaces),
            connections_per_address: self.connections_per_address.or(below.connections_per_address),
            drain_spread: self.drain_spread.or(below.drain_spread),
            drain_max: self.drain_max.or(below.drain_max),
            everywhere: self.everywhere.over(below.everywhere),
            namespace,
        }
    }
}

impl AuthLow {
    fn over(self, below: Self) -> Self {
        Self {
            firebase_project: self.firebase_project.or(below.firebase_project),
            firebase_jwks: self.firebase_jwks.or(below.firebase_jwks),
            secrets: self.secrets.or(below.secrets),
            secrets_file: self.secrets_file.or(below.secrets_file),
            admin_tokens: self.admin_tokens.or(below.admin_tokens),
            admin_tokens_file: self.admin_tokens_file.or(below.admin_tokens_file),
            anonymous: self.anonymous.or(below.anonymous),
            leeway: self.leeway.or(below.leeway),
            issuers: if self.issuers.is_empty() { below.issuers } else { self.issuers },
        }
    }
}

impl NamespaceLow {
    fn over(self, below: Self) -> Self {
        Self {
            heartbeat: self.heartbeat.or(below.heartbeat),
            session_timeout: self.session_timeout.or(below.session_timeout),
            coap_session_timeout: self.coap_session_timeout.or(below.coap_session_timeout),
            late_last_words: self.late_last_words.or(below.late_last_words),
            durability: self.durability.or(below.durability),
            restart_grace: self.restart_grace.or(below.restart_grace),
            sessions_max: self.sessions_max.or(below.sessions_max),
            last_words_max: self.last_words_max.or(below.last_words_max),
            writes_per_second: self.writes_per_second.or(below.writes_per_second),
        }
    }
}
