//! Runs compiled expressions.
//!
//! The surprising idea: values are borrowed from the tree, from the identity and from the rules, so
//! the common path allocates nothing; only `+`, `replace` and case mapping build texts. An error
//! anywhere fails the whole rule, also under `!` and beside `||`: that is the language, and it is
//! `Result` here. Costs: a few nanoseconds an operation, one lookup a step down the tree.

use std::cell::Cell;

use compact_str::CompactString;
use serde_json::Value as Json;

use super::code::{Asked, Find, OrderedBy, Place, Steps, Term, Test};
use super::limits::{BUILT_BYTES_MAX, STEP_BYTES};
use super::parse::Operator;
use super::view::Cursor;
use crate::data::{KeyStr, Leaf, Node, Priority, compare_text};
use crate::op::{BoundKey, Direction, Index, Query};

/// Why a rule could not be evaluated. It counts as false.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fail {
    /// An operand or argument has the wrong type: often a value that is not there.
    Type,
    /// A comparison of two values that are no primitives.
    Incomparable,
    /// `parent()` of the root.
    AboveRoot,
    /// A text longer than any value may be.
    TextTooLong,
    /// The request has used up its steps.
    OutOfSteps,
}

impl Fail {
    /// For people who look for the reason of a denial.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Type => "a value has the wrong type, or is not there",
            Self::Incomparable => "two values with children cannot be compared",
            Self::AboveRoot => "the root has no parent",
            Self::TextTooLong => "a text became too long",
            Self::OutOfSteps => "the request takes too many steps",
        }
    }
}

/// What an expression can look at.
#[derive(Clone, Copy)]
pub(super) struct Scene<'e, 'v> {
    pub auth: &'v Json,
    /// Milliseconds since 1970.
    pub now: f64,
    pub query: &'e Asking<'v>,
    /// The places from the root down to the rule's own.
    pub trail: &'e [Stop<'v>],
    /// Steps left.
    pub budget: &'e Cell<u64>,
}

/// A place on the path to a rule. The trees are looked into only when a rule asks, and then once.
#[derive(Clone, Debug)]
pub(super) struct Stop<'v> {
    /// Its key; empty for the root.
    pub key: &'v str,
    /// What stands there.
    old: Cell<Option<&'v Node>>,
    /// What would stand there.
    new: Cell<Option<Cursor<'v>>>,
}

impl<'v> Stop<'v> {
    /// The root of both trees.
    pub(super) const fn root(old: &'v Node, new: Cursor<'v>) -> Self {
        Self { key: "", old: Cell::new(Some(old)), new: Cell::new(Some(new)) }
    }

    /// The place with this key below the one before it on the trail.
    pub(super) const fn below(key: &'v str) -> Self {
        Self { key, old: Cell::new(None), new: Cell::new(None) }
    }

    /// Takes note of what would stand there.
    pub(super) fn will_be(&self, new: &'v Node) {
        self.new.set(Some(Cursor::Plain(new)));
    }
}

/// What stands at a level of the trail. Level 0 is the root.
fn old_at<'v>(trail: &[Stop<'v>], level: usize) -> &'v Node {
    let stop = &trail[level];
    if let Some(node) = stop.old.get() {
        return node;
    }
    let node = old_at(trail, level - 1).child(KeyStr::new(stop.key));
    stop.old.set(Some(node));
    node
}

/// What would stand at a level of the trail.
pub(super) fn new_at<'v>(trail: &[Stop<'v>], level: usize) -> Cursor<'v> {
    let stop = &trail[level];
    if let Some(cursor) = stop.new.get() {
        return cursor;
    }
    let cursor = new_at(trail, level - 1).child(stop.key);
    stop.new.set(Some(cursor));
    cursor
}

