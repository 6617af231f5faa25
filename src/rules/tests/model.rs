//! The obvious implementation: walks syntax trees over whole copies of the data, with run-time types
//! only. Random rules, data and requests must get the same answer from it as from the real one.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use crate::base::WallMillis;
use crate::data::{KeyStr, Leaf, Node, Number, Path, Priority, compare_text};
use crate::op::{Identity, Query};
use crate::rules::parse::{Ast, Kind, Operator, parse};
use crate::rules::pattern;
use crate::rules::{Ask, Change, Dialect, Ruleset, What};

/// Dice. The seed is all there is to a case.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.roll(list.len())]
    }
}

// Random expressions, mostly well typed

fn truth(dice: &mut Dice, depth: usize) -> String {
    if depth == 0 {
        return dice.pick(&["true", "false", "auth != null", "data.exists()", "newData.exists()"]).to_owned();
    }
    let d = depth - 1;
    match dice.roll(15) {
        0 => format!("({} && {})", truth(dice, d), truth(dice, d)),
        1 => format!("({} || {})", truth(dice, d), truth(dice, d)),
        2 => format!("!{}", truth(dice, d)),
        3 => format!("({} ? {} : {})", truth(dice, d), truth(dice, d), truth(dice, d)),
        4 | 5 => format!("({} {} {})", value(dice, d), dice.pick(&["==", "!=", "===", "!=="]), value(dice, d)),
        6 => format!("({} {} {})", value(dice, d), dice.pick(&["<", "<=", ">", ">="]), value(dice, d)),
        7 => format!("{}.{}()", place(dice, d), dice.pick(&["exists", "isString", "isNumber", "isBoolean"])),
        8 => format!("{}.hasChildren()", place(dice, d)),
        9 => format!("{}.hasChildren([{}, {}])", place(dice, d), text(dice, d), text(dice, d)),
        10 => format!("{}.hasChild({})", place(dice, d), text(dice, d)),
        11 => {
            let name = dice.pick(&["contains", "beginsWith", "endsWith"]);
            format!("{}.{name}({})", text(dice, d), text(dice, d))
        }
        12 => format!("{}.matches({})", text(dice, d), dice.pick(&["/a/", "/^[ab]+$/i", "/^x|y$/", "/./"])),
        13 => dice.pick(&["query.orderByKey", "query.orderByPriority"]).to_owned(),
        _ => format!("({} == {})", value(dice, d), dice.pick(&["null", "1", "'a'", "true"])),
    }
}

fn place(dice: &mut Dice, depth: usize) -> String {
    if depth == 0 || dice.roll(3) == 0 {
        return dice.pick(&["data", "newData", "root", "newData"]).to_owned();
    }
    let d = depth - 1;
    match dice.roll(4) {
        0 => format!("{}.parent()", place(dice, d)),
        1 => format!("{}.child({})", place(dice, d), text(dice, d)),
        2 => format!("{}.child('{}')", place(dice, d), dice.pick(&["a", "b", "c", "a/b", "", "//c/", "a.b"])),
        _ => format!("({} ? {} : {})", truth(dice, d), place(dice, d), place(dice, d)),
    }
}

fn text(dice: &mut Dice, depth: usize) -> String {
    if depth == 0 || dice.roll(2) == 0 {
        return dice.pick(&["'a'", "'b'", "'c'", "''", "'xa'", "auth.uid", "auth.none", "data.val()", "$k"]).to_owned();
    }
    let d = depth - 1;
    match dice.roll(5) {
        0 => format!("({} + {})", text(dice, d), value(dice, d)),
        1 => format!("{}.replace({}, {})", text(dice, d), text(dice, d), text(dice, d)),
        2 => format!("{}.{}()", text(dice, d), dice.pick(&["toLowerCase", "toUpperCase"])),
        3 => format!("{}.val()", place(dice, d)),
        _ => format!("({} ? {} : {})", truth(dice, d), text(dice, d), text(dice, d)),
    }
}

fn value(dice: &mut Dice, depth: usize) -> String {
    if depth == 0 {
        let leaves = [
            "0",
            "1",
            "2.5",
            "null",
            "true",
            "now",
            "auth.n",
            "auth.token.deep.x",
            "auth['uid']",
            "auth.list[0]",
            "auth",
        ];
        return dice.pick(&leaves).to_owned();
    }
    let d = depth - 1;
    match dice.roll(9) {
        0 => format!("({} {} {})", value(dice, d), dice.pick(&["+", "-", "*", "/", "%"]), value(dice, d)),
        1 => format!("-{}", value(dice, d)),
        2 => format!("{}.val()", place(dice, d)),
        3 => format!("{}.getPriority()", place(dice, d)),
        4 => format!("{}.length", text(dice, d)),
        5 => format!("({} ? {} : {})", truth(dice, d), value(dice, d), value(dice, d)),
        6 => format!("auth[{}]", text(dice, d)),
        7 => truth(dice, d),
        _ => text(dice, d),
    }
}

