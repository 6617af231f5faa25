//! Sessions over Engine.IO: polls, a WebSocket, or first the one and then the other
//! (Wilddog wire specification, sections 3 and 4).
//!
//! The surprising idea: the WebSocket that a session goes on over may be on another core than the
//! session. Then that core takes frames apart and sends packets home, and frames come back whole: the
//! session does not move, and nobody else can tell.
//!
//! Costs: a session with a WebSocket on its own core is as cheap as any other; one whose WebSocket is
//! elsewhere costs a message for each packet that comes and one a turn for all that go.

use smallvec::SmallVec;

use super::conn::{Http, Link, Next};
use super::home::Channel;
use super::visit::{Caller, Errand, Manner, Request, Response};
use super::{Effect, Engine, Message, Notice, Output};
use crate::base::limits::{MUTE_MAX, PING_TIMEOUT_MIN, SEND_BACKLOG_BYTES_MAX};
use crate::base::{ConnId, Instant, Now, SessionId, SessionRef};
use crate::op::{End, Namespace, Word};
use crate::wire::engineio::{self as packet, BadPacket, Encoding, Kind, Open};
use crate::wire::firebase::{self, Incoming};
use crate::wire::http::{self, Body, Head};
use crate::wire::wilddog::{self, Hello};
use crate::wire::{Input as Bytes, ws};

/// A request that brings packets is answered like this.
const TAKEN: &str = "ok";

/// How a session over Engine.IO is reached.
#[derive(Debug)]
pub(super) struct EngineIo {
    /// The WebSocket that carries everything, once there is one.
    socket: Option<Caller>,
    /// A WebSocket that may become that.
    candidate: Option<Caller>,
    /// The request that waits for packets.
    held: Option<Caller>,
    /// Requests that have brought packets, and are answered when the client may bring more.
    bringers: SmallVec<[Caller; 1]>,
    /// How packets stand in answers to requests.
    encoding: Encoding,
    /// Packets that wait for a request, or for the end of the turn.
    outbox: Vec<Vec<u8>>,
    outbox_bytes: usize,
    /// By when the client must have asked for something: one SDK leaves connections behind that only
    /// ping.
    mute_until: Option<Instant>,
    /// The connection that brought something last: for logs.
    last: ConnId,
}

/// A WebSocket that carries packets.
#[derive(Debug)]
pub(super) struct PacketSocket {
    reader: ws::Reader,
    session: SessionRef,
    caller: Caller,
}

/// What the home of a session wants of its WebSocket elsewhere.
#[derive(Debug, PartialEq, Eq)]
pub enum Order {
    /// Send these frames.
    Send(Vec<u8>),
    /// Stop reading, or go on.
    Read {
        /// Whether to go on.
        is_wanted: bool,
    },
    /// Say goodbye and close.
    Close(End),
}

/// A request to `/.ws/`. Owns what it needs: the head goes with the bytes it came in.
pub(super) struct Call {
    manner: Manner,
    what: What,
}

enum What {
    Begin { namespace: String, host: String, encoding: Encoding },
    Connect { namespace: String, host: String, upgrade: http::Upgrade },
    Visit { session: SessionId, errand: Errand, upgrade: Option<http::Upgrade> },
    Bring { session: SessionId, body: Body, encoding: Encoding, is_awaited: bool },
    Preflight { allowed: String },
    BadUpgrade(http::BadUpgrade),
    UnknownSession,
    Refuse { status: u16, error: &'static str },
}

impl Call {
    /// Whether a request to `/.ws` is of this protocol.
    pub(super) fn is_one(head: &Head<'_>) -> bool {
        head.query.raw("EIO").is_some() || head.method == "OPTIONS"
    }

