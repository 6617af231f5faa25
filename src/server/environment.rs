//! The environment, as it was typed: variables that begin with `STILLHERE_`.
//!
//! An empty variable says nothing: that is how container files switch one off. An unknown one is a
//! warning, not an error: orchestrators make up `STILLHERE_…` variables of their own for a service of
//! this name.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::str::FromStr;

use super::low::{AuthLow, CONFIG_VARIABLE, KEYS, Low, NamespaceLow};
use super::place::{Origin, Problem, Typed, did_you_mean};
use super::value::{FilePath, Secrets};

/// What the environment says.
#[derive(Debug, Default)]
pub struct Environment {
    /// The settings.
    pub low: Low,
    /// The configuration file to read, unless the command line names one.
    pub config: Option<FilePath>,
    /// Variables that cannot be read.
    pub problems: Vec<Problem>,
    /// Variables that nobody knows.
    pub warnings: Vec<Problem>,
}

/// Reads the variables of ours among `variables`.
#[must_use]
pub fn read(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Environment {
    let mut problems = Vec::new();
    let mut ours = Ours { said: BTreeMap::new(), problems: &mut problems };
    for (name, value) in variables {
        let Ok(name) = name.into_string() else { continue };
        if !name.starts_with("STILLHERE_") || value.is_empty() {
            continue;
        }
        match value.into_string() {
            Ok(value) => drop(ours.said.insert(name, value)),
            Err(_) => ours.problems.push(Problem::new(name, "is not UTF-8")),
        }
    }
    let config = ours.take(CONFIG_VARIABLE).map(|config: Typed<FilePath>| config.value);
    let low = Low {
        listen: ours.take("STILLHERE_LISTEN"),
        coap: ours.take("STILLHERE_COAP"),
        coaps: ours.take("STILLHERE_COAPS"),
        internal: ours.take("STILLHERE_INTERNAL"),
        data: ours.take("STILLHERE_DATA"),
        rules: ours.take("STILLHERE_RULES"),
        rules_dialect: ours.take("STILLHERE_RULES_DIALECT"),
        auth: AuthLow {
            firebase_project: ours.take("STILLHERE_AUTH_FIREBASE_PROJECT"),
            firebase_jwks: ours.take("STILLHERE_AUTH_FIREBASE_JWKS"),
            secrets: ours.take_secrets("STILLHERE_AUTH_SECRETS"),
            secrets_file: ours.take("STILLHERE_AUTH_SECRETS_FILE"),
            admin_tokens: ours.take_secrets("STILLHERE_AUTH_ADMIN_TOKENS"),
            admin_tokens_file: ours.take("STILLHERE_AUTH_ADMIN_TOKENS_FILE"),
            anonymous: ours.take_bool("STILLHERE_AUTH_ANONYMOUS"),
            leeway: ours.take("STILLHERE_AUTH_LEEWAY"),
            issuers: Vec::new(),
        },
        shards: ours.take("STILLHERE_SHARDS"),
        snapshot_mib: ours.take("STILLHERE_SNAPSHOT_MIB"),
        memory_max: ours.take("STILLHERE_MEMORY_MAX"),
        dev: ours.take_bool("STILLHERE_DEV"),
        log_format: ours.take("STILLHERE_LOG_FORMAT"),
        log_level: ours.take("STILLHERE_LOG"),
        tls_cert: ours.take("STILLHERE_TLS_CERT"),
        tls_key: ours.take("STILLHERE_TLS_KEY"),
        namespaces: ours.take_list("STILLHERE_NAMESPACES"),
        connections_per_address: ours.take("STILLHERE_CONNECTIONS_PER_ADDRESS"),
        drain_spread: ours.take("STILLHERE_DRAIN_SPREAD"),
        drain_max: ours.take("STILLHERE_DRAIN_MAX"),
        everywhere: NamespaceLow {
            heartbeat: ours.take("STILLHERE_HEARTBEAT"),
            session_timeout: ours.take("STILLHERE_SESSION_TIMEOUT"),
            coap_session_timeout: ours.take("STILLHERE_COAP_SESSION_TIMEOUT"),
            late_last_words: ours.take("STILLHERE_LATE_LAST_WORDS"),
            durability: ours.take("STILLHERE_DURABILITY"),
            restart_grace: ours.take("STILLHERE_RESTART_GRACE"),
            sessions_max: ours.take("STILLHERE_SESSIONS_MAX"),
            last_words_max: ours.take("STILLHERE_LAST_WORDS_MAX"),
            writes_per_second: ours.take("STILLHERE_WRITES_PER_SECOND"),
        },
        namespace: BTreeMap::new(),
    };
    let known = || KEYS.iter().map(|key| key.variable).chain([CONFIG_VARIABLE]);
    let unknown = ours.said.into_keys();
    let warnings = unknown.map(|name| {
        let hint = did_you_mean(&name, known());
        Problem::new(name, format!("unknown variable, ignored{hint}"))
    });
    let warnings = warnings.collect();
    Environment { low, config, problems, warnings }
}

/// The variables not yet taken.
struct Ours<'a> {
    said: BTreeMap<String, String>,
    problems: &'a mut Vec<Problem>,
}

impl Ours<'_> {
    fn take_with<T>(&mut self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<Typed<T>> {
        let text = self.said.remove(name)?;
        let origin = Origin::Variable(name);
        match parse(text.trim()) {
            Ok(value) => Some(Typed { value, origin }),
            Err(reason) => {
                self.problems.push(Problem::new(origin, reason));
                None
            }
        }
    }

    fn take<T: FromStr<Err: ToString>>(&mut self, name: &'static str) -> Option<Typed<T>> {
        self.take_with(name, |text| text.parse().map_err(|error: T::Err| error.to_string()))
    }

    fn take_bool(&mut self, name: &'static str) -> Option<Typed<bool>> {
        self.take_with(name, |text| match text {
            "1" | "true" => Ok(true),
            "0" | "false" => Ok(false),
            _ => Err(format!("`{text}` is none of true, false, 1, 0")),
        })
    }

    fn take_secrets(&mut self, name: &'static str) -> Option<Typed<Secrets>> {
        let Typed { value, origin } = self.take_list(name)?;
        Some(Typed { value: Secrets(value), origin })
    }

    fn take_list(&mut self, name: &'static str) -> Option<Typed<Vec<String>>> {
        self.take_with(name, |text| Ok(text.split(',').map(|item| item.trim().to_owned()).collect()))
    }
}