/// A value, borrowed where possible.
#[derive(Clone, Debug)]
pub(super) enum Value<'v> {
    Null,
    Bool(bool),
    Number(f64),
    Text(&'v str),
    Built(CompactString),
    /// An object or a list of the identity.
    Claims(&'v Json),
    /// `val()` of a node with children: not null, equal to no primitive.
    Tree,
    /// No value at all.
    Odd,
}

const _: () = assert!(size_of::<Result<Value<'_>, Fail>>() <= 24, "values are returned in three words");

impl<'v> Value<'v> {
    fn as_text(&self) -> Result<&str, Fail> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Built(text) => Ok(text),
            _ => Err(Fail::Type),
        }
    }

    const fn as_number(&self) -> Result<f64, Fail> {
        if let Self::Number(value) = self { Ok(*value) } else { Err(Fail::Type) }
    }

    fn of_leaf(leaf: &'v Leaf) -> Self {
        match leaf {
            Leaf::Bool(value) => Self::Bool(*value),
            Leaf::Number(value) => Self::Number(value.as_double()),
            Leaf::Text(text) => Self::Text(text),
        }
    }

    fn of_json(json: &'v Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(value) => value.as_f64().map_or(Self::Odd, Self::Number),
            Json::String(text) => Self::Text(text),
            Json::Array(_) | Json::Object(_) => Self::Claims(json),
        }
    }

    fn of_priority(priority: Option<&'v Priority>) -> Self {
        match priority {
            None => Self::Null,
            Some(Priority::Number(value)) => Self::Number(value.as_double()),
            Some(Priority::Text(text)) => Self::Text(text),
        }
    }
}

/// The variable `query`.
#[derive(Clone, Debug)]
pub(super) struct Asking<'q> {
    pub is_by_key: bool,
    pub is_by_value: bool,
    pub is_by_priority: bool,
    pub child: Option<&'q str>,
    pub start: Value<'q>,
    pub end: Value<'q>,
    pub equal: Value<'q>,
    pub first: Option<u32>,
    pub last: Option<u32>,
}

impl<'q> Asking<'q> {
    /// In writes, and in reads of a whole location.
    pub(super) const NOTHING: Self = Self {
        is_by_key: false,
        is_by_value: false,
        is_by_priority: false,
        child: None,
        start: Value::Null,
        end: Value::Null,
        equal: Value::Null,
        first: None,
        last: None,
    };

    /// What rules see of a query.
    ///
    /// Clients do not say whether they order by priority or do not order at all: whoever wants only
    /// some children without naming an order gets them by priority.
    pub(super) fn of(query: &'q Query) -> Self {
        let by_key = matches!(query.index, Index::Key);
        let value = |bound: &'q Option<Box<crate::op::Bound>>| match bound {
            None => Value::Null,
            Some(bound) if by_key => match &bound.key {
                BoundKey::Key(text) => Value::Text(&text.0),
                BoundKey::Min | BoundKey::Max => Value::Null,
            },
            Some(bound) => bound.value.as_ref().map_or(Value::Null, Value::of_leaf),
        };
        let (start, end) = (value(&query.start), value(&query.end));
        let is_closed = |bound: &Option<Box<crate::op::Bound>>| bound.as_ref().is_some_and(|bound| bound.is_inclusive);
        let is_point = is_closed(&query.start) && is_closed(&query.end) && equal(&start, &end) == Ok(true);
        let count = |from: Direction| query.limit.filter(|limit| limit.from == from).map(|limit| limit.count.get());
        Self {
            is_by_key: by_key,
            is_by_value: matches!(query.index, Index::Value),
            is_by_priority: matches!(query.index, Index::Priority) && !query.is_all(),
            child: if let Index::Child(path) = &query.index { Some(path.as_str()) } else { None },
            equal: if is_point { start.clone() } else { Value::Null },
            start,
            end,
            first: count(Direction::First),
            last: count(Direction::Last),
        }
    }
}