// Random data

const KEYS: &[&str] = &["a", "b", "c"];

fn leaf(dice: &mut Dice) -> Leaf {
    match dice.roll(5) {
        0 => Leaf::Bool(dice.roll(2) == 0),
        1 => Leaf::Number(Number::Int(1)),
        2 => Leaf::Number(Number::from_double(2.5)),
        _ => Leaf::Text(dice.pick(&["a", "b", "xa", "AB"]).into()),
    }
}

fn priority(dice: &mut Dice) -> Option<Priority> {
    match dice.roll(4) {
        0 => Some(Priority::Number(Number::Int(1))),
        1 => Some(Priority::Text("a".into())),
        _ => None,
    }
}

fn tree(dice: &mut Dice, depth: usize) -> Node {
    if depth == 0 || dice.roll(4) == 0 {
        let node = if dice.roll(4) == 0 { Node::Empty } else { Node::Leaf(leaf(dice)) };
        return node.with_priority(priority(dice));
    }
    let mut node = Node::Empty;
    for key in KEYS {
        node.set(key, tree(dice, depth - 1));
    }
    node.with_priority(priority(dice))
}

fn random_path(dice: &mut Dice) -> Path {
    let keys: Vec<&str> = (0..dice.roll(4)).map(|_| dice.pick(KEYS)).collect();
    Path::parse(&keys.join("/")).unwrap()
}

// The obvious evaluator

#[derive(Clone, Debug)]
enum Value {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    Place { is_new: bool, keys: Vec<String> },
    Claims(Json),
    Tree,
    Query,
    Odd,
}

struct Model<'m> {
    old: &'m Node,
    new: &'m Node,
    auth: &'m Json,
    now: f64,
    keys: &'m [String],
    captures: &'m BTreeMap<String, String>,
}

struct Failed;

