//! Values as the SDK writes and reads them: a part of CBOR (RFC 8949), and its mistakes
//! (Wilddog wire specification for devices, section 9).
//!
//! Bytes have no counterpart in the tree: they are kept as a text, a `data:` URL, and become the same
//! bytes again for whoever speaks CBOR.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::base::limits::DEPTH_MAX;
use crate::data::{Children, Key, Leaf, Node, Number};

/// How bytes begin where they are kept as a text.
const BYTES_PREFIX: &str = "data:application/octet-stream;base64,";

/// Why a payload is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadValue {
    /// It is no CBOR, or of a kind that has no place in the tree.
    Malformed,
    /// A member's name is no key.
    Key,
    /// More than [`DEPTH_MAX`] levels.
    Depth,
}

/// The value is longer than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// Reads the value at the start of `bytes`, which is to stand `depth` levels below the root. What
/// follows it is ignored; nothing at all is nothing.
///
/// # Errors
/// Why it is none.
pub fn read(bytes: &[u8], depth: usize) -> Result<Node, BadValue> {
    if bytes.is_empty() {
        return Ok(Node::Empty);
    }
    Reader { rest: bytes }.item(depth)
}

struct Reader<'b> {
    rest: &'b [u8],
}

/// The argument of an item's head.
#[derive(Clone, Copy)]
enum Argument {
    Number(u64),
    Indefinite,
}

impl<'b> Reader<'b> {
    fn item(&mut self, depth: usize) -> Result<Node, BadValue> {
        let (&first, rest) = self.rest.split_first().ok_or(BadValue::Malformed)?;
        self.rest = rest;
        let (major, info) = (first >> 5, first & 31);
        if major == 7 {
            return self.simple(info);
        }
        let argument = self.argument(info)?;
        match (major, argument) {
            (0, Argument::Number(number)) => Ok(integer(i128::from(number))),
            (1, Argument::Number(number)) => Ok(integer(-1 - i128::from(number))),
            (2, Argument::Number(length)) => {
                let mut text = String::from(BYTES_PREFIX);
                STANDARD.encode_string(self.take(length)?, &mut text);
                Ok(Node::text(&text))
            }
            (3, Argument::Number(length)) => self.text(length).map(Node::text),
            (4, argument) => self.array(argument, depth),
            (5, argument) => self.map(argument, depth),
            // A tag says more about what follows than there is room for.
            (6, Argument::Number(_)) => check_depth(depth).and_then(|()| self.item(depth + 1)),
            _ => Err(BadValue::Malformed),
        }
    }

    fn argument(&mut self, info: u8) -> Result<Argument, BadValue> {
        let length: usize = match info {
            0..24 => return Ok(Argument::Number(info.into())),
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            31 => return Ok(Argument::Indefinite),
            _ => return Err(BadValue::Malformed),
        };
        let bytes = self.take(length as u64)?;
        Ok(Argument::Number(bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))))
    }

    fn simple(&mut self, info: u8) -> Result<Node, BadValue> {
        let double = match info {
            20 => return Ok(Node::leaf(Leaf::Bool(false))),
            21 => return Ok(Node::leaf(Leaf::Bool(true))),
            22 | 23 => return Ok(Node::Empty),
            25 => half(u16::from_be_bytes(self.chunk()?)),
            26 => f32::from_be_bytes(self.chunk()?).into(),
            27 => f64::from_be_bytes(self.chunk()?),
            _ => return Err(BadValue::Malformed),
        };
        if double.is_finite() {
            Ok(Node::leaf(Leaf::Number(Number::from_double(double))))
        } else {
            Err(BadValue::Malformed)
        }
    }

    /// "Accept major type 2 keys and read them as UTF-8."
    fn key(&mut self) -> Result<Key, BadValue> {
        let (&first, rest) = self.rest.split_first().ok_or(BadValue::Malformed)?;
        self.rest = rest;
        match (first >> 5, self.argument(first & 31)?) {
            (2 | 3, Argument::Number(length)) => Key::parse(self.text(length)?).map_err(|_| BadValue::Key),
            _ => Err(BadValue::Malformed),
        }
    }

    fn map(&mut self, argument: Argument, depth: usize) -> Result<Node, BadValue> {
        check_depth(depth)?;
        let mut children = Children::new();
        let mut left = match argument {
            Argument::Number(count) => Some(count),
            Argument::Indefinite => None,
        };
        loop {
            match &mut left {
                Some(0) => break,
                Some(left) => *left -= 1,
                None if self.take_break() => break,
                None => {}
            }
            let key = self.key()?;
            // "An empty object as a child is encoded as a key with no value. On `break` where a value is
            // due, take null."
            let is_cut_off = left.is_none() && self.rest.first() == Some(&0xff);
            let value = if is_cut_off { Node::Empty } else { self.item(depth + 1)? };
            children.change(&key, |place| *place = value);
        }
        Ok(Node::branch(children))
    }

    fn array(&mut self, argument: Argument, depth: usize) -> Result<Node, BadValue> {
        check_depth(depth)?;
        let mut children = Children::new();
        let mut index = 0;
        loop {
            match argument {
                Argument::Number(count) if index as u64 >= count => break,
                Argument::Indefinite if self.take_break() => break,
                Argument::Number(_) | Argument::Indefinite => {}
            }
            let value = self.item(depth + 1)?;
            children.insert(Key::from_index(index), value);
            index += 1;
        }
        Ok(Node::branch(children))
    }

    fn take_break(&mut self) -> bool {
        let rest = self.rest.strip_prefix(&[0xff]);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn text(&mut self, length: u64) -> Result<&'b str, BadValue> {
        std::str::from_utf8(self.take(length)?).map_err(|_| BadValue::Malformed)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], BadValue> {
        let (chunk, rest) = self.rest.split_first_chunk().ok_or(BadValue::Malformed)?;
        self.rest = rest;
        Ok(*chunk)
    }

    fn take(&mut self, length: u64) -> Result<&'b [u8], BadValue> {
        let length = usize::try_from(length).map_err(|_| BadValue::Malformed)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(BadValue::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }
}