    pub(super) fn read(head: &Head<'_>) -> Self {
        let what = What::read(head).unwrap_or_else(|what| what);
        let keeps_alive = head.keeps_alive() && !matches!(what, What::Refuse { .. });
        Self { manner: Manner { keeps_alive, origin: head.headers.text("origin").map(Box::from) }, what }
    }
}

impl What {
    /// What a request wants; what is wrong with it comes as an error.
    fn read(head: &Head<'_>) -> Result<Self, Self> {
        if head.method == "OPTIONS" {
            let allowed = head.headers.text("access-control-request-headers").unwrap_or("content-type").to_owned();
            return Ok(Self::Preflight { allowed });
        }
        let refuse = |status, error| Self::Refuse { status, error };
        let body = head.body().map_err(|bad| refuse(bad.status(), bad.as_str()))?;
        let session = match head.query.raw("sid") {
            None => None,
            Some(sid) => Some(SessionId::parse(sid).ok_or(Self::UnknownSession)?),
        };
        if head.query.raw("EIO") != Some("3") || head.query.raw("j").is_some() {
            return Err(refuse(400, "only Engine.IO 3 without JSONP is spoken here"));
        }
        let namespace = || {
            let name = firebase::namespace(head.query, head.host());
            name.map(std::borrow::Cow::into_owned).map_err(|_| refuse(400, "the application is not named"))
        };
        let encoding = if head.query.raw("b64") == Some("1") { Encoding::Text } else { Encoding::Binary };
        match (head.method, head.query.raw("transport"), session) {
            ("POST", Some("polling"), Some(session)) => {
                let is_binary = head.headers.text("content-type") == Some("application/octet-stream");
                let encoding = if is_binary { Encoding::Binary } else { Encoding::Text };
                Ok(Self::Bring { session, body, encoding, is_awaited: head.expects_continue() })
            }
            _ if body != Body::Bytes(0) => Err(refuse(400, "only packets are brought")),
            ("GET", Some("polling"), None) => {
                Ok(Self::Begin { namespace: namespace()?, host: wilddog::host(head), encoding })
            }
            ("GET", Some("polling"), Some(session)) => {
                Ok(Self::Visit { session, errand: Errand::Fetch, upgrade: None })
            }
            ("GET", Some("websocket"), session) => {
                let upgrade = http::Upgrade::read(head).map_err(Self::BadUpgrade)?;
                Ok(match session {
                    Some(session) => Self::Visit { session, errand: Errand::Upgrade, upgrade: Some(upgrade) },
                    None => Self::Connect { namespace: namespace()?, host: wilddog::host(head), upgrade },
                })
            }
            ("GET" | "POST", ..) => Err(refuse(400, "an unknown transport")),
            _ => Err(refuse(405, "only GET, POST and OPTIONS are taken here")),
        }
    }
}

impl EngineIo {
    fn new(now: Now, socket: Option<Caller>, encoding: Encoding, last: ConnId) -> Self {
        Self {
            socket,
            candidate: None,
            held: None,
            bringers: SmallVec::new(),
            encoding,
            outbox: Vec::new(),
            outbox_bytes: 0,
            mute_until: Some(now.instant + MUTE_MAX),
            last,
        }
    }

    /// Until when it may say nothing; `None` once it has.
    pub(super) const fn mute_until(&self) -> Option<Instant> {
        self.mute_until
    }

    pub(super) const fn last(&self) -> ConnId {
        self.last
    }

    /// Whether the session cannot go on without that request.
    pub(super) fn holds(&self, caller: Caller) -> bool {
        self.held == Some(caller) || self.bringers.contains(&caller)
    }

    /// The WebSocket, if it is on the core of the session and everything before has been sent.
    pub(super) fn direct_socket(&self, here: crate::base::ShardId) -> Option<ConnId> {
        let socket = self.socket.filter(|socket| socket.shard == here)?;
        self.outbox.is_empty().then_some(socket.conn)
    }

    fn post(&mut self, packet: Vec<u8>) {
        self.outbox_bytes += packet.len();
        self.outbox.push(packet);
    }

    fn take_outbox(&mut self) -> Vec<Vec<u8>> {
        self.outbox_bytes = 0;
        std::mem::take(&mut self.outbox)
    }

    /// An answer with all that waits, or with nothing in a packet of its own.
    fn next_answer(&mut self, last: Option<Kind>) -> Response {
        let mut packets = self.take_outbox();
        if let Some(kind) = last.or_else(|| packets.is_empty().then_some(Kind::Noop)) {
            let mut packet = Vec::new();
            packet::write(&mut packet, kind, b"");
            packets.push(packet);
        }
        body(self.encoding, &packets)
    }