impl Model<'_> {
    fn node(&self, is_new: bool, keys: &[String]) -> Node {
        let root = if is_new { self.new } else { self.old };
        keys.iter().fold(root, |node, key| node.child(KeyStr::new(key))).clone()
    }

    fn eval(&self, ast: &Ast) -> Result<Value, Failed> {
        Ok(match &ast.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Number(value) => Value::Number(*value),
            Kind::Text(text) => Value::Text(text.clone()),
            Kind::Regex { .. } | Kind::Array(_) => Value::Odd,
            Kind::Name(name) => match name.as_str() {
                "auth" => claims(self.auth),
                "now" => Value::Number(self.now),
                "query" => Value::Query,
                "root" => Value::Place { is_new: false, keys: Vec::new() },
                "data" | "newData" => Value::Place { is_new: name == "newData", keys: self.keys.to_vec() },
                _ => Value::Text(self.captures[name].clone()),
            },
            Kind::Member(target, name) => self.member(self.eval(target)?, name)?,
            Kind::Index(target, index) => match (self.eval(target)?, self.eval(index)?) {
                (target, Value::Text(name)) if matches!(index.kind, Kind::Text(_)) => self.member(target, &name)?,
                (Value::Null, Value::Text(_) | Value::Number(_)) => Value::Null,
                (Value::Claims(Json::Array(list)), Value::Number(number)) => {
                    let is_index = number >= 0.0 && number.fract() == 0.0;
                    list.get(number as usize).filter(|_| is_index).map_or(Value::Null, claims)
                }
                (Value::Claims(Json::Array(_)), _) => return Err(Failed),
                (Value::Claims(object), Value::Text(name)) => object.get(&name).map_or(Value::Null, claims),
                (Value::Claims(object), Value::Number(number)) => object.get(show(number)).map_or(Value::Null, claims),
                _ => return Err(Failed),
            },
            Kind::Call(callee, arguments) => self.call(callee, arguments)?,
            Kind::Not(operand) => Value::Bool(!self.truth(operand)?),
            Kind::Negate(operand) => Value::Number(-self.number(operand)?),
            Kind::All(list) => {
                for ast in list {
                    if !self.truth(ast)? {
                        return Ok(Value::Bool(false));
                    }
                }
                Value::Bool(true)
            }
            Kind::Any(list) => {
                for ast in list {
                    if self.truth(ast)? {
                        return Ok(Value::Bool(true));
                    }
                }
                Value::Bool(false)
            }
            Kind::Binary(operator, sides) => self.binary(*operator, self.eval(&sides.0)?, self.eval(&sides.1)?)?,
            Kind::Choose(parts) => self.eval(if self.truth(&parts.0)? { &parts.1 } else { &parts.2 })?,
        })
    }

    fn truth(&self, ast: &Ast) -> Result<bool, Failed> {
        if let Value::Bool(value) = self.eval(ast)? { Ok(value) } else { Err(Failed) }
    }

    fn number(&self, ast: &Ast) -> Result<f64, Failed> {
        if let Value::Number(value) = self.eval(ast)? { Ok(value) } else { Err(Failed) }
    }

    fn text(&self, ast: &Ast) -> Result<String, Failed> {
        if let Value::Text(value) = self.eval(ast)? { Ok(value) } else { Err(Failed) }
    }

    fn member(&self, target: Value, name: &str) -> Result<Value, Failed> {
        match target {
            Value::Text(text) if name == "length" => {
                Ok(Value::Number(f64::from(u32::try_from(text.encode_utf16().count()).unwrap())))
            }
            Value::Claims(Json::Object(object)) => Ok(object.get(name).map_or(Value::Null, claims)),
            Value::Null if name != "length" => Ok(Value::Null),
            Value::Query => Ok(Value::Bool(false)),
            _ => Err(Failed),
        }
    }

    fn binary(&self, operator: Operator, left: Value, right: Value) -> Result<Value, Failed> {
        use Operator as O;
        use Value as V;
        let compared = |order: std::cmp::Ordering| match operator {
            O::Less => order.is_lt(),
            O::LessOrEqual => order.is_le(),
            O::Greater => order.is_gt(),
            _ => order.is_ge(),
        };
        Ok(match (operator, left, right) {
            (O::Equal, left, right) => V::Bool(same(&left, &right)?),
            (O::NotEqual, left, right) => V::Bool(!same(&left, &right)?),
            (O::Add, V::Number(left), V::Number(right)) => V::Number(left + right),
            (O::Add, V::Text(left), V::Text(right)) => V::Text(left + &right),
            (O::Add, V::Text(left), V::Number(right)) => V::Text(left + &show(right)),
            (O::Add, V::Number(left), V::Text(right)) => V::Text(show(left) + &right),
            (O::Less | O::LessOrEqual | O::Greater | O::GreaterOrEqual, V::Number(left), V::Number(right)) => {
                V::Bool(left.partial_cmp(&right).is_some_and(compared))
            }
            (O::Less | O::LessOrEqual | O::Greater | O::GreaterOrEqual, V::Text(left), V::Text(right)) => {
                V::Bool(compared(compare_text(&left, &right)))
            }
            (O::Subtract, V::Number(left), V::Number(right)) => V::Number(left - right),
            (O::Multiply, V::Number(left), V::Number(right)) => V::Number(left * right),
            (O::Divide, V::Number(_), V::Number(0.0)) => V::Number(f64::NAN),
            (O::Divide, V::Number(left), V::Number(right)) => V::Number(left / right),
            (O::Remainder, V::Number(left), V::Number(right)) => V::Number(left % right),
            _ => return Err(Failed),
        })
    }

    fn call(&self, callee: &Ast, arguments: &[Ast]) -> Result<Value, Failed> {
        let Kind::Member(target, name) = &callee.kind else { return Err(Failed) };
        match self.eval(target)? {
            Value::Place { is_new, keys } => self.call_place(is_new, &keys, name, arguments),
            Value::Text(subject) => self.call_text(&subject, name, arguments),
            _ => Err(Failed),
        }
    }

    fn call_place(&self, is_new: bool, keys: &[String], name: &str, arguments: &[Ast]) -> Result<Value, Failed> {
        let node = self.node(is_new, keys);
        let below = |path: &str| {
            let mut keys = keys.to_vec();
            keys.extend(path.split('/').filter(|key| !key.is_empty()).map(str::to_owned));
            keys
        };
        Ok(match name {
            "val" => match node.as_leaf() {
                Some(Leaf::Bool(value)) => Value::Bool(*value),
                Some(Leaf::Number(value)) => Value::Number(value.as_double()),
                Some(Leaf::Text(text)) => Value::Text(text.to_string()),
                None if node.is_empty() => Value::Null,
                None => Value::Tree,
            },
            "getPriority" => match node.priority() {
                None => Value::Null,
                Some(Priority::Number(value)) => Value::Number(value.as_double()),
                Some(Priority::Text(text)) => Value::Text(text.to_string()),
            },
            "exists" => Value::Bool(!node.is_empty()),
            "isString" => Value::Bool(matches!(node.as_leaf(), Some(Leaf::Text(_)))),
            "isNumber" => Value::Bool(matches!(node.as_leaf(), Some(Leaf::Number(_)))),
            "isBoolean" => Value::Bool(matches!(node.as_leaf(), Some(Leaf::Bool(_)))),
            "parent" => {
                let (_, above) = keys.split_last().ok_or(Failed)?;
                Value::Place { is_new, keys: above.to_vec() }
            }
            "child" => Value::Place { is_new, keys: below(&self.text(&arguments[0])?) },
            "hasChild" => Value::Bool(!self.node(is_new, &below(&self.text(&arguments[0])?)).is_empty()),
            "hasChildren" => match arguments {
                [] => Value::Bool(!node.children().is_empty()),
                [Ast { kind: Kind::Array(names), .. }] => {
                    let mut has_all = true;
                    for name in names {
                        has_all &= !self.node(is_new, &below(&self.text(name)?)).is_empty();
                    }
                    Value::Bool(has_all)
                }
                _ => return Err(Failed),
            },
            _ => return Err(Failed),
        })
    }

    fn call_text(&self, subject: &str, name: &str, arguments: &[Ast]) -> Result<Value, Failed> {
        Ok(match name {
            "contains" => Value::Bool(subject.contains(&self.text(&arguments[0])?)),
            "beginsWith" => Value::Bool(subject.starts_with(&self.text(&arguments[0])?)),
            "endsWith" => Value::Bool(subject.ends_with(&self.text(&arguments[0])?)),
            "replace" => Value::Text(subject.replace(&self.text(&arguments[0])?, &self.text(&arguments[1])?)),
            "toLowerCase" => Value::Text(subject.to_lowercase()),
            "toUpperCase" => Value::Text(subject.to_uppercase()),
            "matches" => {
                let Kind::Regex { source, ignores_case } = &arguments[0].kind else { return Err(Failed) };
                Value::Bool(pattern::compile(source, *ignores_case).unwrap().regex.is_match(subject))
            }
            _ => return Err(Failed),
        })
    }
}

