//! Many clients of the Firebase protocol, of Wilddog's, of [REST](crate::rest) or of [MQTT](crate::mqtt), and the
//! loop that serves them all from one thread.
//!
//! The surprising idea: a client is a few words and no buffer. Whatever arrives is taken apart at once
//! in room that all share, and what a scenario orders while it hears of it goes out right after. How
//! bytes travel is a [`Link`]'s business: over sockets, or into an engine in this very process.

use std::io;

use stillhere::json::{self, Item};
use stillhere::op::Query;
use stillhere::wire::firebase::Assembler;
use stillhere::wire::firebase::client::{self as words, Heard};
use stillhere::wire::firebase::frames::{Assembled, write_message_masked};
use stillhere::wire::{Input, ws};

use crate::clock::{self, Moment};
use crate::mqtt::Mqtt;
use crate::rest::Rest;

/// How a client goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The connection is closed without a word, as when a process exits.
    Close,
    /// The connection is reset, as when a process is killed with data unread.
    Reset,
    /// The client says goodbye: a WebSocket close frame.
    Goodbye,
}

/// What happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It is open: the client may speak.
    Opened,
    /// This many bytes have arrived, and are in the room.
    Bytes(usize),
    /// It is gone, or could not be made.
    Gone,
}

/// How bytes travel.
pub trait Link {
    /// Begins to connect a client. [`Happening::Opened`] or [`Happening::Gone`] follows.
    ///
    /// # Errors
    /// When this machine can make no further connection.
    fn open(&mut self, client: u32) -> io::Result<()>;
    /// Sends bytes to the server.
    fn send(&mut self, client: u32, bytes: &[u8]);
    /// Ends a connection. No [`Happening::Gone`] follows.
    fn close(&mut self, client: u32, ending: Ending);
    /// Reads nothing more of this client; its connection stays.
    fn freeze(&mut self, client: u32);
    /// Reads a frozen client again, where what has come meanwhile is kept.
    fn thaw(&mut self, _client: u32) {}
    /// The next thing that happened, waiting until `until` at the latest. Its bytes are put into `room`.
    ///
    /// # Errors
    /// When the kernel fails us.
    fn next(&mut self, until: Moment, room: &mut Vec<u8>) -> io::Result<Option<(u32, Happening)>>;
    /// CPU time that the server has used, in nanoseconds, if it can be known.
    fn server_cpu_ns(&self) -> Option<u64>;
    /// The server's own memory in bytes, if it can be known.
    fn server_bytes(&self) -> Option<u64>;
    /// The longest that the server has worked on one thing, in nanoseconds, if it can be known; begins
    /// to look anew.
    fn take_longest_ns(&mut self) -> Option<u64> {
        None
    }
}

/// What a scenario hears.
#[derive(Clone, Copy, Debug)]
pub enum Event<'t> {
    /// The client has its session.
    Joined,
    /// The answer to a request.
    Answer {
        /// The request's number.
        request: i64,
        /// Whether it was done.
        is_ok: bool,
        /// What was asked for, or why not.
        data: Item<'t>,
    },
    /// A place that the client listens to has changed.
    Told {
        /// The path above.
        base: &'t str,
        /// The rest of the path; may be empty.
        place: &'t str,
        /// What stands there now.
        value: Item<'t>,
    },
    /// The server has asked for a sign of life, and was given one.
    Pinged,
    /// The connection is gone, and it was not the scenario that closed it.
    Gone,
}

