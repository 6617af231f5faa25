//! Syntax trees to compiled expressions: the static type check and the translation, in one pass.
//!
//! The types and the texts of mistakes are the original's (rules specification, section 1.7): the
//! first mistake in reading order is the one that is told.

use super::code::{Asked, Find, OrderedBy, Place, Steps, Survey, Term, Test};
use super::error::Mistake;
use super::eval;
use super::parse::{Ast, Kind, Operator};
use super::pattern;
use super::ruleset::{Dialect, Verb};

/// What is known of an expression's value before it is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Boolean,
    Number,
    Text,
    Null,
    Regex,
    Snapshot,
    /// A method that is named and not called.
    Method,
    /// Of `val()` and `getPriority()`.
    Value,
    /// `auth`, and every property of it.
    Auth,
    Query,
    QueryValue,
    Mixed,
}

impl Type {
    const fn is_comparable(self) -> bool {
        !matches!(self, Self::Regex | Self::Snapshot | Self::Method | Self::Query)
    }

    const fn is_ordered(self) -> bool {
        self.is_text() || matches!(self, Self::Number | Self::QueryValue)
    }

    const fn is_number(self) -> bool {
        matches!(self, Self::Number | Self::Value | Self::Auth | Self::QueryValue | Self::Mixed)
    }

    const fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::Value | Self::Auth | Self::Mixed)
    }
}

/// A translated part of an expression.
struct Typed {
    kind: Type,
    code: Code,
}

enum Code {
    Test(Test),
    Place(Place),
    Term(Term),
    /// The variable `query` itself.
    Query,
    /// Nothing that can be evaluated.
    Odd,
}

impl Typed {
    const fn test(test: Test) -> Self {
        Self { kind: Type::Boolean, code: Code::Test(test) }
    }

    const fn term(kind: Type, term: Term) -> Self {
        Self { kind, code: Code::Term(term) }
    }

    const fn place(place: Place) -> Self {
        Self { kind: Type::Snapshot, code: Code::Place(place) }
    }

    const fn odd(kind: Type) -> Self {
        Self { kind, code: Code::Odd }
    }

    /// Wherever a value is wanted, whatever the type.
    fn into_term(self) -> Term {
        match self.code {
            Code::Term(term) => term,
            Code::Test(Test::Const(value)) => Term::Flag(Box::new(Test::Const(value))),
            Code::Test(test) => Term::Flag(Box::new(test)),
            Code::Place(place) => Term::Place(Box::new(place)),
            Code::Query | Code::Odd => Term::Odd,
        }
    }
}

/// Where an expression stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'s> {
    /// Of which kind of rule it is.
    pub verb: Verb,
    /// The `$` variables, and at which level of the path each is bound.
    pub captures: &'s [(String, u8)],
    /// Levels of the rule's node below the root.
    pub level: u8,
    /// What is allowed beyond the common language.
    pub dialect: Dialect,
}

/// A rule's expression, ready to run.
#[derive(Debug)]
pub(super) struct Compiled {
    pub test: Test,
    pub survey: Survey,
    /// What should be looked at, and where in the expression.
    pub warnings: Vec<Mistake>,
}

/// Checks and translates an expression.
pub(super) fn compile(ast: &Ast, scope: Scope<'_>) -> Result<Compiled, Mistake> {
    let mut compiler = Compiler { scope, warnings: Vec::new() };
    let typed = compiler.expression(ast)?;
    let Code::Test(test) = typed.code else {
        return Err(Mistake::new(ast.at, "Expression must evaluate to a boolean."));
    };
    let survey = Survey::of(&test, scope.level);
    Ok(Compiled { test, survey, warnings: compiler.warnings })
}

struct Compiler<'s> {
    scope: Scope<'s>,
    warnings: Vec<Mistake>,
}

type Checked = Result<Typed, Mistake>;

const NO_OBJECT: &str = "Invalid property access: target is not an object.";
const NO_ACCESS: &str = "Invalid property access.";
const NO_FUNCTION: &str = "Type error: Function call on target that is not a function.";

