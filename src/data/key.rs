//! Keys and their order (Firebase wire specification, sections 7.3 and 7.4).

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;

use compact_str::CompactString;
use ref_cast::RefCast;

use super::leaf::compare_text;
use crate::base::limits::KEY_BYTES_MAX;

/// The name of a child, owned: 24 bytes, of which up to 24 hold the text in place.
///
/// A `Key` is never empty, at most [`KEY_BYTES_MAX`] long, and holds none of `. # $ [ ] /` and no
/// ASCII control character.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key(CompactString);

/// A borrowed key. Not necessarily a valid one: looking for what cannot be there finds nothing.
#[derive(PartialEq, Eq, Hash, RefCast)]
#[repr(transparent)]
pub struct KeyStr(str);

/// Why a text cannot be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidKey {
    /// It is empty.
    Empty,
    /// It is longer than [`KEY_BYTES_MAX`].
    TooLong,
    /// It holds one of `. # $ [ ] /` or an ASCII control character.
    Forbidden,
}

impl Key {
    /// Checks a text and makes it a key.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        check(text)?;
        Ok(Self(CompactString::new(text)))
    }

    /// The key of an array's element.
    #[must_use]
    pub fn from_index(index: usize) -> Self {
        Self(compact_str::format_compact!("{index}"))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Bytes that this key has on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        if self.0.is_heap_allocated() { self.0.capacity() } else { 0 }
    }
}

/// Whether `text` may be a key.
pub(super) fn check(text: &str) -> Result<(), InvalidKey> {
    let is_forbidden = |byte: u8| byte < 0x20 || matches!(byte, b'.' | b'#' | b'$' | b'[' | b']' | b'/' | 0x7f);
    if text.is_empty() {
        return Err(InvalidKey::Empty);
    }
    if text.len() > KEY_BYTES_MAX {
        return Err(InvalidKey::TooLong);
    }
    if text.bytes().any(is_forbidden) {
        return Err(InvalidKey::Forbidden);
    }
    Ok(())
}

impl KeyStr {
    /// Views any text as a key to look for.
    #[must_use]
    pub fn new(text: &str) -> &Self {
        Self::ref_cast(text)
    }

    /// The text.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        &self.0
    }

    /// The number that this key is for sorting, if it is one: an optional minus and digits, of which
    /// at most ten after leading zeros, in the range of 32 bits.
    fn as_number(&self) -> Option<i64> {
        let bytes = self.0.as_bytes();
        let (is_negative, digits) = match bytes.split_first()? {
            (b'-', rest) => (true, rest),
            (b'0'..=b'9', _) => (false, bytes),
            _ => return None,
        };
        // Cheap and common: push ids begin with a minus and go on with a letter.
        if !digits.first()?.is_ascii_digit() {
            return None;
        }
        let first_significant = digits.iter().position(|b| *b != b'0').unwrap_or(digits.len());
        let significant = &digits[first_significant..];
        if significant.len() > 10 || !significant.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let magnitude = significant.iter().fold(0_i64, |sum, digit| sum * 10 + i64::from(digit - b'0'));
        let value = if is_negative { -magnitude } else { magnitude };
        (i64::from(i32::MIN)..=i64::from(i32::MAX)).contains(&value).then_some(value)
    }
}

/// Numbers first, by value and then by length; then texts by UTF-16 code units.
impl Ord for KeyStr {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.as_number(), other.as_number()) {
            (None, None) => compare_text(&self.0, &other.0),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => {
                // `-0` and `00` are the same number and as long; the text decides.
                a.cmp(&b).then(self.0.len().cmp(&other.0.len())).then_with(|| self.0.cmp(&other.0))
            }
        }
    }
}

impl PartialOrd for KeyStr {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Borrow<KeyStr> for Key {
    fn borrow(&self) -> &KeyStr {
        KeyStr::new(&self.0)
    }
}

impl std::ops::Deref for Key {
    type Target = KeyStr;
    fn deref(&self) -> &KeyStr {
        self.borrow()
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        KeyStr::new(&self.0).cmp(KeyStr::new(&other.0))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Debug for KeyStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
