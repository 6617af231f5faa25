//! What the recorded vectors do not cover: generic issuers, configuration, the shape of texts.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value as Json, json};

use super::*;

const NOW_S: u64 = 1_700_000_000;
const SECRET: &str = "0123456789abcdef0123456789abcdef";
// Keys made for these tests; they open nothing.
const ED_KEY: &str = "MC4CAQAwBQYDK2VwBCIEIDZ+DIMntViBmla7peZZfvRC9rFew7Ju+60DsxL6kRrA";
const EC_KEY: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgICBelXPuCxUW1iHL3als8vF8KnzIKZmGeFCYXMWIhgWhRANCAAR92AvOZPmZuSMzbfZIsXz1lF1WveHYdGupxh9E9p8uZF1joMV6ViKCKP3WYSSo71rKqvfce2r2a8JNerdpyvGO";

fn ed_key() -> EncodingKey {
    EncodingKey::from_ed_der(&STANDARD.decode(ED_KEY).unwrap())
}

fn ec_key() -> EncodingKey {
    EncodingKey::from_ec_der(&STANDARD.decode(EC_KEY).unwrap())
}

fn key_set() -> KeySet {
    let jwk = |key: &EncodingKey, algorithm: Algorithm, id: &str| {
        let mut jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(key, algorithm).unwrap();
        jwk.common.key_id = Some(id.to_owned());
        serde_json::to_value(jwk).unwrap()
    };
    let keys = json!({"keys": [
        jwk(&ed_key(), Algorithm::EdDSA, "ed"),
        jwk(&ec_key(), Algorithm::ES256, "ec"),
        {"kty": "oct", "kid": "oct", "k": "c2VjcmV0"},
        {"kty": "RSA", "kid": "enc", "use": "enc", "n": "AQAB", "e": "AQAB"},
        {"kty": "XYZ", "kid": "new"},
    ]});
    KeySet::parse(&keys.to_string()).unwrap()
}

fn part(json: &Json) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

fn token(header: &Json, claims: &Json, key: &EncodingKey, algorithm: Algorithm) -> String {
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = crypto::sign(signed.as_bytes(), key, algorithm).unwrap();
    format!("{signed}.{signature}")
}

fn ed_header() -> Json {
    json!({"alg": "EdDSA", "kid": "ed", "typ": "JWT"})
}

fn good_claims() -> Json {
    json!({"iss": "https://id.example", "aud": ["web", "app"], "sub": "u1", "iat": NOW_S - 10, "exp": NOW_S + 10,
           "scope": "read write", "realm_access": {"roles": ["editor"]}, "root": true})
}

fn issuer() -> Issuer {
    Issuer::oidc("https://id.example", "app", "example", key_set())
}

fn verifier(issuer: Issuer) -> Verifier {
    Verifier::new(AuthConfig {
        issuers: vec![issuer],
        secrets: vec![SECRET.to_owned()],
        admin_tokens: vec!["admin-token-0123456789abcdef012345".to_owned()],
        is_anonymous_allowed: false,
        is_dev: false,
        leeway_s: 5,
    })
    .unwrap()
}

/// What comes of the good token after `change` has changed issuer, header or claims.
#[track_caller]
fn check(change: impl FnOnce(&mut Issuer, &mut Json, &mut Json), expected: &Result<Json, BadCredential>) {
    let (mut issuer, mut header, mut claims) = (issuer(), ed_header(), good_claims());
    change(&mut issuer, &mut header, &mut claims);
    let token = token(&header, &claims, &ed_key(), Algorithm::EdDSA);
    let outcome = verifier(issuer).verify(&token, NOW_S).map(|identity| identity.auth);
    assert_eq!(&outcome, expected);
}

