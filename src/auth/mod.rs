//! Credentials to identities (rules specification, section 3): who a session is, as far as rules see.
//!
//! The surprising idea: nothing in a token chooses how it is checked. The issuer's configuration holds
//! its keys, each with the one algorithm that it signs with; a token only names a key. What a
//! credential is not, it is refused for: never does a bad one pass as nobody. Pure: keys and clock are
//! arguments. Costs: one RSA verification, about 30 µs.

mod keys;
pub mod probe;
mod token;

pub use keys::{BadKeySet, KeySet, Signing};
pub use token::CREDENTIAL_BYTES_MAX;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto};
use serde_json::{Map, Value as Json, json};
use subtle::{Choice, ConstantTimeEq as _};

use crate::op::{BadCredential, Identity};
use token::Token;

/// The shortest secret that may sign tokens: shorter ones can be guessed offline.
pub const SECRET_BYTES_MIN: usize = 32;
/// What rules see as the provider of those who signed in anonymously.
const ANONYMOUS: &str = "anonymous";
/// Characters of a user's id.
const UID_CHARACTERS_MAX: usize = 128;
/// How long a token lives that does not say.
const LIFETIME_S: u64 = 24 * 60 * 60;
/// How long somebody who signed in anonymously stays who it is. The SDKs never ask for a newer token.
const ANONYMOUS_LIFETIME_S: u64 = 30 * LIFETIME_S;

/// Whom to believe. The default believes nobody.
#[derive(Clone, Debug, Default)]
pub struct AuthConfig {
    /// Who signs tokens for users.
    pub issuers: Vec<Issuer>,
    /// Database secrets: each is an administrator's credential by itself, and signs legacy and Wilddog
    /// tokens. Several, so that they can be replaced one after the other.
    pub secrets: Vec<String>,
    /// Administrators' credentials that are nothing else.
    pub admin_tokens: Vec<String>,
    /// Whether anybody may become somebody: see [`Verifier::sign_in_anonymously`].
    pub is_anonymous_allowed: bool,
    /// Believe `owner` and unsigned tokens, as the emulators do.
    pub is_dev: bool,
    /// By how much clocks may differ, in seconds.
    pub leeway_s: u64,
}

/// Somebody who signs tokens for users.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// What `iss` must be, to the letter.
    pub issuer: String,
    /// One of these must be in `aud`.
    pub audiences: Vec<String>,
    /// How it may sign.
    pub signings: Vec<Signing>,
    /// Its keys now.
    pub keys: KeySet,
    /// The claim that is the user's id.
    pub uid_claim: String,
    /// What is put before the id, so that those of two issuers cannot be the same.
    pub uid_prefix: String,
    /// What rules see as `auth.provider`.
    pub provider: Provider,
    /// What rules see as `auth.token`.
    pub claims: Claims,
    /// Claims that must be there: equal to this text, or a list or a text of words that has it.
    pub required: Vec<(String, String)>,
    /// The claim that makes an administrator, if it is `true`.
    pub admin_claim: Option<String>,
    /// The oldest token that is accepted, in seconds.
    pub age_max_s: Option<u64>,
    /// Values of the header's `typ` that are accepted besides `JWT`, such as `at+jwt`.
    pub types: Vec<String>,
}

/// Where `auth.provider` comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provider {
    /// From the claim `firebase.sign_in_provider`.
    SignIn,
    /// It is always this.
    Fixed(String),
}

/// What of the claims rules see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claims {
    /// All.
    All,
    /// These, under these names.
    Named(Vec<(String, String)>),
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadConfig {
    /// A secret is shorter than [`SECRET_BYTES_MIN`].
    SecretTooShort,
    /// An administrator's token is shorter than [`SECRET_BYTES_MIN`].
    AdminTokenTooShort,
    /// Two issuers have this name.
    IssuerTwice(String),
    /// This issuer has no audience: it would accept tokens that were made for others.
    NoAudience(String),
    /// This issuer may not sign at all.
    NoSigning(String),
}

impl std::fmt::Display for BadConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SecretTooShort => write!(f, "a secret has fewer than {SECRET_BYTES_MIN} bytes"),
            Self::AdminTokenTooShort => write!(f, "an admin token has fewer than {SECRET_BYTES_MIN} bytes"),
            Self::IssuerTwice(issuer) => write!(f, "issuer {issuer} is configured twice"),
            Self::NoAudience(issuer) => write!(f, "issuer {issuer} has no audience"),
            Self::NoSigning(issuer) => write!(f, "issuer {issuer} has no signing algorithm"),
        }
    }
}