/// What is played on the clients.
pub trait Play {
    /// Something happened to a client.
    fn on(&mut self, at: Moment, client: u32, event: &Event<'_>, orders: &mut Orders);
    /// Time has passed. Says when to be called again at the latest.
    fn tick(&mut self, now: Moment, orders: &mut Orders) -> Moment;
    /// Whether the curtain may fall.
    fn is_over(&self) -> bool;
    /// How far it has come, in a few words.
    fn progress(&self) -> String;
}

/// A read of Wilddog's protocol, by its request: as nothing can be asked for once, it is a listen.
#[derive(Clone, Copy, Debug)]
pub enum Read {
    /// What stands there comes first, unless it is nothing.
    Begun(i64),
    /// It has come: the ok says nothing new.
    Told(i64),
}

/// What an event means for a [`Read`].
enum OfRead<'t> {
    /// Nothing.
    No,
    /// This is what was asked for.
    Answer(Event<'t>),
    /// Nothing new.
    Rest,
}

/// What clients speak.
#[derive(Debug, Default)]
pub enum Tongue {
    /// Firebase's protocol, version 5.
    #[default]
    Firebase,
    /// Wilddog's: nearly the same words, in packets of Engine.IO and Socket.IO. By client, the read that is
    /// under way.
    Wilddog(Vec<Option<Read>>),
    /// Another protocol altogether.
    Mqtt(Mqtt),
    /// Requests over HTTP.
    Rest(Box<Rest>),
}

impl Tongue {
    /// What a WebSocket is asked for.
    fn request(&self, host: &str, namespace: &str) -> String {
        let path = match self {
            Self::Firebase => format!("/.ws?v=5&ns={namespace}"),
            Self::Wilddog(_) => format!("/.ws/?v=1.0&cv=2.5.17&ns={namespace}&EIO=3&transport=websocket"),
            Self::Mqtt(_) | Self::Rest(_) => return String::new(),
        };
        format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    }

    const fn mqtt(&mut self) -> Option<&mut Mqtt> {
        match self {
            Self::Mqtt(mqtt) => Some(mqtt),
            Self::Firebase | Self::Wilddog(_) | Self::Rest(_) => None,
        }
    }

    fn rest(&mut self) -> Option<&mut Rest> {
        match self {
            Self::Rest(rest) => Some(rest),
            Self::Firebase | Self::Wilddog(_) | Self::Mqtt(_) => None,
        }
    }
}

/// What a scenario wants done. Done in order, after what it has heard.
#[derive(Debug, Default)]
pub struct Orders {
    tongue: Tongue,
    list: Vec<Order>,
    bytes: Vec<u8>,
    message: Vec<u8>,
    masks: u32,
}

#[derive(Debug)]
enum Order {
    Open(u32),
    Send { client: u32, end: usize },
    Close(u32, Ending),
    Freeze(u32),
    Thaw(u32),
}

impl Orders {
    /// Connects a client.
    pub fn open(&mut self, client: u32) {
        self.list.push(Order::Open(client));
    }

    /// Sends a request of the Firebase protocol that `write` appends, or the same in a packet of Wilddog's.
    fn say(&mut self, client: u32, write: impl FnOnce(&mut Vec<u8>)) {
        self.message.clear();
        let is_wilddog = matches!(self.tongue, Tongue::Wilddog(_));
        if is_wilddog {
            self.message.extend_from_slice(PACKET_HEAD);
        }
        write(&mut self.message);
        let masks = &mut self.masks;
        if is_wilddog {
            self.message.push(PACKET_TAIL);
            ws::write_masked(&mut self.bytes, ws::Kind::Text, &self.message, mask(masks));
        } else {
            write_message_masked(&mut self.bytes, &self.message, || mask(masks));
        }
        self.sent(client);
    }

    /// Sends a text as it is.
    fn say_bare(&mut self, client: u32, text: &[u8]) {
        let mask = mask(&mut self.masks);
        ws::write_masked(&mut self.bytes, ws::Kind::Text, text, mask);
        self.sent(client);
    }

    /// Sends what `write` appends, if clients speak MQTT. Says whether they do.
    fn say_in_mqtt(&mut self, client: u32, write: impl FnOnce(&mut Mqtt, &mut Vec<u8>)) -> bool {
        let Some(mqtt) = self.tongue.mqtt() else { return false };
        write(mqtt, &mut self.bytes);
        self.sent(client);
        true
    }

