//! Leaves: booleans, numbers, strings; priorities; and how they order
//! (Firebase wire specification, section 7.3).

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use compact_str::CompactString;

/// From this length on a text is shared by its clones: an answer that waits for a slow reader must not
/// cost a copy of what it tells.
const SHARED_BYTES_MIN: usize = 256;

/// A string: 24 bytes, of which up to 24 hold the text in place. Clones of long ones share their bytes.
#[derive(Clone)]
pub struct Text(Kept);

#[derive(Clone)]
enum Kept {
    Own(CompactString),
    Shared(Arc<str>),
}

const _: () = assert!(size_of::<Text>() == 24, "a text is three words: it is what every leaf costs");

impl Text {
    /// The string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Kept::Own(text) => text,
            Kept::Shared(text) => text,
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(if text.len() < SHARED_BYTES_MIN { Kept::Own(text.into()) } else { Kept::Shared(text.into()) })
    }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_str().fmt(f)
    }
}

/// A finite number. Kept as an integer where it is one, so that 64-bit counters stay exact.
///
/// Canonical: whatever is an integer of 64 bits is `Int`, so equal numbers are equal values.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    /// An integer.
    Int(i64),
    /// Anything else; finite, with a fraction or beyond 64 bits.
    Double(f64),
}

/// 2^63: the first double above the integers of 64 bits.
const INT_BOUND: f64 = 9_223_372_036_854_775_808.0;

impl Number {
    /// The canonical number of a finite double.
    #[must_use]
    pub fn from_double(value: f64) -> Self {
        debug_assert!(value.is_finite(), "only finite numbers are stored");
        #[expect(clippy::cast_possible_truncation, reason = "integral and within 64 bits")]
        if value.fract() == 0.0 && (-INT_BOUND..INT_BOUND).contains(&value) {
            Self::Int(value as i64)
        } else {
            Self::Double(value)
        }
    }

    /// As the double that every client sees.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "clients see doubles")]
    pub const fn as_double(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Double(value) => value,
        }
    }

    /// `self + delta` as `increment` adds: exactly while both are integers and the sum fits, else as
    /// doubles. A sum that is not finite stays at the largest double of its sign.
    #[must_use]
    pub fn increment(self, delta: Self) -> Self {
        if let (Self::Int(a), Self::Int(b)) = (self, delta)
            && let Some(sum) = a.checked_add(b)
        {
            return Self::Int(sum);
        }
        Self::from_double((self.as_double() + delta.as_double()).clamp(f64::MIN, f64::MAX))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Number {}

impl Hash for Number {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_double().to_bits().hash(state);
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            // Integers near the ends of their range round to the first double beyond it: compared as
            // doubles they would equal it, and through it each other.
            (Self::Int(_), Self::Double(b)) if *b >= INT_BOUND => Ordering::Less,
            (Self::Double(a), Self::Int(_)) if *a >= INT_BOUND => Ordering::Greater,
            // Finite, so total_cmp and the arithmetic order agree but for -0, which is `Int(0)`.
            _ => self.as_double().total_cmp(&other.as_double()),
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A value without children.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Leaf {
    /// `true`, `false`
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string.
    Text(Text),
}

/// A priority: what children are ordered by where nothing else is said. None orders first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Priority {
    /// A number; numbers order before texts.
    Number(Number),
    /// A text.
    Text(Text),
}

/// Compares two texts by UTF-16 code units, as JavaScript's `<` does.
///
/// The same as the order of their UTF-8 bytes, except that U+E000..U+FFFF come after the
/// surrogates, hence after everything above U+FFFF.
#[must_use]
pub fn compare_text(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let Some(at) = first_difference(a, b) else {
        return a.len().cmp(&b.len());
    };
    // Lead bytes: 0xEE and 0xEF begin U+E000..U+FFFF, 0xF0 and above begin the astral planes. The
    // first byte that differs is a lead byte whenever it is in that range.
    let rank = |byte: u8| {
        if byte >= 0xf0 {
            byte - 0x02
        } else if byte >= 0xee {
            byte + 0x10
        } else {
            byte
        }
    };
    rank(a[at]).cmp(&rank(b[at]))
}

/// Where two texts differ first, if not only in how long they are. Keys of one kind begin alike, so eight bytes
/// are compared at a time.
fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let (Some(x), Some(y)) = (a[at..].first_chunk::<8>(), b[at..].first_chunk::<8>()) {
        let difference = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if difference != 0 {
            return Some(at + difference.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    a[at..].iter().zip(&b[at..]).position(|(x, y)| x != y).map(|distance| at + distance)
}

impl Ord for Leaf {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |leaf: &Self| match leaf {
            Self::Bool(_) => 0,
            Self::Number(_) => 1,
            Self::Text(_) => 2,
        };
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Number(a), Self::Number(b)) => a.cmp(b),
            (Self::Text(a), Self::Text(b)) => compare_text(a, b),
            _ => rank(self).cmp(&rank(other)),
        }
    }
}

impl PartialOrd for Leaf {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Priority {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a.cmp(b),
            (Self::Text(a), Self::Text(b)) => compare_text(a, b),
            (Self::Number(_), Self::Text(_)) => Ordering::Less,
            (Self::Text(_), Self::Number(_)) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Priority {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl From<Priority> for Leaf {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::Number(number) => Self::Number(number),
            Priority::Text(text) => Self::Text(text),
        }
    }
}
