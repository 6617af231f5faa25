//! People who come, say where they are, and go: some with a goodbye, some by a broken connection, some in
//! silence; and a host who opens and shuts the guest book.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::wire::firebase::{client, frames};
use crate::wire::{Input, http, ws};

/// Time between two looks at everybody.
const TICK: Duration = Duration::from_millis(50);
/// How long a forgotten connection stays open: longer than the server waits for a sign of life.
const GHOST_MAX: Duration = Duration::from_secs(30);
const CONNECT_MAX: Duration = Duration::from_secs(5);
const NAMES: [&str; 24] = [
    "ada", "bao", "carla", "dinh", "emre", "farah", "goran", "hana", "ines", "jun", "kofi", "lena", "mina", "nadia",
    "omar", "priya", "quentin", "rosa", "sami", "tove", "uma", "vera", "wen", "yusuf",
];
const ROOMS: [&str; 4] = ["atrium", "garden", "library", "studio"];

/// Numbers that look as if nobody had chosen them.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, count: u64) -> u64 {
        self.roll() % count
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let index = self.below(from.len() as u64);
        from[usize::try_from(index).expect("it is below the length")]
    }

    fn mask(&mut self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.roll().to_le_bytes();
        [a, b, c, d]
    }

    fn seconds(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(1_000 * from + self.below(1_000 * (to - from)))
    }
}

/// One client.
struct Link {
    stream: TcpStream,
    /// The response's head, as far as it has come; `None` behind it.
    head: Option<Vec<u8>>,
    reader: ws::Reader,
    request: i64,
}

/// A person.
struct Person {
    uid: String,
    link: Option<Link>,
    /// Connections that it has forgotten in silence: the server does not know that yet.
    ghosts: Vec<(Instant, Link)>,
    /// The session before, as the server names it.
    session: Option<String>,
    /// It says nothing any more, and hears nothing.
    is_silent: bool,
    room: &'static str,
    /// When it does something next.
    next: Instant,
}

/// Plays while `goes_on`.
pub(super) fn play(address: SocketAddr, namespace: &str, people: u16, goes_on: impl Fn() -> bool) {
    let mut dice = Dice(getrandom::u64().unwrap_or(1) | 1);
    let begin = Instant::now();
    let mut crowd: Vec<Person> = (0..usize::from(people))
        .map(|index| Person {
            uid: match index / NAMES.len() {
                0 => NAMES[index].to_owned(),
                round => format!("{}-{}", NAMES[index % NAMES.len()], round + 1),
            },
            link: None,
            ghosts: Vec::new(),
            session: None,
            is_silent: false,
            room: ROOMS[index % ROOMS.len()],
            next: begin + dice.seconds(0, 6),
        })
        .collect();
    let mut host = Host { link: None, is_open: false, next: begin };
    while goes_on() {
        std::thread::sleep(TICK);
        let now = Instant::now();
        host.turn(now, address, namespace, &mut dice);
        for person in &mut crowd {
            person.turn(now, address, namespace, &mut dice);
        }
    }
}

/// Who opens and shuts the guest book.
struct Host {
    link: Option<Link>,
    is_open: bool,
    next: Instant,
}

impl Host {
    fn turn(&mut self, now: Instant, address: SocketAddr, namespace: &str, dice: &mut Dice) {
        if let Some(link) = &mut self.link
            && link.hear(dice).is_err()
        {
            self.link = None;
        }
        if now < self.next {
            return;
        }
        self.next = now + dice.seconds(6, 14);
        if self.link.is_none() {
            self.link = Link::open(address, namespace, None, dice).ok();
        }
        self.is_open = !self.is_open;
        let book = if self.is_open { r#""open""# } else { r#""shut""# };
        if let Some(link) = &mut self.link {
            let said = link
                .say(dice, |out, number| client::gauth(out, number, "owner"))
                .and_then(|()| link.say(dice, |out, number| client::put(out, number, "/host/book", book, None)));
            if said.is_err() {
                self.link = None;
            }
        }
    }
}

impl Person {
    fn turn(&mut self, now: Instant, address: SocketAddr, namespace: &str, dice: &mut Dice) {
        if let Some(link) = self.link.as_mut().filter(|_| !self.is_silent) {
            match link.hear(dice) {
                Ok(Some(session)) => self.session = Some(session),
                Ok(None) => {}
                Err(_) => self.gone(now, dice),
            }
        }
        if now < self.next {
            return;
        }
        self.ghosts.retain(|(until, _)| now < *until);
        let done = match (&self.link, self.is_silent) {
            (None, _) | (Some(_), true) => self.come(now, address, namespace, dice),
            (Some(_), false) => self.act(now, dice),
        };
        if done.is_err() {
            self.gone(now, dice);
        }
    }

    fn gone(&mut self, now: Instant, dice: &mut Dice) {
        self.link = None;
        self.is_silent = false;
        self.next = now + dice.seconds(3, 15);
    }