impl std::error::Error for BadConfig {}

impl Issuer {
    /// Firebase Authentication of a project.
    #[must_use]
    pub fn firebase(project_id: &str, keys: KeySet) -> Self {
        let provider = Provider::SignIn;
        let issuer = format!("https://securetoken.google.com/{project_id}");
        Self { signings: vec![Signing::Rs256], provider, ..Self::oidc(&issuer, project_id, "", keys) }
    }

    /// Any OpenID provider; rules see it as `provider` and its claims as they are.
    #[must_use]
    pub fn oidc(issuer: &str, audience: &str, provider: &str, keys: KeySet) -> Self {
        Self {
            issuer: issuer.to_owned(),
            audiences: vec![audience.to_owned()],
            signings: vec![Signing::Rs256, Signing::Es256, Signing::EdDsa],
            keys,
            uid_claim: "sub".to_owned(),
            uid_prefix: String::new(),
            provider: Provider::Fixed(provider.to_owned()),
            claims: Claims::All,
            required: Vec::new(),
            admin_claim: None,
            age_max_s: None,
            types: Vec::new(),
        }
    }
}

/// Turns credentials into identities.
pub struct Verifier {
    config: AuthConfig,
    /// The secrets as keys, in their order.
    secret_keys: Vec<DecodingKey>,
}

/// Never shows a secret.
impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier")
            .field("issuers", &self.config.issuers)
            .field("secret_count", &self.config.secrets.len())
            .field("is_dev", &self.config.is_dev)
            .finish_non_exhaustive()
    }
}

type Verified<T> = Result<T, BadCredential>;

impl Verifier {
    /// A verifier that believes what the configuration says.
    pub fn new(config: AuthConfig) -> Result<Self, BadConfig> {
        let is_short = |secrets: &[String]| secrets.iter().any(|secret| secret.len() < SECRET_BYTES_MIN);
        if is_short(&config.secrets) {
            return Err(BadConfig::SecretTooShort);
        }
        if is_short(&config.admin_tokens) {
            return Err(BadConfig::AdminTokenTooShort);
        }
        for (index, issuer) in config.issuers.iter().enumerate() {
            let name = || issuer.issuer.clone();
            if config.issuers[..index].iter().any(|other| other.issuer == issuer.issuer) {
                return Err(BadConfig::IssuerTwice(name()));
            }
            if issuer.audiences.iter().all(String::is_empty) {
                return Err(BadConfig::NoAudience(name()));
            }
            if issuer.signings.is_empty() {
                return Err(BadConfig::NoSigning(name()));
            }
        }
        let secret_keys = config.secrets.iter().map(|secret| DecodingKey::from_secret(secret.as_bytes())).collect();
        Ok(Self { config, secret_keys })
    }

    /// Replaces an issuer's keys. `false`: there is no such issuer.
    pub fn set_keys(&mut self, issuer: &str, keys: KeySet) -> bool {
        let found = self.config.issuers.iter_mut().find(|configured| configured.issuer == issuer);
        found.is_some_and(|configured| {
            configured.keys = keys;
            true
        })
    }

    /// By how much clocks may differ, in seconds.
    #[must_use]
    pub const fn leeway_s(&self) -> u64 {
        self.config.leeway_s
    }

    /// Who presents this credential, at this time (seconds since 1970).
    ///
    /// # Errors
    ///
    /// [`BadCredential::Expired`] for what was good once, [`BadCredential::Invalid`] for anything else.
    pub fn verify(&self, credential: &str, now_s: u64) -> Result<Identity, BadCredential> {
        if credential.is_empty() || credential.len() > CREDENTIAL_BYTES_MAX {
            return Err(BadCredential::Invalid);
        }
        if self.is_admin_secret(credential) || (self.config.is_dev && credential == "owner") {
            return Ok(Identity::ADMIN);
        }
        let token = Token::parse(credential)?;
        match token.header("alg") {
            Some("none") if self.config.is_dev && token.signature.is_empty() => unsigned(&token),
            Some("HS256") => self.secret_signed(&token, now_s),
            Some(algorithm) => self.issued(&token, algorithm, now_s),
            None => Err(BadCredential::Invalid),
        }
    }

