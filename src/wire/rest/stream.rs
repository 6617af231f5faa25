//! Events as `text/event-stream` (Firebase wire specification, section 9.4; WHATWG HTML, "Server-sent
//! events").

use crate::data::{Path, plain};
use crate::json;
use crate::op::{Event, Index, Operation};
use crate::wire::http;

/// Appends the head of a response that is a stream.
pub fn write_stream_head(out: &mut Vec<u8>, stream: &str) {
    let headers = [
        ("Content-Type", "text/event-stream; charset=utf-8"),
        ("Cache-Control", "no-cache"),
        ("Access-Control-Allow-Origin", "*"),
        ("Access-Control-Expose-Headers", "Stillhere-Stream"),
        ("Stillhere-Stream", stream),
        ("Connection", "close"),
        // Proxies that gather a response before they pass it on would pass on nothing.
        ("X-Accel-Buffering", "no"),
    ];
    http::write_response_head(out, 200, &headers);
    out.extend_from_slice(b"\r\n");
}

/// One event for those who listen at `base`.
#[derive(Clone, Copy, Debug)]
pub struct StreamText<'e> {
    /// What happened.
    pub event: &'e Event,
    /// Where they listen: paths are told from there.
    pub base: &'e Path,
}

impl StreamText<'_> {
    /// Appends it. `stream`, in a stream's first event, is the name by which its client may speak of
    /// the stream: browsers send it when they connect again.
    pub fn write(&self, out: &mut Vec<u8>, stream: Option<&str>) {
        let (name, path) = match self.event {
            Event::Set { path, .. } => ("put", path),
            Event::Merge { path, .. } => ("patch", path),
            Event::Revoked { .. } => return out.extend_from_slice(b"event: cancel\ndata: null\n\n"),
            Event::Operation(operation) => return write_operation(out, operation),
        };
        let below = self.base.relative(path).expect("who listens hears of what is there or below");
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\ndata: {\"path\":");
        json::text(out, &format!("/{below}"));
        out.extend_from_slice(b",\"data\":");
        match self.event {
            Event::Set { node, .. } => plain(out, node),
            Event::Merge { changes, .. } => {
                out.push(b'{');
                for (index, (place, node)) in changes.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    json::text(out, place.as_str());
                    out.push(b':');
                    plain(out, node);
                }
                out.push(b'}');
            }
            Event::Revoked { .. } | Event::Operation(_) => unreachable!("it has returned"),
        }
        out.extend_from_slice(b"}\n");
        if let Some(stream) = stream {
            out.extend_from_slice(b"id: ");
            out.extend_from_slice(stream.as_bytes());
            out.push(b'\n');
        }
        out.push(b'\n');
    }
}

/// Appends the sign of life.
pub fn write_keep_alive(out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: keep-alive\ndata: null\n\n");
}

/// Appends the news that the client's credential is no longer accepted. Not JSON: clients compare the
/// text.
pub fn write_revoked_credential(out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: auth_revoked\ndata: credential is no longer valid\n\n");
}

/// Appends an operation as the original service's profiler reads it.
fn write_operation(out: &mut Vec<u8>, operation: &Operation) {
    let Operation { kind, path, at, bytes, pending, is_allowed, unindexed } = operation;
    out.extend_from_slice(b"event: log\ndata: {\"name\":");
    json::text(out, kind.as_str());
    out.extend_from_slice(b",\"path\":[");
    for (index, key) in path.as_str().split('/').filter(|key| !key.is_empty()).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::text(out, key);
    }
    let (at, pending) = (at.0, pending.0);
    // Times are whole milliseconds, and no operation is as long.
    let numbers = format!(
        "],\"timestamp\":{at},\"millis\":0,\"pendingTime\":{pending},\"bytes\":{bytes},\"allowed\":{is_allowed}"
    );
    out.extend_from_slice(numbers.as_bytes());
    if let Some(index) = unindexed {
        out.extend_from_slice(b",\"unIndexed\":true,\"querySet\":[{\"index\":{\"path\":[");
        json::text(
            out,
            match index {
                Index::Priority => ".priority",
                Index::Key => ".key",
                Index::Value => ".value",
                Index::Child(path) => path.as_str(),
            },
        );
        out.extend_from_slice(b"]}}]");
    }
    out.extend_from_slice(b"}\n\n");
}
