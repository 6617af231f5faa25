//! Query objects (Firebase wire specification, section 4), read and written.

use std::num::NonZeroU32;

use crate::data::{Leaf, Number, Path};
use crate::json::{self, Item};
use crate::op::{Bound, BoundKey, BoundText, Direction, Index, Limit, Query, Refusal};

/// Less than every key.
const MIN_NAME: &str = "[MIN_NAME]";
/// Greater than every key, to JavaScript and iOS.
const MAX_NAME: &str = "[MAX_NAME]";
/// Greater than every key, to Android and Java.
const MAX_KEY: &str = "[MAX_KEY]";

/// Reads a query object.
///
/// Bounds may hold keys longer than keys can be: Android writes "just before k" as `k` followed by
/// hundreds of `z`.
pub fn read_query(item: Item<'_>) -> Result<Query, Refusal> {
    if item.as_object().is_none() {
        return Err(Refusal::Malformed("q"));
    }
    // By their names on the wire; what nobody knows is ignored.
    let [order, limit, side] = item.pick(["i", "l", "vf"]);
    let [start, start_name, starts_there] = item.pick(["sp", "sn", "sin"]);
    let [end, end_name, ends_there] = item.pick(["ep", "en", "ein"]);
    let index = match order.map(|order| order.as_text().ok_or(Refusal::Malformed("i"))).transpose()? {
        None | Some(".priority") => Index::Priority,
        Some(".key") => Index::Key,
        Some(".value") => Index::Value,
        Some(path) => Index::Child(Path::parse(path).map_err(Refusal::Path)?),
    };
    let limit = read_limit(limit, side, start.is_some())?;
    let is_by_key = index == Index::Key;
    let start = match start {
        None => None,
        Some(value) => Some(Bound {
            is_inclusive: flag(starts_there, "sin")?,
            ..if is_by_key { bound_by_key(value, "sp")? } else { bound(value, start_name, BoundKey::Min, "sp", "sn")? }
        }),
    };
    let end = match end {
        None => None,
        Some(value) => Some(Bound {
            is_inclusive: flag(ends_there, "ein")?,
            ..if is_by_key { bound_by_key(value, "ep")? } else { bound(value, end_name, BoundKey::Max, "ep", "en")? }
        }),
    };
    Ok(Query { index, start: start.map(Box::new), end: end.map(Box::new), limit })
}

/// How many children a query wants, and from which side. Who does not say it means the end, unless there is a start.
fn read_limit(count: Option<Item<'_>>, side: Option<Item<'_>>, has_start: bool) -> Result<Option<Limit>, Refusal> {
    let Some(count) = count else { return Ok(None) };
    let count = count.as_int().filter(|count| *count > 0).ok_or(Refusal::Malformed("l"))?;
    // Nobody has four billion children, so more than that is the same.
    let count = NonZeroU32::new(u32::try_from(count).unwrap_or(u32::MAX)).ok_or(Refusal::Malformed("l"))?;
    let side =
        side.map_or(Ok(if has_start { "l" } else { "r" }), |side| side.as_text().ok_or(Refusal::Malformed("vf")))?;
    let from = match side {
        "l" => Direction::First,
        "r" => Direction::Last,
        _ => return Err(Refusal::Malformed("vf")),
    };
    Ok(Some(Limit { count, from }))
}

/// Whether a bound is inclusive. Clients from before exclusive bounds do not say; it is.
fn flag(item: Option<Item<'_>>, name: &'static str) -> Result<bool, Refusal> {
    match item {
        None => Ok(true),
        Some(Item::Bool(value)) => Ok(value),
        Some(_) => Err(Refusal::Malformed(name)),
    }
}

/// A bound when children are ordered by their keys: its value is the key.
fn bound_by_key(value: Item<'_>, name: &'static str) -> Result<Bound, Refusal> {
    let key = bound_key(value.as_text().ok_or(Refusal::Malformed(name))?);
    Ok(Bound { value: None, key, is_inclusive: true })
}