impl Compiler<'_> {
    fn expression(&mut self, ast: &Ast) -> Checked {
        Ok(match &ast.kind {
            Kind::Null => Typed::term(Type::Null, Term::Null),
            Kind::Bool(value) => Typed::test(Test::Const(*value)),
            Kind::Number(value) => Typed::term(Type::Number, Term::Number(*value)),
            Kind::Text(text) => Typed::term(Type::Text, Term::Text(text.as_str().into())),
            Kind::Regex { source, ignores_case } => {
                // Compiled where it is used; here only its mistakes count.
                self.regex(ast.at, source, *ignores_case)?;
                Typed::odd(Type::Regex)
            }
            Kind::Array(_) => return Err(Mistake::new(ast.at, "Unexpected array literal.")),
            Kind::Name(name) => self.variable(ast.at, name)?,
            Kind::Member(target, name) => self.member(ast.at, target, name)?,
            Kind::Index(target, index) => self.index(ast.at, target, index)?,
            Kind::Call(callee, arguments) => self.call(ast.at, callee, arguments)?,
            Kind::Not(operand) => match self.expression(operand)?.code {
                Code::Test(test) => Typed::test(eval::fold(Test::Not(Box::new(test)))),
                _ => return Err(Mistake::new(operand.at, "! only operates on booleans.")),
            },
            Kind::Negate(operand) => {
                let typed = self.expression(operand)?;
                if !typed.kind.is_number() {
                    return Err(Mistake::new(operand.at, "- only operates on numbers."));
                }
                Typed::term(Type::Number, eval::fold_term(Term::Negate(Box::new(typed.into_term()))))
            }
            Kind::All(list) => Typed::test(eval::fold_all(self.list(list, Operator::And)?)),
            Kind::Any(list) => Typed::test(eval::fold_any(self.list(list, Operator::Or)?)),
            Kind::Binary(operator, sides) => self.binary(*operator, &sides.0, &sides.1)?,
            Kind::Choose(parts) => self.choose(&parts.0, &parts.1, &parts.2)?,
        })
    }

    fn variable(&self, at: usize, name: &str) -> Checked {
        let unknown = || Mistake::new(at, format!("Unknown variable '{name}'."));
        if name.starts_with('$') {
            let bound = self.scope.captures.iter().find(|(capture, _)| capture == name);
            let (_, level) = bound.ok_or_else(unknown)?;
            return Ok(Typed::term(Type::Text, Term::Capture(*level)));
        }
        Ok(match name {
            "auth" => Typed::term(Type::Auth, Term::Auth(Box::default())),
            "data" => Typed::place(Place::Old(0)),
            "newData" if self.scope.verb == Verb::Read => {
                return Err(Mistake::new(at, "newData is invalid in .read expressions."));
            }
            "newData" => Typed::place(Place::New(0)),
            "root" => Typed::place(Place::Root),
            "now" => Typed::term(Type::Number, Term::Now),
            "query" => Typed { kind: Type::Query, code: Code::Query },
            _ => return Err(unknown()),
        })
    }

    /// `target.name`, not called.
    fn member(&mut self, at: usize, target: &Ast, name: &str) -> Checked {
        let typed = self.expression(target)?;
        let unknown = || Mistake::new(at, format!("No such method/property '{name}'."));
        match typed.kind {
            Type::Snapshot if self.snapshot_method(name).is_some() => Ok(Typed::odd(Type::Method)),
            Type::Text | Type::Value if name == "length" => {
                Ok(Typed::term(Type::Number, eval::fold_term(Term::Length(Box::new(typed.into_term())))))
            }
            Type::Text | Type::Value | Type::Auth if self.text_method(name).is_some() => Ok(Typed::odd(Type::Method)),
            Type::Snapshot | Type::Text | Type::Value => Err(unknown()),
            Type::Auth if name == "length" => {
                Ok(Typed::term(Type::Auth, Term::ClaimLength(Box::new(typed.into_term()))))
            }
            Type::Auth => Ok(Typed::term(Type::Auth, property(typed.into_term(), name))),
            Type::Query => {
                let Some((kind, code)) = query_property(name) else { return Err(unknown()) };
                // Only the variable itself has properties: what chose it could fail.
                if !matches!(typed.code, Code::Query) {
                    return Err(Mistake::new(at, NO_OBJECT));
                }
                Ok(Typed { kind, code })
            }
            _ => Err(Mistake::new(at, NO_OBJECT)),
        }
    }

    /// `target[index]`: with a text literal the same as `target.name`.
    fn index(&mut self, at: usize, target: &Ast, index: &Ast) -> Checked {
        if let Kind::Text(name) = &index.kind {
            return self.member(at, target, name);
        }
        let typed = self.expression(target)?;
        let key = self.expression(index)?;
        let is_key = key.kind.is_text() || key.kind.is_number();
        if typed.kind != Type::Auth || !is_key {
            return Err(Mistake::new(at, NO_ACCESS));
        }
        let sides = (typed.into_term(), key.into_term());
        Ok(Typed::term(Type::Auth, Term::Property(Box::new(sides))))
    }

    fn call(&mut self, at: usize, callee: &Ast, arguments: &[Ast]) -> Checked {
        let (target, name) = match &callee.kind {
            Kind::Member(target, name) => (target, name.as_str()),
            Kind::Index(target, index) if matches!(index.kind, Kind::Text(_)) => match &index.kind {
                Kind::Text(name) => (target, name.as_str()),
                _ => unreachable!("the guard has looked"),
            },
            _ => {
                self.expression(callee)?;
                return Err(Mistake::new(at, NO_FUNCTION));
            }
        };
        let typed = self.expression(target)?;
        let call = Call { at, name, arguments };
        match (typed.kind, typed.code) {
            (Type::Snapshot, Code::Place(place)) => match self.snapshot_method(name) {
                Some(method) => self.call_snapshot(method, place, &call),
                None => Err(Mistake::new(at, format!("No such method/property '{name}'."))),
            },
            (kind @ (Type::Text | Type::Value | Type::Auth), Code::Term(term)) => match self.text_method(name) {
                Some(method) => self.call_text(method, term, &call),
                None if kind == Type::Auth || name == "length" => Err(Mistake::new(at, NO_FUNCTION)),
                None => Err(Mistake::new(at, format!("No such method/property '{name}'."))),
            },
            (Type::Query, _) if query_property(name).is_some() => Err(Mistake::new(at, NO_FUNCTION)),
            (Type::Query, _) => Err(Mistake::new(at, format!("No such method/property '{name}'."))),
            _ => Err(Mistake::new(at, NO_OBJECT)),
        }
    }

    fn snapshot_method(&self, name: &str) -> Option<SnapshotMethod> {
        use SnapshotMethod as M;
        Some(match name {
            "val" => M::Val,
            "exists" => M::Exists,
            "isString" => M::IsString,
            "isNumber" => M::IsNumber,
            "isBoolean" => M::IsBoolean,
            "parent" => M::Parent,
            "getPriority" => M::GetPriority,
            "child" => M::Child,
            "hasChild" => M::HasChild,
            "hasChildren" => M::HasChildren,
            // The oldest pages of Wilddog's manual.
            "exist" if self.scope.dialect.has_wilddog() => M::Exists,
            _ => return None,
        })
    }

    fn text_method(&self, name: &str) -> Option<TextMethod> {
        use TextMethod as M;
        let has_wilddog = self.scope.dialect.has_wilddog();
        Some(match name {
            "contains" => M::Find(Find::Anywhere),
            "beginsWith" => M::Find(Find::AtStart),
            "endsWith" => M::Find(Find::AtEnd),
            "replace" => M::Replace,
            "toLowerCase" => M::Lower,
            "toUpperCase" => M::Upper,
            "matches" => M::Matches,
            "startsWith" if has_wilddog => M::Find(Find::AtStart),
            "length" if has_wilddog => M::Length,
            _ => return None,
        })
    }

    fn call_snapshot(&mut self, method: SnapshotMethod, place: Place, call: &Call<'_>) -> Checked {
        use SnapshotMethod as M;
        match method {
            M::Child | M::HasChild => {
                let [argument] = call.arguments else {
                    return Err(call.mistake("expects 1 argument."));
                };
                let steps = steps(self.text_argument(argument, call)?);
                Ok(match method {
                    M::Child => Typed::place(below(place, steps)),
                    _ => Typed::test(Test::Exists(below(place, steps))),
                })
            }
            M::HasChildren => self.has_children(place, call),
            _ if !call.arguments.is_empty() => Err(call.mistake("expects no arguments.")),
            M::Val => Ok(Typed::term(Type::Value, Term::Val(place))),
            M::GetPriority => Ok(Typed::term(Type::Value, Term::Priority(place))),
            M::Exists => Ok(Typed::test(Test::Exists(place))),
            M::IsString => Ok(Typed::test(Test::IsText(place))),
            M::IsNumber => Ok(Typed::test(Test::IsNumber(place))),
            M::IsBoolean => Ok(Typed::test(Test::IsBool(place))),
            M::Parent => Ok(Typed::place(self.above(place))),
        }
    }

    fn has_children(&mut self, place: Place, call: &Call<'_>) -> Checked {
        let argument = match call.arguments {
            [] => return Ok(Typed::test(Test::HasChildren(place))),
            [argument] => argument,
            _ => return Err(call.mistake("expects only a single argument (containing an array of child names).")),
        };
        let Kind::Array(elements) = &argument.kind else {
            self.expression(argument)?;
            return Err(call.mistake_at(argument, "expects an array of child names."));
        };
        let mut list = Vec::with_capacity(elements.len());
        for element in elements {
            let typed = self.expression(element)?;
            if !typed.kind.is_text() {
                return Err(call.mistake_at(element, "expects an array of strings."));
            }
            list.push(steps(typed.into_term()));
        }
        Ok(Typed::test(Test::HasAll(place, list.into())))
    }

    fn call_text(&mut self, method: TextMethod, text: Term, call: &Call<'_>) -> Checked {
        use TextMethod as M;
        match (method, call.arguments) {
            (M::Find(find), [argument]) => {
                let wanted = self.text_argument(argument, call)?;
                Ok(Typed::test(eval::fold(Test::Find(find, Box::new((text, wanted))))))
            }
            (M::Find(_), _) => Err(call.mistake("expects 1 argument.")),
            (M::Matches, [argument]) => self.matches(text, argument, call),
            (M::Matches, _) => Err(call.mistake("expects 1 regular expression literal argument.")),
            (M::Replace, [from, to]) => {
                let from_term = self.replace_argument(from, 1)?;
                let to_term = self.replace_argument(to, 2)?;
                Ok(Typed::term(Type::Text, eval::fold_term(Term::Replace(Box::new((text, from_term, to_term))))))
            }
            (M::Replace, _) => Err(call.mistake("expects two arguments.")),
            (M::Lower, []) => Ok(Typed::term(Type::Text, eval::fold_term(Term::Lower(Box::new(text))))),
            (M::Upper, []) => Ok(Typed::term(Type::Text, eval::fold_term(Term::Upper(Box::new(text))))),
            (M::Length, []) => Ok(Typed::term(Type::Number, eval::fold_term(Term::Length(Box::new(text))))),
            (M::Lower | M::Upper | M::Length, _) => Err(call.mistake("expects no arguments.")),
        }
    }

    fn matches(&mut self, text: Term, argument: &Ast, call: &Call<'_>) -> Checked {
        let regex = match &argument.kind {
            Kind::Regex { source, ignores_case } => self.regex(argument.at, source, *ignores_case)?,
            Kind::Text(source) if self.scope.dialect.has_wilddog() => self.regex(argument.at, source, false)?,
            _ => {
                self.expression(argument)?;
                return Err(call.mistake_at(argument, "expects a regular expression literal argument."));
            }
        };
        Ok(Typed::test(eval::fold(Test::Matches(Box::new(text), Box::new(regex)))))
    }

    fn regex(&mut self, at: usize, source: &str, ignores_case: bool) -> Result<regex::Regex, Mistake> {
        let compiled = pattern::compile(source, ignores_case).map_err(|text| Mistake::new(at, text))?;
        self.warnings.extend(compiled.warnings.into_iter().map(|text| Mistake::new(at, text)));
        Ok(compiled.regex)
    }

    fn text_argument(&mut self, argument: &Ast, call: &Call<'_>) -> Result<Term, Mistake> {
        let typed = self.expression(argument)?;
        if !typed.kind.is_text() {
            return Err(call.mistake_at(argument, "expects a string argument."));
        }
        Ok(typed.into_term())
    }

    fn replace_argument(&mut self, argument: &Ast, number: usize) -> Result<Term, Mistake> {
        let typed = self.expression(argument)?;
        if !typed.kind.is_text() {
            return Err(Mistake::new(argument.at, format!("Argument {number} of replace() must be a string.")));
        }
        Ok(typed.into_term())
    }

    fn above(&self, place: Place) -> Place {
        match place {
            Place::Old(up) if up < self.scope.level => Place::Old(up + 1),
            Place::New(up) if up < self.scope.level => Place::New(up + 1),
            other => Place::Above(Box::new(other)),
        }
    }

    /// The operands of `&&` or `||`; at least two.
    fn list(&mut self, list: &[Ast], operator: Operator) -> Result<Vec<Test>, Mistake> {
        let boolean = |typed: Typed, side: &str, ast: &Ast| match typed.code {
            Code::Test(test) => Ok(test),
            _ => Err(Mistake::new(ast.at, format!("{side} operand of {} must be boolean.", operator.as_str()))),
        };
        let [left_ast, right_ast, more @ ..] = list else { unreachable!("an operator has two sides") };
        // Both sides are read before either is judged.
        let left = self.expression(left_ast)?;
        let right = self.expression(right_ast)?;
        let mut tests = vec![boolean(left, "Left", left_ast)?, boolean(right, "Right", right_ast)?];
        for ast in more {
            let typed = self.expression(ast)?;
            tests.push(boolean(typed, "Right", ast)?);
        }
        Ok(tests)
    }

    fn binary(&mut self, operator: Operator, left_ast: &Ast, right_ast: &Ast) -> Checked {
        use Operator as O;
        let left = self.expression(left_ast)?;
        let right = self.expression(right_ast)?;
        let is_allowed = match operator {
            O::Equal | O::NotEqual => Type::is_comparable,
            O::Less | O::LessOrEqual | O::Greater | O::GreaterOrEqual | O::Add => Type::is_ordered,
            _ => Type::is_number,
        };
        for (side, kind, ast) in [("left", left.kind, left_ast), ("right", right.kind, right_ast)] {
            if !is_allowed(kind) {
                let name = operator.as_str();
                let wanted = match operator {
                    // Word for word, with its missing "or".
                    O::Equal if side == "left" => "is not a number, boolean, string, null.",
                    O::Equal | O::NotEqual => "is not a number, boolean, string, or null.",
                    O::Less | O::LessOrEqual | O::Greater | O::GreaterOrEqual => "must be a number or string.",
                    O::Add => "is not a number or string.",
                    _ => "is not a number.",
                };
                return Err(Mistake::new(ast.at, format!("Invalid {name} expression: {side} operand {wanted}")));
            }
        }
        let sum = match (left.kind, right.kind) {
            (Type::Text, _) | (_, Type::Text) => Type::Text,
            (Type::Number, Type::Number) => Type::Number,
            _ => Type::Value,
        };
        let sides = Box::new((left.into_term(), right.into_term()));
        Ok(match operator {
            O::Equal | O::NotEqual => Typed::test(eval::fold(Test::Equal { is_wanted: operator == O::Equal, sides })),
            O::Less | O::LessOrEqual | O::Greater | O::GreaterOrEqual => {
                Typed::test(eval::fold(Test::Order(operator, sides)))
            }
            O::Add => Typed::term(sum, eval::fold_term(Term::Add(sides))),
            _ => Typed::term(Type::Number, eval::fold_term(Term::Arithmetic(operator, sides))),
        })
    }

    fn choose(&mut self, condition_ast: &Ast, yes_ast: &Ast, no_ast: &Ast) -> Checked {
        let Code::Test(condition) = self.expression(condition_ast)?.code else {
            return Err(Mistake::new(condition_ast.at, "condition of ? must be boolean."));
        };
        let yes = self.expression(yes_ast)?;
        let no = self.expression(no_ast)?;
        let is_loose = |kind| matches!(kind, Type::Text | Type::Value | Type::Auth);
        let kind = match (yes.kind, no.kind) {
            (yes, no) if yes == no => yes,
            (yes, no) if is_loose(yes) || is_loose(no) => Type::Value,
            _ => Type::Mixed,
        };
        Ok(match (yes, no) {
            (Typed { code: Code::Test(yes), .. }, Typed { code: Code::Test(no), .. }) => {
                Typed::test(eval::fold(Test::Choose(Box::new((condition, yes, no)))))
            }
            (Typed { code: Code::Place(yes), .. }, Typed { code: Code::Place(no), .. }) => {
                Typed::place(Place::Choose(Box::new((condition, yes, no))))
            }
            (Typed { code: Code::Query | Code::Odd, .. }, _)
                if matches!(kind, Type::Regex | Type::Method | Type::Query) =>
            {
                Typed::odd(kind)
            }
            (yes, no) => {
                let parts = (condition, yes.into_term(), no.into_term());
                Typed::term(kind, eval::fold_term(Term::Choose(Box::new(parts))))
            }
        })
    }
}

