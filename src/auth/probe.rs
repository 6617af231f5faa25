//! What fuzzers feed: any bytes, as a credential and as the claims of one. `fuzz/` has the target, and
//! `tests/corpus.rs` replays its corpus.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};

use super::{AuthConfig, CREDENTIAL_BYTES_MAX, UID_CHARACTERS_MAX, Verifier};
use crate::op::Identity;

/// A door for fuzzers.
pub type Probe = fn(&[u8]);

/// All of them, by the names of their targets and corpora.
pub const ALL: [(&str, Probe); 1] = [("token", token)];

/// Signs nothing but what this probe makes.
const SECRET: &str = "0c6a4f60e5f0b0b6b2f1a3d0c8b7e9d4-probe";
const NOW_S: u64 = 1_700_000_000;

/// The first byte says which bit of a token is turned over. Nothing that comes from outside is believed;
/// what is signed is believed as it says, and never once it has been touched.
pub fn token(bytes: &[u8]) {
    let Some((turned, bytes)) = bytes.split_first() else { return };
    let Ok(text) = str::from_utf8(bytes) else { return };
    let verifier = |is_dev| {
        let config = AuthConfig { secrets: vec![SECRET.to_owned()], is_dev, leeway_s: 60, ..AuthConfig::default() };
        Verifier::new(config).expect("the probe's own configuration is right")
    };
    let (strict, dev) = (verifier(false), verifier(true));
    if text != SECRET {
        assert!(strict.verify(text, NOW_S).is_err(), "nobody outside knows the secret");
        if let Ok(identity) = dev.verify(text, NOW_S) {
            assert_eq!(identity.is_admin, text == "owner", "an unsigned token is no administrator's");
        }
    }
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(text));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).expect("anything can be signed");
    let token = format!("{signed}.{signature}");
    if let Ok(identity) = strict.verify(&token, NOW_S) {
        check(text, &token, &identity);
        let mut touched = token.into_bytes();
        let at = usize::from(*turned) * touched.len() / 256;
        touched[at] ^= 1 << (turned % 7);
        let touched = String::from_utf8(touched).expect("a bit below the highest keeps it ASCII");
        assert!(strict.verify(&touched, NOW_S).is_err(), "it was touched");
    }
}

fn check(claims: &str, token: &str, identity: &Identity) {
    assert!(token.len() <= CREDENTIAL_BYTES_MAX, "it is not too long");
    assert!(identity.expires_s.is_some_and(|expires_s| expires_s > NOW_S), "it has not run out, and will");
    let claims: serde_json::Value = serde_json::from_str(claims).expect("claims are JSON");
    assert_eq!(identity.is_admin, claims["admin"] == true, "`true`, and nothing like it");
    assert!(identity.auth.is_object() || identity.auth.is_null(), "rules see an object or nothing");
    if claims["v"] == 1 {
        let is_id = |uid: &str| !uid.is_empty() && uid.chars().count() <= UID_CHARACTERS_MAX;
        assert!(identity.is_admin || identity.uid().is_some_and(is_id), "a user has an id");
    }
}
