//! The three parts of a token (RFC 7515 section 7.1), read strictly, before anything is believed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value as Json};

use crate::json::{Item, Reader};
use crate::op::BadCredential;

/// Bytes of a credential.
pub const CREDENTIAL_BYTES_MAX: usize = 16 * 1024;
/// Levels of a token's header and claims.
const DEPTH_MAX: usize = 32;

/// A token in its parts; nothing in it is proven.
pub(super) struct Token<'t> {
    pub header: Map<String, Json>,
    pub claims: Map<String, Json>,
    /// What is signed: header and claims as they came.
    pub signed: &'t str,
    /// The signature, not decoded.
    pub signature: &'t str,
}

impl<'t> Token<'t> {
    /// Reads exactly three parts of unpadded base64url; the first two are JSON objects in which no
    /// name stands twice.
    pub(super) fn parse(credential: &'t str) -> Result<Self, BadCredential> {
        let parts = credential.rsplit_once('.').and_then(|(signed, signature)| {
            // A fourth part would leave a dot in the claims, which is no base64url.
            let (header, claims) = signed.split_once('.')?;
            Some((header, claims, signed, signature))
        });
        let (header, claims, signed, signature) = parts.ok_or(BadCredential::Invalid)?;
        let token = Self { header: object(header)?, claims: object(claims)?, signed, signature };
        // RFC 7515 section 4.1.11: whoever does not understand an extension that must be understood,
        // refuses. None is understood here.
        if token.header.contains_key("crit") { Err(BadCredential::Invalid) } else { Ok(token) }
    }

    /// A text of the header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.header.get(name)?.as_str()
    }

    /// A text of the claims.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.claims.get(name)?.as_str()
    }

    /// A time of the claims, in seconds since 1970; absent is fine, nonsense is not.
    pub(super) fn time(&self, name: &str) -> Result<Option<u64>, BadCredential> {
        let Some(value) = self.claims.get(name) else { return Ok(None) };
        let whole = value.as_u64();
        // RFC 7519 section 2: a NumericDate may have a fraction.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked: between 0 and 2^53")]
        let rounded = || value.as_f64().filter(|time| (0.0..9.0e15).contains(time)).map(|time| time as u64);
        whole.or_else(rounded).map(Some).ok_or(BadCredential::Invalid)
    }
}

fn object(part: &str) -> Result<Map<String, Json>, BadCredential> {
    let mut text = URL_SAFE_NO_PAD.decode(part).map_err(|_| BadCredential::Invalid)?;
    let read = Reader::default().read(&mut text, |item| is_plain(item, DEPTH_MAX).then(|| item.to_serde()));
    match read {
        Ok(Some(Json::Object(members))) => Ok(members),
        _ => Err(BadCredential::Invalid),
    }
}

/// Whether no object names a member twice, and nothing is deeper than it may be.
fn is_plain(item: Item<'_>, depth_left: usize) -> bool {
    match item {
        Item::Array(_) | Item::Object(_) if depth_left == 0 => false,
        Item::Array(mut values) => values.all(|value| is_plain(value, depth_left - 1)),
        Item::Object(members) => {
            let mut names: Vec<&str> = members.map(|(name, _)| name).collect();
            names.sort_unstable();
            let mut members = members;
            names.windows(2).all(|pair| pair[0] != pair[1]) && members.all(|(_, value)| is_plain(value, depth_left - 1))
        }
        _ => true,
    }
}