impl<'v> Scene<'_, 'v> {
    /// Whether a test holds.
    pub(super) fn test(&self, test: &'v Test) -> Result<bool, Fail> {
        match test {
            Test::Const(value) => Ok(*value),
            Test::Not(inner) => Ok(!self.test(inner)?),
            Test::All(list) => {
                for test in list {
                    if !self.test(test)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Test::Any(list) => {
                for test in list {
                    if self.test(test)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Test::Choose(parts) => self.test(if self.test(&parts.0)? { &parts.1 } else { &parts.2 }),
            Test::Equal { is_wanted, sides } => Ok(self.equal(&sides.0, &sides.1)? == *is_wanted),
            Test::Exists(place) => Ok(self.place(place, 0)?.exists()),
            Test::HasChildren(place) => Ok(self.place(place, 0)?.has_children()),
            Test::HasAll(place, list) => {
                let cursor = self.place(place, 0)?;
                let mut has_all = true;
                for steps in list {
                    // A name that is no text fails the rule, also behind one that is missing.
                    has_all &= self.walk(cursor, steps)?.exists();
                }
                Ok(has_all)
            }
            _ => self.rare(test),
        }
    }

    /// The tests that are met less often.
    #[inline(never)]
    fn rare(&self, test: &'v Test) -> Result<bool, Fail> {
        match test {
            Test::Order(operator, sides) => {
                let (left, right) = (self.term(&sides.0)?, self.term(&sides.1)?);
                self.order(*operator, &left, &right)
            }
            Test::IsText(place) => Ok(matches!(self.place(place, 0)?.leaf(), Some(Leaf::Text(_)))),
            Test::IsNumber(place) => Ok(matches!(self.place(place, 0)?.leaf(), Some(Leaf::Number(_)))),
            Test::IsBool(place) => Ok(matches!(self.place(place, 0)?.leaf(), Some(Leaf::Bool(_)))),
            Test::Find(find, sides) => {
                let (text, wanted) = (self.term(&sides.0)?, self.term(&sides.1)?);
                let (text, wanted) = (text.as_text()?, wanted.as_text()?);
                self.charge(text.len())?;
                Ok(match find {
                    Find::Anywhere => memchr::memmem::find(text.as_bytes(), wanted.as_bytes()).is_some(),
                    Find::AtStart => text.starts_with(wanted),
                    Find::AtEnd => text.ends_with(wanted),
                })
            }
            Test::Matches(term, regex) => {
                let value = self.term(term)?;
                let text = value.as_text()?;
                self.charge(text.len())?;
                Ok(regex.is_match(text))
            }
            Test::OrderedBy(OrderedBy::Key) => Ok(self.query.is_by_key),
            Test::OrderedBy(OrderedBy::Value) => Ok(self.query.is_by_value),
            Test::OrderedBy(OrderedBy::Priority) => Ok(self.query.is_by_priority),
            Test::Const(_)
            | Test::Not(_)
            | Test::All(_)
            | Test::Any(_)
            | Test::Choose(_)
            | Test::Equal { .. }
            | Test::Exists(_)
            | Test::HasChildren(_)
            | Test::HasAll(..) => unreachable!("the caller has looked"),
        }
    }

    fn equal(&self, left: &'v Term, right: &'v Term) -> Result<bool, Fail> {
        match (left, right) {
            // The two commonest comparisons, without values in between.
            (Term::Val(place), Term::Text(wanted)) => {
                let leaf = self.place(place, 0)?.leaf();
                Ok(matches!(leaf, Some(Leaf::Text(text)) if text.as_str() == &**wanted))
            }
            (Term::Auth(names), Term::Null) => Ok(self.claim(names)?.is_null()),
            _ => {
                let (left, right) = (self.term(left)?, self.term(right)?);
                if let (Value::Text(left), Value::Text(right)) = (&left, &right)
                    && left.len() == right.len()
                {
                    self.charge(left.len())?;
                }
                equal(&left, &right)
            }
        }
    }

    /// A property of `auth`, or of its properties.
    fn claim(&self, names: &[Box<str>]) -> Result<&'v Json, Fail> {
        names.iter().try_fold(self.auth, |claim, name| claim_of(claim, name))
    }

    /// The place `up` levels above `place`.
    fn place(&self, place: &'v Place, up: usize) -> Result<Cursor<'v>, Fail> {
        let own_level = self.trail.len() - 1;
        match place {
            Place::Old(levels) => {
                let level = own_level.checked_sub(up + usize::from(*levels)).ok_or(Fail::AboveRoot)?;
                Ok(Cursor::Plain(old_at(self.trail, level)))
            }
            Place::New(levels) => {
                let level = own_level.checked_sub(up + usize::from(*levels)).ok_or(Fail::AboveRoot)?;
                Ok(new_at(self.trail, level))
            }
            Place::Root if up == 0 => Ok(Cursor::Plain(old_at(self.trail, 0))),
            Place::Root => Err(Fail::AboveRoot),
            Place::Below(parts) if up == 0 => {
                let cursor = self.place(&parts.0, 0)?;
                self.walk(cursor, &parts.1)
            }
            Place::Below(parts) => self.above(&parts.0, &parts.1, up),
            Place::Above(inner) => self.place(inner, up + 1),
            Place::Choose(parts) => {
                let chosen = if self.test(&parts.0)? { &parts.1 } else { &parts.2 };
                self.place(chosen, up)
            }
        }
    }

    /// `up` levels above the place that `steps` lead to from `base`.
    #[cold]
    fn above(&self, base: &'v Place, steps: &'v Steps, up: usize) -> Result<Cursor<'v>, Fail> {
        let computed;
        let keys: Vec<&str> = match steps {
            Steps::Fixed(keys) => keys.iter().map(|key| &**key).collect(),
            Steps::Computed(term) => {
                computed = self.term(term)?;
                computed.as_text()?.split('/').filter(|key| !key.is_empty()).collect()
            }
        };
        match keys.len().checked_sub(up) {
            Some(count) => {
                let cursor = self.place(base, 0)?;
                Ok(keys[..count].iter().fold(cursor, |cursor, key| cursor.child(key)))
            }
            None => self.place(base, up - keys.len()),
        }
    }

    fn walk(&self, cursor: Cursor<'v>, steps: &'v Steps) -> Result<Cursor<'v>, Fail> {
        match steps {
            Steps::Fixed(keys) => Ok(keys.iter().fold(cursor, |cursor, key| cursor.child(key))),
            Steps::Computed(term) => {
                let value = self.term(term)?;
                let path = value.as_text()?;
                self.charge(path.len())?;
                Ok(path.split('/').filter(|key| !key.is_empty()).fold(cursor, Cursor::child))
            }
        }
    }

    /// The value of a term.
    pub(super) fn term(&self, term: &'v Term) -> Result<Value<'v>, Fail> {
        Ok(match term {
            Term::Null => Value::Null,
            Term::Flag(test) => Value::Bool(self.test(test)?),
            Term::Number(value) => Value::Number(*value),
            Term::Text(text) => Value::Text(text),
            Term::Now => Value::Number(self.now),
            Term::Capture(level) => Value::Text(self.trail[usize::from(*level)].key),
            Term::Auth(names) => Value::of_json(self.claim(names)?),
            Term::Val(place) => {
                let cursor = self.place(place, 0)?;
                match cursor.leaf() {
                    Some(leaf) => Value::of_leaf(leaf),
                    None if cursor.exists() => Value::Tree,
                    None => Value::Null,
                }
            }
            _ => self.computed(term)?,
        })
    }

    /// The terms that are met less often, apart from the others so that those stay small.
    #[inline(never)]
    fn computed(&self, term: &'v Term) -> Result<Value<'v>, Fail> {
        Ok(match term {
            Term::Priority(place) => Value::of_priority(self.place(place, 0)?.priority()),
            Term::Length(inner) => {
                let value = self.term(inner)?;
                self.length(value.as_text()?)?
            }
            Term::Add(sides) => {
                let (left, right) = (self.term(&sides.0)?, self.term(&sides.1)?);
                self.add(&left, &right)?
            }
            Term::Arithmetic(operator, sides) => {
                let (left, right) = (self.term(&sides.0)?.as_number()?, self.term(&sides.1)?.as_number()?);
                Value::Number(arithmetic(*operator, left, right))
            }
            Term::Negate(inner) => Value::Number(-self.term(inner)?.as_number()?),
            Term::Query(asked) => self.asked(*asked),
            Term::Choose(parts) => self.term(if self.test(&parts.0)? { &parts.1 } else { &parts.2 })?,
            Term::Property(sides) => {
                let (claim, key) = (self.term(&sides.0)?, self.term(&sides.1)?);
                property(&claim, &key)?
            }
            Term::ClaimLength(inner) => match self.term(inner)? {
                Value::Claims(claims @ Json::Object(_)) => Value::of_json(claim_of(claims, "length")?),
                other => self.length(other.as_text()?)?,
            },
            Term::Replace(parts) => {
                let (text, from, to) = (self.term(&parts.0)?, self.term(&parts.1)?, self.term(&parts.2)?);
                self.replace(text.as_text()?, from.as_text()?, to.as_text()?)?
            }
            Term::Lower(inner) => self.built(self.term(inner)?.as_text()?, str::to_lowercase)?,
            Term::Upper(inner) => self.built(self.term(inner)?.as_text()?, str::to_uppercase)?,
            Term::Place(place) => {
                self.place(place, 0)?;
                Value::Odd
            }
            Term::Odd => Value::Odd,
            Term::Null
            | Term::Flag(_)
            | Term::Number(_)
            | Term::Text(_)
            | Term::Now
            | Term::Capture(_)
            | Term::Auth(_)
            | Term::Val(_) => unreachable!("the caller has looked"),
        })
    }

    fn asked(&self, asked: Asked) -> Value<'v> {
        let number = |count: Option<u32>| count.map_or(Value::Null, |count| Value::Number(count.into()));
        match asked {
            Asked::OrderByChild => self.query.child.map_or(Value::Null, Value::Text),
            Asked::StartAt => self.query.start.clone(),
            Asked::EndAt => self.query.end.clone(),
            Asked::EqualTo => self.query.equal.clone(),
            Asked::LimitToFirst => number(self.query.first),
            Asked::LimitToLast => number(self.query.last),
        }
    }

    fn order(&self, operator: Operator, left: &Value<'_>, right: &Value<'_>) -> Result<bool, Fail> {
        use std::cmp::Ordering as By;
        let by = match (left, right) {
            // NaN is neither less nor greater nor equal.
            (Value::Number(left), Value::Number(right)) => left.partial_cmp(right),
            _ => {
                let (left, right) = (left.as_text()?, right.as_text()?);
                self.charge(left.len().min(right.len()))?;
                Some(compare_text(left, right))
            }
        };
        Ok(match operator {
            Operator::Less => by == Some(By::Less),
            Operator::LessOrEqual => matches!(by, Some(By::Less | By::Equal)),
            Operator::Greater => by == Some(By::Greater),
            Operator::GreaterOrEqual => matches!(by, Some(By::Greater | By::Equal)),
            _ => unreachable!("the compiler orders by these four"),
        })
    }

    fn add(&self, left: &Value<'_>, right: &Value<'_>) -> Result<Value<'v>, Fail> {
        if let (Value::Number(left), Value::Number(right)) = (left, right) {
            return Ok(Value::Number(left + right));
        }
        let (mut left_buffer, mut right_buffer) = (ryu_js::Buffer::new(), ryu_js::Buffer::new());
        let (left, right) = match (left, right) {
            (Value::Number(number), text) => (left_buffer.format(*number), text.as_text()?),
            (text, Value::Number(number)) => (text.as_text()?, right_buffer.format(*number)),
            (left, right) => (left.as_text()?, right.as_text()?),
        };
        let length = left.len() + right.len();
        self.charge_built(length)?;
        let mut text = CompactString::with_capacity(length);
        text.push_str(left);
        text.push_str(right);
        Ok(Value::Built(text))
    }

    /// Every occurrence of `from`, which is plain text.
    fn replace(&self, text: &str, from: &str, to: &str) -> Result<Value<'v>, Fail> {
        self.charge(text.len())?;
        let count = text.matches(from).count();
        let length = text.len() - count * from.len();
        self.charge_built(
            count.checked_mul(to.len()).and_then(|more| more.checked_add(length)).ok_or(Fail::TextTooLong)?,
        )?;
        Ok(Value::Built(text.replace(from, to).into()))
    }

    fn built(&self, text: &str, change: fn(&str) -> String) -> Result<Value<'v>, Fail> {
        // A changed case takes at most three times the bytes.
        self.charge_built(text.len())?;
        Ok(Value::Built(change(text).into()))
    }

    /// In UTF-16 code units, as clients count.
    fn length(&self, text: &str) -> Result<Value<'v>, Fail> {
        self.charge(text.len())?;
        let units: usize = text.bytes().map(|byte| usize::from(byte & 0xc0 != 0x80) + usize::from(byte >= 0xf0)).sum();
        #[expect(clippy::cast_precision_loss, reason = "texts are shorter than 2^53")]
        let length = units as f64;
        Ok(Value::Number(length))
    }

    fn charge_built(&self, bytes: usize) -> Result<(), Fail> {
        if bytes > BUILT_BYTES_MAX {
            return Err(Fail::TextTooLong);
        }
        self.charge(bytes)
    }

    /// Pays for looking at so many bytes.
    fn charge(&self, bytes: usize) -> Result<(), Fail> {
        spend(self.budget, (bytes / STEP_BYTES) as u64)
    }
}