    /// All that waits, in frames.
    fn next_frames(&mut self) -> Vec<u8> {
        let mut frames = Vec::with_capacity(self.outbox_bytes + 8 * self.outbox.len());
        for packet in self.take_outbox() {
            ws::write(&mut frames, ws::Kind::Text, &packet);
        }
        frames
    }
}

impl Engine {
    /// A request to `/.ws/` has arrived.
    pub(super) fn packets_called(
        &mut self,
        now: Now,
        conn: ConnId,
        http: Box<Http>,
        call: Call,
        output: &mut Output,
    ) -> Next {
        let Call { manner, what } = call;
        let response = match what {
            What::Begin { namespace, host, encoding } => self.begin_polling(now, conn, &namespace, &host, encoding),
            What::Connect { namespace, host, upgrade } => {
                return self.connect_packets(now, conn, &namespace, &host, upgrade, output);
            }
            What::Visit { session, errand, upgrade } if self.has_home(&session) => {
                self.visit(conn, http, Request { manner, session, errand, upgrade }, output);
                return Next::GoOn;
            }
            What::Bring { session, body, encoding, is_awaited } if self.has_home(&session) => {
                let purpose = super::gather::Purpose::Bring { session, encoding };
                self.gather_body(now, conn, http, manner, body, is_awaited, purpose, output);
                return Next::GoOn;
            }
            // What it brings is not waited for, so the connection cannot go on.
            What::Bring { .. } => {
                let manner = Manner { keeps_alive: false, ..manner };
                self.respond(now, conn, http, &manner, &unknown_session(), output);
                return Next::Stop;
            }
            What::Visit { .. } | What::UnknownSession => unknown_session(),
            What::Preflight { allowed } => preflight(&allowed),
            What::BadUpgrade(bad) => {
                self.send_bytes(conn, output, |out| bad.write(out));
                self.close(conn, output);
                return Next::Stop;
            }
            What::Refuse { status, error } => refusal(status, error),
        };
        self.respond(now, conn, http, &manner, &response, output);
        Next::GoOn
    }

    /// What a client hears first; `None` for the session where it cannot have one.
    fn greet(
        &mut self,
        now: Now,
        channel: EngineIo,
        namespace: &str,
        host: &str,
    ) -> Result<(Option<SessionRef>, Vec<Vec<u8>>), Response> {
        let may_upgrade = channel.socket.is_none();
        let is_known = !self.config.is_restricted || self.config.namespaces.contains_key(namespace);
        let settings = self.config.namespaces.get(namespace).unwrap_or(&self.config.settings).clone();
        let (session, name) = if is_known {
            let namespace: Namespace = namespace.into();
            let channel = Channel::EngineIo(Box::new(channel));
            let opened = self.open_session(now, channel, namespace);
            let (session, id) = opened.map_err(|_| refusal(503, self.why_none_begins()))?;
            (Some(session), id.to_string())
        } else {
            (None, "0".to_owned())
        };
        let mut packets = vec![Vec::new(), wilddog::CONNECTED.to_vec(), Vec::new()];
        let ping_timeout_ms = settings.session_timeout.max(PING_TIMEOUT_MIN).0;
        let open = Open { session: &name, may_upgrade, ping_interval_ms: settings.heartbeat.0, ping_timeout_ms };
        packet::write_open(&mut packets[0], &open);
        wilddog::hello(&mut packets[2], &Hello { time: now.wall, host, session: &name });
        if session.is_none() {
            // After this the client does not try again.
            packets.push(Vec::new());
            wilddog::shutdown(&mut packets[3], "The application does not exist");
        }
        Ok((session, packets))
    }

    fn begin_polling(&mut self, now: Now, conn: ConnId, namespace: &str, host: &str, encoding: Encoding) -> Response {
        match self.greet(now, EngineIo::new(now, None, encoding, conn), namespace, host) {
            Ok((_, packets)) => body(encoding, &packets),
            Err(response) => response,
        }
    }