    /// Connects, leaves last words, and says that it is here.
    fn come(&mut self, now: Instant, address: SocketAddr, namespace: &str, dice: &mut Dice) -> io::Result<()> {
        let last = self.session.take().filter(|_| dice.below(2) == 0);
        let mut link = Link::open(address, namespace, last.as_deref(), dice)?;
        let token = token(&self.uid);
        let (place, room) = (format!("/people/{}", self.uid), format!("/rooms/{}/{}", self.room, self.uid));
        let seen = format!(r#"{{"{0}/state":"offline","{0}/lastSeen":{{".sv":"timestamp"}}}}"#, &place[1..]);
        let here = format!(r#"{{"state":"online","since":{{".sv":"timestamp"}},"room":"{}"}}"#, self.room);
        link.say(dice, |out, number| client::gauth(out, number, &token))?;
        link.say(dice, |out, number| client::on_disconnect_merge(out, number, "/", &seen))?;
        link.say(dice, |out, number| client::on_disconnect_put(out, number, &room, "null"))?;
        if dice.below(3) == 0 {
            let path = format!("/guestbook/{}", self.uid);
            link.say(dice, |out, number| client::on_disconnect_put(out, number, &path, r#""it was nice""#))?;
        }
        link.say(dice, |out, number| client::put(out, number, &place, &here, None))?;
        link.say(dice, |out, number| client::put(out, number, &room, "true", None))?;
        if let Some(ghost) = self.link.replace(link) {
            self.ghosts.push((now + GHOST_MAX, ghost));
        }
        self.is_silent = false;
        self.next = now + dice.seconds(2, 12);
        Ok(())
    }

    /// Moves to another room, or goes.
    fn act(&mut self, now: Instant, dice: &mut Dice) -> io::Result<()> {
        let way = dice.below(10);
        let Some(link) = &mut self.link else { return Ok(()) };
        match way {
            0 => {
                // A goodbye.
                let mask = dice.mask();
                let mut bytes = Vec::new();
                ws::write_close_masked(&mut bytes, ws::close_code::NORMAL, "", mask);
                link.stream.write_all(&bytes)?;
                self.session = None;
                self.gone(now, dice);
            }
            1 => {
                link.stream.shutdown(Shutdown::Both)?;
                self.gone(now, dice);
            }
            2 => {
                // A lift, a tunnel: it comes back before the server has missed it, or after.
                self.is_silent = true;
                self.next = now + dice.seconds(5, 18);
            }
            _ => {
                let room = dice.pick(&ROOMS);
                let uid = &self.uid;
                let moves = if room == self.room {
                    format!(r#"{{"people/{uid}/mood":"{}"}}"#, dice.pick(&["fine", "busy", "curious", "hungry"]))
                } else {
                    let from = std::mem::replace(&mut self.room, room);
                    format!(r#"{{"rooms/{from}/{uid}":null,"rooms/{room}/{uid}":true,"people/{uid}/room":"{room}"}}"#)
                };
                let place = format!("/rooms/{room}/{uid}");
                link.say(dice, |out, number| client::on_disconnect_put(out, number, &place, "null"))?;
                link.say(dice, |out, number| client::merge(out, number, "/", &moves))?;
                self.next = now + dice.seconds(2, 9);
            }
        }
        Ok(())
    }
}

/// An unsigned token, as servers for development believe them.
fn token(uid: &str) -> String {
    let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let claims = format!(r#"{{"sub":"{uid}","user_id":"{uid}","iat":1,"exp":9999999999}}"#);
    format!("{}.{}.", part(r#"{"alg":"none","typ":"JWT"}"#), part(&claims))
}

impl Link {
    fn open(address: SocketAddr, namespace: &str, last: Option<&str>, dice: &mut Dice) -> io::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&address, CONNECT_MAX)?;
        stream.set_nodelay(true)?;
        let ls = last.map(|last| format!("&ls={last}")).unwrap_or_default();
        let mut request = Vec::new();
        let nonce = [dice.roll().to_le_bytes(), dice.roll().to_le_bytes()].concat();
        let nonce = nonce.try_into().expect("two words are sixteen bytes");
        http::write_upgrade_request(&mut request, &address.to_string(), &format!("/.ws?v=5&ns={namespace}{ls}"), nonce);
        stream.write_all(&request)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, head: Some(Vec::new()), reader: ws::Reader::for_client(), request: 0 })
    }

    /// Sends one request.
    fn say(&mut self, dice: &mut Dice, write: impl FnOnce(&mut Vec<u8>, i64)) -> io::Result<()> {
        self.request += 1;
        let (mut message, mut bytes) = (Vec::new(), Vec::new());
        write(&mut message, self.request);
        frames::write_message_masked(&mut bytes, &message, || dice.mask());
        self.stream.write_all(&bytes)
    }

    /// Takes in what has arrived, and answers pings. The session's name, if it was told.
    fn hear(&mut self, dice: &mut Dice) -> io::Result<Option<String>> {
        let mut buffer = [0; 16 * 1024];
        let mut session = None;
        loop {
            let count = match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(session),
                Err(error) => return Err(error),
            };
            let mut bytes = buffer[..count].to_vec();
            if let Some(head) = &mut self.head {
                head.append(&mut bytes);
                let Some(end) = head.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
                bytes = head.split_off(end + 4);
                self.head = None;
            }
            let mut input = Input::new(&mut bytes);
            while let Some(frame) = self.reader.next(&mut input).map_err(|bad| io::Error::other(bad.as_str()))? {
                match frame {
                    ws::Frame::Text(text) => session = session_in(text).or(session),
                    ws::Frame::Ping(payload) => {
                        let mut pong = Vec::new();
                        ws::write_masked(&mut pong, ws::Kind::Pong, payload, dice.mask());
                        self.stream.write_all(&pong)?;
                    }
                    ws::Frame::Close { .. } => return Err(io::ErrorKind::ConnectionReset.into()),
                    ws::Frame::Pong(_) | ws::Frame::Binary(_) => {}
                }
            }
        }
    }
}

/// The name in a handshake.
fn session_in(text: &[u8]) -> Option<String> {
    let message: serde_json::Value = serde_json::from_slice(text).ok()?;
    let is_handshake = message["t"] == "c" && message["d"]["t"] == "h";
    is_handshake.then(|| message["d"]["d"]["s"].as_str().map(str::to_owned))?
}