    /// Sends what `write` appends, if clients speak REST, and what it makes the porter say. Says whether they do.
    fn say_in_rest(&mut self, client: u32, write: impl FnOnce(&mut Rest, &mut Vec<u8>)) -> bool {
        let Some(rest) = self.tongue.rest() else { return false };
        let before = self.bytes.len();
        write(rest, &mut self.bytes);
        if self.bytes.len() > before {
            self.sent(client);
        }
        self.send_porter();
        true
    }

    /// Sends what the porter has to say, or has it come.
    fn send_porter(&mut self) {
        match self.tongue.rest().and_then(Rest::take_said) {
            Some((porter, Some(said))) => {
                self.bytes.extend_from_slice(&said);
                self.sent(porter);
            }
            Some((porter, None)) => self.open(porter),
            None => {}
        }
    }

    /// Asks the server to put `value`, which is JSON, at `path`.
    pub fn put(&mut self, client: u32, request: i64, path: &str, value: u32) {
        let value = itoa(value);
        if !self.say_in_mqtt(client, |mqtt, out| mqtt.put(out, client, request, path, &value))
            && !self.say_in_rest(client, |rest, out| rest.put(out, client, request, path, &value))
        {
            self.say(client, |out| words::put(out, request, path, &value, None));
        }
    }

    /// Asks the server to put `value` at `name` below `path`, as an update of `path`. MQTT knows no updates.
    pub fn merge(&mut self, client: u32, request: i64, path: &str, name: &str, value: u32) {
        if self.tongue.mqtt().is_some() {
            return self.put(client, request, &format!("{path}/{name}"), value);
        }
        let changes = format!("{{\"{name}\":{value}}}");
        if !self.say_in_rest(client, |rest, out| rest.merge(out, client, request, path, &changes)) {
            self.say(client, |out| words::merge(out, request, path, &changes));
        }
    }

    /// Leaves a last word: `value` at `path`.
    pub fn last_word(&mut self, client: u32, request: i64, path: &str, value: u32) {
        let value = itoa(value);
        if !self.say_in_mqtt(client, |mqtt, out| mqtt.greet(out, client, Some((request, path, &value))))
            && !self.say_in_rest(client, |rest, out| rest.last_word(out, client, request, path, &value))
        {
            self.say(client, |out| words::on_disconnect_put(out, request, path, &value));
        }
    }

    /// Listens to everything at `path`.
    pub fn listen(&mut self, client: u32, request: i64, path: &str) {
        if !self.say_in_mqtt(client, |mqtt, out| mqtt.listen(out, client, request, path, true))
            && !self.say_in_rest(client, |rest, out| rest.listen(out, client, Some(request), path))
        {
            self.say(client, |out| words::listen(out, request, path, &Query::ALL, None, ""));
        }
    }

    /// Reads what stands at `path`.
    pub fn get(&mut self, client: u32, request: i64, path: &str) {
        if let Tongue::Wilddog(reading) = &mut self.tongue {
            reading[client as usize] = Some(Read::Begun(request));
            self.say(client, |out| words::listen(out, request, path, &Query::ALL, None, ""));
        } else if !self.say_in_mqtt(client, |mqtt, out| mqtt.get(out, client, request, path))
            && !self.say_in_rest(client, |rest, out| rest.get(out, client, request, path))
        {
            self.say(client, |out| words::get(out, request, path, &Query::ALL));
        }
    }

