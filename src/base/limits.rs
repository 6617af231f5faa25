//! Every limit of the engine, in one place, related to each other by compile-time assertions.
//!
//! Reaching a limit has an answer with a name; it never drops state in silence. The figures marked
//! *Firebase* are the documented limits of the original service, so that data moves both ways.

use super::Millis;

/// Levels below the root at which a value may stand (*Firebase*).
pub const DEPTH_MAX: usize = 32;
/// Bytes of UTF-8 in one key (*Firebase*).
pub const KEY_BYTES_MAX: usize = 768;
/// Bytes of UTF-8 in one string value (*Firebase*: 10 MB).
pub const TEXT_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Bytes of one message of a socket client, all its segments together (*Firebase*: 16 MB).
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Segments that one message of a socket client may announce.
pub const SEGMENTS_MAX: usize = 9_999;
/// Bytes of one WebSocket frame's payload.
pub const FRAME_BYTES_MAX: usize = MESSAGE_BYTES_MAX;
/// UTF-16 code units in one segment of a chunked message to a Firebase client.
pub const SEGMENT_UNITS_MAX: usize = 16_384;
/// Bytes of one HTTP request head.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header lines of one HTTP request.
pub const HEADERS_MAX: usize = 64;
/// Bytes of one HTTP request body.
pub const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of all request bodies that one engine gathers at a time.
pub const BODIES_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// A request's body may take this long, and longer for each second's worth of bytes that came.
pub const BODY_GRACE: Millis = Millis(30_000);
/// See [`BODY_GRACE`].
pub const BODY_BYTES_PER_SECOND_MIN: usize = 8 * 1024;
/// Time from a whole request to its answer.
pub const ANSWER_MAX: Millis = Millis(60_000);
/// Time for which a client may take nothing of a long answer.
pub const SEND_STALL_MAX: Millis = Millis(30_000);
/// A stream shows a sign of life at least this often (*Firebase*).
pub const KEEP_ALIVE: Millis = Millis(30_000);
/// Bytes of a namespace's name.
pub const NAMESPACE_BYTES_MAX: usize = 128;
/// Namespaces of one engine.
pub const NAMESPACES_MAX: usize = 10_000;
/// Paths in one multi-path update.
pub const MERGE_PATHS_MAX: usize = 100_000;
/// Listens of one session.
pub const LISTENS_MAX: usize = 10_000;
/// Last words of one session: each path of a merge counts.
pub const LAST_WORDS_MAX: usize = 1_000;
/// Bytes of last words of one session, as they came over the wire.
pub const LAST_WORDS_BYTES_MAX: usize = 1024 * 1024;
/// Requests of one session that may wait for answers from other shards before its input is
/// left unread.
pub const REQUESTS_IN_FLIGHT_MAX: u32 = 1_024;
/// Bytes that may wait to be sent to one client before it is disconnected as too slow.
pub const SEND_BACKLOG_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes that may wait to be sent to all connections of one engine: beyond, those are disconnected for whom more than
/// the average waits.
pub const SEND_BACKLOGS_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Bytes to be sent that one turn may bring up; what is left of its work goes on in the next one. One message
/// may go beyond it.
pub const OUTPUT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Connections of one engine: slots are `u32`, and the wheel reserves none.
pub const CONNECTIONS_MAX: u32 = 1 << 24;
/// Time from accept to a complete request head.
pub const HANDSHAKE_MAX: Millis = Millis(10_000);
/// Time for which a connection may ask nothing.
pub const KEEP_ALIVE_MAX: Millis = Millis(60_000);
/// How long a body may stop arriving.
pub const BODY_PAUSE_MAX: Millis = Millis(30_000);
/// Bytes of one body that brings Engine.IO packets: text is encoded twice.
pub const PACKETS_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;
/// How long an Engine.IO session may ask for nothing after it was opened.
pub const MUTE_MAX: Millis = Millis(30_000);
/// How long an Engine.IO client is told to wait for a pong, at least: a hidden page's clock strikes
/// once a minute.
pub const PING_TIMEOUT_MIN: Millis = Millis(60_000);
/// The resolution of every deadline.
pub const TICK: Millis = Millis(8);
/// The shortest heartbeat and the shortest session timeout that may be configured.
pub const HEARTBEAT_MIN: Millis = Millis(1_000);
/// The longest heartbeat and the longest session timeout that may be configured.
pub const SESSION_TIMEOUT_MAX: Millis = Millis(24 * 60 * 60 * 1_000);
/// The longest time that a stop may be configured to take.
pub const DRAIN_MAX: Millis = Millis(60 * 60 * 1_000);
/// Bytes of a rules file.
pub const RULES_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes of a set of keys, and of a file of secrets.
pub const KEYS_BYTES_MAX: u64 = 1024 * 1024;
/// A certificate chain, or its key: a file that somebody wrote.
pub const TLS_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The most by which the clocks of those who issue tokens and of those who check them may differ.
pub const AUTH_LEEWAY_MAX: Millis = Millis(10 * 60 * 1_000);
/// Lines that may wait to be logged; when nobody reads the log, further ones are counted and lost.
pub const LOG_LINES_MAX: usize = 4_096;
/// Lines of one kind that one shard logs about its clients in one [`NOTICE_WINDOW`].
pub const NOTICES_MAX: u32 = 10;
/// See [`NOTICES_MAX`].
pub const NOTICE_WINDOW: Millis = Millis(10_000);
/// Requests that the internal address serves at a time; further ones are closed.
pub const INTERNAL_REQUESTS_MAX: usize = 16;
/// Bytes of the head of a request to the internal address.
pub const INTERNAL_HEAD_BYTES_MAX: usize = 4 * 1024;
/// Time from accept to the end of an answer at the internal address.
pub const INTERNAL_REQUEST_MAX: Millis = Millis(2_000);
/// Streams of one core that are shown everything again and again.
pub const WATCHERS_MAX: usize = 16;
/// Rows that an operator may ask for at once.
pub const LOOK_ROWS_MAX: usize = 1_000;
/// Places whose children an operator may ask for at once.
pub const LOOK_PLACES_MAX: usize = 50;
/// Requests of one device that may wait for answers; further ones are left to be repeated.
pub const DEVICE_REQUESTS_MAX: usize = 64;
/// Registrations of one device.
pub const DEVICE_WATCHES_MAX: usize = 256;
/// Bytes of one value that a plain CoAP client reads or writes in blocks.
pub const DEVICE_BODY_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of all such values that one engine keeps while they are on their way.
pub const DEVICE_BODIES_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long the session of a device lasts that has not shown that it receives.
pub const DEVICE_UNPROVEN_TIMEOUT: Millis = Millis(60_000);
/// How long a plain CoAP client is known that neither listens nor leaves last words: requests are repeated for
/// less than that.
pub const DEVICE_PLAIN_TIMEOUT: Millis = Millis(20_000);
/// The oldest versions of Wilddog's C SDK say nothing for ten minutes.
pub const DEVICE_LEGACY_TIMEOUT_MIN: Millis = Millis(11 * 60_000);
/// What a program may say for its guests to one core before it has to wait.
pub const GUEST_QUEUE_MAX: usize = 16 * 1024;
/// What of that one turn takes in.
pub const GUEST_SAYINGS_PER_TURN: usize = 1_024;
/// Words and events that may wait to be told to guests before all clients of their core are left unread.
pub const GUEST_CARRIED_MAX: usize = 256 * 1024;
/// Requests of one guest that may wait for answers.
pub const GUEST_REQUESTS_MAX: usize = 256;
/// Events of one listen of a guest that may wait to be taken as they are; what comes then is merged by its path.
pub const GUEST_EVENTS_MAX: usize = 4_096;
/// Paths that may wait merged before the listen is ended as too slow.
pub const GUEST_CHANGES_MAX: usize = 256 * 1024;
/// Shards of one server.
pub const SHARDS_MAX: usize = 64;

