//! The same sessions in MQTT 3.1.1, so that brokers can be measured beside us: a last word is the will, a
//! write a retained message, a listen a subscription.
//!
//! The surprising idea: a client says CONNECT not when it is connected but when it is told its last word,
//! because MQTT takes the will there and nowhere else. What else a scenario orders brings the CONNECT
//! with it; nobody waits for the answer.
//!
//! Writes and wills have quality of service 1 (the broker acknowledges them), subscriptions 0. MQTT
//! numbers what is under way with 16 bits; a request's own number is the nearest that fits.

use stillhere::json::Item;

use crate::client::Event;

/// Kinds of packets, with the flags that we use (MQTT 3.1.1, section 2.2).
mod kind {
    pub const CONNECT: u8 = 0x10;
    pub const CONNACK: u8 = 0x20;
    pub const PUBLISH: u8 = 0x30;
    /// Quality of service 1, retained.
    pub const PUBLISH_KEPT: u8 = 0x33;
    pub const PUBACK: u8 = 0x40;
    pub const SUBSCRIBE: u8 = 0x82;
    pub const SUBACK: u8 = 0x90;
    pub const PINGREQ: u8 = 0xc0;
    pub const PINGRESP: u8 = 0xd0;
    pub const DISCONNECT: u8 = 0xe0;
}

/// A clean session; and, where there is one, a will of quality of service 1 that is retained.
const CLEAN: u8 = 0x02;
const WILL: u8 = 0x2c;
/// Packets have numbers from 1 to this.
const NUMBERS: i64 = 65_535;
/// A packet that is longer is none that we asked for.
const PACKET_BYTES_MAX: usize = 1 << 20;

/// What a broker says.
#[derive(Debug)]
pub enum Heard {
    /// See [`Event::Answer`].
    Answer {
        /// The request's own number.
        request: i64,
        /// Whether it was done.
        is_ok: bool,
        /// What was asked for, if it was anything, and a number.
        value: Option<i64>,
    },
    /// See [`Event::Told`].
    Told {
        /// Where.
        topic: Box<str>,
        /// What stands there now, if it is a number.
        value: Option<i64>,
    },
    /// See [`Event::Pinged`].
    Pinged,
}

impl Heard {
    /// As a scenario hears it.
    #[must_use]
    pub fn as_event(&self) -> Event<'_> {
        let item = |value: &Option<i64>| value.map_or(Item::Null, Item::Int);
        match self {
            Self::Answer { request, is_ok, value } => {
                Event::Answer { request: *request, is_ok: *is_ok, data: item(value) }
            }
            Self::Told { topic, value } => Event::Told { base: topic, place: "", value: item(value) },
            Self::Pinged => Event::Pinged,
        }
    }
}

/// What is known of one client.
#[derive(Clone, Debug, Default)]
struct State {
    is_greeted: bool,
    /// The request that its CONNACK answers.
    will: Option<i64>,
    /// The last request that was sent.
    last: i64,
    /// The subscription whose first message answers a request.
    reading: Option<i64>,
    /// The beginning of a packet.
    held: Vec<u8>,
}

/// All clients' half of the protocol.
#[derive(Debug)]
pub struct Mqtt {
    states: Vec<State>,
    keep_alive_s: u16,
}

impl Mqtt {
    /// For `count` clients, of whom the broker believes those with a will for one and a half times `keep_alive_s`; 0, and
    /// those who only watch: for ever.
    #[must_use]
    pub fn new(count: usize, keep_alive_s: u16) -> Self {
        Self { states: vec![State::default(); count], keep_alive_s }
    }

    /// A client has a new connection.
    pub fn opened(&mut self, client: u32) {
        self.states[client as usize] = State::default();
    }