fn claims(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(value) => Value::Number(value.as_f64().unwrap()),
        Json::String(text) => Value::Text(text.clone()),
        other => Value::Claims(other.clone()),
    }
}

fn same(left: &Value, right: &Value) -> Result<bool, Failed> {
    use Value as V;
    let is_no_value = |value: &V| matches!(value, V::Place { .. } | V::Odd | V::Query);
    let is_composite = |value: &V| matches!(value, V::Tree | V::Claims(_));
    if is_no_value(left) || is_no_value(right) || (is_composite(left) && is_composite(right)) {
        return Err(Failed);
    }
    Ok(match (left, right) {
        (V::Null, V::Null) => true,
        (V::Bool(left), V::Bool(right)) => left == right,
        (V::Number(left), V::Number(right)) => left == right,
        (V::Text(left), V::Text(right)) => left == right,
        _ => false,
    })
}

fn show(number: f64) -> String {
    ryu_js::Buffer::new().format(number).to_owned()
}

// The obvious rules

/// A node of random rules: its three expressions, and its children.
#[derive(Default)]
struct Rules {
    sources: BTreeMap<&'static str, String>,
    children: BTreeMap<String, Self>,
}

const VERBS: &[&str] = &[".read", ".write", ".validate"];

fn random_rules(dice: &mut Dice, depth: usize, wildcard: &str) -> Rules {
    let mut rules = Rules::default();
    for verb in VERBS {
        let source = truth(dice, 4);
        let source = match (*verb, dice.roll(4)) {
            (".write", 0) => "true".to_owned(),
            (".validate", 1..) | (_, 1) => continue,
            (".read", _) => source.replace("newData", "data"),
            _ => source,
        };
        rules.sources.insert(verb, source);
    }
    if depth > 0 {
        for key in ["a", "b", wildcard] {
            if dice.roll(3) > 0 {
                rules.children.insert(key.to_owned(), random_rules(dice, depth - 1, &format!("{wildcard}k")));
            }
        }
    }
    rules
}

