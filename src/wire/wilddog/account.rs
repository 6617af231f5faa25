//! Signing in over HTTP, as far as the SDKs need it before they sign in on their connection
//! (Wilddog wire specification, sections 12.2 and 12.3).
//!
//! The surprising idea: there are no accounts. A custom token already says who somebody is, so it is
//! its own ID token, and what an account holds is read from the token that is shown. Refusals come
//! with the status of success: these clients read nothing else.

use crate::json::{self, Item};
use crate::op::{BadCredential, Identity};
use crate::wire::http::Query;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// To sign in with a custom token.
    Token(String),
    /// To sign in as somebody who is like nobody else.
    Anonymous,
    /// Who the owner of a token is.
    Info(String),
    /// Something that needs an account.
    Unsupported,
}

/// Which generation of SDKs asks: they read different answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// `new Wilddog(url)`, versions 0.x.
    Legacy,
    /// `wilddog.initializeApp`, versions 2.x.
    Second,
}

/// What a path asks for: the generation, and the operation's name.
#[must_use]
pub fn operation(path: &str) -> Option<(Generation, &str)> {
    let mut pieces = path.strip_prefix('/')?.splitn(3, '/');
    match (pieces.next()?, pieces.next()?, pieces.next()?) {
        ("v2", _, rest) => Some((Generation::Second, rest.strip_prefix("auth/")?)),
        ("v1", _, rest) if rest.starts_with("auth/") || rest == "users" || rest.starts_with("users/") => {
            Some((Generation::Legacy, rest))
        }
        _ => None,
    }
}

/// Reads a request of the second generation: the operation's name and the body, which is destroyed.
#[must_use]
pub fn read(operation: &str, body: &mut [u8], reader: &mut json::Reader) -> Ask {
    let text = |item: Item<'_>, name| item.get(name).and_then(Item::as_text).map(str::to_owned);
    let ask = reader.read(body, |item| match operation {
        "verifyCustomToken" => text(item, "token").map(Ask::Token),
        "getAccountInfo" => text(item, "idToken").map(Ask::Info),
        "signupNewUser" if text(item, "password").is_none() => Some(Ask::Anonymous),
        _ => None,
    });
    ask.ok().flatten().unwrap_or(Ask::Unsupported)
}

/// Reads a request of the first generation, which has no body.
#[must_use]
pub fn read_legacy(operation: &str, query: Query<'_>) -> Ask {
    let is_get = query.raw("_method").is_none_or(|method| method == "GET");
    if operation == "auth/anonymous" && is_get { Ask::Anonymous } else { Ask::Unsupported }
}

/// Appends the answer to a sign-in.
pub fn signed_in(out: &mut Vec<u8>, generation: Generation, token: &str, identity: &Identity) {
    match generation {
        Generation::Second => {
            out.extend_from_slice(br#"{"idToken":"#);
            json::text(out, token);
        }
        Generation::Legacy => {
            out.extend_from_slice(br#"{"token":"#);
            json::text(out, token);
            out.extend_from_slice(br#","uid":"#);
            json::text(out, identity.uid().unwrap_or(""));
            out.extend_from_slice(br#","provider":"#);
            json::text(out, provider(identity));
            if let Some(expires_s) = identity.expires_s {
                out.extend_from_slice(br#","expires":"#);
                json::integer(out, expires_s);
            }
        }
    }
    out.push(b'}');
}

/// Appends who a token's owner is.
pub fn info(out: &mut Vec<u8>, identity: &Identity) {
    let uid = identity.uid().unwrap_or("");
    let provider = provider(identity);
    let user = serde_json::json!({ "users": [{
        "localId": uid, "providerId": provider, "displayName": null, "email": null, "phoneNumber": null,
        "photoUrl": null, "emailVerified": false, "phoneNumberVerified": false,
        "providerUserInfo": [{ "providerId": provider, "uid": uid, "displayName": null, "photoUrl": null }],
    }] });
    serde_json::to_writer(out, &user).expect("a value is JSON, and a vector takes it");
}

fn provider(identity: &Identity) -> &str {
    identity.auth.get("provider").and_then(serde_json::Value::as_str).unwrap_or("custom")
}

/// Why a sign-in is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The token is not, or no longer, accepted.
    Credential(BadCredential),
    /// It needs an account, and there are none; or nobody may sign in anonymously.
    Unsupported,
}

/// Appends a refusal.
pub fn refused(out: &mut Vec<u8>, generation: Generation, why: Refused) {
    let (code, word, text) = match why {
        Refused::Credential(BadCredential::Expired) => (22_005, "EXPIRED_TOKEN", "The supplied auth token has expired"),
        Refused::Credential(_) => (22_004, "INVALID_TOKEN", "The supplied auth token was invalid"),
        Refused::Unsupported => (22_001, "AUTHENTICATION_DISABLED", "This way to sign in is not set up on this server"),
    };
    match generation {
        Generation::Second => {
            out.extend_from_slice(br#"{"error":true,"errcode":"#);
            json::integer(out, code);
            out.extend_from_slice(br#","message":"#);
        }
        Generation::Legacy => {
            out.extend_from_slice(br#"{"error":{"code":"#);
            json::text(out, word);
            out.extend_from_slice(br#","message":"#);
        }
    }
    json::text(out, text);
    out.extend_from_slice(if generation == Generation::Legacy { b"}}" } else { b"}" });
}