/// Takes steps from a budget.
pub(super) fn spend(budget: &Cell<u64>, steps: u64) -> Result<(), Fail> {
    let rest = budget.get().checked_sub(steps);
    budget.set(rest.unwrap_or(0));
    rest.map(|_| ()).ok_or(Fail::OutOfSteps)
}

fn equal(left: &Value<'_>, right: &Value<'_>) -> Result<bool, Fail> {
    use Value as V;
    Ok(match (left, right) {
        (V::Odd, _) | (_, V::Odd) => return Err(Fail::Type),
        (V::Tree | V::Claims(_), V::Tree | V::Claims(_)) => return Err(Fail::Incomparable),
        (V::Null, V::Null) => true,
        (V::Bool(left), V::Bool(right)) => left == right,
        #[expect(clippy::float_cmp, reason = "this is the language's own comparison of doubles")]
        (V::Number(left), V::Number(right)) => left == right,
        (V::Text(_) | V::Built(_), V::Text(_) | V::Built(_)) => left.as_text()? == right.as_text()?,
        _ => false,
    })
}

fn arithmetic(operator: Operator, left: f64, right: f64) -> f64 {
    match operator {
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        // Never infinite: the original yields NaN.
        Operator::Divide if right == 0.0 => f64::NAN,
        Operator::Divide => left / right,
        Operator::Remainder => left % right,
        _ => unreachable!("the compiler computes with these four"),
    }
}