    /// A client begins with a WebSocket.
    fn connect_packets(
        &mut self,
        now: Now,
        conn: ConnId,
        namespace: &str,
        host: &str,
        upgrade: http::Upgrade,
        output: &mut Output,
    ) -> Next {
        let caller = self.next_caller(conn);
        let channel = EngineIo::new(now, Some(caller), Encoding::Text, conn);
        let (session, packets) = match self.greet(now, channel, namespace, host) {
            Ok(greeting) => greeting,
            Err(Response { status, .. }) => {
                self.refuse(conn, status, "no session can begin now", output);
                return Next::Stop;
            }
        };
        self.send_bytes(conn, output, |out| {
            upgrade.write(out);
            packets.iter().for_each(|packet| ws::write(out, ws::Kind::Text, packet));
        });
        let Some(session) = session else {
            self.send_bytes(conn, output, |out| ws::write_close(out, ws::close_code::POLICY, "unknown application"));
            self.close(conn, output);
            return Next::Stop;
        };
        self.open_packet_socket(caller, session);
        Next::GoOn
    }

    /// A connection becomes a WebSocket of a session, wherever that lives.
    pub(super) fn open_packet_socket(&mut self, caller: Caller, session: SessionRef) {
        let socket = PacketSocket { reader: ws::Reader::for_server(), session, caller };
        *self.link(caller.conn) = Link::Packets(Box::new(socket));
    }

    // At the home.

    fn engineio(&mut self, session: SessionRef) -> Option<&mut EngineIo> {
        match &mut self.sessions.get_mut(session)?.channel {
            Channel::EngineIo(channel) => Some(channel),
            _ => None,
        }
    }

    /// A request waits for packets.
    pub(super) fn packets_fetched(&mut self, now: Now, session: SessionRef, caller: Caller, output: &mut Output) {
        let Some(channel) = self.engineio(session) else { return };
        channel.last = caller.conn;
        let older = channel.held.replace(caller);
        let response = older.map(|older| (older, body(channel.encoding, &[b"6".to_vec()])));
        if let Some((older, response)) = response {
            self.answer_caller(now, older, response, output);
        }
        self.stir(session);
    }

    /// A request has brought packets.
    pub(super) fn packets_brought(
        &mut self,
        now: Now,
        session: SessionRef,
        caller: Caller,
        mut body: Vec<u8>,
        encoding: Encoding,
        output: &mut Output,
    ) {
        let Some(channel) = self.engineio(session) else { return };
        channel.last = caller.conn;
        channel.bringers.push(caller);
        self.stir(session);
        let read = packet::read_body(&mut body, encoding, |packet| self.packet(now, session, None, packet, output));
        if read == Err(BadPacket) {
            self.violation(now, session, "a body without packets", output);
        }
    }

    /// A connection wants to become the session's WebSocket.
    pub(super) fn packets_upgraded(&mut self, now: Now, session: SessionRef, caller: Caller, output: &mut Output) {
        let Some(channel) = self.engineio(session) else { return };
        if channel.socket.is_some() {
            return self.answer_caller(now, caller, refusal(400, "this session has its WebSocket"), output);
        }
        let older = channel.candidate.replace(caller);
        if let Some(older) = older {
            self.order(older, Order::Close(End::Superseded), output);
        }
        if caller.shard == self.config.shard {
            self.switch_visitor(now, caller, session, output);
        } else {
            self.send(caller.shard, Message::Switch { to: caller, session }, output);
        }
    }

    /// Something has arrived at the session's WebSocket elsewhere.
    pub(super) fn packet_came(
        &mut self,
        now: Now,
        session: SessionRef,
        from: Caller,
        text: Option<Vec<u8>>,
        output: &mut Output,
    ) {
        self.heard(now, session);
        if let Some(mut text) = text {
            self.packet(now, session, Some(from), &mut text, output);
        }
    }

