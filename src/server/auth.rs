//! Who is believed: what `[auth]` means, and what stands in the files that it names.
//!
//! Secrets never leave this module but for the verifier: whatever shows settings shows their number.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::config::{Line, Scribe, or};
use super::low::{AuthLow, IssuerLow};
use super::place::{Origin, Problem, Typed};
use super::value::{Duration, FilePath, KeySource, Secrets, Signing};
use crate::auth::{self, AuthConfig, Claims, Issuer, KeySet, Provider, SECRET_BYTES_MIN};
use crate::base::{Millis, limits};

/// Where Firebase publishes the keys that sign its tokens.
const FIREBASE_JWKS: &str = "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com";
const LEEWAY_DEFAULT: Millis = Millis::from_secs(60);

/// Who is believed.
#[derive(Clone, Debug, Default)]
pub struct Auth {
    /// Who signs tokens for users.
    pub issuers: Vec<Trusted>,
    /// Database secrets.
    pub secrets: Given,
    /// Administrators' tokens.
    pub admin_tokens: Given,
    /// Whether anybody may sign in as somebody who is like nobody else.
    pub is_anonymous_allowed: bool,
    /// By how much clocks may differ, in seconds.
    pub leeway_s: u64,
}

/// An issuer, without its keys, and where they are.
#[derive(Clone, Debug)]
pub struct Trusted {
    /// All but its keys.
    pub issuer: Issuer,
    /// Where they are.
    pub source: KeySource,
    /// Who said so.
    pub origin: Origin,
}

/// Secrets that stand in the configuration, and a file with more of them, one a line.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// In the configuration.
    pub inline: Secrets,
    /// The file.
    pub file: Option<PathBuf>,
}

/// Says what `low` means. What is wrong with it goes to the scribe.
pub(super) fn mean(low: &AuthLow, scribe: &mut Scribe) -> Auth {
    let mut issuers = Vec::new();
    let project = scribe.note_optional("auth.firebase_project", &low.firebase_project);
    if let (Some(project), Some(typed)) = (&project, &low.firebase_project) {
        let is_project = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:.".contains(&byte);
        if project.is_empty() || !project.bytes().all(is_project) {
            scribe.problems.push(Problem::new(&typed.origin, format!("`{project}` is no id of a Firebase project")));
        }
        let keys = scribe.note("auth.firebase_jwks", or(&low.firebase_jwks, || KeySource::Url(FIREBASE_JWKS.into())));
        let origin = low.firebase_jwks.as_ref().map_or(&typed.origin, |jwks| &jwks.origin).clone();
        issuers.push(Trusted { issuer: Issuer::firebase(project, KeySet::default()), source: keys, origin });
    } else if let Some(jwks) = &low.firebase_jwks {
        let reason = "auth.firebase_jwks says nothing without auth.firebase_project";
        scribe.problems.push(Problem::new(&jwks.origin, reason));
    }
    for low in &low.issuers {
        let trusted = issuer(low, scribe);
        if issuers.iter().any(|other| other.issuer.issuer == trusted.issuer.issuer) {
            let reason = format!("issuer {} is configured twice", trusted.issuer.issuer);
            scribe.problems.push(Problem::new(&low.issuer.origin, reason));
        }
        issuers.push(trusted);
    }
    let given = |scribe: &mut Scribe, name: &str, inline: &Option<Typed<Secrets>>, file: &Option<Typed<FilePath>>| {
        let secrets = scribe.note_optional(name, inline).unwrap_or_default();
        let is_short = |secret: &String| secret.len() < SECRET_BYTES_MIN;
        if let Some(typed) = inline.as_ref().filter(|typed| typed.value.0.iter().any(is_short)) {
            scribe.problems.push(Problem::new(&typed.origin, too_short(name)));
        }
        let file = scribe.note_optional(&format!("{name}_file"), file).map(|path| path.0);
        Given { inline: secrets, file }
    };
    let secrets = given(scribe, "auth.secrets", &low.secrets, &low.secrets_file);
    let admin_tokens = given(scribe, "auth.admin_tokens", &low.admin_tokens, &low.admin_tokens_file);
    let is_anonymous_allowed = scribe.note("auth.anonymous", or(&low.anonymous, || false));
    let is_nothing_given = |given: &Given| given.inline.0.is_empty() && given.file.is_none();
    if let Some(typed) = low.anonymous.as_ref().filter(|typed| typed.value && is_nothing_given(&secrets)) {
        let reason = "auth.anonymous needs a secret to sign with: set auth.secrets or auth.secrets_file";
        scribe.problems.push(Problem::new(&typed.origin, reason));
    }
    let leeway = or(&low.leeway, || Duration(LEEWAY_DEFAULT));
    if leeway.value.0 > limits::AUTH_LEEWAY_MAX {
        let (value, max) = (leeway.value, Duration(limits::AUTH_LEEWAY_MAX));
        let reason = format!("auth.leeway = \"{value}\": it must be at most {max}");
        scribe.problems.push(Problem::new(&leeway.origin, reason));
    }
    let leeway_s = scribe.note("auth.leeway", leeway).0.0 / 1_000;
    Auth { issuers, secrets, admin_tokens, is_anonymous_allowed, leeway_s }
}