impl Rules {
    /// The file's text. Expressions that are not accepted at their place are left out first.
    fn settle(&mut self, captures: &[String]) {
        self.sources.retain(|verb, source| {
            let mut text = json!({*verb: source}).to_string();
            for capture in captures.iter().rev() {
                text = format!("{{{}:{text}}}", Json::from(capture.as_str()));
            }
            Ruleset::parse(&format!("{{\"rules\":{text}}}"), Dialect::Firebase).is_ok()
        });
        for (key, child) in &mut self.children {
            let mut captures = captures.to_vec();
            captures.push(key.clone());
            child.settle(&captures);
        }
    }

    fn write(&self, out: &mut String) {
        out.push('{');
        for (verb, source) in &self.sources {
            write!(out, "{}:{},", Json::from(*verb), Json::from(source.as_str())).unwrap();
        }
        for (key, child) in &self.children {
            write!(out, "{}:", Json::from(key.as_str())).unwrap();
            child.write(out);
            out.push(',');
        }
        out.push('}');
    }

    /// The nodes from here down to `keys`, with the captures of each.
    fn matched<'r>(&'r self, keys: &[String]) -> Vec<(&'r Self, BTreeMap<String, String>)> {
        let mut list = vec![(self, BTreeMap::new())];
        for key in keys {
            let (rules, mut captures) = list.last().unwrap().clone();
            let wildcard = rules.children.iter().find(|(name, _)| name.starts_with('$'));
            let child = match (rules.children.get(key), wildcard) {
                (Some(child), _) => child,
                (None, Some((name, child))) => {
                    captures.insert(name.clone(), key.clone());
                    child
                }
                (None, None) => break,
            };
            list.push((child, captures));
        }
        list
    }
}

struct Case<'c> {
    rules: &'c Rules,
    old: &'c Node,
    new: &'c Node,
    auth: &'c Json,
}

impl Case<'_> {
    fn holds(&self, rules: &Rules, verb: &str, keys: &[String], captures: &BTreeMap<String, String>) -> Option<bool> {
        let ast = parse(rules.sources.get(verb)?).unwrap();
        let model = Model { old: self.old, new: self.new, auth: self.auth, now: 5.0, keys, captures };
        Some(model.truth(&ast).unwrap_or(false))
    }

    fn is_permitted(&self, verb: &str, keys: &[String]) -> bool {
        let matched = self.rules.matched(keys);
        let mut holds = matched
            .iter()
            .enumerate()
            .map(|(level, (rules, captures))| self.holds(rules, verb, &keys[..level], captures));
        holds.any(|holds| holds == Some(true))
    }

    /// Whether the `.validate` of one place allows what would stand there.
    fn is_valid(&self, keys: &[String]) -> bool {
        let exists = !keys.iter().fold(self.new, |node, key| node.child(KeyStr::new(key))).is_empty();
        let matched = self.rules.matched(keys);
        match matched.get(keys.len()) {
            Some((rules, captures)) if exists => self.holds(rules, ".validate", keys, captures) != Some(false),
            _ => true,
        }
    }

    fn is_valid_below(&self, keys: &[String]) -> bool {
        let node = keys.iter().fold(self.new, |node, key| node.child(KeyStr::new(key)));
        node.children().iter().all(|(key, _)| {
            let mut keys = keys.to_vec();
            keys.push(key.as_str().to_owned());
            self.is_valid(&keys) && self.is_valid_below(&keys)
        })
    }

    fn may_write(&self, changes: &[(Path, Option<Node>, Option<Priority>)]) -> bool {
        changes.iter().all(|(path, value, _)| {
            let keys: Vec<String> = path.keys().map(|key| key.as_str().to_owned()).collect();
            self.is_permitted(".write", &keys)
                && (0..=keys.len()).all(|level| self.is_valid(&keys[..level]))
                && (value.is_none() || self.is_valid_below(&keys))
        })
    }
}