#[test]
fn a_generic_issuer_is_believed_and_mapped() {
    let auth =
        |uid: &str, token: Json| Ok::<_, BadCredential>(json!({"uid": uid, "provider": "example", "token": token}));
    check(|_, _, _| {}, &auth("u1", good_claims()));
    check(|issuer, _, _| issuer.uid_prefix = "x:".to_owned(), &auth("x:u1", good_claims()));
    check(
        |issuer, _, _| issuer.claims = Claims::Named(vec![("scope".into(), "s".into()), ("none".into(), "n".into())]),
        &auth("u1", json!({"s": "read write"})),
    );
    check(
        |issuer, _, claims| {
            issuer.uid_claim = "name".to_owned();
            claims["name"] = json!("joe");
        },
        &Ok(json!({"uid": "joe", "provider": "example", "token": {"iss": "https://id.example", "aud": ["web", "app"],
            "sub": "u1", "iat": NOW_S - 10, "exp": NOW_S + 10, "scope": "read write",
            "realm_access": {"roles": ["editor"]}, "root": true, "name": "joe"}})),
    );
    check(|issuer, _, _| issuer.required = vec![("scope".into(), "write".into())], &auth("u1", good_claims()));
    check(|_, header, _| drop(header.as_object_mut().unwrap().remove("typ")), &auth("u1", good_claims()));
}

#[test]
fn a_generic_issuer_is_not_believed_beyond_its_configuration() {
    let no = || Err(BadCredential::Invalid);
    check(|_, _, claims| claims["aud"] = json!("other"), &no());
    check(|_, _, claims| claims["aud"] = json!("app web"), &no());
    check(|_, _, claims| claims["iss"] = json!("https://id.example/"), &no());
    check(|issuer, _, _| issuer.required = vec![("scope".into(), "delete".into())], &no());
    check(|issuer, _, _| issuer.signings = vec![Signing::Es256], &no());
    check(|_, header, _| header["kid"] = json!("ec"), &no());
    check(|_, header, _| header["kid"] = json!("oct"), &no());
    check(|_, header, _| header["alg"] = json!("ES256"), &no());
    check(|_, header, _| header["typ"] = json!("at+jwt"), &no());
    check(|_, header, _| header["typ"] = json!(1), &no());
    check(|_, header, _| header["crit"] = json!([]), &no());
    check(|_, _, claims| claims["exp"] = json!("soon"), &no());
    check(|_, _, claims| drop(claims.as_object_mut().unwrap().remove("exp")), &no());
    check(|_, _, claims| drop(claims.as_object_mut().unwrap().remove("iat")), &no());
    check(|_, _, claims| claims["nbf"] = json!(NOW_S + 6), &no());
    check(|_, _, claims| claims["sub"] = json!("é".repeat(129)), &no());
}

#[test]
fn who_signs_in_anonymously_is_somebody_where_that_is_allowed() {
    let check = |secrets: &[&str], is_anonymous_allowed: bool, is_dev: bool, expected: Option<&str>| {
        let secrets = secrets.iter().map(ToString::to_string).collect();
        let config = AuthConfig { secrets, is_anonymous_allowed, is_dev, ..AuthConfig::default() };
        let verifier = Verifier::new(config).unwrap();
        let token = verifier.sign_in_anonymously("u1", NOW_S);
        let identity = token.as_deref().map(|token| verifier.verify(token, NOW_S).unwrap());
        let found = identity.as_ref().map(|identity| identity.auth["provider"].as_str().unwrap());
        assert_eq!(found, expected, "{is_anonymous_allowed} {is_dev}");
        if let Some(identity) = identity {
            assert_eq!((identity.uid(), identity.is_admin), (Some("u1"), false));
        }
        token
    };
    let other = "another-secret-0123456789abcdef0123";
    check(&[], false, false, None);
    check(&[SECRET], false, false, None);
    check(&[], false, true, Some("anonymous"));
    check(&[SECRET], false, true, Some("anonymous"));
    let token = check(&[SECRET, other], true, false, Some("anonymous")).unwrap();
    let verify = |secret: &str, now_s| {
        let config = AuthConfig { secrets: vec![secret.to_owned()], ..AuthConfig::default() };
        Verifier::new(config).unwrap().verify(&token, now_s).map(|identity| identity.expires_s)
    };
    let month_s = 30 * 24 * 60 * 60;
    assert_eq!(verify(SECRET, NOW_S + month_s - 1), Ok(Some(NOW_S + month_s)));
    assert_eq!(verify(SECRET, NOW_S + month_s), Err(BadCredential::Expired));
    assert_eq!(verify(other, NOW_S), Err(BadCredential::Invalid), "the first secret signs");
}