static NO_CLAIM: Json = Json::Null;

/// A property of a claim. Nothing has nothing, at any depth; a primitive has no properties.
fn claim_of<'v>(claim: &'v Json, name: &str) -> Result<&'v Json, Fail> {
    match claim {
        Json::Null => Ok(&NO_CLAIM),
        Json::Object(claims) => Ok(claims.get(name).unwrap_or(&NO_CLAIM)),
        _ => Err(Fail::Type),
    }
}

/// `claim[key]`: of an object by text or number, of a list by number.
fn property<'v>(claim: &Value<'v>, key: &Value<'_>) -> Result<Value<'v>, Fail> {
    let mut buffer = ryu_js::Buffer::new();
    let name = match key {
        Value::Number(number) => buffer.format(*number),
        other => other.as_text()?,
    };
    match (claim, key) {
        (Value::Null, _) => Ok(Value::Null),
        (Value::Claims(claims @ Json::Object(_)), _) => Ok(Value::of_json(claim_of(claims, name)?)),
        // Whatever is no whole number of at least 0 is not the place of an element.
        (Value::Claims(Json::Array(list)), Value::Number(_)) => {
            let element = name.parse().ok().and_then(|index: usize| list.get(index));
            Ok(element.map_or(Value::Null, Value::of_json))
        }
        _ => Err(Fail::Type),
    }
}