fn issuer(low: &IssuerLow, scribe: &mut Scribe) -> Trusted {
    let name = &low.issuer.value;
    let mut refuse = |origin: &Origin, reason: String| scribe.problems.push(Problem::new(origin, reason));
    if name.is_empty() {
        refuse(&low.issuer.origin, "an issuer's name is empty".into());
    }
    if low.audiences.value.is_empty() || low.audiences.value.iter().any(String::is_empty) {
        let reason = format!("issuer {name} needs an audience, or tokens made for others would be accepted");
        refuse(&low.audiences.origin, reason);
    }
    if let Some(typed) = low.algorithms.as_ref().filter(|typed| typed.value.is_empty()) {
        refuse(&typed.origin, format!("issuer {name} may sign in no way: leave algorithms out to allow all"));
    }
    let text = |typed: &Option<Typed<String>>| typed.as_ref().map(|typed| typed.value.clone());
    let plain = Issuer::oidc(name, "", &text(&low.provider).unwrap_or_else(|| name.clone()), KeySet::default());
    let issuer = Issuer {
        audiences: low.audiences.value.clone(),
        signings: low.algorithms.as_ref().map_or(plain.signings, |typed| typed.value.iter().map(signing).collect()),
        uid_claim: text(&low.uid_claim).unwrap_or(plain.uid_claim),
        uid_prefix: text(&low.uid_prefix).unwrap_or(plain.uid_prefix),
        provider: text(&low.provider).map_or(plain.provider, Provider::Fixed),
        claims: low.claims.as_ref().map_or(Claims::All, |claims| Claims::Named(pairs(claims))),
        required: pairs(&low.required),
        admin_claim: text(&low.admin_claim),
        age_max_s: low.age_max.as_ref().map(|typed| typed.value.0.0 / 1_000),
        types: low.types.clone(),
        issuer: plain.issuer,
        keys: plain.keys,
    };
    let (source, origin) = (low.jwks.value.clone(), low.jwks.origin.clone());
    let value = format!("{name} (keys: {source})");
    scribe.lines.push(Line { name: "auth.issuer".into(), value, origin: low.issuer.origin.clone() });
    Trusted { issuer, source, origin }
}

const fn signing(word: &Signing) -> auth::Signing {
    match word {
        Signing::Rs256 => auth::Signing::Rs256,
        Signing::Es256 => auth::Signing::Es256,
        Signing::EdDsa => auth::Signing::EdDsa,
    }
}

fn pairs(table: &std::collections::BTreeMap<String, String>) -> Vec<(String, String)> {
    table.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn too_short(what: &str) -> String {
    format!("one of {what} has fewer than {SECRET_BYTES_MIN} bytes: it could be guessed")
}

/// Reads all files that `auth` names. Issuers whose keys are fetched have none yet.
///
/// # Errors
///
/// Everything that is wrong with the files, each with its place.
pub fn load(auth: &Auth, is_dev: bool) -> Result<AuthConfig, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut issuers = Vec::new();
    for Trusted { issuer, source, .. } in &auth.issuers {
        let mut issuer = issuer.clone();
        if let KeySource::File(path) = source {
            match read(path, limits::KEYS_BYTES_MAX).and_then(|text| parse_keys(&text)) {
                Ok(keys) => issuer.keys = keys,
                Err(error) => problems.push(Problem::new(path.display(), error.to_string())),
            }
        }
        issuers.push(issuer);
    }
    let mut all = |name: &str, given: &Given| {
        let mut secrets = given.inline.0.clone();
        if let Some(path) = &given.file {
            match read_secrets(path, name) {
                Ok(more) => secrets.extend(more),
                Err(problem) => problems.push(problem),
            }
        }
        secrets
    };
    let secrets = all("auth.secrets", &auth.secrets);
    let admin_tokens = all("auth.admin_tokens", &auth.admin_tokens);
    if problems.is_empty() {
        let is_anonymous_allowed = auth.is_anonymous_allowed;
        Ok(AuthConfig { issuers, secrets, admin_tokens, is_anonymous_allowed, is_dev, leeway_s: auth.leeway_s })
    } else {
        Err(problems)
    }
}

/// What is believed, in numbers.
#[must_use]
pub fn describe(auth: &Auth, config: &AuthConfig) -> String {
    let issuers: Vec<String> = auth
        .issuers
        .iter()
        .zip(&config.issuers)
        .map(|(trusted, issuer)| match trusted.source {
            KeySource::File(_) => format!("{} ({} keys)", issuer.issuer, issuer.keys.len()),
            KeySource::Url(_) => format!("{} (keys are fetched)", issuer.issuer),
        })
        .collect();
    let issuers = if issuers.is_empty() { "no issuers".to_owned() } else { issuers.join(", ") };
    format!("{issuers}; {} secrets, {} admin tokens", config.secrets.len(), config.admin_tokens.len())
}

/// Reads a key set.
///
/// # Errors
///
/// It is none.
pub(super) fn parse_keys(text: &str) -> io::Result<KeySet> {
    KeySet::parse(text).map_err(|bad| io::Error::other(bad.as_str()))
}

fn read_secrets(path: &Path, name: &str) -> Result<Vec<String>, Problem> {
    let text = read(path, limits::KEYS_BYTES_MAX)
        .map_err(|error| Problem::new(path.display(), format!("cannot be read: {error}")))?;
    let mut secrets = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let secret = line.trim();
        if secret.len() < SECRET_BYTES_MIN {
            return Err(Problem::new(format!("{}:{}:1", path.display(), index + 1), too_short(name)));
        }
        secrets.push(secret.to_owned());
    }
    if secrets.is_empty() { Err(Problem::new(path.display(), "it holds no secret")) } else { Ok(secrets) }
}

fn read(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    // One more than allowed, so that too much is told from just enough.
    let count = File::open(path)?.take(bytes_max + 1).read_to_string(&mut text)?;
    if u64::try_from(count).is_ok_and(|count| count <= bytes_max) {
        Ok(text)
    } else {
        Err(io::Error::other(format!("it is longer than {bytes_max} bytes")))
    }
}