fn bound(
    value: Item<'_>,
    key: Option<Item<'_>>,
    extreme: BoundKey,
    value_name: &'static str,
    key_name: &'static str,
) -> Result<Bound, Refusal> {
    let value = match value {
        Item::Null => None,
        Item::Bool(value) => Some(Leaf::Bool(value)),
        Item::Int(value) => Some(Leaf::Number(Number::Int(value))),
        Item::Double(value) => Some(Leaf::Number(Number::from_double(value))),
        Item::Text(text) => Some(Leaf::Text(text.into())),
        Item::Array(_) | Item::Object(_) => return Err(Refusal::Malformed(value_name)),
    };
    let key = match key {
        None => extreme,
        Some(key) => bound_key(key.as_text().ok_or(Refusal::Malformed(key_name))?),
    };
    Ok(Bound { value, key, is_inclusive: true })
}

fn bound_key(text: &str) -> BoundKey {
    match text {
        MIN_NAME => BoundKey::Min,
        MAX_NAME | MAX_KEY => BoundKey::Max,
        _ => BoundKey::Key(BoundText(text.into())),
    }
}

/// Appends a query object as JavaScript clients write theirs when they look for it: names sorted, no
/// spaces, `sin` and `ein` wherever there is a bound.
///
/// Clients from before exclusive bounds wrote neither; they do not find the query again.
pub fn write_query(out: &mut Vec<u8>, query: &Query) {
    let mut object = Object::begin(out);
    let is_by_key = query.index == Index::Key;
    if let Some(end) = &query.end {
        object.flag("ein", end.is_inclusive);
        if !is_by_key {
            object.key("en", &end.key, &BoundKey::Max);
        }
        object.bound("ep", end, is_by_key);
    }
    object.index(&query.index);
    if let Some(limit) = query.limit {
        object.integer("l", limit.count.get());
    }
    if let Some(start) = &query.start {
        object.flag("sin", start.is_inclusive);
        if !is_by_key {
            object.key("sn", &start.key, &BoundKey::Min);
        }
        object.bound("sp", start, is_by_key);
    }
    if let Some(limit) = query.limit {
        object.text("vf", if limit.from == Direction::First { "l" } else { "r" });
    }
    object.end();
}

/// An object being written.
pub(in crate::wire) struct Object<'o> {
    out: &'o mut Vec<u8>,
    is_empty: bool,
}

impl<'o> Object<'o> {
    pub(in crate::wire) const fn begin(out: &'o mut Vec<u8>) -> Self {
        Self { out, is_empty: true }
    }

    /// What a query orders by, unless it is what its absence means.
    pub(in crate::wire) fn index(&mut self, index: &Index) {
        match index {
            Index::Priority => {}
            Index::Key => self.text("i", ".key"),
            Index::Value => self.text("i", ".value"),
            Index::Child(path) => self.text("i", path.as_str()),
        }
    }

    pub(in crate::wire) fn integer(&mut self, name: &str, value: u32) {
        self.name(name);
        json::integer(self.out, value);
    }

    fn name(&mut self, name: &str) {
        self.out.push(if self.is_empty { b'{' } else { b',' });
        self.is_empty = false;
        json::text(self.out, name);
        self.out.push(b':');
    }

    pub(in crate::wire) fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        json::text(self.out, value);
    }

    fn flag(&mut self, name: &str, value: bool) {
        self.name(name);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// The key of a bound, unless it is what its absence means.
    fn key(&mut self, name: &str, key: &BoundKey, absent: &BoundKey) {
        if key != absent {
            self.text(name, key_text(key));
        }
    }

    pub(in crate::wire) fn bound(&mut self, name: &str, bound: &Bound, is_by_key: bool) {
        self.name(name);
        match &bound.value {
            _ if is_by_key => json::text(self.out, key_text(&bound.key)),
            None => self.out.extend_from_slice(b"null"),
            Some(Leaf::Bool(true)) => self.out.extend_from_slice(b"true"),
            Some(Leaf::Bool(false)) => self.out.extend_from_slice(b"false"),
            Some(Leaf::Number(Number::Int(value))) => json::integer(self.out, *value),
            Some(Leaf::Number(Number::Double(value))) => json::number(self.out, *value),
            Some(Leaf::Text(text)) => json::text(self.out, text),
        }
    }

    pub(in crate::wire) fn end(self) {
        self.out.extend_from_slice(if self.is_empty { b"{}" } else { b"}" });
    }
}

fn key_text(key: &BoundKey) -> &str {
    match key {
        BoundKey::Min => MIN_NAME,
        BoundKey::Max => MAX_NAME,
        BoundKey::Key(text) => &text.0,
    }
}