const fn check_depth(depth: usize) -> Result<(), BadValue> {
    if depth < DEPTH_MAX { Ok(()) } else { Err(BadValue::Depth) }
}

fn integer(value: i128) -> Node {
    let number = match i64::try_from(value) {
        Ok(value) => Number::Int(value),
        #[expect(clippy::cast_precision_loss, reason = "as every client sees it")]
        Err(_) => Number::from_double(value as f64),
    };
    Node::leaf(Leaf::Number(number))
}

/// RFC 8949 appendix D.
fn half(bits: u16) -> f64 {
    let (exponent, mantissa) = (bits >> 10 & 31, f64::from(bits & 0x3ff));
    let value = match exponent {
        0 => mantissa * 2.0_f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (mantissa + 1024.0) * 2.0_f64.powi(i32::from(exponent) - 25),
    };
    if bits >> 15 == 0 { value } else { -value }
}

/// Appends a value so that every version of the SDK can read it: definite maps with keys that are
/// texts, integers of 32 bits, else doubles. Priorities have no place in it.
///
/// # Errors
/// It is longer than `bytes_max`; `out` then ends somewhere in it.
pub fn write(out: &mut Vec<u8>, node: &Node, bytes_max: usize) -> Result<(), TooLong> {
    let end = out.len() + bytes_max;
    write_node(out, node, end)
}

/// The same for a device, where it is all that there is to read: "a negative float at top level is
/// rejected", so that one is a text.
///
/// # Errors
/// As [`write()`].
pub fn write_top(out: &mut Vec<u8>, node: &Node, bytes_max: usize) -> Result<(), TooLong> {
    match node.as_leaf() {
        Some(Leaf::Number(number)) if is_float(*number) && number.as_double() < 0.0 => {
            let mut text = ryu_js::Buffer::new();
            let text = text.format(number.as_double());
            write(out, &Node::text(text), bytes_max)
        }
        _ => write(out, node, bytes_max),
    }
}

fn write_node(out: &mut Vec<u8>, node: &Node, end: usize) -> Result<(), TooLong> {
    match node.as_leaf() {
        None if node.is_empty() => out.push(0xf6),
        None => {
            let children = node.children();
            head(out, 5, children.len() as u64);
            for (key, child) in children.iter() {
                head(out, 3, key.as_str().len() as u64);
                out.extend_from_slice(key.as_str().as_bytes());
                write_node(out, child, end)?;
            }
        }
        Some(Leaf::Bool(value)) => out.push(if *value { 0xf5 } else { 0xf4 }),
        Some(Leaf::Number(number)) => write_number(out, *number),
        Some(Leaf::Text(text)) => write_text(out, text),
    }
    if out.len() <= end { Ok(()) } else { Err(TooLong) }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    let bytes = text.strip_prefix(BYTES_PREFIX).and_then(|digits| STANDARD.decode(digits).ok());
    let (major, bytes) = match &bytes {
        Some(bytes) => (2, bytes.as_slice()),
        None => (3, text.as_bytes()),
    };
    head(out, major, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Whether it is written as a double: whatever does not fit into 32 bits, since longer integers make
/// the SDK crash.
fn is_float(number: Number) -> bool {
    !matches!(number, Number::Int(value) if i32::try_from(value).is_ok())
}

fn write_number(out: &mut Vec<u8>, number: Number) {
    match number {
        Number::Int(value) if !is_float(number) => {
            let major = u8::from(value < 0);
            head(out, major, if value < 0 { (-1 - value).unsigned_abs() } else { value.unsigned_abs() });
        }
        _ => {
            out.push(0xfb);
            out.extend_from_slice(&number.as_double().to_be_bytes());
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "each arm's range fits")]
fn head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    match argument {
        0..24 => out.push(major | argument as u8),
        24..0x100 => out.extend_from_slice(&[major | 24, argument as u8]),
        0x100..0x1_0000 => {
            out.push(major | 25);
            out.extend_from_slice(&(argument as u16).to_be_bytes());
        }
        0x1_0000..0x1_0000_0000 => {
            out.push(major | 26);
            out.extend_from_slice(&(argument as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&argument.to_be_bytes());
        }
    }
}
