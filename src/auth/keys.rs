//! Key sets (RFC 7517): the public keys of one issuer.

use std::collections::BTreeMap;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value as Json;

/// Keys of one set.
const KEYS_MAX: usize = 256;

/// How an issuer may sign. Nothing symmetric: whoever could check such a signature could make it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signing {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Signing {
    /// As headers and key sets name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    pub(super) const fn algorithm(self) -> Algorithm {
        match self {
            Self::Rs256 => Algorithm::RS256,
            Self::Es256 => Algorithm::ES256,
            Self::EdDsa => Algorithm::EdDSA,
        }
    }
}

/// The public keys of one issuer, by their ids.
#[derive(Clone, Default)]
pub struct KeySet(BTreeMap<String, Key>);

/// A key, and the one way in which it signs.
#[derive(Clone)]
pub(super) struct Key {
    pub signing: Signing,
    pub decoding: DecodingKey,
}

/// Why a text is no key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadKeySet {
    /// It is not JSON with a list `keys`.
    Malformed,
    /// Two keys have the same id.
    Duplicate,
    /// It has more than 256 keys.
    TooMany,
    /// None of its keys has an id and a way of signing that is supported here.
    Empty,
}

impl BadKeySet {
    /// For people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "not a JSON object with a list `keys`",
            Self::Duplicate => "two keys have the same `kid`",
            Self::TooMany => "too many keys",
            Self::Empty => "no key with a `kid` for RS256, ES256 or EdDSA",
        }
    }
}

impl KeySet {
    /// Reads a set (`{"keys": […]}`). Keys for other purposes are left out: without an id, for
    /// encryption, symmetric, or of a kind that is not supported.
    pub fn parse(text: &str) -> Result<Self, BadKeySet> {
        let set: Json = serde_json::from_str(text).map_err(|_| BadKeySet::Malformed)?;
        let list = set.get("keys").and_then(Json::as_array).ok_or(BadKeySet::Malformed)?;
        if list.len() > KEYS_MAX {
            return Err(BadKeySet::TooMany);
        }
        let mut keys = BTreeMap::new();
        for json in list {
            let Some((id, key)) = key(json) else { continue };
            if keys.insert(id, key).is_some() {
                return Err(BadKeySet::Duplicate);
            }
        }
        if keys.is_empty() { Err(BadKeySet::Empty) } else { Ok(Self(keys)) }
    }

    /// How many keys can be used.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none: every token of the issuer is refused then.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, id: &str) -> Option<&Key> {
        self.0.get(id)
    }
}

/// Shows the ids only.
impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn key(json: &Json) -> Option<(String, Key)> {
    let jwk: Jwk = serde_json::from_value(json.clone()).ok()?;
    let id = jwk.common.key_id.clone()?;
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let signing = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Signing::Rs256,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => Signing::Es256,
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => Signing::EdDsa,
        _ => return None,
    };
    let is_other = match jwk.common.key_algorithm {
        None => false,
        Some(KeyAlgorithm::RS256) => signing != Signing::Rs256,
        Some(KeyAlgorithm::ES256) => signing != Signing::Es256,
        Some(KeyAlgorithm::EdDSA) => signing != Signing::EdDsa,
        Some(_) => true,
    };
    if is_other {
        return None;
    }
    let decoding = DecodingKey::from_jwk(&jwk).ok()?;
    Some((id, Key { signing, decoding }))
}