const _: () = assert!(KEY_BYTES_MAX * DEPTH_MAX < MESSAGE_BYTES_MAX, "the deepest path must fit in a message");
const _: () = assert!(TEXT_BYTES_MAX < MESSAGE_BYTES_MAX, "the longest string must fit in a message");
const _: () = assert!(BODY_BYTES_MAX < BODIES_BYTES_MAX, "the longest body must fit");
const _: () = assert!(SEGMENTS_MAX * SEGMENT_UNITS_MAX >= MESSAGE_BYTES_MAX, "a full message must be segmentable");
const _: () = assert!(DEVICE_BODY_BYTES_MAX < DEVICE_BODIES_BYTES_MAX, "the longest body must fit");
const _: () = assert!(SHARDS_MAX <= u8::MAX as usize, "a shard's number is one byte");
const _: () = assert!(SEND_BACKLOG_BYTES_MAX < SEND_BACKLOGS_BYTES_MAX, "one slow reader alone may be owed its bound");
const _: () = assert!(MESSAGE_BYTES_MAX < SEND_BACKLOG_BYTES_MAX, "one full message must not disconnect its reader");
const _: () = assert!(HEARTBEAT_MIN.0 > TICK.0, "a heartbeat must be longer than a tick");
const _: () = assert!(HEARTBEAT_MIN.0 < SESSION_TIMEOUT_MAX.0, "some session timeout must be allowed");