    fn of_read<'t>(&mut self, client: u32, event: &Event<'t>) -> OfRead<'t> {
        let Tongue::Wilddog(reading) = &mut self.tongue else { return OfRead::No };
        let reading = &mut reading[client as usize];
        match (*reading, *event) {
            (Some(Read::Begun(request)), Event::Told { value, .. }) => {
                *reading = Some(Read::Told(request));
                OfRead::Answer(Event::Answer { request, is_ok: true, data: value })
            }
            (Some(Read::Begun(read)), Event::Answer { request, .. }) if read == request => {
                *reading = None;
                OfRead::No
            }
            (Some(Read::Told(read)), Event::Answer { request, .. }) if read == request => {
                *reading = None;
                OfRead::Rest
            }
            _ => OfRead::No,
        }
    }

    /// A sign of life that nobody has asked for.
    pub fn keep_alive(&mut self, client: u32) {
        match &self.tongue {
            Tongue::Firebase => self.say_bare(client, KEEP_ALIVE),
            Tongue::Wilddog(_) => self.say_bare(client, PACKET_PING),
            Tongue::Mqtt(_) => drop(self.say_in_mqtt(client, |mqtt, out| mqtt.ping(out, client))),
            // Whoever has a stream says nothing; the others have no session.
            Tongue::Rest(_) => {}
        }
    }

    /// Ends a client.
    pub fn close(&mut self, client: u32, ending: Ending) {
        if ending == Ending::Goodbye && !self.say_in_mqtt(client, |mqtt, out| mqtt.goodbye(out, client)) {
            let mask = mask(&mut self.masks);
            ws::write_close_masked(&mut self.bytes, ws::close_code::NORMAL, "", mask);
            self.sent(client);
        }
        self.list.push(Order::Close(client, ending));
    }

    /// The client falls silent, with its connection open.
    pub fn freeze(&mut self, client: u32) {
        self.list.push(Order::Freeze(client));
    }

    /// A frozen client goes on.
    pub fn thaw(&mut self, client: u32) {
        self.list.push(Order::Thaw(client));
    }

    fn sent(&mut self, client: u32) {
        let end = self.bytes.len();
        match self.list.last_mut() {
            // Messages of one client in a row travel together.
            Some(Order::Send { client: last, end: last_end }) if *last == client => *last_end = end,
            _ => self.list.push(Order::Send { client, end }),
        }
    }
}

fn itoa(value: u32) -> String {
    value.to_string()
}

/// Fresh for each frame; nothing here needs it to be unpredictable, there is no browser to be guarded.
fn mask(masks: &mut u32) -> [u8; 4] {
    *masks = masks.wrapping_mul(0x9e37_79b1).wrapping_add(0x7f4a_7c15);
    masks.to_le_bytes()
}

/// A change's number, if a value is one.
#[must_use]
pub fn number(value: Item<'_>) -> Option<u32> {
    value.as_int().and_then(|number| u32::try_from(number).ok())
}

/// One client's half of the protocol.
#[derive(Debug)]
struct Peer {
    stage: Stage,
    reader: ws::Reader,
    assembler: Assembler,
}

#[derive(Debug)]
enum Stage {
    Absent,
    Connecting,
    /// What has arrived of the answer to the upgrade.
    Upgrading(Vec<u8>),
    Open,
}

impl Peer {
    fn absent() -> Self {
        Self { stage: Stage::Absent, reader: ws::Reader::for_client(), assembler: Assembler::default() }
    }
}

/// Why a server was not understood.
#[derive(Debug)]
struct Nonsense(String);

/// All clients of a run.
pub struct Swarm<L> {
    /// How they reach the server.
    pub link: L,
    peers: Vec<Peer>,
    reader: json::Reader,
    request: Vec<u8>,
    room: Vec<u8>,
    orders: Orders,
    /// The first complaints about the server or this machine.
    pub complaints: Vec<String>,
    /// Bytes that came, and bytes that went.
    pub traffic: (u64, u64),
}

/// What a client of the Firebase protocol says to be believed.
const KEEP_ALIVE: &[u8] = b"0";
/// What one of Wilddog's does.
const PACKET_PING: &[u8] = b"2";
/// Around each request and each message of Wilddog's.
const PACKET_HEAD: &[u8] = br#"42["wd","#;
const PACKET_TAIL: u8 = b']';
/// Complaints that are kept.
const COMPLAINTS_MAX: usize = 10;
/// How often the progress is shown, and a scenario looks at the time, at the least.
const TICK: std::time::Duration = std::time::Duration::from_millis(100);