    /// A token for somebody who is like nobody else: `uid` must be hard to guess. Signed with the first secret; on a
    /// server to develop against, without one, unsigned. `None` if nobody may become somebody this way.
    #[must_use]
    pub fn sign_in_anonymously(&self, uid: &str, now_s: u64) -> Option<String> {
        let encode = |json: Json| URL_SAFE_NO_PAD.encode(json.to_string());
        let expires_s = now_s.saturating_add(ANONYMOUS_LIFETIME_S);
        match self.config.secrets.first() {
            Some(secret) if self.config.is_anonymous_allowed || self.config.is_dev => {
                let claims = json!({"v": 1, "iat": now_s, "exp": expires_s, "uid": uid, "provider": ANONYMOUS});
                let signed = format!("{}.{}", encode(json!({"alg": "HS256", "typ": "JWT"})), encode(claims));
                let key = EncodingKey::from_secret(secret.as_bytes());
                let signature = crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).ok()?;
                Some(format!("{signed}.{signature}"))
            }
            None if self.config.is_dev => {
                let claims = json!({
                    "iat": now_s, "exp": expires_s, "sub": uid, "user_id": uid, "provider_id": ANONYMOUS,
                    "firebase": {"sign_in_provider": ANONYMOUS, "identities": {}},
                });
                Some(format!("{}.{}.", encode(json!({"alg": "none", "typ": "JWT"})), encode(claims)))
            }
            _ => None,
        }
    }

    /// Whether this is a secret or an administrator's token. Takes the same time for all that are as
    /// long as one of them.
    fn is_admin_secret(&self, credential: &str) -> bool {
        let known = self.config.secrets.iter().chain(&self.config.admin_tokens);
        let found = known.fold(Choice::from(0), |found, secret| found | secret.as_bytes().ct_eq(credential.as_bytes()));
        found.into()
    }

    /// A token of a configured issuer.
    fn issued(&self, token: &Token<'_>, algorithm: &str, now_s: u64) -> Verified<Identity> {
        let name = token.text("iss").ok_or(BadCredential::Invalid)?;
        let issuer = self.config.issuers.iter().find(|issuer| issuer.issuer == name).ok_or(BadCredential::Invalid)?;
        let key = token.header("kid").and_then(|id| issuer.keys.get(id)).ok_or(BadCredential::Invalid)?;
        let is_its_way = key.signing.as_str() == algorithm && issuer.signings.contains(&key.signing);
        let is_its_type = token.header.get("typ").is_none_or(|kind| {
            let is_named = |kind: &str| issuer.types.iter().any(|named| named.eq_ignore_ascii_case(kind));
            kind.as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("JWT") || is_named(kind))
        });
        if !is_its_way || !is_its_type || !is_signed(token, &key.decoding, key.signing.algorithm()) {
            return Err(BadCredential::Invalid);
        }
        let has_audience = issuer.audiences.iter().any(|audience| has_word(token.claims.get("aud"), audience, false));
        let has_required = issuer.required.iter().all(|(name, value)| has_word(token.claims.get(name), value, true));
        if !has_audience || !has_required {
            return Err(BadCredential::Invalid);
        }
        let expires_s = token.time("exp")?.ok_or(BadCredential::Invalid)?;
        let issued_s = token.time("iat")?.ok_or(BadCredential::Invalid)?;
        self.check_begun(token, now_s)?;
        let too_old_s = issuer.age_max_s.map_or(u64::MAX, |age_s| issued_s.saturating_add(age_s));
        if expires_s.min(too_old_s).saturating_add(self.config.leeway_s) <= now_s {
            return Err(BadCredential::Expired);
        }
        let uid = uid(token, &issuer.uid_claim)?;
        let is_admin =
            issuer.admin_claim.as_ref().is_some_and(|claim| token.claims.get(claim) == Some(&Json::Bool(true)));
        let provider = match &issuer.provider {
            Provider::SignIn => sign_in_provider(&token.claims),
            Provider::Fixed(name) => Json::from(name.as_str()),
        };
        let claims = match &issuer.claims {
            Claims::All => token.claims.clone(),
            Claims::Named(names) => {
                let named = names.iter().filter_map(|(from, to)| Some((to.clone(), token.claims.get(from)?.clone())));
                named.collect()
            }
        };
        let auth = json!({"uid": format!("{}{uid}", issuer.uid_prefix), "provider": provider, "token": claims});
        Ok(Identity { is_admin, auth, expires_s: Some(expires_s) })
    }

    /// A legacy or Wilddog token, signed with a secret.
    fn secret_signed(&self, token: &Token<'_>, now_s: u64) -> Verified<Identity> {
        if !self.secret_keys.iter().any(|key| is_signed(token, key, Algorithm::HS256)) {
            return Err(BadCredential::Invalid);
        }
        let issued_s = token.time("iat")?;
        self.check_begun(token, now_s)?;
        let implied_s = issued_s.map(|issued_s| issued_s.saturating_add(LIFETIME_S));
        let expires_s = token.time("exp")?.or(implied_s).ok_or(BadCredential::Invalid)?;
        // No leeway: whoever knows the secret made the token for this server's clock.
        if expires_s <= now_s {
            return Err(BadCredential::Expired);
        }
        let is_admin = token.claims.get("admin") == Some(&Json::Bool(true));
        let auth = match token.claims.get("v").and_then(Json::as_u64) {
            Some(0) => match token.claims.get("d") {
                None => Json::Object(Map::new()),
                Some(auth @ (Json::Null | Json::Object(_))) => auth.clone(),
                Some(_) => return Err(BadCredential::Invalid),
            },
            Some(1) => wilddog_auth(token, is_admin)?,
            _ => return Err(BadCredential::Invalid),
        };
        Ok(Identity { is_admin, auth, expires_s: Some(expires_s) })
    }

    /// Refuses tokens whose time has not come.
    fn check_begun(&self, token: &Token<'_>, now_s: u64) -> Verified<()> {
        for name in ["iat", "nbf", "auth_time"] {
            if token.time(name)?.is_some_and(|time_s| time_s > now_s.saturating_add(self.config.leeway_s)) {
                return Err(BadCredential::Invalid);
            }
        }
        Ok(())
    }
}