#[test]
fn times_have_a_leeway_and_tokens_an_age() {
    let is = |expires_s: u64, age_max_s: Option<u64>, iat: u64| {
        let mut issuer = issuer();
        issuer.age_max_s = age_max_s;
        let mut claims = good_claims();
        claims["exp"] = json!(expires_s);
        claims["iat"] = json!(iat);
        let token = token(&ed_header(), &claims, &ed_key(), Algorithm::EdDSA);
        verifier(issuer).verify(&token, NOW_S).map(|identity| identity.expires_s)
    };
    assert_eq!(is(NOW_S - 4, None, 0), Ok(Some(NOW_S - 4)));
    assert_eq!(is(NOW_S - 5, None, 0), Err(BadCredential::Expired));
    assert_eq!(is(NOW_S + 99, None, NOW_S + 5), Ok(Some(NOW_S + 99)));
    assert_eq!(is(NOW_S + 99, None, NOW_S + 6), Err(BadCredential::Invalid));
    assert_eq!(is(NOW_S + 99, Some(60), NOW_S - 64), Ok(Some(NOW_S + 99)));
    assert_eq!(is(NOW_S + 99, Some(60), NOW_S - 65), Err(BadCredential::Expired));
}

#[test]
fn an_admin_claim_counts_only_where_it_is_configured() {
    let is_admin = |claim: Option<&str>, value: Json| {
        let mut issuer = issuer();
        issuer.admin_claim = claim.map(str::to_owned);
        let mut claims = good_claims();
        claims["root"] = value;
        let token = token(&ed_header(), &claims, &ed_key(), Algorithm::EdDSA);
        verifier(issuer).verify(&token, NOW_S).unwrap().is_admin
    };
    assert!(is_admin(Some("root"), json!(true)));
    assert!(!is_admin(Some("root"), json!("true")));
    assert!(!is_admin(Some("root"), json!(1)));
    assert!(!is_admin(None, json!(true)));
}

#[test]
fn elliptic_curves_sign_and_keys_can_be_replaced() {
    let token = token(&json!({"alg": "ES256", "kid": "ec"}), &good_claims(), &ec_key(), Algorithm::ES256);
    let mut verifier = verifier(issuer());
    assert!(verifier.verify(&token, NOW_S).is_ok());
    assert!(verifier.set_keys("https://id.example", KeySet::default()));
    assert_eq!(verifier.verify(&token, NOW_S), Err(BadCredential::Invalid));
    assert!(!verifier.set_keys("https://id.example/", KeySet::default()));
}

#[test]
fn admin_tokens_and_secrets_are_compared_whole() {
    let verifier = verifier(issuer());
    assert_eq!(verifier.verify("admin-token-0123456789abcdef012345", NOW_S), Ok(Identity::ADMIN));
    assert_eq!(verifier.verify(SECRET, NOW_S), Ok(Identity::ADMIN));
    for bad in ["admin-token-0123456789abcdef01234", "owner", "", &SECRET[1..], &format!("{SECRET}0")] {
        assert_eq!(verifier.verify(bad, NOW_S), Err(BadCredential::Invalid), "{bad}");
    }
}