impl<L: Link> Swarm<L> {
    /// `count` clients, none of them connected, who will ask `host` for the database `namespace`. MQTT has
    /// neither.
    pub fn new(link: L, count: usize, host: &str, namespace: &str, tongue: Tongue) -> Self {
        let request = tongue.request(host, namespace);
        Self {
            link,
            peers: (0..count).map(|_| Peer::absent()).collect(),
            reader: json::Reader::default(),
            request: request.into_bytes(),
            room: Vec::with_capacity(256 * 1024),
            orders: Orders { tongue, masks: 1, ..Orders::default() },
            complaints: Vec::new(),
            traffic: (0, 0),
        }
    }

    /// Plays until it is over; `false` if that was not before `until`.
    ///
    /// # Errors
    /// When this machine cannot go on.
    pub fn play(
        &mut self,
        play: &mut impl Play,
        until: Moment,
        show: &mut impl FnMut(Moment, &str),
    ) -> io::Result<bool> {
        let mut due = Moment::START;
        let mut show_at = Moment::START;
        loop {
            let now = clock::now();
            if now >= due {
                due = play.tick(now, &mut self.orders).min(now + TICK);
                self.carry_out(play);
            }
            if now >= show_at {
                show(now, &play.progress());
                show_at = now + TICK;
            }
            if play.is_over() {
                return Ok(true);
            }
            if now >= until {
                return Ok(false);
            }
            let Some((client, happening)) = self.link.next(due.min(until), &mut self.room)? else { continue };
            let at = clock::now();
            self.hear(at, client, happening, play);
            self.carry_out(play);
        }
    }

    fn hear(&mut self, at: Moment, client: u32, happening: Happening, play: &mut impl Play) {
        let peer = &mut self.peers[client as usize];
        match happening {
            Happening::Opened if let Some(mqtt) = self.orders.tongue.mqtt() => {
                peer.stage = Stage::Open;
                mqtt.opened(client);
                play.on(at, client, &Event::Joined, &mut self.orders);
                // Unless the scenario has ordered something: nobody waits for ever for a greeting.
                self.orders.say_in_mqtt(client, |mqtt, out| mqtt.greet(out, client, None));
            }
            Happening::Opened if let Some(rest) = self.orders.tongue.rest() => {
                peer.stage = Stage::Open;
                if rest.opened(client) {
                    self.orders.send_porter();
                } else {
                    play.on(at, client, &Event::Joined, &mut self.orders);
                }
            }
            Happening::Opened => {
                peer.stage = Stage::Upgrading(Vec::new());
                self.traffic.1 += self.request.len() as u64;
                self.link.send(client, &self.request);
            }
            // Of a connection that we have given up ourselves, the end is no news.
            Happening::Gone if matches!(peer.stage, Stage::Absent) => {}
            Happening::Gone => {
                *peer = Peer::absent();
                self.lose(at, client, play);
            }
            Happening::Bytes(count) => {
                self.traffic.0 += count as u64;
                let mut room = std::mem::take(&mut self.room);
                let heard = self.read(at, client, &mut room[..count], play);
                self.room = room;
                if let Err(Nonsense(what)) = heard {
                    self.complain(what);
                    self.link.close(client, Ending::Close);
                    self.peers[client as usize] = Peer::absent();
                    self.lose(at, client, play);
                }
            }
        }
    }

    /// Tells that a client is gone; or, of the porter, that those are who wait for it.
    fn lose(&mut self, at: Moment, client: u32, play: &mut impl Play) {
        let Some(waiting) = self.orders.tongue.rest().and_then(|rest| rest.gone(client)) else {
            return play.on(at, client, &Event::Gone, &mut self.orders);
        };
        for client in waiting {
            if !matches!(self.peers[client as usize].stage, Stage::Absent) {
                self.link.close(client, Ending::Close);
                self.peers[client as usize] = Peer::absent();
                play.on(at, client, &Event::Gone, &mut self.orders);
            }
        }
    }