/// Texts up to this length are computed before they are needed.
const FOLDED_BYTES_MAX: usize = 1024;

/// Evaluates what depends on nothing.
pub(super) fn fold(test: Test) -> Test {
    let is_constant = match &test {
        Test::Not(inner) => matches!(**inner, Test::Const(_)),
        Test::Equal { sides, .. } | Test::Order(_, sides) | Test::Find(_, sides) => {
            is_literal(&sides.0) && is_literal(&sides.1)
        }
        Test::Matches(term, _) => is_literal(term),
        Test::Choose(parts) => matches!(parts.0, Test::Const(_)),
        _ => false,
    };
    match test {
        Test::Choose(parts) if is_constant => {
            let (condition, yes, no) = *parts;
            if matches!(condition, Test::Const(true)) { yes } else { no }
        }
        // A constant that cannot be evaluated stays and fails whenever it is reached.
        test if is_constant => constant(&test, |scene, test| scene.test(test).ok()).map_or(test, Test::Const),
        test => test,
    }
}

/// Evaluates what depends on nothing.
pub(super) fn fold_term(term: Term) -> Term {
    let is_constant = match &term {
        Term::Length(inner) | Term::Negate(inner) | Term::Lower(inner) | Term::Upper(inner) => is_literal(inner),
        Term::Add(sides) | Term::Arithmetic(_, sides) => is_literal(&sides.0) && is_literal(&sides.1),
        Term::Replace(parts) => is_literal(&parts.0) && is_literal(&parts.1) && is_literal(&parts.2),
        Term::Choose(parts) => matches!(parts.0, Test::Const(_)),
        _ => false,
    };
    match term {
        Term::Choose(parts) if is_constant => {
            let (condition, yes, no) = *parts;
            if matches!(condition, Test::Const(true)) { yes } else { no }
        }
        term if is_constant => constant(&term, |scene, term| scene.term(term).ok().and_then(literal)).unwrap_or(term),
        term => term,
    }
}