    /// Says CONNECT, unless it was said.
    pub fn greet(&mut self, out: &mut Vec<u8>, client: u32, will: Option<(i64, &str, &str)>) {
        let state = &mut self.states[client as usize];
        if std::mem::replace(&mut state.is_greeted, true) {
            assert!(will.is_none(), "the command line lets one will through, and it is ordered first");
            return;
        }
        state.will = will.map(|(request, ..)| request);
        packet(out, kind::CONNECT, |out| {
            text(out, "MQTT");
            out.push(4);
            out.push(CLEAN | if will.is_some() { WILL } else { 0 });
            let keep_alive_s = if will.is_some() { self.keep_alive_s } else { 0 };
            out.extend_from_slice(&keep_alive_s.to_be_bytes());
            text(out, &format!("load-{}-{client}", std::process::id()));
            if let Some((_, path, value)) = will {
                text(out, path);
                text(out, value);
            }
        });
    }

    /// Asks the broker to keep `value` at `path`.
    pub fn put(&mut self, out: &mut Vec<u8>, client: u32, request: i64, path: &str, value: &str) {
        self.greet(out, client, None);
        let number = self.number(client, request);
        packet(out, kind::PUBLISH_KEPT, |out| {
            text(out, path);
            out.extend_from_slice(&number.to_be_bytes());
            out.extend_from_slice(value.as_bytes());
        });
    }

    /// Listens to everything at `path`, or below it too.
    pub fn listen(&mut self, out: &mut Vec<u8>, client: u32, request: i64, path: &str, is_deep: bool) {
        self.greet(out, client, None);
        let number = self.number(client, request);
        packet(out, kind::SUBSCRIBE, |out| {
            out.extend_from_slice(&number.to_be_bytes());
            let filter = if is_deep { format!("{path}/#") } else { path.to_owned() };
            text(out, &filter);
            out.push(0);
        });
    }

    /// Reads what stands at `path`: the first message of a subscription.
    pub fn get(&mut self, out: &mut Vec<u8>, client: u32, request: i64, path: &str) {
        self.states[client as usize].reading = Some(request);
        // Its own number is larger than any other's and would hide those.
        let next = self.states[client as usize].last + 1;
        self.listen(out, client, next, path, false);
    }

    /// A sign of life.
    pub fn ping(&mut self, out: &mut Vec<u8>, client: u32) {
        self.greet(out, client, None);
        packet(out, kind::PINGREQ, |_| {});
    }

    /// The goodbye after which a broker forgets the will.
    pub fn goodbye(&mut self, out: &mut Vec<u8>, client: u32) {
        self.greet(out, client, None);
        packet(out, kind::DISCONNECT, |_| {});
    }

    fn number(&mut self, client: u32, request: i64) -> u16 {
        self.states[client as usize].last = request;
        u16::try_from(request.rem_euclid(NUMBERS) + 1).expect("it is below 65,536")
    }

    /// Reads what a client has received.
    ///
    /// # Errors
    /// In words, when it is none of what we know.
    pub fn read(&mut self, client: u32, bytes: &[u8]) -> Result<Vec<Heard>, String> {
        let mut all = Vec::new();
        let state = &mut self.states[client as usize];
        let mut held = std::mem::take(&mut state.held);
        let mut rest = bytes;
        if !held.is_empty() {
            held.extend_from_slice(bytes);
            rest = &held;
        }
        while let Some((kind, body, after)) = next_packet(rest)? {
            all.extend(state.understand(kind, body)?);
            rest = after;
        }
        state.held = rest.to_vec();
        Ok(all)
    }
}