fn run(seed: u64) -> (bool, bool) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut tree_of_rules = random_rules(&mut dice, 3, "$k");
    tree_of_rules.settle(&[]);
    let mut text = "{\"rules\":".to_owned();
    tree_of_rules.write(&mut text);
    text.push('}');
    let rules = Ruleset::parse(&text, Dialect::Firebase).unwrap_or_else(|error| panic!("seed {seed}: {error}\n{text}"));
    let old = tree(&mut dice, 3);
    let auth = match dice.roll(3) {
        0 => Json::Null,
        1 => json!({"uid": "a", "n": 1, "list": ["b", 2], "token": {"deep": {"x": "c"}}}),
        _ => json!({"uid": 7, "n": "b", "a": "a", "list": "c"}),
    };
    let identity = Identity { auth: auth.clone(), ..Identity::NOBODY };
    let mut changes: Vec<(Path, Option<Node>, Option<Priority>)> = Vec::new();
    for _ in 0..=dice.roll(4) {
        let path = random_path(&mut dice);
        if changes.iter().any(|(other, ..)| other.contains(&path) || path.contains(other)) {
            continue;
        }
        let is_priority = dice.roll(6) == 0;
        let depth = dice.roll(3);
        let value = if is_priority { None } else { Some(tree(&mut dice, depth)) };
        changes.push((path, value, priority(&mut dice)));
    }
    let mut new = old.clone();
    // Puts, then removals, then priorities: so that no parent loses its priority on the way.
    for is_removal in [false, true] {
        for (path, value, _) in &changes {
            if let Some(value) = value
                && value.is_empty() == is_removal
            {
                new.set(path.as_str(), value.clone());
            }
        }
    }
    for (path, value, priority) in &changes {
        if value.is_none() {
            new.set_priority(path.as_str(), priority.clone());
        }
    }
    let asked: Vec<Change<'_>> = changes
        .iter()
        .map(|(path, value, priority)| {
            let what = value.as_ref().map_or(What::Priority(priority.as_ref()), What::Value);
            Change { path, what }
        })
        .collect();
    let ask = Ask { root: &old, identity: &identity, now: WallMillis(5) };
    let verdict = rules.may_write(&ask, &asked);
    let case = Case { rules: &tree_of_rules, old: &old, new: &new, auth: &auth };
    let expected = case.may_write(&changes);
    assert_eq!(verdict.is_allowed(), expected, "seed {seed}: {verdict:?}\n{text}\n{old:?}\n{changes:?}\n{auth}");
    let path = random_path(&mut dice);
    let keys: Vec<String> = path.keys().map(|key| key.as_str().to_owned()).collect();
    let read = rules.may_read(&ask, &path, &Query::ALL);
    let case = Case { new: &old, ..case };
    let may_read = case.is_permitted(".read", &keys);
    assert_eq!(read.is_allowed(), may_read, "seed {seed}: {read:?} of {path}\n{text}\n{old:?}\n{auth}");
    (expected, may_read)
}

#[test]
fn random_rules_decide_as_the_obvious_implementation_does() {
    let count = 300;
    let (mut written, mut read) = (0, 0);
    for seed in 1..=count {
        let (may_write, may_read) = run(seed);
        written += u64::from(may_write);
        read += u64::from(may_read);
    }
    // Otherwise nothing has been compared.
    assert!(written > count / 20 && written < count, "{written} of {count} writes allowed");
    assert!(read > count / 20 && read < count, "{read} of {count} reads allowed");
}

/// What a mutated file gets in some place.
const PIECES: &[&str] = &[
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "'",
    "\"",
    "\\",
    "/",
    "//",
    "/*",
    "*/",
    "$",
    ".",
    ",",
    ":",
    "?",
    "!",
    "=",
    "==",
    "&&",
    "||",
    "<",
    "-",
    "+",
    "*",
    "%",
    "0",
    "1e",
    "9",
    "é",
    "😀",
    "\n",
    "\t",
    "\u{0}",
    "\\u",
    "\\ud83d",
    "data",
    "auth",
    "true",
    "null",
    ".val()",
    ".matches(/",
    "^",
    "|",
    "{2",
    "rules",
    ".read",
    "$k",
    "newData",
    " ",
];

#[test]
fn no_text_makes_the_reader_fall_over() {
    let mut dice = Dice(0x5eed);
    for round in 0..3_000 {
        let mut rules = random_rules(&mut dice, 2, "$k");
        rules.settle(&[]);
        let mut text = "{\"rules\":".to_owned();
        rules.write(&mut text);
        text.push('}');
        for _ in 0..=dice.roll(4) {
            let mut at = dice.roll(text.len());
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            let mut end = (at + dice.roll(4)).min(text.len());
            while !text.is_char_boundary(end) {
                end += 1;
            }
            text.replace_range(at..end, dice.pick(PIECES));
        }
        for dialect in [Dialect::Firebase, Dialect::Both] {
            if let Err(error) = Ruleset::parse(&text, dialect) {
                assert!(error.line >= 1 && error.column >= 1 && !error.text.is_empty(), "round {round}: {text}");
            }
        }
    }
}
