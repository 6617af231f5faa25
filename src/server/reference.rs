//! What each setting means, and the reference that is made of it: `stillhere config reference`.
//!
//! The tables of `docs/CONFIGURATION.md` are this text; a test compares.

use super::low::{KEYS, Key};

/// What there is to say about a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// The key.
    pub name: &'static str,
    /// What holds if nobody says anything; Markdown.
    pub default: &'static str,
    /// What it means, and its limits; Markdown.
    pub meaning: &'static str,
}

const fn about(name: &'static str, default: &'static str, meaning: &'static str) -> About {
    About { name, default, meaning }
}

/// What there is to say about every setting, in the order in which they are shown.
pub const ABOUT: [About; KEYS.len()] = [
    about("listen", "`127.0.0.1:9000`", "TCP address for WebSocket, Engine.IO, REST and streaming"),
    about(
        "coap.listen",
        "none",
        "UDP address for [devices](DEVICES.md) with CoAP: `0.0.0.0:5683` for those of Wilddog's SDK",
    ),
    about(
        "coaps.listen",
        "none",
        "UDP address for [devices](DEVICES.md#devices-with-dtls) with CoAP over DTLS 1.2: `0.0.0.0:5684` for those of Wilddog's SDK. Needs a certificate",
    ),
    about("coaps.cert", "that of `tls.cert`", "certificate chain for DTLS, as `tls.cert`. Read again at SIGHUP"),
    about("coaps.key", "that of `tls.key`", "its private key, as `tls.key`. Read again at SIGHUP"),
    about(
        "internal",
        "`127.0.0.1:9001`",
        "TCP address for health and metrics, see [OPERATING](OPERATING.md#health). By default the port is 0 if that of `listen` is, and any free one if 9001 is taken",
    ),
    about(
        "data",
        "`./stillhere-data`",
        "data directory: the log and its snapshots ([DURABILITY](DURABILITY.md)); made if missing; one server at a time",
    ),
    about(
        "snapshot_mib",
        "`64`",
        "how many MiB of log a core writes before it takes a snapshot; at least 1. A start reads at most about twice as much for each core, beside the snapshots",
    ),
    about(
        "memory_max",
        "none",
        "how much memory may be in use, as `\"512MiB\"` or `\"4GiB\"`, before [nothing new is taken in](DURABILITY.md#when-the-memory-is-full); at least `\"16MiB\"`",
    ),
    about(
        "rules",
        "none",
        "rules file, up to 1 MiB. Without one everything is denied, or allowed with `dev`. Read again at SIGHUP. A database that was given others by `PUT /.settings/rules.json` keeps those until this file is reloaded, or is another at a start",
    ),
    about(
        "rules_dialect",
        "`both`",
        "whose names the rules may use: `firebase`, `wilddog` (`startsWith`, `length()`, text patterns) or `both`. Operators mean the same in all",
    ),
    about("shards", "all cores", "cores to use, 1 to 64"),
    about(
        "dev",
        "`false`",
        "accept `Bearer owner` and unsigned tokens, and allow everything when there are no rules. Refused unless every address for clients is a loopback address",
    ),
    about("log_format", "`human` on a terminal, else `json`", "how to log, to standard error"),
    about("log_level", "`info`", "`error`, `warn`, `info`, `debug` or `trace`"),
    about(
        "tls.cert",
        "none",
        "certificate chain, PEM: the server's certificate first, up to 1 MiB; see [below](#tls). Read again at SIGHUP",
    ),
    about("tls.key", "none", "its private key, PEM, without a password. Read again at SIGHUP"),
    about("auth.firebase_project", "none", "believe ID tokens of this Firebase project"),
    about(
        "auth.firebase_jwks",
        "where Google publishes them",
        "its public keys: a file (JWKS), or an address to fetch them from; see [below](#keys-that-are-fetched)",
    ),
    about(
        "auth.secrets",
        "none",
        "list of database secrets, each of 32 bytes or more: administrators' credentials, and what signs legacy and Wilddog tokens",
    ),
    about("auth.secrets_file", "none", "file with more of them, one a line, so that none stands in the configuration"),
    about(
        "auth.admin_tokens",
        "none",
        "list of administrators' credentials that sign nothing, each of 32 bytes or more",
    ),
    about("auth.admin_tokens_file", "none", "file with more of them, one a line"),
    about(
        "auth.anonymous",
        "`false`",
        "whether anybody may sign in through Wilddog's SDKs as somebody new, signed with the first secret for 30 days; rules see `auth.provider == \"anonymous\"`",
    ),
    about(
        "auth.leeway",
        "`\"60s\"`",
        "by how much the clocks of issuers may differ; at most `\"10m\"`. Not for tokens that a secret signs",
    ),
    about(
        "namespaces",
        "any",
        "the only namespaces that there may be. Otherwise one exists as soon as a client names it",
    ),
    about(
        "connections_per_address",
        "none",
        "TCP connections that one address may have at a time (of IPv6: one /64); a further one is answered 429. Behind a proxy all have its address: then leave it out",
    ),
    about(
        "drain_spread",
        "`\"5s\"`",
        "over how long the sessions end when the server stops, so that not all come back at once; 2,000 a second and core at least. `\"0s\"`: all at once",
    ),
    about(
        "drain_max",
        "`\"10s\"`",
        "how long a stop may take: what is not done then is dropped. Longer than `drain_spread`, at most `\"1h\"`",
    ),
    about(
        "heartbeat",
        "`\"20s\"`",
        "how often the server pings every connection that can be pinged; `\"1s\"` to `\"24h\"`",
    ),
    about(
        "session_timeout",
        "`\"45s\"`",
        "a WebSocket or Engine.IO session ends this long after the last byte heard; `\"1s\"` to `\"24h\"`, and longer than `heartbeat`, or living clients would be ended before they are asked",
    ),
    about(
        "coap.session_timeout",
        "`\"180s\"`",
        "a CoAP session ends this long after the last packet heard; `\"1s\"` to `\"24h\"`. Below `\"175s\"` there is a warning: devices ping every 165 s and may have to repeat it. In a namespace: `[namespace.NAME.coap]`",
    ),
    about(
        "late_last_words",
        "`\"yield\"`",
        "last words of a session that ended in silence: `\"yield\"` to what was written to the same path after it was last heard, or `\"always\"` speak",
    ),
    about(
        "durability",
        "`\"fsync\"`",
        "what an acknowledged write, or last word, survives: `\"fsync\"` the loss of power, `\"os\"` the death of the process, `\"none\"` neither. If it is `\"none\"` for all namespaces nothing is read or written, and the log says so",
    ),
    about(
        "restart_grace",
        "`\"0s\"`",
        "how long after a start the last words of the sessions of before wait for their clients to come back; at most `\"24h\"`. They never wait for a new write of the same place: it waits for them",
    ),
    about(
        "sessions_max",
        "none",
        "sessions at a time, over all cores; those of plain REST requests do not count. A further client is told `too many sessions`",
    ),
    about(
        "last_words_max",
        "none",
        "last words that wait at a time, each path of an update counted; a further one is refused as `too many onDisconnect operations in this database`",
    ),
    about(
        "writes_per_second",
        "none",
        "writes of clients; one second's worth may come at once. Further ones are refused as `too many writes per second in this database`. Administrators and last words are not counted",
    ),
];