/// A list of `&&`: what is true does not matter, and nothing matters behind what is false.
pub(super) fn fold_all(list: Vec<Test>) -> Test {
    fold_list(list, true).unwrap_or_else(|list| Test::All(list.into()))
}

/// A list of `||`, likewise.
pub(super) fn fold_any(list: Vec<Test>) -> Test {
    fold_list(list, false).unwrap_or_else(|list| Test::Any(list.into()))
}

fn fold_list(mut list: Vec<Test>, neutral: bool) -> Result<Test, Vec<Test>> {
    list.retain(|test| !matches!(test, Test::Const(value) if *value == neutral));
    if let Some(end) = list.iter().position(|test| matches!(test, Test::Const(_))) {
        list.truncate(end + 1);
    }
    if list.is_empty() {
        return Ok(Test::Const(neutral));
    }
    if list.len() == 1 { Ok(list.remove(0)) } else { Err(list) }
}

fn is_literal(term: &Term) -> bool {
    match term {
        Term::Null | Term::Number(_) | Term::Text(_) => true,
        Term::Flag(test) => matches!(**test, Test::Const(_)),
        _ => false,
    }
}

fn literal(value: Value<'_>) -> Option<Term> {
    Some(match value {
        Value::Null => Term::Null,
        Value::Bool(value) => Term::Flag(Box::new(Test::Const(value))),
        Value::Number(value) => Term::Number(value),
        Value::Text(text) if text.len() <= FOLDED_BYTES_MAX => Term::Text(text.into()),
        Value::Built(text) if text.len() <= FOLDED_BYTES_MAX => Term::Text(text.as_str().into()),
        Value::Text(_) | Value::Built(_) | Value::Claims(_) | Value::Tree | Value::Odd => return None,
    })
}

/// Evaluates in a scene where there is nothing to look at.
fn constant<'v, T, R>(what: &'v T, evaluate: impl FnOnce(Scene<'_, 'v>, &'v T) -> R) -> R {
    static NOTHING: Node = Node::Empty;
    let trail = [Stop::root(&NOTHING, Cursor::Plain(&NOTHING))];
    let budget = Cell::new(1 << 20);
    let scene = Scene { auth: &NO_CLAIM, now: 0.0, query: &Asking::NOTHING, trail: &trail, budget: &budget };
    evaluate(scene, what)
}

/// A time as rules see it.
#[expect(clippy::cast_precision_loss, reason = "the clock is far below 2^53 milliseconds")]
pub(super) const fn millis(wall: crate::base::WallMillis) -> f64 {
    wall.0 as f64
}