    /// One packet of a client, from a WebSocket or from a request.
    fn packet(&mut self, now: Now, session: SessionRef, from: Option<Caller>, text: &mut [u8], output: &mut Output) {
        let Some(channel) = self.engineio(session) else { return };
        let is_candidate = from.is_some() && from == channel.candidate;
        if from.is_some() && !is_candidate && from != channel.socket {
            return;
        }
        let bytes = text.len();
        match packet::read(text) {
            Ok((Kind::Ping, data)) if is_candidate => self.probed(now, session, data, output),
            Ok((Kind::Upgrade, _)) if is_candidate => self.adopt(now, session, output),
            Ok(_) if is_candidate => {}
            Ok((Kind::Ping, data)) => {
                let mut pong = Vec::new();
                packet::write(&mut pong, Kind::Pong, data);
                self.post_packet(session, pong, output);
            }
            Ok((Kind::Message, data)) => {
                let incoming = wilddog::decode(data, &mut self.reader);
                if let Incoming::Request { .. } | Incoming::Refused { .. } = &incoming
                    && let Some(channel) = self.engineio(session)
                {
                    channel.mute_until = None;
                }
                self.act(now, session, incoming, bytes, output);
                self.pause_if_hasty(session, output);
            }
            Ok((Kind::Close, _)) => self.end(now, session, End::Closed, output),
            Ok((Kind::Open | Kind::Pong | Kind::Upgrade | Kind::Noop, _)) => {}
            Err(BadPacket) => self.violation(now, session, "a packet of an unknown kind", output),
        }
    }

    /// A WebSocket has asked whether it gets through. The client goes on over it only when its request
    /// for packets has come back.
    fn probed(&mut self, now: Now, session: SessionRef, data: &[u8], output: &mut Output) {
        let Some(channel) = self.engineio(session) else { return };
        let mut frame = Vec::new();
        let mut pong = Vec::new();
        packet::write(&mut pong, Kind::Pong, data);
        ws::write(&mut frame, ws::Kind::Text, &pong);
        let candidate = channel.candidate.expect("it is the candidate that has asked");
        self.order(candidate, Order::Send(frame), output);
        self.release_fetch(now, session, output);
    }

    /// The client goes on over its WebSocket.
    fn adopt(&mut self, now: Now, session: SessionRef, output: &mut Output) {
        let Some(channel) = self.engineio(session) else { return };
        let Some(socket) = channel.candidate.take() else { return };
        channel.socket = Some(socket);
        let frames = channel.next_frames();
        self.order(socket, Order::Send(frames), output);
        self.release_fetch(now, session, output);
        if let Some(state) = self.sessions.get(session)
            && state.is_held_back()
        {
            self.order(socket, Order::Read { is_wanted: false }, output);
        }
    }

    /// Lets a waiting request go.
    fn release_fetch(&mut self, now: Now, session: SessionRef, output: &mut Output) {
        let Some(channel) = self.engineio(session) else { return };
        if let Some(held) = channel.held.take() {
            let response = channel.next_answer(None);
            self.answer_caller(now, held, response, output);
        }
    }

    /// Sends a packet to a session's client: at once if there is a WebSocket here, else with all others
    /// of this turn.
    pub(super) fn post_packet(&mut self, session: SessionRef, packet: Vec<u8>, output: &mut Output) {
        let here = self.config.shard;
        let Some(channel) = self.engineio(session) else { return };
        if let Some(conn) = channel.direct_socket(here) {
            self.send_bytes(conn, output, |out| ws::write(out, ws::Kind::Text, &packet));
            return;
        }
        channel.post(packet);
        self.stir(session);
    }

    /// Tells a session's client something.
    pub(super) fn say_packet(&mut self, session: SessionRef, word: &Word<'_>, output: &mut Output) {
        let mut packet = Vec::new();
        wilddog::word(&mut packet, word);
        self.post_packet(session, packet, output);
    }

    /// Sends what waits, and answers whoever waits.
    pub(super) fn deliver_packets(&mut self, now: Now, session: SessionRef, output: &mut Output) {
        let Some(state) = self.sessions.get_mut(session) else { return };
        let is_held_back = state.is_held_back();
        let Channel::EngineIo(channel) = &mut state.channel else { return };
        let bringers = if is_held_back { SmallVec::new() } else { std::mem::take(&mut channel.bringers) };
        let is_released = channel.candidate.is_some() || channel.socket.is_some();
        let frames =
            channel.socket.filter(|_| !channel.outbox.is_empty()).map(|socket| (socket, channel.next_frames()));
        let answer = match channel.held {
            Some(held) if is_released || !channel.outbox.is_empty() => {
                channel.held = None;
                Some((held, channel.next_answer(None)))
            }
            _ => None,
        };
        let (is_too_slow, conn) = (channel.outbox_bytes > SEND_BACKLOG_BYTES_MAX, channel.last);
        for bringer in bringers {
            self.answer_caller(now, bringer, taken(), output);
        }
        if let Some((socket, frames)) = frames {
            self.order(socket, Order::Send(frames), output);
        }
        if let Some((held, response)) = answer {
            self.answer_caller(now, held, response, output);
        }
        if is_too_slow {
            output.effects.push(Effect::Notice(Notice::Violation { conn, what: "it reads too slowly" }));
            self.end(now, session, End::Killed, output);
        }
    }