/// A part of the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Settings of the process.
    Process,
    /// Who is believed.
    Auth,
    /// Settings that a namespace may have of its own.
    Namespace,
}

impl Part {
    /// All of them, in their order.
    pub const ALL: [Self; 3] = [Self::Process, Self::Auth, Self::Namespace];

    fn has(self, key: &Key) -> bool {
        self == match (key.is_per_namespace, key.name.starts_with("auth.")) {
            (true, _) => Self::Namespace,
            (false, true) => Self::Auth,
            (false, false) => Self::Process,
        }
    }

    /// Its table, in Markdown.
    #[must_use]
    pub fn table(self) -> String {
        let has_flags = self == Self::Process;
        let mut lines = if has_flags {
            vec![
                "| key | flag | variable | default | meaning and limits |".to_owned(),
                "|---|---|---|---|---|".to_owned(),
            ]
        } else {
            vec!["| key | variable | default | meaning and limits |".to_owned(), "|---|---|---|---|".to_owned()]
        };
        for key in KEYS.iter().filter(|key| self.has(key)) {
            let About { name, default, meaning } =
                ABOUT.iter().find(|about| about.name == key.name).expect("a test looks whether each key is here");
            let flag = match key.flag {
                Some(flag) if has_flags => format!(" `{flag}` |"),
                None if has_flags => " |".to_owned(),
                _ => String::new(),
            };
            lines.push(format!("| `{name}` |{flag} `{}` | {default} | {meaning} |", key.variable));
        }
        lines.push(String::new());
        lines.join("\n")
    }
}

/// The whole reference, in Markdown.
#[must_use]
pub fn reference() -> String {
    let titles = ["Settings of the process", "Who is believed", "Settings of a namespace"];
    let parts = Part::ALL.into_iter().zip(titles).map(|(part, title)| format!("## {title}\n\n{}", part.table()));
    format!("# Configuration of stillhere {}\n\n{}", env!("CARGO_PKG_VERSION"), parts.collect::<Vec<_>>().join("\n"))
}
