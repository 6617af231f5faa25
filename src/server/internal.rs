//! The internal address: `/healthz`, `/readyz` and `/metrics` over plain HTTP/1.1, for the operator's
//! tools. It shares nothing with the shards but atomics, so it answers while they are busy.
//!
//! One request a connection, one thread a request, at most [`limits::INTERNAL_REQUESTS_MAX`] of them,
//! each over within [`limits::INTERNAL_REQUEST_MAX`].

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::health::{Health, State};
use super::metrics;
use crate::base::limits;

/// The internal address, served as long as this lives.
#[derive(Debug)]
pub struct Internal {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
}

impl Internal {
    /// Where it is.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Internal {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        // The thread that accepts sees it when it has something to accept.
        let _ = TcpStream::connect(self.address);
    }
}

/// Serves at `listener`.
///
/// # Errors
///
/// The address cannot be told, or the thread cannot be started.
pub fn start(listener: TcpListener, health: Arc<Health>) -> io::Result<Internal> {
    let address = listener.local_addr()?;
    let is_over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_over);
    std::thread::Builder::new().name("internal".into()).spawn(move || accept(&listener, &health, &seen))?;
    Ok(Internal { address, is_over })
}

fn accept(listener: &TcpListener, health: &Arc<Health>, is_over: &AtomicBool) {
    // When accept fails, mostly for want of descriptors, it would fail again at once.
    const PAUSE: Duration = Duration::from_millis(100);
    let open_count = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((stream, _)) = listener.accept() else {
            std::thread::sleep(PAUSE);
            continue;
        };
        if is_over.load(Ordering::Acquire) {
            return;
        }
        // Only this thread adds, so the count cannot pass the limit in between.
        if open_count.load(Ordering::Acquire) >= limits::INTERNAL_REQUESTS_MAX {
            continue;
        }
        let guard = Open::count(&open_count);
        let health = Arc::clone(health);
        let request = std::thread::Builder::new().name("internal".into());
        // A request that finds no thread is closed with its stream; whoever asked will ask again.
        let _ = request.spawn(move || {
            let _guard = guard;
            let _ = serve(&stream, &health);
        });
    }
}

/// A request being served: counted while it lives.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn count(open_count: &Arc<AtomicUsize>) -> Self {
        open_count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(open_count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn serve(mut stream: &TcpStream, health: &Health) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_millis(limits::INTERNAL_REQUEST_MAX.0);
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    let answer = loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Ok(());
        }
        head.extend_from_slice(&chunk[..count]);
        if head.len() > limits::INTERNAL_HEAD_BYTES_MAX {
            break Answer::text(431, "Request Header Fields Too Large");
        }
        if let Some(answer) = answer(&head, health) {
            break answer;
        }
    };
    // One write: the socket takes an answer of this size whole, or the timeout ends it.
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(&answer.bytes())?;
    stream.shutdown(std::net::Shutdown::Write)
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    reason: &'static str,
    content_type: &'static str,
    pub(super) body: String,
    is_head: bool,
}

impl Answer {
    fn text(status: u16, reason: &'static str) -> Self {
        let body = format!("{}\n", reason.to_lowercase());
        Self { status, reason, content_type: "text/plain; charset=utf-8", body, is_head: false }
    }

    fn bytes(&self) -> Vec<u8> {
        let Self { status, reason, content_type, body, is_head } = self;
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n"
        );
        let body = if *is_head { "" } else { body };
        [head.as_bytes(), body.as_bytes()].concat()
    }
}

/// The answer to the request that begins with `head`; `None` when the head is not complete.
pub(super) fn answer(head: &[u8], health: &Health) -> Option<Answer> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return None,
        Err(_) => return Some(Answer::text(400, "Bad Request")),
    }
    let is_head = request.method == Some("HEAD");
    if !is_head && request.method != Some("GET") {
        return Some(Answer::text(405, "Method Not Allowed"));
    }
    let target = request.path.unwrap_or_default();
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let answer = match path {
        "/healthz" => Answer::text(200, "OK"),
        "/readyz" => match health.state() {
            State::Ready => Answer::text(200, "OK"),
            State::Starting => {
                let body = format!("{}\n", health.starting());
                Answer { body, ..Answer::text(503, "Service Unavailable") }
            }
            State::Draining => Answer { body: "draining\n".into(), ..Answer::text(503, "Service Unavailable") },
        },
        "/metrics" => Answer { content_type: metrics::CONTENT_TYPE, body: health.metrics(), ..Answer::text(200, "OK") },
        _ => Answer::text(404, "Not Found"),
    };
    Some(Answer { is_head, ..answer })
}
