//! One connection to a server's REST API.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::server::flags::ServerFlags;
use crate::wire::Input;
use crate::wire::http::{self, ResponseReader};
use crate::wire::rest::BodyReader;

/// Nothing heard for so long is a failure.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// Of an error's body this much is shown.
const ERROR_BYTES_MAX: usize = 2_000;

/// A connection, and what every request on it has in common.
pub(in crate::server) struct Client {
    stream: TcpStream,
    host: String,
    /// Path and query, to which parameters may be added.
    target: String,
    auth: Option<String>,
}

/// Why a request was not done.
#[derive(Debug)]
pub(in crate::server) enum Refused {
    Io(io::Error),
    /// The address cannot be used.
    Url(&'static str),
    /// The server does not speak as expected.
    Nonsense,
    /// The server says no.
    Status(u16, String),
    /// The file is no JSON, or none that can be stored.
    Json(u64, &'static str),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::WouldBlock => write!(f, "the server is silent"),
            Self::Io(error) => error.fmt(f),
            Self::Url(what) => f.write_str(what),
            Self::Nonsense => f.write_str("the server does not speak HTTP as expected"),
            Self::Status(status, text) => write!(f, "the server answers {status}: {text}"),
            Self::Json(at, what) => write!(f, "byte {at} of the file: {what}"),
        }
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Client {
    /// To the location `path` of a server's database.
    pub(in crate::server) fn connect(server: &ServerFlags, path: &str) -> Result<Self, Refused> {
        let rest = server.url.strip_prefix("http://").ok_or(Refused::Url("an address begins with http://"))?;
        let host = rest.trim_end_matches('/').to_owned();
        if host.is_empty() || host.contains(['/', '?', '#', '@', ' ', '\r', '\n']) {
            return Err(Refused::Url("an address is http://HOST:PORT"));
        }
        let is_line = |auth: &String| auth.bytes().all(|byte| byte.is_ascii_graphic());
        if !server.auth.as_ref().is_none_or(is_line) {
            return Err(Refused::Url("a credential has no spaces"));
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if has_port { host.clone() } else { format!("{host}:80") };
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        stream.set_nodelay(true)?;
        let mut target = Vec::new();
        for key in path.split('/').filter(|key| !key.is_empty()) {
            target.push(b'/');
            http::percent_encode(&mut target, key);
        }
        if target.is_empty() {
            target.push(b'/');
        }
        target.extend_from_slice(b".json?ns=");
        http::percent_encode(&mut target, &server.namespace);
        let target = String::from_utf8(target).expect("it is percent-encoded");
        Ok(Self { stream, host, target, auth: server.auth.clone() })
    }

    /// Reads the location, a piece at a time.
    pub(super) fn get(&mut self, params: &str, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<(), Refused> {
        self.request("GET", params, b"")?;
        self.response(each)
    }

    /// Writes to the location.
    pub(super) fn send(&mut self, method: &str, body: &[u8]) -> Result<(), Refused> {
        self.request(method, "print=silent", body)?;
        self.response(&mut |_| Ok(()))
    }

    /// Does something with the location, and reads what it says.
    pub(in crate::server) fn call(
        &mut self,
        method: &str,
        params: &str,
        body: &[u8],
        each: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Refused> {
        self.request(method, params, body)?;
        self.response(each)
    }

    fn request(&mut self, method: &str, params: &str, body: &[u8]) -> Result<(), Refused> {
        let Self { host, target, .. } = self;
        let mut head = format!("{method} {target}&{params} HTTP/1.1\r\nHost: {host}\r\n").into_bytes();
        if let Some(auth) = &self.auth {
            write!(head, "Authorization: Bearer {auth}\r\n")?;
        }
        write!(head, "Content-Length: {}\r\n\r\n", body.len())?;
        self.stream.write_all(&head)?;
        self.stream.write_all(body)?;
        Ok(())
    }

    fn response(&mut self, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<(), Refused> {
        let mut reader = ResponseReader::default();
        let mut body: Option<(u16, BodyReader)> = None;
        let mut buffer = vec![0; 64 * 1024];
        let mut error = Vec::new();
        loop {
            let count = self.stream.read(&mut buffer)?;
            if count == 0 {
                return Err(Refused::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            let mut input = Input::new(&mut buffer[..count]);
            if body.is_none() {
                let Some(head) = reader.next(&mut input).map_err(|_| Refused::Nonsense)? else { continue };
                let framing = framing(&head)?;
                body = Some((head.status, BodyReader::boundless(framing)));
            }
            let (status, rest) = body.as_mut().expect("it was made just now");
            let is_fine = (200..300).contains(status);
            let mut written = Ok(());
            rest.read(&mut input, |piece| {
                if is_fine && written.is_ok() {
                    written = each(piece);
                } else if error.len() < ERROR_BYTES_MAX {
                    error.extend_from_slice(piece);
                }
            })
            .map_err(|_| Refused::Nonsense)?;
            written?;
            if rest.is_done() {
                return if is_fine { Ok(()) } else { Err(Refused::Status(*status, text(&error))) };
            }
        }
    }
}

fn framing(head: &http::ResponseHead<'_>) -> Result<http::Body, Refused> {
    if matches!(head.status, 204 | 304) {
        return Ok(http::Body::Bytes(0));
    }
    if head.headers.lists("transfer-encoding", "chunked") {
        return Ok(http::Body::Chunked);
    }
    let length = head.headers.text("content-length").and_then(|length| length.parse().ok());
    length.map(http::Body::Bytes).ok_or(Refused::Nonsense)
}

/// What an error says.
fn text(body: &[u8]) -> String {
    let told = serde_json::from_slice::<serde_json::Value>(body).ok();
    let told = told.as_ref().and_then(|value| value.get("error")?.as_str());
    told.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned)
}
