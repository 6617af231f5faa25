//! The configuration file, as it was typed: TOML, every key known, every value with its line and column.
//!
//! Paths in the file are relative to the file's own directory, so that a file means the same wherever
//! the server is started from.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use super::low::{AuthLow, IssuerLow, Low, NamespaceLow};
use super::place::{Origin, Problem, Typed, did_you_mean};
use super::value::{
    Address, Durability, Duration, FilePath, KeySource, LateLastWords, LogFormat, LogLevel, RulesDialect, Secrets,
    Signing, Size,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    listen: Option<Spanned<Address>>,
    internal: Option<Spanned<Address>>,
    data: Option<Spanned<FilePath>>,
    rules: Option<Spanned<FilePath>>,
    rules_dialect: Option<Spanned<RulesDialect>>,
    shards: Option<Spanned<u16>>,
    snapshot_mib: Option<Spanned<u32>>,
    memory_max: Option<Spanned<Size>>,
    dev: Option<Spanned<bool>>,
    log_format: Option<Spanned<LogFormat>>,
    log_level: Option<Spanned<LogLevel>>,
    namespaces: Option<Spanned<Vec<String>>>,
    connections_per_address: Option<Spanned<u32>>,
    drain_spread: Option<Spanned<Duration>>,
    drain_max: Option<Spanned<Duration>>,
    heartbeat: Option<Spanned<Duration>>,
    session_timeout: Option<Spanned<Duration>>,
    late_last_words: Option<Spanned<LateLastWords>>,
    durability: Option<Spanned<Durability>>,
    restart_grace: Option<Spanned<Duration>>,
    sessions_max: Option<Spanned<u32>>,
    last_words_max: Option<Spanned<u32>>,
    writes_per_second: Option<Spanned<u32>>,
    #[serde(default)]
    coap: Coap,
    #[serde(default)]
    coaps: Coaps,
    #[serde(default)]
    tls: Tls,
    #[serde(default)]
    auth: Auth,
    #[serde(default)]
    namespace: BTreeMap<Spanned<String>, Namespace>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Coap {
    listen: Option<Spanned<Address>>,
    session_timeout: Option<Spanned<Duration>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Coaps {
    listen: Option<Spanned<Address>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    cert: Option<Spanned<FilePath>>,
    key: Option<Spanned<FilePath>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Auth {
    firebase_project: Option<Spanned<String>>,
    firebase_jwks: Option<Spanned<KeySource>>,
    secrets: Option<Spanned<Secrets>>,
    secrets_file: Option<Spanned<FilePath>>,
    admin_tokens: Option<Spanned<Secrets>>,
    admin_tokens_file: Option<Spanned<FilePath>>,
    anonymous: Option<Spanned<bool>>,
    leeway: Option<Spanned<Duration>>,
    #[serde(default)]
    issuer: Vec<Issuer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Issuer {
    issuer: Spanned<String>,
    audiences: Spanned<Vec<String>>,
    jwks: Spanned<KeySource>,
    algorithms: Option<Spanned<Vec<Signing>>>,
    uid_claim: Option<Spanned<String>>,
    uid_prefix: Option<Spanned<String>>,
    provider: Option<Spanned<String>>,
    claims: Option<BTreeMap<String, String>>,
    #[serde(default)]
    required: BTreeMap<String, String>,
    admin_claim: Option<Spanned<String>>,
    age_max: Option<Spanned<Duration>>,
    #[serde(default)]
    types: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Namespace {
    heartbeat: Option<Spanned<Duration>>,
    session_timeout: Option<Spanned<Duration>>,
    late_last_words: Option<Spanned<LateLastWords>>,
    durability: Option<Spanned<Durability>>,
    restart_grace: Option<Spanned<Duration>>,
    sessions_max: Option<Spanned<u32>>,
    last_words_max: Option<Spanned<u32>>,
    writes_per_second: Option<Spanned<u32>>,
    #[serde(default)]
    coap: NamespaceCoap,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NamespaceCoap {
    session_timeout: Option<Spanned<Duration>>,
}

/// Reads the file at `path`.
///
/// # Errors
///
/// It cannot be read, is not TOML, has a key that nobody knows, or a value that is none for its key.
pub fn read(path: &Path) -> Result<Low, Problem> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Problem::new(path.display(), format!("cannot be read: {error}")))?;
    parse(path, &text)
}

/// Reads `text`, which is all of the file at `path`.
///
/// # Errors
///
/// As [`read`].
pub fn parse(path: &Path, text: &str) -> Result<Low, Problem> {
    let file: Arc<str> = path.display().to_string().into();
    let document: Document = toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        Problem::new(Origin::in_file(&file, text, offset), reason(error.message()))
    })?;
    let source = Source { file, text, directory: path.parent().unwrap_or(Path::new("")) };
    let mut namespace = BTreeMap::new();
    for (name, low) in document.namespace {
        let name = source.one(name);
        let low = NamespaceLow {
            heartbeat: source.typed(low.heartbeat),
            session_timeout: source.typed(low.session_timeout),
            coap_session_timeout: source.typed(low.coap.session_timeout),
            late_last_words: source.typed(low.late_last_words),
            durability: source.typed(low.durability),
            restart_grace: source.typed(low.restart_grace),
            sessions_max: source.typed(low.sessions_max),
            last_words_max: source.typed(low.last_words_max),
            writes_per_second: source.typed(low.writes_per_second),
        };
        namespace.insert(name.value, (name.origin, low));
    }
    Ok(Low {
        listen: source.typed(document.listen),
        coap: source.typed(document.coap.listen),
        coaps: source.typed(document.coaps.listen),
        internal: source.typed(document.internal),
        data: source.path(document.data),
        rules: source.path(document.rules),
        rules_dialect: source.typed(document.rules_dialect),
        auth: source.auth(document.auth),
        shards: source.typed(document.shards),
        snapshot_mib: source.typed(document.snapshot_mib),
        memory_max: source.typed(document.memory_max),
        dev: source.typed(document.dev),
        log_format: source.typed(document.log_format),
        log_level: source.typed(document.log_level),
        tls_cert: source.path(document.tls.cert),
        tls_key: source.path(document.tls.key),
        namespaces: source.typed(document.namespaces),
        connections_per_address: source.typed(document.connections_per_address),
        drain_spread: source.typed(document.drain_spread),
        drain_max: source.typed(document.drain_max),
        everywhere: NamespaceLow {
            heartbeat: source.typed(document.heartbeat),
            session_timeout: source.typed(document.session_timeout),
            coap_session_timeout: source.typed(document.coap.session_timeout),
            late_last_words: source.typed(document.late_last_words),
            durability: source.typed(document.durability),
            restart_grace: source.typed(document.restart_grace),
            sessions_max: source.typed(document.sessions_max),
            last_words_max: source.typed(document.last_words_max),
            writes_per_second: source.typed(document.writes_per_second),
        },
        namespace,
    })
}

/// What turns spans into places.
struct Source<'a> {
    file: Arc<str>,
    text: &'a str,
    directory: &'a Path,
}

impl Source<'_> {
    fn typed<T>(&self, spanned: Option<Spanned<T>>) -> Option<Typed<T>> {
        spanned.map(|spanned| {
            let origin = Origin::in_file(&self.file, self.text, spanned.span().start);
            Typed { value: spanned.into_inner(), origin }
        })
    }

    fn one<T>(&self, spanned: Spanned<T>) -> Typed<T> {
        self.typed(Some(spanned)).expect("it was given")
    }

    fn auth(&self, auth: Auth) -> AuthLow {
        AuthLow {
            firebase_project: self.typed(auth.firebase_project),
            firebase_jwks: auth.firebase_jwks.map(|source| self.keys(source)),
            secrets: self.typed(auth.secrets),
            secrets_file: self.path(auth.secrets_file),
            admin_tokens: self.typed(auth.admin_tokens),
            admin_tokens_file: self.path(auth.admin_tokens_file),
            anonymous: self.typed(auth.anonymous),
            leeway: self.typed(auth.leeway),
            issuers: auth.issuer.into_iter().map(|issuer| self.issuer(issuer)).collect(),
        }
    }

    fn issuer(&self, issuer: Issuer) -> IssuerLow {
        IssuerLow {
            issuer: self.one(issuer.issuer),
            audiences: self.one(issuer.audiences),
            jwks: self.keys(issuer.jwks),
            algorithms: self.typed(issuer.algorithms),
            uid_claim: self.typed(issuer.uid_claim),
            uid_prefix: self.typed(issuer.uid_prefix),
            provider: self.typed(issuer.provider),
            claims: issuer.claims,
            required: issuer.required,
            admin_claim: self.typed(issuer.admin_claim),
            age_max: self.typed(issuer.age_max),
            types: issuer.types,
        }
    }

    fn keys(&self, spanned: Spanned<KeySource>) -> Typed<KeySource> {
        let Typed { value, origin } = self.one(spanned);
        let value = match value {
            KeySource::File(path) => KeySource::File(self.directory.join(path)),
            KeySource::Url(url) => KeySource::Url(url),
        };
        Typed { value, origin }
    }

    fn path(&self, spanned: Option<Spanned<FilePath>>) -> Option<Typed<FilePath>> {
        let typed = self.typed(spanned)?;
        Some(Typed { value: FilePath(self.directory.join(typed.value.0)), origin: typed.origin })
    }
}

/// The parser's message in our words. It lists the keys that would have been known in backquotes, the
/// unknown one first.
fn reason(message: &str) -> String {
    let Some(rest) = message.strip_prefix("unknown field ") else {
        return message.lines().collect::<Vec<_>>().join(", ");
    };
    let mut quoted = rest.split('`').skip(1).step_by(2);
    let Some(unknown) = quoted.next() else { return message.to_owned() };
    let known: Vec<&str> = quoted.collect();
    let hint = did_you_mean(unknown, known.iter().copied());
    let hint = if hint.is_empty() { format!("; known here are {}", known.join(", ")) } else { hint };
    format!("unknown key `{unknown}`{hint}")
}
