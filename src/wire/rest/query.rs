//! Query parameters to queries (Firebase wire specification, section 9.2).

use std::num::NonZeroU32;

use super::reply::Reply;
use crate::data::{Leaf, Number, Path};
use crate::json::{self, Item};
use crate::op::{Bound, BoundKey, BoundText, Direction, Index, Limit, Query};
use crate::wire::http;

const NO_INDEX: &str = "orderBy must be a valid JSON encoded path";
const NO_ORDER: &str = "orderBy must be defined when other query parameters are defined";
const NO_PRIMITIVE: &str = "Constraint index field must be a JSON primitive";
const NO_KEY: &str = "Constraint key field must be a string";
const NO_LIMIT: &str = "limitToFirst and limitToLast must be positive integers";
const TWO_LIMITS: &str = "Only one of limitToFirst and limitToLast may be specified";
const TWO_BOUNDS: &str = "Only one of startAt, startAfter and equalTo, and one of endAt, endBefore and equalTo, \
                          may be specified";

/// Reads a query. Where only the keys are asked for (`is_shallow`), clients may leave the order out,
/// and write keys without quotes.
pub(super) fn read(params: http::Query<'_>, is_shallow: bool) -> Result<Query, Reply> {
    let get = |name| params.get(name).filter(|text| !text.is_empty());
    let bounds = ["startAt", "startAfter", "endAt", "endBefore", "equalTo"].map(get);
    let is_bounded = bounds.iter().any(Option::is_some);
    let limit = limit(get("limitToFirst").as_deref(), get("limitToLast").as_deref())?;
    let index = match get("orderBy") {
        Some(text) => index(&text)?,
        None if is_shallow => Index::Key,
        None if is_bounded || limit.is_some() => return Err(Reply::bad(NO_ORDER)),
        None => return Ok(Query::ALL),
    };
    let [start_at, start_after, end_at, end_before, equal_to] = &bounds;
    let bound = |text: &str, extreme: BoundKey, is_inclusive: bool| {
        if index == Index::Key { by_key(text, is_inclusive, is_shallow) } else { by_value(text, extreme, is_inclusive) }
    };
    let start = match (start_at, start_after, equal_to) {
        (None, None, None) => None,
        (Some(text), None, None) | (None, None, Some(text)) => Some(bound(text, BoundKey::Min, true)?),
        (None, Some(text), None) => Some(bound(text, BoundKey::Max, false)?),
        _ => return Err(Reply::bad(TWO_BOUNDS)),
    };
    let end = match (end_at, end_before, equal_to) {
        (None, None, None) => None,
        (Some(text), None, None) | (None, None, Some(text)) => Some(bound(text, BoundKey::Max, true)?),
        (None, Some(text), None) => Some(bound(text, BoundKey::Min, false)?),
        _ => return Err(Reply::bad(TWO_BOUNDS)),
    };
    Ok(Query { index, start: start.map(Box::new), end: end.map(Box::new), limit })
}

fn limit(first: Option<&str>, last: Option<&str>) -> Result<Option<Limit>, Reply> {
    let (text, from) = match (first, last) {
        (None, None) => return Ok(None),
        (Some(text), None) => (text, Direction::First),
        (None, Some(text)) => (text, Direction::Last),
        (Some(_), Some(_)) => return Err(Reply::bad(TWO_LIMITS)),
    };
    let count: u64 = text.parse().map_err(|_| Reply::bad(NO_LIMIT))?;
    // Nobody has four billion children, so more than that is the same.
    let count = NonZeroU32::new(u32::try_from(count).unwrap_or(u32::MAX)).ok_or_else(|| Reply::bad(NO_LIMIT))?;
    Ok(Some(Limit { count, from }))
}

fn index(text: &str) -> Result<Index, Reply> {
    let bad = || Reply::bad(NO_INDEX);
    let name = parse(text, |item| item.as_text().map(str::to_owned)).flatten().ok_or_else(bad)?;
    Ok(match name.as_str() {
        "$key" => Index::Key,
        "$value" => Index::Value,
        "$priority" => Index::Priority,
        path => {
            let path = Path::parse(path).map_err(|_| bad())?;
            if path.is_root() {
                return Err(bad());
            }
            Index::Child(path)
        }
    })
}

/// Reads JSON; `None` if it is none.
fn parse<R>(text: &str, use_it: impl FnOnce(Item<'_>) -> R) -> Option<R> {
    json::Reader::default().read(&mut text.as_bytes().to_vec(), use_it).ok()
}

fn by_key(text: &str, is_inclusive: bool, may_be_bare: bool) -> Result<Bound, Reply> {
    let quoted = parse(text, |item| item.as_text().map(str::to_owned)).flatten();
    let name = match quoted {
        Some(name) => name,
        None if may_be_bare => text.to_owned(),
        None => return Err(Reply::bad(NO_KEY)),
    };
    Ok(Bound { value: None, key: BoundKey::Key(BoundText(name.as_str().into())), is_inclusive })
}

/// A value, or a value and a key: `5`, `5,"k"`.
fn by_value(text: &str, extreme: BoundKey, is_inclusive: bool) -> Result<Bound, Reply> {
    let read = parse(&format!("[{text}]"), |item| {
        let Item::Array(mut items) = item else { return Err(NO_PRIMITIVE) };
        let value = match items.next() {
            Some(Item::Null) => None,
            Some(Item::Bool(value)) => Some(Leaf::Bool(value)),
            Some(Item::Int(value)) => Some(Leaf::Number(Number::Int(value))),
            Some(Item::Double(value)) => Some(Leaf::Number(Number::from_double(value))),
            Some(Item::Text(text)) => Some(Leaf::Text(text.into())),
            _ => return Err(NO_PRIMITIVE),
        };
        let key = match (items.next(), items.next()) {
            (None, _) => extreme,
            (Some(Item::Text(key)), None) => BoundKey::Key(BoundText(key.into())),
            _ => return Err(NO_KEY),
        };
        Ok(Bound { value, key, is_inclusive })
    });
    read.unwrap_or(Err(NO_PRIMITIVE)).map_err(Reply::bad)
}
