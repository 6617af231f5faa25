//! Compiled expressions: three kinds of trees, by what they yield.
//!
//! The surprising idea: the static types of the language already tell truths from places from values,
//! so each kind has its own tree and its own evaluator, and most run-time type checks are gone before
//! anything runs. A place needs no pointer to its parent: `parent()` takes a step off the way down to
//! it, or a level off the rule's own place.

use regex::Regex;

use super::parse::Operator;

/// What is true or false.
#[derive(Debug)]
pub(super) enum Test {
    Const(bool),
    Not(Box<Self>),
    All(Box<[Self]>),
    Any(Box<[Self]>),
    Choose(Box<(Self, Self, Self)>),
    /// `==` and `!=`
    Equal {
        is_wanted: bool,
        sides: Box<(Term, Term)>,
    },
    /// `<`, `<=`, `>`, `>=`
    Order(Operator, Box<(Term, Term)>),
    Exists(Place),
    HasChildren(Place),
    HasAll(Place, Box<[Steps]>),
    IsText(Place),
    IsNumber(Place),
    IsBool(Place),
    Find(Find, Box<(Term, Term)>),
    Matches(Box<Term>, Box<Regex>),
    OrderedBy(OrderedBy),
}

/// Where one text is looked for in another.
#[derive(Clone, Copy, Debug)]
pub(super) enum Find {
    Anywhere,
    AtStart,
    AtEnd,
}

/// The true-or-false properties of `query`.
#[derive(Clone, Copy, Debug)]
pub(super) enum OrderedBy {
    Key,
    Value,
    Priority,
}

/// What is a place in a tree: a snapshot.
#[derive(Debug)]
pub(super) enum Place {
    /// The rule's own place in the old tree, so many levels up.
    Old(u8),
    /// The same in the new tree.
    New(u8),
    Root,
    Below(Box<(Self, Steps)>),
    /// `parent()`
    Above(Box<Self>),
    Choose(Box<(Test, Self, Self)>),
}

/// The way down from a place.
#[derive(Debug)]
pub(super) enum Steps {
    Fixed(Box<[Box<str>]>),
    Computed(Term),
}

/// What is a value, known only when evaluated.
#[derive(Debug)]
pub(super) enum Term {
    Null,
    Flag(Box<Test>),
    Number(f64),
    Text(Box<str>),
    Now,
    /// A `$` variable: the key of the path's node at this level (the root is level 0).
    Capture(u8),
    /// `auth` and a chain of its properties.
    Auth(Box<[Box<str>]>),
    /// `claim[index]`, `claim.name`
    Property(Box<(Self, Self)>),
    /// `claim.length`: a text's length, or the claim of that name.
    ClaimLength(Box<Self>),
    Length(Box<Self>),
    Val(Place),
    Priority(Place),
    Add(Box<(Self, Self)>),
    Arithmetic(Operator, Box<(Self, Self)>),
    Negate(Box<Self>),
    Replace(Box<(Self, Self, Self)>),
    Lower(Box<Self>),
    Upper(Box<Self>),
    Query(Asked),
    Choose(Box<(Test, Self, Self)>),
    /// A place where a value is wanted; nothing can be done with it.
    Place(Box<Place>),
    /// Something else that is no value: a regular expression, a method, `query`.
    Odd,
}

/// The other properties of `query`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    OrderByChild,
    StartAt,
    EndAt,
    EqualTo,
    LimitToFirst,
    LimitToLast,
}

/// What an expression looks at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Survey {
    /// Operations: an upper bound of one evaluation's steps, texts aside.
    pub cost: u32,
    /// The smallest level of the tree that is looked into; `None`: the tree does not matter.
    pub reach: Option<u8>,
    /// Whether the tree *before* the write is looked at.
    pub needs_old: bool,
    /// Whether `new` is looked at.
    pub needs_new: bool,
}

impl Survey {
    /// Surveys the expression of a rule `level` levels below the root.
    pub(super) fn of(test: &Test, level: u8) -> Self {
        let mut survey = Self::default();
        survey.test(test, level);
        survey
    }

    fn look(&mut self, level: u8) {
        self.reach = Some(self.reach.map_or(level, |reach| reach.min(level)));
    }

    fn test(&mut self, test: &Test, level: u8) {
        self.cost += 1;
        match test {
            Test::Const(_) | Test::OrderedBy(_) => {}
            Test::Not(inner) => self.test(inner, level),
            Test::All(list) | Test::Any(list) => list.iter().for_each(|test| self.test(test, level)),
            Test::Choose(parts) => {
                self.test(&parts.0, level);
                self.test(&parts.1, level);
                self.test(&parts.2, level);
            }
            Test::Equal { sides, .. } | Test::Order(_, sides) | Test::Find(_, sides) => {
                self.term(&sides.0, level);
                self.term(&sides.1, level);
            }
            Test::Exists(place)
            | Test::HasChildren(place)
            | Test::IsText(place)
            | Test::IsNumber(place)
            | Test::IsBool(place) => self.place(place, level),
            Test::HasAll(place, list) => {
                self.place(place, level);
                list.iter().for_each(|steps| self.steps(steps, level));
            }
            Test::Matches(term, _) => self.term(term, level),
        }
    }

    fn place(&mut self, place: &Place, level: u8) {
        self.cost += 1;
        match place {
            Place::Old(up) => {
                self.needs_old = true;
                self.look(level.saturating_sub(*up));
            }
            Place::New(up) => {
                self.needs_new = true;
                self.look(level.saturating_sub(*up));
            }
            Place::Root => {
                self.needs_old = true;
                self.look(0);
            }
            // One level too many where the place below is not the rule's own: a bound is enough.
            Place::Above(inner) => self.place(inner, level.saturating_sub(1)),
            Place::Below(parts) => {
                self.place(&parts.0, level);
                self.steps(&parts.1, level);
            }
            Place::Choose(parts) => {
                self.test(&parts.0, level);
                self.place(&parts.1, level);
                self.place(&parts.2, level);
            }
        }
    }

    fn steps(&mut self, steps: &Steps, level: u8) {
        match steps {
            Steps::Fixed(keys) => self.cost += u32::try_from(keys.len()).unwrap_or(u32::MAX),
            Steps::Computed(term) => self.term(term, level),
        }
    }

    fn term(&mut self, term: &Term, level: u8) {
        self.cost += 1;
        match term {
            Term::Null
            | Term::Number(_)
            | Term::Text(_)
            | Term::Now
            | Term::Capture(_)
            | Term::Query(_)
            | Term::Odd => {}
            Term::Auth(names) => self.cost += u32::try_from(names.len()).unwrap_or(u32::MAX),
            Term::Flag(test) => self.test(test, level),
            Term::Val(place) | Term::Priority(place) => self.place(place, level),
            Term::Place(place) => self.place(place.as_ref(), level),
            Term::ClaimLength(inner)
            | Term::Length(inner)
            | Term::Negate(inner)
            | Term::Lower(inner)
            | Term::Upper(inner) => self.term(inner, level),
            Term::Property(sides) | Term::Add(sides) | Term::Arithmetic(_, sides) => {
                self.term(&sides.0, level);
                self.term(&sides.1, level);
            }
            Term::Replace(parts) => {
                self.term(&parts.0, level);
                self.term(&parts.1, level);
                self.term(&parts.2, level);
            }
            Term::Choose(parts) => {
                self.test(&parts.0, level);
                self.term(&parts.1, level);
                self.term(&parts.2, level);
            }
        }
    }
}