    /// Asks the client for a sign of life. Nothing that Engine.IO knows does that over a WebSocket;
    /// WebSocket itself does.
    pub(super) fn ask_for_packets(&mut self, now: Now, session: SessionRef, output: &mut Output) {
        let Some(channel) = self.engineio(session) else { return };
        if let Some(socket) = channel.socket {
            let mut ping = Vec::new();
            ws::write(&mut ping, ws::Kind::Ping, b"");
            self.order(socket, Order::Send(ping), output);
        } else {
            self.release_fetch(now, session, output);
        }
    }

    /// Stops reading what the client says, or goes on. (Requests that bring packets stay unanswered
    /// instead.)
    pub(super) fn set_reading_packets(&mut self, session: SessionRef, is_wanted: bool, output: &mut Output) {
        let Some(channel) = self.engineio(session) else { return };
        if let Some(socket) = channel.socket {
            self.order(socket, Order::Read { is_wanted }, output);
        }
        self.stir(session);
    }

    /// Sends the client of a session that is over away.
    pub(super) fn dismiss_packets(&mut self, now: Now, mut channel: EngineIo, end: End, output: &mut Output) {
        for bringer in std::mem::take(&mut channel.bringers) {
            self.answer_caller(now, bringer, taken(), output);
        }
        if let Some(held) = channel.held.take() {
            let response = channel.next_answer(Some(Kind::Close));
            self.answer_caller(now, held, response, output);
        }
        if let Some(socket) = channel.socket {
            let frames = channel.next_frames();
            self.order(socket, Order::Send(frames), output);
        }
        for socket in channel.socket.into_iter().chain(channel.candidate) {
            self.order(socket, Order::Close(end), output);
        }
    }

    /// A WebSocket of the session is gone.
    pub(super) fn packet_socket_gone(
        &mut self,
        now: Now,
        session: SessionRef,
        from: Caller,
        end: End,
        output: &mut Output,
    ) {
        let Some(channel) = self.engineio(session) else { return };
        if channel.socket == Some(from) {
            self.end(now, session, end, output);
        } else if channel.candidate == Some(from) {
            // The client stays with its requests.
            channel.candidate = None;
        }
    }

    // At the WebSocket.

    fn order(&mut self, to: Caller, order: Order, output: &mut Output) {
        if to.shard == self.config.shard {
            self.perform_order(to, order, output);
        } else {
            self.send(to.shard, Message::Order { to, order }, output);
        }
    }

    /// Does what the home of a session wants of its WebSocket here, if that is still there.
    pub(super) fn perform_order(&mut self, to: Caller, order: Order, output: &mut Output) {
        let conn = to.conn;
        // A busy link is one whose frames are being read: it asked for this.
        let is_it = match self.conns.get(conn.0 as usize).map(|conn| &conn.link) {
            Some(Link::Packets(socket)) => socket.caller == to,
            Some(Link::Busy) => true,
            _ => false,
        };
        if !is_it {
            return;
        }
        match order {
            Order::Send(frames) if frames.is_empty() => {}
            Order::Send(frames) => self.send_bytes(conn, output, |out| out.extend_from_slice(&frames)),
            Order::Read { is_wanted } => output.effects.push(Effect::Read { conn, is_wanted }),
            Order::Close(end) => self.send_away(conn, end, output),
        }
    }

    /// Tells the home of a session what has arrived here.
    fn send_packet_home(&mut self, now: Now, socket: &PacketSocket, text: Option<&mut [u8]>, output: &mut Output) {
        let PacketSocket { session, caller, .. } = *socket;
        if session.home != self.config.shard {
            let text = text.map(|text| text.to_vec());
            return self.send(session.home, Message::Packet { session, from: caller, text }, output);
        }
        match text {
            Some(text) => self.packet(now, session, Some(caller), text, output),
            None => self.heard(now, session),
        }
    }