impl State {
    fn understand(&mut self, kind: u8, body: &[u8]) -> Result<Option<Heard>, String> {
        let ok = |request| Heard::Answer { request, is_ok: true, value: None };
        Ok(match (kind & 0xf0, body) {
            (kind::CONNACK, [_, 0]) => self.will.take().map(ok),
            (kind::CONNACK, [_, why]) => return Err(format!("the broker refuses the connection: {why}")),
            (kind::PUBACK, [high, low]) => Some(ok(self.request(u16::from_be_bytes([*high, *low])))),
            (kind::SUBACK, [high, low, granted]) => {
                let request = self.request(u16::from_be_bytes([*high, *low]));
                let is_ok = *granted <= 2;
                // What a read has asked for comes with its first message.
                (self.reading.is_none() || !is_ok).then_some(Heard::Answer { request, is_ok, value: None })
            }
            (kind::PUBLISH, [high, low, body @ ..]) => {
                let bytes = usize::from(u16::from_be_bytes([*high, *low]));
                let (topic, payload) = body.split_at_checked(bytes).ok_or("a message without its topic")?;
                let topic = std::str::from_utf8(topic).map_err(|_| "a topic that is no text")?.into();
                let value = std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok());
                Some(match self.reading.take() {
                    Some(request) => Heard::Answer { request, is_ok: true, value },
                    None => Heard::Told { topic, value },
                })
            }
            (kind::PINGRESP, []) => None,
            _ => return Err(format!("a packet of kind {kind:#04x} and {} bytes", body.len())),
        })
    }

    /// The request that a packet's number stands for: of those that were sent, the last that fits.
    fn request(&self, number: u16) -> i64 {
        let behind = (self.last + 1 - i64::from(number)).rem_euclid(NUMBERS);
        self.last - behind
    }
}