    fn read(&mut self, at: Moment, client: u32, bytes: &mut [u8], play: &mut impl Play) -> Result<(), Nonsense> {
        if let Some(mqtt) = self.orders.tongue.mqtt() {
            // The scenario may order something at each, which needs all that is known of the client.
            let heard = mqtt.read(client, bytes).map_err(Nonsense)?;
            heard.iter().for_each(|heard| play.on(at, client, &heard.as_event(), &mut self.orders));
            return Ok(());
        }
        if let Some(rest) = self.orders.tongue.rest() {
            let heard = rest.read(client, bytes).map_err(Nonsense)?;
            self.orders.send_porter();
            heard.iter().for_each(|(client, heard)| play.on(at, *client, &heard.as_event(), &mut self.orders));
            return Ok(());
        }
        let Self { peers, reader, orders, .. } = self;
        let peer = &mut peers[client as usize];
        let mut rest;
        let bytes = match &mut peer.stage {
            Stage::Absent | Stage::Connecting => return Ok(()),
            Stage::Open => bytes,
            Stage::Upgrading(head) => {
                head.extend_from_slice(bytes);
                let Some(end) = head.windows(4).position(|end| end == b"\r\n\r\n") else { return Ok(()) };
                if !head.starts_with(b"HTTP/1.1 101") {
                    return Err(Nonsense(format!("no upgrade: {}", String::from_utf8_lossy(head))));
                }
                rest = head.split_off(end + 4);
                peer.stage = Stage::Open;
                &mut rest[..]
            }
        };
        let mut input = Input::new(bytes);
        while let Some(frame) = peer.reader.next(&mut input).map_err(|bad| Nonsense(bad.as_str().to_owned()))? {
            match frame {
                ws::Frame::Text(text) if matches!(orders.tongue, Tongue::Wilddog(_)) => {
                    understand_packet(text, reader, |event| match orders.of_read(client, event) {
                        OfRead::No => play.on(at, client, event, orders),
                        OfRead::Answer(event) => play.on(at, client, &event, orders),
                        OfRead::Rest => {}
                    })?;
                }
                ws::Frame::Text(text) => match peer.assembler.push(text) {
                    Ok(Assembled::Nothing) => {}
                    Ok(Assembled::Frame(message)) => understand(message, reader, |event| {
                        play.on(at, client, event, orders);
                    })?,
                    Ok(Assembled::Joined(mut message)) => understand(&mut message, reader, |event| {
                        play.on(at, client, event, orders);
                    })?,
                    Ok(Assembled::TooLong { .. }) | Err(_) => return Err(Nonsense("a message too long".to_owned())),
                },
                ws::Frame::Ping(payload) => {
                    let mask = mask(&mut orders.masks);
                    ws::write_masked(&mut orders.bytes, ws::Kind::Pong, payload, mask);
                    orders.sent(client);
                    play.on(at, client, &Event::Pinged, orders);
                }
                ws::Frame::Pong(_) => {}
                ws::Frame::Close { code, reason } => {
                    return Err(Nonsense(format!("the server closed the connection: {code} {reason}")));
                }
                ws::Frame::Binary(_) => return Err(Nonsense("a binary frame".to_owned())),
            }
        }
        Ok(())
    }

    /// Does what the scenario wants, and what it wants because of that.
    fn carry_out(&mut self, play: &mut impl Play) {
        while !self.orders.list.is_empty() {
            let list = std::mem::take(&mut self.orders.list);
            let bytes = std::mem::take(&mut self.orders.bytes);
            let mut from = 0;
            for order in &list {
                match *order {
                    Order::Open(client) => {
                        self.peers[client as usize] = Peer { stage: Stage::Connecting, ..Peer::absent() };
                        if let Err(error) = self.link.open(client) {
                            self.complain(format!("client {client} cannot connect: {error}"));
                            self.peers[client as usize] = Peer::absent();
                            self.lose(clock::now(), client, play);
                        }
                    }
                    Order::Send { client, end } => {
                        if matches!(self.peers[client as usize].stage, Stage::Open) {
                            self.link.send(client, &bytes[from..end]);
                            self.traffic.1 += (end - from) as u64;
                        }
                        from = end;
                    }
                    Order::Close(client, ending) => {
                        if !matches!(self.peers[client as usize].stage, Stage::Absent) {
                            self.link.close(client, ending);
                            self.peers[client as usize] = Peer::absent();
                        }
                    }
                    Order::Freeze(client) => self.link.freeze(client),
                    Order::Thaw(client) => self.link.thaw(client),
                }
            }
            self.keep_room(list, bytes);
        }
    }