    /// A WebSocket that is here is gone.
    pub(super) fn packet_socket_hung_up(&mut self, now: Now, socket: &PacketSocket, end: End, output: &mut Output) {
        let PacketSocket { session, caller, .. } = *socket;
        if session.home == self.config.shard {
            self.packet_socket_gone(now, session, caller, end, output);
        } else if !self.drain.is_silent {
            self.send(session.home, Message::SocketGone { session, from: caller, end }, output);
        }
    }

    pub(super) fn read_packet_socket(
        &mut self,
        now: Now,
        conn: ConnId,
        mut socket: Box<PacketSocket>,
        bytes: &mut Bytes<'_>,
        output: &mut Output,
    ) -> Next {
        self.send_packet_home(now, &socket, None, output);
        loop {
            let frame = match socket.reader.next(bytes) {
                Ok(None) => break,
                Ok(Some(frame)) => frame,
                Err(violation) => {
                    return self.break_off_packets(now, &socket, violation.close_code(), violation.as_str(), output);
                }
            };
            match frame {
                ws::Frame::Text(text) => {
                    // The reader lends the text, so the rest of the socket has to be named anew.
                    let rest = PacketSocket { reader: ws::Reader::for_server(), ..*socket };
                    self.send_packet_home(now, &rest, Some(text), output);
                }
                ws::Frame::Ping(payload) => {
                    let payload = payload.to_vec();
                    self.send_bytes(conn, output, |out| ws::write(out, ws::Kind::Pong, &payload));
                }
                ws::Frame::Pong(_) => {}
                ws::Frame::Binary(_) => {
                    let code = ws::close_code::UNSUPPORTED;
                    return self.break_off_packets(now, &socket, code, "a binary frame", output);
                }
                ws::Frame::Close { .. } => {
                    // The last words go before the handshake of the close is finished: the client may
                    // open its next connection the moment it has our answer.
                    self.packet_socket_hung_up(now, &socket, End::Closed, output);
                    self.send_away(conn, End::Closed, output);
                    return Next::Stop;
                }
            }
            if !matches!(self.link(conn), Link::Busy) {
                return Next::Stop;
            }
        }
        *self.link(conn) = Link::Packets(socket);
        Next::GoOn
    }

    /// The client broke WebSocket's rules: its session is over.
    fn break_off_packets(
        &mut self,
        now: Now,
        socket: &PacketSocket,
        code: u16,
        what: &'static str,
        output: &mut Output,
    ) -> Next {
        let conn = socket.caller.conn;
        output.effects.push(Effect::Notice(Notice::Violation { conn, what }));
        self.send_bytes(conn, output, |out| ws::write_close(out, code, what));
        self.close(conn, output);
        self.packet_socket_hung_up(now, socket, End::Killed, output);
        Next::Stop
    }
}

fn body(encoding: Encoding, packets: &[Vec<u8>]) -> Response {
    let mut body = Vec::new();
    packets.iter().for_each(|one| packet::write_to_body(&mut body, encoding, one));
    Response::new(200, &[("Content-Type", encoding.content_type()), ("Cache-Control", "no-store")], body)
}

fn taken() -> Response {
    Response::new(200, &[("Content-Type", "text/html"), ("Cache-Control", "no-store")], TAKEN)
}

/// The answer for a session that nobody knows: its client connects anew.
pub(super) fn unknown_session() -> Response {
    let body = r#"{"code":1,"message":"Session ID unknown"}"#;
    Response::new(400, &[("Content-Type", "application/json; charset=utf-8")], body)
}

fn refusal(status: u16, error: &str) -> Response {
    Response::new(status, &[("Content-Type", "text/plain; charset=utf-8")], error)
}

/// The answer to a browser that asks whether a page may ask.
pub(super) fn preflight(allowed: &str) -> Response {
    let headers = [
        ("Access-Control-Allow-Methods", "GET, POST, OPTIONS"),
        ("Access-Control-Allow-Headers", allowed),
        ("Access-Control-Max-Age", "86400"),
    ];
    Response::new(200, &headers, "")
}

#[cfg(test)]
mod tests;