/// Appends a packet whose body `write` appends.
fn packet(out: &mut Vec<u8>, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    let start = out.len();
    write(out);
    let mut left = out.len() - start;
    let mut at = start;
    loop {
        let digit = u8::try_from(left % 128).expect("it is below 128");
        left /= 128;
        out.insert(at, if left > 0 { digit | 0x80 } else { digit });
        at += 1;
        if left == 0 {
            return;
        }
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&u16::try_from(text.len()).expect("ours are short").to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// A packet's kind and body, and what follows it.
type Packet<'a> = (u8, &'a [u8], &'a [u8]);

/// The first packet; `None` if it is not all there.
fn next_packet(bytes: &[u8]) -> Result<Option<Packet<'_>>, String> {
    let Some((kind, mut rest)) = bytes.split_first() else { return Ok(None) };
    let mut left = 0;
    for shift in [0, 7, 14, 21] {
        let Some((digit, after)) = rest.split_first() else { return Ok(None) };
        rest = after;
        left |= usize::from(digit & 0x7f) << shift;
        if digit & 0x80 == 0 {
            if left > PACKET_BYTES_MAX {
                return Err(format!("a packet of {left} bytes"));
            }
            return Ok(rest.split_at_checked(left).map(|(body, after)| (*kind, body, after)));
        }
    }
    Err("a packet without a length".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::number;

    fn said(order: impl FnOnce(&mut Mqtt, &mut Vec<u8>)) -> Vec<u8> {
        let (mut mqtt, mut out) = (Mqtt::new(1, 60), Vec::new());
        mqtt.states[0].is_greeted = true;
        order(&mut mqtt, &mut out);
        out
    }

    #[test]
    fn packets_are_as_the_standard_has_them() {
        let mut out = Vec::new();
        Mqtt::new(1, 60).greet(&mut out, 0, Some((7, "a/b", "0")));
        let id = format!("load-{}-0", std::process::id());
        let mut expected = vec![0x10, 20 + u8::try_from(id.len()).unwrap()];
        expected.extend_from_slice(b"\0\x04MQTT\x04\x2e\0\x3c\0");
        expected.push(u8::try_from(id.len()).unwrap());
        expected.extend_from_slice(id.as_bytes());
        expected.extend_from_slice(b"\0\x03a/b\0\x010");
        assert_eq!(out, expected);
        out.clear();
        Mqtt::new(1, 60).greet(&mut out, 0, None);
        assert_eq!(out[8..12], *b"\x04\x02\0\0", "who has no will says nothing, and is not to be missed");
        assert_eq!(said(|mqtt, out| mqtt.put(out, 0, 4, "a/b", "12")), b"\x33\x09\0\x03a/b\0\x0512");
        assert_eq!(said(|mqtt, out| mqtt.listen(out, 0, 1, "a", true)), b"\x82\x08\0\x02\0\x03a/#\0");
        assert_eq!(said(|mqtt, out| mqtt.ping(out, 0)), [0xc0, 0]);
        assert_eq!(said(|mqtt, out| mqtt.goodbye(out, 0)), [0xe0, 0]);
        let long = "x".repeat(200);
        assert_eq!(said(|mqtt, out| mqtt.put(out, 0, 1, "a", &long))[..3], [0x33, 0xcd, 0x01]);
    }

    #[test]
    fn whatever_orders_first_brings_the_greeting() {
        let (mut mqtt, mut out) = (Mqtt::new(1, 0), Vec::new());
        mqtt.put(&mut out, 0, 1, "a", "1");
        assert_eq!(out[0], kind::CONNECT);
        out.clear();
        mqtt.put(&mut out, 0, 2, "a", "1");
        assert_eq!(out[0], kind::PUBLISH_KEPT);
        mqtt.opened(0);
        out.clear();
        mqtt.ping(&mut out, 0);
        assert_eq!(out[0], kind::CONNECT);
    }

    /// What is heard, the bytes coming one by one.
    fn heard(mqtt: &mut Mqtt, bytes: &[u8]) -> Vec<String> {
        let read = bytes.iter().map(|byte| mqtt.read(0, &[*byte]));
        let told = read.flat_map(|read| match read {
            Err(why) => vec![why],
            Ok(all) => all.iter().map(told).collect(),
        });
        told.collect()
    }

    fn told(heard: &Heard) -> String {
        match heard.as_event() {
            Event::Answer { request, is_ok, data } => format!("{request} {is_ok} {:?}", number(data)),
            Event::Told { base, value, .. } => format!("{base} {:?}", number(value)),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn answers_find_their_requests() {
        let (mut mqtt, mut out) = (Mqtt::new(1, 0), Vec::new());
        mqtt.greet(&mut out, 0, Some((1, "a", "0")));
        assert_eq!(heard(&mut mqtt, b"\x20\x02\0\0"), ["1 true None"]);
        for request in [65_533, 65_534, 65_535] {
            mqtt.put(&mut out, 0, request, "a", "1");
        }
        assert_eq!(heard(&mut mqtt, b"\x40\x02\xff\xfe"), ["65533 true None"]);
        assert_eq!(heard(&mut mqtt, b"\x40\x02\xff\xff\x40\x02\0\x01"), ["65534 true None", "65535 true None"]);
        assert_eq!(heard(&mut mqtt, b"\x30\x06\0\x03a/b7"), ["a/b Some(7)"]);
        assert_eq!(heard(&mut mqtt, b"\x30\x05\0\x03a/b"), ["a/b None"]);
        mqtt.get(&mut out, 0, 1_000_000_000, "a");
        assert_eq!(heard(&mut mqtt, b"\x90\x03\0\x02\0\x31\x04\0\x01a9"), ["1000000000 true Some(9)"]);
    }

    #[test]
    fn nonsense_has_a_name() {
        let mut mqtt = Mqtt::new(1, 0);
        assert_eq!(heard(&mut mqtt, b"\x20\x02\0\x05"), ["the broker refuses the connection: 5"]);
        assert_eq!(heard(&mut Mqtt::new(1, 0), b"\x30\xff\xff\xff\x7f"), ["a packet of 268435455 bytes"]);
        assert_eq!(heard(&mut Mqtt::new(1, 0), b"\x30\xff\xff\xff\xff"), ["a packet without a length"]);
        assert_eq!(heard(&mut Mqtt::new(1, 0), b"\x30\x02\0\x05"), ["a message without its topic"]);
        assert_eq!(heard(&mut Mqtt::new(1, 0), b"\xd0\x01x"), ["a packet of kind 0xd0 and 1 bytes"]);
    }
}