    /// Keeps the room of what was carried out for what is to be.
    fn keep_room(&mut self, mut list: Vec<Order>, mut bytes: Vec<u8>) {
        if self.orders.list.is_empty() {
            list.clear();
            bytes.clear();
            (self.orders.list, self.orders.bytes) = (list, bytes);
        }
    }

    fn complain(&mut self, what: String) {
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(what);
        }
    }
}

/// Takes one message apart.
fn understand(message: &mut [u8], reader: &mut json::Reader, mut tell: impl FnMut(&Event<'_>)) -> Result<(), Nonsense> {
    if let Some(request) = plain_ok(message) {
        tell(&Event::Answer { request, is_ok: true, data: Item::Null });
        return Ok(());
    }
    let understood = reader.read(message, |item| {
        let Some(heard) = words::hear(item) else { return Err("a message without what it must have".to_owned()) };
        match heard {
            Heard::Handshake { .. } => tell(&Event::Joined),
            Heard::Reply { request, status, data } => tell(&Event::Answer { request, is_ok: status == "ok", data }),
            Heard::Set { path, value, .. } => tell(&Event::Told { base: path, place: "", value }),
            Heard::Merge { path, changes, .. } => {
                for (place, value) in changes {
                    tell(&Event::Told { base: path, place, value });
                }
            }
            Heard::Shutdown(why) => return Err(format!("the server sends us away: {why}")),
            Heard::Revoked { path, .. } => return Err(format!("a listen was revoked: /{path}")),
            Heard::CredentialRevoked { .. } | Heard::Pong | Heard::Reset(_) | Heard::Other => {}
        }
        Ok(())
    });
    understood.map_err(|_| Nonsense("a message that is not JSON".to_owned()))?.map_err(Nonsense)
}

/// Takes one packet of Wilddog's apart. Paths there begin with a slash.
fn understand_packet(
    packet: &mut [u8],
    reader: &mut json::Reader,
    mut tell: impl FnMut(&Event<'_>),
) -> Result<(), Nonsense> {
    let message = packet.strip_prefix(PACKET_HEAD).and_then(|rest| rest.strip_suffix(&[PACKET_TAIL]));
    let Some(bytes) = message.map(<[u8]>::len) else {
        // Greetings and signs of life.
        return match packet.first() {
            Some(b'0' | b'3' | b'6') => Ok(()),
            _ if packet == b"40" => Ok(()),
            _ => Err(Nonsense(format!("a packet that says {}", String::from_utf8_lossy(packet)))),
        };
    };
    understand(&mut packet[PACKET_HEAD.len()..][..bytes], reader, |event| match *event {
        Event::Told { base, place, value } => {
            tell(&Event::Told { base: base.strip_prefix('/').unwrap_or(base), place, value });
        }
        _ => tell(event),
    })
}

/// The request's number, if a message is the plain ok that nearly all answers are: recognized by its
/// bytes, at a tenth of the cost of reading it.
fn plain_ok(message: &[u8]) -> Option<i64> {
    let rest = message.strip_prefix(br#"{"t":"d","d":{"r":"#)?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, tail) = rest.split_at(digits);
    let is_plain = matches!(tail, br#","b":{"s":"ok","d":""}}}"# | br#","b":{"s":"ok","d":{}}}}"#);
    if !is_plain || digits == 0 || digits > 18 {
        return None;
    }
    Some(number.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_ok_is_read_as_any_answer_is() {
        #[track_caller]
        fn check(message: &str, expected: Option<i64>) {
            assert_eq!(plain_ok(message.as_bytes()), expected, "{message}");
            if let Some(number) = expected {
                let heard = json::Reader::default().read(&mut message.as_bytes().to_vec(), |item| {
                    matches!(words::hear(item), Some(Heard::Reply { request, status: "ok", .. }) if request == number)
                });
                assert_eq!(heard, Ok(true), "{message}");
            }
        }
        check(r#"{"t":"d","d":{"r":7,"b":{"s":"ok","d":""}}}"#, Some(7));
        check(r#"{"t":"d","d":{"r":1234,"b":{"s":"ok","d":{}}}}"#, Some(1_234));
        check(r#"{"t":"d","d":{"r":7,"b":{"s":"ok","d":5}}}"#, None);
        check(r#"{"t":"d","d":{"r":7,"b":{"s":"permission_denied","d":""}}}"#, None);
        check(r#"{"t":"d","d":{"r":,"b":{"s":"ok","d":""}}}"#, None);
    }

    #[test]
    fn packets_of_wilddog_are_read() {
        #[track_caller]
        fn check(packet: &str, expected: &[&str]) {
            let mut told = Vec::new();
            let understood =
                understand_packet(&mut packet.as_bytes().to_vec(), &mut json::Reader::default(), |event| {
                    told.push(match event {
                        Event::Told { base, value, .. } => format!("{base} {:?}", number(*value)),
                        Event::Answer { request, is_ok, .. } => format!("{request} {is_ok}"),
                        other => format!("{other:?}"),
                    });
                });
            told.extend(understood.err().map(|Nonsense(why)| why));
            assert_eq!(told, expected, "{packet}");
        }
        check("40", &[]);
        check("3", &[]);
        check(r#"0{"sid":"x"}"#, &[]);
        check(r#"42["wd",{"t":"c","d":{"t":"h","d":{"ts":1,"v":"1.0","h":"a","s":"b"}}}]"#, &["Joined"]);
        check(r#"42["wd",{"t":"d","d":{"r":3,"b":{"s":"ok","d":{}}}}]"#, &["3 true"]);
        check(r#"42["wd",{"t":"d","d":{"a":"d","b":{"p":"/a/b","d":5}}}]"#, &["a/b Some(5)"]);
        check("41", &["a packet that says 41"]);
    }

    #[test]
    fn a_read_of_wilddog_is_answered_once() {
        let mut orders = Orders { tongue: Tongue::Wilddog(vec![None]), ..Orders::default() };
        let heard = |orders: &mut Orders, event: &Event<'_>| match orders.of_read(0, event) {
            OfRead::No => "no",
            OfRead::Answer(Event::Answer { request: 7, data: Item::Int(5), .. }) => "answer",
            OfRead::Answer(_) => "wrong",
            OfRead::Rest => "rest",
        };
        let told = Event::Told { base: "a", place: "", value: Item::Int(5) };
        let ok = |request| Event::Answer { request, is_ok: true, data: Item::Null };
        assert_eq!(heard(&mut orders, &told), "no", "of a listen");
        orders.get(0, 7, "a");
        assert_eq!(heard(&mut orders, &ok(6)), "no");
        assert_eq!(heard(&mut orders, &told), "answer");
        assert_eq!(heard(&mut orders, &ok(7)), "rest");
        assert_eq!(heard(&mut orders, &ok(7)), "no");
        orders.get(0, 7, "a");
        assert_eq!(heard(&mut orders, &ok(7)), "no", "nothing stands there: the ok is the answer");
    }

    #[test]
    fn merges_are_told_place_by_place() {
        let mut told = Vec::new();
        let mut message = br#"{"t":"d","d":{"a":"m","b":{"p":"a/b","d":{"c":1,"d/e":2}}}}"#.to_vec();
        let understood = understand(&mut message, &mut json::Reader::default(), |event| {
            if let Event::Told { base, place, value } = event {
                told.push(format!("{base} {place} {:?}", number(*value)));
            }
        });
        assert!(understood.is_ok());
        assert_eq!(told, ["a/b c Some(1)", "a/b d/e Some(2)"]);
    }
}
