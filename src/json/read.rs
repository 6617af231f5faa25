//! Text to [`Item`]s.

use simd_json::{Buffers, Node, StaticNode, Tape};

/// The text was not one JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotJson;

/// Reads JSON again and again with the same buffers.
#[derive(Default)]
pub struct Reader {
    buffers: Buffers,
    /// Empty between two readings; kept for its allocation.
    tape: Vec<Node<'static>>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

impl Reader {
    /// Reads one JSON value and hands it to `use_it`. The text is destroyed.
    ///
    /// Half of a surrogate pair, which JavaScript's strings may hold and write as an escape, becomes U+FFFD.
    /// Numbers with a fraction or an exponent, and integers outside of 64 bits, become doubles.
    /// A double that is not finite is refused, like everything else that is not JSON.
    pub fn read<R>(&mut self, text: &mut [u8], use_it: impl FnOnce(Item<'_>) -> R) -> Result<R, NotJson> {
        mend_halves(text);
        let mut tape = Tape(std::mem::take(&mut self.tape)).reset();
        let outcome = simd_json::fill_tape(text, &mut self.buffers, &mut tape);
        let answer = match outcome {
            Ok(()) => Ok(use_it(Item::at(&tape.0))),
            Err(_) => Err(NotJson),
        };
        self.tape = tape.reset().0;
        answer
    }
}

/// Bytes of an escape like `\ud83d`.
const UNIT_BYTES: usize = 6;

/// Turns each escaped half of a surrogate pair into an escaped U+FFFD: a client that wrote one would be sent
/// away for broken JSON, come back, and write it again.
fn mend_halves(text: &mut [u8]) {
    let mut at = 0;
    while let Some(distance) = memchr::memchr(b'\\', &text[at..]) {
        at += distance;
        at += match (escaped_unit(&text[at..]), escaped_unit(text.get(at + UNIT_BYTES..).unwrap_or_default())) {
            (None, _) => 2,
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 2 * UNIT_BYTES,
            (Some(0xd800..=0xdfff), _) => {
                text[at..at + UNIT_BYTES].copy_from_slice(b"\\ufffd");
                UNIT_BYTES
            }
            (Some(_), _) => UNIT_BYTES,
        };
        at = at.min(text.len());
    }
}

/// The code unit that is escaped at the start of `text`, if one is.
fn escaped_unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    let digits = std::str::from_utf8(digits).ok()?;
    // `from_str_radix` alone would take a sign.
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
}

/// One JSON value, borrowed from the text it was read from.
#[derive(Clone, Copy, Debug)]
pub enum Item<'t> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// An integer that fits into 64 bits with a sign.
    Int(i64),
    /// Any other number; finite.
    Double(f64),
    /// A string, unescaped.
    Text(&'t str),
    /// `[…]`
    Array(Values<'t>),
    /// `{…}`
    Object(Members<'t>),
}

impl<'t> Item<'t> {
    /// The value that begins at the first node of `tape`.
    fn at(tape: &'t [Node<'t>]) -> Self {
        match tape[0] {
            Node::Static(StaticNode::Null) => Self::Null,
            Node::Static(StaticNode::Bool(value)) => Self::Bool(value),
            Node::Static(StaticNode::I64(value)) => Self::Int(value),
            Node::Static(StaticNode::U64(value)) => match i64::try_from(value) {
                Ok(value) => Self::Int(value),
                #[expect(clippy::cast_precision_loss, reason = "beyond 2^63 JSON numbers are doubles to every client")]
                Err(_) => Self::Double(value as f64),
            },
            Node::Static(StaticNode::F64(value)) => Self::Double(value),
            Node::String(text) => Self::Text(text),
            Node::Array { len, count } => Self::Array(Values { rest: &tape[1..=count], len }),
            Node::Object { len, count } => Self::Object(Members { rest: &tape[1..=count], len }),
        }
    }

    /// How many nodes of the tape the value at its start covers.
    fn width(tape: &[Node<'_>]) -> usize {
        match tape[0] {
            Node::Array { count, .. } | Node::Object { count, .. } => count + 1,
            Node::Static(_) | Node::String(_) => 1,
        }
    }

    /// The string, if it is one.
    #[must_use]
    pub fn as_text(self) -> Option<&'t str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The integer, if it is one that fits.
    #[must_use]
    pub fn as_int(self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(value),
            #[expect(clippy::cast_possible_truncation, reason = "checked: integral and within 2^53")]
            Self::Double(value) if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 => Some(value as i64),
            _ => None,
        }
    }

    /// The number as a double, if it is a number.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "this is the conversion to a double")]
    pub fn as_double(self) -> Option<f64> {
        match self {
            Self::Int(value) => Some(value as f64),
            Self::Double(value) => Some(value),
            _ => None,
        }
    }

    /// The object's members, if it is an object.
    #[must_use]
    pub fn as_object(self) -> Option<Members<'t>> {
        if let Self::Object(members) = self { Some(members) } else { None }
    }

    /// The member `name` of an object. The last one, where a name stands twice.
    #[must_use]
    pub fn get(self, name: &str) -> Option<Self> {
        // The others are passed over unread.
        let mut rest = self.as_object()?.rest;
        let mut found = None;
        while let Some((Node::String(key), after)) = rest.split_first() {
            if *key == name {
                found = Some(after);
            }
            rest = &after[Self::width(after)..];
        }
        found.map(Item::at)
    }

    /// The members of an object that have these names, found in one go; of one that stands twice, the last. None of
    /// what is no object.
    #[must_use]
    pub fn pick<const COUNT: usize>(self, names: [&str; COUNT]) -> [Option<Self>; COUNT] {
        let mut picked = [None; COUNT];
        for (key, value) in self.as_object().into_iter().flatten() {
            if let Some(index) = names.iter().position(|name| *name == key) {
                picked[index] = Some(value);
            }
        }
        picked
    }

    /// The value as a `serde_json` value (for identities, not for data).
    #[must_use]
    pub fn to_serde(self) -> serde_json::Value {
        use serde_json::Value;
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Int(value) => Value::from(value),
            Self::Double(value) => Value::from(value),
            Self::Text(text) => Value::from(text),
            Self::Array(values) => values.map(Self::to_serde).collect(),
            Self::Object(members) => Value::Object(members.map(|(k, v)| (k.to_owned(), v.to_serde())).collect()),
        }
    }
}

/// The values of an array, in order.
#[derive(Clone, Copy, Debug)]
pub struct Values<'t> {
    rest: &'t [Node<'t>],
    len: usize,
}

impl<'t> Iterator for Values<'t> {
    type Item = Item<'t>;

    fn next(&mut self) -> Option<Item<'t>> {
        if self.rest.is_empty() {
            return None;
        }
        let item = Item::at(self.rest);
        self.rest = &self.rest[Item::width(self.rest)..];
        self.len -= 1;
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len, Some(self.len))
    }
}

impl ExactSizeIterator for Values<'_> {}

/// The members of an object, in the order of the text.
#[derive(Clone, Copy, Debug)]
pub struct Members<'t> {
    rest: &'t [Node<'t>],
    len: usize,
}

impl<'t> Iterator for Members<'t> {
    type Item = (&'t str, Item<'t>);

    fn next(&mut self) -> Option<Self::Item> {
        let (Node::String(name), rest) = self.rest.split_first()? else {
            unreachable!("an object's members begin with their names");
        };
        let item = Item::at(rest);
        self.rest = &rest[Item::width(rest)..];
        self.len -= 1;
        Some((name, item))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len, Some(self.len))
    }
}

impl ExactSizeIterator for Members<'_> {}