#[test]
fn nothing_but_three_plain_parts_is_a_token() {
    let verifier = verifier(issuer());
    let good = token(&ed_header(), &good_claims(), &ed_key(), Algorithm::EdDSA);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let deep = format!("{}{}", "[".repeat(40), "]".repeat(40));
    let with_claims = |claims: &str| format!("{}.{}.{signature}", part(&ed_header()), URL_SAFE_NO_PAD.encode(claims));
    for bad in [
        format!("{signed}."),
        format!("{signed}.{signature}."),
        format!(".{good}"),
        format!("{good}="),
        format!("{good} "),
        format!(" {good}"),
        good.replace('.', ".."),
        with_claims(r#"{"a":1,"a":2}"#),
        with_claims(r#"{"a":{"b":1,"b":2}}"#),
        with_claims("[]"),
        with_claims("{"),
        with_claims(&format!(r#"{{"a":{deep}}}"#)),
        "x".repeat(CREDENTIAL_BYTES_MAX + 1),
        "[".repeat(CREDENTIAL_BYTES_MAX),
        format!("{}.e30.e30", URL_SAFE_NO_PAD.encode("[".repeat(10_000))),
    ] {
        assert_eq!(verifier.verify(&bad, NOW_S), Err(BadCredential::Invalid), "{bad}");
    }
    assert!(verifier.verify(&good, NOW_S).is_ok());
}

#[test]
fn every_changed_byte_of_a_token_is_noticed() {
    let verifier = verifier(issuer());
    let good = token(&ed_header(), &good_claims(), &ed_key(), Algorithm::EdDSA);
    for index in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[index] ^= 1;
        let Ok(changed) = String::from_utf8(bytes) else { continue };
        assert!(verifier.verify(&changed, NOW_S).is_err(), "byte {index}");
    }
}

#[test]
fn dangerous_configurations_are_refused() {
    let refused = |change: &dyn Fn(&mut AuthConfig)| {
        let mut config = AuthConfig { issuers: vec![issuer()], ..AuthConfig::default() };
        change(&mut config);
        Verifier::new(config).unwrap_err()
    };
    let name = || "https://id.example".to_owned();
    assert_eq!(refused(&|config| config.secrets.push(String::new())), BadConfig::SecretTooShort);
    assert_eq!(refused(&|config| config.admin_tokens.push("short".to_owned())), BadConfig::AdminTokenTooShort);
    assert_eq!(refused(&|config| config.issuers.push(issuer())), BadConfig::IssuerTwice(name()));
    assert_eq!(refused(&|config| config.issuers[0].audiences.clear()), BadConfig::NoAudience(name()));
    assert_eq!(refused(&|config| config.issuers[0].signings.clear()), BadConfig::NoSigning(name()));
    assert_eq!(KeySet::parse("{}").unwrap_err(), BadKeySet::Malformed);
    assert_eq!(KeySet::parse(r#"{"keys":[{"kty":"oct","kid":"a","k":"AA"}]}"#).unwrap_err(), BadKeySet::Empty);
    assert_eq!(key_set().len(), 2);
}

#[test]
fn nobody_is_believed_by_default() {
    let verifier = Verifier::new(AuthConfig::default()).unwrap();
    let unsigned = format!("{}.{}.", part(&json!({"alg": "none"})), part(&json!({"sub": "u"})));
    let empty_secret = EncodingKey::from_secret(b"");
    let legacy =
        token(&json!({"alg": "HS256"}), &json!({"v": 0, "iat": NOW_S, "d": {}}), &empty_secret, Algorithm::HS256);
    for bad in ["", "owner", &unsigned, &legacy] {
        assert_eq!(verifier.verify(bad, NOW_S), Err(BadCredential::Invalid), "{bad}");
    }
}

#[test]
fn secrets_are_never_shown() {
    let shown = format!("{:?}", verifier(issuer()));
    assert!(!shown.contains(SECRET) && !shown.contains("admin-token"), "{shown}");
}