/// A call, as its mistakes name it.
struct Call<'a> {
    at: usize,
    name: &'a str,
    arguments: &'a [Ast],
}

impl Call<'_> {
    fn mistake(&self, what: &str) -> Mistake {
        Mistake::new(self.at, format!("{}() {what}", self.name))
    }

    fn mistake_at(&self, argument: &Ast, what: &str) -> Mistake {
        Mistake::new(argument.at, format!("{}() {what}", self.name))
    }
}

#[derive(Clone, Copy)]
enum SnapshotMethod {
    Val,
    Exists,
    IsString,
    IsNumber,
    IsBoolean,
    Parent,
    GetPriority,
    Child,
    HasChild,
    HasChildren,
}

#[derive(Clone, Copy)]
enum TextMethod {
    Find(Find),
    Replace,
    Lower,
    Upper,
    Matches,
    Length,
}

fn query_property(name: &str) -> Option<(Type, Code)> {
    let flag = |by| (Type::Boolean, Code::Test(Test::OrderedBy(by)));
    let value = |asked| (Type::QueryValue, Code::Term(Term::Query(asked)));
    Some(match name {
        "orderByKey" => flag(OrderedBy::Key),
        "orderByValue" => flag(OrderedBy::Value),
        "orderByPriority" => flag(OrderedBy::Priority),
        "orderByChild" => value(Asked::OrderByChild),
        "startAt" => value(Asked::StartAt),
        "endAt" => value(Asked::EndAt),
        "equalTo" => value(Asked::EqualTo),
        "limitToFirst" => value(Asked::LimitToFirst),
        "limitToLast" => value(Asked::LimitToLast),
        _ => return None,
    })
}

/// A property of a claim; chains from `auth` are one term.
fn property(claim: Term, name: &str) -> Term {
    match claim {
        Term::Auth(names) => {
            let mut names = names.into_vec();
            names.push(name.into());
            Term::Auth(names.into())
        }
        other => Term::Property(Box::new((other, Term::Text(name.into())))),
    }
}

/// The way down that a text describes: keys between slashes; empty ones do not count.
fn steps(term: Term) -> Steps {
    match term {
        Term::Text(text) => Steps::Fixed(text.split('/').filter(|key| !key.is_empty()).map(Into::into).collect()),
        other => Steps::Computed(other),
    }
}

/// A place below another; two fixed ways become one.
fn below(place: Place, steps: Steps) -> Place {
    match (place, steps) {
        (Place::Below(parts), Steps::Fixed(more)) if matches!(parts.1, Steps::Fixed(_)) => {
            let (base, steps) = *parts;
            let Steps::Fixed(keys) = steps else { unreachable!("the guard has looked") };
            let mut keys = keys.into_vec();
            keys.extend(more);
            Place::Below(Box::new((base, Steps::Fixed(keys.into()))))
        }
        (place, steps) => Place::Below(Box::new((place, steps))),
    }
}
