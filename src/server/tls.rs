//! The server's certificates: read, checked, and made into what serves TLS and DTLS.
//!
//! They are read at the start, and again at SIGHUP: whoever renews certificates replaces the files and sends
//! the signal. A pair that does not fit changes nothing.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{InconsistentKeys, ServerConfig};

use super::config::TlsFiles;
use super::place::Problem;
use crate::base::limits;
use crate::runtime::DtlsKeys;

/// Reads the files and makes of them what serves TLS 1.2 and 1.3.
///
/// # Errors
///
/// A file cannot be read or is not what it should be, or the key is another certificate's: with the file and
/// the reason.
pub fn load(files: &TlsFiles) -> Result<Arc<ServerConfig>, Problem> {
    let chain = chain(&files.cert).map_err(|reason| Problem::new(files.cert.display(), reason))?;
    let key = key(&files.key).map_err(|reason| Problem::new(files.key.display(), reason))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has what TLS 1.2 and 1.3 need")
        .with_no_client_auth();
    let mut config = builder.with_single_cert(chain, key).map_err(|error| misfit(files, &error))?;
    // Browsers offer more; what is spoken here is HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Who comes back may come back to another core: what resumes a session travels with the client.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = aws_lc_rs::Ticketer::new()
        .map_err(|error| Problem::new("machine", format!("no randomness for TLS: {error}")))?;
    Ok(Arc::new(config))
}

/// Reads the files and makes of them what serves DTLS 1.2.
///
/// # Errors
///
/// As [`load`].
pub fn load_for_datagrams(files: &TlsFiles) -> Result<DtlsKeys, Problem> {
    let chain = chain(&files.cert).map_err(|reason| Problem::new(files.cert.display(), reason))?;
    let key = key(&files.key).map_err(|reason| Problem::new(files.key.display(), reason))?;
    let chain: Vec<&[u8]> = chain.iter().map(AsRef::as_ref).collect();
    DtlsKeys::new(&chain, key.secret_der()).map_err(|reason| {
        let cert = files.cert.display();
        Problem::new(files.key.display(), format!("it does not serve with the certificates in {cert}: {reason}"))
    })
}

fn misfit(files: &TlsFiles, error: &rustls::Error) -> Problem {
    match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            let cert = files.cert.display();
            Problem::new(files.key.display(), format!("it is not the key of the first certificate in {cert}"))
        }
        rustls::Error::InvalidCertificate(error) => {
            Problem::new(files.cert.display(), format!("the first certificate cannot be used: {error}"))
        }
        error => Problem::new(files.key.display(), format!("the key cannot be used: {error}")),
    }
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(path).map_err(|error| format!("cannot be read: {error}"))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.map_err(|error| format!("is not PEM: {error}"))?;
    if chain.is_empty() {
        return Err("there is no certificate in it (PEM: -----BEGIN CERTIFICATE-----)".into());
    }
    Ok(chain)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = read(path).map_err(|error| format!("cannot be read: {error}"))?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound if memchr::memmem::find(&bytes, b"ENCRYPTED PRIVATE KEY").is_some() => {
            "the key in it is encrypted with a password; `openssl pkey -in FILE` writes it without".into()
        }
        pem::Error::NoItemsFound => "there is no private key in it (PEM: -----BEGIN PRIVATE KEY-----)".into(),
        error => format!("is not PEM: {error}"),
    })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One more than allowed, so that too much is told from just enough.
    let count = File::open(path)?.take(limits::TLS_FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if u64::try_from(count).is_ok_and(|count| count <= limits::TLS_FILE_BYTES_MAX) {
        Ok(bytes)
    } else {
        Err(io::Error::other(format!("it is longer than {} bytes", limits::TLS_FILE_BYTES_MAX)))
    }
}
