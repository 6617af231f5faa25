//! What a server shows and speaks in DTLS: its certificate, its key, and the suites.

use std::ffi::c_int;

use foreign_types::ForeignType as _;
use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::ssl::{SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslVersion};
use openssl::x509::X509;

use super::tunnel;

/// The suites, the best first. The last one is all that Wilddog's SDK has, with either of its libraries: its tag of 64
/// bits is below what OpenSSL takes by itself, which is why the level is 0 here and everything that it would forbid
/// is left out by name.
const SUITES: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:\
                      ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-CHACHA20-POLY1305:\
                      ECDHE-ECDSA-AES128-CCM:ECDHE-ECDSA-AES128-CCM8";
/// Curves for the agreement: devices have the second.
const GROUPS: &str = "X25519:P-256:P-384";
/// Signatures that may be made: none with SHA-1.
const SIGNATURES: &str = "ECDSA+SHA256:ECDSA+SHA384:RSA-PSS+SHA256:RSA+SHA256";
/// The kinds of certificates that may be shown, the preferred one first: X.509, and the bare key (RFC 7250), which is
/// all that builds with tinydtls take (`TLSEXT_cert_type_x509` and `TLSEXT_cert_type_rpk`).
const CERTIFICATE_KINDS: [u8; 2] = [0, 2];

unsafe extern "C" {
    fn SSL_CTX_set1_server_cert_type(context: *mut openssl_sys::SSL_CTX, kinds: *const u8, count: usize) -> c_int;
}

/// What new tunnels are made with.
#[derive(Clone)]
pub struct DtlsKeys {
    pub(super) context: SslContext,
}

impl DtlsKeys {
    /// From a certificate, the certificates that it was made with, and its private key, each as DER.
    ///
    /// # Errors
    /// In words: what cannot be used.
    pub fn new(chain: &[&[u8]], key: &[u8]) -> Result<Self, String> {
        let (first, rest) = chain.split_first().ok_or("there is no certificate")?;
        let first = X509::from_der(first).map_err(|error| format!("the certificate cannot be used: {error}"))?;
        let key = PKey::private_key_from_der(key).map_err(|error| format!("the key cannot be used: {error}"))?;
        let build = || -> Result<SslContext, ErrorStack> {
            let mut builder = SslContextBuilder::new(SslMethod::dtls_server())?;
            builder.set_security_level(0);
            builder.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
            builder.set_cipher_list(SUITES)?;
            builder.set_groups_list(GROUPS)?;
            builder.set_sigalgs_list(SIGNATURES)?;
            builder.set_options(
                SslOptions::COOKIE_EXCHANGE
                    | SslOptions::NO_QUERY_MTU
                    | SslOptions::NO_RENEGOTIATION
                    | SslOptions::NO_TICKET
                    | SslOptions::NO_COMPRESSION
                    | SslOptions::CIPHER_SERVER_PREFERENCE,
            );
            builder.set_mode(SslMode::RELEASE_BUFFERS);
            builder.set_session_cache_mode(openssl::ssl::SslSessionCacheMode::OFF);
            builder.set_certificate(&first)?;
            for der in rest {
                builder.add_extra_chain_cert(X509::from_der(der)?)?;
            }
            builder.set_private_key(&key)?;
            builder.check_private_key()?;
            tunnel::set_cookies(&mut builder);
            Ok(builder.build())
        };
        let context = build().map_err(|error| error.to_string())?;
        // SAFETY: the context lives, and the library copies the two bytes.
        let is_set = unsafe {
            SSL_CTX_set1_server_cert_type(context.as_ptr(), CERTIFICATE_KINDS.as_ptr(), CERTIFICATE_KINDS.len())
        };
        if is_set == 1 { Ok(Self { context }) } else { Err(ErrorStack::get().to_string()) }
    }
}

impl std::fmt::Debug for DtlsKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DtlsKeys(…)")
    }
}