fn is_signed(token: &Token<'_>, key: &DecodingKey, algorithm: Algorithm) -> bool {
    let outcome = crypto::verify(token.signature, token.signed.as_bytes(), key, algorithm);
    matches!(outcome, Ok(true))
}

/// Whether a claim is this text or a list that has it; with `splits`, also a text of words that has it.
fn has_word(claim: Option<&Json>, word: &str, splits: bool) -> bool {
    match claim {
        Some(Json::String(text)) => text == word || (splits && text.split(' ').any(|part| part == word)),
        Some(Json::Array(list)) => list.iter().any(|entry| entry.as_str() == Some(word)),
        _ => false,
    }
}

/// The user's id: a text of 1 to 128 characters.
fn uid<'t>(token: &'t Token<'_>, claim: &str) -> Verified<&'t str> {
    let is_id = |uid: &&str| !uid.is_empty() && uid.chars().count() <= UID_CHARACTERS_MAX;
    token.text(claim).filter(is_id).ok_or(BadCredential::Invalid)
}

fn sign_in_provider(claims: &Map<String, Json>) -> Json {
    claims.get("firebase").and_then(|firebase| firebase.get("sign_in_provider")).cloned().unwrap_or(Json::Null)
}

/// An unsigned token, for development: the SDKs make them themselves, with times long past.
fn unsigned(token: &Token<'_>) -> Verified<Identity> {
    let uid = uid(token, "sub").or_else(|_| uid(token, "user_id"))?;
    let auth = json!({"uid": uid, "provider": sign_in_provider(&token.claims), "token": token.claims});
    Ok(Identity { is_admin: false, auth, expires_s: None })
}

/// What rules see of a Wilddog token of version 1. An administrator need not be somebody.
fn wilddog_auth(token: &Token<'_>, is_admin: bool) -> Verified<Json> {
    let uid = token.text("uid").unwrap_or("");
    if uid.is_empty() && is_admin {
        return Ok(Json::Null);
    }
    let is_forbidden = |c: char| c.is_control() || matches!(c, '/' | '.' | '#' | '$' | '[' | ']');
    if uid.is_empty() || uid.chars().count() > UID_CHARACTERS_MAX || uid.contains(is_forbidden) {
        return Err(BadCredential::Invalid);
    }
    let claims = match token.claims.get("claims") {
        None | Some(Json::Null) => Json::Object(Map::new()),
        Some(claims @ Json::Object(_)) => claims.clone(),
        Some(_) => return Err(BadCredential::Invalid),
    };
    // Only who knows a secret can say so.
    let provider = token.text("provider").filter(|provider| *provider == ANONYMOUS).unwrap_or("custom");
    Ok(json!({"uid": uid, "provider": provider, "token": claims}))
}

#[cfg(test)]
mod tests;
