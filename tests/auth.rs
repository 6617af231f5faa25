//! The known token vectors.

use serde_json::Value as Json;
use stillhere::auth::{AuthConfig, Issuer, KeySet, Verifier};
use stillhere::op::BadCredential;

fn vectors() -> (Json, Vec<Json>) {
    let text = include_str!("auth/auth_vectors.jsonl");
    let mut lines = text.lines().map(|line| serde_json::from_str::<Json>(line).expect("JSON"));
    let config = lines.next().expect("the first line")["config"].take();
    (config, lines.collect())
}

fn verifier(config: &Json, mode: &str) -> Verifier {
    let keys = KeySet::parse(&config["jwks"].to_string()).expect("a key set");
    let project = config["project"].as_str().expect("a project");
    let secret = config["secret"].as_str().expect("a secret").to_owned();
    Verifier::new(AuthConfig {
        issuers: vec![Issuer::firebase(project, keys)],
        secrets: if mode == "no-secret" { Vec::new() } else { vec![secret] },
        admin_tokens: Vec::new(),
        is_anonymous_allowed: false,
        is_dev: mode == "dev",
        leeway_s: config["leeway_s"].as_u64().expect("a leeway"),
    })
    .expect("the configuration is right")
}

#[test]
fn every_vector_turns_out_as_recorded() {
    let (config, vectors) = vectors();
    let now_s = config["now"].as_u64().expect("a time");
    for vector in &vectors {
        let name = &vector["name"];
        let verifier = verifier(&config, vector["mode"].as_str().expect("a mode"));
        let outcome = verifier.verify(vector["token"].as_str().expect("a token"), now_s);
        if vector["expect"] == "accept" {
            let identity = outcome.unwrap_or_else(|why| panic!("{name}: {why:?}"));
            assert_eq!(identity.auth, vector["auth"], "{name}");
            assert_eq!(identity.is_admin, vector["admin"] == true, "{name}");
            assert_eq!(identity.expires_s, vector["expires"].as_u64(), "{name}");
        } else {
            let reason = match outcome.expect_err(&name.to_string()) {
                BadCredential::Invalid => "invalid_token",
                BadCredential::Expired => "expired_token",
                BadCredential::Forbidden => "permission_denied",
            };
            assert_eq!(vector["reason"], reason, "{name}");
        }
    }
    assert_eq!(vectors.len(), 51);
}
